"""What one commit sends: events and operations, in their order, in one script.

What was committed of late is kept, and sent again when the server turns out to have less
than it said: a replica that was promoted, or a server that came back without its last second.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

from agentstream.errors import LogError
from agentstream.events.model import RELEASING, Event
from agentstream.events.redis.entries import fit, note_of, type_name
from agentstream.events.redis.run import Item, Operation, Run, fence_of, refusal
from agentstream.events.redis.scripts import APPEND
from agentstream.events.redis.server import Server

__all__ = ["Committer"]

logger = logging.getLogger("agentstream.events.redis")

_MOST_ITEMS = 1000  # a commit
_MOST_BYTES = 1 << 20
_KEPT_S = 30.0
_MOST_KEPT = 4096  # items of a run
_MOST_WRITTEN = 1000  # stretches of positions


class Committer:
    """Writes to a log, one script at a time; used by the writer's thread.

    Args:
        server: the log's.
        owner: this process's name in the log.
        max_event_bytes: of an event's data; what is longer is cut.

    Attributes:
        confirm: the command that says to how many others it has got; None for none.
        log_id: the log's id.
        position: the highest that is known.
        runs: those that this process writes.
        stops: (workflow id, reason) of runs that are to stop, as the answers told.
        gaps: runs of this process that the log has lost events of, for good.
    """

    def __init__(self, server: Server, owner: str, *, max_event_bytes: int) -> None:
        self.server = server
        self.confirm: Optional[Tuple[Any, ...]] = None
        self._most = max_event_bytes
        self.log_id = b""
        self.begin_anew(owner)

    def begin_anew(self, owner: str) -> None:
        """As a new owner, in a forked child."""
        self.owner = owner
        self.runs: Dict[str, Run] = {}
        self.position = 0
        self.stops: List[Tuple[str, str]] = []
        self.gaps: List[str] = []
        self.link = self.server.new_link()
        self._seen = 0  # the link's count at the last look at what the server has
        self._tails: Dict[str, Run] = {}  # runs of which something was committed of late
        self._forget_at = 0.0
        self._written: Deque[Tuple[int, int]] = deque()

    # --- a commit ---------------------------------------------------------------------------

    def commit(self, items: Sequence[Item]) -> int:
        """Commit the first of `items`, as many as one script may take; returns how many.

        Raises:
            LogError: it is not known that they were.
        """
        self.link.open()
        if self.link.count != self._seen:
            self._send_again()
            self._seen = self.link.count
        batch = Batch(self.runs, self.owner, self._most)
        count = batch.fill(items)
        if batch.parts:
            found = self._send(batch)
            if any(answer[:1] == [b"gap"] for answer in found if isinstance(answer, list)):
                self._send_again()
                found = self._send(batch)
            self._take_note(batch, found)
        return count

    def _send(self, batch: Batch) -> List[Any]:
        """Send a batch; returns the answer to each part of it."""
        after = () if self.confirm is None else (self.confirm,)
        head = [self.log_id, self.owner.encode(), b"%d" % self.position]
        head += [b"%d" % len(batch.parts), *batch.arguments()]
        answers = self.link.send_script(APPEND, head, *after)
        start, position, results, stops = self.link.checked(answers[0])
        self.position = position
        self._note_written(start + 1, position)
        names = [text.decode() for text in stops]
        self.stops += zip(names[::2], names[1::2])
        self.link.check_confirmed(answers[1:])
        return list(results)

    def _take_note(self, batch: Batch, answers: Sequence[Any]) -> None:
        now = time.monotonic()
        for part, answer in zip(batch.parts, answers):
            run = part.run
            if isinstance(answer, int):
                if part.items[0].__class__ is not Operation:
                    run.committed = max(run.committed, part.items[-1][1])  # type: ignore[index]
                run.tail.append((now, part.items))
                run.kept += len(part.items)
                earlier = self._tails.get(run.workflow_id)
                if earlier is not run:
                    self._tails[run.workflow_id] = run
                    if earlier is not None:
                        run.inherit(earlier)
            else:
                self._refuse(part, answer)
        if now >= self._forget_at:
            self._forget(now)

    def _refuse(self, part: Part, answer: Sequence[bytes]) -> None:
        run, first = part.run, part.items[0]
        why = refusal(run.workflow_id, answer)
        if isinstance(first, Operation):
            first.error = run.lacks = LogError(why)
            if answer[0] in (b"none", b"within"):
                return
        if run.refused is None:
            run.refused = why
            self.stops.append((run.workflow_id, why))
            if answer[0] == b"gap":
                self.gaps.append(run.workflow_id)
            if not run.released:
                logger.error("what follows of %r is not written: %s", run.workflow_id, why)

    def _forget(self, now: float) -> None:
        """Let go of what the server has had for long, and of what is too much to keep."""
        self._forget_at = now + 1.0
        for name, run in list(self._tails.items()):
            while run.tail and (run.tail[0][0] < now - _KEPT_S or run.kept > _MOST_KEPT):
                run.kept -= len(run.tail.popleft()[1])
            if not run.tail:
                del self._tails[name]

    # --- healing ----------------------------------------------------------------------------

    def _send_again(self) -> None:
        """Send what the server has lost of what it once had, run by run.

        Raises:
            LogError: the log is gone, or there was no answer.
        """
        self._check_id()
        tails = list(self._tails.values())
        if not tails:
            return
        prefix = self.server.prefix
        answers = self.link.call(
            *((b"HMGET", prefix + b"state:" + run.workflow_id.encode(), b"last", b"seq")
              for run in tails)
        )  # fmt: skip
        for run, (last, seq) in zip(tails, answers):
            items = [item for _, group in run.tail for item in group]
            lacking = _beyond(items, int(last or 0), int(seq or 0))
            if lacking:
                logger.warning("%d of %r are sent again", len(lacking), run.workflow_id)
                self._write_again(run, lacking)

    def _write_again(self, run: Run, lacking: Sequence[Item]) -> None:
        known = {run.workflow_id: run}
        while lacking:
            batch = Batch(known, self.owner, self._most, again=True)
            count = batch.fill(lacking)
            for part, answer in zip(batch.parts, self._send(batch)):
                if not isinstance(answer, int):
                    self._refuse(part, answer)
                    return
            lacking = lacking[count:]

    def _check_id(self) -> None:
        (found,) = self.link.call((b"HGET", self.server.key, b"id"))
        if found != self.log_id:
            raise self.server.gone()

    # --- what this process has written ------------------------------------------------------

    def wrote(self, first: int, last: int) -> bool:
        """True if all of these positions were given to events of this process, of late."""
        return any(a <= first and last <= b for a, b in list(self._written))

    def _note_written(self, first: int, last: int) -> None:
        if first > last:
            return
        if self._written and self._written[-1][1] == first - 1:
            first = self._written.pop()[0]
        self._written.append((first, last))
        if len(self._written) > _MOST_WRITTEN:
            self._written.popleft()


class Part:
    """Events of one run that follow each other, or one operation."""

    __slots__ = ("arguments", "items", "run")

    def __init__(self, run: Run, item: Item, arguments: List[bytes]) -> None:
        self.run = run
        self.items: List[Item] = [item]
        self.arguments = arguments


class Batch:
    """What one script is given.

    Args:
        runs: those that this process writes.
        author: this process's name in the log.
        most: bytes of an event's data.
        again: true for what was committed before.
    """

    def __init__(
        self, runs: Dict[str, Run], author: str, most: int, *, again: bool = False
    ) -> None:
        self._runs = runs
        self._author = author.encode()
        self._most = most
        self._again = again
        self.parts: List[Part] = []
        self._events: Optional[Part] = None  # to which more events may be added
        self._size = 0

    def arguments(self) -> List[bytes]:
        """The script's arguments for all parts."""
        found: List[bytes] = []
        for part in self.parts:
            if part.arguments[0] == b"e":
                part.arguments[6] = b"%d" % len(part.items)
            found += part.arguments
        return found

    def fill(self, items: Sequence[Item]) -> int:
        """Take as many as there is room for; returns how many."""
        count = 0
        for item in items:
            if self._size > _MOST_BYTES or count >= _MOST_ITEMS:
                break
            if isinstance(item, Operation):
                self._add_operation(item)
            else:
                self._add_event(item)
            count += 1
        return count

    def _add_operation(self, item: Operation) -> None:
        self._events = None
        if item.run.refused is not None:
            item.error = LogError(item.run.refused)
        elif item.run.lacks is not None:
            item.error = LogError(f"an earlier part of its checkpoint is lacking: {item.run.lacks}")
        else:
            self.parts.append(Part(item.run, item, item.arguments))
            self._size += sum(map(len, item.arguments))

    def _add_event(self, event: Event) -> None:
        run = self._runs.get(event[4])
        if run is None or run.refused is not None:
            return
        data = fit(event[7], self._most)
        note = b""
        if event[1] == 1 or event[3] in RELEASING:
            note = self._note(run, event)
        arguments = [type_name(event[3]), repr(event[6]).encode(), data, note]
        self._size += len(data) + 60
        part = self._events
        if part is not None and part.run is run:
            part.items.append(event)
            part.arguments += arguments
            return
        parent = (run.parent or "").encode()
        head = [b"e", event[4].encode(), parent, self._author, fence_of(run)]
        part = Part(run, event, [*head, b"%d" % event[1], b"", *arguments])
        self.parts.append(part)
        self._events = part

    def _note(self, run: Run, event: Event) -> bytes:
        alive: List[str] = []
        if run.fence is not None and not self._again:
            runs = list(self._runs.values())
            alive = [one.workflow_id for one in runs if one.last > one.since and not one.released]
        found = note_of(event, run.input, alive)
        return json.dumps(found, ensure_ascii=False).encode() if found else b""


def _beyond(items: Sequence[Item], last: int, seq: int) -> List[Item]:
    """Of a run's items, those behind an offset and an operation's number."""
    return [
        item
        for item in items
        if (item.seq > seq if isinstance(item, Operation) else item[1] > last)
    ]
