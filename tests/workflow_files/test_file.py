"""WorkflowFile: files within files, the documentation's and the examples' files, the embedded model."""

from __future__ import annotations

import os
import pathlib
import re
import sys
import textwrap
import time
from typing import Any, Dict, List

import pytest

import demo
from agentstream import Runtime
from agentstream.testing import ScriptedServer, text_chunks
from agentstream.workflow_files import WorkflowFile, load_workflow
from tests.kit.files_support import BASE, DOCS, refusal
from tests.kit.support import client_of, saying

EXAMPLES = DOCS / "examples"


def test_a_file_cannot_hold_itself(write: Any) -> None:
    inner = write("[[steps]]\nworkflow = '../demo.toml'\n", "sub/inner.toml")
    path = write("[[steps]]\nworkflow = 'sub/inner.toml'\n")
    folder = str(pathlib.Path(path).parent) + os.sep
    said = refusal(path)
    assert said == (
        "sub/inner.toml: [[steps]] 1 workflow: a workflow cannot hold itself: "
        "demo.toml -> sub/inner.toml -> demo.toml"
    )
    assert inner.startswith(folder)
    assert "demo.toml -> demo.toml" in refusal(write("[[steps]]\nworkflow = 'demo.toml'\n"))


def test_what_is_wrong_within_is_told_with_that_files_name(write: Any) -> None:
    write("[[steps]]\nagent = 'x'\n", "inner.toml")
    path = write("[[steps]]\nworkflow = 'inner.toml'\n[[steps]]\nagent = 'y'\n")
    assert [line.partition(": there")[0] for line in refusal(path).splitlines()] == [
        "inner.toml: [[steps]] 1 agent",
        "demo.toml: [[steps]] 2 agent",
    ]
    write("[[steps", "inner.toml")
    assert "demo.toml: [[steps]] 1 workflow: inner.toml: " in refusal(path)


def test_files_that_would_multiply_are_refused(write: Any) -> None:
    write(BASE, "f0.toml")
    for number in range(1, 9):
        write(f"[[steps]]\nworkflow = 'f{number - 1}.toml'\n" * 8, f"f{number}.toml")
    began = time.monotonic()
    assert "there are more than 10000 steps in it" in refusal(
        write("", "x") and write("[[steps]]\nworkflow = 'f8.toml'\n")
    )
    assert time.monotonic() - began < 5


def test_files_nested_too_deep_are_refused(write: Any) -> None:
    write(BASE, "f0.toml")
    for number in range(1, 15):
        write(f"[[steps]]\nworkflow = 'f{number - 1}.toml'\n", f"f{number}.toml")
    deep = write("[[steps]]\nworkflow = 'f14.toml'\n")
    assert "files are nested more than 10 deep" in refusal(deep)
    # In this order each is read when the outer chain is short.
    steps = "".join(f"[[steps]]\nworkflow = 'f{number}.toml'\n" for number in range(15))
    assert "files are nested more than 10 deep" in refusal(write(steps))


def test_the_outer_context_wins_and_the_inner_one_fills_it(write: Any) -> None:
    write("[context]\na = 1\nb = {c = 1}\n" + BASE, "inner.toml")
    file = load_workflow(write("[context]\na = 2\n[[steps]]\nworkflow = 'inner.toml'\n"))
    assert file.context == {"a": 2, "b": {"c": 1}}
    file.context["b"]["c"] = 9
    assert file.context == {"a": 2, "b": {"c": 1}}


# --- the documentation ----------------------------------------------------------------------

_MORE = {
    "[clients.": '[clients.local]\nbase_url = "http://127.0.0.1:1"\n',
    "[agents.": '[agents.writer]\nclient = "local"\n[agents.critic]\nclient = "local"\n',
    "[tools.": '[tools.weather]\nimport = "mytools:get_weather"\n',
    "[[steps]]": '[[steps]]\nagent = "writer"\n',
}


