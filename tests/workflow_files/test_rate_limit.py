"""`rate_limit = {...}` of a file's client."""

from __future__ import annotations

import pathlib
import time
from typing import Any

from agentstream import Runtime
from agentstream.testing import ScriptedServer, text_chunks
from agentstream.workflow_files import load_workflow


def test_clients_of_a_file_that_name_a_path_share_the_limit(
    write: Any, server: ScriptedServer
) -> None:
    server.default(*text_chunks("x"))
    client = f"""
        base_url = "{server.url}"
        rate_limit = {{requests = 2, per = "0.6s", burst = 1, path = "shared.limit"}}
    """
    path = write(f"""
        [clients.one]
        {client}
        [clients.two]
        {client}
        [agents.a]
        client = "one"
        [agents.b]
        client = "two"
        [[steps]]
        agent = "a"
        [[steps]]
        agent = "b"
        [[steps]]
        agent = "a"
    """)
    file = load_workflow(path)
    assert file.warnings == ()
    with file.build(environ={}) as built, Runtime() as runtime:
        began = time.monotonic()
        assert runtime.run(built, "go").output == "x"
        assert 0.55 < time.monotonic() - began < 5
    assert (pathlib.Path(path).parent / "shared.limit").exists()


def test_a_servers_password_is_warned_of_and_not_shown(write: Any) -> None:
    pass_word = "MARKEDKEY"
    head = f"[clients.c]\nrate_limit = {{requests = 1, path = 'redis://u:{pass_word}@h/0'}}\n"
    file = load_workflow(write(head + "[agents.a]\n[[steps]]\nagent = 'a'\n"))
    assert len(file.warnings) == 1 and "rate_limit.path: holds a secret" in file.warnings[0]
    for text in (*file.warnings, file.describe(), file.to_mermaid(), repr(file)):
        assert pass_word not in text
