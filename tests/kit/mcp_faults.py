"""An MCP server over stdio whose tools do what servers do wrong; standard library only.

    python mcp_faults.py MODE

MODE is "modern" (2026-07-28) or what an older server does before `initialize`: "legacy"
(an error), "silent" (nothing), "fragile" (it dies); "slow" is a modern one that takes its
time for the first answer, "stubborn" one that does not leave by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

MODE = sys.argv[1]
SLEEPS = "import time; time.sleep(60)"
READS = {"readOnlyHint": True}
#: Tools, and the hints they have.
TOOLS = {
    **dict.fromkeys(("echo", "env", "spawn", "die_reading"), READS),
    **dict.fromkeys(("hang", "die", "die_writing", "garbage", "half", "twice", "wrong_id"), {}),
    **dict.fromkeys(("huge", "flood", "swap", "ask", "close_out", "words"), {}),
}
writing = threading.Lock()
held = []
cancelled = []


def write(message):
    with writing:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def raw(text):
    with writing:
        sys.stdout.write(text)
        sys.stdout.flush()


def answer(number, **result):
    write({"jsonrpc": "2.0", "id": number, "result": {"resultType": "complete", **result}})


def say(number, text):
    answer(number, content=[{"type": "text", "text": text}])


def refuse(number, code, message):
    write({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}})


def first_time(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def call(number, name, given):
    if name == "echo":
        say(number, given.get("text", ""))
    elif name == "env":
        say(number, os.environ.get(given["name"], "(not set)"))
    elif name == "spawn":
        say(number, str(subprocess.Popen([sys.executable, "-c", SLEEPS]).pid))
    elif name == "hang":
        sys.stderr.write(f"pid {os.getpid()} hangs\n")
        sys.stderr.flush()
    elif name == "die" or (name.startswith("die_") and first_time(given["path"])):
        sys.stderr.write("cannot go on: " + given.get("text", "") + "\n")
        sys.stderr.flush()
        os._exit(3)
    elif name.startswith("die_"):
        say(number, "the second time")
    elif name == "garbage":
        raw('no JSON\n\n{"half": \n[1, 2]\n"text"\n' + "[" * 100_000 + "\n{}\n\xff\n")
        say(number, "after garbage")
    elif name == "half":
        raw('{"jsonrpc": "2.0", "id": %d, "resu' % number)
        os._exit(0)
    elif name == "twice":
        say(number, "once")
        say(number, "twice")
    elif name == "wrong_id":
        say(number + 1000, "for somebody else")
        say(str(number), "for somebody else")
        say(None, "for nobody")
    elif name == "huge":
        say(number, "x" * given["size"])
    elif name == "flood":
        line = "log " * 250 + "\n"
        for _ in range(given["kilobytes"]):
            sys.stderr.write(line)
        say(number, "after the flood")
    elif name == "swap":
        held.append((number, given["text"]))
        if len(held) == given["together"]:
            for late in reversed(held):
                say(*late)
            held.clear()
    elif name == "ask":
        held.append(number)
        write({"jsonrpc": "2.0", "id": "mine", "method": given["method"]})
    elif name == "close_out":
        os.close(1)
        time.sleep(60)
    elif name == "words":
        say(number, json.dumps(cancelled))


def handle(message):
    method, number = message.get("method"), message.get("id")
    params = message.get("params") or {}
    older = MODE in ("legacy", "silent", "fragile")
    if method == "initialize":
        if not older:
            return refuse(number, -32022, "Unsupported protocol version")
        about = {"capabilities": {}, "serverInfo": {"name": "faults", "version": MODE}}
        return answer(number, protocolVersion="2025-06-18", **about)
    if method == "server/discover":
        if MODE == "fragile":
            os._exit(4)
        if MODE == "slow" and first_time(sys.argv[2]):
            time.sleep(float(sys.argv[3]))
        if MODE == "legacy":
            return refuse(number, -32601, "Method not found")
        if MODE != "silent":
            answer(number, supportedVersions=["2026-07-28"], capabilities={})
        return None
    if method == "notifications/cancelled":
        return cancelled.append(params["requestId"])
    if method is None and held:  # the answer to "ask"
        return say(held.pop(), json.dumps(message))
    if number is None:
        return None
    if not older and "io.modelcontextprotocol/protocolVersion" not in params.get("_meta", {}):
        return refuse(number, -32602, "no _meta")
    if method == "tools/list":
        schema = {"type": "object"}
        tools = [{"name": n, "inputSchema": schema, "annotations": h} for n, h in TOOLS.items()]
        return answer(number, tools=tools)
    if method == "tools/call":
        return call(number, params["name"], params.get("arguments") or {})
    return refuse(number, -32601, "Method not found")


if MODE == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    handle(json.loads(line))
if MODE == "stubborn":
    while True:
        time.sleep(60)
