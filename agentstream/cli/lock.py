"""--lock NAME: a second start is kept out."""

from __future__ import annotations

import contextlib
from typing import Iterator, Optional

from agentstream.errors import Busy, ConfigError

__all__ = ["hold"]


@contextlib.contextmanager
def hold(name: Optional[str]) -> Iterator[None]:
    """Hold the user's lock of that name; None for no lock.

    Raises:
        Busy: another process holds it.
        ConfigError: the name, or the folder of the locks, cannot be used.
    """
    if name is None:
        yield
        return
    from agentstream.runtime.lock import NamedLock  # noqa: PLC0415 - a plain chat needs no runtime

    try:
        lock = NamedLock(name)
    except (Busy, ConfigError) as error:  # "lock NAME ...": as the flag
        raise type(error)(f"--{error}") from None
    with lock:
        yield
