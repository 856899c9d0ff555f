"""Reader: a log as its readers see it, what is committed and what waits to be."""

from __future__ import annotations

import json
import threading
import time
from typing import AbstractSet, Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from agentstream.errors import LogError, OffsetGone
from agentstream.events.model import Event, FrozenDict
from agentstream.events.redis.entries import Stretch, event_from, stretches
from agentstream.events.redis.run import Run
from agentstream.events.redis.server import Server
from agentstream.events.redis.writer import Writer
from agentstream.events.resting import RESTING
from agentstream.events.run_state import RunState
from agentstream.events.store import Bounds

__all__ = ["ACTIVE", "Reader"]

ACTIVE = ("queued", "running")
_NEWS_S = 0.1  # how long a reader waits for what is just being written
_MOST_KNOWN = 1000
_PAGE = 200  # entries of the log's own stream
_MOST_FETCHED = 200  # stretches of events
_SHARE_S = 2.0  # since the log's other tail has read
_FIELDS = (b"parent", b"name", b"status", b"started", b"ended", b"last", b"usage", b"input")


class Page(NamedTuple):
    """What was found of the log after a position.

    Attributes:
        events: in their order.
        reach: the position up to which that goes.
        first, last: of the positions that can be read.
    """

    events: List[Event]
    reach: int
    first: int
    last: int


