"""Recorder: what a client was answered is answered again, by every dialect, without a socket."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import re
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from agentstream import (
    Agent,
    AgentStreamError,
    AnthropicClient,
    CancelToken,
    ChatMessage,
    ConfigError,
    ConnectError,
    FallbackClient,
    LimitExceeded,
    Limits,
    LlamaClient,
    OllamaClient,
    OpenAIClient,
    RateLimit,
    RateLimited,
    Retries,
    Timeouts,
    tool,
)
from agentstream.testing import (
    Cut,
    Hang,
    KeepOpen,
    NotRecorded,
    Pause,
    Recorder,
    Reset,
    ScriptedClient,
    ScriptedServer,
    messages_chunks,
    ollama_chunks,
    responses_chunks,
    sse,
    text_chunks,
    tool_call_chunks,
)
from agentstream.testing.differences import ABSENT, differences
from tests.kit.support import KEY, MARKS, free_port

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def no_socket(monkeypatch: Any) -> Callable[[], None]:
    """Once called, whoever makes a socket is told so."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket")

    return lambda: monkeypatch.setattr(socket, "socket", refuse)


def both(
    path: Any, make: Callable[[str], Any], url: str, act: Callable[[Any], Any], **how: Any
) -> Tuple[Any, Any]:
    """What `act` gives with a client that is recorded, and with one that is replayed."""
    found = []
    for record, at in ((True, url), (False, NOBODY)):
        with Recorder(path, make(at), record=record, **how) as client:
            try:
                found.append(act(client))
            except AgentStreamError as error:
                found.append(error)
    return found[0], found[1]


