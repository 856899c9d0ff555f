"""Forks of a program with a live client: does any answer reach another process?

    python -m stress.fork_cross [REQUESTS]

A loopback server echoes each question; the parent asks from three threads, four
children at a time from forks of it, all of them at once, each fork taken while
connections are in the pool and in use.  Default 10,000 requests.  Exits with 1 if
an answer crossed, or was lost.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings

from agentstream import AgentStreamError, LlamaClient, Retries, Timeouts
from agentstream.testing import Reply, Request, ScriptedServer

CHILDREN = 4  # at a time
EACH = 10  # requests of one child


def main() -> int:
    """Ask, fork, count."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads, from 3.12 on
    reading, writing = os.pipe()
    server = os.fork()
    if not server:  # in a process of its own: the forks below shall have no part of it
        os.close(reading)
        _serve(writing)
    with open(reading, "rb") as pipe:
        os.close(writing)
        url = pipe.readline().decode().strip()
        try:
            return _cross(url, requests)
        finally:
            os.kill(server, 9)
            os.waitpid(server, 0)


def _serve(pipe: int) -> None:
    def echo(request: Request) -> Reply:
        words = json.loads(request.body)["messages"][-1]["content"]
        return Reply.text(*(words[i : i + 4] for i in range(0, len(words), 4)))

    with ScriptedServer() as server:
        server.route("/v1/chat/completions", echo)
        os.write(pipe, f"{server.url}\n".encode())
        threading.Event().wait()


def _ask(client: LlamaClient, who: str, count: int) -> int:
    """The number of answers that were another's, or were lost to another."""
    wrong = 0
    for number in range(count):
        words = f"{who} asks question {number}"
        try:
            wrong += client.chat(words).content != words
        except AgentStreamError:
            wrong += 1
    return wrong


def _warm(client: LlamaClient) -> None:
    """Leave idle connections in the pool: more than the threads will take."""
    streams = [client.chat_stream(f"warm {number}") for number in range(8)]
    for stream in streams:
        next(stream)
    for stream in streams:
        for _ in stream:
            pass


def _cross(url: str, requests: int) -> int:
    client = LlamaClient(url, retries=Retries(0), timeouts=Timeouts(first_token=5.0, stall=5.0))
    began = time.monotonic()
    asked = forks = crossed = 0
    results = []
    while asked < requests:
        names = [f"thread {number} of {asked}" for number in range(2)]
        threads = [
            threading.Thread(target=lambda name=name: results.append(_ask(client, name, EACH)))
            for name in names
        ]
        _warm(client)
        for thread in threads:
            thread.start()
        children = []
        start, starter = os.pipe()
        for number in range(CHILDREN):
            child = os.fork()
            if not child:
                os.close(starter)
                os.read(start, 1)  # all at once: ends when the parent closes its end
                os._exit(min(_ask(client, f"child {number} of {asked}", EACH), 100))
            children.append(child)
            forks += 1
        os.close(start)
        os.close(starter)
        results.append(_ask(client, f"parent of {asked}", EACH))
        for thread in threads:
            thread.join()
        for child in children:
            status = os.waitpid(child, 0)[1]
            crossed += os.WEXITSTATUS(status) if os.WIFEXITED(status) else EACH
        asked += (CHILDREN + 3) * EACH
    crossed += sum(results)
    took = time.monotonic() - began
    print(f"{asked} requests over {forks} forks in {took:.1f} s: {crossed} crossed")
    return 1 if crossed else 0


if __name__ == "__main__":
    sys.exit(main())
