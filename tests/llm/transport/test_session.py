"""Transport: what is sent, over which proxy and with which certificates; E01 to E03, Y10."""

from __future__ import annotations

import base64
import ctypes
import os
import signal
import ssl
import sys
import threading
import time
import urllib.parse

import pytest

from agentstream import LlamaClient, OpenAIClient, errors
from agentstream.cancel import CancelToken
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Limits
from agentstream.llm.transport import Transport, at_path, secrets_in
from tests.kit.support import ask, client_of
from tests.kit.wire import CLIENT_CERTIFICATE, CLIENT_KEY, WireServer, fetch, sized, transport_of

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in BUNDLES:
        monkeypatch.delenv(name, raising=False)


def echo(head, body):
    return [sized(head)]


# --- E01 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("/v1?api-version=1", "/v1/chat/completions?api-version=1"),
        ("/v1/?api-version=1&x=%2F", "/v1/chat/completions?api-version=1&x=%2F"),
        ("?a=b", "/chat/completions?a=b"),
        ("/deployments/gpt?api-version=2024-10-21", None),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
    ],
)
def test_e01_the_query_of_a_base_url_stays_behind_the_path(server, base, path):
    server.reply_text("hi")
    with OpenAIClient("m", api_key="k", base_url=server.url + base) as client:
        assert client.chat("hi").content == "hi"
    (request,) = server.requests
    sent = request.path + (f"?{request.query}" if getattr(request, "query", "") else "")
    expected = path or "/deployments/gpt/chat/completions?api-version=2024-10-21"
    assert urllib.parse.unquote(sent) == urllib.parse.unquote(expected)


@pytest.mark.parametrize(
    ("url", "path", "query", "expected"),
    [
        ("http://h/v1?a=1", "/x", {"b": "2 3"}, "http://h/v1/x?a=1&b=2+3"),
        ("http://h/v1?", "/x", None, "http://h/v1/x"),
        ("http://h", "/x", {}, "http://h/x"),
        ("http://h///?a", "/x", None, "http://h/x?a"),
    ],
)
def test_e01_at_path(url, path, query, expected):
    assert at_path(url, path, query) == expected


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/", "?k=v", "/v1?k=v", "/v1/?k=v"])
def test_e01_of_a_llama_server(server, base):
    server.reply_text("hi")
    with LlamaClient(server.url + base) as client:
        assert client.chat("hi").content == "hi"
        query = "?k=v" if "?" in base else ""
        assert client._transport.url == server.url + "/v1/chat/completions" + query


# --- E02 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "socks4a", "SOCKS5"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_e02_socks_without_its_package(monkeypatch, scheme, variable):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv(variable, f"{scheme}://user:MARKEDKEY@127.0.0.1:1080")
    with client_of("https://models.example") as client:
        result = ask(client)
    assert type(result.error) is errors.ConfigError
    assert result.error.setting == variable
    assert "pip install requests[socks]" in str(result.error)
    assert not result.retries


NO_PROXIES = [
    "http://",
    "://x",
    "http://host:port",
    "http://host:99999",
    "http://[::1",
    "http://pro xy:3128",
    "ftp://proxy:21",
    "https//proxy:3128",
    "http:/proxy:3128",
    "socks9://proxy:1",
    "http://proxy:3128/path",
]


@pytest.mark.parametrize("proxy", NO_PROXIES)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_e02_a_proxy_url_that_is_none(monkeypatch, proxy, scheme):
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy)
    with client_of(f"{scheme}://models.example") as client:
        result = ask(client)
    assert type(result.error) is errors.ConfigError
    assert result.error.setting == f"{scheme.upper()}_PROXY"
    assert not result.retries
    assert not result.error.retryable


