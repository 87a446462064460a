"""The runs of the simulated installation: `start`, a foreach over `work`, `join` and `end`."""

from functools import lru_cache
from typing import Any

from evflow.core.codec import encode_report
from evflow.core.decide import LOGIC
from evflow.core.events import AttemptSucceeded, RunStarted
from evflow.core.graph import Graph, Node
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.worker.spec import AttemptOrder

FIXED_TASKS = 3
"""`start`, `join` and `end`."""
_MANIFEST = b"m" * 32
_PARAMETERS = b"p" * 32


def graph() -> Graph:
    """The flow's graph."""
    return Graph(
        {
            "start": Node("start", "foreach", ("work",), foreach="items"),
            "work": Node("work", "linear", ("join",)),
            "join": Node("join", "join", ("end",), takes_inputs=True),
            "end": Node("end", "end", ()),
        }
    )


@lru_cache(maxsize=1)
def _plain() -> dict[str, Any]:
    return graph().to_plain()


def named(number: int) -> RunId:
    """The first run of a flow."""
    return RunId(FlowName(f"Flow{number:05d}"), RunNumber(1))


def offer(run: RunId, *, max_workers: int) -> bytes:
    """A run's first event, as somebody asks a scheduler for it."""
    options = {"max_workers": max_workers, "retry_scale": 1, "max_splits": 100_000, "task_budget": 1_000_000}
    started = RunStarted(run.flow, run.number, LOGIC, _plain(), _PARAMETERS, {}, options, {}, "ada", "", store="sim://")
    return encode_report(started, principal="user:ada")


def report(order: AttemptOrder, width: int) -> AttemptSucceeded:
    """What the body of an attempt comes to."""
    if order.step == "start":
        return AttemptSucceeded(order.task, order.attempt, _MANIFEST, "foreach", ("work",), width)
    following = {"work": "join", "join": "end"}.get(order.step)
    return AttemptSucceeded(order.task, order.attempt, _MANIFEST, "linear" if following else "end", (following,) if following else ())
