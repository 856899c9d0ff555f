"""Wait: a step whose output comes from outside the run.  A value: the run's scope waits."""

from __future__ import annotations

from typing import Any, Optional

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.workflow.definition import Step

__all__ = ["MISSING", "Wait"]


class _Missing:
    """What stands for a value that was not given; None may be one."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()


class Wait(Step):
    """A step that waits for a value from outside; the value is its output.

    `runtime.signal(workflow_id, name, value)` gives it, from any process.  The run is
    suspended meanwhile, which takes a runtime with checkpoints: no thread waits.

        Workflow("order", [draft, Wait("approval", timeout=86_400, otherwise="no"), act])

    Args:
        name: the name of the value, and of the step.
        timeout: seconds it may take; None for as long as it takes.
        otherwise: the output after that time.  Without one the step fails with
            `DeadlineExceeded`.

    Attributes:
        wait_s: the `timeout`.  As a step it has none: a suspended run keeps no clock.
        otherwise: as given; `MISSING` for none.

    Raises:
        ConfigError: a setting cannot be used; `otherwise` has no `timeout`.
    """

    kind = "Wait"

    def __init__(
        self, name: str, *, timeout: Optional[float] = None, otherwise: Any = MISSING
    ) -> None:
        self._settle(name, None, 0)
        of = f"step {self.name!r}"
        self.wait_s: Optional[float] = checks.seconds("timeout", timeout, optional=True, of=of)
        if otherwise is not MISSING and timeout is None:
            reason = "is the output after a timeout, and needs one: Wait(name, timeout=3600, ...)"
            raise ConfigError.about("otherwise", reason, of)
        self.otherwise = otherwise
