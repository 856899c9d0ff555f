"""Hand-written histories, given straight to a client: T01, T02, and calls without results.

What an agent would mend is mended, whatever the protocol; what nobody can is a ConfigError.
"""

from __future__ import annotations

import json

import pytest

from agentstream import ChatMessage, ConfigError, ToolCall
from agentstream.llm.history import UNREADABLE, mended
from tests.kit.strict import STRICT, Strict

USER = ChatMessage.user("Hi")
SEEN = ChatMessage.tool("c1", "seen")


def calling(*calls):
    return ChatMessage.assistant(None, [ToolCall(*call) for call in calls])


def in_openai_form(*messages):
    """The same messages as plain dicts."""
    return [message.to_dict() for message in messages]


class Anyone:
    """Takes any history, and says Yes."""

    def problem(self, body):
        return ""


@pytest.mark.parametrize("kind", STRICT, ids=lambda kind: kind.__name__[6:].lower())
@pytest.mark.parametrize("plain", [False, True], ids=["ours", "dicts"])
def test_t01_t02_every_protocol_is_sent_what_can_be_read(server, kind, plain):
    strict = type("Yes", (Anyone, kind), {})(server, [["Yes."], ["Yes."]])
    assert isinstance(strict, Strict)
    history = [
        USER,
        ChatMessage.assistant(""),
        calling(("c1", "get weather!", '{"half'), ("c2", "get", "[1]"), ("c3", "get", "")),
        SEEN,
        ChatMessage.tool("c2", "two"),
        ChatMessage.tool("c3", "three"),
    ]
    with strict.client() as client:
        assert client.chat(in_openai_form(*history) if plain else history).content == "Yes."
    sent = json.dumps(server.requests[0].json)
    assert "get_weather_" in sent
    assert UNREADABLE in sent
    turns = server.requests[0].json.get("messages") or server.requests[0].json["input"]
    assert all(turn.get("content") != "" or turn.get("tool_calls") for turn in turns)


@pytest.mark.parametrize("plain", [False, True], ids=["ours", "dicts"])
@pytest.mark.parametrize(
    "history",
    [
        [USER, calling(("c1", "look", "{}"))],
        [USER, calling(("c1", "look", "{}")), USER],
        [USER, calling(("c1", "look", "{}"), ("c2", "look", "{}")), SEEN, USER],
        [USER, calling(("c1", "look", "{}")), USER, SEEN],
        [USER, SEEN],
        [USER, calling(("c2", "look", "{}")), SEEN],
        [USER, calling(("c1", "look", "{}")), SEEN, SEEN],
    ],
)
def test_a_call_without_its_result_is_refused_before_it_is_sent(server, history, plain):
    strict = STRICT[0](server)
    with strict.client() as client, pytest.raises(ConfigError, match="look|messages"):
        client.chat(in_openai_form(*history) if plain else history)
    assert server.requests == []


SENT_AS_THEY_ARE = [
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
    # prefilled, silent but for what is no text, in another form than ours
    [{"role": "assistant", "content": "", "audio": {"id": "a1"}}],
    [{"role": "assistant", "content": "", "reasoning_content": "Hm."}],
    [{"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}],
    [
        {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "content": "seen", "tool_name": "look"},
    ],
    [
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "x"}}],
        },
        {"role": "tool", "content": "seen", "tool_call_id": "c"},
    ],
    [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "x", "input": {}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]},
    ],
]


@pytest.mark.parametrize("messages", SENT_AS_THEY_ARE, ids=str)
def test_what_needs_no_mending_is_the_same_thing(messages):
    assert mended(messages) is messages


def test_arguments_that_are_an_object_become_its_text():
    call = {"id": "c1", "function": {"name": "look", "arguments": {"at": "\u00e9"}}}
    told = mended([{"role": "assistant", "tool_calls": [call]}, SEEN])
    assert told[0]["tool_calls"][0]["function"]["arguments"] == '{"at": "\u00e9"}'
    assert call["function"]["arguments"] == {"at": "\u00e9"}  # the caller's own is as it was
