"""Workflow files to test with, and what is asked and said when they run."""

from __future__ import annotations

import os
import pathlib
from typing import Any, List

import pytest

from agentstream import Runtime
from agentstream.errors import ConfigError
from agentstream.testing import ScriptedServer
from agentstream.workflow_files import load_workflow
from tests.kit.support import events_of

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"

GOOD = """
name = "demo"
input = "Hello!"

[context]
language = "German"

[clients.local]
provider = "llama"
base_url = "http://127.0.0.1:8080"
api_key_env = "LOCAL_KEY"
timeouts = {connect = 5, total = false}
retries = {attempts = 0}
headers = {X-Team = "a", X-Pass = {env = "PASS"}}

[agents.greeter]
client = "local"
system = "Greet."
temperature = 0.7
stop = ["#"]
tools = ["weather"]

[agents.critic]
extra = {penalty = 1}

[tools.weather]
import = "mytools:get_weather"
timeout = 5

[[steps]]
agent = "greeter"
timeout = 30
retries = 1
prompt = "Into {context.language}: {input} {unknown}"

[[steps]]
parallel = {facts = {agent = "greeter"}, tone = [{agent = "critic"}, {function = "mytools:shout"}]}
fail_fast = false

[[steps]]
agent = "critic"
prompt = "{input.facts} and {input.tone}"

[[steps]]
branch = {if = {contains = "urgent", not = true}, then = {agent = "critic"}}

[[steps]]
repeat = {step = {agent = "critic"}, until = {matches = "(?i)done"}, at_most = 3}
fail_at_limit = true
"""

BASE = """
[clients.local]
[agents.a]
[agents.b]
[[steps]]
agent = "a"
[[steps]]
agent = "b"
"""


def refusal(path: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_workflow(path, **settings)
    text = str(caught.value)
    folder = str(pathlib.Path(path).parent) + os.sep
    return text.replace(folder, "")


# --- building -------------------------------------------------------------------------------

TOOLS = """
    from agentstream import Tool, tool

    calls = []

    def get_weather(city: str) -> str:
        "Say what the weather is."
        return f"sunny in {city}"

    @tool(name="other_name")
    def ready(city: str) -> str:
        "Ready made."
        return city

    def shout(text):
        return text.upper()

    def keep(text, context):
        context["kept"] = text
        return text

    def is_loud(text):
        return text.isupper()

    def is_kept(value, context):
        return context["kept"] == value

    number = 5
"""


def start(write: Any, module: Any, text: str, server: ScriptedServer, **settings: Any) -> Any:
    module("mytools", TOOLS)
    head = f"[clients.local]\nbase_url = '{server.url}'\n[agents.a]\n[agents.b]\nsystem = 'B.'\n"
    file = load_workflow(write(head + text), **settings)
    with file.build(environ={}) as workflow, Runtime() as runtime:
        run = runtime.run(workflow, "hello", context=file.context, workflow_id="w")
        events_of(runtime.event_stream, "w")
    return run


def asked(server: ScriptedServer) -> List[str]:
    return [request.json["messages"][-1]["content"] for request in server.requests]
