"""docs/metaflow.md: its rows name tests that are there, and every public name."""

import ast
import re
from importlib import import_module

import pytest

from benchmarks.engines import METAFLOW
from evflow.compat.metaflow.modules import MODULES, surface
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "metaflow.md"
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| Metaflow |")
]


def _is_there(place: str, name: str) -> bool:
    home, _, attribute = place.partition(":")
    try:
        return hasattr(import_module(home), attribute or name)
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0])[:40])
def test_a_row_says_how_it_is_and_names_tests_that_are_there(row: tuple[str, ...]) -> None:
    assert len(row) == 4, "a row has four cells"
    _, state, why, tests = row
    assert state in {"works", "differs", "not yet"}
    assert state != "differs" or why, "it says what differs"
    named = re.findall(r"`(tests/\S+?)::(\w+)`", tests)
    assert named or state == "not yet", "what works has a test that shows it"
    for file, name in named:
        tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in defined, f"{file} has no {name}"


def test_every_public_name_of_metaflow_has_a_row() -> None:
    named = {word for row in ROWS for word in re.findall(r"[\w.]+", row[0])}
    assert set(surface()) - named <= {"MulticoreException", "toml_parser"}


def test_a_name_whose_row_says_that_it_works_is_there() -> None:
    for name, state, *_ in ROWS:
        for word in set(re.findall(r"`(\w+)`", name)) & set(surface()):
            assert state == "not yet" or _is_there(MODULES["metaflow"][word], word), f"{word} is said to be there"


def test_every_module_above_a_module_is_there() -> None:
    for name in MODULES:
        above = name.rpartition(".")[0]
        assert not above or above in MODULES


def test_the_page_names_the_version_that_is_compared_with() -> None:
    assert f"Metaflow {METAFLOW.partition('==')[2]} is meant" in PAGE.read_text(encoding="utf-8")
