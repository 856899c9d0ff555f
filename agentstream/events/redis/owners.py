"""Owners: this process's sign of life in the log, and whose has failed.

A process beats every third of its lease.  Another one's is dead whose beat has not moved for
its lease, by the watcher's own monotonic clock, during which all the watcher's own beats got
through: no two clocks are compared, and where the server was away, nobody has died.  A process
that could not beat for its lease stops its runs: others may have them by now.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Tuple

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.redis.commit import Committer
from agentstream.events.redis.endings import Endings
from agentstream.events.redis.run import refusal
from agentstream.events.redis.run_scripts import ABANDON, SEIZE
from agentstream.events.redis.scripts import BEAT
from agentstream.events.redis.server import Server
from agentstream.threads.wakeup import Wakeup

__all__ = ["Owners", "Seen"]

logger = logging.getLogger("agentstream.events.redis")


class Seen:
    """What is known of others' signs of life.

    Args:
        lease: seconds; an owner may have said another number with its beats.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._beats: Dict[str, Tuple[bytes, float]] = {}  # and since when it is that one
        self._steady_since: Optional[float] = None
        self._looked_at = 0.0

    def lose(self) -> None:
        """A beat of our own did not get through: what others did meanwhile is not known."""
        self._steady_since = None

    def look(self, beats: Dict[str, bytes], now: float) -> List[Tuple[str, bytes]]:
        """Note others' beats; returns those whose time is over."""
        if self._steady_since is None or now - self._looked_at > self._lease:
            self._steady_since = now  # also after a sleep of this process
        self._looked_at = now
        dead = []
        for owner, beat in beats.items():
            known = self._beats.get(owner)
            if known is None or known[0] != beat:
                self._beats[owner] = (beat, now)
            elif now - max(known[1], self._steady_since) > _lease_of(beat, self._lease):
                dead.append((owner, beat))
        for owner in set(self._beats) - set(beats):
            del self._beats[owner]
        return dead


def _lease_of(beat: bytes, otherwise: float) -> float:
    try:
        return max(otherwise, float(beat.split()[1]))
    except (ValueError, IndexError):
        return otherwise


