"""A server in a process of its own that replays a recorded llama.cpp stream.

Chunk by chunk as llama.cpp sends it: one HTTP chunk an event.  What it shall do
stands in the path's first part, so that any client can be told by its base URL
(`http://host:port/chunks=20000/v1`), or in the query:

    chunks=N      the answer is N deltas long
    pause=S       ... S seconds after the first of them, as a model needs for its next
    rate=R        ... and paced, R a second; each delta's text is the time it was due
    file=NAME     the answer is that file of the corpus
    hang=headers  no answer comes; hang=body: three deltas, and nothing more
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import Any, Dict, List, Optional, Tuple

from benchmarks.streams import STREAMS, WORDS, text_of

__all__ = ["ReplayServer", "text_of"]

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _json(delta: dict, finish: object = None) -> bytes:
    """One event's JSON, with the keys and the size of llama.cpp's own."""
    payload = {
        "choices": [{"finish_reason": finish, "index": 0, "delta": delta}],
        "created": 1795342236,
        "id": "chatcmpl-rI2LpI3wEYXCYCNAlDxw3otAui7LiTbH",
        "model": "smollm2-135m",
        "system_fingerprint": "b0-unknown",
        "object": "chat.completion.chunk",
    }
    return json.dumps(payload, separators=(",", ":")).encode()


def _event(delta: dict, finish: object = None) -> bytes:
    return _chunk(b"data: " + _json(delta, finish) + b"\n\n")


_FIRST = _event({"role": "assistant", "content": None})
_DELTAS = [_event({"content": word}) for word in WORDS]
_LAST = _event({}, "stop")
_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_BEFORE_DUE, _AFTER_DUE = (b"data: " + _json({"content": "@"}) + b"\n\n").split(b"@")


def _usage(count: int) -> bytes:
    data = json.dumps(
        {
            "choices": [],
            "created": 1795342236,
            "id": "x",
            "model": "smollm2-135m",
            "object": "chat.completion.chunk",
            "usage": {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count},
        }
    ).encode()
    return _chunk(b"data: " + data + b"\n\n")


class _Paced:
    """One paced answer under way."""

    def __init__(self, connection: socket.socket, chunks: int, rate: float) -> None:
        self.connection = connection
        self.left = self.chunks = chunks
        self.step = 1 / rate
        self.rest = b""  # what the socket would not take
        self.over = threading.Event()
        self.failed = False

    def send(self, due: float) -> Optional[float]:
        """Send what is due; returns when the next is, None after the last."""
        data = self.rest
        if self.left:
            self.left -= 1
            data += _chunk(b"%s%.6f %s" % (_BEFORE_DUE, due, _AFTER_DUE))
            if not self.left:
                data += _LAST + _usage(self.chunks) + _END
        try:
            sent = self.connection.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.failed = True
            self.over.set()
            return None
        self.rest = data[sent:]
        if self.left or self.rest:
            return due + (self.step if self.left else 0.005)
        self.over.set()
        return None


class _Pacer:
    """One thread for all paced answers: as many threads would be late themselves."""

    def __init__(self) -> None:
        self._heap: List[Tuple[float, int, _Paced]] = []
        self._changed = threading.Condition()
        self._number = 0
        threading.Thread(target=self._run, daemon=True).start()

    def play(self, answer: _Paced) -> None:
        """Returns when the whole answer is sent."""
        with self._changed:
            self._number += 1
            due = time.monotonic() + answer.step
            heapq.heappush(self._heap, (due, self._number, answer))
            self._changed.notify()
        answer.over.wait()
        if answer.failed:
            raise OSError

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap:
                    self._changed.wait()
                wait = self._heap[0][0] - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                due, number, answer = heapq.heappop(self._heap)
            again = answer.send(due)
            if again is not None:
                with self._changed:
                    heapq.heappush(self._heap, (again, number, answer))


class _Server:
    def __init__(self, corpus: Optional[pathlib.Path]) -> None:
        self._corpus = corpus
        self._pacer = _Pacer()

    def handle(self, connection: socket.socket) -> None:
        """Answer one connection's requests, one after the other."""
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
                target = line.split()[1].decode()
                options = _options(target)
                if options.get("hang"):
                    _hang(connection, options["hang"], target.endswith("/api/chat"))
                    reader.read(1)  # until the client is gone
                    return
                stream = _stream_of(target)
                if stream is not None:
                    self._answer_wire(connection, stream, int(options.get("chunks", "200")))
                else:
                    self._answer(connection, options)
        except OSError:
            pass
        finally:
            connection.close()

    @staticmethod
    def _answer_wire(connection: socket.socket, stream: Any, chunks: int) -> None:
        """An answer in another protocol."""
        head = _HEAD.replace(b"text/event-stream", stream.content_type.encode())
        connection.sendall(head + (_chunk(stream.first) if stream.first else b""))
        deltas = [_chunk(stream.word(word)) for word in WORDS]
        _pour(connection, deltas, 0, chunks, _chunk(stream.last(chunks)) + b"0\r\n\r\n")

    def _answer(self, connection: socket.socket, options: Dict[str, str]) -> None:
        chunks, rate = int(options.get("chunks", "200")), float(options.get("rate", "0"))
        if options.get("file"):
            assert self._corpus is not None
            body = (self._corpus / "streams" / pathlib.Path(options["file"]).name).read_bytes()
            pieces = [piece + b"\n\n" for piece in body.split(b"\n\n")]
            pieces[-1] = pieces[-1][:-2]
            sent = b"".join(_chunk(piece) for piece in pieces if piece)
            connection.sendall(_HEAD + sent + b"0\r\n\r\n")
        elif rate:
            connection.sendall(_HEAD + _FIRST)
            self._pacer.play(_Paced(connection, chunks, rate))
        else:
            # As fast as it is read, in writes of a few events, each its own chunk.
            begin = 0
            if options.get("pause"):
                connection.sendall(_HEAD + _FIRST + _DELTAS[0])
                begin = 1
                time.sleep(float(options["pause"]))
            else:
                connection.sendall(_HEAD + _FIRST)
            _pour(connection, _DELTAS, begin, chunks, _LAST + _usage(chunks) + _END)


