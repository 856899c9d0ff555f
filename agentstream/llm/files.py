"""A file on this machine -> a part of a message, as chat completions have it.

What a file is, its first bytes say; its name says nothing.  The other dialects make
their own of a part, or refuse it.
"""

from __future__ import annotations

import base64
import os
import stat
from typing import Any, Dict, List, Sequence, Union

from agentstream.errors import ConfigError

__all__ = ["LARGEST", "FilePath", "file_parts"]

FilePath = Union[str, "os.PathLike[str]"]

#: The most bytes a file may have: what hosted servers take, or a little more.
LARGEST = 32 * 2**20

PDF = "application/pdf"
#: How the files of each kind begin.
_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
#: What may stand before a PDF's header: a byte order mark, white space.
_BEFORE_PDF = b"\xef\xbb\xbf\0\t\r\n "


def file_parts(files: Sequence[FilePath]) -> List[Dict[str, Any]]:
    """The parts for files: `image_url` for pictures, `file` for PDFs, each with its content.

    Raises:
        ConfigError: a file cannot be read, is empty or larger than `LARGEST`, or is no
            picture (PNG, JPEG, GIF, WebP) and no PDF.
    """
    if not isinstance(files, (list, tuple)):
        raise ConfigError.about("files", f"must be a list of paths, not {type(files).__name__}")
    return [_part(path) for path in files]


def _part(path: FilePath) -> Dict[str, Any]:
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError.about("files", f"must be a list of paths; {type(path).__name__} is none")
    name = os.fsdecode(path)
    content = _content(name)
    kind = _kind_of(content)
    if not kind:
        raise _refused(name, "is no picture (PNG, JPEG, GIF, WebP) and no PDF")
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    if kind == PDF:
        return {"type": "file", "file": {"filename": os.path.basename(name), "file_data": url}}
    return {"type": "image_url", "image_url": {"url": url}}


def _content(name: str) -> bytes:
    try:
        is_file = stat.S_ISREG(os.stat(name).st_mode)
        content = b""
        if is_file:  # a pipe would be waited for
            with open(name, "rb") as file:
                content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "the name cannot be one"
        raise _refused(name, f"cannot be read: {reason}") from None
    if not is_file:
        raise _refused(name, "is no file")
    if not content:
        raise _refused(name, "is empty")
    if len(content) > LARGEST:
        raise _refused(name, f"is larger than {LARGEST // 2**20} MiB")
    return content


def _kind_of(content: bytes) -> str:
    """The media type of a content; "" for one that is not known."""
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return PDF if content[:1024].lstrip(_BEFORE_PDF).startswith(b"%PDF-") else ""


def _refused(name: str, why: str) -> ConfigError:
    shown = name if name.isprintable() else ascii(name)
    return ConfigError(f"{shown} {why}", setting="files", reason=why)
