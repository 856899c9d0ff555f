"""What `agentstream doctor` looks at: versions, settings, files, and the servers that are asked.

Nothing is written, no model is asked anything, and no secret is part of what is found.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import stat
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from agentstream._version import __version__
from agentstream.cli.fallback import named_in
from agentstream.cli.servers import Answer, ask_all, each, title
from agentstream.cli.settings import (
    advise,
    config_file,
    find_log,
    open_client,
    setting,
    source_of,
    state_folder,
)
from agentstream.cli.table import SETTINGS
from agentstream.errors import AgentStreamError, Cancelled, ConfigError, StatusError
from agentstream.llm.secrets import NamedKey
from agentstream.llm.settings import Retries
from agentstream.llm.transport import display_url
from agentstream.providers import DEFAULT, EMBEDDED, PROVIDERS, Provider, make_client
from agentstream.text import strip_controls

__all__ = ["FAULT", "FINE", "NOTE", "Finding", "Report", "examine"]

FINE, NOTE, FAULT = "fine", "note", "fault"
#: Where a setting comes from that nobody set.
_DEFAULT = "default"
#: Seconds that a server may take to say which models it has.
_PATIENCE_S = 5.0
#: Settings whose values are nobody's business but the user's.
_SECRET = ("api_key", "log_password", "token")
#: The packages that are needed, and of each extra the one that it brings.
_NEEDED = ("requests", "urllib3", "sseclient-py")
_EXTRAS = {
    "local": "xllamacpp",
    "server": "waitress",
    "redis": "redis",
    "otel": "opentelemetry-api",
}
#: Providers whose servers refuse a model that they do not list.
_STRICT = ("openai", "anthropic", "ollama")


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        state: "fine", "note" or "fault": it would not work like this.
        what: the file or the server.
        said: what is found.
    """

    state: str
    what: str
    said: str


class Report:
    """What was found.

    Attributes:
        versions: of Python and the packages that are needed, by name.
        extras: the version of what each extra brings; "" for one that is not there.
        settings: by name, the value as it may be shown, and where it comes from.
        files: the config file, the log, the folder of conversations.
        servers: the one that would be asked, those behind it, and what else answers here.
        advice: what to do, if it would not work.
    """

    def __init__(self) -> None:
        self.versions: Dict[str, str] = {}
        self.extras: Dict[str, str] = {}
        self.settings: Dict[str, Tuple[str, str]] = {}
        self.files: List[Finding] = []
        self.servers: List[Finding] = []
        self.advice: List[str] = []

    @property
    def works(self) -> bool:
        """True if a question would be answered."""
        return not self.advice

    def blame(self, error: BaseException) -> str:
        """Note what an error says as what is to be done; returns it."""
        said = strip_controls(" ".join(str(error).split()))
        if said not in self.advice:
            self.advice.append(said)
        return said


def examine(given: argparse.Namespace) -> Report:
    """Look at everything; with `given.offline` no server is asked."""
    report = Report()
    report.versions = {"agentstream": __version__, "Python": platform.python_version()}
    report.versions.update((name, _version_of(name)) for name in _NEEDED)
    report.extras = {extra: _version_of(package) for extra, package in _EXTRAS.items()}
    _look_at_settings(given, report)
    if not report.advice:  # or the same is said of each
        _look_at_files(given, report)
        _look_at_servers(given, report)
    return report


def _version_of(package: str) -> str:
    from importlib import metadata  # noqa: PLC0415 - it is slow to import, and few need it

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


# --- settings ---------------------------------------------------------------------------------


def _look_at_settings(given: argparse.Namespace, report: Report) -> None:
    for one in SETTINGS:
        try:
            value, source = _value_of(given, one.name), source_of(given, one.name)
        except ConfigError as error:
            report.blame(error)
            continue
        if value:
            report.settings[one.name] = value, source or _DEFAULT
    if report.advice:
        return
    name = _provider_of(given)
    report.settings.setdefault("provider", (name, _DEFAULT))
    if name != EMBEDDED:
        provider = PROVIDERS[name]
        for key, value in (("model", provider.model), ("base_url", provider.base_url)):
            if value:
                report.settings.setdefault(key, (value, f"{_DEFAULT} of {name}"))
    _look_at_variables(PROVIDERS[name], report)
    order = [one.name for one in SETTINGS]
    known = sorted(
        report.settings, key=lambda key: order.index(key) if key in order else len(order)
    )
    report.settings = {key: report.settings[key] for key in known}


