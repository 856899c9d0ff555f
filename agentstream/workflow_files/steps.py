"""Steps as a file describes them, in every nesting: read and checked, not made."""

from __future__ import annotations

import difflib
import re
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple

from agentstream import checks
from agentstream.agent.settings import ON_CUT
from agentstream.workflow.context import PLACEHOLDER
from agentstream.workflow.definition import Step
from agentstream.workflow.shapes import Map, Repeat
from agentstream.workflow_files.conditions import Condition, read_condition
from agentstream.workflow_files.problems import (
    FLAG,
    TEXT,
    TIME,
    WHOLE,
    Path,
    Problems,
    Table,
    check_import,
    told,
)
from agentstream.workflow_files.spec import StepSpec

__all__ = ["STEP_KINDS", "StepReader", "stand_in"]

STEP_KINDS = ("agent", "function", "parallel", "map", "branch", "repeat", "wait", "workflow")

_DEEPEST = 40
_COMMON = {"timeout": TIME.or_false(), "retries": WHOLE}
_ONLY_FOR = {
    "prompt": ("agent",),
    "on_cut": ("agent",),
    "fail_fast": ("parallel", "map"),
    "fail_at_limit": ("repeat",),
    "otherwise": ("wait",),
}

#: The names of a step's input: none of a text, and None where that is not known.
Names = Optional[FrozenSet[str]]
_TEXT: Names = frozenset()
_START: Names = frozenset([""])  # the command line's input is a text; a program's need not be


def stand_in(input: Any) -> Any:
    """What stands for a function while it is only looked at."""
    raise RuntimeError("this is a stand-in, for looking at")


#: What may be meant for a placeholder: {word...}.
_BRACED = re.compile(r"\{\s*([^\W\d]\w*)\s*([^{}]*?)\s*\}")


def _oddities(prompt: str) -> Iterator[str]:
    """What is odd about a prompt's template: slips for placeholders; that it names nothing."""
    slips = []
    for found in _BRACED.finditer(prompt):
        whole, word, rest = found.group(0), found[1], found[2]
        close = difflib.get_close_matches(word.lower()[:60], ("input", "context"), 1, 0.7)
        if not close or (PLACEHOLDER.fullmatch(whole) and whole != "{context}"):
            continue
        slips.append(close[0])
        likely = f"{{{close[0]}{rest}}}"
        if likely == "{context}" or not PLACEHOLDER.fullmatch(likely):
            likely = "{context.KEY}" if close[0] == "context" else "{input}"
        yield f"{whole[:60]} is no placeholder, and stays as it is; did you mean {likely[:60]}?"
    if "{{input" in prompt:
        yield "{{input}}: one brace on each side is enough; the outer ones stay"
    named = [found for found in PLACEHOLDER.finditer(prompt) if found[0] != "{context}"]
    if not named and "input" not in slips:  # who names the context knows what is asked
        yield "the step's input is not in it: write {input} where it belongs"


