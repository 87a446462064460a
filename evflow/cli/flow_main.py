"""`python flow.py [OPTIONS] COMMAND`: the command line that a flow's class starts.

Only the command that is asked for is imported, and of a parameter only what its help needs, because people wait for
`--help` and `show`.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, cast

import click

from evflow import config
from evflow.cli.lazy import Lazy, LazyGroup, Sections, alike
from evflow.cli.render import outcome
from evflow.cli.streams import to_nowhere
from evflow.flow import dialect
from evflow.flow.invocation import program
from evflow.flow.steps import facts
from evflow.imports import framework_view

_SECTIONS: Sections = {
    "Run": {
        "run": Lazy("evflow.cli.flow_run", "run_command", "Run the flow here and now."),
        "resume": Lazy("evflow.cli.flow_run", "resume_command", "Start a new run that reuses the finished tasks of another."),
        "spin": Lazy("evflow.cli.flow_spin", "spin_command", "Run one task of a past run again, with the code of now."),
    },
    "Deploy": {
        "deploy": Lazy("evflow.cli.flow_deploy", "deploy_command", "Deploy the flow, so that runs of it can be asked for without it."),
    },
    "Look": {
        "logs": Lazy("evflow.cli.logs", "flow_logs", "Show what tasks printed."),
        "dump": Lazy("evflow.cli.dump", "flow_dump", "Show the artifacts of tasks."),
        "card": Lazy("evflow.cli.card", "flow_card", "Look at the cards of tasks."),
        "tag": Lazy("evflow.cli.tag", "flow_tag", "List and change the tags of runs."),
    },
    "The flow itself": {
        "check": Lazy("evflow.cli.flow_graph", "check_command", "Check the flow; what happens without a command."),
        "show": Lazy("evflow.cli.flow_graph", "show_command", "Show the steps and parameters; with WHAT a run."),
        "output-dot": Lazy("evflow.cli.flow_graph", "output_dot_command", "Print the graph in the language of Graphviz."),
        "output-raw": Lazy("evflow.cli.flow_graph", "output_raw_command", "Print the graph as data."),
        "version": Lazy("evflow.cli.flow_graph", "version_command", "Print evflow's version."),
        "help": Lazy("evflow.cli.flow_main", "help_command", "Show this help."),
    },
}


_CONFIGURED = frozenset({"run", "deploy", "check", "show", "output-dot", "output-raw"})
"""Commands that need the flow's configurations; `resume` and `spin` take them from a run."""


_PAIRS = frozenset({"--config", "--config-value"})
_OF_THE_ORIGIN = {
    "resume": "A resumed run has the configurations of the run that it resumes: leave --config and --config-value out.",
    "spin": "A spin has the configurations of the run that its task is of: leave --config and --config-value out.",
}


class FlowContext:
    """What the commands of a flow share.

    Attributes:
        flow: The flow's class.
        file: The file that defines it, absolute; empty where there is none.
        quiet: Say nothing that was not asked for.
        with_specs: Decorators named before the command.
        configured: The flow's configurations are settled, or it has none.
        config_files: Configurations that were given as files: name to path.
        config_values: Those that were given as texts: name to text.
        branch: The branch of the flow's project, where one was named before the command.
        production: Its production branch was asked for there.
        triggers: The runs that are to look as if they had started this one.
    """

    __slots__ = ("branch", "config_files", "config_values", "configured", "file", "flow", "production", "quiet", "triggers", "with_specs")

    def __init__(self, flow: type, file: str) -> None:
        self.flow = flow
        self.file = file
        self.quiet = False
        self.with_specs: tuple[str, ...] = ()
        self.configured = not facts(flow).configs
        self.config_files: dict[str, str] = {}
        self.config_values: dict[str, str] = {}
        self.branch: str | None = None
        self.triggers: tuple[str, ...] = ()
        self.production = False

    def say(self, text: str, **style: Any) -> None:
        """Print a line of the banner on stderr, unless it should be quiet. A disk that is full takes none, and hinders no run."""
        if self.quiet:
            return
        try:
            click.secho(text, err=True, **style)
        except OSError:
            to_nowhere(sys.stderr)


