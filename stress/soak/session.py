"""A soak's parts, its pace, and its times of rest."""

from __future__ import annotations

import faulthandler
import gc
import logging
import random
import sys
import threading
import time
import traceback
import tracemalloc
import warnings
from collections import Counter
from typing import Any, Dict, List, Optional, Tuple

from agentstream import (
    EventStream,
    MemoryStore,
    Runtime,
    SqliteStore,
)
from stress.soak.actor import Actor
from stress.soak.cases import Canceller, Case, Config, make_clients
from stress.soak.judge import Judge
from stress.soak.measures import fds, listing, rss_mib
from stress.soak.record import (
    ENDS,
    MAIN_PREFIX,
    UNTIMED,
    LogHunter,
    Record,
    hunt,
)
from stress.soak.script import SoakServer
from stress.soak.subscribers import Checker, Remote, Rough, Seen
from stress.soak.tools import Ledger
from stress.soak.toxics import ToxicProxy


class Soak:
    """The parts, the pace, and the times of rest."""

    def __init__(
        self, seed: str, streams: int, *, worker: str = "", log: Optional[str] = None
    ) -> None:
        self.log = log
        self.worker = worker
        self.prefix = worker or MAIN_PREFIX
        self.acknowledged: Dict[str, Tuple[int, str]] = {}  # by killed workers: last offset and end
        self.remote: Optional[Remote] = None
        self.record = Record(seed)
        self.streams = streams
        self.operations = [
            ("plain", 40),
            ("deltas", 15),
            ("agent", 15),
            ("workflow", 20),
            ("shapes", 20),
        ]
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
        self.ledger = Ledger()
        self.judge = Judge(self.record, self.servers, self.ledger)
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
        # What a worker says it has must be on the disk: it is killed in the next moment.
        durability = "full" if self.worker else "normal"
        self.events = EventStream(
            SqliteStore(self.log, durability=durability) if self.log else MemoryStore(3000)
        )
        if self.log and not self.worker:
            self.remote = Remote(self.record, SqliteStore(self.log))
        self.checker = Checker(self.record, bool(self.log), self.prefix)
        self.rough = [
            Rough(self.record, n, self.record.seed, self.halt, bool(self.log))
            for n in ("slow", "raising", "stuck")
        ]
        self.subscriptions = [self.events.subscribe(self.checker, max_queue=100_000)]
        for rough in self.rough:
            self.subscriptions.append(self.events.subscribe(rough, max_queue=64))
        self.runtime = Runtime(max_workers=6, event_stream=self.events)

    def acknowledge(self, name: str, seen: Optional[Seen]) -> None:
        """A run has ended and been seen whole; a worker tells it to its parent."""

    def act(self) -> None:
        for number in range(self.streams):
            actor = Actor(self, f"{self.prefix}{number}n")
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
        """I5: the log holds what subscribers had been given, and what killed workers had told."""
        assert self.log is not None
        given = {**self.checker.ended, **self.acknowledged}
        begun = 0
        with SqliteStore(self.log) as store:
            for state in store.runs(limit=10**6):
                name = state.workflow_id
                events = store.read(workflow_id=name, after=0, limit=10**6)
                kinds = [event.type.value for event in events]
                if [event.offset for event in events] != list(range(1, len(events) + 1)):
                    self.record.break_("I4 the log", f"{name}: {len(events)} {events[-1].id}")
                wanted = given.pop(name, None)
                if wanted is not None and wanted != (len(events), kinds[-1]):
                    self.record.break_("I5 the log", f"{name}: {kinds[-2:]}, not {wanted}")
                if kinds[0] != "workflow_started":
                    continue
                begun += 1
                if kinds[-1] not in ENDS or set(ENDS) & set(kinds[:-1]):
                    self.record.break_("I1 the log", f"{name}: {kinds[-3:]}")
        for name, wanted in given.items():
            self.record.break_("I5 the log", f"{name}: not there, not {wanted}")
        self.record.count("runs read again from the log", begun)
        self.record.count("runs that killed workers had told of", len(self.acknowledged))
