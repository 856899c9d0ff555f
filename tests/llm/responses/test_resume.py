"""A response whose stream breaks off is gone on with: no word twice, none lost."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any, Dict, List

import pytest

from agentstream import Agent, CancelToken, OpenAIClient, errors
from agentstream.llm.settings import Retries, Timeouts
from agentstream.testing import Cut, Hang, Reply, responses_chunks
from tests.kit.strict import thought
from tests.kit.support import KEY, ask

ANSWER = [
    thought(1),
    "Gr\u00fc",
    "\u00dfe \U0001f600 ",
    "all.",
    ("look", {"at": "\u00e9"}),
    "Then.",
]


class Keeping:
    """A provider that writes in the background, and gives what comes after an event's number.

    Args:
        cuts: where each connection is cut, in bytes of what it sends; the last one is not.
    """

    def __init__(self, server, cuts=(), events=None):
        self.server = server
        self.events = events or responses_chunks(*ANSWER)
        self.cuts = list(cuts)
        self.hang = False
        self.posts: List[Dict[str, Any]] = []
        self.gets: List[int] = []
        server.route("/responses", self._post)
        server.route("/responses/resp_scripted", self._get)

    def _post(self, request):
        assert request.method == "POST"
        self.posts.append(request.json)
        return self._reply(self.events)

    def _get(self, request):
        assert (request.method, request.body) == ("GET", b"")
        query = dict(urllib.parse.parse_qsl(request.path.partition("?")[2]))
        assert query.pop("stream") == "true"
        self.gets.append(int(query.pop("starting_after")))
        assert query == {}
        return self._reply(self.events[self.gets[-1] + 1 :])

    def _reply(self, events):
        body = b"".join(events)
        if not self.cuts:
            return Reply(body)
        return Reply(body[: self.cuts.pop(0)], Hang() if self.hang else Cut())


def client_of(server, **settings):
    retries = Retries(settings.pop("attempts", 3), resume=True, backoff=0.0)
    settings = {"api": "responses", "store": True, "api_key": KEY, "retries": retries, **settings}
    return OpenAIClient("m", base_url=server.url, **settings)


def told(response):
    calls = [tuple(call) for call in response.tool_calls]
    return response.content, response.reasoning, calls, response.finish_reason, response.usage[:3]


@pytest.fixture
def whole(server):
    Keeping(server)
    with client_of(server) as client:
        response = ask(client).response
    assert response.content == "Gr\u00fc\u00dfe \U0001f600 all.Then."
    return response


def test_cut_anywhere_the_answer_is_the_same_and_asked_for_once(server, whole):
    body = b"".join(responses_chunks(*ANSWER))
    events = [json.loads(e.split(b"data: ")[1]) for e in responses_chunks(*ANSWER)]
    places = [0, *(n for n in range(11, len(body) - 2, 97))]  # over each event and its middle
    with client_of(server) as client:
        for place in places:
            keeping = Keeping(server, [place])
            result = ask(client)
            assert result.error is None, place
            assert told(result.response) == told(whole), place
            assert result.response.provider_state == whole.provider_state, place
            seen = body[:place].count(b"\n\n")  # events that were whole
            assert keeping.gets == ([seen - 1] if seen else []), place
            assert len(keeping.posts) == (1 if seen else 2), place
    assert len(places) > 40
    assert events[0]["sequence_number"] == 0


def test_more_than_one_break(server, whole):
    keeping = Keeping(server, [1500, 300, 700])
    with client_of(server) as client:
        result = ask(client)
    assert (result.error, told(result.response)) == (None, told(whole))
    assert len(keeping.gets) == 3
    assert keeping.gets == sorted(keeping.gets)
    assert sum("resumed" in warning for warning in result.response.warnings) == 3
    assert [retry.resumed for retry in result.retries] == [True] * 3
    assert keeping.posts[0]["background"] is True
    assert keeping.posts[0]["store"] is True


def test_a_stall_is_a_break_too(server, whole):
    keeping = Keeping(server, [1500])
    keeping.hang = True
    with client_of(server, timeouts=Timeouts(stall=0.4)) as client:
        result = ask(client)
    assert (result.error, told(result.response), len(keeping.gets)) == (None, told(whole), 1)


def test_an_agent_goes_on_with_it(server):
    events = responses_chunks("One ", "two ", "three.")
    keeping = Keeping(server, [len(b"".join(events[:6]))], events)
    with client_of(server) as client:
        output = Agent("a", client=client).execute("Count!")
    assert (output.response, len(keeping.gets)) == ("One two three.", 1)


def test_reasoning_between_tags_is_split_over_a_break(server):
    events = responses_chunks("<think>Hm", " hm.</think>", "One ", " two ", "three.")
    for cut in range(3, len(events)):
        keeping = Keeping(server, [len(b"".join(events[:cut]))], events)
        with client_of(server, think_tags=True) as client:
            response = ask(client).response
        assert (response.content, response.reasoning) == ("One  two three.", "Hm hm."), cut
        assert len(keeping.posts) == 1


def test_breaks_are_counted_and_the_last_one_is_told(server):
    keeping = Keeping(server, [1500, 100, 100])
    with client_of(server, attempts=2) as client:
        result = ask(client)
    assert type(result.error) is errors.StreamTruncated
    assert result.error.partial.content == result.text
    assert len(keeping.gets) == 2


@pytest.mark.parametrize("status", [404, 400, 500])
def test_a_response_that_is_gone_is_the_break_it_was(server, status):
    Keeping(server, [1500])
    gone = {"error": {"message": "no such response"}}
    server.route("/responses/resp_scripted", lambda _: Reply.json(gone, status=status))
    with client_of(server, attempts=1) as client:
        result = ask(client)
    assert type(result.error) is errors.StreamTruncated
    assert "no such response" in str(result.error)
    assert result.response.reasoning


def test_one_that_is_gone_before_its_first_word_is_asked_for_anew(server):
    events = responses_chunks("One.")
    keeping = Keeping(server, [len(b"".join(events[:2]))], events)
    server.route("/responses/resp_scripted", lambda _: Reply.json({"error": "no"}, status=404))
    with client_of(server) as client:
        result = ask(client)
    assert (result.error, result.text, len(keeping.posts)) == (None, "One.", 2)


def test_events_that_come_again_count_once(server, whole):
    keeping = Keeping(server, [1500])
    server.route("/responses/resp_scripted", lambda _: Reply(b"".join(keeping.events)))
    with client_of(server) as client:
        result = ask(client)
    assert (result.error, told(result.response)) == (None, told(whole))


def test_another_answer_than_the_one_that_was_kept_is_told(server):
    events = responses_chunks("One ", "two ", "three.")
    keeping = Keeping(server, [len(b"".join(events[:6]))], events)
    last = [events[-1].replace(b"three.", b"three, four.")]
    server.route("/responses/resp_scripted", lambda _: Reply(b"".join(last)))
    with client_of(server) as client:
        result = ask(client)
    assert len(keeping.posts) == 1
    assert any("has kept" in warning for warning in result.response.warnings)


@pytest.mark.parametrize("odd", [[], 3, None, {"output": 3}, {"output": [3, {"type": "message"}]}])
def test_an_odd_end_of_what_was_resumed_is_no_failure_of_ours(server, odd):
    events = responses_chunks("One ", "two ", "three.")
    Keeping(server, [len(b"".join(events[:6]))], events)
    end = {"type": "response.completed", "sequence_number": 99, "response": odd}
    rest = b"".join(events[6:-1]) + b"data: " + json.dumps(end).encode() + b"\n\n"
    server.route("/responses/resp_scripted", lambda _: Reply(rest))
    with client_of(server) as client:
        result = ask(client)
    assert (result.error, result.text) == (None, "One two three.")


def test_a_server_that_does_not_number_its_events_is_not_asked(server):
    events = [e.replace(b'"sequence_number":', b'"n":') for e in responses_chunks(*ANSWER)]
    zeros = responses_chunks(*ANSWER)
    zeros = [e.rpartition(b'"sequence_number":')[0] + b'"sequence_number":0}\n\n' for e in zeros]
    for body in (events, zeros):
        keeping = Keeping(server, [1500], body)
        with client_of(server) as client:
            result = ask(client)
        assert type(result.error) is errors.StreamTruncated
        assert keeping.gets == []
        with client_of(server) as client:  # and whole it is whole
            assert ask(client).error is None


def test_a_server_that_knows_no_background_is_asked_without_and_not_again(server):
    complaint = {"error": {"message": "Unknown parameter: 'background'."}}
    server.reply_json(complaint, status=400)
    for _ in range(2):
        server.reply(*responses_chunks("Yes."))
    with client_of(server) as client:
        assert ask(client).text == "Yes."
        assert ask(client).text == "Yes."
    assert ["background" in request.json for request in server.requests] == [True, False, False]


@pytest.mark.parametrize("how", [{"store": False}, {"retries": Retries(2)}])
def test_only_who_asked_for_it(server, how):
    """It keeps the prompt at the provider."""
    keeping = Keeping(server, [1500])
    with client_of(server, **how) as client:
        result = ask(client)
    assert type(result.error) is errors.StreamTruncated
    assert "background" not in keeping.posts[0]
    assert keeping.gets == []


def test_a_cancel_between_the_parts(server):
    keeping = Keeping(server, [1500])
    token = CancelToken()
    keeping.server.route(
        "/responses/resp_scripted", lambda _: (token.cancel("x"), Reply(Hang()))[1]
    )
    with client_of(server) as client:
        result = ask(client, cancel=token)
    assert type(result.error) is errors.Cancelled
    assert result.response.reasoning


def test_an_id_is_no_path(server):
    events = [e.replace(b"resp_scripted", b"../x?y=/z") for e in responses_chunks("One ", "two.")]
    Keeping(server, [len(b"".join(events[:5]))], events)
    seen = []
    for path in ("/responses/..%2Fx%3Fy%3D%2Fz",):
        server.route(path, lambda request: (seen.append(request.path), Reply(*events[5:]))[1])
    with client_of(server) as client:
        assert ask(client).text == "One two."
    assert len(seen) == 1
