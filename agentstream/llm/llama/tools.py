"""Tools at a llama.cpp server: what its template can do is asked first, once a client.

A template that knows no tools drops them without a word.  So the call begins
with a look at /props, unless it has been had, and then goes the way that works,
or says that there is none.
"""

from __future__ import annotations

import json
import urllib.parse
from typing import Any, Dict, Iterator, Mapping, Optional

from agentstream.errors import ConfigError
from agentstream.llm.call import Call
from agentstream.llm.chat import failures
from agentstream.llm.chat.chunks import ChunkReader
from agentstream.llm.llama.schema_tools import SchemaReader, as_schema_request
from agentstream.llm.messages import ChatRequest, Delta
from agentstream.llm.transport import Transport

__all__ = ["Template", "ToolsCall", "one_tool"]

#: The body of /props may take this long and be this long.
_PROPS_S = 5.0
_PROPS = 2**20


class Template:
    """What is known of the server's chat template; one for each client.

    Args:
        mode: "native": by the template, an error if that knows no tools;
            "schema": by a JSON schema; "auto": by the template if it can.
        root: the server's address.
        model: the client's model, for a server that has several.

    Attributes:
        knows_tools: None until the server has told.
    """

    def __init__(self, mode: str, root: str, model: str) -> None:
        self.mode = mode
        self.url = f"{root}/props"
        if model != "default":
            self.url += "?" + urllib.parse.urlencode({"model": model})
        self.knows_tools: Optional[bool] = None


class ToolsCall(Call):
    """A call with tools.  It may begin with a look at the server's template."""

    def __init__(
        self,
        transport: Transport,
        request: ChatRequest,
        *,
        template: Template,
        model: str,
        body: Dict[str, Any],
        **settings: Any,
    ) -> None:
        request = one_tool(request)
        super().__init__(transport, request, model=model, body=body, **settings)
        self._template = template
        self._model = model
        self._own_body = body
        self._by_schema = False
        self._decided = request.tool_choice == "none" and template.mode == "native"

    def _attempt(self) -> Iterator[Delta]:
        if not self._decided:
            self._decide()
            self._decided = True
        yield from super()._attempt()

    def _reader(self) -> ChunkReader:
        return SchemaReader() if self._by_schema else super()._reader()

    def _decide(self) -> None:
        """Find out which way the tools go.

        Raises:
            ConfigError: there is none.
        """
        template = self._template
        if template.mode != "schema":
            if template.knows_tools is None:
                template.knows_tools = self._ask_server()
            if template.knows_tools is not False:  # None: it does not tell, so let it try
                return
            if template.mode == "native":
                raise ConfigError(
                    "the chat template of this llama.cpp server knows no tools, and would drop"
                    " them in silence: start the server with a template that knows them"
                    ' (--chat-template-file), or use LlamaClient(..., tool_mode="schema"),'
                    " which works with any"
                )
        request = as_schema_request(self._request)
        self._by_schema = True
        self._resumption = None  # half a JSON cannot be gone on with
        self._body = {**request.to_body(self._model), **self._own_body, **request.extra}

    def _ask_server(self) -> Optional[bool]:
        """Whether the server's template knows tools; None if it does not tell.

        Raises:
            AgentStreamError: there is no server, or it is still loading.
        """
        with self._exchange(None, self._template.url) as exchange:
            self._clocks.arm("body", _PROPS_S)
            text = exchange.read_text(_PROPS)
            if self.cancel.cancelled:
                raise self._stopped("headers")
            if exchange.status == 200:
                return _knows_tools(text)
            error = failures.status_error(
                exchange.status, exchange.headers, text, redact=self._redact
            )
            if self._is_loading(error):
                raise error
            return None


def _knows_tools(text: str) -> Optional[bool]:
    try:
        props = json.loads(text)
    except (ValueError, RecursionError):
        return None
    caps = props.get("chat_template_caps") if isinstance(props, dict) else None
    knows = caps.get("supports_tools") if isinstance(caps, dict) else None
    return knows if isinstance(knows, bool) else None


def one_tool(request: ChatRequest) -> ChatRequest:
    """A request that names the tool to call, as one that offers it alone and requires a call.

    llama.cpp takes a named choice for "auto".

    Raises:
        ConfigError: the request has no tool of that name.
    """
    choice = request.tool_choice
    if not isinstance(choice, Mapping):
        return request
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    tools = [tool for tool in request.tools if (tool.get("function") or {}).get("name") == name]
    if not tools:
        raise ConfigError(f"tool_choice names a tool that the request does not have: {name!r}")
    return request.replace(tools=tools, tool_choice="required")
