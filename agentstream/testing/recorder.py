"""Recorder: what a client asked and was answered, kept in a file; then the file answers.

    client = Recorder("cassettes/joke.jsonl", OpenAIClient(), record=True)    # once, with a key
    client = Recorder("cassettes/joke.jsonl", OpenAIClient(api_key="none"))   # from then on

What is kept is what came over the wire, line by line (`cassette.py`), so every dialect,
retry and error is replayed as it was.
"""

from __future__ import annotations

import copy
import math
import os
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError
from agentstream.llm.client import ChatClient, HTTPClient
from agentstream.llm.fallback import FallbackClient
from agentstream.llm.messages import ChatRequest, Delta
from agentstream.llm.pauses import Pauses
from agentstream.llm.transport import display_url
from agentstream.providers import make_client
from agentstream.results import Usage
from agentstream.testing.cassette import Cassette, NotRecorded
from agentstream.testing.tape import TapeTransport

__all__ = ["NotRecorded", "Recorder"]


class Recorder(ChatClient):
    """A client that answers from a file what another client was answered.

    A request is known by its method, its path and its body; on which server, and with
    which key, does not matter.  Equal requests are answered in the order in which they were
    recorded, each once.  Cuts, HTTP errors and timeouts are replayed as well, as the
    errors that they were, and without a socket.

    Prompts and answers stand in the file as they are; keys, cookies and other headers of
    requests do not.

    Args:
        path: the file, a cassette.
        client: who asks: a client of a server, or a `FallbackClient` of such.  When
            replaying it needs no key that is valid.  None, when replaying: a client of
            the provider, the model and the address that the file names, and no other
            settings of its own.
        record: False replays, and raises `NotRecorded` for what is not there.  True asks
            the server and begins the file anew, "new" asks it only for what is not
            there; the file is written by `close`.
        speed: how many times as fast as it came an answer is replayed; 0: without waiting.

    Raises:
        ConfigError: the client is none of a server, the file no cassette, or it is not
            there and nothing is recorded.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        client: Optional[ChatClient] = None,
        *,
        record: Union[bool, str] = False,
        speed: float = 0.0,
    ) -> None:
        checks.instance("client", client, ChatClient, optional=True)
        checks.one_of("record", record, (False, True, "new"))
        checks.number("speed", speed, 0)
        name = os.path.abspath(os.fsdecode(path))
        if not record and not os.path.exists(name):
            raise ConfigError(
                f"there is no cassette {name}: record=True makes one (pytest --record)"
            )
        self._cassette = Cassette(name, known=record is not True)
        if client is None:
            client = _made(self._cassette, record)
        elif not self._cassette.client:
            self._cassette.client = _description(client)
        self._how: Dict[str, Any] = {
            "replays": record is not True,
            "records": bool(record),
            "speed": speed,
        }
        self._client = self._taped(client)
        self.model = client.model
        self.provider = client.provider
        self.parallel_tool_calls = client.parallel_tool_calls
        self.schema_with_tools = client.schema_with_tools
        self.address = client.address

    def _taped(self, client: ChatClient) -> ChatClient:
        """A copy of the client that asks the cassette; it shares all else with the client."""
        if isinstance(client, FallbackClient):
            several = copy.copy(client)
            several.clients = tuple(self._taped(each) for each in client.clients)
            if self._how["replays"] and not self._how["records"]:
                # How long a client was left alone is a matter of time; who was, the tape knows.
                several.on = (*client.on, NotRecorded)
                several._pauses = Pauses(
                    len(client.clients), first=0.0, most=0.0, clock=lambda: math.inf
                )
            return several
        if not isinstance(client, HTTPClient):
            raise ConfigError.about(
                "client", f"must be a client of a server, not a {type(client).__name__}"
            )
        taped = copy.copy(client)
        tape: Any = TapeTransport(client._transport, self._cassette, **self._how)
        taped._transport = tape
        return taped

    def __repr__(self) -> str:
        return f"<Recorder {self._cassette.path} of {self._client!r}>"

    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> Iterator[Delta]:
        """See `ChatClient.stream_deltas`.

        Raises:
            NotRecorded: it is not in the file, and nothing is recorded.
        """
        return self._client.stream_deltas(request, cancel=cancel)

    def models(self, *, cancel: Optional[CancelToken] = None) -> List[str]:
        """See `ChatClient.models`."""
        return self._client.models(cancel=cancel)

    def cost_of(self, usage: Usage, model: Optional[str] = None) -> Optional[float]:
        """See `ChatClient.cost_of`."""
        return self._client.cost_of(usage, model)

    def wrote(self, state: Mapping[str, Any]) -> bool:
        """See `ChatClient.wrote`."""
        return self._client.wrote(state)

    def close(self) -> None:
        """Write what was recorded, and close the client.  Idempotent."""
        try:
            self._cassette.close()
        finally:
            self._client.close()


#: Where clients post, behind their base URLs, and their providers' names for `make_client`.
_POSTS: Tuple[Tuple[str, str, str, Dict[str, str]], ...] = (
    ("openai", "openai", "/responses", {"api": "responses"}),
    ("openai", "openai", "/chat/completions", {"api": "chat"}),
    ("llama.cpp", "llama", "/v1/chat/completions", {}),
    ("anthropic", "anthropic", "/v1/messages", {}),
    ("ollama", "ollama", "/api/chat", {}),
)


def _description(client: ChatClient) -> Dict[str, Any]:
    """What makes a client of the same server; {} for one that cannot be told so."""
    if not isinstance(client, HTTPClient):
        return {}
    url = display_url(client._transport.url)
    for provider, name, tail, own in _POSTS:
        if client.provider == provider and url.endswith(tail):
            base_url = url[: -len(tail)]
            return {"provider": name, "model": client.model, "base_url": base_url, **own}
    return {}


def _made(cassette: Cassette, record: Union[bool, str]) -> ChatClient:
    """A client like the one that was recorded, but for its own settings and its key."""
    if record or not cassette.client:
        what = "who is to be recorded" if record else "the cassette does not say whose it is"
        raise ConfigError.about("client", f"must be given: {what}")
    settings = dict(cassette.client)
    return make_client(str(settings.pop("provider", "")), api_key="replayed", **settings)
