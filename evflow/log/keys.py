"""The names of everything that evflow keeps in Redis.

All keys of a shard share a hash tag, and so do all of a flow, so that one script may touch them, in a cluster
too; so do those of a limited name, of a pool of workers, and of published events. `evflow:flows`, `evflow:backfilled`,
`evflow:installation`, `evflow:schedulers`, `evflow:limits`, `evflow:limit-names`, `evflow:pools` and `evflow:barrier` stand alone.
"""

from functools import lru_cache
from typing import Final, NamedTuple
from zlib import crc32

from evflow.core.ids import FlowName, RunId

FLOWS = "evflow:flows"
"""Set of the names of all flows."""
BACKFILLED = "evflow:backfilled"
"""Set of the names of all flows that ever had a backfill: nobody looks at thousands of flows for one."""
INSTALLATION = "evflow:installation"
"""This log's identity."""
SHARED_SHARDS: Final = 8
"""The shards of all runs that schedulers carry out: as many as can be owned, and as many schedulers as can work, at once."""
SCHEDULERS = "evflow:schedulers"
"""Sorted set of the schedulers that live, by the instant until which they count as living."""
LIMIT_TABLE = "evflow:limits"
"""Hash of the operator's limits: name to how many may hold it."""
LIMIT_NAMES = "evflow:limit-names"
"""Set of the limited names that were ever held."""
POOLS = "evflow:pools"
"""Set of the names of all pools that ever had a worker or an order."""
BARRIER = "evflow:barrier"
"""Written, with an expiry, where a wait for durability needs a write of its connection's own; in a cluster a shard has one of its own."""


class ShardKeys(NamedTuple):
    """The keys of a shard that belong to no single run."""

    lease: str
    inbox: str
    active: str
    timers: str
    feed: str
    barrier: str


class RunKeys(NamedTuple):
    """The keys of a run."""

    stream: str
    meta: str


class FlowKeys(NamedTuple):
    """The keys of a flow's log, of the index of its runs, and of what its log makes of tags, deployments, backfills and archives.

    `hot` is a sorted set of the runs with a log at the server, by the instant from which on somebody should look whether it can go.
    """

    log: str
    meta: str
    runs: str
    tags: str
    deployments: str
    archives: str
    hot: str
    backfills: str


class LimitKeys(NamedTuple):
    """The keys of a limited name."""

    held: str
    line: str


class EventKeys(NamedTuple):
    """The keys of what is published: the log, where it begins and ends, known ids, up to where each flow has looked at it, and each source was read, and how reading goes."""

    log: str
    meta: str
    ids: str
    looked: str
    sources: str
    readers: str


EVENT_KEYS: Final = EventKeys(*(f"{{evflow:events}}:{name}" for name in ("log", "meta", "ids", "looked", "sources", "readers")))


class PoolKeys(NamedTuple):
    """The keys of a pool of workers.

    Attributes:
        queue: Stream of the orders that no worker has claimed: the message queue.
        waiting: Hash, attempt to its entry in the queue.
        ranks: Sorted set of the same attempts, in the order in which they are claimed: by priority, then by age.
        given: Hash, worker to what its last call claimed, where that was something else than it had read.
        claims: Hash, attempt to when and by whom it was claimed.
        workers: Sorted set of the workers that live, by the instant until which they count as living.
        about: Hash, worker to what it says of itself.
        fences: Hash, shard to the epoch and number of the last orders of its owner.
        to: The beginning of the names of the streams that tell workers something; a worker's name follows.
    """

    queue: str
    waiting: str
    ranks: str
    given: str
    claims: str
    workers: str
    about: str
    fences: str
    to: str


def own_shard(run: RunId) -> str:
    """The name of the shard of a run that has one for itself, as foreground runs do."""
    return f"run:{run.flow}:{run.number}"


def is_own(shard: str) -> bool:
    """Whether a shard belongs to one run, and is nobody's when that is over."""
    return shard.startswith("run:")


def shared_shard(run: RunId) -> str:
    """The name of the shared shard of a run that a scheduler carries out: the same on every machine, for ever."""
    return f"s{crc32(str(run).encode()) % SHARED_SHARDS}"


def shared_shards() -> tuple[str, ...]:
    """The names of all shared shards."""
    return tuple(f"s{number}" for number in range(SHARED_SHARDS))


def shown_shard(shard: str) -> str:
    """A shard for people: the run, where it belongs to one."""
    kind, _, rest = shard.partition(":")
    flow, _, number = rest.rpartition(":")
    return f"'{flow}/{number}'" if kind == "run" and flow and number.isdecimal() else f"The shard '{shard}'"


@lru_cache(maxsize=256)
def shard_keys(shard: str) -> ShardKeys:
    """The keys of a shard."""
    tag = f"{{evflow:{shard}}}"
    return ShardKeys(f"{tag}:lease", f"{tag}:inbox", f"{tag}:active", f"{tag}:timers", f"{tag}:feed", f"{tag}:barrier")


def run_keys(shard: str, run: RunId) -> RunKeys:
    """The keys of a run in its shard."""
    tag = f"{{evflow:{shard}}}"
    return RunKeys(f"{tag}:run:{run}", f"{tag}:meta:{run}")


@lru_cache(maxsize=4_096)  # a scheduler asks for the ends of all flows' logs each second
def flow_keys(flow: FlowName) -> FlowKeys:
    """The keys of a flow."""
    tag = f"{{evflow:flow:{flow}}}"
    return FlowKeys(
        f"{tag}:log", f"{tag}:meta", f"{tag}:runs", f"{tag}:tags", f"{tag}:deployments", f"{tag}:archives", f"{tag}:hot", f"{tag}:backfills"
    )


def limit_keys(name: str) -> LimitKeys:
    """The keys of a limited name (`evflow.core.limits`)."""
    tag = f"{{evflow:limit:{name.replace('}', ')')}}}"  # a brace would end the hash tag early
    return LimitKeys(f"{tag}:held", f"{tag}:line")


@lru_cache(maxsize=64)
def pool_keys(pool: str) -> PoolKeys:
    """The keys of a pool."""
    tag = f"{{evflow:pool:{pool}}}"
    return PoolKeys(*(f"{tag}:{name}" for name in ("queue", "waiting", "ranks", "given", "claims", "workers", "about", "fences", "to:")))


def said_waits_key(shard: str) -> str:
    """The hash of what a shard's owner says of waits that only its process sees: no part of the log, and gone some minutes after the last word."""
    return f"{{evflow:{shard}}}:said-waits"


def live_key(shard: str) -> str:
    """The stream of what is seen of attempts on other machines, for the live view of a shard's owner."""
    return f"{{evflow:{shard}}}:live"
