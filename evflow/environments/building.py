"""Resolve and build: what `python -m evflow.environments` does for other processes, once however many of them ask.

The process that asks gives JSON on the standard input and gets JSON on the standard output, an error included.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from evflow.clock import now_us
from evflow.environments import pypi, support
from evflow.environments.cache import Built, Cache
from evflow.environments.errors import CannotBuild, EnvironmentUnavailable
from evflow.environments.spec import Lock, Spec
from evflow.environments.tools import index
from evflow.errors import EvflowError

COMMAND: Final = ("-P", "-m", "evflow.environments")
MAX_BYTES: Final = 20_000_000_000
"""What the environments of a machine may take, all together, before those go that were not used for the longest time."""
_ASK: Final = """import json, sys, sysconfig
print(json.dumps([".".join(map(str, sys.version_info[:3])), sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag,
    sysconfig.get_path("purelib")]))"""


class Reported(EnvironmentUnavailable):
    """An error of the process that resolves and builds, as it told it."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.__dict__["code"] = code


# --- in the process that asks ------------------------------------------------------------------------------


def resolved(home: Path, spec: Spec) -> Lock:
    """The lock for what is asked for; one that was found before holds until somebody removes it (`evflow env prune --resolved`). Blocking.

    Raises:
        EvflowError: There is none.
    """
    spec = spec.settled()
    place = _place(home, spec)
    try:
        return Lock.from_bytes(place.read_bytes())
    except (OSError, ValueError):
        pass
    asked = {"act": "resolve", "kind": spec.kind, "packages": dict(spec.packages), "python": spec.python}
    lock = Lock.from_bytes(json.dumps(_answer_of(json.dumps(asked).encode())["lock"]).encode())
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(f".{os.getpid()}")
    part.write_bytes(lock.to_bytes())
    part.replace(place)
    return lock


def is_known(home: Path, spec: Spec) -> bool:
    """Whether `resolved` gives an answer without asking an index."""
    return _place(home, spec.settled()).exists()


def order(home: Path, lock: Lock) -> bytes:
    """What the process is told that builds an environment."""
    return json.dumps({"act": "build", "home": str(home), "lock": json.loads(lock.to_bytes())}).encode()


def answer(code: int, stdout: bytes, stderr: bytes) -> dict[str, Any]:
    """What the process answered.

    Raises:
        Reported: It could not do what it was asked to.
    """
    try:
        said: dict[str, Any] = json.loads(stdout)
    except ValueError:
        text = stderr.decode(errors="replace").strip()[-1_000:]
        raise Reported(
            "environment-unavailable", f"What makes environments ended with code {code}: {text or 'it said nothing'}", ""
        ) from None
    if "error" in said:
        raise Reported(*said["error"])
    return said


def found_here(home: Path, lock: Lock) -> tuple[Built, Path] | None:
    """The environment of a lock and its support, where both are whole."""
    cache = Cache(home)
    built = cache.ready(lock.name)
    if built is None:
        return None
    beside = support.folder_of(cache.root, built.abi)
    return (built, beside) if support.is_there(beside) else None


def _answer_of(asked: bytes) -> dict[str, Any]:
    """Ask a process and wait for it; whoever is interrupted meanwhile leaves nothing of it."""
    command = [sys.executable, *COMMAND]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        stdout, stderr = process.communicate(asked)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return answer(process.returncode, stdout, stderr)


# --- in the process that does it ---------------------------------------------------------------------------


def act(asked: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; errors of ours become answers."""
    try:
        if asked["act"] == "resolve":
            spec = Spec(asked["kind"], asked["packages"], asked["python"])
            return {"lock": json.loads(_tool(spec.kind).resolve(spec).to_bytes())}
        lock = Lock.from_bytes(json.dumps(asked["lock"]).encode())
        built, how = ensure(Path(asked["home"]), lock)
    except EvflowError as error:
        return {"error": [error.code, error.message, error.hint]}
    return {"built": built.to_plain(), "how": how}


def ensure(home: Path, lock: Lock) -> tuple[Built, str]:
    """Have an environment and its support; who comes second waits for the first, and builds nothing.

    Returns:
        The environment, and `built` or `reused`.

    Raises:
        EvflowError: It cannot be built.
    """
    cache, how = Cache(home), "reused"
    built = cache.ready(lock.name)
    if built is None:
        with cache.alone(lock.name):
            built = cache.ready(lock.name)
            if built is None:
                built, how = _build(cache, lock), "built"
        cache.prune([name for name in cache.surplus(max_bytes=MAX_BYTES) if name != lock.name])
    beside = support.folder_of(cache.root, built.abi)
    if not support.is_there(beside):
        beside.parent.mkdir(parents=True, exist_ok=True)
        with cache.alone(f"support-{beside.name}"):
            support.make(beside, built.abi, Path(built.python))
    return built, how


def _build(cache: Cache, lock: Lock) -> Built:
    began_us = now_us()
    cache.clear(lock.name)
    folder = cache.folder(lock.name)
    python = _tool(lock.kind).build(lock, folder)
    done = subprocess.run([str(python), "-I", "-c", _ASK], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuild(f"of @{lock.kind}", index(), "its interpreter", done.stderr)
    version, abi, packages = json.loads(done.stdout)
    Path(packages).mkdir(parents=True, exist_ok=True)
    Path(packages, support.PTH_FILE).write_text(support.PTH, encoding="utf-8")
    at_us = now_us()
    installed = _installed(lock.kind, folder, Path(packages))
    built = Built(lock.name, lock.kind, str(python), version, abi, len(installed), _size_bytes(folder), at_us, at_us - began_us, installed)
    cache.finish(built, lock)
    return built


def _tool(kind: str) -> Any:
    if kind == "pypi":
        return pypi
    from evflow.environments import conda

    return conda


def _place(home: Path, spec: Spec) -> Path:
    if spec.kind == "pypi":
        source: Sequence[str] = [index(), *pypi.own_ranges()]
    else:
        from evflow.environments.conda import channels

        source = [*channels(), *pypi.own_ranges()]
    return Cache(home).root / "resolved" / f"{spec.key(*source)}.json"


def _installed(kind: str, folder: Path, packages: Path) -> tuple[str, ...]:
    """What an environment has, by the files that its tool leaves beside each package."""
    if kind == "conda":
        return tuple(sorted(file.stem for file in (folder / "conda-meta").glob("*.json")))
    found = (place.name.removesuffix(".dist-info").rpartition("-") for place in packages.glob("*.dist-info"))
    return tuple(sorted(f"{name.replace('_', '-').lower()}=={version}" for name, _, version in found))


def _size_bytes(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        total += sum(os.lstat(os.path.join(place, name)).st_size for name in files)  # noqa: PTH118 - there may be 100,000 of them
    return total
