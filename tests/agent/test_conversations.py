"""Conversations in a file: what survives, several processes at once, kill -9, what is refused."""

from __future__ import annotations

import os
import pathlib
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from typing import Any, Dict, Iterable, List, Mapping, Sequence

import pytest

from agentstream import (
    Agent,
    ChatMessage,
    ConfigError,
    Conversation,
    Conversations,
    ConversationStore,
    LogError,
    Runtime,
    ToolCall,
    tool,
)
from agentstream.testing import ScriptedClient, ScriptedServer, messages_chunks
from tests.kit.programs import Program
from tests.kit.support import Task

STATE = {"provider": "acme", "items": [{"signature": "s" * 20, "encrypted": "\ud83d"}]}


@tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


def texts(conversation: Conversation) -> List[Any]:
    return [message.content for message in conversation.messages]


def test_calls_results_and_the_providers_state_come_back_as_they_were(tmp_path: Any) -> None:
    call = ToolCall("call_1", "add", '{"a": 1, "b": 2}')
    client = ScriptedClient(["Let me see. ", call], "It is 3 – a 😀.", "You are welcome.")
    agent = Agent("adder", client=client, tools=[add])
    chats = Conversations(tmp_path / "chats.db")
    agent.run("1 + 2?", conversation=chats.get("ada"))
    signed = ToolCall("call_2", "add", "{}")
    signed.extra_content = {"google": {"thought_signature": "abc"}}
    chats.get("ada").add(
        ChatMessage.user("and?"),
        ChatMessage.assistant("so", [signed], provider_state=STATE),
        ChatMessage.tool("call_2", "4"),
    )
    found = Conversations(tmp_path / "chats.db").get("ada").messages
    assert [message.role for message in found] == [
        *("user", "assistant", "tool", "assistant"),
        *("user", "assistant", "tool"),
    ]
    assert found[1].tool_calls == (call,)
    assert found[5].tool_calls[0].extra_content == signed.extra_content
    assert found[5].provider_state == STATE
    agent.run("Thanks!", conversation=chats.get("ada"))
    assert client.requests[-1].messages[:-1] == list(found)
    assert texts(chats.get("bob")) == []


