"""A function's signature: what a model may give it, and what it is given by the program."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Optional

import pytest

from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError
from agentstream.tools import RunContext, Tool, tool
from tests.kit.tool_support import INTEGER


def refused_forward(city: Unknown) -> None: ...  # noqa: F821


class Weather:
    def lookup(self, city: str, days: int = 1) -> str:
        """Weather of a city."""
        return f"{city}:{days}"


class Callable_:
    """Not this text."""

    def __call__(self, city: str) -> str:
        """Looks a city up."""
        return city


def test_async_and_generator_functions_are_refused():
    async def later(x: int) -> int:
        return x

    def many(x: int):
        yield x

    class Later:
        async def __call__(self, x: int) -> int:
            return x

    async def rows(x: int):
        yield x

    for function in (later, functools.partial(later, 1), Later(), rows):
        with pytest.raises(ConfigError, match="async functions"):
            tool(function, name="later")
        with pytest.raises(ConfigError, match="async functions"):
            Tool("later", "", {}, function)
    with pytest.raises(ConfigError, match="generator"):
        tool(many)


def test_a_plain_wrapper_of_an_async_function_is_a_plain_function():
    async def later(x: int) -> int:
        """Later."""
        return x

    @functools.wraps(later)
    def now(*args, **kwargs):
        try:
            later(*args, **kwargs).send(None)
        except StopIteration as stop:
            return stop.value

    made = tool(now)
    assert made.parameters["properties"] == {"x": INTEGER}
    assert made.call(made.bind('{"x": 3}')) == 3


def test_bound_methods_and_callable_objects_work():
    method = tool(Weather().lookup)
    assert (method.name, method.description) == ("lookup", "Weather of a city.")
    assert list(method.parameters["properties"]) == ["city", "days"]
    assert method("Rome") == "Rome:1"
    called = tool(Callable_(), name="find")
    assert called.description == "Looks a city up."
    assert called.call(called.bind('{"city": "Rome"}')) == "Rome"


def test_a_partials_bound_arguments_are_the_programs():
    def ask(question: str, key: str) -> str:
        """Asks."""
        return question + key

    made = tool(functools.partial(ask, key="sesame"), name="ask")
    assert made.description == "Asks."
    assert list(made.parameters["properties"]) == ["question"]
    assert "sesame" not in json.dumps(made.to_openai())
    assert made.call(made.bind('{"question": "open "}')) == "open sesame"


def test_a_cached_function_is_read_through_its_cache():
    @functools.cache
    def twice(n: int) -> int:
        """Doubles."""
        return 2 * n

    made = tool(twice)
    assert (made.description, made.parameters["properties"]) == ("Doubles.", {"n": INTEGER})
    assert made.call(made.bind('{"n": 4}')) == 8


def test_tokens_and_contexts_are_not_in_the_schema():
    def work(
        x: int,
        cancel: CancelToken,
        maybe: Optional[CancelToken] = None,
        context: Annotated[RunContext, "ours"] = None,
        late: Optional[RunContext] = None,
    ) -> None: ...

    assert list(tool(work).parameters["properties"]) == ["x"]


def test_a_function_that_hides_its_signature_may_be_brought_with_a_schema():
    made = Tool("find_max", "", {}, max)
    assert made.parameters == {"type": "object", "properties": {}}
    assert made(1, 2) == 2


def test_annotations_that_cannot_be_resolved_do_not_hinder_a_brought_schema():
    schema = {"properties": {"city": {}}, "required": ["city"]}
    assert Tool("t", "", schema, refused_forward).bind('{"city": 1}') == {"city": 1}


def test_a_brought_schema_may_not_describe_what_is_ours_to_give():
    def work(cancel: CancelToken) -> None: ...

    with pytest.raises(ConfigError, match=r"parameter 'cancel'.*ours"):
        Tool("t", "", {"properties": {"cancel": {}}}, work)
    Tool("t", "", {}, work)
