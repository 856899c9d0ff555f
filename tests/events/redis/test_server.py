"""The server of a log: what is refused when it is opened, and that no text holds a secret."""

from __future__ import annotations

import logging
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Callable, List

import pytest
import redis as module

import agentstream
from agentstream import ConfigError, EventStream, EventType, LogError, RedisStore
from agentstream.events.redis.server import Server
from agentstream.testing.stores import event
from tests.kit.redis_server import RedisServer, log_name, missing
from tests.kit.support import free_port

SECRET = "hunter2-is-no-word"


def texts(error: BaseException) -> str:
    """All that a traceback shows of an error."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


@pytest.mark.parametrize(
    "url",
    ["", "http://host/0", "redis://host:port/0", "redis://h/0?no_such_setting=1", 7, None],
)
def test_a_url_that_is_none_is_a_config_error(url: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisStore(url)
    assert caught.value.setting == "url"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("log", ""),
        ("log", "a{b}"),
        ("log", 5),
        ("durability", "high"),
        ("max_events", 0),
        ("max_age", -1),
        ("max_bytes", 0),
        ("max_event_bytes", 10),
        ("max_queue", 0),
        ("linger", -1),
        ("lease", 0),
        ("timeout", 0),
        ("accept_eviction", "yes"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    redis: RedisServer, setting: str, value: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisStore(redis.url, **{setting: value})
    assert caught.value.setting == setting


def test_without_the_module_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    assert agentstream.RedisStore is RedisStore
    with pytest.raises(ConfigError, match=r"pip install 'agentstream\[redis\]'"):
        RedisStore("redis://127.0.0.1/0")


def test_k09_a_server_that_evicts_is_refused_unless_one_says_so() -> None:
    with RedisServer("maxmemory-policy", "allkeys-lru") as server:
        with pytest.raises(ConfigError, match="allkeys-lru.*noeviction"):
            RedisStore(server.url)
        with RedisStore(server.url, accept_eviction=True) as store:
            store.claim("w")
            for n in (1, 2):
                store.append(event("w", n))
            store.flush()
            server.say("DEL", "agentstream:{default}:state:w", "agentstream:{default}:run:w")
            store.append(event("w", 3))
            store.flush()
            with pytest.raises(LogError, match="not there any more"):
                store.append(event("w", 4))


def test_k29_no_text_holds_the_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown: List[str] = []
    with RedisServer("requirepass", SECRET) as server:
        good = f"redis://default:{SECRET}@127.0.0.1:{server.port}/0"
        for url in (
            f"redis://app:{SECRET}@127.0.0.1:{server.port}/0",
            f"redis://:{SECRET}x@127.0.0.1:{server.port}/0",
            server.url,
            f"redis://:{SECRET}@127.0.0.1:{free_port()}/0",
            f"redis://:{SECRET}@127.0.0.1:{server.port}/0?ssl_{SECRET}=1",
            f"redis://:{SECRET}@127.0.0.1:{SECRET}/0",
            f"{SECRET}://host",
            f"rediss://:{SECRET}@127.0.0.1:{server.port}/0",
        ):
            with pytest.raises((LogError, ConfigError)) as caught:
                RedisStore(url, timeout=1.0)
            shown.append(texts(caught.value) + repr(caught.value))
        assert "refused the user or the password" in shown[0]
        assert "refused the user or the password" in shown[1]
        assert "cannot be reached" in shown[3]
        with RedisStore(good, timeout=0.5) as store:
            store.claim("w")
            server.kill()
            store.append(event("w", 1))
            for act in (store.flush, store.runs, store.bounds):
                with pytest.raises(LogError) as failed:
                    act()
                shown.append(texts(failed.value))
            shown += [repr(store), repr(store.checkpoints)]
            server.start()
    lines = [line for text in shown for line in text.splitlines()]
    # Lines of this file's own source stand in a traceback; they name the variable only.
    assert [line for line in lines if SECRET in line] == []
    assert SECRET not in caplog.text


def test_k30_a_tenant_has_its_own_log_and_no_other(redis: RedisServer) -> None:
    mine, others = log_name(), log_name()
    said = redis.say(
        *("ACL", "SETUSER", mine, "on", f">{SECRET}", f"~agentstream:{{{mine}}}:*"),
        *("+@read", "+@write", "+@scripting", "+@connection", "+time", "+wait"),
    )
    assert said == b"+OK\r\n"
    url = f"redis://{mine}:{SECRET}@127.0.0.1:{redis.port}/0"
    with pytest.raises(LogError, match="permission") as caught:
        RedisStore(url, others)
    assert not caught.value.retryable
    redis.say("ACL", "SETUSER", mine, "-time")
    with pytest.raises(LogError, match="permission"):
        RedisStore(url, mine)
    redis.say("ACL", "SETUSER", mine, "+time")
    with RedisStore(url, mine) as store:
        store.claim("w")
        store.append(event("w", 1))
        assert store.wait(0, 5.0)
        assert store.request_stop("w", "enough")
        assert [one.offset for one in store.read()] == [1]


def test_k32_a_log_of_another_version_is_refused(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    name = log_name()
    key = f"agentstream:{{{name}}}:log"
    redis.say("HSET", key, "id", "x", "version", "2", "position", "0")
    with pytest.raises(LogError, match="version 2.*reads 1"):
        RedisStore(redis.url, name)
    redis.say("DEL", key)
    redis.say("HSET", key, "other", "1")
    with pytest.raises(LogError, match="not whole"):
        RedisStore(redis.url, name)
    redis.say("DEL", key)
    redis.say("SET", key, "text")
    with pytest.raises(LogError) as caught:
        RedisStore(redis.url, name)
    assert not caught.value.retryable


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_k28_a_forked_child_has_connections_of_its_own(
    open_store: Callable[..., RedisStore],
) -> None:
    store = open_store()
    store.claim("parent")
    for n in range(1, 200):
        store.append(event("parent", n))
        if n % 50 == 0:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    store.claim(f"child {n}")
                    store.append(event(f"child {n}", 1))
                    store.flush()
                    code = 0 if len(store.read(workflow_id=f"child {n}")) == 1 else 2
                finally:
                    store.close()
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    store.flush()
    assert [one.offset for one in store.read(workflow_id="parent")] == list(range(1, 200))
    # What the child did not end was closed with its store.
    assert [run.status for run in store.runs() if run.workflow_id != "parent"] == ["closed"] * 3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA of the test's own, and what it has signed for 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("ca")
    if shutil.which("openssl") is None:
        missing("openssl is not installed")
    for name, signed in (("ca", False), ("other", False), ("server", True)):
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        make += ["-nodes", "-days", "1", "-subj", f"/CN={name}", "-keyout", f"{name}.key"]
        if signed:
            make += ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]
            make += ["-addext", "basicConstraints=critical,CA:FALSE"]
        command = [*make, "-out", f"{name}.crt"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_tls_with_a_certificate_that_is_trusted_and_with_none(authority: Path) -> None:
    port = free_port()
    files = {word: str(authority / f"server.{word}") for word in ("crt", "key")}
    settings = ["tls-port", str(port), "tls-cert-file", files["crt"], "tls-key-file", files["key"]]
    settings += ["tls-ca-cert-file", str(authority / "ca.crt"), "tls-auth-clients", "no"]
    with RedisServer(*settings, "requirepass", SECRET):
        address = f"rediss://:{SECRET}@127.0.0.1:{port}/0"
        with RedisStore(f"{address}?ssl_ca_certs={authority / 'ca.crt'}") as store:
            with EventStream(store) as stream:
                live = stream.subscribe(workflow_id="w")
                for n in range(200):
                    stream.append(EventType.AGENT_LLM_STREAM_CHUNK, "w", {"chunk": "é" * n})
                stream.append(EventType.WORKFLOW_COMPLETED, "w")
                assert [one.offset for one in live] == list(range(1, 202))
                assert not store.request_stop("w", "too late")
                assert [one.offset for one in store.read()] == list(range(1, 202))
        for query in ("", f"?ssl_ca_certs={authority / 'other.crt'}"):
            with pytest.raises(LogError, match="no certificate that is trusted") as caught:
                RedisStore(address + query)
            assert (caught.value.retryable, caught.value.phase) == (False, "log")
            assert SECRET not in texts(caught.value)


#: What a server may answer, and whether it is worth while to ask again.
ANSWERS = {
    f"-ERR unknown command '{SECRET}'": False,
    f"-NOAUTH {SECRET}": False,
    f"-WRONGPASS {SECRET}": False,
    f"-NOPERM {SECRET}": False,
    f"-LOADING {SECRET}": True,
    f"-READONLY {SECRET}": True,
    f"-MASTERDOWN {SECRET}": True,
    f"-OOM {SECRET}": True,
    f"-MISCONF {SECRET}": True,
    f"-NOREPLICAS {SECRET}": True,
    f"-CLUSTERDOWN {SECRET}": True,
    f"-TRYAGAIN {SECRET}": True,
    f"-BUSY {SECRET}": True,
    f"-CROSSSLOT {SECRET}": False,
    f"-{SECRET} of a kind that nobody knows": False,
    f"?{SECRET}": True,  # no answer of Redis at all
    f"$100\r\n{SECRET}": True,  # the beginning of one
    "": True,
}


def test_whatever_a_server_answers_is_a_log_error_that_shows_none_of_it() -> None:
    answer = b""

    class Answers(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as odd:
        serving = threading.Thread(target=odd.serve_forever, args=(0.01,))
        serving.start()
        for text, again in ANSWERS.items():
            server = Server(f"redis://127.0.0.1:{odd.server_address[1]}/0", "shop", 1.0)
            # The module greets servers, and does not mind what they say to that.
            answer = text.encode() + (b"" if text.startswith("$") else b"\r\n") if text else b""
            connection = server._address.connection(0.0)
            connection.lib_name = connection.lib_version = connection.driver_info = None
            server._address.connection = lambda _, one=connection: one  # type: ignore[method-assign]
            with pytest.raises(LogError) as caught:
                server.new_link().call((b"PING",))
            error = caught.value
            assert (error.phase, error.retryable) == ("log", again), text
            assert SECRET not in texts(error).replace(repr(text), ""), text
        odd.shutdown()
        serving.join(5)


def test_every_error_of_the_module_redis_is_a_log_error(redis: RedisServer) -> None:
    server = Server(redis.url, "shop", 1.0)
    names = [name for name in dir(module.exceptions) if name.endswith(("Error", "Exception"))]
    assert len(names) > 15
    for name in names:
        kind = getattr(module.exceptions, name)
        where = "7 127.0.0.1:6379" if name in ("AskError", "MovedError") else SECRET
        error = server.explain(kind(where))
        assert (type(error), error.phase, error.args[0][:10]) == (LogError, "log", "the server")
        assert SECRET not in str(error), name
