"""Keywords and methods that other libraries' agents have -> what is written here."""

from __future__ import annotations

from typing import Dict

from agentstream.llm.keywords import REQUEST_HINTS

__all__ = ["HINTS", "METHODS", "RUN_HINTS"]

_CLIENT = 'a client has it: Agent(..., client=OpenAIClient("..."))'
_INSTRUCTIONS = "it is system_prompt="
_ROUNDS = "it is tool_limits=ToolLimits(max_rounds=...)"
_OF_A_RUN = "it belongs to a run: agent.run(text, {0}=...), runtime.run(agent, text, {0}=...)"

#: Keywords of `Agent`.
HINTS: Dict[str, str] = {
    **{
        name: hint
        for name, hint in REQUEST_HINTS.items()
        if name not in ("input", "text", "system", "timeouts", "retries")
    },
    "model": _CLIENT,
    "llm": "it is client=",
    "provider": _CLIENT,
    "instructions": _INSTRUCTIONS,
    "instruction": _INSTRUCTIONS,
    "system_message": _INSTRUCTIONS,
    "prompt": _INSTRUCTIONS,
    "role": _INSTRUCTIONS,
    "goal": _INSTRUCTIONS,
    "description": 'it is agent.as_tool("description")\'s',
    "messages": "what is asked goes to a run: agent.run([...])",
    "files": 'they belong to a message: agent.run(ChatMessage.user("...", files=[...]))',
    "images": 'they belong to a message: agent.run(ChatMessage.user("...", files=[...]))',
    "functions": "it is tools=",
    "stream": "agent.stream(text) yields the text as it comes, agent.run(text) waits for all of it",
    "output_type": "it is output=",
    "max_iterations": _ROUNDS,
    "max_steps": _ROUNDS,
    "max_turns": _ROUNDS,
    "memory": _OF_A_RUN.format("conversation"),
    "history": _OF_A_RUN.format("conversation"),
    "cancel": _OF_A_RUN.format("cancel"),
    "handoffs": "an agent that others may ask is a tool: tools=[other.as_tool(...)]",
}

#: Methods of an agent.
METHODS: Dict[str, str] = {
    "ask": "run(text)",
    "chat": "run(text)",
    "invoke": "run(text)",
    "generate": "run(text)",
    "run_sync": "run(text)",
    "arun": "run(text), which waits; asyncio.to_thread(agent.run, text) does not",
    "ainvoke": "run(text), which waits; asyncio.to_thread(agent.run, text) does not",
    "run_stream": "stream(text)",
    "chat_stream": "stream(text)",
    "model": "client.model",
}

_OF_THE_AGENT = "the agent has it: Agent(..., {}=...)"

#: Keywords of `run`, `execute` and `stream`.
RUN_HINTS: Dict[str, str] = {
    "stream": "agent.stream(text) yields the text as it comes, agent.run(text) waits for all of it",
    "timeout": "a runtime bounds a run: runtime.run(agent, text, timeout=60)",
    "max_retries": "a client has it: Agent(..., client=LlamaClient(..., retries=Retries(2)))",
    "messages": "what is asked comes first: agent.run([...])",
    "history": "it is conversation=",
    "memory": "it is conversation=",
    "context": "a runtime has it: runtime.run(agent, text, context={...})",
    "workflow_id": "a runtime has it: runtime.run(agent, text, workflow_id=...)",
    "files": 'they belong to a message: agent.run(ChatMessage.user("...", files=[...]))',
    "images": 'they belong to a message: agent.run(ChatMessage.user("...", files=[...]))',
    "model": "the agent's client has it",
    **{
        name: _OF_THE_AGENT.format(name)
        for name in ("temperature", "top_p", "max_tokens", "seed", "stop", "tools", "extra",
                     "system_prompt", "system", "output", "tool_choice", "reasoning_effort")
    },
}  # fmt: skip
