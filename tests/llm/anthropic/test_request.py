"""A request in chat completions' words -> what Messages is sent."""

from __future__ import annotations

import pytest

from agentstream.errors import ConfigError
from agentstream.llm.anthropic.request import has_marks, mark, to_body
from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.results import ToolCall

ORIGIN = "https://api.anthropic.com/v1/messages"


def body_of(*messages, **fields):
    request = ChatRequest(messages or [ChatMessage.user("hi")], **fields)
    return to_body(request, model="m", max_tokens=100, origin=ORIGIN)


def turns(*messages):
    return body_of(*messages)["messages"]


def text(words):
    return {"type": "text", "text": words}


def test_the_fields_of_a_request():
    body = body_of(
        ChatMessage.system("Be brief."),
        ChatMessage.user("hi"),
        {"role": "developer", "content": [text("And kind.")]},
        temperature=0.5,
        top_p=0.9,
        stop="END",
        max_tokens=7,
        model="other",
    )
    assert body == {
        "model": "other",
        "max_tokens": 7,
        "stream": True,
        "system": [text("Be brief."), text("And kind.")],
        "messages": [{"role": "user", "content": [text("hi")]}],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
    }
    assert body_of(stop=["a", "b"])["stop_sequences"] == ["a", "b"]
    assert body_of()["max_tokens"] == 100


def test_what_messages_has_no_words_for():
    with pytest.raises(ConfigError, match="seed"):
        body_of(seed=1)
    with pytest.raises(ConfigError, match="response_format"):
        body_of(response_format={"type": "json_object"})
    with pytest.raises(ConfigError, match="tool_choice"):
        body_of(tools=[TOOL], tool_choice="some")
    with pytest.raises(ConfigError, match="input_audio"):
        turns(ChatMessage.user([{"type": "input_audio", "input_audio": {}}]))


def test_blank_text_is_never_sent():
    """It is a 400, wherever it stands."""
    call = ToolCall("c1", "look", "{}")
    body = body_of(
        ChatMessage.system(" "),
        ChatMessage.system("Be brief."),
        ChatMessage.user([text(""), text("hi"), text(" \n")]),
        {"role": "assistant", "content": [text("")], "tool_calls": [call.to_dict()]},
        {"role": "tool", "tool_call_id": "c1", "content": [text(" "), text("seen")]},
        ChatMessage.assistant(" "),
        ChatMessage.user("on"),
    )
    assert body["system"] == [text("Be brief.")]
    user, answer, result = body["messages"]
    assert user["content"] == [text("hi")]
    assert [block["type"] for block in answer["content"]] == ["tool_use"]
    assert result["content"][0]["content"] == [text("seen")]
    assert result["content"][1:] == [text("on")]
    assert "system" not in body_of(ChatMessage.system(""), ChatMessage.user("hi"))
    for blank in (" ", [], [text("\t")]):
        with pytest.raises(ConfigError, match="blank"):
            body_of(ChatMessage.user(blank))


def test_a_json_schema():
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert body_of(response_format=wanted)["output_config"] == {
        "format": {"type": "json_schema", "schema": schema}
    }
    assert "output_config" not in body_of(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("effort", "sent"),
    [
        (None, {}),
        ("none", {"thinking": {"type": "disabled"}}),
        *[
            (
                word,
                {
                    "thinking": {"type": "adaptive", "display": "summarized"},
                    "output_config": {"effort": effort},
                },
            )
            for word, effort in (("minimal", "low"), ("high", "high"), ("max", "max"))
        ],
    ],
)
def test_an_effort_of_reasoning(effort, sent):
    body = body_of(reasoning_effort=effort)
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == sent


# --- tools ------------------------------------------------------------------------------------

TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "Does f.", "parameters": {"type": "object"}},
}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}


