"""A run as its log tells it: folded once, and from then on only what is new.

Whoever asks for something that can still change reads the log's tail first; a sealed run is never read again. Reading
1,000 tasks is one request of some 4,000 events and one fold, not a request for each.
"""

import math
import os
from collections.abc import Iterable
from typing import Any

from evflow import clock
from evflow.client.connection import SharedLog
from evflow.client.data import RunData
from evflow.collector import paused
from evflow.core.apply import apply
from evflow.core.codec import decode
from evflow.core.ids import RunId
from evflow.core.state import RunState, Task
from evflow.log.protocol import RunEntry

PARAMETERS = "_parameters"
"""The step whose task 0 holds parameters and the class's constants."""

OVER = frozenset({"succeeded", "skipped", "cancelled"})
"""What a task's status is when nothing will change it; one that failed may be tried again."""

FRESH_S = 0.001
"""What was read so shortly ago is not asked for again: a loop over unfinished tasks is not a request for each."""

NEVER_S = -math.inf
"""Read at no time: a machine's clock may have begun a moment ago."""

_CHUNK = 5_000


class RunHistory:
    """A run, read as far as its log went when somebody last asked.

    Attributes:
        log: Where it is.
        entry: Its line in the index when it was found; the tags in it may have changed since.
    """

    def __init__(self, log: SharedLog, entry: RunEntry) -> None:
        self.log = log
        self.entry = entry
        self._forget()
        self._tags: frozenset[str] | None = None
        self._tags_read_s = NEVER_S
        self._data: RunData | None = None

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._state = RunState()
        self._read_s = NEVER_S
        self._folding = False
        self._indexed = 1
        self._steps: dict[str, list[int]] = {}
        self._children: dict[int, list[int]] = {}

    @property
    def run(self) -> RunId:
        """The run."""
        return self.entry.run

    @property
    def shard(self) -> str:
        """Where its log is."""
        return self.entry.shard

    def told(self) -> str:
        """The status that the index tells now, of a run that has no log."""
        return str(self.line().summary.get("status", ""))

    def line(self) -> RunEntry:
        """Its line in the index as it is now; the one that was found where that is gone."""
        return self.log.ask(lambda log: log.run(self.run)) or self.entry

    @property
    def data(self) -> RunData:
        """Its artifacts."""
        if self._data is None:
            self._data = RunData(self)
        return self._data

    # --- the state ------------------------------------------------------------------------------------------

    def known(self) -> RunState:
        """The state as it was last read; read now if it never was."""
        state = self._state
        return state if state.seq and not self._folding else self.now()

    def now(self) -> RunState:
        """The state as it is now."""
        state = self._state
        if state.sealed and not self._folding:
            return state
        with self.log.lock:
            if self._pid != os.getpid():
                self._adopt()
            if clock.monotonic_s() - self._read_s >= FRESH_S:
                self._advance()
            return self._state

    def task(self, number: int) -> Task:
        """A task as it is now."""
        state = self._state
        if state.seq and not self._folding:
            task = state.tasks[number]
            if task.status in OVER:
                return task
        return self.now().tasks[number]

    def _adopt(self) -> None:
        """In a forked child: take the parent's state over."""
        self._pid = os.getpid()
        self._read_s = NEVER_S

    def _advance(self) -> None:
        if self._folding:  # a fold was interrupted, here or by the fork that made us: its state is in no known place
            self._forget()
        state = self._state
        entry = self.entry
        self._folding = True
        with paused():
            while True:
                after = state.seq
                events = self.log.ask(lambda log, after=after: log.read(entry.shard, entry.run, after, _CHUNK))  # type: ignore[misc]
                for seq, payload, _ in events:
                    apply(state, decode(seq, payload))
                if len(events) < _CHUNK or state.sealed:
                    break
        self._folding = False
        self._read_s = clock.monotonic_s()

    def code(self) -> dict[str, Any]:
        """What the run ran: `file`, `package`, `python`, `evflow`, as far as they are known."""
        code: dict[str, Any] | None = self.known().header.get("code")
        return code or {}

    # --- who belongs to whom --------------------------------------------------------------------------------

    def steps(self) -> list[str]:
        """The steps that have tasks, in the order in which they were reached."""
        return list(self.now().steps)

    def tasks_of(self, step: str) -> list[int]:
        """The ids of a step's tasks, as far as they exist now."""
        if step == PARAMETERS:
            return [0] if self.now().tasks else []
        self._index(self.now())
        return self._steps.get(step, [])

    def has_task(self, step: str, number: int) -> bool:
        """Whether the step has a task of this id."""

        def there(state: RunState) -> bool:
            return 0 <= number < len(state.tasks) and state.tasks[number].step == step

        return there(self.known()) or there(self.now())

    def parents(self, number: int) -> list[int]:
        """The tasks whose artifacts the task got: one, or all members of the split that a join joined."""
        state = self.known()
        task = state.tasks[number]
        if not task.parent:
            return []
        if state.graph[task.step].takes_inputs:
            return [member for member in state.splits[task.parent].arrived if member]
        return [task.parent]

    def children(self, number: int) -> list[int]:
        """The tasks that exist because this one ended; for a member of a split, the task of the join."""
        state = self.now()
        self._index(state)
        task = state.tasks[number]
        own = [child for child in self._children.get(number, ()) if not self._joins(state, child)]
        if own or task.frame is None or not task.next_steps or not state.graph[task.next_steps[0]].takes_inputs:
            return own
        split = task.frame.split
        return [child for child in self._children.get(split.task, ()) if self._joins(state, child)]

    def _joins(self, state: RunState, number: int) -> bool:
        return state.graph[state.tasks[number].step].takes_inputs

    def _index(self, state: RunState) -> None:
        if self._indexed >= len(state.tasks):
            return
        with self.log.lock:
            while self._indexed < len(state.tasks):
                task = state.tasks[self._indexed]
                self._steps.setdefault(task.step, []).append(task.id)
                self._children.setdefault(task.parent, []).append(task.id)
                self._indexed += 1

    # --- tags -----------------------------------------------------------------------------------------------

    @property
    def system_tags(self) -> frozenset[str]:
        """The tags that evflow gave; they never change."""
        return frozenset(self._begun_with("system_tags"))

    @property
    def user_tags(self) -> frozenset[str]:
        """The user's tags as they are now."""
        with self.log.lock:
            if self._tags is None or clock.monotonic_s() - self._tags_read_s >= FRESH_S:
                changed = self.log.ask(lambda log: log.tags(self.run))
                self.set_tags(self._begun_with("tags") if changed is None else changed)
            assert self._tags is not None
            return self._tags

    @property
    def tags(self) -> frozenset[str]:
        """Both."""
        return self.user_tags | self.system_tags

    def _begun_with(self, tags: str) -> Iterable[str]:
        """Tags of the run's line in the index; where that is not written yet, since the run has only just begun, of its log."""
        told: Iterable[str] | None = self.entry.summary.get(tags)
        return self.known().header.get(tags, ()) if told is None else told

    def set_tags(self, tags: Iterable[str]) -> None:
        """Take note of tags that were just read or written."""
        self._tags = frozenset(tags)
        self._tags_read_s = clock.monotonic_s()

    def in_namespace(self, ns: str | None) -> bool:
        """Whether the run is in a namespace; asks for changed tags only where the others do not tell."""
        return ns is None or ns in self.system_tags or ns in self.user_tags


def ended_us(task: Task) -> int:
    """When a task ended, 0 where it goes on. That of the parameters is done from the start."""
    return task.ended_us if task.id else task.created_us
