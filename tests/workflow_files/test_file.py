"""Workflow files: what is read, what is refused and in which words, and what is built of them."""

from __future__ import annotations

import importlib
import os
import pathlib
import random
import re
import subprocess
import sys
import textwrap
import time
from typing import Any, Dict, Iterator, List

import pytest

import demo
from agentstream import InsecureWarning, Runtime
from agentstream.errors import ConfigError, WorkflowFailed
from agentstream.testing import ScriptedServer, ollama_chunks, text_chunks
from agentstream.workflow_files import WorkflowFile, load_workflow
from tests.kit.support import FunctionClient, events_of, saying

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = DOCS / "examples"

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


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Any:
    def write(text: Any, name: str = "demo.toml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return str(path)

    return write


@pytest.fixture
def module(write: Any) -> Iterator[Any]:
    """Write a module beside the workflow file; it is forgotten afterwards."""
    names: List[str] = []

    def make(name: str, text: str) -> None:
        names.append(pathlib.Path(name).stem)
        write(text, f"{name}.py")

    path = list(sys.path)
    yield make
    assert sys.path == path
    for name in names:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def refusal(path: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_workflow(path, **settings)
    text = str(caught.value)
    folder = str(pathlib.Path(path).parent) + os.sep
    return text.replace(folder, "")


# --- what is right --------------------------------------------------------------------------


def test_a_file_is_read_and_told_of(write: Any) -> None:
    path = write(GOOD)
    file = load_workflow(path)
    assert (str(file.path), file.name, file.input) == (path, "demo", "Hello!")
    assert file.context == {"language": "German"}
    assert file.warnings == ()
    assert file.environment == ("LOCAL_KEY", "PASS")
    assert not file.needs_client
    told = file.describe()
    for part in (
        "llama at http://127.0.0.1:8080, key from LOCAL_KEY",
        "connect 5",
        "temperature 0.7",
        'context.language = "German"',
        "1. greeter (timeout 30 s, retries 1, prompt",
        "2. parallel, side by side (all come to their end)",
        "    facts: greeter\n",
        "      2. shout, function mytools:shout\n",
        'if not contains "urgent", else go on',
        'at most 3 times, until matches "(?i)done" (else it fails)',
        "  mytools:get_weather (first looked for in ",
        "Needed from the environment: LOCAL_KEY, PASS",
    ):
        assert part in told
    assert told.count("X-Team") == 0


def test_it_is_drawn_without_its_parts(write: Any) -> None:
    drawn = load_workflow(write(GOOD)).to_mermaid()
    assert drawn.startswith("flowchart TD\n")
    for part in (
        '"greeter (30 s, 1 retry)"',
        '["shout"]',
        '-->|"tone"|',
        "not contains #quot;urgent#quot;?",
        "at most 3 rounds, until matches",
    ):
        assert part in drawn


def test_defaults_of_the_name_and_the_client(write: Any) -> None:
    file = load_workflow(write(BASE, "my file.toml"))
    assert (file.name, file.input, file.context) == ("my file", None, {})
    assert file.agents["a"].client == "local"


def test_what_nobody_uses_is_a_warning(write: Any) -> None:
    path = write("""
        [clients.one]
        [clients.two]
        [agents.a]
        client = "one"
        [agents.b]
        client = "one"
        [tools.t]
        import = "m:f"
        [[steps]]
        agent = "a"
    """)
    warnings = [text.replace(path, "demo.toml") for text in load_workflow(path).warnings]
    assert warnings == [
        "demo.toml: [agents.b]: no step uses it",
        "demo.toml: [clients.two]: no agent uses it",
        "demo.toml: [tools.t]: no agent has it",
    ]


# --- what is wrong --------------------------------------------------------------------------

#: What is added to BASE (or stands alone, where it begins with "!"), and what is said of it.
BAD = {
    "languag = 1": ["demo.toml: languag: unknown key; there is: name, input"],
    'nme = "x"': ["demo.toml: nme: unknown key; did you mean 'name'?"],
    "name = 5": ["demo.toml: name: must be a text, not a whole number"],
    'name = ""': ["demo.toml: name: must not be empty"],
    "input = ['a']": ["demo.toml: input: must be a text, not a list"],
    "context = 3": ["demo.toml: context: must be a table, not a whole number"],
    "[tools.t]": ["[tools.t] import: is missing: it must be a text"],
    "[tools]\nt = 'm:f'": ["demo.toml: [tools.t]: must be a table, [tools.t]"],
    "[tools.t]\nimport = 'm.f'": [
        """[tools.t] import: must be "module:name", like "mytools:get_weather", not 'm.f'"""
    ],
    "[tools.t]\nimport = 'm:f'\ntimeout = -1": [
        "[tools.t] timeout: must be a positive number of seconds"
    ],
    "[tools.'a b']\nimport = 'm:f'": ['[tools."a b"]: a name has 1 to 64 letters'],
    "[agents.c]\ntemprature = 1": ["[agents.c] temprature: unknown key; did you mean 'temperatur"],
    "[agents.c]\ntemperature = '1'": ["[agents.c] temperature: must be a number, not a text"],
    "[agents.c]\ntemperature = nan": ["temperature: must be a number, not inf or nan"],
    "[agents.c]\ntemperature = -1": ["temperature: must be 0 or more, not -1"],
    "[agents.c]\ntop_p = 2": ["[agents.c] top_p: must be from 0 to 1, not 2"],
    "[agents.c]\nmax_tokens = 1.5": ["max_tokens: must be a whole number, not a number"],
    "[agents.c]\nmax_tokens = 99999999999999999999": ["max_tokens: must be a whole number"],
    "[agents.c]\nstop = 1": ["stop: must be a text or a list of texts, not a whole number"],
    "[agents.c]\nsystem = 2026-11-22": ["[agents.c] system: must be a text, not a date"],
    "[agents.c]\nsystem_prompt = 'x'": ["system_prompt: unknown key; did you mean 'system'?"],
    "[agents.c]\nprompt = 'x'": ["[agents.c] prompt: is a step's: an agent's instructions are"],
    "[agents.c]\nextra = {when = 2026-11-22}": ["[agents.c] extra: must be a table of what JSON"],
    "[agents.c]\nmax_rounds = 0": ["[agents.c] max_rounds: must be 1 or more"],
    "[agents.c]\nrepeat_limit = 1": [
        "repeat_limit: must be 2 or more, not 1; false is for no limit"
    ],
    "[agents.c]\ntool_timeout = 0": [
        "[agents.c] tool_timeout: must be a positive number of seconds, not 0; false is for no limit"
    ],
    "[agents.c]\ntool_choice = 'x'": ["[agents.c] tool_choice: must be one of auto, none, requir"],
    "[agents.c]\ntools = ['wether']\n[tools.weather]\nimport = 'm:f'": [
        "[agents.c] tools: there is no tool 'wether'; did you mean 'weather'? There is: weather"
    ],
    "[agents.c]\ntools = ['t', 't']\n[tools.t]\nimport = 'm:f'": ["tools: names 't' twice"],
    "[agents.c]\nclient = 'lokal'": [
        "[agents.c] client: there is no client 'lokal'; did you mean 'local'? There is: local"
    ],
    "[agents.c]\napprove = 'yes'": ['[agents.c] approve: must be "module:name"'],
    "[clients.other]": ["[agents.a] client: is missing; there is: local, other", "[agents.b] clie"],
    "[clients.c]\nprovider = 'lama'": [
        "[clients.c] provider: there is no provider 'lama'; did you mean 'llama'? There is: llama"
    ],
    "[clients.c]\nbase_url = 'host:80'": ["[clients.c] base_url: must look like http://host:port"],
    "[clients.c]\nurl = 'x'": ["[clients.c] url: unknown key"],
    "[clients.c]\napi_key = 'sk-MARKEDKEY'": ["[clients.c] api_key: a key does not belong", "api_"],
    "[clients.c]\napi_key_env = 'sk-MARKEDKEY'": ["api_key_env: must be the name of a variable"],
    "[clients.c]\ntimeouts = {connect = -1}": [
        "[clients.c] timeouts.connect: must be a positive number of seconds, not -1; false is for no limit"
    ],
    "[clients.c]\ntimeouts = {conect = 1}": ["timeouts.conect: unknown key; did you mean 'connec"],
    "[clients.c]\ntimeouts = 5": ["[clients.c] timeouts: must be a table, not a whole number"],
    "[clients.c]\nretries = {attempts = -1}": ["retries.attempts: must be 0 or more, not -1"],
    "[clients.c]\nlimits = {pool_size = 0}": ["limits.pool_size: must be 1 or more, not 0"],
    '[clients.c]\nheaders = {X = "MARKEDKEY\\n"}': ["[clients.c] headers.X: cannot be sent"],
    "[clients.c]\nheaders = {X = 5}": ['headers.X: must be a text, or {env = "NAME"}'],
    "[clients.c]\ninsecure = 'yes'": ["[clients.c] insecure: must be true or false, not a text"],
    "[clients.c]\ninsecure = true\nca_file = 'x'": ["ca_file: says nothing with insecure = true"],
    "[clients.c]\ntool_mode = 'x'": ["[clients.c] tool_mode: must be one of native, schema, auto"],
    "[clients.c]\nquery = {a = '1'}": ["[clients.c] query: unknown key"],
    "[clients.c]\nprovider = 'ollama'": ["[clients.c] model: is needed"],
    "[clients.c]\nprovider = 'ollama'\nmodel = 'm'\nnum_ctx = 0": [
        "[clients.c] num_ctx: must be 1 or more"
    ],
    "[clients.c]\nprovider = 'ollama'\nmodel = 'm'\nthink = 1": [
        "[clients.c] think: must be true, false or a text"
    ],
    "[clients.c]\nprovider = 'embedded'\nn_ctx = 0": ["[clients.c] n_ctx: must be 1 or more"],
    "[clients.c]\nprovider = 'embedded'\nbase_url = 'http://x'": ["[clients.c] base_url: unknown"],
    "[[steps]]\nagent = 'aa'": ["[[steps]] 3 agent: there is no agent 'aa'; did you mean 'a'? The"],
    "[[steps]]\nagent = 5": ["[[steps]] 3 agent: must be a text, not a whole number"],
    "[[steps]]\nname = 'x'": ["[[steps]] 3: must have one of agent, function, parallel, branch, r"],
    "[[steps]]\nagent = 'a'\nfunction = 'm:f'": ["[[steps]] 3: must have one", "not agent and fun"],
    "[[steps]]\nagnt = 'a'": ["[[steps]] 3 agnt: unknown key; did you mean 'agent'?"],
    "[[steps]]\nagent = 'a'\ntimeout = 0": [
        "[[steps]] 3 timeout: must be a positive number of seconds"
    ],
    "[[steps]]\nagent = 'a'\nretries = -1": ["[[steps]] 3 retries: must be 0 or more, not -1"],
    "[[steps]]\nagent = 'a'\nname = ''": ["[[steps]] 3 name: must not be empty"],
    "[[steps]]\nagent = 'a'\nfail_fast = true": ["3 fail_fast: is for a step with 'parallel'"],
    "[[steps]]\nfunction = 'm:f'\nprompt = 'x'": ["3 prompt: is for a step with 'agent'"],
    "[[steps]]\nfunction = 'f'": ['[[steps]] 3 function: must be "module:name"'],
    "[[steps]]\nagent = 'a'\nprompt = '{input.x}'": ["3 prompt: {input.x}: its input is a text, w"],
    "[[steps]]\nagent = 'a'\nprompt = '{context.x}'": ["3 prompt: context.x is set nowhere"],
    "[[steps]]\nparallel = {fact = {agent='a'}}\n[[steps]]\nagent = 'a'\nprompt = '{input.facts}'": [
        "[[steps]] 4 prompt: {input.facts}: there is no result 'facts'; did you mean 'fact'?"
    ],
    "[[steps]]\nparallel = {}": ["3 parallel: must be a table of steps by name, or a list, not an"],
    "[[steps]]\nparallel = 'a'": ["3 parallel: must be a table of steps by name, or a list, not a"],
    "[[steps]]\nparallel = {x = {agent = 'c'}}": ["[[steps]] 3 parallel.x.agent: there is no agen"],
    "[[steps]]\nparallel = [{agent = 'a'}, {agent = 'a'}]": [
        "[[steps]] 3 parallel.2: two branches are named 'a': give one a name"
    ],
    "[[steps]]\nbranch = {then = {agent = 'a'}}": ["[[steps]] 3 branch.if: is missing: it must be"],
    "[[steps]]\nbranch = {if = {contains = 'x'}}": ["[[steps]] 3 branch.then: is missing: it must"],
    "[[steps]]\nbranch = {if = {contains = 'x'}, then = {agent = 'a'}, els = 1}": [
        "[[steps]] 3 branch.els: unknown key"
    ],
    "[[steps]]\nbranch = {if = {}, then = []}": [
        "3 branch.if: must have one of contains, equals, matches, call; none is there",
        "3 branch.then: a list of steps needs at least one",
    ],
    "[[steps]]\nbranch = {if = {contains = ''}, then = {agent = 'a'}}": [
        "3 branch.if.contains: must not be empty"
    ],
    "[[steps]]\nbranch = {if = {matches = '('}, then = {agent = 'a'}}": [
        "3 branch.if.matches: must be a regular expression: missing )"
    ],
    "[[steps]]\nbranch = {if = {call = 'f'}, then = {agent = 'a'}}": [
        '3 branch.if.call: must be "module:name"'
    ],
    "[[steps]]\nbranch = {if = {equals = 'x', context = 'y'}, then = {agent = 'a'}}": [
        "3 branch.if.context: context.y is set nowhere: write it into [context]"
    ],
    "[[steps]]\nrepeat = {step = {agent = 'a'}}": ["3 repeat.at_most: is missing: it must be a w"],
    "[[steps]]\nrepeat = {step = {agent = 'a'}, at_most = 0}": [
        "repeat.at_most: must be 1 or more"
    ],
    "[[steps]]\nrepeat = {at_most = 1}": ["[[steps]] 3 repeat.step: is missing: it must be a step"],
    "[[steps]]\nworkflow = '/etc/x.toml'": ["[[steps]] 3 workflow: must be the path of a workflow"],
    "[[steps]]\nworkflow = 'none.toml'": ["3 workflow: none.toml: it cannot be read: No such file"],
    "[[steps]]\nworkflow = '.'": ["3 workflow: ", "it is a folder, not a workflow file"],
    "!name = 'x'": ["demo.toml: steps: a workflow needs [[steps]], at least one"],
    "!steps = 'x'": ["demo.toml: steps: must be a list of tables, [[steps]], not a text"],
    "!steps = ['x']": ["[[steps]] 1: must be a step (a table) or a list, not a text"],
    "!x = ": ["demo.toml: line 1, column 5: Invalid value"],
    "!a = 1\nb = 'x": ["demo.toml: line 2, column "],
    "!a = 1\na = 2": ["demo.toml: line 2, column 6: Cannot overwrite a value"],
    "!a = " + "[" * 5000: ["demo.toml: it is nested too deeply"],
    "!a = " + "9" * 5000: ["demo.toml: "],
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_told_by_file_table_and_key(write: Any, text: str) -> None:
    # New top-level keys go before the first table.
    first = text if not text.startswith("[") else ""
    whole = text[1:] if text.startswith("!") else f"{first}\n{BASE}\n{'' if first else text}\n"
    said = refusal(write(whole))
    for part in BAD[text]:
        assert part in said
    assert "MARKEDKEY" not in said
    assert all(line.startswith("demo.toml: ") for line in said.splitlines())


def test_all_that_is_wrong_is_told_at_once(write: Any) -> None:
    path = write("""
        nam = "x"
        [agents.a]
        temperature = "hot"
        tools = ["t"]
        [[steps]]
        agent = "b"
        timeout = "x"
        [[steps]]
        repeat = {step = {function = "f"}, at_most = 0}
    """)
    assert [line.split(": ")[1] for line in refusal(path).splitlines()] == [
        "nam",
        "[agents.a] tools",
        "[agents.a] temperature",
        "[[steps]] 1 timeout",
        "[[steps]] 1 agent",
        "[[steps]] 2 repeat.step.function",
        "[[steps]] 2 repeat.at_most",
    ]


def test_very_many_problems_are_counted_and_take_no_time(write: Any) -> None:
    names = "".join(f"key_number_{number} = 1\n" for number in range(20_000))
    began = time.monotonic()
    said = refusal(write(names)).splitlines()
    assert time.monotonic() - began < 5
    assert len(said) == 41
    assert said[-1] == "demo.toml: and 19961 more problems"


def test_deep_nesting_is_refused(write: Any) -> None:
    inner = '{agent = "a"}'
    for _ in range(60):
        inner = f"{{repeat = {{step = {inner}, at_most = 1}}}}"
    said = refusal(write(f"steps = [{inner}]\n[agents.a]\n"))
    assert "steps are nested more than 40 deep" in said


def test_a_files_name_and_its_words_cannot_break_a_message(write: Any) -> None:
    said = refusal(write(BASE + '["a\\nb\\u001b[31m"]\n'))
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said


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


def test_context_that_set_gives_is_known_to_prompts(write: Any) -> None:
    path = write(BASE + "[[steps]]\nagent = 'a'\nprompt = '{context.tone}'\n")
    assert "context.tone is set nowhere" in refusal(path)
    assert load_workflow(path, set=[("context.tone", "warm")]).context == {"tone": "warm"}


def test_a_function_may_set_what_a_prompt_names(write: Any) -> None:
    file = load_workflow(
        write(
            BASE
            + "[[steps]]\nfunction = 'm:f'\n[[steps]]\nagent = 'a'\nprompt = '{context.tone}'\n"
        )
    )
    assert [text.partition(": ")[2] for text in file.warnings] == [
        "[[steps]] 4 prompt: context.tone is set nowhere: write it into [context], "
        "if no function sets it"
    ]


def test_a_name_that_only_a_program_can_give_is_a_warning(write: Any) -> None:
    step = "[[steps]]\nagent = 'a'\nprompt = '{input.x}'\n"
    path = write("[agents.a]\n" + step)
    assert load_workflow(path).warnings == (
        f"{path}: [[steps]] 1 prompt: {{input.x}}: the input has no names, unless a program gives "
        "some",
    )
    outer = write("[[steps]]\nworkflow = 'demo.toml'\n", "outer.toml")
    assert load_workflow(outer).warnings == ()


def test_a_literal_secret_in_a_header_is_a_warning_that_does_not_show_it(write: Any) -> None:
    head = "[clients.c]\nheaders = {Api-Key = 'MARKEDKEY'}\nbase_url = 'http://u:MARKEDKEY@h'\n"
    file = load_workflow(write(head + "[agents.a]\n[[steps]]\nagent = 'a'\n"))
    assert len(file.warnings) == 2
    assert "headers.Api-Key: a secret does not belong into a file" in file.warnings[1]
    for text in (*file.warnings, file.describe(), file.to_mermaid(), repr(file)):
        assert "MARKEDKEY" not in text


# --- files within files ---------------------------------------------------------------------


def test_a_misspelt_table_is_told_before_what_follows_from_it(write: Any) -> None:
    said = refusal(write("[agent.x]\n[[steps]]\nagent = 'x'\n[[steps]]\nagent = 'x'\n"))
    assert "agent: unknown key; did you mean 'agents'?" in said.splitlines()[0]


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


@pytest.mark.parametrize(
    ("condition", "answer", "output"),
    [
        ('{contains = "rge"}', "urgent", "then"),
        ('{contains = "Rge"}', "urgent", "otherwise"),
        ('{contains = "rge", not = true}', "urgent", "otherwise"),
        ('{equals = "yes"}', " yes\\n", "then"),
        ('{equals = "yes"}', "yes!", "otherwise"),
        ('{matches = "^(?i)YES" }'.replace("^(?i)", "(?i)^"), "yes!", "then"),
        ('{call = "mytools:is_loud"}', "LOUD", "then"),
        ('{call = "mytools:is_loud", not = true}', "LOUD", "otherwise"),
        ('{call = "mytools:is_kept"}', "x", "then"),
        ('{equals = "German", context = "language"}', "x", "then"),
        ("{equals = 3, context = 'number'}", "x", "then"),
        ("{equals = true, context = 'number'}", "x", "otherwise"),
        ("{equals = 3}", "3", "then"),
        ('{contains = "a", context = "list"}', "x", "then"),
        ('{matches = "^$", context = "missing"}', "x", "then"),
    ],
)
def test_a_branch_asks_its_condition(
    write: Any, module: Any, server: ScriptedServer, condition: str, answer: str, output: str
) -> None:
    server.reply_text(answer.replace("\\n", "\n"))
    server.default(*text_chunks("asked again"))
    run = start(
        write,
        module,
        f"""
[context]
language = "German"
number = 3
list = ["a"]
[[steps]]
agent = "a"
[[steps]]
function = "mytools:keep"
[[steps]]
[steps.branch]
if = {condition}
then = {{agent = "a", name = "then"}}
otherwise = [{{agent = "b", name = "otherwise"}}]
""",
        server,
    )
    inner = run.steps[2].steps[0]
    assert (inner.steps[0] if inner.kind == "Sequence" else inner).name == output


def test_a_branch_without_otherwise_lets_the_input_through(
    write: Any, module: Any, server: ScriptedServer
) -> None:
    text = "[[steps]]\nbranch = {if = {equals = 'x'}, then = {agent = 'a'}}\n"
    assert start(write, module, text, server).output == "hello"
    assert server.requests == []


def test_a_repeat_goes_on_until_its_condition_holds(
    write: Any, module: Any, server: ScriptedServer
) -> None:
    for text in ("one", "two", "DONE.", "four"):
        server.reply_text(text)
    run = start(
        write,
        module,
        """
[[steps]]
name = "again"
[steps.repeat]
step = {agent = "a", prompt = "More: {input}"}
until = {matches = "(?i)\\\\bdone\\\\b"}
at_most = 5
""",
        server,
    )
    assert run.output == "DONE."
    assert asked(server) == ["More: hello", "More: one", "More: two"]


def test_a_repeat_may_fail_at_its_limit(write: Any, module: Any, server: ScriptedServer) -> None:
    server.default(*text_chunks("no"))
    text = (
        "[[steps]]\nfail_at_limit = true\n"
        "repeat = {step = {agent = 'a'}, until = {equals = 'yes'}, at_most = 2}\n"
    )
    with pytest.raises(WorkflowFailed, match="was not done after 2 rounds"):
        start(write, module, text, server)
    assert len(server.requests) == 2


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
        [[steps]]
        agent = "a"
    """)
    )
    with file.build(environ={}) as workflow, Runtime() as runtime:
        assert runtime.run(workflow, "hello").output == "fine"
        tools = workflow.steps[0].what.tools
    import mytools  # type: ignore[import-not-found]

    assert (tools["made"].timeout, mytools.ready.name) == (3, "other_name")
    sent = server.requests[0].json["tools"]
    assert [tool["function"]["name"] for tool in sent] == ["weather", "made"]
    assert sent[0]["function"]["description"] == "The weather."
    results = [m["content"] for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert results == ["sunny in Paris", "Rome"]


def test_a_clients_settings_arrive(write: Any, server: ScriptedServer) -> None:
    server.default(*text_chunks("x"))
    file = load_workflow(
        write(f"""
        [clients.c]
        base_url = "{server.url}"
        model = "big"
        api_key_env = "MY_KEY"
        headers = {{X-Team = "red", X-Pass = {{env = "PASS"}}}}
        body = {{user = "me"}}
        timeouts = {{connect = 3, first_token = false}}
        limits = {{answer = false, pool_size = 7}}
        [agents.a]
        temperature = 0.5
        stop = "#"
        extra = {{penalty = 1}}
        repeat_limit = false
        tool_timeout = false
        [[steps]]
        agent = "a"
    """)
    )
    with file.build(environ={"MY_KEY": "k-1", "PASS": "p-1"}) as workflow, Runtime() as runtime:
        runtime.run(workflow, "x")
        agent = workflow.steps[0].what
    clocks = vars(agent.client.timeouts)
    assert clocks == {"connect": 3, "first_token": None, "stall": 120.0, "total": None}
    assert (agent.client.limits.answer, agent.client.limits.pool_size) == (None, 7)
    assert (agent.repeat_limit, agent.tool_timeout) == (None, None)
    request = server.requests[0]
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["authorization"] == "Bearer k-1"
    assert (headers["x-team"], headers["x-pass"]) == ("red", "p-1")
    body = request.json
    assert (body["model"], body["user"], body["temperature"]) == ("big", "me", 0.5)
    assert (body["stop"], body["penalty"]) == ("#", 1)


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
        [agents.a]
        temperature = 0.5
        [[steps]]
        agent = "a"
    """
    with load_workflow(write(client)).build(environ={}) as workflow, Runtime() as runtime:
        assert runtime.run(workflow, "hi").output == "x"
    body = server.requests[0].json
    assert (body["model"], body["think"], body["keep_alive"]) == ("m", False, "10m")
    assert body["options"] == {"num_ctx": 8192, "top_k": 5, "temperature": 0.5}


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


def test_all_that_is_missing_when_it_is_built_is_told_at_once(write: Any, module: Any) -> None:
    module("mytools", TOOLS)
    module("broken_module", "raise SystemExit('no')")
    module("needs_more", "import not_installed_anywhere")
    path = write("""
        [clients.c]
        api_key_env = "NO_SUCH_VARIABLE"
        [agents.a]
        tools = ["t", "u"]
        approve = "mytools:number"
        [tools.t]
        import = "mytools:get_wether"
        [tools.u]
        import = "mytools:shout"
        [[steps]]
        agent = "a"
        [[steps]]
        function = "mytool:f"
        [[steps]]
        function = "broken_module:f"
        [[steps]]
        branch = {if = {call = "needs_more:f"}, then = {agent = "a"}}
    """)
    with pytest.raises(ConfigError) as caught, load_workflow(path).build(environ={}):
        pass
    folder = str(pathlib.Path(path).parent)
    said = str(caught.value).replace(folder + os.sep, "").replace(folder, "FOLDER").splitlines()
    assert said[:6] == [
        "demo.toml: [tools.t] import: mytools has no 'get_wether'; did you mean 'get_weather'?",
        "demo.toml: [agents.a] approve: mytools:number is of type int: it cannot be called",
        "demo.toml: [[steps]] 2 function: there is no module 'mytool', in FOLDER or installed; "
        "did you mean 'mytools'?",
        "demo.toml: [[steps]] 3 function: importing broken_module failed: SystemExit: no",
        "demo.toml: [[steps]] 4 branch.if.call: importing needs_more failed: "
        "ModuleNotFoundError: No module named 'not_installed_anywhere'",
        said[5],
    ]
    assert said[5].startswith("demo.toml: [tools.u] import: ")  # it has no annotations
    assert said[6:] == [
        "demo.toml: [clients.c]: the environment has no NO_SUCH_VARIABLE, which it needs"
    ]


def test_an_async_function_is_refused(write: Any, module: Any) -> None:
    module("mytools", "async def f(text): return True")
    file = load_workflow(
        write(BASE + "[[steps]]\nbranch = {if = {call = 'mytools:f'}, then = {agent = 'a'}}\n")
    )
    with pytest.raises(ConfigError, match=r"3 branch.if.call: mytools:f is an async function"):
        with file.build(environ={}):
            pass


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


def test_another_module_of_that_name_is_not_taken_for_it(write: Any, module: Any) -> None:
    module("sub/mytools", TOOLS)
    module("mytools", TOOLS)
    step = "[[steps]]\nfunction = 'mytools:shout'\n"
    write(step, "sub/inner.toml")
    file = load_workflow(write(step + "[[steps]]\nworkflow = 'sub/inner.toml'\n"))
    with pytest.raises(ConfigError, match="give one another name"), file.build(environ={}):
        pass


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
        began = time.monotonic()
        try:
            file = load_workflow(path)
            file.describe()
            file.to_mermaid()
        except ConfigError as error:
            refused += 1
            assert str(error).startswith(path)
        assert time.monotonic() - began < 1
    assert 200 < refused < 400


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
        *parts._TIMEOUTS,
        *parts._RETRIES,
        *parts._LIMITS,
        *steps.STEP_KINDS,
        *steps._COMMON,
        *steps._ONLY_FOR,
        *conditions._KINDS,
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
