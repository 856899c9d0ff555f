"""The distributions: the source one tests itself, the wheel has what runs."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

PROJECT = pathlib.Path(__file__).resolve().parents[1]

_BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of what git tracks: a build writes beside its sources."""
    if not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("tree")
    for name in tracked():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((PROJECT / name).read_bytes())
    return folder


def tracked() -> list:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [name for name in listed if (PROJECT / name).is_file()]


def build(tree: pathlib.Path, kind: str, folder: pathlib.Path) -> pathlib.Path:
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, kind, str(folder)],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / done.stdout.splitlines()[-1]


def test_the_source_distribution_has_all_that_git_has(tree, tmp_path):
    with tarfile.open(build(tree, "build_sdist", tmp_path)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {name for name in tracked() if name not in inside and name != ".gitignore"}
    assert left_out == set()


def test_the_wheel_has_the_package_its_page_and_its_types(tree, tmp_path):
    with zipfile.ZipFile(build(tree, "build_wheel", tmp_path)) as archive:
        inside = set(archive.namelist())
    wanted = {name for name in tracked() if name.startswith("agentstream/")}
    assert wanted - inside == set()
    assert {"agentstream/py.typed", "agentstream/web/page/page.html"} <= inside
    tops = {name.partition("/")[0] for name in inside}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"agentstream"}
