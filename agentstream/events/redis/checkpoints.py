"""RedisCheckpoints: what runs need to go on, beside their log; who has which run."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from agentstream.errors import LogError
from agentstream.events.checkpoints import Entry, QueuedRun, check_records
from agentstream.events.entry import check_id
from agentstream.events.redis.owners import Owners
from agentstream.events.redis.reader import Reader
from agentstream.events.redis.run import Operation, Run, refusal
from agentstream.events.redis.run_scripts import ANSWER, DUE, FORWARD, QUEUE, TAKE
from agentstream.events.redis.server import Argument, Server
from agentstream.events.redis.writer import Writer
from agentstream.events.run_state import RunState, first_line
from agentstream.events.shared_checkpoints import SharedCheckpoints, busy
from agentstream.events.store import has_log

__all__ = ["RedisCheckpoints"]


class RedisCheckpoints(SharedCheckpoints):
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

    def __repr__(self) -> str:
        return f"<RedisCheckpoints of {self._server.name}>"

    # --- the run's own process --------------------------------------------------------------

    def _begin(self, run: Run, outer: Optional[Run], recover: int, keep: Optional[float]) -> None:
        if run.fence is None:
            run.fence = 1 if outer is None else outer.fence
        if run.fence is None:
            raise LogError(refusal((outer or run).workflow_id, [b"none"]))
        run.keeps = outer is None
        root = None if outer is None else outer.workflow_id
        self._writer.put(Operation.begin(run, root, recover, keep), wait=False)

    def _write(
        self, run: Run, records: Dict[str, Optional[bytes]], discard: Sequence[str], wait: bool
    ) -> None:
        _check_root(run)
        self._writer.put(Operation.write(run, records, discard), wait=wait)

    def _refuse(self, run: Run, why: str) -> None:
        _check_root(run)
        self._writer.put(Operation.refuse(run, why), wait=True)

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

    def _queue(self, run: QueuedRun) -> None:
        committer, call = self._writer.committer, os.urandom(8).hex()
        keep = "" if run.keep is None else repr(float(run.keep))
        shown = "" if run.input is None else f"={run.input}"
        arguments: List[Argument] = [committer.log_id, run.workflow_id, run.name, call]
        arguments += [repr(float(run.due)), run.recover, keep, shown]
        arguments += [part for record in run.records.items() for part in record]
        try:
            answer = self._server.run_safely(committer.confirm, QUEUE, arguments)
        except LogError as error:
            if error.outcome != "unknown" or not error.retryable:
                raise
            answer = self._server.run_safely(committer.confirm, QUEUE, arguments)
        if answer[0] != b"ok":
            raise has_log(run.workflow_id)

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

    def _take_over(self, workflow_id: str) -> Entry:
        known = self._writer.runs.get(workflow_id)
        owners = self._owners()
        owners.enter()
        committer = self._writer.committer
        mine = known is not None and known.refused is None
        answer = self._server.run(
            TAKE, committer.log_id, committer.owner, owners.beat, workflow_id, int(mine)
        )
        return self._install(workflow_id, answer)

    def _install(self, workflow_id: str, answer: List[Any]) -> Entry:
        """Have the writer take the events of runs that are this process's now."""
        code = answer[0]
        if code == b"busy":
            raise busy(workflow_id, answer[1].decode())
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


def _check_root(run: Run) -> None:
    """See that a run keeps a checkpoint of its own.

    Raises:
        LogError: it does not.
    """
    if not run.keeps:
        code = b"none" if run.fence is None else b"within"
        raise LogError(refusal(run.workflow_id, [code]))
