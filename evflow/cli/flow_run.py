"""`python flow.py run` and `resume`: from options to a `RunRequest`.

Parameters are options of `run` under their own names. What was given is converted here; defaults, which may be functions of
the flow, are computed afterwards by the flow language.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from evflow import config
from evflow.cli.flow_graph import banner, checked
from evflow.cli.flow_main import FlowContext
from evflow.cli.lazy import alike
from evflow.cli.setting_option import setting_option, take_given
from evflow.errors import did_you_mean

if TYPE_CHECKING:
    from evflow.cli.flow_parameters import ParameterOptions
    from evflow.core.projects import Project

_TAGS = "EVFLOW_RUN_TAGS"
_SETTINGS = (
    "max_workers",
    "max_num_splits",
    "max_log_size",
    "task_budget",
    "namespace",
    "start_method",
    "fallback",
    "durability",
    "on_failure",
    "max_run_time",
    "priority",
    "view",
)
"""Settings that are options of `run` and `resume`."""


def run_command(flow: type) -> click.Command:
    """`run`: the flow's parameters and the options of a run."""
    from evflow.cli.flow_parameters import ParameterOptions

    parameters = ParameterOptions(flow)
    own = [*_run_options(), *branch_options(flow)]

    @click.pass_obj
    def run(context: FlowContext, /, **given: Any) -> None:
        values = parameters.taken(given)
        banner(context)
        checked(context)
        with _branch_known(context, given):
            resolved = parameters.resolved(values, user=config.get("user"))
        _start(context, given, parameters=resolved)

    return click.Command("run", callback=run, params=_beside(parameters, own), help="Run the flow here and now.")


def resume_command(flow: type) -> click.Command:
    """`resume`: a new run that takes over what another one finished."""
    from evflow.cli.flow_parameters import ParameterOptions

    parameters = ParameterOptions(flow, resumed=True)

    @click.pass_obj
    def resume(context: FlowContext, /, step: str | None, origin_run_id: str | None, **given: Any) -> None:
        from evflow.cli.naming import origin_of
        from evflow.flow.steps import facts

        changed = parameters.taken(given)
        steps = list(facts(flow).steps)
        if step is not None and step not in steps:
            raise click.UsageError(f"{flow.__name__} has no step '{step}'.{did_you_mean(step, steps)}")
        banner(context)
        origin = origin_of(flow.__name__, origin_run_id)
        if facts(flow).configs:
            from evflow.cli.flow_configs import settle_origin

            settle_origin(context, origin)
        checked(context)
        _start(context, given, parameters={}, changed=changed, origin=origin, resume_step=step, clone_only=given.get("only_clone", False))

    step_argument = click.Argument(["step"], required=False)
    origin = click.Option(["--origin-run-id"], metavar="RUN", help="The run to take over; the last one of this flow if not given.")
    clone_only = click.Option(
        ["--clone-only/--no-clone-only", "only_clone"],
        default=False,
        help="Take over what was finished, and run nothing: resume the new run later.",
    )
    text = (
        "Start a new run that reuses the finished tasks of another. With STEP, that step and all behind it run again. "
        "Parameters are those of the other run, but for those that are given."
    )
    ours = [clone_only, *_run_options(), *branch_options(flow)]
    others = [option for option in _beside(parameters, ours) if alike(option.opts[0]) != origin.opts[0]]
    return click.Command("resume", callback=resume, params=[step_argument, origin, *others], help=text)


def _beside(parameters: "ParameterOptions", own: list[click.Option]) -> list[click.Parameter]:
    """The options of a flow's parameters, and those of ours that share no name with one: they have their variable and evflow.toml."""
    taken = {alike(option.opts[0]) for option in parameters.options}
    return [*parameters.options, *(option for option in own if alike(option.opts[0]) not in taken)]


def _run_options() -> list[click.Option]:
    return [
        click.Option(
            ["--tag", "tags"],
            multiple=True,
            envvar=_TAGS,
            metavar="TAG",
            help=f"Tag the run; may be repeated. {_TAGS} has several, with blanks between them.",
        ),
        setting_option("max_workers", "N", "Tasks at once  [default: 16]"),
        setting_option("max_num_splits", "N", "Tasks that one foreach may make  [default: 100]"),
        setting_option("max_log_size", "MB", "Output kept of one task  [default: 10]"),
        setting_option("task_budget", "N", "Tasks of the whole run  [default: 1000000]"),
        click.Option(["--with", "with_specs"], multiple=True, metavar="SPEC", help="Add a decorator to every step that lacks it."),
        no_cache_option(),
        click.Option(["--run-id-file"], type=click.Path(dir_okay=False), metavar="FILE", help="Write the run's number here first."),
        click.Option(
            ["--runner-attribute-file"],
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Write flow, number and log here first, as JSON.",
        ),
        setting_option("namespace", "NS", "Tag the run with NS, and use it inside the steps."),
        setting_option("start_method", "auto|fork|spawn", "How a task's process starts."),
        setting_option(
            "fallback", "local|wait|error", "What to do where a step's pool has no living worker, or its environment cannot be had."
        ),
        setting_option("durability", "everysec|fsync|replicated", "When an event counts as written."),
        *failure_and_priority(),
        setting_option("view", "auto|live|plain", "A live picture, or lines."),
    ]


