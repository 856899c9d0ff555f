"""llama.cpp's chat completions: OpenAI's, from a server that loads its model while it answers."""

from __future__ import annotations

from agentstream.errors import AgentStreamError, StatusError
from agentstream.llm.chat.dialect import ChatDialect

__all__ = ["LlamaDialect"]


class LlamaDialect(ChatDialect):
    """A chat completion of llama.cpp's server."""

    def is_loading(self, error: AgentStreamError) -> bool:
        """See `Dialect.is_loading`: it says so with a 503."""
        loading = "loading model"
        return (
            isinstance(error, StatusError) and error.status == 503 and loading in error.body.lower()
        )
