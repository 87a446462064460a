"""The events of a flow's log: what happens outside its runs, and their bytes.

A flow's log has no owner and no turns, so its events are smaller than a run's: a msgpack array
`[tag, at_us, principal, *fields]`, fields by position. The rules of `evflow.core.events` hold: tags are never
renamed, a released field never moves, new ones go to the end with a default.
"""

import msgpack

from evflow.core.codec import MAX_EVENT_BYTES, EventTooLarge, UnreadableEvent, build, unpack
from evflow.core.events import Event, Fact, Plain, Unknown
from evflow.core.ids import Micros, Seq
from evflow.core.values import declared, value

_HEAD = 3


@value
class RunRequested(Fact):
    """Somebody asked for a run, and it got its number.

    Attributes:
        number: The run's number. The server fills it in: see `split_at_number`.
        user: Who asked.
        origin: The run that this one resumes (`Flow/3`), or None.
        shard: The shard that runs it; empty for one of its own (`run:<Flow>:<number>`); `shared` for the one of the shared shards
            that follows from its name, which is not known before its number is.
        host: Where it was asked for.
        deployment: The deployment that it is a run of, or empty for a run in the foreground.
        version: The version of that deployment.
        trigger: What asked for it, where that was no person, as the run's `RunStarted` has it: `kind` and what belongs to it.
        parameters: Parameter name to value, where an event gave any: whoever offers the run again needs them.
        offer: Of a request of a person, what else whoever offers the run again needs: `id` (of the request), `given` (manifest of what the run begins with), `shown`
            (parameters for people), `tags`, `options`.
    """

    number: int
    user: str
    origin: str | None = None
    shard: str = ""
    host: str = ""
    deployment: str = ""
    version: int = 0
    trigger: dict[str, Plain] | None = None
    parameters: dict[str, Plain] | None = None
    offer: dict[str, Plain] | None = None


