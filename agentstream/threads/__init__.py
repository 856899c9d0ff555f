"""Every thread and pool the library starts, and what fork and exit do to them.

All threads are daemons named "agentstream-...": none can keep a process alive,
and what must be finished at exit is finished here, within a bound.
"""

from agentstream.threads.abandon import abandonable
from agentstream.threads.aside import aside, interrupted
from agentstream.threads.clock import Alarm, arm, look_again
from agentstream.threads.lifecycle import after_fork, at_exit, exiting
from agentstream.threads.poller import Poller
from agentstream.threads.pool import NoThread, WorkerPool
from agentstream.threads.start import NEVER, bounded, get_within, slices, start_thread
from agentstream.threads.uptime import uptime
from agentstream.threads.wakeup import Wakeup

__all__ = [
    "NEVER",
    "Alarm",
    "NoThread",
    "Poller",
    "Wakeup",
    "WorkerPool",
    "abandonable",
    "after_fork",
    "arm",
    "aside",
    "at_exit",
    "bounded",
    "exiting",
    "get_within",
    "interrupted",
    "look_again",
    "slices",
    "start_thread",
    "uptime",
]
