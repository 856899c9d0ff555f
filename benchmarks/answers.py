"""The same twenty wrong answers to agentstream, instructor and pydantic-ai.

    python -m benchmarks.answers         in an environment that has all three

A scripted server gives each library the same text, then, if it is asked again, the right
answer.  Each is used as its documentation begins: a JSON schema of the server's
(`Mode.JSON_SCHEMA`, `NativeOutput`), default retries.  Prints the table of
docs/typed-answers.rst.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import warnings
from typing import Any, Callable, Dict, Iterator, List, Literal, NamedTuple, Optional, Tuple

import pydantic

from agentstream import OpenAIClient, OutputInvalid
from agentstream.testing import Reply, ScriptedServer, text_chunks

KEY = "sk-scripted"


class Item(pydantic.BaseModel):
    """A line of an invoice."""

    name: str
    price: float
    tags: List[str] = []


class Invoice(pydantic.BaseModel):
    """An invoice."""

    number: int
    color: Literal["red", "blue"]
    items: List[Item]
    due: Optional[datetime.date] = None


RIGHT = (
    '{"number": 7, "color": "red", "items": [{"name": "nut", "price": 1.5, "tags": []}], '
    '"due": null}'
)
VALUE = Invoice.model_validate_json(RIGHT)


def _with(old: str, new: str) -> str:
    assert old in RIGHT
    return RIGHT.replace(old, new)


#: What is wrong, and the answer.
WRONG: List[Tuple[str, str]] = [
    ("a code fence around it", f"```json\n{RIGHT}\n```"),
    ("a sentence before it", f"Here is the invoice: {RIGHT}"),
    ("a line break within a text", _with('"nut"', '"nut\nand bolt"')),
    ('``"7"`` for 7', _with("7", '"7"')),
    ("``7.0`` for 7", _with("7", "7.0")),
    ("null for a list that may be left out", _with("[]", "null")),
    ("a key is missing", _with('"color": "red", ', "")),
    ("a key that is unknown", _with('"number"', '"size": 3, "number"')),
    ("a text for a number, in a list", _with("1.5", '"cheap"')),
    ("a choice that there is not", _with('"red"', '"green"')),
    ("true for a number", _with("7", "true")),
    ("a comma too many", _with("null}", "null,}")),
    ("Python's quotes", RIGHT.replace('"', "'").replace("null", "None")),
    ("words, and no JSON", "I cannot read this invoice."),
    ("nothing", ""),
    ("cut in the middle, at a limit of tokens", RIGHT[:60]),
    ("two different values", f"{RIGHT} or rather {_with('7', '8')}"),
    ("a key that is given twice", _with('"color"', '"number": 8, "color"')),
    ("NaN for a number", _with("1.5", "NaN")),
    ("a list around it", f"[{RIGHT}]"),
]


class Outcome(NamedTuple):
    """What a library made of an answer.

    Attributes:
        requests: how many it made.
        value: what came out; None for an error.
        error: the error's type; "" for none.
        told: what the second request says beyond the first.
    """

    requests: int
    value: Optional[Invoice]
    error: str
    told: str


Ask = Callable[[str], Any]


def ours(url: str) -> Any:
    """agentstream's answer."""
    with OpenAIClient("m", api_key=KEY, base_url=url, api="chat") as client:
        return client.chat("Read it.", output=Invoice).value


def instructors(url: str) -> Any:
    """instructor's."""
    import instructor
    import openai

    made = instructor.from_openai(
        openai.OpenAI(api_key=KEY, base_url=url), mode=instructor.Mode.JSON_SCHEMA
    )
    messages = [{"role": "user", "content": "Read it."}]
    return made.chat.completions.create(model="m", messages=messages, response_model=Invoice)


def pydantic_ais(url: str) -> Any:
    """pydantic-ai's."""
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=url, api_key=KEY))
    return Agent(model, output_type=NativeOutput(Invoice)).run_sync("Read it.").output


LIBRARIES: Dict[str, Ask] = {
    "agentstream": ours,
    "instructor": instructors,
    "pydantic-ai": pydantic_ais,
}


def outcome(ask: Ask, text: str, *, cut: bool) -> Outcome:
    """What a library makes of `text`."""
    bodies: List[Dict[str, Any]] = []

    def answer(request: Any) -> Reply:
        bodies.append(request.json)
        is_first = len(bodies) == 1
        said, reason = (text, "length" if cut else "stop") if is_first else (RIGHT, "stop")
        if request.json.get("stream"):
            return Reply(*text_chunks(said, finish_reason=reason))
        message = {"role": "assistant", "content": said}
        return Reply.json(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    with ScriptedServer() as server:
        server.route("/v1/chat/completions", answer)
        try:
            value, error = ask(f"{server.url}/v1"), ""
        except OutputInvalid as exc:
            value, error = None, f"OutputInvalid{' (cut)' if exc.cut else ''}"
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is what comes out
            value, error = None, type(exc).__name__
    told = json.dumps(bodies[1]["messages"][1:]) if len(bodies) > 1 else ""
    return Outcome(len(bodies), value, error, told)


def in_words(it: Outcome) -> str:
    """An outcome as the table has it."""
    if it.error:
        return it.error if it.requests == 1 else f"{it.error} after {it.requests} requests"
    found = it.value.model_dump(mode="json") if it.value is not None else {}
    found["items"][0]["name"] = found["items"][0]["name"].replace("\nand bolt", "")
    right = VALUE.model_dump(mode="json")
    leaves, wanted = dict(_leaves(found)), dict(_leaves(right))
    wrong = [f"{key}={leaf}" for key, leaf in leaves.items() if leaf != wanted.get(key)]
    did = {1: "value", 2: "asked again"}.get(it.requests, f"asked {it.requests} times")
    return f"``{', '.join(wrong)}``" if wrong else did


def _leaves(value: Any, path: str = "") -> Iterator[Tuple[str, str]]:
    """The numbers and texts of a value, as JSON, by their places."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _leaves(item, f"{path}[{at}]")
    else:
        yield path, json.dumps(value)


def main(show: bool) -> None:
    """Print the table; with `show`, what was said when a library asked again, too."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    rows: List[List[str]] = []
    for what, text in WRONG:
        found = [outcome(ask, text, cut="cut" in what) for ask in LIBRARIES.values()]
        rows.append([what, *(in_words(it) for it in found)])
        if show:
            print(what, *(f"  {name}: {it.told}" for name, it in zip(LIBRARIES, found)), sep="\n")
    print(table(["the answer", *LIBRARIES], rows))


def table(header: List[str], rows: List[List[str]]) -> str:
    """A table in reStructuredText."""
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    line = "  ".join("=" * width for width in widths)

    def written(row: List[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()

    return "\n".join([line, written(header), line, *map(written, rows), line])


if __name__ == "__main__":
    main("--show" in sys.argv)