def test_tools():
    bare = {"type": "function", "function": {"name": "g", "strict": True}}
    assert body_of(tools=[TOOL, bare, SEARCH])["tools"] == [
        {"name": "f", "description": "Does f.", "input_schema": {"type": "object"}},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}, "strict": True},
        SEARCH,
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
        ({"type": "any"}, None, {"type": "any"}),
    ],
)
def test_a_choice_of_tools(choice, parallel, sent):
    body = body_of(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == sent
    assert "tool_choice" not in body_of(tool_choice=choice, parallel_tool_calls=parallel)


def test_all_results_of_a_turn_come_first_in_one_user_message():
    calls = [ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "")]
    sent = turns(
        ChatMessage.user("hi"),
        ChatMessage.assistant("Let me see.", calls),
        ChatMessage.tool("a", "one"),
        ChatMessage.user("and hurry"),
        ChatMessage.tool("b", "two"),
    )
    assert sent[1:] == [
        {
            "role": "assistant",
            "content": [
                text("Let me see."),
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                {"type": "tool_result", "tool_use_id": "b", "content": "two"},
                text("and hurry"),
            ],
        },
    ]


def test_dicts_in_openais_form_are_read_too():
    function = {"name": "f", "arguments": "{}"}
    sent = turns(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": function}]},
        {"role": "tool", "tool_call_id": "a", "content": [text("one")]},
        {"role": "assistant", "content": ""},
    )
    assert [turn["role"] for turn in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]
    assert sent[2]["content"][0]["content"] == [text("one")]


def test_ids_that_come_again_or_cannot_be_sent_are_changed_on_both_sides():
    def round_(call_id, result):
        return [
            ChatMessage.assistant(None, [ToolCall(call_id, "f", "{}")]),
            ChatMessage.tool(call_id, result),
        ]

    sent = turns(
        ChatMessage.user("hi"),
        *round_("call_0", "a"),
        *round_("call_0", "b"),
        *round_("x:1|\u00e9", "c"),
    )
    ids = [
        block.get("id") or block["tool_use_id"] for turn in sent[1:] for block in turn["content"]
    ]
    assert ids == ["call_0", "call_0", "call_0_2", "call_0_2", "x_1__", "x_1__"]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("", {}),
        (" {} ", {}),
        ('{"a": "line\nbreak"}', {"a": "line\nbreak"}),
        ('{"a": ', {"INVALID_JSON": '{"a": '}),
        ("[1]", {"INVALID_JSON": "[1]"}),
    ],
)
def test_arguments_go_as_an_object(arguments, sent):
    message = ChatMessage.assistant(None, [ToolCall("a", "f", arguments)])
    assert turns(message)[0]["content"][0]["input"] == sent


# --- parts ------------------------------------------------------------------------------------


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            image("data:image/png;base64,AAAA"),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
            },
        ),
        (
            image("https://host/a.jpg"),
            {"type": "image", "source": {"type": "url", "url": "https://host/a.jpg"}},
        ),
        (
            image("https://host/a.PDF?x=1"),
            {"type": "document", "source": {"type": "url", "url": "https://host/a.PDF?x=1"}},
        ),
        (
            {
                "type": "file",
                "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
            },
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
                "title": "a.pdf",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;base64,w6k="}},
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "\u00e9"},
            },
        ),
        (
            image("data:image/svg+xml,%3Csvg/%3E"),
            {
                "type": "image",
                "source": {
                    "type": "base64",
                    "media_type": "image/svg+xml",
                    "data": "PHN2Zy8+",
                },
            },
        ),
        (
            {"type": "file", "file": {"file_id": "file_1"}},
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        ),
        ({"type": "document", "source": {"x": 1}}, {"type": "document", "source": {"x": 1}}),
        ("words", {"type": "text", "text": "words"}),
    ],
)
def test_parts(part, block):
    assert turns(ChatMessage.user([part]))[0]["content"] == [block]


