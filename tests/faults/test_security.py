"""Rows S01 to S07 and S09: the environment, and servers, that would have our secrets out."""

from __future__ import annotations

import json
import logging
import os
import socket
import traceback
import urllib.parse
import warnings

import pytest

from agentstream import (
    Agent,
    CancelToken,
    EventType,
    InsecureWarning,
    Limits,
    LlamaClient,
    OpenAIClient,
    Retries,
    Runtime,
    ToolError,
    tool,
)
from agentstream.errors import (
    AgentStreamError,
    BadRequest,
    Cancelled,
    ConfigError,
    ConnectError,
    WorkflowFailed,
)
from agentstream.llm.secrets import Redactor
from agentstream.testing import Cut, Hang, Reset, ScriptedServer, sse, text_chunks
from tests.kit.secret_hunt import hunting
from tests.kit.support import (
    KEY,
    MARKS,
    NO_RETRIES,
    PROMPT,
    Task,
    ask,
    check_error,
    client_of,
    events_of,
    free_port,
    hunt,
    logged,
    wait_until,
)

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in (*PROXIES, "requests_ca_bundle", "curl_ca_bundle", "netrc"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# --- S01: netrc -------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["machine 127.0.0.1", "default"])
@pytest.mark.parametrize("key", [KEY, None])
def test_s01_netrc_does_not_replace_our_authorization(server, monkeypatch, tmp_path, entry, key):
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"{entry} login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    server.reply_text("ok")
    with client_of(server, api_key=key) as client:
        assert ask(client).text == "ok"
    sent = server.requests[0].headers.get("Authorization")
    assert sent == (None if key is None else f"Bearer {KEY}")


def test_s01_the_urls_own_user_and_password_are_sent(server):
    server.reply_text("ok")
    url = server.url.replace("://", "://user:pass@")
    with client_of(url, api_key=None) as client:
        assert ask(client).text == "ok"
        assert "pass" not in repr(client)
    assert server.requests[0].headers["Authorization"] == "Basic dXNlcjpwYXNz"


# --- S02: proxies -----------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch):
    """A server that the environment names as the proxy for everything."""
    with ScriptedServer() as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, server.url)
            monkeypatch.setenv(name.upper(), server.url)
        yield server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "app.localhost"])
def test_s02_loopback_is_never_proxied(server, proxy, monkeypatch, host):
    server.reply_text("ok")
    proxy.reply_text("from the proxy")
    whole = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **more: whole("127.0.0.1" if "local" in name else name, *rest, **more),
    )
    with socket.socket() as listener:  # 127.0.0.2 is this machine too, but nobody listens there
        listener.bind(("127.0.0.1", 0))
    url = f"http://{host}:{server.port}"
    with client_of(url) as client:
        result = ask(client)
    if host == "127.0.0.2":
        assert isinstance(result.error, ConnectError)
    else:
        assert result.text == "ok"
    assert proxy.connections == 0


def test_s02_other_hosts_go_through_the_proxy(proxy):
    proxy.reply_text("by proxy")
    with client_of("http://model.test:8080") as client:
        assert ask(client).text == "by proxy"
    assert proxy.requests[0].path == "http://model.test:8080/v1/chat/completions"


def test_s02_no_proxy_is_heeded(proxy, server, monkeypatch):
    monkeypatch.setenv("no_proxy", "model.test")
    whole = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **more: whole("127.0.0.1", *rest, **more),
    )
    server.reply_text("directly")
    with client_of(f"http://model.test:{server.port}") as client:
        assert ask(client).text == "directly"
    assert proxy.connections == 0


