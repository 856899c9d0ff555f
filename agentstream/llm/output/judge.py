"""An answer held against the type that was asked for, and the words that ask again."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, List, Protocol

from agentstream.errors import OutputInvalid
from agentstream.llm.finish import Ending, ending_of, remark_on
from agentstream.results import ChatResponse
from agentstream.schema.growing import NOTHING
from agentstream.schema.output import Answer, Output, said
from agentstream.schema.problems import Invalid, Problem

__all__ = ["Answers", "Wrong", "growing", "judge"]


class Wrong(Exception):
    """An answer is not what was asked for.

    Attributes:
        cut: it broke off: to ask again would cut the next one as well.
        correction: what the model is told.
        problems: what is wrong.
    """

    def __init__(self, output: Output, response: ChatResponse, invalid: Invalid) -> None:
        super().__init__()
        self._output = output
        self._response = response
        self._value = None if invalid.value is NOTHING else invalid.value
        self.cut = is_cut(response) and invalid.value is NOTHING
        self.problems = invalid.problems
        if self.cut:
            self._value = _so_far(output, response.content)
            self.problems = (Problem((), remark_on(response.finish_reason) or "was cut"),)
        self.correction = "" if self.cut else output.correction(invalid)

    def error(self) -> OutputInvalid:
        """The error to raise where nobody asks again."""
        words = "; ".join(said(self.problems))
        return OutputInvalid(
            f"the answer is no {self._output.name}: {words}",
            value=self._value,
            problems=self.problems,
            cut=self.cut,
            partial=self._response,
            phase="stream",
        )


def judge(output: Output, response: ChatResponse) -> Answer:
    """What `response` is; raises `Wrong`."""
    try:
        return output.read(response.content, cut=is_cut(response))
    except Invalid as invalid:
        raise Wrong(output, response, invalid) from invalid.__cause__


def is_cut(response: ChatResponse) -> bool:
    """True if the server says that the answer is not whole."""
    word = response.finish_reason
    return word is not None and ending_of(word) in (Ending.CUT, Ending.FAILED)


class Answers(Protocol):
    """Answers that come one after the other.

    Attributes:
        begun: how many have begun.
    """

    begun: int


def growing(output: Output, texts: Iterable[str], answers: Answers) -> Iterator[Any]:
    """Yield the value of the answer whose pieces `texts` are, each time it has grown.

    Args:
        texts: the pieces, of several answers perhaps.
        answers: with another one the value begins again.
    """
    number = 0
    value = output.growing()
    pieces: List[str] = []
    waiting, due = 0, value.due
    for text in texts:
        if answers.begun != number:
            number, value = answers.begun, output.growing()
            pieces.clear()
            waiting, due = 0, value.due
        pieces.append(text)
        waiting += len(text)
        if waiting < due:
            continue
        if value.feed("".join(pieces)):
            yield value.value()
        pieces.clear()
        waiting, due = 0, value.due


def _so_far(output: Output, text: str) -> Any:
    value = output.growing()
    value.feed(text)
    found = value.value()
    return None if found is NOTHING else found
