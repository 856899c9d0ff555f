"""The snippets of docs/typed-answers.rst, one after the other, on a scripted server."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import textwrap
import types
from typing import Any, Dict, List

from agentstream.testing import ScriptedServer, text_chunks
from tests.kit.programs import PROJECT

DOCUMENT = (PROJECT / "docs" / "typed-answers.rst").read_text("utf-8")
ANSWER = '{"mood": "good", "dishes": ["soup"], "stars": 5}'
SAID: Dict[str, str] = {
    "An answer that is a value": "Mood.GOOD ['soup']\n",
    "A value while it arrives": "{'mood': 'good', 'dishes': ['sou']}\n",
    "How it is asked for": "stars=5)\n",
    "When it stays wrong": "mood must be one of",
    "A value handed on": "Thank you!\n",
}


def snippets() -> List[str]:
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", DOCUMENT, re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in blocks]


def test_every_snippet_runs_and_shows_what_it_is_about(server: ScriptedServer, monkeypatch: Any):
    module = types.ModuleType("typed_answers")
    monkeypatch.setitem(sys.modules, "typed_answers", module)
    shown = []
    for snippet in snippets():
        name = snippet.partition("\n")[0].replace("# ", "", 1)
        answer = ANSWER.replace("good", "dull") if name == "When it stays wrong" else ANSWER
        server.reply(*text_chunks(*(answer[at : at + 4] for at in range(0, len(answer), 4))))
        server.default(*text_chunks("Thank", " you!"))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = snippet.replace("http://127.0.0.1:8080", server.url)
            exec(compile(code, "typed-answers.rst", "exec"), module.__dict__)
        assert SAID[name] in out.getvalue(), (name, out.getvalue())
        shown.append(name)
    assert shown == list(SAID)
    asked = server.requests[-1].json["messages"][-1]["content"]
    assert asked == 'Thank a guest who liked ["soup"].'
