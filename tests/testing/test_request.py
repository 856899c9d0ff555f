"""What the server heard: requests as they came, and half ones."""

from __future__ import annotations

import socket

import pytest
import requests

from tests.kit.raw_http import BOUND, asked, read, read_head


@pytest.mark.parametrize(
    "start", [b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx", b"junk\r\n\r\n"]
)
def test_half_a_request_is_a_bad_request(server, start):
    with asked(server, start) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read(sock) == b""
    assert server.outcomes == {1: "bad_request"}
    assert server.requests == []


def test_requests_are_recorded(server):
    server.default(status=204)
    with requests.Session() as session:
        session.post(server.url + "/a?b=c", json={"x": 1}, headers={"X-Key": "k"}, timeout=BOUND)
        session.put(server.url + "/d", data=iter([b"12", b"345"]), timeout=BOUND)
    first, second = server.requests
    assert (first.method, first.path, first.version) == ("POST", "/a?b=c", "HTTP/1.1")
    assert first.json == {"x": 1}
    assert first.headers["x-key"] == first.headers.get("X-KEY") == "k"
    assert "Content-Type" in first.headers
    assert first.headers.get("X-None") is None
    assert len(first.headers) == len(set(first.headers))
    assert (second.method, second.body) == ("PUT", b"12345")
    assert first.received <= second.received
    assert first.connection_id == second.connection_id == 1
    assert "k" not in repr(first.headers).split("X-Key")[1]
    assert repr(first) == "<Request POST /a?b=c, 8 bytes, connection 1>"


def test_repeated_header_fields_are_all_kept(server):
    server.reply(status=204)
    with asked(server, b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\na: 3\r\n\r\n") as sock:
        read_head(sock)
    headers = server.requests[0].headers
    assert headers.get_all("A") == ["1", "3"]
    assert headers["A"] == "1"


def test_keep_alive_is_recorded(server):
    server.reply("1", framing="length")
    server.reply("2", framing="chunked", headers={"Connection": "close"})
    server.reply("3", framing="close")
    with requests.Session() as session:
        for _ in range(3):
            session.get(server.url, timeout=BOUND)
    assert [request.connection_id for request in server.requests] == [1, 1, 2]
    assert server.connections == 2
