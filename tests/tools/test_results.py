"""What a tool returned, as the model reads it: values of all kinds, cut to a limit; iterators, arrays, async ones."""

from __future__ import annotations

import array
import datetime
import decimal
import io
import itertools
import json
import pathlib
import tracemalloc
import warnings
from typing import Any, AsyncIterator, Iterator, List, NamedTuple

import pytest

from agentstream.tools import to_text, tool
from agentstream.tools.results import refuse_async
from tests.kit.tool_support import Color, Level, Point


def counting(most: int, ended: List[bool]) -> Iterator[int]:
    try:
        yield from range(most)
    finally:
        ended.append(True)


def breaking() -> Iterator[int]:
    yield 1
    raise ValueError("no more rows")


class Scalar:
    """As numpy's numbers are: no int, no float, and `item` gives one."""

    ndim = 0

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self if self.value is None else self.value

    def tolist(self) -> Any:
        return self.value

    def __repr__(self) -> str:
        return f"scalar({self.value})"


class Listed:
    """A number that `tolist` alone gives."""

    def tolist(self) -> int:
        return 7


class Item:
    dtype = "int64"

    def item(self) -> int:
        return 8


class Array:
    """As numpy's arrays are: `tolist` would copy all of it."""

    ndim = 1

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __iter__(self) -> Iterator[Any]:
        return map(Scalar, self.values)

    def tolist(self) -> Any:
        raise AssertionError("all of it was asked for")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (counting(3, []), "[0, 1, 2]"),
        (map(str, [1, 2]), '["1", "2"]'),
        (filter(None, [0, 1]), "[1]"),
        (zip("ab", [1, 2]), '[["a", 1], ["b", 2]]'),
        (iter([1]), "[1]"),
        ((n * n for n in range(3)), "[0, 1, 4]"),
        (range(3), "[0, 1, 2]"),
        ({"a": 1}.keys(), '["a"]'),
        ({"a": 1}.items(), '[["a", 1]]'),
        ({"rows": map(int, "12")}, '{"rows": [1, 2]}'),
        (breaking(), '[1, "(then it raised ValueError: no more rows)"]'),
        (b"\x00" * 10248, "bytes, 10248 of them"),
        (bytearray(b"ab"), "bytes, 2 of them"),
        (memoryview(b"abc"), "bytes, 3 of them"),
        ({"body": b"abc"}, '{"body": "bytes, 3 of them"}'),
        (Scalar(5), "5"),
        (Scalar(2.5), "2.5"),
        (Scalar(True), "true"),
        (Scalar(None), '"scalar(None)"'),
        ({"n": Scalar(5)}, '{"n": 5}'),
        (Array(1, 2.5), "[1, 2.5]"),
        (array.array("i", [1, 2]), "[1, 2]"),
        (Listed(), "7"),
        ([Item()], "[8]"),
    ],
)
def test_t08_what_has_no_json_of_its_own(result, text):
    assert to_text(result) == text


def test_t08_an_endless_generator_is_cut_and_closed():
    ended: List[bool] = []
    text = to_text(counting(10**12, ended), 200)
    assert len(text) <= 200
    assert text.startswith("[0, 1, 2, 3")
    assert "[cut here: the result is longer than 200 characters]" in text
    assert ended == [True]
    assert len(to_text({"n": itertools.count()}, 100)) <= 100
    assert len(to_text(itertools.repeat(""), 100)) <= 100
    assert len(to_text(Array(*range(10_000)), 100)) <= 100


def test_t08_a_file_is_not_read():
    file = io.BytesIO(b"line\n" * 10)
    assert "BytesIO" in to_text(file)
    assert file.read(4) == b"line"


async def coroutine() -> int:
    return 1


async def agenerator() -> AsyncIterator[int]:
    yield 1


class Future:
    def __await__(self) -> Any:
        yield


@pytest.mark.parametrize("make", [coroutine, agenerator, Future], ids=lambda f: f.__name__)
def test_t08_what_is_async_is_an_error_that_says_so(make):
    with warnings.catch_warnings(), pytest.raises(TypeError, match="async"):
        warnings.simplefilter("error")
        refuse_async(make())
    for plain in (1, "a", None, [1], iter([1]), Future):
        refuse_async(plain)