def test_s02_a_proxys_password_shows_in_no_error(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://user:{MARKS[0]}@127.0.0.1:{free_port()}")
    with client_of("http://model.test") as client:
        assert isinstance(ask(client).error, ConnectError)


# --- S03: redirects ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_s03_no_redirect_is_followed(server, status):
    with ScriptedServer() as other:
        other.reply_text("stolen")
        server.reply(b"moved", status=status, headers={"Location": other.url + "/elsewhere"})
        with client_of(server, headers={"x-api-key": KEY + "2"}) as client:
            error = ask(client).error
        assert isinstance(error, BadRequest)
        assert error.location == other.url + "/elsewhere"
        assert other.connections == 0
    assert len(server.requests) == 1


def test_s03_a_location_that_holds_the_key_is_redacted(server):
    server.reply(status=307, headers={"Location": f"http://else.test/?k={KEY}"})
    with client_of(server) as client:
        error = ask(client).error
    assert error.location == "http://else.test/?k=sk-…wxyz"


# --- S04: keys that cannot be sent ------------------------------------------------------------

BAD_KEYS = {
    "a newline at the end": KEY + "\n",
    "a newline within": KEY[:12] + "\r\nX-Evil: 1" + KEY[12:],
    "a NUL": KEY + "\0",
    "not latin": "sk-MARKEDKEY-ключ-0123456789",
    "latin-1": "sk-MARKEDKEY-é-0123456789",
    "a tab": "sk-MARKEDKEY-\t-0123456789",
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=list(BAD_KEYS))
@pytest.mark.parametrize("where", ["key", "header", "environment"])
def test_s04_a_key_that_cannot_be_sent(monkeypatch, key, where):
    if where == "environment" and "\0" in key:
        pytest.raises(ValueError, os.environ.__setitem__, "OPENAI_API_KEY", key)
        return
    with pytest.raises(ConfigError) as caught:
        if where == "key":
            LlamaClient("http://127.0.0.1:1", api_key=key)
        elif where == "header":
            LlamaClient("http://127.0.0.1:1", headers={"x-api-key": key})
        else:
            monkeypatch.setenv("OPENAI_API_KEY", key)
            OpenAIClient()
    error = caught.value
    shown = (
        str(error)
        + repr(error)
        + "".join(traceback.format_exception(type(error), error, error.__traceback__))
    )
    hunt(shown)
    # The last four at most.
    assert not any(key[start : start + 5] in str(error) for start in range(3, len(key) - 5))
    assert error.__cause__ is error.__context__ is None


def test_s04_spaces_around_a_key_are_no_part_of_it(server):
    server.reply_text("ok")
    with client_of(server, api_key=f"  {KEY} ") as client:
        assert ask(client).text == "ok"
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


def test_s04_an_empty_key_and_a_bad_header_name():
    for settings in (
        {"api_key": " "},
        {"headers": {"X\nY": "z"}},
        {"headers": {"": "z"}},
        {"headers": {"X": ""}},
        {"api_key": 5},
    ):
        with pytest.raises(ConfigError):
            LlamaClient("http://127.0.0.1:1", **settings)


# --- S05: marked secrets, hunted through a fault of every kind --------------------------------

ECHO = {"error": {"message": f"{KEY} asked: {PROMPT}", "code": KEY, "param": PROMPT}}
HEAD = text_chunks("a", finish_reason=None, usage=False, done=False)
ANSWERS = {
    "n09 reset": ((*HEAD, Reset()), {}),
    "n10 cut": ((*HEAD, b'data: {"echo": "' + PROMPT.encode(), Cut()), {}),
    "n18 hung up": ((), {"before_headers": [Cut()]}),
    "p05 bad json": ((*HEAD, f"data: {{{KEY} {PROMPT}\n\n"), {}),
    "p05 bad json, cut inside": (
        (*HEAD, "data: {" + " " * 1000 + KEY + " " * 3000 + PROMPT + "\n\n"),
        {},
    ),
    "p09 html": ((f"<html><title>{PROMPT}</title>{KEY}</html>",), {"content_type": "text/html"}),
    "p09 text": ((f"{PROMPT} {KEY}",), {"content_type": "text/plain"}),
    "p12 too long": ((*HEAD, b"data: " + PROMPT.encode() * 50 + b"\n\n"), {}),
    "v01 bad request": ((json.dumps(ECHO),), {"status": 400}),
    "v01 auth": ((json.dumps(ECHO),), {"status": 401}),
    "v01 validation": (
        (json.dumps({"detail": [{"loc": ["body"], "msg": PROMPT, "input": {"k": KEY}}]}),),
        {"status": 422},
    ),
    "v01 cut body": ((PROMPT[:20],), {"status": 400, "content_type": "text/plain"}),
    "v01 escaped": (
        ("<html><body>" + PROMPT.replace("&", "&amp;").replace("'", "&#x27;") + KEY,),
        {"status": 404, "content_type": "text/html"},
    ),
    "v02 limited": ((json.dumps(ECHO),), {"status": 429}),
    "v02 server": ((f"{KEY}{PROMPT}",), {"status": 500, "content_type": "text/plain"}),
    "v05 error event": ((*HEAD, sse(json.dumps(ECHO), event="error")), {}),
    "v05 error chunk": ((*HEAD, sse(json.dumps(ECHO))), {}),
    "v08 redirect": ((), {"status": 302, "headers": {"Location": "/" + KEY}}),
    "not http": ((f"{KEY}\r\n{PROMPT}\r\n\r\n",), {"framing": "raw"}),
}


@pytest.mark.parametrize("fault", list(ANSWERS))
def test_s05_no_secret_shows(server, fault):
    pieces, options = ANSWERS[fault]
    server.default(*pieces, **options)
    with client_of(
        server,
        retries=Retries(1, backoff=0.001),
        limits=Limits(line=2000, event=2000) if fault == "p12 too long" else Limits(),
    ) as client:
        with logged() as records:
            result = ask(client)  # hunts through the error, its parts, and the log
            assert result.error is not None
            run_once(client, result.error)
        hunt("\n".join(records))
        hunt(repr(client) + repr(client.timeouts) + repr(client.retries) + repr(client.limits))
    # The secrets were on their way: without redaction this test would fail.
    assert server.requests[0].headers["Authorization"].endswith(KEY)
    assert server.requests[0].json["messages"][-1]["content"] == PROMPT


def run_once(client, expected):
    """The same fault in a run: no secret in its error, its result or its events."""
    with Runtime() as runtime:
        agent = Agent("one", client=client, system_prompt=f"Keep {PROMPT} to yourself.")
        handle = runtime.submit(agent, PROMPT)
        with pytest.raises(WorkflowFailed) as caught:
            handle.result(10)
        events = events_of(runtime.event_stream, handle.workflow_id)
        assert events[-1].type is EventType.WORKFLOW_FAILED
        assert events[-1].data["error"] == type(expected).__name__
        error = caught.value
        assert type(error.__cause__) is type(expected)
        for one in (error, error.__cause__):
            hunt("".join(traceback.format_exception(type(one), one, one.__traceback__)))
            hunt(repr(vars(one)))
        hunt(repr(agent) + repr(handle) + repr(runtime) + repr(runtime.event_stream))


def test_s05_no_secret_shows_when_nobody_is_there():
    with client_of(f"http://127.0.0.1:{free_port()}") as client:
        error = ask(client).error
        assert isinstance(error, ConnectError)
        run_once(client, error)


def test_s05_no_secret_shows_when_it_is_stopped(server):
    server.reply(*HEAD, Hang())
    token = CancelToken()
    with client_of(server) as client:
        task = Task(lambda: ask(client, cancel=token))
        assert server.wait_requests()
        token.cancel()
        assert type(task.result().error) is Cancelled


def test_s05_events_never_carry_the_prompt(server):
    server.reply_tool_calls(("look", {"city": "Oslo"}))
    server.reply_text("fine")
    server.reply_text("and well")

    @tool
    def look(city: str) -> str:
        """Look."""
        return f"rain in {city}"

    with client_of(server) as client, Runtime() as runtime:
        agent = Agent("one", client=client, system_prompt=PROMPT, tools=[look])
        with logged() as records:
            handle = runtime.submit(agent, PROMPT)
            assert handle.result(10).output == "fine"
        kinds = {event.type for event in events_of(runtime.event_stream, handle.workflow_id)}
        assert EventType.TOOL_CALL_COMPLETED in kinds
        hunt("\n".join(records))
        hunt(repr(handle.result()) + repr(client.chat(PROMPT)))


def test_s05_a_key_in_the_url_is_redacted(server):
    server.reply(f"no {KEY} and no {urllib.parse.quote(KEY)}", status=404)
    query = {"api-key": KEY, "api-version": "2024-10-21"}
    with OpenAIClient("m", base_url=server.url, query=query, retries=NO_RETRIES) as client:
        with pytest.raises(BadRequest) as caught:
            client.chat(PROMPT)
        check_error(caught.value)
        hunt(repr(client))
    assert KEY in server.requests[0].path


def test_s05_what_a_server_cut_is_redacted_too():
    prompt = "the prompt is a long text, \"with\" 'quotes' & <more>\nand lines"
    redact = Redactor([KEY], [prompt])
    echoed = json.dumps(prompt)
    for text in (prompt, echoed, prompt[:40], echoed[:40], f"<{prompt[:20]}> and {KEY[:18]}"):
        told = redact(f"before {text} after")
        assert "the prompt" not in told
        assert "MARKED" not in told
        assert told.startswith("before ")
        assert told.endswith(" after")
    assert redact("nothing of it, the pro and sk-tes") == "nothing of it, the pro and sk-tes"


def test_s05_the_requests_own_reprs_and_objects_are_silent(server):
    from agentstream.llm.messages import ChatMessage, as_request

    request = as_request([ChatMessage.system(PROMPT), ChatMessage.user(PROMPT)])
    hunt(repr(request) + str(request) + repr(request.messages))
    with client_of(server) as client:
        stream = client.chat_stream(PROMPT)
        hunt(repr(stream) + repr(client) + repr(client._transport) + repr(vars(stream).keys()))
        stream.close()


def test_s05_the_hunt_finds_what_gets_out(caplog):
    with hunting() as found:

        def news():
            new = found[:]
            found.clear()
            return new

        AgentStreamError(f"with {KEY}")
        assert len(news()) == 1
        BadRequest("x", status=400, body=f"{PROMPT}")
        assert len(news()) == 1
        error = ConfigError("fine")
        assert news() == []
        error.request_id = KEY
        assert len(news()) == 1
        logging.getLogger("agentstream.anything").debug("%s", KEY)
        assert len(news()) == 1
        try:
            raise ValueError(PROMPT)
        except ValueError:
            logging.getLogger("agentstream.anything").exception("it broke")
        assert len(news()) == 1
        with Runtime() as runtime:
            runtime.event_stream.append("system_warning", "w", {"deep": {"down": [KEY]}})
            runtime.event_stream.append("system_warning", "w", {"text": "harmless"})
        assert len(news()) == 1
    caplog.clear()


# --- S06: cookies -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 401])
def test_s06_cookies_are_never_sent_back(server, status):
    cookies = [("Set-Cookie", "session=abc; Path=/"), ("Set-Cookie", "b=c; Domain=127.0.0.1")]
    server.default(*text_chunks("ok"), status=status, headers=cookies)
    with client_of(server) as client:
        for _ in range(3):
            ask(client)
        with client_of(server) as another:
            ask(another)
        assert len(client._transport._session.cookies) == 0
    assert len(server.requests) == 4
    assert all("Cookie" not in request.headers for request in server.requests)


# --- S07: certificates ------------------------------------------------------------------------


@pytest.fixture
def wrong_bundle(tmp_path):
    with ScriptedServer(tls="expired") as other:
        path = tmp_path / "wrong.pem"
        with open(other.ca_file) as file:
            path.write_text(file.read())
    return str(path)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("bundle", ["wrong", "missing"])
def test_s07_our_own_setting_wins(tls_server, monkeypatch, wrong_bundle, variable, bundle):
    monkeypatch.setenv(variable, wrong_bundle if bundle == "wrong" else "/nowhere/bundle.pem")
    tls_server.reply_text("ok", repeat=True)
    with client_of(tls_server) as client:  # verify=path
        assert ask(client).text == "ok"
    with pytest.warns(InsecureWarning):
        client = client_of(tls_server, verify=False)
    with client:
        assert ask(client).text == "ok"


def test_s07_without_a_setting_of_ours_the_environments_counts(tls_server, monkeypatch):
    tls_server.reply_text("ok", repeat=True)
    with client_of(tls_server, verify=True) as client:
        error = ask(client).error
        assert isinstance(error, ConnectError)
        assert error.retryable is False
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", tls_server.ca_file)
        assert ask(client).text == "ok"


def test_s07_a_wrong_bundle_of_ours_is_not_made_good_by_the_environment(
    tls_server, monkeypatch, wrong_bundle
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", tls_server.ca_file)
    with client_of(tls_server, verify=wrong_bundle) as client:
        assert isinstance(ask(client).error, ConnectError)
    assert tls_server.requests == []


def test_s07_verification_switched_off_warns_once(tls_server):
    tls_server.reply_text("ok", repeat=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with LlamaClient.insecure(tls_server.url, api_key=KEY, retries=NO_RETRIES) as client:
            for _ in range(3):
                assert ask(client).text == "ok"
    assert [warning.category for warning in caught] == [InsecureWarning]
    assert caught[0].filename == __file__
    hunt(str(caught[0].message))


# --- S09: what the model asks for -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("delete_everything", {}),
        ("__class__", {}),
        ("weather.function", {"city": "Oslo"}),
        ("weather", {"city": "Oslo", "extra": 1}),
        ("weather", {"city": "Oslo", "cancel": "x"}),
        ("weather", {}),
        ("weather", {"city": ["Oslo"]}),
        ("weather", "{not json"),
        ("weather", '"a text"'),
        ("", {}),
    ],
)
def test_s09_nothing_is_called_but_what_fits(server, name, arguments):
    called = []

    @tool
    def weather(city: str, cancel: CancelToken) -> str:
        """Weather."""
        called.append(city)
        return "rain"

    server.reply_tool_calls((name, arguments))
    server.reply_text("sorry")
    with client_of(server) as client, Runtime() as runtime:
        agent = Agent("one", client=client, tools=[weather])
        handle = runtime.submit(agent, PROMPT)
        assert handle.result(10).output == "sorry"
        events = events_of(runtime.event_stream, handle.workflow_id)
    assert called == []
    failed = [event for event in events if event.type is EventType.TOOL_CALL_FAILED]
    assert [event.data["error"] for event in failed] == [ToolError.__name__]
    # The model is told.
    posted = [request.json for request in server.requests if request.method == "POST"]
    told = posted[1]["messages"][-1]
    assert told["role"] == "tool"
    assert told["tool_call_id"] == "call_0"
    assert told["content"].startswith("Error: ")


def test_s09_the_right_call_after_a_wrong_one_is_made(server):
    called = []

    @tool
    def weather(city: str) -> str:
        """Weather."""
        called.append(city)
        return "rain"

    server.reply_tool_calls(("wether", {"city": "Oslo"}), ("weather", {"city": "Oslo"}))
    server.reply_text("rain")
    with client_of(server) as client:
        assert Agent("one", client=client, tools=[weather]).execute(PROMPT).response == "rain"
    assert called == ["Oslo"]
    wait_until(lambda: not server.active)
