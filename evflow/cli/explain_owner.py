"""Who carries a run of schedulers out, in sentences."""

from typing import Final

from evflow.core.explain_owner import IsCarriedOut, IsDrained, IsToBeTaken, NobodyLives, NobodyMayOwn, Whose, whose
from evflow.log.keys import shared_shards
from evflow.log.owners import lives, seen_owner
from evflow.log.protocol import LogClient
from evflow.log.shard_sets import may_own

_MOST_NAMED: Final = 3


def process(owner: str) -> str:
    """Host and process of an owner's name, which has more; an empty string of none."""
    return ":".join(owner.split(":")[:2])


def look(log: LogClient, shard: str) -> Whose | None:
    """Who carries out what is in a shard; None where the shard is no scheduler's."""
    if shard not in shared_shards():
        return None
    living = {process(name): may_own(name) for name in log.schedulers() if lives(name)}
    return whose(int(shard.removeprefix("s")), process(seen_owner(log, shard) or ""), living)


def said(run: str, found: Whose, *, begun: bool) -> str:
    """Why nothing goes on with the run; an empty string where a scheduler carries it out.

    Args:
        run: The run.
        found: What `look` found.
        begun: It has a log; else it was asked for, and that is all.
    """
    waits = f"{run} waits for a scheduler"
    match found:
        case IsCarriedOut(by):
            return "" if begun else f"{run} has not begun: the scheduler {by} is to take it."
        case IsDrained(by, others):
            then = f"{_some(others)} goes on with it then" if len(others) == 1 else "another scheduler goes on with it then"
            after = then if others else "no other scheduler that may is there: `evflow scheduler` starts one"
            return f"{run} waits for another scheduler: {by}, which has it, was told to end and begins nothing more; {after}."
        case IsToBeTaken(by):
            return f"{waits}: none has it at present; {_some(by)} may take it, within seconds."
        case NobodyMayOwn(shard, living):
            return (
                f"{waits}: it is in the shard {shard}, which no scheduler that lives may own (--shards of {_some(living)}). "
                f"`evflow scheduler --shards {shard.removeprefix('s')}` goes on with it."
            )
        case NobodyLives():
            gone = "the one that had it is gone" if begun else "none is there"
            return f"{waits}: {gone}. `evflow scheduler` {'goes on with it' if begun else 'starts one'}."


def waits(run: str, log: LogClient, shard: str) -> str:
    """What a run waits for that was asked for just now and is in a shard without an owner; `run` may be `It`."""
    found = look(log, shard)
    if found is None or isinstance(found, NobodyLives):
        return f"{run} waits for a scheduler, and none is there: `evflow scheduler` starts one."
    return said(run, found, begun=False)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
