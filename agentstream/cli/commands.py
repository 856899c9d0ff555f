"""What each command may be given: its flags, and their help, for a screen of 24 lines of 80."""

from __future__ import annotations

import argparse
from typing import Any, Callable, Tuple

from agentstream.cli import arguments as kinds
from agentstream.llm.settings import LLAMA_URL

__all__ = ["COMMANDS", "PROVIDERS"]

#: `agentstream.providers.NAMES`, which brings the clients.
PROVIDERS = ("llama", "openai", "anthropic", "ollama", "embedded")

_CHAT = """\
Ask a model.  Without a PROMPT: a conversation at a terminal, else what is piped
in; with - that is added.  As in `run`: --jsonl, --deadline, --retries, --lock.
"""
_RUN = """\
Run a workflow file (docs/workflow-files.rst).  Into a pipe goes the result.
"""
_CHECK = """\
Read a workflow file and say what `agentstream run` would do, as text and
as a Mermaid flowchart.  Runs none of it, and imports nothing it names; its
MCP servers, if it has some, are asked what they offer.
"""
_TOOLS = """\
List the tools of a file: of its MCP servers, and its own.  FILE is a workflow
file, or the JSON with "mcpServers" of many programs.  With TOOL, call that one,
as an agent would, and write its result: files:read '{"path": "a.txt"}', or
files:read path=a.txt.  Exits with 1 if it fails.
"""
_RUNS = "List the runs in a log, the newest first.\n"
_FOLLOW = """\
Show a run as it goes, from its beginning, until it ends; without ID, the
newest one.  From the log that the run is written to, or from a server
(`agentstream serve`).  Exits with 0 if the run completed, 1 if it did not.
"""
_STOP = """\
Stop a run, whichever process runs it, or none; the beginning of its ID will do.
Exits with 0 if it had not ended, 1 if it had.
"""
_RESUME = """\
Go on with a run that was interrupted, or is suspended and has its answer; what
is done is not done again.  Without FILE: the file and flags it was begun with.
With --watch, instead of ID: go on with each run of FILE once it is ready.
"""
_APPROVE = """\
Answer a suspended run that asks whether it may make a tool call: yes, unless a
flag says otherwise.  Without CALL: the only one that it asks about; CALL is the
call's id, its beginning, or the tool's name.  Then `agentstream resume ID`.
"""
_SIGNAL = """\
Send a run the value of that name, which a step waits for, or will.  VALUE is
JSON, else a text; without one null.  Then `agentstream resume ID`.
"""
_SERVE = """\
Serve a log of runs over HTTP, live: a page to watch them at /, their events,
a way to stop them; and to start those of the workflow FILEs, if some are
given.  Without --log, their runs are kept in memory.  Without a token it
listens on loopback only.  The token is never an argument, which others could
read: put it into a file, or into AGENTSTREAM_TOKEN.  Ctrl-C and SIGTERM end
it, with 0.  See docs/serving.rst.
"""
_MODEL = """\
Keep llama.cpp's server up, with a small model unless --model names a file: for
snippets, examples and `agentstream chat`, which look for one at port 8080.  It
answers on loopback only.  Needs pip install 'agentstream[local]'; the small
model (93 MB) is fetched once.  Ctrl-C and SIGTERM end it, with 0.
"""
_MODELS = """\
List the names of the models that a server offers, one a line, as --model and
a workflow file take them.
"""
_DOCTOR = """\
Say what would be used, where each setting comes from, and whether the servers
answer: asked for their models only, five seconds at most.  No key is shown.
Exits with 0 if `agentstream chat` would work, else with 1 and what to do.
"""
_COMPLETION = """\
Write the script with which a shell completes this command line.  For bash, in
~/.bashrc: eval "$(agentstream completion bash)"; for zsh the same in ~/.zshrc,
behind compinit; for fish: agentstream completion fish | source.
"""
_HELP = "Tell more of a command, or list the settings.\n"


Add = Callable[..., Any]


