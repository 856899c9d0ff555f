"""Window: what goes out, and when; on a clock of the test's own."""

from __future__ import annotations

import random
from typing import List, Optional, Tuple

import pytest

from agentstream.llm.rate_limit.window import Rules, Window


def rules(
    requests: Optional[int] = None, tokens: Optional[int] = None, per: float = 60.0, burst: int = 1
) -> Rules:
    return Rules(requests, tokens, per, burst)


def times(
    window: Window, count: int, tokens: int = 0, now: float = 1000.0, late: float = 0.0
) -> List[float]:
    """When each of so many that wait together goes."""
    found = []
    waited = False
    while len(found) < count:
        answer = window.ask(now, tokens, waited=waited)
        waited = waited or answer.grant is None
        if answer.grant is None:
            assert answer.again > now
            now = answer.again + late
        else:
            found.append(now - 1000.0)
    return found


def most_within(found: List[float], per: float) -> int:
    return max(sum(at <= other < at + per for other in found) for at in found)


def test_a_burst_goes_at_once_and_the_rest_is_spaced():
    assert times(Window(rules(4, per=8.0, burst=2)), 5) == pytest.approx(
        [0, 0, 2, 4, 8.04], abs=0.05
    )
    assert times(Window(rules(4, per=8.0, burst=1)), 4) == pytest.approx([0, 2, 4, 6], abs=0.05)
    assert times(Window(rules(4, per=8.0, burst=4)), 5) == pytest.approx([0, 0, 0, 0, 8], abs=0.05)


