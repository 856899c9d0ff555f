"""Which functions of payloads.py make up the data of each type of event."""

from __future__ import annotations

from typing import Callable, Mapping, Tuple

from agentstream.events import payloads
from agentstream.events.model import EventType

__all__ = ["HOLDS"]

#: The functions whose keys the data of a type holds; its own is the first.
HOLDS: Mapping[EventType, Tuple[Callable[..., payloads.Data], ...]] = {
    EventType.WORKFLOW_STARTED: (payloads.workflow_started,),
    EventType.WORKFLOW_STEP_STARTED: (payloads.workflow_step_started, payloads.step_head),
    EventType.WORKFLOW_STEP_COMPLETED: (payloads.workflow_step_completed, payloads.step_head),
    EventType.WORKFLOW_STEP_FAILED: (
        payloads.workflow_step_failed,
        payloads.step_head,
        payloads.failure,
    ),
    EventType.WORKFLOW_COMPLETED: (payloads.workflow_completed, payloads.run_end),
    EventType.WORKFLOW_FAILED: (payloads.workflow_failed, payloads.run_end, payloads.failure),
    EventType.WORKFLOW_CANCELLED: (payloads.workflow_cancelled, payloads.run_end),
    EventType.WORKFLOW_SUSPENDED: (payloads.workflow_suspended, payloads.run_end),
    EventType.WORKFLOW_RESUMED: (payloads.workflow_resumed,),
    EventType.AGENT_PROCESSING: (payloads.agent_processing, payloads.author),
    EventType.AGENT_COMPLETED: (payloads.agent_completed, payloads.author),
    EventType.AGENT_FAILED: (payloads.agent_failed, payloads.author, payloads.failure),
    EventType.AGENT_OUTPUT: (payloads.agent_output, payloads.author),
    EventType.AGENT_OUTPUT_INVALID: (payloads.agent_output_invalid, payloads.author),
    EventType.AGENT_LLM_REQUEST_STARTED: (payloads.agent_llm_request_started, payloads.author),
    EventType.AGENT_LLM_STREAM_CHUNK: (payloads.agent_llm_stream_chunk, payloads.author),
    EventType.AGENT_LLM_REASONING_CHUNK: (payloads.agent_llm_reasoning_chunk, payloads.author),
    EventType.AGENT_LLM_REQUEST_RETRIED: (payloads.agent_llm_request_retried, payloads.author),
    EventType.AGENT_FALLBACK: (payloads.agent_fallback, payloads.author),
    EventType.AGENT_LLM_REQUEST_COMPLETED: (payloads.agent_llm_request_completed, payloads.author),
    EventType.AGENT_LLM_REQUEST_FAILED: (
        payloads.agent_llm_request_failed,
        payloads.author,
        payloads.failure,
    ),
    EventType.TOOL_CALL_STARTED: (payloads.tool_call_started, payloads.author, payloads.tool_call),
    EventType.TOOL_CALL_COMPLETED: (
        payloads.tool_call_completed,
        payloads.author,
        payloads.tool_call,
    ),
    EventType.TOOL_CALL_FAILED: (payloads.tool_call_failed, payloads.author, payloads.tool_call),
    EventType.SYSTEM_WARNING: (payloads.system_warning,),
    EventType.SYSTEM_ERROR: (payloads.system_error,),
    EventType.EVENTS_MISSED: (payloads.events_missed,),
}
