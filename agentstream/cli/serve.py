"""agentstream serve: a log of runs over HTTP, live, with a page to watch them on.

With workflow files, also what starts runs of them: then this process runs them.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from agentstream.cli.check import note_warnings
from agentstream.cli.durable import checkpoints_of
from agentstream.cli.exits import DONE, FAILED
from agentstream.cli.log_place import LogPlace
from agentstream.cli.output import Output, say
from agentstream.cli.run import build, check_flags
from agentstream.cli.settings import log_of, setting, token
from agentstream.cli.signals import next_stop, stops
from agentstream.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from agentstream.web import App, Registered
    from agentstream.workflow.checkpoints import Checkpoints
    from agentstream.workflow_files import WorkflowFile

__all__ = ["serve"]


#: Seconds that runs may take to end when the server is stopped.
_GRACE_S = 3.0


def serve(given: argparse.Namespace) -> int:
    """Serve until a signal ends it; returns the exit code."""
    try:
        from agentstream.web import server  # noqa: PLC0415 - the extra may be missing
        from agentstream.web.auth import origin_of  # noqa: PLC0415
    except ImportError as error:
        say(f"{error.name} is missing: pip install 'agentstream[server]'")
        return FAILED

    secret = token(given.token_file)
    if secret is None and not server.is_loopback(given.host):
        raise ConfigError(
            f"without a token it listens on loopback only, not on {given.host}: "
            "use --token-file, or set AGENTSTREAM_TOKEN"
        )
    access = {
        "token": secret,
        "hosts": _hosts(given.host, given.name),
        "origins": [origin_of(text) for text in given.origin],
        "max_streams": given.max_streams,
    }
    with contextlib.ExitStack() as stack:
        files = _files(given)
        checkpoints = checkpoints_of(given, files) if files else None
        workflows = _workflows(given, files, stack)
        in_memory = bool(workflows) and setting(given, "log") is None
        log = None if in_memory else log_of(given, new=True)
        is_new = log is not None and log.is_missing()
        try:
            sock = server.listen(given.host, given.port)
        except OSError as error:
            raise OSError(f"cannot listen at {given.host}:{given.port}: {error.strerror}") from None
        try:
            app = _app(log, workflows, checkpoints, access, stack)
        except BaseException:
            sock.close()
            raise
        sys.setswitchinterval(server.SWITCH_S)
        with stops() as signals, server.Server(app, sock) as serving:
            what = f"{log}{', a new log,' * is_new}" if log else "a log in memory"
            output = Output(sys.stdout)
            output.write(f"{what} is served at {serving.url}\n")
            if workflows:
                output.write(f"workflows to start there: {', '.join(workflows)}\n")
            next_stop(signals)
    return DONE


def _app(
    log: Optional[LogPlace],
    workflows: Dict[str, Registered],
    checkpoints: Optional[Checkpoints],
    access: Dict[str, Any],
    stack: contextlib.ExitStack,
) -> App:
    from agentstream.web.app import create_app  # noqa: PLC0415

    if not workflows:
        assert log is not None
        return create_app(log.open(), **access)
    from agentstream.events.stream import EventStream  # noqa: PLC0415
    from agentstream.runtime.runtime import Runtime  # noqa: PLC0415

    events = EventStream(None if log is None else log.open())
    runtime = stack.enter_context(
        Runtime(event_stream=events, grace=_GRACE_S, checkpoints=checkpoints)
    )
    stack.callback(runtime.shutdown, cancel=True)  # nobody is there any more to wait for them
    if checkpoints is not None:  # answered elsewhere, or left by an earlier server
        stack.enter_context(runtime.watch([one.workflow for one in workflows.values()]))
    return create_app(runtime, workflows=workflows, **access)


def _files(given: argparse.Namespace) -> List[WorkflowFile]:
    if not given.files:
        check_flags(given, [])
        return []
    from agentstream.workflow_files import load_workflow  # noqa: PLC0415

    files = [load_workflow(path) for path in given.files]
    check_flags(given, files)
    return files


def _workflows(
    given: argparse.Namespace, files: List[WorkflowFile], stack: contextlib.ExitStack
) -> Dict[str, Registered]:
    """The workflows of the files, by name, ready to run; `stack` closes what they hold."""
    from agentstream.web import Registered  # noqa: PLC0415

    found: Dict[str, Registered] = {}
    for file in files:
        if file.name in found:
            raise ConfigError(f"two of the workflows are named {file.name!r}: give one a name")
        note_warnings(file)
        workflow = build(given, file, stack)
        found[file.name] = Registered(workflow, file.input or "", _contexts(file))
    return found


def _contexts(file: WorkflowFile) -> Callable[[], Dict[str, Any]]:
    return lambda: file.context


def _hosts(host: str, names: List[str]) -> List[str]:
    """The Host names to answer to: what it listens at; of all addresses, any address."""
    return [*names, "0.0.0.0" if host in ("", "::", "0.0.0.0") else host]
