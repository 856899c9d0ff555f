"""The real llama.cpp (SmolLM2, embedded): what it says, stops, refuses, and goes on with.

Every bound is for a slow machine.  What needs a server that misbehaves is scripted
elsewhere; here is what only the real one can show.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.request
from typing import Any, Iterator, List, Tuple

import pytest

from agentstream import Agent, CancelToken
from agentstream.errors import AuthError, BadRequest, Cancelled, ConfigError, ConnectError
from agentstream.llm.clients import InsecureWarning, LlamaClient
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta
from agentstream.llm.settings import Limits, Retries
from agentstream.local import LocalServer
from agentstream.testing import ScriptedServer
from agentstream.testing.certificates import server_context
from tests.kit.delta_cuts import DeltaCuts
from tests.kit.fixtures_llama import without_llama
from tests.kit.support import Task, client_of, free_port, wait_until

pytestmark = pytest.mark.real_llama

KEY = "sk-local-0123456789"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}


def ask(text: str, **settings: Any) -> ChatRequest:
    settings.setdefault("temperature", 0.0)
    settings.setdefault("max_tokens", 16)
    return ChatRequest([ChatMessage.user(text)], **settings)


@pytest.fixture
def client(llama_server: LocalServer) -> Iterator[LlamaClient]:
    with LlamaClient(llama_server.url) as client:
        yield client


@pytest.fixture(scope="module")
def small_server() -> Iterator[LocalServer]:
    """One with a key and a context of 256 tokens."""
    if sys.version_info < (3, 10):
        pytest.skip("xllamacpp needs Python 3.10")
    try:
        server = LocalServer(n_ctx=256, n_parallel=1, api_key=KEY)
    except ConfigError as error:
        without_llama(str(error))
    else:
        with server:
            yield server


# --- answers --------------------------------------------------------------------------------


def test_an_answer_streams_and_adds_up(client: LlamaClient) -> None:
    with client.chat_stream(ask("Tell me a joke", max_tokens=24)) as stream:
        texts = list(stream)
    response = stream.response
    assert len(texts) > 5
    assert "".join(texts) == response.content
    assert response.finish_reason in ("stop", "length")
    assert response.model == "SmolLM2-135M-Instruct"
    assert response.response_id
    assert client.models() == ["SmolLM2-135M-Instruct"]
    assert response.reasoning == ""
    assert response.tool_calls == ()


def test_usage_is_the_servers_and_times_are_plausible(client: LlamaClient) -> None:
    response = client.chat(ask("Tell me about the sea.", max_tokens=12, extra={"ignore_eos": True}))
    usage = response.usage
    assert not usage.estimated
    assert usage.completion_tokens == 12
    assert usage.prompt_tokens is not None
    assert usage.prompt_tokens > 5
    assert usage.total_tokens == usage.prompt_tokens + 12
    assert response.finish_reason == "length"
    assert response.warnings == ("the answer was cut: finish_reason length",)
    assert response.first_token_s is not None
    assert 0 < response.first_token_s < response.duration_s
    assert response.tokens_per_second is not None
    assert response.tokens_per_second > 0.5


def test_chat_and_chat_stream_say_the_same(client: LlamaClient) -> None:
    request = ask("Name three colours.")
    assert client.chat(request).content == "".join(client.chat_stream(request))


def test_content_in_parts_is_read_as_text_is(client: LlamaClient) -> None:
    parts: List[Any] = [
        {"type": "text", "text": "Name three "},
        {"type": "text", "text": "colours."},
    ]
    message = ChatMessage.user(parts)
    response = client.chat(ChatRequest([message], temperature=0.0, max_tokens=8))
    assert response.content
    assert response.usage.prompt_tokens is not None
    assert response.usage.prompt_tokens > 5


def test_a_json_schema_is_kept(client: LlamaClient) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    request = ask("Describe Paris.", max_tokens=60, response_format=response_format)
    response = client.chat(request)
    assert response.finish_reason == "stop"
    found = json.loads(response.content)
    assert set(found) == {"city", "big"}
    assert isinstance(found["big"], bool)


def test_an_agent_answers(client: LlamaClient) -> None:
    output = Agent("greeter", client=client, temperature=0.0, max_tokens=12).execute("Hello!")
    assert output.response
    assert output.usage.completion_tokens
    assert not output.usage.estimated


def test_requests_in_parallel_do_not_mix(client: LlamaClient) -> None:
    questions = ["Say the word yes.", "Count to five.", "What is two plus two?"]
    alone = [client.chat(ask(question, max_tokens=5)) for question in questions]
    calls = [
        Task(lambda question=question: client.chat(ask(question, max_tokens=5)))  # type: ignore[misc]
        for question in questions
    ]
    for call, single in zip(calls, alone):
        response = call.result(30)
        # In a batch with others the arithmetic differs, and so may words; sizes do not.
        assert response.content[:1] == single.content[:1]
        assert response.usage.prompt_tokens == single.usage.prompt_tokens
        assert response.finish_reason in ("stop", "length")


def test_more_requests_than_the_pool_has_places_wait_their_turn(llama_server: LocalServer) -> None:
    with LlamaClient(llama_server.url, limits=Limits(pool_size=2)) as client:
        calls = [Task(lambda: client.chat(ask("Say yes.", max_tokens=4))) for _ in range(4)]
        assert all(call.result(30).content for call in calls)


# --- refusals and ends ----------------------------------------------------------------------


def test_a_prompt_that_does_not_fit_is_a_bad_request(small_server: LocalServer) -> None:
    with LlamaClient(small_server.url, api_key=KEY) as client:
        with pytest.raises(BadRequest) as caught:
            client.chat("word " * 400)
    assert caught.value.status == 400
    assert "context size" in str(caught.value)
    assert not caught.value.retryable


def test_a_context_that_fills_up_ends_the_answer_with_length(small_server: LocalServer) -> None:
    request = ask("sea " * 205, max_tokens=None, extra={"ignore_eos": True})
    with LlamaClient(small_server.url, api_key=KEY) as client:
        response = client.chat(request)
    assert response.finish_reason == "length"
    assert response.usage.total_tokens == 256
    assert response.content
    assert "the answer was cut: finish_reason length" in response.warnings


@pytest.mark.parametrize("key", [None, "sk-wrong-9876543210"])
def test_a_wrong_key_is_an_auth_error(small_server: LocalServer, key: Any) -> None:
    with LlamaClient(small_server.url, api_key=key) as client, pytest.raises(AuthError) as caught:
        client.chat("Hi")
    assert caught.value.status == 401
    assert "9876543210" not in str(caught.value)


def test_the_right_key_is_taken(small_server: LocalServer) -> None:
    with LlamaClient(small_server.url, api_key=KEY) as client:
        assert client.chat(ask("Hi", max_tokens=2)).content


@pytest.fixture
def tls(llama_server: LocalServer) -> Iterator[Tuple[DeltaCuts, str]]:
    """The real server behind TLS (xllamacpp is built without), and its certificate."""
    with tempfile.TemporaryDirectory() as name:
        directory: Any = type("Directory", (), {"name": name})
        context, certificate = server_context(directory, False)
        with DeltaCuts(llama_server.url, context) as proxy:
            yield proxy, certificate


def test_tls_with_a_certificate_of_ones_own(tls: Tuple[DeltaCuts, str]) -> None:
    proxy, certificate = tls
    with LlamaClient(proxy.url, retries=Retries(0)) as client:
        with pytest.raises(ConnectError, match="certificate"):
            client.chat(ask("Hi", max_tokens=2))
    with LlamaClient(proxy.url, verify=certificate) as client:
        assert client.chat(ask("Hi", max_tokens=2)).content
    with pytest.warns(InsecureWarning):
        client = LlamaClient.insecure(proxy.url)
    with client:
        assert client.chat(ask("Hi", max_tokens=2)).content


# --- stop -----------------------------------------------------------------------------------


def busy(server: LocalServer) -> List[int]:
    """The slots that are working on an answer now."""
    with urllib.request.urlopen(server.url + "/slots", timeout=5) as reply:
        return [slot["id"] for slot in json.load(reply) if slot["is_processing"]]


def test_after_a_stop_the_slot_is_idle_within_250_ms(
    llama_server: LocalServer, client: LlamaClient
) -> None:
    endless = ask("Tell me a very long story.", max_tokens=1500, extra={"ignore_eos": True})
    taken = []
    for _ in range(10):
        wait_until(lambda: not busy(llama_server))
        token = CancelToken()
        with client.chat_stream(endless, cancel=token) as stream:
            for _ in range(3):
                next(stream)
            assert len(busy(llama_server)) == 1
            stopped = time.monotonic()
            token.cancel("enough")
            with pytest.raises(Cancelled) as caught:
                for _ in stream:
                    pass
        while busy(llama_server):
            assert time.monotonic() - stopped < 5.0
        taken.append(time.monotonic() - stopped)
        assert caught.value.partial is not None
        assert caught.value.partial.content
    assert sorted(taken)[-2] <= 0.25, taken  # one of ten may have waited for a core


# --- a server that is not up yet ------------------------------------------------------------

LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


def test_a_server_that_loads_its_model_is_waited_for(server: ScriptedServer) -> None:
    for _ in range(2):
        server.reply_json(LOADING, status=503)
    server.reply_text("Here.")
    deltas: List[Delta] = []
    with client_of(server, retries=Retries(0)) as client:
        deltas += client.stream_deltas(ask("Hi"))
    notices = [delta.retry for delta in deltas if delta.retry is not None]
    assert [notice.error for notice in notices] == ["ServerError"] * 2
    assert "".join(delta.content for delta in deltas) == "Here."


def test_a_real_server_that_starts_meanwhile_is_waited_for(llama_server: LocalServer) -> None:
    port = free_port()
    starting = Task(
        lambda: LocalServer(llama_server.model_path, port=port, n_ctx=256, n_parallel=1)
    )
    retries = Retries(200, backoff=0.02, max_backoff=0.02)
    try:
        with LlamaClient(f"http://127.0.0.1:{port}", retries=retries) as client:
            deltas = list(client.stream_deltas(ask("Hi", max_tokens=2)))
    finally:
        starting.result(30).close()
    assert "".join(delta.content for delta in deltas)
    kinds = {delta.retry.error for delta in deltas if delta.retry is not None}
    assert kinds
    assert kinds <= {"ConnectError", "ServerError"}


# --- resume ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "cuts"),
    [("Tell me about the history of Paris.", (1, 7, 13)), ("Write hello world in C.", (2, 8, 14))],
)
def test_an_answer_that_is_cut_goes_on(
    llama_server: LocalServer, prompt: str, cuts: Tuple[int, ...]
) -> None:
    request = ask(prompt, max_tokens=20)
    with DeltaCuts(llama_server.url) as proxy:
        with LlamaClient(proxy.url, retries=Retries(resume=True)) as client:
            uncut = client.chat(request)
            for after in cuts:
                proxy.plans.append(after)
                deltas = list(client.stream_deltas(request))
                place = next(i for i, d in enumerate(deltas) if d.retry is not None)
                before = "".join(delta.content for delta in deltas[:place])
                rest = "".join(delta.content for delta in deltas[place:])
                notice = deltas[place].retry
                assert notice is not None
                assert notice.resumed
                assert rest[:8] == uncut.content[len(before) :][:8]
                assert before + rest == uncut.content
        assert proxy.cuts == len(cuts)


def test_json_that_is_cut_goes_on_and_keeps_its_schema(llama_server: LocalServer) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    request = ask("Describe Paris.", max_tokens=60, response_format=response_format)
    with DeltaCuts(llama_server.url) as proxy:
        with LlamaClient(proxy.url, retries=Retries(resume=True)) as client:
            proxy.plans.append(5)
            response = client.chat(request)
        assert set(json.loads(response.content)) == {"city", "big"}
        assert response.finish_reason == "stop"
        assert response.usage.estimated
        assert proxy.cuts == 1
