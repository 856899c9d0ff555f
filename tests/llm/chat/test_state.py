"""T03: what a provider wants back goes back to it: under its name, whole, in order, and nowhere else."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List

import pytest

from agentstream import Agent, BadRequest, ChatMessage, Conversation, ToolCall, tool
from agentstream.llm.chat.state import StateCollector, sent_back
from agentstream.testing import Reply, ScriptedServer, text_chunks
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit.support import client_of


@tool
def look(x: str = "") -> str:
    """Look."""
    return "seen"


def calling(*states: Dict[str, Any], **extra: Any) -> List[Any]:
    """Chunks: what states hold, then a call."""
    made = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}, **extra}
    return [
        *(chat_chunk(state) for state in states),
        chat_chunk({"tool_calls": [made]}),
        chat_chunk({}, finish_reason="tool_calls"),
        DONE,
    ]


def saying(text: str, *states: Dict[str, Any]) -> List[Any]:
    chunks = [chat_chunk(state) for state in states]
    return [*chunks, chat_chunk({"content": text}), chat_chunk({}, finish_reason="stop"), DONE]


SIGNED = {"google": {"thought_signature": "AbC=="}}

#: What a server sends, in pieces; what it wants back.
STATES = [
    ([{"reasoning_content": "Let me "}, {"reasoning_content": "see."}], "reasoning_content"),
    ([{"reasoning_content": "Hm.", "content": ""}], "reasoning_content"),
    ([{"reasoning_opaque": "eyJhIjox"}], "reasoning_opaque"),
    ([{"reasoning_text": "Hm"}, {"reasoning_text": "m."}], "reasoning_text"),
    ([{"reasoning_content": "\ud83d"}, {"reasoning_content": "\ude00"}], "reasoning_content"),
]
DETAILS = [
    {"type": "reasoning.summary", "summary": "S", "index": 0, "format": "google-gemini-v1"},
    {"type": "reasoning.encrypted", "data": "AA", "index": 1, "id": "r1"},
    {"type": "reasoning.encrypted", "data": "BB", "index": 1, "id": "r2"},
    {"type": "reasoning.unheard-of", "x": [1, None, {"y": "z"}]},
]


def second_request(server: ScriptedServer, first: List[Any]) -> Dict[str, Any]:
    server.reply(*first)
    server.reply(*text_chunks("done"))
    with client_of(server) as client:
        Agent("a", client=client, tools=[look]).execute("go")
    asked: Dict[str, Any] = server.requests[-1].json["messages"][1]
    assert asked["role"] == "assistant"
    return asked


@pytest.mark.parametrize(("pieces", "name"), STATES, ids=str)
def test_t03_a_text_goes_back_under_its_name_and_whole(server, pieces, name):
    asked = second_request(server, calling(*pieces))
    whole = "".join(piece[name] for piece in pieces)
    assert asked[name] == whole.encode("utf-16", "surrogatepass").decode("utf-16")
    assert {key for key in asked if "reason" in key} == {name}


@pytest.mark.parametrize("at_once", [True, False])
def test_t03_details_go_back_unchanged_and_in_order(server, at_once):
    states = [{"reasoning_details": DETAILS}]
    if not at_once:
        states = [{"reasoning_details": [entry]} for entry in DETAILS]
    assert second_request(server, calling(*states))["reasoning_details"] == DETAILS


def test_t03_an_object_in_pieces_keeps_all_its_words(server):
    pieces = [{"text": "Let me ", "signature": "s=="}, {"text": "see."}]
    asked = second_request(server, calling(*[{"reasoning_content": piece} for piece in pieces]))
    assert asked["reasoning_content"] == {"text": "Let me see.", "signature": "s=="}


def test_t03_pieces_of_one_detail_are_one(server):
    pieces: List[Dict[str, Any]] = [
        {"type": "reasoning.text", "text": "Let me ", "index": 0, "format": "anthropic"},
        {"type": "reasoning.text", "text": "see.", "index": 0, "format": "anthropic"},
        {"type": "reasoning.text", "signature": "s==", "index": 0, "format": "anthropic"},
        {"type": "reasoning.text", "text": "Next.", "index": 1, "format": "anthropic"},
    ]
    states = [{"reasoning_details": [piece]} for piece in pieces]
    first = {**pieces[0], "text": "Let me see.", "signature": "s=="}
    assert second_request(server, calling(*states))["reasoning_details"] == [first, pieces[3]]


def test_t03_all_of_them_together(server):
    states = [
        {"reasoning_content": "Hm.", "reasoning_details": DETAILS[:1]},
        {"reasoning_opaque": "op", "extra_content": SIGNED},
    ]
    asked = second_request(server, calling(*states, extra_content=SIGNED))
    assert asked["reasoning_content"] == "Hm."
    assert asked["reasoning_details"] == DETAILS[:1]
    assert asked["reasoning_opaque"] == "op"
    assert asked["extra_content"] == asked["tool_calls"][0]["extra_content"] == SIGNED


@pytest.mark.parametrize(
    "delta", [{"content": "Hi"}, {"reasoning": "Hm."}, {"reasoning_content": ""}]
)
def test_t03_what_a_server_never_sent_is_not_sent_to_it(server, delta):
    asked = second_request(server, calling(delta))
    assert set(asked) == {"role", "content", "tool_calls"}


def test_t03_an_unstreamed_answer_too(server):
    message = {
        "role": "assistant",
        "content": None,
        "reasoning_details": DETAILS,
        "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": "{}"}}],
    }
    whole = {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    server.reply_json(whole)
    server.reply(*text_chunks("done"))
    with client_of(server) as client:
        Agent("a", client=client, tools=[look]).execute("go")
    assert server.requests[-1].json["messages"][1]["reasoning_details"] == DETAILS


def talk(server: ScriptedServer, other: ScriptedServer, tmp_path: Any) -> Iterator[Conversation]:
    """A conversation with a state in a call and in an answer: as it is, and as it was kept."""
    server.reply(*calling({"reasoning_content": "One."}, extra_content=SIGNED))
    server.reply(*saying("two", {"reasoning_content": "Two."}))
    conversation = Conversation()
    with client_of(server) as client:
        Agent("a", client=client, tools=[look]).execute("go", conversation=conversation)
    yield conversation
    conversation.save(tmp_path / "talk.json")
    yield Conversation.load(tmp_path / "talk.json")


def test_t03_to_that_provider_in_every_later_request_and_to_no_other(server, tmp_path):
    with ScriptedServer() as other:
        for conversation in talk(server, other, tmp_path):
            for where in (server, other):
                where.reply(*text_chunks("three"))
            with client_of(other) as client:
                agent = Agent("a", client=client, tools=[look])
                agent.execute("on", conversation=Conversation(conversation.messages))
            with client_of(server) as client:
                Agent("a", client=client, tools=[look]).execute("on", conversation=conversation)
            _, called, _, said, *_ = server.requests[-1].json["messages"]
            assert (called["reasoning_content"], said["reasoning_content"]) == ("One.", "Two.")
            assert called["tool_calls"][0]["extra_content"] == SIGNED
            assert "reasoning_content" not in json.dumps(other.requests[-1].json)
            assert "AbC" not in json.dumps(other.requests[-1].json)


def refusal(name: str, status: int) -> Reply:
    detail = [{"type": "extra_forbidden", "loc": ["body", "messages", 1, name], "msg": "no"}]
    return Reply.json({"detail": detail}, status=status)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning_details", "extra_content"])
def test_t03_a_server_that_refuses_the_field_is_asked_once_without(server, name, status):
    states = [{"reasoning_content": "Hm.", "reasoning_details": DETAILS, "extra_content": SIGNED}]
    server.reply(*calling(*states, extra_content=SIGNED))
    server.reply(*refusal(name, status).actions, status=status)
    server.reply(*calling(*states, extra_content=SIGNED))
    server.reply(*text_chunks("done"))
    with client_of(server) as client:
        Agent("a", client=client, tools=[look]).execute("go")
    refused, again, later = (request.json for request in server.requests[1:])
    assert name in json.dumps(refused)
    for body in (again, later):
        assert name not in json.dumps(body)
        others = {"reasoning_content", "reasoning_details", "extra_content"} - {name}
        assert all(other in json.dumps(body) for other in others)


def test_t03_once_only(server):
    server.reply(*calling({"reasoning_content": "Hm."}))
    for _ in range(2):
        server.reply(*refusal("reasoning_content", 400).actions, status=400)
    with client_of(server) as client, pytest.raises(BadRequest):
        Agent("a", client=client, tools=[look]).execute("go")
    assert len(server.requests) == 3


def test_t03_another_complaint_is_an_error_at_once(server):
    server.reply(*calling({"reasoning_content": "Hm."}))
    server.reply(*refusal("tools", 400).actions, status=400)
    with client_of(server) as client, pytest.raises(BadRequest):
        Agent("a", client=client, tools=[look]).execute("go")
    assert len(server.requests) == 2


def test_t03_a_state_is_bounded():
    collector = StateCollector()
    for _ in range(100):
        collector.take({"reasoning_details": [{"data": "x" * 100_000}], "reasoning_content": "a"})
    assert collector.dropped
    assert collector.state("here") is None


def test_t03_by_hand(server):
    server.reply(*saying("two", {"reasoning_content": "Two."}))
    server.reply(*text_chunks("three"))
    with client_of(server) as client:
        response = client.chat("one")
        state = response.provider_state
        said = ChatMessage.assistant(response.content, (), state)
        assert "Two" not in repr(said)
        client.chat([ChatMessage.user("one"), said, ChatMessage.user("on")])
    assert server.requests[1].json["messages"][1]["reasoning_content"] == "Two."
    signed = ToolCall("c", "look", "{}")
    signed.extra_content = SIGNED
    assert ChatMessage.assistant(None, [signed]).to_dict()["tool_calls"][0]["extra_content"]


# --- the collector and the writer, without a server -----------------------------------------

#: What the deltas of an answer hold, and the fields that are kept of them.
KEPT = [
    ([{"content": "Hi"}, {"reasoning": "not asked back"}], None),
    ([{"reasoning_content": ""}, {"reasoning_details": []}, {"extra_content": None}], None),
    ([{"reasoning_content": "a"}, {"reasoning_content": "b"}], {"reasoning_content": "ab"}),
    ([{"reasoning_content": "lone \ud83d"}], {"reasoning_content": "lone \ufffd"}),
    # of two kinds of value the later one counts, unless both are texts, lists or objects
    (
        [{"reasoning_text": {"text": "a"}}, {"reasoning_text": {"text": "b"}}],
        {"reasoning_text": {"text": "ab"}},
    ),
    (
        [{"extra_content": {"a": 1}}, {"extra_content": {"b": 2}}],
        {"extra_content": {"a": 1, "b": 2}},
    ),
    ([{"extra_content": {"a": 1}}, {"extra_content": [3]}], {"extra_content": [3]}),
    ([{"thinking_blocks": ["x"]}, {"thinking_blocks": ["x"]}], {"thinking_blocks": ["x", "x"]}),
]


@pytest.mark.parametrize(("deltas", "fields"), KEPT, ids=str)
def test_what_is_kept_of_deltas(deltas, fields):
    collector = StateCollector()
    for delta in deltas:
        collector.take(delta)
    state = collector.state("http://a/")
    assert (state and state["fields"]) == fields
    assert state is None or (state["dialect"], state["origin"]) == ("chat", "http://a/")


def test_a_thought_goes_on_until_its_signature_and_only_under_its_own_number():
    def entry(**fields):
        return {"reasoning_details": [{"type": "reasoning.text", **fields}]}

    collector = StateCollector()
    for delta in (
        entry(index=0, text="a"),
        entry(index=0, text="b", signature="s"),
        entry(index=0, text="c"),  # the one before is signed: another begins
        entry(index=1, text="d"),
        entry(text="e"),  # without a number none can be told to go on
        entry(text="f"),
    ):
        collector.take(delta)
    state = collector.state("o")
    told = [each["text"] for each in state["fields"]["reasoning_details"]]
    assert told == ["ab", "c", "d", "e", "f"]


def test_a_call_that_is_signed_makes_a_state_of_its_own():
    collector = StateCollector()
    collector.take({"tool_calls": [{"index": 0, "extra_content": SIGNED}]})
    assert collector.state("o") == {"dialect": "chat", "origin": "o", "fields": {}}


@pytest.mark.parametrize(
    ("dialect", "origin", "without", "expected"),
    [
        ("chat", "here", (), {"reasoning_content", "extra_content"}),
        ("chat", "here", ("reasoning_content",), {"extra_content"}),
        ("chat", "here", ("extra_content",), {"reasoning_content"}),
        ("chat", "elsewhere", (), set()),
        ("messages", "here", (), set()),
    ],
)
def test_what_is_written_back(dialect, origin, without, expected):
    call = ToolCall("c1", "look", "{}")
    call.extra_content = SIGNED
    fields = {"reasoning_content": "Hm."}
    state = {"dialect": dialect, "origin": origin, "fields": fields}
    message = ChatMessage.assistant("Yes", [call], state)
    body, used = sent_back(message, "here", without)
    assert used == expected
    assert ("reasoning_content" in body) == ("reasoning_content" in expected)
    assert ("extra_content" in body["tool_calls"][0]) == ("extra_content" in expected)
    assert (body["role"], body["content"]) == ("assistant", "Yes")
