"""A terminal of its own for a process: what it shows, and what is typed into it."""

import fcntl
import os
import pty
import select
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A pseudo-terminal, and the process that leads its session."""

    def __init__(self, command: Sequence[str], cwd: Path) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=_take_terminal
        )
        os.close(slave)
        self._seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        self.process.kill()
        self.process.wait()

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._master, keys)

    def screen(self) -> str:
        """Everything that was shown so far."""
        while self._master >= 0 and select.select([self._master], [], [], 0)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # its last user has gone
                break
            if not data:
                break
            self._seen += data
        return self._seen.decode(errors="replace")

    def ended(self) -> bool:
        """Whether the process has ended; its output is read so that it can."""
        self.screen()
        return self.process.poll() is not None

    def close(self) -> None:
        """Close the window."""
        if self._master >= 0:
            self.screen()
            os.close(self._master)
            self._master = -1