def lines_of(path: pathlib.Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def seen(answer: Any) -> Any:
    """All of an answer but its times; of an error its class, its words and its fields."""
    if isinstance(answer, AgentStreamError):
        fields = {k: v for k, v in vars(answer).items() if k not in ("partial", "url")}
        said = re.sub(r"127\.0\.0\.1:\d+", "HOST", str(answer))
        return type(answer), said, fields, seen(answer.partial)
    if answer is None:
        return None
    state = {k: v for k, v in (answer.provider_state or {}).items() if k != "origin"}
    return answer._replace(
        first_token_s=None, duration_s=0.0, tokens_per_second=None, provider_state=state
    )


DIALECTS: Dict[str, Tuple[Callable[[str], Any], Callable[..., Any]]] = {
    "chat": (lambda url: OpenAIClient("m", base_url=url, api="chat"), text_chunks),
    "responses": (lambda url: OpenAIClient("m", base_url=url, api="responses"), responses_chunks),
    "anthropic": (lambda url: AnthropicClient("m", base_url=url), messages_chunks),
    "ollama": (lambda url: OllamaClient("m", url), ollama_chunks),
    "llama": (lambda url: LlamaClient(url), text_chunks),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_replayed_as_it_came(
    server: ScriptedServer, tmp_path: Any, dialect: str
) -> None:
    make, chunks = DIALECTS[dialect]
    server.reply(*chunks("Gr\u00fc\u00dfe", " aus", " \U0001f30a"))
    path = tmp_path / "deep" / "c.jsonl"
    real, replayed = both(path, make, server.url, lambda client: client.chat("hi"))
    assert real.text == "Gr\u00fc\u00dfe aus \U0001f30a"
    assert seen(replayed) == seen(real)
    with Recorder(path) as client:  # by what the file says of the client
        assert client.provider == real.provider and client.model == make(NOBODY).model
        assert client.chat("hi").text == real.text


def test_a_replay_makes_no_socket_and_waits_for_nothing(
    server: ScriptedServer, tmp_path: Any, no_socket: Any
) -> None:
    chunks = text_chunks("one", " two")
    server.reply(*chunks[:2], Pause(0.3), *chunks[2:])
    path = tmp_path / "c.jsonl"
    with Recorder(path, LlamaClient(server.url), record=True) as client:
        client.chat("hi")
    at = [line["at"] for line in lines_of(path) if "line" in line]
    assert at[-1] - at[0] > 0.25
    server.close()
    no_socket()
    for speed, least, most in [(0, 0.0, 0.2), (1, 0.25, 2.0), (3, 0.08, 0.9)]:
        began = time.monotonic()
        with Recorder(path, speed=speed) as client:
            assert client.chat("hi").text == "one two"
        assert least <= time.monotonic() - began < most


#: What goes wrong: the server's script, and the client's settings.
FAULTS: Dict[str, Tuple[Callable[[ScriptedServer], Any], Dict[str, Any]]] = {
    "429": (lambda s: s.reply(status=429, headers={"Retry-After": "7"}), {}),
    "401": (lambda s: s.reply('{"error": {"message": "no"}}', status=401), {}),
    "500 twice": (
        lambda s: [s.reply(status=500), s.reply(status=500)],
        {"retries": Retries(1, backoff=0)},
    ),
    "in mid-stream": (
        lambda s: s.reply(*text_chunks("one")[:2], sse({"error": {"message": "overload"}})),
        {},
    ),
    "cut": (lambda s: s.reply(*text_chunks("one", "two")[:2], Cut()), {}),
    "reset": (lambda s: s.reply(*text_chunks("one", "two")[:2], Reset()), {}),
    "no answer": (lambda s: s.reply(Cut(), raw=True), {}),
    "first token": (lambda s: s.reply(Hang()), {"timeouts": Timeouts(first_token=0.1)}),
    "stall": (
        lambda s: s.reply(*text_chunks("one", "two")[:2], Hang()),
        {"timeouts": Timeouts(stall=0.1)},
    ),
    "total": (
        lambda s: s.reply(*text_chunks("one", "two")[:2], Hang()),
        {"timeouts": Timeouts(total=0.15)},
    ),
    "a long line": (
        lambda s: s.reply("data: " + "x" * 3000 + "\n\n"),
        {"limits": Limits(line=1000)},
    ),
    "no stream": (lambda s: s.reply("<html>", headers={"Content-Type": "text/html"}), {}),
    "no [DONE]": (lambda s: s.reply(*text_chunks("one")[:-1]), {}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_went_wrong_goes_wrong_again(
    server: ScriptedServer, tmp_path: Any, fault: str
) -> None:
    script, settings = FAULTS[fault]
    if fault == "no answer":
        server.on_connect(Cut())
    else:
        script(server)
    settings = {"retries": Retries(0), **settings}
    real, replayed = both(
        tmp_path / "c.jsonl",
        lambda url: LlamaClient(url, **settings),
        server.url,
        lambda client: client.chat("hi"),
    )
    assert isinstance(real, AgentStreamError) or real.warnings
    assert not isinstance(replayed, NotRecorded), replayed
    assert seen(replayed) == seen(real)


def test_a_server_that_was_not_there_is_not_there_again(tmp_path: Any) -> None:
    real, replayed = both(
        tmp_path / "c.jsonl",
        lambda url: LlamaClient(url, retries=Retries(0)),
        f"http://127.0.0.1:{free_port()}",
        lambda client: client.chat("hi"),
    )
    assert type(real) is type(replayed) is ConnectError
    assert real.phase == replayed.phase == "connect" and replayed.retryable


def test_retries_and_their_notices_are_replayed(server: ScriptedServer, tmp_path: Any) -> None:
    server.reply(status=503)
    server.reply(*text_chunks("there"))

    def notices(client: Any) -> Any:
        from agentstream.llm.messages import as_request

        deltas = list(client.stream_deltas(as_request("hi")))
        return [delta.retry.error for delta in deltas if delta.retry]

    settings: Dict[str, Any] = {"retries": Retries(backoff=0.0), "rate_limit": RateLimit(9, per=1)}
    real, replayed = both(
        tmp_path / "c.jsonl", lambda url: LlamaClient(url, **settings), server.url, notices
    )
    assert real == replayed == ["ServerError"]


def test_the_waits_between_attempts_are_not_waited_for(
    server: ScriptedServer, tmp_path: Any
) -> None:
    server.reply(status=429, headers={"Retry-After": "0.4"})
    server.reply(*text_chunks("x"))
    took = []

    def act(client: Any) -> Any:
        began = time.monotonic()
        text = client.chat("hi").text
        took.append(time.monotonic() - began)
        return text

    both(tmp_path / "c.jsonl", lambda url: LlamaClient(url), server.url, act)
    assert took[0] > 0.4 and took[1] < 0.3


def test_an_agent_with_tools_is_replayed_though_ids_are_made_anew(
    server: ScriptedServer, tmp_path: Any
) -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    chunks = tool_call_chunks(("add", {"a": 1, "b": 2}))
    server.reply(*(chunk.replace(b"call_0", b"") for chunk in chunks))
    server.reply(*text_chunks("3"))
    real, replayed = both(
        tmp_path / "c.jsonl",
        LlamaClient,
        server.url,
        lambda client: Agent("adder", client, tools=[add]).run("1 + 2"),
    )
    assert real.text == replayed.text == "3"
    assert real.tool_calls_count == replayed.tool_calls_count == 1


def test_typed_answers_models_and_fallbacks_are_replayed(
    server: ScriptedServer, tmp_path: Any
) -> None:
    server.reply('{"data": [{"id": "a"}]}', path="/v1/models")
    server.reply(status=503)
    server.reply(*text_chunks('{"n": 3}'))

    def make(url: str) -> Any:
        first = LlamaClient(url, model="first", retries=Retries(0))
        return FallbackClient([first, LlamaClient(url, model="second")], pause=0)

    def act(client: Any) -> Any:
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        return client.chat("a number", output=schema).value

    real, replayed = both(tmp_path / "c.jsonl", make, server.url, act)
    assert real == replayed == {"n": 3}
    real, replayed = both(tmp_path / "m.jsonl", LlamaClient, server.url, lambda c: c.models())
    assert real == replayed == ["a"]


def test_equal_requests_are_answered_in_their_order_each_once(
    server: ScriptedServer, tmp_path: Any
) -> None:
    for word in ("one", "two"):
        server.reply(*text_chunks(word))
    path = tmp_path / "c.jsonl"
    with Recorder(path, LlamaClient(server.url), record=True) as client:
        assert [client.chat("hi").text for _ in range(2)] == ["one", "two"]
    with Recorder(path) as client:
        assert [client.chat("hi").text for _ in range(2)] == ["one", "two"]
        with pytest.raises(NotRecorded, match="more often") as caught:
            client.chat("hi")
        assert caught.value.used and caught.value.differences == ()


def test_a_request_that_is_not_there_is_told_by_what_differs(
    server: ScriptedServer, tmp_path: Any
) -> None:
    server.reply(*text_chunks("x"), repeat=True)
    path = tmp_path / "c.jsonl"
    asked = [ChatMessage.system("Be brief."), ChatMessage.user("a long question " * 20)]
    with Recorder(path, LlamaClient(server.url), record=True) as client:
        client.chat("hello")
        client.chat(asked, temperature=0.5)
    with Recorder(path) as client, pytest.raises(NotRecorded) as caught:
        client.chat([asked[0], ChatMessage.user("a long question " * 19 + "!")], temperature=1)
    error = caught.value
    assert error.nearest == 2 and not error.used and not error.retryable
    assert error.request["body"]["temperature"] == 1
    found = {each.path: each for each in error.differences}
    assert set(found) == {"body.messages[1].content", "body.temperature"}
    assert found["body.temperature"][1:] == (0.5, 1)
    assert "body.temperature: recorded 0.5, asked 1" in str(error)
    assert '!"' in str(error)  # of long texts, where they part
    assert len(str(error)) < 600


def test_differences_are_by_path() -> None:
    cases: List[Tuple[Any, Any, Any]] = [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"b": 1}, [("a", 1, ABSENT), ("b", ABSENT, 1)]),
        ([1, [2]], [1, [3], 4], [("[1][0]", 2, 3), ("[2]", ABSENT, 4)]),
        ({"a": {"b": [None]}}, {"a": {"b": [False]}}, [("a.b[0]", None, False)]),
        ({"a": 1}, {"a": True}, [("a", 1, True)]),
        ("x", {"a": 1}, [("", "x", {"a": 1})]),
    ]
    for recorded, asked, expected in cases:
        assert [tuple(each) for each in differences(recorded, asked)] == expected


def test_no_secret_is_in_the_file(server: ScriptedServer, tmp_path: Any) -> None:
    path = tmp_path / "c.jsonl"
    echo = f"data: {json.dumps({'choices': [{'delta': {'content': KEY}}]})}\n\n"
    cookies = {"Set-Cookie": f"sid={KEY}", "OpenAI-Organization": "acme", "x-request-id": "r1"}
    for make in (
        lambda: OpenAIClient("m", base_url=f"{server.url}/v1?api_key={KEY}&v=2", api_key=KEY),
        lambda: LlamaClient(server.url, headers={"X-Own": KEY}, api_key=lambda: KEY),
    ):
        server.reply(echo, *text_chunks("x"), headers=cookies)
        with Recorder(path, make(), record="new") as client:
            client.chat("hi")
    text = path.read_text("utf-8")
    assert MARKS[0] not in text and "sid=" not in text and "acme" not in text
    assert "r1" in text and "v=2" in text
    for key in ("none", "another-key-of-some-length"):  # whatever the key
        url = f"{NOBODY}/v1?api_key={key}&v=2"
        with Recorder(path, OpenAIClient("m", base_url=url, api_key=key)) as client:
            client.chat("hi")


def test_a_short_key_or_header_changes_no_words(server: ScriptedServer, tmp_path: Any) -> None:
    server.reply(*text_chunks("none of them is blue"))
    path = tmp_path / "c.jsonl"

    def make(url: str) -> LlamaClient:
        return LlamaClient(url, api_key="none", headers={"X-Team": "blue"})

    real, replayed = both(path, make, server.url, lambda client: client.chat("none, blue?"))
    assert real.text == replayed.text == "none of them is blue"


def test_new_asks_only_for_what_is_not_there(server: ScriptedServer, tmp_path: Any) -> None:
    path = tmp_path / "c.jsonl"
    for prompts, count in [(["a"], 1), (["a", "b"], 2), (["b"], 2)]:
        server.reply(*text_chunks("x"), repeat=True)
        with Recorder(path, LlamaClient(server.url), record="new") as client:
            for prompt in prompts:
                client.chat(prompt)
        assert len(server.requests) == count
    assert [line["request"] for line in lines_of(path) if "request" in line] == [1, 2]


def test_the_file_is_the_same_each_time_but_for_its_times(
    server: ScriptedServer, tmp_path: Any
) -> None:
    texts = []
    for _ in range(2):
        server.reply(*text_chunks("Gr\u00fc\u00dfe"))
        with Recorder(tmp_path / "c.jsonl", LlamaClient(server.url), record=True) as client:
            client.chat("hi", temperature=0, seed=1)
        found = lines_of(tmp_path / "c.jsonl")
        texts.append([{k: v for k, v in line.items() if k != "at"} for line in found])
    assert texts[0] == texts[1]
    assert texts[0][0]["cassette"] == 1
    assert "Gr\u00fc\u00dfe" in (tmp_path / "c.jsonl").read_text("utf-8")  # to be read
    assert [name.name for name in tmp_path.iterdir()] == ["c.jsonl"]


def test_a_recording_that_failed_to_begin_leaves_the_old_one(tmp_path: Any) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"cassette": 1, "client": {}}\n')
    Recorder(path, LlamaClient(NOBODY), record=True).close()
    assert path.read_text() == '{"cassette": 1, "client": {}}\n'


def test_a_file_that_was_torn_keeps_what_is_whole(
    server: ScriptedServer, tmp_path: Any, caplog: Any
) -> None:
    path = tmp_path / "c.jsonl"
    server.reply(*text_chunks("x"), repeat=True)
    with Recorder(path, LlamaClient(server.url), record=True) as client:
        client.chat("a")
        client.chat("b")
    whole = path.read_bytes()
    second = whole.index(b'{"request": 2')
    for cut in range(second + 1, len(whole) - 1, 7):
        path.write_bytes(whole[:cut])
        caplog.clear()
        with Recorder(path) as client:
            client.chat("a")
            with pytest.raises(NotRecorded):
                client.chat("b")
        assert "ends in the middle" in caplog.text
    with Recorder(path, LlamaClient(server.url), record="new") as client:
        client.chat("b")
    assert len([line for line in lines_of(path) if "request" in line]) == 2


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", '{"cassette": 2}', '{"cassette": 1}\n{"line": "x"}\n',
     '{"cassette": 1}\nx\n{"request": 1}\n', b"\xff",
     '{"cassette": 1}\n{"request": 1}\n{"line": "x"}\n',
     '{"cassette": 1}\n{"request": 1}\n{"answer": "x"}\n',
     '{"cassette": 1}\n{"request": 1}\n{"answer": 200, "headers": {}}\n{"text": 3}\n',
     '{"cassette": 1}\n{"request": 1}\n{"end": "failed"}\n',
     '{"cassette": 1}\n{"request": 1}\n{"end": "whole", "at": "x"}\n'],
)  # fmt: skip
def test_what_is_no_cassette_is_a_config_error(tmp_path: Any, text: Any) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError):
        Recorder(path, LlamaClient(NOBODY))


