"""What `evflow top` shows, as plain values; and which of it, in which order: pure."""

from collections.abc import Sequence
from typing import Any, Final, Literal

from evflow.cli.output import iso
from evflow.core.values import value

Order = Literal["age", "flow", "tasks", "waiting"]
ORDERS: Final[tuple[Order, ...]] = ("age", "flow", "tasks", "waiting")


@value
class SchedulerRow:
    """A scheduler: its machine and process, the shards that it owns, and how many tasks of theirs have a slot."""

    host: str
    pid: str
    shards: tuple[str, ...]
    taken: int


@value
class RunRow:
    """A run.

    Attributes:
        step: The steps in which something runs, or waits, as text.
        waiting: Reason to number, by `evflow.core.tally`.
        since_us: When it began, or was asked for.
        until_us: When it ended; 0 while it goes on.
        where: The scheduler or process that carries it out, or an empty string.
    """

    run: str
    flow: str
    number: int
    status: str
    step: str
    done: int
    total: int
    running: int
    waiting: tuple[tuple[str, int], ...]
    since_us: int
    until_us: int
    user: str
    where: str
    reason: str = ""

    @property
    def waits(self) -> int:
        """Tasks that wait, whatever for."""
        return sum(number for reason, number in self.waiting if reason != "join")


@value
class TickRow:
    """The next tick of a deployment."""

    deployment: str
    at_us: int


@value
class Overview:
    """A log at a moment.

    Attributes:
        now_us: The server's clock.
        where: The server, for people.
        free: Shared shards that nobody owns.
        rate: Tasks that ended per second, over the last ten.
        unarchived_bytes: Size of the events of runs that are over and not archived.
        trouble: Why this picture may be old, or an empty string.
    """

    now_us: int
    where: str
    schedulers: tuple[SchedulerRow, ...] = ()
    free: tuple[str, ...] = ()
    live: tuple[RunRow, ...] = ()
    ended: tuple[RunRow, ...] = ()
    ticks: tuple[TickRow, ...] = ()
    rate: float = 0.0
    trouble: str = ""
    unarchived_bytes: int = 0

    @property
    def running(self) -> int:
        """Tasks that have a slot."""
        return sum(row.running for row in self.live)

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return sum(row.waits for row in self.live)


@value
class Wish:
    """What the user wants to see.

    Attributes:
        order: How runs are ordered.
        flow: Only runs and ticks of flows whose names contain this, whatever the case.
        typing: The filter is being typed.
    """

    order: Order = "age"
    flow: str = ""
    typing: bool = False

    def fits(self, flow: str) -> bool:
        """Whether a flow is to be seen."""
        return self.flow.lower() in flow.lower()


def chosen(rows: Sequence[RunRow], wish: Wish) -> list[RunRow]:
    """The runs to show, in their order: the newest first among equals."""
    found = sorted((row for row in rows if wish.fits(row.flow)), key=lambda row: (-row.since_us, row.run))
    if wish.order == "flow":
        found.sort(key=lambda row: (row.flow, -row.number))
    elif wish.order == "tasks":
        found.sort(key=lambda row: -row.running)
    elif wish.order == "waiting":
        found.sort(key=lambda row: -row.waits)
    return found


def failures(overview: Overview, wish: Wish) -> list[RunRow]:
    """The runs that failed, the last one first."""
    return sorted((row for row in overview.ended if row.status == "failed" and wish.fits(row.flow)), key=lambda row: -row.until_us)


def plain(overview: Overview, wish: Wish) -> dict[str, Any]:
    """The overview as JSON holds it."""
    return {
        "at": iso(overview.now_us),
        "schedulers": [
            {"host": row.host, "pid": int(row.pid) if row.pid.isdecimal() else None, "shards": list(row.shards), "tasks": row.taken}
            for row in overview.schedulers
        ],
        "free_shards": list(overview.free),
        "tasks_running": overview.running,
        "tasks_waiting": overview.waiting,
        "tasks_per_s": round(overview.rate, 3),
        "unarchived_bytes": overview.unarchived_bytes,
        "runs": [_plain_run(row) for row in chosen(overview.live, wish)],
        "failures": [_plain_run(row) for row in failures(overview, wish)],
        "next_ticks": [
            {"deployment": row.deployment, "at": iso(row.at_us)} for row in overview.ticks if wish.fits(row.deployment.partition(":")[0])
        ],
    }


def _plain_run(row: RunRow) -> dict[str, Any]:
    return {
        "run": row.run, "status": row.status, "step": row.step, "tasks": row.total, "done": row.done, "running": row.running,
        "waiting": dict(row.waiting), "since": iso(row.since_us), "until": iso(row.until_us or None), "user": row.user,
        "where": row.where, "reason": row.reason,
    }  # fmt: skip
