"""An answer that the server pauses (pause_turn, compaction): an agent sends it back, and it goes on."""

from __future__ import annotations

import pytest

from agentstream import Agent, ChatMessage, Conversation, ToolLimits
from agentstream.testing import Reply, messages_chunks
from tests.kit.strict import StrictMessages

SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "c"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"url": "u"}]}
PARTS = [
    [{"type": "thinking", "thinking": "Hm.", "signature": "S1"}, "Let me see. ", SEARCH],
    [FOUND, "It is "],
    ["so."],
]


class Pausing(StrictMessages):
    """Pauses all answers but the last."""

    word = "pause_turn"

    def reply(self, number):

        reason = self.word if number < len(self.answers) - 1 else "end_turn"
        return Reply(*messages_chunks(*self.answers[number], stop_reason=reason))

    def problem(self, body):
        """What was said so far stands at the end, as one turn, block for block."""
        said = [self.blocks(answer, n) for n, answer in enumerate(self.answers[: self.served])]
        blocks = [block for part in said for block in part]
        told = body["messages"][1]["content"] if blocks else []
        if told != blocks or len(body["messages"]) != 1 + bool(blocks):
            return f"altered: {body['messages'][1:]} is not {blocks}"
        return ""


@pytest.mark.parametrize("word", ["pause_turn", "compaction"])
def test_an_agent_goes_on_until_the_answer_is_whole(server, word):
    strict = Pausing(server, PARTS)
    strict.word = word
    conversation = Conversation()
    with strict.client() as client:
        agent = Agent("seer", client=client)
        output = agent.execute("Look!", conversation=conversation)
    assert strict.refused == []
    assert output.response == "Let me see. It is so."
    assert output.warnings == ()
    assert output.usage.prompt_tokens == 30
    assert [message.role for message in conversation.messages] == ["user", *["assistant"] * 3]


def test_a_pause_before_the_first_word_is_not_lost(server):
    strict = Pausing(server, [[SEARCH], [FOUND, "So."]])
    conversation = Conversation()
    with strict.client() as client:
        output = Agent("seer", client=client).execute("Look!", conversation=conversation)
    assert (strict.refused, output.response) == ([], "So.")
    assert len(conversation.messages) == 3


def test_pauses_without_end_are_bounded(server):
    strict = Pausing(server, [["a"], ["b"], ["c"], ["d"]])
    with strict.client() as client:
        agent = Agent("seer", client=client, tool_limits=ToolLimits(max_rounds=2))
        output = agent.execute("Look!")
    assert (strict.refused, strict.served, output.response) == ([], 2, "ab")


def test_who_talks_to_the_client_is_told_and_may_send_it_back(server):
    strict = Pausing(server, [[SEARCH], [FOUND, "So."]])
    with strict.client() as client:
        first = client.chat("Look!")
        assert first.goes_on
        assert first.finish_reason == "stop"
        assert any("paused" in warning for warning in first.warnings)
        said = ChatMessage.assistant(first.content, (), first.provider_state)
        second = client.chat([ChatMessage.user("Look!"), said])
    assert (strict.refused, second.content, second.goes_on) == ([], "So.", False)
    assert second.warnings == ()
