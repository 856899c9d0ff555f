"""The clients that are measured, ours and the peers', each driven in its own way.

Every one is made with the base URL of a replay server and yields the text of one
answer.  A peer is imported only by the process that measures it.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, Optional, Type
from urllib.parse import urlsplit

MESSAGES = [{"role": "user", "content": "hi"}]
BODY = {
    "model": "m",
    "messages": MESSAGES,
    "stream": True,
    "stream_options": {"include_usage": True},
}


class Client:
    """One client at one base URL."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.base_url = root + "/v1"
        self.open()

    def open(self) -> None:
        """What a program does once."""

    def stream(self) -> Iterator[str]:
        """The text of one answer as it arrives."""
        raise NotImplementedError

    def drain(self) -> int:
        """Read one answer to its end; returns how many texts there were."""
        count = 0
        for _ in self.stream():
            count += 1
        return count

    def first_token(self) -> float:
        """Seconds from the call to the first text; then the rest is read."""
        began = time.perf_counter()
        stream = self.stream()
        next(stream)
        took = time.perf_counter() - began
        for _ in stream:
            pass
        return took


class RawSocket(Client):
    """A socket and json.loads: what cannot be beaten."""

    def open(self) -> None:
        parts = urlsplit(self.root)
        self._address = parts.hostname, parts.port
        body = json.dumps(BODY).encode()
        self._request = (
            f"POST {parts.path}/v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._socket = socket.create_connection(self._address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def stream(self) -> Iterator[str]:
        self._socket.sendall(self._request)
        rest, over = b"", False
        while not over:
            data = rest + self._socket.recv(65536)
            over = data.endswith(b"\r\n0\r\n\r\n")
            lines = data.split(b"\n")
            rest = lines.pop()
            for line in lines:
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:])["choices"]
                    content = choices[0]["delta"].get("content") if choices else None
                    if content:
                        yield content


class BareRequests(Client):
    """requests, `iter_lines(chunk_size=None)`, json.loads, take the content."""

    def open(self) -> None:
        import requests

        self._session = requests.Session()

    def stream(self) -> Iterator[str]:
        response = self._session.post(self.base_url + "/chat/completions", json=BODY, stream=True)
        for line in response.iter_lines(chunk_size=None):
            if line.startswith(b"data: "):
                data = line[6:]
                if data == b"[DONE]":
                    continue  # read to the end, so that the connection is used again
                choices = json.loads(data)["choices"]
                if choices:
                    content = choices[0]["delta"].get("content")
                    if content:
                        yield content

    def drain(self) -> int:
        count = 0  # the same without a generator: the loop that a program would write
        response = self._session.post(self.base_url + "/chat/completions", json=BODY, stream=True)
        for line in response.iter_lines(chunk_size=None):
            if line.startswith(b"data: "):
                data = line[6:]
                if data == b"[DONE]":
                    continue
                choices = json.loads(data)["choices"]
                if choices:
                    content = choices[0]["delta"].get("content")
                    if content:
                        count += 1
        return count


class Ours(Client):
    """`chat_stream`."""

    def open(self) -> None:
        from agentstream import OpenAIClient

        self.client = OpenAIClient("m", base_url=self.base_url, api_key="k")

    def stream(self) -> Iterator[str]:
        return self.client.chat_stream("hi")


class WholeWay(Ours):
    """An agent in a workflow in a runtime, with callbacks on the bus."""

    subscribers = 4
    #: The log keeps so many; the default store would let a callback that is late miss some.
    capacity: Optional[int] = None

    def _workflow(self) -> Any:
        from agentstream import Agent, Workflow

        return Workflow("w", [Agent("a", client=self.client)])

    def drain(self) -> int:
        from agentstream import EventStream, MemoryStore, Runtime

        counts = [0] * self.subscribers

        def counter(place: int) -> Callable[[Any], None]:
            def count(event: Any) -> None:
                if event.offset:
                    counts[place] += 1

            return count

        store = MemoryStore(self.capacity) if self.capacity else None
        with Runtime(event_stream=EventStream(store)) as runtime:
            them = [
                runtime.event_stream.subscribe(counter(place)) for place in range(self.subscribers)
            ]
            output = runtime.run(self._workflow(), "hi").output
        self.missed = sum(it.missed for it in them)
        seen = {count + it.missed for count, it in zip(counts, them)}
        assert output and len(seen) <= 1  # each has had every event, or was told of it
        return seen.pop() if seen else 0

    def open(self) -> None:
        super().open()
        self._runtime: Any = None

    def first_token(self) -> float:
        from agentstream import EventType, Runtime

        if self._runtime is None:
            self._runtime = Runtime()
            self._first = threading.Event()
            self._runtime.event_stream.subscribe(
                self._on_chunk, types=[EventType.AGENT_LLM_STREAM_CHUNK]
            )
            self._flow = self._workflow()
        self._first.clear()
        began = time.perf_counter()
        handle = self._runtime.submit(self._flow, "hi")
        handle.result(30)
        assert self._first.wait(30)
        return self._at - began

    def _on_chunk(self, event: Any) -> None:
        if not self._first.is_set():
            self._at = time.perf_counter()
            self._first.set()