class Reader:
    """Reads events from the server and, where they are not there yet, from the writer's queue.

    Every method may raise LogError.

    Attributes:
        recent: returns the entries of the log's own stream that have come after a position,
            as they were told; None if it is not known which have.
    """

    def __init__(self, server: Server, writer: Writer) -> None:
        self._server = server
        self._writer = writer
        self.reset(lambda after: None)

    def reset(self, recent: Callable[[int], Optional[List[Any]]]) -> None:
        """Begin anew, also in a forked child."""
        self.recent = recent
        self._fetching = threading.Lock()
        self._fetched: Dict[Stretch, List[Event]] = {}  # of late, for this process's other tail
        self._share_until = 0.0
        self._parents: Dict[str, Optional[str]] = {}

    def _run_key(self, workflow_id: str) -> bytes:
        return self._server.prefix + b"run:" + workflow_id.encode("utf-8", "surrogatepass")

    def _state_key(self, workflow_id: str) -> bytes:
        return self._server.prefix + b"state:" + workflow_id.encode("utf-8", "surrogatepass")

    # --- events -----------------------------------------------------------------------------

    def of_run(self, workflow_id: str, after: int, limit: int) -> List[Event]:
        """A workflow's events above an offset; those not committed have no position."""
        if limit <= 0:
            return []
        pending = self._pending_of(workflow_id, after)
        start = b"%d-0" % (after + 1)
        command = (b"XRANGE", self._run_key(workflow_id), start, b"+", b"COUNT", limit)
        (entries,) = self._server.call(command)
        parent = self._parents_of([workflow_id])[workflow_id] if entries else None
        events = [event_from(workflow_id, parent, entry) for entry in entries]
        last = events[-1].offset if events else after
        for event in pending:
            if len(events) >= limit:
                break
            if event.offset > last:
                events.append(event)
        return events

    def of_all(self, after: int, limit: int) -> List[Event]:
        """All events above a position; waits for the commit of those appended before."""
        self._writer.flush()
        found: List[Event] = []
        while len(found) < limit:
            page = self.page(after, limit - len(found))
            found += page.events
            if page.reach <= after or page.reach >= page.last:
                break
            after = page.reach
        return found

    def page(self, after: int, limit: int) -> Page:
        """Events above a position."""
        start = b"%d-0" % (after + 1)
        entries, bounds = self._server.call(
            (b"XRANGE", self._server.prefix + b"all", start, b"+", b"COUNT", _PAGE),
            self._bounds_command(),
        )
        if not entries:
            first, last = self._read_bounds(bounds)
            return Page([], max(after, first - 1), first, last)
        return self._fetch(*_choose(entries, after, limit, "", None))

    def _bounds_command(self) -> Tuple[bytes, ...]:
        return (b"HMGET", self._server.key, b"first", b"position")

    def _read_bounds(self, found: List[Optional[bytes]]) -> Tuple[int, int]:
        first, last = found
        if last is None:
            raise self._server.gone()
        return int(first or 0), int(last)

    def new(self, after: int, limit: int) -> List[Event]:
        """Events above a position of which the log's own stream has told; at first, all."""
        self._share_until = time.monotonic() + _SHARE_S
        entries = self.recent(after)
        if entries is None:
            return self.of_all(after, limit)
        return self._fetch_once(*_choose(entries, after, limit, "", None)).events

    def _fetch_once(self, reach: int, wanted: List[Stretch]) -> Page:
        """As `_fetch`; two tails of this process do not fetch the same."""
        if time.monotonic() > self._share_until:
            self._fetched = {}
            return self._fetch(reach, wanted)
        with self._fetching:
            known = self._fetched
            lacking = [one for one in wanted if one not in known]
            page = Page([], reach, 0, 0)
            if lacking or not wanted:
                page = self._fetch(reach, lacking)
                found = {event.position: event for event in page.events}
                for one in lacking:
                    places = range(one.position, one.position + one.size)
                    known[one] = [found[place] for place in places if place in found]
            events = [event for one in wanted for event in known[one]]
            while len(known) > _MOST_FETCHED:
                del known[next(iter(known))]
            return page._replace(events=events)

    def _fetch(self, reach: int, wanted: List[Stretch]) -> Page:
        parents = self._parents_of([one.workflow_id for one in wanted])
        commands = []
        for one in wanted:
            start = b"%d-%d" % (one.offset, one.position)
            end = b"%d-%d" % (one.offset + one.size - 1, one.position + one.size - 1)
            commands.append((b"XRANGE", self._run_key(one.workflow_id), start, end))
        # Looked at last: what was let go before has left a gap that the bounds show.
        *found, bounds = self._server.call(*commands, self._bounds_command())
        events: List[Event] = []
        for one, entries in zip(wanted, found):
            parent = parents[one.workflow_id]
            events += [event_from(one.workflow_id, parent, entry) for entry in entries]
        return Page(events, reach, *self._read_bounds(bounds))

    def _parents_of(self, names: List[str]) -> Dict[str, Optional[str]]:
        """The run that started each of these."""
        if len(self._parents) > _MOST_KNOWN:
            self._parents = {}
        known = self._parents
        lacking = [name for name in dict.fromkeys(names) if name not in known]
        if lacking:
            commands = [(b"HGET", self._state_key(name), b"parent") for name in lacking]
            for name, parent in zip(lacking, self._server.call(*commands)):
                known[name] = None if parent is None else parent.decode()
        return {name: known[name] for name in names}

    def of_others(
        self, owner: str, after: int, limit: int, only: Optional[AbstractSet[str]]
    ) -> Tuple[List[Event], int]:
        """Events above a position of other processes, and the position up to which that goes.

        Args:
            owner: this process.
            after, limit: the position; how many events at most.
            only: the runs whose events are asked for; None for all.

        Raises:
            OffsetGone: some of them are gone.
        """
        entries = self.recent(after)
        if entries is None:
            start = b"%d-0" % (after + 1)
            command = (b"XRANGE", self._server.prefix + b"all", start, b"+", b"COUNT", _PAGE)
            (entries,) = self._server.call(command)
        reach, wanted = _choose(entries, after, limit, owner, only)
        if entries and not wanted and _begins_by(entries[0], after + 1):
            return [], reach
        page = self._fetch_once(reach, wanted)
        first, last = page.first, page.last
        if not entries:
            page = page._replace(reach=max(after, first - 1))
        if first > after + 1 and not self._is_all_ours(after + 1, first - 1):
            raise OffsetGone(f"the log begins at {first}", first=first, last=last)
        return page.events, page.reach

    def _is_all_ours(self, first: int, last: int) -> bool:
        return self._writer.committer.wrote(first, last)

    # --- bounds -----------------------------------------------------------------------------

    def bounds_of(self, workflow_id: str) -> Bounds:
        """First and last readable offset of a workflow, uncommitted events included."""
        run = self._own(workflow_id)
        last = self._writer.last_of(run) if run is not None else 0
        pending = self._pending_of(workflow_id, 0)
        committed, entries = self._server.call(
            (b"HGET", self._state_key(workflow_id), b"last"),
            (b"XRANGE", self._run_key(workflow_id), b"-", b"+", b"COUNT", 1),
        )
        last = max(last, int(committed or 0))
        if entries:
            return Bounds(int(entries[0][0].partition(b"-")[0]), last)
        return Bounds(pending[0].offset if pending else last + 1 if last else 0, last)

    def bounds(self) -> Bounds:
        """First and last readable position, of all that was appended before the call."""
        waiting = 0
        try:
            self._writer.flush()
        except LogError:  # what the server does not take will have the next positions
            waiting = len(self._writer.events())
        first, last = self._read_bounds(self._server.call(self._bounds_command())[0])
        end = last + waiting
        return Bounds(first if end else 0, end)

    def position(self) -> int:
        """The position given last."""
        (last,) = self._server.call((b"HGET", self._server.key, b"position"))
        if last is None:
            raise self._server.gone()
        return int(last)

    # --- runs -------------------------------------------------------------------------------

    def has_ended(self, workflow_id: str) -> bool:
        """True if the workflow's log takes no more events."""
        run = self._own(workflow_id)
        if run is not None:
            return run.ended
        return self.status_of(workflow_id) not in (None, *ACTIVE, *RESTING)

    def status_of(self, workflow_id: str) -> Optional[str]:
        """A run's status; None if there is no such run."""
        (found,) = self._server.call((b"HGET", self._state_key(workflow_id), b"status"))
        return None if found is None else found.decode()

    def states(self, names: List[str]) -> List[RunState]:
        """These runs, as far as they are known."""
        if not names:
            return []
        commands = [(b"HMGET", self._state_key(name), *_FIELDS) for name in names]
        found = zip(names, self._server.call(*commands))
        return [_state(name, values) for name, values in found if values[2] is not None]

    def newest(self, limit: int) -> List[RunState]:
        """The newest runs, the newest first."""
        if limit <= 0:
            return []
        return self.states(self.members(b"runs", 0, limit - 1, newest=True))

    def members(self, name: bytes, start: int, end: int, *, newest: bool = False) -> List[str]:
        """The runs of one of the log's lists."""
        order = b"ZREVRANGE" if newest else b"ZRANGE"
        (found,) = self._server.call((order, self._server.prefix + name, start, end))
        return [one.decode() for one in found]

    def refresh(self) -> None:
        """Give what was appended a moment to be committed."""
        try:
            self._writer.flush(_NEWS_S)
        except LogError:
            pass

    def _own(self, workflow_id: str) -> Optional[Run]:
        """A run that this process writes: not one that was taken from it."""
        run = self._writer.runs.get(workflow_id)
        return None if run is None or run.refused is not None else run

    def _pending_of(self, workflow_id: str, after: int) -> List[Event]:
        run = self._own(workflow_id)
        if run is None or run.committed >= run.last:
            return []
        return [e for e in self._writer.events() if e[4] == workflow_id and e[1] > after]


