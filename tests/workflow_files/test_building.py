"""From a file to a workflow that runs: steps, clients and their keys, files within files."""

from __future__ import annotations

import contextlib
from typing import Any, List

import pytest

from agentstream import InsecureWarning, Runtime
from agentstream.errors import ConfigError, WorkflowFailed
from agentstream.testing import ScriptedServer, messages_chunks, ollama_chunks, text_chunks
from agentstream.workflow_files import load_workflow
from tests.kit.files_support import BASE, TOOLS, asked, start
from tests.kit.support import FunctionClient, saying


def test_agents_and_functions_run_one_after_the_other(
    write: Any, module: Any, server: ScriptedServer
) -> None:
    server.reply_text("one")
    server.reply_text("two")
    run = start(
        write,
        module,
        """
[context]
language = "French"
[[steps]]
agent = "a"
[[steps]]
function = "mytools:shout"
[[steps]]
agent = "b"
name = "second"
prompt = "{context.language}: {input} {other}"
""",
        server,
    )
    assert run.output == "two"
    assert [(s.name, s.kind, s.output) for s in run.steps] == [
        ("a", "Agent", "one"),
        ("shout", "Function", "ONE"),
        ("second", "Agent", "two"),
    ]
    assert asked(server) == ["hello", "French: ONE {other}"]
    assert server.requests[1].json["messages"][0] == {"role": "system", "content": "B."}


@pytest.mark.parametrize(
    "steps",
    [
        "parallel = {x = {agent = 'a'}, y = [{agent = 'b'}, {function = 'mytools:shout'}]}",
        "[steps.parallel.x]\nagent = 'a'\n"
        "[[steps.parallel.y]]\nagent = 'b'\n[[steps.parallel.y]]\nfunction = 'mytools:shout'",
        "parallel = [{agent='a', name='x'}, {parallel = [{agent='b', name='z'}], name = 'y'}]",
    ],
)
def test_a_parallel_gathers_results_by_name(
    write: Any, module: Any, server: ScriptedServer, steps: str
) -> None:
    server.default(*text_chunks("done"))
    text = f"[[steps]]\n{steps}\n[[steps]]\nagent = 'b'\nprompt = '{{input.x}}!'\n"
    run = start(write, module, text, server)
    second = {"z": "done"} if "'z'" in steps else "DONE"
    assert run.steps[0].output == {"x": "done", "y": second}
    assert asked(server) == ["hello", "hello", "done!"]


def test_a_parallel_that_does_not_fail_fast_tells_of_the_failure(
    write: Any, module: Any, server: ScriptedServer
) -> None:
    server.default(*text_chunks("fine"))
    run = start(
        write,
        module,
        """
[[steps]]
parallel = {good = {agent = "a"}, bad = {function = "builtins:int", timeout = 5}}
fail_fast = false
""",
        server,
    )
    assert run.output["good"] == "fine"
    assert run.output["bad"]["error"] == "ValueError"


def test_a_nested_file_is_built_once_and_shares_the_context(
    write: Any, module: Any, server: ScriptedServer
) -> None:
    server.default(*text_chunks("said"))
    write(
        f"[clients.c]\nbase_url = '{server.url}'\n[agents.deep]\n"
        "[[steps]]\nagent = 'deep'\nprompt = '{context.kept}'\n",
        "sub/inner.toml",
    )
    text = "[[steps]]\nfunction = 'mytools:keep'\n" + "[[steps]]\nworkflow = 'sub/inner.toml'\n" * 2
    run = start(write, module, text, server)
    assert [step.kind for step in run.steps] == ["Function", "Workflow", "Workflow"]
    assert asked(server) == ["hello", "hello"]


def test_workflows_within_are_built_once(write: Any) -> None:
    write("[agents.deep]\n[[steps]]\nagent = 'deep'\n", "inner.toml")
    file = load_workflow(write("[[steps]]\nworkflow = 'inner.toml'\n" * 2))
    with file.build(environ={}, default_client=lambda: saying("x")) as workflow:
        assert workflow.steps[0].what is workflow.steps[1].what  # type: ignore[attr-defined]


