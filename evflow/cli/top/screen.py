"""The whole terminal for `evflow top`: drawn by the main thread, while another one reads the log.

A terminal that does not take what is written holds up the drawing alone. What was on the terminal is there again at the end,
however it comes.
"""

import contextlib
import os
import queue
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Generator
from types import FrameType
from typing import Any, Final, NoReturn, TextIO

from rich.console import Console  # noqa: TID253 - this module is imported lazily itself

from evflow.cli.panel import ASCII, UNICODE
from evflow.cli.render import use_color
from evflow.cli.top import keys
from evflow.cli.top.overview import Overview, Wish
from evflow.cli.top.panel import lines
from evflow.cli.top.watch import Watch
from evflow.errors import EvflowError

FRAME_S: Final = 0.5
"""Clocks move so often; changes are drawn at once, but no faster than a tenth of this."""
_LOOK_S: Final = 0.5
_AGAIN_AFTER_S: Final = 1.0
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


def show(watch: Watch, wish: Wish) -> None:
    """Show what goes on until the user has seen enough."""
    reader = _Reader(watch)
    thread = threading.Thread(target=reader.work, name="evflow-top", daemon=True)
    thread.start()
    try:
        with _terminal(sys.stdin, sys.stdout):
            _draw(reader, wish)
    except KeyboardInterrupt:
        return
    finally:
        reader.ending.set()
        thread.join(_LOOK_S + 1.0)


class _Reader:
    """Looks at the log again and again, in a thread; the last overview counts."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.ending = threading.Event()
        self.overviews: queue.SimpleQueue[Overview | BaseException] = queue.SimpleQueue()
        self.woken_r, self.woken_w = os.pipe()
        os.set_blocking(self.woken_w, False)

    def work(self) -> None:
        while not self.ending.is_set():
            trouble = ""
            try:
                self._watch.look(_LOOK_S)
            except EvflowError as error:
                trouble = error.message
            except BaseException as error:  # noqa: BLE001 - a defect: raised where the terminal can be left first
                self._tell(error)
                return
            self._tell(self._watch.overview(trouble))
            self.ending.wait(_AGAIN_AFTER_S if trouble else FRAME_S / 10)

    def _tell(self, said: Overview | BaseException) -> None:
        self.overviews.put(said)
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.write(self.woken_w, b".")

    def newest(self, before: Overview | None) -> Overview | None:
        found = before
        while not self.overviews.empty():
            said = self.overviews.get()
            if isinstance(said, BaseException):
                raise said
            found = said
        return found


def _draw(reader: _Reader, wish: Wish | None) -> None:
    console = Console(color_system="standard" if use_color(sys.stdout) else None, force_terminal=True, legacy_windows=False, width=1_000)
    glyphs = UNICODE if (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf") else ASCII
    overview: Overview | None = None
    keyboard = sys.stdin.fileno()
    while wish is not None:
        overview = reader.newest(overview)
        if overview is not None:
            size = os.get_terminal_size(sys.stdout.fileno())
            width, height = size.columns or 80, size.lines or 24
            drawn = [_rendered(console, line) for line in lines(overview, wish, width=width, height=height, glyphs=glyphs)]
            body = f"{_CLEAR_LINE}\r\n".join(drawn)
            sys.stdout.write(f"{_BEGIN}{_HOME}{body}{_CLEAR_LINE}{_CLEAR_BELOW}{_END}")
            sys.stdout.flush()
        ready, _, _ = select.select([keyboard, reader.woken_r], [], [], FRAME_S)
        if reader.woken_r in ready:
            os.read(reader.woken_r, 4_096)
        if keyboard in ready:
            typed = os.read(keyboard, 1_024).decode(errors="ignore")
            if not typed:  # the terminal is gone
                return
            wish = _after_all(wish, typed)


def _after_all(wish: Wish, typed: str) -> Wish | None:
    """Take keys in; the sequences of arrows and their like mean nothing."""
    if typed.startswith("\x1b") and len(typed) > 1:
        return wish
    now: Wish | None = wish
    for key in typed:
        if now is None:
            break
        now = keys.after(now, key)
    return now


def _rendered(console: Console, line: Any) -> str:
    with console.capture() as capture:
        console.print(line, end="", soft_wrap=True)
    return capture.get()


@contextlib.contextmanager
def _terminal(keyboard: TextIO, out: TextIO) -> Generator[None]:
    """Take the terminal: each key comes at once and unseen, on a page of its own."""
    before = termios.tcgetattr(keyboard)
    handler = signal.signal(signal.SIGTERM, _leave)
    try:
        tty.setcbreak(keyboard)
        out.write(_ENTER)
        out.flush()
        yield
    finally:
        with contextlib.suppress(OSError):  # the terminal is gone
            out.write(_LEAVE)
            out.flush()
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, handler)


def _leave(_: int, __: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)
