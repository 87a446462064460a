"""`python flow.py spin`: one task of a past run again, with the code of now.

What the step prints goes to stdout and stderr as it is. Then come its artifacts on stdout, and what became of it on stderr.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import click

from evflow.cli.complete import of_what
from evflow.cli.flow_graph import banner, checked
from evflow.cli.flow_main import FlowContext
from evflow.cli.setting_option import setting_option, take_given
from evflow.core.ids import FlowName, RunId
from evflow.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from evflow.cli.naming import Reference
    from evflow.core.state import RunState, Task
    from evflow.log.protocol import LogClient
    from evflow.store.artifacts import ArtifactView
    from evflow_executors.protocol import OutputLine
    from evflow_scheduler.spin import Spun

_RUNS_LOOKED_AT: Final = 50
"""Where only a step is named: so many of the newest runs are asked for a task of it."""
_SHOWN_CHARS: Final = 200
_SETTINGS: Final = ("max_num_splits", "max_log_size", "namespace", "start_method", "fallback")
_LIKE_RESUME: Final = "Parameters and configurations are those of the run."


class NoTaskToSpin(UsageError):
    """The run that is named, or none of those that could be meant, has come to the step."""

    code = "no-task-to-spin"

    def __init__(self, flow: str, step: str, run: RunId | None = None) -> None:
        who = f"Run '{run}' has not" if run is not None else f"None of the newest runs of '{flow}' has"
        super().__init__(
            f"{who} come to step '{step}': there are no inputs to spin it with.",
            "Start one with `run`, or name a task of another one: spin RUN/STEP/TASK.",
        )


class StepChangedItsInputs(UsageError):
    """The step was a join and is none, or the other way round."""

    code = "step-changed-its-inputs"

    def __init__(self, step: str, *, takes: bool) -> None:
        now = "takes inputs now and did not" if takes else "takes no inputs now and did"
        super().__init__(f"Step '{step}' {now} in that run, which has nothing to give it.", "Start a new run.")


class ArtifactsModuleInvalid(UsageError):
    """`--artifacts-module` names a file that gives no artifacts."""

    code = "artifacts-module-invalid"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"'{file}' gives no artifacts: {why}.", 'It is a Python file with ARTIFACTS = {"name": value, …} in it.')


class OutcomeFileUnwritable(UsageError):
    """`--outcome-file` names a file that cannot be written."""

    code = "outcome-file-unwritable"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"The outcome cannot be written to '{file}': {why}.", "Name another file with --outcome-file.")


class _Found(NamedTuple):
    """The task that is meant, its run, and how many others there were to choose from."""

    run: RunId
    state: "RunState"
    task: "Task"
    of: int


def spin_command(flow: type) -> click.Command:
    """`spin`: a task of a past run, with the code of now."""
    from evflow.flow.steps import facts

    @click.pass_obj
    def spin(context: FlowContext, /, **given: Any) -> None:
        _spin(context, **given)

    def complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        steps = [CompletionItem(step) for step in facts(flow).steps if step.startswith(begun)]
        return [*steps, *of_what()(ctx, parameter, begun)]

    params: list[click.Parameter] = [
        click.Argument(["path"], shell_complete=complete),
        click.Option(["--artifacts-module"], type=click.Path(dir_okay=False), metavar="FILE", help="Python file whose ARTIFACTS, a dictionary, the step finds in place of what it would inherit."),
        click.Option(["--skip-decorators/--no-skip-decorators"], default=False, help="Leave out the decorators in the source; those of --with count."),
        click.Option(["--persist/--no-persist"], default=False, help="Keep it in ./.evflow_spin, for evflow.inspect_spin() and EVFLOW_HOME=.evflow_spin."),
        click.Option(["--with", "with_specs"], multiple=True, metavar="SPEC", help="Add a decorator to the step if it lacks it."),
        setting_option("max_num_splits", "N", "Tasks that one foreach may make  [default: 100]"),
        setting_option("max_log_size", "MB", "Output kept of the task  [default: 10]"),
        setting_option("namespace", "NS", "The namespace of the client inside the step."),
        setting_option("start_method", "auto|fork|spawn", "How the task's process starts."),
        setting_option("fallback", "local|wait|error", "What to do where the step's environment cannot be had."),
        click.Option(["--outcome-file"], type=click.Path(dir_okay=False), metavar="FILE", help="Write what --json prints to FILE, too, whatever becomes of the step; for programs."),
        click.Option(["--json", "as_json"], is_flag=True, help="What became of it as JSON on stdout; what the step prints goes to stderr."),
    ]  # fmt: skip
    text = (
        "Run one task of a past run again, with the inputs that it had and the code of now. PATH is a step (of the newest run that has come "
        f"to it; a task that failed, if one did), RUN/STEP, or RUN/STEP/TASK. {_LIKE_RESUME} It becomes no run: nothing follows it, "
        "and no list shows it."
    )
    return click.Command("spin", callback=spin, params=params, help=text)


def _spin(
    context: FlowContext,
    path: str,
    artifacts_module: str | None,
    skip_decorators: bool,
    persist: bool,
    outcome_file: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    from evflow.cli import session
    from evflow.cli.flow_run import wishes
    from evflow.core.spin import FOLDER
    from evflow.flow.steps import facts
    from evflow_scheduler import early

    take_given(_SETTINGS, given)
    banner(context)
    with session.log() as log:
        found = _found(log, context.flow, path)
        early.connect()
    if facts(context.flow).configs:
        from evflow.cli.flow_configs import settle_origin

        settle_origin(context, found.run)
    checked(context)
    _check_inputs(context.flow, found)
    artifacts: Mapping[str, object] = {} if artifacts_module is None else _artifacts(context.flow, artifacts_module)
    if outcome_file is not None and not Path(outcome_file).is_fifo():
        _write_outcome(outcome_file, b"", "ab")
    context.say(_announced(found))
    from evflow_scheduler.spin import SpinRequest, spin

    wanted = wishes(context, given, fallback="local", is_spin=True)
    home = Path.cwd() / FOLDER if persist else None
    request = SpinRequest(
        flow=context.flow,
        flow_file=context.file,
        origin=found.state,
        task=found.task.id,
        user=wanted["user"],
        namespace=wanted["namespace"],
        options=wanted["options"],
        artifacts=artifacts,
        skip_decorators=skip_decorators,
        persist=home,
        on_line=_printer(as_json=as_json),
        on_notice=lambda text: click.echo(text, err=True),
    )
    spun = spin(request)
    shown = _outcome(found, spun, home)
    if outcome_file is not None:
        from evflow.cli.output import json_bytes

        _write_outcome(outcome_file, json_bytes(shown))
    if as_json:
        from evflow.cli.output import write_json

        write_json(shown)
    else:
        _print_artifacts(shown)
    _say(context, found, spun, home)
    click.get_current_context().exit(0 if spun.task.status == "succeeded" else 1)


# --- which task ------------------------------------------------------------------------------------------------------


def _found(log: "LogClient", flow: type, path: str) -> _Found:
    """The task that is meant.

    Raises:
        UsageError: There is none.
    """
    from evflow.cli import session
    from evflow.cli.naming import NoSuchRun, OriginOfAnotherFlow, Reference, parse, resolve
    from evflow.flow.steps import facts

    steps = list(facts(flow).steps)
    first, *rest = path.strip("/").split("/")
    if not rest and first in steps:
        for entry in log.runs(FlowName(flow.__name__), _RUNS_LOOKED_AT):
            if entry.is_requested:
                continue
            with suppress(UsageError):  # a run without an event
                _, state = session.folded(log, entry.run)
                if any(task.step == first for task in state.all_tasks()):
                    return _choose(state, Reference(path, step=first), entry.run)
        raise NoTaskToSpin(flow.__name__, first)
    if not rest and first != flow.__name__ and not first.isdecimal():
        raise click.UsageError(f"{flow.__name__} has no step '{first}'.{did_you_mean(first, steps)}")
    reference = parse(path)
    run = resolve(log, reference, flow=flow.__name__)
    if log.run(run) is None:
        raise NoSuchRun(path, log.flows())
    if run.flow != flow.__name__:
        raise OriginOfAnotherFlow(flow.__name__, run)
    if not reference.step and reference.task is None:
        raise click.UsageError(f"'{path}' is a whole run; name a step of it, as in {run.number}/{steps[0]}.")
    _, state = session.folded(log, run)
    found = _choose(state, reference, run)
    if found.task.step not in steps:
        raise click.UsageError(f"{flow.__name__} has no step '{found.task.step}' any more.{did_you_mean(found.task.step, steps)}")
    return found


def _choose(state: "RunState", reference: "Reference", run: RunId) -> _Found:
    """The task that is named; of several the first that failed, else the first."""
    from evflow.cli.naming import tasks_of

    tasks = tasks_of(state, reference)
    if not tasks:
        raise NoTaskToSpin(state.flow, reference.step, run)
    failed = [task for task in tasks if task.status == "failed"]
    return _Found(run, state, (failed or tasks)[0], len(tasks))


def _check_inputs(flow: type, found: _Found) -> None:
    from evflow.flow import graph_of

    takes = graph_of(cast("Any", flow))[found.task.step].takes_inputs
    if takes != found.state.graph[found.task.step].takes_inputs:
        raise StepChangedItsInputs(found.task.step, takes=takes)


def _announced(found: _Found) -> str:
    from evflow.cli.naming import pathspec
    from evflow.cli.output import count
    from evflow.core.gangs import gang_of

    choice = ""
    if found.of > 1:
        which = "the first that failed" if found.task.status == "failed" else "the first"
        choice = f", {which} of {count(found.of, 'task')}"
    gang = gang_of(found.task)
    alone = f" It is one of {count(gang.size, 'node')} of a gang, and runs without the others." if gang is not None else ""
    return f"Spinning {pathspec(found.state, found.task)}{choice}, with the code of now.{alone}"


# --- what it is given ------------------------------------------------------------------------------------------------


def _artifacts(flow: type, file: str) -> Mapping[str, object]:
    """The ARTIFACTS of a file.

    Raises:
        ArtifactsModuleInvalid: It has none, or they cannot be artifacts.
    """
    from importlib.util import module_from_spec, spec_from_file_location

    from evflow.flow.steps import facts
    from evflow.imports import user_view

    spec = spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise ArtifactsModuleInvalid(file, "its name does not end with .py")
    module = module_from_spec(spec)
    try:
        with user_view():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ArtifactsModuleInvalid(file, f"it raises {type(error).__name__}: {error}") from error
    given = getattr(module, "ARTIFACTS", None)
    if not isinstance(given, dict):
        raise ArtifactsModuleInvalid(file, "it has no dictionary ARTIFACTS")
    found = facts(flow)
    for name in cast("dict[object, object]", given):
        if not isinstance(name, str) or not name.isidentifier():
            raise ArtifactsModuleInvalid(file, f"{name!r} cannot be the name of an artifact")
        if name in found.fixed and name not in found.parameters:
            raise ArtifactsModuleInvalid(file, f"'{name}' stands in the class, where it is changed")
    return cast("dict[str, object]", given)


# --- what became of it -----------------------------------------------------------------------------------------------


def _printer(*, as_json: bool) -> Any:
    """Prints the step's lines to the streams that they came from; with JSON on stdout all of them to stderr."""

    def line(seen: "OutputLine") -> None:
        click.echo(seen.text, err=as_json or seen.stream == "stderr")

    return line


