"""`--rate-limit 60/m`: what all commands of a user may ask of a server within a time."""

from __future__ import annotations

import contextlib
import os
import re
import urllib.parse
from typing import TYPE_CHECKING, Optional, Tuple

from agentstream.errors import ConfigError

if TYPE_CHECKING:
    from agentstream.llm.rate_limit.limit import RateLimit

__all__ = ["open_rate_limit", "rate_in"]

_PER = {"s": 1.0, "m": 60.0, "h": 3600.0}


def rate_in(text: str) -> Optional[Tuple[int, float]]:
    """Requests and seconds of a text as "60", "60/m", "5/s" or "1000/h"; None if it gives none."""
    found = re.fullmatch(r"([0-9]{1,9})(?:/([smh]))?", text)
    if found is None or not int(found[1]):
        return None
    return int(found[1]), _PER[found[2] or "m"]


def open_rate_limit(
    rate: str, folder: str, provider: str, base_url: Optional[str], stack: contextlib.ExitStack
) -> RateLimit:
    """The limit that all commands share which ask that server; `stack` closes it.

    Args:
        rate: as `rate_in` takes it.
        folder: where it is kept.

    Raises:
        ConfigError: the folder it is kept in cannot be made.
    """
    from agentstream.llm.rate_limit.limit import RateLimit  # noqa: PLC0415 - few need it

    given = rate_in(rate)
    assert given is not None, rate  # it was checked
    try:
        for each in (os.path.dirname(folder), folder):  # the mode is the last folder's alone
            os.makedirs(each, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be made: {error.strerror}") from None
    host = urllib.parse.urlsplit(base_url or "").netloc.rpartition("@")[2]
    name = re.sub(r"[^\w.-]", "_", f"{provider}-{host}" if host else provider)
    requests, per = given
    return stack.enter_context(RateLimit(requests, per=per, path=os.path.join(folder, name)))