class OpenAIPython(Client):
    """openai-python's bare iteration."""

    def open(self) -> None:
        import openai

        self.client = openai.OpenAI(base_url=self.base_url, api_key="k", max_retries=0)

    def stream(self) -> Iterator[str]:
        for chunk in self.client.chat.completions.create(**BODY):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


class LangChain(Client):
    """langchain-openai."""

    def open(self) -> None:
        from langchain_openai import ChatOpenAI

        self.client = ChatOpenAI(
            model="m", base_url=self.base_url, api_key="k", max_retries=0, stream_usage=True
        )

    def stream(self) -> Iterator[str]:
        for chunk in self.client.stream("hi"):
            if chunk.content:
                yield str(chunk.content)


class LiteLLM(Client):
    """litellm.completion."""

    def open(self) -> None:
        import litellm

        litellm.telemetry = False
        self.start = lambda: litellm.completion(
            model="openai/m",
            api_base=self.base_url,
            api_key="k",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            max_retries=0,
        )

    def stream(self) -> Iterator[str]:
        for chunk in self.start():
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


class Smolagents(Client):
    """smolagents' OpenAIModel."""

    def open(self) -> None:
        from smolagents import OpenAIModel

        self.client = OpenAIModel("m", api_base=self.base_url, api_key="k")

    def stream(self) -> Iterator[str]:
        for delta in self.client.generate_stream(MESSAGES):
            if delta.content:
                yield delta.content


class Ollama(Client):
    """ollama-python; speaks its own protocol, and is measured beside ours of that."""

    def open(self) -> None:
        import ollama

        self.client = ollama.Client(host=self.root)

    def stream(self) -> Iterator[str]:
        for chunk in self.client.chat(model="m", messages=MESSAGES, stream=True):
            if chunk.message.content:
                yield chunk.message.content


CLIENTS: Dict[str, Type[Client]] = {
    "raw socket": RawSocket,
    "requests": BareRequests,
    "agentstream": Ours,
    "agentstream, whole way": WholeWay,
    "openai": OpenAIPython,
    "langchain-openai": LangChain,
    "litellm": LiteLLM,
    "smolagents": Smolagents,
    "ollama": Ollama,
}

#: What each needs installed.
MODULES = {
    "requests": "requests",
    "agentstream": "agentstream.runtime",
    "agentstream, whole way": "agentstream.runtime",
    "openai": "openai",
    "langchain-openai": "langchain_openai",
    "litellm": "litellm",
    "smolagents": "smolagents",
    "ollama": "ollama",
    "openai, Responses": "openai",
    "anthropic": "anthropic",
    "llm": "llm",
}

#: A whole program that prints an answer as it comes; the base URL is its argument.
COLD = {
    "agentstream": """
import sys
from agentstream import OpenAIClient
for text in OpenAIClient("m", base_url=sys.argv[1], api_key="k").chat_stream("hi"):
    print(text, end="", flush=True)
""",
    "agentstream chat": """
import sys
from agentstream.cli import main
sys.exit(main(["chat", "hi", "--provider", "openai", "--model", "m", "--base-url", sys.argv[1]]))
""",
    "requests": """
import json, sys, requests
response = requests.post(sys.argv[1] + "/chat/completions", stream=True, json={
    "model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
for line in response.iter_lines(chunk_size=None):
    if line.startswith(b"data: {"):
        for choice in json.loads(line[6:])["choices"]:
            print(choice["delta"].get("content") or "", end="", flush=True)
""",
    "openai": """
import sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="k")
for chunk in client.chat.completions.create(
    model="m", messages=[{"role": "user", "content": "hi"}], stream=True):
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
""",
    "litellm": """
import sys, litellm
for chunk in litellm.completion(model="openai/m", api_base=sys.argv[1], api_key="k",
    messages=[{"role": "user", "content": "hi"}], stream=True):
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
""",
    "llm": """
import sys
from llm.default_plugins.openai_models import Chat
for text in Chat("m", key="k", model_name="m", api_base=sys.argv[1]).prompt("hi", stream=True):
    print(text, end="", flush=True)
""",
}
