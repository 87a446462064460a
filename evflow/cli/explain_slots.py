"""Who else takes the slots that a run of a scheduler waits for: all runs of that scheduler share them, in whichever shard they are.

A run's own log says what it holds; who holds the rest is in the logs of the others, some of which are read here.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from evflow.cli import session
from evflow.cli.output import count
from evflow.core.explain import Resources
from evflow.core.graph import LOCAL, Policy
from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.errors import EvflowError
from evflow.log.keys import shared_shards
from evflow.log.owners import seen_owner
from evflow.log.protocol import LogClient, RunEntry

MOST_RUNS: Final = 200
"""How many runs of a flow are looked at, the newest ones."""
_MOST_READ: Final = 20
"""Of how many runs the logs are read, the oldest ones first: those are at work before younger ones."""
_MOST_NAMED: Final = 5


class Sharing(NamedTuple):
    """The other runs that take slots of the same scheduler.

    Attributes:
        process: The scheduler, `host:pid`.
        runs: Those at work, the oldest one first.
        before: How many of these have a higher priority.
    """

    process: str
    runs: list[RunEntry]
    before: int


def sharing(log: LogClient, entry: RunEntry, state: RunState) -> Sharing | None:
    """Who takes slots beside a run whose tasks wait for them; None where none does, or no scheduler has the run."""
    if not state.takes_slots or entry.shard not in shared_shards():
        return None
    process = _process(log, entry.shard)
    if not process:
        return None
    shards = {shard for shard in shared_shards() if shard == entry.shard or _process(log, shard) == process}
    others = [
        other
        for flow in log.flows()
        for other in log.runs(flow, MOST_RUNS)
        if other.run != entry.run and other.shard in shards and other.summary.get("status") == "running"
    ]
    others.sort(key=lambda other: (-_priority(other), other.summary.get("started_us") or 0))
    return Sharing(process, others, sum(_priority(other) > state.priority for other in others))


def said(log: LogClient, state: RunState, shared: Sharing) -> Iterator[str]:
    """Who holds the slots, and who comes first, in sentences."""
    run = f"{state.flow}/{state.number}"
    if shared.runs:
        held, unread, of_namespace, taken, large = _held(log, shared.runs)
        named = ", ".join(held[:_MOST_NAMED]) + (", …" if len(held) > _MOST_NAMED else "")
        at_least = "at least " if unread else ""
        holders = f"; {at_least}{count(len(held), 'slot')} {'is' if len(held) == 1 else 'are'} held by {named}" if held else ""
        yield f"{run} shares the slots of the scheduler {shared.process} with {count(len(shared.runs), 'other run')} at work{holders}."
        own = str(state.header["namespace"])
        if set(of_namespace) - {own}:
            of_namespace[own] += sum(state.tasks[number].attempt.executor == LOCAL for number in state.live)
            each = ", ".join(f"{name} has {number}" for name, number in of_namespace.most_common(_MOST_NAMED))
            yield f"Between runs of a priority slots go to the namespace that has the fewest: {each}; {own}, the run's own, has {of_namespace[own]}."
        if not taken.nothing and any(not Resources.of(state.graph[state.tasks[number].step].policy).nothing for number in state.waiting):
            yield f"What its tasks ask for of the machine's cores and memory is taken in part: running tasks of the other runs asked for {amounts(taken)}."
        for name, asks in large[:_MOST_NAMED]:
            yield f"{name} asks for {amounts(asks)} and waits until that is free: what comes after it gets no slot before it does."
    if shared.before:
        come = "comes" if shared.before == 1 else "come"
        yield (
            f"{run} has the priority {state.priority}: {count(shared.before, 'run')} of higher priority "
            f"that share{'s' if shared.before == 1 else ''} its slots {come} before it. `evflow set-priority` changes that."
        )


def _held(log: LogClient, runs: list[RunEntry]) -> tuple[list[str], bool, Counter[str], Resources, list[tuple[str, Resources]]]:
    """The tasks that hold slots of the machine, whether some runs were not looked at, how many each namespace has, and what they asked for.

    Beside them those that wait, first in their run, and ask for something.
    """
    held: list[str] = []
    large: list[tuple[str, Resources]] = []
    of_namespace: Counter[str] = Counter()
    policies: list[Policy] = []
    for other in runs[:_MOST_READ]:
        try:
            _, state = session.folded(log, other.run)
        except EvflowError:  # it is over and gone meanwhile, or its log cannot be read: another command says so
            continue
        here = [number for number in state.live if state.tasks[number].attempt.executor == LOCAL]
        held += [_name(other.run, state, number) for number in here]
        of_namespace[str(state.header["namespace"])] += len(here)
        policies += [state.graph[state.tasks[number].step].policy for number in here]
        if state.takes_slots:
            number = next(iter(state.waiting))
            policy = state.graph[state.tasks[number].step].policy
            asks = Resources.of(policy)
            if policy.executor == LOCAL and not policy.limits and not asks.nothing:
                large.append((_name(other.run, state, number), asks))
    return held, len(runs) > _MOST_READ, of_namespace, Resources.of(*policies), large


def amounts(resources: Resources) -> str:
    """What tasks declare, for people."""
    each = ((resources.cpu, "cpu"), (resources.memory_mb, "MB of memory"), (resources.gpu, "gpu"))
    return ", ".join(f"{number:g} {unit}" for number, unit in each if number) or "nothing"


def _name(run: RunId, state: RunState, number: int) -> str:
    task = state.tasks[number]
    return f"{run}/{task.step}/{task.id}"


def _priority(entry: RunEntry) -> int:
    return int(entry.summary.get("priority") or 0)


def _process(log: LogClient, shard: str) -> str:
    owner = seen_owner(log, shard)
    return ":".join(owner.split(":")[:2]) if owner is not None else ""
