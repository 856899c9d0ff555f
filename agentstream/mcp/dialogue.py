"""What is said to a server's process, and which answer is whose.

Any number of threads ask side by side.  Each waits for its own answer, until its
time is over or its call is cancelled; whatever else the server writes disturbs nobody.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Union

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, ConnectError, DeadlineExceeded
from agentstream.mcp.messages import encode, encode_answer, is_answer, is_request, messages_in
from agentstream.mcp.process import ServerProcess

__all__ = ["Dialogue", "Question"]

logger = logging.getLogger("agentstream.mcp")

#: So many lines that are no messages are told of.
_MOST_REMARKS = 20


class Question:
    """A request that was sent.

    Attributes:
        number: its id.
        settled: cancelled when `answer` is there.
        answer: the message that answers it, or the error that there is none.
    """

    __slots__ = ("answer", "method", "number", "settled")

    def __init__(self, number: int, method: str) -> None:
        self.number = number
        self.method = method
        self.settled = CancelToken()
        self.answer: Union[Mapping[str, Any], AgentStreamError, None] = None

    def settle(self, answer: Union[Mapping[str, Any], AgentStreamError]) -> None:
        """It is answered; only the first time counts."""
        if self.answer is None:
            self.answer = answer
            self.settled.cancel()


class Dialogue:
    """A process that was started, and what is asked of it.

    Args:
        command, env, cwd, limit, redact: see `ServerProcess`, which says what is raised.
        name: the server's, in the log and in errors.

    Attributes:
        version: the protocol's; "" until it has been settled.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Optional[str],
        name: str,
        limit: Optional[int],
        redact: Callable[[str], str],
    ) -> None:
        self.name = name
        self.version = ""
        self._ids = itertools.count(1)
        self._questions: Dict[int, Question] = {}
        self._ending: Optional[ConnectError] = None
        self._remarks = 0
        self.process = ServerProcess(
            command,
            env=env,
            cwd=cwd,
            name=name,
            limit=limit,
            redact=redact,
            on_line=self._take,
            on_end=self._end,
        )

    @property
    def alive(self) -> bool:
        """True while the process can be asked."""
        return self._ending is None

    def ask(self, method: str, params: Mapping[str, Any]) -> Question:
        """Send a request; returns at once."""
        question = Question(next(self._ids), method)
        line = encode(method, params, question.number)
        self._questions[question.number] = question
        if self._ending is not None:  # looked at after the entry is in, as `_end` does it
            question.settle(self._ending)
        self.process.send(line)
        return question

    def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification; returns at once."""
        self.process.send(encode(method, params))

    def wait(self, question: Question, cancel: CancelToken, due: float) -> Mapping[str, Any]:
        """The message that answers a request.

        Args:
            cancel: ends the wait, and the request.
            due: when it must be there, on `time.monotonic`'s scale.

        Raises:
            Cancelled: `cancel` was cancelled.
            DeadlineExceeded: it did not come in time.
            ConnectError: the process has ended.
        """
        try:
            wait_for(question.settled, cancel, due)
        except BaseException:
            self.withdraw(question, "interrupted")
            raise
        answer = question.answer
        self.drop(question)
        if isinstance(answer, Mapping):
            return answer
        if isinstance(answer, AgentStreamError):
            raise _again(answer)
        if cancel.cancelled:
            self.withdraw(question, cancel.reason)
            raise Cancelled(f"the call was stopped: {cancel.reason}", phase="stream")
        self.withdraw(question, "it is out of time")
        raise DeadlineExceeded(
            f"{self.name}: {question.method} was not answered in time",
            phase="stream",
            outcome="unknown",
        )

    def withdraw(self, question: Question, reason: str) -> None:
        """Wait for an answer no longer, and tell the server (but not of `initialize`)."""
        self.drop(question)
        if question.method != "initialize":
            params = {"requestId": question.number, "reason": reason or "the call is given up"}
            self.tell("notifications/cancelled", params)

    def drop(self, question: Question) -> None:
        """Wait for an answer no longer."""
        self._questions.pop(question.number, None)

    # --- in the reading thread --------------------------------------------------------------

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            for message in messages_in(line):
                self._sort(message)
        except ValueError as error:
            self._remark(f"it wrote a line of {len(line)} bytes that is no message ({error})")

    def _sort(self, message: Dict[str, Any]) -> None:
        if is_answer(message):
            question = self._questions.get(message["id"])
            if question is None:  # late, twice, or never asked
                logger.debug("%s: an answer that nobody waits for is dropped", self.name)
            else:
                question.settle(message)
        elif is_request(message):
            self.process.send(encode_answer(message))
        elif "method" not in message:
            self._remark("it wrote an answer without an id")

    def _remark(self, text: str) -> None:
        self._remarks += 1
        if self._remarks <= _MOST_REMARKS:
            logger.warning("%s: %s", self.name, text)

    def _end(self, why: str) -> None:
        said = self.process.last_words
        self._ending = ConnectError(
            f"{self.name}: {why}" + (f"; its last words: {said}" if said else ""),
            phase="stream",
            retryable=True,
            outcome="unknown",
        )
        for question in list(self._questions.values()):
            question.settle(self._ending)


def wait_for(done: CancelToken, cancel: CancelToken, due: float) -> None:
    """Wait until one of the two is cancelled, or `due` has come."""
    either = CancelToken()
    keys = [(token, token.add_callback(either.cancel)) for token in (done, cancel)]
    try:
        while not either.cancelled:
            left = None if due == threads.NEVER else due - time.monotonic()
            if left is not None and left <= 0:
                return
            either.wait(next(threads.slices(left)))
    finally:
        for token, key in keys:
            token.remove_callback(key)


def _again(error: AgentStreamError) -> AgentStreamError:
    """A copy to raise: several threads may, and a traceback belongs to one."""
    common = {key: value for key, value in vars(error).items() if key != "partial"}
    copy = type(error)(str(error))
    copy.__dict__.update(common)
    return copy
