"""What people type for a run, a step or a task, and which one they mean.

    TrainFlow/3/train/7    as it stands
    TrainFlow              its newest run
    3, 3/train, 3/train/7  run 3 of the flow that this folder defines; else of the one flow that has a run 3
    TrainFlow/3/7          task 7, whatever its step
    train, train/7         behind `python flow.py`: that step, or a task of it, in the flow's newest run

Where more than one run could be meant, nothing is guessed: the candidates are listed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState, Task
from evflow.errors import UsageError, did_you_mean
from evflow.log.protocol import LogClient

WHAT = "WHAT is a run, a step or a task of it: TrainFlow/3, TrainFlow/3/train, TrainFlow/3/train/7."
WHAT_OF_FLOW = "WHAT is a run of this flow, a step or a task of it: 3, 3/train, 3/train/7; train and train/7 are those of its newest run."
_FLOW_CLASS = re.compile(rb"^class\s+(\w+)\s*\(.*(?:FlowSpec|Flow)\b", re.MULTILINE)
_MOST_FILES = 200
_MOST_BYTES = 1_000_000
_MOST_DIGITS = 18
"""No run, task or event has a longer number, and `int` refuses far longer ones."""


class BadReference(UsageError):
    """The text names no run, step or task."""

    code = "bad-reference"
    exit_code = 2

    def __init__(self, text: str) -> None:
        super().__init__(
            f"'{text}' does not name a run, a step or a task.", "Write it like TrainFlow/3, TrainFlow/3/train or TrainFlow/3/train/7."
        )


class AmbiguousRun(UsageError):
    """More than one run could be meant."""

    code = "ambiguous-run"

    def __init__(self, text: str, candidates: Sequence[RunId]) -> None:
        listed = "\n".join(f"  {run}" for run in candidates)
        super().__init__(f"'{text}' could be any of these runs:\n{listed}", "Write the flow's name too.")


class NoSuchRun(UsageError):
    """No run fits."""

    code = "run-not-found"

    def __init__(self, text: str, flows: Sequence[str]) -> None:
        has = f"This log has runs of {', '.join(flows)}." if flows else "This log has no runs."
        super().__init__(f"There is no run '{text}'.", f"{has}{did_you_mean(text.partition('/')[0], flows)} `evflow runs` lists them.")


class NoRunBegan(UsageError):
    """The flow took run numbers, and none of those runs came to its first event."""

    code = "no-run-began"

    def __init__(self, flow: str, *, deployed: bool = False) -> None:
        if deployed:
            super().__init__(f"'{flow}' is deployed and has no run that began.", f"`evflow run {flow}` asks for one.")
            return
        super().__init__(
            f"'{flow}' has no run that began: what was started died before its first event, or is about to begin.", "Start a new run."
        )


class NothingToResume(UsageError):
    """The flow has only runs that were resumed themselves, or none."""

    code = "nothing-to-resume"

    def __init__(self, flow: str, newest: RunId | None) -> None:
        text = f"All runs of '{flow}' are resumed ones" if newest else f"'{flow}' has no run yet"
        hint = f"Name one: --origin-run-id {newest.number}." if newest else "Start one with `run`."
        super().__init__(f"{text}: there is none to resume without being named.", hint)


class OriginOfAnotherFlow(UsageError):
    """A run of another flow has nothing that this one could take over."""

    code = "origin-of-another-flow"

    def __init__(self, flow: str, run: RunId) -> None:
        super().__init__(
            f"Run '{run}' is one of '{run.flow}', and '{flow}' takes over only what its own runs finished.", "`evflow runs` lists them."
        )


class NotAWholeRun(UsageError):
    """A step or a task is named where only whole runs will do."""

    code = "not-a-whole-run"

    def __init__(self, text: str, run: RunId) -> None:
        super().__init__(
            f"'{text}' is a part of '{run}', and this is done to whole runs. Nothing was changed.", f"If the run is meant: {run}."
        )


class NoSuchStep(UsageError):
    """The run's flow has no such step."""

    code = "step-not-found"

    def __init__(self, run: str, step: str, steps: Sequence[str]) -> None:
        known = f"Its steps are {', '.join(steps)}." if steps else "It has not begun: `evflow explain` says what it waits for."
        super().__init__(f"Run '{run}' has no step '{step}'.{did_you_mean(step, steps)}", known)


class NoSuchTask(UsageError):
    """The run has no such task."""

    code = "task-not-found"

    def __init__(self, run: str, task: str, tasks: Sequence[Task]) -> None:
        near = ", ".join(f"{found.step}/{found.id}" for found in tasks[:10]) + (", …" if len(tasks) > 10 else "")
        super().__init__(f"Run '{run}' has no task '{task}'.", f"It has {near}." if tasks else "It has no tasks there yet.")


class Reference(NamedTuple):
    """What somebody typed, taken apart; empty or None where a part was not given."""

    text: str
    flow: str = ""
    number: int | None = None
    step: str = ""
    task: int | None = None


def parse(text: str) -> Reference:
    """Take a reference apart.

    Raises:
        BadReference: It is not of one of the forms above.
    """
    parts = text.strip("/").split("/")
    flow = "" if is_number(parts[0]) else parts.pop(0)
    if not (flow.isidentifier() or (not flow and parts)):
        raise BadReference(text)
    if not parts:
        return Reference(text, flow)
    number, *rest = parts
    if not is_number(number) or not all(rest):
        raise BadReference(text)
    step = rest.pop(0) if rest and not is_number(rest[0]) else ""
    if len(rest) > 1 or (rest and not is_number(rest[0])):
        raise BadReference(text)
    return Reference(text, flow, int(number), step, int(rest[0]) if rest else None)


