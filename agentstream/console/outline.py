"""Outline: who speaks when, as a tree of runs, steps and what they say, in the order to print it.

Pure bookkeeping: events come in, texts wait at their places; printing them is
console.py's.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple, Union

from agentstream.events import accessors
from agentstream.events.model import TERMINAL, Event, EventType

__all__ = ["Outline", "Part", "Place"]

#: Seconds after which a run that says nothing at all no longer holds up others.
PATIENCE_S = 30.0


class Part(NamedTuple):
    """Something to print: a "heading", "text", a "remark", "again" (text so far is void), "end"."""

    kind: str
    text: str = ""


class Place:
    """A run or a step, and what waits there: parts, and the places within it, in order.

    Attributes:
        parts: what has not been printed.
        ended: nothing more will come.
        printed: something of it, or of what is within it, was printed.
        title: the agent that speaks here.
        open: a heading was given, and no end.
        abandoned: a run that goes on after the one it was started in: it moves out.
    """

    __slots__ = (
        "abandoned",
        "branch",
        "ended",
        "kind",
        "open",
        "parent",
        "parts",
        "printed",
        "title",
    )

    def __init__(self, parent: Optional[Place], branch: str = "") -> None:
        self.parent = parent
        self.branch = branch
        self.kind = ""
        self.title = ""
        self.parts: Deque[Union[Part, Place]] = deque()
        self.ended = False
        self.printed = False
        self.open = False
        self.abandoned = False
        if parent is not None:
            parent.parts.append(self)

    def heading(self) -> str:
        """The agent, and the branches it is in where their names say more than its own."""
        names: List[str] = []
        place: Optional[Place] = self
        while place is not None:
            if place.branch and place.branch != self.title:
                names.append(place.branch)
            place = place.parent
        where = " / ".join(reversed(names))
        return f"{self.title} ({where})" if where else self.title

    def mark_printed(self) -> None:
        """It, and all that it is within, has been seen."""
        place: Optional[Place] = self
        while place is not None and not place.printed:
            place.printed = True
            place = place.parent

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        if self.open:
            self.open = False
            self.parts.append(Part("end"))


class _Run(Place):
    """A run's place, and what is known of it."""

    __slots__ = ("calls", "inner", "latest", "rooms", "steps", "top")

    def __init__(self, parent: Place, top: Optional[_Run]) -> None:
        super().__init__(parent)
        self.top: _Run = top or self
        self.latest = 0.0
        self.steps: Dict[str, Place] = {}
        self.rooms: Dict[str, Place] = {}  # of the runs within it that are known to come
        self.calls: List[Tuple[str, str, Place]] = []  # tools that run: id, name, whose
        self.inner: List[_Run] = []


