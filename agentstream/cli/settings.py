"""What holds where no flag says: the environment, then the user's config file; `table` lists it.

Keys come from these two only, never from a flag, which other users could read.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

from agentstream.cli.fallback import named_in, tell_earlier
from agentstream.cli.kinds import as_prices, checked, known, parsed
from agentstream.cli.log_place import LogPlace, has_password, is_url
from agentstream.cli.output import note
from agentstream.cli.rate import open_rate_limit
from agentstream.cli.table import SETTINGS, meant, unknown_variables
from agentstream.errors import AuthError, ConfigError, ConnectError

if TYPE_CHECKING:
    import argparse

    from agentstream.local import LocalServer

__all__ = [
    "advise",
    "config_file",
    "find_log",
    "log_of",
    "note_unknown_variables",
    "open_client",
    "setting",
    "source_of",
    "state_folder",
    "token",
]

#: Of the config file, as the library has them.
_OTHER_NAMES = {"system_prompt": "system"}
#: Settings that not every provider's client takes.
_OF_SOME = ("api", "think_tags")


def setting(given: argparse.Namespace, name: str) -> Any:
    """A setting: the flag's, the environment's, the config file's, or None.

    Raises:
        ConfigError: it is not what it must be.
    """
    value = getattr(given, name, None)
    if value is not None:
        return checked(name, value, f"--{name.replace('_', '-')}")
    variable = known(name).variable
    text = os.environ.get(variable)
    if text:
        return checked(name, parsed(name, text, variable), variable)
    if not hasattr(given, "config"):
        given.config = _read(config_file())  # once a command, and only if it is needed
    return given.config.get(name)


def source_of(given: argparse.Namespace, name: str) -> str:
    """Where a setting comes from: its flag, its variable, the config file's path; "" if nowhere.

    Raises:
        ConfigError: the config file cannot be read.
    """
    if known(name).flag and getattr(given, name, None) is not None:
        return known(name).flag
    if os.environ.get(known(name).variable):
        return known(name).variable
    if not known(name).in_file or setting(given, name) is None:
        return ""
    return str(config_file())


def token(path: Optional[str]) -> Optional[str]:
    """A server's token: from a file, or from the environment (AGENTSTREAM_TOKEN); None: none."""
    if path is None:
        return os.environ.get("AGENTSTREAM_TOKEN") or None
    return _secret(path, "token")


def _secret(path: str, what: str) -> str:
    """What a file holds that is a secret."""
    try:
        with open(path, encoding="utf-8") as file:
            found = file.read(4096).strip()
    except OSError as error:
        raise ConfigError(f"the {what} file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the {what} file {path} is no text") from None
    if not found:
        raise ConfigError(f"the {what} file {path} is empty")
    return found


# --- the log ---------------------------------------------------------------------------------


def find_log(given: argparse.Namespace) -> Optional[LogPlace]:
    """Where the log is; None if none was named.

    Raises:
        ConfigError: that is no place for one, or its password cannot be read.
    """
    if not hasattr(given, "place"):
        given.place = _find_log(given)  # once a command: it may warn
    found: Optional[LogPlace] = given.place
    return found


def _find_log(given: argparse.Namespace) -> Optional[LogPlace]:
    where: Optional[str] = setting(given, "log")
    path: Optional[str] = getattr(given, "log_password_file", None)
    if where is None or not is_url(where):
        if path is not None:
            raise ConfigError("--log-password-file is for a log at redis://, rediss:// or unix://")
        return None if where is None else LogPlace(where)
    if path is not None:
        password: Optional[str] = _secret(path, "password")
    else:
        password = setting(given, "log_password")
    named = getattr(given, "log", None) is not None
    if named and has_password(where) and not getattr(given, "quiet", False):
        note(
            "agentstream: warning: others can read the password in --log: set AGENTSTREAM_LOG, or "
            "use --log-password-file"
        )
    words = () if path is None else ("--log-password-file", path)
    return LogPlace(where, password, words if named or path is not None else None)


