"""What a run came to, as `--json` writes it: one shape for `run` and for `follow`.

`run` has the `WorkflowRun` itself; `follow`, in another process, makes it of the events.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from agentstream.checks import is_number
from agentstream.errors import AgentStreamError
from agentstream.events.accessors import seconds_of, status_of, text, usage_of, will_retry
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.results import StepResult, Usage, WorkflowRun
from agentstream.workflow.progress import to_json
from agentstream.workflow.resting import entry_of

__all__ = ["Replay", "as_dict", "ending_of", "with_error"]

_CHUNKS = (EventType.AGENT_LLM_STREAM_CHUNK, EventType.AGENT_LLM_REASONING_CHUNK)


def as_dict(
    run: WorkflowRun, error: Optional[str] = None, message: Optional[str] = None
) -> Dict[str, Any]:
    """All that is known of a run, as JSON values; of one that failed, the error and its words."""
    asked = [entry_of(each) for each in run.pending]
    data = {**run._asdict(), "text": run.text, **_values(run), "pending": asked}
    return data if error is None else {**data, "error": error, "message": message}


def with_error(run: WorkflowRun, error: AgentStreamError) -> Dict[str, Any]:
    """`as_dict` of a run that ended so."""
    return as_dict(run, type(error.__cause__ or error).__name__, str(error))


def _values(result: Any) -> Dict[str, Any]:
    return {
        "output": to_json(result.output),
        "usage": result.usage.to_dict(),
        "steps": [_step_as_dict(step) for step in result.steps],
    }


def _step_as_dict(step: StepResult) -> Dict[str, Any]:
    return {**step._asdict(), "duration_s": step.duration_s, **_values(step)}


def ending_of(last: Event) -> str:
    """What to say of a run that was not completed, after "run ID "; `last` is its last event."""
    if last.type is EventType.WORKFLOW_CANCELLED:
        reason = str(last.data.get("reason"))
        return f"was {reason}" if reason.startswith("stopped") else f"was stopped: {reason}"
    where = f" in step {last.data['failed_step']!r}" if last.data.get("failed_step") else ""
    return f"failed{where}: {last.data.get('error')}: {last.data.get('message')}"


class _Step:
    """A step of a run, as far as its events tell."""

    def __init__(self, head: Mapping[str, Any], started: float) -> None:
        self.name, self.kind, self.label = (text(head, key) for key in ("name", "kind", "step"))
        self.started = started
        self.took_s: Optional[float] = None
        self.status = ""
        self.end: Mapping[str, Any] = {}  # the data of its last event
        self.run: Optional[str] = None  # of a workflow, the id of the run that it is
        self.usage = Usage()
        self.deltas = 0  # of its request
        self.begin_again()

    def begin_again(self) -> None:
        self.said: List[str] = []
        self.finish_reason: Optional[str] = None
        self.warnings: List[str] = []


class Replay:
    """A run's events, and those of the runs within it -> its `WorkflowRun`."""

    def __init__(self) -> None:
        self._runs: Dict[str, Dict[str, _Step]] = {}  # by run, by label, as they began
        self._done: Dict[str, Set[str]] = {}  # by run, the labels of what is not run again
        self._open: List[str] = []  # the runs that are being told
        self._now = 0.0

    def add(self, event: Event) -> None:
        """Take the next event in."""
        data, kind = event.data, event.type
        steps = self._runs.setdefault(event.workflow_id, {})
        self._now = event.timestamp
        if kind is EventType.WORKFLOW_RESUMED:
            self._done[event.workflow_id] = set(_texts(data, "completed"))
            return
        label = text(data, "step")
        if kind is EventType.WORKFLOW_STEP_STARTED and label:
            self._begin(event.workflow_id, label, data)
        step = steps.get(label)
        if step is None:
            return
        if kind in _CHUNKS:
            step.deltas += 1
            if kind is EventType.AGENT_LLM_STREAM_CHUNK:
                step.said.append(text(data, "chunk"))
        elif kind is EventType.AGENT_LLM_REQUEST_STARTED:
            step.deltas = 0
        elif kind is EventType.AGENT_LLM_REQUEST_FAILED:  # counted as an answer's sum is
            step.usage += Usage(completion_tokens=step.deltas, estimated=True)
        elif kind is EventType.AGENT_LLM_REQUEST_COMPLETED:
            step.usage += _usage(data)
            step.finish_reason = text(data, "finish_reason") or None
        elif kind is EventType.SYSTEM_WARNING:
            step.warnings.append(text(data, "message"))
        elif kind is EventType.WORKFLOW_STEP_COMPLETED:
            step.status, step.end, step.took_s = "completed", data, seconds_of(data)
        elif kind is EventType.WORKFLOW_STEP_FAILED and will_retry(data):
            self._done.pop(event.workflow_id, None)
        elif kind is EventType.WORKFLOW_STEP_FAILED:
            step.status = "cancelled" if data.get("error") == "Cancelled" else "failed"
            step.took_s = event.timestamp - step.started

    def _begin(self, run: str, label: str, data: Mapping[str, Any]) -> None:
        steps, done = self._runs[run], self._done.get(run, ())
        step = steps.get(label)
        if step is None:
            step = steps[label] = _Step(data, self._now)
        else:
            step.begin_again()
            within = [one for one in steps if one.startswith(label + ".")]
            for inner in (one for one in within if one not in done):
                step.usage += steps.pop(inner).usage
        step.run = text(data, "run") or None

    def run(self, last: Event) -> WorkflowRun:
        """The run, which ended with that event."""
        assert last.type in TERMINAL
        data, status = last.data, status_of(last.type)
        return WorkflowRun(
            last.workflow_id,
            status,
            data.get("output"),
            _usage(data),
            tuple(self._results(last.workflow_id, status)),
            seconds_of(data),
            text(data, "finish_reason") or None,
            _texts(data, "warnings"),
        )

    def _results(self, run: str, status: str) -> List[StepResult]:
        """The steps of a run, those within them too; those that have no end have `status`."""
        steps = self._runs.get(run, {})
        within: Dict[str, List[StepResult]] = {}
        self._open.append(run)
        for step in sorted(steps.values(), key=lambda one: -one.label.count(".")):
            inner = _in_order(step, within.pop(step.label, []))
            if step.run is not None and step.run not in self._open:
                inner = self._results(step.run, status)
            result = self._result(step, inner, status)
            within.setdefault(_above(step.label, steps), []).append(result)
        self._open.pop()
        return within.get("", [])

    def _result(self, step: _Step, within: List[StepResult], status: str) -> StepResult:
        end, took_s = step.end, step.took_s
        completed = step.status == "completed"
        return StepResult(
            step.name,
            step.kind,
            (self._now - step.started if took_s is None else took_s) * 1000,
            end.get("output") if completed else _said(step, within),
            _usage(end) if completed else sum((one.usage for one in within), step.usage),
            end.get("tokens_per_second"),
            step.status or status,
            step.label,
            tuple(within),
            (text(end, "finish_reason") or None) if completed else step.finish_reason,
            _texts(end, "warnings") or tuple(step.warnings),
        )


