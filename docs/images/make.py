"""Make the pictures of terminals that the pages show, from real runs in a real terminal.

    python docs/images/make.py             all of them
    python docs/images/make.py live        one

A private tmux, of which nothing outlives the script, is the terminal; rich turns what its screen shows into an SVG
without fonts or links of its own. The flows are `examples/cross_validation.py` and the one of `docs/runs.md`. A picture
differs a little each time: it is what the terminal showed. Only the host's name and the folder's are replaced.
"""

# ruff: noqa: D102, T201, TID253 - a script: it talks to a terminal and is imported by nobody

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.text import Text

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parent.parent
COLUMNS = 116
HOST, USER = "laptop", "ada"
DEADLINE_S = 90.0

SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Terminal:
    """A shell in a terminal of its own, with this checkout's programs and an empty home."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._tmux = ["tmux", "-f", "/dev/null", "-L", f"evflow-pictures-{os.getpid()}"]
        variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "EVFLOW_HOME": str(folder / "e"),
            "EVFLOW_LINGER_S": "0",
            "EVFLOW_USER": USER,
            "PS1": "$ ",
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
        }
        shell = ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), "sh"]
        self._do("new-session", "-d", "-x", str(COLUMNS), "-y", str(rows), "-c", str(folder), shlex.join(shell))
        self.wait(lambda text: text.startswith("$"), "the shell is there")

    def _do(self, *arguments: str) -> str:
        return subprocess.run([*self._tmux, *arguments], check=True, capture_output=True, text=True, timeout=30).stdout

    def type(self, line: str) -> None:
        self._do("send-keys", "-l", line)
        self._do("send-keys", "Enter")

    def interrupt(self) -> None:
        self._do("send-keys", "C-c")

    def clear(self) -> None:
        self.type("clear")
        self.wait(lambda text: text.strip() == "$", "the screen is empty")

    def run(self, line: str) -> None:
        """Type a command and wait for its end."""
        self.type(f"{line}; echo 'over''now'")
        self.wait(lambda text: "overnow" in text, line)

    def screen(self, *, styled: bool = False) -> str:
        return self._do("capture-pane", "-p", *(["-e", "-J"] if styled else []))

    def wait(self, reached: Callable[[str], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not reached(self.screen()):
            if time.monotonic() > deadline:
                raise SystemExit(f"The terminal never came to this: {what}\n{self.screen()}")
            time.sleep(0.05)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True, timeout=30)


def picture(name: str, title: str, screen: str, folder: Path) -> None:
    """Write what a terminal shows as an SVG."""
    screen = re.sub(rf"\b{re.escape(os.uname().nodename)}\b", HOST, screen).replace(str(folder), f"/home/{USER}").rstrip()
    text = Text.from_ansi("\n".join(line.rstrip() for line in screen.splitlines()), no_wrap=True, overflow="crop")
    # Each run of words gets a place of its own, so that columns stand where they should in any font.
    for number, words in enumerate(re.finditer(r"\S+(?: \S+)*", text.plain)):
        text.stylize(Style(meta={"words": number}), *words.span())
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(text)
    svg = console.export_svg(title=title, code_format=SVG, unique_id=name)
    path = FOLDER / f"{name}.svg"
    path.write_text("".join(line.rstrip() + "\n" for line in svg.splitlines()), encoding="utf-8")
    print(f"{path.relative_to(REPOSITORY)}  {path.stat().st_size:,} bytes")


def live(folder: Path) -> None:
    """The live view in the middle of a run, with lines of tasks above it."""
    (folder / "cross_validation.py").write_text(
        (REPOSITORY / "examples" / "cross_validation.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    terminal = Terminal(folder, rows=18)
    try:
        command = "python cross_validation.py run --folds 12 --max-workers 3"
        terminal.type(f"clear; echo '$ {command}'; {command}")
        terminal.wait(lambda text: re.search(r"fit +\S+ +(3\d|4\d)/72", text) is not None, "half of the fits are done")
        picture("live", command, terminal.screen(styled=True), folder)
        terminal.interrupt()
        terminal.wait(lambda text: "cancelled after" in text, "the run is cancelled")
        terminal.run("evflow server status")
    finally:
        terminal.close()


def replay(folder: Path) -> None:
    """The story of a run that was killed, continued and retried."""
    page = (REPOSITORY / "docs" / "runs.md").read_text(encoding="utf-8")
    flow = re.search(r"<!-- file: train.py -->\n```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert flow is not None, "docs/runs.md has the flow"
    (folder / "train.py").write_text(flow[1], encoding="utf-8")
    terminal = Terminal(folder, rows=40)
    try:
        terminal.type("sh -c 'echo $$ > pid; exec python train.py run --max-workers 2 --seconds 0.8 --flaky 1'")
        terminal.wait(lambda text: re.search(r"fit +\S+ +3/4 +1 running", text) is not None, "fold 1 is tried again")
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        terminal.wait(lambda text: "Killed" in text, "the run's process is dead")
        terminal.run("evflow continue Train")
        terminal.clear()
        command = "evflow replay Train && evflow replay Train --verify"
        terminal.run(command)
        shown = terminal.screen(styled=True)
        lines = [line for line in shown.partition("overnow")[0].rstrip().splitlines() if "; echo 'over" not in line]
        picture("replay", command, "\n".join([f"$ {command}", *lines]), folder)
    finally:
        terminal.close()


if __name__ == "__main__":
    for make in (live, replay):
        if make.__name__ in (sys.argv[1:] or [make.__name__]):
            with tempfile.TemporaryDirectory(prefix="ev-", dir="/tmp") as place:
                make(Path(place))
