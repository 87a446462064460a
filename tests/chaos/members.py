"""The processes of evflow that a fleet has: schedulers and workers of a pool, and what they say."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

WITHIN_S = 200.0


class Member:
    """A process of a fleet.

    Args:
        root: The test's folder.
        number: Which one of its kind it is.
    """

    command: ClassVar[tuple[str, ...]]
    begun: ClassVar[bytes]
    """What it says as soon as it heeds signals."""

    def __init__(self, root: Path, number: int) -> None:
        self.name = f"{self.command[0]}-{number}"
        self.said = root / self.name
        with self.said.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "evflow.cli", *self.command],
                env={**os.environ, "EVFLOW_LOG_LEVEL": "debug"},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM: it ends in order, unless it has not begun."""
        begun = self.begun in self.said.read_bytes()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WITHIN_S)
        assert code == 0 or (not begun and code == -signal.SIGTERM), (self.name, code, self.said.read_text()[-5_000:])

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None


class Scheduler(Member):
    """`evflow scheduler`."""

    command = ("scheduler", "--max-workers", "3")
    begun = b"share changes"


class Worker(Member):
    """`evflow worker`, of the pool in which the fleet's flow has steps."""

    command = ("worker", "--pool", "crew", "--slots", "2")
    begun = b"worker begins"
