"""The rooms of docs/design.rst, section 2, and what importing the package does and costs."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import pathlib
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Set, Tuple

import pytest

import agentstream
from benchmarks.import_cost import measure

PACKAGE = pathlib.Path(agentstream.__file__).parent
PROJECT = pathlib.Path(__file__).parent.parent

# --- who may import whom --------------------------------------------------------------------

#: The rooms, values below: each sees those before it.  Every import counts, those within a
#: function and those for annotations only too.
ROOMS: List[str] = [
    *("_version", "text", "results", "errors", "cancel", "checks", "threads"),
    *("schema", "tools", "llm", "events", "agent", "workflow", "runtime", "jobs"),
    *("local", "providers", "mcp", "otel", "logs", "workflow_files", "console", "web", "cli"),
    "testing",
    *("config", "__main__", "__init__"),
]
#: Neighbours that know nothing of each other.
STRANGERS = {("llm", "tools"), ("events", "llm"), ("events", "tools"), ("events", "schema")}


class File:
    """A file of the package, parsed once."""

    def __init__(self, path: pathlib.Path) -> None:
        self.name = path.relative_to(PACKAGE).as_posix()
        self.room = room_of(self.name)
        self.text = path.read_text("utf-8")
        self.tree = ast.parse(self.text)
        self.nodes = list(ast.walk(self.tree))
        self.imports = list(self._imports())

    def _imports(self) -> Iterator[Tuple[str, int]]:
        """The modules that the file imports, with their lines."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.name}: a relative import"
                yield node.module or "", node.lineno
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)

    def arrows(self) -> Dict[str, int]:
        """{file that it imports: line}; `from package import module` is the module's."""
        pairs = {(file_of(module), line) for module, line in self.imports}
        return {
            file: line
            for file, line in pairs
            if file not in ("", self.name)
            and not (
                file.endswith("__init__.py")
                and any(
                    other != file and at == line and other.startswith(file[: -len("__init__.py")])
                    for other, at in pairs
                )
            )
        }

    def uses(self) -> Set[str]:
        """What it imports, the attributes it uses ("a.b"), what it calls ("f()", "a.b()")."""
        found = {module for module, _ in self.imports}
        for node in self.nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found.add(f"{node.value.id}.{node.attr}")
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
                found.add(ast.unparse(node.func) + "()")
        return found


def room_of(file: str) -> str:
    return file.split("/")[0].replace(".py", "")


@functools.cache
def file_of(module: str) -> str:
    """The file of a module of ours, relative to the package; "" if it is none."""
    path = PROJECT.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file() and PACKAGE in file.parents:
            return file.relative_to(PACKAGE).as_posix()
    return ""


