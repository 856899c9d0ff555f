"""The clients of other protocols than chat completions, ours beside the vendor's own."""

from __future__ import annotations

from typing import Dict, Iterator, Tuple, Type

from benchmarks.clients import CLIENTS, MESSAGES, Client, Ours

__all__ = ["PAIRS", "WIRES"]


class OursResponses(Ours):
    """`chat_stream`, by the Responses API."""

    def open(self) -> None:
        from agentstream import OpenAIClient

        self.client = OpenAIClient("m", base_url=self.base_url, api_key="k", api="responses")


class OursMessages(Ours):
    """`chat_stream`, by Messages."""

    def open(self) -> None:
        from agentstream import AnthropicClient

        self.client = AnthropicClient("m", base_url=self.root, api_key="k")


class OursOllama(Ours):
    """`chat_stream`, by Ollama's own API."""

    def open(self) -> None:
        from agentstream import OllamaClient

        self.client = OllamaClient("m", self.root)


class OpenAIResponses(Client):
    """openai-python's events of a response."""

    def open(self) -> None:
        import openai

        self.client = openai.OpenAI(base_url=self.base_url, api_key="k", max_retries=0)

    def stream(self) -> Iterator[str]:
        for event in self.client.responses.create(model="m", input="hi", stream=True):
            if event.type == "response.output_text.delta":
                yield event.delta


class AnthropicPython(Client):
    """anthropic-python's text of a message, which it sums up as `chat_stream` does."""

    def open(self) -> None:
        import anthropic

        self.client = anthropic.Anthropic(base_url=self.root, api_key="k", max_retries=0)

    def stream(self) -> Iterator[str]:
        with self.client.messages.stream(model="m", max_tokens=99, messages=MESSAGES) as stream:
            yield from stream.text_stream


#: What is measured side by side: ours, and the vendor's own.
PAIRS: Dict[str, Tuple[str, str]] = {
    "chat completions": ("agentstream", "openai"),
    "Responses": ("agentstream, Responses", "openai, Responses"),
    "Messages": ("agentstream, Messages", "anthropic"),
    "Ollama": ("agentstream, Ollama", "ollama"),
}

WIRES: Dict[str, Type[Client]] = {
    **CLIENTS,
    "agentstream, Responses": OursResponses,
    "agentstream, Messages": OursMessages,
    "agentstream, Ollama": OursOllama,
    "openai, Responses": OpenAIResponses,
    "anthropic": AnthropicPython,
}