def _pour(
    connection: socket.socket, deltas: List[bytes], begin: int, chunks: int, end: bytes
) -> None:
    batch: List[bytes] = []
    for i in range(begin, chunks):
        batch.append(deltas[i % len(deltas)])
        if len(batch) == 16:
            connection.sendall(b"".join(batch))
            batch.clear()
    connection.sendall(b"".join(batch) + end)


def _stream_of(target: str) -> Any:
    """The stream of another protocol than chat completions, by a request's path; None for none."""
    path = target.partition("?")[0]
    return next((made for end, made in STREAMS.items() if path.endswith(end)), None)


def _options(target: str) -> Dict[str, str]:
    parts = urllib.parse.urlsplit(target)
    first = urllib.parse.unquote(parts.path.split("/")[1])
    return dict(urllib.parse.parse_qsl(parts.query) + urllib.parse.parse_qsl(first))


def _hang(connection: socket.socket, where: str, ollama: bool) -> None:
    if where == "headers":
        return
    if ollama:
        said = {"model": "m", "message": {"role": "assistant", "content": "word "}, "done": False}
        lines = _chunk(json.dumps(said).encode() + b"\n") * 3
        connection.sendall(_HEAD.replace(b"text/event-stream", b"application/x-ndjson") + lines)
    else:
        connection.sendall(_HEAD + _FIRST + b"".join(_DELTAS[:3]))


def main() -> None:
    """Serve until standard input is closed; prints the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=pathlib.Path)
    served = _Server(parser.parse_args().corpus)
    server = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(server.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = server.accept()
        threading.Thread(target=served.handle, args=(connection,), daemon=True).start()


class ReplayServer:
    """The server's process; `url` while it runs."""

    def __init__(self, corpus: Optional[pathlib.Path] = None) -> None:
        self._command = [sys.executable, "-m", "benchmarks.replay_server"]
        if corpus is not None:
            self._command += ["--corpus", str(corpus)]

    def __enter__(self) -> ReplayServer:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).resolve().parents[1],
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