@pytest.fixture(scope="module")
def files() -> List[File]:
    return [File(path) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.fixture(scope="module")
def arrows(files: List[File]) -> Dict[str, Dict[str, int]]:
    return {file.name: file.arrows() for file in files}


def test_imports_go_one_way(arrows: Dict[str, Dict[str, int]]) -> None:
    wrong = []
    for name, targets in arrows.items():
        room = room_of(name)
        for other, line in targets.items():
            target = room_of(other)
            if target != room and ROOMS.index(target) > ROOMS.index(room):
                wrong.append(f"{name}:{line}: an arrow up, to {other}")
            if (room, target) in STRANGERS:
                wrong.append(f"{name}:{line}: {room} must not know {target}")
    assert wrong == []


def test_no_imports_go_in_a_circle(arrows: Dict[str, Dict[str, int]]) -> None:
    left = {name: set(targets) for name, targets in arrows.items()}
    while True:  # take away who imports nobody that is left
        free = {name for name, targets in left.items() if not targets & set(left)}
        if not free:
            break
        left = {name: targets for name, targets in left.items() if name not in free}
    # ... and whom nobody that is left imports: the rest are circles.
    while True:
        wanted = set().union(*left.values()) if left else set()
        free = set(left) - wanted
        if not free:
            break
        left = {name: targets for name, targets in left.items() if name not in free}
    assert sorted(left) == []


def test_the_list_of_rooms_is_that_of_the_house(arrows: Dict[str, Dict[str, int]]) -> None:
    assert {room_of(name) for name in arrows} == set(ROOMS)
    assert any(name.startswith("workflow/") for name in arrows["runtime/runtime.py"])
    assert len(arrows) > 100


def test_few_modules_stand_beside_the_packages(files: List[File]) -> None:
    modules = [file.name for file in files if "/" not in file.name and file.name != "__init__.py"]
    assert len(modules) <= 8, modules


# --- how large things are -------------------------------------------------------------------


def test_files_and_functions_are_of_a_size_to_be_read(files: List[File]) -> None:
    large = [file.name for file in files if file.text.count("\n") > 480]
    for file in files:
        for node in file.nodes:
            if isinstance(node, ast.FunctionDef):
                where = f"{file.name}:{node.lineno}: {node.name}"
                arguments = node.args
                count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
                count += bool(arguments.vararg) + bool(arguments.kwarg)
                if (node.end_lineno or 0) - node.lineno + 1 > 60:
                    large.append(f"{where} is too long")
                if count > 16:
                    large.append(f"{where} takes too many parameters")
    assert large == []


# --- what is done in one room only ----------------------------------------------------------

#: The first part of a path, or all of it: what may be done there.
EDGE_ROOMS = ("cli/", "__main__.py", "console/", "local/", "testing/", "web/")
LOOPS = {"asyncio", "anyio", "trio", "aiohttp", "httpx"}
#: What speaks HTTP by other rules: its own proxies, redirects and timeouts.
HTTP_OF_OTHERS = {"urllib.request", "http.client", "urllib.error"}
THREADS = {
    *("threading.Thread()", "Thread()", "threading.Timer()", "Timer()"),
    *("_thread.start_new_thread", "concurrent.futures.ThreadPoolExecutor"),
}
CONSOLE = {"print()", "sys.argv", "sys.stdout", "sys.stderr", "input()"}
ENVIRONMENT = {"os.environ", "os.getenv", "os.environb"}
#: What the clients read of the environment.
VARIABLES = {
    "llm/clients.py": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "otel/instrumentation.py": ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",),
    "llm/anthropic/client.py": ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    # What a program needs, and no key: an MCP server's process inherits nothing else.
    "mcp/environment.py": (
        *("APPDATA", "COMSPEC", "HOME", "LANG", "LC_ALL", "LOCALAPPDATA", "LOGNAME", "PATH"),
        *("PATHEXT", "PROGRAMFILES", "SHELL", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TERM"),
        *("TMPDIR", "TZ", "USER", "USERNAME", "USERPROFILE"),
    ),
}


def forbidden_in(name: str) -> Set[str]:
    """What a file must not use."""
    forbidden = {"time.sleep", "sleep()"}
    if not name.startswith(("threads/", "testing/")):
        forbidden |= THREADS
    if not name.startswith(("llm/transport", "local/")):
        forbidden |= HTTP_OF_OTHERS
    if not name.startswith(EDGE_ROOMS):
        forbidden |= CONSOLE
        # By convention: a provider's key and URL; SSL_CERT_FILE and the proxies'.
        if name not in (*VARIABLES, "llm/transport/environment.py"):
            forbidden |= ENVIRONMENT
    return forbidden


def test_each_thing_is_done_in_its_room(files: List[File]) -> None:
    wrong = {}
    for file in files:
        tops = {module.split(".")[0] for module, _ in file.imports}
        elsewhere = (
            LOOPS if file.name.startswith("llm/transport") else LOOPS | {"requests", "urllib3"}
        )
        if file.name not in ("events/redis/server.py", "llm/rate_limit/server.py"):
            elsewhere = elsewhere | {"redis"}
        if file.room != "otel":
            elsewhere = elsewhere | {"opentelemetry"}
        used = (file.uses() & forbidden_in(file.name)) | (tops & elsewhere)
        if used:
            wrong[file.name] = used
    assert wrong == {}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_client_reads_its_providers_variables_and_no_others(name: str) -> None:
    file = File(PACKAGE / name)
    read = [
        node.args[0].value  # type: ignore[attr-defined]
        for node in file.nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("os.environ")
    ]
    assert tuple(sorted(read)) == VARIABLES[name]
    assert file.text.count("os.environ") == len(read)


# --- importing it ---------------------------------------------------------------------------

_WATCHED_IMPORT = """
import json, os, socket, sys, threading
import requests  # urllib3 tries a socket at import, to see whether there is IPv6

root = sys.argv[1]
ways = ("os.py", "_collections_abc.py")
read, made = [], []

def reader(original):
    def watched(self, *args):
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.endswith(ways):
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(root):
            read.append(frame.f_code.co_filename)
        return original(self, *args)
    return watched

for method in ("__getitem__", "__iter__", "__contains__", "get"):
    kind = type(os.environ)
    setattr(kind, method, reader(getattr(kind, method)))

def audit(event, args):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.exec", "_thread.start")):
        made.append(event)

sys.addaudithook(audit)
import agentstream

print(json.dumps({
    "read": read, "made": made, "threads": threading.active_count(),
    "modules": sorted(sys.modules), "handlers": repr(__import__("signal").getsignal(15)),
}))
read.clear()
try:
    agentstream.OpenAIClient()
except agentstream.ConfigError:
    pass
socket.socket().close()
print(json.dumps({"read": read, "made": made}))
"""


@pytest.fixture(scope="module")
def imported() -> Tuple[Dict[str, Any], Dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED_IMPORT, str(PACKAGE)],
        env={"PATH": "/nowhere"},
        cwd=PROJECT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    at_import, later = done.stdout.decode().splitlines()
    return json.loads(at_import), json.loads(later)


def test_importing_starts_nothing_and_reads_nothing(imported: Any) -> None:
    at_import, later = imported
    assert at_import["read"] == []
    assert at_import["made"] == []
    assert at_import["threads"] == 1
    assert "SIG_DFL" in at_import["handlers"]
    assert len(later["read"]) >= 2  # the watch does see what is read and made afterwards
    assert later["made"]


def test_importing_brings_no_asyncio(imported: Any) -> None:
    modules = set(imported[0]["modules"])
    assert "requests" in modules
    tops = {module.split(".")[0] for module in modules}
    assert not tops & {
        "asyncio",
        "anyio",
        "trio",
        "httpx",
        "sqlite3",
        "opentelemetry",
        "redis",
        "xllamacpp",
        "pytest",
    }


def test_importing_costs_little_more_than_requests() -> None:
    # The figure to keep is 1.25 (benchmarks/import_cost.py); here is room for a busy machine.
    for _ in range(3):
        cost = measure(runs=3)
        if cost["agentstream"] <= 1.4 * cost["requests"]:
            return
    raise AssertionError(f"three times in a row: {cost}")


# --- what is written ------------------------------------------------------------------------


def test_every_file_opens_with_its_charter(files: List[File]) -> None:
    bare = [file.name for file in files if not ast.get_docstring(file.tree)]
    assert bare == ["_version.py"]


def public_names() -> Iterator[Tuple[str, Any]]:
    for name in agentstream.__all__:
        value = getattr(agentstream, name)
        if name == "__version__":
            continue
        yield name, value
        if inspect.isclass(value):
            for member, what in vars(value).items():
                if not member.startswith("_") and inspect.isfunction(what):
                    yield f"{name}.{member}", what


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert sorted(agentstream.__all__) == sorted(set(agentstream.__all__))
    bare = []
    for name, value in public_names():
        text = value.__doc__ or ""
        # namedtuple writes "Delta(content, ...)" and Enum a line of its own; they say nothing.
        if not text or text.startswith(f"{name}(") or text == "An enumeration.":
            bare.append(name)
    assert bare == []


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        agentstream.no_such_name  # noqa: B018


def test_the_package_says_that_it_is_typed_and_has_its_papers() -> None:
    assert (PACKAGE / "py.typed").exists()
    for paper in ("README.rst", "CHANGES.rst", "LICENSE"):
        assert (PROJECT / paper).read_text("utf-8").strip()
