"""The protocol's own conformance suite (npm), run against our client.

    python -m tests.mcp.test_conformance      all the scenarios below

The suite runs those of them that ask most of a client.  Left out, as the client offers no
such thing: `auth/*` (OAuth), elicitation and what goes by it
(`elicitation-sep1034-client-defaults`, three checks of `sep-2322-client-request-state`),
skills (`sep-2640-*`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Dict, Iterable, Union

import pytest

from tests.kit.mcp_support import KIT, ROOT, conformance_command

#: The checks that each scenario must find passed.
SCENARIOS: Dict[str, int] = {
    "initialize": 1,
    "request-metadata": 5,
    "http-custom-headers": 18,
    "http-invalid-tool-headers": 12,
    # These take a quarter of a minute of a core; the last one judges times, too.
    "tools_call": 2,
    "http-standard-headers": 9,
    "json-schema-ref-no-deref": 1,
    "json-schema-2020-12-preservation": 9,
    "sse-retry": 3,
}
FEW = list(SCENARIOS)[:4]


def passed(names: Iterable[str]) -> Dict[str, Union[int, str]]:
    """The checks that each scenario found passed; its output where not all of them did."""
    client = f"{sys.executable} {KIT / 'mcp_conformance_client.py'}"
    running = {
        name: subprocess.Popen(
            conformance_command("client", "--command", client, "--scenario", name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            text=True,
        )
        for name in names
    }
    found: Dict[str, Union[int, str]] = {}
    for name, process in running.items():
        output, _ = process.communicate(timeout=120)
        fine = re.search(r"Passed: (\d+)/\1, 0 failed, 0 warnings", output)
        found[name] = int(fine.group(1)) if fine and not process.returncode else output
    return found


@pytest.mark.real_mcp
def test_the_conformance_suite_for_clients() -> None:
    assert passed(FEW) == {name: SCENARIOS[name] for name in FEW}


if __name__ == "__main__":
    results = {name: passed([name])[name] for name in SCENARIOS}
    print(*(f"{name}: {result}" for name, result in results.items()), sep="\n")
    sys.exit(results != SCENARIOS)
