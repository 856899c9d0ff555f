"""`output` in workflow files: a schema, a file with one, an import path."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from typing import Any

import pytest

from agentstream import ConfigError, Runtime
from agentstream.testing import ScriptedClient
from agentstream.workflow_files import load_workflow

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TYPES = """
import dataclasses
from typing import List

@dataclasses.dataclass
class Place:
    city: str

Places = List[Place]
schema = {"enum": ["a", "b"]}
odd = complex
"""
FILE = """
[agents.reader]
{output}

[[steps]]
agent = "reader"
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.delitem(sys.modules, "typed_kinds", raising=False)
    (tmp_path / "place.json").write_text(json.dumps(SCHEMA), "utf-8")
    (tmp_path / "typed_kinds.py").write_text(TYPES, "utf-8")
    return tmp_path


def load(folder: pathlib.Path, output: str) -> Any:
    path = folder / "flow.toml"
    path.write_text(FILE.format(output=output), "utf-8")
    return load_workflow(path)


def run(folder: pathlib.Path, output: str, answer: str) -> Any:

    client = ScriptedClient(answer)
    with (
        load(folder, output).build(environ={}, default_client=lambda: client) as workflow,
        Runtime() as runtime,
    ):
        return runtime.run(workflow, "go").output


@pytest.mark.parametrize(
    "output",
    [
        'output = "place.json"',
        'output = { type = "object", properties = { city = { type = "string" } } }',
        'output = "./place.json"',
    ],
)
def test_a_schema(folder: pathlib.Path, output: str) -> None:
    assert run(folder, output, '{"city": "Oslo"}') == {"city": "Oslo"}


def test_a_type_by_its_import_path(folder: pathlib.Path) -> None:
    found = run(folder, 'output = "typed_kinds:Places"', '[{"city": "Oslo"}]')
    assert [dataclasses.asdict(one) for one in found] == [{"city": "Oslo"}]
    assert run(folder, 'output = "typed_kinds:schema"', "a") == "a"
    assert (
        "answers with typed_kinds:Place" in load(folder, 'output = "typed_kinds:Place"').describe()
    )
    assert "answers with a schema" in load(folder, 'output = "place.json"').describe()


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ('output = "nowhere.json"', r"\[agents.reader\] output: .*nowhere.json: it cannot be read"),
        ('output = "flow.json"', "it is no JSON"),
        ("output = 5", "must be a text or a table, not a whole number"),
        ('output = "Place"', 'must be "module:name"'),
        ('output = {"$ref" = "#/x"}', "has no '#/x'"),
        ('output = "place.json"\nresponse_format = {}', "give one"),
    ],
)
def test_what_cannot_be_used_is_told_when_it_is_loaded(folder: Any, output: str, told: str) -> None:
    (folder / "flow.json").write_text("{", "utf-8")
    with pytest.raises(ConfigError, match=told):
        load(folder, output)


@pytest.mark.parametrize(
    ("name", "told"),
    [("typed_kinds:Plcae", "did you mean 'Place'"), ("typed_kinds:odd", "has no JSON schema")],
)
def test_what_cannot_be_imported_is_told_when_it_is_opened(
    folder: pathlib.Path, name: str, told: str
) -> None:
    file = load(folder, f'output = "{name}"')
    with (
        pytest.raises(ConfigError, match=told),
        file.build(environ={}, default_client=ScriptedClient),
    ):
        pass


def test_prompts_and_conditions_know_what_an_answer_has(folder: pathlib.Path) -> None:
    flow = """
[agents.reader]
output = {output}
[agents.writer]
[[steps]]
agent = "reader"
[[steps]]
agent = "writer"
prompt = "Of {{input.{name}}}."
"""
    schema = '{ type = "object", properties = { city = { type = "string" } } }'

    def read(output: str, name: str) -> Any:
        (folder / "flow.toml").write_text(flow.format(output=output, name=name), "utf-8")
        return load_workflow(folder / "flow.toml")

    client = ScriptedClient('{"city": "Oslo"}', "well")
    with (
        read(schema, "city").build(environ={}, default_client=lambda: client) as workflow,
        Runtime() as runtime,
    ):
        runtime.run(workflow, "go")
    assert client.requests[1].messages[-1].content == "Of Oslo."
    with pytest.raises(ConfigError, match="did you mean 'city'"):
        read(schema, "ctiy")
    read('"place.json"', "anything")  # nobody looks into it for that
    read('"typed_kinds:Place"', "anything.else")
