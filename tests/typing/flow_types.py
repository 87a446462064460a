# pyright: strict
"""What the type checkers see of a flow. `make check` reads this file with mypy and pyright in their strict modes.

An ignore here stands where a mistake must be found: mypy complains when it is not needed.
"""

from typing import Any, assert_type

from evflow import (
    Config,
    DeployedFlow,
    Deployer,
    ExecutingRun,
    ExecutingTask,
    FlowSpec,
    IncludeFile,
    Inputs,
    JSONType,
    NBRunner,
    Parameter,
    Run,
    Runner,
    Task,
    TriggeredRun,
    cached,
    catch,
    current,
    environment,
    resources,
    retry,
    schedule,
    step,
    timeout,
)
from evflow.deployments.deployer import SchedulerDeployer
from evflow.flow.parameter_values import ParameterContext


def tonight(context: ParameterContext) -> str:
    return context.flow_name


@schedule
class Nightly(FlowSpec):
    pass


assert_type(Nightly, type[Nightly])


@schedule(cron="30 2 * * *", timezone="Europe/Berlin", catch_up="last")
class Typed(FlowSpec):
    folds = Parameter("folds", default=5, help="Into how many parts.")
    rate = Parameter("rate", type=float, required=True)
    fast = Parameter("fast", default=False)
    label = Parameter("label")
    night = Parameter("night", default=tonight)
    windows = Parameter("windows", default="7,14", separator=",")
    options = Parameter("options", type=JSONType, default="{}")

    limit = 3
    total: float

    @retry
    @step
    def start(self) -> None:
        assert_type(self.folds, int)
        assert_type(self.rate, float)
        assert_type(self.fast, bool)
        assert_type(self.label, str)
        assert_type(self.night, str)
        assert_type(self.windows, list[str])
        assert_type(self.options, Any)
        assert_type(Typed.folds, Parameter[int])
        self.parts = list(range(self.folds))
        self.next(self.part, foreach="parts")

    @catch(var="error", print_exception=False)
    @cached(key=["alpha"], version=2)
    @timeout(minutes=5)
    @resources(cpu=2, memory=4000)
    @environment(vars={"OMP_NUM_THREADS": "1"})
    @step
    async def part(self) -> None:
        assert_type(self.input, Any)
        assert_type(self.index, int | None)
        assert_type(self.foreach_stack(), list[tuple[int, int, Any]])
        assert_type(self.parts, list[int])
        assert_type(self.set_in_another_class, Any)
        assert_type(current.run_id, str)
        assert_type(current.retry_count, int)
        self.score = 0.5
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        assert_type(len(inputs), int)
        assert_type(inputs[0], Any)
        assert_type(inputs[:2], list[Any])
        self.total = sum(each.score for each in inputs)
        self.merge_artifacts(inputs, exclude=["score"])
        self.next({"small": self.end, "large": self.large}, condition="size")

    @step
    def large(self) -> None:
        self.next(self.end)

    @step(end=True)
    def end(self) -> None:
        assert_type(self.total, float)


async def deployed_flows(file: str) -> None:
    deployed = Deployer(file).scheduler("hourly").create(production=True, tags=["a"], max_workers=3)
    assert_type(deployed, DeployedFlow)
    assert_type(Deployer(Typed).scheduler(), SchedulerDeployer)
    assert_type(deployed.version, int)
    assert_type(list(DeployedFlow.list_deployed_flows()), list[DeployedFlow])
    triggered = deployed.trigger({"the-day": "monday"}, rate=0.5, tags=["b"])
    assert_type(triggered, TriggeredRun)
    assert_type(triggered.run, Run | None)
    assert_type(triggered.wait_for_run(timeout=3), Run)
    assert_type(await (await deployed.async_trigger(rate=1)).async_wait_for_completion(0.5, 3.0), Run)


async def running(file: str) -> None:
    with Runner(file, quiet=True, decospecs=["retry"]) as runner:
        assert_type(runner.run(rate=0.5, tags=["a"]), ExecutingRun)
        assert_type(runner.resume("end").run, Run)
        assert_type(runner.spin("start"), ExecutingTask)
    async with Runner(file) as other, await other.async_run() as executing:
        assert_type((executing.status, executing.returncode, executing.stdout), tuple[str, int | None, str])
        assert_type(await executing.wait(timeout=3), ExecutingRun)
        async for position, line in executing.stream_log("stdout"):
            assert_type((position, line), tuple[int, str])
        assert_type((await other.async_spin("start")).task, Task)
    assert_type(NBRunner(Typed).nbrun(rate=1), Run)


def wrong_uses() -> None:
    """Each line has one mistake that a checker finds."""
    Typed(use_cli=False).folds = 3  # type: ignore[assignment]
    retry(times="three")  # type: ignore[call-overload]
    retry(tims=3)  # type: ignore[call-overload]
    timeout(secs=3)  # type: ignore[call-overload]
    cached(key=3)  # type: ignore[call-overload]
    catch(var=3)  # type: ignore[call-overload]
    Typed(use_cli=False).next("end")  # type: ignore[arg-type]
    Typed(use_cli=False).next(Typed(use_cli=False).end, foreach=[1])  # type: ignore[arg-type]
    Deployer(file=3)  # type: ignore[call-arg]
    Runner(3)  # type: ignore[arg-type]
    Runner("flow.py").run({"rate": 1})  # type: ignore[call-arg]
    Deployer(Typed).scheduler().create(worker=3)  # type: ignore[call-arg]
    DeployedFlow("Typed").trigger("rate")  # type: ignore[arg-type]


def lines(text: str) -> list[str]:
    return text.splitlines()


class Filed(FlowSpec):
    """What steps see of files and configurations; decorators take of a configuration what they will get."""

    cfg = Config("cfg", default_value={"times": 1})
    text = IncludeFile("text")
    raw = IncludeFile("raw", is_text=False)
    parsed = IncludeFile("parsed", parser=lines)

    @retry(times=cfg.times)
    @environment(**cfg.environment)
    @step
    def start(self) -> None:
        assert_type(self.text, str)
        assert_type(self.raw, bytes)
        assert_type(self.parsed, list[str])
        assert_type(self.cfg, Any)
