"""agentstream doctor: what would be used, where each setting comes from, and whether it works.

Of a key it tells that there is one, and where it comes from; of instructions, how long they are.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Dict, List

from agentstream.cli.examine import FAULT, FINE, Finding, Report, examine
from agentstream.cli.exits import DONE, FAILED
from agentstream.cli.output import Output

if TYPE_CHECKING:
    import argparse

__all__ = ["doctor"]

_MARKS = {FINE: "ok", FAULT: "FAULT"}


def doctor(given: argparse.Namespace) -> int:
    """Say what is found; returns the exit code: 0 if `agentstream chat` would work."""
    report = examine(given)
    output = Output(sys.stdout)
    if given.json:
        output.write_json(_as_dict(report))
    else:
        all(output.write(line + "\n") for line in _lines(report))
    return DONE if report.works else FAILED


def _lines(report: Report) -> List[str]:
    lines = [", ".join(f"{name} {version}" for name, version in report.versions.items())]
    lines.append("extras: " + ", ".join(_extra(*each) for each in report.extras.items()))
    lines += ["", "settings"]
    for name, (value, source) in report.settings.items():
        lines.append(f"  {name:<12}{value}  ({source})")
    for heading, findings in (("files", report.files), ("servers", report.servers)):
        lines += ["", heading]
        lines += [_line(finding) for finding in findings] or ["  not asked"]
    lines += ["", "It would work." if report.works else "It would not work:"]
    return lines + [f"  - {advice}" for advice in report.advice]


def _extra(name: str, version: str) -> str:
    return f"{name} ({version})" if version else f"no {name}"


def _line(finding: Finding) -> str:
    mark = _MARKS.get(finding.state, "-")
    return f"  {mark:<6}{finding.what}: {finding.said}"


def _as_dict(report: Report) -> Dict[str, Any]:
    return {
        "works": report.works,
        "advice": report.advice,
        "versions": report.versions,
        "extras": {name: version or None for name, version in report.extras.items()},
        "settings": {
            name: {"value": value, "source": source}
            for name, (value, source) in report.settings.items()
        },
        "files": [finding._asdict() for finding in report.files],
        "servers": [finding._asdict() for finding in report.servers],
    }
