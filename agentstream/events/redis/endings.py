"""Endings: the last event of runs that nobody has, whose process died or which were stopped."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from agentstream.errors import AgentStreamError
from agentstream.events import accessors, payloads
from agentstream.events.model import Event, EventType, freeze, make_event
from agentstream.events.redis.commit import Committer
from agentstream.events.redis.entries import event_from, fit, note_of, type_name
from agentstream.events.redis.run_scripts import CLOSE
from agentstream.events.redis.scripts import APPEND
from agentstream.events.redis.server import Server
from agentstream.events.resting import cancelled
from agentstream.results import Usage

__all__ = ["Endings"]

logger = logging.getLogger("agentstream.events.redis")

#: The log of no workflow, an agent's own say, is whole that ends with one of these.
_WHOLE = {
    EventType.AGENT_COMPLETED,
    EventType.AGENT_FAILED,
    EventType.SYSTEM_WARNING,
    EventType.SYSTEM_ERROR,
}
_FIELDS = (b"parent", b"name", b"last", b"started", b"fence", b"root", b"deaths", b"recover")
_PAGE = 500


class _Left(NamedTuple):
    """A run that nobody has, and the newest of its events."""

    workflow_id: str
    parent: Optional[str]
    name: str
    last: int
    started: Optional[float]
    fence: Optional[bytes]
    root: Optional[bytes]
    deaths: int
    recover: int
    refused: Optional[str]
    newest: Optional[Event]


class Endings:
    """Appends the ends of runs, as their owner: this process has taken them before.

    Args:
        server: the log's.
        committer: knows the log's id and this process's name in it.
        most: bytes of an event's data.
    """

    def __init__(self, server: Server, committer: Committer, most: int) -> None:
        self._server = server
        self._committer = committer
        self._most = most

    def interrupt(self, workflow_id: str, reason: str) -> None:
        """End a run whose process has died; as cancelled for a `reason` to stop it.

        Raises:
            LogError: it could not be.
        """
        if reason:
            self.cancel(workflow_id, reason)
            return
        left = self._find(workflow_id)
        if not left.name and left.newest is not None and left.newest.type in _WHOLE:
            args = (self._committer.log_id, self._committer.owner, workflow_id)
            self._server.run(CLOSE, *args)  # a workflow has a name
            return
        begun, output = self._said(left)
        now = max(time.time(), left.started or 0.0)  # a clock that was set back
        duration = now - left.started if left.started else 0.0
        end = payloads.run_end(left.name, output, Usage().to_dict(), duration)
        if not left.last and not left.name:  # one that was queued has its name all along
            why = "it never began: the process that had queued it died"
            data = payloads.workflow_cancelled(end, reason=why)
            self._end(left, EventType.WORKFLOW_CANCELLED, data)
            return
        step, at = begun.get("name"), begun.get("step")
        failure = _interruption(left)
        data = payloads.workflow_failed(end, failure, failed_step=step, failed_at=at)
        self._end(left, EventType.WORKFLOW_FAILED, data)

    def cancel(self, workflow_id: str, reason: str) -> None:
        """End a run that rested, or whose process died though it was to stop, as cancelled.

        Raises:
            LogError: it could not be.
        """
        left = self._find(workflow_id)
        newest = left.newest
        rested = newest is not None and newest.type is EventType.WORKFLOW_SUSPENDED
        rest = newest.data if newest is not None and rested else {}
        data = cancelled(rest, left.name, reason)
        if data["output"] is None:
            data["output"] = self._said(left)[1]
        self._end(left, EventType.WORKFLOW_CANCELLED, data)

    def _find(self, workflow_id: str) -> _Left:
        name = workflow_id.encode()
        state, run = self._server.prefix + b"state:" + name, self._server.prefix + b"run:" + name
        found, newest = self._server.call(
            (b"HMGET", state, *_FIELDS, b"refused"),
            (b"XREVRANGE", run, b"+", b"-", b"COUNT", 1),
        )
        parent, title, last, started, fence, root, deaths, recover, refused = found
        above = None if parent is None else parent.decode()
        return _Left(
            workflow_id,
            above,
            (title or b"").decode(),
            int(last or 0),
            None if started is None else float(started),
            fence,
            root,
            int(deaths or 0),
            int(recover or 0),
            None if refused is None else refused.decode(),
            event_from(workflow_id, above, newest[0]) if newest else None,
        )

    def _said(self, left: _Left) -> Tuple[Dict[str, Any], str]:
        """What the start of a run's last step says, and the text of its chunks since."""
        run, end = self._server.prefix + b"run:" + left.workflow_id.encode(), b"+"
        texts: List[str] = []
        while True:
            command = (b"XREVRANGE", run, end, b"-", b"COUNT", _PAGE)
            (entries,) = self._server.call(command)
            for entry in entries:
                event = event_from(left.workflow_id, left.parent, entry)
                if event.type is EventType.WORKFLOW_STEP_STARTED:
                    return dict(event.data), "".join(reversed(texts))
                if event.type is EventType.AGENT_LLM_STREAM_CHUNK:
                    texts.append(accessors.text(event.data, "chunk"))
            if len(entries) < _PAGE:
                return {}, "".join(reversed(texts))
            end = b"(" + entries[-1][0]

    def _end(self, left: _Left, kind: EventType, data: Dict[str, Any]) -> None:
        offset, now = left.last + 1, time.time()
        frozen = freeze(data)
        identity = f"{left.workflow_id}:{offset}"
        fields = (identity, offset, None, kind, left.workflow_id, left.parent, now, frozen)
        event = make_event(fields)
        note = json.dumps(note_of(event, None, ()), ensure_ascii=False)
        committer = self._committer
        # Nobody's: whoever follows the log must not take it for an event of its own.
        answer = self._server.run(
            APPEND,
            *(committer.log_id, committer.owner, committer.position, 1),
            *(b"e", left.workflow_id, left.parent or "", b"", left.fence or b"", offset, 1),
            *(type_name(kind), repr(now), fit(frozen, self._most), note),
        )
        why = answer[2][0]
        if not isinstance(why, int):
            level = logging.DEBUG if why[0] == b"ended" else logging.WARNING
            logger.log(level, "%r was ended by somebody else", left.workflow_id)


def _interruption(left: _Left) -> Dict[str, Any]:
    """`payloads.failure` of a run whose process died.

    It may be tried again, unless it was resumed as often as it may be, and each time in vain.
    """
    message = "interrupted: the process that ran it died"
    again = True
    if left.refused is not None:
        message += f"; it cannot be resumed: {left.refused}"
    elif left.fence is not None and left.root is None:
        message += f"; so did {left.deaths} before, and recover is {left.recover}"
        again = not left.deaths
    error = AgentStreamError(message, retryable=again, outcome="unknown")
    return {**payloads.failure(error), "error": "Interrupted"}
