"""A dialect whose answers are typed: asked for by the first means that the server takes."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Tuple

from agentstream.errors import AgentStreamError
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.dialect import Dialect, Wrapped
from agentstream.llm.messages import ChatRequest, Delta, ToolCallDelta
from agentstream.llm.output.means import Means, OutputTraits, WireMeans, means_of, refuses
from agentstream.schema.output import Output

__all__ = ["OutputDialect", "ToolAnswer"]


class OutputDialect(Wrapped):
    """A request with an `output`, in a dialect that knows only a `response_format` and tools.

    Args:
        request: what is asked.
        make: makes the dialect of a request without `output`.
        wire: what servers of this language take.
        traits: what the client has learned of the server.

    Raises:
        ConfigError: the request cannot be made.
    """

    def __init__(
        self,
        request: ChatRequest,
        make: Callable[[ChatRequest], Dialect],
        wire: WireMeans,
        traits: OutputTraits,
    ) -> None:
        self._output: Output = request.output
        self._make = make
        self._traits = traits
        self._refused: List[Tuple[str, AgentStreamError]] = []
        self._left = means_of(request, wire)
        super().__init__(make(self._left[0].request))
        while len(self._left) > 1 and not traits.takes(
            self.model, self._left[0].name, self._output
        ):
            self._next()
        self._call: Optional[ToolAnswer] = None

    @property
    def _means(self) -> Means:
        return self._left[0]

    def _next(self) -> None:
        """Take the next means."""
        self._left.pop(0)
        Wrapped.__init__(self, self._make(self._means.request))

    def amend(self, error: AgentStreamError) -> bool:
        """See `Dialect.amend`: also the means."""
        if self._inner.amend(error):
            return True
        if len(self._left) < 2 or not refuses(error, self._means.name):
            return False
        self._refused.append((self._means.name, error))
        self._next()
        return True

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`: without the means that were refused, it worked."""
        for means, error in self._refused:
            self._traits.note(self.model, means, self._output, error)
        self._refused.clear()
        self._call = ToolAnswer(self._means.tool) if self._means.tool else None
        super().begin(answer)

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`."""
        delta = self._inner.read(event, data)
        return delta if self._call is None or delta is None else self._call.read(delta)

    def read_whole(self, text: str) -> Optional[Delta]:
        """See `Dialect.read_whole`."""
        delta = self._inner.read_whole(text)
        return delta if self._call is None or delta is None else self._call.read(delta)

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`."""
        delta = self._inner.flush(tail)
        return delta if self._call is None else self._call.flush(delta)


class ToolAnswer:
    """Deltas in which the calls of one tool are text: the answer, as if it had been written.

    Args:
        tool: the tool's name.
    """

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._names: Dict[int, str] = {}
        self._held: Dict[int, List[ToolCallDelta]] = {}  # whose name may still change
        self._places: Dict[int, int] = {}  # of the other calls, without the answer's
        self._said: Dict[int, List[str]] = {}  # the answer's arguments

    def read(self, delta: Delta) -> Delta:
        """A delta with the answer's arguments as content, its other calls moved up."""
        finish = delta.finish_reason
        if not (delta.tool_calls or finish or delta.provider_state):
            return delta
        content, calls = delta.content, []
        for piece in delta.tool_calls:
            text, others = self._piece(piece)
            content += text
            calls += others
        if finish:
            text, others = self._settle()
            content += text
            calls += others
            if finish == "tool_calls" and self._said and not self._places:
                finish = "stop"
        state = None if self._said else delta.provider_state
        return delta._replace(
            content=content, tool_calls=tuple(calls), finish_reason=finish, provider_state=state
        )

    def flush(self, delta: Optional[Delta]) -> Optional[Delta]:
        """What was held back, with the last delta."""
        last = self.read(delta or Delta())
        text, others = self._settle()
        last = last._replace(content=last.content + text, tool_calls=(*last.tool_calls, *others))
        return None if last == Delta() else last

    def _piece(self, piece: ToolCallDelta) -> Tuple[str, List[ToolCallDelta]]:
        place = piece.place
        if place not in self._said and place not in self._places:
            self._names[place] = piece.name or self._names.get(place, "")
            self._held.setdefault(place, []).append(piece)
            if not piece.arguments and self._names[place] != self._tool:
                return "", []
            return self._decide(place)
        if place in self._said:
            return self._text(piece), []
        return "", [piece._replace(place=self._places[place])]

    def _decide(self, place: int) -> Tuple[str, List[ToolCallDelta]]:
        """The pieces held of a call, now that its name is known."""
        pieces = self._held.pop(place)
        if self._names[place] == self._tool:
            self._said[place] = []
            return "".join(map(self._text, pieces)), []
        self._places[place] = len(self._places)
        return "", [piece._replace(place=self._places[place]) for piece in pieces]

    def _settle(self) -> Tuple[str, List[ToolCallDelta]]:
        text, calls = "", []
        for place in sorted(self._held):
            more, others = self._decide(place)
            text += more
            calls += others
        return text, calls

    def _text(self, piece: ToolCallDelta) -> str:
        """What a piece adds to the answer's text."""
        text, said = piece.arguments, self._said[piece.place]
        if piece.replaces:
            # What was said cannot be taken back; arguments that are sent anew go on, or follow.
            before = "".join(said)
            text = text[len(before) :] if text.startswith(before) else f"\n{text}"
            said.clear()
            said.append(piece.arguments)
        else:
            said.append(text)
        return text
