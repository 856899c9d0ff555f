"""Conversation: what it records, what it forgets, and how it is kept."""

from __future__ import annotations

import json
import os
import random
import stat
import sys
import threading

import pytest

from agentstream import (
    Agent,
    AgentStreamError,
    Cancelled,
    CancelToken,
    ChatMessage,
    ConfigError,
    Conversation,
    ToolCall,
    ToolLimits,
    tool,
)
from agentstream.agent.conversation import estimate_tokens
from agentstream.testing import ScriptedClient
from tests.kit.support import Task


@tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


CALL = ToolCall("call_1", "add", '{"a": 1, "b": 2}')


def shapes(messages):
    """Roles, contents and calls, to compare."""
    return [(m.role, m.content, [c.id for c in m.tool_calls], m.tool_call_id) for m in messages]


def test_turns_are_recorded_and_told_in_the_next_run():
    client = ScriptedClient(["Let me see. ", CALL], "It is 3.", "You are welcome.")
    agent = Agent("adder", client=client, system_prompt="Be kind.", tools=[add])
    conversation = Conversation()
    assert agent.execute("1 + 2?", conversation=conversation).response == "It is 3."
    assert list(agent.stream("Thanks!", conversation=conversation)) == ["You", " are", " welcome."]
    first = [
        ("user", "1 + 2?", [], None),
        ("assistant", "Let me see. ", ["call_1"], None),
        ("tool", "3", [], "call_1"),
        ("assistant", "It is 3.", [], None),
    ]
    second = [("user", "Thanks!", [], None), ("assistant", "You are welcome.", [], None)]
    assert shapes(conversation.messages) == first + second
    sent = shapes(client.requests[2].messages)
    assert sent == [("system", "Be kind.", [], None), *first, second[0]]
    assert len(conversation) == 6
    conversation.clear()
    assert conversation.messages == ()


def test_an_agent_without_one_keeps_nothing():
    client = ScriptedClient("one", "two")
    agent = Agent("a", client=client)
    agent.execute("first")
    agent.execute("second")
    assert len(client.requests[1].messages) == 1


def test_a_run_that_fails_or_is_stopped_or_dropped_adds_nothing_and_frees_it():
    token = CancelToken()
    client = ScriptedClient(
        ["half", AgentStreamError("broken")],
        ["half", token.cancel, "more"],
        ["half ", "more"],
        "whole",
    )
    agent = Agent("a", client=client)
    conversation = Conversation([ChatMessage.user("hi"), ChatMessage.assistant("hello")])
    before = conversation.messages
    with pytest.raises(AgentStreamError):
        agent.execute("x", conversation=conversation)
    with pytest.raises(Cancelled):
        agent.execute("x", conversation=conversation, cancel=token)
    with agent.stream("x", conversation=conversation) as stream:
        next(stream)
    assert conversation.messages == before
    agent.execute("x", conversation=conversation)
    assert len(conversation) == 4


def test_one_run_at_a_time():
    entered, release = threading.Event(), threading.Event()
    client = ScriptedClient([entered.set, lambda: release.wait(10), "done"], "never")
    agent = Agent("a", client=client)
    conversation = Conversation()
    task = Task(lambda: agent.execute("x", conversation=conversation))
    assert entered.wait(10)
    with pytest.raises(RuntimeError, match="one run at a time"):
        agent.execute("y", conversation=conversation)
    release.set()
    assert task.result().response == "done"
    assert shapes(conversation.messages)[0] == ("user", "x", [], None)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    client = ScriptedClient([CALL], "It is 3 – a 😀 \ud83d.")
    conversation = Conversation(max_tokens=5000)
    Agent("adder", client=client, tools=[add]).execute(
        [{"type": "text", "text": "1 + 2?"}], conversation=conversation
    )
    path = tmp_path / "talk.json"
    conversation.save(path)
    conversation.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["talk.json"]
    again = Conversation.load(path)
    assert shapes(again.messages) == shapes(conversation.messages)
    assert again.messages[1].tool_calls == (CALL,)
    assert (again.max_tokens, again.tokens) == (5000, conversation.tokens)
    assert json.loads(path.read_text())["messages"][1]["tool_calls"][0]["function"]["name"] == "add"


def test_save_leaves_the_old_file_whole_if_it_cannot_be_written(tmp_path):
    path = tmp_path / "talk.json"
    Conversation([ChatMessage.user("old")]).save(path)
    bad = Conversation([ChatMessage.user([{"type": "text", "text": object()}])])
    with pytest.raises(ConfigError):
        bad.save(path)
    assert Conversation.load(path).messages[0].content == "old"
    with pytest.raises(OSError):
        Conversation().save(tmp_path / "none" / "talk.json")
    assert [p.name for p in tmp_path.iterdir()] == ["talk.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"version": 2, "messages": []}',
        '{"version": 1, "messages": [3]}',
        '{"version": 1, "messages": [{"role": "king", "content": "x"}]}',
        '{"version": 1, "messages": [{"role": "user", "content": 3}]}',
        '{"version": 1, "messages": [{"role": "tool", "content": "3", "tool_call_id": "x"}]}',
        '{"version": 1, "max_tokens": "many", "messages": []}',
    ],
    ids=lambda t: t[:40],
)
def test_what_is_no_conversation_is_refused(tmp_path, text):
    path = tmp_path / "talk.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Conversation.load(path)


