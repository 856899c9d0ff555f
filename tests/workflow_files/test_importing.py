"""Functions of modules: which module is taken, what is missing, what cannot be called."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from agentstream.errors import ConfigError
from agentstream.workflow_files import load_workflow
from tests.kit.files_support import BASE, TOOLS


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


def test_another_module_of_that_name_is_not_taken_for_it(write: Any, module: Any) -> None:
    module("sub/mytools", TOOLS)
    module("mytools", TOOLS)
    step = "[[steps]]\nfunction = 'mytools:shout'\n"
    write(step, "sub/inner.toml")
    file = load_workflow(write(step + "[[steps]]\nworkflow = 'sub/inner.toml'\n"))
    with pytest.raises(ConfigError, match="give one another name"), file.build(environ={}):
        pass
