"""How a command keeps runs that can be resumed, and what it notes for `agentstream resume`.

Beside a run's checkpoints stands what it was begun, or last gone on, with: the path of its
file, and the flags that say what it runs with.  Only `resume` without a FILE reads it.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Dict, Mapping, NamedTuple, Optional, Sequence

from agentstream.cli.settings import setting
from agentstream.errors import ConfigError, LogError

if TYPE_CHECKING:
    import argparse

    from agentstream.events.store import EventStore
    from agentstream.workflow.checkpoints import Checkpoints
    from agentstream.workflow_files import WorkflowFile

__all__ = ["Kept", "checkpoints_of", "find_origin", "keep_origin", "origin_of", "take_origin"]

#: What the keys of the records begin with, before the time; the flags that are in one.
_KEY = "origin:"
_FLAGS = ("provider", "model", "base_url", "fallback", "api", "think_tags", "insecure", "retries",
          "rate_limit")  # fmt: skip


class Kept(NamedTuple):
    """How a run is kept.

    Attributes:
        checkpoints: how its checkpoints are.
        goes_on: a run of that id that rests is gone on with.
        begins: one that there is not is begun.
        force: as `Runtime.resume` has it.
        origin: what it is begun, or gone on, with; None if that is not to be noted.
    """

    checkpoints: Checkpoints
    goes_on: bool = False
    begins: bool = True
    force: bool = False
    origin: Optional[Mapping[str, Any]] = None


def checkpoints_of(
    given: argparse.Namespace, files: Sequence[WorkflowFile], *, needed: bool = False
) -> Optional[Checkpoints]:
    """How the runs of these files are kept, by one process; None if they are not.

    Args:
        needed: keep them, whatever the settings say.

    Raises:
        ConfigError: the files say different things.
    """
    said = [file.checkpoints for file in files if file.checkpoints is not None]
    wanted = setting(given, "checkpoints")
    if not (needed or wanted or (wanted is None and said)):
        return None
    if any(one != said[0] for one in said):
        raise ConfigError("[checkpoints] must say the same in all files that one process runs")
    from agentstream.workflow.checkpoints import Checkpoints  # noqa: PLC0415 - not for all commands

    return Checkpoints(**(said[0] if said else {}))


# --- what a run was begun with ---------------------------------------------------------------


def origin_of(given: argparse.Namespace) -> Optional[Dict[str, Any]]:
    """The file and the flags; None if a flag may hold a secret, which is written nowhere."""
    flags = {name: getattr(given, name) for name in _FLAGS if getattr(given, name) is not None}
    if any(sign in flags.get("base_url", "") for sign in "@?"):
        return None
    return {"file": os.path.abspath(given.file), "set": [list(one) for one in given.set], **flags}


def keep_origin(store: EventStore, workflow_id: str, origin: Optional[Mapping[str, Any]]) -> None:
    """Note what a run is begun, or gone on, with; the last note counts.

    Of a run that has ended already there is nothing to note.
    """
    from agentstream.workflow.run_checkpoints import pack  # noqa: PLC0415 - only who keeps runs

    said = None if origin is None else dict(origin)
    with contextlib.suppress(LogError):
        key = f"{_KEY}{time.time_ns():020d}"
        store.need_checkpoints().answer(workflow_id, key, pack(said, None))


def find_origin(store: EventStore, workflow_id: str) -> Optional[Dict[str, Any]]:
    """What a run was last begun, or gone on, with; None if that is not known, or it has ended."""
    from agentstream.workflow.run_checkpoints import unpack  # noqa: PLC0415 - as above

    records = {} if store.checkpoints is None else store.checkpoints.read(workflow_id)
    noted = sorted(key for key in records if key.startswith(_KEY))
    return unpack(records[noted[-1]], None) if noted else None


def take_origin(given: argparse.Namespace, origin: Mapping[str, Any]) -> None:
    """Let it stand for what was not given."""
    given.file = origin["file"]
    given.set = given.set or [tuple(one) for one in origin["set"]]
    for name in _FLAGS:
        if getattr(given, name) is None:
            setattr(given, name, origin.get(name))
