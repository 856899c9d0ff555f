"""A table of obvious calls, as somebody writes them who has read no documentation: what each
does, or in which words it says what to write instead.

A row is the call and what comes of it: a value, or the error's class and a part of its message.
"""

from __future__ import annotations

import asyncio
from typing import Any, Dict, Iterator, List, Tuple, Union

import pytest

import agentstream
from agentstream import Agent, ConfigError, LlamaClient, Runtime
from agentstream.testing import ScriptedServer, text_chunks

HI = '[{"role": "user", "content": "hi"}]'

#: An error's class and a part of what it says.
Says = Tuple[type, str]

CLIENT_CALLS: List[Tuple[str, Union[str, Says]]] = [
    ('client.chat("hi").text', "Hi!"),
    ('client.chat("hi", temperature=0, max_tokens=5).text', "Hi!"),
    ('client.chat("hi", extra={"top_k": 4}).text', "Hi!"),
    ('"".join(client.chat_stream("hi", max_tokens=5))', "Hi!"),
    ('client.chat(ChatRequest("hi")).text', "Hi!"),
    ('client.chat(ChatRequest("hi", seed=1), temperature=0).text', "Hi!"),
    (f"client.chat({HI}).text", "Hi!"),
    ('client.chat([ChatMessage.user("hi")]).text', "Hi!"),
    ('client.chat("hi", stream=True)', (TypeError, "chat_stream(...) yields the text as it comes")),
    ('client.chat("hi", timeout=3)', (TypeError, "timeouts=Timeouts(total=60)")),
    ('client.chat("hi", max_retries=3)', (TypeError, "retries=Retries(attempts=2)")),
    ('client.chat("hi", top_k=4)', (TypeError, "'top_k': a field that only the server knows")),
    ('client.chat("hi", top_k=4)', (TypeError, "goes into extra={'top_k': ...}")),
    ('client.chat("hi", temprature=0)', (TypeError, "did you mean 'temperature'?")),
    ('client.chat("hi", system="Be brief.")', (TypeError, "ChatMessage.system(...)")),
    (f"client.chat(messages={HI})", (TypeError, "what is asked comes first: chat([...])")),
    ('client.chat("hi", max_completion_tokens=5)', (TypeError, "it is max_tokens=")),
    ('client.chat("hi", tools=[print])', (ConfigError, "functions are an Agent's tools")),
    ('client.chat("hi", max_tokens="5")', (ConfigError, "max_tokens must be a whole number")),
    ('client.chat("hi", temperature="hot")', (ConfigError, "temperature must be a number")),
    ('client.chat("hi", cancel=5)', (ConfigError, "cancel must be a CancelToken, not int")),
    ('client.chat("")', (ConfigError, "the prompt is empty")),
    ("client.chat(None)", (ConfigError, "expected a str, a list of messages or a ChatRequest")),
    ("client.chat([])", (ConfigError, "a request needs at least one message")),
    ('client.chat({"role": "user", "content": "hi"}).text', "Hi!"),
    ('client.chat(ChatMessage.user("hi")).text', "Hi!"),
    ('client.chat([{"role": "bogus", "content": "hi"}])', (ConfigError, "not 'bogus'")),
    ('client.chat([{"role": "user"}])', (ConfigError, "a user message needs content")),
    ('client.complete("hi")', (AttributeError, "it is chat(prompt)")),
    ('client.stream("hi")', (AttributeError, "it is chat_stream(prompt)")),
    ('client.achat("hi")', (AttributeError, "asyncio.to_thread(client.chat, prompt)")),
    ('ChatRequest("hi", stream=True)', (TypeError, "ChatRequest() takes no 'stream'")),
    ("ChatMessage.user(5)", (ConfigError, "content must be a str or a list of parts, not int")),
    ("LlamaClient(None)", (ConfigError, "base_url must be a str, not NoneType")),
    ('LlamaClient("localhost:8080")', (ConfigError, "must look like http://host:port")),
    ("LlamaClient(timeout=5)", (TypeError, "it is timeouts=Timeouts(total=60)")),
    ('LlamaClient(url="http://x")', (TypeError, "it is base_url=")),
    ("LlamaClient(timeouts=5)", (ConfigError, "must be a Timeouts, not int: Timeouts(total=30)")),
    ('OpenAIClient("m", base_url=url, max_retries=3)', (TypeError, "it is retries=Retries(")),
    ('OpenAIClient("m", base_url=url, temperature=0)', (TypeError, "body={'temperature': ...}")),
    ('OpenAIClient("m", base_url=url, user="me")', (TypeError, "body={'user': ...}")),
    ('OpenAIClient("m")', (ConfigError, "set OPENAI_API_KEY or pass api_key=")),
    ("Timeouts(timeout=5)", (TypeError, "it takes connect, first_token, stall, total")),
]