def test_settings_that_make_no_sense_are_refused(tmp_path: Any) -> None:
    path = tmp_path / "c.jsonl"
    with pytest.raises(ConfigError, match="there is no cassette"):
        Recorder(path, LlamaClient(NOBODY))
    wrong: List[Dict[str, Any]] = [
        {"client": ScriptedClient()},
        {"client": 3},
        {"client": None},
        {"record": "all"},
        {"speed": -1},
    ]
    for settings in wrong:
        with pytest.raises(ConfigError):
            Recorder(path, **{"client": LlamaClient(NOBODY), "record": True, **settings})


def test_a_replay_spends_nothing_of_a_rate_limit(server: ScriptedServer, tmp_path: Any) -> None:
    left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-limit-requests": "9"}
    server.reply(*text_chunks("hi"), headers={**left, "x-ratelimit-reset-requests": "60s"})
    with LlamaClient(server.url) as client, Recorder(tmp_path / "c", client, record=True) as made:
        assert made.chat("x").text == "hi"
    limit = RateLimit(5, per=30.0, burst=1)
    with Recorder(tmp_path / "c", LlamaClient(server.url, rate_limit=limit)) as recorder:
        assert recorder.chat("x").text == "hi"
    stop = CancelToken()
    late = threading.Timer(5.0, stop.cancel)
    late.start()
    limit.take(cancel=stop)  # for the first real request there is room at once
    late.cancel()
    late.join()


