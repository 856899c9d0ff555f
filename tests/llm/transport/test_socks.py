"""SOCKS proxies: what is asked of them, and that all else holds over them as it does without."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest

from agentstream import CancelToken, Retries, errors
from agentstream.testing import Hang, text_chunks
from tests.kit.socks import Asked, SocksServer
from tests.kit.support import ask, client_of, wait_until
from tests.kit.wire import WireServer, chunked, fetch, sized, transport_of

SCHEMES = ["socks5h", "socks5", "socks4a", "socks4", "SOCKS5H"]
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.fixture
def by_socks(monkeypatch):
    """Sets the environment's proxy for everything."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def proxied(proxy, scheme="socks5h", user=""):
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{user}{proxy.url}")

    return proxied


@pytest.fixture(autouse=True)
def model_has_an_address(monkeypatch):
    """This machine looks up model.test, where the proxy is not to."""
    found = socket.getaddrinfo

    def lookup(host, *args, **kwargs):
        return found("127.0.0.9" if host == "model.test" else host, *args, **kwargs)

    monkeypatch.setattr("socket.getaddrinfo", lookup)


def unverified():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def through(proxy_settings=None, *, tls=False, answer=None):
    """A WireServer, a SocksServer before it, and a transport to model.test."""
    stack = contextlib.ExitStack()
    server = stack.enter_context(WireServer(answer or (lambda head, body: [sized(body)]), tls=tls))
    port = int(server.url.rpartition(":")[2])
    proxy = stack.enter_context(SocksServer(port, **(proxy_settings or {})))
    return stack, server, proxy


def transport_by(server, tls=False):
    transport = transport_of(server, verify=unverified() if tls else True)
    transport.url = f"{'https' if tls else 'http'}://model.test/answer"
    transport._loopback = False
    return transport


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_calls_go_through_it_and_share_a_connection(by_socks, scheme, tls):
    stack, server, proxy = through({"drip": True}, tls=tls)
    with stack:
        by_socks(proxy, scheme, "me:pass@")
        transport = transport_by(server, tls)
        assert [fetch(transport, b"%d" % n) for n in range(5)] == [b"%d" % n for n in range(5)]
        transport.close()
    by_name = scheme.lower() in ("socks5h", "socks4a")
    version = 4 if "4" in scheme else 5
    host = "model.test" if by_name else "127.0.0.9"
    port = 443 if tls else 80
    assert proxy.asked == [Asked(version, host, port, "me" if version == 4 else "", by_name)]
    assert server.connections == 1


@pytest.mark.parametrize("host", ["192.0.2.7", "[2001:db8::7]"])
def test_an_address_is_asked_for_as_one(by_socks, host):
    stack, server, proxy = through()
    with stack:
        by_socks(proxy)
        transport = transport_by(server)
        transport.url = f"http://{host}:8080/answer"
        assert fetch(transport, b"x") == b"x"
        transport.close()
    assert proxy.asked == [Asked(5, host.strip("[]"), 8080, "", False)]


def test_it_is_told_user_and_password(by_socks):
    user = ("me", "ü" * 100)
    stack, server, proxy = through({"user": user})
    with stack:
        by_socks(proxy, user="me:" + "%C3%BC" * 100 + "@")
        transport = transport_by(server)
        assert fetch(transport, b"x") == b"x"
        transport.close()
    assert proxy.asked[0].user == "me"


REFUSALS = {
    "no-user": ({"user": ("me", "x")}, "", False),
    "wrong-user": ({"user": ("me", "x")}, "me:MARKEDKEY@", False),
    "long-password": ({"user": ("me", "x")}, "me:" + "MARKEDKEY" * 30 + "@", False),
    "rules": ({"refuse": 2}, "", False),
    "unreachable": ({"refuse": 4}, "", True),
    "unknown": ({"refuse": 77}, "", False),
    "http": ({"answer": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, "", False),
    "hangs-up": ({"answer": b"\5"}, "", True),
}


@pytest.mark.parametrize(("settings", "user", "retryable"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_n19_it_does_not_connect(by_socks, settings, user, retryable, tls):
    stack, _, proxy = through(settings)
    with stack:
        by_socks(proxy, user=user)
        url = f"{'https' if tls else 'http'}://model.test"
        with client_of(url, retries=Retries(1, backoff=0.01)) as client:
            result = ask(client)  # which hunts for the mark
        wait_until(lambda: not proxy.open)
    assert type(result.error) is errors.ConnectError
    assert "proxy" in str(result.error)
    assert (result.error.phase, result.error.retryable) == ("connect", retryable)
    assert len(result.retries) == retryable


@pytest.mark.parametrize("refuse", [91, 92, 93])
def test_n19_socks4_refuses(by_socks, refuse):
    stack, _, proxy = through({"refuse": refuse})
    with stack:
        by_socks(proxy, "socks4a")
        with client_of("http://model.test") as client:
            error = ask(client).error
    assert type(error) is errors.ConnectError
    assert error.retryable == (refuse == 91)


@pytest.mark.parametrize("silent", ["greeting", "request"])
def test_x01_n02_a_silent_one_is_bounded_and_cancelled(by_socks, silent):
    stack, _, proxy = through({"silent": silent})
    with stack:
        by_socks(proxy)
        with client_of("http://model.test", connect=0.3) as client:
            result = ask(client)
            assert type(result.error) is errors.ConnectTimeout
            assert result.took < 3.0
        token = CancelToken()
        with client_of("http://model.test", connect=20.0) as client:
            threading.Timer(0.2, token.cancel).start()
            result = ask(client, cancel=token)
            assert type(result.error) is errors.Cancelled
            assert result.took < 5.0
        wait_until(lambda: not proxy.open)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_x02_a_cancel_shuts_the_socket(by_socks, tls, server, tls_server):
    target = tls_server if tls else server
    target.reply(*text_chunks("a", finish_reason=None, usage=False, done=False), Hang())
    with SocksServer(target.port) as proxy:
        by_socks(proxy)
        scheme = "https" if tls else "http"
        token = CancelToken()
        with client_of(f"{scheme}://model.test", verify=unverified() if tls else True) as client:
            began = time.monotonic()
            result = ask(
                client, cancel=token, on_delta=lambda delta: delta.content and token.cancel()
            )
            assert type(result.error) is errors.Cancelled
            assert time.monotonic() - began < 2.0
            assert result.text == "a"
            wait_until(lambda: not proxy.open)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_b04_b05_hold_through_it(by_socks, tls):
    """Interim answers are skipped, and what is left over is nobody's answer."""
    left = sized(b"forged")

    def answer(head, body):
        return [EARLY + chunked(body) + (left if body == b"0" else b"")]

    stack, server, proxy = through(tls=tls, answer=answer)
    with stack:
        by_socks(proxy)
        transport = transport_by(server, tls)
        assert [fetch(transport, b"%d" % n) for n in range(4)] == [b"0", b"1", b"2", b"3"]
        transport.close()
    assert server.requests == [1, 2, 2, 2]


def test_a_stale_connection_of_its_costs_one_more(by_socks):
    """N17: and what the pool has closed is closed at the proxy too."""
    answers = iter([[sized(b"one"), None], [sized(b"two")]])
    stack, server, proxy = through(answer=lambda head, body: next(answers))
    with stack:
        by_socks(proxy)
        transport = transport_by(server)
        assert [fetch(transport), fetch(transport)] == [b"one", b"two"]
        transport.close()
        wait_until(lambda: not proxy.open)
    assert len(proxy.asked) == 2