@pytest.mark.parametrize("proxy", NO_PROXIES)
def test_e02_a_broken_proxy_does_not_matter_to_a_server_of_our_own(monkeypatch, server, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    server.reply_text("hi")
    with client_of(server) as client:
        assert ask(client).text == "hi"


# --- E03 ------------------------------------------------------------------------------------


def trusting(server):
    return ssl.create_default_context(cafile=server.ca_file)


def test_e03_verify_takes_a_context():
    with WireServer(lambda head, body: [sized(body)], tls=True) as server:
        transport = transport_of(server, verify=trusting(server))
        assert [fetch(transport, b"%d" % n) for n in range(3)] == [b"0", b"1", b"2"]
        transport.close()
        assert server.connections == 1
        strange = transport_of(server, verify=ssl.create_default_context())
        with pytest.raises(errors.ConnectError, match="certificate"):
            fetch(strange)
        strange.close()


def test_e03_a_context_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with WireServer(lambda head, body: [sized(body)], tls=True) as server:
        transport = transport_of(server, verify=trusting(server))
        assert fetch(transport, b"x") == b"x"
        transport.close()


@pytest.mark.parametrize("variable", BUNDLES[:3])
def test_e03_the_environments_bundle(monkeypatch, variable):
    with WireServer(lambda head, body: [sized(body)], tls=True) as server:
        monkeypatch.setenv(variable, server.ca_file)
        transport = transport_of(server, verify=True)
        assert fetch(transport, b"x") == b"x"
        transport.close()


def test_e03_requests_own_variable_wins_and_verify_before_both(monkeypatch):
    with (
        WireServer(lambda head, body: [sized(body)], tls=True) as server,
        WireServer(echo, tls=True) as other,
    ):
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", server.ca_file)
        transport = transport_of(server, verify=True)
        assert fetch(transport, b"x") == b"x"
        transport.close()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
        transport = transport_of(server, verify=other.ca_file)  # the same certificate
        assert fetch(transport, b"x") == b"x"
        transport.close()


@pytest.mark.parametrize("variable", BUNDLES)
def test_e03_a_bundle_that_is_not_there(monkeypatch, variable):
    monkeypatch.setenv(variable, "/nowhere/ca.pem")
    with client_of("https://127.0.0.1:1") as client:
        result = ask(client)
    assert type(result.error) is errors.ConfigError
    assert result.error.setting == variable


def test_e03_verify_names_no_file():
    with pytest.raises(errors.ConfigError) as caught:
        LlamaClient("https://127.0.0.1:1", verify="/nowhere/ca.pem")
    assert caught.value.setting == "verify"


@pytest.mark.parametrize("as_context", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_e03_a_clients_certificate(tmp_path, as_context, apart):
    with WireServer(lambda head, body: [sized(body)], tls=True) as server:
        server.context.load_verify_locations(cadata=CLIENT_CERTIFICATE)
        server.context.verify_mode = ssl.CERT_REQUIRED
        own = pem_in(tmp_path)
        cert = own if apart else str(tmp_path / "both.pem")
        verify = trusting(server) if as_context else server.ca_file
        transport = transport_of(server, verify=verify, cert=cert)
        assert fetch(transport, b"x") == b"x"
        transport.close()
        bare = transport_of(server)
        with pytest.raises(errors.AgentStreamError):
            fetch(bare)
        bare.close()


def pem_in(directory):
    """A client's certificate and its key: two files, and both in a third."""
    for name, content in (
        ("cert.pem", CLIENT_CERTIFICATE),
        ("key.pem", CLIENT_KEY),
        ("both.pem", CLIENT_KEY + CLIENT_CERTIFICATE),
    ):
        (directory / name).write_text(content)
    return str(directory / "cert.pem"), str(directory / "key.pem")


@pytest.mark.parametrize(
    "cert", ["/nowhere.pem", ("/nowhere.pem", "/nowhere.key"), __file__, (), ("a", "b", "c"), 7]
)
def test_e03_a_certificate_that_is_none(cert):
    with pytest.raises(errors.ConfigError) as caught:
        OpenAIClient("m", api_key="k", base_url="https://127.0.0.1:1", cert=cert)
    assert caught.value.setting == "cert"


# --- keys and headers -----------------------------------------------------------------------


def authorizations(server):
    return [
        line.split(b" ", 1)[1]
        for head in server.heads
        for line in head.split(b"\r\n")
        if line.startswith(b"Authorization:")
    ]


def test_a_key_is_asked_for_with_each_request():
    keys = iter(["key-one", "key-two", "key-three"])
    with WireServer(lambda head, body: [sized(body)]) as server:
        transport = transport_of(server, api_key=lambda: next(keys))
        fetch(transport)
        with transport.exchange(None, CancelToken(), url=server.url + "/other") as exchange:
            exchange.read(100)
        fetch(transport)
        assert authorizations(server) == [b"Bearer key-one", b"Bearer key-two", b"Bearer key-three"]
        assert [key for key in transport.secrets() if key.startswith("key")] == [
            "key-one",
            "key-two",
            "key-three",
        ]
        transport.close()


@pytest.mark.parametrize("key", [None, 7, "", "a\nb", "ключ"])
def test_a_key_that_is_none(key):
    transport = Transport(
        "http://127.0.0.1:1", api_key=lambda: key, headers={}, verify=True, limits=Limits()
    )
    with pytest.raises(errors.ConfigError):
        fetch(transport)
    assert transport.places.free == Limits().pool_size
    transport.close()


def test_a_key_that_cannot_be_asked_for(server):
    def key():
        raise OSError("no route to the vault")

    with client_of(server, api_key=key) as client:
        result = ask(client)
    assert type(result.error) is errors.ConfigError
    assert result.error.setting == "api_key"
    assert "OSError" in str(result.error)
    assert not server.requests


def test_headers_of_one_request_go_over_those_of_all():
    with WireServer(lambda head, body: [sized(body)]) as server:
        transport = transport_of(server, api_key="k", headers={"X-One": "1", "X-Two": "2"})
        with transport.exchange(
            b"{}", CancelToken(), headers={"X-Two": "two", "Accept": "application/json"}
        ) as exchange:
            exchange.read(100)
        fetch(transport)
        first, second = (head.split(b"\r\n") for head in server.heads)
        assert {b"X-One: 1", b"X-Two: two", b"Accept: application/json"} <= set(first)
        assert {b"X-One: 1", b"X-Two: 2"} <= set(second)
        with (
            pytest.raises(errors.ConfigError),
            transport.exchange(b"{}", CancelToken(), headers={"X": "a\r\nInjected: b"}),
        ):
            pass
        transport.close()


@pytest.mark.parametrize("url", ["http://elsewhere.example/x", "https://127.0.0.1/x", "ftp://x"])
def test_another_server_is_not_sent_the_key(url):
    transport = Transport(
        "http://127.0.0.1:1/answer", api_key="k", headers={}, verify=True, limits=Limits()
    )
    with pytest.raises(errors.ConfigError):
        transport.exchange(None, CancelToken(), url=url)
    transport.close()


# --- B03, B15, B17 --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_b03_an_exchange_follows_no_redirect(status, method):
    with WireServer(echo) as other:
        moved = b"HTTP/1.1 %d Moved\r\nLocation: %s/x\r\nContent-Length: 0\r\n\r\n"
        with WireServer(lambda h, b: [moved % (status, other.url.encode())]) as server:
            transport = transport_of(server, api_key="secret")
            body = None if method == "GET" else b"{}"
            with transport.exchange(body, CancelToken()) as exchange:
                assert exchange.status == status
            transport.close()
        assert not other.requests


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_b03_loopback_is_never_proxied(monkeypatch, method):
    with WireServer(echo) as proxy, WireServer(echo) as server:
        for name in ("http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        transport = transport_of(server)
        with transport.exchange(None if method == "GET" else b"{}", CancelToken()) as exchange:
            assert exchange.status == 200
        transport.close()
        assert (len(server.requests), len(proxy.requests)) == (1, 0)


@pytest.mark.parametrize("password", ["s3cr3t-pass-word", "p@ss/w:rd+100%", "pässwörd-long"])
def test_b15_the_secrets_of_a_url_are_known_in_every_form(password):
    quoted = urllib.parse.quote(password, safe="")
    redact = Redactor(secrets_in(f"https://user:{quoted}@host/v1?api_key={quoted}xx&b=c"))
    pair = f"user:{password}"
    forms = [password, quoted, quoted.lower(), pair]
    forms.append(base64.b64encode(pair.encode("utf-8")).decode())
    forms.append(base64.b64encode(pair.encode("latin-1")).decode())
    for form in forms:
        shown = redact(f"denied: Basic {form}.")
        assert form not in shown, (form, shown)


def test_b15_in_an_error(server):
    basic = base64.b64encode(b"user:MARKEDKEY-0123").decode()
    url = server.url.replace("http://", "http://user:MARKEDKEY-0123@")
    server.reply_json({"error": {"message": f"Basic {basic} is wrong"}}, status=401)
    with client_of(url, api_key=None) as client:
        result = ask(client)
    assert basic not in str(result.error) + repr(vars(result.error))


@pytest.mark.parametrize("bad", ["\x1b[31mred", "a\x07b", "\x9b2J", "a\x7fb"])
def test_b17_headers_have_no_control_characters(bad):
    def answer(head, body):
        value = bad.encode("latin-1")
        return [sized(b"{}", headers=b"X-Request-Id: %s\r\nLocation: %s\r\n" % (value, value))]

    with WireServer(answer) as server:
        transport = transport_of(server)
        with transport.exchange(b"{}", CancelToken()) as exchange:
            for name in ("x-request-id", "location"):
                assert exchange.headers[name].isprintable()
        transport.close()


# --- Y10 ------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    "told",
    [
        pytest.param(True, id="os.fork"),
        pytest.param(
            False,
            id="libc.fork",
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 12),
                reason="beside other threads such a child of CPython 3.12 and later may hang itself",
            ),
        ),
    ],
)
def test_y10_a_pooled_connection_is_not_the_childs(told):
    """A server that forks behind Python's back runs none of the hooks."""
    with WireServer(lambda head, body: [sized(body)]) as server:
        transport = transport_of(server)
        assert fetch(transport, b"parent") == b"parent"
        # Beside other threads such a child of CPython may hang before it has done anything.
        status = next(filter(None, (status_of_child(transport, told) for _ in range(3))), None)
        assert status == "0"
        assert fetch(transport, b"again") == b"again"
        transport.close()
    mine, *childs, again = server.requests  # the connections' numbers
    assert mine == again == 1
    assert childs and 1 not in childs


def status_of_child(transport, told):
    """The exit status of a forked child that uses the transport; None of one that hangs."""
    child = os.fork() if told else ctypes.PyDLL(None).fork()
    if child == 0:
        try:
            os._exit(0 if fetch(transport, b"child") == b"child" else 1)
        finally:
            os._exit(2)
    until = time.monotonic() + (60.0 if told else 10.0)
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return str(status)
        threading.Event().wait(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
