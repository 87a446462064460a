"""That attempts of a run wait for its store, as its owner said it, and in sentences."""

from evflow.cli.output import count, instant
from evflow.core.explain_store import WaitsForStore, of_store
from evflow.core.graph import LOCAL, PLATFORMS
from evflow.core.state import RunState
from evflow.log.owners import seen_owner
from evflow.log.protocol import LogClient


def waits(log: LogClient, shard: str, state: RunState) -> list[WaitsForStore]:
    """What keeps attempts of a run from beginning because its store is away; nothing is asked where none is about to begin."""
    if state.over or all(state.tasks[number].attempt.started_us for number in state.live):
        return []
    told = log.store_waits([shard]).get(f"{state.flow}/{state.number}", ())
    return of_store(state, told, seen_owner(log, shard) or "", log.now_us()) if told else []


def said(run: str, wait: WaitsForStore) -> str:
    """It as a sentence."""
    return f"{run} waits for its store, {shortly(wait)}"


def shortly(wait: WaitsForStore) -> str:
    """It without its subject."""
    tasks = count(wait.tasks, "task")
    if wait.executor == LOCAL:
        what = f"the code of {tasks} cannot be fetched"
    else:
        what = f"{tasks} cannot be ordered of {PLATFORMS.get(wait.executor, wait.executor)}"
    return f"since {instant(wait.since_us)[:19]}: {what}. {wait.why.rstrip('.')}. It is tried again."
