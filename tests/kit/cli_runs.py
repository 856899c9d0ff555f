"""Runs that one command begins and others list, follow and stop."""

from __future__ import annotations

FLOW = 'name = "verse"\n[agents.poet]\n[[steps]]\nagent = "poet"\n'


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
