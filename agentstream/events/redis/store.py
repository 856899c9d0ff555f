"""RedisStore: what a stream and its readers see of a log in Redis.

What is written is in scripts.py, when it is written in writer.py and commit.py, what is read
in reader.py, who is alive in owners.py.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from typing import AbstractSet, List, Optional, Tuple

from agentstream import checks, threads
from agentstream.errors import ConfigError, LogError, OffsetGone
from agentstream.events.entry import check_id, check_reason
from agentstream.events.model import Event
from agentstream.events.redis.checkpoints import RedisCheckpoints
from agentstream.events.redis.commit import Committer
from agentstream.events.redis.endings import Endings
from agentstream.events.redis.opening import check_policy, confirmation, open_log
from agentstream.events.redis.owners import Owners
from agentstream.events.redis.reader import Reader
from agentstream.events.redis.retention import Retention
from agentstream.events.redis.run import Run
from agentstream.events.redis.run_scripts import STOP
from agentstream.events.redis.scripts import CLAIM, LEAVE
from agentstream.events.redis.server import Server
from agentstream.events.redis.watch import News, StopWatch
from agentstream.events.redis.writer import Writer
from agentstream.events.shared import SharedStore
from agentstream.events.store import (
    RunState,
    StopAnswer,
    StopCallback,
    end_of,
    first_line,
    has_log,
)

__all__ = ["RedisStore"]

logger = logging.getLogger("agentstream.events.redis")

_STOP_ANSWERS = {b"no": StopAnswer.NOBODY, b"asked": StopAnswer.ASKED, b"mine": StopAnswer.ENDED}


class RedisStore(SharedStore):
    """Keeps events in Redis, 7.0 or newer.  Any number of processes, on any machines, share it.

    A run's events are written by the process that runs it; all others can read them, follow
    them as they come, and ask for the run to be stopped.  Runs whose process has died are
    found by whoever is there: those that keep a checkpoint can be resumed, the others are
    closed as failed (interrupted).

    While the server is away, events wait in memory and are sent when it is back; what it had
    acknowledged in the last 30 s and lost is sent again.

    Args:
        url: redis://, rediss:// (TLS) or unix://, with user and password if need be, and of a
            cluster with several hosts, "redis://a:7000,b:7000"; or
            redis+sentinel://host:26379,.../master (rediss+sentinel:// with TLS), whose hosts
            are Sentinels; `sentinel_username` and `sentinel_password` behind "?" are for them.
        log: the log's name; each has its own events.  No braces.
        durability: "normal", "full" or "replicated".  normal: an append waits for no server;
            it is committed some milliseconds later.  full: an append through an `EventStream`
            returns when the server has it on its disk (Redis 7.2, or appendfsync always).
            replicated: ... when a replica has it as well.
        max_events: how many to keep, of all runs together; None for all.
        max_age: seconds after which events may go, by the server's clock; None for never.
        max_bytes: of events to keep, roughly; None for all.
        max_event_bytes: of one event; of a larger one the longest texts are cut, and say so.
        max_queue: events that may wait to be committed.  When they are that many, an append
            waits up to `timeout` seconds, or not at all while the server is away, and raises.
        linger: seconds that an event may wait for others to be committed with.
        lease: seconds after which a process that gives no sign of life is taken for dead.
        timeout: seconds that the server may take for an answer.
        accept_eviction: accept a server whose maxmemory-policy deletes keys when it is full.
        create: make the log where there is none.

    Raises:
        ConfigError: an argument makes no sense, the module `redis` is missing, there is no such
            log, or the server is too old, evicts keys, or cannot promise the durability.
        LogError: the server cannot be reached, refuses the credentials, or has a log of
            another version.
    """

    _writer: Writer

    def __init__(
        self,
        url: str,
        log: str = "default",
        durability: str = "normal",
        *,
        max_events: Optional[int] = None,
        max_age: Optional[float] = None,
        max_bytes: Optional[int] = None,
        max_event_bytes: int = 1 << 20,
        max_queue: int = 10_000,
        linger: float = 0.005,
        lease: float = 30.0,
        timeout: float = 5.0,
        accept_eviction: bool = False,
        create: bool = True,
    ) -> None:
        checks.text("url", url)
        _check_log(log)
        checks.one_of("durability", durability, ("normal", "full", "replicated"))
        self._retention = Retention(max_events, max_age, max_bytes)
        checks.whole("max_event_bytes", max_event_bytes, 1024)
        checks.whole("max_queue", max_queue, 1)
        self._lease = checks.number("lease", lease, 0.1)
        checks.number("timeout", timeout, 0.01)
        linger = checks.seconds("linger", linger, zero=True)
        checks.flag("accept_eviction", accept_eviction)
        checks.flag("create", create)
        self._settles = durability != "normal"
        self._server = Server(url, log, timeout)
        self._committer = Committer(self._server, _new_owner(), max_event_bytes=max_event_bytes)
        self._open(durability, accept_eviction, create)
        self._writer = Writer(
            self._committer,
            linger=0.0 if self._settles else linger,
            max_queue=max_queue,
            timeout=timeout,
        )
        self._writer.on_commit = self._after_commit
        self._reader = self._contents = Reader(self._server, self._writer)
        self._endings = Endings(self._server, self._committer, max_event_bytes)
        self._reset()
        self._checkpoints = RedisCheckpoints(
            self._server,
            self._writer,
            self._reader,
            lambda: self._owners,
            on_taken=self._on_taken,
        )
        self.checkpoints = self._checkpoints
        threads.after_fork(self)
        threads.at_exit(self)

    def _open(self, durability: str, accept_eviction: bool, create: bool) -> None:
        committer = self._committer
        try:
            committer.log_id, committer.position = open_log(self._server, create=create)
            if not accept_eviction:
                check_policy(self._server)
            committer.confirm = confirmation(self._server, durability)
        except BaseException:
            self._server.close()
            raise

    def _reset(self) -> None:
        self._news = News(self._server)
        self._reader.reset(self._news.after)
        self._stops = StopWatch(self._server, self._requests, self._is_ours)
        self._owners = Owners(
            self._server,
            self._committer,
            self._endings,
            lease=self._lease,
            stop=self._tell,
            finish=self.request_stop,
            tidy=self._tidy,
        )

    def __repr__(self) -> str:
        return f"<RedisStore, {self._server.name}>"

    # --- writing ----------------------------------------------------------------------------

    def _claim(self, workflow_id: str, parent: Optional[str]) -> Run:
        known = self._writer.runs.get(workflow_id)
        if known is not None:
            return known
        if self._closer is not None:
            raise LogError("the log is closed")
        self._owners.enter()
        ids = (self._committer.log_id, self._committer.owner, self._owners.beat)
        answer = self._server.run(CLAIM, *ids, workflow_id, parent or "")
        if answer[0] == b"other":
            raise LogError(f"workflow {workflow_id!r} is written by another owner")
        if answer[0] != b"ok":
            raise has_log(workflow_id)
        if self._stops.stops.callbacks:
            self._stops.start()
        return self._writer.runs.setdefault(workflow_id, Run(workflow_id, parent))

    def _has(self, event: Event) -> bool:
        """True if a run of ours has ended with this event in it."""
        key = self._server.prefix + b"state:" + event.workflow_id.encode()
        ((owner, last),) = self._server.call((b"HMGET", key, b"owner", b"last"))
        return owner == self._committer.owner.encode() and int(last) >= event.offset

    def settle(self, event: Event) -> None:
        """See `EventStore.settle`.

        Raises:
            LogError: it is not known to be kept; `outcome` is "unknown".
        """
        if not self._settles:
            return
        run = self._writer.runs.get(event[4])
        if run is not None and run.committed < event[1]:
            self._writer.settle(run, event[1])

    # --- reading ----------------------------------------------------------------------------

    def runs(self, *, limit: int = 100) -> List[RunState]:
        """See `EventStore.runs`."""
        self._reader.refresh()
        return [
            state._replace(input=first_line(state.input)) for state in self._reader.newest(limit)
        ]

    def run(self, workflow_id: str) -> Optional[RunState]:
        """See `EventStore.run`."""
        self._reader.refresh()
        found = self._reader.states([workflow_id])
        return found[0].with_end(end_of(self, found[0])) if found else None

    # --- following --------------------------------------------------------------------------

    def wait(self, after: int, timeout: float) -> bool:
        """See `EventStore.wait`; one connection of the process waits for all of its threads."""
        if self._closed:
            return False
        self._owners.start()
        return self._news.wait(after, timeout)

    def read_new(self, after: int, limit: int) -> List[Event]:
        """See `EventStore.read_new`; what `read_others` has read is not read again."""
        return self._reader.new(after, limit)

    def read_others(
        self, after: int, limit: int, *, only: Optional[AbstractSet[str]] = None
    ) -> Tuple[List[Event], int]:
        """See `EventStore.read_others`; while the server is away there is nothing new."""
        if 0 < self._news.position <= after:
            return [], after
        try:
            return self._reader.of_others(self._committer.owner, after, limit, only)
        except OffsetGone:
            raise
        except LogError as error:
            if not error.retryable:
                raise
            logger.debug("the log cannot be followed for now", exc_info=True)
            return [], after

    # --- stopping ---------------------------------------------------------------------------

    def request_stop(self, workflow_id: str, reason: str) -> StopAnswer:
        """See `EventStore.request_stop`.

        Raises:
            ConfigError: an argument is no text, or none that the log can hold.
            LogError: the server cannot be asked.
        """
        check_id("workflow_id", workflow_id)
        check_reason(reason)
        run = self._writer.runs.get(workflow_id)
        if run is not None and run.released:
            self._writer.flush()
        ids = (self._committer.log_id, self._committer.owner, self._owners.beat)
        try:
            answer = self._server.run(STOP, *ids, workflow_id, reason)
            if answer[0] == b"mine":
                self._owners.enter()
                for name in answer[1:]:
                    self._endings.cancel(name.decode(), reason)
        except BaseException:
            self._owners.enter()
            self._owners.has_left = True  # perhaps: then it is ended with the next beat
            raise
        return _STOP_ANSWERS[answer[0]]

    def watch_stops(self, callback: StopCallback) -> None:
        """See `EventStore.watch_stops`."""
        self._stops.stops.add(callback)

    def _is_ours(self, workflow_id: str) -> bool:
        return workflow_id in self._writer.runs

    def _requests(self) -> List[Tuple[str, str]]:
        """The requests there are for runs of this process, (workflow id, reason) each."""
        names = list(self._writer.runs)
        keys = [self._server.prefix + b"state:" + name.encode() for name in names]
        commands = [(b"HMGET", key, b"stop", b"owner") for key in keys]
        found = self._server.call(*commands) if commands else []
        me = self._committer.owner.encode()
        asked = [
            (name, reason.decode())
            for name, (reason, owner) in zip(names, found)
            if reason is not None and owner == me
        ]
        runs = list(self._writer.runs.values())
        return asked + [(run.workflow_id, run.refused) for run in runs if run.refused is not None]

    def _tell(self, workflow_id: str, reason: str) -> None:
        """Stop a run, or end it if it rests by now."""
        if self._is_ours(workflow_id):
            self._stops.tell(workflow_id, reason)
        else:
            self.request_stop(workflow_id, reason)

    def _on_taken(self, workflow_id: str) -> None:
        self._stops.stops.forget(workflow_id)
        if self._stops.stops.callbacks:
            self._stops.start()

    # --- the writer's side ------------------------------------------------------------------

    def _after_commit(self) -> None:
        committer = self._committer
        self._news.reach(committer.position)
        asked, committer.stops = committer.stops, []
        for workflow_id, reason in asked:
            self._owners.soon(functools.partial(self._tell, workflow_id, reason))
        lost, committer.gaps = committer.gaps, []
        for workflow_id in lost:
            self._owners.soon(functools.partial(self._owners.abandon, workflow_id))
        if self._retention.is_due(committer.position):
            self._owners.soon(self._tidy)

    def _tidy(self) -> None:
        self._retention.trim(self._server, self._committer.log_id, self._committer.position)

    # --- the end ----------------------------------------------------------------------------

    def _close(self) -> None:
        self._writer.close()
        self._owners.end()
        self._stops.end()
        if self._owners.has_entered and self._writer.failure is None:
            with contextlib.suppress(LogError):
                self._server.run(LEAVE, self._committer.log_id, self._committer.owner)
        self._news.end()
        self._server.close()
        self._end()

    # --- fork -------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._writer.before_fork()

    def _after_fork_in_parent(self) -> None:
        self._writer.after_fork_in_parent()

    def _after_fork(self) -> None:
        closed = self._closed
        self._server.reset()
        self._writer.after_fork_in_child(_new_owner())
        self._checkpoints.reset()
        callbacks = self._stops.stops.callbacks
        self._reset()
        self._stops.stops.callbacks = callbacks
        if closed:
            self._server.close()


def _new_owner() -> str:
    return os.urandom(8).hex()


def _check_log(log: str) -> None:
    check_id("log", log)
    if set(log) & set("{}"):
        raise ConfigError.about("log", "must have no braces")
