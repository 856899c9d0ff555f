"""From bytes to tables: what is no text or no file, nesting, --set; and reading runs nothing."""

from __future__ import annotations

import os
import pathlib
import random
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from agentstream.errors import ConfigError
from agentstream.workflow_files import load_workflow
from tests.kit.files_support import BASE, DOCS, GOOD, refusal


def test_deep_nesting_is_refused(write: Any) -> None:
    inner = '{agent = "a"}'
    for _ in range(60):
        inner = f"{{repeat = {{step = {inner}, at_most = 1}}}}"
    said = refusal(write(f"steps = [{inner}]\n[agents.a]\n"))
    assert "steps are nested more than 40 deep" in said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "demo.toml: it is empty"),
        (b" \n\t\n", "demo.toml: it is empty"),
        (b"\xef\xbb\xbfname = 'x'", "demo.toml: it begins with a byte order mark"),
        ("name = 'x'".encode("utf-16"), "demo.toml: it is UTF-16: save it as UTF-8"),
        (b"a = 1\nb = 'caf\xe9'", "demo.toml: line 2: byte 0xe9 is not UTF-8"),
        (b"#" * (2**20 + 1), "demo.toml: it has more than 1 MiB"),
        (b"a = 1\x00", "demo.toml: line 1, column 6"),
    ],
)
def test_what_is_no_text_is_refused(write: Any, data: bytes, said: str) -> None:
    assert refusal(write(data)).startswith(said)


def test_what_is_no_file_is_refused(tmp_path: pathlib.Path) -> None:
    assert "it is a folder, not a workflow file" in refusal(str(tmp_path))
    assert refusal(str(tmp_path / "no.toml")) == (
        "no.toml: it cannot be read: No such file or directory"
    )
    assert "that is no file's name" in refusal("a\0b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "it is no regular file" in refusal(str(tmp_path / "pipe"))


# --- no code is run -------------------------------------------------------------------------

_WATCH = """
import os, sys
from agentstream.workflow_files import load_workflow

opened, read = [], []

def audit(event, args):
    if event == "open" and isinstance(args[0], str):
        opened.append(os.path.basename(args[0]))
    if event == "import":
        opened.append("import " + args[0])

def reader(original):
    def watched(self, *args):
        frame = sys._getframe(1)
        while frame is not None and "agentstream" not in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None:
            read.append(args)
        return original(self, *args)
    return watched

for method in ("__getitem__", "__iter__", "__contains__", "get"):
    kind = type(os.environ)
    setattr(kind, method, reader(getattr(kind, method)))
load_workflow(sys.argv[1])  # what the library itself imports late
sys.addaudithook(audit)
read.clear()
file = load_workflow(sys.argv[1])
print(opened)
print(file.describe(), file.to_mermaid(), file.environment, file.context)
print(read, "mytools" in sys.modules, "agentstream.local" in sys.modules, end="")
"""


def test_reading_runs_nothing_and_opens_nothing_else(write: Any, tmp_path: pathlib.Path) -> None:
    write("open('ran', 'w').close()", "mytools.py")
    write(BASE + "[[steps]]\nfunction = 'mytools:f'\n", "inner.toml")
    path = write(
        f"""{GOOD}
[[steps]]
workflow = "inner.toml"
[[steps]]
branch = {{if = {{call = "mytools:f"}}, then = {{agent = "other"}}}}
[agents.other]
client = "openai"
[clients.embedded]
provider = "embedded"
[clients.openai]
provider = "openai"
""".replace("[agents.critic]", "[agents.critic]\nclient = 'embedded'")
    )
    environment = {"PATH": "/nowhere", "PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, path],
        cwd=tmp_path,
        timeout=60,
        check=True,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "['demo.toml', 'inner.toml']"
    assert lines[-1] == "[] False False"
    assert not (tmp_path / "ran").exists()


def test_importing_the_package_brings_none_of_it() -> None:
    code = "import sys, agentstream; print('agentstream.workflow_files' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=DOCS.parent,
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert done.stdout.strip() == b"False"


# --- --set ----------------------------------------------------------------------------------


def test_set_changes_values_of_every_type(write: Any) -> None:
    file = load_workflow(
        write(GOOD),
        set=[
            ("agents.greeter.temperature", "0"),
            ("agents.greeter.stop", '["a", "b"]'),
            ("agents.greeter.max_tokens", "7"),
            ("context.language", "French"),
            ("context.new.deep", "true"),
            ("input", '"42"'),
            ("name", "a = b"),
            ("clients.local.base_url", "http://127.0.0.1:9"),
            ("steps.1.timeout", "2.5"),
            ("clients.local.retries.attempts", "4"),
            ("agents.critic.system", ""),
        ],
    )
    greeter = file.agents["greeter"].settings
    assert (greeter["temperature"], greeter["stop"], greeter["max_tokens"]) == (0, ["a", "b"], 7)
    assert file.context == {"language": "French", "new": {"deep": True}}
    assert (file.input, file.name) == ("42", "a = b")
    assert file.clients["local"].settings["base_url"] == "http://127.0.0.1:9"
    assert file.clients["local"].settings["retries"].attempts == 4
    assert file.steps[0].settings["timeout"] == 2.5
    assert file.agents["critic"].settings["system_prompt"] == ""
    assert load_workflow(write(GOOD), set={"name": "x\ny = 1"}).name == "x\ny = 1"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "agents.greter.temperature",
            "0",
            "demo.toml: --set agents.greter.temperature: there is no agent 'greter'; did you mean 'g",
        ),
        (
            "agents.greeter.temprature",
            "0",
            "demo.toml: [agents.greeter] temprature: unknown key; did you mean 'temperature'? (--set",
        ),
        ("agents.greeter.temperature", "hot", "temperature: must be a number, not a text (--set"),
        ("agnts.greeter.temperature", "0", "there is no table 'agnts'; did you mean 'agents'?"),
        ("clients.new", "{}", "--set clients.new: there is no client 'new'; there is: local"),
        ("name.x", "1", "--set name.x: name is a text, not a table"),
        ("name.x.y", "1", "--set name.x.y: name is a text, not a table"),
        ("steps.9.timeout", "1", "there is no number 9: they are numbered from 1 to 5"),
        ("steps.first.timeout", "1", "there is no number first"),
        ("steps.0", "{}", "there is no number 0"),
        ("", "1", "--set : must be a path of keys, like agents.greeter.temperature"),
        ("a b", "1", "--set a b: must be a path of keys"),
        ("a=1\nb", "1", "must be a path of keys"),
        ("lanuage", "1", "demo.toml: lanuage: unknown key"),
        ("input", "42", "demo.toml: input: must be a text, not a whole number (--set input)"),
    ],
)
def test_set_names_the_place_that_there_is_not(write: Any, key: str, value: str, said: str) -> None:
    assert said in refusal(write(GOOD), set=[(key, value)])
    # The fixture no_leaks sees to the connection.