@pytest.mark.parametrize("late", [0.0, 0.02])
@pytest.mark.parametrize("burst", [5, 600])
def test_no_window_holds_more_and_two_percent_less_at_most(burst, late):
    found = times(Window(rules(600, burst=burst)), 1800, late=late)
    starts = found[:: len(found) // 40]
    assert all(sum(at <= t < at + 60 for t in found) <= 600 for at in starts)
    assert sum(t < 120 for t in found) >= 1200 * 0.98


def test_after_a_wait_there_is_no_second_burst():
    found = times(Window(rules(100, per=10.0, burst=20)), 300)
    later = [at for at in found if at > 9.9]
    assert max(b - a for a, b in zip(later, later[1:])) < 0.25
    assert most_within(later, 1.0) <= 11


def test_tokens_are_counted_over_the_window():
    found = times(Window(rules(tokens=1000, per=10.0)), 9, tokens=300)
    assert found == pytest.approx([0, 0, 0, 10, 10, 10, 20, 20, 20], abs=0.2)


def test_more_tokens_than_the_limit_go_alone():
    window = Window(rules(tokens=100, per=10.0))
    assert times(window, 1, tokens=5000) == [0]
    assert times(window, 1, tokens=1, now=1000.1)[0] == pytest.approx(10.05, abs=0.1)


def test_what_was_corrected_or_given_back_counts_as_that():
    window = Window(rules(2, 1000, per=10.0, burst=2))
    first = window.ask(1000.0, 900).grant
    assert first is not None
    assert window.ask(1000.0, 900).grant is None
    window.correct(first, -890)
    second = window.ask(1000.0, 900).grant
    assert second is not None
    assert window.ask(1000.1, 0).grant is None  # two requests
    window.correct(second, -900, -1)
    assert window.ask(1000.1, 900).grant is not None
    window.correct(first, 5000)
    assert window.ask(1003.0, 1).grant is None
    window.correct(first._replace(at=5.0), 5000)  # long gone: nothing


def test_a_pause_holds_up_everybody_and_no_burst_follows_it():
    window = Window(rules(100, per=10.0, burst=50))
    window.ask(1000.0, 0)
    window.pause(1003.0)
    window.pause(1001.0)
    assert times(window, 4, now=1000.5) == pytest.approx([3.0, 3.0, 3.1, 3.2], abs=0.11)


@pytest.mark.parametrize(
    ("left", "limit", "reset", "first"),
    [
        (0.0, 100.0, 2.0, 2.0),  # nothing: until there is more
        (3.0, 100.0, 2.0, 0.5),  # little: spread
        (60.0, 100.0, 2.0, 0.0),  # enough
        (1.0, None, 3.0, 1.5),  # 50 would go until then by our own limit
        (0.0, 100.0, 1e9, 60.0),  # no word of a server holds up for longer
        (-5.0, 100.0, 2.0, 2.0),
    ],
)
def test_what_a_server_says_to_be_left_is_spread(left, limit, reset, first):
    window = Window(rules(1000, per=60.0, burst=100))
    window.ask(1000.0, 0)
    window.note_left("requests", left, limit, 1000.0, 1000.0 + reset)
    assert times(window, 1)[0] == pytest.approx(first, abs=0.01)
    assert times(window, 1, now=1000.0 + 70)[0] == 70  # forgotten by then


def test_tokens_that_a_server_says_to_be_left_are_spread_by_what_a_request_costs():
    for tokens, first in [(500, 10.0), (5000, 30.0)]:
        window = Window(rules(1000, per=60.0, burst=100))
        window.ask(1000.0, 0)
        window.note_left("input-tokens", 1000.0, 10_000.0, 1000.0, 1030.0)
        assert times(window, 1, tokens=tokens)[0] == pytest.approx(first)


def test_a_server_cannot_fill_the_memory_with_limits():
    window = Window(rules(10))
    for number in range(1000):
        window.note_left(f"kind-{number}", 0.0, 10.0, 1000.0, 1060.0)
    assert len(window.dump()) < 1000


def test_of_processes_that_share_it_the_one_that_has_waited_longest_goes_first():
    window = Window(rules(10, per=1.0, burst=1))
    assert window.ask(1000.0, 0, 1000.0, "a").grant
    assert window.ask(1000.01, 0, 1000.005, "b").grant is None
    assert window.ask(1000.02, 0, 1000.001, "a").grant is None
    late = window.ask(1000.1001, 0, 1000.005, "b")
    assert late.grant is None  # a is older, and may come every moment
    assert 1000.1001 < late.again < 1000.3
    assert window.ask(1000.102, 0, 1000.001, "a").grant
    assert window.ask(1000.21, 0, 1000.005, "b").grant


def test_a_process_that_was_killed_in_its_wait_blocks_nobody():
    window = Window(rules(10, per=1.0, burst=1))
    window.ask(1000.0, 0, 1000.0, "a")
    killed = window.ask(1000.01, 0, 1000.001, "a")
    now, answer = 1000.02, window.ask(1000.02, 0, 1000.005, "b")
    while answer.grant is None:
        now, answer = answer.again, window.ask(answer.again, 0, 1000.005, "b")
    assert now < killed.again + 0.2
    window.ask(now + 0.01, 0, now, "c")
    window.leave("c")
    assert window.ask(now + 0.11, 0, now + 0.05, "d").grant  # who said so is not waited for


def test_a_clock_that_went_back_is_another_boot():
    window = Window(rules(1, per=60.0))
    assert window.ask(1e6, 0).grant
    assert window.ask(5.0, 0).grant
    assert not window.ask(5.0, 0).grant


def test_what_it_keeps_is_bounded_and_can_be_kept_elsewhere():
    window = Window(rules(1_000_000, 10**9, per=10.0, burst=1000))
    now = 1000.0
    for _ in range(8000):
        now += random.random() / 200
        window.ask(now, 5)
    text = window.dump()
    assert len(text) < 10_000
    other, third = (Window(rules(1_000_000, 10**9, per=10.0, burst=1000)) for _ in range(2))
    other.load(text)
    third.load(other.dump())
    assert third.dump() == other.dump()
    assert other.ask(now, 10**9).again == window.ask(now, 10**9).again


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "{", '{"slots": 3}', "[" * 10_000,
     '{"slots":[[1]],"paced":0,"paused":0,"last":0,"left":{},"heads":{}}',
     '{"slots":[],"paced":"x","paused":0,"last":0,"left":{},"heads":{}}',
     '{"slots":[],"paced":0,"paused":0,"last":0,"left":[],"heads":{"a":[1]}}'],
)  # fmt: skip
def test_what_is_no_state_is_refused(text):
    window = Window(rules(1))
    with pytest.raises(ValueError, match="no state"):
        window.load(text)
    assert window.ask(1.0, 0).grant


def test_any_order_of_requests_keeps_to_both_limits():
    chance = random.Random(7)
    for _ in range(20):
        most, tokens = chance.randint(1, 30), chance.randint(100, 3000)
        window = Window(rules(most, tokens, per=5.0, burst=chance.randint(1, most)))
        sent: List[Tuple[float, int]] = []
        now = 100.0
        for _ in range(200):
            now += chance.random() * 0.4
            cost = chance.randint(0, 100)
            answer = window.ask(now, cost)
            if answer.grant:
                sent.append((now, cost))
            else:
                assert answer.again > now
        for at, _ in sent:
            inside = [cost for other, cost in sent if at <= other < at + 5.0]
            assert len(inside) <= most
            assert sum(inside) <= tokens
