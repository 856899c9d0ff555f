"""llama.cpp's chat completions: OpenAI's, from a server that loads its model while it answers."""

from __future__ import annotations

from agentstream.errors import AgentStreamError
from agentstream.llm import failures
from agentstream.llm.chat.dialect import ChatDialect

__all__ = ["LlamaDialect"]


class LlamaDialect(ChatDialect):
    """A chat completion of llama.cpp's server."""

    def is_loading(self, error: AgentStreamError) -> bool:
        """See `Dialect.is_loading`: it says so with a 503."""
        return failures.is_loading(error)
