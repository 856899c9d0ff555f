"""The protocol's own conformance suite (npm), run against our client.

Left out, as the client offers no such thing: `auth/*` (OAuth), elicitation and what goes
by it (`elicitation-sep1034-client-defaults`, three checks of `sep-2322-client-request-state`),
skills (`sep-2640-*`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Dict

from tests.kit.mcp_support import KIT, ROOT, conformance_command

#: The checks that each scenario must find passed.
SCENARIOS: Dict[str, int] = {
    "initialize": 1,
    "tools_call": 2,
    "sse-retry": 3,
    "request-metadata": 5,
    "http-standard-headers": 9,
    "http-custom-headers": 18,
    "http-invalid-tool-headers": 12,
    "json-schema-ref-no-deref": 1,
    "json-schema-2020-12-preservation": 9,
}


def test_the_conformance_suite_for_clients() -> None:
    client = f"{sys.executable} {KIT / 'mcp_conformance_client.py'}"
    running = {
        name: subprocess.Popen(
            conformance_command("client", "--command", client, "--scenario", name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            text=True,
        )
        for name in SCENARIOS
    }
    passed = {}
    for name, process in running.items():
        output, _ = process.communicate(timeout=120)
        found = re.search(r"Passed: (\d+)/\1, 0 failed, 0 warnings", output)
        passed[name] = int(found.group(1)) if found and not process.returncode else output
    assert passed == SCENARIOS
