"""HTTP by hand, byte for byte: a socket, a request, a head, a chunk."""

from __future__ import annotations

import contextlib
import socket
import ssl

from agentstream.testing import Drip, Gate, Hang, Pause

BOUND = 5.0
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
EVENT_STREAM = b"Content-Type: text/event-stream\r\n"


@contextlib.contextmanager
def connected(server, tls=False):
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), BOUND))
        if server.ca_file and tls is not None:
            context = ssl.create_default_context(cafile=server.ca_file)
            sock = stack.enter_context(
                context.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
            )
        yield sock


@contextlib.contextmanager
def asked(server, request=GET):
    with connected(server) as sock:
        sock.sendall(request)
        yield sock


def read(sock, size=None):
    """Up to `size` bytes, or all until the end."""
    data = b""
    while size is None or len(data) < size:
        more = sock.recv(65536 if size is None else size - len(data))
        if not more:
            break
        data += more
    return data


def read_head(sock):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = sock.recv(1)
        assert more, data
        data += more
    return data


def read_chunk(sock):
    line = b""
    while not line.endswith(b"\r\n"):
        line += read(sock, 1)
    data = read(sock, int(line, 16))
    assert read(sock, 2) == b"\r\n"
    return data


# --- framings ---

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + EVENT_STREAM + b"Transfer-Encoding: chunked\r\n\r\n"


# --- clients that leave ---

WAITING = {
    "gate": Gate,
    "pause": lambda: Pause(60),
    "hang": Hang,
    "drip": lambda: Drip(b"xx", every=60),
}
