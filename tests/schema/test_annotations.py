"""Annotations as each Python writes them: bars, type statements, required keys."""

from __future__ import annotations

import sys
import typing
from typing import Annotated, Any, Dict, Optional

import pytest

from agentstream.errors import ConfigError
from tests.kit.tool_support import INTEGER, NULL, TEXT, made


@pytest.mark.skipif(sys.version_info < (3, 10), reason="X | Y begins with 3.10")
def test_a_bar_is_a_union():
    assert made("int | str | None").parameters["properties"]["x"] == {
        "anyOf": [INTEGER, TEXT, NULL]
    }
    assert made(eval("int | None")).parameters == made(Optional[int]).parameters


@pytest.mark.skipif(sys.version_info >= (3, 10), reason="X | Y is understood there")
def test_a_bar_is_refused_with_a_way_out_on_3_9():
    with pytest.raises(ConfigError, match=r"'probe', parameter 'x'.*Optional\[X\]"):
        made("int | str")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements begin with 3.12")
def test_a_type_statement_is_what_it_stands_for_and_may_not_recur():
    names: Dict[str, Any] = {}
    exec("type Whole = int\ntype Json = list[Json]", names)
    assert made(names["Whole"]).parameters["properties"]["x"] == INTEGER
    with pytest.raises(ConfigError, match="refers to itself"):
        made(names["Json"])


def test_required_and_notrequired_win_over_total():
    extensions = pytest.importorskip("typing_extensions")
    for source in (extensions, typing):
        if not hasattr(source, "NotRequired"):
            continue
        hints = {"a": int, "b": source.NotRequired[int], "c": source.Required[Annotated[int, "c"]]}
        closed = source.TypedDict("closed", hints)
        assert made(closed).parameters["properties"]["x"]["required"] == ["a", "c"]
        opened = source.TypedDict("opened", hints, total=False)
        schema = made(opened).parameters["properties"]["x"]
        assert schema["required"] == ["c"]
        assert schema["properties"]["c"] == {"type": "integer", "description": "c"}