def toml_blocks() -> List[str]:
    text = (DOCS / "workflow-files.rst").read_text("utf-8")
    found = re.findall(r"^\.\. code-block:: toml\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@pytest.mark.parametrize("number", range(len(toml_blocks())))
def test_every_block_of_the_documentation_is_right(write: Any, number: int) -> None:
    block = toml_blocks()[number]
    path = write(block + "".join(text for mark, text in _MORE.items() if mark not in block))
    warnings = load_workflow(path).warnings
    assert not any("unknown" in text for text in warnings)


def test_the_documentation_names_every_key() -> None:
    text = (DOCS / "workflow-files.rst").read_text("utf-8")
    from agentstream.workflow_files import conditions, parts, reading, steps

    keys = [
        *reading.SECTIONS,
        *parts._AGENT,
        *parts._TOOL,
        *parts._EMBEDDED,
        *parts.TIMEOUTS,
        *parts._RETRIES,
        *parts._LIMITS,
        *steps.STEP_KINDS,
        *steps._COMMON,
        *steps._ONLY_FOR,
        *conditions._KINDS,
        *("command", "url", "env", "cwd", "restarts", "prefix"),
        "provider",
        "base_url",
        "model",
        "api_key_env",
        "headers",
        "query",
        "body",
        "insecure",
        "ca_file",
        "tool_mode",
        "approve",
        *parts._CHECKPOINTS,
        "import",
        "not",
        "otherwise",
        "until",
        "at_most",
    ]
    assert [key for key in keys if f"``{key}" not in text and f"{key} = " not in text] == []


def test_the_examples_are_right() -> None:
    names = {path.name: load_workflow(path) for path in EXAMPLES.glob("*.toml")}
    assert set(names) >= {"demo.toml", "review.toml", "translate.toml"}
    assert {name: file.warnings for name, file in names.items() if file.warnings} == {}
    kinds = {step.kind for step in names["review.toml"].steps}
    assert kinds == {"parallel", "agent", "repeat", "branch"}
    assert {step.kind for step in names["digest.toml"].steps} == {"function", "map", "agent"}
    assert "translate.toml" in names["review.toml"].describe()


def test_the_demo_file_is_the_demo() -> None:
    file = load_workflow(EXAMPLES / "demo.toml")
    assert file.clients["local"].provider == "embedded"
    assert file.input == demo.GREETING
    ours = demo.build_workflow(saying())
    built = load_without_clients("demo.toml")
    assert (built.name, len(built.steps)) == (ours.name, len(ours.steps))
    for step, other in zip(built.steps, ours.steps):
        assert step.name == other.name
        assert step.what.system_prompt.strip() == other.what.system_prompt.strip()
        assert step.what._settings == other.what._settings


def load_without_clients(name: str) -> Any:
    """An example with the caller's client in place of its own."""
    file: WorkflowFile = load_workflow(EXAMPLES / name)
    file.agents = {name: agent._replace(client=None) for name, agent in file.agents.items()}
    with file.build(environ={}, default_client=lambda: saying("x")) as workflow:
        return workflow


def test_the_review_runs(write: Any, server: ScriptedServer, module: Any) -> None:
    for path in EXAMPLES.iterdir():
        if path.suffix == ".toml":
            text = path.read_text("utf-8").replace("http://127.0.0.1:8080", server.url)
            write(text, path.name)
            folder = pathlib.Path(write(text, path.name)).parent
        elif path.suffix == ".py":
            module(path.stem, path.read_text("utf-8"))
    texts: Dict[str, str] = {}

    def answer(request: Any) -> str:
        words = str(request.json["messages"][-1]["content"])
        system = request.json["messages"][0]["content"]
        texts.setdefault(system.split()[0], words)
        if "shorter" in words:
            return "Short enough."
        return "Kurz genug." if words.startswith("Into German") else "a long text " * 9

    server.route("/v1/chat/completions", lambda request: reply(answer(request)))
    file = load_workflow(folder / "review.toml")
    with file.build(environ={}) as workflow, Runtime() as runtime:
        run = runtime.run(workflow, file.input or "", context=file.context)
    assert run.output == "Kurz genug."
    assert texts["Rewrite"].strip().startswith(f"The text: {file.input}")
    assert texts["Translate."] == "Into German: Short enough."
    assert [step.status for step in run.steps] == ["completed"] * 4


def test_the_digest_runs(
    write: Any, server: ScriptedServer, module: Any, tmp_path: pathlib.Path
) -> None:
    module("digest_tools", (EXAMPLES / "digest_tools.py").read_text("utf-8"))
    for name in ("b", "a"):
        write(f"text {name}", f"texts/{name}.txt")

    def answer(request: Any) -> Any:
        return reply("<" + request.json["messages"][-1]["content"] + ">")

    server.route("/v1/chat/completions", answer)
    file = load_workflow(write((EXAMPLES / "digest.toml").read_text("utf-8"), "digest.toml"))
    with client_of(server) as client, Runtime() as runtime:
        with file.build(environ={}, default_client=lambda: client) as workflow:
            run = runtime.run(workflow, str(tmp_path / "texts"))
    assert run.output == '<["<text a>", "<text b>"]>'


def reply(text: str) -> Any:
    from agentstream.testing import Reply

    return Reply(*text_chunks(text))


# --- the embedded model ---------------------------------------------------------------------


@pytest.mark.real_llama
@pytest.mark.skipif(sys.version_info < (3, 10), reason="xllamacpp has no wheels for 3.9")
def test_embedded_clients_share_a_server_that_ends_with_the_block(write: Any) -> None:
    agent = "max_tokens = 3\ntemperature = 0\n"
    file = load_workflow(
        write(
            "[clients.a]\nprovider = 'embedded'\n[clients.b]\nprovider = 'embedded'\n"
            f"[agents.x]\nclient = 'a'\n{agent}[agents.y]\nclient = 'b'\n{agent}"
            "[[steps]]\nagent = 'x'\n[[steps]]\nagent = 'y'\n"
        )
    )
    with file.build(environ={}) as workflow, Runtime() as runtime:
        one, other = (step.what.client for step in workflow.steps)
        assert one is not other
        assert one._root == other._root
        run = runtime.run(workflow, "Hello!")
        assert run.status == "completed"
        assert run.steps[0].output
