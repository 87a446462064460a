"""The runs of a shard, and which of them a round has to look at.

A shard holds thousands of runs of which one round concerns a few: those that something is reported of, and those whose
timer is due. So what a round asks (who has this name, whose timer is next, who waits for slots) is kept as runs change
and not looked for among all of them.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, merge
from itertools import islice
from typing import NamedTuple

from evflow.core.admit import rank
from evflow.core.graph import LOCAL, Graph
from evflow.core.ids import RunId
from evflow.core.values import entity
from evflow_scheduler.run import OwnedRun


class _Due(NamedTuple):
    """A run's next timer; `place` decides between equals, since runs have no order of their own."""

    at_us: int
    place: int


@entity
class _Held:
    """A run, its place in the order of arrival, and what the roster says of it now; `rank` is None where it does not wait for slots."""

    run: OwnedRun
    place: int
    due: _Due | None = None
    waits: bool = False
    graph: Graph | None = None
    rank: tuple[int, int, int] | None = None
    namespace: str = ""


class Roster:
    """The runs that an owner has, in the order in which they came.

    Attributes:
        runs: The runs, by id. Changed by `add` and `remove` only.
    """

    def __init__(self) -> None:
        self.runs: dict[RunId, OwnedRun] = {}
        self._held: dict[RunId, _Held] = {}
        self._by_name: dict[str, OwnedRun] = {}
        self._by_place: dict[int, _Held] = {}
        self._places = 0
        self._touched: dict[RunId, None] = {}
        self._timers: list[_Due] = []
        self._lines: dict[str, list[tuple[int, int, int]]] = {}
        self._reaching_out: dict[RunId, OwnedRun] = {}

    def add(self, run: OwnedRun) -> None:
        """Hold one more run; the next round looks at it."""
        self._places += 1
        held = _Held(run, self._places)
        self.runs[run.id] = run
        self._held[run.id] = self._by_place[held.place] = held
        self._by_name[str(run.id)] = run
        self.touch(run.id)
        self.note(run)

    @property
    def has_line(self) -> bool:
        """Tasks of some run wait for slots."""
        return bool(self._lines)

    def remove(self, name: RunId) -> OwnedRun:
        """Let a run go."""
        held = self._held.pop(name)
        del self._by_place[held.place], self._by_name[str(name)]
        self._touched.pop(name, None)
        self._reaching_out.pop(name, None)
        self._put_in_line(held, None)
        return self.runs.pop(name)

    def named(self, name: str) -> OwnedRun | None:
        """The run that is called so, or None."""
        return self._by_name.get(name)

    def touch(self, name: RunId) -> None:
        """Let the next round look at a run, whatever comes in."""
        self._touched[name] = None

    @property
    def is_touched(self) -> bool:
        """Whether the next round has a run to look at, so that it shall not be waited for."""
        return bool(self._touched)

    def concerned(self, names: Iterable[RunId], now_us: int) -> list[OwnedRun]:
        """The runs that a round looks at: those named that are held, those touched, and those whose timer is due."""
        found = dict.fromkeys(names)
        found.update(self._touched)
        self._touched = {}
        while (due := self._next()) is not None and due.at_us <= now_us:
            held = self._by_place[due.place]
            held.due = None
            found[held.run.id] = None
        return [self.runs[name] for name in found if name in self.runs]

    def note(self, run: OwnedRun) -> None:
        """Keep what a run's state says now: its next timer, and whether tasks of it wait for slots."""
        held = self._held.get(run.id)
        if held is None:
            return
        state = run.state
        if held.graph is not state.graph:
            held.graph = state.graph
            if state.graph.executors - {LOCAL}:
                self._reaching_out[run.id] = run
        at_us = None if state.sealed else state.next_timer_us()
        due = None if at_us is None else _Due(at_us, held.place)
        if due != held.due:
            held.due = due
            if due is not None:
                heappush(self._timers, due)
        self._put_in_line(held, rank(state.priority, state.started_us, held.place) if state.takes_slots else None)

    def next_timer_us(self) -> int | None:
        """When the first run wants to be woken, or None."""
        due = self._next()
        return None if due is None else due.at_us

    def waiting(self) -> Iterator[OwnedRun]:
        """The runs with tasks that wait for slots and may have them, by priority and age."""
        return (self._by_place[place].run for *_, place in merge(*self._lines.values()))

    def lines(self) -> dict[str, Iterator[OwnedRun]]:
        """The same, by namespace."""
        return {namespace: (self._by_place[place].run for *_, place in line) for namespace, line in self._lines.items()}

    def reaching_out(self) -> Iterable[OwnedRun]:
        """The runs with tasks that wait, some of whose steps run on other machines."""
        return (run for run in self._reaching_out.values() if run.state.takes_slots)

    def oldest(self) -> dict[RunId, OwnedRun]:
        """The run that came first, if there is any."""
        return dict(islice(self.runs.items(), 1))

    def _next(self) -> _Due | None:
        """The first timer that still holds; those that runs have gone past are dropped."""
        while self._timers:
            due = self._timers[0]
            held = self._by_place.get(due.place)
            if held is not None and held.due == due:
                return due
            heappop(self._timers)
        return None

    def _put_in_line(self, held: _Held, where: tuple[int, int, int] | None) -> None:
        if where == held.rank:
            return
        if held.rank is not None:
            line = self._lines[held.namespace]
            del line[bisect_left(line, held.rank)]
            if not line:
                del self._lines[held.namespace]
        held.rank = where
        if where is not None:
            held.namespace = held.run.state.header["namespace"]
            insort(self._lines.setdefault(held.namespace, []), where)
