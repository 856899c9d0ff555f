"""The official servers: the Python SDK's in both protocols, the TypeScript one that has everything.

Over stdio and HTTP, each in a process of its own.
"""

from __future__ import annotations

import pathlib
import threading
import time
from typing import Iterator

import pytest

from agentstream import Cancelled, CancelToken, mcp
from agentstream.errors import AgentStreamError, ToolError
from agentstream.mcp import http
from tests.kit.mcp_support import everything_command, over_http, sdk_command

pytestmark = pytest.mark.real_mcp

WAYS = ["stdio", "stdio, older", "http", "http, older"]


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where the server tells of calls that were cancelled."""
    return tmp_path_factory.mktemp("mcp") / "cancelled"


@pytest.fixture(scope="module")
def official_url(noted: pathlib.Path) -> Iterator[str]:
    with over_http(sdk_command("http", "{port}", str(noted))) as url:
        yield url


def over_stdio(noted: pathlib.Path, *, older: bool) -> Iterator[mcp.Server]:
    with mcp.Server.stdio(sdk_command("stdio", str(noted)), name="official") as server:
        server._connection._older = older
        server.info()
        yield server


@pytest.fixture(scope="module")
def official_stdio(noted: pathlib.Path) -> Iterator[mcp.Server]:
    yield from over_stdio(noted, older=False)


@pytest.fixture(scope="module")
def older_stdio(noted: pathlib.Path) -> Iterator[mcp.Server]:
    yield from over_stdio(noted, older=True)


@pytest.fixture(params=WAYS)
def official(request: pytest.FixtureRequest) -> Iterator[mcp.Server]:
    """The Python SDK's server, which speaks both protocols: `older` has us speak the other."""
    if request.param.startswith("stdio"):
        name = "older_stdio" if "older" in request.param else "official_stdio"
        yield request.getfixturevalue(name)
        return
    url = request.getfixturevalue("official_url")
    with mcp.Server.http(url, name="official") as server:
        origin = server._connection._origin
        (http._older.add if "older" in request.param else http._older.discard)(origin)
        yield server
        http._older.discard(origin)


@pytest.fixture
def version(request: pytest.FixtureRequest) -> str:
    return "2025-11-25" if "older" in request.node.callspec.id else "2026-07-28"


def test_it_is_discovered_listed_page_by_page_and_called(
    official: mcp.Server, version: str
) -> None:
    info = official.info()
    assert (info.name, info.version, info.instructions) == ("official", "7", "Add, or echo.")
    assert info.protocol == version
    tools = {tool.name: tool for tool in official.tools()}
    names = ["add", "echo", "fail", "raise", "slow", "mixed", "with_dots"]
    assert list(tools) == names
    assert [name for name, tool in tools.items() if not tool.alone] == ["add", "echo"]
    assert tools["add"].parameters["properties"]["a"] == {"type": "integer"}
    assert tools["add"].call({"a": 1, "b": 2}) == "3"
    assert tools["with_dots"].call({"text": "dotted"}) == "dotted"
    for text in ("plain", " padded ", "línea\nnueva 世界", "=?base64?x?=", ""):
        assert official.call("echo", {"text": text}).text == text


def test_results_of_every_kind_and_errors(official: mcp.Server) -> None:
    mixed = official.call("mixed")
    assert [block["type"] for block in mixed.content] == ["text", "image", "resource_link"]
    assert mixed.structured == {"n": 1}
    assert mixed.text == 'first\n[image: image/png, 5 bytes]\n[resource: one note://one]\n{"n": 1}'
    failed = official.call("fail")
    assert failed.is_error
    assert failed.text == "out of luck"
    (tool,) = official.tools(only=["fail"])
    with pytest.raises(ToolError, match="^out of luck$"):
        tool.call({})
    for name in ("raise", "no_such_tool"):
        with pytest.raises(mcp.MCPError):
            official.call(name)
    with pytest.raises(mcp.MCPError) as caught:
        official._asker.request(mcp.server.Asked("no/such/method", {}), CancelToken())
    assert caught.value.code == -32601


