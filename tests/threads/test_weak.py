"""Containers of what somebody else holds."""

from __future__ import annotations

import sys

from agentstream.threads.weak import WeakObjects, WeakValues


class Thing:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_a_value_is_there_while_it_is_held():
    known: WeakValues[str, Thing] = WeakValues()
    one, other = Thing(), Thing()
    known["one"], known["other"] = one, other
    assert known.get("one") is one
    del one
    assert known.get("one") is None
    assert known.get("nobody") is None
    assert [value is other for value in known.values()] == [True]
    known.pop("other")
    known.pop("other")
    assert len(known) == 0


def test_dead_entries_do_not_pile_up():
    known: WeakValues[int, Thing] = WeakValues()
    held = [Thing() for _ in range(10)]
    for number, thing in enumerate(held):
        known[-number] = thing
    for number in range(1, 10_000):
        known[number] = Thing()
        assert len(known._entries) < 100
    assert len(known) == 10


def test_an_object_is_in_a_set_once_and_equal_ones_are_two():
    known = WeakObjects()
    one, other = Thing(), Thing()
    for thing in (one, one, other):
        known.add(thing)
    assert len(list(known)) == 2
    del one
    assert len(list(known)) == 1


def test_b13_no_python_runs_as_a_value_goes():
    known: WeakValues[str, Thing] = WeakValues()
    objects = WeakObjects()
    thing = Thing()
    known["thing"] = thing
    objects.add(thing)
    lines = []
    sys.setprofile(lambda frame, kind, _: lines.append((kind, frame.f_code.co_name)))
    del thing
    sys.setprofile(None)
    assert [name for kind, name in lines if kind == "call"] == []
