"""What must not be shown: keys and prompts, taken out of what a server may have echoed.  Pure."""

from __future__ import annotations

import itertools
import json
import urllib.parse
from typing import Dict, Iterable, Iterator, Optional, Tuple

from agentstream.text import pattern, replace_surrogates

__all__ = ["NamedKey", "Redactor", "mask"]

#: So much of a secret's beginning gives it away, where a server, or a bound of ours, cut it.
_TELLTALE = 16

_ESCAPE = pattern("%[0-9A-F]{2}")
_ENTITIES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;"))


class NamedKey(str):
    """A key that knows its source: the variable or the file that holds it.

    Attributes:
        source: its name.
    """

    source: str

    @classmethod
    def of(cls, key: Optional[str], source: str) -> Optional[NamedKey]:
        """The key from there; None for None or ""."""
        if not key:
            return None
        named = cls(key)
        named.source = source
        return named


class Redactor:
    """Takes secrets out of text that a server may have echoed, whole or only their beginnings.

    Args:
        keys: API keys and the like; what is left of one is "…" and its last
            four characters.
        prompts: texts of the request, read when the first error needs it; one
            that is echoed becomes "[prompt]".
    """

    def __init__(self, keys: Iterable[str] = (), prompts: Iterable[str] = ()) -> None:
        self._keys = keys
        self._prompts = prompts
        self._replace: Optional[Dict[str, str]] = None

    def __call__(self, text: str) -> str:
        """`text` without the secrets."""
        if self._replace is None:
            self._replace = dict(self._pairs())
        for secret in sorted(self._replace, key=len, reverse=True):
            text = text.replace(secret, self._replace[secret])
        for head in {secret[:_TELLTALE] for secret in self._replace if len(secret) > _TELLTALE}:
            if head in text:
                text = self._without_beginnings(text, head)
        return text

    def _without_beginnings(self, text: str, head: str) -> str:
        """`text` without what begins as secrets do that begin with `head`, as far as it goes on."""
        assert self._replace is not None
        forms = [secret for secret in self._replace if secret.startswith(head)]
        pieces = []
        done = 0
        place = text.find(head)
        while place >= 0:
            pieces += [text[done:place], self._replace[forms[0]]]
            done = place + max(_common(text[place : place + len(form)], form) for form in forms)
            place = text.find(head, done)
        return "".join([*pieces, text[done:]])

    def _pairs(self) -> Iterator[Tuple[str, str]]:
        for prompt in self._prompts:
            if len(prompt) >= 8:
                for form in _forms(prompt):
                    yield form, "[prompt]"
        for key in self._keys:
            if len(key) >= 4:
                for form in itertools.chain(_forms(key), _quoted(key)):
                    yield form, mask(key)
                scheme, _, token = key.partition(" ")
                if len(token) >= 8 and scheme.isalpha():  # a header's value: "Bearer sk-..."
                    yield token, mask(token)


def _forms(secret: str) -> Iterator[str]:
    """A text as it is, and as JSON and HTML echo it."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield _escaped(secret)


def _quoted(key: str) -> Iterator[str]:
    """A key as URLs and forms hold it."""
    sound = replace_surrogates(key)
    for quoted in (urllib.parse.quote(sound, safe=""), urllib.parse.quote(sound)):
        yield quoted
        yield quoted.replace("%20", "+")
        yield _ESCAPE.sub(lambda found: found.group().lower(), quoted)


def _common(one: str, other: str) -> int:
    """How many characters the two have in common at their beginnings."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))


def _escaped(text: str) -> str:
    for character, entity in _ENTITIES:
        text = text.replace(character, entity)
    return text


def mask(key: str) -> str:
    """A key as it may be shown: "sk-…abcd" at most."""
    tail = key[-4:] if len(key) >= 12 else ""
    tail = "".join(c for c in tail if c.isalnum())
    return ("sk-" if key.startswith("sk-") else "") + "…" + tail
