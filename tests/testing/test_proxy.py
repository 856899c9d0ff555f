"""TCPProxy: what passes, what is held, what is cut, and that nothing of it stays behind."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from typing import Iterator, List

import pytest

from agentstream.testing import TCPProxy
from agentstream.testing.certificates import server_context
from tests.kit.support import free_port, wait_until


class Echo:
    """A server that answers each line with "<" and the line."""

    def __init__(self) -> None:
        self.had: List[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            with sock:
                if sock.recv(1, socket.MSG_PEEK) == b"!":
                    return
                self._threads.append(threading.Thread(target=self._serve, args=(sock.dup(),)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as lines:
            try:
                for line in lines:
                    self.had.append(line)
                    sock.sendall(b"<" + line)
            except OSError:
                pass

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"!")
            self._threads[0].join(5)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def connect(proxy: TCPProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 5)


def say(sock: socket.socket, line: bytes) -> bytes:
    """What comes back to a line; b"" for the end of the connection."""
    try:
        sock.sendall(line)
        return sock.recv(100)
    except ConnectionError:
        return b""


def test_bytes_pass_both_ways_and_a_cut_ends_all(echo: Echo) -> None:
    with TCPProxy(echo.port) as proxy, connect(proxy) as one, connect(proxy) as two:
        assert say(one, b"a\n") == b"<a\n"
        assert say(two, b"b\n") == b"<b\n"
        proxy.cut()
        assert say(one, b"c\n") == say(two, b"c\n") == b""
        with connect(proxy) as three:
            assert say(three, b"d\n") == b"<d\n"
        assert proxy.cuts == 0
    proxy.close()


@pytest.mark.parametrize("replies", [False, True])
def test_what_is_held_comes_when_it_is_released(echo: Echo, replies: bool) -> None:
    with TCPProxy(echo.port) as proxy, connect(proxy) as one:
        assert say(one, b"a\n") == b"<a\n"
        proxy.hold(replies=replies)
        one.settimeout(0.1)
        with pytest.raises(socket.timeout):
            say(one, b"b\n")
        with connect(proxy) as two:  # is accepted all the same
            two.settimeout(0.1)
            with pytest.raises(socket.timeout):
                say(two, b"c\n")
        assert (b"b\n" in echo.had) == replies
        proxy.release()
        one.settimeout(5)
        assert one.recv(100) == b"<b\n"


def test_a_cut_after_the_request_leaves_it_done_and_unanswered(echo: Echo) -> None:
    with TCPProxy(echo.port) as proxy, connect(proxy) as one:
        proxy.cut_after_request = lambda sent: sent == b"b\n"
        assert say(one, b"a\n") == b"<a\n"
        assert say(one, b"b\n") == b""
        assert echo.had == [b"a\n", b"b\n"]
        assert proxy.cuts == 1


def test_a_reply_is_cut_in_the_middle(echo: Echo) -> None:
    with TCPProxy(echo.port) as proxy, connect(proxy) as one:
        proxy.cut_reply = lambda reply: 3 if b"long" in reply else None
        assert say(one, b"a\n") == b"<a\n"
        assert say(one, b"long\n") == b"<lo"
        assert say(one, b"c\n") == b""
        assert proxy.cuts == 1


def test_the_way_leads_elsewhere_from_the_next_connection_on(echo: Echo) -> None:
    with TCPProxy(free_port()) as proxy:
        with connect(proxy) as lost:
            assert say(lost, b"a\n") == b""
        proxy.upstream = echo.port
        with connect(proxy) as one:
            assert say(one, b"a\n") == b"<a\n"


def test_with_a_context_clients_speak_tls(echo: Echo) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = type("Directory", (), {"name": name})
        context, ca_file = server_context(directory, False)  # type: ignore[arg-type]
    with TCPProxy(echo.port, context=context) as proxy, connect(proxy) as one:
        client = ssl._create_unverified_context()
        with client.wrap_socket(one) as secure:
            assert say(secure, b"a\n") == b"<a\n"
            proxy.cut()
            wait_until(lambda: say(secure, b"b\n") == b"")
    assert ca_file
