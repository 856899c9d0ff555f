"""A client, a runtime and the endpoint under uWSGI (row Y10): `python -m stress.uwsgi [UWSGI]`.

The master loads the app, uses the client, so that it holds a pooled connection, and forks; then
six clients ask 480 questions of its processes, half of them as runs in one SQLite log.  With
threads, without --enable-threads, and with an app for each process.  Prints what came back wrong.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from typing import Any, Iterator, List

from agentstream import Agent, EventStream, OpenAIClient, Retries, Runtime, SqliteStore
from agentstream.testing import Reply, Request, ScriptedServer, text_chunks
from agentstream.web import create_app, follow, runs

FLAGS = ([], ["--enable-threads", "--threads", "4"], ["--lazy-apps"])
CLIENTS, EACH = 6, 40


def make_app() -> Any:
    """The app that uWSGI loads."""
    client = OpenAIClient(
        "m", base_url=os.environ["STRESS_MODEL"] + "/v1", api_key="key", retries=Retries(0)
    )
    client.chat("warm")
    runtime = Runtime(event_stream=EventStream(SqliteStore(os.environ["STRESS_LOG"])))
    agent = Agent("agent", client=client)
    endpoint = create_app(runtime)

    def app(environ: Any, start_response: Any) -> Any:
        path, text = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
        if path not in ("/ask", "/run"):
            return endpoint(environ, start_response)
        said = client.chat(text).content if path == "/ask" else runtime.run(agent, text).output
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(said).encode()]

    return app


if os.environ.get("STRESS_MODEL"):
    application = make_app()


@contextlib.contextmanager
def served(uwsgi: str, flags: List[str], model: str, log: str) -> Iterator[str]:
    """The app in three processes of uWSGI; yields its URL."""
    command = [uwsgi, "--http-socket", "127.0.0.1:0", "--module", "stress.uwsgi", "--master"]
    command += ["--processes", "3", "--virtualenv", sys.prefix, "--pythonpath", os.getcwd()]
    environment = {**os.environ, "STRESS_MODEL": model, "STRESS_LOG": log}
    with subprocess.Popen(
        [*command, *flags], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        told = b""
        while b"bound to TCP address" not in told:
            told = process.stderr.readline()
            assert told, "uWSGI did not start"
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield "http://" + told.split(b"address ")[1].split()[0].decode()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def ask(url: str, wrong: List[str], name: str) -> None:
    for number in range(EACH):
        for path in ("ask", "run"):
            text = f"{path}-{name}-{number}"
            try:
                with urllib.request.urlopen(f"{url}/{path}?{text}", timeout=30) as answer:
                    said = answer.read().decode()
            except OSError as error:
                said = repr(error)
            if said != f"answer to {text}":
                wrong.append(f"{text}: {said}")


def reply(request: Request) -> Reply:
    return Reply(*text_chunks("answer to " + request.json["messages"][-1]["content"]))


def main() -> int:
    uwsgi = sys.argv[1] if len(sys.argv) > 1 else "uwsgi"
    failed = 0
    for flags in FLAGS:
        wrong: List[str] = []
        with ScriptedServer() as model, tempfile.TemporaryDirectory() as folder:
            model.route("/v1/chat/completions", reply)
            with served(uwsgi, flags, model.url, folder + "/runs.db") as url:
                began = time.monotonic()
                clients = [
                    threading.Thread(target=ask, args=(url, wrong, str(n))) for n in range(CLIENTS)
                ]
                for client in clients:
                    client.start()
                for client in clients:
                    client.join()
                kept = runs(url)
                streamed = list(follow(f"{url}/workflows/{kept[0].workflow_id}", after=0))
        took = time.monotonic() - began
        right = len(kept) == CLIENTS * EACH and streamed[-1].type == "workflow_completed"
        failed += bool(wrong) or not right
        print(f"{' '.join(flags) or 'prefork'}: {len(wrong)} wrong, {took:.1f} s", wrong[:3])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
