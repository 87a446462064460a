"""Parsers: what a file's text says, and what they say of a text that is something else."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from evflow import conda_environment_yml_parser, pyproject_toml_parser, requirements_txt_parser, toml_parser, yaml_parser
from evflow.flow.parsers import ParserFailed, ParserNeedsPackage

REQUIREMENTS = """
# what we need
-e file:.
numpy==2.1  # exact
pandas>=2,<3
requests[socks]
lib @ https://example.org/lib.whl
python==3.12
"""
PACKAGES = {"numpy": "2.1", "pandas": "<3,>=2", "requests[socks]": "", "lib": "@ https://example.org/lib.whl"}


def test_yaml_and_toml_say_what_they_say() -> None:
    assert yaml_parser("a: {b: [1, x]}") == {"a": {"b": [1, "x"]}}
    assert toml_parser("[a]\nb = [1]") == {"a": {"b": [1]}}


def test_requirements_become_packages_and_a_python() -> None:
    assert requirements_txt_parser(REQUIREMENTS) == {"packages": PACKAGES, "python": "3.12"}
    assert requirements_txt_parser("") == {"packages": {}, "python": None}


def test_a_pyproject_becomes_packages_and_a_python() -> None:
    text = '[project]\nrequires-python = "==3.11"\ndependencies = ["numpy==2.1", "lib"]'
    assert pyproject_toml_parser(text) == {"packages": {"numpy": "2.1", "lib": ""}, "python": "3.11"}
    assert pyproject_toml_parser("") == {"packages": {}, "python": None}


def test_a_conda_environment_becomes_packages_and_a_python() -> None:
    text = "dependencies: [python=3.10, numpy=2.1, 'conda-forge::tqdm>=4', 'six >=1']"
    assert conda_environment_yml_parser(text) == {"packages": {"numpy": "2.1", "conda-forge::tqdm": ">=4", "six": ">=1"}, "python": "3.10"}
    assert conda_environment_yml_parser("") == {"packages": {}, "python": None}


@pytest.mark.parametrize(
    ("parser", "text", "why"),
    [
        (yaml_parser, "a: [", r"^It is no YAML: [^\n]* at line 1, column 5\.$"),
        (yaml_parser, "!!python/object/apply:os.getcwd []", "no YAML"),
        (toml_parser, "a = ", "no TOML"),
        (requirements_txt_parser, "numpy ==", "PEP 508"),
        (requirements_txt_parser, "numpy; sys_platform == 'linux'", "marker"),
        (pyproject_toml_parser, "[project", "no TOML"),
        (pyproject_toml_parser, "project = 3", "'project' is no table"),
        (pyproject_toml_parser, "[project]\nrequires-python = 3", "'requires-python' is 3"),
        (pyproject_toml_parser, "[project]\ndependencies = 'numpy'", "'dependencies' is no list"),
        (conda_environment_yml_parser, "dependencies: 3", "'dependencies' is no list"),
        (conda_environment_yml_parser, "dependencies: [{pip: [numpy]}]", "for pip"),
    ],
)
def test_a_text_that_is_something_else_is_told(parser: Callable[[str], Any], text: str, why: str) -> None:
    with pytest.raises(ParserFailed, match=why):
        parser(text)


@pytest.mark.parametrize(
    ("parser", "module", "package"), [(yaml_parser, "yaml", "PyYAML"), (requirements_txt_parser, "packaging.requirements", "packaging")]
)
def test_a_package_that_is_not_installed_is_named(
    parser: Callable[[str], Any], module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent:
        """Finds that there is no such package."""

        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == module.partition(".")[0]:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name.partition(".")[0])

    for name in [name for name in sys.modules if name.partition(".")[0] == module.partition(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(ParserNeedsPackage, match=rf"needs the package {package}.*not installed"):
        parser("a: 1")
