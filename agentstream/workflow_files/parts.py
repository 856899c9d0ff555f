"""Clients, agents and tools as a file describes them: read and checked, not made.

The library's own checks are asked, and nothing is made for it but tools that do nothing.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Tuple

from agentstream import checks
from agentstream.agent.settings import LIMIT_KEYS, ON_CUT, as_choice, limits_of
from agentstream.errors import ConfigError
from agentstream.llm.clients import APIS, TOOL_MODES
from agentstream.llm.prices import Prices
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.llm.transport import check_header, check_url, secrets_in
from agentstream.providers import DEFAULT, EMBEDDED, PROVIDERS
from agentstream.tools import Tool
from agentstream.workflow.checkpoints import Checkpoints
from agentstream.workflow_files.budget import budget_in
from agentstream.workflow_files.fallback import FALLBACK, outermost, read_fallback, read_names
from agentstream.workflow_files.output import read_output
from agentstream.workflow_files.problems import (
    FLAG,
    JSON_TABLE,
    NUMBER,
    TABLE,
    TEXT,
    TEXT_OR_TABLE,
    TEXT_OR_TEXTS,
    TEXTS,
    TIME,
    WHOLE,
    Kind,
    Table,
    check_import,
    told,
)
from agentstream.workflow_files.rate_limit import read_rate_limit
from agentstream.workflow_files.spec import LATER, AgentSpec, ClientSpec, ToolSpec

__all__ = [
    "TIMEOUTS",
    "inert_tool",
    "read_agent",
    "read_checkpoints",
    "read_client",
    "read_headers",
    "read_tool",
    "read_verification",
    "variable_of",
]


# --- clients --------------------------------------------------------------------------------

_SECONDS = TIME.or_false()
_BOUND = WHOLE.or_false()
TIMEOUTS = dict.fromkeys(("connect", "first_token", "stall", "total"), _SECONDS)
_RETRIES = {
    "attempts": WHOLE,
    "resume": FLAG,
    "backoff": TIME,
    "max_backoff": TIME,
    "max_retry_after": TIME,
}
_LIMITS = {
    "line": _BOUND,
    "event": _BOUND,
    "tool_arguments": _BOUND,
    "answer": _BOUND,
    "decompressed": _BOUND,
    "pool_size": WHOLE,
    "concurrency": WHOLE,
}
_TEXT_TABLE = Kind(
    "a table of texts", lambda v: TABLE.fits(v) and all(isinstance(x, str) for x in v.values())
)
#: The settings that one provider has and others do not.
_OWN = {
    "query": _TEXT_TABLE,
    "api": TEXT,
    "store": FLAG,
    "tool_mode": TEXT,
    "think_tags": FLAG,
    "max_tokens": WHOLE,
    "cache": Kind('"auto" or false', lambda v: v == "auto" or v is False),
    "num_ctx": WHOLE,
    "think": Kind("true, false or a text", lambda v: FLAG.fits(v) or TEXT.fits(v)),
    "keep_alive": Kind("a number or a text", lambda v: NUMBER.fits(v) or TEXT.fits(v)),
    "options": JSON_TABLE,
}
_EMBEDDED = {"n_ctx": WHOLE, "n_parallel": WHOLE, "threads": WHOLE, "chat_template": TEXT}
_SECRET = ("auth", "key", "token", "secret", "cookie")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_client(table: Table, name: str, clients: Mapping[str, Any]) -> Optional[ClientSpec]:
    """The client of a table; None where its provider is not known.

    Args:
        clients: the tables of all clients, which it may name.
    """
    if FALLBACK in table.values:
        return read_fallback(table, name, clients)
    provider = table.get("provider", TEXT, DEFAULT)
    if provider not in PROVIDERS:
        table.refuse("provider", table.problems.missing("provider", provider, PROVIDERS))
        _key_env(table, DEFAULT, {})
        return None
    kinds: Dict[str, Kind] = {"body": JSON_TABLE, "prices": TABLE}
    server: Dict[str, Any] = {}
    if provider == EMBEDDED:
        server = table.settings({"model": TEXT}, lambda model: None)
        server.update(table.settings(_EMBEDDED, _positive))
    else:
        kinds.update(base_url=TEXT, model=TEXT)
    kinds.update((key, _OWN[key]) for key in PROVIDERS[provider].own)
    settings = table.settings(kinds, _check_setting)
    if not PROVIDERS[provider].model and not settings.get("model"):
        table.refuse("model", f"is needed: {provider} has none of its own choice")
    if secrets_in(settings.get("base_url", "")):
        where = (*table.where, "base_url")
        table.problems.warn(where, "holds a secret: keep the file to yourself")
    if "prices" in settings:
        settings["prices"] = Prices(settings["prices"])
    settings.update(_clocks(table, PROVIDERS[provider].timeouts))
    rate_limit = read_rate_limit(table)
    key_env = header_envs = ca_file = None
    if provider != EMBEDDED:
        key_env = _key_env(table, provider, settings)
        ca_file = read_verification(table, settings)
        header_envs = read_headers(table, settings)
    table.done()
    return ClientSpec(
        name, provider, settings, server, key_env, header_envs or {}, ca_file, (), rate_limit
    )


def _check_setting(**given: Any) -> None:
    """What the clients' own checks say of a setting, without a client."""
    if "base_url" in given:
        check_url(given["base_url"])
    if "api" in given:
        checks.one_of("api", given["api"], APIS)
    if "tool_mode" in given:
        checks.one_of("tool_mode", given["tool_mode"], TOOL_MODES)
    if "prices" in given:
        Prices(given["prices"])
    for name in ("num_ctx", "max_tokens"):
        if name in given:
            checks.whole(name, given[name], 1)


