"""What a tool returned, as the model reads it: iterators, bytes, numpy's values, async ones."""

from __future__ import annotations

import array
import io
import itertools
import warnings
from typing import Any, AsyncIterator, Iterator, List

import pytest

from agentstream.tools import to_text, tool
from agentstream.tools.results import refuse_async


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
