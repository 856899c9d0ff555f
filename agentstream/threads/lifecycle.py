"""What fork and exit do to those who hold locks, threads and connections."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import sys
import threading
from typing import Any, Callable, List, Protocol

from agentstream.threads.weak import WeakObjects

__all__ = ["after_fork", "at_exit", "exiting", "first_in_child"]

logger = logging.getLogger("agentstream.threads")


class _Forkable(Protocol):
    def _after_fork(self) -> None: ...


_forkables = WeakObjects()
_exits = WeakObjects()
_registry_lock = threading.Lock()
_registered = False
_exiting = False


class _Exitable(Protocol):
    def _at_exit(self) -> None: ...


def after_fork(thing: _Forkable) -> None:
    """Have `thing._after_fork()` called in every forked child, for as long as it lives."""
    _register()
    with _registry_lock:
        _forkables.add(thing)


def at_exit(thing: _Exitable) -> None:
    """Have `thing._at_exit()` called when the interpreter exits, if it still lives."""
    _register()
    with _registry_lock:
        _exits.add(thing)


def first_in_child(revive: Callable[[], object]) -> None:
    """Have `revive()` called in every forked child before all that `after_fork` was told of."""
    _first_in_child.append(revive)


def exiting() -> bool:
    """True once the interpreter has begun to exit."""
    return _exiting


def _register() -> None:
    global _registered  # noqa: PLW0603 - once a process, and not at import
    with _registry_lock:
        if _registered:
            return
        _registered = True
    atexit.register(_run_exits)
    if hasattr(os, "register_at_fork"):
        # The lock is held across the fork, so that the child copies a registry at rest.
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


#: What a child needs before anything else comes to life in it.
_first_in_child: List[Callable[[], object]] = []

# What is shared is held still across a fork, so that the child copies it at rest.
_held: List[Any] = []


def _in_fork_order() -> List[Any]:
    """Those first whose locks are taken first; in the child, the others come to life first."""
    return sorted(_forkables, key=lambda thing: getattr(thing, "_fork_order", 0))


def _finish_imports() -> None:
    """Wait for modules of this library that other threads are importing.

    The child would have them by half, and their locks held by threads that it has not.
    """
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if name.startswith("agentstream.") and getattr(spec, "_initializing", False):
            with contextlib.suppress(Exception):  # whoever imports it is told
                importlib.import_module(name)


def _before_fork() -> None:
    _finish_imports()
    _registry_lock.acquire()
    for thing in _in_fork_order():
        if hasattr(thing, "_before_fork"):
            thing._before_fork()
            _held.append(thing)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._after_fork_in_parent()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    _held.clear()
    _registry_lock.release()
    for revive in _first_in_child:
        revive()
    for thing in reversed(_in_fork_order()):
        try:
            thing._after_fork()
        except Exception:
            logger.exception("%r did not survive the fork", type(thing).__name__)


def _run_exits() -> None:
    global _exiting  # noqa: PLW0603
    _exiting = True
    for thing in sorted(_exits, key=lambda thing: getattr(thing, "_exit_order", 0)):
        try:
            thing._at_exit()
        except Exception:
            logger.exception("%r could not be closed at exit", type(thing).__name__)
        except (KeyboardInterrupt, SystemExit):
            logger.warning("interrupted while a %s was being closed", type(thing).__name__)
