"""agentstream chat at a terminal: a conversation, its commands, its keys, and what is kept."""

from __future__ import annotations

import json
import signal
import stat
import sys
import time

import pytest

from agentstream import ChatMessage
from agentstream.agent.conversation import Conversation
from agentstream.cli.chats import begin, names
from agentstream.testing import Gate, Hang, Reply, text_chunks
from tests.kit.cli_runs import asked, halted, queue
from tests.kit.programs import settle
from tests.kit.support import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="terminals and signals of POSIX")

XTERM = {"TERM": "xterm"}
#: What readline writes as it begins to read.
READS = "> "


class Talker:
    """A person at the terminal of a conversation: types lines, and waits for what is shown."""

    def __init__(self, cli, *words, env=XTERM, shows="Ctrl-D leaves"):
        self.command = cli.in_control(sys.executable, "-m", "agentstream", "chat", *words, env=env)
        self._seen = 0
        self.wait(shows)

    def wait(self, text):
        """Read on until this is shown, behind what was waited for before."""
        end = time.monotonic() + 30.0
        while text not in self.command.screen[self._seen :]:
            more = time.monotonic() < end and self.command._pump(0.5)
            assert more, (text, self.command.screen[self._seen :])
        self._seen = self.command.screen.index(text, self._seen) + len(text)

    def say(self, line, shows):
        """Type a line once the prompt is there, and wait for what it brings."""
        self.wait(READS)
        self.command.type(line.encode() + b"\r")
        self.wait(shows)

    def press(self, key, shows):
        """Press a key once the main thread waits: Ctrl-C just before it does is not seen yet."""
        settle(self.command.process.pid)
        self.command.type(key)
        self.wait(shows)

    def leave(self, code=0, key=b"\x04"):
        self.wait(READS)
        settle(self.command.process.pid)
        self.command.type(key)
        assert self.command.finish() == code, self.command.screen
        return self.command.screen


def said(server, number=-1):
    return [(one["role"], one["content"]) for one in asked(server, number)]


def test_what_was_said_goes_with_the_next_question_and_is_kept(cli, here, server):
    server.default(*text_chunks("An answer."))
    queue(server, Reply(*text_chunks("First answer.")), Reply(*text_chunks("Second answer.")))
    talker = Talker(cli, "--system", "Be brief.")
    talker.say("one?", "First answer.")
    talker.say("/nosuch thing", "there is no /nosuch: /help lists them; //nosuch is sent")
    talker.say("//two?", "Second answer.")
    talker.say('"""', "... ")
    talker.command.type(b"a\r")
    talker.wait("... ")
    talker.command.type(b'b"""\r')
    talker.wait("An answer.")
    talker.leave()
    assert [said(server, number)[-1][1] for number in range(3)] == ["one?", "/two?", "a\nb"]
    assert said(server) == [
        ("system", "Be brief."),
        ("user", "one?"),
        ("assistant", "First answer."),
        ("user", "/two?"),
        ("assistant", "Second answer."),
        ("user", "a\nb"),
    ]
    kept = cli.home / ".local/state/agentstream"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    for name in ("chats.db", "history"):
        assert stat.S_IMODE((kept / name).stat().st_mode) == 0o600
    typed = [json.loads(line) for line in (kept / "history").read_text().splitlines()]
    assert typed == ["one?", "/nosuch thing", "//two?", "a\nb"]
    # ... and another command goes on with it, whatever its output goes to.
    assert here("chat", "-c", "more?").out == "An answer.\n"
    assert [content for _, content in said(server)][-3:] == ["a\nb", "An answer.", "more?"]
    assert said(server)[0] == (
        "system",
        "Be brief.",
    )  # as it was held, unless a flag says otherwise
    here("chat", "-c", "more?", "--system", "Be long.")
    here("chat", "-c", "more?", "--no-save")
    assert [content for role, content in said(server) if role == "system"] == ["Be long."]
    (listed,) = here("chat", "--list", "--json").events
    assert (listed["messages"], listed["begins"]) == (10, "one?")
    here("chat", "--forget", listed["name"])
    assert here("chat", "--list").out == ""
    assert here("chat", "--forget", "x", code=2).line.startswith("there is no conversation 'x'")
    told = here("chat", "-c", "more?", code=2).line
    assert told.startswith("there is no conversation to go on with: `agentstream chat` begins one")


