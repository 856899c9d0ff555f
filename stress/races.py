"""Cancel races the natural end of a run: `python -m stress.races [N]` (default 100,000).

Each run is cancelled by another thread at a random moment around its end, on a
connection that the pool then lends on.  Counted: terminal events, outcomes that
are neither whole nor cancelled, and streams on the same pool that no one cancelled
and that were hit all the same.  The suite runs 2,000 of these (row X06).
"""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from typing import Any, Dict, List, NamedTuple, Optional

from agentstream import (
    Agent,
    AgentStreamError,
    Cancelled,
    LlamaClient,
    Retries,
    Runtime,
    Timeouts,
)
from agentstream.testing import ScriptedServer

TEXTS = ("one ", "two ", "three")
WHOLE = "".join(TEXTS)
TERMINAL = {"workflow_completed", "workflow_failed", "workflow_cancelled"}


class Tally(NamedTuple):
    """What came of the races; `wrong` says in words what must not have happened."""

    races: int
    completed: int
    cancelled: int
    bystanders: int
    connections: int
    seconds: float
    wrong: List[str]


def race(
    count: int,
    *,
    seconds: Optional[float] = None,
    racers: int = 2,
    tls: bool = False,
    seed: int = 1,
) -> Tally:
    """Run `count` races, or as many as fit into `seconds`, beside one bystander after another."""
    started = time.monotonic()
    until = float("inf") if seconds is None else started + seconds
    with ScriptedServer(tls=tls) as server:
        server.reply_text(*TEXTS, repeat=True)
        with LlamaClient(
            server.url,
            verify=server.ca_file or True,
            retries=Retries(0),
            timeouts=Timeouts(connect=20, first_token=20, stall=20),
        ) as client:
            track = _Track(client, count, until, seed)
            track.run(racers)
        connections = server.connections
    done = track.completed + track.cancelled + len(track.wrong)
    return Tally(
        done,
        track.completed,
        track.cancelled,
        track.bystanders,
        connections,
        time.monotonic() - started,
        track.wrong,
    )


class _Track:
    def __init__(self, client: LlamaClient, count: int, until: float, seed: int) -> None:
        self.client = client
        self.agent = Agent("racer", client=client)
        self.left = iter(range(count))
        self.until = until
        self.random = random.Random(seed)
        self.completed = self.cancelled = self.bystanders = 0
        self.wrong: List[str] = []
        self.ends: Dict[str, int] = {}
        self.lock = threading.Lock()
        self.over = threading.Event()

    def run(self, racers: int) -> None:
        with Runtime(max_workers=racers) as runtime:
            runtime.event_stream.subscribe(self.count_end, types=list(TERMINAL))
            bystander = _thread(self.stand_by)
            threads = [_thread(self.race, runtime) for _ in range(racers)]
            for thread in [bystander, *threads]:
                thread.start()
            for thread in threads:
                thread.join()
            self.over.set()
            bystander.join()
        runs = self.completed + self.cancelled
        if len(self.ends) != runs or any(n != 1 for n in self.ends.values()):
            more = sum(n > 1 for n in self.ends.values())
            self.wrong.append(
                f"{len(self.ends)} runs of {runs} told their end, {more} more than once"
            )

    def count_end(self, event: Any) -> None:
        self.ends[event.workflow_id] = self.ends.get(event.workflow_id, 0) + 1

    def race(self, runtime: Runtime) -> None:
        shots: queue.SimpleQueue[Any] = queue.SimpleQueue()
        shooter = _thread(_shoot, shots)
        shooter.start()
        aim = 0.003  # moved so that half of the runs are quicker
        while time.monotonic() < self.until:
            with self.lock:
                if next(self.left, None) is None:
                    break
                after = self.random.uniform(0.5, 1.5) * aim
            began = time.monotonic()
            handle = runtime.submit(self.agent, "go")
            shots.put((handle, began + after))
            try:
                run = handle.result(30)
                fault = "" if run.output == WHOLE else f"completed with {run.output!r}"
                kind = "completed"
                aim = max(0.0002, aim * 0.98)
            except Cancelled as error:
                said = error.run.output if error.run is not None else "no run"
                fault = "" if WHOLE.startswith(said) else f"cancelled with {said!r}"
                kind = "cancelled"
                aim = min(0.1, aim * 1.02)
            except (AgentStreamError, TimeoutError) as error:
                fault, kind = f"{type(error).__name__}: {error}", "wrong"
            with self.lock:
                if fault:
                    self.wrong.append(fault)
                else:
                    setattr(self, kind, getattr(self, kind) + 1)
        shots.put(None)
        shooter.join()

    def stand_by(self) -> None:
        """Streams that nobody cancels, on the same pool; at least one."""
        while True:
            try:
                said = self.client.chat("and you?").content
                fault = "" if said == WHOLE else f"a bystander got {said!r}"
            except AgentStreamError as error:
                fault = f"a bystander was hit: {type(error).__name__}: {error}"
            self.bystanders += 1
            if fault:
                with self.lock:
                    self.wrong.append(fault)
            if self.over.is_set():
                return


def _thread(target: Any, *args: Any) -> threading.Thread:
    return threading.Thread(target=target, args=args, daemon=True)


def _shoot(shots: queue.SimpleQueue[Any]) -> None:
    pause = threading.Event()
    while True:
        shot = shots.get()
        if shot is None:
            return
        handle, when = shot
        pause.wait(max(0.0, when - time.monotonic()))  # spinning would keep the racers waiting
        handle.cancel("the race")


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else None
    bad = 0
    for tls in (False, True):
        tally = race(count // 2, seconds=None if seconds is None else seconds / 2, tls=tls)
        bad += len(tally.wrong)
        print(
            f"{'https' if tls else 'http '}: {tally.races} races in {tally.seconds:.0f} s:"
            f" {tally.completed} completed, {tally.cancelled} cancelled;"
            f" {tally.bystanders} bystanders; {tally.connections} connections;"
            f" {len(tally.wrong)} wrong"
        )
        for line in tally.wrong[:20]:
            print("  ", line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
