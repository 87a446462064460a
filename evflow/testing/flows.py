"""Flows in unit tests: `run_flow` runs a whole flow, `run_step` one step of it, both in this process.

    from evflow.testing import run_flow, run_step

    def test_train():
        result = run_flow(TrainFlow, alpha=0.5)
        assert result.data.score > 0.9
        assert [task.data.fold for task in result["fit"]] == [0, 1, 2]

    def test_one_step():
        done = run_step(TrainFlow, "fit", input=3, alpha=0.5, rows=[1, 2])
        assert done.data.model == ...

No server, no process, no file, and a few milliseconds a task. What decides is the real thing: the same checks of the flow,
the same decisions between steps, the same code around a body, and artifacts that go from task to task in their stored form.
So a function on `self`, a join that disagrees and a `self.next` that cannot be followed fail here as they do in a run.

What is different: one task runs after the other; `@retry` waits in virtual time, so it costs nothing; `@pool`, `@resources` and
limits are taken as granted; a body that ends the process (`os._exit`, a crash in C) ends the test's process.
"""

import inspect
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from types import CodeType
from typing import Any, Final, cast

from evflow.clock import now_us
from evflow.core import events as ev
from evflow.core.gangs import nodes_of
from evflow.core.graph import Graph
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import DEFAULT_TASK_BUDGET, RunState, Task
from evflow.deployments.beginning import RunOptions
from evflow.errors import EvflowError, UsageError, did_you_mean
from evflow.flow import current, graph_of
from evflow.flow.decorators.project import enter as enter_project, project_of
from evflow.flow.execution import record_crash, run_step as run_body
from evflow.flow.flowspec import FlowSpec
from evflow.flow.graph_view import graph_info
from evflow.flow.parameter_values import resolve
from evflow.flow.steps import facts
from evflow.store.artifacts import ArtifactView, pack_items, save
from evflow.store.memory import MemoryStore
from evflow.worker.report import explained, failure, instance, kept
from evflow.worker.spec import AttemptOrder
from evflow_scheduler.orders import order_of
from evflow_scheduler.request import RunRequest
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.start import save_parameters, started_event

__all__ = ["Artifacts", "FlowFailed", "FlowResult", "StepResult", "run_flow", "run_step"]

_USER: Final = "test"
_RUN: Final = RunNumber(1)
_IS_COROUTINE: Final = 0x80  # inspect.CO_COROUTINE


class FlowFailed(EvflowError):
    """The run failed, and not by an exception of a body: that one is raised as it is."""

    code = "flow-failed"


class StepUnknown(UsageError):
    """The flow has no such step."""

    code = "step-unknown"

    def __init__(self, flow: type, name: object) -> None:
        steps = list(facts(flow).steps)
        meant = did_you_mean(name, steps) if isinstance(name, str) else ""
        what = f"'{name}'" if isinstance(name, str) else f"{name!r}: a step goes by its name"
        super().__init__(f"{flow.__name__} has no step {what}.{meant}", f"Its steps are {', '.join(steps)}.")


class ValueUnusable(UsageError):
    """A step cannot have been left such a value."""

    code = "value-unusable"

    def __init__(self, flow: type, name: str, why: str, hint: str) -> None:
        super().__init__(f"{name}=… for a step of {flow.__name__}: {why}.", hint)


class LoopRuns(UsageError):
    """An `async` step was to run in a thread in which an event loop runs already."""

    code = "loop-runs"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The flow '{name}' has async steps, which get an event loop of their own, and this thread runs one already.",
            "Call it from a plain test, or in a thread: await anyio.to_thread.run_sync(lambda: run_flow(…)).",
        )


