"""From the figures to the table: each aim of the issue, the value, and whether it is met."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from benchmarks import notes
from benchmarks.wires import PAIRS

WHOLE = "agentstream, whole way"
Value = Tuple[str, Optional[bool]]


class Aim(NamedTuple):
    """One line of the table."""

    row: str
    what: str
    aim: str
    judge: Callable[[Dict[str, Any]], Value]


def _times(ours: float, theirs: float, most: float) -> Value:
    return f"{ours / theirs:.2f} times", ours <= most * theirs


def _part(ours: float, theirs: float, share: float) -> Value:
    return f"1/{theirs / ours:.3g}", ours * share <= theirs


def _cpu(who: str, peer: str, most: float = 0, share: float = 0) -> Callable[[Any], Value]:
    def judge(row: Dict[str, Any]) -> Value:
        costs = row["us_a_chunk"]
        if most:
            return _times(costs[who], costs[peer], most)
        return _part(costs[who], costs[peer], share)

    return judge


def _first_token(who: str, which: str, most: float) -> Callable[[Any], Value]:
    def judge(row: Dict[str, Any]) -> Value:
        over = row[which][who] - row[which]["requests"]
        return f"{over:+.2f} ms", over <= most

    return judge


def _crowd_share(row: Dict[str, Any]) -> Value:
    return _part(row["whole way"]["p99_ms"], row["AsyncOpenAI"]["p99_ms"], 20)


def _crowd_p99(row: Dict[str, Any]) -> Value:
    late = row["whole way"]["p99_ms"]
    return f"{late:.1f} ms", late <= 25


def _crowd_cpu(row: Dict[str, Any]) -> Value:
    return _times(row["whole way"]["us_a_chunk"], row["AsyncOpenAI"]["us_a_chunk"], 0.6)


def _crowd_most(row: Dict[str, Any]) -> Value:
    most = row["most"]
    whole = most["finished"] == most["streams"]
    return f"{most['finished']:.0f} of {most['streams']:.0f}", whole


def _memory(row: Dict[str, Any]) -> Value:
    return f"{row['more_mib']:.1f} MiB", row["more_mib"] <= 8


def _import(which: str, peer: str, most: float = 0, share: float = 0) -> Callable[[Any], Value]:
    def judge(row: Dict[str, Any]) -> Value:
        ours, theirs = row[which]["agentstream"], row[which][peer]
        return _times(ours, theirs, most) if most else _part(ours, theirs, share)

    return judge


def _cold(row: Dict[str, Any]) -> Value:
    return _part(row["first_token_ms"]["agentstream"], row["first_token_ms"]["openai"], 3)


def _cold_chat(row: Dict[str, Any]) -> Value:
    first = row["first_token_ms"]
    return _times(first["agentstream chat"], first["requests"], 1.5)


def _bus(subscribers: str) -> Callable[[Any], Value]:
    def judge(row: Dict[str, Any]) -> Value:
        rates = row["events_a_second"][subscribers]
        share = rates["ours"] / rates["bare events"]
        return f"{rates['ours']:,.0f}/s, {share:.2f} of it", share >= 1 / 3

    return judge


def _stuck(row: Dict[str, Any]) -> Value:
    more = row["stuck"]["with"]["p99_ms"] - row["stuck"]["without"]["p99_ms"]
    return f"{more:+.2f} ms at p99", more < 1


def _conformance(row: Dict[str, Any]) -> Value:
    if "skipped" in row:
        return row["skipped"], None
    score = row["scores"]["agentstream"]
    return f"{score['all']} of {score['of']}", score["all"] == score["of"]


def _mcp(way: str) -> Callable[[Any], Value]:
    def judge(row: Dict[str, Any]) -> Value:
        cost = row["us_a_call"][way]
        return f"{cost:.0f} µs", cost <= 500

    return judge


def _typed(row: Dict[str, Any]) -> Value:
    return _times(row["values_s"], row["loads_s"] + row["text_s"], 3)


def _cancel(who: str, hang: str, most: float) -> Callable[[Any], Value]:
    def judge(row: Dict[str, Any]) -> Value:
        name = next(n for n in row if n.startswith("agentstream") and ("beside" in n) == bool(who))
        it = row[name][hang]
        free = it["blocked"] == 0 and it["reader_p99_ms"] <= most
        return f"p50 {it['reader_p50_ms']:.1f}, p99 {it['reader_p99_ms']:.1f} ms", free

    return judge


_CPU = "CPU a chunk, ``chat_stream``"
_WHOLE = "CPU a chunk, the whole way"
_FIRST = "first token"
_CROWD = "256 streams at 30 tokens/s"
_STOP = "cancel, blocked "

AIMS: List[Aim] = [
    Aim("cpu", _CPU, "at most 1.3 times requests", _cpu("agentstream", "requests", most=1.3)),
    Aim("cpu", _CPU, "a tenth of openai-python", _cpu("agentstream", "openai", share=10)),
    Aim("cpu", _CPU, "a sixtieth of litellm", _cpu("agentstream", "litellm", share=60)),
    Aim("cpu", _WHOLE, "at most 2.2 times requests", _cpu(WHOLE, "requests", most=2.2)),
    Aim("cpu", _WHOLE, "an eighth of openai-python", _cpu(WHOLE, "openai", share=8)),
    Aim(
        "first_token",
        _FIRST + ", ``chat_stream``",
        "p50 at most requests + 0.3 ms",
        _first_token("agentstream", "p50_ms", 0.3),
    ),
    Aim(
        "first_token",
        _FIRST + ", ``chat_stream``",
        "p99 at most requests + 2 ms",
        _first_token("agentstream", "p99_ms", 2),
    ),
    Aim(
        "first_token",
        _FIRST + " at a callback",
        "p50 at most requests + 0.3 ms",
        _first_token(WHOLE, "p50_ms", 0.3),
    ),
    Aim(
        "first_token",
        _FIRST + " at a callback",
        "p99 at most requests + 2 ms",
        _first_token(WHOLE, "p99_ms", 2),
    ),
    Aim("crowd", _CROWD + ", lateness p99", "a twentieth of AsyncOpenAI", _crowd_share),
    Aim("crowd", _CROWD + ", lateness p99", "at most 25 ms", _crowd_p99),
    Aim("crowd", _CROWD + ", CPU a chunk", "at most 0.6 of AsyncOpenAI", _crowd_cpu),
    Aim("crowd", "512 streams", "all finish", _crowd_most),
    Aim("memory", "1,000,000 chunks, beyond the text", "at most 8 MiB more than 10,000", _memory),
    Aim(
        "imports",
        "import, CPU",
        "at most 1.25 times requests",
        _import("import_cpu_ms", "requests", most=1.25),
    ),
    Aim(
        "imports",
        "import, CPU",
        "a quarter of openai-python",
        _import("import_cpu_ms", "openai", share=4),
    ),
    Aim(
        "imports",
        "import, memory",
        "at most 1.25 times requests",
        _import("peak_mib", "requests", most=1.25),
    ),
    Aim(
        "imports",
        "import, memory",
        "a quarter of openai-python",
        _import("peak_mib", "openai", share=4),
    ),
    Aim("cold", "cold script to its first token", "a third of openai-python", _cold),
    Aim("cold", "`agentstream chat` to its first token", "at most 1.5 times requests", _cold_chat),
    Aim("bus", "bus, 1 subscriber", "a third of a bare fan-out", _bus("1")),
    Aim("bus", "bus, 10 subscribers", "a third of a bare fan-out", _bus("10")),
    Aim("bus", "bus, 50 subscribers", "a third of a bare fan-out", _bus("50")),
    Aim("bus", "bus, a stuck subscriber among ten", "costs the others under 1 ms", _stuck),
    Aim("conformance", "conformance corpus", "all of it", _conformance),
    Aim(
        "typed",
        "1 MiB of JSON in 4-byte pieces, growing",
        "at most 3 times parsing and the text",
        _typed,
    ),
    *(
        Aim("wires", f"CPU a chunk, {name}", f"at most {most} times chat completions", judge)
        for name, most, judge in (
            (name, most, _cpu(PAIRS[name][0], "agentstream", most=most))
            for name, most in (("Responses", 1.5), ("Messages", 1.5), ("Ollama", 1.1))
        )
    ),
    *(
        Aim("wires", f"CPU a chunk, {name}", f"a tenth of {pair[1]}", _cpu(*pair, share=10))
        for name, pair in PAIRS.items()
        if name != "chat completions"  # the row above has it
    ),
    Aim("mcp", "CPU of a call of an MCP tool, stdio", "at most 500 µs", _mcp("stdio")),
    Aim("mcp", "CPU of a call of an MCP tool, HTTP", "at most 500 µs", _mcp("http")),
    Aim("cancel", _STOP + "in mid-stream", "p99 at most 20 ms", _cancel("", "body", 20)),
    Aim("cancel", _STOP + "before headers", "p99 at most 20 ms", _cancel("", "headers", 20)),
    Aim("cancel", _STOP + "beside 16 streams", "p99 at most 50 ms", _cancel("16", "body", 50)),
]


def judged(results: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Each aim with its value; `met` is None where it could not be judged."""
    lines = []
    for aim in AIMS:
        row = results["rows"].get(aim.row)
        value: Value = ("not measured", None)
        if row is not None and "error" in row:
            value = (f"failed: {row['error']}", False)
        elif row is not None:
            try:
                value = aim.judge(row)
            except KeyError:
                value = ("a peer is not installed", None)
        lines.append({"what": aim.what, "aim": aim.aim, "value": value[0], "met": value[1]})
    return lines