def _positive(**given: Any) -> None:
    for name, value in given.items():
        if checks.is_whole(value):
            checks.whole(name, value, 1)


def _clocks(table: Table, timeouts: Timeouts) -> Dict[str, Any]:
    """Timeouts, retries and limits: the provider's own, but for what the file says."""
    found: Dict[str, Any] = {}
    usual: Tuple[Tuple[str, Dict[str, Kind], Any], ...] = (
        ("timeouts", TIMEOUTS, timeouts),
        ("retries", _RETRIES, Retries()),
        ("limits", _LIMITS, Limits()),
    )
    for key, kinds, value in usual:
        inner = table.table(key)
        given = inner.settings(kinds, type(value))
        inner.done()
        if given:
            found[key] = value.replace(**given)
    return found


def _key_env(table: Table, provider: str, settings: Mapping[str, Any]) -> Optional[str]:
    for key in ("api_key", "key", "token"):
        if key in table.values:
            table.refuse(
                key,
                "a key does not belong into a file: put it into the environment, and that "
                'variable\'s name here: api_key_env = "MY_KEY"',
            )
    default = None if "base_url" in settings else PROVIDERS[provider].key_env
    name: Optional[str] = table.get("api_key_env", TEXT, default)
    if name is not None and not _ENV_NAME.fullmatch(name):
        table.refuse("api_key_env", "must be the name of a variable of the environment")
        return None
    return name


def read_verification(table: Table, settings: Dict[str, Any]) -> Optional[str]:
    """The path of certificates to verify with; `insecure` goes into the settings."""
    insecure = table.get("insecure", FLAG, False)
    ca_file: Optional[str] = table.get("ca_file", TEXT)
    if insecure and ca_file is not None:
        table.refuse("ca_file", "says nothing with insecure = true")
    if insecure:
        settings["verify"] = False
    return ca_file


def variable_of(value: Any) -> Optional[str]:
    """The variable that `{env = "NAME"}` names; None for what is no such table."""
    env = value.get("env") if isinstance(value, dict) and set(value) == {"env"} else None
    return env if isinstance(env, str) and _ENV_NAME.fullmatch(env) else None


def read_headers(table: Table, settings: Dict[str, Any]) -> Dict[str, str]:
    """The variables that hold headers' values; the other headers go into the settings."""
    inner = table.table("headers")
    envs: Dict[str, str] = {}
    literal: Dict[str, str] = {}
    for name, value in inner.values.items():
        env = variable_of(value)
        if env is not None:
            shown, envs[name] = "value", env
        elif isinstance(value, str):
            shown = literal[name] = value
            if any(word in name.lower() for word in _SECRET):
                text = 'a secret does not belong into a file: use {env = "NAME"}'
                table.problems.warn((*inner.where, name), text)
        else:
            inner.refuse(name, 'must be a text, or {env = "NAME"} for one from the environment')
            continue
        try:
            check_header(name, "a header's name")
            check_header(shown, "the header")
        except ConfigError:
            inner.refuse(
                name, "cannot be sent: a header and its name are plain ASCII, not empty, one line"
            )
    if literal:
        settings["headers"] = literal
    return envs


# --- tools ----------------------------------------------------------------------------------

_TOOL = {
    "description": TEXT,
    "timeout": TIME,
    "repeatable": FLAG,
    "alone": FLAG,
    "on_unknown": TEXT,
}


def read_tool(table: Table, name: str) -> Optional[ToolSpec]:
    """The tool of a table."""
    source = table.need("import", TEXT)
    settings = table.settings(_TOOL, lambda **given: _tool("name", **given))
    try:
        inert_tool(name)
    except ConfigError as error:
        table.problems.add(table.where, error.reason)
    table.done()
    if source is None or not check_import(table, "import", source):
        return None
    return ToolSpec(name, source, settings)


_CHECKPOINTS = {"keep": TIME, "recover": WHOLE}


def read_checkpoints(table: Table) -> Optional[Dict[str, Any]]:
    """What `checkpoints` says: true, false, or a table of settings; None for not kept."""
    value = table.raw("checkpoints")
    if value is None or isinstance(value, bool):
        return {} if value else None
    if not isinstance(value, dict):
        table.refuse("checkpoints", f"must be true, false or a table, not {told(value)}")
        return None
    inner = table.table("checkpoints")
    settings = inner.settings(_CHECKPOINTS, Checkpoints)
    inner.done()
    return settings