def test_a_turn_that_fails_is_told_and_can_be_asked_again(cli, server):
    server.default(*text_chunks("Fine."))
    talker = Talker(cli, "--no-save")
    talker.say("one?", "Fine.")
    server.reply(b"no", status=400, content_type="text/plain")
    talker.say("two?", "BadRequest: HTTP 400")
    talker.wait("if it is told too much: /trim, then /retry")
    talker.say("/retry", "Fine.")
    assert [content for _, content in said(server)] == ["one?", "Fine.", "two?"]
    server.reply(b"no", status=403, content_type="text/plain")
    talker.say("three?", "/retry asks again")
    talker.say("four?", "Fine.")  # without the one that failed
    assert [content for _, content in said(server)][-3:] == ["two?", "Fine.", "four?"]
    # An answer there is may be had anew; if that fails it stays.
    server.reply(b"no", status=400, content_type="text/plain")
    talker.say("/retry", "then /retry")
    talker.say("/undo", "forgotten; 4 messages are left")
    queue(server, Reply(*text_chunks("Better.")))
    talker.say("/retry", "Better.")
    talker.say("/save said.md", "4 messages are in said.md")
    talker.say("/save said.md", "/save: said.md is there already: name another file")
    talker.say("/save said.json", "4 messages are in said.json")
    server.reply(b"no", status=400, content_type="text/plain")
    talker.say("five?", "then /retry")
    talker.say("/trim", "the model is told the last 2 messages from now on")
    talker.say("/retry", "Fine.")
    assert [content for _, content in said(server)] == ["two?", "Better.", "five?"]
    talker.leave()
    text = (
        "## user\n\none?\n\n## assistant\n\nFine.\n\n## user\n\ntwo?\n\n## assistant\n\nBetter.\n"
    )
    assert (cli.folder / "said.md").read_text() == text
    kept = Conversation.load(cli.folder / "said.json")
    assert [message.content for message in kept.messages] == ["one?", "Fine.", "two?", "Better."]
    assert stat.S_IMODE((cli.folder / "said.md").stat().st_mode) == 0o600
    assert list(cli.home.iterdir()) == []  # --no-save


def test_what_goes_wrong_is_told_with_what_there_is_to_do(cli, server):
    server.default(b"no", status=401, content_type="text/plain")
    talker = Talker(cli, env={**XTERM, "AGENTSTREAM_API_KEY": ""})
    talker.say("one?", "set AGENTSTREAM_API_KEY")
    talker.wait("/retry asks again")
    talker.leave()


def test_ctrl_c_stops_the_answer_and_twice_at_the_prompt_leaves(cli, server):
    server.default(*text_chunks("Fine."))
    queue(server, halted("Once upon", " a time"), Reply(Hang()))
    talker = Talker(cli)
    talker.say("a story", "a time")
    talker.press(b"\x03", "(stopped; /retry asks again, /undo forgets it)")
    talker.wait(READS)
    talker.command.type(b"another\r")
    wait_until(lambda: len(server.requests) == 2)
    talker.press(b"\x03", "(stopped; /retry asks again)")
    talker.say("and then?", "Fine.")
    assert [content for _, content in said(server)] == [
        *("a story", "Once upon a time"),  # as far as it went; of what was not answered nothing
        "and then?",
    ]
    talker.wait(READS)
    talker.press(b"not sent", "not sent")
    talker.press(b"\x03", "(Ctrl-C again, Ctrl-D or /exit leaves)")
    talker.say("sent", "Fine.")
    assert said(server)[-1] == ("user", "sent")
    talker.wait(READS)
    talker.press(b"\x03", "(Ctrl-C again, Ctrl-D or /exit leaves)")
    talker.leave(130, b"\x03")
    # Other signals end it as they end any command, at the prompt and in an answer.
    queue(server, halted("Once"))
    talker = Talker(cli, "-c")
    assert "going on with " in talker.command.screen
    talker.say("again", "Once")
    talker.command.send(signal.SIGTERM)
    assert talker.command.finish() == 143
    talker = Talker(cli, "-q", shows=READS)
    talker.command.send(signal.SIGTERM)
    assert talker.command.finish() == 143


