"""Workflow and Step: what there is to do, checked when it is written down.

Values: the shapes that hold other steps are shapes.py's, what is done for each
kind of step perform.py's.
"""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence, Tuple, Union

from agentstream import checks
from agentstream.agent.agent import Agent
from agentstream.agent.budget import Budget
from agentstream.agent.settings import ON_CUT
from agentstream.errors import ConfigError

__all__ = ["Step", "Workflow", "as_step", "as_steps", "check_function", "takes_two"]

_ASYNC = 0x80 | 0x200  # inspect's CO_COROUTINE and CO_ASYNC_GENERATOR, without its import


class Step:
    """An agent, a function or a workflow as a step, with a name, a timeout and retries.

    In a list of steps the agent, function or workflow may stand for itself;
    this is for those that are to have one of the settings.

    Args:
        what: an `Agent`; a function, called with the step's input or, if it
            takes two arguments, with the input and the run's `Context`; a
            `Workflow`, which is a run of its own within the run; or a list of
            steps, one after the other.
        name: what events and results call it; default that of `what`.
        timeout: seconds one attempt may take, after which it is stopped; a
            function that does not end is left behind; what it returns after
            that is dropped.
        retries: further attempts after a failure that may pass: an error
            that says so (`retryable`), a timeout, anything a function raises.
            An agent's client has its own, for requests.
        prompt: what an agent is asked, with "{input}" for the step's input,
            "{input.NAME}" for one of the results of a `Parallel`, and
            "{context.KEY}"; other braces stay as they are.
        on_cut: as `Agent` has it, in place of the agent's own.

    Attributes:
        kind: "Agent", "Function", "Workflow" or "Sequence".

    Raises:
        ConfigError: `what` is no step, or a setting cannot be used.
    """

    kind = ""
    on_cut: Optional[str] = None

    def __init__(
        self,
        what: Union[Agent, Workflow, Callable[..., Any], Sequence[Any]],
        *,
        name: Optional[str] = None,
        timeout: Optional[float] = None,
        retries: int = 0,
        prompt: Optional[str] = None,
        on_cut: Optional[str] = None,
    ) -> None:
        if isinstance(what, Step):
            raise ConfigError(f"{what!r} takes name, timeout and retries itself")
        self.what: Any = what
        self.prompt = prompt
        if isinstance(what, Agent):
            self.kind, default = "Agent", what.name
        elif isinstance(what, Workflow):
            self.kind, default = "Workflow", what.name
        elif isinstance(what, (list, tuple)):
            self.kind, default = "Sequence", "sequence"
            self.steps = as_steps(what, "a list of steps")
        elif callable(what):
            check_function(what, f"step {name or getattr(what, '__name__', 'function')!r}")
            self.kind = "Function"
            default = getattr(what, "__name__", type(what).__name__)
        else:
            raise ConfigError(
                "a step must be an Agent, a function, a Workflow, a shape, or a list of steps, "
                f"not {type(what).__name__}"
            )
        if prompt is not None and (self.kind != "Agent" or not isinstance(prompt, str)):
            raise ConfigError(f"step {name or default!r}: a prompt is a text, and for an agent")
        if on_cut is not None:
            of = f"step {name or default!r}"
            if self.kind != "Agent":
                raise ConfigError(f"{of}: on_cut is for an agent")
            self.on_cut = checks.one_of("on_cut", on_cut, ON_CUT, of=of)
        self._settle(default if name is None else name, timeout, retries)

    def _settle(self, name: str, timeout: Optional[float], retries: int) -> None:
        self.name = checks.text("name", name, of="a step")
        of = f"step {name!r}"
        self.timeout: Optional[float] = checks.seconds("timeout", timeout, optional=True, of=of)
        self.retries: int = checks.whole("retries", retries, of=of)

    def __repr__(self) -> str:
        return f"<{self.kind} step {self.name!r}>"

    def within(self) -> Tuple[Tuple[str, Step], ...]:
        """The steps within this one, each with the last part of its place."""
        if self.kind == "Sequence":
            return tuple((str(number), step) for number, step in enumerate(self.steps))
        return ()


class Workflow:
    """Steps one after the other: each one's output is the next one's input.

    Args:
        name: what the run's events call it.
        steps: agents, functions, workflows, the shapes `Parallel`, `Map`, `Branch`
            and `Repeat`, `Wait`s, `Step`s, and lists of them; at least one.
        budget: what each of its runs may spend; None for no bound.

    Attributes:
        steps: a tuple of `Step`s.

    Raises:
        ConfigError: there is no step, or one is none.
    """

    def __init__(
        self, name: str, steps: Sequence[Any] = (), *, budget: Optional[Budget] = None
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError('a workflow needs a name, a str: Workflow("demo", [first, second])')
        self.name = name
        self.steps = as_steps(steps, f"workflow {name!r}")
        of = f"workflow {name!r}"
        self.budget = checks.instance("budget", budget, Budget, optional=True, of=of)

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r}: {' -> '.join(step.name for step in self.steps)}>"

    def to_mermaid(self) -> str:
        """The workflow as a flowchart, in the text that Mermaid draws (mermaid.js.org)."""
        from agentstream.workflow.mermaid import draw  # noqa: PLC0415 - few ask for it

        return draw(self.steps)


def as_step(what: Any) -> Step:
    """What stands for a step, as a `Step`.

    Raises:
        ConfigError: it is none.
    """
    return what if isinstance(what, Step) else Step(what)


def as_steps(steps: Any, where: str) -> Tuple[Step, ...]:
    """A list of what stands for steps, as `Step`s.

    Raises:
        ConfigError: with `where`; it is no list, or empty, or one of them is no step.
    """
    if not isinstance(steps, (list, tuple)) or not steps:
        given = "an empty one" if isinstance(steps, (list, tuple)) else type(steps).__name__
        raise ConfigError(f"{where}: steps must be a list of at least one, not {given}")
    found = []
    for number, step in enumerate(steps, 1):
        try:
            found.append(as_step(step))
        except ConfigError as error:
            raise ConfigError(f"{where}: step {number}: {error}") from None
    return tuple(found)


def check_function(function: Any, where: str) -> None:
    """Refuse what cannot be called, or only by an event loop.

    Raises:
        ConfigError: with `where`.
    """
    if not callable(function):
        raise ConfigError(f"{where} must be a function, not {type(function).__name__}")
    code = getattr(function, "__code__", None)
    if getattr(code, "co_flags", 0) & _ASYNC:
        raise ConfigError(f"{where} is an async function: give it a plain one")


def takes_two(function: Callable[..., Any]) -> bool:
    """True if it takes the context too: a second argument that must be given, or is so named."""
    import inspect  # noqa: PLC0415 - ten milliseconds that only who uses functions pays

    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins do not say
        return False
    by_position = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if len(parameters) < 2 or parameters[1].kind not in by_position:
        return False
    second = parameters[1]
    return second.default is inspect.Parameter.empty or second.name == "context"
