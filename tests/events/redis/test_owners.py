"""Whose sign of life has failed: by the watcher's own clock, and only while it got through."""

from __future__ import annotations

from agentstream.events.redis.owners import Seen


def looks(seen: Seen, beats: dict, *moments: float) -> list:
    return [seen.look(dict(beats), now) for now in moments]


def test_an_owner_is_dead_whose_beat_has_not_moved_for_its_lease() -> None:
    seen = Seen(3.0)
    assert looks(seen, {"a": b"1 3"}, 100.0, 101.0, 102.0, 103.0) == [[]] * 4
    assert looks(seen, {"a": b"1 3"}, 103.1) == [[("a", b"1 3")]]
    assert looks(seen, {"a": b"2 3"}, 104.0, 107.0) == [[]] * 2


def test_an_owner_has_the_lease_that_it_says() -> None:
    seen = Seen(3.0)
    beats = {"slow": b"1 30", "odd": b"?"}
    found = looks(seen, beats, *[100.0 + n for n in range(5)])
    assert found == [[]] * 4 + [[("odd", b"?")]]
    assert looks(seen, beats, *[105.0 + n for n in range(27)])[-1][0] == ("slow", b"1 30")


def test_k02_k15_nobody_has_died_while_the_watcher_could_not_look() -> None:
    seen = Seen(3.0)
    looks(seen, {"a": b"1 3"}, 100.0, 101.0)
    seen.lose()  # the server was away
    assert looks(seen, {"a": b"1 3"}, 160.0, 161.0, 162.0, 163.0) == [[]] * 4
    assert looks(seen, {"a": b"2 3"}, 163.5, 300.0) == [[]] * 2  # the watcher slept
    assert looks(seen, {"a": b"2 3"}, 301.0, 302.0, 303.0, 303.2)[-1] == [("a", b"2 3")]