def main(flow_class: type, arguments: list[str]) -> int:
    """Run the command line of a flow; returns the exit code."""
    # The user's folder is on sys.path: none of our imports may find a user's module in it.
    with framework_view():
        return outcome(lambda: _run(flow_class, arguments))


def _run(flow_class: type, arguments: list[str]) -> object:
    file = _file_of(flow_class)
    if file:
        config.use_folder(os.path.dirname(file))  # noqa: PTH120 - as below
    typed = program(os.path.abspath(sys.argv[0]))  # noqa: PTH100 - as below
    return group(flow_class).main(arguments, prog_name=typed, standalone_mode=False, obj=FlowContext(flow_class, file))


def group(flow_class: type) -> LazyGroup:
    """The group of a flow's commands."""
    return _FlowGroup(
        name=flow_class.__name__,
        sections=_SECTIONS,
        subject=flow_class,
        callback=_top,
        params=_top_options(flow_class),
        invoke_without_command=True,
        help=f"{flow_class.__name__}: {_first_sentence(flow_class)}" if flow_class.__doc__ else flow_class.__name__,
        epilog="Each command has a --help of its own. `evflow --help` lists the commands on runs of all flows.",
    )


class _FlowGroup(LazyGroup):
    """The group of a flow's commands: it settles the flow's configurations before a command that looks at the flow is made."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flow's configurations, and the sections of commands."""
        if facts(self._subject).configs:
            from evflow.cli.flow_configs import described

            with formatter.section("Configurations"):
                formatter.write_dl(described(self._subject))
        super().format_commands(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where configurations stand behind it, say where they belong."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if alike(error.option_name) not in _PAIRS or error.ctx is None or error.ctx is ctx:
                raise
            if error.ctx.info_name in _OF_THE_ORIGIN:
                raise click.UsageError(_OF_THE_ORIGIN[error.ctx.info_name], error.ctx) from None
            path = f"{ctx.command_path} {error.option_name} NAME … {error.ctx.info_name}"
            raise click.UsageError(f"{error.option_name} belongs before the command: {path}", error.ctx) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where a `Runner` calls it, its words come from there."""
        name, command, rest = super().resolve_command(ctx, args)
        if rest and rest[0].startswith("--runner-call=") and command is not None:
            from evflow.cli.flow_call import words

            rest = words(self._subject, args[0], command, int(rest[0].partition("=")[2]), rest[1:])
        return name, command, rest

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the command, and settle the configurations."""
        helps = not {"-h", "--help"}.isdisjoint(args)
        rest = super().parse_args(ctx, args)
        context: FlowContext = ctx.obj
        given = context.config_files or context.config_values
        if facts(context.flow).configs or given:
            words: list[str] = cast("Any", ctx)._protected_args  # noqa: SLF001 - where click keeps the command
            command = alike(words[0]) if words else "check"
            if command != "show" or not any(word[:1] != "-" for word in ctx.args):  # a run has its configurations
                _settle(context, command, helps=helps)
        return rest


def _settle(context: FlowContext, command: str, *, helps: bool) -> None:
    from evflow.cli.flow_configs import settle_configs, settle_for_help

    if command in _OF_THE_ORIGIN:  # it takes those of that run
        if context.config_files or context.config_values:
            raise click.UsageError(_OF_THE_ORIGIN[command])
    elif helps:
        settle_for_help(context)
    elif command in _CONFIGURED:
        settle_configs(context)


def help_command(flow_class: type) -> click.Command:
    """`help`: the group's own help."""

    @click.pass_context
    def show(ctx: click.Context) -> None:
        click.echo(ctx.find_root().get_help())

    return click.Command("help", callback=show, help="Show this help.")


def _top_options(flow_class: type) -> list[click.Parameter]:
    accepted: dict[str, Any] = {"hidden": True, "expose_value": False}
    pairs: dict[str, Any] = {"nargs": 2, "multiple": True, "expose_value": False, "hidden": not facts(flow_class).configs}
    return [
        click.Option(["--quiet/--not-quiet"], default=False, help="Show only what tasks print, and errors.", **_from_metaflow("QUIET")),
        click.Option(["--with", "with_specs"], multiple=True, metavar="SPEC", help="Add a decorator to every step that lacks it."),
        click.Option(
            ["--config"], metavar="NAME FILE", callback=_keep("config_files"), help="Read the flow's configuration NAME from FILE.", **pairs
        ),
        click.Option(
            ["--config-value"], metavar="NAME JSON", callback=_keep("config_values"), help="Give the configuration's value itself.", **pairs
        ),
        *_branch_options(flow_class),
        # Metaflow's users type these from habit; they have nothing to decide here.
        click.Option(["--pylint/--no-pylint"], default=False, **accepted),
        *_of_habit(),
        click.Option(["--event-logger"], **accepted),
        click.Option(["--monitor"], **accepted),
        click.Option(["--datastore-root"], callback=_set("store"), **accepted),
        click.Option(["--package-suffixes"], callback=_set("package_suffixes"), **accepted),
    ]


def _branch_options(flow_class: type) -> list[click.Parameter]:
    """Which branch of the flow's project is meant."""
    beside: dict[str, Any] = {"expose_value": False, "hidden": not getattr(flow_class, "_evflow_projects", ())}
    branch: dict[str, Any] = {"metavar": "B", "callback": _attribute("branch"), "help": "Be in the branch test.B of the project."}
    production: dict[str, Any] = {"is_flag": True, "callback": _attribute("production"), "help": "Be in its production branch."}
    return [
        click.Option(["--branch"], **branch, **beside, **_from_metaflow("BRANCH")),
        click.Option(["--production"], **production, **beside, **_from_metaflow("PRODUCTION")),
    ]


def _from_metaflow(name: str) -> dict[str, Any]:
    """Where an option is not given: the variable that has it there, for a flow that was written for Metaflow."""
    return {"envvar": f"METAFLOW_{name}"} if dialect.is_metaflow() else {}


def _attribute(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def apply(ctx: click.Context, _: click.Parameter, given: Any) -> None:
        if ctx.obj is not None and given:  # it is None where a shell completes
            setattr(ctx.obj, name, given)

    return apply


def _of_habit() -> list[click.Option]:
    """Where Metaflow keeps things, and in what environment: any place and kind of it where the flow was written for Metaflow."""
    names = ("metadata", "datastore", "environment")
    if not dialect.is_metaflow():
        return [click.Option([f"--{name}"], type=click.Choice(["local"]), hidden=True, expose_value=False) for name in names]
    from evflow.compat.metaflow.options import without_effect

    trigger = click.Option(["--trigger"], multiple=True, hidden=True, expose_value=False, callback=_attribute("triggers"))
    return [*map(without_effect, (*names, "mode")), trigger]


def _keep(attribute: str) -> Callable[[click.Context, click.Parameter, tuple[tuple[str, str], ...]], None]:
    def apply(ctx: click.Context, parameter: click.Parameter, given: tuple[tuple[str, str], ...]) -> None:
        names = [name for name, _ in given]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise click.BadParameter(f"'{twice}' is given twice.", ctx, parameter)
        if ctx.obj is not None:  # it is None where a shell completes
            getattr(ctx.obj, attribute).update(given)

    return apply


def _set(setting: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def apply(_: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            config.set_option(setting, value, parameter.opts[0])

    return apply


@click.pass_context
def _top(ctx: click.Context, quiet: bool, with_specs: tuple[str, ...]) -> None:
    context: FlowContext = ctx.obj
    context.quiet = quiet
    context.with_specs = with_specs
    if ctx.invoked_subcommand is None:
        check = cast("LazyGroup", ctx.command).get_command(ctx, "check")
        ctx.invoke(cast("click.Command", check))


def _file_of(flow_class: type) -> str:
    module = sys.modules.get(flow_class.__module__)
    file = getattr(module, "__file__", None)
    return os.path.abspath(file) if file else ""  # noqa: PTH100 - pathlib is not worth its time here


def _first_sentence(flow_class: type) -> str:
    return " ".join((flow_class.__doc__ or "").strip().split("\n\n")[0].split())
