"""A workflow's shape as a JSON value, and what differs between two of them.  Pure."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from agentstream.workflow.definition import Step, Workflow

__all__ = ["differences", "shape_of"]

_MOST = 10


def shape_of(workflow: Workflow) -> List[List[str]]:
    """The workflow's shape: `[label, name, kind]` of itself and of each step, those within too.

    The workflow's own label is "".  A step's is that of the events, "1.facts" say; one in a
    workflow within has its label there behind that of the step that holds the workflow.
    """
    return [["", workflow.name, "Workflow"], *_shapes(_numbered(workflow.steps), "")]


def _numbered(steps: Iterable[Step]) -> Iterator[Tuple[str, Step]]:
    return ((str(number), step) for number, step in enumerate(steps))


def _shapes(steps: Iterable[Tuple[str, Step]], before: str) -> Iterator[List[str]]:
    for part, step in steps:
        label = before + part
        yield [label, step.name, step.kind]
        inner = _numbered(step.what.steps) if step.kind == "Workflow" else step.within()
        yield from _shapes(inner, f"{label}.")


def differences(kept: Any, now: Any) -> List[str]:
    """What differs between two shapes, a sentence each; ten at most, and none if they are alike.

    Of a step that is gone, new or of another kind, the steps within it are not told as well.

    Args:
        kept: what `shape_of` gave when the run began.
        now: what it gives.
    """
    before, after = _by_label(kept), _by_label(now)
    if before is None or after is None:
        return ["the workflow's shape is not one that this version wrote"]
    said: List[str] = []
    told: List[str] = []
    for label in [*before, *(label for label in after if label not in before)]:
        if any(label.startswith(outer) for outer in told):
            continue
        was, is_ = before.get(label), after.get(label)
        if was == is_:
            continue
        said.append(_sentence(label, was, is_))
        if label and (was is None or is_ is None or was[1] != is_[1]):
            told.append(f"{label}.")
    return said if len(said) <= _MOST else [*said[: _MOST - 1], f"and {len(said) - _MOST + 1} more"]


#: The (name, kind) of each step by its label.
_Shape = Dict[str, Tuple[str, str]]


def _by_label(shape: Any) -> Optional[_Shape]:
    try:
        return {label: (name, kind) for label, name, kind in shape}
    except (TypeError, ValueError):
        return None


def _sentence(label: str, was: Optional[Tuple[str, str]], now: Optional[Tuple[str, str]]) -> str:
    step = f"step {label}" if label else "the workflow"
    if now is None:
        return f"{step} is gone"
    if was is None:
        return f"{step} is new"
    (old_name, old_kind), (name, kind) = was, now
    parts = [] if kind == old_kind else [_article(kind)]
    parts += [] if name == old_name else [f"named {name!r}"]
    if not label:
        return f"{step} was named {old_name!r}, and is {' '.join(parts)} now"
    return f"{step} was {_article(old_kind)} named {old_name!r}, and is {' '.join(parts)} now"


def _article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'AEIOU' else 'a'} {kind}"
