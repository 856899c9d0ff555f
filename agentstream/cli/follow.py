"""agentstream follow: a run as it goes, from its log or from a server."""

from __future__ import annotations

import contextlib
import logging
import sys
import urllib.parse
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional

from agentstream.cancel import CancelToken
from agentstream.cli.exits import DONE, FAILED, Interrupted
from agentstream.cli.following import Rest, with_inner
from agentstream.cli.output import Output, note, say
from agentstream.cli.result import Replay, as_dict, ending_of
from agentstream.cli.runs import MANY, UNDER_WAY, find
from agentstream.cli.settings import log_of, token
from agentstream.cli.view import View
from agentstream.console.terminal import is_terminal
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.events.store import RunState
from agentstream.events.stream import EventStream

if TYPE_CHECKING:
    import argparse

__all__ = ["follow"]


def follow(given: argparse.Namespace) -> int:
    """Show a run as it goes; returns the exit code: how the run ended."""
    if given.url is not None and given.log is not None:
        raise ConfigError("--log or --url: a run is followed in one place")
    return _follow_log(given) if given.url is None else _follow_url(given)


def _follow_log(given: argparse.Namespace) -> int:
    log = log_of(given)
    with EventStream(log.open(create=False, reading=True)) as stream:
        known = given.id is not None and stream.store.run(given.id) is not None
        workflow_id = (
            given.id if known else _choose(stream.store.runs(limit=MANY), given.id, str(log))
        )
        view = _view(given, workflow_id)
        with stream.subscribe(workflow_id=workflow_id, after=0) as events:
            view.watch(workflow_id, lambda _: events.close())
            rest = Rest(given, view, workflow_id, stream.store, log)
            every = with_inner(stream, events, workflow_id, rest.look)
            return _show(given, view, workflow_id, every, rest)


def _follow_url(given: argparse.Namespace) -> int:
    from agentstream.web import client  # noqa: PLC0415

    base, _, named = given.url.rstrip("/").partition("/workflows/")
    secret = token(given.token_file)
    beginning = urllib.parse.unquote(named.partition("/")[0]) or given.id
    states = _states_at(base, secret, needed=beginning is None, told=_is_watched(given))
    if states is None:
        assert beginning is not None
        workflow_id: str = beginning
    else:
        workflow_id = _choose(states, beginning, base)
    cancel = CancelToken()
    view = _view(given, workflow_id)
    view.watch(workflow_id, cancel.cancel)
    events = client.follow(client.run_url(base, workflow_id), secret, cancel=cancel)
    with _told_of_the_connection(_is_watched(given)):
        return _show(given, view, workflow_id, events, Rest(given, view, workflow_id))


def _states_at(
    base: str, secret: Optional[str], *, needed: bool, told: bool
) -> Optional[List[RunState]]:
    """The runs that a server has; None if it does not say, and they are not needed."""
    from agentstream.web import runs  # noqa: PLC0415

    try:
        return runs(base, secret)
    except ConfigError:
        raise
    except AgentStreamError as error:
        if needed:
            raise OSError(f"{base} does not list its runs: {error}") from None
        if told:
            note(f"agentstream: waiting for {base}: {error}")
    return None


def _choose(states: List[RunState], beginning: Optional[str], where: str) -> str:
    """The run that was named, else the newest one, those under way first."""
    if beginning is not None:
        return find(states, beginning, where)
    outer = [state for state in states if state.parent_workflow_id is None]
    active = [state for state in outer if state.status in UNDER_WAY]
    if not outer:
        raise ConfigError(f"there are no runs in {where} yet")
    return (active or outer)[0].workflow_id


def _view(given: argparse.Namespace, workflow_id: str) -> View:
    if _is_watched(given):
        note(f"run {workflow_id}")
    return View(given)


def _is_watched(given: argparse.Namespace) -> bool:
    return is_terminal(sys.stderr) and not given.quiet


@contextlib.contextmanager
def _told_of_the_connection(wanted: bool) -> Iterator[None]:
    """Let a person know of each connection that is made again."""
    logger = logging.getLogger("agentstream.web")
    before = logger.level
    if wanted:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)


def _show(
    given: argparse.Namespace, view: View, workflow_id: str, events: Iterator[Event], rest: Rest
) -> int:
    last: Optional[Event] = None
    replay = Replay()
    try:
        for event in events:
            view(event)
            rest.note(event)
            if given.json:
                replay.add(event)
            if event.workflow_id == workflow_id and event.type in TERMINAL:
                last = event
            if view.closed:
                return DONE
    except Interrupted as interruption:
        goes = "rests" if rest.rests else "goes on"
        interruption.args = (f"{interruption}; the run {goes}",)
        raise
    finally:
        view.end()
    if last is None:
        say(f"run {workflow_id} has no end in its log, and will have none")
        return FAILED
    output = Output(sys.stdout)
    if given.json:
        output.write_json(
            {**last.to_dict(), **_as_dict(replay, last)}
        )  # the event's keys: until 0.3
    elif last.type is EventType.WORKFLOW_COMPLETED and not view.has_shown(last.data.get("output")):
        output.write_value(last.data.get("output"))
    if last.type is EventType.WORKFLOW_COMPLETED:
        return DONE
    say(f"run {workflow_id} {ending_of(last)}")
    return FAILED


def _as_dict(replay: Replay, last: Event) -> Dict[str, Any]:
    """What `run --json` writes of it."""
    run = replay.run(last)
    if last.type is EventType.WORKFLOW_COMPLETED:
        return as_dict(run)
    if last.type is EventType.WORKFLOW_CANCELLED:
        reason = f"run {run.workflow_id} was stopped: {last.data.get('reason')}"
        return as_dict(run, "Cancelled", reason)
    return as_dict(run, str(last.data.get("error")), f"run {run.workflow_id} {ending_of(last)}")
