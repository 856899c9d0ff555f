"""docs/faults.rst N01 to N03, N08, N17, N18: names, connections, certificates, servers that hang up.

Clocks are in test_faults_clocks.py, endings in test_faults_endings.py, promptness in
test_faults_prompt.py, proxies in test_faults_proxy.py.
"""

from __future__ import annotations

import logging
import socket
import threading
import time

import pytest

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.llm.settings import Retries
from agentstream.testing import Action, Cut, Drip, Hang, Pause, Raw, Reply, Reset, ScriptedServer
from agentstream.testing.pieces import text_chunks
from tests.kit.support import ask, black_hole, client_of, free_port

#: A slow machine's share of every bound.
ROOM = 1.0

FRAMINGS = ("chunked", "one-chunk", "length", "close", "http10", "gzip")
ANSWER = text_chunks("Hello", ", ", "world", "!")
BEGINNING = ANSWER[:3]  # the role, "Hello" and ", "


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def either(request):
    with ScriptedServer(tls=request.param) as server:
        yield server


def resolve_to(monkeypatch, *addresses):
    """Have every host name resolve to these (host, port) pairs."""

    def getaddrinfo(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


# --- N01 ---


def test_n01_connection_refused():
    with client_of(f"http://127.0.0.1:{free_port()}", retries=Retries(2, backoff=0.04)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert (result.error.phase, result.error.outcome) == ("connect", "failed")
    assert result.error.retryable
    assert "Connection refused" in str(result.error)
    assert [notice.attempt for notice in result.retries] == [1, 2]
    for notice, whole in zip(result.retries, (0.04, 0.08)):
        assert whole / 2 <= notice.delay_s <= whole
        assert notice.error == "ConnectError"
    assert sum(n.delay_s for n in result.retries) <= result.took < 0.12 + ROOM


def test_n01_backoff_has_jitter():
    retries = Retries(backoff=1.0, max_backoff=8.0)
    for attempt, whole in enumerate((1.0, 2.0, 4.0, 8.0, 8.0, 8.0)):
        delays = [retries.delay(attempt) for _ in range(50)]
        assert len(set(delays)) > 10
        assert all(whole / 2 <= delay <= whole for delay in delays)
    assert retries.delay(10_000) <= 8.0


def test_n01_name_does_not_resolve(monkeypatch):
    def getaddrinfo(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with client_of("http://model.invalid", retries=Retries(1, backoff=0.01)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert str(result.error) == "cannot resolve model.invalid:80: Name or service not known"
    assert (result.error.phase, result.error.retryable) == ("connect", True)
    assert len(result.retries) == 1


def test_n01_comes_up_meanwhile():
    port = free_port()
    servers = []

    def start(delta):
        if delta.retry is not None:
            servers.append(ScriptedServer(port=port))
            servers[0].reply(*ANSWER)

    try:
        with client_of(f"http://127.0.0.1:{port}", retries=Retries(1, backoff=0.01)) as client:
            result = ask(client, on_delta=start)
        assert result.error is None
        assert result.text == "Hello, world!"
        assert len(servers[0].requests) == 1
    finally:
        for server in servers:
            server.close()


def test_n01_backoff_ends_with_a_cancel():
    token = CancelToken()
    threads = []

    def cancel_soon(delta):
        threads.append(threading.Timer(0.05, token.cancel))
        threads[0].start()

    with client_of(f"http://127.0.0.1:{free_port()}", retries=Retries(1, backoff=60)) as client:
        result = ask(client, cancel=token, on_delta=cancel_soon)
    threads[0].join()
    assert type(result.error) is errors.Cancelled
    assert len(result.retries) == 1
    assert result.took < 0.05 + ROOM


def test_n01_backoff_beyond_the_deadline_is_not_waited():
    url = f"http://127.0.0.1:{free_port()}"
    with client_of(url, total=20.0, retries=Retries(1, backoff=60, max_backoff=60)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert not result.retries
    assert result.took < ROOM


# --- N02 ---


@pytest.mark.parametrize("addresses", [1, 4])
def test_n02_syn_dropped(monkeypatch, addresses):
    with black_hole() as port:
        resolve_to(monkeypatch, *[("127.0.0.1", port)] * addresses)
        with client_of("http://model.invalid", connect=0.3, retries=Retries(2)) as client:
            result = ask(client)
    assert type(result.error) is errors.ConnectTimeout
    assert isinstance(result.error, TimeoutError)
    assert (result.error.phase, result.error.outcome) == ("connect", "failed")
    assert "Timeouts.connect" in str(result.error)
    assert 0.29 <= result.took < 0.3 + ROOM


def test_n02_syn_dropped_by_the_first_address_only(monkeypatch, server):
    server.reply(*ANSWER)
    with black_hole() as port:
        resolve_to(monkeypatch, ("127.0.0.1", port), ("127.0.0.1", server.port))
        with client_of("http://model.invalid", connect=0.8) as client:
            result = ask(client)
    assert result.text == "Hello, world!"
    assert result.took < 0.8 + ROOM


def test_n02_refused_by_the_first_address_only(monkeypatch, server):
    server.reply(*ANSWER)
    resolve_to(monkeypatch, ("127.0.0.1", free_port()), ("127.0.0.1", server.port))
    with client_of("http://model.invalid") as client:
        assert ask(client).text == "Hello, world!"


def test_n02_name_server_silent(monkeypatch):
    answer = threading.Event()

    def getaddrinfo(*_, **__):
        answer.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with client_of("http://model.invalid", connect=0.2, retries=Retries(2)) as client:
            result = ask(client)
    finally:
        answer.set()
    assert type(result.error) is errors.ConnectTimeout
    assert result.error.phase == "connect"
    assert 0.2 <= result.took < 0.2 + ROOM


def test_n02_tls_handshake_hangs(tls_server):
    tls_server.on_connect(Hang(), repeat=True)
    with client_of(tls_server, connect=0.3, retries=Retries(2)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectTimeout
    assert (result.error.phase, result.error.outcome) == ("tls", "failed")
    assert 0.3 <= result.took < 0.3 + ROOM
    assert tls_server.connections == 1


def test_n02_tls_handshake_drips(server):
    # A record header that promises 16 KiB of handshake; no read ever waits longer than 20 ms.
    server.on_connect(Drip(Raw(b"\x16\x03\x03\x40\x00\x02" + bytes(500)), 1, 0.02), repeat=True)
    with client_of(server.url.replace("http", "https"), connect=0.3) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectTimeout
    assert result.error.phase == "tls"
    assert 0.3 <= result.took < 0.3 + ROOM


# --- N03 ---


def refused_certificate(result, server):
    assert type(result.error) is errors.ConnectError
    assert (result.error.phase, result.error.outcome) == ("tls", "failed")
    assert not result.error.retryable
    assert not result.retries
    assert "certificate" in str(result.error)
    assert server.connections == 1
    assert server.requests == []
    assert result.took < ROOM


def test_n03_expired_certificate():
    with ScriptedServer(tls="expired") as server:
        with client_of(server, retries=Retries(3)) as client:
            result = ask(client)
        refused_certificate(result, server)
    assert "expired" in str(result.error)


def test_n03_self_signed_certificate(tls_server):
    with client_of(tls_server, verify=True, retries=Retries(3)) as client:
        result = ask(client)
    refused_certificate(result, tls_server)
    assert "self" in str(result.error)


def test_n03_certificate_of_another_host(monkeypatch, tls_server):
    resolve_to(monkeypatch, ("127.0.0.1", tls_server.port))
    with client_of(
        "https://model.invalid", verify=tls_server.ca_file, retries=Retries(3)
    ) as client:
        result = ask(client)
    refused_certificate(result, tls_server)
    assert "model.invalid" in str(result.error)


def test_n03_server_without_tls(server):
    server.on_connect(Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Hang(), repeat=True)
    with client_of(server.url.replace("http", "https"), retries=Retries(3)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert (result.error.phase, result.error.retryable) == ("tls", False)
    assert "TLS with 127.0.0.1" in str(result.error)
    assert server.connections == 1


# --- N08, N18 ---

PLACES = {
    "nothing": lambda end: Reply(before_headers=[end]),
    "half a status line": lambda end: Reply("HTTP/1.", end, framing="raw"),
    "half the headers": lambda end: Reply("HTTP/1.1 200 OK\r\nContent-Ty", end, framing="raw"),
    "headers": Reply,
    "role": lambda end: Reply(ANSWER[0], end),
    "half the first text": lambda end: Reply(ANSWER[0], ANSWER[1][:40], end),
    "comment": lambda end: Reply(":\n\n", end, framing="close"),
}


@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["fin", "rst"])
@pytest.mark.parametrize("place", PLACES)
def test_n08_dropped_before_the_first_delta(monkeypatch, either, place, end):
    # Its warning about half a header keeps the frames, and so the socket, in pytest's hands.
    monkeypatch.setattr(logging.getLogger("urllib3.connection"), "disabled", True)
    either._add(PLACES[place](end), None, False)
    either.reply(*ANSWER)
    with client_of(either, retries=Retries(1, backoff=0.02)) as client:
        result = ask(client)
    assert result.error is None, result.error
    assert result.text == "Hello, world!"
    assert [notice.attempt for notice in result.retries] == [1]
    assert len(either.requests) == 2
    assert result.took < 0.02 + ROOM


@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["fin", "rst"])
def test_n18_dropped_unanswered_until_attempts_run_out(either, end):
    either.reply(before_headers=[end], repeat=True)
    with client_of(either, retries=Retries(2, backoff=0.02)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert (result.error.phase, result.error.outcome) == ("headers", "unknown")
    assert result.error.retryable
    assert len(result.retries) == 2
    assert len(either.requests) == 3
    assert result.took < 0.06 + ROOM


class FirstBytes(Action):
    """Wait until the client has said something, and leave it unread."""

    def play(self, stage):
        stage.link._sock.recv(1, socket.MSG_PEEK)


@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["fin", "rst"])
def test_n18_dropped_before_the_request_was_read(either, end):
    either.on_connect(FirstBytes(), end, repeat=True)  # with TLS: in the handshake
    with client_of(either, retries=Retries(1, backoff=0.02)) as client:
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert result.error.retryable
    assert len(result.retries) == 1
    assert either.connections == 2


# --- N17 ---


def test_n17_connection_is_used_again(either):
    either.reply(*ANSWER, repeat=True)
    with client_of(either) as client:
        for _ in range(3):
            assert ask(client).text == "Hello, world!"
    assert [request.connection_id for request in either.requests] == [1, 1, 1]


def test_n17_closed_while_it_lay_in_the_pool(either):
    either.reply(*ANSWER)
    with client_of(either) as client:
        assert ask(client).text == "Hello, world!"
        either._links[1].abort()
        assert either.wait_closed(1)
        either.reply(*ANSWER)
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello, world!"
    assert not result.retries
    assert len(either.requests) == 2


@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["fin", "rst"])
def test_n17_closed_as_the_request_came(either, end):
    """The server's keep-alive ran out at that moment: nobody's failure, no retry spent."""
    either.reply(*ANSWER)
    either.reply(before_headers=[end])
    either.reply(*ANSWER)
    with client_of(either) as client:  # no retries
        ask(client)
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello, world!"
    assert not result.retries
    assert [request.connection_id for request in either.requests] == [1, 1, 2]


def test_n17_reconnects_once_and_not_after_a_byte_of_an_answer(server):
    server.reply(*ANSWER)
    server.reply("HTTP/1.", Cut(), framing="raw")
    server.reply(*ANSWER)
    with client_of(server) as client:
        ask(client)
        result = ask(client)
    assert isinstance(result.error, errors.AgentStreamError)
    assert (result.error.outcome, result.error.retryable) == ("unknown", True)
    assert len(server.requests) == 2


def test_n17_a_second_drop_counts(server):
    server.reply(*ANSWER)
    server.reply(before_headers=[Cut()], repeat=True)
    with client_of(server) as client:
        ask(client)
        result = ask(client)
    assert type(result.error) is errors.ConnectError
    assert len(server.requests) == 3


def test_n17_leaves_a_sane_clock_behind(server):
    """A clock of the first call must not ring in the second, on the same connection."""
    server.reply(*ANSWER)
    server.reply(*ANSWER[:3], Pause(0.4), *ANSWER[3:])
    with client_of(server, stall=2.0) as client:
        with client_of(server, stall=0.2) as hasty:
            hasty._transport = client._transport
            ask(hasty)
        start = time.monotonic()
        result = ask(client)
    assert result.error is None
    assert time.monotonic() - start > 0.4
