"""Steps as a file describes them: the names that their prompts may use."""

from __future__ import annotations

from typing import Any

from agentstream import Runtime
from agentstream.testing import ScriptedServer, text_chunks
from agentstream.workflow_files import load_workflow
from tests.kit.files_support import BASE, refusal


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


def test_a_prompt_without_its_input_or_with_a_slip_is_told(write: Any) -> None:
    nothing = "the step's input is not in it: write {input} where it belongs"
    slip = "is no placeholder, and stays as it is; did you mean"
    for prompt, told in (
        ("Into German.", [nothing]),
        ("In {context.tone}.", []),
        ("In {context}.", [f"{{context}} {slip} {{context.KEY}}?", nothing]),
        ("${name} or %(input)s, <input>, $input", [nothing]),
        ("Into German: {inptu}", [f"{{inptu}} {slip} {{input}}?"]),
        ("{ input }", [f"{{ input }} {slip} {{input}}?"]),
        ("{Input} and {inputs}", [f"{{Input}} {slip} {{input}}?", f"{{inputs}} {slip} {{input}}?"]),
        ("{input.}", [f"{{input.}} {slip} {{input}}?"]),
        ("{input[0]}", [f"{{input[0]}} {slip} {{input}}?"]),
        ("{input} in {contxt.tone}", [f"{{contxt.tone}} {slip} {{context.tone}}?"]),
        ("{input} in {context}", [f"{{context}} {slip} {{context.KEY}}?"]),
        ("{{input}}", ["{{input}}: one brace on each side is enough; the outer ones stay"]),
        ("{input}", []),
        ('{input} as {"name": "..."}, {x}, {output}', []),
        ("{input} in {context.tone}", []),
    ):
        steps = f"[[steps]]\nagent = 'a'\nprompt = '''{prompt}'''\n"
        path = write("context = {tone = 'x'}\n[agents.a]\n" + steps)
        warnings = [w.partition(" prompt: ")[2] for w in load_workflow(path).warnings]
        assert warnings == told, prompt


def test_a_map_runs_its_step_for_each_item(write: Any, module: Any, server: ScriptedServer) -> None:
    module("listing", "def lines(text):\n    return text.split()\n")
    server.default(*text_chunks("so"))
    path = write(
        f"[clients.c]\nbase_url = '{server.url}'\n[agents.a]\nclient = 'c'\n"
        f"[[steps]]\nfunction = 'listing:lines'\n[[steps]]\nfail_fast = false\n"
        "map = {step = {agent = 'a', prompt = 'Sum up {input}'}, at_most = 2}\n"
    )
    file = load_workflow(path)
    assert file.warnings == ()
    assert "2. map: for each item, 2 at once (all come to their end)" in file.describe()
    with file.build(environ={}) as workflow, Runtime() as runtime:
        assert runtime.run(workflow, "one two three").output == ["so"] * 3
    asked = sorted(request.json["messages"][-1]["content"] for request in server.requests)
    assert asked == ["Sum up one", "Sum up three", "Sum up two"]


def test_a_map_of_the_input_is_a_warning_for_the_command_line_has_texts_only(write: Any) -> None:
    path = write("[agents.a]\n[[steps]]\nmap = {step = {agent = 'a'}}\n")
    (warning,) = load_workflow(path).warnings
    assert "map: the input is a text and no list, unless a program gives one" in warning