def _value_of(given: argparse.Namespace, name: str) -> str:
    """A setting as it may be shown; "" if it is not set."""
    value: Any
    if name in ("config", "state", "cache", "token"):  # of the environment alone
        value = os.environ.get(f"AGENTSTREAM_{name.upper()}")
    else:
        value = setting(given, name)
    if value is None or value == []:
        return ""
    if name in _SECRET:
        return "set"
    if name == "system":
        return f"{len(value)} characters"
    if name == "log":
        return str(find_log(given))
    if name == "base_url":
        return display_url(value)
    return strip_controls(", ".join(value) if isinstance(value, list) else str(value))


def _look_at_variables(used: Provider, report: Report) -> None:
    """The providers' own variables: the one that is used takes them where no setting says."""
    for provider in PROVIDERS.values():
        for variable, name in ((provider.key_env, "api_key"), (provider.url_env, "base_url")):
            value = os.environ.get(variable) if variable else None
            if not (value and variable):
                continue
            is_url = name == "base_url" and "://" in value
            shown = display_url(value) if is_url else "set"
            _, source = report.settings.get(name, ("", _DEFAULT))
            if provider is used and source.startswith(_DEFAULT):
                report.settings[name] = shown, variable
            else:
                report.settings[variable] = shown, "environment, of no use here"


# --- files ------------------------------------------------------------------------------------


def _look_at_files(given: argparse.Namespace, report: Report) -> None:
    path = config_file()
    report.files.append(Finding(FINE, "config file", f"{path}, {_mode(str(path))}"))
    report.files.append(_look_at_log(given, report))
    folder = state_folder()
    private = not os.path.exists(folder) or not stat.S_IMODE(os.stat(folder).st_mode) & 0o077
    state = FINE if private or os.name == "nt" else NOTE
    hint = "" if state == FINE else f"; others can look into it: chmod 700 {folder}"
    report.files.append(Finding(state, "conversations", f"{folder}, {_mode(folder)}{hint}"))


def _mode(path: str) -> str:
    try:
        return f"mode {stat.S_IMODE(os.stat(path).st_mode):04o}"
    except OSError:
        return "not there"


def _look_at_log(given: argparse.Namespace, report: Report) -> Finding:
    place = find_log(given)
    if place is None:
        return Finding(NOTE, "log", "none")
    if not place.is_file:
        if not report.extras["redis"]:
            said = report.blame(
                ConfigError("a log at redis:// needs: pip install 'agentstream[redis]'")
            )
            return Finding(FAULT, "log", said)
        return Finding(NOTE, "log", f"{place}, which is not asked")
    path = str(place)
    folder = os.path.dirname(os.path.abspath(path))
    if not place.is_missing():
        try:
            with place.open(reading=True):
                pass
        except AgentStreamError as error:
            return Finding(FAULT, "log", report.blame(error))
        folder = path
    if not os.access(folder, os.W_OK):
        said = report.blame(ConfigError(f"{folder} cannot be written: --log names another one"))
        return Finding(FAULT, "log", said)
    return Finding(FINE, "log", f"{path}, {_mode(path)}")


# --- servers ----------------------------------------------------------------------------------


def _look_at_servers(given: argparse.Namespace, report: Report) -> None:
    """Ask the servers that would be used, and say what else answers."""
    with contextlib.ExitStack() as stack:
        try:
            used = _used(given, report, stack)
        except AgentStreamError as error:
            report.servers.append(Finding(FAULT, _provider_of(given), report.blame(error)))
            used = []
        if given.offline:
            report.servers += [Finding(NOTE, title(one), "not asked") for one in used]
            return
        others = _others(given, stack)
        answers = ask_all([*used, *others.values()], _PATIENCE_S)
        _judge(given, used, answers[: len(used)], report)
        for (name, client), answer in zip(others.items(), answers[len(used) :]):
            if answer.models is not None:
                where = title(client).rpartition(" ")[2]
                said = f"answers as well, with {_count(answer.models)}: --provider {name}"
                report.servers.append(Finding(NOTE, f"{name} at {where}", said))


def _provider_of(given: argparse.Namespace) -> str:
    return setting(given, "provider") or DEFAULT


