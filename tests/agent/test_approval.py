"""Approval: its answers, its order, and the time it may take."""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from typing import Any, List

import pytest

from agentstream import (
    Agent,
    Approval,
    Cancelled,
    CancelToken,
    ConfigError,
    EventType,
    ToolCall,
    ToolLimits,
    tool,
)
from agentstream.agent.approval import as_approval
from agentstream.agent.tool_calls import lost_threads
from agentstream.testing import ScriptedClient
from tests.kit.support import Task, wait_until
from tests.kit.tool_loop import BOUND, Watched, call, counting


def test_an_answer_that_comes_later_allows_nothing_yet():
    plain, timed = Approval.later(), Approval.later(expires=60)
    assert (plain.allowed, plain.is_later, plain.expires, timed.expires) == (False, True, None, 60)
    assert repr(plain) == repr(timed) == "<Approval later>"
    assert as_approval(timed) is timed
    for other in (Approval.yes(), Approval.no("x"), Approval.change({}), as_approval(True)):
        assert (other.is_later, other.expires) == (False, None)
    for wrong in (0, -1, "60", float("nan"), True):
        with pytest.raises(ConfigError, match="expires must be"):
            Approval.later(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (True, "3"),
        (Approval.yes(), "3"),
        (False, "Error: the call was not allowed"),
        (Approval.no(), "Error: the call was not allowed"),
        ("too dear", "Error: the call was not allowed: too dear"),
        (Approval.no("too dear"), "Error: the call was not allowed: too dear"),
        ({"a": 10, "b": 20}, "30"),
        (Approval.change({"a": 10, "b": 20}), "30"),
        ({"a": 10}, 'argument "b"'),
        ({"a": object()}, "not JSON"),
        (None, "Error: the call was not approved: asking raised TypeError"),
        (RuntimeError("secret"), "Error: the call was not approved: asking raised RuntimeError"),
        (SystemExit(1), "Error: the call was not approved: asking raised SystemExit"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_approve_answers(answer, told):
    asked: List[ToolCall] = []
    ran: List[Any] = []

    @tool(name="add")
    def spy(a: int, b: int) -> int:
        """Add."""
        ran.append((a, b))
        return a + b

    def approve(asking: ToolCall) -> object:
        asked.append(asking)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    watched = Watched([call("add", a=1, b=2)], "done", tools=[spy], approve=approve)
    assert watched.run().response == "done"
    assert asked == [call("add", a=1, b=2)]
    (text,) = watched.told()
    assert told in text
    assert "secret" not in text
    assert bool(ran) == (not text.startswith("Error"))
    if ran and ran != [(1, 2)]:
        (event,) = watched.of(EventType.TOOL_CALL_COMPLETED)
        assert json.loads(event.data["arguments"]) == {"a": 10, "b": 20}


def test_approve_is_asked_in_order_one_at_a_time_and_not_for_bad_calls():
    asked: List[Any] = []
    asking = threading.Lock()
    first_ran = threading.Event()

    @tool
    def work(n: int) -> int:
        """Work."""
        first_ran.set()
        return n

    def approve(call: ToolCall) -> bool:
        assert asking.acquire(blocking=False)
        asked.append(json.loads(call.arguments)["n"])
        if len(asked) == 2:
            assert first_ran.wait(BOUND), "an approved call waits for the others' approval"
        asking.release()
        return True

    calls = [call("work", n, n=n) for n in range(4)] + [call("work", 9, n="x")]
    watched = Watched(calls, "done", tools=[work], approve=approve)
    watched.run()
    assert asked == [0, 1, 2, 3]
    assert watched.told()[:4] == ["0", "1", "2", "3"]


def test_approve_may_take_its_time_and_no_cancel_waits_for_it():
    entered, release = threading.Event(), threading.Event()
    ran: List[Any] = []

    def approve(call: ToolCall) -> bool:
        entered.set()
        release.wait(BOUND)
        return True

    agent = Agent(
        "worker",
        client=ScriptedClient([call("look", x=1)], "never"),
        tools=[counting("look", ran)],
        approve=approve,
        tool_limits=ToolLimits(timeout=0.05),
    )
    token = CancelToken()
    task = Task(functools.partial(agent.execute, "go", cancel=token))
    try:
        assert entered.wait(BOUND)
        task._thread.join(0.2)  # four times what a tool may take
        assert task._thread.is_alive()
        began = time.monotonic()
        token.cancel()
        assert isinstance(task.error(), Cancelled)
        assert task.ended - began < 1.0
    finally:
        release.set()
    wait_until(lambda: lost_threads() == 0)
    assert ran == []
