"""LocalServer: what it answers, what it refuses, and servers that run already."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import threading
import time
from typing import Any, List
from urllib.parse import urlsplit

import pytest

from agentstream.errors import ConfigError
from agentstream.local import LocalServer, find_llama_server, server as server_module
from agentstream.testing import ScriptedServer
from tests.kit.local_support import ask

# --- the server ----------------------------------------------------------------------------


def test_below_python_3_10_it_says_what_to_do() -> None:
    with pytest.raises(
        ConfigError, match=r"needs Python 3\.10 or newer and this is 3\.9: use a newer"
    ):
        server_module._check_xllamacpp((3, 9))


def test_without_xllamacpp_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'agentstream\[local\]'"):
        server_module._check_xllamacpp((3, 11))


def test_importing_agentstream_imports_nothing_of_this() -> None:
    code = (
        "import sys, agentstream; print([n for n in sys.modules if 'local' in n or 'xllama' in n])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = eval(said.stdout)
    assert [name for name in loaded if "agentstream" in name or "xllama" in name] == []


@pytest.mark.real_llama
def test_it_answers_and_says_what_it_is(llama_server: LocalServer) -> None:
    answer = ask(llama_server, "Say hello.")
    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["model"] == llama_server.model == "SmolLM2-135M-Instruct"
    assert find_llama_server(llama_server.url) == "SmolLM2-135M-Instruct"


@pytest.mark.real_llama
def test_the_same_question_has_the_same_answer_and_the_prompt_is_cached(
    llama_server: LocalServer,
) -> None:
    first, second = (ask(llama_server, "Tell me about bees.") for _ in "12")
    assert first["choices"] == second["choices"]
    assert second["timings"]["cache_n"] > 0


@pytest.mark.real_llama
def test_four_requests_run_at_once(llama_server: LocalServer) -> None:
    answers: List[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(llama_server, "Count to nine.")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 4
    assert all(answer["choices"][0]["message"]["content"] for answer in answers)


@pytest.mark.real_llama
def test_a_port_in_use_is_said(llama_server: LocalServer) -> None:
    port = urlsplit(llama_server.url).port
    assert port is not None
    with pytest.raises(ConfigError, match=f"127.0.0.1 port {port} cannot be used.: use port 0, or"):
        LocalServer(port=port)


@pytest.mark.real_llama
def test_what_llama_cpp_refuses_is_said_in_its_words(
    llama_server: LocalServer, tmp_path: pathlib.Path
) -> None:
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"no model, this")
    with pytest.raises(ConfigError, match=r"did not start \(.*(magic|GGUF).*\): start your own"):
        LocalServer(junk)
    with pytest.raises(ConfigError, match="There is no file /nowhere"):
        LocalServer("/nowhere")


@pytest.mark.real_llama
def test_a_start_that_takes_too_long_is_ended(model_path: pathlib.Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=r"it did not come up within 0\.01 s"):
        LocalServer(model_path, startup_timeout=0.01)
    assert time.monotonic() - begun < 10


# --- a server that runs already ------------------------------------------------------------


def test_find_llama_server_sees_nobody_and_others_as_none(server: ScriptedServer) -> None:
    assert find_llama_server("http://127.0.0.1:9") is None
    assert find_llama_server("not an address") is None
    assert find_llama_server("http://127.0.0.1:99999") is None
    server.reply(b"{}", path="/props", status=404, content_type="application/json")
    begun = time.monotonic()
    assert find_llama_server(server.url, answer=0.2) is None
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("props", "name"),
    [
        ({"default_generation_settings": {}, "model_alias": "tiny"}, "tiny"),
        ({"default_generation_settings": {}, "model_path": "/models/big-7B.gguf"}, "big-7B"),
        ({"default_generation_settings": {}}, "llama.cpp"),
        ({"name": "something else"}, None),
        (["a list"], None),
    ],
)
def test_the_model_s_name_comes_from_props(props: Any, name: Any) -> None:
    assert server_module._model_name(props) == name
