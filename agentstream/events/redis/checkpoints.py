"""RedisCheckpoints: what runs need to go on, beside their log; who has which run."""

from __future__ import annotations

import os
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set

from agentstream import checks
from agentstream.errors import Busy, LogError
from agentstream.events.checkpoints import (
    CheckpointStore,
    Entry,
    check_queued,
    check_records,
)
from agentstream.events.entry import check_id, check_reason
from agentstream.events.redis.owners import Owners
from agentstream.events.redis.reader import Reader
from agentstream.events.redis.run import Operation, Run, refusal
from agentstream.events.redis.run_scripts import ANSWER, DUE, FORWARD, QUEUE, TAKE
from agentstream.events.redis.server import Argument, Server
from agentstream.events.redis.writer import Writer
from agentstream.events.run_state import RunState, first_line
from agentstream.events.store import has_log

__all__ = ["RedisCheckpoints"]


class RedisCheckpoints(CheckpointStore):
    """Checkpoints in the log's server, written within the log's commits.

    Args:
        server, writer, reader, owners: of the log.
        on_taken: called with the id of each run that was taken.
    """

    def __init__(
        self,
        server: Server,
        writer: Writer,
        reader: Reader,
        owners: Callable[[], Owners],
        *,
        on_taken: Callable[[str], object],
    ) -> None:
        self._server = server
        self._writer = writer
        self._reader = reader
        self._owners = owners
        self._on_taken = on_taken
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child."""
        self._lock = threading.Lock()
        self._taking: Set[str] = set()  # the runs that a thread is about to take

    def __repr__(self) -> str:
        return f"<RedisCheckpoints of {self._server.name}>"

    # --- the run's own process --------------------------------------------------------------

    def begin(
        self,
        workflow_id: str,
        *,
        root: Optional[str] = None,
        recover: int = 3,
        keep: Optional[float] = None,
    ) -> None:
        """See `CheckpointStore.begin`; it is committed with what follows."""
        check_id("workflow_id", workflow_id)
        checks.whole("recover", recover)
        keep = checks.seconds("keep", keep, optional=True)
        run = self._run(workflow_id)
        outer = None if root is None else self._run(root)
        if run.fence is None:
            run.fence = 1 if outer is None else outer.fence
        if run.fence is None:
            raise LogError(refusal(outer.workflow_id if outer else workflow_id, [b"none"]))
        run.keeps = outer is None
        self._writer.put(Operation.begin(run, root, recover, keep), wait=False)

    def write(
        self,
        workflow_id: str,
        records: Mapping[str, Optional[bytes]],
        *,
        discard: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        """See `CheckpointStore.write`."""
        check_records(records, discard)
        kept = {key: None if value is None else bytes(value) for key, value in records.items()}
        run = self._own_root(workflow_id)
        self._writer.put(Operation.write(run, kept, discard), wait=wait)

    def refuse(self, workflow_id: str, why: str) -> None:
        """See `CheckpointStore.refuse`; waits for a commit."""
        check_reason(why)
        run = self._own_root(workflow_id)
        self._writer.put(Operation.refuse(run, why), wait=True)

    def _run(self, workflow_id: str) -> Run:
        """A run that this process writes."""
        run = self._writer.runs.get(workflow_id)
        if run is None or run.released:
            raise LogError(f"workflow {workflow_id!r} is not under way here")
        if run.refused is not None:
            raise LogError(run.refused)
        if run.lacks is not None:
            raise LogError(f"an earlier part of its checkpoint was not kept: {run.lacks}")
        return run

    def _own_root(self, workflow_id: str) -> Run:
        run = self._run(workflow_id)
        if not run.keeps:
            code = b"none" if run.fence is None else b"within"
            raise LogError(refusal(workflow_id, [code]))
        return run

    # --- anybody ----------------------------------------------------------------------------

    def read(self, workflow_id: str) -> Dict[str, bytes]:
        """See `CheckpointStore.read`; all that was written before is among it."""
        return _records(self._ask(b"HGETALL", workflow_id))

    def keys(self, workflow_id: str, starts: Sequence[str]) -> Set[str]:
        """See `CheckpointStore.keys`; it reads no values."""
        found = [key.decode() for key in self._ask(b"HKEYS", workflow_id)]
        return {key for key in found if key.startswith(tuple(starts))}

    def _ask(self, command: bytes, workflow_id: str) -> List[bytes]:
        """What the server answers of a run's records, or of those of the root it is within."""
        self._reader.refresh()
        prefix = self._server.prefix
        name = workflow_id.encode("utf-8", "surrogatepass")
        (root,) = self._server.call((b"HGET", prefix + b"state:" + name, b"root"))
        found: List[bytes]
        (found,) = self._server.call((command, prefix + b"keep:" + (root or name)))
        return found

    def answer(self, workflow_id: str, key: str, value: bytes) -> bool:
        """See `CheckpointStore.answer`."""
        check_id("workflow_id", workflow_id)
        check_records({key: value})
        self._writer.flush()
        log_id = self._writer.committer.log_id
        call = os.urandom(8).hex()
        answer = self._server.run(ANSWER, log_id, workflow_id, key, bytes(value), call)
        if answer[0] not in (b"ok", b"again"):
            raise LogError(refusal(workflow_id, answer))
        return bool(answer[0] == b"ok")

    def waiting(self) -> List[RunState]:
        """See `CheckpointStore.waiting`."""
        self._reader.refresh()
        names = self._reader.members(b"resting", 0, -1)
        prefix = self._server.prefix
        commands = [
            (b"HMGET", prefix + b"state:" + name.encode(), b"fence", b"refused") for name in names
        ]
        found = self._server.call(*commands) if commands else []
        kept = [name for name, (fence, why) in zip(names, found) if fence and why is None]
        states = self._reader.states(kept)
        return [state._replace(input=first_line(state.input)) for state in states]

    # --- runs that are queued ---------------------------------------------------------------

    def queue(
        self,
        workflow_id: str,
        name: str,
        records: Mapping[str, bytes],
        *,
        recover: int = 3,
        keep: Optional[float] = None,
        due: float = 0.0,
    ) -> None:
        """See `CheckpointStore.queue`."""
        check_queued(workflow_id, name, records)
        checks.whole("recover", recover)
        keep = checks.seconds("keep", keep, optional=True)
        kept: List[Argument] = []
        for key, value in records.items():
            kept += [key, bytes(value)]
        call = os.urandom(8).hex()
        answer = self._server.run(
            QUEUE,
            *(self._writer.committer.log_id, workflow_id, name, call, repr(float(due)), recover),
            *("" if keep is None else repr(float(keep)), *kept),
        )
        if answer[0] != b"ok":
            raise has_log(workflow_id)

    def take_due(self, names: Sequence[str], *, pause: float = 60.0, limit: int = 100) -> List[str]:
        """See `CheckpointStore.take_due`; this process also looks for others that have died."""
        self._owners().start()
        log_id = self._writer.committer.log_id
        found = self._server.run(DUE, log_id, repr(float(pause)), limit, *names)
        return [name.decode() for name in found[1:]]

    def bring_forward(self, workflow_id: str, due: float = 0.0) -> bool:
        """See `CheckpointStore.bring_forward`."""
        log_id = self._writer.committer.log_id
        answer = self._server.run(FORWARD, log_id, workflow_id, repr(float(due)))
        return bool(answer[0] == b"ok")

    # --- taking a run -----------------------------------------------------------------------

    def resume(self, workflow_id: str) -> Entry:
        """See `CheckpointStore.resume`."""
        check_id("workflow_id", workflow_id)
        with self._lock:
            if workflow_id in self._taking:
                raise _busy(workflow_id, "here")
            self._taking.add(workflow_id)
        try:
            known = self._writer.runs.get(workflow_id)
            if known is not None:
                self._writer.flush()  # it may have been left, and that not committed
                known = self._writer.runs.get(workflow_id)
            owners = self._owners()
            owners.enter()
            committer = self._writer.committer
            mine = known is not None and known.refused is None
            answer = self._server.run(
                TAKE, committer.log_id, committer.owner, owners.beat, workflow_id, int(mine)
            )
            return self._install(workflow_id, answer)
        finally:
            with self._lock:
                self._taking.discard(workflow_id)

    def _install(self, workflow_id: str, answer: List[Any]) -> Entry:
        """Have the writer take the events of runs that are this process's now."""
        code = answer[0]
        if code == b"busy":
            raise _busy(workflow_id, answer[1].decode())
        if code == b"within":
            root = answer[1].decode()
            raise LogError(f"workflow {workflow_id!r} is within {root!r}: resume that one")
        if code != b"ok":
            raise LogError(refusal(workflow_id, answer))
        last, fence, deaths, reason, kept, found = answer[1:]
        names = [name.decode() for name in found[::2]]
        inner = dict(zip(names, map(int, found[1::2])))
        entry = Entry(int(last), fence, deaths, reason.decode(), _records(kept), inner)
        parents = self._reader._parents_of([workflow_id, *inner])
        writer = self._writer
        with writer.lock:
            for name, offset in ((workflow_id, entry.last), *inner.items()):
                stale = writer.runs.get(name)
                if stale is not None:  # its late words are dropped
                    stale.refused = f"the run {name!r} has been taken again"
                run = Run(name, parents[name])
                run.fence, run.keeps = fence, name == workflow_id
                run.last = run.committed = run.since = offset
                writer.runs[name] = run
            writer.runs[workflow_id].inner = tuple(inner)
        for name in (workflow_id, *inner):
            self._on_taken(name)
        return entry


def _records(found: List[bytes]) -> Dict[str, bytes]:
    return {key.decode(): value for key, value in zip(found[::2], found[1::2])}


def _busy(workflow_id: str, where: str) -> Busy:
    return Busy(f"workflow {workflow_id!r} is under way {where}")
