"""Runs that this process writes, and what is to be done to them in order with their events."""

from __future__ import annotations

from collections import deque
from typing import Deque, List, Mapping, Optional, Sequence, Tuple, Union

from agentstream.errors import AgentStreamError
from agentstream.events.model import Event
from agentstream.events.shared_writer import WrittenRun

__all__ = ["Item", "Operation", "Run", "refusal"]


class Run(WrittenRun):
    """A workflow that this process writes.

    Attributes:
        seq: of its newest operation.
        tail: what was committed of late, and when, to be sent again should the server lose it.
        kept: how many items that is.
    """

    __slots__ = ("kept", "seq", "tail")

    def __init__(self, workflow_id: str, parent: Optional[str]) -> None:
        super().__init__(workflow_id, parent)
        self.seq = 0
        self.tail: Deque[Tuple[float, List[Item]]] = deque()
        self.kept = 0

    def inherit(self, earlier: Run) -> None:
        """The events, but no operations, of this process's earlier stint may be sent again, too."""
        for when, items in reversed(earlier.tail):
            events = [item for item in items if not isinstance(item, Operation)]
            self.tail.appendleft((when, list(events)))
            self.kept += len(events)


class Operation:
    """Something to be done to a run's checkpoint, behind the events before it.

    Attributes:
        run: whose.
        seq: its number among the run's operations, by which it is done once.
        arguments: what the script is given.
        error: why it was not done; None if it was.
        done: True once it is known which.
    """

    __slots__ = ("arguments", "done", "error", "run", "seq")

    def __init__(self, run: Run, arguments: List[bytes], seq: int) -> None:
        self.run = run
        self.arguments = arguments
        self.seq = seq
        self.error: Optional[AgentStreamError] = None
        self.done = False

    @classmethod
    def begin(cls, run: Run, root: Optional[str], recover: int, keep: Optional[float]) -> Operation:
        """`run` can be resumed from here on."""
        kept = "" if keep is None else repr(float(keep))
        return cls._of(b"b", run, (root or "").encode(), b"%d" % recover, kept.encode())

    @classmethod
    def write(
        cls, run: Run, records: Mapping[str, Optional[bytes]], discard: Sequence[str]
    ) -> Operation:
        """Records are deleted, and written."""
        arguments = [b"%d" % len(discard), *(start.encode() for start in discard)]
        arguments.append(b"%d" % len(records))
        for key, value in records.items():
            arguments += [key.encode(), b"0" if value is None else b"1", value or b""]
        return cls._of(b"w", run, *arguments)

    @classmethod
    def refuse(cls, run: Run, why: str) -> Operation:
        """Nobody is to resume `run`."""
        return cls._of(b"r", run, why.encode())

    @classmethod
    def _of(cls, kind: bytes, run: Run, *arguments: bytes) -> Operation:
        run.seq += 1
        head = [kind, run.workflow_id.encode(), fence_of(run), b"%d" % run.seq]
        return cls(run, [*head, *arguments], run.seq)


#: What is queued and committed.
Item = Union[Event, Operation]


def fence_of(run: Run) -> bytes:
    """A run's fence as scripts take it."""
    return b"" if run.fence is None else b"%d" % run.fence


def refusal(workflow_id: str, answer: Sequence[bytes]) -> str:
    """Why a script would not write a run, as a sentence."""
    code = answer[0].decode()
    more = answer[1].decode() if len(answer) > 1 and isinstance(answer[1], bytes) else ""
    name = f"the run {workflow_id!r}"
    return {
        "lost": f"the log has lost {name}: its events are not there any more",
        "gap": f"the log has lost events of {name}, which are not in memory any more",
        "left": f"{name} has been left, and is {more}",
        "ended": f"{name} has been ended: {more}",
        "taken": f"another process has taken {name} over",
        "none": f"workflow {workflow_id!r} keeps no checkpoint",
        "within": f"workflow {workflow_id!r} is within another, which keeps it all",
        "refused": f"workflow {workflow_id!r} cannot be resumed: {more}",
        "unknown": f"there is no run {workflow_id!r}",
    }.get(code, f"{name} was refused: {code}")
