"""A server in a process of its own that replays a recorded llama.cpp stream.

Chunk by chunk as llama.cpp sends it: one HTTP chunk an event.  `?chunks=N`
makes the answer N deltas long; `?rate=R` paces them, R a second; GET /cpu tells
nothing: costs are measured in the clients.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import List

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)
_WORDS = ["Hello", "!", " How", " can", " I", " help", " you", " today", "?", "\n", " The",
          " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", "."]  # fmt: skip


def _event(delta: dict, finish: object = None, **more: object) -> bytes:
    """One event with the keys and the size of llama.cpp's own."""
    payload = {
        "choices": [{"finish_reason": finish, "index": 0, "delta": delta}],
        "created": 1795342236,
        "id": "chatcmpl-rI2LpI3wEYXCYCNAlDxw3otAui7LiTbH",
        "model": "smollm2-135m",
        "system_fingerprint": "b0-unknown",
        "object": "chat.completion.chunk",
        **more,
    }
    data = b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


_FIRST = _event({"role": "assistant", "content": None})
_DELTAS = [_event({"content": word}) for word in _WORDS]
_LAST = _event({}, "stop")
_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _usage(count: int) -> bytes:
    data = json.dumps({
        "choices": [], "created": 1795342236, "id": "x", "model": "smollm2-135m",
        "object": "chat.completion.chunk",
        "usage": {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count},
    }).encode()  # fmt: skip
    data = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def text_of(count: int) -> str:
    """The text that an answer of `count` deltas makes."""
    return "".join(_WORDS[i % len(_WORDS)] for i in range(count))


def _handle(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = connection.makefile("rb")
    try:
        while True:
            line = reader.readline()
            if not line:
                return
            length = 0
            while True:
                header = reader.readline()
                if header in (b"\r\n", b""):
                    break
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            reader.read(length)
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(line.split()[1].decode()).query)
            _answer(connection, int(query.get("chunks", ["200"])[0]),
                    float(query.get("rate", ["0"])[0]))  # fmt: skip
    except OSError:
        pass
    finally:
        connection.close()


def _answer(connection: socket.socket, chunks: int, rate: float) -> None:
    connection.sendall(_HEAD + _FIRST)
    if not rate:
        # Unpaced: as fast as it is read, in writes of a few events, each its own chunk.
        batch: List[bytes] = []
        for i in range(chunks):
            batch.append(_DELTAS[i % len(_DELTAS)])
            if len(batch) == 16:
                connection.sendall(b"".join(batch))
                batch.clear()
        connection.sendall(b"".join(batch))
    else:
        due = time.monotonic()
        for i in range(chunks):
            due += 1 / rate
            delay = due - time.monotonic()
            if delay > 0:
                time.sleep(delay)
            # The time it was due goes with it, so that the client can tell how late it is.
            connection.sendall(_event({"content": f"{due:.6f} "}))
    connection.sendall(_LAST + _usage(chunks) + _END)


def main() -> None:
    server = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(server.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), _exit()), daemon=True).start()
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_handle, args=(connection,), daemon=True).start()


def _exit() -> None:
    import os

    os._exit(0)


class ReplayServer:
    """The server's process; `url` while it runs."""

    def __enter__(self) -> ReplayServer:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(5)
        self._process.stdout.close()


if __name__ == "__main__":
    main()