AGENT_CALLS: List[Tuple[str, Union[str, Says]]] = [
    ('agent.run("hi").text', "Hi!"),
    ('agent.execute("hi").text', "Hi!"),
    (f"agent.execute({HI}).text", "Hi!"),
    ('agent.run(ChatMessage.user("hi")).text', "Hi!"),
    ('agent.run([{"type": "text", "text": "hi"}]).text', "Hi!"),
    ('"".join(agent.stream("hi"))', "Hi!"),
    ('str(agent.run("hi"))', "Hi!"),
    ('str(runtime.run(agent, "hi"))', "Hi!"),
    ('repr(agent.stream("hi"))', "<AgentStream, to be iterated>"),
    ('Agent("poet", client).run("hi").text', "Hi!"),
    ('Agent("poet", client=client, system="Be brief.").system_prompt', "Be brief."),
    ('Agent("poet", client=client, system_prompt=None).run("hi").text', "Hi!"),
    ('Agent(model="gpt-6", instructions="Be brief.")', (TypeError, "client=OpenAIClient(")),
    ('Agent("poet", client=client, instructions="x")', (TypeError, "it is system_prompt=")),
    ('Agent("poet", client=client, top_k=5)', (TypeError, "extra={'top_k': ...}")),
    ('Agent("poet", client=client, temprature=0)', (TypeError, "did you mean 'temperature'?")),
    ('Agent("poet", client=client, temperature="hot")', (ConfigError, "'poet': temperature must")),
    ('Agent("poet", client=client, tools=print)', (ConfigError, "tools must be a list of func")),
    ('Agent("poet", client=client, tools=["x"])', (ConfigError, "tools=[f], not tools=[f()]")),
    ('Agent("poet", client=client, tools=[agent])', (ConfigError, "agent.as_tool(")),
    ('Agent("poet", client=client, conversation=1)', (ConfigError, "agent.run(text, convers")),
    ('Agent("poet", client="gpt-6")', (ConfigError, "must be a ChatClient, not str: LlamaClient(")),
    ('Agent("poet", client=LlamaClient)', (ConfigError, "not the class LlamaClient")),
    ("Agent(name=5, client=client)", (ConfigError, 'a name, a str: Agent("poet", client=client)')),
    ('agent.run("hi", stream=True)', (TypeError, "agent.stream(text) yields the text")),
    ('agent.run("hi", timeout=5)', (TypeError, "runtime.run(agent, text, timeout=60)")),
    ('agent.run("hi", temperature=0)', (TypeError, "Agent(..., temperature=...)")),
    ("agent.run(None)", (ConfigError, "a list of messages")),
    ('agent.run({"role": "user", "content": "hi"}).text', "Hi!"),
    ('agent.run({"text": "hi"})', (ConfigError, "not dict")),
    ('agent.run("hi", conversation=[])', (ConfigError, "must be a Conversation, not list")),
    ('agent.run([{"role": "bogus", "content": "hi"}])', (ConfigError, "not 'bogus'")),
    ('agent.chat("hi")', (AttributeError, "it is run(text)")),
    ('agent.invoke("hi")', (AttributeError, "it is run(text)")),
    ('agent.arun("hi")', (AttributeError, "asyncio.to_thread(agent.run, text)")),
    ('runtime.run(agent, "hi").text', "Hi!"),
    (f"runtime.run(agent, {HI}).text", "Hi!"),
    ('runtime.submit(agent, "hi").result(5).text', "Hi!"),
    ('[event.type for event in runtime.stream(agent, "hi")][-1].value', "workflow_completed"),
    ('runtime.run([agent], "hi")', (ConfigError, 'Workflow("name", [...])')),
    ('runtime.run(client, "hi")', (ConfigError, 'Agent("name", client=client)')),
    ('runtime.run(print, "hi")', (ConfigError, "expected a Workflow or an Agent")),
    ('runtime.run(agent, "hi", stream=True)', (TypeError, "runtime.stream(workflow, input)")),
    ('runtime.run(agent, "hi", foo=1)', (TypeError, "it takes workflow_id, context")),
    ('runtime.run(agent, "hi", model="x")', (TypeError, "an Agent has it")),
    ("Runtime(workers=4)", (TypeError, "it is max_workers=")),
    ("Workflow([agent])", (ConfigError, 'Workflow("demo", [first, second])')),
    ('Workflow("x", agent)', (ConfigError, "steps must be a list of at least one, not Agent")),
]


