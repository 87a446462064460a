"""What a card can say of its task: values that whoever renders it has gathered."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from evflow.core.graph import Graph
from evflow.core.values import field, value


@value
class Shown:
    """An artifact or a parameter.

    Attributes:
        name: Its name.
        type: Its type's name.
        size_bytes: Its size, serialised; 0 where that is not known.
        value: The value itself, where it was at hand or small.
        is_loaded: Whether `value` is it.
    """

    name: str
    type: str
    size_bytes: int = 0
    value: Any = None
    is_loaded: bool = False


@value
class TaskFacts:
    """A task at the end of an attempt.

    Attributes:
        flow: The flow.
        run: The run's number.
        step: The step.
        task: The task's number.
        attempt: The attempt's, from 0.
        status: `succeeded`, `failed`, or `caught` where `@catch` took the exception.
        error: What it failed with, for people; empty if it did not.
        user: Who started the run.
        tags: The run's tags.
        host: The machine.
        python: The version of Python.
        doc: The first paragraph of the step's docstring.
        parameters: The flow's parameters.
        artifacts: What the task left behind, its parameters excepted.
        more_artifacts: How many of them are not in `artifacts`.
        graph: The flow's graph, or None where it cannot be had.
        place: Its place in the splits around it: variable or step, index from 0, size.
        code: The step's source.
        file: The file that it is in.
        line: The number of its first line.
        times: Stages on the way here, name and instant in microseconds, in order; those that are not known are left out.
    """

    flow: str
    run: str
    step: str
    task: str
    attempt: int = 0
    status: str = "succeeded"
    error: str = ""
    user: str = ""
    tags: Sequence[str] = ()
    host: str = ""
    python: str = ""
    doc: str = ""
    parameters: Sequence[Shown] = ()
    artifacts: Sequence[Shown] = ()
    more_artifacts: int = 0
    graph: Graph | None = None
    place: Sequence[tuple[str, int, int]] = ()
    code: str = ""
    file: str = ""
    line: int = 1
    times: Sequence[tuple[str, int]] = field(default_factory=tuple[tuple[str, int], ...])


class Around:
    """What a card's class is told of its task beyond the card itself.

    Args:
        task: Gives the task as the client sees it.
        graph: Gives the steps of the flow by name.
        flow: Gives the flow.
    """

    def __init__(self, task: Callable[[], Any], graph: Callable[[], Mapping[str, Any]], flow: Callable[[], Any]) -> None:
        self._task, self._graph, self._flow = task, graph, flow

    @cached_property
    def task(self) -> Any:
        """The task."""
        return self._task()

    @cached_property
    def graph(self) -> Mapping[str, Any]:
        """The steps of the flow by name."""
        return self._graph()

    @cached_property
    def flow(self) -> Any:
        """The flow."""
        return self._flow()