def _begins_by(entry: Any, position: int) -> bool:
    """True if nothing is gone between a position and an entry of the log's own stream."""
    return next(stretches(entry)).position <= position


def _choose(
    entries: List[Any], after: int, limit: int, but: str, only: Optional[AbstractSet[str]]
) -> Tuple[int, List[Stretch]]:
    """Which of the entries' events to fetch, and up to which position that goes.

    Not those that process `but` has told of itself; of `only` these runs, None for all.
    """
    wanted: List[Stretch] = []
    count, reach = 0, after
    for entry in entries:
        for one in stretches(entry):
            skipped = max(0, after + 1 - one.position)
            if skipped >= one.size:
                continue
            if (but and one.author == but) or not (only is None or one.workflow_id in only):
                reach = one.position + one.size - 1
                continue
            room = limit - count
            if room <= 0:
                return reach, wanted
            taken = min(one.size - skipped, room)
            position, offset = one.position + skipped, one.offset + skipped
            wanted.append(one._replace(position=position, offset=offset, size=taken))
            count += taken
            reach = position + taken - 1
            if taken < one.size - skipped:
                return reach, wanted  # the rest of it comes before whatever could be passed by
    return reach, wanted


def _state(workflow_id: str, values: List[Optional[bytes]]) -> RunState:
    parent, name, status, started, ended, last, usage, given = (
        None if value is None else value.decode() for value in values
    )
    began = None if started is None else float(started)
    over = None if ended is None else float(ended)
    if began is not None and over is not None:
        over = max(began, over)  # the clock may have been set back in between
    return RunState(
        workflow_id,
        parent,
        name or "",
        status or "",
        began,
        over,
        int(last or 0),
        _usage(usage),
        input=given,
    )


def _usage(text: Optional[str]) -> Optional[FrozenDict]:
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        return None
    return FrozenDict(found) if isinstance(found, dict) else None
