"""What a setting must be: what each check takes, refuses, and says of it."""

from __future__ import annotations

import math

import pytest

from agentstream import ChatClient, ConfigError, Limits, MemoryStore, Runtime, SqliteStore, checks

HUGE = 10**400


def reason_of(check, *args, **kwargs):
    """What is wrong, without the setting's name."""
    with pytest.raises(ConfigError) as caught:
        check("size", *args, **kwargs)
    error = caught.value
    assert error.setting == "size"
    assert str(error) == f"size {error.reason}"
    return error.reason


def test_whole_numbers():
    assert checks.whole("size", 3) == 3
    assert checks.whole("size", None, optional=True) is None
    assert checks.whole("size", HUGE, 1) == HUGE
    for value in (None, True, 1.5, 2.0, "3", [1]):
        assert reason_of(checks.whole, value).startswith("must be a whole number, not ")
    assert reason_of(checks.whole, -1) == "must be 0 or more, not -1"
    assert reason_of(checks.whole, 7, 1, 6) == "must be from 1 to 6, not 7"
    assert reason_of(checks.whole, -HUGE) == "must be 0 or more, not one of so many digits"


def test_numbers():
    assert checks.number("size", 0.5, 0, 1) == 0.5
    assert checks.number("size", -3) == -3
    for value in (None, False, math.nan, math.inf, "1", HUGE):
        assert reason_of(checks.number, value).startswith("must be a number, not ")
    assert reason_of(checks.number, -0.5, 0) == "must be 0 or more, not -0.5"
    assert reason_of(checks.number, 2, 0, 1) == "must be from 0 to 1, not 2"
    assert reason_of(checks.number, 2, None, 1) == "must be 1 or less, not 2"


def test_seconds_are_finite_and_no_longer_than_a_clock_takes():
    assert checks.seconds("size", 0.5) == 0.5
    assert checks.seconds("size", 0, zero=True) == 0
    for long in (1e308, HUGE, checks.LONGEST_S + 1):
        assert checks.seconds("size", long) == checks.LONGEST_S
    for value in (0, -1, math.nan, math.inf, True, "5", None):
        assert reason_of(checks.seconds, value).startswith("must be a positive number of seconds")
    assert reason_of(checks.seconds, -1, zero=True) == "must be 0 or more seconds, not -1"


def test_texts_flags_choices_and_kinds():
    assert checks.text("size", "a") == "a"
    assert reason_of(checks.text, "") == "must not be empty"
    assert reason_of(checks.text, b"a") == "must be a str, not bytes"
    assert reason_of(checks.flag, 1) == "must be True or False, not 1"
    assert reason_of(checks.one_of, "c", ("a", "b")) == "must be one of a, b, not 'c'"
    assert reason_of(checks.one_of, ["c"], ("a", "b")) == "must be one of a, b, not a list"
    assert reason_of(checks.instance, 5, ChatClient) == "must be a ChatClient, not int"
    assert reason_of(checks.function, 5) == "must be callable, not int"


def test_the_owner_is_named_and_is_no_part_of_the_setting():
    with pytest.raises(ConfigError, match=r"^agent 'poet': size must be 1 or more, not 0$") as it:
        checks.whole("size", 0, 1, of="agent 'poet'")
    assert (it.value.setting, it.value.reason) == ("size", "must be 1 or more, not 0")


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda path: Limits(line=True), "Limits.line"),
        (lambda path: MemoryStore(True), "capacity"),
        (lambda path: MemoryStore(2.0), "capacity"),
        (lambda path: Runtime(max_workers=True), "max_workers"),
        (lambda path: Runtime(grace=-1), "grace"),
        (lambda path: SqliteStore(path, max_events=True), "max_events"),
        (lambda path: SqliteStore(path, max_age=math.nan), "max_age"),
        (lambda path: SqliteStore(path, max_queue="9"), "max_queue"),
        (lambda path: SqliteStore(path, durability="most"), "durability"),
    ],
)
def test_constructors_name_the_setting(tmp_path, make, setting):
    with pytest.raises(ConfigError) as caught:
        make(tmp_path / "runs.db")
    assert caught.value.setting == setting
    assert caught.value.reason.startswith("must be ")


def test_times_as_texts():
    for text, seconds in (("600", 600), ("1.5", 1.5), (".5", 0.5), ("9s", 9), ("2h", 7200)):
        assert checks.parse_time(text) == seconds
    for text in (
        "",
        "m",
        "-1",
        "1e3",
        "10 m",
        "1d",
        "inf",
        "1" * 10,
        "\N{ARABIC-INDIC DIGIT FIVE}",
    ):
        assert checks.parse_time(text) is None, text
