"""Which API of OpenAI's a request goes to, and the change from one to the other."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional

from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.chat.dialect import ChatDialect, ChatTraits
from agentstream.llm.dialect import Ask, Dialect
from agentstream.llm.failures import wants_responses
from agentstream.llm.messages import ChatRequest
from agentstream.llm.responses.dialect import ResponsesDialect, ResponsesTraits
from agentstream.llm.responses.request import chat_only
from agentstream.llm.secrets import Redactor
from agentstream.llm.transport import display_url

__all__ = ["Apis", "ChatOrResponses"]


class Apis:
    """The two APIs of one server, for one client.

    Args:
        chat, responses: where requests to the two go.
        api: "auto", "responses" or "chat".
        at_home: the server is OpenAI's own.
        store: the provider may keep what it answers.
        resume: a response whose stream breaks off is gone on with, if it is kept.
    """

    def __init__(
        self, chat: str, responses: str, *, api: str, at_home: bool, store: bool, resume: bool
    ) -> None:
        self._api = api
        self._at_home = at_home
        self._store = store
        self._resume = resume
        most = "max_completion_tokens" if at_home else "max_tokens"
        self._chat = ChatTraits(display_url(chat), url=chat, most=most)
        self._responses = ResponsesTraits(display_url(responses), url=responses)

    def dialect(
        self, request: ChatRequest, *, model: str, fields: Mapping[str, Any], redact: Redactor
    ) -> Dialect:
        """What to speak for a request.

        Raises:
            ConfigError: the API it goes to has no words for a field of it.
        """

        def chat(kind: Callable[..., ChatDialect] = ChatDialect, **more: Any) -> ChatDialect:
            kept = {"store": True} if self._store else {}
            return kind(
                request,
                model=model,
                fields={**kept, **fields},
                redact=redact,
                traits=self._chat,
                **more,
            )

        def responses(instead_of: Optional[AgentStreamError] = None) -> ResponsesDialect:
            settings: Dict[str, Any] = {
                "model": model,
                "fields": fields,
                "store": self._store,
                "redact": redact,
                "traits": self._responses,
                "instead_of": instead_of,
            }
            stored = {"store": self._store, **fields, **request.extra}["store"]
            if not (self._resume and stored):
                return ResponsesDialect(request, **settings)
            from agentstream.llm.responses.resume import ResumingDialect  # noqa: PLC0415 - few ask

            return ResumingDialect(request, url=self._responses.url or "", **settings)

        if self._api == "chat":
            return chat()
        own = {**fields, **request.extra}
        if self._api == "auto":
            has_tools = bool(request.tools or own.get("tools"))
            if chat_only(request, own) and not has_tools:
                return chat()
            if not self._at_home and (request.model or model) not in self._responses.moved:
                return chat(ChatOrResponses, responses=responses)
        return responses()


class ChatOrResponses(ChatDialect):
    """A chat completion that goes to the Responses API if the server says so.

    Args:
        responses: the same request for that API; called with the server's complaint.
    """

    def __init__(
        self,
        request: ChatRequest,
        *,
        responses: Callable[[AgentStreamError], Dialect],
        **settings: Any,
    ) -> None:
        super().__init__(request, **settings)
        self._responses = responses
        self._instead: Optional[Dialect] = None

    def prepare(self, ask: Ask) -> Dialect:
        """See `Dialect.prepare`."""
        return self if self._instead is None else self._instead

    def amend(self, error: AgentStreamError) -> bool:
        """See `Dialect.amend`: also the API."""
        if not wants_responses(error):
            return super().amend(error)
        try:
            self._instead = self._responses(error)
        except ConfigError:
            return False  # what the server said says more
        return True
