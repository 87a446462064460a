"""The state of a run as bytes, the same for equal states in every process.

The seal records their SHA-256, taken from the live owner's state; replay folds the log anew and compares (I8).
So everything that people are shown stands in it, in a fixed order; the agenda does not, since between turns it
holds nothing but timers that follow from the rest.
"""

from dataclasses import fields
from hashlib import sha256
from typing import Any

import msgpack

from evflow.core.state import Attempt, RunState, Split, Task

_TASK = tuple(item.name for item in fields(Task) if item.name not in ("frame", "visits", "attempts"))
_ATTEMPT = tuple(item.name for item in fields(Attempt))
_SPLIT = tuple(item.name for item in fields(Split) if item.name not in ("frame", "visits"))
_SCALARS = (
    "seq", "turn", "at_us", "started_us", "finished_us", "status", "flow", "number", "logic", "cancelling",
    "forced", "owners", "regressions", "late", "unknown", "sealed",
)  # fmt: skip


def digest(state: RunState) -> bytes:
    """SHA-256 of the state, 32 bytes. Costs O(tasks)."""
    return sha256(encode(state)).digest()


def encode(state: RunState) -> bytes:
    """The state's canonical encoding: msgpack arrays in the order of the fields, maps sorted."""
    plain = [
        [getattr(state, name) for name in _SCALARS],
        _sorted(state.header),
        [_ending(state.failing), _ending(state.outcome)],
        [_task(task) for task in state.tasks],
        [_split(split) for _, split in sorted(state.splits.items())],
        list(state.waiting),
        list(state.live),
        [[step, c.created, c.succeeded, c.failed] for step, c in state.steps.items()],
    ]
    packed: bytes = msgpack.packb(plain)
    return packed


def _task(task: Task) -> list[Any]:
    frame = [task.frame.split.task, task.frame.index] if task.frame is not None else None
    attempts = [[getattr(attempt, name) for name in _ATTEMPT] for attempt in task.attempts]
    return [[getattr(task, name) for name in _TASK], frame, list(task.visits.items()), attempts]


def _split(split: Split) -> list[Any]:
    frame = [split.frame.split.task, split.frame.index] if split.frame is not None else None
    return [[getattr(split, name) for name in _SPLIT], frame]


def _ending(ending: Any) -> Any:
    return None if ending is None else [ending.code, ending.reason, ending.task]


def _sorted(value: Any) -> Any:
    """Maps as sorted pairs: their order in memory is nobody's promise."""
    if isinstance(value, dict):
        return [[key, _sorted(value[key])] for key in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value