def branch_options(flow: type) -> list[click.Option]:
    """Which branch of its project a flow is to be in; nothing for a flow of none."""
    if not getattr(flow, "_evflow_projects", ()):
        return []
    return [
        click.Option(["--branch", "project_branch"], metavar="B", help="Be in the branch test.B of the project, not in your own."),
        click.Option(["--production", "project_production"], is_flag=True, help="Be in the production branch of the project."),
    ]


def has_branch(context: FlowContext, given: Mapping[str, Any]) -> bool:
    """Whether there is anything to say of a project: the others do not pay for its module."""
    return bool(getattr(context.flow, "_evflow_projects", ()) or given.get("project_branch") or context.branch or context.production)


def project_of(context: FlowContext, given: Mapping[str, Any]) -> "Project | None":
    """The project and branch that the options say; before the command or behind it.

    Raises:
        FlowHasNoProject: A branch was named, and the flow is of no project.
        BranchSaidTwice: The decorator names another one.
        BranchInvalid: No branch can be called that.
    """
    from evflow.flow.decorators.project import FlowHasNoProject, project_of as found

    branch, production = given.get("project_branch") or context.branch, bool(given.get("project_production")) or context.production
    project = found(context.flow, user=config.get("user"), branch=branch, production=production)
    if project is None and context.production:
        raise FlowHasNoProject(context.flow.__name__, "--production before the command")
    return project


def no_cache_option() -> click.Option:
    """Whether steps with `@cached` take what was done before."""
    return click.Option(["--no-cache"], is_flag=True, help="Run steps with @cached although the same was done before.")


def _branch_known(context: FlowContext, given: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Within it, `current` knows the project and branch, for defaults that are computed."""
    if not has_branch(context, given):
        return nullcontext()
    from evflow.flow.decorators.project import known

    return known(project_of(context, given), context.flow.__name__)


def failure_and_priority() -> list[click.Option]:
    """What a run does when a task fails for good, and who comes first."""
    return [
        setting_option("max_run_time", "TIME", "How long the run may take, as 90s, 30m or 12h; then it fails  [default: no limit]"),
        setting_option("on_failure", "fail|pause", "When a task has no attempt left: end the run, or wait for `evflow retry` or `skip`."),
        setting_option("priority", "N", "Among runs that wait for the same slots, higher ones come first  [default: 0]"),
    ]


def _start(context: FlowContext, given: Mapping[str, Any], *, parameters: Mapping[str, Any], **origin: Any) -> None:
    take_settings(given)
    from evflow_scheduler import early

    early.connect()
    from evflow_scheduler import foreground
    from evflow_scheduler.request import RunRequest

    request = RunRequest(
        flow=context.flow,
        flow_file=context.file,
        parameters=parameters,
        tags=given["tags"],
        **wishes(context, given, fallback=config.get("fallback")),
        run_id_file=given["run_id_file"],
        attribute_file=given["runner_attribute_file"],
        trigger=_started_by(context.triggers),
        quiet=context.quiet,
        view=_view(context),
        **origin,
    )
    code = foreground.run(context.flow, request)
    click.get_current_context().exit(code)


def _started_by(runs: tuple[str, ...]) -> dict[str, Any] | None:
    """What a run is told that was given `--trigger Flow/3`: those runs' ends started it, as they start a deployed one.

    Raises:
        EvflowNotFound: There is no such run.
        EvflowInvalidPathspec: It is no run's name.
    """
    if not runs:
        return None
    from evflow.client import Run
    from evflow.core.published import finished_id, finished_name

    events: list[dict[str, Any]] = []
    for name in runs:
        run = Run(name, _namespace_check=False)
        flow, number = run.path_components
        at = run.finished_at or run.created_at
        events.append({"id": finished_id(flow, int(number)), "name": finished_name(flow), "at_us": int(at.timestamp() * 1e6)})
    return {"kind": "event", "events": events}


def take_settings(given: Mapping[str, Any]) -> None:
    """Let the options of a command decide the settings of their names."""
    take_given(_SETTINGS, given)


def wishes(context: FlowContext, given: Mapping[str, Any], *, fallback: str, is_spin: bool = False) -> dict[str, Any]:
    """Whose the runs are and within which limits, as options and settings say: fields of a `RunRequest`, and of a `DeployRequest`.

    A task that is spun gets no decorators by default, as in Metaflow.
    """
    from evflow.deployments.beginning import RunOptions

    return {
        "namespace": config.get("namespace"),
        "namespace_given": given.get("namespace") is not None,
        "user": config.get("user"),
        "options": RunOptions(
            max_workers=config.get("max_workers"),
            max_num_splits=config.get("max_num_splits"),
            max_log_size_mb=config.get("max_log_size"),
            task_budget=config.get("task_budget"),
            retry_scale=config.get("retry_scale"),
            with_specs=(*(() if is_spin else config.get("default_decospecs")), *context.with_specs, *given["with_specs"]),
            start_method=config.get("start_method"),
            fallback=fallback,
            durability=config.get("durability"),
            on_failure=config.get("on_failure"),
            max_run_s=config.get("max_run_time"),
            priority=config.get("priority"),
            project=project_of(context, given) if has_branch(context, given) else None,
            cache=not given.get("no_cache"),
        ),
    }


def _view(context: FlowContext) -> Any:
    from evflow.cli.live import make_view

    return make_view(quiet=context.quiet)