def _outcome(found: _Found, spun: "Spun", home: Path | None) -> dict[str, Any]:
    """What became of it, for programs."""
    from evflow.cli.naming import pathspec

    task = spun.task
    attempt = task.attempt
    return {
        "origin": pathspec(found.state, found.task),
        "step": task.step,
        "index": task.frame.index if task.frame is not None else None,
        "status": task.status,
        "reason": task.reason or (spun.state.outcome.reason if spun.state.outcome and task.status != "succeeded" else ""),
        "error": attempt.error,
        "where": attempt.where,
        "caught": task.caught,
        "attempts": len(task.attempts),
        "duration_us": max(0, attempt.ended_us - attempt.started_us) if attempt.started_us else 0,
        "next": list(task.next_steps),
        "next_kind": task.next_kind,
        "splits": task.splits,
        "task": pathspec(spun.state, task) if home is not None else None,
        "home": str(home) if home is not None else None,
        "artifacts": dict(_described(spun)),
    }


def _described(spun: "Spun") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each artifact: what it is, and whether the step set it, or changed what it had inherited."""
    from evflow.imports import user_view
    from evflow.store.artifacts import ArtifactView

    if spun.task.manifest is None:
        return
    view = ArtifactView.open(spun.store, spun.task.manifest)
    before = [ArtifactView.open(spun.store, manifest).entries() for manifest in spun.inputs]
    with user_view():
        for name in view.names():
            entry = view.entry(name)
            own = all(name not in one or one[name].digest != entry.digest for one in before)
            plain: dict[str, Any] = {"type": entry.type, "size": entry.size, "sha256": entry.digest, "set": own}
            yield name, {**plain, "shown": _shown(view, name)} if own else plain


def _shown(view: "ArtifactView", name: str) -> str:
    """A value in a few words: the start of its `repr`, or why there is none."""
    try:
        text = repr(view.load(name))
    except Exception as error:  # noqa: BLE001 - the user's class, whatever it does; the other artifacts are still to be shown
        return f"(cannot be shown: {type(error).__name__}: {error})"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _print_artifacts(shown: Mapping[str, Any]) -> None:
    from evflow.cli.output import size

    artifacts: Mapping[str, Any] = shown["artifacts"]
    own = {name: one for name, one in artifacts.items() if one["set"]}
    width = max(map(len, own), default=0)
    for name, one in own.items():
        kind = click.style(f"[{one['type']}, {size(one['size'])}]", dim=True)
        click.echo(f"  {click.style(name.ljust(width), fg='cyan')}  {kind} = {one['shown']}")
    inherited = [name for name in artifacts if name not in own]
    if inherited:
        click.echo(click.style(f"  inherited: {', '.join(inherited)}", dim=True))


def _say(context: FlowContext, found: _Found, spun: "Spun", home: Path | None) -> None:
    """What became of it, for people."""
    from evflow.cli.naming import pathspec
    from evflow.cli.output import count, duration

    shown = _outcome_words(spun)
    task = spun.task
    took = duration(max(0, task.attempt.ended_us - task.attempt.started_us)) if task.attempt.started_us else "no time"
    more = f", at attempt {len(task.attempts)}" if len(task.attempts) > 1 else ""
    good = task.status == "succeeded"
    line = f"{pathspec(found.state, found.task)} {task.status} after {took}{more}{shown}"
    if good or task.status == "cancelled":
        context.say(line, fg="green" if good else None)
    else:
        click.secho(line, err=True, fg="red")
    if task.splits:
        context.say(f"  It splits into {count(task.splits, 'task')}.")
    if home is not None:
        context.say(f"  It is kept as {pathspec(spun.state, task)} in {home}: evflow.inspect_spin({str(home.parent)!r}).")


def _outcome_words(spun: "Spun") -> str:
    task = spun.task
    if task.status == "succeeded":
        caught = f"; caught: {task.caught}" if task.caught else ""
        way = f"; next: {', '.join(task.next_steps)}" if task.next_steps else "; the flow ends here"
        return f"{caught}{way}."
    reason = task.reason or (spun.state.outcome.reason if spun.state.outcome else "")
    return f": {reason}" if reason else "."


def _write_outcome(file: str, content: bytes, mode: str = "wb") -> None:
    """Write the file; with nothing to append, see that it can be written."""
    try:
        with Path(file).open(mode) as opened:
            opened.write(content)
    except (OSError, ValueError) as error:
        raise OutcomeFileUnwritable(file, getattr(error, "strerror", None) or str(error)) from error
