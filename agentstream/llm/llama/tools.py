"""Tools at a llama.cpp server: what its template can do is asked first, once a client.

A template that knows no tools drops them without a word.  So a call begins with a
look at /props, unless it has been had, and then goes the way that works, or says
that there is none.
"""

from __future__ import annotations

import json
from typing import Callable, Mapping, Optional

from agentstream.errors import ConfigError
from agentstream.llm.dialect import Ask, Dialect, Wrapped
from agentstream.llm.llama.resume import ResumingDialect
from agentstream.llm.llama.schema_tools import SchemaDialect, as_schema_request
from agentstream.llm.messages import ChatRequest
from agentstream.llm.transport import at_path

__all__ = ["Template", "ToolsDialect", "one_tool"]

#: The body of /props may take this long and be this long.
_PROPS_S = 5.0
_PROPS = 2**20


class Template:
    """What is known of the server's chat template; one for each client.

    Args:
        mode: "native": by the template, an error if that knows no tools;
            "schema": by a JSON schema; "auto": by the template if it can.
        root: the server's address, its query perhaps at its end.
        model: the client's model, for a server that has several.

    Attributes:
        knows_tools: None until the server has told.
    """

    def __init__(self, mode: str, root: str, model: str) -> None:
        self.mode = mode
        self.url = at_path(root, "/props", None if model == "default" else {"model": model})
        self.knows_tools: Optional[bool] = None


class ToolsDialect(Wrapped):
    """A request with tools: how they go is decided before it is sent.

    Args:
        request: what is asked.
        template: what is known of the server's template.
        make: makes the dialect of a request.
        resume: its answers go on after a break.

    Raises:
        ConfigError: the request names a tool that it does not have.
    """

    def __init__(
        self,
        request: ChatRequest,
        template: Template,
        make: Callable[[ChatRequest], Dialect],
        *,
        resume: bool,
    ) -> None:
        request = one_tool(request)
        native = make(request)
        if resume:
            native = ResumingDialect(native)
        super().__init__(native)
        self._request = request
        self._template = template
        self._make = make

    def prepare(self, ask: Ask) -> Dialect:
        """See `Dialect.prepare`.

        Raises:
            ConfigError: there is no way for the tools.
        """
        template = self._template
        if template.mode == "native" and self._request.tool_choice == "none":
            return self._inner
        if template.mode != "schema":
            if template.knows_tools is None:
                template.knows_tools = self._ask_server(ask)
            if template.knows_tools is not False:  # None: it does not tell, so let it try
                return self._inner
            if template.mode == "native":
                raise ConfigError(
                    "the chat template of this llama.cpp server knows no tools, and would drop"
                    ' them in silence: use LlamaClient(..., tool_mode="auto"), which works with'
                    " any, or start one with a template that knows them (--chat-template-file)"
                )
        # Without resuming: half a JSON cannot be gone on with.
        return SchemaDialect(self._make(as_schema_request(self._request)))

    def _ask_server(self, ask: Ask) -> Optional[bool]:
        """Whether the server's template knows tools; None if it does not tell.

        Raises:
            AgentStreamError: there is no server, or it is still loading.
        """
        status, headers, text = ask(self._template.url, _PROPS_S, _PROPS)
        if status == 200:
            return _knows_tools(text)
        error = self.status_error(status, headers, text)
        if self.is_loading(error):
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
