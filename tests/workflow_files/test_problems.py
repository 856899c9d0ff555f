"""What is wrong with a file: all of it, by file, table and key, in a message that nothing can break."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.kit.files_support import BASE, refusal

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
    "[tools.t]\nimport = 'm:f'\non_unknown = 'again'": [
        "[tools.t] on_unknown: must be one of rerun, suspend, fail, not 'again'"
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
    "[agents.c]\nsystem_prompts = 'x'": [
        "system_prompts: unknown key; did you mean 'system_prompt'?"
    ],
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
    "[clients.c]\nprices = {m = [1, 2]}": [
        "[clients.c] prices: must be (input, cached, output), each for a million tokens"
    ],
    "[clients.c]\nrate_limit = {}": ["[clients.c] rate_limit: RateLimit needs requests= or tok"],
    "[clients.c]\nrate_limit = {requests = 0}": ["rate_limit.requests: must be 1 or more, not 0"],
    "[clients.c]\nrate_limit = {requests = 1, burst = 2}": [
        "[clients.c] rate_limit: must be from 1"
    ],
    "[clients.c]\nrate_limit = {requests = 1, per = 0}": ["per: must be a positive number of sec"],
    "[clients.c]\nrate_limit = {requests = 1, path = ':memory:'}": [
        "path: must be the name of a f"
    ],
    "[clients.c]\nrate_limit = {request = 1}": [
        "rate_limit.request: unknown key; did you mean 're"
    ],
    "[clients.c]\nrate_limit = 60": ["[clients.c] rate_limit: must be a table, not a whole number"],
    "[clients.c]\nlimits = {concurrency = 0}": ["limits.concurrency: must be 1 or more, not 0"],
    "[clients.c]\nprovider = 'ollama'": ["[clients.c] model: is needed"],
    "[clients.c]\nprovider = 'ollama'\nmodel = 'm'\nnum_ctx = 0": [
        "[clients.c] num_ctx: must be 1 or more"
    ],
    "[clients.c]\nprovider = 'ollama'\nmodel = 'm'\nthink = 1": [
        "[clients.c] think: must be true, false or a text"
    ],
    "[clients.c]\nprovider = 'anthropic'\nmax_tokens = 0": ["max_tokens: must be 1 or more"],
    "[clients.c]\nprovider = 'anthropic'\ncache = 'x'": ['cache: must be "auto" or false'],
    "[clients.c]\nprovider = 'embedded'\nn_ctx = 0": ["[clients.c] n_ctx: must be 1 or more"],
    "[clients.c]\nprovider = 'embedded'\nbase_url = 'http://x'": ["[clients.c] base_url: unknown"],
    "[[steps]]\nagent = 'aa'": ["[[steps]] 3 agent: there is no agent 'aa'; did you mean 'a'? The"],
    "[[steps]]\nagent = 5": ["[[steps]] 3 agent: must be a text, not a whole number"],
    "[[steps]]\nname = 'x'": [
        "[[steps]] 3: must have one of agent, function, parallel, map, branch"
    ],
    "[[steps]]\nagent = 'a'\nfunction = 'm:f'": ["[[steps]] 3: must have one", "not agent and fun"],
    "[[steps]]\nagnt = 'a'": ["[[steps]] 3 agnt: unknown key; did you mean 'agent'?"],
    "[[steps]]\nagent = 'a'\ntimeout = 0": [
        "[[steps]] 3 timeout: must be a positive number of seconds"
    ],
    "[[steps]]\nagent = 'a'\nretries = -1": ["[[steps]] 3 retries: must be 0 or more, not -1"],
    "[[steps]]\nagent = 'a'\nname = ''": ["[[steps]] 3 name: must not be empty"],
    "[[steps]]\nagent = 'a'\nfail_fast = true": [
        "3 fail_fast: is for a step with 'parallel' or 'map'"
    ],
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
    "[[steps]]\nfunction = 'm:f'\n[[steps]]\nmap = {at_most = 0, fail_fast = 1, x = 2}": [
        "[[steps]] 4 map.step: is missing: it must be a step",
        "4 map.at_most: must be 1 or more",
        "4 map.fail_fast: must be true or false",
        "4 map.x: unknown key",
    ],
    "[[steps]]\nmap = {step = {agent = 'a'}}": [
        "3 map: needs a list, and its input is a text: a function can make one"
    ],
    "[[steps]]\nparallel = {a = {agent='a'}}\n[[steps]]\nmap = {step = {agent = 'a'}}": [
        "4 map: needs a list, and its input is results by name"
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
    "!a = 1\na = 2": ["demo.toml: line 2, column 6: Can"],
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


def test_a_files_name_and_its_words_cannot_break_a_message(write: Any) -> None:
    said = refusal(write(BASE + '["a\\nb\\u001b[31m"]\n'))
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said


# --- files within files ---------------------------------------------------------------------


def test_a_misspelt_table_is_told_before_what_follows_from_it(write: Any) -> None:
    said = refusal(write("[agent.x]\n[[steps]]\nagent = 'x'\n[[steps]]\nagent = 'x'\n"))
    assert "agent: unknown key; did you mean 'agents'?" in said.splitlines()[0]
