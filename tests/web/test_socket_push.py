"""Sockets of gunicorn's that any thread writes to: which, what is framed, what is left over."""

from __future__ import annotations

import socket
from typing import Any, Dict, List

import gunicorn.http.wsgi
import pytest

from agentstream.web.pushing import KEY
from agentstream.web.socket_push import with_push


def answer(sock: Any, chunked: bool) -> Any:
    """gunicorn's answer to a request, once its headers have gone."""
    found = gunicorn.http.wsgi.Response.__new__(gunicorn.http.wsgi.Response)
    found.sock, found.chunked, found.headers_sent = sock, chunked, True
    return found


@pytest.mark.parametrize("chunked", [True, False])
def test_what_the_socket_does_not_take_is_sent_by_who_may_wait(chunked: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ: Dict[str, Any] = {"gunicorn.socket": ours}
        start = with_push(environ, lambda *_: answer(ours, chunked).write)
        push = environ[KEY]
        assert not push.has_room()  # there are no headers yet
        start("200 OK", [])
        assert push.has_room()
        push.write(b"hello")
        push.settle()
        assert theirs.recv(100) == (b"5\r\nhello\r\n" if chunked else b"hello")
        sent = 0
        while push.has_room():  # nobody reads
            push.write(b"x" * 100_000)
            sent += 1
        theirs.setblocking(False)
        had: List[bytes] = []
        while True:
            try:
                had.append(theirs.recv(1 << 20))
            except BlockingIOError:
                if push.has_room():
                    break
                push.settle()
        assert sum(map(len, had)) == sent * (100_000 + chunked * len(b"186A0\r\n\r\n"))
        theirs.close()
        with pytest.raises(OSError, match="pipe"):
            push.write(b"x")


def test_others_write_in_their_own_thread():
    ours, theirs = socket.socketpair()
    with ours, theirs:

        class OfGevent(socket.socket):
            pass

        OfGevent.__module__ = "gevent._socket3"
        with OfGevent() as other:
            for environ in ({}, {"gunicorn.socket": other}, {"gunicorn.socket": object()}):
                assert with_push(environ, print) is print
                assert KEY not in environ
        unwanted: Dict[str, Any] = {"gunicorn.socket": ours, KEY: None}
        assert with_push(unwanted, print) is print
        environ = {"gunicorn.socket": ours}
        with_push(environ, lambda *_: print)("200 OK", [])  # of what stands before the app
        assert not environ[KEY].has_room()
