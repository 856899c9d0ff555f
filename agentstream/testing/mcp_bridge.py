"""The process of `ScriptedMCP.command`: lines in, POSTs to the test's server, lines out.

python -m agentstream.testing.mcp_bridge PORT
"""

from __future__ import annotations

import json
import socket
import sys
import threading

__all__ = ["main"]


def main(port: int) -> None:
    """Pass on every line of standard input, side by side, until it ends."""
    writing = threading.Lock()
    for line in iter(sys.stdin.buffer.readline, b""):
        threading.Thread(target=_pass_on, args=(port, line.strip(), writing), daemon=True).start()


def _pass_on(port: int, body: bytes, writing: threading.Lock) -> None:
    head = (
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-Scripted-Bridge: yes\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(head.encode() + body)
        answer = _answer(sock)
    if answer:
        with writing:
            sys.stdout.buffer.write(json.dumps(json.loads(answer)).encode() + b"\n")
            sys.stdout.buffer.flush()


def _answer(sock: socket.socket) -> bytes:
    """The body of the answer, which has a Content-Length."""
    raw = b""
    while True:
        head, end, body = raw.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if end and len(body) >= int(fields.get(b"content-length", b"0")):
            return body
        data = sock.recv(65536)
        if not data:
            return b""
        raw += data


if __name__ == "__main__":
    main(int(sys.argv[1]))
