"""The table of settings: what can be set, by which flag, which variable, which key of the file.

The one place that lists them: `settings` reads by it, `agentstream help settings`, README.rst
and docs/settings.rst show it (python -m tests.kit.settings_doc), and a variable that is not in
it is warned of.
"""

from __future__ import annotations

import re
from typing import Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

__all__ = ["PREFIX", "SETTINGS", "Setting", "find", "is_slip", "meant", "show", "unknown_variables"]

PREFIX = "AGENTSTREAM_"


class Setting(NamedTuple):
    """One setting.

    Attributes:
        name: its key in the config file, and in capitals the end of its variable.
        kind: str, bool, int, float for a time or a number, list for texts, or dict.
        about: what it is, in some words.
        flag: what sets it on a command line; "" for what is never a flag.
        in_file: the config file may hold it.
    """

    name: str
    kind: type
    about: str
    flag: str = ""
    in_file: bool = True

    @property
    def variable(self) -> str:
        """The environment's name for it."""
        return PREFIX + self.name.upper()


SETTINGS: Tuple[Setting, ...] = (
    Setting("provider", str, "llama, openai, ...", "--provider"),
    Setting("model", str, "the server's name", "--model"),
    Setting("base_url", str, "the server", "--base-url"),
    Setting("fallback", list, "asked if that fails", "--fallback"),
    Setting("api", str, "responses or chat", "--api"),
    Setting("think_tags", bool, "<think> tags", "--think-tags"),
    Setting("api_key", str, "the server's key"),
    Setting("insecure", bool, "trust any server", "--insecure"),
    Setting("system", str, "of `chat`", "--system"),
    Setting("log", str, "file or redis://...", "--log"),
    Setting("log_password", str, "of a redis:// log", "--log-password-file"),
    Setting("log_days", float, "days to keep events"),
    Setting("checkpoints", bool, "runs can go on", "--checkpoints"),
    Setting("deadline", float, "stop after: 10m", "--deadline"),
    Setting("retries", int, "further tries", "--retries"),
    Setting("rate_limit", str, "requests: 60/m", "--rate-limit"),
    Setting("budget_tokens", int, "what a run may use", "--budget-tokens"),
    Setting("budget_cost", float, "what it may cost", "--budget-cost"),
    Setting("prices", dict, "what models cost"),
    Setting("token", str, "of `serve`", "--token-file", in_file=False),
    Setting("config", str, "the config file", in_file=False),
    Setting("state", str, "folder of chats", in_file=False),
    Setting("cache", str, "folder of models", in_file=False),
)
_NAMED = {setting.name: setting for setting in SETTINGS}


def find(name: str) -> Optional[Setting]:
    """The setting of that name; None if there is none."""
    return _NAMED.get(name)


def meant(word: str, known: Iterable[str]) -> Optional[str]:
    """Which of the known words a misspelt one stands for; None if for none of them.

    The one that begins so, or has the word as a part, if that is one alone; else the nearest.
    """
    names = {name.lower(): name for name in known}
    given = word.lower()[:60]
    begun = [name for name in names if given and name.startswith(given)]
    holding = [name for name in names if given in re.split("[-_]", name)]
    for found in (begun, holding):
        if len(found) == 1:
            return names[found[0]]
    close = _nearest(given, list(names), 0.6)
    return names[close[0]] if close else None


def is_slip(word: str, known: Iterable[str]) -> bool:
    """True if a word differs from a known one by a letter or two."""
    return bool(_nearest(word.lower()[:60], list(known), 0.85))


def _nearest(word: str, known: List[str], at_least: float) -> List[str]:
    import difflib  # noqa: PLC0415 - only who made a mistake pays for it

    return difflib.get_close_matches(word, known, 1, at_least)


def unknown_variables(environ: Mapping[str, str]) -> Iterator[Tuple[str, Optional[str]]]:
    """The environment's variables that look like settings and are none, each with what is meant."""
    known = [setting.variable for setting in SETTINGS]
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in known:
            close = meant(name[len(PREFIX) :], [one[len(PREFIX) :] for one in known])
            yield name, close and PREFIX + close


def show(config_file: str) -> str:
    """The table for a terminal, in 79 columns; `config_file` is where that is, or would be."""
    lines = [
        "A setting is taken from the flag, else from the environment, else from",
        f"{config_file}.",
        "",
        *_columns(),
        "",
        "Keys are never a flag, which others could read. Each provider's own variable",
        "counts too: OPENAI_API_KEY, OPENAI_BASE_URL, ANTHROPIC_API_KEY,",
        "ANTHROPIC_BASE_URL. A workflow file's clients have settings of their own.",
    ]
    return "\n".join(lines) + "\n"


def _columns() -> List[str]:
    rows = [("FLAG", "VARIABLE", "FILE", "")]
    rows += [
        (one.flag or "-", one.variable, one.name if one.in_file else "-", one.about)
        for one in SETTINGS
    ]
    widths = [max(len(row[column]) for row in rows) + 1 for column in range(3)]
    lines = []
    for flag, variable, key, about in rows:
        line = f"{flag:{widths[0]}}{variable:{widths[1]}}{key:{widths[2]}}{about}"
        lines.append(re.sub(" +$", "", line))
    return lines