@pytest.mark.parametrize(
    "part",
    [
        image("ftp://host/a.jpg"),
        image(None),
        image("data:audio/wav;base64,AAAA"),
        {"type": "image_url"},
        {"type": "file"},
        {"type": "file", "file": {}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,A"}},
        5,
    ],
)
def test_parts_that_cannot_be_sent(part):
    with pytest.raises(ConfigError):
        turns(ChatMessage.user([part]))


# --- the way back -----------------------------------------------------------------------------

BLOCKS = [
    {"type": "thinking", "thinking": "x", "signature": "S"},
    text("a"),
    {"type": "tool_use", "id": "t", "name": "f", "caller": {"type": "direct"}},
    text(" "),
    text("b"),
]
CALL = ToolCall("t", "f", '{"x": 1}')


def answer(content="a b", calls=(CALL,), blocks=BLOCKS, **state):
    state = {"dialect": "messages", "origin": ORIGIN, "blocks": blocks, **state}
    return ChatMessage.assistant(content, calls, state)


def test_an_answer_goes_back_as_it_was():
    (turn,) = turns(answer())
    assert turn["content"] == [
        BLOCKS[0],
        text("a"),
        {**BLOCKS[2], "input": {"x": 1}},
        text("b"),
    ]
    assert "input" not in BLOCKS[2]


@pytest.mark.parametrize(
    "message",
    [
        answer(origin="https://other/v1/messages"),
        answer(dialect="chat", fields={}),
        answer("another text", [CALL]),
    ],
)
def test_only_to_whom_it_came_from_and_only_as_it_was(message):
    (turn,) = turns(message)
    assert turn["content"] == [
        text(message.content),
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
    ]


def test_the_calls_are_the_messages_own():
    (turn,) = turns(answer(calls=()))
    assert [block["type"] for block in turn["content"]] == ["thinking", "text", "text"]
    (turn,) = turns(answer(calls=[ToolCall("u", "g", "{}"), ToolCall("t", "h", "{}")]))
    uses = [block for block in turn["content"] if block["type"] == "tool_use"]
    assert [(block["id"], block["name"]) for block in uses] == [("t", "h"), ("u", "g")]


# --- marks ------------------------------------------------------------------------------------


def test_marks_stand_on_tools_system_and_the_last_two_user_turns():
    body = body_of(
        ChatMessage.system("s1"),
        ChatMessage.system("s2"),
        ChatMessage.user("1"),
        ChatMessage.assistant("2"),
        ChatMessage.user("3"),
        ChatMessage.assistant("4"),
        ChatMessage.user([text("5"), text("6")]),
        tools=[TOOL, SEARCH],
    )
    assert not has_marks(body)
    marked = mark(body)
    assert has_marks(marked)
    found = [
        block.get("text", block.get("name"))
        for blocks in (
            marked["tools"],
            marked["system"],
            *(t["content"] for t in marked["messages"]),
        )
        for block in blocks
        if block.get("cache_control") == {"type": "ephemeral"}
    ]
    assert found == ["web_search", "s2", "3", "6"]
    assert not has_marks(body)


def test_marks_stand_only_where_they_can():
    body = body_of(tools=[TOOL, {**SEARCH, "defer_loading": True}])
    marked = mark({**body, "messages": [{"role": "user", "content": [text("5"), text(" ")]}]})
    assert ["cache_control" in tool for tool in marked["tools"]] == [True, False]
    assert ["cache_control" in b for b in marked["messages"][0]["content"]] == [True, False]
    assert not has_marks(mark({"messages": [{"role": "user", "content": [text(" ")]}]}))


def test_marks_of_ones_own():
    own = {**text("hi"), "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert has_marks(body_of(ChatMessage.user([own])))
    assert has_marks(body_of(tools=[{**SEARCH, "cache_control": {"type": "ephemeral"}}]))
    assert mark({"messages": [{"role": "user", "content": "hi"}]})["messages"][0]["content"] == "hi"
