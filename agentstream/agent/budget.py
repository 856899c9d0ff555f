"""Budget: what a run, or an agent's run, may spend; Spending: what it has spent so far.

A request is charged before it is made, as it is estimated, and corrected by what its server
counted: of branches that run beside each other none spends what another one has taken.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from agentstream import checks
from agentstream.errors import ConfigError, ConnectError, LimitExceeded, StatusError
from agentstream.llm.client import ChatClient
from agentstream.llm.frozen import Frozen
from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.results import ChatResponse, Usage

if TYPE_CHECKING:
    from agentstream.agent.checkpoints import Keeper

__all__ = ["Budget", "Charge", "Spending", "bearing"]


class Budget(Frozen):
    """What may be spent: `runtime.run(workflow, input, budget=Budget(tokens=50_000, cost=0.20))`.

    A request that would pass it is not made: `LimitExceeded` is raised in its place, with
    `spent`.  What a request takes is estimated: its prompt (about a quarter of its characters;
    1000 tokens for a picture or a file), and as many tokens as its `max_tokens` allows the
    answer.  Without `max_tokens` the length of an answer is not known before: each answer under
    way may pass the budget by its own length, and no request follows it.

    All requests of agents count: of all steps, branches and retries, of workflows within, and
    of agents that are tools.  What functions and tools ask a client themselves does not.

    Attributes:
        tokens: of prompts and answers together, cached ones too; None for no bound.
        cost: in the unit of the clients' `Prices`, which must have a price for each model
            that is asked; None for no bound.

    Raises:
        ConfigError: a bound is out of range, or there is none.
    """

    tokens: Optional[int] = None
    cost: Optional[float] = None

    def __post_init__(self) -> None:
        checks.whole("tokens", self.tokens, 1, optional=True, of="a budget")
        checks.number("cost", self.cost, 0, optional=True, of="a budget")
        if self.tokens is None and self.cost is None:
            raise ConfigError("a budget needs a bound: Budget(tokens=50_000) or Budget(cost=0.20)")

    def to_dict(self) -> Dict[str, Any]:
        """The bounds that it has, for events and checkpoints."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def with_bounds(self, other: Optional[Budget]) -> Budget:
        """The tighter one of each bound of both."""
        bounds = self.to_dict()
        for name, value in ({} if other is None else other.to_dict()).items():
            bounds[name] = min(bounds.get(name, value), value)
        return Budget(**bounds)


#: A sum of money may be above the bound by what adding floats does to it.
_ROUNDED = 1 + 1e-9
#: What ends a request that costs nothing; whatever else does, its prompt may have been read.
_REFUSALS = (StatusError, ConnectError, ConfigError)


class Charge:
    """A request's, on each budget that holds for it.

    Args:
        estimate: what the request may take.
        spendings: who bears it.
    """

    def __init__(self, estimate: Usage, client: ChatClient, spendings: List[Spending]) -> None:
        self._estimate = estimate
        self._client = client
        self._spendings = spendings

    def end(self, response: ChatResponse, error: Optional[BaseException] = None) -> None:
        """Correct it by what the request came to; `error` ended it."""
        used = self._used(response, error)
        with contextlib.ExitStack() as stack:  # each, though one cannot keep it
            for spending in self._spendings:
                stack.callback(spending.correct, self._estimate, used)

    def give_back(self) -> None:
        """End it: nothing was sent."""
        for spending in self._spendings:
            spending.correct(self._estimate, Usage())

    def _used(self, response: ChatResponse, error: Optional[BaseException]) -> Usage:
        usage = response.usage
        if isinstance(error, _REFUSALS) and response.first_token_s is None:
            return Usage()
        prompt, total = usage.prompt_tokens, usage.total_tokens
        if prompt is None:
            prompt, total = self._estimate.prompt_tokens or 0, None
        if total is None:
            total = prompt + (usage.completion_tokens or 0)
        usage = usage._replace(prompt_tokens=prompt, total_tokens=total)
        if usage.cost is None:
            usage = usage._replace(cost=self._client.cost_of(usage))
        return usage


