"""How many random cases are tried: "suite" bounds what every run of the tests takes, "long" is for stress/."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["LONG", "SUITE"]

SUITE = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,  # other processes may have the machine
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SUITE, max_examples=5_000)

settings.register_profile("suite", SUITE)
settings.register_profile("long", LONG)