# --- the table --------------------------------------------------------------------------------


def rst(results: Dict[str, Any]) -> str:
    """The whole report."""
    machine = results["machine"]
    installed = results["versions"].items()
    versions = ", ".join(f"{name.partition('.')[0]} {number}" for name, number in installed)
    parts = [
        "Measured against the peers",
        "==========================",
        "",
        f"Written by ``python -m benchmarks.run`` on {results['date']} (UTC), commit"
        f" {results['commit']}, on {machine['cores']} cores of {machine['cpu'] or 'unknown make'},"
        f" {machine['system']}, Python {results['python']}. {versions}."
        " Medians of at least five alternating runs; costs are process CPU time. The raw numbers"
        " are in ``results.json``.",
        "",
    ]
    busy = {name: row["load"] for name, row in results["rows"].items() if _is_busy(row)}
    if busy:
        told = ", ".join(f"{name} {before} to {after}" for name, (before, after) in busy.items())
        parts += [
            f"Others were using the machine meanwhile (load average before and after: {told})"
            ": absolute times are too long, and spread.",
            "",
        ]
    if results["absent"]:
        parts += [f"Not installed, so not measured: {', '.join(results['absent'])}.", ""]
    marks = {True: "yes", False: "**no**", None: ""}
    rows = [
        (line["what"], line["aim"], line["value"], marks[line["met"]]) for line in results["aims"]
    ]
    parts += _table(("what", "aim", "measured", "met"), rows)
    missed = [line for line in results["aims"] if line["met"] is False]
    if missed:
        parts += ["", "Missed, and why", "---------------", ""]
        reasons: Dict[str, List[str]] = {}
        for line in missed:
            told = f"{line['what']}: {line['value']}, not {line['aim']}"
            reasons.setdefault(notes.why(line["what"], results["rows"]), []).append(told)
        parts += [f"* {'; '.join(told)}. The reason: {why}." for why, told in reasons.items()]
    for title, header, lines in _beside(results["rows"]):
        parts += ["", title, "-" * len(title), ""]
        parts += _table(header, lines)
    parts += notes.growth(results["rows"])
    return "\n".join(parts) + "\n"


