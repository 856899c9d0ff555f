"""What an HTTP error says of where it came from: the URL, the key's source, what may be meant."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Iterator

import pytest

from agentstream import AnthropicClient, LlamaClient, OllamaClient, OpenAIClient, Retries, Timeouts
from agentstream.errors import AuthError, BadRequest, ConnectError, ConnectTimeout, ProtocolError
from agentstream.testing import ScriptedServer
from tests.kit.support import KEY, hunt

ONCE = Retries(0)


@pytest.fixture
def not_found(server: ScriptedServer) -> ScriptedServer:
    server.default(b"404 page not found", status=404, content_type="text/plain")
    return server


def refusal(client: Any) -> Any:
    with client, pytest.raises(BadRequest) as caught:
        client.chat("hi")
    return caught.value


def test_an_error_names_the_url_without_secrets(not_found: ScriptedServer) -> None:
    url = f"{not_found.url}/{KEY}/v1?api-key={KEY}"
    error = refusal(OpenAIClient("m", base_url=url, api_key=KEY, retries=ONCE))
    assert error.url.startswith(f"{not_found.url}/") and error.url.endswith("/v1/chat/completions")
    assert f", from {error.url}" in str(error)
    hunt(str(error))
    hunt(error.url)


def test_a_404_says_which_base_url_may_be_meant(not_found: ScriptedServer) -> None:
    url = not_found.url
    for base, meant in (
        ("", f"(is its base_url {url}/v1?)"),
        ("/proxy", f"(is its base_url {url}/proxy/v1?)"),
        ("/v1/chat/completions", "(a base_url ends before /chat/completions)"),
        ("/v1", ""),
        ("/openai/v4", ""),
    ):
        error = refusal(OpenAIClient("m", base_url=url + base, api_key="k", retries=ONCE))
        assert str(error).endswith(meant or error.url), base
    pasted = refusal(LlamaClient(f"{url}/v1/chat/completions", retries=ONCE))
    assert str(pasted).endswith("(a base_url ends before /chat/completions)")


def test_the_clients_agree_on_v1(server: ScriptedServer) -> None:
    clients = (
        LlamaClient(server.url),
        LlamaClient(f"{server.url}/v1"),
        OpenAIClient("m", base_url=f"{server.url}/v1"),
    )
    for client in clients:
        with client:
            server.reply_text("hi")
            assert client.chat("hi").text == "hi"
    assert {request.path for request in server.requests} == {"/v1/chat/completions"}


def test_a_404_of_a_model_says_nothing_of_the_url(server: ScriptedServer) -> None:
    body = b'{"error": {"code": "model_not_found", "message": "no such model"}}'
    server.default(body, status=404, content_type="application/json")
    error = refusal(OpenAIClient("m", base_url=server.url, api_key="k", retries=ONCE))
    assert "is its base_url" not in str(error)


def test_a_401_names_where_the_key_came_from(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.default(b"no", status=401, content_type="text/plain")
    url = f"{server.url}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    for client, source in (
        (OpenAIClient("m", retries=ONCE), "OPENAI_API_KEY"),
        (AnthropicClient("m", retries=ONCE), "ANTHROPIC_API_KEY"),
        (OpenAIClient("m", api_key=KEY, retries=ONCE), "api_key="),
        (OpenAIClient("m", api_key=lambda: KEY, retries=ONCE), "the function api_key="),
        (LlamaClient(server.url, headers={"Authorization": f"Bearer {KEY}"}), "headers="),
        (LlamaClient(server.url.replace("://", f"://me:{KEY}@"), retries=ONCE), "the URL"),
        (LlamaClient(server.url, retries=ONCE), None),
        (OllamaClient("m", server.url, retries=ONCE), None),
    ):
        with client, pytest.raises(AuthError) as caught:
            client.chat("hi")
        error = caught.value
        assert error.key_source == source
        wanted = f"is that of {source})" if source else "no key was sent: api_key= takes one)"
        assert str(error).endswith(wanted)
        hunt(str(error))


def test_what_is_no_stream_names_its_url(server: ScriptedServer) -> None:
    server.default(b"<html>Welcome!</html>", content_type="text/html")
    with LlamaClient(server.url, retries=ONCE) as client, pytest.raises(ProtocolError) as caught:
        client.chat("hi")
    assert str(caught.value).endswith(f"Welcome!, from {server.url}/v1/chat/completions")


# --- TLS where there is none, and the other way about -----------------------------------------


@pytest.fixture
def answering() -> Iterator[Any]:
    """Starts a server that answers the first bytes of one connection so; gives its port."""
    threads = []
    listeners = []

    def start(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):  # it may be gone
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass  # or what is left unread would make the end a reset

        thread = threading.Thread(target=serve)
        thread.start()
        threads.append(thread)
        listeners.append(listener)
        return int(listener.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(10)
    for listener in listeners:
        listener.close()


def test_https_to_an_http_port_says_tls(answering: Any, server: ScriptedServer) -> None:
    port = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    url = f"https://127.0.0.1:{port}"
    with LlamaClient(url, retries=ONCE) as client, pytest.raises(ConnectError) as caught:
        client.chat("hi")
    assert caught.value.phase == "tls" and str(caught.value).startswith("TLS with 127.0.0.1:")
    assert f"it speaks no TLS there: http://127.0.0.1:{port}?" in str(caught.value)
    silent = server.url.replace("http:", "https:")  # a server that waits for the rest
    with LlamaClient(silent, retries=ONCE, timeouts=Timeouts(connect=0.2)) as client:
        with pytest.raises(ConnectTimeout, match="no TLS connection, as https:// asks for"):
            client.chat("hi")


def test_http_to_an_https_port_says_so(answering: Any) -> None:
    port = answering(b"\x15\x03\x03\x00\x02\x02\x46")  # an alert: unexpected message
    url = f"http://127.0.0.1:{port}"
    with LlamaClient(url, retries=ONCE) as client, pytest.raises(ProtocolError, match="https://"):
        client.chat("hi")
