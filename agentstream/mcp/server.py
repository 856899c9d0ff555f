"""Server: what a caller holds of an MCP server, whichever way it is reached."""

from __future__ import annotations

import fnmatch
import logging
import os
import threading
import time
import urllib.parse
import warnings
from types import TracebackType
from typing import (
    Any,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Type,
    Union,
)

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError
from agentstream.llm.clients import InsecureWarning
from agentstream.llm.settings import Limits, Timeouts
from agentstream.llm.transport import Cert, Verify, call_span, check_header, display_url
from agentstream.mcp.asking import Asker, Connection
from agentstream.mcp.headers import InvalidAnnotation, argument_headers
from agentstream.mcp.http import HttpConnection
from agentstream.mcp.messages import HEADER_MISMATCH, Asked, MCPError
from agentstream.mcp.posting import Headers, Poster
from agentstream.mcp.results import CallResult
from agentstream.mcp.stdio import Program, StdioConnection
from agentstream.mcp.tool import Definition, ServerTool, check_prefix, made_tools

__all__ = ["Server", "ServerInfo"]

logger = logging.getLogger("agentstream.mcp")

HTTP_TIMEOUTS = Timeouts(connect=10.0, first_token=None, stall=None, total=300.0)
#: A command may have to be fetched before it runs (`npx`, `uvx`).
STDIO_TIMEOUTS = Timeouts(connect=60.0, first_token=None, stall=None, total=300.0)

#: The longest time, in seconds, for which the list of tools is kept.
_MOST_TTL_S = 3600.0


class ServerInfo(NamedTuple):
    """What a server says of itself.  None of it is verified.

    Attributes:
        protocol: the version of MCP that is spoken with it.
        instructions: how to use it, for a system prompt; "" for nothing.
        capabilities: what it offers, as it sent them.
    """

    name: str
    version: str
    protocol: str
    instructions: str
    capabilities: Dict[str, Any]