def test_what_a_provider_wants_back_is_sent_back_by_another_process(
    server: ScriptedServer, tmp_path: Any
) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "of Anthropic's own"}
    server.reply(*messages_chunks(thought, ("add", '{"a": 1, "b": 2}')))
    server.reply(*messages_chunks("It is 3."))
    server.reply(*messages_chunks("Yes."))
    source = """
    def add(a: int, b: int) -> int:
        "Add two integers."
        return a + b
    client = AnthropicClient("m", api_key="k", base_url=arguments[1])
    agent = Agent("adder", client=client, tools=[add])
    with client, Runtime() as runtime:
        ada = Conversations(arguments[0]).get("ada")
        say(runtime.run(agent, arguments[2], conversation=ada).output)
    """
    for text, said in (("1 + 2?", "It is 3."), ("Sure?", "Yes.")):
        with Program(source, str(tmp_path / "chats.db"), server.url, text) as program:
            assert program.finish() == 0, program.errors
            assert program.lines == [said]
    sent = server.requests[-1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant"] * 2 + ["user"]
    assert sent[1]["content"][0] == thought
    assert [block["type"] for block in sent[1]["content"]] == ["thinking", "tool_use"]


def test_keys_delete_and_clear(tmp_path: pathlib.Path) -> None:
    chats = Conversations(tmp_path / "chats.db")
    for key in ("ada", "bob", "ada"):
        chats.get(key).add(ChatMessage.user("hi"), ChatMessage.assistant(f"hello {key}"))
    assert chats.keys() == ["ada", "bob"]
    held = chats.get("ada")
    assert len(held) == 4
    assert chats.delete("ada") is True
    assert chats.delete("ada") is False
    assert len(held) == held.tokens == 0
    chats.get("bob").clear()
    assert chats.keys() == []
    assert b"hello" not in (tmp_path / "chats.db").read_bytes()  # what is deleted is gone


def test_the_budget_bounds_what_is_read_and_the_file_keeps_all(tmp_path: pathlib.Path) -> None:
    chats = Conversations(tmp_path / "chats.db", max_tokens=30, estimate=lambda message: 10)
    for number in range(5):
        chats.get("ada").add(ChatMessage.user(f"q{number}"), ChatMessage.assistant(f"a{number}"))
    assert texts(chats.get("ada")) == ["q4", "a4"]
    assert chats.get("ada").tokens == 20
    everything = Conversations(tmp_path / "chats.db").get("ada")
    assert len(everything) == 10


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_the_file_is_its_owners_and_nothing_stays_open(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "chats.db"
    chats = Conversations(path)
    chats.get("ada").add(ChatMessage.user("hi"), ChatMessage.assistant("hello"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["chats.db"]


def test_what_cannot_be_used_is_told(tmp_path: pathlib.Path) -> None:
    for wrong in (":memory:", "", "file:x", 3):
        with pytest.raises(ConfigError, match="path"):
            Conversations(wrong)  # type: ignore[arg-type]
    for setting in ({"keep": "some"}, {"max_tokens": 0}, {"estimate": 3}, {"busy_timeout": 0}):
        with pytest.raises(ConfigError):
            Conversations(tmp_path / "a.db", **setting)  # type: ignore[arg-type]
    with pytest.raises(LogError, match="nowhere"):
        Conversations(tmp_path / "nowhere" / "a.db")
    chats = Conversations(tmp_path / "chats.db")
    for key in ("", 7, None, "x" * 257, "\ud800"):
        with pytest.raises(ConfigError, match="conversation's key"):
            chats.get(key)  # type: ignore[arg-type]
    (tmp_path / "other.txt").write_text("no database at all, " * 100)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    for name in ("other.txt", "other.db"):
        with pytest.raises(LogError, match=name):
            Conversations(tmp_path / name)
    (tmp_path / "chats.db").unlink()
    with pytest.raises(LogError, match=r"chats\.db"):
        len(chats.get("ada"))
    with pytest.raises(ConfigError, match="JSON"):
        Conversations(tmp_path / "b.db").get("a").add(
            ChatMessage.user("q"), ChatMessage.assistant("a", provider_state={"x": {1, 2}})
        )


def test_a_turn_that_cannot_be_kept_fails_the_run_with_its_words(tmp_path: pathlib.Path) -> None:
    chats = Conversations(tmp_path / "chats.db")
    agent = Agent("a", client=ScriptedClient([lambda: (tmp_path / "chats.db").unlink(), "words"]))
    conversation = chats.get("ada")
    with pytest.raises(LogError, match=r"chats\.db"):
        agent.run("q", conversation=conversation)


def test_two_runs_in_one_conversation_at_once_lose_nothing(tmp_path: pathlib.Path) -> None:
    both = threading.Barrier(2)
    client = ScriptedClient(*[[lambda: both.wait(10), "answer"]] * 2)
    agent = Agent("a", client=client)
    chats = Conversations(tmp_path / "chats.db")
    tasks = [
        Task(lambda text=text: agent.run(text, conversation=chats.get("ada")))
        for text in ("one", "two")
    ]
    for task in tasks:
        task.result()
    said = texts(chats.get("ada"))
    assert said in (["one", "answer", "two", "answer"], ["two", "answer", "one", "answer"])


WORKER = """
chats = Conversations(arguments[0])
name, count = arguments[1], int(arguments[2])
say("ready")
sys.stdin.readline()
for number in range(count):
    chats.get("ada").add(
        ChatMessage.user(f"{name} {number} q"), ChatMessage.assistant(f"{name} {number} a")
    )
    say(number)
say("done")
"""


def turns(path: pathlib.Path) -> List[str]:
    """The turns as "name number", each checked to be whole and in one piece."""
    said = texts(Conversations(path).get("ada"))
    assert [text[-1] for text in said] == ["q", "a"] * (len(said) // 2)
    questions, answers = [t[:-2] for t in said[::2]], [t[:-2] for t in said[1::2]]
    assert questions == answers
    return questions


def workers(path: pathlib.Path, count: int) -> List[Program]:
    found = [Program(WORKER, str(path), name, str(count), stdin=subprocess.PIPE) for name in "abc"]
    for program in found:
        program.expect("ready")
    for program in found:
        assert program.process.stdin is not None
        program.process.stdin.write(b"go\n")
        program.process.stdin.close()
    return found


def test_processes_that_write_at_once_lose_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "chats.db"
    for program in workers(path, 25):
        assert program.finish() == 0, program.errors
    found = turns(path)
    assert sorted(found) == sorted(f"{name} {n}" for name in "abc" for n in range(25))
    for name in "abc":
        assert [t for t in found if t[0] == name] == [f"{name} {n}" for n in range(25)]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_kill_in_the_middle_leaves_whole_turns_and_a_file_that_works(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "chats.db"
    killed, *others = workers(path, 60)
    killed.expect("20")
    killed.process.send_signal(signal.SIGKILL)
    killed.finish()
    for program in others:
        assert program.finish() == 0, program.errors
    found = turns(path)
    told = [int(line) for line in killed.lines if line.isdigit()]
    done = [t for t in found if t[0] == "a"]
    # What it was told is kept is kept; the one under way may be.
    assert done == [f"a {n}" for n in range(len(done))]
    assert len(done) in (told[-1] + 1, told[-1] + 2)
    assert len(found) == len(done) + 120


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_store_made_before_a_fork_works_in_both(tmp_path: pathlib.Path) -> None:
    source = """
    chats = Conversations(arguments[0])
    stop = threading.Event()
    def write():
        while not stop.wait(0.002):
            chats.get("busy").add(ChatMessage.user("q"), ChatMessage.assistant("a"))
    thread = threading.Thread(target=write)
    thread.start()
    for number in range(4):
        pid = os.fork()
        if not pid:
            chats.get("ada").add(ChatMessage.user(f"{number} q"), ChatMessage.assistant("a"))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    thread.join()
    say(len(chats.get("ada")))
    """
    with Program(source, str(tmp_path / "chats.db"), env={"PYTHONWARNINGS": "ignore"}) as program:
        assert program.finish() == 0, program.errors
        assert program.lines == ["8"]


class Dicts(ConversationStore):
    """The least a store can be."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.kept: Dict[str, List[Mapping[str, Any]]] = {}

    def read(self, key: str) -> Iterable[Mapping[str, Any]]:
        return reversed(self.kept.get(key, []))

    def append(self, key: str, messages: Sequence[Mapping[str, Any]]) -> None:
        self.kept.setdefault(key, []).extend(messages)

    def delete(self, key: str) -> bool:
        return bool(self.kept.pop(key, []))


def test_a_store_of_ones_own_is_three_methods(runtime: Runtime) -> None:
    chats = Dicts(keep="all")
    client = ScriptedClient("one", ["half", RuntimeError("broken")], "two")
    agent = Agent("a", client=client)
    runtime.run(agent, "first", conversation=chats.get("ada"))
    events = list(
        runtime.stream(agent, "second", conversation=chats.get("ada"), raise_on_failure=False)
    )
    assert events[-1].type == "workflow_failed"
    runtime.run(agent, "third", conversation=chats.get("ada"))
    said = ["first", "one", "second", "half", "third"]
    assert [message.content for message in client.requests[-1].messages] == said
    assert texts(chats.get("ada")) == [*said, "two"]
    assert "ada" not in repr(chats.get("ada"))


class InMemory(Conversation):
    """`get` of a single conversation, as stores have it."""

    def get(self, key: str) -> Conversation:
        return self


@pytest.mark.parametrize("kind", ["memory", "file", "own"])
def test_undo_forgets_the_last_turn(kind: str, tmp_path: pathlib.Path) -> None:
    chats: Any = {"memory": InMemory, "own": Dicts}.get(kind, Conversations)(
        *([tmp_path / "chats.db"] if kind == "file" else [])
    )
    held = chats.get("ada")
    call = ToolCall("c1", "add", "{}")
    first = [ChatMessage.system("Be kind."), ChatMessage.user("1?"), ChatMessage.assistant("1!")]
    second = [
        ChatMessage.user("2?"),
        ChatMessage.assistant(None, [call]),
        ChatMessage.tool("c1", "3"),
        ChatMessage.assistant("2!", provider_state=STATE),
    ]
    held.add(*first)
    if kind != "memory":
        chats.get("bob").add(ChatMessage.user("other"), ChatMessage.assistant("other"))
    held.add(*second)
    assert held.undo() == second
    assert list(held.messages) == first
    assert held.undo() == first[1:]
    assert held.undo() == []
    assert list(held.messages) == first[:1]  # no turn: nobody asked it
    if kind != "memory":
        assert texts(chats.get("bob")) == ["other", "other"]


class Failing(Dicts):
    """Its database is gone."""

    def append(self, key: str, messages: Sequence[Mapping[str, Any]]) -> None:
        raise OSError("the database is gone")


def test_a_store_that_fails_hides_no_error_and_is_asked_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chats = Failing(keep="all")
    agent = Agent("a", client=ScriptedClient(["half", RuntimeError("broken")], "whole"))
    with pytest.raises(RuntimeError, match="broken"):
        agent.run("q", conversation=chats.get("ada"))
    assert "not in its conversation" in caplog.text
    caplog.clear()
    with pytest.raises(OSError, match="gone"):
        agent.run("q", conversation=chats.get("ada"))
    assert "not in its conversation" not in caplog.text