@pytest.mark.parametrize("is_over", [True, False])
def test_a_fallback_is_replayed_whoever_was_left_alone_for_how_long(
    server: ScriptedServer, tmp_path: Any, is_over: bool
) -> None:
    with ScriptedServer() as other:
        other.default(*text_chunks("other"))
        server.reply(status=503)
        server.default(*text_chunks("back"))
        for record in (True, False, False):
            urls = {"a": server.url, "b": other.url}
            each = [LlamaClient(urls[m], model=m, retries=Retries(0)) for m in urls]
            client = FallbackClient(each, pause=30)
            with Recorder(tmp_path / "c.jsonl", client, record=record) as recorder:
                assert recorder.chat("1").text == "other"
                if record and is_over:
                    client._pauses._states[0].due = 0.0
                assert recorder.chat("2").text == ("back" if is_over else "other")
        with Recorder(tmp_path / "c.jsonl", client) as recorder, pytest.raises(NotRecorded):
            recorder.chat("3")
        assert len(server.requests) + len(other.requests) == 3


def test_threads_record_and_replay_at_once(server: ScriptedServer, tmp_path: Any) -> None:
    path = tmp_path / "c.jsonl"
    server.route("/v1/chat/completions", lambda r: _echo(r.json["messages"][-1]["content"]))
    prompts = [f"prompt {number}" for number in range(24)]
    for record in (True, False):
        with Recorder(path, LlamaClient(server.url), record=record) as client:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda prompt: client.chat(prompt).text, prompts))
            assert answers == prompts
    assert len(server.requests) == 24