LINES = [f"line {number}" for number in range(500)]


@pytest.mark.parametrize("env", [XTERM, {"TERM": "dumb"}], ids=["xterm", "dumb"])
def test_a_paste_of_500_lines_is_one_message(cli, server, env):
    server.default(*text_chunks("Fine."))
    talker = Talker(cli, env=env)
    talker.wait(READS)
    if env is XTERM:  # the terminal is asked to tell a paste from typing
        assert "\x1b[?2004h" in talker.command.screen
    text = "\r".join(LINES).encode()
    talker.command.type(b"\x1b[200~" + text + b"\x1b[201~" if env is XTERM else text)
    talker.press(b"\r", "Fine.")
    talker.say("/exit", "")
    assert talker.command.finish() == 0
    (request,) = server.requests
    assert request.json["messages"][-1]["content"] == "\n".join(LINES)


def test_what_is_typed_while_an_answer_arrives_is_one_message(cli, server):
    server.default(*text_chunks("Fine."))
    gate = Gate()
    queue(server, halted("Wait", gate=gate))
    talker = Talker(cli)
    talker.say("one?", "Wait")
    talker.command.type(b"two?\rthree?\r/exit\r")
    talker.wait("three?")
    gate.open()
    assert talker.command.finish() == 0
    assert [said(server, number)[-1][1] for number in range(2)] == ["one?", "two?\nthree?"]
    assert len(server.requests) == 2


def test_models_and_instructions_change_in_mid_conversation(cli, server):
    server.default(*text_chunks("Fine."))
    talker = Talker(cli, "--model", "m1", "--deadline", "2")
    talker.say("/model m2", "'m2' at http://")
    talker.say("/system Be kind.", "Be kind.")
    talker.say("one?", "Fine.")
    assert said(server) == [("system", "Be kind."), ("user", "one?")]
    assert server.requests[-1].json["model"] == "m2"
    talker.say("/system -", "no instructions")
    queue(server, halted("Late"))
    talker.say("two?", "DeadlineExceeded")  # it bounds each answer, not the conversation
    talker.say("/new", "a new conversation")
    talker.say("/undo", "nothing has been said yet")
    talker.say("three?", "Fine.")
    assert said(server) == [("user", "three?")]
    talker.say("/help", "Ctrl-D leaves")
    talker.say("/exit now", "/exit stands alone")
    talker.leave()


def test_conversations_begun_in_the_same_second_are_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTSTREAM_STATE", str(tmp_path))
    monkeypatch.setattr("agentstream.cli.chats.time.strftime", lambda _: "now")
    for number in range(3):
        chat = begin(keep=True)
        assert len(chat.conversation) == 0
        chat.conversation.add(ChatMessage.user(f"{number}?"), ChatMessage.assistant("Fine."))
    assert len(set(names())) == 3


def test_a_question_may_belong_to_a_conversation(here, cli, server):
    server.default(*text_chunks("Fine."))
    here("chat", "one?", "--conversation", "trip")
    here("chat", "other?")
    assert here("chat", "two?", "--conversation", "trip", "--no-save", "--json").events
    assert [content for _, content in said(server)] == ["one?", "Fine.", "two?"]
    here("chat", "three?", "-c")
    assert [content for _, content in said(server)] == ["one?", "Fine.", "three?"]
    listed = here("chat", "--list").out
    assert listed.split() == ["trip", "4", "one?"]
    folder = cli.home / ".local/state/agentstream"
    assert [file.name for file in folder.iterdir()] == ["chats.db"]
