"""What is said of runs that rest: what they wait for, and the commands that answer and go on."""

from __future__ import annotations

import shlex
import time
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from agentstream.cli.durable import find_origin
from agentstream.cli.log_place import LogPlace
from agentstream.events.accessors import text
from agentstream.events.store import EventStore
from agentstream.results import PendingCall, PendingSignal

__all__ = [
    "Pending",
    "answers_told",
    "asked_of",
    "command",
    "goes_on",
    "in_short",
    "lines_of",
    "lines_of_suspended",
    "title_of",
]

Pending = Union[PendingCall, PendingSignal]

#: Characters of a call's arguments where there is a line for all of it.
_SHORT = 40


def command(name: str, *arguments: str, log: Optional[LogPlace]) -> str:
    """A command, to be pasted into a shell."""
    words = ["agentstream", name, *arguments, *(() if log is None else log.words)]
    return " ".join(map(shlex.quote, words))


def goes_on(store: EventStore, workflow_id: str, log: Optional[LogPlace]) -> str:
    """What goes on with a run, for people: "`agentstream resume ID` goes on"."""
    known = find_origin(store, workflow_id) is not None
    line = command("resume", workflow_id, *(() if known else ("FILE",)), log=log)
    return f"`{line}` goes on" + ("" if known else ", or the program that began it")


def title_of(each: Pending) -> str:
    """What is asked, in some words: all that somebody must see who answers."""
    if isinstance(each, PendingSignal):
        return f"the value {each.name!r}"
    again = "perhaps made before: " if each.why == "unknown" else ""
    return f"{again}{each.tool} {' '.join(each.arguments.split())}".rstrip()


def asked_of(store: EventStore, workflow_id: str) -> List[Pending]:
    """What a suspended run waits for and nobody has answered yet."""
    from agentstream.runtime.answers import unanswered  # noqa: PLC0415 - few runs are suspended

    return unanswered(store, workflow_id)


def in_short(pending: Iterable[Pending]) -> str:
    """All that is asked, in a part of a line."""
    titles = []
    for each in pending:
        title = title_of(each)
        titles.append(title if len(title) <= _SHORT else title[: _SHORT - 3] + "...")
    return ", ".join(titles)


def lines_of_suspended(store: EventStore, workflow_id: str, log: Optional[LogPlace]) -> List[str]:
    """What a suspended run waits for, how that is answered, and what goes on then."""
    asked = asked_of(store, workflow_id)
    then = goes_on(store, workflow_id, log)
    if not asked:
        return [f"run {workflow_id} is suspended, and has its answers: {then}"]
    count = "an answer" if len(asked) == 1 else f"{len(asked)} answers"
    head = f"run {workflow_id} is suspended: it waits for {count}"
    return [head, *lines_of(workflow_id, asked, log), f"then {then}"]


def lines_of(workflow_id: str, asked: Sequence[Pending], log: Optional[LogPlace]) -> Iterator[str]:
    """What is asked, each with the command that answers it."""
    calls = sum(isinstance(each, PendingCall) for each in asked)
    for each in asked:
        yield f"  {title_of(each)}"
        yield f"      {_about(each)}"
        if isinstance(each, PendingSignal):
            line = command("signal", workflow_id, each.name, "VALUE", log=log)
        else:
            line = command("approve", workflow_id, *([each.id] if calls > 1 else ()), log=log)
            no = "refuses it" if each.why == "approval" else "tells what became of it"
            line += f"   (--no REASON {no})"
        yield f"      {line}"


def _about(each: Pending) -> str:
    said = [f"step {each.step}"]
    over = "its wait is over"
    if isinstance(each, PendingCall):
        over = "it counts as refused"
        said = [f"call {each.id} of agent {each.agent!r}", *said]
        if each.why == "unknown":
            said.append("its process died meanwhile, and it may have been made: yes makes it again")
    if each.expires_at is not None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.expires_at))
        said.append(f"from {when} on {over}")
    return "; ".join(said)


def answers_told(data: Mapping[str, Any]) -> str:
    """What a `workflow_resumed` says of what was answered: "; pay: yes, by ann"."""
    told = ""
    found = data.get("answers")
    for each in found if isinstance(found, (list, tuple)) else ():
        if isinstance(each, Mapping):
            told += f"; {text(each, 'name')}: {_answer(each)}"
    return told


def _answer(each: Mapping[str, Any]) -> str:
    words: Dict[str, str] = {
        "value": "it has come",
        "expired": "nobody answered in time",
        "change": "yes, with other arguments",
    }
    answer = text(each, "answer")
    reason = f" ({text(each, 'reason')})" if text(each, "reason") else ""
    by = f", by {text(each, 'by')}" if text(each, "by") else ""
    return f"{words.get(answer, answer)}{reason}{by}"
