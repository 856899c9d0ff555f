"""What a workflow file would do, in words; no key and no header's value among them."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, List, Optional, Tuple

from agentstream.llm.transport import display_url
from agentstream.providers import EMBEDDED, PROVIDERS
from agentstream.workflow_files.spec import (
    LATER,
    AgentSpec,
    ClientSpec,
    FileSpec,
    ServerSpec,
    StepSpec,
)

__all__ = ["describe"]

_WIDE = 60  # characters of a text


def describe(file: FileSpec) -> str:
    """The file, the files within it after it, and what running it needs."""
    lines: List[str] = []
    imports: Dict[str, str] = {}
    for one in _files(file):
        lines += [*_one(one), ""]
        for _, source in one.sources():
            imports.setdefault(source, one.folder)
    lines.append("Imported when it is run:" if imports else "Nothing is imported.")
    lines += [f"  {source} (first looked for in {folder})" for source, folder in imports.items()]
    needed = file.environment
    lines.append(f"Needed from the environment: {', '.join(needed) or 'nothing'}")
    return "\n".join(lines) + "\n"


def _files(file: FileSpec) -> Tuple[FileSpec, ...]:
    found: Dict[str, FileSpec] = {file.label: file}
    for inner in file.nested:
        found.update({one.label: one for one in _files(inner)})
    return tuple(found.values())


def _one(file: FileSpec) -> Iterator[str]:
    yield f"{file.label}: workflow {_quoted(file.name)}"
    if file.input is not None:
        yield f"  input, unless another is given: {_quoted(file.input)}"
    if file.files:
        yield f"  with {', '.join(map(os.path.basename, file.files))}"
    if file.budget is not None:
        bounds = ((name, getattr(file.budget, name)) for name in ("tokens", "cost"))
        said = ", ".join(f"{name} {_number(most)}" for name, most in bounds if most is not None)
        yield f"  budget of a run: {said}"
    if file.checkpoints is not None:
        yield "  its runs can be resumed"
    for key, value in file.context.items():
        yield f"  context.{key} = {_quoted(value)}"
    if file.clients:
        yield "Clients:"
    for client in file.clients.values():
        yield f"  {client.name}: {_client(client)}"
    if file.servers:
        yield "MCP servers:"
    for server in file.servers.values():
        yield f"  {server.name}: {_served_by(server)}"
    if file.agents:
        yield "Agents:"
    for agent in file.agents.values():
        yield f"  {agent.name}: {_agent(agent)}"
        system = agent.settings.get("system_prompt")
        if system:
            yield f"    system: {_quoted(system)}"
    yield "Steps:"
    for number, step in enumerate(file.steps, 1):
        yield from _step(step, f"{number}.", 1)


def _client(client: ClientSpec) -> str:
    settings, server = client.settings, client.server
    if client.fallback:
        said = f"asks {', then '.join(client.fallback)}"
        return "; ".join([said, *(f"{key} {_number(value)}" for key, value in settings.items())])
    title = PROVIDERS[client.provider].title
    if client.provider == EMBEDDED:
        said = f"{title}, {server.get('model', 'the small model')}"
    else:
        url = settings.get("base_url")
        said = f"{client.provider} at {display_url(url) if url else title}"
        if "model" in settings:
            said += f", model {_quoted(settings['model'])}"
    if client.key_env is not None:
        said += f", key from {client.key_env}"
    if settings.get("verify") is False:
        said += ", certificate NOT verified"
    for name in ("timeouts", "retries", "limits"):
        if name in settings:
            value = settings[name]
            set_to = (
                f"{key} {_number(v)}"
                for key, v in vars(value).items()
                if v != getattr(type(value), key)
            )
            said += f"; {name}: {', '.join(set_to) or 'as usual'}"
    return said


def _served_by(server: ServerSpec) -> str:
    """Where a server is, or what starts it; only the program: an argument may be a key."""
    if "url" in server.settings:
        said = f"at {display_url(server.settings['url'])}"
        if server.settings.get("verify") is False:
            said += ", certificate NOT verified"
    else:
        said = f"{server.settings['command'][0]} is started when it is run"
    return said + (f", its tools' names after {server.prefix}" if server.prefix else "")


def _agent(agent: AgentSpec) -> str:
    named = ", then ".join(agent.clients)
    said = [f"client {named}" if named else "client of the command line"]
    for key, value in agent.settings.items():
        if key not in ("system_prompt", "extra", "response_format"):
            said.append(f"{key} {_number(value)}")
    said += [key for key in ("extra", "response_format") if key in agent.settings]
    if agent.output is not None:
        said.append(f"answers with {agent.output if isinstance(agent.output, str) else 'a schema'}")
    tools = [*agent.tools, *(f"{server}:{pattern}" for server, pattern in agent.served)]
    if tools:
        said.append(f"tools {', '.join(tools)}")
    if agent.approve is not None:
        whom = "somebody, who answers later," if agent.approve == LATER else agent.approve
        said.append(f"asks {whom} before each tool call")
    return ", ".join(said)


def _step(step: StepSpec, label: str, depth: int) -> Iterator[str]:
    before = "  " * depth + label + " "
    yield before + step.name + _what(step) + _settings(step.settings)
    if step.kind in ("repeat", "map"):
        yield from _within(step.steps[0][1], depth + 1)
    elif step.kind == "branch":
        for name, inner in step.steps:
            yield "  " * (depth + 1) + f"{name}:"
            yield from _within(inner, depth + 2)
    elif step.kind == "parallel":
        for name, inner in step.steps:
            yield from _step(inner, f"{name}:", depth + 1)
    elif step.kind == "sequence":
        for number, inner in step.steps:
            yield from _step(inner, f"{number}.", depth + 1)


def _within(step: StepSpec, depth: int) -> Iterator[str]:
    inner = step.steps if step.kind == "sequence" else (("", step),)
    for number, one in inner:
        yield from _step(one, f"{number}." if number else "-", depth)


def _what(step: StepSpec) -> str:
    if step.kind == "agent":
        return "" if step.name == step.what else f", agent {step.what}"
    if step.kind == "function":
        return f", function {step.what}"
    if step.kind == "wait":
        return ", waits for a value from outside"
    if step.kind == "workflow":
        return f", the workflow of {step.what.label}"
    if step.kind == "parallel":
        return ": side by side" if step.name != "parallel" else ", side by side"
    if step.kind == "map":
        return f": for each item, {step.settings.get('at_most', 8)} at once"
    caption = step.condition.__name__ if step.condition is not None else ""
    if step.kind == "branch":
        otherwise = "" if len(step.steps) > 1 else ", else go on"
        return f": if {caption}{otherwise}"
    if step.kind == "repeat":
        until = f", until {caption}" if caption else ""
        return f": at most {step.settings['at_most']} times{until}"
    return ": one after the other"


def _settings(settings: Dict[str, Any]) -> str:
    said: List[str] = []
    if settings.get("timeout") is not None:
        said.append(f"timeout {settings['timeout']:g} s")
    if settings.get("retries"):
        said.append(f"retries {settings['retries']}")
    if settings.get("fail_fast") is False:
        said.append("all come to their end")
    if settings.get("fail_at_limit"):
        said.append("else it fails")
    if "otherwise" in settings:
        said.append(f"otherwise {_quoted(settings['otherwise'])}")
    if "on_cut" in settings:
        said.append(f"on_cut {settings['on_cut']}")
    if "prompt" in settings:
        said.append(f"prompt {_quoted(settings['prompt'])}")
    return f" ({', '.join(said)})" if said else ""


def _number(value: Any) -> str:
    if value is None:
        return "unlimited"
    return (
        f"{value:g}"
        if isinstance(value, float)
        else _quoted(value)
        if not isinstance(value, (int, bool))
        else str(value).lower()
    )


def _quoted(value: Any, most: Optional[int] = _WIDE) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if most is None or len(text) <= most else text[: most - 2] + '…"'