def log_of(given: argparse.Namespace, *, new: bool = False) -> LogPlace:
    """Where the log is; a file must be there unless it may be `new`.

    Raises:
        ConfigError: none was named, or there is none.
    """
    place = find_log(given)
    if place is None:
        raise ConfigError(
            f"which log? use --log FILE, set AGENTSTREAM_LOG, or write log = ... into "
            f"{config_file()}"
        )
    if not new and place.is_missing():
        raise ConfigError(
            f"there is no log {place}: `agentstream run --log {place} FILE` begins one"
        )
    return place


# --- the config file -------------------------------------------------------------------------


def config_file() -> pathlib.Path:
    """Where the user's config file is, or would be."""
    named = os.environ.get("AGENTSTREAM_CONFIG")
    if named:
        return pathlib.Path(named)
    if sys.platform == "win32":
        folder = pathlib.Path(os.environ.get("APPDATA", os.path.expanduser("~")))
    else:
        folder = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    return folder / "agentstream" / "config.toml"


def state_folder() -> str:
    """Where conversations and what was typed are kept; it need not be there yet."""
    named = os.environ.get("AGENTSTREAM_STATE")
    if named:
        return os.path.expanduser(named)
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA", os.path.expanduser("~"))
    else:
        folder = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(folder, "agentstream")


def _read(path: pathlib.Path) -> Dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read()
            mode = os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        if os.environ.get("AGENTSTREAM_CONFIG"):
            raise ConfigError(f"AGENTSTREAM_CONFIG names {path}, which is not there") from None
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    values = _checked_all(path, _parse(path, raw))
    secret = _secret_in(values)
    if secret and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        note(f"agentstream: warning: others can read the {secret} in {path}: chmod 600 {path}")
    return values


def _secret_in(values: Mapping[str, Any]) -> str:
    """What is secret of them, in a word; "" for nothing."""
    if "api_key" in values:
        return "key"
    return "password" if "log_password" in values or has_password(values.get("log", "")) else ""


def _checked_all(path: pathlib.Path, given: Dict[str, Any]) -> Dict[str, Any]:
    values: Dict[str, Any] = {}
    problems = []
    for key, value in given.items():
        name = _OTHER_NAMES.get(key, key)
        try:
            if name != key and name in given:
                raise ConfigError(f"{path}: {key} is another name for {name}: give one of them")
            if name not in _in_file():
                raise ConfigError(f"{path}: {name}: unknown setting{_meant(name)}")
            where = f"{path}: {name}"
            is_time = name == "deadline" and isinstance(value, str)  # "10m", as the flag has it
            values[name] = checked(name, parsed(name, value, where) if is_time else value, where)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    if "log" in values and not is_url(values["log"]):  # relative to the file it is written in
        values["log"] = os.path.join(path.parent, values["log"])
    return values


def _parse(path: pathlib.Path, raw: bytes) -> Dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    except ValueError as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise ConfigError(f"{path} is no TOML: {error}") from None


def _in_file() -> List[str]:
    return [setting.name for setting in SETTINGS if setting.in_file]


def _meant(name: str) -> str:
    close = meant(name, _in_file())
    return f"; did you mean {close!r}?" if close else f": there are {', '.join(_in_file())}"


def note_unknown_variables(environ: Mapping[str, str]) -> None:
    """Say which of the environment's variables look like settings and are none."""
    for name, close in unknown_variables(environ):
        hint = f"did you mean {close}?" if close else "`agentstream help settings` lists them"
        note(f"agentstream: warning: {name} is no setting: {hint}")


# --- the client that the settings name -------------------------------------------------------