class Spending:
    """What has been spent of a budget.  Any number of threads may use one.

    Args:
        budget: the budget.
        whose: whose it is, for messages: "run 'r1'".
        outer: what is spent counts there too; None for nobody.
        spent: by an earlier process.
        keep: called with what has been spent each time that has changed.
    """

    def __init__(
        self,
        budget: Budget,
        whose: str,
        outer: Optional[Spending] = None,
        *,
        spent: Optional[Usage] = None,
        keep: Optional[Callable[[Usage], object]] = None,
    ) -> None:
        self.budget = budget
        self.outer = outer
        self._whose = whose
        self._keep = keep
        self._lock = threading.Lock()
        self._spent = Usage() if spent is None else spent
        self._under_way = 0  # requests; they are charged:
        self._charged_tokens = 0
        self._charged_cost = 0.0

    @property
    def spent(self) -> Usage:
        """By requests that have ended."""
        return self._spent

    def charge(self, request: ChatRequest, client: ChatClient) -> Charge:
        """Charge a request that is about to be made.

        Raises:
            LimitExceeded: it would pass a budget.
            ConfigError: a budget is in money, and the client has no price for the model.
        """
        estimate = _estimate(request, client)
        charged: List[Spending] = []
        one: Optional[Spending] = self
        try:
            while one is not None:
                one._take(estimate, client)
                charged.append(one)
                one = one.outer
        except BaseException:
            for other in charged:
                other.correct(estimate, Usage())
            raise
        return Charge(estimate, client, charged)

    def _take(self, estimate: Usage, client: ChatClient) -> None:
        cost = estimate.cost
        if self.budget.cost is not None and cost is None:
            raise ConfigError(
                f"{self._whose} has a budget in money, and {client!r} no price of its model:"
                " client(prices=Prices({model: (input, cached, output)}))",
                setting="prices",
            )
        tokens = estimate.total_tokens or 0
        with self._lock:
            spent = self._spent
            in_tokens = spent.total_tokens or 0, self._charged_tokens, tokens
            in_money = spent.cost or 0.0, self._charged_cost, cost or 0.0
            self._check("tokens", self.budget.tokens, in_tokens)
            self._check("cost", self.budget.cost, in_money)
            self._under_way += 1
            self._charged_tokens += tokens
            self._charged_cost += cost or 0.0

    def _check(self, name: str, most: Optional[float], counts: Tuple[float, float, float]) -> None:
        """Raise if what is spent, what is charged and what is needed are more than the bound."""
        if most is None or sum(counts) <= most * _ROUNDED:
            return
        spent, charged, needed = counts
        under_way = f", requests under way may take {_shown(charged)}" if charged else ""
        unit = "tokens" if name == "tokens" else "in money"
        raise LimitExceeded(
            f"{self._whose} has spent {_shown(spent)} of {_shown(most)} {unit}{under_way}, and the"
            f" next request may take {_shown(needed)} (Budget.{name})",
            limit=f"budget_{name}",
            spent=self._spent,
            most=most,
            needed=needed,
        )

    def correct(self, estimate: Usage, used: Usage) -> None:
        """Put what a request has used in the place of what it was charged."""
        with self._lock:
            self._under_way -= 1
            self._charged_tokens -= estimate.total_tokens or 0
            self._charged_cost -= estimate.cost or 0.0
            if not self._under_way:
                self._charged_cost = 0.0  # what floats have left of it is nobody's
            if used == Usage():
                return
            self._spent += used
            if self._keep is not None:  # here: an older sum must not come behind a newer one
                self._keep(self._spent)


def bearing(
    budget: Optional[Budget],
    whose: str,
    outer: Optional[Spending],
    kept: Optional[Tuple[Keeper, str]] = None,
) -> Optional[Spending]:
    """What requests count on where a budget is added to those of `outer`, if there is one.

    Args:
        whose: whose budget it is.
        kept: what keeps the sum for another process, and under which key; None: nothing does.
    """
    if budget is None:
        return outer
    if kept is None:
        return Spending(budget, whose, outer)
    keeper, key = kept
    return Spending(
        budget, whose, outer, spent=keeper.get(key), keep=lambda usage: keeper.put({key: usage})
    )


def _shown(count: float) -> str:
    """Tokens or money, without an exponent: 12,000 or 0.000012."""
    return f"{count:,.8f}".rstrip("0").rstrip(".")


def _estimate(request: ChatRequest, client: ChatClient) -> Usage:
    """What a request may take: its prompt, and the most that its answer may."""
    from agentstream.agent.conversation import estimate_tokens  # noqa: PLC0415 - who has a budget

    prompt = 0
    for message in request.messages:
        ours = isinstance(message, ChatMessage)
        known = message if ours else ChatMessage("user", json.dumps(message, default=repr))
        prompt += estimate_tokens(known)  # type: ignore[arg-type]
    if request.tools:
        prompt += len(json.dumps(list(request.tools), ensure_ascii=False, default=repr)) // 4
    answer = request.max_tokens or 0
    usage = Usage(prompt, answer, prompt + answer, estimated=True)
    return usage._replace(cost=client.cost_of(usage, request.model))
