"""The table of names, held to the conventions' package and to what the documentation lists."""

from __future__ import annotations

import pathlib

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, server_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes

from agentstream.otel import names

DOC = (pathlib.Path(__file__).parents[2] / "docs" / "observability.rst").read_text("utf-8")
#: Names of semantic-conventions-genai 1.42 that not every release of the package has; it has
#: them no longer in one place since they moved there.
NEWER = {
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.request.stream",
    "gen_ai.workflow.name",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.invoke_agent.duration",
    "gen_ai.invoke_workflow.duration",
    "gen_ai.execute_tool.duration",
    "mcp.client.operation.duration",
    "mcp.method.name",
    "mcp.protocol.version",
}


def known() -> set:
    found = set()
    for module in (error_attributes, gen_ai_attributes, server_attributes, gen_ai_metrics):
        values = vars(module).items()
        found |= {value for key, value in values if key.isupper() and isinstance(value, str)}
    return found


def test_names_are_those_of_the_conventions():
    used = {*names.ATTRIBUTES, *names.METRICS}
    foreign = {name for name in used if not name.startswith("agentstream.")}
    assert len(foreign & known()) > 15  # the package was looked at
    if hasattr(gen_ai_attributes, "GEN_AI_PROVIDER_NAME"):  # of 1.37 and later
        assert foreign - NEWER - known() == set()
        operations = {kind.operation for kind in names.SPANS.values() if kind.operation}
        told = {kind.value for kind in gen_ai_attributes.GenAiOperationNameValues}
        assert operations - told <= {"invoke_workflow"}  # of 1.42, too
    assert names.ERROR_TYPE == "error.type"


def test_units_are_those_of_the_conventions():
    for name, metric in names.METRICS.items():
        assert metric.unit == ("{token}" if name == names.TOKENS else "s")
        assert list(metric.bounds) == sorted(set(metric.bounds))


def test_the_documentation_lists_them_all():
    for name in (*names.ATTRIBUTES, *names.METRICS, names.RETRY_EVENT, names.FALLBACK_EVENT):
        assert f"``{name}``" in DOC, name
    for kind in names.SPANS.values():
        assert f"``{kind.name}``" in DOC, kind.name
