"""Runs flows in this process, without log, store and scheduler: what a step says decides what comes next.

Artifacts are kept pickled, so that a step never sees an object of another step. One task runs after the other.
"""

import hashlib
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evflow import FlowSpec
from evflow.flow.execution import Done, Outcome, collect, instantiate, run_step
from evflow.flow.parameter_values import resolve
from evflow.flow.steps import facts


class StoredEntry:
    """An artifact as bytes; counts how often it is loaded."""

    def __init__(self, value: object) -> None:
        self.data = pickle.dumps(value)
        self.digest = hashlib.sha256(self.data).digest()
        self.size = len(self.data)
        self.loads = 0

    def load(self) -> object:
        self.loads += 1
        return pickle.loads(self.data)


class StoredView(dict[str, StoredEntry]):
    """A manifest."""

    def names(self) -> list[str]:
        return list(self)

    def entry(self, name: str) -> StoredEntry:
        return self[name]

    def load(self, name: str) -> object:
        return self[name].load()


def stored(**values: object) -> StoredView:
    return StoredView((name, StoredEntry(value)) for name, value in values.items())


def after(outcome: Outcome) -> StoredView:
    """The manifest that a task leaves."""
    base = outcome.base
    assert isinstance(base, StoredView)
    view = StoredView((name, entry) for name, entry in base.items() if name not in outcome.without)
    for name, entry in outcome.inherited.items():
        assert isinstance(entry, StoredEntry)
        view[name] = entry
    view.update((name, StoredEntry(value)) for name, value in outcome.values.items())
    return view


@dataclass
class RanTask:
    """A task that ran."""

    step: str
    number: int
    view: StoredView
    done: Done

    def __getitem__(self, name: str) -> Any:
        return self.view.load(name)

    def __contains__(self, name: str) -> bool:
        return name in self.view


Frame = tuple[str, int, str, int, int, bytes | None, str | None]


@dataclass
class FlowWorld:
    """One run of a flow."""

    cls: type[FlowSpec]
    parameters: StoredView
    tasks: list[RanTask] = field(default_factory=list)
    items: dict[bytes, Sequence[object]] = field(default_factory=dict)
    arrived: dict[Frame, dict[int, RanTask]] = field(default_factory=dict)

    def task(self, step: str, index: int = 0) -> RanTask:
        """The task of a step, in the order of running."""
        return [task for task in self.tasks if task.step == step][index]

    def steps(self) -> list[str]:
        return [task.step for task in self.tasks]

    def load_item(self, digest: bytes, index: int) -> object:
        return pickle.loads(pickle.dumps(self.items[digest][index]))

    def run(self, step: str, view: StoredView, frames: tuple[Frame, ...] = ()) -> None:
        """Run a task and all that follows from it."""
        flow = instantiate(self.cls, step, parameters=self.parameters, view=view, frames=frames, load_item=self.load_item)
        self._finish(flow, step, frames)

    def _join(self, step: str, members: Sequence[RanTask], frames: tuple[Frame, ...], closed: Frame) -> None:
        views = {str(member.number).encode(): member.view for member in members}

        def open_views(digests: Iterable[bytes]) -> list[StoredView]:
            return [views[digest] for digest in digests]

        parents = [(member.step, member.number, str(member.number).encode()) for member in members]
        flow = instantiate(
            self.cls,
            step,
            parameters=self.parameters,
            parents=parents,
            open_views=open_views,
            frames=frames,
            joined=closed,
            load_item=self.load_item,
        )
        self._finish(flow, step, frames)

    def _finish(self, flow: FlowSpec, step: str, frames: tuple[Frame, ...]) -> None:
        done = run_step(flow)
        task = RanTask(step, len(self.tasks) + 1, after(collect(flow)), done)
        self.tasks.append(task)
        said = done.transition
        if said.kind in ("split", "foreach"):
            digest = str(task.number).encode()
            self.items[digest] = list(said.items or ())
            size = len(self.items[digest]) or len(said.steps)
            for index in range(size):
                target = said.steps[0] if said.kind == "foreach" else said.steps[index]
                self.run(target, task.view, (*frames, (step, task.number, said.kind, index, size, digest, said.variable)))
        elif said.kind != "end":
            self._onward(task, said.steps[0], frames)

    def _onward(self, task: RanTask, target: str, frames: tuple[Frame, ...]) -> None:
        code: Any = facts(self.cls).steps[target]
        if code.__code__.co_argcount == 1:
            self.run(target, task.view, frames)
            return
        *outer, (split, number, kind, index, size, digest, variable) = frames
        closed = (split, number, kind, 0, size, digest, variable)
        members = self.arrived.setdefault(closed, {})
        members[index] = task
        if len(members) == size:
            self._join(target, [members[position] for position in range(size)], tuple(outer), closed)


def run_flow(cls: type[FlowSpec], given: Mapping[str, object] | None = None) -> FlowWorld:
    """Run a flow from its start to its end."""
    world = FlowWorld(cls, stored(**resolve(cls, given or {}), **facts(cls).constants))
    world.run("start", world.parameters)
    return world