class StepReader:
    """Reads the steps of one file.

    Attributes:
        used: the agents that steps name.
        imports: the functions that steps and conditions name, with their places.
        asked: the context's keys that prompts and conditions name, with their places.
    """

    def __init__(
        self,
        problems: Problems,
        agents: Mapping[str, object],
        nested: Callable[[Table, str], Any],
        *,
        outermost: bool = False,
    ) -> None:
        self._start = _START if outermost else None
        self._problems = problems
        self._agents = agents
        self._nested = nested
        self.used: Dict[str, None] = {}
        self.imports: List[Tuple[Path, str]] = []
        self.asked: List[Tuple[Path, str]] = []

    def read_all(self, value: Any) -> Tuple[StepSpec, ...]:
        """What [[steps]] hold."""
        if not isinstance(value, list) or not value:
            text = "a workflow needs [[steps]], at least one"
            if value not in (None, []):
                text = f"must be a list of tables, [[steps]], not {told(value)}"
            self._problems.add(("steps",), text)
            return ()
        return tuple(step for _, step in self._list(value, ("steps",), self._start, 0)[0])

    def _list(
        self, value: List[Any], where: Path, names: Names, depth: int
    ) -> Tuple[List[Tuple[str, StepSpec]], Names]:
        found = []
        for number, item in enumerate(value, 1):
            spec, names = self.read(item, (*where, number), names, depth + 1)
            if spec is not None:
                found.append((str(number), spec))
        return found, names

    def read(
        self, value: Any, where: Path, names: Names, depth: int = 0
    ) -> Tuple[Optional[StepSpec], Names]:
        """The step of a table, or those of a list; and the names of what it puts out."""
        if depth > _DEEPEST:
            self._problems.add(where, f"steps are nested more than {_DEEPEST} deep")
            return None, None
        if isinstance(value, list):
            if not value:
                self._problems.add(where, "a list of steps needs at least one")
                return None, None
            steps, names = self._list(value, where, names, depth)
            return StepSpec("sequence", "sequence", {}, steps=tuple(steps)), names
        if not isinstance(value, dict):
            self._problems.add(where, f"must be a step (a table) or a list, not {told(value)}")
            return None, None
        return self._step(Table(self._problems, where, value), names, depth)

    def _step(self, table: Table, names: Names, depth: int) -> Tuple[Optional[StepSpec], Names]:
        kinds = [kind for kind in STEP_KINDS if kind in table.values]
        for kind in STEP_KINDS:
            table.raw(kind)
        name = table.get("name", TEXT)
        settings = table.settings(_COMMON, lambda **given: Step(stand_in, **given))
        if name == "":
            table.refuse("name", "must not be empty")
        spec: Optional[StepSpec] = None
        after: Names = None
        if len(kinds) == 1:
            spec, after = getattr(self, f"_{kinds[0]}")(table, names, depth)
        table.done(
            {
                key: f"is for a step with {' or '.join(map(repr, owners))}"
                for key, owners in _ONLY_FOR.items()
                if not set(owners) & set(kinds)
            }
        )
        if len(kinds) != 1:
            given = f"not {' and '.join(kinds)}" if kinds else "none is there"
            self._problems.add(table.where, f"must have one of {', '.join(STEP_KINDS)}; {given}")
        if spec is None:
            return None, after
        return spec._replace(name=name or spec.name, settings={**settings, **spec.settings}), after

    # --- the kinds of steps -----------------------------------------------------------------

    def _agent(self, table: Table, names: Names, _: int) -> Tuple[Optional[StepSpec], Names]:
        name = table.get("agent", TEXT)
        prompt = table.get("prompt", TEXT)
        if prompt is not None:
            self._check_prompt(table, prompt, names)
        if name is None:
            return None, _TEXT
        self.used[name] = None
        if name not in self._agents:
            table.refuse("agent", self._problems.missing("agent", name, self._agents))
        settings = {} if prompt is None else {"prompt": prompt}
        settings.update(
            table.settings({"on_cut": TEXT}, lambda on_cut: checks.one_of("on_cut", on_cut, ON_CUT))
        )
        return StepSpec("agent", name, settings, name), self._names_of(name)

    def _names_of(self, agent: str) -> Names:
        """The names of an agent's answer: of a schema in the file its keys."""
        table = self._agents.get(agent)
        output = table.get("output") if isinstance(table, dict) else None
        if output is None:
            return _TEXT
        keys = output.get("properties") if isinstance(output, dict) else None
        return frozenset(keys) if isinstance(keys, dict) else None

    def _check_prompt(self, table: Table, prompt: str, names: Names) -> None:
        for text in _oddities(prompt):
            self._problems.warn((*table.where, "prompt"), text)
        for found in PLACEHOLDER.finditer(prompt):
            source, part = found.groups()
            if part is None:
                continue
            if source == "context":
                self.asked.append(((*table.where, "prompt"), part))
            elif names == _START:
                text = f"{found.group(0)[:60]}: the input has no names, unless a program gives some"
                self._problems.warn((*table.where, "prompt"), text)
            elif names is not None and not {part, part.partition(".")[0]} & names:
                text = f"{found.group(0)[:60]}: "
                text += (
                    self._problems.missing("result", part, sorted(names))
                    if names
                    else "its input is a text, without names"
                )
                table.refuse("prompt", text)

    def _function(self, table: Table, _: Names, __: int) -> Tuple[Optional[StepSpec], Names]:
        source = table.get("function", TEXT)
        if source is None or not check_import(table, "function", source):
            return None, None
        self.imports.append(((*table.where, "function"), source))
        return StepSpec("function", source.partition(":")[2], {}, source), None

    def _workflow(self, table: Table, _: Names, __: int) -> Tuple[Optional[StepSpec], Names]:
        path = table.get("workflow", TEXT)
        inner = None if path is None else self._nested(table, path)
        return (None if inner is None else StepSpec("workflow", inner.name, {}, inner)), None

    def _parallel(self, table: Table, names: Names, depth: int) -> Tuple[Optional[StepSpec], Names]:
        value = table.raw("parallel")
        where = (*table.where, "parallel")
        settings = {}
        if table.get("fail_fast", FLAG) is not None:
            settings["fail_fast"] = table.get("fail_fast", FLAG)
        if not isinstance(value, (dict, list)) or not value:
            what = told(value) if value not in ({}, []) else "an empty one"
            table.refuse("parallel", f"must be a table of steps by name, or a list, not {what}")
            return None, None
        named = value.items() if isinstance(value, dict) else enumerate(value, 1)
        steps: Dict[str, StepSpec] = {}
        for key, item in named:
            spec, _ = self.read(item, (*where, key), names, depth + 1)
            if spec is None:
                continue
            name = key if isinstance(key, str) else spec.name
            if not name:
                self._problems.add((*where, key), "a branch's name must not be empty")
            if name in steps:
                self._problems.add(
                    (*where, key), f"two branches are named {name[:60]!r}: give one a name"
                )
            steps[name] = spec
        return StepSpec("parallel", "parallel", settings, steps=tuple(steps.items())), (
            frozenset(steps) if len(steps) == len(value) else None
        )

    def _map(self, table: Table, names: Names, depth: int) -> Tuple[Optional[StepSpec], Names]:
        if names == _START:
            text = "the input is a text and no list, unless a program gives one"
            self._problems.warn((*table.where, "map"), text)
        elif names is not None:
            what = "a text" if names == _TEXT else "results by name"
            table.refuse("map", f"needs a list, and its input is {what}: a function can make one")
        inner = table.table("map")
        step, _ = self._inner(inner, "step", None, depth)
        settings: Dict[str, Any] = {}
        at_most = inner.get("at_most", WHOLE)
        if at_most is not None:
            inner.accepted("at_most", lambda: Map(stand_in, at_most=at_most))
            settings["at_most"] = at_most
        for owner in (inner, table):
            fails = owner.get("fail_fast", FLAG)
            if fails is not None:
                settings["fail_fast"] = fails
        inner.done()
        steps = (("step", step),) if step is not None else ()
        return StepSpec("map", "map", settings, steps=steps), None

    def _branch(self, table: Table, names: Names, depth: int) -> Tuple[Optional[StepSpec], Names]:
        inner = table.table("branch")
        condition = self._condition(inner, "if")
        then, after = self._inner(inner, "then", names, depth)
        steps = [("then", then)]
        other = names
        if "otherwise" in inner.values:
            otherwise, other = self._inner(inner, "otherwise", names, depth)
            steps.append(("otherwise", otherwise))
        inner.raw("otherwise")
        inner.done()
        whole = tuple((key, step) for key, step in steps if step is not None)
        spec = StepSpec("branch", "branch", {}, steps=whole, condition=condition)
        return spec, after if after == other else None

    def _repeat(self, table: Table, names: Names, depth: int) -> Tuple[Optional[StepSpec], Names]:
        inner = table.table("repeat")
        step, after = self._inner(inner, "step", None, depth)
        condition = self._condition(inner, "until") if "until" in inner.values else None
        inner.raw("until")
        settings: Dict[str, Any] = {"at_most": inner.need("at_most", WHOLE)}
        if settings["at_most"] is not None:
            inner.accepted("at_most", lambda: Repeat(stand_in, at_most=settings["at_most"]))
        for owner in (inner, table):
            fails = owner.get("fail_at_limit", FLAG)
            if fails is not None:
                settings["fail_at_limit"] = fails
        inner.done()
        steps = (("step", step),) if step is not None else ()
        return StepSpec("repeat", "repeat", settings, steps=steps, condition=condition), after

    def _wait(self, table: Table, _: Names, __: int) -> Tuple[Optional[StepSpec], Names]:
        name = table.get("wait", TEXT)
        if name == "":
            table.refuse("wait", "must not be empty: it names the value")
        for key in ("name", "retries"):
            if key in table.values:
                text = 'is not for a wait, which has the name of its value: wait = "approval"'
                table.refuse(key, text if key == "name" else "is not for a wait")
        settings: Dict[str, Any] = {}
        if "otherwise" in table.values:
            settings["otherwise"] = table.raw("otherwise")
            if table.values.get("timeout", False) is False:
                table.refuse("otherwise", "is the output after a timeout, and needs one")
        return (None if name is None else StepSpec("wait", name, settings, name)), None

    def _inner(
        self, table: Table, key: str, names: Names, depth: int
    ) -> Tuple[Optional[StepSpec], Names]:
        value = table.raw(key)
        if value is None:
            table.refuse(key, "is missing: it must be a step, or a list of steps")
            return None, None
        return self.read(value, (*table.where, key), names, depth + 1)

    def _condition(self, table: Table, key: str) -> Optional[Condition]:
        if key not in table.values:
            table.refuse(key, 'is missing: it must be a condition, like {contains = "yes"}')
            return None
        inner = table.table(key)
        condition = read_condition(inner)
        if condition is not None and condition.key is not None:
            self.asked.append(((*inner.where, "context"), condition.key))
        if condition is not None and condition.kind == "call":
            self.imports.append(((*inner.where, "call"), condition.wanted))
        return condition
