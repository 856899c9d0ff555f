"""Keywords that other libraries have -> what is written here.  Sentences for people."""

from __future__ import annotations

from typing import Dict

__all__ = ["CLIENT_HINTS", "CLIENT_METHODS", "OTHER_FIELD", "OTHER_SETTING", "REQUEST_HINTS"]

_TIMEOUT = "Timeouts(total=60)"
_RETRIES = "Retries(attempts=2)"
_TOKENS = "it is max_tokens="
_INSTRUCTIONS = "an Agent has system_prompt=; a request a first message, ChatMessage.system(...)"
_OF_A_CLIENT = "a client has it: LlamaClient(..., {}=...)"

#: Of any other field of a request; "{name}" stands for it.
OTHER_FIELD = "a field that only the server knows goes into extra={{{name!r}: ...}}"

#: Of any other setting of a client.
OTHER_SETTING = "a field of each of its requests goes into body={{{name!r}: ...}}"

#: Of a request: `chat`, `chat_stream`, `ChatRequest`.
REQUEST_HINTS: Dict[str, str] = {
    "stream": "chat_stream(...) yields the text as it comes, chat(...) waits for all of it",
    "timeout": f"a client has it: LlamaClient(..., timeouts={_TIMEOUT})",
    "request_timeout": f"a client has it: LlamaClient(..., timeouts={_TIMEOUT})",
    "timeouts": _OF_A_CLIENT.format("timeouts"),
    "max_retries": f"a client has it: LlamaClient(..., retries={_RETRIES})",
    "retries": _OF_A_CLIENT.format("retries"),
    "api_key": _OF_A_CLIENT.format("api_key"),
    "base_url": _OF_A_CLIENT.format("base_url"),
    "headers": _OF_A_CLIENT.format("headers"),
    "extra_headers": _OF_A_CLIENT.format("headers"),
    "extra_body": "it is extra={...}",
    "max_completion_tokens": _TOKENS,
    "max_output_tokens": _TOKENS,
    "max_new_tokens": _TOKENS,
    "max_length": _TOKENS,
    "n_predict": _TOKENS,
    "num_predict": _TOKENS,
    "stop_sequences": "it is stop=",
    "messages": "what is asked comes first: chat([...])",
    "input": "what is asked comes first: chat(...)",
    "text": "what is asked comes first: chat(...)",
    "system": _INSTRUCTIONS,
    "system_prompt": _INSTRUCTIONS,
    "instructions": _INSTRUCTIONS,
    "files": 'they belong to a message: ChatMessage.user("...", files=[...])',
    "images": 'they belong to a message: ChatMessage.user("...", files=[...])',
    "functions": "it is tools=; functions are run by an Agent(..., tools=[...])",
    "function_call": "it is tool_choice=",
    "conversation": "an agent has them: Agent(...).run(text, conversation=...)",
    "history": "an agent has them: Agent(...).run(text, conversation=...)",
    "on_token": "iterate chat_stream(...), or subscribe to a Runtime's event_stream",
    "callbacks": "iterate chat_stream(...), or subscribe to a Runtime's event_stream",
    "json_schema": "it is output=, a type or a schema",
    "schema": "it is output=, a type or a schema",
    "response_model": "it is output=, a type or a schema",
    "reasoning": 'it is reasoning_effort="low"',
}

_OF_A_REQUEST = (
    "a request has it, chat(..., {0}=...), and an Agent; for all requests: body={{{0!r}: ...}}"
)

#: Of the clients themselves.
CLIENT_HINTS: Dict[str, str] = {
    "timeout": f"it is timeouts={_TIMEOUT}, by its clocks: connect, first_token, stall, total",
    "request_timeout": f"it is timeouts={_TIMEOUT}",
    "max_retries": f"it is retries={_RETRIES}",
    "attempts": f"it is retries={_RETRIES}",
    "url": "it is base_url=",
    "host": "it is base_url=",
    "endpoint": "it is base_url=",
    "api_base": "it is base_url=",
    "azure_endpoint": 'it is base_url=, with query={"api-version": ...}',
    "api_version": 'it is query={"api-version": ...} of an OpenAIClient',
    "model_name": "it is model=",
    "key": "it is api_key=",
    "token": "it is api_key=",
    "default_headers": "it is headers=",
    "extra_headers": "it is headers=",
    "default_query": "it is query= of an OpenAIClient",
    "extra_body": "it is body=",
    "organization": 'it is headers={"OpenAI-Organization": ...}',
    "project": 'it is headers={"OpenAI-Project": ...}',
    "verify_ssl": "it is verify=, False or the path of a CA bundle",
    "ssl_verify": "it is verify=, False or the path of a CA bundle",
    "insecure": "it is verify=False",
    "proxy": "proxies are the environment's: HTTPS_PROXY, NO_PROXY",
    "proxies": "proxies are the environment's: HTTPS_PROXY, NO_PROXY",
    "http_client": "the library has its own; see timeouts=, verify=, cert= and HTTPS_PROXY",
    "stream": "client.chat_stream(...) yields the text as it comes, client.chat(...) waits",
    "system": _INSTRUCTIONS,
    "system_prompt": _INSTRUCTIONS,
    "instructions": _INSTRUCTIONS,
    "tools": "an Agent has it: Agent(..., client=client, tools=[...])",
    **{
        field: _OF_A_REQUEST.format(field)
        for field in ("temperature", "top_p", "max_tokens", "seed", "stop", "reasoning_effort")
    },
}

_WAITS = "chat(prompt), which waits; asyncio.to_thread(client.chat, prompt) does not"

#: Their methods.
CLIENT_METHODS: Dict[str, str] = {
    **dict.fromkeys(("ask", "complete", "generate", "invoke", "run", "create"), "chat(prompt)"),
    **dict.fromkeys(("completions", "responses", "messages"), "chat(prompt)"),
    **dict.fromkeys(("achat", "ainvoke", "agenerate", "arun"), _WAITS),
    **dict.fromkeys(("stream", "stream_chat"), "chat_stream(prompt)"),
}
