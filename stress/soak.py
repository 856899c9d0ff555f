"""soak.py MINUTES [--seed N] [--streams N]: streams under random faults, with random cancels.

A loopback server replays answers that follow from the seed (soak_script.py),
behind a proxy that spoils connections (toxics.py).  Every outcome is recorded as
ok, failed or unknown and held against the invariants of docs/faults.rst; exit code 1
if one is broken.  Threads, descriptors, pool slots and memory are compared at
rest, every few minutes and at the end.

With --log FILE the events go to an SQLite log, a server hands them out over HTTP, and a
remote follower reads every run of it as it goes; at the end the log is opened again and
held against what subscribers had been given (I5).  Killed logs are kill9.py's.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import heapq
import json
import logging
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import warnings
from collections import Counter, deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

sys.path[:0] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

from agentstream import (  # noqa: E402, I001 - this tree's, whatever is installed
    Agent,
    AgentStreamError,
    CancelToken,
    Cancelled,
    Closed,
    ConnectTimeout,
    DeadlineExceeded,
    EventStream,
    EventType,
    FirstTokenTimeout,
    Limits,
    LlamaClient,
    LogError,
    MemoryStore,
    OpenAIClient,
    Retries,
    Runtime,
    SqliteStore,
    StallTimeout,
    StreamTruncated,
    Timeouts,
    Workflow,
    WorkflowFailed,
)
from agentstream.web import create_app, follow  # noqa: E402
from agentstream.web.server import Server, listen  # noqa: E402
from soak_script import (  # noqa: E402
    HEADER,
    KEY,
    PROMPT,
    WHOLE,
    Attempt,
    SoakServer,
    script_for,
)
from toxics import TOXICS, ToxicProxy  # noqa: E402

SLACK = 4.0  # seconds past a clock, on a machine that others load too
UNTIMED = 75.0  # bound of a call without `total`: the longest that server and proxy can draw it out
CANCEL_BOUND = 2.0
MAIN = os.getpid()
MARKS = ("SOAKKEYMARK", "SOAKHEADERMARK", "SOAKPROMPTMARK")
ENDS = {"workflow_completed": "ok", "workflow_failed": "failed", "workflow_cancelled": "cancelled"}


# --- the record ----------------------------------------------------------------------------


class Record:
    """Everything counted, and what is broken.  All methods from any thread."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[Tuple[str, str]] = Counter()
        self.by_toxic: Dict[str, Counter[str]] = {t: Counter() for t in (*TOXICS, "none")}
        self.broken: Counter[str] = Counter()
        self.samples: Dict[str, Deque[float]] = {}
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def sample(self, name: str, seconds: float) -> None:
        with self._lock:
            self.samples.setdefault(name, deque(maxlen=20000)).append(seconds)

    def count(self, name: str, by: int = 1) -> None:
        with self._lock:
            self.counts[name] += by

    def outcome(self, kind: str, what: str, toxics: Any) -> None:
        with self._lock:
            self.outcomes[what] += 1
            self.kinds[kind, what.partition("(")[0]] += 1
            for toxic in toxics or ["none"]:
                self.by_toxic[toxic][what] += 1

    def break_(self, invariant: str, what: str) -> None:
        """An invariant is broken: say so with what it takes to play it again."""
        if os.getpid() != MAIN:
            return
        with self._lock:
            self.broken[invariant] += 1
            many = self.broken[invariant] > 20
        if not many:
            note(f"BROKEN {invariant} (seed {self.seed}): {what}")


def note(text: str) -> None:
    stamp = time.strftime("%H:%M:%S")
    sys.stderr.write(f"[{stamp}] {text}\n")
    sys.stderr.flush()


def hunt(record: Record, text: str, where: str) -> None:
    """I7: no marked secret in `text`."""
    for mark in MARKS:
        at = text.find(mark)
        if at >= 0:
            record.break_(
                "I7 secret", f"{mark} in {where}: ...{text[max(0, at - 300) : at + 80]!r}"
            )


class LogHunter(logging.Handler):
    """Counts log lines by level and hunts secrets in them."""

    def __init__(self, record: Record) -> None:
        super().__init__(logging.INFO)
        self.record = record

    def emit(self, entry: logging.LogRecord) -> None:
        if os.getpid() != MAIN:
            return
        try:
            text = self.format(entry)
        except Exception as error:
            text = f"unformattable: {error!r}"
        hunt(self.record, text, f"log {entry.name}")
        self.record.count(f"log {entry.levelname}")
        expected = "callback raised on" in text and "soak means to" in text
        if entry.levelno >= logging.ERROR and not expected:
            self.record.break_("log error", text[-1500:])


# --- subscribers ---------------------------------------------------------------------------


class Seen:
    """What the checking subscriber saw of one workflow."""

    __slots__ = ("chunks", "end", "ids", "last", "retries")

    def __init__(self) -> None:
        self.last = 0
        self.end = ""
        self.chunks: Dict[str, List[str]] = {}
        self.ids: List[Any] = []
        self.retries = 0


class Checker:
    """Sees all events, in order, each once: I1, I4, I7."""

    def __init__(self, record: Record, by_run: bool) -> None:
        self.record = record
        self.by_run = by_run
        self.changed = threading.Condition()
        self.seen: Dict[str, Seen] = {}
        self.over: Dict[str, None] = {}
        self.ended: Dict[str, Tuple[int, str]] = {}  # each run's last offset, and how it ended
        self.position = 0
        self.events = 0

    def __call__(self, event: Any) -> None:
        if os.getpid() != MAIN:
            return
        self.events += 1
        if self.events % 7 == 0 or event.type is not EventType.AGENT_LLM_STREAM_CHUNK:
            hunt(self.record, event.to_json(), f"event {event.type}")
        if event.type is EventType.EVENTS_MISSED:
            self.position = event.data["last"]
            self.record.count("checker missed events")
            with self.changed:
                self.seen.clear()  # what is known of them has holes
            return
        if not self.by_run:  # else a position comes with the commit
            if event.position != self.position + 1:
                where = f"{event.id}: {self.position} -> {event.position}"
                self.record.break_("I4 position", where)
            self.position = event.position
        with self.changed:
            self._take(event)
            self.changed.notify_all()

    def _take(self, event: Any) -> None:
        name = event.workflow_id
        if name in self.over:
            self.record.break_("I1 after the end", f"{event.id} {event.type}")
            return
        seen = self.seen.get(name)
        if seen is None:
            seen = self.seen[name] = Seen()
        if event.offset != seen.last + 1:
            self.record.break_("I4 offset", f"{event.id}: {seen.last} -> {event.offset}")
        seen.last = event.offset
        seen.ids.append(event.id)
        if event.type is EventType.AGENT_LLM_STREAM_CHUNK:
            seen.chunks.setdefault(event.data["step"], []).append(event.data["chunk"])
        elif event.type is EventType.AGENT_LLM_REQUEST_RETRIED:
            seen.retries += 1
        elif event.type.value in ENDS:
            seen.end = event.type.value
            self.ended[name] = seen.last, seen.end
            self.over[name] = None
            if len(self.over) > 4000:
                del self.over[next(iter(self.over))]

    def wait_end(self, name: str, seconds: float = 15.0) -> Optional[Seen]:
        """What was seen of a workflow, once its terminal event is among it; forgotten here."""
        with self.changed:
            self.changed.wait_for(lambda: name in self.over, seconds)
            return self.seen.pop(name, None)

    def pop(self, name: str, last: str, seconds: float = 15.0) -> Optional[Seen]:
        """The same for a log of an agent alone, whose last event has offset or id `last`."""
        with self.changed:
            self.changed.wait_for(lambda: last in self.seen.get(name, Seen()).ids, seconds)
            return self.seen.pop(name, None)


