"""What a tool came to, as values and as the text that a model reads.  Pure.

MCP 2026-07-28, "Tools", section "Tool Result".
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional

from agentstream.text import replace_surrogates

__all__ = ["CallResult"]


class CallResult:
    """What a call of a tool came to.

    `str()` of it is `text`.

    Attributes:
        content: the blocks as the server sent them, dicts: text, images, resources.
        structured: the result as JSON values (`structuredContent`); None for none.
        is_error: the tool reports that it failed, in `text`.
        raw: the whole result.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        content = raw.get("content")
        blocks = content if isinstance(content, list) else []
        self.raw: Dict[str, Any] = dict(raw)
        self.content: List[Dict[str, Any]] = [b for b in blocks if isinstance(b, dict)]
        self.structured: Any = raw.get("structuredContent")
        self.is_error = raw.get("isError") is True

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<CallResult of {len(self.content)} blocks{', an error' if self.is_error else ''}>"

    @property
    def text(self) -> str:
        """What a model reads of it.

        Texts as they are, a line apart, and the text of embedded resources; a note in
        place of what is no text.  `structured` as JSON, unless the texts say the same.
        """
        parts = [_told(block) for block in self.content]
        texts = [block["text"] for block in self.content if _is_text(block)]
        if self.structured is not None and not _says(texts, self.structured):
            parts.append(_json(self.structured))
        return replace_surrogates("\n".join(parts))


def _is_text(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "text" and isinstance(block.get("text"), str)


def _told(block: Mapping[str, Any]) -> str:
    """A block in text."""
    kind = block.get("type")
    if _is_text(block):
        return str(block["text"])
    if kind in ("image", "audio"):
        return f"[{kind}: {_what(block, 'data')}]"
    if kind == "resource_link":
        title = block.get("title") or block.get("name") or ""
        about = block.get("description")
        told = f"{title} {block.get('uri', '')}".strip()
        return f"[resource: {told}{f' - {about}' if about else ''}]"
    if kind == "resource" and isinstance(block.get("resource"), dict):
        return told_resource(block["resource"])
    return f"[a block of type {str(kind)[:40]!r}, which cannot be shown]"


def told_resource(resource: Mapping[str, Any]) -> str:
    """A resource's contents in text: its own text, or a note of what it is."""
    text = resource.get("text")
    if isinstance(text, str):
        return text
    return f"[resource: {resource.get('uri', '')}, {_what(resource, 'blob')}]"


def _what(block: Mapping[str, Any], key: str) -> str:
    """The media type and the size of what a block holds in Base64."""
    data = block.get(key)
    size = len(data.rstrip("=")) * 3 // 4 if isinstance(data, str) else 0
    return f"{block.get('mimeType') or 'of unknown type'}, {size} bytes"


def _says(texts: List[str], value: Any) -> bool:
    """True if texts say what a JSON value does: it, or the items of the one list it holds."""
    if any(_is_json_of(text, value) for text in texts):
        return True
    # Where a tool's result is no object, servers wrap it so.
    if not isinstance(value, dict) or set(value) != {"result"}:
        return False
    inner = value["result"]
    if isinstance(inner, list) and len(inner) == len(texts) != 1:
        return all(_is_text_of(text, item) for text, item in zip(texts, inner))
    return len(texts) == 1 and _is_text_of(texts[0], inner)


def _is_text_of(text: str, value: Any) -> bool:
    return text == value or _is_json_of(text, value)


def _is_json_of(text: str, value: Any) -> bool:
    try:
        return bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return False


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def found_list(result: Mapping[str, Any], key: str) -> Optional[List[Dict[str, Any]]]:
    """The objects of a result's list; None if it has none."""
    items = result.get(key)
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else None