def test_resources_and_prompts(official: mcp.Server) -> None:
    assert [resource["uri"] for resource in official.resources()] == ["note://one"]
    assert official.read("note://one")[0]["text"] == "the first note"
    assert [prompt["name"] for prompt in official.prompts()] == ["greet"]
    (message,) = official.prompt("greet", {"name": "Bo"})
    assert message["content"]["text"] == "Greet Bo."


def test_progress_is_passed_over_and_a_cancel_stops_the_tool(
    official: mcp.Server, noted: pathlib.Path
) -> None:
    assert official.call("slow", {"seconds": 0.02, "steps": 3}).text == "done"
    for steps in (2, 0):  # with a stream under way; before a byte has come
        noted.write_text("")
        token = CancelToken()
        timer = threading.Timer(0.5, token.cancel)
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            official.call("slow", {"seconds": 30, "steps": steps}, cancel=token)
        assert time.monotonic() - began < 10.0
        timer.join()
        while not noted.read_text() and time.monotonic() - began < 20.0:
            CancelToken().wait(0.02)
        assert noted.read_text() == "cancelled\n"
    assert official.call("add", {"a": 2, "b": 2}).text == "4"


def test_a_call_that_is_out_of_time(official: mcp.Server) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        official.call("slow", {"seconds": 30}, timeout=0.5)
    assert time.monotonic() - began < 10.0
    assert isinstance(caught.value, AgentStreamError)
    assert caught.value.outcome == "unknown"


# --- the TypeScript server ------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything_url() -> Iterator[str]:
    with over_http(everything_command("streamableHttp")) as url:
        yield url


@pytest.fixture(scope="module")
def everything_stdio() -> Iterator[mcp.Server]:
    server = mcp.Server.stdio(everything_command("stdio"), env={"MINE": "given"})
    server.info()
    yield server
    server.close(hurry=True)  # it does not leave when its input ends


@pytest.fixture(params=["stdio", "http"])
def everything(request: pytest.FixtureRequest) -> Iterator[mcp.Server]:
    if request.param == "stdio":
        yield request.getfixturevalue("everything_stdio")
        return
    with mcp.Server.http(request.getfixturevalue("everything_url")) as server:
        yield server


def test_everything_is_found_to_speak_the_older_protocol(everything: mcp.Server) -> None:
    info = everything.info()
    assert info.name == "mcp-servers/everything"
    assert info.protocol == "2025-11-25"
    assert info.instructions
    tools = {tool.name: tool for tool in everything.tools()}
    assert everything.left_out == {}
    assert tools["echo"].call({"message": "hello"}) == "Echo: hello"
    assert tools["get-sum"].call(tools["get-sum"].bind('{"a": 2, "b": "3"}')).endswith("is 5.")
    assert not tools["get-sum"].alone
    assert tools["gzip-file-as-resource"].alone


def test_everything_gives_all_kinds_of_results(everything: mcp.Server) -> None:
    image = everything.call("get-tiny-image")
    assert "[image: image/png, " in image.text
    weather = everything.call("get-structured-content", {"location": "New York"})
    assert weather.structured["conditions"]
    assert weather.text.count("conditions") == 1
    assert "demo://" in everything.call("get-resource-links", {"count": 2}).text
    told = everything.call("get-resource-reference", {"resourceType": "Text", "resourceId": 1})
    assert "plaintext" in told.text
    assert everything.resources()
    assert everything.read(everything.resources()[0]["uri"])[0]["text"]
    assert everything.prompt("simple-prompt")[0]["role"] == "user"
    broken = everything.call("get-sum", {"a": "no number"})
    assert broken.is_error
    environment = everything.call("get-env").text
    if everything.name == "node":
        assert '"MINE": "given"' in environment
        assert "PYTEST" not in environment


def test_everything_stops_and_goes_on(everything: mcp.Server) -> None:
    name = "trigger-long-running-operation"
    assert "completed" in everything.call(name, {"duration": 0.1, "steps": 2}).text
    token = CancelToken()
    timer = threading.Timer(0.5, token.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        everything.call(name, {"duration": 30, "steps": 2}, cancel=token)
    assert time.monotonic() - began < 10.0
    timer.join()
    assert everything.call("echo", {"message": "still here"}).text == "Echo: still here"