class Artifacts:
    """A task's artifacts, as attributes; each is loaded anew at each use, so that nobody changes another one's."""

    def __init__(self, view: ArtifactView) -> None:
        self._view = view

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._view.load(name)
        except KeyError:
            raise AttributeError(f"There is no artifact '{name}'.{did_you_mean(name, list(self))}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._view

    def __iter__(self) -> Iterator[str]:
        return iter(self._view.names())

    def __dir__(self) -> list[str]:
        return list(self)

    def as_dict(self) -> dict[str, Any]:
        """All of them by name."""
        return {name: self._view.load(name) for name in self._view.names()}

    def __repr__(self) -> str:
        return f"<Artifacts {', '.join(self)}>"


class StepResult:
    """A task that is done.

    Attributes:
        step: Its step.
        data: Its artifacts, inherited ones included.
        next: The steps that it named; none for the last one.
        index: Its place in the innermost foreach or split around it, or None.
        attempts: How many attempts it took.
        caught: The exception that `@catch` took, `module.Class: text`, or None.
    """

    def __init__(
        self, step: str, data: Artifacts, following: Sequence[str], *, index: int | None, attempts: int, caught: str | None
    ) -> None:
        self.step = step
        self.data = data
        self.next = tuple(following)
        self.index = index
        self.attempts = attempts
        self.caught = caught

    def __repr__(self) -> str:
        place = "" if self.index is None else f"[{self.index}]"
        return f"<{self.step}{place}: {', '.join(self.data)}>"


Member = Mapping[str, Any] | StepResult
"""An input of a join: artifacts by name, or what another `run_step` left."""


class FlowResult(Mapping[str, "list[StepResult]"]):
    """A run that succeeded: from the name of each step that ran to its tasks, in their order.

    Attributes:
        data: The artifacts of the last step.
    """

    def __init__(self, steps: Mapping[str, "list[StepResult]"], data: Artifacts) -> None:
        self._steps = steps
        self.data = data

    def __getitem__(self, step: str) -> list[StepResult]:
        return self._steps[step]

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __repr__(self) -> str:
        return f"<FlowResult {', '.join(f'{step}: {len(tasks)}' for step, tasks in self._steps.items())}>"


def run_flow(flow: type[FlowSpec], /, **parameters: object) -> FlowResult:
    """Run a flow to its end, in this process.

    Args:
        flow: The flow's class.
        parameters: Values of its parameters, by name: of their type, or as texts from a command line; and of its configurations.

    Returns:
        What each task left.

    Raises:
        FlowInvalid: The flow has mistakes.
        UsageError: It is no flow; a parameter is missing or does not fit.
        FlowFailed: A transition is ill-formed, or an artifact cannot be kept.
        Exception: What the body raised that failed the run, with a note that says which step it was.
    """
    _need_flow(flow)
    parameters = _configured(flow, parameters)
    graph = graph_of(flow)
    _need_no_loop(flow, facts(flow).steps)
    return _Play(flow, graph, resolve(flow, _by_name(flow, parameters), user=_USER)).play()


def run_step(
    flow: type[FlowSpec],
    step: str,
    /,
    *,
    input: object = None,  # noqa: A002 - as `self.input`
    index: int | None = None,
    inputs: "Iterable[Member] | Mapping[str, Member] | None" = None,
    **values: object,
) -> StepResult:
    """Run one step, as often as its `@retry` allows, with what the steps before it are said to have left.

    Args:
        flow: The flow's class.
        step: The step.
        input: The item of the foreach that the step is in.
        index: Its place there; 0 where only `input` is given.
        inputs: For a join: the artifacts of each member, a result of another `run_step` or a mapping; by name of their steps
            for the branches of a split.
        values: Parameters and configurations, which have their defaults otherwise, and artifacts that the step inherits.

    Returns:
        What it left. Its `next` says where it goes on.

    Raises:
        StepUnknown: There is no such step.
        UsageError: It is no flow; a parameter is missing or does not fit; a join without `inputs`, or `inputs` for another step;
            an index or inputs that cannot be.
        ArtifactNotSerializable, FunctionIsNoArtifact: An artifact cannot be kept.
        Exception: What the body raised.
    """
    _need_flow(flow)
    if not isinstance(cast("object", step), str) or step not in facts(flow).steps:
        raise StepUnknown(flow, step)
    if index is not None and (type(index) is not int or index < 0):
        raise UsageError(f"index={index!r}: it is the item's place in the foreach, from 0 on.")
    _need_no_loop(flow, [step])
    values = _configured(flow, values)
    return _Single(flow, step).run(values, input, index, inputs)


class _Play:
    """One run: the state that decides, and a store for what tasks leave."""

    def __init__(self, flow: type[FlowSpec], graph: Graph, parameters: Mapping[str, object]) -> None:
        self._flow = flow
        self._store = MemoryStore()
        self._owned = OwnedRun(RunId(FlowName(flow.__name__), _RUN))
        request = RunRequest(
            flow=flow, flow_file="", parameters=parameters, user=_USER, options=RunOptions(max_num_splits=DEFAULT_TASK_BUDGET)
        )
        given = save_parameters(self._store, request)
        self._parameters = ArtifactView.open(self._store, given.manifest)
        self._started = started_event(
            self._owned.id, request, graph, given=given, package=None, host="", installation="", store=self._store.url
        )
        self._errors: dict[int, Exception | SystemExit] = {}

    def play(self) -> FlowResult:
        state, now = self._owned.state, now_us()
        accepted: list[ev.Event] = [self._started]
        while not state.over:
            records = self._owned.turn([(fact, _USER, 0) for fact in accepted], now)
            launched = [record.event.task for record in records if isinstance(record.event, ev.TaskLaunched)]
            accepted = [self._attempt(state.tasks[task]) for task in launched]
            first = next((state.tasks[number] for number in state.waiting), None)
            nodes = [] if first is None else nodes_of(state, first)  # a gang's run one after the other here
            accepted += [ev.SlotGranted(node.id, node.attempt.number, 0) for node in nodes]
            if not accepted and not state.over:  # what is left to wait for is an instant
                now = max(now, state.agenda.timers[0][0])
        return self._result(state)

    def _attempt(self, task: Task) -> ev.Event:
        """Run the task's current attempt; what it comes to."""
        order = order_of(self._owned.state, task)
        report, error = _attempt(self._flow, order, self._store, self._parameters)
        if error is not None:
            self._errors[task.id] = error
        return report

    def _result(self, state: RunState) -> FlowResult:
        if state.status != "succeeded":
            self._fail(state)
        steps: dict[str, list[StepResult]] = {}
        for task in state.all_tasks():
            steps.setdefault(task.step, []).append(self._done(task))
        ended = next(task for task in state.all_tasks() if task.next_kind == "end")
        return FlowResult(steps, self._done(ended).data)

    def _done(self, task: Task) -> StepResult:
        assert task.manifest is not None
        index = task.frame.index if task.frame is not None else None
        data = Artifacts(ArtifactView.open(self._store, task.manifest))
        return StepResult(task.step, data, task.next_steps, index=index, attempts=len(task.attempts), caught=task.caught)

    def _fail(self, state: RunState) -> None:
        outcome = state.outcome
        assert outcome is not None
        error = self._errors.get(outcome.task)
        if error is None:
            raise FlowFailed(outcome.reason)
        task = state.tasks[outcome.task]
        error.add_note(f"In step '{task.step}' of {self._flow.__name__}, task {task.id}, attempt {len(task.attempts)}.")
        raise error


class _Single:
    """One step with made-up neighbours."""

    def __init__(self, flow: type[FlowSpec], step: str) -> None:
        self._flow = flow
        self._step = step
        self._store = MemoryStore()

    def run(
        self, values: Mapping[str, object], item: object, index: int | None, inputs: "Iterable[Member] | Mapping[str, Member] | None"
    ) -> StepResult:
        flow, step = self._flow, self._step
        names = _names(flow)
        given = {name: value for name, value in values.items() if name in names}
        left = {name: value for name, value in values.items() if name not in names}
        _need_artifacts(flow, left)
        parameters = {**facts(flow).constants, **resolve(flow, _by_name(flow, given), user=_USER)}
        own = ArtifactView.open(self._store, save(self._store, parameters).manifest)
        node = graph_of(flow)[step]
        takes_inputs, policy = node.takes_inputs, node.policy
        if takes_inputs is not (inputs is not None):
            what = f"Step '{step}' is a join: give it `inputs`." if takes_inputs else f"Step '{step}' takes no inputs: it is no join."
            raise UsageError(what)
        place = index or 0
        frames = (self._foreach(item, place),) if item is not None or index is not None else ()
        parents: tuple[tuple[str, int, bytes], ...] = (("before", 1, save(self._store, left, own).manifest),)
        joined = None
        if takes_inputs:
            parents = tuple(self._members(_named(inputs or ()), own, left))
            joined = ("before", 1, "split" if isinstance(inputs, Mapping) else "foreach", 0, len(parents), None, None)
        order = AttemptOrder(
            step, 2, 0, parents=parents, takes_inputs=takes_inputs, frames=frames, timeout_s=policy.timeout_us / 1e6, joined=joined
        )
        report = self._report(order, own, policy.retry_times)
        data = Artifacts(ArtifactView.open(self._store, report.manifest))
        index = place if frames else None
        return StepResult(step, data, report.next_steps, index=index, attempts=report.attempt + 1, caught=report.caught)

    def _report(self, order: AttemptOrder, parameters: ArtifactView, retries: int) -> ev.AttemptSucceeded:
        """What the first attempt that succeeds reports, or the exception of the last one."""
        attempt = 0
        while True:
            now = replace(order, attempt=attempt, last=attempt == retries)
            report, error = _attempt(self._flow, now, self._store, parameters)
            if isinstance(report, ev.AttemptSucceeded):
                return report
            if error is not None and now.last:
                raise error
            attempt += 1

    def _foreach(self, item: object, index: int) -> tuple[str, int, str, int, int, bytes, str]:
        digest, size = pack_items(self._store, [*[None] * index, item], name="input")
        return "before", 1, "foreach", index, size, digest, "items"

    def _members(
        self, members: Iterable[tuple[str, Member]], parameters: ArtifactView, left: Mapping[str, object]
    ) -> Iterator[tuple[str, int, bytes]]:
        for number, (step, member) in enumerate(members):
            values = member.data.as_dict() if isinstance(member, StepResult) else member
            yield step, 2 + number, save(self._store, {**left, **values}, parameters).manifest


def _named(inputs: Iterable[Member] | Mapping[str, Member]) -> Iterable[tuple[str, Member]]:
    """The members of a join, each with the step that it comes from."""
    if isinstance(inputs, Mapping):
        named = list(cast("Mapping[str, Member]", inputs).items())
    elif isinstance(cast("object", inputs), Iterable):
        named = [(one.step if isinstance(one, StepResult) else "member", one) for one in inputs]
    else:
        raise UsageError(f"inputs={inputs!r}: it is the list of a join's members, or a dictionary of them by their steps.")
    for _, one in named:
        if not isinstance(cast("object", one), Mapping | StepResult):
            raise UsageError(f"{one!r} among `inputs`: each is a mapping of artifacts, or a result of `run_step`.")
    return named


def _attempt(
    flow: type[FlowSpec], order: AttemptOrder, store: MemoryStore, parameters: ArtifactView
) -> tuple[ev.AttemptSucceeded | ev.AttemptFailed, Exception | SystemExit | None]:
    """Run one attempt: its report, and what was raised. What is neither an Exception nor SystemExit is for the test."""
    began, stage = now_us(), "load"
    with _surroundings(flow, order):
        try:
            task = instance(flow, order, store, parameters)
            stage = "exception"
            done = record_crash(task, order.crash) if order.mode == "catch" else run_body(task, timeout_s=order.timeout_s, last=order.last)
            stage = "artifact"
            return kept(task, order, store, done, began)[0], None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it becomes the report, and is raised if it fails the run
            text = explained(error, stage)
            if not order.last:
                sys.stderr.write(text)
            return failure(order, store, error, stage, began, text), error


@contextmanager
def _surroundings(flow: type[FlowSpec], order: AttemptOrder) -> Generator[None]:
    """`current` as in a task; afterwards the process's variables and folder, and the flow's constants, are what they were."""
    variables, folder, constants = dict(os.environ), os.getcwd(), list(_changeable(flow))  # noqa: PTH109
    current.enter(
        flow_name=flow.__name__, run_id=_RUN, step_name=order.step, task_id=order.task, retry_count=order.attempt, username=_USER,
        namespace=f"user:{_USER}", tags={f"user:{_USER}"}, graph=lambda: graph_info(flow), parameter_names=tuple(facts(flow).parameters),
    )  # fmt: skip
    current.enter_gang(order.task, order.gang)
    if (project := project_of(flow, user=_USER)) is not None:
        enter_project(project.to_plain())
    try:
        yield
    finally:
        current.leave()
        os.chdir(folder)
        for owner, name, value in constants:
            setattr(owner, name, value)
        if os.environ != variables:
            os.environ.clear()
            os.environ.update(variables)


def _changeable(flow: type[FlowSpec]) -> Iterator[tuple[type, str, object]]:
    """Constants that a body could change in place, copied: in a run no other task would see it, each is in a process of its own."""
    for name in facts(flow).constants:
        owner = next((one for one in flow.__mro__ if name in vars(one)), None)
        if owner is not None and isinstance(vars(owner)[name], list | dict | set | bytearray):
            yield owner, name, deepcopy(vars(owner)[name])


def _configured(flow: type[FlowSpec], given: dict[str, object]) -> dict[str, object]:
    """Settle the flow's configurations; what is left of the values."""
    if not facts(flow).configs:
        return given
    from evflow.flow import config_values, configs

    specs = [configs.spec_of(config) for config in config_values.configs_of(flow)]
    names = {spec.attribute: spec.name for spec in specs} | {spec.name: spec.name for spec in specs}
    values = {names[name]: value for name, value in given.items() if name in names}
    config_values.settle(flow, config_values.resolve(flow, values=values, user=_USER))
    return {name: value for name, value in given.items() if name not in names}


def _names(flow: type[FlowSpec]) -> dict[str, str]:
    """What parameters may be called: by their attribute, and by their name on a command line."""
    found = {parameter.name: parameter.name for parameter in facts(flow).parameters.values()}
    return found | {attribute: parameter.name for attribute, parameter in facts(flow).parameters.items()}


def _need_artifacts(flow: type[FlowSpec], left: Mapping[str, object]) -> None:
    """See that each value can be an artifact that an earlier step left, and is no mistyped parameter.

    Raises:
        ValueUnusable: It cannot, or nothing in the flow has that name, and a parameter has one that is close.
    """
    parameters = [parameter.name for parameter in facts(flow).parameters.values()]
    for name in left:
        if name in facts(flow).constants:
            hint = "Change it for a test with monkeypatch.setattr(…)."
            raise ValueUnusable(flow, name, "it is a constant of the class, which no step can set", hint)
        if name in facts(flow).steps:
            raise ValueUnusable(flow, name, "it is a step", "")
        meant = did_you_mean(name, parameters)
        if meant and not _mentions(flow, name):
            raise ValueUnusable(flow, name, "no parameter is called so, and no step uses an artifact of this name", meant.strip())


def _mentions(flow: type[FlowSpec], name: str) -> bool:
    """Whether some method of the flow uses the name, as an attribute or in a text (`getattr`)."""
    codes = [getattr(inspect.unwrap(member), "__code__", None) for cls in flow.__mro__ for member in vars(cls).values() if callable(member)]
    while codes:
        code = codes.pop()
        if code is not None:
            if name in code.co_names or name in code.co_consts:
                return True
            codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    return False


def _by_name(flow: type[FlowSpec], given: Mapping[str, object]) -> dict[str, object]:
    names = _names(flow)
    return {names.get(name, name): value for name, value in given.items()}


def _need_flow(flow: object) -> None:
    if not (isinstance(flow, type) and issubclass(flow, FlowSpec)):
        raise UsageError(f"{flow!r} is no flow.", "Give the class itself, as in run_flow(Hello).")


def _need_no_loop(flow: type[FlowSpec], steps: Iterable[str]) -> None:
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - its own quick way to ask
        return
    if any(getattr(getattr(facts(flow).steps[step], "__code__", None), "co_flags", 0) & _IS_COROUTINE for step in steps):
        raise LoopRuns(flow.__name__)
