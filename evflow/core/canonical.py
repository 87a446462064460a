"""The state of a run as bytes, the same for equal states in every process.

The seal records their SHA-256, taken from the live owner's state; replay folds the log anew and compares (I8).
So everything that people are shown stands in it, in a fixed order; the agenda does not, since between turns it
holds nothing but timers that follow from the rest.

What stands in it is part of the format: a released list never changes, else the seals of old logs would not hold. A new
field of the state that people are shown gets into a new list, under the next version of the decision logic.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgpack

from evflow.core.state import RunState, Split, Task

TASK = (
    "id", "step", "parent", "created_us", "status", "failures", "losses", "retry_at_us", "ended_us", "manifest",
    "next_kind", "next_steps", "splits", "items", "variable", "caught", "artifacts", "size_bytes", "reused", "origin", "reason",
)  # fmt: skip
ATTEMPT = (
    "number", "mode", "executor", "queued_us", "granted_us", "launched_us", "started_us", "ended_us", "slot", "wait",
    "host", "pid", "outcome", "kind", "error", "message", "where", "detail", "manifest", "retryable", "exit_code",
    "signal", "cancel",
)  # fmt: skip
SPLIT = ("task", "step", "kind", "size", "items", "variable", "arrived", "count", "made", "join", "first_arrival")
SCALARS = (
    "seq", "turn", "at_us", "started_us", "finished_us", "status", "flow", "number", "logic", "cancelling",
    "forced", "owners", "regressions", "late", "unknown", "sealed",
)  # fmt: skip

# Under version 2 of the decisions these stand behind those above.
TASK_2 = ("renewed", "settled_by")
SCALARS_2 = ("priority",)

# Under version 3, behind those of version 2, of attempts that have cards.
ATTEMPT_3 = ("cards",)

# Under version 4, behind those of version 3, of attempts of steps with `@cached`.
ATTEMPT_4 = ("cache",)


# Of runs that had exit hooks: no other has a part for them.
SCALARS_OF_HOOKS = ("hook_starts", "hooks_over")


def digest(state: RunState) -> bytes:
    """SHA-256 of the state, 32 bytes. Costs O(tasks) of time; of memory no more than its largest part."""
    hashed = sha256()
    for part in _parts(state):
        hashed.update(part)
    return hashed.digest()


def encode(state: RunState) -> bytes:
    """The state's canonical encoding: msgpack arrays in the order of the fields, maps sorted."""
    return b"".join(_parts(state))


def _parts(state: RunState) -> Iterator[bytes]:
    """The encoding in parts, one for each task."""
    before: list[Any] = [
        [getattr(state, name) for name in SCALARS],
        _sorted(state.header),
        [_ending(state.failing), _ending(state.outcome)],
    ]
    after: list[Any] = [
        [_split(split) for _, split in sorted(state.splits.items())],
        list(state.waiting),
        list(state.live),
        [[step, c.created, c.succeeded, c.failed] for step, c in state.steps.items()],
    ]
    if state.logic >= 2:
        after += [
            [getattr(state, name) for name in SCALARS_2],
            list(state.held),
            [_pause(state.pause), _pause(state.stuck)],
            [[task.id, *(getattr(task, name) for name in TASK_2)] for task in state.tasks if task.renewed or task.settled_by],
            [c.skipped for c in state.steps.values()],
        ]
    if state.logic >= 3:
        with_cards = [(task, attempt) for task in state.tasks for attempt in task.attempts if attempt.cards]
        after += [[[task.id, attempt.number, *(getattr(attempt, name) for name in ATTEMPT_3)] for task, attempt in with_cards]]
    if state.logic >= 4:
        cached = [(task, attempt) for task in state.tasks for attempt in task.attempts if attempt.cache]
        after += [[[task.id, attempt.number, *(getattr(attempt, name) for name in ATTEMPT_4)] for task, attempt in cached]]
    if state.hook_starts or state.hooks_over:
        after += [[getattr(state, name) for name in SCALARS_OF_HOOKS]]
    packer = msgpack.Packer()
    yield packer.pack_array_header(len(before) + 1 + len(after))
    for plain in before:
        yield _packed(packer, plain)
    yield packer.pack_array_header(len(state.tasks))
    for task in state.tasks:
        yield _packed(packer, _task(task))
    for plain in after:
        yield _packed(packer, plain)


def _packed(packer: msgpack.Packer, plain: Any) -> bytes:
    try:
        return packer.pack(plain)
    except UnicodeEncodeError:
        # Half a surrogate pair, which only the live state has: a log holds it as the codec writes it, and so does the digest.
        packed: bytes = msgpack.packb(plain, unicode_errors="backslashreplace")
        return packed


def _task(task: Task) -> list[Any]:
    frame = [task.frame.split.task, task.frame.index] if task.frame is not None else None
    attempts = [[getattr(attempt, name) for name in ATTEMPT] for attempt in task.attempts]
    return [[getattr(task, name) for name in TASK], frame, list(task.visits.items()), attempts]


def _split(split: Split) -> list[Any]:
    frame = [split.frame.split.task, split.frame.index] if split.frame is not None else None
    return [[getattr(split, name) for name in SPLIT], frame]


def _pause(pause: Any) -> Any:
    return None if pause is None else [pause.by, pause.since_us, pause.reason]


def _ending(ending: Any) -> Any:
    return None if ending is None else [ending.code, ending.reason, ending.task]


def _sorted(value: Any) -> Any:
    """Maps as sorted pairs: their order in memory is nobody's promise."""
    whole: Any = value  # The type checkers do not agree on what is known of a narrowed Any.
    if isinstance(value, dict):
        return [[key, _sorted(whole[key])] for key in sorted(whole, key=str)]
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in whole]
    return whole
