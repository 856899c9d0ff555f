"""What a docstring says: paragraphs and parameters in three styles."""

from __future__ import annotations

from typing import Annotated

import pytest

from agentstream.schema.docstring import parse_docstring
from agentstream.tools import tool

GOOGLE = """Sum up.

    Longer.

    Args:
        a: first, see: below
        b (Optional[int]): second
            goes on

            and on
        *rest: more
        none:

    Returns:
        c: not a parameter
    """
NUMPY = """Sum up.

    Parameters
    ----------
    a : int
        first,
        see: below
    b, c : str, optional
        both
    d
        last

    Returns
    -------
    e : int
        not a parameter
    """
REST = """Sum up.
    :param a: first,
        see: below
    :param int b: second
    :type b: int
    :return: c: nothing
    """
DOCS = [
    (None, "", {}),
    ("", "", {}),
    ("Sum\n    up.\n\n    More.", "Sum up.", {}),
    ("\n    Sum up.\n    Args:\n        a: first\n", "Sum up.", {"a": "first"}),
    ("Args:\n    a: first\n", "", {"a": "first"}),
    (
        GOOGLE,
        "Sum up.",
        {"a": "first, see: below", "b": "second goes on and on", "rest": "more"},
    ),
    (NUMPY, "Sum up.", {"a": "first, see: below", "b": "both", "c": "both", "d": "last"}),
    (REST, "Sum up.", {"a": "first, see: below", "b": "second"}),
    ("Sum.\n\n:param a: first\n\n    Quoted.", "Sum.", {"a": "first"}),
    ("Parameters\n----------", "", {}),
    ("Args:", "", {}),
    (":param", ":param", {}),
    ("Weather of a city, such as:\n\nRome", "Weather of a city, such as:", {}),
    ("Notes of a city.", "Notes of a city.", {}),
]


@pytest.mark.parametrize(("text", "summary", "parameters"), DOCS)
def test_docstrings_are_read_in_three_styles(text, summary, parameters):
    assert parse_docstring(text) == (summary, parameters)


def test_annotated_wins_over_the_docstring():
    def probe(x: Annotated[int, "from the annotation"], y: int) -> None:
        """Probe.

        Args:
            x: from the docstring
            y: from the docstring
        """

    properties = tool(probe).parameters["properties"]
    assert properties["x"]["description"] == "from the annotation"
    assert properties["y"]["description"] == "from the docstring"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Sum.\n\nOnly of whole\nnumbers.", "Sum.\n\nOnly of whole numbers."),
        ("Sum.\n\nTwo.\n\n\nThree.\n\nArgs:\n    x: no.\n\nLate.", "Sum.\n\nTwo.\n\nThree."),
        ("Sum.\n\nTwo.\n\nReturns:\n    it.", "Sum.\n\nTwo."),
        ("Sum.\n\nTwo.\n\nParameters\n----------\nx : int\n", "Sum.\n\nTwo."),
        ("Sum.\n\nTwo.\n\n:param x: no", "Sum.\n\nTwo."),
        ("", ""),
    ],
)
def test_t12_all_paragraphs_before_the_sections_reach_the_model(text, said):
    def work(x: int) -> int:
        return x

    work.__doc__ = text
    assert tool(work).to_openai()["function"]["description"] == said
