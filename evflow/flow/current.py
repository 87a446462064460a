"""`current`: what a running step may ask about itself and its run.

The worker calls `enter` before the body; outside of a task nothing is there but `is_running_flow`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from evflow.cards.collector import Cards
    from evflow.flow.started_by import StartedBy

_MEMBERS = (
    "flow_name",
    "run_id",
    "step_name",
    "task_id",
    "retry_count",
    "origin_run_id",
    "pathspec",
    "namespace",
    "username",
    "tags",
    "tempdir",
    "run",
    "task",
    "graph",
    "parameter_names",
    "trigger",
    "card",
    "parallel",
)

_OF_A_PROJECT = ("project_name", "branch_name", "project_flow_name", "is_production", "is_user_branch")


class Parallel(NamedTuple):
    """A node's place in its gang; outside of one, that of a node alone.

    Attributes:
        main_ip: The address of node 0.
        num_nodes: How many there are.
        node_index: The node, from 0.
        control_task_id: The task of node 0; None outside of a gang.
    """

    main_ip: str = "127.0.0.1"
    num_nodes: int = 1
    node_index: int = 0
    control_task_id: str | None = None


class Current:
    """The running task; `current` is the one object of this class."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}

    @property
    def is_running_flow(self) -> bool:
        """Whether this code runs inside a step."""
        return "run_id" in self._facts

    @property
    def flow_name(self) -> str:
        """The flow."""
        return cast("str", self._fact("flow_name"))

    @property
    def run_id(self) -> str:
        """The run's number, as a string."""
        return cast("str", self._fact("run_id"))

    @property
    def step_name(self) -> str:
        """The step."""
        return cast("str", self._fact("step_name"))

    @property
    def task_id(self) -> str:
        """The task's number, as a string."""
        return cast("str", self._fact("task_id"))

    @property
    def retry_count(self) -> int:
        """The attempt's number, from 0."""
        return cast("int", self._fact("retry_count"))

    @property
    def origin_run_id(self) -> str | None:
        """The run that this one resumes, or None."""
        return cast("str | None", self._fact("origin_run_id"))

    @property
    def pathspec(self) -> str:
        """`flow/run/step/task`."""
        return f"{self.flow_name}/{self.run_id}/{self.step_name}/{self.task_id}"

    @property
    def namespace(self) -> str | None:
        """The client's namespace in this step."""
        return cast("str | None", self._fact("namespace"))

    @property
    def username(self) -> str:
        """Who started the run."""
        return cast("str", self._fact("username"))

    @property
    def tags(self) -> set[str]:
        """The run's tags, those of evflow included."""
        return set(self._fact("tags"))

    @property
    def tempdir(self) -> str:
        """A folder for temporary files: Python's own choice, which follows TMPDIR; for a flow of Metaflow's METAFLOW_TEMPDIR, where that is set."""
        if not self.is_running_flow:
            raise AttributeError(self._missing("tempdir"))
        from evflow.imports import framework_view

        with framework_view():
            import tempfile

            from evflow.flow import dialect

            return dialect.temporary_folder() or tempfile.gettempdir()

    @property
    def graph(self) -> dict[str, Any]:
        """The flow's graph as plain values, as `evflow.flow.graph_view.graph_info` gives it."""
        value = self._fact("graph")
        return cast("dict[str, Any]", value() if callable(value) else value)

    @property
    def parameter_names(self) -> list[str]:
        """The names of the flow's parameters."""
        return list(self._fact("parameter_names"))

    @property
    def trigger(self) -> "StartedBy | None":
        """What started the run, None for a person.

        It is a mapping: `kind` is `schedule` (with `tick`, `cron`, ...) or `event`; with the members `event`, `events`, `run` and `runs`.
        """
        recorded = self._fact("trigger")
        if recorded is None:
            return None
        from evflow.imports import framework_view

        with framework_view():
            from evflow.flow.started_by import StartedBy
        return StartedBy(recorded)

    @property
    def card(self) -> "Cards":
        """The cards of a step with `@card`: `append`, `extend`, `clear`, `refresh`, `components`, `current.card["id"]`."""
        return cast("Cards", self._fact("card"))

    @property
    def is_parallel(self) -> bool:
        """Whether the step is `@parallel`, so that this task is a node of a gang."""
        return "parallel" in self._facts

    @property
    def parallel(self) -> Parallel:
        """The node's place in its gang: `main_ip`, `num_nodes`, `node_index`, `control_task_id`."""
        if not self.is_running_flow:
            raise AttributeError(self._missing("parallel"))
        return cast("Parallel", self._facts.get("parallel") or Parallel())

    @property
    def run(self) -> Any:
        """The run as the client sees it."""
        return _client("Run", f"{self.flow_name}/{self.run_id}")

    @property
    def task(self) -> Any:
        """The task as the client sees it."""
        return _client("Task", self.pathspec)

    def get(self, name: str, default: Any = None) -> Any:
        """A member, or `default` where it is not there."""
        return getattr(self, name) if name in self else default

    def __contains__(self, name: object) -> bool:
        if name in ("is_running_flow", "is_parallel"):
            return True
        return name in self._facts or (name in ("pathspec", "tempdir", "run", "task", "parallel") and self.is_running_flow)

    def __getattr__(self, name: str) -> Any:
        facts: dict[str, Any] = self.__dict__.get("_facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(self._missing(name))

    def __dir__(self) -> list[str]:
        return sorted({*_MEMBERS, "is_parallel", "is_running_flow", "get", *self._facts})

    def _fact(self, name: str) -> Any:
        if name not in self._facts:
            raise AttributeError(self._missing(name))
        return self._facts[name]

    def _missing(self, name: str) -> str:
        if name == "card" and self.is_running_flow:
            return f"current.card is there only in a step with @card, and step '{self.step_name}' has none."
        if name in _OF_A_PROJECT and self.is_running_flow:
            return f"current.{name} is there only in a flow with @project, and {self.flow_name} has none."
        if name in _MEMBERS or name in _OF_A_PROJECT:
            return f"current.{name} is there only while a step runs; current.is_running_flow tells."
        from evflow.errors import did_you_mean

        return f"current has no attribute '{name}'.{did_you_mean(name, self.__dir__())}"


current = Current()
_entered = cast("dict[str, Any]", current.__dict__["_facts"])


def enter(
    *,
    flow_name: str,
    run_id: int | str,
    step_name: str,
    task_id: int | str,
    retry_count: int = 0,
    origin_run_id: str | None = None,
    namespace: str | None = None,
    username: str = "",
    tags: "tuple[str, ...] | set[str] | frozenset[str]" = (),
    graph: "Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None" = None,
    parameter_names: "list[str] | tuple[str, ...]" = (),
    trigger: "Mapping[str, Any] | None" = None,
) -> None:
    """Say which task runs in this process; numbers become strings. `graph` may be a function, called at first use."""
    _entered.clear()
    _entered.update(
        flow_name=flow_name,
        run_id=str(run_id),
        step_name=step_name,
        task_id=str(task_id),
        retry_count=retry_count,
        origin_run_id=origin_run_id,
        namespace=namespace,
        username=username,
        tags=frozenset(tags),
        graph=graph if graph is not None else {},
        parameter_names=list(parameter_names),
        trigger=trigger,
    )


def enter_gang(task: int, gang: tuple[int, int] | None, main_ip: str = "") -> None:
    """Say that the running task is a node of a gang, if its innermost split is one.

    Args:
        task: The task.
        gang: The task's index and the number of nodes (`AttemptOrder.gang`).
        main_ip: The address of node 0; empty where all nodes run on this machine.
    """
    if gang is not None:
        index, size = gang
        attach("parallel", Parallel(main_ip or "127.0.0.1", size, index, str(task - index)))


def attach(name: str, member: Any) -> None:
    """Give `current` a member that only some steps have; None takes it away again."""
    if member is None:
        _entered.pop(name, None)
    else:
        _entered[name] = member


def leave() -> None:
    """No task runs in this process any more."""
    _entered.clear()


def _client(kind: str, pathspec: str) -> Any:
    # By name: the client stands above the flow language in the layers, and only this asks upwards.
    return getattr(import_module("evflow.client"), kind)(pathspec)
