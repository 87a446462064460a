"""Parsers for `Config` and `IncludeFile`: from a file's text to what it says.

What the standard library lacks is imported when it is used: PyYAML and packaging come with `evflow[parsers]`, or by themselves.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, cast

from evflow.errors import EnvironmentProblem, UsageError

_COMMENT = re.compile(r"\s+#.*$")
_CONDA_LINE = re.compile(r"^(?P<package>(?:[\w.\-/]+::)?[\w.\-]+(?:\[[\w.,\-]+\])?)\s*(?P<version>.*)$")


class ParserNeedsPackage(EnvironmentProblem):
    """A parser needs a package that is not installed."""

    code = "parser-needs-package"

    def __init__(self, parser: str, package: str) -> None:
        super().__init__(
            f"{parser} needs the package {package}, which is not installed.", f"Install it: pip install {package}, or evflow[parsers]."
        )


class ParserFailed(UsageError):
    """A text is not what its parser takes."""

    code = "parser-failed"


def yaml_parser(content: str) -> Any:
    """What a YAML text says; needs PyYAML.

    Raises:
        ParserNeedsPackage: PyYAML is not installed.
        ParserFailed: It is no YAML, or asks for objects of Python's.
    """
    yaml = _imported("yaml_parser", "yaml", "PyYAML")
    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        why = error if place is None else f"{error.problem} at line {place.line + 1}, column {place.column + 1}"
        raise ParserFailed(f"It is no YAML: {why}.") from None


def toml_parser(content: str) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        ParserFailed: It is no TOML.
    """
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ParserFailed(f"It is no TOML: {error}.") from None


def requirements_txt_parser(content: str) -> dict[str, Any]:
    """The packages that a `requirements.txt` asks for: `{"packages": {name: version}, "python": version or None}`.

    Each line is a requirement of PEP 508 without markers. A version loses its `==`, others keep their operator; one at a URL is
    `@ URL`; extras are part of the name; `python` is not among the packages. Needs packaging.

    Raises:
        ParserNeedsPackage: packaging is not installed.
        ParserFailed: A line is something else.
    """
    lines = (_COMMENT.sub("", line.strip()).strip() for line in content.splitlines())
    return _required("requirements_txt_parser", (line for line in lines if line and not line.startswith("#") and line != "-e file:."), None)


def pyproject_toml_parser(content: str) -> dict[str, Any]:
    """The packages that the `[project]` table of a `pyproject.toml` asks for, in the form of `requirements_txt_parser`.

    Raises:
        ParserNeedsPackage: packaging is not installed.
        ParserFailed: It is no TOML, or a dependency is no requirement of PEP 508 without markers.
    """
    project = toml_parser(content).get("project", {})
    if not isinstance(project, dict):
        raise ParserFailed("'project' is no table.")
    python = cast("dict[str, Any]", project).get("requires-python")
    if not isinstance(python, str | None):
        raise ParserFailed(f"'requires-python' is {python!r}, and no text.")
    wanted = _texts("dependencies", cast("dict[str, Any]", project).get("dependencies", []))
    return _required("pyproject_toml_parser", wanted, None if python is None else python.lstrip(" ="))


def conda_environment_yml_parser(content: str) -> dict[str, Any]:
    """The packages that conda's `environment.yml` asks for, in the form of `requirements_txt_parser`; needs PyYAML.

    Raises:
        ParserNeedsPackage: PyYAML is not installed.
        ParserFailed: It is no YAML, or has dependencies for pip.
    """
    read: Any = yaml_parser(content)
    found: list[Any] = (cast("Any", read).get("dependencies") or []) if isinstance(read, Mapping) else []
    packages: dict[str, str] = {}
    python: str | None = None
    if isinstance(cast("object", found), list) and any(isinstance(line, dict) for line in found):
        raise ParserFailed("Dependencies for pip have no place here.", "Give them in a file of their own.")
    for line in _texts("dependencies", found):
        parts = _CONDA_LINE.match(line.strip())
        if parts is None:
            raise ParserFailed(f"The dependency {line!r} is no package with a version.")
        name, version = parts["package"], parts["version"].strip().lstrip(" =")
        if name.lower() == "python":
            python = version or None
        else:
            packages[name] = version
    return {"packages": packages, "python": python}


def _texts(name: str, given: object) -> list[str]:
    if isinstance(given, list) and all(isinstance(one, str) for one in cast("list[object]", given)):
        return cast("list[str]", given)
    raise ParserFailed(f"'{name}' is no list of texts.")


def _required(parser: str, lines: Iterable[str], python: str | None) -> dict[str, Any]:
    requirements = _imported(parser, "packaging.requirements", "packaging")
    packages: dict[str, str] = {}
    for line in lines:
        try:
            wanted = requirements.Requirement(line)
        except requirements.InvalidRequirement as error:
            raise ParserFailed(f"{line!r} is no requirement of PEP 508: {str(error).splitlines()[0]}.") from None
        if wanted.marker is not None:
            raise ParserFailed(f"The requirement {line!r} has a marker, which has no meaning here.", "Write it without `; …`.")
        version = f"@ {wanted.url}" if wanted.url else str(wanted.specifier).lstrip(" =")
        if wanted.name.lower() == "python":
            python = version
        else:
            extras = f"[{','.join(sorted(cast('set[str]', wanted.extras)))}]" if wanted.extras else ""
            packages[f"{wanted.name}{extras}"] = version
    return {"packages": packages, "python": python}


def _imported(parser: str, module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise ParserNeedsPackage(parser, package) from None