@value
class RunTagged(Fact):
    """Somebody changed a run's user tags.

    Attributes:
        number: The run.
        tags: All its user tags after the change.
        added: Tags that were not there before.
        removed: Tags that were.
    """

    number: int
    tags: tuple[str, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@value
class FlowDeployed(Fact):
    """Somebody deployed the flow: from now on runs of this deployment are runs of this version.

    Attributes:
        name: The deployment's name.
        version: Its version, dense from 1 for each name, also after it was undeployed.
        manifest: Digest of the deployment's manifest: what a run needs without the flow's code.
        store: URL of the object store that holds manifest and code.
        package: Digest of the code package, or None.
        file: The flow's file, inside the package.
        namespace: The namespace of its runs.
        production: It was deployed with `--production`.
        user: Who deployed it.
        host: Where it was deployed.
        evflow: The version of evflow that deployed it.
        python: The version of Python that deployed it.
        schedule: When runs of it begin by themselves, as `evflow.core.schedule.to_plain` writes it, or None.
        triggers: On which events runs of it begin, as `evflow.core.triggers.to_plain` writes them.
    """

    name: str
    version: int
    manifest: bytes
    store: str
    package: bytes | None
    file: str
    namespace: str
    production: bool
    user: str
    host: str
    evflow: str
    python: str
    schedule: dict[str, Plain] | None = None
    triggers: tuple[dict[str, Plain], ...] = ()


@value
class FlowUndeployed(Fact):
    """Somebody took a deployment away. Its runs go on.

    Attributes:
        name: The deployment's name.
    """

    name: str


@value
class FlowPaused(Fact):
    """Somebody paused a deployment: nothing but a person starts runs of it. It stays paused when it is deployed anew.

    Attributes:
        name: The deployment's name.
    """

    name: str


@value
class FlowUnpaused(Fact):
    """Somebody ended a deployment's pause.

    Attributes:
        name: The deployment's name.
    """

    name: str


@value
class ScheduleTicked(Fact):
    """A tick of a deployment's schedule came and was skipped, or several in a row were; one that is run is a `RunRequested`.

    Attributes:
        name: The deployment's name.
        tick_us: The tick; the last of several.
        version: The version of the deployment.
        decision: `skip`.
        reason: `paused`; `missed`, `not-the-last` or `too-many` for a tick that came while no scheduler was there (`catch_up`); else
            why no run could be asked for.
        since_us: The first of several ticks; 0 for one.
    """

    name: str
    tick_us: int
    version: int
    decision: str
    reason: str
    since_us: int = 0


@value
class RunArchived(Fact):
    """A sealed run's log lies in the store, read back and found to be the log; it may go from the server.

    Attributes:
        number: The run.
        store: URL of the store.
        name: The archive's name there.
        digest: SHA-256 of the archive.
        size_bytes: Its size.
        events: How many events it holds, the seal included.
        chain: The chain's digest (32 bytes) of them all.
        sealed_us: When the run was sealed.
    """

    number: int
    store: str
    name: str
    digest: bytes
    size_bytes: int
    events: int
    chain: bytes
    sealed_us: int


@value
class RunForgotten(Fact):
    """Somebody let a run go: it is in no list any more, and nothing is kept for its sake.

    Attributes:
        number: The run.
        reason: What made it go: a person's command, or a rule (`keep-last 100`).
    """

    number: int
    reason: str = ""


@value
class BackfillRequested(Fact):
    """Somebody asked for runs of past ticks of a deployment's schedule.

    Attributes:
        number: Its number, dense from 1 for each flow.
        name: The deployment's name.
        version: Its version: all runs are runs of it.
        schedule: Its schedule, as `FlowDeployed` has it.
        from_us: The first instant of the span.
        to_us: The last one.
        ticks: How many ticks lie in it.
        max_parallel: Runs that may be asked for and not over at a time.
        again: Ticks that have a run already are run, too.
        parameters: Texts, as on a command line; `{tick}` and `{date}` stand for a tick.
        tags: User tags of every run, besides the deployment's.
        user: Who asked.
        host: Where it was asked for.
    """

    number: int
    name: str
    version: int
    schedule: dict[str, Plain]
    from_us: int
    to_us: int
    ticks: int
    max_parallel: int
    again: bool
    parameters: dict[str, str]
    tags: tuple[str, ...]
    user: str
    host: str


@value
class BackfillTicksSkipped(Fact):
    """Ticks of a backfill, in a row, get no run; one that does is a `RunRequested`.

    Attributes:
        number: The backfill.
        tick_us: The tick; the last of several.
        reason: `has-run`, `is-running`, or why no run could be asked for.
        since_us: The first of several ticks; 0 for one.
        ticks: How many.
    """

    number: int
    tick_us: int
    reason: str
    since_us: int = 0
    ticks: int = 1


@value
class BackfillRunsEnded(Fact):
    """Runs of a backfill are over, and others may begin.

    Attributes:
        number: The backfill.
        asked: Where in this log their requests stand.
        runs: Their numbers.
        statuses: What became of each.
    """

    number: int
    asked: tuple[int, ...]
    runs: tuple[int, ...]
    statuses: tuple[str, ...]


@value
class BackfillCancelRequested(Fact):
    """Somebody ended a backfill before its time: no more runs are asked for.

    Attributes:
        number: The backfill.
        runs: Its runs are to be cancelled, too.
    """

    number: int
    runs: bool = False


@value
class BackfillEnded(Fact):
    """All ticks of a backfill are decided, or it was given up, and its runs are over.

    Attributes:
        number: The backfill.
        outcome: `done`, `cancelled`, or `undeployed`: its deployment was taken away.
    """

    number: int
    outcome: str


@value
class TriggerReceived(Fact):
    """Events matched a deployment's trigger and wait; what starts a run at once is a `RunRequested`.

    Attributes:
        name: The deployment's name.
        version: The version of the deployment.
        trigger: Which of its triggers, from 0.
        events: Their ids, names and instants (`id`, `name`, `at_us`).
        reason: `for-others`: all of several events are needed. `gathering`: for quiet (debounce) or company (coalesce).
        at_us: The instant that decided it.
        wanted: `for-others`: which of the wanted events it is, from 0; else -1.
        parameters: What they give to the run.
        due_us: `gathering`: when they start a run if nothing else comes.
    """

    name: str
    version: int
    trigger: int
    events: tuple[dict[str, Plain], ...]
    reason: str
    at_us: int
    wanted: int = -1
    parameters: dict[str, Plain] | None = None
    due_us: int = 0


@value
class TriggerSkipped(Fact):
    """Events matched a deployment's trigger and start no run.

    Attributes:
        name: The deployment's name.
        version: The version of the deployment.
        trigger: Which of its triggers, from 0.
        events: As for `TriggerReceived`; none for `trimmed`.
        reason: `paused`, `throttled`, `superseded`, `window-passed`, `payload-unfit: …`, `payload-unreadable: …`; `trimmed`: events up to `at_us` were
            removed from the log of what is published before a scheduler looked at them; else why no run could be asked for.
        at_us: The instant that decided it.
    """

    name: str
    version: int
    trigger: int
    events: tuple[dict[str, Plain], ...]
    reason: str
    at_us: int


@value
class RunGivenUp(Fact):
    """A run that had begun was given up by its owner: the server lost its log and its request, and another run has its number or its cause.

    Attributes:
        number: The number that it had.
        reason: Why.
        user: Who had asked for it.
        trigger: What had started it, as its `RunStarted` had it.
    """

    number: int
    reason: str
    user: str = ""
    trigger: dict[str, Plain] | None = None


@value
class RunRefused(Fact):
    """A run that was asked for can be carried out by no scheduler: it never begins, and is not offered again.

    Attributes:
        number: The run.
        reason: Why.
    """

    number: int
    reason: str


TAGS: dict[str, type[Event]] = {
    "RunRequested": RunRequested,
    "RunTagged": RunTagged,
    "FlowDeployed": FlowDeployed,
    "FlowUndeployed": FlowUndeployed,
    "FlowPaused": FlowPaused,
    "FlowUnpaused": FlowUnpaused,
    "ScheduleTicked": ScheduleTicked,
    "RunArchived": RunArchived,
    "RunForgotten": RunForgotten,
    "BackfillRequested": BackfillRequested,
    "BackfillTicksSkipped": BackfillTicksSkipped,
    "BackfillRunsEnded": BackfillRunsEnded,
    "BackfillCancelRequested": BackfillCancelRequested,
    "BackfillEnded": BackfillEnded,
    "TriggerReceived": TriggerReceived,
    "TriggerSkipped": TriggerSkipped,
    "RunGivenUp": RunGivenUp,
    "RunRefused": RunRefused,
}
"""The format's tags. Append only."""

_TAG_OF = {cls: tag for tag, cls in TAGS.items()}
_FIELDS: dict[type[Event], tuple[str, ...]] = {cls: tuple(declared(cls)) for cls in TAGS.values()}


@value
class FlowRecord:
    """An event at its place in a flow's log; the attributes as in `evflow.core.codec.Record`."""

    seq: Seq
    at_us: Micros
    principal: str
    event: Event


def encode(event: Event, *, at_us: int, principal: str) -> bytes:
    """The event as it stands in a flow's log.

    Raises:
        EventTooLarge: It has more bytes than an event may have.
    """
    if isinstance(event, Unknown):
        tag, body = event.tag, list(event.fields)
    else:
        tag, body = _TAG_OF[type(event)], [getattr(event, name) for name in _FIELDS[type(event)]]
    payload: bytes = msgpack.packb((tag, at_us, principal, *body))
    if len(payload) > MAX_EVENT_BYTES:
        raise EventTooLarge(tag, len(payload), MAX_EVENT_BYTES)
    return payload


def decode(seq: int, payload: bytes) -> FlowRecord:
    """The record that `encode` wrote.

    Raises:
        UnreadableEvent: The bytes are no event of a flow's log.
    """
    values = unpack(payload)
    head = values[:_HEAD]
    if tuple(map(type, head)) != (str, int, str):
        raise UnreadableEvent("not an array that begins with a tag, a time and a principal")
    tag, at_us, principal = head
    return FlowRecord(Seq(seq), at_us, principal, build(tag, TAGS.get(tag), values[_HEAD:]))


def split_at_number(payload: bytes) -> tuple[bytes, bytes]:
    """The bytes before and behind the number of an encoded `RunRequested`.

    The number is taken and the event appended in one act at the server, which puts it between the two.

    Raises:
        UnreadableEvent: The bytes are no `RunRequested`.
    """
    unpacker = msgpack.Unpacker(use_list=False)
    unpacker.feed(payload)
    try:
        unpacker.read_array_header()
        tag = unpacker.unpack()
        unpacker.skip()
        unpacker.skip()
        start = unpacker.tell()
        unpacker.skip()
    except (ValueError, msgpack.UnpackException) as error:
        raise UnreadableEvent("not an event of a flow's log") from error
    if tag != _TAG_OF[RunRequested]:
        raise UnreadableEvent(f"{tag} asks for no run")
    return payload[:start], payload[unpacker.tell() :]
