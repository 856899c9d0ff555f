"""The live page: one HTML file, joined here from its parts at import; there is no build tool.

`page.html` holds the elements, `page.css` the style; the scripts share one scope, in the
order of `_SCRIPTS`: base (small helpers, the server's answers), plain (long texts, copying),
inline and markdown (what models write, as elements), run (the chosen run and its connection),
tabs (one connection for all tabs), events (what each event does), cards (steps, agents,
painting), output (what an agent says), rest (a run that rests, and the answers it waits for),
list (the runs, what the reader does), keys, begin.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Tuple

from agentstream.errors import ConfigError

__all__ = ["load_page"]

_SCRIPTS = (
    *("base", "plain", "inline", "markdown", "run", "tabs", "events", "cards", "output"),
    *("rest", "list", "keys", "begin"),
)


def load_page() -> Tuple[bytes, str, str]:
    """The page, and its style and script as CSP sources, which nothing else matches.

    Raises:
        ConfigError: its files are not there: whoever packed the program left them out.
    """
    css = "\n" + _read("page.css")
    js = "\n'use strict';\n(() => {\n" + "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    js += "})();\n"
    page = _read("page.html").replace("{{css}}", css).replace("{{js}}", js)
    return page.encode(), _source_of(css), _source_of(js)


def _read(name: str) -> str:
    # importlib.resources: the page is found in a zip too.
    try:
        return resources.files(__name__).joinpath(name).read_text("utf-8")
    except OSError:
        raise ConfigError(
            f"the page's file {name} is not there: was the program packed without the data of"
            " agentstream? (pyinstaller --collect-data agentstream)"
        ) from None


def _source_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