def open_client(
    given: argparse.Namespace,
    stack: contextlib.ExitStack,
    *,
    resume: bool = False,
    fallback: bool = True,
) -> Any:
    """The client that the settings name; `stack` closes it, and the server of an embedded one.

    With `resume`, retries go on with an answer that broke off, where the server can; with
    `fallback`, those that are asked where the first fails are part of it.

    Raises:
        ConfigError: they do not go together, a key is missing.
    """
    from agentstream import providers  # noqa: PLC0415

    name = setting(given, "provider") or providers.DEFAULT
    provider = providers.PROVIDERS[name]
    others = named_in(setting(given, "fallback") or ()) if fallback else []
    settings = {key: setting(given, key) or None for key in ("model", "base_url", "api_key")}
    if setting(given, "insecure"):
        settings["verify"] = False
    for key in _OF_SOME:
        if key in provider.own:
            settings[key] = setting(given, key)
        elif getattr(given, key, None):
            raise ConfigError(f"--{key.replace('_', '-')} is no setting of {name}")
    prices = setting(given, "prices")
    if prices is not None:
        settings["prices"] = as_prices(prices, "prices")
    rate = setting(given, "rate_limit")
    if rate is not None:
        folder = os.path.join(state_folder(), "limits")
        settings["rate_limit"] = open_rate_limit(rate, folder, name, settings["base_url"], stack)
    retries = setting(given, "retries")
    client = _open(name, settings, stack, retries, resume=resume, soon=bool(others))
    if not others:
        return client
    from agentstream.llm.fallback import FallbackClient  # noqa: PLC0415 - few need it

    clients = [client]
    for other in others:
        more = {"model": other.model, "base_url": other.base_url, "api_key": None}
        more["prices"] = settings.get("prices")
        clients.append(_open(other.provider, more, stack, retries, resume=resume, soon=True))
    return FallbackClient(clients)


def _open(
    name: str,
    settings: Dict[str, Any],
    stack: contextlib.ExitStack,
    retries: Optional[int],
    *,
    resume: bool,
    soon: bool,
) -> Any:
    """A provider's client; one of several tries again `soon` or not at all."""
    from agentstream import providers  # noqa: PLC0415
    from agentstream.llm.secrets import NamedKey  # noqa: PLC0415
    from agentstream.llm.settings import Retries  # noqa: PLC0415

    provider = providers.PROVIDERS[name]
    if provider.key_env and not (settings["base_url"] or settings["api_key"]):
        _check_key(provider.title, provider.key_env, provider.url_env)
    if provider.key_env and settings["api_key"] is None:
        # Whoever names both at the command line means that key for that server.
        settings["api_key"] = NamedKey.of(os.environ.get(provider.key_env), provider.key_env)
    elif settings["api_key"] is not None:
        settings["api_key"] = NamedKey.of(settings["api_key"], _source_of("api_key"))
    if retries is not None:
        settings["retries"] = Retries(retries, resume=resume and provider.resumes)
    elif soon:
        settings["retries"] = Retries(attempts=1, max_retry_after=2.0)
    if name == providers.EMBEDDED:
        server = stack.enter_context(_embedded(settings.pop("model")))
        settings.update(base_url=server.url, model=server.model)
    return stack.enter_context(provider.make(**settings))


def _source_of(name: str) -> str:
    """Where a setting that is no flag comes from: its variable, or the config file."""
    variable = known(name).variable
    return variable if os.environ.get(variable) else str(config_file())


def advise(error: BaseException, given: argparse.Namespace) -> None:
    """Tell whom nothing answers, and who has set nothing, which ways there are."""
    tell_earlier(error)
    found: Optional[BaseException] = error
    while found is not None and not isinstance(found, (ConnectError, AuthError, ConfigError)):
        found = found.__cause__
    if isinstance(found, ConfigError):
        if found.setting == "prices":
            error.args = (f"{error}; here: [prices] in {config_file()}",)
        return
    if isinstance(found, AuthError):
        if found.status == 401 and found.key_source is None:
            error.args = (f"{error}; set AGENTSTREAM_API_KEY",)
        return
    if found is not None and not setting(given, "base_url") and not setting(given, "provider"):
        error.args = (
            f"{error}; start llama-server there, or `agentstream model`; or use --base-url URL,"
            " --provider openai, or --provider embedded (a small model on this machine)",
        )


def _check_key(title: str, key_env: str, url_env: Optional[str]) -> None:
    """Refuse a hosted provider for which there is no key, and no server of one's own."""
    if not any(os.environ.get(name) for name in (key_env, url_env) if name):
        raise ConfigError(
            f"{title} needs a key: set {key_env} or AGENTSTREAM_API_KEY, or write api_key = ..."
            f" into {config_file()}; --base-url names a server of your own"
        )


def _embedded(model: Optional[str]) -> LocalServer:
    from agentstream.local import ProgressBar  # noqa: PLC0415
    from agentstream.providers import start_server  # noqa: PLC0415

    with ProgressBar() as progress:
        return start_server(progress, model=model)
