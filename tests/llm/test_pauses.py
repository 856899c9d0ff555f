"""Which client is asked next: by a clock of the test's own."""

from __future__ import annotations

import threading
from typing import List, Optional

from agentstream.llm.pauses import Pauses, Ticket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pauses_of(clients: int) -> tuple[Pauses, Clock]:
    clock = Clock()
    return Pauses(clients, first=1.0, most=4.0, clock=clock), clock


def taken(pauses: Pauses, *asked: int, paused: bool = False) -> Optional[int]:
    ticket = pauses.take(asked, paused=paused)
    return None if ticket is None else ticket.place


def ticket(pauses: Pauses, place: int) -> Ticket:
    """Leave to ask the client at that place, paused or not."""
    others = [other for other in range(len(pauses._states)) if other != place]
    found = pauses.take(others, paused=True)
    assert found is not None
    assert found.place == place
    return found


def test_clients_are_asked_in_order_and_each_once():
    pauses, _ = pauses_of(3)
    assert [taken(pauses), taken(pauses, 0), taken(pauses, 0, 1)] == [0, 1, 2]
    assert taken(pauses, 0, 1, 2, paused=True) is None


def test_a_pause_grows_with_each_failure_up_to_its_most_and_an_answer_ends_it():
    pauses, clock = pauses_of(2)
    grown = []
    for _ in range(4):
        grown.append(pauses.failed(ticket(pauses, 0), None))
        assert taken(pauses) == 1
        clock.now += grown[-1]
    assert grown == [1.0, 2.0, 4.0, 4.0]
    again = pauses.take((), paused=False)
    assert again is not None
    assert again.place == 0
    pauses.answered(again)
    assert pauses.failed(ticket(pauses, 0), None) == 1.0


def test_what_the_server_asks_for_takes_the_place_of_the_growing_pause():
    pauses, clock = pauses_of(1)
    assert pauses.failed(ticket(pauses, 0), 30.0) == 30.0
    clock.now += 29.9
    assert taken(pauses) is None
    clock.now += 0.1
    assert taken(pauses) == 0
    assert pauses.failed(ticket(pauses, 0), 0.0) == 0.0


def test_one_call_tries_a_client_after_its_pause_and_the_others_do_not():
    pauses, clock = pauses_of(2)
    pauses.failed(ticket(pauses, 0), None)
    clock.now += 1.0
    probe = pauses.take((), paused=False)
    assert probe is not None
    assert probe.place == 0
    assert [taken(pauses) for _ in range(5)] == [1] * 5
    pauses.left(probe)  # it was cancelled: nobody knows
    assert taken(pauses) == 0


def test_of_many_threads_one_tries():
    pauses, clock = pauses_of(2)
    pauses.failed(ticket(pauses, 0), None)
    clock.now += 1.0
    found: List[Optional[int]] = []
    gate = threading.Barrier(16)

    def call() -> None:
        gate.wait(10)
        found.append(taken(pauses))

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(place for place in found if place is not None) == [0] + [1] * 15


def test_where_all_are_left_alone_the_one_that_is_due_first_is_asked():
    pauses, _ = pauses_of(3)
    for place, seconds in enumerate((9.0, 3.0, 5.0)):
        pauses.failed(ticket(pauses, place), seconds)
    assert taken(pauses) is None
    assert taken(pauses, paused=True) == 1
    assert taken(pauses, 1, paused=True) == 2


def test_calls_that_fail_together_make_the_pause_longer_once():
    pauses, clock = pauses_of(1)
    together = [ticket(pauses, 0) for _ in range(50)]
    assert {pauses.failed(each, None) for each in together} == {1.0}
    assert pauses.failed(together[0], 20.0) == 20.0  # but the server's word counts
    clock.now += 20.0
    assert pauses.failed(ticket(pauses, 0), None) == 2.0


def test_an_answer_to_a_call_from_before_the_failure_ends_no_pause():
    pauses, _ = pauses_of(2)
    slow, quick = ticket(pauses, 0), ticket(pauses, 0)
    pauses.failed(quick, None)
    pauses.answered(slow)
    assert taken(pauses) == 1
