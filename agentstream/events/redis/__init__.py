"""Events in Redis, which any number of processes on any number of machines share."""

from __future__ import annotations

from agentstream.events.redis.store import RedisStore

__all__ = ["RedisStore"]
