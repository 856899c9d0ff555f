"""docs/faults.rst P12 and P13: a server that sends more than anybody should hold.

What it costs is measured in a process of its own: the most memory it held in the flood
(VmHWM, since ru_maxrss begins with the parent's), less what it held before it.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib

import pytest

from agentstream import errors
from agentstream.llm.settings import Limits, Retries
from agentstream.testing import Callback, ScriptedServer, text_chunks
from agentstream.testing.pieces import chat_chunk
from tests.kit.support import ask, client_of

MIB = 2**20
BEGINNING = text_chunks("Hello", finish_reason=None, usage=False, done=False)
ENDING = text_chunks(finish_reason="stop", usage=False)[1:]


def exceeded(server, limit, *pieces, **bounds):
    server.reply(*BEGINNING, *pieces, *ENDING)
    before = len(server.requests)
    with client_of(server, limits=Limits(**bounds), retries=Retries(2)) as client:
        result = ask(client)
    assert type(result.error) is errors.LimitExceeded, result.error
    assert result.error.limit == limit
    assert f"Limits.{limit}" in str(result.error)
    assert result.error.phase == "stream"
    assert not result.error.retryable
    assert result.error.partial.content.startswith("Hello")
    assert len(server.requests) == before + 1
    return result


def passes(server, *pieces, **bounds):
    server.reply(*BEGINNING, *pieces, *ENDING)
    with client_of(server, limits=Limits(**bounds)) as client:
        result = ask(client)
    assert result.error is None
    return result


def test_p12_line(server):
    line = b"data: " + b"x" * 1000
    exceeded(server, "line", line + b"\n\n", line=1005)


def test_p12_line_without_an_end_in_pieces(server):
    exceeded(server, "line", *[b"x" * 100] * 20, line=1000)


def test_p12_line_at_its_bound(server):
    text = "x" * 500
    event = chat_chunk({"content": text})
    assert passes(server, event, line=len(event) - 2).text == "Hello" + text


def test_p12_event_of_many_lines(server):
    exceeded(server, "event", b"data: " + b"\ndata: ".join([b"x" * 90] * 20) + b"\n\n", event=1000)


def test_p12_event_at_its_bound(server):
    event = chat_chunk({"content": "y" * 500})
    size = len(event) - len("data: \n\n")
    assert passes(server, event, event=size).text == "Hello" + "y" * 500
    exceeded(server, "event", event, event=size - 1)


def test_p12_tool_arguments(server):
    def call(text):
        function = {"name": "f", "arguments": text}
        return chat_chunk({"tool_calls": [{"index": 0, "id": "c", "function": function}]})

    passes(server, *[call("x" * 10)] * 10, tool_arguments=100)
    exceeded(server, "tool_arguments", *[call("x" * 10)] * 11, tool_arguments=100)


def test_p12_answer(server):
    texts = [chat_chunk({"content": "x" * 10})] * 12
    result = exceeded(server, "answer", *texts, answer=100)
    assert len(result.text) <= 100
    reasoning = [chat_chunk({"reasoning_content": "x" * 10})] * 12
    exceeded(server, "answer", *reasoning, answer=100)


def test_p12_json_body(server):
    server.reply_json({"choices": [], "padding": "x" * 5000})
    with client_of(server, limits=Limits(event=1000)) as client:
        result = ask(client)
    assert type(result.error) is errors.LimitExceeded
    assert result.error.limit in ("event", "line")


@pytest.mark.parametrize("name", ["line", "event", "tool_arguments", "answer", "decompressed"])
def test_p12_none_lifts_a_bound(server, name):
    assert passes(server, chat_chunk({"content": "x" * 5000}), **{name: None}).text


def test_p13_decompressed(server):
    def bomb(size):
        return gzip.compress(b"".join(BEGINNING) + b": " + b"x" * size + b"\n\n" + ENDING[0])

    for size, ok in ((50_000, True), (150_000, False)):
        server.reply(bomb(size), headers={"Content-Encoding": "gzip"}, framing="length")
        with client_of(server, limits=Limits(decompressed=100_000)) as client:
            result = ask(client)
        assert result.text == "Hello"
        if not ok:
            assert type(result.error) is errors.LimitExceeded
            assert result.error.limit == "decompressed"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw deflate"])
def test_p13_what_is_compressed_though_we_asked_not_to(server, encoding):
    body = b"".join([*BEGINNING, *ENDING])
    wbits = {"deflate": 15, "raw deflate": -15}.get(encoding, 31)
    squeeze = zlib.compressobj(wbits=wbits)
    packed = squeeze.compress(body) + squeeze.flush()
    server.reply(packed, headers={"Content-Encoding": encoding.split()[-1]})
    with client_of(server) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello"
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_p13_an_encoding_nobody_reads(server):
    server.reply(*BEGINNING, headers={"Content-Encoding": "br"})
    with client_of(server, retries=Retries(2)) as client:
        result = ask(client)
    assert type(result.error) is errors.ProtocolError
    assert "br" in str(result.error)


def test_p13_damaged(server):
    server.reply(b"\x1f\x8b\x08 no gzip at all", headers={"Content-Encoding": "gzip"})
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.ProtocolError


# --- what it costs ---

CHILD = """
import json, resource, sys, time
from agentstream.llm.clients import LlamaClient
from agentstream.llm.settings import Limits, Retries
from agentstream import errors

