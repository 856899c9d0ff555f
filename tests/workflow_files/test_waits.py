"""Steps that wait for a value from outside, in files."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from agentstream import ConfigError, Wait
from agentstream.workflow.waiting import MISSING
from agentstream.workflow_files import load_workflow

FILE = """
    [[steps]]
    wait = "approval"
    timeout = "2h"
    otherwise = {answer = "no", until = 2026-12-01}

    [[steps]]
    parallel = { one = { wait = "one" }, two = [{ wait = "two", timeout = false }] }
"""


def test_a_workflow_file_has_it(write: Any) -> None:
    file = load_workflow(write(FILE))
    assert file.warnings == ()
    assert '1. approval, waits for a value from outside (timeout 7200 s, otherwise {"a' in (
        file.describe()
    )
    assert 'wait for approval (7200 s)"}}' in file.to_mermaid()
    with file.build(environ={}) as workflow:
        first, both = workflow.steps
        assert isinstance(first, Wait)
        assert (first.name, first.wait_s) == ("approval", 7200)
        assert first.otherwise == {"answer": "no", "until": datetime.date(2026, 12, 1)}
        (_, one), (_, two) = both.within()
        ((_, inner),) = two.within()
        assert (one.kind, inner.kind, inner.name) == ("Wait", "Wait", "two")
        assert isinstance(inner, Wait)
        assert (inner.wait_s, inner.otherwise) == (None, MISSING)


def test_a_file_that_cannot_be_meant_is_told_all_of_it(write: Any) -> None:
    steps = {
        'wait = ""': "1 wait: must not be empty",
        "wait = 3": "2 wait: must be a text",
        'wait = "a"\nname = "b"': "3 name: is not for a wait, which has the name of its value",
        'wait = "a"\nretries = 2': "4 retries: is not for a wait",
        'wait = "a"\ntimeout = -1': "5 timeout: must be a positive number of seconds",
        'wait = "a"\notherwise = 1': "6 otherwise: is the output after a timeout, and needs one",
        'wait = "a"\notherwise = 1\ntimeout = false': "7 otherwise: is the output after",
        'function = "a:b"\notherwise = 1': "8 otherwise: is for a step with 'wait'",
        'wait = "a"\nprompt = "x"': "9 prompt: is for a step with 'agent'",
        'wait = "a"\nfunction = "a:b"': "10: must have one of agent, function, ",
    }
    with pytest.raises(ConfigError) as caught:
        load_workflow(write("".join(f"[[steps]]\n{step}\n" for step in steps)))
    said = str(caught.value)
    for text in steps.values():
        assert f"[[steps]] {text}" in said, said
