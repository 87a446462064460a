"""Environments of packages from PyPI, resolved and built by uv.

A lock is a list of requirements with hashes, for every platform (`--universal`): a run that begins on one machine may have
tasks on another. What evflow itself needs is a constraint and no requirement: a package that the user asks for, and that
evflow imports as well, must be one that evflow can use.
"""

import os
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from evflow.environments.errors import CannotBuild, CannotResolve
from evflow.environments.spec import Lock, Spec
from evflow.environments.tools import Failed, index, run_uv

TASK_NEEDS: Final = ("anyio", "backports.zstd", "hiredis", "msgpack", "redis")
"""Packages that a task's process imports of evflow's: a user's version of one must be in evflow's range."""


def resolve(spec: Spec) -> Lock:
    """Find versions for what is asked for.

    Raises:
        CannotResolve: uv found none, or could not look.
        ToolMissing: There is no uv.
    """
    wanted = [requirement(name, version) for name, version in spec.packages.items()]
    text = _compiled(spec, wanted) if wanted else ""
    pinned = (line.split("\\")[0].split(";")[0].strip() for line in text.splitlines() if line and not line[0].isspace())
    return Lock("pypi", spec.python, tuple(sorted(pinned)), text)


def build(lock: Lock, folder: Path) -> Path:
    """Make the environment in a folder that does not exist yet; return its interpreter.

    Raises:
        CannotBuild: uv could not.
        ToolMissing: There is no uv.
    """
    python = folder / "bin" / "python"
    try:
        run_uv(["venv", "--no-project", "--quiet", "--python", interpreter(lock.python), str(folder)])
        if lock.text:
            with tempfile.TemporaryDirectory() as place:
                file = Path(place, "requirements.txt")
                file.write_text(lock.text, encoding="utf-8")
                run_uv(["pip", "sync", "--quiet", "--python", str(python), str(file)])
    except Failed as error:
        raise CannotBuild(f"of @pypi with Python {lock.python} and {len(lock.packages)} packages", index(), "uv", str(error)) from None
    return python


def requirement(name: str, version: str) -> str:
    """One package as pip takes it: `pandas==2.2.3`, `pandas>=2`, `tool @ git+https://…`."""
    version = version.strip()
    if version.startswith("@"):
        return f"{name} {version}"
    return f"{name}=={version}" if version[:1].isalnum() else f"{name}{version}"


def interpreter(python: str) -> str:
    """What uv is told to use for a version: the path of an interpreter that is here, else the version, which uv may download."""
    here = sys.version_info[:3]
    asked = python.split(".")
    if asked == [str(number) for number in here[: len(asked)]]:
        return sys.executable
    try:
        found = run_uv(["python", "find", "--no-project", "--no-python-downloads", python]).strip()
    except Failed:
        found = ""
    return found or _of_pyenv(python) or python


def _of_pyenv(python: str) -> str:
    """An interpreter that pyenv has and does not show on the PATH."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    fits = [folder for folder in root.glob("versions/*") if f"{folder.name}.".startswith(f"{python}.")]
    newest = max(fits, key=lambda folder: [int(part) if part.isdigit() else -1 for part in folder.name.split(".")], default=None)
    return str(newest / "bin" / "python") if newest is not None else ""


def own_ranges() -> list[str]:
    """What evflow can use of the packages that its tasks import, as requirements."""
    try:
        all_of_ours = requires("evflow") or []
    except PackageNotFoundError:  # run from a folder: nothing is known
        return []
    return [one.replace("[hiredis]", "") for one in all_of_ours if one.split(">")[0].split("[")[0] in TASK_NEEDS and "extra ==" not in one]


def _compiled(spec: Spec, wanted: list[str]) -> str:
    python = interpreter(spec.python)
    with tempfile.TemporaryDirectory() as place:
        constraints = Path(place, "constraints.txt")
        constraints.write_text("\n".join(own_ranges()), encoding="utf-8")
        told = ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--no-progress", "--no-python-downloads"]
        told += ["--python-version", spec.python, "--constraint", str(constraints)]
        if python != spec.python:
            told += ["--python", python]
        try:
            return run_uv(["pip", "compile", "--quiet", *told, "-"], stdin="\n".join(wanted))
        except Failed as error:
            raise CannotResolve(str(spec), index(), "uv", str(error)) from None
