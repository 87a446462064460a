"""What a process printed, while it prints: kept in memory up to a bound, then in a file that has no name."""

import io
import threading
import weakref
from tempfile import SpooledTemporaryFile
from typing import Final

_IN_MEMORY_BYTES: Final = 1_000_000
"""Several hundred results of a sweep are kept at once by whoever compares them: most print little, and descriptors are few."""


class Captured:
    """One stream of a process. One thread writes, any thread reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - closed when nobody has it any more
        weakref.finalize(self, self._file.close)

    def append(self, data: bytes) -> None:
        """Add what came."""
        with self._lock:
            self._file.seek(0, io.SEEK_END)
            self._file.write(data)

    def text(self) -> str:
        """All of it. What is no UTF-8 is replaced."""
        with self._lock:
            self._file.seek(0)
            return self._file.read().decode(errors="replace")

    def line(self, position: int, *, ended: bool) -> tuple[int, str] | None:
        """The line that begins at a position.

        Args:
            position: In bytes from the beginning; where a line begins.
            ended: Nothing comes any more: what is left is a line without an end of line too.

        Returns:
            Where the next line begins, and the line without its end; None while it is not whole.
        """
        with self._lock:
            self._file.seek(position)
            found = self._file.readline()
        if not found or not (ended or found.endswith(b"\n")):
            return None
        return position + len(found), found.decode(errors="replace").rstrip("\r\n")
