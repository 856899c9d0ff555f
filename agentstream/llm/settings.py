"""What a client can be told about time, retries and sizes.  Pure values, checked when made."""

from __future__ import annotations

import random
from typing import Optional

from agentstream import checks
from agentstream.llm.frozen import Frozen

__all__ = [
    "ANTHROPIC_MODEL",
    "ANTHROPIC_TIMEOUTS",
    "ANTHROPIC_URL",
    "LLAMA_MODEL",
    "LLAMA_TIMEOUTS",
    "LLAMA_URL",
    "OLLAMA_TIMEOUTS",
    "OLLAMA_URL",
    "OPENAI_MODEL",
    "OPENAI_URL",
    "Limits",
    "Retries",
    "Timeouts",
]

#: Where the clients ask, and for what, unless told otherwise; `agentstream.providers` has them
#: by provider.
OPENAI_URL, OPENAI_MODEL = "https://api.openai.com/v1", "gpt-6-luna"
ANTHROPIC_URL, ANTHROPIC_MODEL = "https://api.anthropic.com", "claude-sonnet-5"
LLAMA_URL, LLAMA_MODEL = "http://127.0.0.1:8080", "default"
OLLAMA_URL = "http://127.0.0.1:11434"


class Timeouts(Frozen):
    """The clocks of a call, in seconds on monotonic time; None for no limit.

    Attributes:
        connect: for the connection, all addresses and the TLS handshake together.
        first_token: from the connected request to the first text, reasoning or
            tool-call delta.  Comments, headers and empty chunks do not end it.
        stall: between bytes of data lines after that.  A comment resets nothing,
            and the time that the caller spends between two chunks is not counted.
            Data that adds nothing (pings, empty chunks) keeps a stream alive as long
            as `first_token` at most.
        total: for the whole call, its retries and the caller's own time included.

    Raises:
        ConfigError: a clock is not a positive number.
    """

    connect: Optional[float] = 10.0
    first_token: Optional[float] = 120.0
    stall: Optional[float] = 60.0
    total: Optional[float] = None

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            self.__dict__[name] = checks.seconds(f"Timeouts.{name}", value, optional=True)


class Retries(Frozen):
    """What follows a first try that failed before its first delta.

    Attributes:
        attempts: further tries; 0 for none.
        resume: also go on after the first delta, where the server can continue
            the assistant's own words (`LlamaClient`), or has kept the answer
            (`OpenAIClient` with `store=True`, by the Responses API); others ignore
            this.  See below.
        backoff: seconds before the first further try; doubled for each one
            after it.  Each wait is drawn from its upper half.
        max_backoff: the longest of these waits, in seconds.
        max_retry_after: the longest wait a server may ask for, in seconds; one
            that asks for more gets its error raised instead.

    With `resume`, a stream that breaks off or stalls is asked to go on where it
    stopped, and counts against `attempts` each time.  The parts make one answer:
    `Limits` hold over both, a warning tells of it.

    A response that was kept goes on with the very event that was due, whatever that
    is of.  llama.cpp is given the text to go on with, and `max_tokens` is lowered by
    what was used.  Its usage is then estimated: `completion_tokens` adds the deltas
    counted before the break to the continuation's, and `prompt_tokens` is the
    continuation's without the words it was given to go on with.  An answer that
    breaks off in its reasoning or in a tool call, or whose server begins again
    instead of going on, raises `StreamTruncated` there, as without `resume`.

    Raises:
        ConfigError: a number is out of range.
    """

    attempts: int = 2
    resume: bool = False
    backoff: float = 0.5
    max_backoff: float = 8.0
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        checks.whole("Retries.attempts", self.attempts)
        checks.flag("Retries.resume", self.resume)
        for name in ("backoff", "max_backoff", "max_retry_after"):
            value = self.__dict__[name]
            self.__dict__[name] = checks.seconds(f"Retries.{name}", value, zero=True)

    def delay(self, attempt: int) -> float:
        """Seconds before further try number `attempt`, from 0."""
        whole: float = min(self.max_backoff, self.backoff * 2.0 ** min(attempt, 32))
        return whole * random.uniform(0.5, 1.0)


class Limits(Frozen):
    """Bounds on what a server may make us hold.  None lifts one.

    Attributes:
        line: bytes of one line of the stream.
        event: bytes of one event's data.
        tool_arguments: characters of the arguments of one answer's tool calls together.
        answer: characters of one answer, text and reasoning together.
        decompressed: bytes that a compressed body may inflate to (we ask for none).
        pool_size: calls that one client has under way at once, and connections that it
            keeps; more wait their turn.
        concurrency: calls that one client has under way at once, if that is to be less
            than `pool_size`: for a server with few slots, such as llama.cpp's, whose own
            queue knows neither deadlines nor who has left.  Who waits is served in order
            of arrival; a cancel and `Timeouts.total` end the wait, `first_token` counts
            from the request.

    Raises:
        ConfigError: a bound is not a positive number.
    """

    line: Optional[int] = 10 * 2**20
    event: Optional[int] = 10 * 2**20
    tool_arguments: Optional[int] = 2**20
    answer: Optional[int] = 32 * 2**20
    decompressed: Optional[int] = 16 * 2**20
    pool_size: int = 512
    concurrency: Optional[int] = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            checks.whole(f"Limits.{name}", value, 1, optional=name != "pool_size")

    @property
    def places(self) -> int:
        """Calls that one client has under way at once."""
        return min(self.pool_size, self.concurrency or self.pool_size)


#: Of a server of one's own: a long prompt on a CPU takes its time, and so does loading a model.
LLAMA_TIMEOUTS = OLLAMA_TIMEOUTS = Timeouts(first_token=600.0, stall=120.0)
#: Of models whose thinking may be hidden, and then comes before the first token.
ANTHROPIC_TIMEOUTS = Timeouts(first_token=600.0)
