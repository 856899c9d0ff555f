"""What is sent is shown to whoever asks for it, in their context only, without keys."""

from __future__ import annotations

import json
import threading
from typing import List, Tuple

from agentstream import Agent, Parallel, Runtime, Workflow
from agentstream.llm.secrets import mask
from agentstream.llm.transport import watching
from agentstream.testing import ScriptedServer, text_chunks
from tests.kit.support import KEY, client_of


def test_the_requests_of_a_context_and_of_its_runs_are_shown(server: ScriptedServer) -> None:
    server.default(*text_chunks("Fine."))
    seen: List[Tuple[str, str, str]] = []
    with client_of(server, api_key=KEY) as client, Runtime() as runtime:
        client.chat("before")
        with watching(lambda *request: seen.append(request)):
            client.chat("within")
            agents = {name: Agent(name, client=client, system_prompt=name) for name in "ab"}
            runtime.run(Workflow("both", [Parallel(agents)]), f"Is {KEY} mine?")
            elsewhere = threading.Thread(target=client.chat, args=("elsewhere",))
            elsewhere.start()
            elsewhere.join()
        client.chat("after")
    assert {(method, url) for method, url, _ in seen} == {
        ("POST", f"{server.url}/v1/chat/completions")
    }
    said = sorted(json.loads(body)["messages"][-1]["content"] for _, _, body in seen)
    assert said == [f"Is {mask(KEY)} mine?"] * 2 + ["within"]
