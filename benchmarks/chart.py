"""The chart for the README: `python -m benchmarks.chart results.json chart.svg`."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any, Dict

OURS, PEERS, BARE = "#0b7285", "#adb5bd", "#495057"
WHOLE = "agentstream, whole way"


def draw(results: Dict[str, Any], path: pathlib.Path) -> None:
    """Write the chart; a panel whose row was not measured stays empty."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "svg.fonttype": "none",
            "font.size": 9,
            "axes.spines.top": False,
            "svg.hashsalt": "a",
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "font.family": "sans-serif",
            "axes.titlelocation": "left",
            "axes.edgecolor": "#868e96",
        }
    )
    figure, ((bars, chunks), (subscribers, streams)) = plt.subplots(2, 2, figsize=(9.6, 6.0))
    rows = results["rows"]
    for panel, axes in (
        (_bars, bars),
        (_chunks, chunks),
        (_subscribers, subscribers),
        (_streams, streams),
    ):
        try:
            panel(rows, axes)
        except KeyError:
            axes.set_axis_off()
    machine = results["machine"]
    figure.text(
        0.01,
        0.005,
        f"{results['date'][:10]}, {machine['cores']} cores of"
        f" {machine['cpu'] or machine['system']}, Python {results['python']}; medians,"
        " all in one run",
        color="#868e96",
        fontsize=7.5,
    )
    figure.tight_layout(rect=(0, 0.02, 1, 1), h_pad=1.8, w_pad=2.0)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


def _bars(rows: Dict[str, Any], axes: Any) -> None:
    costs = rows["cpu"]["us_a_chunk"]
    names = sorted(costs, key=lambda name: costs[name], reverse=True)
    colours = [
        OURS if n.startswith("agent") else BARE if n in ("requests", "raw socket") else PEERS
        for n in names
    ]
    axes.barh(names, [costs[name] for name in names], color=colours, height=0.7)
    axes.set_xscale("log")
    for place, name in enumerate(names):
        label = f"{costs[name]:.1f}" if costs[name] < 100 else f"{costs[name]:.0f}"
        axes.annotate(label, (costs[name], place), (4, 0), va="center", textcoords="offset points")
    axes.set_xlim(1, max(costs.values()) * 2.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title("CPU a chunk, µs (log)")
    axes.tick_params(axis="y", length=0)


def _curve(axes: Any, points: Any, key: Any, label: str, colour: str) -> None:
    there = [(point["n"], key(point)) for point in points if key(point) is not None]
    axes.plot(*zip(*there), marker="o", markersize=3.5, color=colour, label=label, linewidth=1.6)


def _chunks(rows: Dict[str, Any], axes: Any) -> None:
    points = rows["curves"]["chunks"]
    _curve(axes, points, lambda p: p[WHOLE], "whole way, 4 callbacks", OURS)
    _curve(axes, points, lambda p: p["agentstream"], "chat_stream", "#3bc9db")
    _curve(axes, points, lambda p: p["requests"], "requests", BARE)
    _frame(axes, "CPU a chunk, µs, by chunks in the answer")


def _subscribers(rows: Dict[str, Any], axes: Any) -> None:
    points = rows["curves"]["subscribers"]
    _curve(axes, points, lambda p: p[WHOLE], "whole way", OURS)
    _frame(axes, "CPU a chunk, µs, by subscribers")


def _streams(rows: Dict[str, Any], axes: Any) -> None:
    points = rows["curves"]["streams"]

    def late(way: str) -> Any:
        return lambda point: point[way]["p99_ms"] if way in point else None

    if any("AsyncOpenAI" in point for point in points):
        _curve(axes, points, late("AsyncOpenAI"), "AsyncOpenAI", PEERS)
    _curve(axes, points, late("whole way"), "whole way, at the callback", OURS)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter("")
    _frame(axes, "Lateness p99, ms (log), by streams at once", zero=False)


def _frame(axes: Any, title: str, *, zero: bool = True) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    if zero:
        axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.grid(axis="y", color="#e9ecef")
    axes.legend(frameon=False, fontsize=8)


def _short(value: float) -> str:
    if value >= 2**20:
        return f"{value / 2**20:.0f} M"
    return f"{value / 2**10:.0f} k" if value >= 2**10 else f"{value:.0f}"


def main() -> int:
    """Exits with 3 where there is no matplotlib."""
    source, target = map(pathlib.Path, sys.argv[1:3])
    try:
        draw(json.loads(source.read_text("utf-8")), target)
    except ImportError:
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
