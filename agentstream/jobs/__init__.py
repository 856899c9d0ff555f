"""Runs that a task queue's workers execute, wherever they are: `Jobs`."""

from agentstream.jobs.jobs import Jobs
from agentstream.jobs.outcome import JobRun

__all__ = ["JobRun", "Jobs"]
