"""`python flow.py run` and `resume`: from options to a `RunRequest`.

Parameters are options of `run` under their own names. What was given is converted here; defaults, which may be functions of
the flow, are computed afterwards by the flow language.
"""

from collections.abc import Mapping
from typing import Any

import click

from evflow import config
from evflow.cli.flow_graph import banner, checked
from evflow.cli.flow_main import FlowContext

_SETTINGS = {
    "max_workers": "--max-workers",
    "task_budget": "--task-budget",
    "max_num_splits": "--max-num-splits",
    "max_log_size": "--max-log-size",
    "namespace": "--namespace",
    "start_method": "--start-method",
    "fallback": "--fallback",
    "durability": "--durability",
    "view": "--view",
}
"""Settings that are options of `run` and `resume`."""


def run_command(flow: type) -> click.Command:
    """`run`: the flow's parameters and the options of a run."""
    from evflow.cli.flow_parameters import ParameterOptions

    parameters = ParameterOptions(flow)

    @click.pass_obj
    def run(context: FlowContext, /, **given: Any) -> None:
        values = parameters.taken(given)
        banner(context)
        checked(context)
        _start(context, given, parameters=parameters.resolved(context, values))

    return click.Command("run", callback=run, params=[*parameters.options, *_run_options()], help="Run the flow here and now.")


def resume_command(flow: type) -> click.Command:
    """`resume`: a new run that takes over what another one finished."""

    @click.pass_obj
    def resume(context: FlowContext, /, step: str | None, origin_run_id: str | None, **given: Any) -> None:
        from evflow.cli.naming import origin_of

        banner(context)
        graph = checked(context)
        if step is not None and step not in graph:
            from evflow.cli.lazy import suggestion

            raise click.UsageError(f"{flow.__name__} has no step '{step}'.{suggestion(step, list(graph.nodes))}")
        _start(context, given, parameters={}, origin=origin_of(flow.__name__, origin_run_id), resume_step=step)

    own = [
        click.Argument(["step"], required=False),
        click.Option(["--origin-run-id"], metavar="RUN", help="The run to take over; the last one of this flow if not given."),
    ]
    text = "Start a new run that reuses the finished tasks of another. With STEP, that step and all behind it run again."
    return click.Command("resume", callback=resume, params=[*own, *_run_options()], help=text)


def _run_options() -> list[click.Parameter]:
    return [
        click.Option(["--tag", "tags"], multiple=True, metavar="TAG", help="Tag the run; may be repeated."),
        click.Option(["--max-workers"], type=click.IntRange(1), metavar="N", help="Tasks at once  [default: 16]"),
        click.Option(["--max-num-splits"], type=click.IntRange(1), metavar="N", help="Tasks that one foreach may make  [default: 100]"),
        click.Option(["--max-log-size"], type=click.IntRange(1), metavar="MB", help="Output kept of one task  [default: 10]"),
        click.Option(["--task-budget"], type=click.IntRange(1), metavar="N", help="Tasks of the whole run  [default: 1000000]"),
        click.Option(["--with", "with_specs"], multiple=True, metavar="SPEC", help="Add a decorator to every step that lacks it."),
        click.Option(["--run-id-file"], type=click.Path(dir_okay=False), metavar="FILE", help="Write the run's number here first."),
        click.Option(["--namespace"], metavar="NS", help="Tag the run with NS, and use it inside the steps."),
        click.Option(["--start-method"], type=click.Choice(["auto", "fork", "spawn"]), help="How a task's process starts."),
        click.Option(["--fallback"], type=click.Choice(["local", "error"]), help="Where a step's executor is not configured."),
        click.Option(["--durability"], type=click.Choice(["everysec", "fsync", "replicated"]), help="When an event counts as written."),
        click.Option(["--view"], type=click.Choice(["auto", "live", "plain"]), help="A live picture, or lines."),
    ]


def _start(context: FlowContext, given: Mapping[str, Any], *, parameters: Mapping[str, Any], **origin: Any) -> None:
    for setting, option in _SETTINGS.items():
        if given[setting] is not None:
            config.set_option(setting, given[setting], option)
    from evflow_scheduler import foreground
    from evflow_scheduler.request import RunRequest

    request = RunRequest(
        flow=context.flow,
        flow_file=context.file,
        parameters=parameters,
        tags=given["tags"],
        namespace=config.get("namespace"),
        namespace_given=given["namespace"] is not None,
        user=config.get("user"),
        max_workers=config.get("max_workers"),
        max_num_splits=config.get("max_num_splits"),
        max_log_size_mb=config.get("max_log_size"),
        task_budget=config.get("task_budget"),
        retry_scale=config.get("retry_scale"),
        with_specs=(*given["with_specs"], *context.with_specs, *config.get("default_decospecs")),
        run_id_file=given["run_id_file"],
        start_method=config.get("start_method"),
        fallback=config.get("fallback"),
        durability=config.get("durability"),
        quiet=context.quiet,
        view=_view(context),
        **origin,
    )
    code = foreground.run(context.flow, request)
    click.get_current_context().exit(code)


def _view(context: FlowContext) -> Any:
    from evflow.cli.live import make_view

    return make_view(quiet=context.quiet)
