"""The rooms of DESIGN.md, section 2, and what importing the package does and costs."""

from __future__ import annotations

import ast
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
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

# --- who may import whom --------------------------------------------------------------------

#: Rooms by floor; a room sees the floors below, and its own where OPEN says so.
FLOORS: List[Set[str]] = [
    {"_version", "results", "text"},
    {"cancel", "errors", "threads", "checks"},
    {"events", "llm", "tools"},
    {"agent"},
    {"workflow"},
    {"runtime"},
]
EDGES = len(FLOORS)  # every other room: console, cli, local, web, testing ...
#: Not the second: clients know no events, the bus no models, tools neither.
OPEN = {0, 1, EDGES}


def floor_of(room: str) -> int:
    return next((floor for floor, rooms in enumerate(FLOORS) if room in rooms), EDGES)


def imports(path: pathlib.Path) -> Iterator[Tuple[str, int]]:
    """The modules a file imports when it runs, with their lines."""
    tree = ast.parse(path.read_text("utf-8"))
    for typing_only in [node for node in ast.walk(tree) if _is_typing_only(node)]:
        typing_only.body = []  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def room_of(module: str) -> str:
    """The room a module is in; "" if it is none of ours."""
    top, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    ours = top == "agentstream" and ((PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists())
    return room if ours else ""


@pytest.mark.parametrize("name", NAMES)
def test_imports_go_one_way(name: str) -> None:
    room = name.replace("\\", "/").split("/")[0].replace(".py", "")
    if room == "__init__":
        return  # the public names, from every floor
    floor = floor_of(room)
    for module, line in imports(PACKAGE / name):
        other = room_of(module)
        if other in ("", room):
            continue
        allowed = floor_of(other) < floor or (floor_of(other) == floor and floor in OPEN)
        assert allowed, f"{name}:{line}: {room} must not know {other}"


def test_the_table_of_rooms_is_that_of_the_house() -> None:
    rooms = {name.replace("\\", "/").split("/")[0].replace(".py", "") for name in NAMES}
    assert set().union(*FLOORS) <= rooms
    assert {module for module, _ in imports(PACKAGE / "runtime" / "runtime.py")} >= {
        "agentstream.workflow"
    }


# --- what is done in one room only ----------------------------------------------------------

#: The first part of a path, or all of it: what may be done there.
EDGE_ROOMS = ("cli/", "__main__.py", "console/", "local/", "testing/", "web/")
#: What speaks HTTP by other rules: its own proxies, redirects and timeouts.
HTTP_OF_OTHERS = {"urllib.request", "http.client", "urllib.error"}


def uses(path: pathlib.Path) -> Set[str]:
    """The names a file imports, the attributes it uses ("a.b"), what it calls ("f()", "a.b()")."""
    found = {module for module, _ in imports(path)}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            found.add(ast.unparse(node.func) + "()")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_thing_is_done_in_its_room(name: str) -> None:
    used = uses(PACKAGE / name)
    place = name.replace("\\", "/")
    tops = {module.split(".")[0] for module, _ in imports(PACKAGE / name)}
    forbidden = {"time.sleep", "sleep()"}
    assert not tops & {"asyncio", "anyio", "trio", "aiohttp", "httpx"}
    if not place.startswith("llm/transport"):
        assert not tops & {"requests", "urllib3"}
        if not place.startswith("local/"):
            assert not {module for module, _ in imports(PACKAGE / name)} & HTTP_OF_OTHERS
    if not place.startswith("threads/") and not place.startswith("testing/"):
        forbidden |= {
            "threading.Thread()",
            "Thread()",
            "threading.Timer()",
            "Timer()",
            "_thread.start_new_thread",
            "concurrent.futures.ThreadPoolExecutor",
        }
    if not place.startswith(EDGE_ROOMS):
        forbidden |= {"print()", "sys.argv", "sys.stdout", "sys.stderr", "input()"}
        # By convention: OPENAI_API_KEY and OPENAI_BASE_URL; SSL_CERT_FILE and the proxies'.
        if place not in ("llm/clients.py", "llm/transport/environment.py"):
            forbidden |= {"os.environ", "os.getenv", "os.environb"}
    assert not used & forbidden, f"{name} uses {used & forbidden}"


def test_the_client_reads_openais_variables_and_no_others() -> None:
    tree = ast.parse((PACKAGE / "llm" / "clients.py").read_text("utf-8"))
    read = [
        node.args[0].value  # type: ignore[attr-defined]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("os.environ")
    ]
    assert sorted(read) == ["OPENAI_API_KEY", "OPENAI_BASE_URL"]
    assert (PACKAGE / "llm" / "clients.py").read_text("utf-8").count("os.environ") == 2


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
    assert not tops & {"asyncio", "anyio", "trio", "httpx", "sqlite3", "xllamacpp", "pytest"}


def test_importing_costs_little_more_than_requests() -> None:
    # The figure to keep is 1.25 (benchmarks/import_cost.py); here is room for a busy machine.
    for _ in range(3):
        cost = measure(runs=3)
        if cost["agentstream"] <= 1.4 * cost["requests"]:
            return
    raise AssertionError(f"three times in a row: {cost}")


# --- what is written ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_file_opens_with_its_charter(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / name).read_text("utf-8")))
    if name != "_version.py":
        assert docstring


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
