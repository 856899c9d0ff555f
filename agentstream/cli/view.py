"""View: one run as a person or a program sees it: text, its result, events, a status line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set

from agentstream.cli.output import Output, note
from agentstream.console.terminal import is_terminal
from agentstream.events.accessors import text
from agentstream.events.model import Event, EventType
from agentstream.llm.finish import remark_on
from agentstream.results import ChatResponse
from agentstream.workflow.progress import to_json

if TYPE_CHECKING:
    import argparse

__all__ = ["View"]


class View:
    """A callback for the bus that shows one run, and the runs within it.

    Attributes:
        on_terminal: True if a person watches.
        answer: with `plain` and `--json`, what a `ChatResponse` has, once there is one.
    """

    def __init__(self, given: argparse.Namespace, plain: bool = False) -> None:
        self._runs: Set[str] = set()
        self._said: Optional[str] = None  # what an agent said last
        self._value: Any = None  # what that was, of an agent with a type
        self._stop: Callable[[str], object] = lambda _: None
        self._output = Output(sys.stdout)
        self._trouble: Optional[OSError] = None  # with writing there
        self._given = given
        self._plain = plain
        self._callbacks: List[Callable[[Event], object]] = []
        self.answer: Dict[str, Any] = {}
        self._console: Any = None
        self._status: Any = None
        self._cut: Dict[str, str] = {}  # what there is to say of agents whose answers were
        self.on_terminal = is_terminal(sys.stderr)
        streams = is_terminal(sys.stdout) and not given.json and not given.jsonl and not given.quiet
        self._tells = bool(given.verbose or getattr(given, "show_requests", False))
        if self.on_terminal and not given.quiet and not self._tells:  # a log and it do not mix
            self._add_status()
        if given.jsonl:
            self._callbacks.append(self._write_json)
        elif streams:
            self._add_console(plain)
        elif plain:
            self._callbacks.append(self._keep if given.json else self._write_text)
        if given.verbose:
            from agentstream.cli.verbose import narrate  # noqa: PLC0415

            self._callbacks.append(narrate)

    def watch(self, workflow_id: str, stop: Callable[[str], object] = lambda reason: None) -> None:
        """Show this run; `stop` is called with a reason if nobody reads it any more."""
        self._stop = stop
        self._runs.add(workflow_id)

    def __call__(self, event: Event) -> None:
        if event.workflow_id not in self._runs:
            if event.parent_workflow_id not in self._runs:
                return  # another process writes to this log, too
            self._runs.add(event.workflow_id)
        if event.type is EventType.AGENT_COMPLETED:
            self._said = text(event.data, "response")
        elif event.type is EventType.AGENT_OUTPUT:
            self._value = event.data.get("value")
        elif event.type is EventType.AGENT_LLM_REQUEST_COMPLETED:
            remark = remark_on(text(event.data, "finish_reason"))
            if remark:
                self._cut[text(event.data, "agent")] = remark
        for callback in self._callbacks:
            callback(event)

    @property
    def closed(self) -> bool:
        """True if nobody reads it any more.

        Raises:
            OSError: it cannot be written: a full disk, say.
        """
        if self._trouble is not None:
            raise self._trouble
        return self._output.closed or (self._console is not None and self._console.closed)

    def has_shown(self, output: Any) -> bool:
        """True if the run's output need not be written any more."""
        if self._given.jsonl or self._write_text in self._callbacks:
            return True
        if self._console is None:
            return False
        return bool(output == self._said) or (
            self._value is not None and bool(to_json(output) == self._value)
        )

    def end(self) -> None:
        """Clean up the terminal."""
        if self._console is not None:
            self._console.end_line()
        if self._status is not None:
            self._status.close()
        self._output.end_line()
        if self._given.verbose or not self._given.quiet:
            for agent, remark in sorted(self._cut.items()):
                whose = "" if self._plain else f" of {agent!r}"
                note(f"agentstream: the answer{whose} {remark}")
        self._cut.clear()

    def _add_status(self) -> None:
        from agentstream.console.status import StatusLine  # noqa: PLC0415

        self._status = StatusLine(sys.stderr)
        self._callbacks.append(self._status)

    def _add_console(self, plain: bool) -> None:
        from agentstream.console.console import Console  # noqa: PLC0415

        self._console = Console(
            sys.stdout,
            status=self._status,
            on_closed=self._closed,
            headings=not plain,
            indent="" if plain else "   ",
            wrap=not self._tells,  # notes come between
        )
        self._callbacks.append(self._console)

    def _write_json(self, event: Event) -> None:
        self._attempt(lambda: self._output.write_json(event.to_dict()))

    def _write_text(self, event: Event) -> None:
        if event.type is EventType.AGENT_LLM_STREAM_CHUNK:
            self._attempt(lambda: self._output.write_text(text(event.data, "chunk")))

    def _keep(self, event: Event) -> None:
        data = event.data
        if event.type is EventType.AGENT_PROCESSING:
            self.answer = {"content": "", "reasoning": "", "tool_calls": []}
        elif event.type is EventType.AGENT_LLM_REASONING_CHUNK:
            self.answer["reasoning"] += text(data, "chunk")
        elif event.type is EventType.AGENT_LLM_REQUEST_COMPLETED:
            known = (name for name in ChatResponse._fields if name in data)
            self.answer.update((name, data[name]) for name in known)
        elif event.type is EventType.AGENT_COMPLETED:
            self.answer["content"] = self.answer["text"] = text(data, "response")

    def _attempt(self, write: Callable[[], bool]) -> None:
        try:
            if write():
                return
        except OSError as error:
            self._trouble = error
        self._closed()

    def _closed(self) -> None:
        self._stop("nobody reads its output any more")