class Remote:
    """Follows all runs over HTTP, as another machine would: I4 once more."""

    def __init__(self, record: Record, store: Any) -> None:
        self.record = record
        self.last: Dict[str, int] = {}
        self.ended: Dict[str, Tuple[int, str]] = {}
        self.cancel = CancelToken()
        self.server = Server(create_app(store), listen("127.0.0.1", 0)).start()
        self.thread = threading.Thread(target=self._read, name="soak-remote", daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for event in follow(self.server.url, after=0, cancel=self.cancel):
                self._take(event)
        except Cancelled:
            pass

    def _take(self, event: Any) -> None:
        if event.type is EventType.EVENTS_MISSED:
            self.record.break_("I4 remote", f"missed {dict(event.data)}")
            return
        name = event.workflow_id
        if event.offset != self.last.get(name, 0) + 1:
            self.record.break_("I4 remote", f"{event.id}: {self.last.get(name, 0)}")
        self.last[name] = event.offset
        if event.type.value in ENDS:
            self.ended[name] = event.offset, event.type.value

    def close(self, wanted: Dict[str, Tuple[int, str]]) -> None:
        """Wait for what is still to come, compare, stop."""
        until = time.monotonic() + 20.0
        while time.monotonic() < until and set(wanted) - set(self.ended):
            threading.Event().wait(0.05)
        for name, end in wanted.items():
            if self.ended.get(name) != end:
                self.record.break_("I4 remote", f"{name}: {self.ended.get(name)}, not {end}")
        self.record.count("runs followed over HTTP", len(self.ended))
        self.cancel.cancel("the soak is over")
        self.thread.join(10.0)
        self.server.stop()


class Rough:
    """A subscriber that is slow, raises or is stuck; it checks order and what it missed."""

    def __init__(
        self, record: Record, name: str, seed: str, halt: threading.Event, by_run: bool
    ) -> None:
        self.record = record
        self.by_run = by_run
        self.last: Dict[str, int] = {}
        self.name = name
        self.rng = random.Random(f"{seed}:{name}")
        self.halt = halt
        self.position: Optional[int] = None
        self.missed = 0
        self.raised = 0
        self.taken = 0

    def __call__(self, event: Any) -> None:
        if os.getpid() != MAIN:
            return
        self.taken += 1
        if event.type is EventType.EVENTS_MISSED:
            first, last = event.data["first"], event.data["last"]
            if self.position is not None and first != self.position + 1:
                self.record.break_("I4 missed", f"{self.name}: {self.position}, then {event.data}")
            self.missed += last - first + 1
            self.position = last
            return
        self._check_order(event)
        if self.name == "slow":
            self.halt.wait(0.004)
        elif self.name == "stuck" and self.rng.random() < 0.0005:
            self.record.count("subscriber stuck")
            self.halt.wait(self.rng.uniform(3.0, 12.0))
        elif self.name == "raising" and self.rng.random() < 0.02:
            self.raised += 1
            raise RuntimeError("soak means to")

    def _check_order(self, event: Any) -> None:
        if self.by_run:  # of a log that is committed later, positions come with what is read back
            last = self.last.get(event.workflow_id)
            if last is not None and event.offset != last + 1:
                self.record.break_("I4 order", f"{self.name}: {event.id} after {last}")
            self.last[event.workflow_id] = event.offset
            return
        if self.position is not None and event.position != self.position + 1:
            self.record.break_("I4 order", f"{self.name}: {self.position} -> {event.position}")
        self.position = event.position


# --- cases ---------------------------------------------------------------------------------


class Config:
    """A long-lived client and what was set on it."""

    def __init__(self, name: str, client: Any, tls: bool) -> None:
        self.name = name
        self.client = client
        self.tls = tls
        self.timeouts: Timeouts = client.timeouts
        self.retries: Retries = client.retries
        self.limits: Limits = client.limits

    @property
    def bound(self) -> float:
        return self.timeouts.total or UNTIMED


def make_clients(ports: Tuple[int, int], ca_file: str) -> List[Config]:
    clocks = {
        "normal": Timeouts(2.0, 3.0, 1.5, 12.0),
        "short": Timeouts(0.5, 0.4, 0.3, 3.0),
        "tight": Timeouts(1.0, 2.0, 1.0, 0.8),
        "untimed": Timeouts(2.0, 2.0, 1.0, None),
    }
    quick = Retries(2, backoff=0.05, max_backoff=0.2, max_retry_after=2.0)
    shapes: List[Tuple[str, Retries, Limits]] = [
        ("normal", quick, Limits()),
        ("normal", Retries(0), Limits(pool_size=2)),
        ("short", quick, Limits()),
        ("tight", quick, Limits(pool_size=3)),
        ("untimed", Retries(1, backoff=0.02), Limits()),
        ("normal", quick, Limits(answer=250)),
    ]
    found = []
    for tls in (False, True):
        for number, (clock, retries, limits) in enumerate(shapes):
            root = f"https://localhost:{ports[1]}" if tls else f"http://127.0.0.1:{ports[0]}"
            common: Dict[str, Any] = {
                "api_key": KEY,
                "headers": {"X-Secret": HEADER},
                "timeouts": clocks[clock],
                "retries": retries,
                "limits": limits,
                "verify": ca_file if tls else True,
            }
            client = (
                LlamaClient(root, **common)
                if number % 2
                else OpenAIClient("soak", base_url=root + "/v1", **common)
            )
            found.append(Config(f"{'tls' if tls else 'plain'}-{number}-{clock}", client, tls))
    return found


class Case:
    """One operation under way: a call or a run, its cancels and its clocks."""

    def __init__(self, name: str, kind: str, config: Config, rng: random.Random) -> None:
        self.name = name
        self.kind = kind
        self.config = config
        self.rng = rng
        self.started = time.monotonic()
        self.first: Dict[str, float] = {}  # when the first text of a call came
        self.cancel_at: Optional[float] = None
        self.cancel_how = ""
        self.bound = config.bound
        self.hung = False

    def __str__(self) -> str:
        return f"case {self.name} ({self.kind}, {self.config.name}, cancel {self.cancel_how!r})"


class Canceller:
    """One thread that cancels at the appointed times, and measures what that costs."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._heap: List[Tuple[float, int, Case, str, Callable[[], object]]] = []
        self._changed = threading.Condition()
        self._number = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="soak-canceller", daemon=True)
        self._thread.start()

    def at(self, delay: float, case: Case, how: str, cancel: Callable[[], object]) -> None:
        with self._changed:
            self._number += 1
            heapq.heappush(self._heap, (time.monotonic() + delay, self._number, case, how, cancel))
            self._changed.notify()

    def drop(self, case: Case) -> None:
        with self._changed:
            self._heap = [item for item in self._heap if item[2] is not case]
            heapq.heapify(self._heap)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                left = self._heap[0][0] - time.monotonic() if self._heap else None
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                _, _, case, how, cancel = heapq.heappop(self._heap)
            fire(self.record, case, how, cancel)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(2.0)


def fire(record: Record, case: Case, how: str, cancel: Callable[[], object]) -> None:
    """Cancel, noting when; called twice at times, which must do no harm."""
    begun = time.monotonic()
    if case.cancel_at is None:
        case.cancel_at, case.cancel_how = begun, how
    try:
        cancel()
    except Exception:
        record.break_("cancel raised", f"{case}: {traceback.format_exc()}")
    record.sample("canceller held", time.monotonic() - begun)


# --- checks --------------------------------------------------------------------------------


class Judge:
    """Holds outcomes against what the server is known to have said."""

    def __init__(self, record: Record, servers: List[SoakServer]) -> None:
        self.record = record
        self.servers = servers

    def attempts(self, case: Case, call: str) -> List[Attempt]:
        return self.servers[case.config.tls].pop(call) if self.servers else []

    def story(self, call: str, attempts: List[Attempt]) -> str:
        parts = []
        for a in attempts:
            s = script_for(self.record.seed, call, a.round, a.number)
            c = a.connection
            spoilt = (
                ""
                if c is None
                else f" toxics {sorted(c.toxics)} fired {sorted(c.fired)} ended {c.ended!r}"
            )
            parts.append(
                f"{call}/{a.round}/{a.number}: {s.kind} {s.framing} at {s.at} of "
                f"{len(s.texts)} tool {s.tool} pace {s.pace}{spoilt}"
            )
        return "; ".join(parts) or "no request reached the server"

    def text(
        self, case: Case, call: str, text: str, ok: bool, attempts: List[Attempt], error: Any
    ) -> None:
        """I2, I3: the delivered text against the known one; whole if ok."""
        story = f"{case}, error {type(error).__name__}: {error}; {self.story(call, attempts)}"
        rest, round, last = text, 0, None
        while rest:
            head, found, _ = rest.partition(">")
            words = head[1:].split("/")
            if not found or words[:2] != [call, str(round)] or not words[2].isdigit():
                self.record.break_("I2 foreign text", f"{rest[:80]!r} in {story}")
                return
            last = script_for(self.record.seed, call, round, int(words[2]))
            later = [a for a in attempts if a.round == round and a.number > int(words[2])]
            if later:
                self.record.break_("I3 retried after text", f"delivered {head!r}; {story}")
            if not rest.startswith(last.text):
                if ok or not last.text.startswith(rest):
                    self.record.break_("I2 not a prefix", f"{rest[-160:]!r} in {story}")
                return self._complete(case, call, round, int(words[2]), rest, attempts, error)
            rest = rest[len(last.text) :]
            round += 1
        if ok and (last is None or last.kind not in WHOLE or last.tool):
            self.record.break_("lie: ok", story)
        # A later round that broke before it said anything left no text to judge it by.
        if last is not None and not ok and not any(a.round >= round for a in attempts):
            self._complete(case, call, round - 1, int(words[2]), last.text, attempts, error)

    def _complete(
        self,
        case: Case,
        call: str,
        round: int,
        number: int,
        got: str,
        attempts: List[Attempt],
        error: Any,
    ) -> None:
        """I2: a stream that the other end broke had all its complete events delivered."""
        if not isinstance(error, StreamTruncated):
            return
        script = script_for(self.record.seed, call, round, number)
        found = [a for a in attempts if a.round == round and a.number == number]
        connection = found[0].connection if found else None
        if connection is None:
            return
        if script.kind in WHOLE and not connection.fired and script.kind != "json":
            self.record.break_("lie: truncated", f"{case}: {self.story(call, attempts)}")
        if case.config.tls or script.framing == "gzip" or connection.ended != "fin":
            return
        tail = bytes(connection.tail)
        whole = 0
        while True:
            at = tail.find(f'"id": "{call}/{round}/{number}#{whole + 1}"'.encode())
            if at < 0 or b"\n\n" not in tail[at:]:
                break
            whole += 1
        if not got.startswith("".join(script.texts[:whole])):
            self.record.break_(
                "I2 complete events", f"{case}: {whole} arrived; {self.story(call, attempts)}"
            )
        self.record.count("truncations held against the wire")

    def outcome(
        self, case: Case, error: Optional[BaseException], took: float, attempts: List[Attempt]
    ) -> None:
        """What an outcome says, and when it came."""
        cause = error.__cause__ if isinstance(error, WorkflowFailed) else error
        toxics = {t for a in attempts if a.connection is not None for t in a.connection.fired}
        if cause is None:
            what = "ok"
        elif isinstance(cause, AgentStreamError):
            what = f"{cause.outcome}({type(cause).__name__})"
            self._error(case, error, cause, took)
        else:
            what = f"broken({type(cause).__name__})"
            text = "".join(traceback.format_exception(type(cause), cause, cause.__traceback__))
            self.record.break_("untyped error", f"{case}: {text}")
        self.record.outcome(case.kind, what, toxics)
        if took > case.bound + SLACK:
            self.record.break_(
                "hung",
                f"{case}: took {took:.2f} s, bound {case.bound}: {what}; "
                + self.story(case.name, attempts),
            )
        self._cancel(case, cause, took, what)

    def _cancel(self, case: Case, cause: Any, took: float, what: str) -> None:
        if case.cancel_at is None:
            if isinstance(cause, Cancelled):
                self.record.break_("I10 cancelled by nobody", f"{case}: {cause}")
            return
        after = case.started + took - case.cancel_at
        if isinstance(cause, Cancelled):
            self.record.sample(f"cancel {case.kind}", max(after, 0.0))
            self.record.sample("cancel all", max(after, 0.0))
            if after > CANCEL_BOUND:
                self.record.break_("cancel late", f"{case}: {after:.3f} s")
        elif after > 1.0:
            self.record.break_("I10 cancel ignored", f"{case}: {what} {after:.3f} s after it")
        else:
            self.record.count("cancel lost the race")

    def _error(self, case: Case, error: Any, cause: AgentStreamError, took: float) -> None:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        for thing in (error, cause):
            fields = {k: str(v) for k, v in vars(thing).items()}
            hunt(self.record, f"{thing} {thing!r} {fields} {text}", f"error of {case}")
        if cause.outcome not in ("failed", "unknown") or cause.phase not in (
            "",
            "connect",
            "tls",
            "headers",
            "stream",
            "tool",
            "log",
        ):
            self.record.break_("error fields", f"{case}: {cause.outcome!r} {cause.phase!r}")
        clocks = case.config.timeouts
        due = {
            ConnectTimeout: clocks.connect,
            FirstTokenTimeout: clocks.first_token,
            StallTimeout: clocks.stall,
            DeadlineExceeded: clocks.total,
        }.get(type(cause))
        if due is None:
            return
        if took < due - 0.01:
            self.record.break_("clock early", f"{case}: {cause!r} after {took:.3f} s")
        if isinstance(cause, DeadlineExceeded) and case.kind in ("plain", "deltas"):
            self.record.sample("deadline overshoot", took - due)


# --- what is done --------------------------------------------------------------------------


def lookup(name: str) -> str:
    """Look a bird up."""
    return f"{name} is a bird"


class Actor:
    """Does one thing after another: the operations of the soak."""

    def __init__(self, soak: Any, prefix: str) -> None:
        self.soak = soak
        self.record: Record = soak.record
        self.judge: Judge = soak.judge
        self.prefix = prefix
        self.number = 0

    def step(self) -> None:
        """One operation, drawn from the seed."""
        self.number += 1
        name = f"{self.prefix}{self.number}"
        rng = random.Random(f"{self.record.seed}:{name}:case")
        kind, weight = zip(*self.soak.operations)
        chosen = rng.choices(kind, weight)[0]
        if chosen in ("agent", "workflow") and rng.random() < 0.3:
            name += "t"
        case = Case(name, chosen, rng.choice(self.soak.clients), rng)
        self.soak.active[name] = case
        try:
            getattr(self, "_" + chosen)(case)
        except Exception:
            self.record.break_("untyped error", f"{case}: {traceback.format_exc()}")
        finally:
            self.soak.canceller.drop(case)
            self.soak.active.pop(name, None)

    def _messages(self, call: str) -> List[Dict[str, str]]:
        return [
            {"role": "system", "content": f"[[{call}]] {PROMPT}"},
            {"role": "user", "content": "go on"},
        ]

    def _plan_cancel(self, case: Case, ways: List[Tuple[str, Callable[[], object]]]) -> None:
        if case.rng.random() > 0.35:
            return
        delay = case.rng.choice(
            [0.0, case.rng.uniform(0, 0.05), case.rng.uniform(0, 0.6), case.rng.uniform(0, 2.0)]
        )
        how, cancel = case.rng.choice(ways)
        self.soak.canceller.at(delay, case, how, cancel)
        if case.rng.random() < 0.2:  # twice does no harm
            self.soak.canceller.at(delay + 0.01, case, how, cancel)

    # a text stream, cancelled, closed elsewhere or left in the middle

    def _plain(self, case: Case) -> None:
        call = case.name
        token = CancelToken()
        stream = case.config.client.chat_stream(self._messages(call), cancel=token)
        self._plan_cancel(
            case,
            [
                ("stream.cancel", stream.cancel),
                ("token", token.cancel),
                ("stream.close", stream.close),
            ],
        )
        leave_at = case.rng.randint(1, 20) if case.rng.random() < 0.1 else 0
        got: List[str] = []
        error: Optional[BaseException] = None
        left = False
        try:
            for text in stream:
                got.append(text)
                if len(got) == leave_at:
                    left = True
                    break
        except AgentStreamError as caught:
            error = caught
        took = time.monotonic() - case.started
        held = stream.response.content
        stream.close()
        if held != "".join(got):
            self.record.break_("I2 partial", f"{case}: {held[-80:]!r} != {''.join(got)[-80:]!r}")
        closed = case.cancel_how == "stream.close" and error is None
        self._end(case, call, "".join(got), error, took, left or closed)

    def _end(self, case: Case, call: str, text: str, error: Any, took: float, left: bool) -> None:
        attempts = self.judge.attempts(case, call)
        if error is not None and error.partial is not None:
            if error.partial.content != text:
                self.record.break_("I2 partial", f"{case}: {error.partial.content[-80:]!r}")
        self.judge.text(case, call, text, error is None and not left, attempts, error)
        if len(attempts) > case.config.retries.attempts + 3:
            self.record.break_("I3 too many tries", self.judge.story(call, attempts))
        if left:
            self.record.count("left in the middle")
            self.record.outcome(case.kind, "left", ())
            if took > case.bound + SLACK:
                self.record.break_("hung", f"{case}: took {took:.2f} s, then was left")
        else:
            self.judge.outcome(case, error, took, attempts)

    def _deltas(self, case: Case) -> None:
        from agentstream import ChatRequest

        call = case.name
        token = CancelToken()
        case_request = ChatRequest(self._messages(call))
        deltas = case.config.client.stream_deltas(case_request, cancel=token)
        self._plan_cancel(case, [("token", token.cancel)])
        got: List[str] = []
        error: Optional[BaseException] = None
        try:
            for delta in deltas:
                if delta.retry is not None:
                    hunt(self.record, repr(delta.retry), f"retry notice of {case}")
                    if "".join(got):
                        self.record.break_("I3 notice after text", f"{case}: {delta.retry}")
                got.append(delta.content)
        except AgentStreamError as caught:
            error = caught
        took = time.monotonic() - case.started
        self._end(case, call, "".join(got), error, took, False)

    # an agent, with or without a log

    def _agent(self, case: Case) -> None:
        call = case.name
        token = CancelToken()
        agent = self._make_agent(case, call)
        case.bound = case.config.bound * 2  # two rounds
        self._plan_cancel(case, [("token", token.cancel)])
        got: List[str] = []
        error: Optional[BaseException] = None
        logged = case.rng.random() < 0.5
        whole: Optional[str] = None
        try:
            if logged:
                whole = agent.execute_with_events(
                    "go on", self.soak.events, workflow_id=call, cancel=token
                ).response
            else:
                for text in agent.stream("go on", cancel=token):
                    got.append(text)
        except AgentStreamError as caught:
            error = caught
        took = time.monotonic() - case.started
        if logged:
            got = self._logged(case, call, whole)
        attempts = self.judge.attempts(case, call)
        self.judge.text(case, call, "".join(got), error is None, attempts, error)
        self.judge.outcome(case, error, took, attempts)

    def _logged(self, case: Case, call: str, whole: Optional[str]) -> List[str]:
        last = self.soak.events.store.bounds(call).last
        seen = self.soak.checker.pop(call, f"{call}:{last}") if last else None
        if seen is None:
            self.record.count("unseen agent log")
            return []
        got = seen.chunks.get("", [])
        if whole is not None and not "".join(got).endswith(whole):
            self.record.break_("I2 events", f"{case}: {whole[-80:]!r}")
        return got

    def _make_agent(self, case: Case, call: str) -> Agent:
        tools = [lookup] if case.name.endswith("t") else []
        prompt = f"[[{call}]] {PROMPT}"
        return Agent("bird", client=case.config.client, system_prompt=prompt, tools=tools)

    # a workflow of two steps

    def _workflow(self, case: Case) -> None:
        runtime: Runtime = self.soak.runtime
        name = case.name
        steps = [self._make_agent(case, f"{name}.{i}") for i in (0, 1)]
        case.bound = case.config.bound * 4 + 30.0  # two rounds each, and a place to wait for
        workflow = Workflow("soak", steps)
        if case.rng.random() < 0.2:
            return self._streamed(case, runtime, workflow)
        handle = runtime.submit(workflow, "go on", workflow_id=name)
        self._plan_cancel(
            case,
            [
                ("handle.cancel", handle.cancel),
                ("stop_generation", lambda: runtime.stop_generation(name)),
            ],
        )
        reader = None
        if case.rng.random() < 0.2:
            try:
                reader = runtime.event_stream.subscribe(workflow_id=name, after=0)
            except LogError:  # nothing of it yet, or nothing any more
                self.record.count("late subscriber refused")
        error: Any = None
        run: Any = None
        try:
            run = handle.result(case.bound + SLACK)
        except AgentStreamError as caught:
            error, run = caught, caught.run  # type: ignore[attr-defined]
        took = time.monotonic() - case.started
        seen = self.soak.checker.wait_end(name)
        if reader is not None:
            self._read_again(case, reader, seen)
        self._judge_run(case, run, error, took, seen)

    def _streamed(self, case: Case, runtime: Runtime, workflow: Workflow) -> None:
        name = case.name
        leave_at = case.rng.randint(2, 40) if case.rng.random() < 0.4 else 0
        self._plan_cancel(case, [("stop_generation", lambda: runtime.stop_generation(name))])
        last = ""
        events = runtime.stream(workflow, "go on", workflow_id=name, raise_on_failure=False)
        for count, event in enumerate(events, 1):
            last = event.type.value
            if count == leave_at:
                fire(self.record, case, "left the loop", events.close)
                break
        else:
            if last not in ENDS:
                self.record.break_("I1 last event", f"{case}: {last!r}")
        took = time.monotonic() - case.started
        seen = self.soak.checker.wait_end(name)
        attempts = [a for i in (0, 1) for a in self.judge.attempts(case, f"{name}.{i}")]
        self.record.outcome("streamed", ENDS.get(seen.end if seen else "", "unseen"), ())
        if took > case.bound + SLACK:
            self.record.break_("hung", f"{case}: took {took:.2f} s; " + str(attempts)[:500])

    def _read_again(self, case: Case, reader: Any, seen: Optional[Seen]) -> None:
        ids = []
        while True:
            try:
                event = reader.get(10.0)
            except Closed:
                break
            if event is None:
                self.record.break_("I4 reader waits", f"{case}: {ids[-1:]}")
                break
            ids.append(event.id)
        reader.close()
        if None in ids:
            self.record.count("reader missed events")
        elif seen is not None and ids != seen.ids:
            self.record.break_("I4 readers differ", f"{case}: {ids} / {seen.ids}")

    def _judge_run(
        self, case: Case, run: Any, error: Any, took: float, seen: Optional[Seen]
    ) -> None:
        wanted = {"completed": "ok", "failed": "failed", "cancelled": "cancelled"}[run.status]
        if seen is None:
            self.record.count("unseen run")
        elif not seen.end:
            self.record.break_("I1 no terminal event", f"{case}: {seen.ids[-1:]}")
        elif ENDS[seen.end] != wanted:
            self.record.break_("I1 other end", f"{case}: {seen.end} / {run.status}")
        cause = error.__cause__ if isinstance(error, WorkflowFailed) else error
        everything: List[Attempt] = []
        for number in (0, 1):
            call = f"{case.name}.{number}"
            attempts = self.judge.attempts(case, call)
            everything += attempts
            if number >= len(run.steps):
                if attempts:
                    self.record.break_("X03 request of no step", f"{case}: {call}")
                continue
            step = run.steps[number]
            done = step.status == "completed"
            if seen is None:
                continue
            text = "".join(seen.chunks.get(str(number), []))
            self.judge.text(case, call, text, done, attempts, None if done else cause)
            if not text.endswith(step.output) or (not done and text != step.output):
                self.record.break_("I2 step output", f"{case}: {step.output[-80:]!r}")
        self.judge.outcome(case, error, took, everything)

    # a runtime of its own, left by an exception with runs under way

    def _runtime(self, case: Case) -> None:
        handles = []
        begun = 0.0
        try:
            with Runtime(max_workers=2) as runtime:
                for number in range(4):
                    agent = self._make_agent(case, f"{case.name}_{number}")
                    handles.append(runtime.submit(agent, "go on"))
                self.soak.halt.wait(case.rng.uniform(0.0, 0.3))
                begun = time.monotonic()
                raise KeyError("soak leaves")
        except KeyError:
            self.record.sample("runtime left", time.monotonic() - begun)
        for handle in handles:
            if not handle.done():
                self.record.break_("run outlived its runtime", f"{case}")
                continue
            try:
                handle.result(0)
                self.record.outcome(case.kind, "ok", ())
            except AgentStreamError as error:
                cause = error.__cause__ if isinstance(error, WorkflowFailed) else error
                self.record.outcome(case.kind, f"{error.outcome}({type(cause).__name__})", ())
        for number in range(4):
            self.judge.attempts(case, f"{case.name}_{number}")


# --- processes -----------------------------------------------------------------------------


def run_forked(soak: Any, number: int) -> None:
    """Fork with clients and bus in use; the child makes one request, publishes, and is gone."""
    record = soak.record
    rng = random.Random(f"{record.seed}:fork:{number}")
    config = rng.choice([c for c in soak.clients if c.timeouts.total])
    call = f"f{number}"
    reading, writing = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(soak, config, call, writing)
    os.close(writing)
    bound = (config.timeouts.total or UNTIMED) + SLACK + 6.0
    report = b""
    while time.monotonic() - begun < bound:
        if select.select([reading], [], [], 0.5)[0]:
            data = os.read(reading, 65536)
            if not data:
                break
            report += data
    else:
        record.break_("R06 forked child hangs", f"{call} on {config.name}: {report[-200:]!r}")
        os.kill(pid, signal.SIGABRT)  # faulthandler tells where
    os.close(reading)
    os.waitpid(pid, 0)
    case = Case(call, "forked", config, rng)
    attempts = soak.judge.attempts(case, call)
    try:
        said = json.loads(report)
    except ValueError:
        record.break_("R06 forked child", f"{call}: {report[-800:]!r}")
        return
    record.outcome("forked", said["what"], ())
    record.sample("forked child", time.monotonic() - begun)
    if said["what"].startswith("broken") or not said["published"]:
        record.break_("R06 forked child", f"{call}: {said}")
    soak.judge.text(case, call, said["text"], said["what"] == "ok", attempts, None)


def _child(soak: Any, config: Config, call: str, writing: int) -> None:
    said: Dict[str, Any] = {"what": "broken", "text": "", "published": False}
    try:
        faulthandler.enable()
        faulthandler.dump_traceback_later(25, exit=True)
        prompt = [{"role": "system", "content": f"[[{call}]] {PROMPT}"}]
        try:
            said["text"] = config.client.chat(prompt).content
            said["what"] = "ok"
        except AgentStreamError as error:
            said["text"] = error.partial.content if error.partial else ""
            said["what"] = f"{error.outcome}({type(error).__name__})"
            if any(m in f"{error} {vars(error)}" for m in MARKS):
                said["what"] = "broken(secret)"
        event = soak.events.append("system_warning", f"{call}-child", {"message": "from a child"})
        said["published"] = event.offset == 1
    except BaseException as error:
        said["what"] = f"broken({error!r})"
    finally:
        data = json.dumps(said).encode()
        while data:
            data = data[os.write(writing, data) :]
        os._exit(0)


def run_worker_process(soak: Any, number: int) -> None:
    """A process of its own, killed with -9 in the middle; what it had reported is checked."""
    record = soak.record
    rng = random.Random(f"{record.seed}:worker:{number}")
    prefix = f"w{number}x"
    command = [
        sys.executable,
        os.path.abspath(__file__),
        "--worker",
        prefix,
        "--seed",
        record.seed,
        "--ports",
        *(str(p.port) for p in soak.proxies),
        "--ca",
        soak.ca_file,
    ]
    # Not our stderr's pipe but a file of its own: a traceback would be lost with the process.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    soak.halt.wait(rng.uniform(2.0, 5.0))
    if process.poll() is not None:
        record.break_("worker died", process.stderr.read().decode()[-1500:])
    process.kill()
    out, err = process.communicate()
    record.count("workers killed with -9")
    if b"BROKEN" in err or b"Traceback" in err:
        record.break_("in a worker", err.decode("utf-8", "replace")[-3000:])
    hunt(record, err.decode("utf-8", "replace"), "a worker's stderr")
    for line in out.split(b"\n")[:-1]:  # the last one may be cut, and is acknowledged by nobody
        said = json.loads(line)
        record.count("reported by killed workers")
        record.outcome("worker", said["what"], ())


def be_worker(options: argparse.Namespace) -> None:
    """What the killed process does: calls and runs, each reported in a line once checked."""
    soak = Soak(options.seed, 3, worker=True)
    soak.ca_file = options.ca
    soak.clients = make_clients((options.ports[0], options.ports[1]), options.ca)
    soak.open_runtime()
    lock = threading.Lock()
    plain = soak.record.outcome

    def outcome(kind: str, what: str, toxics: Any) -> None:
        plain(kind, what, toxics)
        line = json.dumps({"kind": kind, "what": what})
        with lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    soak.record.outcome = outcome  # type: ignore[method-assign]
    soak.act(options.worker)
    soak.halt.wait(60.0)


# --- the soak ------------------------------------------------------------------------------


class Soak:
    """The parts, the pace, and the times of rest."""

    def __init__(
        self, seed: str, streams: int, *, worker: bool = False, log: Optional[str] = None
    ) -> None:
        self.log = log
        self.remote: Optional[Remote] = None
        self.record = Record(seed)
        self.streams = streams
        self.operations = [("plain", 40), ("deltas", 15), ("agent", 15), ("workflow", 30)]
        if not worker:
            self.operations.append(("runtime", 2))
        self.active: Dict[str, Case] = {}
        self.halt = threading.Event()
        self.resting = threading.Event()
        self.pace = 0.3
        self.servers: List[SoakServer] = []
        self.proxies: List[ToxicProxy] = []
        self.clients: List[Config] = []
        self.ca_file = ""
        self.canceller = Canceller(self.record)
        self.judge = Judge(self.record, self.servers)
        self.threads: List[threading.Thread] = []
        self.busy = 0
        self.changed = threading.Condition()
        self.rss: List[float] = []
        self.handler = LogHunter(self.record)
        logger = logging.getLogger("agentstream")
        logger.addHandler(self.handler)
        logger.propagate = False
        threading.excepthook = self._uncaught
        sys.unraisablehook = self._unraisable
        warnings.simplefilter("always", ResourceWarning)
        warnings._showwarnmsg_impl = self._warned  # type: ignore[attr-defined] # it has the source

    def _uncaught(self, found: Any) -> None:
        thread = found.thread.name if found.thread else "?"
        text = "".join(
            traceback.format_exception(found.exc_type, found.exc_value, found.exc_traceback)
        )
        self.record.break_("uncaught in a thread", f"{thread}: {text}")

    def _unraisable(self, found: Any) -> None:
        text = "".join(
            traceback.format_exception(found.exc_type, found.exc_value, found.exc_traceback)
        )
        self.record.break_("uncaught in __del__", f"{found.err_msg} {found.object!r}: {text}")

    def _warned(self, found: Any) -> None:
        text = f"{found.category.__name__}: {found.message} ({found.filename}:{found.lineno})"
        hunt(self.record, text, "a warning")
        if "unclosed <ssl.SSLSocket" in text and "raddr=" not in text:
            # CPython's: wrap_socket of a socket that has been reset drops it without a close.
            self.record.count("SSLSocket dropped by wrap_socket")
            return
        if found.source is not None and tracemalloc.is_tracing():  # python -X tracemalloc=20
            where = tracemalloc.get_object_traceback(found.source)
            text += "\n" + "\n".join(where.format() if where else [])
        ports = [p.port for p in (*self.servers, *self.proxies)]
        self.record.break_("warning", f"{text}\nour own ports: {ports}")

    def open(self) -> None:
        seed = self.record.seed
        for tls in (False, True):
            server = SoakServer(seed, tls=tls)
            proxy = ToxicProxy(server.port, f"{seed}:{tls}")
            server.proxy = proxy
            self.servers.append(server)
            self.proxies.append(proxy)
            self.ca_file = server.ca_file or self.ca_file
        ports = (self.proxies[0].port, self.proxies[1].port)
        self.clients = make_clients(ports, self.ca_file)
        self.open_runtime()

    def open_runtime(self) -> None:
        self.events = EventStream(SqliteStore(self.log) if self.log else MemoryStore(3000))
        if self.log:
            self.remote = Remote(self.record, SqliteStore(self.log))
        self.checker = Checker(self.record, bool(self.log))
        self.rough = [
            Rough(self.record, n, self.record.seed, self.halt, bool(self.log))
            for n in ("slow", "raising", "stuck")
        ]
        self.subscriptions = [self.events.subscribe(self.checker, max_queue=100_000)]
        for rough in self.rough:
            self.subscriptions.append(self.events.subscribe(rough, max_queue=64))
        self.runtime = Runtime(max_workers=6, event_stream=self.events)

    def act(self, prefix: str = "c") -> None:
        for number in range(self.streams):
            actor = Actor(self, f"{prefix}{number}n")
            thread = threading.Thread(
                target=self._loop, args=(actor,), name="soak-actor", daemon=True
            )
            self.threads.append(thread)
            thread.start()

    def _loop(self, actor: Actor) -> None:
        rng = random.Random(actor.prefix)
        while not self.halt.wait(self.pace * rng.uniform(0.5, 1.5)):
            with self.changed:
                if self.resting.is_set():
                    continue
                self.busy += 1
            try:
                actor.step()
            finally:
                with self.changed:
                    self.busy -= 1
                    self.changed.notify_all()

    # --- rest: everything back where it was -------------------------------------------------

    def rest(self) -> None:
        """Stop, look whether all is back at the baseline, go on."""
        self.resting.set()
        try:
            with self.changed:
                if not self.changed.wait_for(lambda: not self.busy, UNTIMED * 4):
                    self.record.break_("hung", f"no rest: {[str(c) for c in self.active.values()]}")
                    faulthandler.dump_traceback(file=sys.stderr)
            self.at_rest()
        finally:
            self.resting.clear()

    def at_rest(self) -> None:
        for config in self.clients:
            config.client.close()
        gc.collect()
        until = time.monotonic() + 10.0
        while time.monotonic() < until and self._unrest():
            self.halt.wait(0.05) if not self.halt.is_set() else threading.Event().wait(0.05)
            gc.collect()
        for problem in self._unrest():
            self.record.break_("I6 not back", problem)
        self.record.count("rests")
        self.rss.append(rss_mib())
        for server in self.servers:
            server.sweep()
            for strange in server.strange:
                self.record.break_("I2 next step's input", strange)
            server.strange.clear()

    def _unrest(self) -> List[str]:
        problems = []
        for config in self.clients:
            places = config.client._transport.places
            if places.free != config.limits.pool_size or places.waiting:
                problems.append(f"{config.name}: {places.free} of {config.limits.pool_size} free")
        for server, proxy in zip(self.servers, self.proxies):
            if server.active or proxy.active or server._links:
                problems.append(f"open: {server.active} scripts, {proxy.active} in the proxy")
        names = Counter(t.name.rstrip("0123456789-") for t in threading.enumerate())
        for name in (
            "agentstream-drain",
            "agentstream-resolve",
            "soak-pump",
            "agentstream-testing-connection",
            "agentstream-tool",
        ):
            if names[name]:
                problems.append(f"{names[name]} threads {name}")
        if names["agentstream-run"] > 6 or names["agentstream-subscriber"] > 4:
            problems.append(f"threads: {dict(names)}")
        if hasattr(self, "idle_fds") and fds() > self.idle_fds:
            problems.append(f"{fds()} descriptors, {self.idle_fds} at first: {listing()}")
        return problems

    def close(self) -> None:
        self.halt.set()
        for thread in self.threads:
            thread.join(UNTIMED)
        self.at_rest()
        for rough in self.rough:
            self.record.count(f"{rough.name} subscriber: events", rough.taken)
        if not self.runtime.shutdown(timeout=10.0):
            self.record.break_("I6 workers left", "Runtime.shutdown")
        if self.remote is not None:
            self.remote.close(self.checker.ended)
            self.reopen()
        for rough, subscription in zip(self.rough, self.subscriptions[1:]):
            if subscription.errors != rough.raised:
                self.record.break_("U01 errors counted", f"{subscription.errors}, {rough.raised}")
            if subscription.missed != rough.missed:
                self.record.break_("U02 missed", f"{subscription.missed}, {rough.missed}")
            self.record.count(f"{rough.name} subscriber: told as missed", rough.missed)
        for config in self.clients:
            config.client.close()
        for part in (*self.proxies, *self.servers, self.canceller):
            part.close()

    def reopen(self) -> None:
        """I5: the log holds what subscribers had been given."""
        assert self.log is not None
        with SqliteStore(self.log) as store:
            for name, (last, end) in self.checker.ended.items():
                events = store.read(workflow_id=name, after=0, limit=last + 10)
                offsets = [event.offset for event in events]
                if offsets != list(range(1, last + 1)) or events[-1].type.value != end:
                    self.record.break_("I5 the log", f"{name}: {offsets[-3:]}, not {last} {end}")
        self.record.count("runs read again from the log", len(self.checker.ended))


def rss_mib() -> float:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def listing() -> List[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return sorted(found)


def fds() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def cpu_s() -> float:
    mine, theirs = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def watch(soak: Soak, rng: random.Random, until: float) -> None:
    """The main thread's loop: pace, weather, processes, watchdog, progress, rests."""
    begun = time.monotonic()
    cpu = cpu_s()
    last_cpu, last_at = cpu, begun
    minute, weather, process, rest = begun + 60, begun, begun + 5, begun + 45
    number = 0
    dumped = False
    while time.monotonic() < until:
        soak.halt.wait(0.5)
        now = time.monotonic()
        if now - last_at >= 3.0:
            used = (cpu_s() - last_cpu) / (now - last_at)
            average = (cpu_s() - cpu) / (now - begun)
            soak.pace *= 1.2 if max(used * 0.8, average) > 0.21 else 0.9
            soak.pace = min(max(soak.pace, 0.02), 10.0)
            last_cpu, last_at = cpu_s(), now
        if now >= weather:
            rate = rng.choice([0.0, 0.03, 0.08, 0.2])
            for proxy in soak.proxies:
                proxy.rate = rate
            weather = now + rng.uniform(5.0, 15.0)
        if now >= process:
            number += 1
            (run_forked if number % 3 and hasattr(os, "fork") else run_worker_process)(soak, number)
            process = time.monotonic() + rng.uniform(6.0, 14.0)
        for case in list(soak.active.values()):
            if now - case.started > case.bound + SLACK + 10.0 and not case.hung:
                case.hung = True
                soak.record.break_("hung", f"{case}: {now - case.started:.1f} s and not back")
                if not dumped:
                    dumped = True
                    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        if now >= rest:
            soak.rest()
            rest = time.monotonic() + 150.0
        if now >= minute:
            minute += 60
            progress(soak, now - begun, (cpu_s() - cpu) / (now - begun))


def progress(soak: Soak, seconds: float, cpu: float) -> None:
    record = soak.record
    total = sum(record.outcomes.values())
    ok = record.outcomes["ok"]
    cancels = quantiles(record.samples.get("cancel all", ()))
    note(
        f"{seconds / 60:.0f} min: {total} outcomes, {ok} ok; cancel {cancels}; events "
        f"{soak.checker.events}; rss {rss_mib():.0f} MiB; cpu {cpu:.0%}; pace {soak.pace:.2f} s; "
        f"broken {sum(record.broken.values())}"
    )


def quantiles(values: Any) -> str:
    found = sorted(values)
    if not found:
        return "none"
    p = [found[min(len(found) - 1, int(len(found) * q))] * 1000 for q in (0.5, 0.99)]
    return f"p50 {p[0]:.2f} p99 {p[1]:.2f} max {found[-1] * 1000:.2f} ms (n {len(found)})"


def check_memory(soak: Soak) -> None:
    """I8: what is held at rest does not grow with time."""
    half = soak.rss[len(soak.rss) // 3 :]
    if len(half) >= 3:
        growth = sum(half[-2:]) / 2 - sum(half[:2]) / 2
        if growth > 24.0:
            soak.record.break_("I8 memory", f"+{growth:.0f} MiB: {[round(r) for r in soak.rss]}")


def check_baseline(soak: Soak, threads: set[Any], descriptors: int) -> None:
    """I6: threads and descriptors as before the first of it."""
    until = time.monotonic() + 10.0
    while True:
        gc.collect()
        left = [
            t.name
            for t in threading.enumerate()
            if t not in threads and t.name != "agentstream-clock"
        ]
        if (not left and fds() <= descriptors) or time.monotonic() > until:
            break
        threading.Event().wait(0.05)
    if left:
        soak.record.break_("I6 threads", str(left))
    if fds() > descriptors:
        soak.record.break_("I6 descriptors", f"{descriptors} -> {fds()}: {listing()}")


def summary(soak: Soak, seconds: float, cpu: float) -> None:
    record = soak.record
    print(
        f"soak: {seconds / 60:.1f} min, seed {record.seed}, {soak.streams} streams at once, "
        f"Python {sys.version.split()[0]}, cpu {cpu / seconds:.0%} of a core, "
        f"{sum(p.connections for p in soak.proxies)} connections, "
        f"{soak.checker.events} events"
    )
    print("\noutcomes")
    for what, count in record.outcomes.most_common():
        print(f"  {what:34} {count:7}")
    print("\nby kind                    ok  failed unknown    left/other")
    for kind in sorted({k for k, _ in record.kinds}):
        row = {w: c for (k, w), c in record.kinds.items() if k == kind}
        other = sum(row.values()) - sum(row.get(w, 0) for w in ("ok", "failed", "unknown"))
        print(
            f"  {kind:18} {row.get('ok', 0):8} {row.get('failed', 0):7} "
            f"{row.get('unknown', 0):7} {other:13}"
        )
    print("\nby toxic         given   fired  |   ok  failed unknown of the calls it met")
    for toxic, counts in record.by_toxic.items():
        given = sum(p.given[toxic] for p in soak.proxies)
        fired = sum(p.fired[toxic] for p in soak.proxies)
        sums = {
            w: sum(c for k, c in counts.items() if k.startswith(w))
            for w in ("ok", "failed", "unknown")
        }
        print(
            f"  {toxic:12} {given:7} {fired:7}  {sums['ok']:7} {sums['failed']:7} "
            f"{sums['unknown']:7}"
        )
    print("\ntimes")
    for name, values in sorted(record.samples.items()):
        print(f"  {name:22} {quantiles(values)}")
    print("\ncounts")
    for name, count in sorted(record.counts.items()):
        print(f"  {name:34} {count:8}")
    print(f"  rss at rest, MiB: {[round(r, 1) for r in soak.rss][:: max(1, len(soak.rss) // 12)]}")
    if soak.log is None:
        print("  not in it: I5 and the remote follower; see --log")
    print(f"\ninvariants broken: {sum(record.broken.values())}")
    for name, count in record.broken.most_common():
        print(f"  {name:34} {count:7}")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=1.0)
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument("--streams", type=int, default=12)
    parser.add_argument("--log", help="an SQLite log to be made, served and followed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--ca", help=argparse.SUPPRESS)
    options = parser.parse_args()
    faulthandler.enable()
    if options.worker:
        be_worker(options)
        return 0
    os.environ.pop("OPENAI_API_KEY", None)
    threads, descriptors = set(threading.enumerate()), fds()
    begun, cpu = time.monotonic(), cpu_s()
    soak = Soak(options.seed, min(options.streams, 64), log=options.log)
    note(f"seed {options.seed}, pid {os.getpid()}, {options.minutes} min")
    soak.open()
    soak.idle_fds = fds() + 8  # type: ignore[attr-defined]
    soak.act()
    try:
        watch(soak, random.Random(f"{options.seed}:weather"), begun + options.minutes * 60)
    except KeyboardInterrupt:
        note("interrupted")
    soak.resting.set()
    soak.close()
    logging.getLogger("agentstream").removeHandler(soak.handler)
    check_memory(soak)
    check_baseline(soak, threads, descriptors)
    summary(soak, time.monotonic() - begun, cpu_s() - cpu)
    return 1 if soak.record.broken else 0


if __name__ == "__main__":
    sys.exit(main())
