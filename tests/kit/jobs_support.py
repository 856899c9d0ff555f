"""The recipes of docs/jobs.rst, with a Redis of the test's own, and a program that starts runs."""

from __future__ import annotations

import pathlib
from typing import Any, List

from agentstream import RedisStore
from agentstream.testing import ScriptedServer
from tests.kit.programs import PROJECT
from tests.kit.recipes import MODEL, recipes, write
from tests.kit.redis_server import RedisServer
from tests.kit.support import check_events

DOCUMENT = (PROJECT / "docs" / "jobs.rst").read_text("utf-8")
BROKER, LOG = "redis://127.0.0.1:6379/1", "redis://127.0.0.1:6379/0"

#: Beside the recipe's own: a run whose second step waits for a file, and one that kills its worker.
MORE = """
import os, pathlib, signal, threading

def note(given):
    with open("began", "a") as file:
        print(given, file=file)
    return given

def hold(given):
    with open("pids", "a") as file:
        print(os.getpid(), file=file)
    while not os.path.exists("go"):
        threading.Event().wait(0.01)
    return given.upper()

def die(given):
    with open("deaths", "a") as file:
        print(os.getpid(), file=file)
    os.kill(os.getpid(), signal.SIGKILL)

slow, deadly = Workflow("slow", [note, hold]), Workflow("deadly", [note, die])
"""

DRIVER = """
import pathlib
import TASKS as tasks
from shop import jobs, store

def lines(name, count):
    while not os.path.exists(name) or open(name).read().count(chr(10)) < count:
        threading.Event().wait(0.01)
    return open(name).read().split()

def end(run):
    try:
        return jobs.result(run, timeout=60)
    except AgentStreamError as error:
        return f"{type(error).__name__} {store.run(run).error.split(':')[0]}"

say("ready")
"""


def write_jobs(
    folder: pathlib.Path, redis: RedisServer, model: ScriptedServer, tasks: str = "tasks"
) -> str:
    """Write the recipe of `shop.py` and that of a queue's tasks; returns the driver's source."""
    changes = [
        (MODEL, model.url),
        (LOG, redis.url),
        ("max_age=7 * 86_400", "lease=0.9"),
        ("jobs = Jobs(", f"{MORE}\njobs = Jobs("),
        ("[reply], recover=3", "[reply, slow, deadly], recover=1, resend=1.0"),
    ]
    write_block(folder, "shop.py", *changes)
    write_block(folder, f"{tasks}.py", (BROKER, redis.url.replace("/0", "/1")))
    return DRIVER.replace("TASKS", tasks)


def write_block(folder: pathlib.Path, name: str, *changes: Any) -> None:
    """Write a block of the document to its file; its title may say more than the file's name."""
    (title,) = [one for one in recipes(DOCUMENT) if one.split(":")[0] == name]
    write(folder, title, *changes, document=DOCUMENT)
    (folder / title).rename(folder / name)


def states(redis: RedisServer) -> List[Any]:
    with RedisStore(redis.url, "shop") as store:
        found = store.runs(limit=100)
        for state in found:
            check_events(store.read(workflow_id=state.workflow_id, after=0, limit=1000))
        return found
