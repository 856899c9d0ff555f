"""The names of the models that a server offers: a dialect of one GET.  Pure.

A call reads it as it reads any answer, so that clocks, retries, limits and cancel hold; it
has no words, only `names`.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from agentstream.errors import ProtocolError
from agentstream.llm import failures
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chunk import parse_chunk, text_of
from agentstream.llm.dialect import Decoder
from agentstream.llm.messages import Delta
from agentstream.llm.secrets import Redactor
from agentstream.llm.server_dialect import ServerDialect

__all__ = ["ModelListDialect"]

#: Pages that are asked for.
_MOST_PAGES = 100


class _NoStream:
    """The decoder of a body that is no stream of events."""

    invalid_utf8 = False
    any_line_is_life = False

    def fits(self, first: bytes, content_type: str) -> bool:
        return False

    def decode_data(self, lines: Iterable[bytes]) -> Iterator[Tuple[str, str]]:
        return iter(())

    def tail(self) -> str:
        return ""


class ModelListDialect(ServerDialect):
    """A server's list of its models.

    Args:
        page: the URL of the list, or of the part of it behind a model's name.
        redact: takes secrets out of what errors carry.

    Attributes:
        names: what has been read, in the server's order, each once.
    """

    expected = "a list of models"
    names_models = False
    model = ""

    def __init__(self, page: Callable[[Optional[str]], str], redact: Redactor) -> None:
        super().__init__(redact)
        self._page = page
        self._pages = 0
        self._more = False
        self.url = page(None)
        self.names: List[str] = []

    def body(self) -> None:
        """See `Dialect.body`: it is a GET."""

    def decoder(self, max_event: Optional[int]) -> Decoder:
        """See `Dialect.decoder`."""
        return _NoStream()

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`."""
        super().begin(answer)
        self._more = False

    def read(self, event: str, data: str) -> None:
        """See `Dialect.read`: there are no events."""

    def read_whole(self, text: str) -> Optional[Delta]:
        """See `Dialect.read_whole`.  What is no list is no answer."""
        try:
            body = parse_chunk(text)
        except ProtocolError:
            return None
        found = _list_in(body)
        if found is None:
            if isinstance(body, dict) and failures.is_error(body, begun=False):
                self._fail(body, "message", text)
            return None
        new = [name for name in map(_name_of, found) if name and name not in self.names]
        self.names += dict.fromkeys(new)
        self._pages += 1
        last = text_of(body.get("last_id")) if isinstance(body, dict) and new else ""
        if last and body.get("has_more") is True and self._pages < _MOST_PAGES:
            self.url, self._more = self._page(last), True
        return Delta()

    @property
    def goes_on(self) -> bool:
        """See `Dialect.goes_on`: there is a further page."""
        return self._more

    @property
    def cut(self) -> bool:
        """See `Dialect.cut`: without words it is no empty answer."""
        return True

    def warnings(self) -> List[str]:
        """See `Dialect.warnings`."""
        return []

    response_id = native_finish = ""


def _list_in(body: Any) -> Optional[List[Any]]:
    """The entries, as OpenAI and Anthropic ("data"), Ollama ("models") or Together have them."""
    if isinstance(body, dict):
        body = next(
            (body[key] for key in ("data", "models") if isinstance(body.get(key), list)), None
        )
    return body if isinstance(body, list) else None


def _name_of(entry: Any) -> str:
    """The name under which a model is asked for."""
    fields: Dict[str, Any] = entry if isinstance(entry, dict) else {"id": entry}
    return next(filter(None, (text_of(fields.get(key)) for key in ("id", "model", "name"))), "")
