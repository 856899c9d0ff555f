"""What a run does, on a terminal."""

from agentstream.console.console import Console
from agentstream.console.status import StatusLine

__all__ = ["Console", "StatusLine"]
