"""Limits that span runs: how many attempts, or runs, may hold a name at once, whoever owns them.

A name is held by attempts (`Flow/3/17.0`) or by runs (`Flow/3`). What names an attempt needs follows from the run's log and from
the operator's table alone, so that it is never stored: whoever asks for slots, gives them back or explains a wait asks here.

| Name | Who holds it | Whose limit |
|---|---|---|
| `key:NAME` | attempts of steps with `@limit("NAME", …)` | the flow's, which the operator's replaces |
| `flow:FLOW` | attempts of the flow | the operator's |
| `step:FLOW/STEP` | attempts of the step | the operator's |
| `pool:NAME` | attempts of steps of the pool | the operator's |
| `tag:TAG` | attempts of runs with the tag at their start | the operator's |
| `namespace:NAME` | attempts of runs of the namespace | the operator's |
| `runs:FLOW[:KEY]` | runs of the flow, from their first attempt to their end | `@concurrency`'s, which the operator's replaces |
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from evflow.core.graph import pool_of
from evflow.core.state import RunState, Task
from evflow.core.values import value

WhenBusy = Literal["queue", "skip", "cancel"]
WHEN_BUSY: Final = ("queue", "skip", "cancel")
KINDS: Final = ("key", "flow", "step", "pool", "tag", "namespace", "runs")
MOST_NAME_CHARS: Final = 200


@value
class Limit:
    """A name and how many may hold it at once."""

    name: str
    most: int


@value
class RunLimit:
    """How many runs of a flow may be at work at once.

    Attributes:
        limit: The name that they hold.
        when_busy: What a run does that finds it taken: `queue` waits, `skip` is cancelled with that reason, `cancel` has the oldest holders
            cancelled and waits for their end.
    """

    limit: Limit
    when_busy: WhenBusy


def of_attempt(state: RunState, task: Task, table: Mapping[str, int]) -> tuple[Limit, ...]:
    """What an attempt of the task has to hold, by name.

    Args:
        state: The run.
        task: The task.
        table: The operator's limits.
    """
    own = state.graph[task.step].policy.limits
    if not own and not table:
        return ()
    found = {f"key:{name}": table.get(f"key:{name}", most) for name, most in own.items()}
    found.update((name, table[name]) for name in _names(state, task) if name in table)
    return tuple(Limit(name, found[name]) for name in sorted(found))


def of_run(state: RunState, table: Mapping[str, int]) -> RunLimit | None:
    """What the run itself has to hold from its first attempt on, or None."""
    declared: Mapping[str, Any] | None = state.options.get("runs")
    plain = f"runs:{state.flow}"
    if declared is None:
        return RunLimit(Limit(plain, table[plain]), "queue") if plain in table else None
    name = f"{plain}:{declared['key']}" if declared.get("key") else plain
    return RunLimit(Limit(name, table.get(name, declared["at_most"])), declared.get("when_busy", "queue"))


def needed(state: RunState, task: Task, table: Mapping[str, int]) -> list[Limit]:
    """What has to be held for an attempt of the task: what the run holds, then what the attempt does.

    Args:
        state: The run.
        task: The task.
        table: The operator's limits.
    """
    own = of_run(state, table)
    return [*([] if own is None else [own.limit]), *of_attempt(state, task, table)]


def _names(state: RunState, task: Task) -> Iterator[str]:
    """The names that only the operator limits."""
    yield f"flow:{state.flow}"
    yield f"step:{state.flow}/{task.step}"
    if (pool := pool_of(state.graph[task.step].policy.executor)) is not None:
        yield f"pool:{pool}"
    yield f"namespace:{state.header['namespace']}"
    for tag in state.header["tags"]:
        yield f"tag:{tag}"


def fault(name: str) -> str | None:
    """Why nothing can be limited under this name, as a sentence; None where it can."""
    kind, colon, rest = name.partition(":")
    if not colon or kind not in KINDS or not rest:
        return f"'{name[:80]}' names no limit: it is one of {', '.join(f'{kind}:…' for kind in KINDS)}."
    if len(name) > MOST_NAME_CHARS or not name.isprintable():
        return f"A limit's name has at most {MOST_NAME_CHARS} printable characters."
    if kind == "step" and "/" not in rest:
        return f"'{name}' names no step: it is step:FLOW/STEP."
    return None


def placeholders(template: str) -> tuple[str, ...]:
    """The parameters that a key names in braces: `customer-{customer}`.

    Raises:
        ValueError: Its braces do not match, or ask for more than a name.
    """
    from string import Formatter  # 1 ms that flows without limits do not pay

    names: list[str] = []
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise ValueError(f"'{template}' has something other than a parameter's name in its braces.")
        names.append(name)
    return tuple(names)


def resolved(graph: Mapping[str, Any], options: Mapping[str, Any], parameters: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The graph and the options of a run whose limits' keys hold the values of the parameters that they name.

    Args:
        graph: As `Graph.to_plain` writes it.
        options: As `RunStarted` has them.
        parameters: The run's, by the name on the command line, as they are shown to people.

    Returns:
        Both anew, the same where no key names a parameter.
    """

    def filled(template: str) -> str:
        return template.format(**{name: parameters.get(name, "") for name in placeholders(template)})[: MOST_NAME_CHARS - 20]

    steps: list[dict[str, Any]] = []
    for step in graph["steps"]:
        own: Mapping[str, int] = step.get("policy", {}).get("limits", {})
        keys = {filled(key): most for key, most in own.items()}
        steps.append({**step, "policy": {**step["policy"], "limits": keys}} if keys != own else step)
    runs = options.get("runs")
    if runs is not None and runs["key"]:
        options = {**options, "runs": {**runs, "key": filled(runs["key"])}}
    return {**graph, "steps": steps}, dict(options)
