"""Environments of conda packages, resolved and built by rattler.

A lock is a lock file of rattler's for the platform that resolved it. Imported by `python -m evflow.environments` only: rattler
brings threads and an event loop of its own.
"""

import asyncio
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

from evflow.environments.errors import CannotBuild, CannotResolve, ToolMissing
from evflow.environments.pypi import own_ranges
from evflow.environments.spec import Lock, Spec
from evflow.environments.tools import without_password

CHANNELS_VARIABLE: Final = "CONDA_CHANNELS"
"""conda's own: channels, separated by commas or spaces, the first one first."""
DEFAULT_CHANNELS: Final = ("conda-forge",)
_NAMES: Final = {"msgpack": "msgpack-python", "redis": "redis-py"}
"""What packages of evflow's tasks are called in conda-forge, where it is not their own name."""


def channels() -> tuple[str, ...]:
    """Where packages come from."""
    said = os.environ.get(CHANNELS_VARIABLE, "").replace(",", " ").split()
    return tuple(said) or DEFAULT_CHANNELS


def shown_channels() -> str:
    """Where packages come from, for people: without passwords and tokens."""
    return ", ".join(re.sub(r"/t/[^/]+/", "/t/…/", without_password(one)) for one in channels())


def resolve(spec: Spec) -> Lock:
    """Find packages for what is asked for, on this platform.

    Raises:
        CannotResolve: rattler found none, or could not look.
        ToolMissing: There is no rattler.
    """
    rattler = _rattler()
    try:
        return asyncio.run(_solved(rattler, spec))
    except ToolMissing:
        raise
    except Exception as error:  # rattler has a class for each of its parts
        raise CannotResolve(str(spec), shown_channels(), "rattler", _said(error)) from error


def build(lock: Lock, folder: Path) -> Path:
    """Make the environment in a folder that does not exist yet; return its interpreter.

    Raises:
        CannotBuild: rattler could not.
        ToolMissing: There is no rattler.
    """
    rattler = _rattler()
    asked = f"of @conda with {len(lock.packages)} packages for {lock.platform}"
    here = str(rattler.Subdir.current())
    if lock.platform != here:
        raise CannotBuild(asked, "its lock", "rattler", f"it was resolved for {lock.platform}; this machine is {here}")
    try:
        asyncio.run(_installed(rattler, lock, folder))
    except Exception as error:  # as above
        raise CannotBuild(asked, shown_channels(), "rattler", _said(error)) from error
    python = folder / "bin" / "python"
    if not python.exists():
        raise CannotBuild(asked, shown_channels(), "rattler", f"the package 'python' of this channel brings no {python.name}")
    return python


def match_spec(name: str, version: str) -> str:
    """One package as conda takes it: `pandas ==2.2.3`, `pandas >=2`, `conda-forge::pandas ==2.2.3`."""
    version = version.strip()
    if not version:
        return name
    return f"{name} =={version}" if version[0].isalnum() else f"{name} {version}"


def python_spec(python: str) -> str:
    """The package of Python itself: `3.12` means any 3.12."""
    if not python[:1].isdigit():
        return f"python {python}"
    return f"python =={python}" if python.count(".") > 1 else f"python {python}.*"


async def _solved(rattler: Any, spec: Spec) -> Lock:
    subdir = rattler.Subdir.current()
    wanted = [python_spec(spec.python), *(match_spec(name, version) for name, version in spec.packages.items())]
    records = await rattler.solve(
        sources=list(channels()),
        specs=wanted,
        virtual_packages=rattler.VirtualPackage.detect(),
        constraints=list(_own_constraints()),
        channel_priority=rattler.ChannelPriority.Strict,
        timestamp_policy="allow-missing",
    )
    platform = rattler.LockPlatform(str(subdir))
    lock = rattler.LockFile([platform])
    lock.set_channels("default", [rattler.LockChannel(rattler.Channel(one).base_url) for one in channels()])
    for record in records:
        lock.add_conda_package("default", platform, record)
    with tempfile.TemporaryDirectory() as place:
        lock.to_path(Path(place, "lock"))
        text = Path(place, "lock").read_text(encoding="utf-8")  # noqa: ASYNC240 - nothing else is in this loop
    found = {record.name.normalized: record for record in records}
    shown = sorted(f"{name} {record.version} {record.build}" for name, record in found.items())
    python = str(found["python"].version) if "python" in found else spec.python
    return Lock("conda", python, tuple(shown), text, str(subdir))


async def _installed(rattler: Any, lock: Lock, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "lock")
        file.write_text(lock.text, encoding="utf-8")  # noqa: ASYNC240 - as above
        environment = rattler.LockFile.from_path(file).default_environment()
        records = next(environment.conda_repodata_records_for_platform(one) for one in environment.platforms())
    await rattler.install(records, target_prefix=folder, show_progress=False, execute_link_scripts=False)


def _own_constraints() -> list[str]:
    """What evflow can use of the packages that its tasks import."""
    found: list[str] = []
    for one in own_ranges():
        name, least, version = one.partition(">=")
        if least:
            found.append(f"{_NAMES.get(name, name)} >={version.split(';')[0].strip()}")
    return found


def _rattler() -> Any:
    try:
        import rattler
    except ImportError as error:
        raise ToolMissing("conda", "rattler (py-rattler)") from error
    return rattler


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