class Outline:
    """Takes events; `root` is the tree to print from.

    What waits is kept without a bound: each run has it in memory anyway, for
    its result.
    """

    def __init__(self) -> None:
        self.root = Place(None)
        self._runs: Dict[str, _Run] = {}

    def add(self, event: Event) -> None:
        """Put what an event says into its place."""
        kind, data = event.type, event.data
        if kind is EventType.EVENTS_MISSED:
            return self._forget(data)
        if kind in TERMINAL:
            self._end_run(event.workflow_id)
        elif kind is EventType.WORKFLOW_SUSPENDED:
            self._rest(event)
        elif kind is EventType.WORKFLOW_STARTED:
            self._run(event)
        elif kind is EventType.WORKFLOW_RESUMED:
            self._resume(event)
        elif accessors.label_of(data) is not None:
            run = self._run(event)
            run.top.latest = event.timestamp
            step = accessors.text(data, "step")
            if accessors.is_of_agent(data):
                self._hear(run, run.steps.get(step) or self._step(run, step), event)
            else:
                self._note_step(run, step, kind, data)
        self._pass_on(event.timestamp)
        return None

    # --- runs -------------------------------------------------------------------------------

    def _run(self, event: Event) -> _Run:
        run = self._runs.get(event.workflow_id)
        if run is None:
            caller = self._runs.get(event.parent_workflow_id or "")
            parent = self.root
            if caller is not None:
                name = accessors.text(event.data, "workflow")
                room = caller.rooms.pop(event.workflow_id, None)
                parent = room or _caller(caller, name)
            run = _Run(parent, None if caller is None else caller.top)
            run.latest = event.timestamp
            if caller is not None:
                caller.inner.append(run)
            self._runs[event.workflow_id] = run
        return run

    def _end_run(self, workflow_id: str) -> None:
        run = self._runs.pop(workflow_id, None)
        if run is None:
            return
        for step in run.steps.values():
            step.end()
        for inner in run.inner:
            inner.abandoned = not inner.ended
        run.end()

    def _rest(self, event: Event) -> None:
        """A run that its process has left: what is told of it later has a place of its own."""
        run = self._runs.get(event.workflow_id)
        self._end_run(event.workflow_id)
        if run is not None and run.top is run:
            run.parts.append(Part("remark", f"({accessors.resting(event.data)})"))

    def _resume(self, event: Event) -> None:
        run = self._run(event)
        if run.top is run:
            run.parts.append(Part("remark", "(resumed)"))

    def _pass_on(self, now: float) -> None:
        """A run of which nothing comes, from a process that is gone say, gives up its turn."""
        parts = self.root.parts
        for _ in range(len(parts) - 1):
            first = parts[0]
            if not isinstance(first, _Run) or first.ended or now - first.latest < PATIENCE_S:
                return
            parts.rotate(-1)

    def adopt(self, run: Place) -> None:
        """Let a run go on that was started in one which has ended."""
        run.abandoned = False
        run.parent = self.root
        self.root.parts.append(run)
        if isinstance(run, _Run):
            run.top = run

    def _forget(self, data: Any) -> None:
        """Ends may be among what was missed: nobody is waited for."""
        for run in self._runs.values():
            for step in run.steps.values():
                step.end()
            run.end()
        self._runs.clear()
        last = Place(self.root)
        last.parts.append(Part("remark", f"({_count(data)} events are missing here)"))
        last.end()

    # --- steps ------------------------------------------------------------------------------

    def _step(self, run: _Run, label: str) -> Place:
        """A new place for a step, within the step that holds it."""
        head, dot, part = label.rpartition(".")
        while dot and head not in run.steps:  # a branch's name may have dots
            head, dot, tail = head.rpartition(".")
            part = f"{tail}.{part}"
        if dot:
            parent: Place = run.steps[head]
            branch = part if parent.kind == "Parallel" else ""
            if parent.kind in ("Repeat", "Map"):
                branch = f"{'round' if parent.kind == 'Repeat' else 'item'} {part}"
        else:  # what holds it began before we came
            parent = run
            tail = label.rpartition(".")[2] if "." in label else ""
            branch = "" if tail.isdigit() or tail in ("then", "otherwise") else tail
        run.steps[label] = step = Place(parent, branch)
        return step

    def _note_step(self, run: _Run, label: str, kind: EventType, data: Any) -> None:
        step = run.steps.get(label)
        if kind is EventType.WORKFLOW_STEP_STARTED:
            if step is None or step.ended:
                step = self._step(run, label)
            step.kind = accessors.text(data, "kind")
            inner = accessors.text(data, "run")
            if inner:
                run.rooms[inner] = step
        elif step is None:
            pass
        elif kind is EventType.WORKFLOW_STEP_COMPLETED:
            step.end()
        elif kind is EventType.WORKFLOW_STEP_FAILED:
            within = [one for one in run.steps if one.startswith(f"{label}.")]
            if accessors.will_retry(data):
                for one in within:
                    del run.steps[one]
                _void(step, data)
            else:
                for one in within:
                    run.steps[one].end()
                step.end()

    def _hear(self, run: _Run, place: Place, event: Event) -> None:
        """What an agent says and does."""
        kind, data = event.type, event.data
        if kind is EventType.AGENT_LLM_STREAM_CHUNK:
            place.title = place.title or accessors.text(data, "agent")
            place.open = True
            place.parts.append(Part("text", accessors.text(data, "chunk")))
        elif kind is EventType.AGENT_PROCESSING:
            place.title = accessors.text(data, "agent")
            place.open = True
            place.parts.append(Part("heading"))
        elif kind is EventType.AGENT_LLM_REQUEST_RETRIED:
            place.parts.append(Part("remark", _again(data)))
        elif kind is EventType.AGENT_FALLBACK:
            place.parts.append(Part("remark", f"({accessors.fallback(data)})"))
        elif kind is EventType.AGENT_OUTPUT_INVALID and accessors.will_retry(data):
            problems = "; ".join(accessors.problems_of(data))
            place.parts.append(Part("remark", f"(asking again: {problems})"))
        elif kind is EventType.TOOL_CALL_STARTED:
            call = accessors.text(data, "id"), accessors.text(data, "name"), place
            run.calls.append(call)
        elif kind in (EventType.TOOL_CALL_COMPLETED, EventType.TOOL_CALL_FAILED):
            ended = accessors.text(data, "id")
            run.calls = [c for c in run.calls if c[0] != ended or c[2] is not place]
        elif kind is EventType.AGENT_COMPLETED and place.open:
            place.open = False
            place.parts.append(Part("end"))
        if not accessors.text(data, "step") and kind in (
            EventType.AGENT_COMPLETED,
            EventType.AGENT_FAILED,
        ):
            self._end_run(event.workflow_id)  # an agent on its own: there is no run around it


def _caller(run: _Run, name: str) -> Place:
    """Where in `run` another one named `name` was started: by a tool, or by a function."""
    named = [call for call in run.calls if call[1] == name] or run.calls
    if named:
        run.calls.remove(named[0])
        return named[0][2]
    under_way = [step for step in run.steps.values() if not step.ended]
    return under_way[-1] if under_way else run


def _void(place: Place, data: Any) -> None:
    place.parts.clear()
    place.open = False
    if place.printed:
        place.parts.append(Part("again", _again(data)))
        place.printed = False


def _again(data: Any) -> str:
    return f"(trying again: {accessors.text(data, 'message')})"


def _count(data: Any) -> str:
    gap = accessors.gap_of(data)
    return "some" if gap is None else str(gap[1] - gap[0] + 1)
