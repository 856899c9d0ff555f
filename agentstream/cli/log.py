"""agentstream runs, follow and stop: the runs in a log, whichever process runs them."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Iterator, List, Optional

from agentstream.cancel import CancelToken
from agentstream.cli.endings import DONE, FAILED, note, say
from agentstream.cli.settings import log_of, token
from agentstream.cli.show import View, write_output
from agentstream.cli.text import Output, is_terminal
from agentstream.errors import ConfigError
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.events.sqlite import SqliteStore
from agentstream.events.store import RunState
from agentstream.events.stream import EventStream

__all__ = ["follow", "runs", "stop"]

#: Runs among which an id is looked for by its beginning.
_MANY = 10_000
_UNDER_WAY = ("queued", "running")


def runs(given: Any) -> int:
    """List the runs; returns the exit code."""
    with SqliteStore(log_of(given)) as store:
        found = store.runs(limit=_MANY if given.active else given.limit)
    if given.active:
        found = [state for state in found if state.status in _UNDER_WAY][: given.limit]
    output = Output(sys.stdout)
    lines = map(_as_json, found) if given.json else _table(found)
    for line in lines:
        if not output.write(line + "\n"):
            break
    return DONE


def _as_json(state: RunState) -> str:
    usage = None if state.usage is None else dict(state.usage)
    return json.dumps({**state._asdict(), "usage": usage}, ensure_ascii=False)


def _table(states: List[RunState]) -> Iterator[str]:
    yield f"{'ID':<18}{'STATUS':<11}{'STARTED':<21}{'TOOK':>8}  {'TOKENS':>7}  WORKFLOW"
    for state in states:
        started = "" if state.started_at is None else time.strftime(
            "%Y-%m-%d %H:%M:%S", time.localtime(state.started_at)
        )  # fmt: skip
        within = f" (within {state.parent_workflow_id})" if state.parent_workflow_id else ""
        tokens = (state.usage or {}).get("completion_tokens")
        yield (
            f"{state.workflow_id:<17} {state.status:<11}{started:<21}{_took(state):>8}  "
            f"{'' if tokens is None else tokens:>7}  {state.name}{within}"
        )


def _took(state: RunState) -> str:
    if state.started_at is None:
        return ""
    seconds = (state.ended_at or time.time()) - state.started_at
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


# --- stop ------------------------------------------------------------------------------------


def stop(given: Any) -> int:
    """Stop a run and wait for its end; returns the exit code."""
    log = log_of(given)
    with SqliteStore(log) as store:
        workflow_id = _find(store, given.id, log)
        if not store.request_stop(workflow_id, given.reason):
            state = store.run(workflow_id)
            say(f"run {workflow_id} is not under way: {'' if state is None else state.status}")
            return FAILED
        until = time.monotonic() + given.wait
        position = store.bounds().last
        while not store.has_ended(workflow_id):
            left = until - time.monotonic()
            if left <= 0:
                say(f"run {workflow_id} was asked to stop, and has not ended yet")
                return FAILED
            store.wait(position, min(left, 1.0))
            position = store.bounds().last
    note(f"run {workflow_id} was stopped")
    return DONE


def _find(store: SqliteStore, beginning: str, log: str) -> str:
    """The run whose id that is, or begins so."""
    if store.run(beginning) is not None:
        return beginning
    states = store.runs(limit=_MANY)
    found = [state.workflow_id for state in states if state.workflow_id.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"run {beginning!r} could be {len(found)} runs: {', '.join(found[:5])}")
    raise ConfigError(f"there is no run {beginning!r} in {log}: `agentstream runs` lists them")


# --- follow ----------------------------------------------------------------------------------


def follow(given: Any) -> int:
    """Show a run as it goes; returns the exit code: how the run ended."""
    if given.url is None:
        return _follow_log(given)
    if given.log is not None:
        raise ConfigError("--log or --url: a run is followed in one place")
    from agentstream.web import follow as follow_url  # noqa: PLC0415

    url = given.url.rstrip("/")
    if given.id is not None and "/workflows/" not in url:
        url += f"/workflows/{given.id}"
    if "/workflows/" not in url:
        raise ConfigError("which run? `agentstream follow ID --url URL`")
    cancel = CancelToken()
    view = View(given)
    workflow_id = url.rpartition("/workflows/")[2].partition("/")[0]
    view.watch(workflow_id, cancel.cancel)
    return _show(given, view, workflow_id, follow_url(url, token(given.token_file), cancel=cancel))


def _follow_log(given: Any) -> int:
    log = log_of(given)
    with EventStream(SqliteStore(log)) as stream:
        store: Any = stream.store
        workflow_id = _newest(store, log) if given.id is None else _find(store, given.id, log)
        if not given.quiet and is_terminal(sys.stderr):
            note(f"run {workflow_id}")
        view = View(given)
        with stream.subscribe(workflow_id=workflow_id, after=0) as events:
            view.watch(workflow_id, lambda _: events.close())
            return _show(given, view, workflow_id, _with_inner(stream, events))


def _newest(store: SqliteStore, log: str) -> str:
    states = [state for state in store.runs(limit=100) if state.parent_workflow_id is None]
    active = [state for state in states if state.status in _UNDER_WAY]
    if not states:
        raise ConfigError(f"there are no runs in {log} yet")
    return (active or states)[0].workflow_id


def _with_inner(stream: EventStream, events: Any) -> Iterator[Event]:
    """A run's events, and in their place those of the runs that are steps of it."""
    for event in events:
        yield event
        inner = event.data.get("run") if event.type is EventType.WORKFLOW_STEP_STARTED else None
        if inner is not None and stream.store.run(inner) is not None:
            with stream.subscribe(workflow_id=inner, after=0) as further:
                yield from _with_inner(stream, further)


def _show(given: Any, view: View, workflow_id: str, events: Iterator[Event]) -> int:
    last: Optional[Event] = None
    try:
        for event in events:
            view(event)
            if event.workflow_id == workflow_id and event.type in TERMINAL:
                last = event
            if view.closed:
                return DONE
    finally:
        view.end()
    if last is None:
        say(f"run {workflow_id} has no end in its log, and will have none")
        return FAILED
    output = Output(sys.stdout)
    if given.json:
        output.write(json.dumps(last.to_dict(), ensure_ascii=False) + "\n")
    elif last.type is EventType.WORKFLOW_COMPLETED and not view.has_shown(last.data.get("output")):
        write_output(output, last.data.get("output"))
    if last.type is EventType.WORKFLOW_COMPLETED:
        return DONE
    say(f"run {workflow_id} {_ending(last)}")
    return FAILED


def _ending(last: Event) -> str:
    if last.type is EventType.WORKFLOW_CANCELLED:
        return f"was stopped: {last.data.get('reason')}"
    where = f" in step {last.data['failed_step']!r}" if last.data.get("failed_step") else ""
    return f"failed{where}: {last.data.get('error')}: {last.data.get('message')}"
