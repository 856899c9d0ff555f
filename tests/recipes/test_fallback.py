"""The snippets of docs/fallback.rst about clients of clients and about budgets, as they stand there."""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
from typing import Any

from agentstream.testing import ScriptedServer, messages_chunks, text_chunks
from tests.kit.programs import PROJECT

DOCUMENT = (PROJECT / "docs" / "fallback.rst").read_text("utf-8")


def shown_by(part: str, **names: Any) -> str:
    """What the snippet that holds `part` writes."""
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", DOCUMENT, re.MULTILINE)
    (snippet,) = (textwrap.dedent(block) for block in blocks if part in block)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(snippet, "fallback.rst", "exec"), names)
    return out.getvalue()


def test_the_first_snippet_says_who_answered(server: ScriptedServer, monkeypatch: Any):
    with ScriptedServer() as other:
        for name, url in (("OPENAI", server.url), ("ANTHROPIC", other.url)):
            monkeypatch.setenv(f"{name}_BASE_URL", url)
            monkeypatch.setenv(f"{name}_API_KEY", "k")
        server.default("{}", status=503, content_type="application/json")
        other.default(*messages_chunks("Blue."))
        assert shown_by("FallbackClient(") == "anthropic\n"


def test_the_budgets_snippet_prints_what_was_paid_or_why_not(
    server: ScriptedServer, monkeypatch: Any
):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    server.reply(*text_chunks("Sing", "!"))
    assert float(shown_by("Budget(")) == (10 * 0.5 + 2 * 2.0) / 1e6
    assert len(server.requests) == 1