url, bounds = sys.argv[1], json.loads(sys.argv[2])
def memory(field):
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

def forget_the_most():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass

client = LlamaClient(url, limits=Limits(**bounds), retries=Retries(0))
assert client.chat("warm up").content == "Hello"  # every import done, every buffer there
forget_the_most()
held = memory("VmRSS:")
before = resource.getrusage(resource.RUSAGE_SELF)
start = time.monotonic()
try:
    client.chat("flood")
    name, limit, partial = "", "", ""
except errors.AgentStreamError as error:
    name, partial = type(error).__name__, error.partial.content
    limit = getattr(error, "limit", "")
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "error": name, "limit": limit, "partial": partial,
    "rss": memory("VmHWM:") - held,
    "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    "took": time.monotonic() - start,
}))
client.close()
"""


def flood(server, *pieces, bounds=None, **options):
    """What a client makes of these pieces, and what they cost: MiB of memory, seconds of CPU."""
    server.reply(*BEGINNING, *ENDING)
    server.reply(*pieces, **options)
    command = [sys.executable, "-c", CHILD, server.url, json.dumps(bounds or {})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"+{found['rss']:.1f} MiB, {found['cpu']:.3f} s CPU, {found['took']:.3f} s")
    return found


def bomb(block):
    """The beginning of an answer and then 300 times a block of a MiB, as 300 kB of gzip.

    Flushed, the compressed block stands for itself, and need be made only once.
    """
    squeeze = zlib.compressobj(9, wbits=31)
    head = squeeze.compress(b"".join(BEGINNING)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    assert len(block) == MIB
    return head + (squeeze.compress(block) + squeeze.flush(zlib.Z_FULL_FLUSH)) * 300


ONE_LINE = b":" * MIB
SHORT_LINES = (b": " + b"x" * 61 + b"\n") * 16384


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_p13_gzip_bomb(server, framing):
    packed = bomb(ONE_LINE)
    assert len(packed) < 400_000
    found = flood(server, packed, headers={"Content-Encoding": "gzip"}, framing=framing)
    assert (found["error"], found["limit"]) == ("LimitExceeded", "line")
    assert found["partial"] == "Hello"
    assert found["rss"] <= 16
    assert found["cpu"] < 0.1 * 3  # docs/faults.rst's 0.1 s, on a machine that is busy


def test_p13_gzip_bomb_of_short_lines(server):
    found = flood(server, bomb(SHORT_LINES), headers={"Content-Encoding": "gzip"})
    assert (found["error"], found["limit"]) == ("LimitExceeded", "decompressed")
    assert found["rss"] <= 16


def test_p13_gzip_bomb_in_an_error(server):
    found = flood(server, bomb(ONE_LINE), headers={"Content-Encoding": "gzip"}, status=400)
    assert found["error"] == "BadRequest"
    assert found["rss"] <= 4


def endless(block, count):
    return [Callback(lambda: block) for _ in range(count)]


def test_p12_line_of_200_mib(server):
    """It is dropped at the cap: at most twice the cap is ever held."""
    found = flood(
        server,
        *BEGINNING,
        b"data: ",
        *endless(b"x" * MIB, 200),
        framing="close",
        bounds={"line": 8 * MIB},
    )
    assert (found["error"], found["limit"]) == ("LimitExceeded", "line")
    assert found["partial"] == "Hello"
    assert found["rss"] <= 16


def test_p12_event_of_200_mib(server):
    line = b"data: " + b"x" * 65529 + b"\n"
    found = flood(server, *BEGINNING, *endless(line * 16, 200), bounds={"event": 8 * MIB})
    assert (found["error"], found["limit"]) == ("LimitExceeded", "event")
    assert found["rss"] <= 16


def test_p12_answer_without_end(server):
    text = chat_chunk({"content": "x" * 65536})
    found = flood(server, *endless(text, 3200), bounds={"answer": 4 * MIB})
    assert (found["error"], found["limit"]) == ("LimitExceeded", "answer")
    assert len(found["partial"]) <= 4 * MIB
    assert found["rss"] <= 16  # the sum, and the partial made of it


def test_p12_headers_without_end():
    with ScriptedServer() as server:
        server.reply(*BEGINNING, headers=[(f"X-{n}", "y" * 1000) for n in range(500)])
        with client_of(server) as client:
            result = ask(client)
    assert type(result.error) is errors.ProtocolError


def test_p12_one_header_without_end():
    with ScriptedServer() as server:
        server.reply("HTTP/1.1 200 OK\r\nX: ", *endless(b"y" * MIB, 20), framing="raw")
        with client_of(server) as client:
            result = ask(client)
    assert type(result.error) is errors.ProtocolError