def _chat(add: Add) -> None:
    add("prompt", metavar="PROMPT", nargs="?", type=kinds.text, help=argparse.SUPPRESS)
    _files(add)
    add("-c", "--continue", dest="last", action="store_true", help="the last conversation goes on")
    add("--conversation", metavar="NAME", type=kinds.text, help="that one goes on, or begins")
    add("--no-save", action="store_true", help="keep nothing of what is said")
    add("--list", action="store_true", help="the conversations; --forget NAME deletes one")
    add("--forget", metavar="NAME", type=kinds.text, help=argparse.SUPPRESS)
    add("--system", metavar="TEXT", type=kinds.text, help="instructions for the model")
    add("--system-prompt", dest="system", type=kinds.text, help=argparse.SUPPRESS)  # as in Python
    add("--max-tokens", metavar="N", type=kinds.count, help="end the answer after so many")
    add("--temperature", metavar="T", type=kinds.temperature, help="0 for the likeliest answer")
    add("--effort", metavar="WORD", dest="reasoning_effort", help="of reasoning: none, low, high")
    _model(add, fallback="PROVIDER:MODEL, asked if that fails; repeatable")
    _output(add, jsonl=argparse.SUPPRESS)
    _kept(add)
    _bounds(lambda *names, **how: add(*names, **{**how, "help": argparse.SUPPRESS}))


def _files(add: Add) -> None:
    add(
        "-a",
        "--attach",
        metavar="FILE",
        dest="files",
        action="append",
        default=[],
        type=kinds.path,
        help="a picture or PDF to ask about; may be repeated",
    )


def _set(add: Add, example: str) -> None:
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=kinds.assignment,
        help=f"overrule FILE: {example}",
    )


def _run(add: Add) -> None:
    add("file", metavar="FILE", type=kinds.path, help=argparse.SUPPRESS)
    add(
        "--input",
        metavar="TEXT",
        type=kinds.text,
        help="the first step's; -: what is piped in, the default",
    )
    _set(add, "agents.writer.temperature=0")
    _files(add)
    add("--id", metavar="ID", type=kinds.text, help="the run's id; default: a new one")
    add("--once", action="store_true", help="if the run of --id is in the log: its output, and 0")
    add("--resume", metavar="ID", type=kinds.text, help="begin the run ID, or go on; in a --log")
    add(
        "--checkpoints",
        action="store_true",
        default=None,
        help="keep in the log what it needs to go on",
    )
    _model(add)
    _output(add)
    _cron(add)


def _check(add: Add) -> None:
    add("file", metavar="FILE", type=kinds.path, help=argparse.SUPPRESS)
    _set(add, "agents.writer.temperature=0")
    add("--mermaid", action="store_true", help="write the flowchart only")
    add("--offline", action="store_true", help="ask no MCP server what it offers")


def _tools(add: Add) -> None:
    add("file", metavar="FILE", type=kinds.path, help=argparse.SUPPRESS)
    add("tool", metavar="TOOL", nargs="?", type=kinds.text, help=argparse.SUPPRESS)
    add("arguments", metavar="ARGUMENT", nargs="*", type=kinds.text, help=argparse.SUPPRESS)
    _set(add, "mcp.files.prefix=fs_")
    add("--deadline", metavar="TIME", type=kinds.seconds, help="stop after 600 or 10m, with 124")
    add("-v", "--verbose", action="count", default=0, help="what servers write to standard error")


def _runs(add: Add) -> None:
    _log(add)
    add("-n", dest="limit", type=kinds.count, default=20, metavar="N", help="so many (%(default)s)")
    add("--active", action="store_true", help="only those under way")
    add("--waiting", action="store_true", help="only those suspended or interrupted")
    add("--cost", action="store_true", help="show what they cost, and all their tokens")
    add("--json", action="store_true", help="as JSON, one run a line")


def _follow(add: Add) -> None:
    add("id", metavar="ID", nargs="?", type=kinds.text, help=argparse.SUPPRESS)
    _log(add)
    add("--url", metavar="URL", type=kinds.text, help="the server, instead of a log")
    add("--token-file", metavar="FILE", type=kinds.path, help="holds the server's token")
    _output(add)
    add("--deadline", metavar="TIME", type=kinds.seconds, help="leave after so long, with 124")


