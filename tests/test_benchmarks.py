"""The benchmarks' smoke run: everything they measure can be measured, here and now.

Timings are not judged.  Peers that are not installed are left out, and named.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

from benchmarks import judge, lab, rows

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_the_smoke_run_measures_every_row_and_writes_the_table(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.run",
            "--smoke",
            "--python",
            sys.executable,
            "--out",
            str(tmp_path),
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert set(results["rows"]) == set(rows.ROWS)
    assert not [row for row in results["rows"].values() if "error" in row]
    assert {"requests", "agentstream", judge.WHOLE} <= set(results["rows"]["cpu"]["us_a_chunk"])
    assert results["rows"]["crowd"]["most"]["finished"] == lab.SMOKE["crowd_most"]
    assert results["rows"]["cancel"]["agentstream"]["body"]["blocked"] == 0
    for peer in results["absent"]:
        assert peer in done.stdout  # it says what it left out
    assert (tmp_path / "results.rst").read_text("utf-8").startswith("Measured against the peers")


def _row(**figures: object) -> dict:
    return {"rows": {"cpu": figures}}


def test_an_aim_is_met_missed_or_not_judged() -> None:
    costs = {"requests": 10.0, "agentstream": 12.0, judge.WHOLE: 25.0, "openai": 150.0}
    lines = {(line["what"], line["aim"]): line for line in judge.judged(_row(us_a_chunk=costs))}
    ours = "CPU a chunk, ``chat_stream``"
    assert lines[ours, "at most 1.3 times requests"]["met"] is True
    assert lines["CPU a chunk, the whole way", "at most 2.2 times requests"]["met"] is False
    assert lines[ours, "a tenth of openai-python"]["value"] == "1/12.5"
    assert lines[ours, "a sixtieth of litellm"]["met"] is None  # it is not there
    failed = judge.judged({"rows": {"cpu": {"error": "no server"}}})
    assert [line["met"] for line in failed if line["value"] == "failed: no server"] == [False] * 5


def test_the_raw_numbers_are_rounded_and_a_list_of_them_takes_one_line() -> None:
    text = rows.dump({"raw": {"a": [1.23456789, 2, 3]}, "more": [{"b": None}]})
    assert '"a": [1.2346, 2, 3]' in text
    assert json.loads(text) == {"raw": {"a": [1.2346, 2, 3]}, "more": [{"b": None}]}
