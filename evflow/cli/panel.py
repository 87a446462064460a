"""A run's picture as lines of a terminal: the part of the live view that is a pure function.

    ───────────────────────────────────────────────────────────────────────────────
    TrainFlow/3  running  42 s   14 of 24 tasks, 3 running, 1 to retry
    ✓ start
    ⠹ train      ━━━━━━━━━━━━━━━━━━━━──────────  13/23  3 running  1 to retry
    · join
    running  train/7 12 s (pid 812), train/9 3.1 s (pid 815)
    retry    train/5 in 1 m 40 s, attempt 1: ValueError: nope
    failed   train/6: KeyError: 'x' (train.py:31)

This module imports rich; `evflow.cli.screen` imports it in its own thread once a run has gone on for a while.
"""

import os
from typing import NamedTuple

from rich.cells import cell_len  # noqa: TID253 - this module is imported lazily itself
from rich.style import Style  # noqa: TID253 - this module is imported lazily itself
from rich.text import Text  # noqa: TID253 - this module is imported lazily itself

from evflow.cli.output import count, duration
from evflow.cli.picture import FailureRow, Picture, StepRow

STATUS_STYLE = {
    "running": "cyan",
    "starting": "cyan",
    "paused": "yellow",
    "succeeded": "green",
    "failing": "red",
    "failed": "red",
    "cancelling": "yellow",
    "cancelled": "yellow",
}
_BAR_CELLS = 40
_NAME_CELLS = 28


class Glyphs(NamedTuple):
    """The characters of the panel, for terminals with and without Unicode."""

    done: str
    running: tuple[str, ...]
    waiting: str
    failed: str
    ahead: str
    bar: str
    rest: str
    more: str


UNICODE = Glyphs("✓", tuple("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"), "○", "✗", "·", "━", "─", "…")
ASCII = Glyphs("+", tuple("-\\|/"), "o", "x", ".", "#", "-", "...")


