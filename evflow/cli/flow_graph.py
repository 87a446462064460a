"""The commands that look at a flow without running it: `check`, `show`, `output-dot`, `output-raw`, `version`."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import click

from evflow import config
from evflow.cli.flow_main import FlowContext
from evflow.core.graph import Graph, Node
from evflow.flow.decorators.of_class import decorators_of, written
from evflow.flow.steps import facts

_PROBLEM = ("code", "message", "hint", "file", "line", "step")
_ARROWS = {
    "parallel": "a gang of num_parallel nodes",
    "foreach": "one task for each item of {node.foreach}",
    "switch": "by {node.condition}",
    "split": "all of them",
}


def banner(context: FlowContext) -> None:
    """Say what is about to happen: version, flow, user."""
    from evflow import __version__

    context.say(f"evflow {__version__}: {context.flow.__name__} for user:{config.get('user')}", bold=True)


def checked(context: FlowContext) -> Graph:
    """The flow's graph, checked, with the decorators of `--with` before the command.

    Raises:
        FlowInvalid: The flow cannot run; the error names the file and the line.
        SpecInvalid: `--with` names no decorator.
    """
    from evflow.flow import graph_of

    _decorate(context)
    graph = graph_of(context.flow)
    context.say("The flow is sound.", fg="green")
    return graph


def _decorate(context: FlowContext) -> None:
    if not context.configured:  # something among the words looked like --help, and was none
        from evflow.cli.flow_configs import settle_configs

        settle_configs(context)
    if context.with_specs:
        from evflow.flow.decorators.spec import apply_with

        apply_with(context.flow, context.with_specs)


def check_command(_: type) -> click.Command:
    """`check`: is the flow sound? All that is wrong, not only the first thing."""

    @click.pass_context
    def check(ctx: click.Context, as_json: bool) -> None:
        from evflow.flow.checks import check as problems_of

        context: FlowContext = ctx.find_object(FlowContext) or ctx.obj
        banner(context)
        _decorate(context)
        problems = problems_of(context.flow)
        if as_json:
            from evflow.cli.output import write_json

            write_json([{name: getattr(problem, name) for name in _PROBLEM} for problem in problems])
        elif problems:
            from evflow.cli.output import count

            click.secho(f"{count(len(problems), 'problem')} in {context.flow.__name__}:", err=True, fg="red", bold=True)
            for problem in problems:
                click.echo(f"  {problem}", err=True)
        else:
            context.say("The flow is sound.", fg="green")
        if problems:
            ctx.exit(1)

    options: list[click.Parameter] = [
        click.Option(["--warnings/--no-warnings"], default=False, hidden=True, expose_value=False),
        click.Option(["--json", "as_json"], is_flag=True, help="The problems as JSON."),
    ]
    return click.Command("check", callback=check, params=options, help="Check the flow: its steps, transitions, parameters, decorators.")


def show_command(_: type) -> click.Command:
    """`show [WHAT]`: the steps and the parameters, for people; or one of the flow's runs."""
    from evflow.cli.complete import of_what

    @click.pass_obj
    def show(context: FlowContext, what: str | None, as_json: bool) -> None:
        if what is not None:
            from evflow.cli.show import show as show_run

            show_run(what, as_json=as_json, flow=context.flow)
            return
        if as_json:
            raise click.UsageError("--json goes with WHAT; `output-raw --json` prints the flow itself as data.")
        banner(context)
        for line in described(context.flow, checked(context)):
            click.echo(line)

    params: list[click.Parameter] = [
        click.Argument(["what"], required=False, shell_complete=of_what()),
        click.Option(["--json", "as_json"], is_flag=True, help="As JSON, with WHAT."),
    ]
    text = (
        "Show the flow's parameters and steps; with WHAT a run of it, a step or a task (3, 3/train, 3/train/7, train/7), as `evflow show`."
    )
    return click.Command("show", callback=show, params=params, help=text)


def output_dot_command(_: type) -> click.Command:
    """`output-dot`: the graph for Graphviz."""

    @click.pass_obj
    def output_dot(context: FlowContext) -> None:
        from evflow.flow import graph_of

        for line in dot(context.flow.__name__, graph_of(context.flow)):
            click.echo(line)

    return click.Command("output-dot", callback=output_dot, help="Print the graph in the language of Graphviz: `… | dot -Tsvg`.")


def output_raw_command(_: type) -> click.Command:
    """`output-raw`: the graph as data."""

    @click.pass_obj
    def output_raw(context: FlowContext, as_json: bool) -> None:
        from evflow.flow import graph_of

        plain = {"flow": context.flow.__name__, "file": context.file, **graph_of(context.flow).to_plain()}
        if decorators := decorators_of(context.flow):
            plain["decorators"] = list(map(written, decorators))
        if as_json:
            from evflow.cli.output import write_json

            write_json(plain)
        else:
            from pprint import pprint

            pprint(plain, sort_dicts=False)

    option = click.Option(["--json", "as_json"], is_flag=True, help="As JSON.")
    return click.Command("output-raw", callback=output_raw, params=[option], help="Print the graph as data.")