def meant(log: LogClient, what: str, flow: type | None) -> tuple[Reference, RunId]:
    """What is named, and the run that it is of; on the command line of a flow its steps have names of their own.

    Raises:
        BadReference, NoSuchRun, NoRunBegan, AmbiguousRun: None or several fit.
    """
    if flow is None:
        reference = parse(what)
        return reference, resolve(log, reference)
    reference = _of_step(log, what, flow) or parse(what)
    return reference, resolve(log, reference, flow=flow.__name__)


def _of_step(log: LogClient, what: str, flow: type) -> Reference | None:
    """A step, or a task of one, without a run. What is no flow either is a step: one that the flow had once, or a mistyped one."""
    from evflow.flow.steps import facts

    step, _, task = what.strip("/").partition("/")
    if not step.isidentifier() or is_number(step) or (task and not is_number(task)):
        return None
    if step not in facts(flow).steps and (step == flow.__name__ or step in log.flows()):
        return None
    return Reference(what, flow.__name__, None, step, int(task) if task else None)


def is_number(text: str) -> bool:
    """Whether a text can be the number of a run, a task or an event."""
    return text.isdecimal() and len(text) <= _MOST_DIGITS


def resolve(log: LogClient, reference: Reference, *, flow: str = "") -> RunId:
    """The run that is meant; `flow` is the one that a flow's own command line stands for.

    Raises:
        NoSuchRun, AmbiguousRun: None or several fit.
    """
    name = reference.flow or flow
    if name and reference.number is not None:
        return RunId(FlowName(name), RunNumber(reference.number))
    if name:
        newest = log.runs(FlowName(name), 1)
        if not newest:
            known = log.flows()
            raise NoRunBegan(name, deployed=bool(log.deployments(FlowName(name)))) if name in known else NoSuchRun(reference.text, known)
        return newest[0].run
    flows = log.flows()
    candidates = [RunId(known, RunNumber(reference.number or 0)) for known in flows]
    existing = [run for run in candidates if log.run(run) is not None]
    here = set(flows_in(Path()))
    local = [run for run in existing if run.flow in here]
    found = local if len(local) == 1 else existing
    if not found:
        raise NoSuchRun(reference.text, flows)
    if len(found) > 1:
        raise AmbiguousRun(reference.text, found)
    return found[0]


def whole(log: LogClient, text: str) -> RunId:
    """The run that is meant, which exists; for what is done to all of it at once.

    Raises:
        BadReference, NoSuchRun, AmbiguousRun: None or several fit.
        NotAWholeRun: A step or a task of it is named.
    """
    reference = parse(text)
    run = resolve(log, reference)
    if log.run(run) is None:
        raise NoSuchRun(text, log.flows())
    if reference.step or reference.task is not None:
        raise NotAWholeRun(text, run)
    return run


def origin_of(flow: str, text: str | None) -> RunId:
    """The run that `resume` takes over: the one named, else the flow's newest that is no resumed one itself.

    Raises:
        NoSuchRun, BadReference: As above.
        OriginOfAnotherFlow: The run named is none of this flow's.
    """
    from evflow.cli import session

    with session.log() as log:
        if text is not None:
            run = resolve(log, parse(text), flow=flow)
            if log.run(run) is None:
                raise NoSuchRun(text, log.flows())
            if run.flow != flow:
                raise OriginOfAnotherFlow(flow, run)
            return run
        runs = log.runs(FlowName(flow))
        for entry in runs:
            if not entry.summary.get("origin"):
                return entry.run
        raise NothingToResume(flow, runs[0].run if runs else None)


def flows_in(folder: Path) -> Iterator[str]:
    """Names of the flows that the Python files of a folder define, read from their text; nothing is imported."""
    try:
        files = sorted(folder.glob("*.py"))[:_MOST_FILES]
    except OSError:
        return
    for path in files:
        try:
            if path.stat().st_size <= _MOST_BYTES:
                yield from (match.decode() for match in _FLOW_CLASS.findall(path.read_bytes()))
        except OSError:
            continue  # a file that may not be read defines no flow that this user could have run


def tasks_of(state: RunState, reference: Reference) -> list[Task]:
    """The tasks of a run that a reference names: one, those of a step, or all.

    Raises:
        NoSuchStep, NoSuchTask: There is none.
    """
    run = f"{state.flow}/{state.number}"
    if reference.step and reference.step not in state.graph and reference.step not in state.steps:
        raise NoSuchStep(run, reference.step, list(state.graph.nodes))
    tasks: Iterable[Task] = state.all_tasks() if state.tasks else ()
    wanted = [task for task in tasks if not reference.step or task.step == reference.step]
    if reference.task is None:
        return wanted
    found = [task for task in wanted if task.id == reference.task]
    if not found:
        raise NoSuchTask(run, f"{reference.step}/{reference.task}".lstrip("/"), wanted)
    return found


def pathspec(state: RunState, task: Task) -> str:
    """`Flow/run/step/task`."""
    return f"{state.flow}/{state.number}/{task.step}/{task.id}"