def panel(picture: Picture, *, width: int, height: int, glyphs: Glyphs = UNICODE) -> list[Text]:
    """The picture in at most `height` lines of fewer than `width` cells.

    What does not fit is counted in a line of its own: steps that are over or not reached give way first.
    """
    details = [*_running(picture, width), *_retries(picture), *_failures(picture)]
    rule = Text(glyphs.rest * (width - 1), style="dim")
    room = max(height - 2, 2)
    details = _fit(details, max(room // 2, room - len(picture.steps)), glyphs)
    rows = _choose(picture.steps, room - len(details))
    names = min(max((cell_len(row.name) for row in picture.steps), default=0), _NAME_CELLS)
    lines = [rule, _head(picture), *(_step(row, picture, names, width, glyphs) for row in rows)]
    hidden = len(picture.steps) - len(rows)
    if hidden:
        lines.append(Text(f"  {glyphs.more} {count(hidden, 'more step')}", style="dim"))
    lines += details
    del lines[max(height, 2) :]  # a terminal of a few lines shows the head
    for line in lines:
        line.truncate(width - 1, overflow="ellipsis" if glyphs is UNICODE else "crop")
    return lines


def _head(picture: Picture) -> Text:
    style = STATUS_STYLE.get(picture.status, "")
    text = Text()
    text.append(picture.run, style="bold")
    text.append(f"  {picture.status}", style=style)
    text.append(f"  {duration(picture.elapsed_us)}")
    total = picture.count("total")
    if total:
        text.append(f"   {picture.count('done'):,} of {count(total, 'task')}", style="dim")
        for column, noun in (("running", "running"), ("waiting", "waiting"), ("retrying", "to retry"), ("failed", "failed")):
            number = picture.count(column)
            if number:
                text.append(f", {number:,} {noun}", style="red" if column == "failed" else "dim")
    return text


def _step(row: StepRow, picture: Picture, names: int, width: int, glyphs: Glyphs) -> Text:
    glyph, style = _state(row, picture, glyphs)
    text = Text()
    text.append(f"{glyph} ", style=style)
    name = Text(row.name, style="" if row.total else "dim")
    name.truncate(names, overflow="ellipsis" if glyphs is UNICODE else "crop", pad=True)
    text.append_text(name)
    if row.total > 1:
        text.append("  ")
        text.append_text(_bar(row, min(_BAR_CELLS, max(width - names - 52, 8)), glyphs))
        text.append(f"  {row.done:,}/{row.total:,}")
    for number, noun, look in (
        (row.running if row.total > 1 else 0, "running", "cyan"),
        (row.waiting if row.total > 1 else 0, "waiting", "dim"),
        (row.retrying, "to retry", "yellow"),
        (row.failed, "failed", "red"),
        (row.skipped, "skipped", "yellow"),
    ):
        if number:
            text.append(f"  {number:,} {noun}", style=look)
    return text


def _state(row: StepRow, picture: Picture, glyphs: Glyphs) -> tuple[str, str]:
    if not row.total:
        return glyphs.ahead, "dim"
    if row.failed:
        return glyphs.failed, "red"
    if row.running:
        turn = picture.now_us // 100_000 % len(glyphs.running)
        return glyphs.running[turn], "cyan"
    if row.retrying:
        return glyphs.waiting, "yellow"
    return (glyphs.done, "green") if row.done == row.total else (glyphs.waiting, "dim")


def _bar(row: StepRow, cells: int, glyphs: Glyphs) -> Text:
    failed = -(-row.failed * cells // row.total)  # a single failure of a thousand is seen
    done = min(row.done * cells // row.total, cells - failed)
    running = min(-(-row.running * cells // row.total), cells - failed - done)
    text = Text()
    text.append(glyphs.bar * done, style="green")
    text.append(glyphs.bar * failed, style="red")
    text.append(glyphs.bar * running if glyphs is UNICODE else "=" * running, style="cyan")
    text.append(glyphs.rest * (cells - done - failed - running), style=Style(dim=True))
    return text


def _running(picture: Picture, width: int) -> list[Text]:
    if not picture.running:
        return []
    now = picture.now_us
    rows = sorted(picture.running, key=lambda row: row.since_us or now)
    text = Text.assemble(("running  ", "cyan"))
    for index, row in enumerate(rows):
        name = f"{row.step}/{row.task}"
        since = now - row.since_us
        # Tenths below a minute: digits that jump between units are hard to read.
        said = f" {f'{max(since, 0) / 1e6:.1f} s' if since < 59_950_000 else duration(since)}" if row.since_us else ""
        said += f" (pid {row.pid})" if row.pid else ""
        rest = len(rows) - index
        if index and text.cell_len + cell_len(name + said) + 2 > width - 12:
            text.append(f", {rest} more", style="dim")
            break
        text.append(", " if index else "", style="dim")
        text.append(name, style="default")
        text.append(said, style="dim")
    return [text]


def _retries(picture: Picture) -> list[Text]:
    lines: list[Text] = []
    for row in picture.retries:
        text = Text.assemble(("retry    ", "yellow"))
        left = row.at_us - picture.now_us
        when = f"in {duration(-(-left // 1_000_000) * 1_000_000)}" if left > 0 else "now"
        text.append(f"{row.step}/{row.task}", style="default")
        text.append(f" {when}, attempt {row.attempt}: {row.reason}", style="dim")
        lines.append(text)
    return lines


def _failures(picture: Picture) -> list[Text]:
    return [_failure(row) for row in picture.failures]


def _failure(row: FailureRow) -> Text:
    text = Text.assemble(("failed   ", "red"))
    text.append(f"{row.step}/{row.task}", style="default")
    text.append(f" {row.reason}", style="red")
    if row.where:
        text.append(f" ({os.path.basename(row.where)})", style="dim")  # noqa: PTH119 - 'file:line' is no path
    return text


def _fit(lines: list[Text], room: int, glyphs: Glyphs) -> list[Text]:
    if len(lines) <= room:
        return lines
    kept = lines[: max(room - 1, 1)]
    return [*kept, Text(f"  {glyphs.more} {count(len(lines) - len(kept), 'more line')}", style="dim")]


def _choose(steps: tuple[StepRow, ...], room: int) -> list[StepRow]:
    """The rows to show, in their order: active ones first, then the nearest ahead, then what is over."""
    if len(steps) <= room:
        return list(steps)

    def weight(indexed: tuple[int, StepRow]) -> tuple[int, int]:
        index, row = indexed
        if row.running or row.failed or row.retrying or row.waiting:
            return (0, index)
        return (1, index) if not row.total else (2, -index)

    chosen = sorted(enumerate(steps), key=weight)[: max(room - 1, 1)]
    return [row for _, row in sorted(chosen, key=lambda indexed: indexed[0])]
