"""An MCP server that is a child process: its start, which version it speaks, its restarts.

MCP 2026-07-28, "stdio": `server/discover` is asked first, and whoever does not know
it is opened with `initialize`, as the versions before have it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import (
    Cancelled,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
)
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Limits, Timeouts
from agentstream.llm.transport.semaphore import FairSemaphore
from agentstream.mcp.dialogue import Dialogue, Question, wait_for
from agentstream.mcp.environment import environment_with
from agentstream.mcp.messages import (
    LEGACY,
    MODERN,
    UNSUPPORTED_VERSION,
    Asked,
    error_of,
    initialize_params,
    legacy_version,
    mutual_version,
    result_of,
    with_meta,
)

__all__ = ["Program", "StdioConnection"]

#: Seconds that `server/discover` is waited for before `initialize` is tried as well.
_PROBE_S = 5.0
#: Starts count against the bound for so many seconds.
_WINDOW_S = 60.0
#: Seconds for a server to leave by itself, and in a hurry.
_PATIENCE_S, _HURRY_S = 1.0, 0.3
#: A value of the environment that is shorter is no secret.
_SHORT = 8


class Program(NamedTuple):
    """What is started: the command, the environment beyond the usual, the folder."""

    command: Tuple[str, ...]
    env: Mapping[str, str]
    cwd: Optional[str]


class StdioConnection:
    """The server that a command starts, with the first request.  Any number of threads may use it.

    Args:
        restarts: a server that has ended is started again, at most so often a minute.

    Attributes:
        mirrors: False; there are no headers here.
    """

    mirrors = False
    _exit_order = 3  # after the runs that may use it

    def __init__(
        self, program: Program, *, name: str, timeouts: Timeouts, limits: Limits, restarts: int
    ) -> None:
        self._program = program
        self._name = name
        self._timeouts = timeouts
        self._limits = limits
        self._restarts = restarts
        self._redact = Redactor(keys=[v for v in program.env.values() if len(v) >= _SHORT])
        self._closed = False
        self._older = False  # it is known to speak a version before MODERN
        self._reset()
        threads.after_fork(self)
        threads.at_exit(self)

    def _reset(self) -> None:
        self._dialogue: Optional[Dialogue] = None
        self._about: Dict[str, Any] = {}
        self._starts: Deque[float] = deque()
        self._turn = FairSemaphore(1)  # who starts it

    def _after_fork(self) -> None:
        dialogue = self._dialogue
        self._reset()
        if dialogue is not None:
            dialogue.process.forget()

    def _at_exit(self) -> None:
        self.close(hurry=True)

    def __del__(self) -> None:
        dialogue = getattr(self, "_dialogue", None)
        if dialogue is not None:
            dialogue.process.let_go()

    def __repr__(self) -> str:
        return f"<StdioConnection {self._name}>"

    @property
    def protocol(self) -> str:
        """The version that is spoken; "" before the first request."""
        dialogue = self._dialogue
        return "" if dialogue is None else dialogue.version

    @property
    def address(self) -> None:
        """None: there are only pipes."""

    @property
    def pid(self) -> Optional[int]:
        """The process' id; None while there is none."""
        dialogue = self._dialogue
        return dialogue.process.pid if dialogue is not None and dialogue.alive else None

    def about(self, cancel: CancelToken) -> Dict[str, Any]:
        """What the server said of itself when it was opened."""
        self._ready(cancel)
        return self._about

    def request(self, asked: Asked, cancel: CancelToken) -> Dict[str, Any]:
        """The result of a request.

        Raises:
            MCPError: the server answered with an error.
            AgentStreamError: it did not answer; `outcome` tells whether it may have acted.
        """
        dialogue = self._ready(cancel)
        params: Mapping[str, Any] = asked.params
        if dialogue.version in MODERN:
            params = with_meta(params, dialogue.version)
        question = dialogue.ask(asked.method, params)
        message = dialogue.wait(question, cancel, self._due(asked.timeout))
        return result_of(message, asked.method)

    def _due(self, timeout: Optional[float]) -> float:
        """When the answer to a request must be there."""
        bounds = [self._timeouts.first_token, timeout or self._timeouts.total]
        seconds = min((bound for bound in bounds if bound is not None), default=threads.NEVER)
        return time.monotonic() + seconds

    def close(self, *, hurry: bool = False) -> None:
        """End the process.  Idempotent.

        Args:
            hurry: within a second, however the server behaves.
        """
        self._closed = True
        dialogue = self._dialogue
        if dialogue is not None:
            dialogue.process.end(_HURRY_S if hurry else _PATIENCE_S)

    # --- the start --------------------------------------------------------------------------

    def _ready(self, cancel: CancelToken) -> Dialogue:
        """The server, started unless it runs.

        Raises:
            ConnectError: it was closed, or has ended too often.
        """
        dialogue = self._dialogue
        if dialogue is not None and dialogue.alive and dialogue.version:
            return dialogue
        if not self._turn.acquire(cancel):
            raise Cancelled(f"the call was stopped: {cancel.reason}", phase="connect")
        try:
            dialogue = self._dialogue
            if dialogue is None or not dialogue.alive or not dialogue.version:
                dialogue = self._start(cancel)
            return dialogue
        finally:
            self._turn.release()

    def _start(self, cancel: CancelToken) -> Dialogue:
        limit = self._timeouts.connect
        due = threads.NEVER if limit is None else time.monotonic() + limit
        probes = not self._older
        while True:
            dialogue = self._spawn()
            try:
                self._open(dialogue, cancel, due, probes=probes)
                return dialogue
            except BaseException as error:
                died = isinstance(error, ConnectError) and not dialogue.alive
                dialogue.process.end(_HURRY_S)
                if not (died and probes):
                    raise
                probes = False  # perhaps the unknown request was too much for it

    def _spawn(self) -> Dialogue:
        if self._closed:
            raise ConnectError(f"{self._name}: the connection was closed")
        now = time.monotonic()
        while self._starts and self._starts[0] < now - _WINDOW_S:
            self._starts.popleft()
        if len(self._starts) > self._restarts:
            raise ConnectError(
                f"{self._name}: it ended {len(self._starts)} times within a minute, and is not"
                " started again"
            )
        self._starts.append(now)
        program = self._program
        dialogue = self._dialogue = Dialogue(
            _resolved(program.command),
            env=environment_with(program.env),
            cwd=program.cwd,
            name=self._name,
            limit=self._limits.line,
            redact=self._redact,
        )
        closed: bool = self._closed  # while it was being started
        if closed:
            dialogue.process.end(_HURRY_S)
        return dialogue

    def _open(self, dialogue: Dialogue, cancel: CancelToken, due: float, *, probes: bool) -> None:
        """Settle the version."""
        try:
            if not (probes and self._discover(dialogue, cancel, due)):
                self._initialize(dialogue, cancel, due)
        except DeadlineExceeded:
            raise ConnectTimeout(
                f"{self._name}: it did not answer within {self._timeouts.connect:g} s of its start"
                " (Timeouts.connect)",
                phase="connect",
            ) from None

    def _discover(self, dialogue: Dialogue, cancel: CancelToken, due: float) -> bool:
        """True if the server speaks a modern version, which is then settled."""
        version = MODERN[0]
        for last in (False, True):
            question = dialogue.ask("server/discover", with_meta({}, version))
            wait_for(question.settled, cancel, min(due, time.monotonic() + _PROBE_S))
            if question.answer is None and not cancel.cancelled and time.monotonic() < due:
                return self._race(dialogue, question, cancel, due)
            message = dialogue.wait(question, cancel, due)
            supported = _supported(message)
            found = mutual_version(supported)
            if error_of(message, "server/discover") is None:
                if found is None:
                    return False
                self._settle(dialogue, found, result_of(message, "server/discover"))
                return True
            if found is None or last:
                self._check_older(message, supported)
                return False
            version = found
        return False

    def _race(self, dialogue: Dialogue, probe: Question, cancel: CancelToken, due: float) -> bool:
        """Nothing was said to the probe so far: open an older server, or hear a slow one out."""
        opening = dialogue.ask("initialize", initialize_params())
        message = dialogue.wait(opening, cancel, due)
        if error_of(message, "initialize") is not None:
            answer = dialogue.wait(probe, cancel, due)
            found = mutual_version(_supported(answer))
            if found is None:
                result_of(message, "initialize")  # raises
            self._settle(dialogue, str(found), result_of(answer, "server/discover"))
            return True
        dialogue.drop(probe)
        self._begin(dialogue, message)
        return True

    def _check_older(self, message: Mapping[str, Any], supported: Any) -> None:
        """Raise the error of a server that speaks newer versions only, and none of ours."""
        error = error_of(message, "server/discover")
        if error is not None and error.code == UNSUPPORTED_VERSION and isinstance(supported, list):
            if mutual_version(supported, LEGACY) is None:
                raise error

    def _initialize(self, dialogue: Dialogue, cancel: CancelToken, due: float) -> None:
        question = dialogue.ask("initialize", initialize_params())
        self._begin(dialogue, dialogue.wait(question, cancel, due))

    def _begin(self, dialogue: Dialogue, message: Mapping[str, Any]) -> None:
        result = result_of(message, "initialize")
        version = legacy_version(result)
        dialogue.tell("notifications/initialized", {})
        self._older = True
        self._settle(dialogue, version, result)

    def _settle(self, dialogue: Dialogue, version: str, result: Dict[str, Any]) -> None:
        self._about = result
        dialogue.version = version


def _supported(message: Mapping[str, Any]) -> Optional[List[Any]]:
    """The versions that an answer to `server/discover` names, be it a result or an error."""
    result = message.get("result")
    if isinstance(result, dict):
        return result.get("supportedVersions")
    error = message.get("error")
    data = error.get("data") if isinstance(error, dict) else None
    return data.get("supported") if isinstance(data, dict) else None


def _resolved(command: Sequence[str]) -> Tuple[str, ...]:
    """A command as it can be started: on Windows `npx` is npx.cmd."""
    if os.name == "nt":
        import shutil  # noqa: PLC0415

        return (shutil.which(command[0]) or command[0], *command[1:])
    return tuple(command)
