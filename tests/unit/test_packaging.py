"""What a user installs: one wheel that holds all three import packages and nothing else."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = {"evflow", "evflow_scheduler", "evflow_executors"}


@pytest.fixture
def names_in_wheel(root: Path) -> set[str]:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(root)], cwd=REPOSITORY, check=True, capture_output=True
    )
    [wheel] = root.glob("evflow-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_three_packages_typed_and_their_scripts(names_in_wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in names_in_wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= names_in_wheel
    scripts = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "evflow").rglob("*.lua")}
    assert scripts <= names_in_wheel
    assert any(name.endswith("licenses/LICENSE") for name in names_in_wheel)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_the_requirements_name_no_registry_and_hash_everything(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links|--trusted)", text, re.MULTILINE)
    pins = re.findall(r"^[\w.-]+==[^\s;]+[^\n]*\n\s*--hash=sha256:", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^\w", text, re.MULTILINE))


def test_the_requirements_agree_across_tiers() -> None:
    versions: dict[str, set[str]] = {}
    for path in (REPOSITORY / "requirements").glob("*.txt"):
        for name, version, marker in re.findall(r"^([\w.-]+)==([^\s;]+)([^\n\\]*)", path.read_text(), re.MULTILINE):
            versions.setdefault(f"{name} {marker.strip()}", set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    groups: dict[str, list[str | dict[str, str]]] = project["dependency-groups"]
    del groups["image"]  # tests/unit/test_docker.py looks after it
    declared = [*project["project"]["dependencies"], *(entry for group in groups.values() for entry in group if isinstance(entry, str))]
    pinned = set(re.findall(r"^([\w.-]+)==", (REPOSITORY / "requirements/check.txt").read_text(), re.MULTILINE))
    names = {re.split(r"[\[<>=;! ]", requirement)[0].lower().replace(".", "-").replace("_", "-") for requirement in declared}
    assert names <= pinned
