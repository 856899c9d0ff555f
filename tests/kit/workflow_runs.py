"""Workflows that are run once: two steps, what comes out, what fails."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from agentstream import Agent, CancelToken, Runtime, Workflow
from agentstream.errors import WorkflowFailed
from agentstream.llm.messages import Delta
from agentstream.results import Usage
from tests.kit.support import FunctionClient, words_of


def run_one(runtime: Runtime, step: Any, input: Any = "x", **options: Any) -> Any:
    return runtime.run(Workflow("w", [step]), input, **options)


def failure_of(runtime: Runtime, step: Any, input: Any = "x", **options: Any) -> WorkflowFailed:
    with pytest.raises(WorkflowFailed) as caught:
        run_one(runtime, step, input, **options)
    return caught.value


def upper(request: Any, cancel: CancelToken) -> Iterator[Any]:
    yield words_of(request).upper()
    yield Delta(usage=Usage(1, 2, 3))


def louder(request: Any, cancel: CancelToken) -> Iterator[Any]:
    yield words_of(request) + "!"
    yield Delta(usage=Usage(10, 20, 30))


def two_steps() -> Workflow:
    first = Agent("upper", client=FunctionClient(upper))
    return Workflow("shout", [first, Agent("loud", client=FunctionClient(louder))])
