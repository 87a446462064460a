"""Completion of what people type for a flow, a run, a step or a task.

Whatever goes wrong while the shell asks is nobody's business: the answer is empty then. What is offered is bounded, since a
shell asks at each press of a key.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from evflow.errors import EvflowError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from evflow.core.ids import FlowName
    from evflow.log.protocol import LogClient, RunEntry

NEWEST = 30
"""Runs of a flow, and tasks of a step, that are offered."""

Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def of_runs(*statuses: str) -> Completer:
    """Runs, newest first; only those in one of the statuses, if any are named."""
    return _silently(lambda log, begun: _runs(log, begun, frozenset(statuses)))


def of_flows() -> Completer:
    """Flows that ever ran."""
    return _silently(lambda log, begun: ((flow, "") for flow in log.flows() if flow.startswith(begun)))


def of_deployments() -> Completer:
    """Deployments: FLOW, FLOW:NAME."""
    return _silently(_deployments)


def of_limits() -> Completer:
    """Limits that are set, or that something holds."""
    return _silently(lambda log, begun: ((name, "") for name in sorted({*log.limits(), *log.limited()}) if name.startswith(begun)))


def of_backfills() -> Completer:
    """Backfills that are not over: FLOW/b1."""
    return _silently(_backfills)


def of_environments() -> Completer:
    """Environments of this machine; the log is not asked."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> "list[CompletionItem]":
        del context, parameter
        from click.shell_completion import CompletionItem

        from evflow import config
        from evflow.environments.cache import Cache

        try:
            names = Cache(config.home()).names()
        except (EvflowError, OSError):
            return []
        return [CompletionItem(name[:12]) for name in names if name.startswith(begun)]

    return complete


def of_pools() -> Completer:
    """Pools that ever had a worker or an order."""

    def names(log: "LogClient", begun: str) -> Iterator[tuple[str, str]]:
        from evflow.log import pools

        return ((name, "") for name in pools.ask(log.url, pools.names()) if name.startswith(begun))

    return _silently(names)


def of_pausable(*statuses: str) -> Completer:
    """Deployments, and runs in one of the statuses."""
    return _silently(lambda log, begun: [*_deployments(log, begun), *_runs(log, begun, frozenset(statuses))])


def of_what() -> Completer:
    """Runs, and behind a run's slash its steps and tasks."""
    return _silently(_what)


def of_settings(ctx: click.Context, parameter: click.Parameter, begun: str) -> "list[CompletionItem]":
    """Settings."""
    from evflow import config

    del ctx, parameter
    return _items((name, setting.help) for name, setting in config.SETTINGS.items() if name.startswith(begun))


def _silently(found: "Callable[[LogClient, str], Iterable[tuple[str, str]]]") -> Completer:
    def complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> "list[CompletionItem]":
        from evflow.cli import session

        del ctx, parameter
        try:
            with session.log() as log:
                return _items(found(log, begun))
        except (EvflowError, OSError):
            return []

    return complete


def _items(found: Iterable[tuple[str, str]]) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    return [CompletionItem(value, help=text or None) for value, text in found]


def _runs(log: "LogClient", begun: str, statuses: frozenset[str]) -> Iterator[tuple[str, str]]:
    """`Flow/3` of the flows that begin so; a bare number is one of the only flow, or of this folder's."""
    bare = begun.isdecimal()
    for flow in _only_flow(log) if bare else log.flows():
        if not bare and not f"{flow}/".startswith(begun) and not begun.startswith(f"{flow}/"):
            continue
        for entry in _entries(log, flow, statuses):
            name = str(entry.run.number) if bare else str(entry.run)
            if name.startswith(begun):
                yield name, str(entry.summary.get("status", ""))


def _deployments(log: "LogClient", begun: str) -> Iterator[tuple[str, str]]:
    from evflow.core.deployments import DEFAULT_NAME

    for flow in log.flows():
        for name in log.deployments(flow):
            text = flow if name == DEFAULT_NAME else f"{flow}:{name}"
            if text.startswith(begun):
                yield text, ""


def _backfills(log: "LogClient", begun: str) -> Iterator[tuple[str, str]]:
    from evflow.deployments.backfills import listed

    for name, found in listed(log):
        if not found.is_over and str(name).startswith(begun):
            yield str(name), f"{found.name}: {found.ticks} ticks"


def _only_flow(log: "LogClient") -> "Sequence[FlowName]":
    from pathlib import Path

    from evflow.cli.naming import flows_in

    flows = list(log.flows())
    here = set(flows_in(Path()))
    local = [flow for flow in flows if flow in here]
    return local if len(local) == 1 else flows if len(flows) == 1 else ()


def _entries(log: "LogClient", flow: "FlowName", statuses: frozenset[str]) -> "Iterator[RunEntry]":
    for entry in log.runs(flow, NEWEST):
        if not statuses or entry.summary.get("status") in statuses:
            yield entry


def _what(log: "LogClient", begun: str) -> Iterator[tuple[str, str]]:
    from evflow.cli import session
    from evflow.cli.naming import parse, resolve

    head, slash, _ = begun.rpartition("/")
    parts = head.split("/")
    numbered = next((index for index, part in enumerate(parts) if part.isdecimal()), None)
    if not slash or numbered is None:
        yield from _runs(log, begun, frozenset())
        return
    run = "/".join(parts[: numbered + 1])
    _, state = session.folded(log, resolve(log, parse(run)))
    step = "/".join(parts[numbered + 1 :])
    if not step:
        names = dict.fromkeys((*state.steps, *state.graph.nodes))
        yield from ((f"{run}/{name}", "") for name in names if f"{run}/{name}".startswith(begun))
        return
    tasks = [task for task in state.all_tasks() if task.step == step]
    matching = [(f"{run}/{step}/{task.id}", task.status) for task in tasks if f"{run}/{step}/{task.id}".startswith(begun)]
    yield from matching[:NEWEST]
