"""What the data of each event holds: one function a type, named as the type is.

Whoever writes an event takes its data from here; whoever reads one uses accessors.py,
which takes any data.  Which functions make up a type is said in holds.py;
docs/events.rst is made of their docstrings (python -m tests.kit.events_doc).

In a docstring, "Holds:" lists the keys; one with a condition in parentheses is
there only then.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional, Sequence

from agentstream.events.run_payloads import (
    Data,
    author,
    failure,
    pending_call,
    run_end,
    step_head,
    took,
    workflow_cancelled,
    workflow_completed,
    workflow_failed,
    workflow_resumed,
    workflow_started,
    workflow_step_completed,
    workflow_step_failed,
    workflow_step_started,
    workflow_suspended,
)
from agentstream.text import safe_str

__all__ = [
    "Data",
    "author",
    "failure",
    "pending_call",
    "run_end",
    "step_head",
    "workflow_cancelled",
    "workflow_completed",
    "workflow_failed",
    "workflow_resumed",
    "workflow_started",
    "workflow_step_completed",
    "workflow_step_failed",
    "workflow_step_started",
    "workflow_suspended",
]

# --- agents ---------------------------------------------------------------------------------


def agent_processing() -> Data:
    """An agent begins with an input."""
    return {}


def agent_completed(
    *, response: str, duration_s: float, usage: Mapping[str, Any], tool_calls_count: int
) -> Data:
    """An agent has its answer.

    Holds:
        response: the text of its last answer.
        duration_s: seconds, requests and tools together.
        execution_time_ms: the same in milliseconds; until 0.3.
        usage: the tokens of all its requests, as `Usage.to_dict`.
        tool_calls_count: calls the model made, in all rounds.
    """
    return {
        "response": response,
        "duration_s": duration_s,
        "execution_time_ms": duration_s * 1000,
        "usage": usage,
        "tool_calls_count": tool_calls_count,
    }


def agent_output(value: Any) -> Data:
    """An agent's answer is what its `output` asks for.

    Holds:
        value: the answer, as JSON values.
    """
    return {"value": value}


def agent_output_invalid(problems: Iterable[Any], *, will_retry: bool) -> Data:
    """An agent's answer is not what its `output` asks for.

    Holds:
        problems: what is wrong, each {path, text}; a path is keys and places, [] for all of it.
        will_retry: true if the model is told, and asked again.
    """
    told = [{"path": list(problem.path), "text": problem.text} for problem in problems]
    return {"problems": told, "will_retry": will_retry}


def agent_failed(error: BaseException) -> Data:
    """An agent's run ends with an error, or was stopped."""
    return failure(error)


def agent_llm_request_started(*, provider: str, model: str, round: int) -> Data:
    """A request to the model begins.

    Holds:
        provider: "openai", "llama" and so on, as the client's `provider`.
        model: the model's name, as asked for.
        round: which request of the agent's run it is, from 1.
    """
    return {"provider": provider, "model": model, "round": round}


def agent_llm_stream_chunk(chunk: str) -> Data:
    """The model wrote some text; one event for each delta that has any.

    Holds:
        chunk: the text.
    """
    return {"chunk": chunk}


def agent_llm_reasoning_chunk(chunk: str) -> Data:
    """The model wrote some reasoning, which is no part of the answer.

    Holds:
        chunk: the text.
    """
    return {"chunk": chunk}


def agent_llm_request_retried(
    *, attempt: int, delay_s: float, error: str, message: str, resumed: bool
) -> Data:
    """A request failed and is made again.

    Holds:
        attempt: which try failed, from 1.
        delay_s: seconds until the next one.
        error: the error's class's name.
        message: its text.
        resumed: true if the answer goes on where it broke off; else it begins anew.
    """
    return {
        "attempt": attempt,
        "delay_s": delay_s,
        "error": error,
        "message": message,
        "resumed": resumed,
    }


def agent_fallback(
    *,
    client: int,
    provider: str,
    model: str,
    error: str,
    message: str,
    status: Optional[int],
    pause_s: float,
    next_client: int,
    next_provider: str,
    next_model: str,
) -> Data:
    """A client of a `FallbackClient` failed, and the next one is asked.

    Holds:
        client: who failed, by its place among the clients, from 1.
        provider: its provider.
        model: the model that it was asked for.
        error: the error's class's name.
        message: its text.
        status: its HTTP status, or null.
        pause_s: seconds for which that client is left alone.
        next_client: who is asked now.
        next_provider: its provider.
        next_model: its model.
    """
    return {
        "client": client,
        "provider": provider,
        "model": model,
        "error": error,
        "message": message,
        "status": status,
        "pause_s": pause_s,
        "next_client": next_client,
        "next_provider": next_provider,
        "next_model": next_model,
    }


