"""A message's parts, as chat completions write them -> a text and pictures in base64.  Pure."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from typing import Any, List, Mapping, Tuple

from agentstream.errors import ConfigError

__all__ = ["text_and_images"]

_DATA_URL = re.compile(r"data:([^;,]*)([^,]*),(.*)", re.DOTALL | re.IGNORECASE)


def text_and_images(content: Any) -> Tuple[str, List[str]]:
    """The text of a content, its parts on lines of their own; and its pictures in base64.

    Raises:
        ConfigError: a part that Ollama does not take.
    """
    if content is None or isinstance(content, str):
        return content or "", []
    texts: List[str] = []
    images: List[str] = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            texts.append(part)
        elif kind == "text":
            texts.append(str(part.get("text") or ""))
        elif kind == "image_url":
            images.append(_image(part.get("image_url")))
        else:
            raise ConfigError(_refusal(part, kind))
    return "\n".join(texts), images


def _refusal(part: Any, kind: Any) -> str:
    if kind == "file":
        return "Ollama takes no files but pictures: send a PDF's text, or pictures of its pages"
    shown = repr(kind[:40]) if isinstance(kind, str) else type(part).__name__
    return f"Ollama takes text and pictures (image_url), no part of type {shown}"


def _image(value: Any) -> str:
    url = value.get("url") if isinstance(value, Mapping) else value
    found = _DATA_URL.match(url) if isinstance(url, str) else None
    if found is None:
        raise ConfigError(
            "Ollama fetches no pictures: send one's content, as files=[...] or as a data: URL"
        )
    media_type, parameters, data = found.groups()
    if media_type and not media_type.lower().startswith("image/"):
        raise ConfigError(_refusal(value, "file"))
    if not parameters.lower().endswith(";base64"):
        return base64.b64encode(urllib.parse.unquote_to_bytes(data)).decode()
    data = "".join(urllib.parse.unquote(data).split())
    try:
        base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise ConfigError("a picture's data: URL holds no base64") from None
    return data
