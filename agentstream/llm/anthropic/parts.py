"""The parts of a message's content -> the blocks that Messages has for them.  Pure."""

from __future__ import annotations

import base64
import re
import urllib.parse
from typing import Any, Dict, List, Mapping

from agentstream.errors import ConfigError

__all__ = ["content_blocks"]

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^,]*)?),(.*)", re.DOTALL | re.IGNORECASE)


def content_blocks(content: Any) -> List[Dict[str, Any]]:
    """The blocks of a text, or of a list of parts in OpenAI's form; Messages' own blocks stay.

    Raises:
        ConfigError: a part is of a kind that Messages has no block for.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_block(part) for part in content]


def _block(part: Any) -> Dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise ConfigError(f"a part of a message must be a dict, not {type(part).__name__}")
    kind = part.get("type")
    if kind == "image_url":
        image = part.get("image_url")
        block = _from_url(image.get("url") if isinstance(image, Mapping) else image)
    elif kind == "file":
        block = _file(part.get("file"))
    elif kind == "input_audio":
        raise ConfigError("Messages takes no sound: a part of type input_audio cannot be sent")
    else:
        return dict(part)
    mark = part.get("cache_control")
    return {**block, "cache_control": mark} if mark else block


def _file(file: Any) -> Dict[str, Any]:
    if not isinstance(file, Mapping):
        raise ConfigError("a part of type file needs a dict `file`")
    if file.get("file_id"):
        block = _document({"type": "file", "file_id": file["file_id"]})
    else:
        block = _from_url(file.get("file_data"))
    name = file.get("filename")
    return {**block, "title": name} if name and block["type"] == "document" else block


def _from_url(url: Any) -> Dict[str, Any]:
    """The block of an image or a document at an https: URL, or in a data: URL."""
    if not isinstance(url, str):
        raise ConfigError("an image or a file needs a URL, as a text")
    data = _DATA_URL.fullmatch(url)
    if data is None:
        if not re.match("https?://", url, re.IGNORECASE):
            raise ConfigError("an image's URL must begin with https:// or data:")
        path = urllib.parse.urlsplit(url).path
        source = {"type": "url", "url": url}
        return _document(source) if path.lower().endswith(".pdf") else _image(source)
    media, parameters, text = data.groups()
    media = media.lower()
    if media.startswith("text/"):
        words = _words(text, _is_base64(parameters))
        return _document({"type": "text", "media_type": "text/plain", "data": words})
    if not _is_base64(parameters):
        text = base64.b64encode(_unquoted(text)).decode()
    source = {"type": "base64", "media_type": media, "data": text}
    if media == "application/pdf":
        return _document(source)
    if media.startswith("image/"):
        return _image(source)
    raise ConfigError(f"Messages takes images, PDFs and texts, and no {media[:80] or 'such data'}")


def _words(data: str, encoded: bool) -> str:
    try:
        raw = base64.b64decode(data) if encoded else _unquoted(data)
    except ValueError:
        raise ConfigError("a data: URL says base64 and holds none") from None
    return raw.decode("utf-8", "replace")


def _is_base64(parameters: str) -> bool:
    return parameters.lower().endswith(";base64")


def _unquoted(text: str) -> bytes:
    return urllib.parse.unquote_to_bytes(text)


def _image(source: Dict[str, Any]) -> Dict[str, Any]:
    return {"type": "image", "source": source}


def _document(source: Dict[str, Any]) -> Dict[str, Any]:
    return {"type": "document", "source": source}