def _stop(add: Add) -> None:
    add("id", metavar="ID", type=kinds.text, help=argparse.SUPPRESS)
    _log(add)
    add(
        "--reason",
        metavar="TEXT",
        type=kinds.text,
        default="agentstream stop",
        help="what its last event says",
    )
    add(
        "--wait",
        metavar="SECONDS",
        type=kinds.seconds,
        default=10.0,
        help="wait so long for its end (%(default)g)",
    )


def _resume(add: Add) -> None:
    add("id", metavar="ID", nargs="?", type=kinds.text, help=argparse.SUPPRESS)
    add("file", metavar="FILE", nargs="?", type=kinds.path, help=argparse.SUPPRESS)
    add(
        "--watch",
        metavar="FILE",
        action="append",
        default=[],
        type=kinds.path,
        help="until Ctrl-C; may be repeated",
    )
    _set(add, "agents.writer.temperature=0")
    add("--force", action="store_true", help="though the workflow was changed")
    _model(add)
    _output(add)
    _cron(add)


def _approve(add: Add) -> None:
    add("id", metavar="ID", type=kinds.text, help=argparse.SUPPRESS)
    add("call", metavar="CALL", nargs="?", type=kinds.text, help=argparse.SUPPRESS)
    add("--no", metavar="REASON", type=kinds.text, help="do not make it; the model is told why")
    add(
        "--arguments",
        metavar="JSON",
        type=kinds.json_object,
        help="make it with these instead",
    )
    _answer(add)


def _signal(add: Add) -> None:
    add("id", metavar="ID", type=kinds.text, help=argparse.SUPPRESS)
    add("name", metavar="NAME", type=kinds.text, help=argparse.SUPPRESS)
    add("value", metavar="VALUE", nargs="?", type=kinds.json_or_text, help=argparse.SUPPRESS)
    _answer(add)


def _answer(add: Add) -> None:
    add("--by", metavar="NAME", type=kinds.text, help="who says so, for the log (your login)")
    _log(add)
    add("-q", "--quiet", action="store_true", help="do not say what comes next")


def _serve(add: Add) -> None:
    add("files", metavar="FILE", nargs="*", type=kinds.path, help=argparse.SUPPRESS)
    _log(add)
    add("--host", type=kinds.text, default="127.0.0.1", help="where to listen (%(default)s)")
    add("--port", type=kinds.port, default=8000, help="0 for any (%(default)s)")
    add("--token-file", metavar="FILE", type=kinds.path, help="holds the token")
    add(
        "--name",
        metavar="NAME",
        type=kinds.text,
        action="append",
        default=[],
        help="a Host to answer to",
    )
    add(
        "--max-streams",
        metavar="N",
        type=kinds.count,
        default=300,
        help="open at once, a thread each (%(default)s)",
    )
    add(
        "--origin",
        metavar="URL",
        type=kinds.text,
        action="append",
        default=[],
        help="what browsers call it behind a proxy, as https://example.org",
    )
    _model(add)


def _embedded(add: Add) -> None:
    add("--model", metavar="FILE", type=kinds.path, help="a GGUF file, in place of the small model")
    add("--port", type=kinds.port, default=8080, help="0 for any (%(default)s)")
    add("--context", metavar="N", type=kinds.count, default=2048, help="tokens (%(default)s)")


def _models(add: Add) -> None:
    _server(add)
    add("--json", action="store_true", help="as JSON: a list of texts")
    add("--deadline", metavar="TIME", type=kinds.seconds, help="stop after 600 or 10m, with 124")
    add("--retries", metavar="N", type=kinds.number, help="further tries of what may pass")


def _doctor(add: Add) -> None:
    _model(add)
    _log(add)
    add("--offline", action="store_true", help="ask no server")
    add("--json", action="store_true", help="as JSON")


