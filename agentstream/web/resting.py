"""Runs that rest, over HTTP: what they wait for, answers to it, and going on with them.

What an answer is, and that it counts once, is runtime/answers.py's; the routes are app.py's.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Dict, List, Mapping, Optional

from werkzeug.exceptions import BadRequest, Conflict, NotFound, ServiceUnavailable

from agentstream.agent.approval import Approval
from agentstream.errors import AgentStreamError, Busy, ConfigError, LogError
from agentstream.events.checkpoints import CheckpointStore
from agentstream.events.model import thaw
from agentstream.events.resting import RESTING
from agentstream.events.store import EventStore, RunState
from agentstream.jobs import Jobs
from agentstream.results import PendingCall
from agentstream.runtime import answers
from agentstream.runtime.runtime import Runtime
from agentstream.web.registered import Registered

__all__ = ["Resting"]

#: Characters of a call's arguments that a list of runs has.
_MOST_LISTED = 200

logger = logging.getLogger("agentstream.web")


class Resting:
    """What the app does for runs that are suspended or interrupted.

    Its methods raise the HTTP errors that stand for what is wrong.

    Args:
        store: the log's.
        runtime: what goes on with runs; None: nothing does here.
        workflows: those that it can go on with.
        jobs: has workers go on with them; None: the runtime does.
    """

    def __init__(
        self,
        store: EventStore,
        runtime: Optional[Runtime],
        workflows: Mapping[str, Registered],
        jobs: Optional[Jobs] = None,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._jobs = jobs
        able = jobs is not None or (runtime is not None and runtime.keeps_checkpoints)
        self._workflows = {one.workflow.name: one for one in workflows.values()} if able else {}

    # --- what is shown of them --------------------------------------------------------------

    def pending(self, state: RunState) -> List[Dict[str, Any]]:
        """What a run waits for, as its workflow_suspended has it; [] unless it is suspended."""
        return [dict(thaw(each)) for each in answers.asked_for(self._store, state)]

    def listed(self, state: RunState) -> List[Dict[str, Any]]:
        """The same for a list of runs: of long arguments the beginning."""
        return [
            {**each, "arguments": each["arguments"][:_MOST_LISTED]} for each in self.pending(state)
        ]

    def shown(self, state: RunState) -> Dict[str, Any]:
        """What is told of a single run: `pending`, each with `answered`, and `can_resume`."""
        pending = self.pending(state)
        keeps = bool(pending) and self._store.checkpoints is not None
        known = answers.answered(self._store, state.workflow_id) if keeps else set()
        for each in pending:
            each["answered"] = answers.key_of(each["kind"], each["id"]) in known
        root = self._root(state)
        return {"pending": pending, "can_resume": root is not None and root.name in self._workflows}

    # --- answers ----------------------------------------------------------------------------

    def approve(self, state: RunState, call_id: str, body: Mapping[str, Any]) -> None:
        """Answer a pending call, as a request's body says."""
        run, approval, by = state.workflow_id, _approval(body), _text(body, "by")
        if state.status != "suspended":
            raise Conflict(f"run {run[:64]!r} is {state.status}: it waits for no answer")
        asked = answers.pending(self._store, run)
        calls = {each.id: each for each in asked if isinstance(each, PendingCall)}
        if call_id not in calls:
            raise NotFound(f"run {run[:64]!r} does not wait for a call {call_id[:64]!r}")
        due = calls[call_id].expires_at
        if due is not None and due <= time.time():
            raise Conflict(f"call {call_id!r} was to be answered earlier: it counts as refused")
        try:
            if self._runtime is not None:
                self._runtime.approve(run, call_id, approval, by=by)
            else:
                answers.approve(self._store, run, call_id, approval, by=by)
        except ConfigError as error:
            raise BadRequest(str(error)) from None
        except LogError as error:
            now = self._store.run(run)
            waits = now is not None and now.status == "suspended"
            if waits and not self._is_settled(run, answers.key_of("approval", call_id)):
                raise
            raise Conflict(str(error)) from None

    def signal(self, state: RunState, name: str, body: Mapping[str, Any]) -> None:
        """Send a run a value, as a request's body says."""
        if "value" not in body:
            raise BadRequest('expected {"value": a JSON value}')
        run, by = state.workflow_id, _text(body, "by")
        self._kept()
        try:
            if self._runtime is not None:
                self._runtime.signal(run, name, body["value"], by=by)
            else:
                answers.signal(self._store, run, name, body["value"], by=by)
        except ConfigError as error:
            raise BadRequest(str(error)) from None
        except LogError as error:
            if not self._is_settled(run, answers.key_of("signal", name)):
                raise
            raise Conflict(str(error)) from None

    def _kept(self) -> CheckpointStore:
        try:
            return self._store.need_checkpoints()
        except ConfigError as error:
            raise Conflict(str(error)) from None

    def _is_settled(self, run: str, key: str) -> bool:
        """True if a run takes no answer of that key, so that it was not the log that failed."""
        records = self._kept().read(run)
        return key in records or not records or self._store.has_ended(run)

    # --- going on ---------------------------------------------------------------------------

    def go_on(self, run: str) -> bool:
        """Go on with a run that has got an answer, if this server can; True if it goes on."""
        state = self._store.run(run)
        root = None if state is None else self._root(state)
        if root is None or root.name not in self._workflows:
            return False
        try:
            self._resume(root)
        except Busy:
            return True  # whoever watches the log was faster
        except (AgentStreamError, RuntimeError) as error:
            logger.warning("run %s has been answered, and cannot be resumed: %s", run, error)
            return False
        return True

    def resume(self, state: RunState) -> str:
        """Go on with a run that rests; returns the id of the outermost one, which does."""
        run = state.workflow_id
        root = self._root(state)
        if root is None:
            what = "cannot be resumed" if state.status in RESTING else "does not rest"
            raise Conflict(f"run {run[:64]!r} {what}: it is {state.status}")
        if root.name not in self._workflows:
            known = ", ".join(sorted(self._workflows)) or "none"
            raise NotFound(f"this server can resume no run of {root.name[:64]!r}; known: {known}")
        try:
            self._resume(root)
        except (Busy, ConfigError) as error:
            raise Conflict(str(error)) from None
        except RuntimeError as error:
            raise ServiceUnavailable(str(error)) from None
        except LogError as error:
            if self._root(root) is not None:
                raise
            raise Conflict(str(error)) from None
        return root.workflow_id

    def _resume(self, root: RunState) -> None:
        if self._jobs is not None:
            self._jobs.wake(root.workflow_id)
            return
        assert self._runtime is not None
        known = self._workflows[root.name]
        self._runtime.resume(known.workflow, root.workflow_id, context=known.context())

    def _root(self, state: RunState) -> Optional[RunState]:
        """The run to be resumed for a run that rests: itself, or the one that it is within."""
        if state.status not in RESTING or self._store.checkpoints is None:
            return None
        roots = {root.workflow_id: root for root in self._store.checkpoints.waiting()}
        above: Optional[RunState] = state
        while above is not None and above.workflow_id not in roots:
            parent = above.parent_workflow_id
            above = None if parent is None else self._store.run(parent)
        return None if above is None else roots[above.workflow_id]


def _approval(body: Mapping[str, Any]) -> Approval:
    """The answer that a body gives; what does not belong to it is refused, not passed by."""
    answer, arguments, reason = body.get("answer"), body.get("arguments"), _text(body, "reason")
    if answer == "change" and isinstance(arguments, dict) and not reason:
        return Approval.change(arguments)
    if answer == "no" and arguments is None:
        return Approval.no(reason)
    if answer == "yes" and arguments is None and not reason:
        return Approval.yes()
    raise BadRequest(
        'expected {"answer": "yes"}, {"answer": "no", "reason": text} or '
        '{"answer": "change", "arguments": an object}, each with "by": text if you like'
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a text")
    return value
