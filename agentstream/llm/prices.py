"""Prices: what a model's tokens cost, by their user's own list.  Pure.

There is no list of ours: it would be wrong the day after.
"""

from __future__ import annotations

from typing import Dict, Mapping, NamedTuple, Optional, Sequence

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.results import Usage

__all__ = ["Prices"]

_PER = 1e6


class _Price(NamedTuple):
    """Of a million tokens each: of the prompt, of what of it was cached, of the answer, and of
    what of the prompt was written to the cache."""

    input: float
    cached: float
    output: float
    cache_write: float


class Prices:
    """What the tokens of models cost: `client(prices=Prices({"gpt-6-luna": (0.5, 0.05, 2)}))`.

    An answer's `usage.cost`, and a run's, are then known.  A server that says itself what an
    answer cost is believed.  The unit is that of the prices.

    Args:
        models: for each model, by the name that requests ask for: the price of a million
            tokens of input, of cached input and of output; and of input that is written to
            the cache, where it is not that of other input.

    Raises:
        ConfigError: `models` is no dict, or a price is none of 0 or more.
    """

    def __init__(self, models: Mapping[str, Sequence[float]]) -> None:
        if not isinstance(models, Mapping):
            raise ConfigError.about("prices", f"must be a dict, not {type(models).__name__}")
        self._models: Dict[str, _Price] = {
            checks.text("prices", name): _price(name, given) for name, given in models.items()
        }

    def __repr__(self) -> str:
        return f"Prices({', '.join(self._models)})"

    def cost(self, model: str, usage: Usage) -> Optional[float]:
        """What an answer of `model` cost; None where its price or its tokens are not known."""
        price = self._models.get(model)
        if price is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
        plain = max(0, usage.prompt_tokens - cached - written)
        whole = plain * price.input + cached * price.cached + written * price.cache_write
        return (whole + usage.completion_tokens * price.output) / _PER

    def priced(self, model: str, usage: Usage) -> Usage:
        """The usage with its cost, if it has none of its own."""
        if usage.cost is not None:
            return usage
        return usage._replace(cost=self.cost(model, usage))


def _price(name: str, given: Sequence[float]) -> _Price:
    where = f"the price of {name!r}"
    if not isinstance(given, (list, tuple)) or len(given) not in (3, 4):
        reason = "must be (input, cached, output), each for a million tokens"
        raise ConfigError(f"{where} {reason}", setting="prices", reason=reason)
    numbers = [checks.number(where, number, 0) for number in given]
    return _Price(numbers[0], numbers[1], numbers[2], numbers[-1] if numbers[3:] else numbers[0])
