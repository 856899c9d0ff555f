"""Prompts and requests that are refused."""

from __future__ import annotations

import pytest

from agentstream import errors
from agentstream.llm.clients import LlamaClient
from agentstream.llm.messages import ChatMessage, ChatRequest
from tests.kit.client_support import ANSWER, ASIDE, body_of, no_environment  # noqa: F401
from tests.kit.support import ask, client_of


@pytest.mark.parametrize("prompt", [None, 5, [], (), [5], [None], ChatRequest([]), {"a": 1}, b"x"])
def test_prompt_refused(prompt):
    with LlamaClient(**ASIDE) as client, pytest.raises(errors.ConfigError):
        client.chat(prompt)


def test_unknown_role_refused():
    with pytest.raises(errors.ConfigError, match="role must be one of system, .* not 'robot'"):
        ChatMessage("robot", "hi")


@pytest.mark.parametrize("extra", [{"x": float("nan")}, {"x": {1, 2}}, {"x": object()}])
def test_body_that_json_cannot_hold_refused(server, extra):
    with client_of(server) as client:
        result = ask(client, ChatRequest([ChatMessage.user("hi")], extra=extra))
    assert type(result.error) is errors.ConfigError
    assert server.connections == 0


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "the prompt is empty"),
        ([{"role": "bogus", "content": "hi"}], "role must be one of .* not 'bogus'"),
        ([{"role": 5, "content": "hi"}], "role must be a str, not int"),
        ([{"role": ["user"], "content": "hi"}], "role must be"),
        ([{"content": "hi"}], "role must be a str, not NoneType"),
        (ChatRequest([{"role": "USER", "content": "hi"}]), "not 'USER'"),
    ],
)
def test_a_prompt_that_no_server_takes_is_refused_before_it_is_sent(prompt, says):
    with LlamaClient(**ASIDE) as client:
        for ask_for in (client.chat, client.chat_stream):
            with pytest.raises(errors.ConfigError, match=says):
                ask_for(prompt)