def _completion(add: Add) -> None:
    add("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help=argparse.SUPPRESS)


def _help(add: Add) -> None:
    add("topic", metavar="TOPIC", nargs="?", help=argparse.SUPPRESS)


def _model(add: Add, fallback: str = argparse.SUPPRESS) -> None:
    _server(add, insecure=argparse.SUPPRESS)
    add(
        "--model",
        metavar="NAME",
        type=kinds.text,
        help="the server's name for it; embedded: a GGUF file",
    )
    add("--fallback", metavar="NAME", action="append", type=kinds.text, help=fallback)
    add("--show-requests", action="store_true", help="show what is sent, prompts and all")
    # Few need these: `agentstream help settings` lists them.
    add("--api", metavar="NAME", type=kinds.text, help=argparse.SUPPRESS)
    add("--think-tags", action="store_true", default=None, help=argparse.SUPPRESS)
    add("--rate-limit", metavar="60/m", type=kinds.text, help=argparse.SUPPRESS)


def _server(add: Add, insecure: str = "do not verify its certificate") -> None:
    add(
        "--provider",
        metavar="NAME",
        type=kinds.text,
        help=", ".join(PROVIDERS),
    )
    add("--base-url", metavar="URL", type=kinds.text, help=f"the server; llama: {LLAMA_URL}")
    add("--insecure", action="store_true", default=None, help=insecure)


def _output(add: Add, jsonl: str = "write the events instead, one a line") -> None:
    add("--json", action="store_true", help="write the result as JSON")
    add("--jsonl", action="store_true", help=jsonl)
    add("-q", "--quiet", action="store_true", help="no status line, no notes, no word of a lock")
    add(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say what happens; -vv: the library's log too",
    )


def _log(
    add: Add,
    about: str = "the log: a file, or redis://HOST/0?log=NAME",
    password: str = "holds its password",
) -> None:
    add("--log", metavar="LOG", type=kinds.path, help=about)
    add("--log-password-file", metavar="FILE", type=kinds.path, help=password)


def _cron(add: Add) -> None:
    _kept(add)
    _bounds(add)


def _kept(add: Add) -> None:
    _log(add, "keep the events there: a file, or redis://...", password=argparse.SUPPRESS)


def _bounds(add: Add) -> None:
    add("--deadline", metavar="TIME", type=kinds.seconds, help="stop after 600 or 10m, with 124")
    add("--retries", metavar="N", type=kinds.number, help="further tries of what may pass")
    add("--lock", metavar="NAME", type=kinds.text, help="leave with 75 if another holds this lock")
    # As --api: there is no line left for them.
    add("--budget-tokens", metavar="N", type=kinds.count, help=argparse.SUPPRESS)
    add("--budget-cost", metavar="COST", type=kinds.amount, help=argparse.SUPPRESS)


#: The commands: usage, help, and what adds their kinds.
COMMANDS: Tuple[Tuple[str, str, str, Callable[[Add], None]], ...] = (
    ("chat", "[options] [PROMPT] [-]", _CHAT, _chat),
    ("run", "[options] FILE", _RUN, _run),
    ("check", "[options] FILE", _CHECK, _check),
    ("tools", "[options] FILE [TOOL [ARGUMENT ...]]", _TOOLS, _tools),
    ("runs", "[options]", _RUNS, _runs),
    ("follow", "[options] [ID]", _FOLLOW, _follow),
    ("stop", "[options] ID", _STOP, _stop),
    ("resume", "[options] ID [FILE]", _RESUME, _resume),
    ("approve", "[options] ID [CALL]", _APPROVE, _approve),
    ("signal", "[options] ID NAME [VALUE]", _SIGNAL, _signal),
    ("serve", "[options] [FILE ...]", _SERVE, _serve),
    ("model", "[options]", _MODEL, _embedded),
    ("models", "[options]", _MODELS, _models),
    ("doctor", "[options]", _DOCTOR, _doctor),
    ("completion", "bash | zsh | fish", _COMPLETION, _completion),
    ("help", "[COMMAND | settings]", _HELP, _help),
)