def agent_llm_request_completed(
    *,
    round: int,
    provider: str,
    model: str,
    finish_reason: Optional[str],
    usage: Mapping[str, Any],
    first_token_s: Optional[float],
    duration_s: Optional[float],
    tokens_per_second: Optional[float],
    warnings: Sequence[str],
    response_id: Optional[str] = None,
    native_finish_reason: Optional[str] = None,
) -> Data:
    """The model's answer is whole.

    Holds:
        round: which request of the agent's run it was, from 1.
        provider: who answered, "openai", "llama.cpp" and so on, as the client's `provider`.
        model: the model's name, as the server gave it.
        finish_reason: "stop", "length", "tool_calls" and so on, or null.
        usage: its tokens, as `Usage.to_dict`.
        first_token_s: seconds until the first text, reasoning or tool call, or null.
        duration_s: seconds until its end, or null.
        tokens_per_second: its pace after the first token, or null.
        warnings: what was odd about it, texts.
        response_id: the server's id for the answer, or null.
        native_finish_reason: why it ended in the server's own word, or null.
    """
    return {
        "round": round,
        "provider": provider,
        "model": model,
        "finish_reason": finish_reason,
        "usage": usage,
        "first_token_s": first_token_s,
        "duration_s": duration_s,
        "tokens_per_second": tokens_per_second,
        "warnings": warnings,
        "response_id": response_id,
        "native_finish_reason": native_finish_reason,
    }


def agent_llm_request_failed(
    error: BaseException, *, round: int, model: str, duration_s: float
) -> Data:
    """A request failed for good, or was stopped.

    Holds:
        round: which request of the agent's run it was, from 1.
        model: the model's name, as asked for.
        duration_s: seconds until then, all attempts together.
    """
    return {"round": round, "model": model, "duration_s": duration_s, **failure(error)}


# --- tools ----------------------------------------------------------------------------------

#: Characters that an event holds of a call's name, arguments, result or message.
SHOWN = 2000


def tool_call(id: str, name: str, arguments: str) -> Data:
    """Which call: first in each event of a tool call's.

    Holds:
        id: the call's id, as the model gave it.
        name: the tool's name, as the model wrote it.
        arguments: the JSON text the model wrote; as an approval changed it; cut
            after 2,000 characters.
    """
    return {"id": id, "name": name[:SHOWN], "arguments": arguments[:SHOWN]}


def tool_call_started(call: Mapping[str, Any]) -> Data:
    """A tool call begins: it will be asked about, where there is an `approve`, and run."""
    return dict(call)


def tool_call_completed(
    call: Mapping[str, Any], *, duration_s: float, result: str, repeated: bool = False
) -> Data:
    """A tool call has its result.

    Holds:
        duration_s: seconds; 0 for a call that was not made again.
        duration_ms: the same in milliseconds; until 0.3.
        result: what the model is told, cut after 2,000 characters.
        repeated (of a call that was not made again): true; it has an earlier one's result.
    """
    data = {**call, **took(duration_s), "result": result[:SHOWN]}
    if repeated:
        data["repeated"] = True
    return data


def tool_call_failed(
    call: Mapping[str, Any],
    error: BaseException,
    *,
    duration_s: float,
    lost_threads: Optional[int] = None,
) -> Data:
    """A tool call failed; the model is told, and the run goes on.

    Holds:
        duration_s: seconds; 0 for a call that was never begun.
        duration_ms: the same in milliseconds; until 0.3.
        error: "ToolError" or "ToolTimeout".
        message: what the model is told, cut after 2,000 characters.
        lost_threads (of one out of time): threads of such tools that still hang.
    """
    data = {
        **call,
        **took(duration_s),
        "error": type(error).__name__,
        "message": safe_str(error)[:SHOWN],
    }
    if lost_threads is not None:
        data["lost_threads"] = lost_threads
    return data


# --- the rest -------------------------------------------------------------------------------


def system_warning(message: str) -> Data:
    """Something is odd, and the run goes on.

    An agent's begins with `agent` and `step`, a step's with `step`, `name` and
    `kind`; the log's own, about itself, with neither.

    Holds:
        message: what it is, for people.
    """
    return {"message": message}


def system_error(message: str) -> Data:
    """Something is wrong that is no run's; the library writes none, programs may.

    Holds:
        message: what it is, for people.
    """
    return {"message": message}


def events_missed(first: int, last: int, unit: str) -> Data:
    """Told to one subscriber, and no part of the log: what it cannot have any more.

    Holds:
        first: the first offset or position that is gone.
        last: the last one.
        unit: "offset" (of one run) or "position" (in the log of all).
    """
    return {"first": first, "last": last, "unit": unit}
