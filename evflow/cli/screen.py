"""Writes a run's output to the terminal from a thread of its own, with a panel below it.

A terminal can stop reading (Ctrl-S, a pager in a pipe), and then a write blocks for as long as it likes. The scheduler must
go on meanwhile, so it hands its lines and pictures over and never waits for them. Lines wait in a bounded queue; beyond
the bound they are counted and left out (the captured logs have them all). Of pictures only the last one counts.

The panel is the lower end of the output: it is erased, the new lines are written, it is drawn again, in one write.
"""

import errno
import os
import threading
from collections import deque
from typing import Any, TextIO

from evflow.cli.picture import Picture
from evflow.cli.streams import to_nowhere

MAX_PENDING = 4_000_000
"""Characters that wait for a terminal that does not read."""
FRAME_S = 0.1
"""The shortest time between two frames of the panel."""

_ERASE_BELOW = "\x1b[J"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronised output: terminals that know it show the frame at once, others ignore it."""
_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk takes no more. Where the reader has gone (EPIPE, EIO), nobody wants to know."""


class Screen:
    """A stream that is written by a thread.

    Args:
        stream: Where to write.
        live: Draw the panel below the lines.
        colored: Draw it in colors.
    """

    def __init__(self, stream: TextIO, *, live: bool, colored: bool) -> None:
        self._stream = stream
        self._live = live
        self._colored = colored
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()
        self._pending = 0
        self._left_out = 0
        self._picture: Picture | None = None
        self._closing = False
        self.refused = ""
        """Why the stream took nothing any more, unless its reader went away; empty if it took everything."""
        self._broken = False
        self._painter: Any = None
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Queue a line (or several), which gets its line end here."""
        with self._changed:
            if self._pending + len(text) > MAX_PENDING:
                self._left_out += 1
                return
            self._pending += len(text)
            self._lines.append(text)
            self._wake()

    def show(self, picture: Picture) -> None:
        """Draw the panel of this picture soon; of several the last one."""
        if not self._live:
            return
        with self._changed:
            self._picture = picture
            self._wake()

    def close(self) -> None:
        """Write what waits, take the panel away, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            # No deadline: all that this process still owes is its output, and Ctrl-C ends the wait.
            self._thread.join()

    def _wake(self) -> None:
        if self._thread is None:
            # Not at the start: the fork server must have been forked before any thread exists.
            self._thread = threading.Thread(target=self._work, name="evflow-screen", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                # No deadline: whatever there is to do notifies.
                self._changed.wait_for(lambda: self._lines or self._picture or self._closing)
                lines, picture, closing = list(self._lines), self._picture, self._closing
                left_out, self._left_out = self._left_out, 0
                self._lines.clear()
                self._pending, self._picture = 0, None
            if left_out:
                lines.append(f"({left_out} lines are not shown here; `evflow logs` has them)")
            self._put(lines, None if closing else picture, clear=closing)
            if closing:
                return
            if picture is not None:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, timeout=FRAME_S)

    def _put(self, lines: list[str], picture: Picture | None, *, clear: bool) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if picture is not None or self._painter is not None:
            text = self._paint(text, picture, clear=clear)
        if not text or self._broken:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as error:
            # The reader or the terminal went away, or the disk is full: the run goes on, its logs are kept.
            self._broken = True
            if isinstance(error, OSError) and error.errno in _REFUSALS:
                self.refused = os.strerror(error.errno)
            to_nowhere(self._stream)

    def _paint(self, text: str, picture: Picture | None, *, clear: bool) -> str:
        if self._painter is None:
            self._painter = Painter(self._stream, colored=self._colored)
        return str(self._painter.frame(text, picture, clear=clear))


class Painter:
    """Turns lines and a picture into what the terminal must be sent; it knows what is on it.

    Args:
        stream: The terminal, asked for its encoding and size only.
        colored: Draw in colors.
        size: Columns and rows, for tests; the terminal's own if not given.
    """

    def __init__(self, stream: TextIO, *, colored: bool, size: tuple[int, int] | None = None) -> None:
        from rich.console import Console

        from evflow.cli import panel

        self._panel = panel
        self._size = size
        self._stream = stream
        unicode = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")
        self._glyphs = panel.UNICODE if unicode else panel.ASCII
        self._console = Console(color_system="standard" if colored else None, force_terminal=True, legacy_windows=False, width=400)
        self._drawn: list[int] = []
        self._picture: Picture | None = None

    def frame(self, text: str, picture: Picture | None, *, clear: bool = False) -> str:
        """What to send so that the lines stand above the panel.

        Args:
            text: New lines, each with its end.
            picture: The panel; None keeps the last one.
            clear: Take the panel away.
        """
        width, height = self._size or _size_of(self._stream)
        self._picture = None if clear else picture or self._picture
        if self._picture is None:
            drawn: list[str] = []
            widths: list[int] = []
        else:
            lines = self._panel.panel(self._picture, width=width, height=max(height - 2, 3), glyphs=self._glyphs)
            drawn = [self._render(line) for line in lines]
            widths = [line.cell_len for line in lines]
        up = self._rows(width)
        self._drawn = widths
        erase = (f"\x1b[{up}A\r{_ERASE_BELOW}") if up else ""
        return f"{_BEGIN}{erase}{text}{''.join(f'{line}{chr(10)}' for line in drawn)}{_END}"

    def _rows(self, width: int) -> int:
        """Rows that the panel takes now; a terminal that became narrower has wrapped its lines."""
        return sum(max(1, -(-cells // width)) for cells in self._drawn)

    def _render(self, line: Any) -> str:
        with self._console.capture() as capture:
            self._console.print(line, end="", soft_wrap=True)
        return capture.get()


def _size_of(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24


def is_terminal(stream: TextIO) -> bool:
    """Whether a panel can be drawn on the stream."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb") and not os.environ.get("CI")