def test_tools_are_called_by_the_files_name_for_them(
    write: Any, module: Any, server: ScriptedServer
) -> None:
    server.reply_tool_calls(("weather", '{"city": "Paris"}'), ("made", '{"city": "Rome"}'))
    server.reply_text("fine")
    module("mytools", TOOLS)
    file = load_workflow(
        write(f"""
        [clients.c]
        base_url = "{server.url}"
        [agents.a]
        tools = ["weather", "made"]
        [tools.weather]
        import = "mytools:get_weather"
        description = "The weather."
        [tools.made]
        import = "mytools:ready"
        timeout = 3
        on_unknown = "rerun"
        [[steps]]
        agent = "a"
    """)
    )
    with file.build(environ={}) as workflow, Runtime() as runtime:
        assert runtime.run(workflow, "hello").output == "fine"
        tools = workflow.steps[0].what.tools
    import mytools  # type: ignore[import-not-found]

    assert (tools["made"].timeout, mytools.ready.name) == (3, "other_name")
    assert (tools["made"].on_unknown, mytools.ready.on_unknown) == ("rerun", "suspend")
    sent = server.requests[0].json["tools"]
    assert [tool["function"]["name"] for tool in sent] == ["weather", "made"]
    assert sent[0]["function"]["description"] == "The weather."
    results = [m["content"] for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert results == ["sunny in Paris", "Rome"]


def test_openai_takes_its_key_from_the_given_environment(
    write: Any, server: ScriptedServer, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    server.default(*text_chunks("x"))
    steps = "[agents.a]\n[[steps]]\nagent = 'a'\n"
    file = load_workflow(write("[clients.c]\nprovider = 'openai'\nmodel = 'm'\n" + steps))
    assert file.environment == ("OPENAI_API_KEY",)
    with pytest.raises(ConfigError, match=r"\[clients.c\]: the environment has no OPENAI_API_KEY"):
        with file.build(environ={}):
            pass
    environ = {"OPENAI_API_KEY": "sk-right", "OPENAI_BASE_URL": server.url}
    with file.build(environ=environ) as workflow, Runtime() as runtime:
        runtime.run(workflow, "x")
    headers = {name.lower(): value for name, value in server.requests[0].headers.items()}
    assert headers["authorization"] == "Bearer sk-right"


@pytest.mark.parametrize("provider", ["openai", "llama"])
def test_w15_think_tags_in_a_file(write: Any, server: ScriptedServer, provider: str) -> None:
    server.default(*text_chunks("<think>hm</think>", "Yes."))
    client = f"[clients.c]\nprovider = '{provider}'\nbase_url = '{server.url}'\nthink_tags = true\n"
    file = load_workflow(write(client + "[agents.a]\n[[steps]]\nagent = 'a'\n"))
    with file.build(environ={}) as workflow, Runtime() as runtime:
        assert runtime.run(workflow, "x").output == "Yes."


def test_a_client_of_ollama(write: Any, server: ScriptedServer) -> None:
    server.default(*ollama_chunks("x"))
    client = f"""
        [clients.c]
        provider = "ollama"
        model = "m"
        base_url = "{server.url}"
        num_ctx = 8192
        think = false
        keep_alive = "10m"
        options = {{top_k = 5}}
        prices = {{m = [1, 1, 1e6]}}
        [agents.a]
        temperature = 0.5
        [[steps]]
        agent = "a"
    """
    with load_workflow(write(client)).build(environ={}) as workflow, Runtime() as runtime:
        run = runtime.run(workflow, "hi")
        assert (run.output, run.usage.cost) == ("x", pytest.approx(1.00001))
    body = server.requests[0].json
    assert (body["model"], body["think"], body["keep_alive"]) == ("m", False, "10m")
    assert body["options"] == {"num_ctx": 8192, "top_k": 5, "temperature": 0.5}


def test_a_client_of_anthropic(write: Any, server: ScriptedServer) -> None:
    server.default(*messages_chunks("x"))
    client = """
        [clients.c]
        provider = "anthropic"
        model = "m"
        max_tokens = 500
        cache = false
        [agents.a]
        reasoning_effort = "none"
        [[steps]]
        agent = "a"
    """
    environ = {"ANTHROPIC_API_KEY": "sk-right", "ANTHROPIC_BASE_URL": server.url}
    with load_workflow(write(client)).build(environ=environ) as workflow, Runtime() as runtime:
        assert runtime.run(workflow, "hi").output == "x"
    request = server.requests[0]
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == "sk-right"
    assert request.json == {
        "model": "m",
        "max_tokens": 500,
        "stream": True,
        "thinking": {"type": "disabled"},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }


def test_a_key_of_the_process_goes_nowhere_that_the_given_environment_does_not_say(
    write: Any, server: ScriptedServer, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-process")
    server.default(*text_chunks("x"))
    client = f"[clients.c]\nprovider = 'openai'\nmodel = 'm'\nbase_url = '{server.url}'\n"
    file = load_workflow(write(client + "[agents.a]\n[[steps]]\nagent = 'a'\n"))
    with file.build(environ={}) as workflow, Runtime() as runtime:
        runtime.run(workflow, "x")
    assert "authorization" not in {name.lower() for name in server.requests[0].headers}


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_e05_the_environments_key_stays_from_a_host_that_the_file_names(
    write: Any, server: ScriptedServer, provider: str
) -> None:
    server.default(*text_chunks("x"))
    client = f"[clients.c]\nprovider = '{provider}'\nmodel = 'm'\nbase_url = '{server.url}'\n"
    rest = "[agents.a]\n[[steps]]\nagent = 'a'\n"
    name = f"{provider.upper()}_API_KEY"
    environ = {name: "sk-environment"}

    def keys_sent(text: str, **more: str) -> List[str]:
        file = load_workflow(write(text + rest))
        with file.build(environ={**environ, **more}) as workflow, Runtime() as runtime:
            with contextlib.suppress(WorkflowFailed):  # a stream of chat completions, for either
                runtime.run(workflow, "x")
        headers = server.requests[-1].headers.items()
        return [value for _, value in headers if "sk-environment" in value]

    assert keys_sent(client) == []
    assert len(keys_sent(client + f"api_key_env = '{name}'\n")) == 1
    assert len(keys_sent(client, **{f"{provider.upper()}_BASE_URL": server.url})) == 1


def test_an_insecure_client_warns_when_it_is_built(write: Any) -> None:
    file = load_workflow(write(BASE), set=[("clients.local.insecure", "true")])
    assert "certificate NOT verified" in file.describe()
    with pytest.warns(InsecureWarning):
        with file.build(environ={}):
            pass


def test_a_client_that_cannot_be_had_is_named(write: Any) -> None:
    changes = [("clients.local.provider", "embedded"), ("clients.local.model", "none.gguf")]
    path = write(BASE)
    with pytest.raises(ConfigError) as caught, load_workflow(path, set=changes).build(environ={}):
        pass
    assert str(caught.value).startswith(f"{path}: [clients.local]: ")


def test_a_file_without_clients_takes_the_callers(write: Any) -> None:
    file = load_workflow(write(BASE.replace("[clients.local]", "")))
    assert file.needs_client
    with pytest.raises(ConfigError, match=r"\[agents.a\]: has no client"):
        with file.build(environ={}):
            pass
    made = []

    def client() -> FunctionClient:
        made.append(saying("hi"))
        return made[-1]

    with file.build(environ={}, default_client=client) as workflow, Runtime() as runtime:
        assert runtime.run(workflow, "x").output == "hi"
    assert len(made) == 1
    own = load_workflow(write(BASE))
    with own.build(environ={}, default_client=client):
        assert len(made) == 1


def test_clients_are_closed_when_the_block_is_left(write: Any, server: ScriptedServer) -> None:
    server.default(*text_chunks("x"))
    file = load_workflow(write(BASE), set=[("clients.local.base_url", server.url)])
    with pytest.raises(KeyError):
        with file.build(environ={}) as workflow, Runtime() as runtime:
            runtime.run(workflow, "x")
            raise KeyError
