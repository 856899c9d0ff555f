"""Values as texts, and `str()` of what other people wrote."""

from __future__ import annotations

import datetime
from typing import Any, Dict, List, Tuple

from agentstream.results import ChatResponse, StepResult, Usage, WorkflowRun
from agentstream.text import as_text

_CYCLE: Dict[str, Any] = {}
_CYCLE["itself"] = _CYCLE

TEXTS: List[Tuple[Any, str]] = [
    ("as it is", "as it is"),
    (None, ""),
    (3.5, "3.5"),
    ([1, "zwei", None], '[1, "zwei", null]'),
    ({"facts": "three", "tone": 4}, "## facts\n\nthree\n\n## tone\n\n4"),
    ({"a": {"error": "StallTimeout", "message": "no"}}, "## a\n\n(failed: StallTimeout: no)"),
    ({"a": None}, "## a\n\nnull"),
    ([datetime.date(2026, 11, 27)], '["datetime.date(2026, 11, 27)"]'),
    ([{(1, 2): 3}], "[{(1, 2): 3}]"),
]


def test_values_as_texts() -> None:
    for value, text in TEXTS:
        assert as_text(value) == text
    assert "..." in as_text([_CYCLE])


def test_all_results_have_their_text_by_that_name() -> None:
    assert ChatResponse("hello").text == "hello"
    for value, text in TEXTS:
        assert StepResult("s", "Agent", 1500.0, value, Usage(), None, "completed").text == text
        assert WorkflowRun("w", "completed", value).text == text
    step = StepResult("s", "Agent", 1500.0, "", Usage(), None, "completed")
    assert step.duration_s == 1.5