class Server:
    """An MCP server.  Made by `Server.http` or `Server.stdio`; a context manager.

    Nothing is sent or started before the first request.  Any number of threads may
    use one; after a fork, a child has a connection and a process of its own.

    Attributes:
        name: what it is called in the log and in errors.
        left_out: {tool: why} of those that the last `tools` could not use.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self.left_out: Dict[str, str] = {}
        self._connection = connection
        self._asker = Asker(connection, name)
        self._lock = threading.Lock()
        self._definitions: Dict[str, Definition] = {}
        self._fresh_until = 0.0  # on time.monotonic's scale

    @classmethod
    def http(
        cls,
        url: str,
        *,
        headers: Headers = None,
        verify: Verify = True,
        cert: Cert = None,
        timeouts: Optional[Timeouts] = None,
        limits: Optional[Limits] = None,
        name: Optional[str] = None,
    ) -> Server:
        """A server at a URL (Streamable HTTP).

        Args:
            url: the server's MCP endpoint, "https://example.com/mcp" for example.
            headers: of every request, an Authorization perhaps; or a function that
                gives them, called for each, for tokens that change.
            verify: True, False, the path of a CA bundle or an `ssl.SSLContext`.
            cert: the client's certificate, a PEM file or (certificate, key).
            timeouts: `total` bounds a request, 300 seconds by default;
                `first_token` the wait for the first word of its answer, `stall` that
                for each further one.
            limits: `event` bounds a message, in bytes.
            name: default: the URL's host.

        Raises:
            ConfigError: an argument cannot be used.
        """
        timeouts = timeouts or HTTP_TIMEOUTS
        checks.instance("timeouts", timeouts, Timeouts)
        checks.instance("limits", limits, Limits, optional=True)
        poster = Poster(
            url,
            headers=headers,
            verify=verify,
            cert=cert,
            timeouts=timeouts,
            limits=limits or Limits(),
        )
        if verify is False:
            told = f"certificates of {display_url(url)} are not verified"
            warnings.warn(told, InsecureWarning, stacklevel=2)
        return cls(HttpConnection(poster), name or urllib.parse.urlsplit(url).hostname or "mcp")

    @classmethod
    def stdio(
        cls,
        command: Sequence[str],
        *,
        env: Optional[Mapping[str, str]] = None,
        cwd: Union[str, os.PathLike[str], None] = None,
        timeouts: Optional[Timeouts] = None,
        limits: Optional[Limits] = None,
        restarts: int = 3,
        name: Optional[str] = None,
    ) -> Server:
        """A server that a command starts, spoken to over its standard input and output.

        What it writes to standard error goes to the log (`agentstream.mcp`, INFO).

        Args:
            command: the program and its arguments.
            env: variables for it, beyond PATH, HOME and their like.  It inherits
                no others: our keys are not its own.
            cwd: the folder it runs in; ours by default.
            timeouts: `connect` bounds its start, 60 seconds by default, `total` a
                request, 300 seconds.
            limits: `line` bounds a message, in bytes.
            restarts: how often a minute it is started again if it ends.
            name: default: the program's.

        Raises:
            ConfigError: an argument cannot be used.  That there is no such program
                shows with the first request.
        """
        if isinstance(command, (str, bytes)) or not isinstance(command, Sequence) or not command:
            reason = 'must be a list, the program and its arguments: ["npx", "my-server"]'
            raise ConfigError.about("command", reason)
        words = tuple(checks.text("command", os.fspath(word), empty=True) for word in command)
        own = checks.fields("env", env)
        for key, value in own.items():
            checks.text(f"env {key!r}", value, empty=True)
        timeouts = timeouts or STDIO_TIMEOUTS
        checks.instance("timeouts", timeouts, Timeouts)
        checks.instance("limits", limits, Limits, optional=True)
        checks.whole("restarts", restarts)
        name = name or os.path.basename(words[0]) or "mcp"
        program = Program(words, own, None if cwd is None else os.fspath(cwd))
        connection = StdioConnection(
            program, name=name, timeouts=timeouts, limits=limits or Limits(), restarts=restarts
        )
        return cls(connection, name)

    def __repr__(self) -> str:
        return f"<Server {self.name!r}: {self._connection!r}>"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close(hurry=kind is not None)

    def close(self, *, hurry: bool = False) -> None:
        """End the session or the process; requests under way fail.  Idempotent.

        Args:
            hurry: a process has 0.3 seconds to leave, not 1, before it is ended.
        """
        self._connection.close(hurry=hurry)

    # --- tools ------------------------------------------------------------------------------

    def tools(self, prefix: str = "", only: Optional[Iterable[str]] = None) -> List[ServerTool]:
        """The server's tools, for an `Agent`, in the server's order.

        One whose schema or annotations cannot be used is left out, with a warning in
        the log and an entry in `left_out`.

        Args:
            prefix: put before each name, where two servers have tools of one name.
            only: names as the server has them, or patterns ("read_*"); None for all.

        Raises:
            ConfigError: `prefix` fits no name; a name in `only` is no tool's.
            AgentStreamError: see `call`.
        """
        check_prefix(prefix)
        definitions = self._chosen(self._listed(), only)
        return made_tools(
            definitions, self._call, prefix=prefix, server=self.name, left_out=self._leave_out
        )

    def call(
        self,
        name: str,
        arguments: Optional[Mapping[str, Any]] = None,
        *,
        cancel: Optional[CancelToken] = None,
        timeout: Optional[float] = None,
        idempotency_key: str = "",
    ) -> CallResult:
        """Call a tool by the server's name for it.

        That the tool itself failed is a result too: `is_error`.  A call whose answer
        broke off is made again only if the server has said that this does no harm.

        Args:
            arguments: by name; None for none.
            cancel: ends the call, here and at the server.
            timeout: seconds; None for `Timeouts.total`.
            idempotency_key: the same for each attempt at one call; over HTTP it goes out
                as the header Idempotency-Key.  "" for none.

        Raises:
            MCPError: the server answered with an error; it has no such tool, say.
            Cancelled: `cancel` was cancelled.
            DeadlineExceeded: there was no answer in time.
            ConnectError, StatusError, StreamError: there was none at all.
            ConfigError: the arguments are no JSON, or the key is no header's value.
        """
        checks.text("name", name)
        checks.seconds("timeout", timeout, optional=True)
        given = checks.fields("arguments", arguments)
        if idempotency_key != "":
            idempotency_key = check_header(idempotency_key, "idempotency_key")
        token = CancelToken() if cancel is None else cancel
        connection = self._connection
        with call_span("tools/call", name, connection.address, connection.protocol) as note_failure:
            result: Optional[CallResult] = None
            try:
                result = self._call_once(name, given, token, timeout, idempotency_key)
            except MCPError as error:
                if error.code != HEADER_MISMATCH or not connection.mirrors:
                    raise
            if result is None:
                self._listed(renew=True)  # the tool's schema has changed
                result = self._call_once(name, given, token, timeout, idempotency_key)
            if result.is_error:
                note_failure("tool_error")
            return result

    def _call(
        self, name: str, arguments: Mapping[str, Any], cancel: Optional[CancelToken], key: str
    ) -> CallResult:
        return self.call(name, arguments, cancel=cancel, idempotency_key=key)

    def _call_once(
        self,
        name: str,
        arguments: Dict[str, Any],
        cancel: CancelToken,
        timeout: Optional[float],
        idempotency_key: str,
    ) -> CallResult:
        known = self._definitions.get(name)
        headers = argument_headers(known.mirrored, arguments) if known else {}
        asked = Asked(
            "tools/call",
            {"name": name, "arguments": arguments},
            repeatable=known is not None and known.repeatable,
            headers=headers,
            timeout=timeout,
            idempotency_key=idempotency_key,
        )
        return CallResult(self._asker.request(asked, cancel))

    def _listed(self, *, renew: bool = False) -> List[Definition]:
        """The definitions of the server's tools; those had before, for as long as it allows."""
        with self._lock:
            if not renew and time.monotonic() < self._fresh_until:
                return list(self._definitions.values())
        asked_at = time.monotonic()
        entries, ttl_s = self._asker.pages("tools/list", "tools")
        found: Dict[str, Definition] = {}
        self.left_out = {}
        for entry in entries:
            try:
                definition = Definition(entry, mirrors=self._connection.mirrors)
            except (ConfigError, InvalidAnnotation) as error:
                self._leave_out(str(entry.get("name"))[:128], str(error))
                continue
            found.setdefault(definition.name, definition)
        with self._lock:
            self._definitions = found
            self._fresh_until = asked_at + min(ttl_s, _MOST_TTL_S)
        return list(found.values())

    def _leave_out(self, name: str, why: str) -> None:
        self.left_out[name] = why
        logger.warning("%s: the tool %r is left out: %s", self.name, name, why)

    def _chosen(
        self, definitions: List[Definition], only: Optional[Iterable[str]]
    ) -> List[Definition]:
        if only is None:
            return definitions
        wanted = [only] if isinstance(only, str) else list(only)
        names = [definition.name for definition in definitions]
        chosen: Set[str] = set()
        for pattern in wanted:
            hits = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
            if not hits and not set(pattern) & set("*?["):
                there = ", ".join(names) or "none"
                reason = f"names {pattern!r}, which {self.name} does not have; it has: {there}"
                raise ConfigError.about("only", reason)
            chosen.update(hits)
        return [definition for definition in definitions if definition.name in chosen]

    # --- all else ---------------------------------------------------------------------------

    def info(self) -> ServerInfo:
        """Who the server is, asked of it.

        Raises:
            AgentStreamError: see `call`.
        """
        said = self._connection.about(CancelToken())
        meta = said.get("_meta")
        known = meta if isinstance(meta, dict) else {}
        who = said.get("serverInfo") or known.get("io.modelcontextprotocol/serverInfo")
        who = who if isinstance(who, dict) else {}
        offers = said.get("capabilities")
        return ServerInfo(
            str(who.get("name", "")),
            str(who.get("version", "")),
            self._connection.protocol,
            str(said.get("instructions") or ""),
            offers if isinstance(offers, dict) else {},
        )

    def resources(self) -> List[Dict[str, Any]]:
        """The server's resources, as it describes them: "uri", "name", "mimeType" and so on.

        Raises:
            AgentStreamError: see `call`.
        """
        return self._asker.pages("resources/list", "resources")[0]

    def read(self, uri: str) -> List[Dict[str, Any]]:
        """The contents of a resource: dicts with "uri", and "text" or, in Base64, "blob".

        Raises:
            AgentStreamError: see `call`.
        """
        asked = Asked("resources/read", {"uri": checks.text("uri", uri)})
        return self._asker.items(self._asker.request(asked, CancelToken()), "contents")

    def prompts(self) -> List[Dict[str, Any]]:
        """The server's prompts, as it describes them: "name", "description", "arguments".

        Raises:
            AgentStreamError: see `call`.
        """
        return self._asker.pages("prompts/list", "prompts")[0]

    def prompt(
        self, name: str, arguments: Optional[Mapping[str, str]] = None
    ) -> List[Dict[str, Any]]:
        """The messages of a prompt: dicts with "role" and "content".

        Raises:
            AgentStreamError: see `call`.
        """
        given = checks.fields("arguments", arguments)
        asked = Asked("prompts/get", {"name": checks.text("name", name), "arguments": given})
        return self._asker.items(self._asker.request(asked, CancelToken()), "messages")
