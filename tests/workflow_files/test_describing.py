"""A workflow file in words and as a flowchart."""

from __future__ import annotations

from typing import Any

from agentstream.workflow_files import load_workflow
from tests.kit.files_support import GOOD


def test_a_file_is_read_and_told_of(write: Any) -> None:
    path = write(GOOD)
    file = load_workflow(path)
    assert (str(file.path), file.name, file.input) == (path, "demo", "Hello!")
    assert file.context == {"language": "German"}
    assert file.warnings == ()
    assert file.environment == ("LOCAL_KEY", "PASS")
    assert not file.needs_client
    told = file.describe()
    for part in (
        "llama at http://127.0.0.1:8080, key from LOCAL_KEY",
        "connect 5",
        "temperature 0.7",
        'context.language = "German"',
        "1. greeter (timeout 30 s, retries 1, prompt",
        "2. parallel, side by side (all come to their end)",
        "    facts: greeter\n",
        "      2. shout, function mytools:shout\n",
        'if not contains "urgent", else go on',
        'at most 3 times, until matches "(?i)done" (else it fails)',
        "  mytools:get_weather (first looked for in ",
        "Needed from the environment: LOCAL_KEY, PASS",
    ):
        assert part in told
    assert told.count("X-Team") == 0


def test_it_is_drawn_without_its_parts(write: Any) -> None:
    drawn = load_workflow(write(GOOD)).to_mermaid()
    assert drawn.startswith("flowchart TD\n")
    for part in (
        '"greeter (30 s, 1 retry)"',
        '["shout"]',
        '-->|"tone"|',
        "not contains #quot;urgent#quot;?",
        "at most 3 rounds, until matches",
    ):
        assert part in drawn