class Owners:
    """Beats, and reaps the dead, in a thread.

    Args:
        server, committer, endings: of the log.
        lease: seconds after which a process that gave no sign of life is dead.
        stop: called with (workflow id, reason) of a run of this process that is to stop.
        finish: called with (workflow id, reason) of one that rests, and is to be stopped.
        tidy: called at each beat of a process that writes.

    Attributes:
        has_entered: this process has a place among the owners.
        has_left: it may have taken runs to end them, and not have ended them.
    """

    def __init__(
        self,
        server: Server,
        committer: Committer,
        endings: Endings,
        *,
        lease: float,
        stop: Callable[[str, str], None],
        finish: Callable[[str, str], object],
        tidy: Callable[[], object],
    ) -> None:
        self._server = server
        self._committer = committer
        self._endings = endings
        self._lease = lease
        self._stop = stop
        self._finish = finish
        self._tidy = tidy
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._wakeup = Wakeup()
        self._ended = False
        self.has_entered = self.has_left = False
        self._count = 0
        self._through = 0.0  # when the newest beat that got through was sent
        self._gave_up = False  # no beat has got through for as long as a lease
        self._seen = Seen(lease)
        self._tasks: Deque[Callable[[], object]] = deque()

    @property
    def beat(self) -> bytes:
        """This process's sign of life, as the log has it at first."""
        return b"%d %g" % (self._count, self._lease)

    def enter(self) -> None:
        """This process writes runs: it is to give signs of life."""
        if not self.has_entered:
            self._through = time.monotonic()
            self.has_entered = True
        self.start()

    def start(self) -> None:
        """Look after others' runs, and beat if any are ours."""
        if self._thread is not None or self._ended:
            return
        with self._lock:
            if self._thread is None and not self._ended:
                try:
                    self._thread = threads.start_thread("log-beat", self._main)
                except RuntimeError:
                    raise LogError("no thread could be started for the log's lease") from None

    def soon(self, task: Callable[[], object]) -> None:
        """Have something done in the thread."""
        self._tasks.append(task)
        self._wakeup.set()

    def end(self) -> None:
        """End the thread, and wait for that unless it is the caller."""
        self._ended = True
        self._wakeup.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._server.timeout + 1.0)

    def _main(self) -> None:
        due = 0.0
        while not self._ended:
            try:
                while self._tasks:
                    self._tasks.popleft()()
                if time.monotonic() >= due:
                    due = time.monotonic() + self._lease / 3
                    self._look()
            except LogError:
                logger.debug("no sign of life got through", exc_info=True)
                self._fail()
                due = min(due, time.monotonic() + 1.0)
            except Exception:
                logger.exception("the log's lease")
                self._fail()
            self._wakeup.wait(max(0.0, due - time.monotonic()))

    def _look(self) -> None:
        """Beat, see who else does, and stop what is to stop."""
        me, began = self._committer.owner if self.has_entered else "", time.monotonic()
        self._count += 1
        names = [run.workflow_id for run in list(self._committer.runs.values())]
        answer = self._server.run(BEAT, self._committer.log_id, me, self.beat, *names)
        self._through, self._gave_up = began, False
        found, stops, lost = answer
        beats = {owner.decode(): beat for owner, beat in zip(found[::2], found[1::2])}
        beats.pop(self._committer.owner, None)
        for name, reason in zip(stops[::2], stops[1::2]):
            self._stop(name.decode(), reason.decode())
        for name in lost:
            run = self._committer.runs.get(name.decode())
            if run is not None and not run.released and run.refused is None:
                run.refused = refusal(run.workflow_id, [b"taken"])
        for run in list(self._committer.runs.values()):
            if run.refused is not None:
                self._stop(run.workflow_id, run.refused)
            elif run.barred is not None and run.keeps and run.committed >= run.last:
                self.abandon(run.workflow_id)  # with the runs within it
                run.refused = run.barred
        for owner, beat in self._seen.look(beats, time.monotonic()):
            self._reap(owner, beat)
        if self.has_left:
            self._reap("", b"")
        if me:
            self._tidy()

    def _fail(self) -> None:
        """A beat has not got through: stop all runs if none has for as long as a lease."""
        self._seen.lose()
        late = self.has_entered and time.monotonic() - self._through > self._lease
        if late and not self._gave_up:
            self._gave_up = True
            why = f"no sign of life has reached {self._server.name} for {self._lease:g} s"
            for run in list(self._committer.runs.values()):
                if not run.released and run.refused is None:
                    logger.error("%r is stopped: %s", run.workflow_id, why)
                    if run.fence is not None:
                        run.barred = why  # it has no end yet: somebody is to resume it
                    self._stop(run.workflow_id, why)

    def abandon(self, workflow_id: str) -> None:
        """Leave a run of this process to others, or end it, as if the process had died.

        Raises:
            LogError: the server could not be asked.
        """
        committer = self._committer
        self._server.run(ABANDON, committer.log_id, committer.owner, workflow_id)
        self._reap("", b"")

    def _reap(self, dead: str, beat: bytes) -> None:
        """Leave a dead process's runs to others, or end them; also what is left of an earlier time.

        Raises:
            LogError: not all of it could be done; it is tried again.
        """
        if dead:
            logger.warning("a process that wrote to %s has died", self._server.name)
        self.has_entered = True  # as the owner of what it ends, until then
        self.has_left = False  # before: another thread may leave something meanwhile
        try:
            ids = (self._committer.log_id, self._committer.owner, self.beat)
            ends, rests = self._server.run(SEIZE, *ids, dead, beat)
            for name, reason in zip(ends[::2], ends[1::2]):
                self._endings.interrupt(name.decode(), reason.decode())
            for name, reason in zip(rests[::2], rests[1::2]):
                self._finish(name.decode(), reason.decode())
        except BaseException:
            self.has_left = True
            raise