def test_a_call_is_added_with_its_results_or_not_at_all():
    asks = ChatMessage.assistant(None, [CALL])
    result = ChatMessage.tool("call_1", "3")
    conversation = Conversation([ChatMessage.user("x")])
    for bad in (
        [asks],
        [result],
        [asks, ChatMessage.user("y"), result],
        [asks, result, result],
        ["text"],
    ):
        with pytest.raises(ConfigError):
            conversation.add(*bad)
    conversation.add(asks, result)
    assert len(conversation) == 3
    with pytest.raises(ConfigError):
        Conversation(max_tokens=0)


def turn(number: int, calls: int) -> list:
    ids = [f"{number}.{n}" for n in range(calls)]
    said = [ChatMessage.user(f"question {number} " + "x" * 40)]
    for n in range(0, calls, 2):
        pair = ids[n : n + 2]
        said.append(ChatMessage.assistant(None, [ToolCall(i, "add", "{}") for i in pair]))
        said += [ChatMessage.tool(i, "result " * 10) for i in pair]
    return [*said, ChatMessage.assistant(f"answer {number}")]


def whole(messages) -> None:
    """No call without its results, in its place, and no result without its call."""
    waiting = []
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id == waiting.pop(0)
        else:
            assert waiting == []
            waiting = [call.id for call in message.tool_calls]
    assert waiting == []


def test_any_budget_keeps_within_itself_and_splits_no_call_from_its_result():
    randomly = random.Random(7)
    for _ in range(300):
        turns = [turn(n, randomly.randrange(6)) for n in range(randomly.randrange(1, 5))]
        budget = randomly.randrange(1, 400)
        conversation = Conversation(max_tokens=budget)
        for said in turns:
            conversation.add(*said)
            whole(conversation.messages)
            assert conversation.tokens <= budget
            kept = conversation.messages
            assert not kept or kept[-1] == said[-1], "the newest goes last"
            assert not kept or kept[0].role == "user"


def test_whole_turns_go_oldest_first_and_then_the_last_ones_calls():
    first, second = turn(1, 2), turn(2, 4)
    everything = sum(map(estimate_tokens, first + second))
    assert Conversation(first + second, max_tokens=everything).messages == (*first, *second)
    assert Conversation(first + second, max_tokens=everything - 1).messages == tuple(second)
    size = sum(map(estimate_tokens, second))
    smaller = Conversation(first + second, max_tokens=size - 1).messages
    assert smaller == (second[0], *second[4:])
    ends = estimate_tokens(second[0]) + estimate_tokens(second[-1])
    assert Conversation(second, max_tokens=ends).messages == (second[0], second[-1])
    assert Conversation(second, max_tokens=ends - 1).messages == ()


def test_the_budget_counts_the_new_message_and_an_estimate_of_ones_own():
    client = ScriptedClient("three", "four")
    agent = Agent("a", client=client)
    conversation = Conversation(max_tokens=4, estimate=lambda message: 1)
    for text in ("one", "two"):
        conversation.add(ChatMessage.user(text), ChatMessage.assistant(text))
    agent.execute("3", conversation=conversation)
    assert [m.content for m in client.requests[0].messages] == ["two", "two", "3"]
    assert [m.content for m in conversation.messages] == ["two", "two", "3", "three"]


def test_its_repr_tells_no_words():
    assert repr(Conversation([ChatMessage.user("secret")])) == "<Conversation of 1 messages>"


# --- what it costs, and whose it is ---------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000_000}},
        {"type": "input_audio", "input_audio": {"data": "A" * 4_000_000, "format": "wav"}},
        {"type": "file", "file": {"file_data": "A" * 4_000_000}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ],
    ids=["picture", "sound", "file", "address"],
)
def test_t11_a_picture_counts_a_flat_number(part):
    text = {"type": "text", "text": "What is this?"}
    words = estimate_tokens(ChatMessage.user([text]))
    one = estimate_tokens(ChatMessage.user([text, part]))
    assert 0 < one - words < 2000
    assert estimate_tokens(ChatMessage.user([text, part, part])) - one == one - words
    conversation = Conversation(max_tokens=5000)
    conversation.add(ChatMessage.user([text, part]), ChatMessage.assistant("A cat."))
    assert len(conversation.fitted(ChatMessage.user([text, part]))) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
