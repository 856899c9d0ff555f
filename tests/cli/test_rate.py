"""`--rate-limit`: what all commands of a user may ask of a server."""

from __future__ import annotations

import time

import pytest

from agentstream.cli.rate import rate_in
from agentstream.testing import text_chunks


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60", (60, 60.0)),
        ("60/m", (60, 60.0)),
        ("5/s", (5, 1.0)),
        ("1000/h", (1000, 3600.0)),
        ("0", None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("60/d", None),
        ("60 /m", None),
        ("\u0665/s", None),
    ],
)
def test_a_rate(text, rate):
    assert rate_in(text) == rate


def test_commands_share_it_and_what_is_none_is_told(here, server, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTSTREAM_STATE", str(tmp_path / "state"))
    server.default(*text_chunks("hi"))
    began = time.monotonic()
    for _ in range(2):
        assert here("chat", "x", "--rate-limit", "1/s").out == "hi\n"
    assert time.monotonic() - began > 0.9
    assert (tmp_path / "state").stat().st_mode & 0o77 == 0
    assert len(list((tmp_path / "state" / "limits").iterdir())) == 1
    assert (
        "--rate-limit must be requests, as 60/m"
        in here("chat", "x", "--rate-limit", "many", code=2).line
    )
    monkeypatch.setenv("AGENTSTREAM_RATE_LIMIT", "0/s")
    assert "AGENTSTREAM_RATE_LIMIT must be requests" in here("chat", "x", code=2).line