@pytest.mark.parametrize("make", [coroutine, agenerator, Future], ids=lambda f: f.__name__)
def test_t08_what_is_async_within_a_result_is_named(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for result in ({"a": make()}, [make()]):
            assert "async" in to_text(result)
            assert " at 0x" not in to_text(result)


def test_t08_numpy():
    numpy = pytest.importorskip("numpy")
    assert to_text(numpy.int64(5)) == "5"
    assert to_text({"a": numpy.float32(0.5), "b": numpy.bool_(True)}) == '{"a": 0.5, "b": true}'
    assert to_text(numpy.array([[1, 2], [3, 4]])) == "[[1, 2], [3, 4]]"
    assert len(to_text(numpy.zeros(10_000_000), 100)) <= 100


@tool
def words() -> Any:
    """Words."""
    return (word for word in ("a", "b"))


def test_t08_a_tool_may_return_a_generator():
    assert to_text(words.call({})) == '["a", "b"]'


# -- results ---------------------------------------------------------------------------------


class Pair(NamedTuple):
    left: int
    right: str


class Unseen:
    def __repr__(self):
        raise RuntimeError("no")


class Leaves:
    def __repr__(self):
        raise SystemExit(3)


class Seen:
    def __repr__(self):
        return "<seen \ud800>"


class BadModel:
    def model_dump(self, mode):
        raise RuntimeError("no")


class Text(str):
    def __len__(self):
        raise RuntimeError("no")

    def __getitem__(self, key):
        raise RuntimeError("no")


SHARED = [1]
RESULTS = [
    ("plain ü\n", "plain ü\n"),
    ("", ""),
    (Text("sub"), "sub"),
    ("a\ud800b", "a\ufffdb"),
    ("\ud83d\ude00", "\U0001f600"),
    (None, "null"),
    (True, "true"),
    (3, "3"),
    (1.5, "1.5"),
    (float("nan"), '"NaN"'),
    ([float("inf"), -float("inf")], '["Infinity", "-Infinity"]'),
    ({"ü": [1, None, "\ud800"]}, '{"ü": [1, null, "\ufffd"]}'),
    ({1: 2, None: 3, False: 4, Color.RED: 5}, '{"1": 2, "null": 3, "false": 4, "red": 5}'),
    ({datetime.date(2025, 1, 31): 3}, '{"2025-01-31": 3}'),
    ({(1, 2): 3}, '{"(1, 2)": 3}'),
    ((1, 2), "[1, 2]"),
    ({7}, "[7]"),
    (Pair(1, "b"), '{"left": 1, "right": "b"}'),
    (Color.RED, "red"),
    (Level.HIGH, "2"),
    ([Color.RED, Level.LOW], '["red", 1]'),
    (Point(1.0), '{"x": 1.0, "y": 0.5, "color": "red"}'),
    ({"p": [Point(2.0)]}, '{"p": [{"x": 2.0, "y": 0.5, "color": "red"}]}'),
    (datetime.date(2025, 1, 31), '"2025-01-31"'),
    ([decimal.Decimal("1.10"), pathlib.PurePosixPath("/a")], '["1.10", "/a"]'),
    ([SHARED, SHARED], "[[1], [1]]"),
    (b"ab\xff", "bytes, 3 of them"),
    (object, "<class 'object'>"),
    (Point, f"<class '{Point.__module__}.Point'>"),
    (Seen(), "<seen \ufffd>"),
    ([Seen()], '["<seen \ufffd>"]'),
    (Unseen(), "(the result cannot be shown)"),
    (Leaves(), "(the result cannot be shown)"),
    ([Unseen()], '["(the result cannot be shown)"]'),
    (BadModel(), "(the result cannot be shown)"),
    (10**5000, '"an integer of about 5001 digits"'),
]


@pytest.mark.parametrize(("result", "text"), RESULTS, ids=range(len(RESULTS)))
def test_u06_a_result_becomes_text(result, text):
    got = to_text(result)
    assert got == text
    assert type(got) is str
    got.encode("utf-8")


def test_u06_what_contains_itself_is_its_repr():
    cycle: List[Any] = [1]
    cycle.append(cycle)
    assert to_text(cycle) == "[1, [...]]"
    deep: List[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert to_text(deep) == "(the result cannot be shown)"
    while deep:  # taken apart here: freeing it at once is deep as well
        deep = deep[0]


def test_u06_a_text_is_cut_to_the_limit_with_a_mark():
    assert to_text("a" * 100, 100) == "a" * 100
    got = to_text("a" * 101, 100)
    assert got == "a" * 58 + "\n[cut here: the result has 101 characters]"
    assert len(got) == 100
    for limit in (0, 1, 10, -1):
        assert len(to_text("a" * 101, limit)) == max(limit, 0)
        assert len(to_text(list(range(1000)), limit)) == max(limit, 0)


@pytest.mark.parametrize(
    "result",
    [
        list(range(10_000)),
        {str(n): n for n in range(10_000)},
        ["a" * 5000],
        [["a" * 150], "b" * 150],
        ["\x00" * 150],
        Seen,
        [Point(n) for n in range(100)],
    ],
)
def test_u06_everything_is_cut_to_the_limit(result):
    got = to_text(result, 200)
    assert len(got) <= 200
    assert ("[cut here: the result " in got) == (result is not Seen)


def test_u06_json_that_just_fits_is_whole():
    for size in range(1, 120):
        whole = json.dumps(list(range(size)))
        assert to_text(list(range(size)), len(whole)) == whole
        text = to_text(list(range(size)), 60)
        assert text == whole if len(whole) <= 60 else text.endswith("]")
        assert ("cut here" in text) == (len(whole) > 60)


@pytest.mark.parametrize(
    "make",
    [
        lambda: "a" * 100_000_000,
        lambda: ["a" * 100_000_000],
        lambda: {"k": ["a" * 100_000_000]},
        lambda: [1.5] * 5_000_000,
        lambda: {"k": [Point(1.0)] * 1_000_000},
    ],
    ids=["text", "nested", "deeper", "list", "points"],
)
def test_u06_a_huge_result_costs_no_more_than_its_limit(make):
    result = make()
    tracemalloc.start()
    try:
        text = to_text(result)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) <= 20_000
    assert "[cut here: the result " in text
    assert peak < 4_000_000