def version_command(_: type) -> click.Command:
    """`version`: evflow's version."""

    def version() -> None:
        from evflow import __version__

        click.echo(f"evflow {__version__}")

    return click.Command("version", callback=version, help="Print evflow's version.")


# --- text -------------------------------------------------------------------------------------------------


def described(flow: type, graph: Graph) -> Iterator[str]:
    """The flow in lines for people."""
    doc = graph.doc or (flow.__doc__ or "").strip()
    if doc:
        yield ""
        yield from (line.strip() for line in doc.splitlines())
    yield from _section("Decorators", [(written(one), "") for one in decorators_of(flow)])
    yield from _section("Configurations", _configurations(flow))
    yield from _section("Parameters", _parameters(flow))
    yield ""
    yield click.style("Steps", bold=True)
    for name in along(graph):
        yield from _step(graph.nodes[name])


def along(graph: Graph) -> list[str]:
    """The steps as a run meets them, branches in the order of their `self.next`: an inherited step stands where it runs, too."""
    met, behind = {graph.start: None}, list[str]()
    way = [(graph.start, reversed(graph[graph.start].out))]
    while way:
        name, ahead = way[-1]
        step = next((step for step in ahead if step in graph.nodes and step not in met), None)
        if step is None:
            behind.append(name)
            way.pop()
        else:
            met[step] = None
            way.append((step, reversed(graph[step].out)))
    return [*reversed(behind), *(name for name in graph.nodes if name not in met)]


def _section(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    if rows:
        yield ""
        yield click.style(title, bold=True)
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            yield f"  {name.ljust(width)}  {text}".rstrip()


def _configurations(flow: type) -> list[tuple[str, str]]:
    if not facts(flow).configs:
        return []
    from evflow.cli.flow_configs import described

    return described(flow)


def _parameters(flow: type) -> list[tuple[str, str]]:
    from evflow.flow.parameters import of

    parameters = of(flow)
    if not parameters:
        return []
    from evflow.cli.flow_parameters import described as shown
    from evflow.flow.parameter_values import type_name

    return [(f"--{parameter.name} {type_name(parameter).upper()}", shown(parameter)) for parameter in parameters]


def _step(node: Node) -> Iterator[str]:
    place = f"{os.path.basename(node.file)}:{node.line}" if node.line else ""  # noqa: PTH119 - see flow_main
    marks = " ".join(node.decorators)
    yield f"  {click.style(node.name, fg='cyan', bold=True)}  {click.style(' '.join(x for x in (marks, place) if x), dim=True)}".rstrip()
    if node.doc:
        yield f"    {' '.join(node.doc.split())}"
    if node.out:
        yield f"    -> {', '.join(_targets(node))}{_how(node)}"


def _targets(node: Node) -> list[str]:
    by_step: dict[str, list[str]] = {}
    for case, step in node.cases.items():
        by_step.setdefault(step, []).append(case)
    return [f"{step} ({'|'.join(by_step[step])})" if step in by_step else step for step in node.out]


def _how(node: Node) -> str:
    template = _ARROWS.get(node.kind)
    if node.kind == "conditional":
        return "   one of them, as the code decides"
    return f"   {template.format(node=node)}" if template else ""


def dot(flow: str, graph: Graph) -> Iterator[str]:
    """The graph in the language of Graphviz."""
    yield f"digraph {_quoted(flow)} {{"
    yield "  rankdir=LR;"
    yield '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica"];'
    for node in graph.nodes.values():
        yield f"  {_quoted(node.name)} [{_node_look(node)}];"
    for node in graph.nodes.values():
        for target in node.out:
            yield f"  {_quoted(node.name)} -> {_quoted(target)}{_edge_look(node, target)};"
    yield "}"


def _node_look(node: Node) -> str:
    lines = [node.name, *node.decorators]
    look = {"label": "\\n".join(lines)}
    if node.takes_inputs:
        look["shape"] = "house"
    return ", ".join(f"{name}={_quoted(value)}" for name, value in look.items())


def _edge_look(node: Node, target: str) -> str:
    look: dict[str, Any] = {}
    if node.kind == "foreach":
        look = {"label": f"each of {node.foreach}", "color": "black:invis:black"}
    elif node.kind == "parallel":
        look = {"label": "num_parallel", "color": "black:invis:black"}
    elif node.kind == "switch":
        look = {"label": " | ".join(case for case, step in node.cases.items() if step == target), "style": "dashed"}
    elif node.kind == "conditional":
        look = {"style": "dashed"}
    return f" [{', '.join(f'{name}={_quoted(value)}' for name, value in look.items())}]" if look else ""


def _quoted(text: str) -> str:
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'
