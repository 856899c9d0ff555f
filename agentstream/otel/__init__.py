"""OpenTelemetry: spans and metrics of runs, by the GenAI conventions.

    from agentstream import otel
    otel.instrument(runtime.event_stream)

Needs the extra `otel`: the API package alone; the SDK, and where things go, are the program's.
"""

from __future__ import annotations

from agentstream.otel.instrumentation import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]
