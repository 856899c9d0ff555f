"""Parallel, Map, Branch and Repeat: steps that hold others.  Values: perform.py runs them."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.workflow.definition import Step, as_step, check_function

__all__ = ["Branch", "Map", "Parallel", "Repeat"]


class Parallel(Step):
    """Steps side by side, all with the same input; the output is their results by name.

    They run in the runtime's threads, beyond `max_workers` where need be.  The
    output is a dict, in the order in which they are written here.  An agent
    that gets it is told each result under a heading with its name.

        Parallel(facts=researcher, tone=critic)
        Parallel(researcher, critic)                 # by the steps' own names
        Parallel({"facts": researcher, "name": namer})

    Args:
        steps: two or more, or one dict of them, or one list.
        name, timeout, retries: as in `Step`.
        fail_fast: one that fails stops the others and fails this step, at
            once.  False: all come to their end; the result of one that failed
            is `{"error": "StallTimeout", "message": "..."}`, and the step fails
            only if all of them did.
        named_steps: steps by name.

    Attributes:
        branches: the `Step`s by name.

    Raises:
        ConfigError: there is none, or two have one name.
    """

    kind = "Parallel"

    def __init__(
        self,
        *steps: Any,
        name: str = "parallel",
        timeout: Optional[float] = None,
        retries: int = 0,
        fail_fast: bool = True,
        **named_steps: Any,
    ) -> None:
        self._settle(name, timeout, retries)
        self.fail_fast = fail_fast
        self.branches: Dict[str, Step] = {}
        if len(steps) == 1 and isinstance(steps[0], Mapping):
            named_steps = {**steps[0], **named_steps}
            steps = ()
        elif len(steps) == 1 and isinstance(steps[0], (list, tuple)):
            steps = tuple(steps[0])
        for step in map(as_step, steps):
            self._add(step.name, step)
        for key, what in named_steps.items():
            self._add(key, as_step(what))
        if not self.branches:
            raise ConfigError(f"step {name!r}: a Parallel needs steps to run side by side")

    def _add(self, name: str, step: Step) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"step {self.name!r}: a branch's name must be a text, and not empty")
        if name in self.branches:
            raise ConfigError(
                f"step {self.name!r}: two branches are named {name!r}: "
                "give them names, Parallel(one=..., other=...)"
            )
        self.branches[name] = step

    def within(self) -> Tuple[Tuple[str, Step], ...]:
        """As in `Step`."""
        return tuple(self.branches.items())


class Map(Step):
    """A step for each item of a list, some of them side by side; the output is a list.

    The step's input is the list (a tuple will do); each item is the input of one run of
    `step`, and the output has their results in the order of the items.  Of an empty list
    it is empty.  They run in the runtime's threads, as the branches of a `Parallel` do.

        Workflow("digest", [read_all, Map(summarizer, at_most=8), editor])

    Args:
        step: a step, or a list of them.
        at_most: items under way at once, 1 or more; the others wait, in order.
        fail_fast: one that fails stops the others and fails this step, at once.
            False: all come to their end; the result of one that failed is
            `{"error": "StallTimeout", "message": "..."}`, and the step fails only if
            all of them did.
        name, timeout, retries: as in `Step`, of all items together; `Step(agent,
            retries=2)` as `step` tries each item again by itself.

    Raises:
        ConfigError: a setting cannot be used, or the step is none.
    """

    kind = "Map"

    def __init__(
        self,
        step: Any,
        at_most: int = 8,
        *,
        fail_fast: bool = True,
        name: str = "map",
        timeout: Optional[float] = None,
        retries: int = 0,
    ) -> None:
        self._settle(name, timeout, retries)
        self.step = as_step(step)
        self.at_most: int = checks.whole("at_most", at_most, 1, of=f"step {name!r}")
        self.fail_fast = checks.flag("fail_fast", fail_fast, of=f"step {name!r}")

    def within(self) -> Tuple[Tuple[str, Step], ...]:
        """As in `Step`; each item has a place of its own, "1" and on."""
        return (("1", self.step),)


class Branch(Step):
    """One step or another, as a function of the input decides.

    Args:
        predicate: called with the input or, if it takes two arguments, with the
            input and the run's `Context`; if what it returns is true, `then`
            runs.
        then: a step, or a list of them.
        otherwise: a step, or a list of them; None: the input is the output.
        name, timeout, retries: as in `Step`.

    Raises:
        ConfigError: the predicate is no function, or a step is none.
    """

    kind = "Branch"

    def __init__(
        self,
        predicate: Callable[..., Any],
        then: Any,
        otherwise: Any = None,
        *,
        name: str = "branch",
        timeout: Optional[float] = None,
        retries: int = 0,
    ) -> None:
        self._settle(name, timeout, retries)
        check_function(predicate, f"step {name!r}: predicate")
        self.predicate = predicate
        self.then = as_step(then)
        self.otherwise = None if otherwise is None else as_step(otherwise)

    def within(self) -> Tuple[Tuple[str, Step], ...]:
        """As in `Step`."""
        then: List[Tuple[str, Step]] = [("then", self.then)]
        return tuple(then if self.otherwise is None else [*then, ("otherwise", self.otherwise)])


class Repeat(Step):
    """A step again and again: each round's output is the next one's input.

    Args:
        step: a step, or a list of them.
        until: called with a round's output or, if it takes two arguments, with
            the output and the run's `Context`; if what it returns is true, that
            output is the step's.  None: there are `at_most` rounds.
        at_most: rounds, 1 or more.
        fail_at_limit: fail with `LimitExceeded` if `until` was not true after
            `at_most` rounds.  False: the last round's output is the step's, and a
            system_warning says so.
        name, timeout, retries: as in `Step`, of all rounds together.

    Raises:
        ConfigError: a setting cannot be used, or the step is none.
    """

    kind = "Repeat"

    def __init__(
        self,
        step: Any,
        until: Optional[Callable[..., Any]] = None,
        at_most: int = 0,
        *,
        fail_at_limit: bool = False,
        name: str = "repeat",
        timeout: Optional[float] = None,
        retries: int = 0,
    ) -> None:
        self._settle(name, timeout, retries)
        if until is not None:
            check_function(until, f"step {name!r}: until")
        self.step = as_step(step)
        self.until = until
        self.at_most: int = checks.whole("at_most", at_most, 1, of=f"step {name!r}")
        self.fail_at_limit = fail_at_limit

    def within(self) -> Tuple[Tuple[str, Step], ...]:
        """As in `Step`."""
        return (("1", self.step),)
