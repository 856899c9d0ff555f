"""What tests of the commands share: workflow files, replies that wait, runs that others follow."""

from __future__ import annotations

from agentstream.testing import Hang, Reply, text_chunks

AGENT = '[agents.poet]\nsystem = "poet"\n[[steps]]\nagent = "poet"\n'
FLOW = 'name = "verse"\n[agents.poet]\n[[steps]]\nagent = "poet"\n'


def halted(*texts, gate=None):
    """A reply that says these texts, and then waits; for ever, if there is no gate."""
    chunks = text_chunks(*texts)
    end = len(texts) + 1
    return Reply(*chunks[:end], gate or Hang(), *chunks[end:])


def queue(server, *replies):
    """Put replies before the one that stands for all others."""
    for reply in replies:
        server._add(reply, None, False)


def asked(server, number=-1):
    """The messages of a request."""
    return server.requests[number].json["messages"]


def listed(here, cli):
    return here("runs", "--json", "--log", cli.log).events


def begin(cli, server, workflow_id, *more, shows="text"):
    """A run under way, with events to tell that it is."""
    run = cli.start(
        "run",
        cli.write("verse.toml", FLOW),
        "--input",
        "x",
        "--id",
        workflow_id,
        "--log",
        cli.log,
        "--jsonl",
        *more,
    )
    run.expect(shows)
    return run


def steps(*lines):
    """A workflow file of these steps, with the agents they name."""
    named = [name for name in ("one", "two", "three") if f'"{name}"' in " ".join(lines)]
    agents = "".join(f'[agents.{name}]\nsystem = "{name}"\n' for name in named)
    return agents + "".join(f"[[steps]]\n{line}\n" for line in lines)


def in_turn(*names):
    return steps(*[f'agent = "{name}"' for name in names])


def cast(server, **replies):
    """Who says what, by the system prompt; returns what each was asked."""
    asked = []

    def answer(request):
        system, user = request.json["messages"]
        asked.append((system["content"], user["content"]))
        reply = replies[system["content"]]
        return Reply.text(reply) if isinstance(reply, str) else reply

    server.route("/v1/chat/completions", answer)
    return asked
