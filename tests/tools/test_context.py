"""RunContext: a mapping, and what a call hands to a function that asks for it."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from agentstream.cancel import CancelToken
from agentstream.tools import RunContext, tool

# -- call ------------------------------------------------------------------------------------


def test_call_gives_the_function_its_arguments_token_and_context():
    def work(
        x: int,
        cancel: CancelToken,
        context: RunContext,
        maybe: Optional[CancelToken] = None,
        late: Optional[RunContext] = None,
    ) -> Any:
        return x, cancel, context, maybe, late

    made = tool(work)
    token, run = CancelToken(), RunContext("w", "agent", "0", "call_1")
    assert made.call({"x": 1}, token, run) == (1, token, run, token, run)
    assert made.call({"x": 1}, context=run) == (1, run.cancel, run, run.cancel, run)
    x, cancel, context, maybe, late = made.call({"x": 1})
    assert (x, maybe, late) == (1, None, None)
    assert isinstance(cancel, CancelToken)
    assert not cancel.cancelled
    assert (context.workflow_id, context.agent, context.step, context.tool_call_id) == ("",) * 4
    assert dict(context) == {}
    assert made.call({"x": 1}, token)[2].cancel is token


def test_a_context_is_a_mapping_whose_attributes_stay():
    values = {"n": 1}
    context = RunContext("w", "agent", "0", values=values)
    with pytest.raises(AttributeError):
        context.agent = "x"
    with context.lock:
        context["n"] += 1
    other = context.replace(tool_call_id="c")
    other["m"] = 3
    assert (dict(context), values) == ({"n": 2, "m": 3},) * 2
    assert (other.workflow_id, other.agent, other.step, other.tool_call_id) == (
        "w",
        "agent",
        "0",
        "c",
    )
    assert other.cancel is context.cancel
    assert (context.idempotency_key, other.idempotency_key) == ("", "")
    keyed = context.replace(idempotency_key="k")
    assert (keyed.idempotency_key, keyed.replace(agent="b").idempotency_key) == ("k", "k")
    assert keyed.replace(idempotency_key="").idempotency_key == ""
    assert "k" not in repr(RunContext(idempotency_key="k"))[len("<RunContext") :]
    del other["m"]
    assert list(context) == ["n"]
