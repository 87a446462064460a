"""The overview as lines of a terminal: pure.

    evflow  18:04:05  /home/ada/.evflow/…/s   3 running, 15 waiting, 4.2 tasks/s

    SCHEDULER             TASKS  SHARDS
    laptop, process 812       3  s0 s1 s2 s3 s4 s5 s6 s7

    RUN          STATUS   TASKS                  RUNNING  WAITING         STEP   AGE   USER
    TrainFlow/3  running  ━━━━━━────────  12/30        3  15 slot, 1 join train  12 s  ada

    NEXT TICKS                     RECENT FAILURES
    Nightly  02:00:00, in 5 h 56 m   TrainFlow/2  3 m ago  task-failed: …

This module imports rich, and is imported by whoever draws.
"""

from collections.abc import Sequence
from datetime import datetime

from rich.cells import cell_len  # noqa: TID253 - this module is imported lazily itself
from rich.text import Text  # noqa: TID253 - this module is imported lazily itself

from evflow.cli.output import count, duration, size
from evflow.cli.panel import STATUS_STYLE, UNICODE, Glyphs
from evflow.cli.top.overview import Overview, RunRow, Wish, chosen, failures

_STATUS_STYLE = {**STATUS_STYLE, "interrupted": "magenta", "requested": "blue", "unreadable": "red"}
_BAR_CELLS = 16
_LEAST_ROWS = 3
_TICKS = 5
_FAILURES = 5
_GAP = 2

Cells = Sequence[Text | str]


def lines(overview: Overview, wish: Wish, *, width: int, height: int | None = None, glyphs: Glyphs = UNICODE) -> list[Text]:
    """The overview in lines of fewer than `width` cells; at most `height` of them where that is given."""
    below = _ticks(overview, wish) + _failures(overview, wish)
    head = [_head(overview), Text(""), *_schedulers(overview), Text("")]
    foot = [_foot(wish)] if height is not None else []
    rows = chosen(overview.live, wish)
    room = len(rows) + 1
    if height is not None:
        room = max(height - len(head) - len(below) - len(foot), _LEAST_ROWS)
    found = [*head, *_runs(overview, wish, rows, room, width, glyphs), *below]
    if height is not None:
        found = found[: height - len(foot)]
        found += [Text("")] * (height - len(foot) - len(found)) + foot
    for line in found:
        line.truncate(width - 1, overflow="ellipsis" if glyphs is UNICODE else "crop")
    return found


def _head(overview: Overview) -> Text:
    text = Text.assemble(("evflow", "bold"), f"  {_clock(overview.now_us)}  ", (overview.where, "dim"), "   ")
    text.append(f"{overview.running:,} running", style="cyan" if overview.running else "")
    text.append(f", {overview.waiting:,} waiting, {overview.rate:.1f} tasks/s")
    if overview.unarchived_bytes:
        text.append(f", {size(overview.unarchived_bytes)} not archived")
    if overview.trouble:
        text.append(f"   {overview.trouble}", style="red")
    return text


def _schedulers(overview: Overview) -> list[Text]:
    if not overview.schedulers:
        return [Text("No scheduler runs: what is asked of deployed flows waits. `evflow scheduler` starts one.", style="yellow")]
    rows = [(f"{row.host}, process {row.pid}", f"{row.taken:,}", " ".join(row.shards)) for row in overview.schedulers]
    found = _table(("SCHEDULER", "TASKS", "SHARDS"), rows, right=(1,))
    if overview.free:
        found.append(Text(f"Nobody owns {', '.join(overview.free)}: runs of theirs wait.", style="yellow"))
    return found