def _is_busy(row: Dict[str, Any]) -> bool:
    before = (row.get("load") or [0])[0]
    return before is not None and before > 1.5


def _table(header: Tuple[str, ...], rows: List[Tuple[str, ...]]) -> List[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        lines += [
            f"   {'* -' if not place else '  -'} {cell}".rstrip() for place, cell in enumerate(row)
        ]
    return lines


_Table = Tuple[str, Tuple[str, ...], List[Tuple[str, ...]]]


def _beside(rows: Dict[str, Any]) -> List[_Table]:
    """The peers' figures beside ours."""
    makers = (_costs, _wires, _crowds, _imports, _buses, _scores, _cancels, _growth)
    tables = []
    for maker in makers:
        try:
            tables.append(maker(rows))
        except KeyError:
            pass  # that row was not measured
    return tables


def _costs(rows: Dict[str, Any]) -> _Table:
    costs, first = rows["cpu"]["us_a_chunk"], rows["first_token"]
    bare = costs["requests"]
    lines = [
        (
            name,
            f"{cost:.1f}",
            f"{cost / bare:.2f}",
            f"{first['p50_ms'][name]:.2f}",
            f"{first['p99_ms'][name]:.2f}",
        )
        for name, cost in costs.items()
    ]
    header = ("client", "CPU µs a chunk", "times requests", "first token p50 ms", "p99 ms")
    return "CPU a chunk and the first token", header, lines


def _wires(rows: Dict[str, Any]) -> _Table:
    costs = rows["wires"]["us_a_chunk"]
    lines = [
        (name, f"{costs[ours]:.2f}", f"{costs[theirs]:.1f}" if theirs in costs else "", theirs)
        for name, (ours, theirs) in PAIRS.items()
    ]
    header = ("protocol", "``chat_stream``", "the vendor's", "which is")
    return "CPU a chunk in each protocol, µs", header, lines


def _crowds(rows: Dict[str, Any]) -> _Table:
    row = rows["crowd"]
    named = {
        "agentstream, whole way": row["whole way"],
        "... with a switch interval of 20 ms": row["whole way, 20 ms"],
        "agentstream, chat_stream": row["chat_stream"],
        "AsyncOpenAI": row["AsyncOpenAI"],
        "agentstream, whole way, 512": row["most"],
    }
    lines = [
        (
            name,
            f"{it['streams']:.0f}",
            f"{it['p50_ms']:.1f}",
            f"{it['p99_ms']:.1f}",
            f"{it['max_ms']:.0f}",
            f"{it['us_a_chunk']:.0f}",
        )
        for name, it in named.items()
    ]
    header = ("client", "streams", "late p50 ms", "p99 ms", "most ms", "CPU µs a chunk")
    return "Streams at once", header, lines


def _imports(rows: Dict[str, Any]) -> _Table:
    row, scripts = rows["imports"], rows["cold"]["first_token_ms"]
    lines = [
        (
            name,
            f"{row['import_cpu_ms'][name]:.0f}",
            f"{row['peak_mib'][name]:.0f}",
            f"{scripts[name]:.0f}" if name in scripts else "",
        )
        for name in row["import_cpu_ms"]
        if name != "python"
    ]
    lines.append(("agentstream chat, the command", "", "", f"{scripts['agentstream chat']:.0f}"))
    header = ("import", "CPU ms", "peak MiB", "cold script to its first token, ms")
    return "Starting", header, lines


def _buses(rows: Dict[str, Any]) -> _Table:
    ways = ("ours", "bare events", "bare dicts")
    lines = [
        (subscribers, *(f"{rates[way]:,.0f}" for way in ways))
        for subscribers, rates in rows["bus"]["events_a_second"].items()
    ]
    header = ("subscribers", "events/s", "bare fan-out of such events", "bare fan-out of dicts")
    return "The bus", header, lines


def _scores(rows: Dict[str, Any]) -> _Table:
    fields = ("right", "text", "tool_calls", "finish_reason", "error", "reasoning", "usage", "all")
    lines = [
        (name, *(str(score[field]) for field in fields))
        for name, score in rows["conformance"]["scores"].items()
    ]
    of = rows["conformance"]["scores"]["agentstream"]["of"]
    return f"Conformance, of {of} streams", ("client", *fields), lines


def _cancels(rows: Dict[str, Any]) -> _Table:
    def cell(it: Dict[str, Any]) -> str:
        if it["blocked"] == it["times"]:
            return "still blocked after 5 s"
        told = f"p50 {it['reader_p50_ms']:.1f}, p99 {it['reader_p99_ms']:.1f}"
        return told + (f"; blocked {it['blocked']} of {it['times']}" if it["blocked"] else "")

    lines = [
        (name, cell(it["body"]), cell(it["headers"]))
        for name, it in rows["cancel"].items()
        if isinstance(it, dict)
    ]
    return "Cancel from another thread", ("client", "mid-stream, ms", "before headers, ms"), lines


def _growth(rows: Dict[str, Any]) -> _Table:
    points = rows["curves"]
    lines = [
        ("chunks", f"{p['n']:,}", f"{p['agentstream']:.1f}", f"{p[WHOLE]:.1f}", "")
        for p in points["chunks"]
    ]
    lines += [
        ("subscribers", str(p["n"]), "", f"{p[WHOLE]:.1f}", "") for p in points["subscribers"]
    ]
    lines += [
        (
            "streams",
            str(p["n"]),
            "",
            f"{p['whole way']['us_a_chunk']:.0f}",
            f"{p['whole way']['p99_ms']:.1f}",
        )
        for p in points["streams"]
    ]
    header = ("of", "n", "chat_stream, CPU µs a chunk", "whole way", "late p99 ms")
    return "How the cost grows", header, lines
