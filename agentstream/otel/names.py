"""All names that go to OpenTelemetry: spans, attributes, metrics.  Pure, and the only such table.

They are those of the GenAI and MCP semantic conventions (semantic-conventions-genai 1.42, status
Development: they may change); what those have no name for begins with "agentstream.".
"""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence, Tuple

__all__ = ["ATTRIBUTES", "METRICS", "SCHEMA_URL", "SPANS", "Metric", "SpanName", "span_name"]

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/1.42.0"

# --- attributes -----------------------------------------------------------------------------

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
CONVERSATION_ID = "gen_ai.conversation.id"
WORKFLOW_NAME = "gen_ai.workflow.name"
AGENT_NAME = "gen_ai.agent.name"

REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_STOP = "gen_ai.request.stop_sequences"
#: Fields of a `ChatRequest` that stand on its span as they are.
REQUEST_FIELDS: Mapping[str, str] = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
}
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
#: Keys of a usage, `Usage.to_dict`, and the attributes that hold them.
USAGE: Mapping[str, str] = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "cost": "agentstream.usage.cost",
}
TOKEN_TYPE = "gen_ai.token.type"

TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_TYPE = "gen_ai.tool.type"
MCP_METHOD = "mcp.method.name"
MCP_PROTOCOL = "mcp.protocol.version"

SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"
ERROR_TYPE = "error.type"

# Content: only where it is asked for.
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
INSTRUCTIONS = "gen_ai.system_instructions"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"

# Our own.
RUN_ID = "agentstream.workflow.id"
RUN_STATUS = "agentstream.workflow.status"
STEP, STEP_NAME, STEP_KIND = "agentstream.step", "agentstream.step.name", "agentstream.step.kind"
ATTEMPT = "agentstream.attempt"
ROUND = "agentstream.round"
DELAY = "agentstream.retry.delay"
#: Events of a request's span.
RETRY_EVENT, FALLBACK_EVENT = "agentstream.retry", "agentstream.fallback"

ATTRIBUTES: Sequence[str] = (
    *(OPERATION, PROVIDER, CONVERSATION_ID, WORKFLOW_NAME, AGENT_NAME),
    *(REQUEST_MODEL, REQUEST_STREAM, REQUEST_STOP, *REQUEST_FIELDS.values()),
    *(RESPONSE_MODEL, RESPONSE_ID, FINISH_REASONS, FIRST_CHUNK, *USAGE.values(), TOKEN_TYPE),
    *(TOOL_NAME, TOOL_CALL_ID, TOOL_TYPE, MCP_METHOD, MCP_PROTOCOL),
    *(SERVER_ADDRESS, SERVER_PORT, ERROR_TYPE),
    *(INPUT_MESSAGES, OUTPUT_MESSAGES, INSTRUCTIONS, TOOL_DEFINITIONS),
    *(TOOL_ARGUMENTS, TOOL_RESULT),
    *(RUN_ID, RUN_STATUS, STEP, STEP_NAME, STEP_KIND, ATTEMPT, ROUND, DELAY),
)

# --- spans ----------------------------------------------------------------------------------


class SpanName(NamedTuple):
    """A kind of span.

    Attributes:
        operation: its `gen_ai.operation.name`; "" for none.
        name: its name, of which the part in braces is filled in.
        is_client: its kind is CLIENT, else INTERNAL.
        what: what it is of.
    """

    operation: str
    name: str
    is_client: bool
    what: str


#: The kinds of spans, by the names that the table of open ones has for them.
SPANS: Mapping[str, SpanName] = {
    "run": SpanName("invoke_workflow", "invoke_workflow {workflow}", False, "a run"),
    "step": SpanName("", "step {name}", False, "an attempt at a step"),
    "agent": SpanName("invoke_agent", "invoke_agent {agent}", False, "an agent's run"),
    "request": SpanName("chat", "chat {model}", True, "a request, its retries inside"),
    "tool": SpanName("execute_tool", "execute_tool {tool}", False, "a tool call"),
    "mcp": SpanName("execute_tool", "tools/call {tool}", True, "a call of an MCP server's tool"),
}

#: Characters of a name, which a model may have made up, in a span's.
_MOST = 100


def span_name(kind: str, name: str) -> str:
    """The name of a span of a kind in `SPANS`, of what has that name."""
    form = SPANS[kind].name
    return (form[: form.index("{")] + name[:_MOST]).rstrip()


# --- metrics --------------------------------------------------------------------------------

#: Bounds of buckets, as the conventions advise: seconds of requests, and tokens.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(4.0**power for power in range(14))


class Metric(NamedTuple):
    """A histogram."""

    unit: str
    what: str
    bounds: Tuple[float, ...]


DURATION = "gen_ai.client.operation.duration"
TOKENS = "gen_ai.client.token.usage"
TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
#: The histogram of each kind of span's duration.
DURATIONS: Mapping[str, str] = {
    "run": "gen_ai.invoke_workflow.duration",
    "agent": "gen_ai.invoke_agent.duration",
    "request": DURATION,
    "tool": "gen_ai.execute_tool.duration",
    "mcp": "mcp.client.operation.duration",
}

METRICS: Mapping[str, Metric] = {
    DURATION: Metric("s", "Duration of a request, its retries inside.", _SECONDS),
    TOKENS: Metric("{token}", "Tokens of a request, of its input and of its output.", _TOKENS),
    TO_FIRST_CHUNK: Metric("s", "Time from a request to its first chunk.", _SECONDS),
    DURATIONS["run"]: Metric("s", "Duration of a run.", _SECONDS),
    DURATIONS["agent"]: Metric("s", "Duration of an agent's run.", _SECONDS),
    DURATIONS["tool"]: Metric("s", "Duration of a tool call.", _SECONDS),
    DURATIONS["mcp"]: Metric("s", "Duration of a call of an MCP server's tool.", _SECONDS),
}
#: Attributes of a span that its duration's metric has as well: of few values each.
DIMENSIONS: Sequence[str] = (
    *(OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, SERVER_ADDRESS, SERVER_PORT),
    *(ERROR_TYPE, WORKFLOW_NAME, AGENT_NAME, TOOL_NAME, TOOL_TYPE, MCP_METHOD, MCP_PROTOCOL),
)
