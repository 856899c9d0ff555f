"""Checkpoints: how a runtime keeps what its runs need to go on, as a user says it."""

from __future__ import annotations

from typing import Any, Optional, Protocol

from agentstream import checks
from agentstream.errors import ConfigError

__all__ = ["Checkpoints", "Codec", "as_checkpoints", "place_of"]


class Codec(Protocol):
    """Turns what is kept into other bytes, encrypted ones say, and back."""

    def encode(self, data: bytes) -> bytes:
        """What is written to the store."""

    def decode(self, data: bytes) -> bytes:
        """What `encode` was given."""


class Checkpoints:
    """How a runtime keeps checkpoints: `Runtime(checkpoints=Checkpoints(recover=1))`.

    They hold prompts, answers and results; in a SQLite log, in the log's own file, which
    only its owner may read.

    Args:
        codec: encodes what is kept, and decodes it: an object with these two methods,
            from bytes to bytes.
        keep: seconds for which the checkpoints of a run that has ended stay; None: they
            go with its last event.
        recover: how often a run may lose its process and be resumed; one more time, and
            it fails.  0: it fails at once, as without checkpoints; what was suspended can
            be resumed all the same.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        *,
        codec: Optional[Codec] = None,
        keep: Optional[float] = None,
        recover: int = 3,
    ) -> None:
        for name in ("encode", "decode"):
            if codec is not None and not callable(getattr(codec, name, None)):
                reason = "must have the methods encode and decode, from bytes to bytes"
                raise ConfigError.about("Checkpoints.codec", reason)
        self.codec = codec
        self.keep: Optional[float] = checks.seconds("Checkpoints.keep", keep, optional=True)
        self.recover: int = checks.whole("Checkpoints.recover", recover)

    def __repr__(self) -> str:
        return f"Checkpoints(keep={self.keep}, recover={self.recover})"


def as_checkpoints(given: Any) -> Optional[Checkpoints]:
    """How checkpoints are kept; None for not at all.

    Raises:
        ConfigError: it is neither True, False, None nor `Checkpoints`.
    """
    if given is None or given is False:
        return None
    if given is True:
        return Checkpoints()
    if isinstance(given, Checkpoints):
        return given
    reason = f"must be True or Checkpoints(...), not {type(given).__name__}"
    raise ConfigError.about("checkpoints", reason)


def place_of(prefix: str, label: str) -> str:
    """A step's place: its label, behind the place of the workflow within which it is."""
    return prefix + label.replace("%", "%25").replace("|", "%7C").replace("/", "%2F")
