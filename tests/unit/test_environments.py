"""What steps ask for, and how it is told to the tools: without any tool."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow import FlowSpec, conda, conda_base, pypi, pypi_base, step
from evflow.environments.building import act, answer
from evflow.environments.conda import match_spec, python_spec, shown_channels
from evflow.environments.errors import PythonTooOld
from evflow.environments.pypi import requirement
from evflow.environments.spec import Lock, Spec
from evflow.environments.tools import has_no_index, index, pip_settings
from evflow.errors import EvflowError
from evflow.flow.checks import check
from evflow.flow.decorators.packages import Asked, asked_for

WORDS = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12)


@given(st.sampled_from(["pypi", "conda"]), WORDS, st.lists(WORDS), st.text(), WORDS)
def test_a_lock_is_read_as_it_was_written(kind: str, python: str, packages: list[str], text: str, platform: str) -> None:
    lock = Lock("pypi" if kind == "pypi" else "conda", python, tuple(packages), text, platform)
    assert Lock.from_bytes(lock.to_bytes()) == lock
    assert len(lock.name) == 32


def test_a_package_that_has_a_version_for_each_python_is_counted_once() -> None:
    assert Lock("pypi", "3.11", ("numpy==2.4", "numpy==2.5", "six==1"), "").count == 2
    assert Lock("conda", "3.11", ("numpy 2.4 h1", "python 3.11.7 0"), "").count == 2


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"kind": "pypi"}'])
def test_what_is_no_lock_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Lock.from_bytes(data)


@given(st.dictionaries(WORDS, WORDS, max_size=5))
def test_the_order_of_packages_does_not_matter(packages: dict[str, str]) -> None:
    turned = dict(reversed(packages.items()))
    assert Spec("pypi", packages, "3.12").key() == Spec("pypi", turned, "3.12").key()
    assert str(Spec("pypi", packages).settled()) == str(Spec("pypi", turned).settled())


def test_everything_that_decides_what_is_found_is_part_of_the_key() -> None:
    specs = [
        Spec("pypi", {"a": "1"}, "3.12"),
        Spec("conda", {"a": "1"}, "3.12"),
        Spec("pypi", {"a": "2"}, "3.12"),
        Spec("pypi", {"a": "1"}, "3.13"),
    ]
    assert len({*(spec.key() for spec in specs), specs[0].key("another index")}) == 5


@pytest.mark.parametrize(
    ("version", "pip", "conda_has"),
    [
        ("", "pandas", "pandas"),
        ("2.2.3", "pandas==2.2.3", "pandas ==2.2.3"),
        (">=2,<3", "pandas>=2,<3", "pandas >=2,<3"),
        ("==2.*", "pandas==2.*", "pandas ==2.*"),
        ("@ git+https://host/x", "pandas @ git+https://host/x", "pandas @ git+https://host/x"),
    ],
)
def test_a_version_is_exact_a_range_or_a_place(version: str, pip: str, conda_has: str) -> None:
    assert requirement("pandas", version) == pip
    assert match_spec("pandas", version) == conda_has


def test_a_python_is_a_version_or_a_part_of_one() -> None:
    assert [python_spec(one) for one in ("3.12", "3.12.4", ">=3.11")] == ["python 3.12.*", "python ==3.12.4", "python >=3.11"]
    with pytest.raises(PythonTooOld, match=r"asks for Python 3\.10, on which evflow cannot run a step"):
        Spec("pypi", {}, "3.10").settled()


# --- tools that are not there -------------------------------------------------------------------------------


def test_a_tool_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setitem(sys.modules, "rattler", None)
    monkeypatch.setenv("PATH", "/nowhere")
    for kind in ("pypi", "conda"):
        said = act({"act": "resolve", "kind": kind, "packages": {"a": ""}, "python": "3.12"})
        code, message, hint = said["error"]
        assert code == "environment-tool-missing"
        assert f"@{kind}" in message
        assert f"pip install 'evflow[{kind}]'" in hint


def test_what_the_process_says_that_makes_environments_is_an_error_of_ours() -> None:
    with pytest.raises(EvflowError, match="it broke") as caught:
        answer(0, b'{"error": ["a-code", "it broke", "mend it"]}', b"")
    assert (caught.value.code, caught.value.hint) == ("a-code", "mend it")
    with pytest.raises(EvflowError, match="ended with code 1: Traceback"):
        answer(1, b"", b"Traceback")


# --- the settings of pip -----------------------------------------------------------------------------------


def test_what_pip_is_told_is_handed_to_uv(root: Path) -> None:
    """Variables go before files, and what is said to uv itself goes before both."""
    file = root / "pip.conf"
    file.write_text("[global]\nindex-url = https://a/simple\nextra-index-url =\n    https://b\n    https://c\ncert = /of/file\n")
    told = pip_settings({"PIP_CONFIG_FILE": str(file), "HOME": str(root), "PIP_CERT": "/of/variable", "PIP_FIND_LINKS": "/x /y"})
    assert told["UV_DEFAULT_INDEX"] == "https://a/simple"
    assert told["UV_INDEX"] == "https://b https://c"
    assert told["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert told["UV_FIND_LINKS"] == "/x,/y"
    assert told["SSL_CERT_FILE"] == "/of/variable"
    own = pip_settings({"PIP_CONFIG_FILE": str(file), "HOME": str(root), "UV_INDEX_URL": "https://uv", "UV_INDEX": "https://d"})
    assert "UV_DEFAULT_INDEX" not in own
    assert "UV_INDEX" not in own
    assert "UV_INDEX_STRATEGY" not in own
    assert pip_settings({"PIP_CONFIG_FILE": os.devnull, "HOME": str(root)}) == {}


def test_no_index_has_no_variable_of_uv_and_is_heeded(root: Path) -> None:
    (root / "pip.conf").write_text("[install]\nno_index = true\n")
    assert has_no_index({"PIP_CONFIG_FILE": str(root / "pip.conf"), "HOME": str(root)})
    assert has_no_index({"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"})
    assert not has_no_index({"PIP_CONFIG_FILE": os.devnull})


def test_a_password_of_an_index_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://ada:secret@host/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert index() == "https://ada@host/simple"
    monkeypatch.setenv("CONDA_CHANNELS", "https://ada:secret@host/one,https://host/t/secret/two conda-forge")
    assert shown_channels() == "https://ada@host/one, https://host/t/…/two, conda-forge"


# --- decorators --------------------------------------------------------------------------------------------


@pypi_base(packages={"a": "1", "b": "1"}, python="3.12")
class Based(FlowSpec):
    """Each step says something else."""

    @step
    def start(self) -> None:
        self.next(self.own)

    @pypi(packages={"b": "2"})
    @step
    def own(self) -> None:
        self.next(self.off)

    @pypi(disabled=True)
    @step
    def off(self) -> None:
        self.next(self.other)

    @conda(libraries={"c": "1"}, packages={"d": "1.5"})
    @step
    def other(self) -> None:
        self.next(self.end)

    @conda(disabled=True)
    @step
    def end(self) -> None:
        pass


def test_a_step_lays_its_own_over_what_its_flow_says() -> None:
    assert check(Based) == []
    assert asked_for(Based) == {
        "start": Asked("pypi", {"a": "1", "b": "1"}, "3.12"),
        "own": Asked("pypi", {"a": "1", "b": "2"}, "3.12"),
        "other": Asked("conda", {"c": "1", "d": "1.5"}, ""),
    }


@conda_base(disabled=True, python="3.12")
class SwitchedOff(FlowSpec):
    """One step switches it on again."""

    @step
    def start(self) -> None:
        self.next(self.end)

    @conda(disabled=False)
    @step
    def end(self) -> None:
        pass


def test_a_flow_s_switch_is_turned_by_a_step() -> None:
    assert asked_for(SwitchedOff) == {"end": Asked("conda", {}, "3.12")}


loose_pypi: Callable[..., Callable[[Any], Any]] = pypi
loose_conda: Callable[..., Callable[[Any], Any]] = conda
"""What a type checker would refuse."""


@pypi_base
@conda_base
class Wrong(FlowSpec):
    """Everything that can be wrong."""

    @loose_pypi(packages={"a": None}, python=3.12)
    @loose_conda(packages=["a"])
    @step
    def start(self) -> None:
        self.next(self.end)

    @loose_pypi(disabled="yes")
    @step
    def end(self) -> None:
        pass


def test_every_mistake_is_told() -> None:
    said = "\n".join(problem.message for problem in check(Wrong))
    for text in (
        "Flow Wrong has @pypi_base and @conda_base",
        "Step start has @pypi and @conda",
        "the version of a is None",
        "python is 3.12: it is a version in quotes",
        "@conda takes a dict of names and versions as packages, not ['a']",
        "disabled is 'yes'",
    ):
        assert text in said
