"""RunContext: what a function or a tool may know of the run that calls it.

One kind for both: the run's ids, the token that tells them to stop, and the values
that the steps of the run share.  How an agent is run within the run is handed in by
whoever runs the run, so that nothing here knows agents or workflows.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any, Callable, Dict, Iterator, MutableMapping, NoReturn, Optional

from agentstream.cancel import CancelToken

__all__ = ["RunContext", "RunWithin", "key_of"]

#: Runs an agent on an input within a run: (agent, input, context) -> its text or value.
RunWithin = Callable[[Any, Any, "RunContext"], Any]


def key_of(*parts: object) -> str:
    """An idempotency key: 32 hexadecimal digits that these parts always give."""
    text = "\n".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class RunContext(MutableMapping[str, Any]):
    """A run, as a function or a tool within it sees it: a mapping, and the run's own affairs.

    A tool's parameter with this annotation is given one; so is a workflow's function
    that takes a second argument.  As a mapping it holds what the steps of the run
    share, those of the workflows within it too; each call gets a RunContext of its
    own that shows the same values.

    Args:
        values: what is shared; None for nothing so far.
        lock: the lock of those values; None for a new one.
        within: runs an agent within the run; None outside of one.

    Attributes:
        workflow_id: the run's id; "" outside a run that has events.
        agent: the name of the agent whose model asked; "" for a workflow's function.
        step: the workflow's step, as the events write it; "" outside a workflow.
        tool_call_id: the call's id, as the model's server gave it; "" if no tool is called.
        idempotency_key: the same for each attempt at one call, also where a resumed run
            makes it again; no other call has it.  For services that do a thing once for
            each key.  "" if no tool is called, or outside a run that has events.
        cancel: ends when the run is stopped or the step or call is out of time.  Hand
            it to what the function calls.
        lock: a re-entrant lock for what takes more than one look at the values:
            `with context.lock: context["n"] += 1`.
        spending: what has been spent of the budget that holds here, as its `spent`, a
            `Usage`; None without a budget.
    """

    __slots__ = (
        "_values",
        "_within",
        "agent",
        "cancel",
        "idempotency_key",
        "lock",
        "spending",
        "step",
        "tool_call_id",
        "workflow_id",
    )

    workflow_id: str
    agent: str
    step: str
    tool_call_id: str
    idempotency_key: str
    cancel: CancelToken
    lock: threading.RLock
    spending: Any
    _values: Dict[str, Any]
    _within: Optional[RunWithin]

    def __init__(
        self,
        workflow_id: str = "",
        agent: str = "",
        step: str = "",
        tool_call_id: str = "",
        cancel: Optional[CancelToken] = None,
        *,
        values: Optional[Dict[str, Any]] = None,
        lock: Optional[threading.RLock] = None,
        within: Optional[RunWithin] = None,
        idempotency_key: str = "",
        spending: Any = None,
    ) -> None:
        put = super().__setattr__
        put("workflow_id", workflow_id)
        put("agent", agent)
        put("step", step)
        put("tool_call_id", tool_call_id)
        put("idempotency_key", idempotency_key)
        put("cancel", CancelToken() if cancel is None else cancel)
        put("lock", threading.RLock() if lock is None else lock)
        put("_values", {} if values is None else values)
        put("_within", within)
        put("spending", spending)

    def run(self, agent: Any, input: Any) -> Any:
        """Run an `Agent` within this run; returns its text, or its value if it has an `output`.

        Its events name this run as their parent, and it ends when `cancel` does.
        Outside a run it is `agent.execute`.

        Raises:
            WorkflowFailed: the agent failed, within a run.
            AgentStreamError: what ended the agent; `Cancelled` if it was stopped.
        """
        if self._within is None:
            output = agent.execute(input, cancel=self.cancel)
            return output.response if agent.settings.output is None else output.value
        return self._within(agent, input, self)

    def replace(
        self,
        *,
        agent: Optional[str] = None,
        tool_call_id: Optional[str] = None,
        cancel: Optional[CancelToken] = None,
        idempotency_key: Optional[str] = None,
        spending: Any = None,
    ) -> RunContext:
        """The same run and values as another call sees them; None keeps what is here."""
        return RunContext(
            self.workflow_id,
            self.agent if agent is None else agent,
            self.step,
            self.tool_call_id if tool_call_id is None else tool_call_id,
            self.cancel if cancel is None else cancel,
            values=self._values,
            lock=self.lock,
            within=self._within,
            idempotency_key=self.idempotency_key if idempotency_key is None else idempotency_key,
            spending=self.spending if spending is None else spending,
        )

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))  # others may write meanwhile

    def __len__(self) -> int:
        return len(self._values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("the attributes of a RunContext cannot be set: its items can")

    def __repr__(self) -> str:
        return f"<RunContext of {self.workflow_id!r}: {', '.join(map(str, self)) or 'empty'}>"
