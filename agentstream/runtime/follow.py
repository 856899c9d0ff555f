"""A run's events as an iterator that starts the run, and stops it when it is left."""

from __future__ import annotations

from typing import Callable, Generator, Iterator, Sequence

from agentstream.events.model import Event, EventType
from agentstream.events.stream import EventStream
from agentstream.runtime.handle import RunHandle

__all__ = ["follow", "follow_once"]

Events = Generator[Event, None, None]

_RESTS = EventType.WORKFLOW_SUSPENDED


def follow(
    stream: EventStream, workflow_id: str, submit: Callable[[], RunHandle], *, raises: bool
) -> Events:
    """The events of the run that `submit` starts, which has that id.

    Raises:
        WorkflowFailed, Cancelled: with `raises`, after the terminal event.
    """
    with stream.subscribe(workflow_id=workflow_id) as events:  # before the first one comes
        handle = submit()
        yield from _read(handle, events, stops=True, raises=raises)


def follow_once(
    stream: EventStream,
    submit: Callable[[], RunHandle],
    others: Callable[[], Sequence[RunHandle]],
    *,
    raises: bool,
) -> Events:
    """As `follow` for a run that is made once: of one that has been, what the log has kept.

    Args:
        others: the runs under way; one of these is not stopped when its events are left.
    """
    known = others()
    handle = submit()
    with stream.subscribe(workflow_id=handle.workflow_id, after=0) as events:
        yield from _read(handle, events, stops=handle not in known, raises=raises)


def _read(handle: RunHandle, events: Iterator[Event], *, stops: bool, raises: bool) -> Events:
    try:
        for event in events:
            yield event
            if event.type is _RESTS and event.offset > handle._since:
                break  # for now: whoever resumes it writes the next one
    except (KeyboardInterrupt, SystemExit) as error:
        if stops:
            handle.interrupt(f"interrupted by {type(error).__name__}")
        raise
    finally:
        if stops:
            handle.cancel("its events are no longer read")
    if raises:
        try:
            handle.result()
        finally:
            del handle  # no cycle through an error's traceback
