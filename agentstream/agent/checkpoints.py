"""What an agent's run keeps of its rounds, so that another process can go on after them.

An answer is kept before its calls are made, a call before it begins and when it has its
result.  A run that goes on finds the same answers and results here, in the same order, and
so comes to the same messages, without a request and without a call.

Where records go, and how values are written, is workflow/checkpoints.py's.
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple

from agentstream.agent.approval import Approval
from agentstream.agent.loops import same_call
from agentstream.llm.messages import ChatMessage
from agentstream.results import ChatResponse, ToolCall
from agentstream.tools.context import key_of

__all__ = ["AgentCheckpoint", "CallState", "Keeper", "RoundCheckpoint"]


class Keeper(Protocol):
    """What keeps the records of a run.

    Attributes:
        leaving: the run's process leaves it, for another one to go on.
        grace: seconds that calls under way may take then.
    """

    leaving: bool
    grace: float

    def get(self, key: str) -> Any:
        """The value kept under a key; None for none."""

    def put(self, records: Mapping[str, Any], *, wait: bool = False) -> object:
        """Keep values; with `wait` it returns when they, and those before, are kept.

        Raises:
            LogError: they could not be.
        """

    def settle(self) -> None:
        """Wait until all that was put is kept; raises LogError if it could not be."""

    def decision(self, id: str) -> Optional[Approval]:
        """What somebody has answered to a pending call; None for nothing yet."""


class CallState(NamedTuple):
    """How far a tool call has come.

    Attributes:
        state: "begun", "done", "asked" (somebody decides), or "resting" (what it runs is
            suspended).
        text, ok: the outcome of one that is done.
        id, why, expires_at: of one that is asked, as `PendingCall` has them.
        arguments: what an approval has changed them to; None for the model's.
    """

    state: str
    text: str = ""
    ok: bool = False
    id: str = ""
    why: str = ""
    expires_at: Optional[float] = None
    arguments: Optional[str] = None


class RoundCheckpoint:
    """The tool calls of one answer.

    Args:
        base: the idempotency key of the agent's run.
        number: the answer's, from 1.
        keeper: keeps them; None: nothing is kept.
        place: the agent's, in the run.
    """

    def __init__(self, base: str, number: int, keeper: Optional[Keeper], place: str) -> None:
        self.keeper = keeper
        self._base = base
        self._number = number
        self._prefix = f"{place}|call|{number}|"

    def key(self, index: int, call: ToolCall) -> str:
        """The idempotency key of the call that stands at `index` in the answer."""
        return key_of(self._base, self._number, index, same_call(call))

    def state(self, index: int) -> Optional[CallState]:
        """How far an earlier process came with a call; None if it had not begun."""
        kept = None if self.keeper is None else self.keeper.get(f"{self._prefix}{index}")
        return None if kept is None else CallState(**kept)

    def note(self, states: Mapping[int, CallState], *, wait: bool = False) -> None:
        """Keep how far calls have come, by their indices."""
        if self.keeper is not None and states:
            records = {f"{self._prefix}{at}": _short(state) for at, state in states.items()}
            self.keeper.put(records, wait=wait)

    def decision(self, state: CallState) -> Optional[Approval]:
        """What has been answered to a call that was asked about; None for nothing yet."""
        answer = None if self.keeper is None else self.keeper.decision(state.id)
        if answer is None and state.expires_at is not None and state.expires_at <= time.time():
            return Approval.no("nobody answered in time")
        return answer


def _short(state: CallState) -> Dict[str, Any]:
    """The fields that are not what they are by default."""
    default = CallState("")
    return {
        name: value for name, value in state._asdict().items() if value != getattr(default, name)
    }


class AgentCheckpoint:
    """The rounds of one agent's run.

    Args:
        keeper: keeps them.
        place: the agent's, in the run.
    """

    def __init__(self, keeper: Keeper, place: str) -> None:
        self.keeper = keeper
        self.place = place

    def asked(self) -> Optional[Tuple[List[ChatMessage], List[ChatMessage]]]:
        """What the run began with: the messages before its own, and its own; None at first."""
        found: Optional[Mapping[str, Any]] = self.keeper.get(f"{self.place}|asked")
        return None if found is None else (found["before"], found["asked"])

    def answer(self, number: int) -> Optional[ChatResponse]:
        """An answer that an earlier process has had; None if it had not."""
        found: Optional[ChatResponse] = self.keeper.get(f"{self.place}|answer|{number}")
        return found

    def keep_answer(
        self,
        number: int,
        answer: ChatResponse,
        before: Sequence[ChatMessage],
        asked: Sequence[ChatMessage],
    ) -> None:
        """Keep an answer; with the first one what it is an answer to."""
        records: Dict[str, Any] = {f"{self.place}|answer|{number}": answer}
        if number == 1:
            records[f"{self.place}|asked"] = {"before": list(before), "asked": list(asked)}
        self.keeper.put(records)
