"""agentstream model: the embedded llama.cpp at an address, from its start to its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from agentstream import ChatMessage, ChatRequest, LlamaClient

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def children(pid: int):
    """The processes that a process has started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [int(child) for child, parent in pairs if int(parent) == pid]


@pytest.mark.real_llama
def test_it_answers_at_its_address_until_it_is_stopped(cli, llama_server):
    model_path = llama_server.model_path
    words = ("model", "--port", "0", "--context", "512", "--model", str(model_path))
    served = cli.start(*words)
    served.expect("Ctrl-C ends it")
    name, url = re.fullmatch(
        r"(\S+) is served at (http://\S+); Ctrl-C ends it\n", served.out
    ).groups()
    assert name == model_path.stem
    (child,) = children(served.process.pid)
    port = url.rpartition(":")[2]
    taken = cli("model", "--port", port, "--model", str(model_path), code=2)
    assert f"port {port} cannot be used" in taken.line
    with LlamaClient(url) as client:
        assert client.chat(ChatRequest([ChatMessage.user("Hi")], max_tokens=4)).content
    served.send(signal.SIGINT)
    assert served.finish() == 0
    assert served.err == ""
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)

    ended = cli.start(*words)
    ended.expect("Ctrl-C ends it")
    subprocess.run(["kill", "-9", str(children(ended.process.pid)[0])], check=True)
    assert ended.finish() == 1
    assert ended.line == "the model's process has ended"


def test_what_is_no_model_is_one_line_and_2(here):
    said = "There is no file" if sys.version_info >= (3, 10) else "needs Python 3.10"
    assert said in here("model", "--model", "none.gguf", code=2).line