def _above(label: str, steps: Mapping[str, _Step]) -> str:
    """The label of the step around one; "" for none.  A branch's name may hold dots."""
    while "." in label:
        label = label.rpartition(".")[0]
        if label in steps:
            return label
    return ""


def _in_order(step: _Step, within: List[StepResult]) -> List[StepResult]:
    """What is within a step in the order in which it has it, not in that in which it began."""
    start, output = len(step.label) + 1, step.end.get("output")
    names = {name: n for n, name in enumerate(output)} if isinstance(output, Mapping) else {}

    def place(inner: StepResult) -> int:
        part = inner.step[start:]
        is_number = step.kind == "Map" and part.isdecimal() and len(part) < 10
        return int(part) if is_number else names.get(part, 0)

    return sorted(within, key=place)


def _said(step: _Step, within: List[StepResult]) -> Any:
    """The output so far of a step that was not completed."""
    if step.kind == "Map":
        return [one.output for one in within]
    if step.kind == "Parallel":
        start = len(step.label) + 1
        return {one.step[start:]: one.output for one in within}
    return "".join(step.said) if step.said or not within else within[-1].output


def _usage(data: Mapping[str, Any]) -> Usage:
    known = usage_of(data) or {}
    counts = {name: known[name] for name in Usage._fields if is_number(known.get(name))}
    return Usage(**{**counts, "estimated": known.get("estimated") is True})


def _texts(data: Mapping[str, Any], key: str) -> Tuple[str, ...]:
    value = data.get(key)
    texts = value if isinstance(value, (list, tuple)) else ()
    return tuple(text for text in texts if isinstance(text, str))