@pytest.mark.parametrize(("before", "after"), [(None, 0o600), (0o600, 0o600), (0o640, 0o640)])
def test_b21_a_saved_conversation_is_for_its_owner(tmp_path, before, after):
    path = tmp_path / "talk.json"
    if before is not None:
        path.write_text("old")
        path.chmod(before)
    mask = os.umask(0)
    try:
        Conversation([ChatMessage.user("hi"), ChatMessage.assistant("hello")]).save(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == after
    assert len(Conversation.load(path)) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.json"]


def test_t01_calls_are_kept_as_every_server_can_read_them(tmp_path):
    said = [
        ChatMessage.user("a"),
        ChatMessage.assistant(None, [ToolCall("1", "get weather!", '{"city": "Pa')]),
        ChatMessage.tool("1", "Error"),
        ChatMessage.assistant("b"),
    ]
    written = {"version": 1, "max_tokens": None, "messages": [m.to_dict() for m in said]}
    (tmp_path / "old.json").write_text(json.dumps(written))
    for conversation in (Conversation(said), Conversation.load(tmp_path / "old.json")):
        (call,) = conversation.messages[1].tool_calls
        assert call.name == "get_weather_"
        assert isinstance(json.loads(call.arguments), dict)


def test_t02_empty_answers_are_left_out_with_their_turns():
    said = [
        ChatMessage.user("a"),
        ChatMessage.assistant("b"),
        ChatMessage.user("c"),
        ChatMessage.assistant(""),
        ChatMessage.user("d"),
        ChatMessage.assistant(None),
        ChatMessage.assistant("e"),
    ]
    kept = [(m.role, m.content) for m in Conversation(said).messages]
    assert kept == [("user", "a"), ("assistant", "b"), ("user", "d"), ("assistant", "e")]


# --- keep="all" -----------------------------------------------------------------------------


def kept(*script, tools=(), max_rounds=10, **settings):
    """Roles and contents after one run of that script that does not complete; and the agent."""
    token = CancelToken()
    client = ScriptedClient(
        [token.cancel if one is STOP else one for one in script[0]], *script[1:]
    )
    limits = ToolLimits(max_rounds=max_rounds)
    agent = Agent("a", client=client, tools=tools, tool_limits=limits)
    conversation = Conversation(keep="all")
    with pytest.raises((AgentStreamError, RuntimeError)):
        agent.run("q", conversation=conversation, cancel=token)
    return [(m.role, m.content) for m in conversation.messages], conversation, agent


STOP = object()


def test_keep_all_keeps_the_question_and_what_was_said():
    for broken in (AgentStreamError("broken"), RuntimeError("odd"), STOP):
        found, _, _ = kept(["half ", "an ", broken, "answer"])
        assert found == [("user", "q"), ("assistant", "half an ")]
    found, _, _ = kept([AgentStreamError("broken")])
    assert found == [("user", "q")]


def test_keep_all_keeps_the_rounds_that_were_made_with_their_results():
    found, _, _ = kept([CALL], ["so ", AgentStreamError("broken")], tools=[add])
    assert found == [("user", "q"), ("assistant", None), ("tool", "3"), ("assistant", "so ")]
    found, _, _ = kept(["I ", CALL], tools=[add], max_rounds=1)  # the call is not made
    assert found == [("user", "q"), ("assistant", "I ")]


def test_keep_all_keeps_calls_that_were_stopped_with_what_is_known_of_them():
    token = CancelToken()

    @tool
    def stop_it(a: int) -> str:
        """Stop the run that calls this."""
        token.cancel("enough")
        return "stopped"

    call = ToolCall("call_1", "stop_it", '{"a": 1}')
    agent = Agent("a", client=ScriptedClient(["I call. ", call]), tools=[stop_it])
    conversation = Conversation(keep="all")
    with pytest.raises(Cancelled):
        agent.run("q", conversation=conversation, cancel=token)
    roles = [(m.role, [c.id for c in m.tool_calls]) for m in conversation.messages]
    assert roles == [("user", []), ("assistant", ["call_1"]), ("tool", [])]
    assert conversation.messages[2].content


def test_keep_all_keeps_a_stream_that_was_left():
    agent = Agent("a", client=ScriptedClient(["half ", "more"]))
    conversation = Conversation(keep="all")
    with agent.stream("q", conversation=conversation) as stream:
        next(stream)
    assert [m.content for m in conversation.messages] == ["q", "half "]


def test_a_question_without_an_answer_is_told_with_the_next_one():
    _, conversation, agent = kept([AgentStreamError("broken")], "answer", "more")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    agent.run([{"type": "text", "text": "again"}, picture], conversation=conversation)
    (sent,) = agent.client.requests[-1].messages
    assert sent.content == [
        {"type": "text", "text": "q"},
        {"type": "text", "text": "again"},
        picture,
    ]
    assert [m.role for m in conversation.messages] == ["user", "user", "assistant"]
    conversation.add(ChatMessage.user("well?"))
    agent.run("hm?", conversation=conversation)
    assert agent.client.requests[-1].messages[-1].content == "well?\n\nhm?"


def test_keep_is_checked_and_saved(tmp_path):
    with pytest.raises(ConfigError, match="completed, all"):
        Conversation(keep="none")
    Conversation(keep="all").save(tmp_path / "c.json")
    assert Conversation.load(tmp_path / "c.json").keep == "all"
    old = {"version": 1, "max_tokens": None, "messages": []}
    assert Conversation.from_dict(old).keep == "completed"


def test_an_agent_refuses_a_conversation_and_says_where_it_goes():
    with pytest.raises(ConfigError, match=r"runtime\.run\(agent, text, conversation="):
        Agent("a", client=ScriptedClient("x"), conversation=Conversation())