def _runs(overview: Overview, wish: Wish, rows: Sequence[RunRow], room: int, width: int, glyphs: Glyphs) -> list[Text]:
    if not rows:
        of = f" of flows with '{wish.flow}' in their names" if wish.flow else ""
        return [Text(f"No run{of} goes on.", style="dim")]
    shown = list(rows) if len(rows) < room else rows[: max(room - 2, 1)]
    cells = [_run(row, overview.now_us, glyphs, wide=width >= 100) for row in shown]
    found = _table(("RUN", "STATUS", "TASKS", "RUNNING", "WAITING", "STEP", "AGE", "USER"), cells, right=(3, 6))
    if len(shown) < len(rows):
        found.append(Text(f"{glyphs.more} {count(len(rows) - len(shown), 'more run')}", style="dim"))
    return found


def _run(row: RunRow, now_us: int, glyphs: Glyphs, *, wide: bool) -> Cells:
    tasks = Text()
    if row.total:
        if wide:
            done = min(row.done * _BAR_CELLS // row.total, _BAR_CELLS)
            running = min(-(-row.running * _BAR_CELLS // row.total), _BAR_CELLS - done)
            tasks.append(glyphs.bar * done, style="green").append(glyphs.bar * running, style="cyan")
            tasks.append(glyphs.rest * (_BAR_CELLS - done - running), style="dim").append("  ")
        tasks.append(f"{row.done:,}/{row.total:,}")
    waiting = ", ".join(f"{number:,} {reason}" for reason, number in row.waiting)
    return (
        Text(row.run, style="bold"), Text(row.status, style=_STATUS_STYLE.get(row.status, "")), tasks, f"{row.running:,}" if row.running else "",
        waiting or ("a scheduler" if row.status == "requested" else ""), _cut(row.step, 24), _coarse(now_us - row.since_us) if row.since_us else "",
        row.user,
    )  # fmt: skip


def _ticks(overview: Overview, wish: Wish) -> list[Text]:
    rows = [row for row in overview.ticks if wish.fits(row.deployment.partition(":")[0])]
    if not rows:
        return []
    cells = [(row.deployment, _clock(row.at_us), f"in {_coarse(row.at_us - overview.now_us)}") for row in rows[:_TICKS]]
    return [Text(""), *_table((f"NEXT TICKS ({len(rows)})" if len(rows) > _TICKS else "NEXT TICKS", "AT", ""), cells)]


def _failures(overview: Overview, wish: Wish) -> list[Text]:
    rows = failures(overview, wish)[:_FAILURES]
    if not rows:
        return []
    cells = [(Text(row.run, style="red"), f"{_coarse(overview.now_us - row.until_us)} ago", row.reason.partition("\n")[0]) for row in rows]
    return [Text(""), *_table(("RECENT FAILURES", "", ""), cells)]


def _foot(wish: Wish) -> Text:
    if wish.typing:
        return Text.assemble(("flows with: ", "bold"), wish.flow, ("_", "blink"), ("   Enter keeps it, Esc drops it", "dim"))
    text = Text(style="dim")
    text.append("q").append(" quit   ").append("s").append(f" sort by {wish.order}   ").append("/")
    return text.append(f" only flows with '{wish.flow}'   Esc all flows" if wish.flow else " only some flows")


def _table(head: Sequence[str], rows: Sequence[Cells], *, right: Sequence[int] = ()) -> list[Text]:
    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = [max([cell_len(name), *(row[column].cell_len for row in texts)]) for column, name in enumerate(head)]
    titles = [Text(name, style="dim") for name in head]
    return [_line(row, widths, right) for row in (titles, *texts)]


def _line(cells: Sequence[Text], widths: Sequence[int], right: Sequence[int]) -> Text:
    line = Text()
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        pad = " " * (width - cell.cell_len)
        if column in right:
            line.append(pad).append_text(cell)
        else:
            line.append_text(cell).append(pad)
        line.append(" " * _GAP)
    line.rstrip()
    return line


def _clock(at_us: int) -> str:
    """The time of a day in local time."""
    return datetime.fromtimestamp(at_us / 1e6).astimezone().strftime("%H:%M:%S")


def _coarse(us: int) -> str:
    """A duration in whole seconds: digits that jump are hard to read."""
    return f"{max(us, 0) // 1_000_000} s" if us < 60_000_000 else duration(us)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