def _echo(text: str) -> Any:
    from agentstream.testing import Reply

    return Reply(*text_chunks(text))


def test_an_answer_that_was_left_is_replayed_as_far_as_it_was_read(
    server: ScriptedServer, tmp_path: Any
) -> None:
    path = tmp_path / "c.jsonl"
    server.reply(*text_chunks("one", "two", "three")[:3], Hang())

    def act(client: Any) -> List[str]:
        stop = CancelToken()
        texts = []
        with client.chat_stream("hi", cancel=stop) as stream:
            for text in stream:
                texts.append(text)
                if len(texts) == 2:
                    break
        return texts

    real, replayed = both(path, LlamaClient, server.url, act)
    assert real == replayed == ["one", "two"]
    with Recorder(path) as client, pytest.raises(NotRecorded, match="ends here") as caught:
        client.chat("hi")
    assert caught.value.partial is not None and caught.value.partial.text == "onetwo"


def test_a_real_client_is_left_as_it_was(server: ScriptedServer, tmp_path: Any) -> None:
    server.reply(*text_chunks("x"), repeat=True)
    real = LlamaClient(server.url)
    with Recorder(tmp_path / "c.jsonl", real, record=True) as client:
        client.chat("hi")
        real.chat("hi")
        assert KEY not in repr(client)
    assert len([line for line in lines_of(tmp_path / "c.jsonl") if "request" in line]) == 1
    assert isinstance(KeepOpen, type) and issubclass(RateLimited, AgentStreamError)
    assert issubclass(LimitExceeded, AgentStreamError)
