"""docs/faults.rst N19: a proxy that refuses, or fails.  Loopback is never proxied, so the model's
host is a name that only the proxy would know.
"""

from __future__ import annotations

import pytest

from agentstream import errors
from agentstream.llm.settings import Retries
from tests.kit.support import ask, client_of

PAGE = (
    "<html><head><title>Proxy Authentication Required</title></head><body>"
    + "<p>Ask your administrator.</p>" * 200
    + "</body></html>"
)


@pytest.fixture
def proxied(monkeypatch, server):
    """The server, as the environment's proxy for everything."""
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, server.url)
    return server


def test_n19_proxy_wants_a_password(proxied):
    proxied.reply(PAGE, status=407, content_type="text/html", framing="length")
    with client_of("http://model.invalid", retries=Retries(2)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert "407" in str(result.error)
    assert "Proxy Authentication Required" in str(result.error)
    assert len(str(result.error)) < 1200
    assert not result.error.retryable
    assert result.error.phase == "connect"
    assert len(proxied.requests) == 1
    assert proxied.requests[0].path == "http://model.invalid/v1/chat/completions"


def test_n19_proxy_has_no_way_to_the_server(proxied):
    page = PAGE.replace("Proxy Authentication Required", "Bad Gateway")
    proxied.reply(page, status=502, content_type="text/html", framing="length", repeat=True)
    with client_of("http://model.invalid", retries=Retries(1, backoff=0.01)) as client:
        result = ask(client)
    assert type(result.error) is errors.ServerError
    assert result.error.status == 502
    assert "Bad Gateway" in str(result.error)
    assert 0 < len(result.error.body) <= 1024
    assert len(proxied.requests) == 2


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (502, 2)])
def test_n19_tunnel_refused(proxied, status, tries):
    proxied.reply(PAGE, status=status, content_type="text/html", framing="length", repeat=True)
    with client_of("https://model.invalid", retries=Retries(1, backoff=0.01)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert str(status) in str(result.error)
    assert "model.invalid:443" in str(result.error)
    assert result.error.phase == "connect"
    assert result.error.retryable == (status == 502)
    assert [r.method for r in proxied.requests] == ["CONNECT"] * tries
    # What was meant for the server alone was not given to the proxy.
    assert not any("Authorization" in r.headers for r in proxied.requests)


def test_n19_proxy_not_there(monkeypatch, proxied):
    proxied.close()
    with client_of("http://model.invalid") as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert result.error.retryable


def test_n19_proxys_own_password_is_not_shown(monkeypatch, proxied):
    secret = proxied.url.replace("http://", "http://user:MARKEDKEY@")
    monkeypatch.setenv("http_proxy", secret)
    monkeypatch.setenv("https_proxy", secret)
    for url, status in (("http://model.invalid", 407), ("https://model.invalid", 502)):
        proxied.reply(PAGE, status=status, content_type="text/html", framing="length")
        with client_of(url) as client:
            result = ask(client)  # which hunts for the mark
        assert type(result.error) is errors.ConnectError


def test_n19_proxy_that_works(proxied):
    proxied.reply_text("Hello")
    with client_of("http://model.invalid") as client:
        assert ask(client).text == "Hello"


def test_n19_loopback_is_not_proxied(proxied):
    proxied.reply_text("Hello")
    with client_of(proxied) as client:
        assert ask(client).text == "Hello"
    assert proxied.requests[0].path == "/v1/chat/completions"