@pytest.fixture
def names() -> Iterator[Dict[str, Any]]:
    """What the calls may name: all that is public, and one of each."""
    with ScriptedServer() as server, LlamaClient(server.url) as client, Runtime() as runtime:
        server.default(*text_chunks("Hi", "!"))
        agent = Agent("poet", client=client)
        public = {name: getattr(agentstream, name) for name in agentstream.__all__}
        yield {**public, "client": client, "agent": agent, "runtime": runtime, "url": server.url}


@pytest.mark.parametrize("calls", [CLIENT_CALLS, AGENT_CALLS], ids=["clients", "agents"])
def test_a_table_of_60_obvious_calls_and_what_each_does(
    names: Dict[str, Any], calls: List[Tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    for call, expected in calls:
        if isinstance(expected, str):
            assert eval(call, dict(names)) == expected, call
            continue
        kind, words = expected
        with pytest.raises(kind) as caught:
            eval(call, dict(names))
        assert type(caught.value) is kind, call
        message = str(caught.value)
        assert words in message and "\n" not in message, f"{call}: {message}"
        assert len(message) < 250, call


def test_what_is_awaited_is_said_to_be_no_such_thing_by_its_name(names: Dict[str, Any]) -> None:
    """Python's own words.

    Ours would need `__await__` and `__aiter__`, and a value that has these and cannot be awaited
    breaks whoever asks: `inspect.isawaitable`, a web framework's streaming response.
    """
    client, agent, runtime = names["client"], names["agent"], names["runtime"]

    async def for_each(stream: Any) -> None:
        async for _ in stream:
            pass

    async def awaited(made: Any) -> None:
        await made

    for made in (client.chat("hi"), agent.run("hi"), runtime.run(agent, "hi")):
        with pytest.raises(TypeError, match=f"{type(made).__name__}.*await"):
            asyncio.run(awaited(made))
    for stream in (client.chat_stream("hi"), agent.stream("hi")):
        with stream, pytest.raises(TypeError, match=f"__aiter__.*{type(stream).__name__}"):
            asyncio.run(for_each(stream))
    texts = asyncio.run(in_threads(client, agent))
    assert texts == ["Hi!", "Hi!"]


async def in_threads(client: Any, agent: Any) -> List[str]:
    """What docs/troubleshooting.rst says to write instead."""
    loop = asyncio.get_running_loop()  # asyncio.to_thread, from Python 3.9 on
    answers = (loop.run_in_executor(None, call, "hi") for call in (client.chat, agent.run))
    return [answer.text for answer in await asyncio.gather(*answers)]
