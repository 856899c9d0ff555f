"""A chat template that knows tools, for the embedded model, whose own knows none (pure).

In the style of Hermes: tools as JSON in the system message, calls as JSON between
tags, which llama.cpp recognises and makes `tool_calls` of.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, Sequence, Tuple

__all__ = ["tool_template"]

Example = Tuple[str, str, Mapping[str, Any]]

_EXAMPLES: Tuple[Example, ...] = (
    ("What is the weather in Berlin?", "get_weather", {"city": "Berlin"}),
    ("What is the weather in Madrid?", "get_weather", {"city": "Madrid"}),
)


def tool_template(examples: Sequence[Example] = _EXAMPLES) -> str:
    """The template, Jinja text for `LocalServer(chat_template=...)`.

    SmolLM2-135M calls a tool only where it has seen how: so, when tools are given
    and the last message is the user's, the template says these examples first.
    After a tool's result it shows no tools, and asks for an answer in words.

    Args:
        examples: for each a question, the tool to call, and its arguments; by
            default the weather of Berlin and Madrid, by `get_weather(city)`.
    """
    turns = "".join(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        f"{json.dumps({'name': name, 'arguments': dict(arguments)})}\n</tool_call><|im_end|>\n"
        for question, name, arguments in examples
    )
    # A JSON string is a Jinja string, but for the braces that Jinja reads first.
    return _TEMPLATE.replace("@EXAMPLES@", json.dumps(turns))


_TEMPLATE = r"""
{%- set after_result = messages[-1].role == 'tool' %}
{%- set said = namespace(system='') %}
{%- if messages[0].role == 'system' %}{%- set said.system = messages[0].content %}{%- endif %}
{%- if tools and not after_result %}
{{- '<|im_start|>system\n' + said.system + ('\n\n' if said.system else '') }}
{{- 'You may call functions:\n<tools>' }}
{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\n</tools>\nTo call one, write <tool_call>{"name": ..., "arguments": {...}}</tool_call>.' }}
{{- '<|im_end|>\n' }}
{%- if messages[-1].role == 'user' %}{{- @EXAMPLES@ }}{%- endif %}
{%- else %}
{%- set default = 'You are a helpful AI assistant named SmolLM, trained by Hugging Face' %}
{{- '<|im_start|>system\n' + (said.system or default) + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\n<tool_call>\n{"name": "' + tool_call.name + '", "arguments": ' }}
{{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\nThe function returned: ' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if after_result %}{{- '<|im_start|>user\nNow answer in words.<|im_end|>\n' }}{%- endif %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
""".strip()
