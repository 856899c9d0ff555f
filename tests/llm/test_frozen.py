"""Frozen: values that cannot be changed, and say what they are made of."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from agentstream import ChatMessage, ChatRequest, Limits, Retries, Timeouts
from agentstream.llm.frozen import Frozen


@pytest.mark.parametrize("kind", [Timeouts, Retries, Limits, ChatMessage, ChatRequest])
def test_the_signature_tells_the_fields_and_their_defaults(kind):
    signature = inspect.signature(kind)
    assert list(signature.parameters) == list(kind._fields)
    for name, parameter in signature.parameters.items():
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert parameter.default == getattr(kind, name, parameter.empty)
        assert parameter.annotation == kind.__annotations__[name]


def test_what_the_signature_allows_can_be_made():
    assert str(inspect.signature(Timeouts)).startswith("(connect: 'Optional[float]' = 10.0,")
    bound = inspect.signature(Timeouts).bind(1.0, stall=2.0)
    assert Timeouts(*bound.args, **bound.kwargs) == Timeouts(connect=1.0, stall=2.0)
    with pytest.raises(TypeError):
        inspect.signature(ChatRequest).bind()
    with pytest.raises(TypeError):
        ChatRequest()


def test_a_new_kind_has_its_own():
    class Point(Frozen):
        x: int
        y: int = 0

    assert str(inspect.signature(Point)) == "(x: 'int', y: 'int' = 0)"
    assert Point(1).replace(y=2) == Point(1, 2)
    with pytest.raises(AttributeError):
        Point(1).x = 2


def test_help_and_the_import_are_what_they_should_be():
    code = (
        "import sys, agentstream; agentstream.Timeouts();"
        "import pydoc; print(pydoc.render_doc(agentstream.Retries))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "attempts: 'int' = 2" in done.stdout