def inert_tool(name: str) -> Tool:
    """A tool of that name that does nothing.

    Raises:
        ConfigError: no tool can have that name.
    """
    return _tool(name)


def _tool(name: str, *, description: str = "", **settings: Any) -> Tool:
    return Tool(name, description, {}, _nothing, **settings)


def _nothing() -> None:
    raise RuntimeError("this is a stand-in, for looking at")


# --- agents ---------------------------------------------------------------------------------

_AGENT = {
    "system": TEXT,
    "system_prompt": TEXT,
    "temperature": NUMBER,
    "max_tokens": WHOLE,
    "seed": WHOLE,
    "top_p": NUMBER,
    "stop": TEXT_OR_TEXTS,
    "response_format": JSON_TABLE,
    "extra": JSON_TABLE,
    "tool_choice": TEXT_OR_TABLE,
    "parallel_tool_calls": FLAG,
    "reasoning_effort": TEXT,
    "on_cut": TEXT,
    "budget": TABLE,
    "max_rounds": WHOLE,
    "repeat_limit": _BOUND,
    "repeat_memory": _BOUND,
    "tool_timeout": _SECONDS,
    "tool_result_limit": WHOLE,
}


def read_agent(
    table: Table,
    name: str,
    clients: Mapping[str, object],
    tools: Mapping[str, object],
    folder: str,
    *,
    servers: Mapping[str, object],
) -> AgentSpec:
    """The agent of a table, which may name those clients, tools and MCP servers, and
    files in `folder`."""
    client, fallback = _clients_of(table, clients)
    named, served = _tools_of(table, tools, servers)
    if not name:
        table.problems.add(table.where, "an agent needs a name")
    known = {tool: inert_tool(tool) for tool in named if _can_be(tool)}

    def check(**given: Any) -> None:
        if served and isinstance(given.get("tool_choice"), str):
            given.pop("tool_choice")  # which names there are, the servers know
        _check_agent(name, known, **given)

    settings = table.settings(_AGENT, check)
    approve = table.get("approve", TEXT)
    if approve is not None and approve != LATER:
        check_import(table, "approve", approve)
    output = read_output(table, folder)
    table.done({"prompt": "is a step's: an agent's instructions are its system"})
    if "system" in settings:
        if "system_prompt" in settings:
            table.refuse("system_prompt", "is another name for system: give one of them")
        settings["system_prompt"] = settings.pop("system")
    return AgentSpec(name, client, tuple(named), settings, approve, output, tuple(served), fallback)


def _clients_of(
    table: Table, clients: Mapping[str, object]
) -> Tuple[Optional[str], Tuple[str, ...]]:
    """An agent's client, and those that are asked where it fails."""
    if FALLBACK in table.values and "client" not in table.values:
        first, *others = read_names(table, clients) or (None,)
        return first, tuple(name for name in others if name is not None)
    client = _client_of(table, clients)
    return client, read_names(table, clients, client)


def _client_of(table: Table, clients: Mapping[str, object]) -> Optional[str]:
    name: Optional[str] = table.get("client", TEXT)
    if name is not None and name not in clients:
        table.refuse("client", table.problems.missing("client", name, clients))
        return None
    if name is None and "client" not in table.values and clients:
        own = outermost(clients)
        if len(own) == 1:
            return own[0]
        table.refuse("client", f"is missing; there is: {', '.join(clients)}")
    return name


def _tools_of(
    table: Table, tools: Mapping[str, object], servers: Mapping[str, object]
) -> Tuple[List[str], List[Tuple[str, str]]]:
    """The tools that are named, and those of servers: "NAME:TOOL", "NAME:*"."""
    named: List[str] = []
    served: List[Tuple[str, str]] = []
    names = table.get("tools", TEXTS, ())
    for name in dict.fromkeys(names):
        server, colon, pattern = name.partition(":")
        if not colon:
            if name in tools:
                named.append(name)
            else:
                table.refuse("tools", table.problems.missing("tool", name, tools))
        elif server not in servers:
            table.refuse("tools", table.problems.missing("MCP server", server, servers))
        elif not pattern:
            table.refuse("tools", f"names no tool in {name!r}; {server}:* names them all")
        else:
            served.append((server, pattern))
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        table.refuse("tools", f"names {name!r} twice")
    return named, served


def _can_be(tool: str) -> bool:
    try:
        inert_tool(tool)
    except ConfigError:
        return False
    return True


def _check_agent(agent: str, tools: Dict[str, Tool], **given: Any) -> None:
    """What is said of an agent's setting, without an agent; and what no server takes."""
    checks.number("temperature", given.get("temperature"), 0, optional=True)
    checks.number("top_p", given.get("top_p"), 0, 1, optional=True)
    as_choice(agent, given.get("tool_choice"), tools)
    checks.one_of("on_cut", given.get("on_cut", "warn"), ON_CUT)
    if "budget" in given:
        budget_in(given["budget"])
    limits_of({key: value for key, value in given.items() if key in LIMIT_KEYS})