def _used(given: argparse.Namespace, report: Report, stack: contextlib.ExitStack) -> List[Any]:
    """The clients that would be used, but for embedded models, which are not started."""
    if _provider_of(given) == EMBEDDED:
        report.servers.append(_look_at_embedded(setting(given, "model"), report))
        return []
    texts = setting(given, "fallback") or []
    asked = [text for text, named in zip(texts, named_in(texts)) if named.provider != EMBEDDED]
    changed = argparse.Namespace(**{**vars(given), "retries": 0, "fallback": asked})
    clients = list(each(open_client(changed, stack)))
    for named in named_in(text for text in texts if text not in asked):
        report.servers.append(_look_at_embedded(named.model, report))
    return clients


def _look_at_embedded(named: Optional[str], report: Report) -> Finding:
    from agentstream.local.model import MODEL_FILE, cache_folder  # noqa: PLC0415 - few need it

    if not report.extras["local"]:
        needs = ConfigError("--provider embedded needs: pip install 'agentstream[local]'")
        return Finding(FAULT, EMBEDDED, report.blame(needs))
    if named is not None:
        if os.path.isfile(named):
            return Finding(FINE, EMBEDDED, f"{named} is there")
        return Finding(FAULT, EMBEDDED, report.blame(ConfigError(f"there is no model {named}")))
    path = cache_folder() / MODEL_FILE
    there = "is there" if path.is_file() else "will be fetched once (93 MB)"
    return Finding(FINE, EMBEDDED, f"{path} {there}")


def _others(given: argparse.Namespace, stack: contextlib.ExitStack) -> Dict[str, Any]:
    """Clients of what may answer as well: servers of this machine, and whose key is there."""
    found = {}
    for name, provider in PROVIDERS.items():
        key = os.environ.get(provider.key_env) if provider.key_env else None
        if name in (_provider_of(given), EMBEDDED) or (provider.key_env and not key):
            continue
        with contextlib.suppress(ConfigError):  # of a variable that is of no use here
            found[name] = stack.enter_context(
                make_client(
                    name,
                    model=provider.model or "any",
                    api_key=NamedKey.of(key, provider.key_env or ""),
                    retries=Retries(0),
                )
            )
    return found


def _judge(
    given: argparse.Namespace, used: List[Any], answers: List[Answer], report: Report
) -> None:
    """Say of the servers that would be used what they answered; one that works will do."""
    problems = Report()
    for number, (client, answer) in enumerate(zip(used, answers)):
        strict = number == 0 and _provider_of(given) in _STRICT
        finding = _finding(client, answer, strict)
        report.servers.append(finding)
        if finding.state == FAULT:
            problems.blame(_with_advice(finding, answer, given))
    if all(finding.state == FAULT for finding in report.servers):
        report.advice += problems.advice


def _finding(client: Any, answer: Answer, strict: bool) -> Finding:
    """What a server's answer means for a client; a `strict` one refuses what it does not list."""
    error, what = answer.error, title(client)
    if isinstance(error, Cancelled):
        return Finding(FAULT, what, f"has not answered within {_PATIENCE_S:g} s")
    if isinstance(error, StatusError) and error.status in (404, 405, 501):
        return Finding(NOTE, what, "answers, and has no list of models")
    if answer.models is None:
        return Finding(FAULT, what, strip_controls(" ".join(str(error).split())))
    if not answer.models or _has(answer.models, client.model) or client.model in ("", "default"):
        took = f"after {answer.seconds * 1000:.0f} ms"
        return Finding(FINE, what, f"{_count(answer.models)}, {took}")
    said = f"{client.model!r} is none of its {_count(answer.models)}"
    return Finding(FAULT if strict else NOTE, what, said)


def _with_advice(finding: Finding, answer: Answer, given: argparse.Namespace) -> BaseException:
    """What there is to do about a server that will not do."""
    if answer.models is not None:
        return ConfigError(f"{finding.said}: `agentstream models` lists them")
    if answer.error is None or isinstance(answer.error, Cancelled):
        return ConfigError(f"{finding.what} {finding.said}: is it the right server?")
    advise(answer.error, given)
    return answer.error


def _has(models: List[str], wanted: str) -> bool:
    """True if a model is listed, by Ollama with a tag behind it."""
    return any(name in (wanted, f"{wanted}:latest") for name in models)


def _count(models: List[str]) -> str:
    return f"{len(models)} model{'' if len(models) == 1 else 's'}"
