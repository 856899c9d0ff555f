"""Draws a workflow as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html).  Pure."""

from __future__ import annotations

import re
from typing import Any, List, Optional, Protocol, Tuple

__all__ = ["draw"]

#: Read as markup or as the text's end; ":" begins the name of an icon, in "fa:fa-car".
_ENTITIES = str.maketrans(
    {
        "#": "#35;",
        '"': "#quot;",
        "<": "#lt;",
        ">": "#gt;",
        "&": "#amp;",
        "`": "#96;",
        ":": "#58;",
        "*": "#42;",
        "\n": " ",
        "\r": " ",
    }
)

#: "1. first" is read as a list, which Mermaid refuses to draw; a space of no width keeps it text.
_LIST = re.compile(r"^(\d+[.)]?|[-+])(?=[.)]? )")

_BOXES = {"Agent": ("(", ")"), "Function": ("[", "]")}


class Step(Protocol):
    """What is drawn of a step; as definition.py has it."""

    kind: str
    name: str
    timeout: Optional[float]
    retries: int
    what: Any

    def within(self) -> Tuple[Tuple[str, Any], ...]:
        """The steps within this one, each with the last part of its place."""


def draw(steps: Tuple[Any, ...]) -> str:
    """Steps, from top to bottom: the text of a `flowchart TD`, with a line break at its end.

    Agents have round corners, functions square ones; a `Parallel` opens into its
    branches and closes again, a `Map` is a frame around the steps of an item, a
    `Branch` is a rhombus, a `Repeat` a frame with an arrow back, a `Wait` a hexagon, a
    workflow within it a frame, and so is a list with a name, a timeout or retries.
    """
    drawing = _Drawing()
    drawing.line('start(["input"])')
    last = drawing.sequence(steps, "start", "")
    drawing.line('finish(["output"])')
    drawing.arrow(last, "finish", "")
    lines = [*drawing.lines, *drawing.arrows]
    return "flowchart TD\n" + "".join(f"    {line}\n" for line in lines)


class _Drawing:
    """Lines so far; each method draws a part below a node and returns the node it ends with."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self.arrows: List[str] = []  # apart: a node that a frame mentions would be in it
        self._nodes = 0
        self._depth = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self._depth + text)

    def arrow(self, start: str, end: str, label: str) -> None:
        arrow = f"-->|{_quoted(label)}|" if label else "-->"
        self.arrows.append(f"{start} {arrow} {end}")

    def sequence(self, steps: Tuple[Any, ...], above: str, label: str) -> str:
        for step in steps:
            above = self._step(step, above, label)
            label = ""
        return above

    def _step(self, step: Step, above: str, label: str) -> str:
        draw = getattr(self, f"_{step.kind.lower()}", self._box)
        last: str = draw(step, above, label)
        return last

    def _node(self, text: str, left: str, right: str) -> str:
        self._nodes += 1
        name = f"n{self._nodes}"
        self.line(f"{name}{left}{_quoted(text)}{right}")
        return name

    def _box(self, step: Step, above: str, label: str) -> str:
        node = self._node(_caption(step), *_BOXES[step.kind])
        self.arrow(above, node, label)
        return node

    def _sequence(self, step: Step, above: str, label: str) -> str:
        framed = step.name != "sequence" or step.timeout is not None or step.retries
        if framed:
            self._open(_caption(step))
        last = self.sequence(tuple(inner for _, inner in step.within()), above, label)
        if framed:
            self._close()
        return last

    def _parallel(self, step: Step, above: str, label: str) -> str:
        fork = self._node(_caption(step), "[[", "]]")
        self.arrow(above, fork, label)
        ends = [self._step(inner, fork, name) for name, inner in step.within()]
        join = self._node("results by name", "[[", "]]")
        for end in ends:
            self.arrow(end, join, "")
        return join

    def _map(self, step: Step, above: str, label: str) -> str:
        self._open(f"{_caption(step)}, {getattr(step, 'at_most', '?')} at once")
        first = self._node("each item", "[[", "]]")
        self.arrow(above, first, label)
        last = self.sequence(tuple(inner for _, inner in step.within()), first, "")
        join = self._node("results in order", "[[", "]]")
        self.arrow(last, join, "")
        self._close()
        return join

    def _branch(self, step: Step, above: str, label: str) -> str:
        asked = _name_of(getattr(step, "predicate", None))
        choice = self._node(_caption(step) + (f": {asked}?" if asked else ""), "{", "}")
        self.arrow(above, choice, label)
        ways = dict(step.within())
        ends = [self._step(ways["then"], choice, "then")]
        if "otherwise" in ways:
            ends.append(self._step(ways["otherwise"], choice, "otherwise"))
        join = self._node(" ", "((", "))")
        for end in ends:
            self.arrow(end, join, "")
        if "otherwise" not in ways:
            self.arrow(choice, join, "otherwise")
        return join

    def _repeat(self, step: Step, above: str, label: str) -> str:
        until = _name_of(getattr(step, "until", None))
        title = f"{_caption(step)}, at most {getattr(step, 'at_most', '?')} rounds"
        self._open(title + (f", until {until}" if until else ""))
        first = self._node("next round", "[/", "/]")
        self.arrow(above, first, label)
        last = self.sequence(tuple(inner for _, inner in step.within()), first, "")
        self.arrow(last, first, "again")
        self._close()
        return last

    def _wait(self, step: Step, above: str, label: str) -> str:
        wait_s: Optional[float] = getattr(step, "wait_s", None)
        most = "" if wait_s is None else f" ({wait_s:g} s)"
        node = self._node(f"wait for {step.name}{most}", "{{", "}}")
        self.arrow(above, node, label)
        return node

    def _workflow(self, step: Step, above: str, label: str) -> str:
        self._open(_caption(step))
        last = self.sequence(step.what.steps, above, label)
        self._close()
        return last

    def _open(self, title: str) -> None:
        self._nodes += 1
        self.line(f"subgraph s{self._nodes}[{_quoted(title)}]")
        self._depth += 1

    def _close(self) -> None:
        self._depth -= 1
        self.line("end")


def _caption(step: Step) -> str:
    extras = []
    if step.timeout is not None:
        extras.append(f"{step.timeout:g} s")
    if step.retries:
        extras.append(f"{step.retries} {'retry' if step.retries == 1 else 'retries'}")
    return step.name + (f" ({', '.join(extras)})" if extras else "")


def _name_of(function: object) -> str:
    """What a predicate is called, where that says anything."""
    name = getattr(function, "__name__", "")
    return name if isinstance(name, str) and name != "<lambda>" else ""


def _quoted(text: str) -> str:
    """Text in Mermaid's quotes, its own special characters as entities."""
    return '"' + _LIST.sub(r"\1#8203;", text.translate(_ENTITIES)) + '"'
