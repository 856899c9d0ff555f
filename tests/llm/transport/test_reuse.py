"""A state machine over one client's connections: each call gets its own answer, whole.

Bounded for the suite; stress/reuse.py does the same by the ten thousand.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.kit.reuse import FRAMINGS, HEADS, SURPLUS, WHEN, Plan, Reuser

PLANS = st.builds(
    Plan,
    framing=st.sampled_from(FRAMINGS),
    surplus=st.sampled_from(list(SURPLUS)),
    when=st.sampled_from(WHEN),
    head=st.sampled_from(HEADS),
    size=st.sampled_from((1, 2, 500)),
).map(Plan.made_fair)
#: Nothing left over: the connection lives on.
CLEAN = st.builds(
    Plan,
    framing=st.sampled_from(("length", "chunked", "small-chunks", "trailers")),
    surplus=st.just("none"),
    when=st.just("with"),
    head=st.sampled_from(HEADS),
    size=st.sampled_from((1, 2, 500)),
)


class Connections(RuleBasedStateMachine):
    """Calls, one after the other, whose answers leave this and that behind."""

    tls = False

    def __init__(self) -> None:
        super().__init__()
        self.reuser = Reuser(tls=self.tls)
        self.reuser.__enter__()

    @rule(plan=PLANS)
    def call(self, plan: Plan) -> None:
        self.reuser.call(plan)
        self.check()

    @rule(plan=PLANS)
    def chat(self, plan: Plan) -> None:
        self.reuser.chat(plan)
        self.check()

    @rule(plan=CLEAN)
    def call_and_leave_nothing(self, plan: Plan) -> None:
        self.reuser.call(plan)
        self.check()

    def check(self) -> None:
        assert not self.reuser.crossed
        assert not self.reuser.lost
        places = self.reuser.client._transport.places
        assert (places.free, places.waiting) == (self.reuser.client.limits.pool_size, 0)

    def teardown(self) -> None:
        self.reuser.__exit__(None, None, None)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_b05_each_call_gets_its_own_answer_whatever_is_left_over(tls):
    machine = type("Machine", (Connections,), {"tls": tls})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=12,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
