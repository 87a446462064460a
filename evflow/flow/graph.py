"""The graph of a flow, from the source of its steps and the decorators on them."""

from collections.abc import Mapping
from typing import Any

from evflow.core.graph import Graph, Node, Policy
from evflow.flow.source import NextCall, StepSource, read_step
from evflow.flow.steps import INFO, StepFunction, facts


def read_graph(cls: type) -> Graph:
    """The graph of a flow that may have mistakes; for one that has not, see `evflow.flow.graph_of`.

    Raises:
        SourceMissing: A step's source cannot be found.
    """
    steps = facts(cls).steps
    nodes = {name: read_node(cls, name) for name in steps}
    return Graph(nodes, edge_step(steps, "start"), edge_step(steps, "end"), first_paragraph(cls.__doc__))


def read_node(cls: type, name: str) -> Node:
    """One step of the graph."""
    function = facts(cls).steps[name]
    source = read_step(name, function)
    calls = source.calls
    decorators = facts(cls).decorators(name)
    policy: dict[str, Any] = {}
    for decorator in decorators:
        if not any(decorator.mistakes()):
            _lay_over(policy, decorator.policy())
    if "asked" in policy:
        from evflow.flow.decorators.remote import merged

        policy["asked"] = merged(policy["asked"], decorators)
    return Node(
        name=name,
        kind=_kind(source),
        out=tuple(dict.fromkeys(step for call in calls for step in call.steps)),
        takes_inputs=source.arguments > 1,
        foreach=next((call.foreach for call in calls if call.foreach), None),
        condition=next((call.condition for call in calls if call.condition), None),
        cases={case: step for call in calls for case, step in call.cases.items()},
        doc=first_paragraph(function.__doc__),
        line=source.line,
        file=source.file,
        decorators=(
            *(f"@{user.decorator_name}" for user in reversed(facts(cls).wrapped.get(name, ()))),
            *(str(decorator) for decorator in reversed(decorators)),
        ),
        policy=Policy(**policy),
    )


def _lay_over(policy: dict[str, Any], more: Mapping[str, object]) -> None:
    """Add what a decorator asks for; `limits` are several decorators' together."""
    for name, wanted in more.items():
        policy[name] = {**policy.get(name, {}), **wanted} if isinstance(wanted, dict) else wanted


def edge_step(steps: Mapping[str, StepFunction], edge: str) -> str:
    """The step at an edge of the flow (`start` or `end`): the one that says so, the one of that name, or the only one.

    Returns:
        Its name; an empty string where there is none or several say so.
    """
    said = [name for name, function in steps.items() if getattr(getattr(function, INFO), edge)]
    if said:
        return said[0] if len(said) == 1 else ""
    if edge in steps:
        return edge
    return next(iter(steps)) if len(steps) == 1 else ""


def first_paragraph(doc: str | None) -> str:
    """The first paragraph of a docstring, in one line."""
    lines: list[str] = []
    for line in (doc or "").strip().splitlines():
        if not line.strip():
            break
        lines.append(line.strip())
    return " ".join(lines)


def _kind(source: StepSource) -> str:
    ways = {_way(call) for call in source.calls}
    if not ways:
        return "end"
    if len(ways) > 1:
        return "conditional"
    kind = source.calls[0].kind
    return "join" if kind == "linear" and source.arguments > 1 else kind


def _way(call: NextCall) -> tuple[object, ...]:
    return (call.kind, call.steps, call.foreach, call.condition)
