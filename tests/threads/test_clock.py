"""The clock of alarms: each rings once, in its time, all in one thread."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import List

import pytest

from agentstream import threads
from tests.kit.support import Task, wait_until


def test_b16_the_clock_forgets_alarms_that_were_stopped_long_before_their_time() -> None:
    old = []
    for _ in range(5000):
        alarm = threads.Alarm(lambda _: None, grain=3600.0)
        threads.arm(alarm, time.monotonic() + 3600)
        alarm.stop()
        old.append(weakref.ref(alarm))
    del alarm
    wait_until(lambda: sum(gone() is not None for gone in old) <= 2000)


@pytest.mark.parametrize("seconds", [9.3e9, 1e12, 1e300, threads.NEVER])
def test_b18_an_alarm_in_centuries_does_not_end_the_clock(seconds: float) -> None:
    late, soon = Bell(grain=seconds), Bell()
    try:
        for due in (seconds, time.monotonic() + 0.01, time.monotonic() + seconds):
            threads.arm(late.alarm, due)
        threads.arm(soon.alarm, time.monotonic() + 0.03)
        assert soon.event.wait(5)
    finally:
        late.alarm.stop()


class Bell:
    def __init__(self, grain: float = 3600.0) -> None:
        self.rang: List[float] = []
        self.event = threading.Event()
        self.alarm = threads.Alarm(self.ring, grain)

    def ring(self, now: float) -> None:
        self.rang.append(now)
        self.event.set()


def test_an_alarm_rings_once_after_its_time_and_not_before() -> None:
    bell = Bell()
    due = time.monotonic() + 0.05
    threads.arm(bell.alarm, due)
    assert bell.event.wait(5)
    assert due <= bell.rang[0] < due + 1
    later = Bell()
    threads.arm(later.alarm, time.monotonic() + 0.02)
    assert later.event.wait(5)
    assert len(bell.rang) == 1


def test_an_alarm_is_moved_by_plain_assignment() -> None:
    bell = Bell()
    threads.arm(bell.alarm, time.monotonic() + 0.03)
    due = bell.alarm.due = time.monotonic() + 0.15
    assert bell.event.wait(5)
    assert due <= bell.rang[0] < due + 1


def test_an_alarm_that_is_never_due_is_looked_at_again_after_its_grain() -> None:
    bell = Bell(grain=0.02)
    threads.arm(bell.alarm, time.monotonic() + 0.02)
    bell.alarm.due = threads.NEVER
    assert not bell.event.wait(0.08)
    bell.alarm.due = time.monotonic()  # by assignment alone: it is found within the grain
    assert bell.event.wait(5)


def test_an_earlier_alarm_is_not_kept_waiting_by_a_later_one() -> None:
    late, soon = Bell(), Bell()
    threads.arm(late.alarm, time.monotonic() + 60)
    threads.arm(soon.alarm, time.monotonic() + 0.02)
    assert soon.event.wait(2)
    assert not late.rang
    threads.arm(late.alarm, time.monotonic() + 0.02)  # nor by itself
    assert late.event.wait(2)


def test_a_stopped_alarm_never_rings_and_lets_go_at_once() -> None:
    gc.disable()
    try:
        bell = Bell()
        gone = weakref.ref(bell)
        threads.arm(bell.alarm, time.monotonic() + 0.02)
        alarm = weakref.ref(bell.alarm)
        bell.alarm.stop()
        del bell
        assert gone() is None
    finally:
        gc.enable()
    after = Bell()
    threads.arm(after.alarm, time.monotonic() + 0.05)
    assert after.event.wait(5)
    wait_until(lambda: alarm() is None)


def test_a_ringing_that_raises_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def ring(now: float) -> None:
        raise ValueError("broken bell")

    broken = threads.Alarm(ring, 1.0)
    bell = Bell()
    now = time.monotonic()
    threads.arm(broken, now + 0.01)
    threads.arm(bell.alarm, now + 0.03)
    assert bell.event.wait(5)
    assert "an alarm raised" in caplog.text
    assert "broken bell" in caplog.text


def test_thousands_of_alarms_ring_in_time_in_one_thread() -> None:
    start = time.monotonic() + 1.0  # by then half of them must have been stopped
    bells = [Bell() for _ in range(4000)]
    for number, bell in enumerate(bells):
        threads.arm(bell.alarm, start + (number * 7919 % 4000) / 40_000)  # within 0.1 s
    for bell in bells[::2]:
        bell.alarm.stop()
    clocks = [t for t in threading.enumerate() if t.name == "agentstream-clock"]
    assert len(clocks) == 1
    for bell in bells[1::2]:
        assert bell.event.wait(5)
    assert all(0 <= bell.rang[0] - bell.alarm.due < 1 for bell in bells[1::2])
    assert not any(bell.rang for bell in bells[::2])


def test_moving_an_alarm_from_many_threads_loses_no_ring() -> None:
    def race() -> float:
        bell = Bell(grain=0.05)
        threads.arm(bell.alarm, time.monotonic() + 0.01)
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            due = time.monotonic() + 0.002
            bell.alarm.due = due
            if due < bell.alarm.entry:
                threads.arm(bell.alarm, due)
            bell.alarm.due = threads.NEVER
        due = time.monotonic() + 0.01
        rang = len(bell.rang)
        bell.event.clear()
        bell.alarm.due = due
        if due < bell.alarm.entry:
            threads.arm(bell.alarm, due)
        assert bell.event.wait(5) or len(bell.rang) > rang
        bell.alarm.stop()
        return bell.rang[-1] - due

    tasks = [Task(race) for _ in range(4)]
    assert all(task.result() < 1 for task in tasks)
