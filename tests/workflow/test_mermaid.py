"""Drawing a workflow: each shape, and names as they are."""

from __future__ import annotations

import pytest

from agentstream import Agent, Branch, Parallel, Repeat, Step, Workflow
from tests.kit.support import saying


def agent(name: str) -> Agent:
    return Agent(name, client=saying("x"))


def urgent(input: str) -> bool:
    return "!" in input


def test_a_small_workflow_is_drawn() -> None:
    parallel = Parallel(facts=agent("researcher"), tone=[len, agent("critic")], timeout=5)
    assert (
        Workflow("w", [parallel, Step(agent("writer"), retries=1)]).to_mermaid()
        == """\
flowchart TD
    start(["input"])
    n1[["parallel (5 s)"]]
    n2("researcher")
    n3["len"]
    n4("critic")
    n5[["results by name"]]
    n6("writer (1 retry)")
    finish(["output"])
    start --> n1
    n1 -->|"facts"| n2
    n1 -->|"tone"| n3
    n3 --> n4
    n2 --> n5
    n4 --> n5
    n5 --> n6
    n6 --> finish
"""
    )


def test_branches_rounds_and_frames_are_drawn() -> None:
    inner = Workflow("inner", [agent("one")])
    repeat = Repeat(agent("draft"), urgent, 3, name="polish", retries=2)
    pair = Step([len, str], name="pair")
    steps = [Branch(urgent, [inner], name="how"), Branch(urgent, repeat, pair, name="which")]
    assert (
        Workflow("w", steps).to_mermaid()
        == """\
flowchart TD
    start(["input"])
    n1{"how#58; urgent?"}
    subgraph s2["inner"]
      n3("one")
    end
    n4((" "))
    n5{"which#58; urgent?"}
    subgraph s6["polish (2 retries), at most 3 rounds, until urgent"]
      n7[/"next round"/]
      n8("draft")
    end
    subgraph s9["pair"]
      n10["len"]
      n11["str"]
    end
    n12((" "))
    finish(["output"])
    start --> n1
    n1 -->|"then"| n3
    n3 --> n4
    n1 -->|"otherwise"| n4
    n4 --> n5
    n5 -->|"then"| n7
    n7 --> n8
    n8 -->|"again"| n7
    n5 -->|"otherwise"| n10
    n10 --> n11
    n8 --> n12
    n11 --> n12
    n12 --> finish
"""
    )


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ('say "hi"', "say #quot;hi#quot;"),
        ("<b>&amp;</b>", "#lt;b#gt;#amp;amp;#lt;/b#gt;"),
        ("#1; `x`\n**y**", "#35;1; #96;x#96; #42;#42;y#42;#42;"),
        ("fa:fa-car", "fa#58;fa-car"),
        ("1. first", "1.#8203; first"),
        ("end", "end"),
        ("ünï 漢", "ünï 漢"),
    ],
)
def test_names_are_drawn_as_they_are(name: str, drawn: str) -> None:
    text = Workflow("w", [Step(len, name=name), Parallel({name: len})]).to_mermaid()
    assert f'    n1["{drawn}"]\n' in text
    assert f'    n2 -->|"{drawn}"| n3\n' in text