# --- hostile files --------------------------------------------------------------------------


def test_no_mutation_of_a_file_does_anything_but_be_refused(write: Any) -> None:
    rng = random.Random(7)
    data = GOOD.encode()
    pieces = [
        b"[",
        b"]",
        b"{",
        b"}",
        b"=",
        b'"',
        b"\n",
        b"''",
        b"-1",
        b"1e999",
        b"nan",
        b"\xff",
        b"\x00",
        b"[[steps]]\n",
        b"agent",
        b".",
        b"true",
        b"1979-05-27",
        b"[agents.greeter]\n",
        b"9" * 30,
        b"\\u0000",
        b"{input.x}",
        b"(?",
        b"workflow = 'demo.toml'\n",
    ]
    lines = data.split(b"\n")
    refused = 0
    for _ in range(400):
        kind = rng.randrange(5)
        at, to = sorted(rng.randrange(len(data)) for _ in range(2))
        if kind == 0:
            text = data[:at] + data[min(to, at + 8) :]
        elif kind == 1:
            text = data[:at] + rng.choice(pieces) + data[at:]
        elif kind == 2:
            text = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == 3:
            text = b"\n".join(rng.sample(lines, len(lines)))
        else:
            text = re.sub(
                rb"= [^\n]+",
                lambda m: b"= " + rng.choice(pieces) if rng.random() < 0.1 else m.group(),
                data,
            )
        path = write(text)
        began = time.process_time()
        try:
            file = load_workflow(path)
            file.describe()
            file.to_mermaid()
        except ConfigError as error:
            refused += 1
            assert str(error).startswith(path)
        assert time.process_time() - began < 1
    assert 200 < refused < 400
