"""The events of a run's log.

An event is a fact that was accepted or a decision that was taken, in the past tense. The rules:

* A **fact** comes from outside the run (a worker, an executor, a client, the admission of slots). A
  **decision** is what `decide` made of the facts. A turn holds its facts, then its decisions; the kind of
  each class below is what lets replay take a turn apart again.
* Fields are what msgpack can carry: int, str, bytes, bool, None, and tuples and dicts of them. They are
  encoded by position: a released field never moves or changes its meaning, and a new one goes to the end
  with a default.
* The tags in `TAGS` are the format. They are never renamed; a class may be.
* Values of artifacts, logs and secrets never stand in an event. Long texts are in the store by digest.

Times that are fields are those of the machine that reports (`*_us`); the time of the event itself is its
turn's, in the envelope (`evflow.core.codec.Record`).
"""

from evflow.core.environment_events import (
    EnvironmentReady as EnvironmentReady,
    EnvironmentReplaced as EnvironmentReplaced,
    EnvironmentResolved as EnvironmentResolved,
)
from evflow.core.event_kinds import Decision as Decision, Event as Event, Fact as Fact, Plain as Plain
from evflow.core.values import value

# --- the run ---------------------------------------------------------------------------------------------


@value
class RunStarted(Fact):
    """The first event of a run: all that replay needs without the flow's code.

    Attributes:
        flow: The flow's name.
        number: The run's number within the flow.
        logic: The version of the decision logic; `decide` keeps every released one.
        graph: The graph in the form of `Graph.to_plain`, each step's policy included.
        parameters: Manifest (digest) of the parameters and the flow's class constants.
        parameters_shown: Name (on the command line) to short text, for people; never a secret's value.
        options: `max_workers`, `max_splits`, `task_budget`, `retry_scale`, `fallback`, `durability`,
            `on_failure`, `priority`, ...
        code: What was run: `file`, `package` (digest of the archive), `python`, `evflow`.
        user: Who started it.
        namespace: The namespace of the client inside steps.
        tags: The user's tags at the start.
        system_tags: Tags that evflow sets (`user:`, `runtime:`, `python_version:`, ...).
        origin: The run that this one resumes (`Flow/3`), or None.
        trigger: What started it: `kind` and what belongs to it.
        host: The machine of the owner at the start.
        installation: Identity of the log that the run lives in.
        store: URL of the object store.
        parameters_values: Digest of an object with the parameters' JSON-like values, or None.
    """

    flow: str
    number: int
    logic: int
    graph: dict[str, Plain]
    parameters: bytes
    parameters_shown: dict[str, str]
    options: dict[str, Plain]
    code: dict[str, Plain]
    user: str
    namespace: str
    tags: tuple[str, ...] = ()
    system_tags: tuple[str, ...] = ()
    origin: str | None = None
    trigger: dict[str, Plain] | None = None
    host: str = ""
    installation: str = ""
    store: str = ""
    parameters_values: bytes | None = None


@value
class RunContinued(Fact):
    """A new owner took the run over after the old one died (`evflow continue`)."""

    host: str
    owner: str
    epoch: int


@value
class LogRegressed(Fact):
    """The server had lost a suffix of this log (a fail-over); the owner wrote it again.

    Attributes:
        from_seq: The first event that was missing.
        to_seq: The last event that was written again.
        epoch: The epoch under which they were written again.
    """

    from_seq: int
    to_seq: int
    epoch: int


@value
class RunCancelRequested(Fact):
    """Somebody asked for the run's end: Ctrl-C, `evflow cancel`, a client."""

    reason: str
    forced: bool = False


@value
class ExitHookStarted(Fact):
    """The run has its outcome, and the process of its exit hooks is about to be started. It changes nothing of the run.

    Attributes:
        attempt: How often it was started before.
        functions: The hooks, by name.
    """

    attempt: int
    functions: tuple[str, ...] = ()


@value
class ExitHookEnded(Fact):
    """The process of the exit hooks was seen to end, or they were given up. It changes nothing of the run, which is sealed next.

    Attributes:
        attempt: Of the start.
        exit_code: 0 where all hooks came to their end, 1 where one failed; None when a signal ended it.
        signal: The signal's number, or None.
        why: What is known besides: `given-up` (its owner died each time), `fork-server-died`, ... or an empty string.
    """

    attempt: int
    exit_code: int | None
    signal: int | None = None
    why: str = ""


@value
class RunPauseRequested(Fact):
    """Somebody wants that nothing of the run starts any more until it is resumed; what runs goes on."""

    reason: str


@value
class RunResumeRequested(Fact):
    """Somebody ended the pause that somebody had asked for."""

    reason: str = ""


@value
class RunPriorityRequested(Fact):
    """Somebody gave the run another place among those that wait for the same slots.

    Attributes:
        priority: The new one; higher ones come first, and 0 is what runs have.
    """

    priority: int


@value
class RunOverdue(Decision):
    """The run has used up its time, pauses included, and fails when nothing of it runs.

    Attributes:
        limit_us: The time that it had.
    """

    limit_us: int


@value
class RunPaused(Decision):
    """Nothing of the run can go on before somebody has seen to the tasks that are held.

    Attributes:
        reason: Sentences for people: what failed.
        task: The first task that is held.
        held: How many are.
    """

    reason: str
    task: int
    held: int


@value
class RunSucceeded(Decision):
    """The end step's task succeeded."""

    task: int


@value
class RunFailed(Decision):
    """The run cannot go on.

    Attributes:
        code: A stable name of the reason: `task-failed`, `different-joins`, `end-inside-split`, ...
        reason: Sentences for people; ill-formed transitions name both places.
        task: The task at fault, or 0.
    """

    code: str
    reason: str
    task: int = 0


@value
class RunCancelled(Decision):
    """The run was cancelled and none of its attempts is running any more."""

    reason: str


@value
class RunSealed(Event):
    """The last event: nothing follows it. It stands in a turn of its own.

    Attributes:
        state: SHA-256 of the live owner's state in its canonical encoding (`evflow.core.canonical`).
        chain: The chain's digest (32 bytes) of everything before the seal.
        events: How many events stand before the seal.
        late_reports: How many reports came too late to count.
    """

    state: bytes
    chain: bytes
    events: int
    late_reports: int = 0


# --- tasks -----------------------------------------------------------------------------------------------


@value
class TasksCreated(Decision):
    """Tasks of one step exist: one, or all tasks of a foreach at once.

    Attributes:
        step: Their step.
        first: The first one's id; the others follow densely.
        count: How many.
        parent: The task whose transition led here; for a join the task that split.
        op: `linear`, `split` (one branch of a static split), `foreach`, `parallel` (the nodes of a gang) or `join`.
        index: The first one's index among the members of its split.
        size: The number of members of that split; 0 for `linear` and `join`.
    """

    step: str
    first: int
    count: int
    parent: int
    op: str = "linear"
    index: int = 0
    size: int = 0


@value
class TaskReused(Fact):
    """A resumed run takes over a finished task of its origin, by reference; nothing is copied.

    Attributes:
        task: The task of this run.
        origin_task: The pathspec of the task that did the work.
        manifest: As for `AttemptSucceeded`, like all up to `variable`.
        origin_id: The id of the corresponding task in the run that is resumed.
        caught: As for `AttemptSucceeded`, like all after it.
    """

    task: int
    origin_task: str
    manifest: bytes
    next_kind: str
    next_steps: tuple[str, ...]
    splits: int = 0
    items: bytes | None = None
    variable: str | None = None
    origin_id: int = 0
    caught: str | None = None
    artifacts: int = 0
    size_bytes: int = 0
    cards: tuple[tuple[Plain, ...], ...] = ()


@value
class TaskQueued(Decision):
    """`count` tasks from `task` on wait for a slot of their executor.

    Attributes:
        mode: `run`, or `catch` for the attempt that only records a crash for `@catch`.
    """

    task: int
    count: int = 1
    attempt: int = 0
    executor: str = "local"
    mode: str = "run"


@value
class SlotGranted(Fact):
    """`admit` gave the task a numbered slot; `reason` says what it had waited for.

    Attributes:
        executor: Where it runs, if not where it was queued for: the reason says why.
    """

    task: int
    attempt: int
    slot: int
    reason: str = ""
    executor: str = ""


@value
class TaskLaunched(Decision):
    """The intent to start an attempt: durable before the executor hears of it."""

    task: int
    attempt: int
    executor: str = "local"
    mode: str = "run"


@value
class AttemptStarted(Fact):
    """The attempt's process exists."""

    task: int
    attempt: int
    host: str
    pid: int
    started_us: int


@value
class AttemptSucceeded(Fact):
    """The worker's one report of a body that came to its end, or whose exception `@catch` took.

    Attributes:
        manifest: Digest of the manifest that names the task's artifacts.
        next_kind: `linear`, `split`, `foreach`, `parallel`, `switch` or `end`: what `self.next` was told.
        next_steps: The steps chosen at run time, in the order of the call.
        splits: Number of items of a foreach, or of nodes of a gang.
        items: Digest of the packed items of a foreach.
        variable: The foreach's variable, or the switch's condition.
        caught: The exception that `@catch` took (`module.Class: text`), or None.
        artifacts: How many artifacts the manifest names.
        size_bytes: Their size, serialised.
        cards: The cards that were made of it, each as the fields of `evflow.core.cards.RecordedCard`.
        cache: Of a step with `@cached`: the digest of its key; the task whose result was taken, or an empty string where the body was
            run; and why it was run.
    """

    task: int
    attempt: int
    manifest: bytes
    next_kind: str
    next_steps: tuple[str, ...]
    splits: int = 0
    items: bytes | None = None
    variable: str | None = None
    caught: str | None = None
    artifacts: int = 0
    size_bytes: int = 0
    started_us: int = 0
    ended_us: int = 0
    cards: tuple[tuple[Plain, ...], ...] = ()
    cache: tuple[Plain, ...] = ()


@value
class AttemptFailed(Fact):
    """The worker's one report of a body that raised.

    Attributes:
        kind: `exception`, `timeout`, `exit` (the body called `sys.exit`), `artifact` (could not be serialised),
            `transition` (`self.next` missing or wrong), `load` (the flow or an input could not be loaded), `store`
            (the store could not be written), `environment` (the step's could not be had), `container` (its
            container could not be, or was ended by its platform for a reason of the step's).
        error: The exception's class, `module.Class`.
        message: Its text, cut at 2,000 characters.
        where: `file:line` of the user's innermost frame, or an empty string.
        detail: Digest of the whole traceback in the store, or None.
        retryable: False where another attempt must not be made, as for cancellation.
        cards: As for `AttemptSucceeded`: what had been made of it until then.
    """

    task: int
    attempt: int
    kind: str
    error: str
    message: str
    where: str = ""
    detail: bytes | None = None
    retryable: bool = True
    started_us: int = 0
    ended_us: int = 0
    manifest: bytes | None = None
    cards: tuple[tuple[Plain, ...], ...] = ()


@value
class AttemptExited(Fact):
    """The executor saw the attempt's process end without a report.

    Attributes:
        exit_code: The exit code, or None when a signal ended it.
        signal: The signal's number, or None.
        why: What the executor knows besides: `out-of-memory`, `fork-server-died`, `owner-died`,
            `never-started`, `unreported` (the log was away), ... or an empty string.
    """

    task: int
    attempt: int
    exit_code: int | None
    signal: int | None
    why: str = ""


@value
class AttemptLost(Decision):
    """The attempt's worker, host or owner died: not the task's fault, not counted against `@retry`."""

    task: int
    attempt: int
    reason: str


@value
class AttemptCrashed(Decision):
    """The attempt's process ended by itself without a report (exit code, segmentation fault)."""

    task: int
    attempt: int
    reason: str


@value
class AttemptTimedOut(Decision):
    """The attempt did not end within its `@timeout` and had to be killed."""

    task: int
    attempt: int
    limit_us: int


@value
class AttemptCancelled(Decision):
    """The attempt ended because the run was cancelled or had failed."""

    task: int
    attempt: int
    reason: str


@value
class AttemptCancelRequested(Decision):
    """The intent to end a running attempt: `cancelled`, `run-failed`, `timeout`."""

    task: int
    attempt: int
    reason: str


@value
class RetryScheduled(Decision):
    """The task will be queued again as `attempt`, not before `at_us`.

    Attributes:
        counted: False where the attempt before was lost, which `@retry` does not count.
        count: How many tasks from `task` on: all nodes of a gang.
    """

    task: int
    attempt: int
    at_us: int
    counted: bool
    reason: str
    count: int = 1


@value
class TaskFailed(Decision):
    """No attempt is left: the run will fail."""

    task: int
    attempt: int
    reason: str


@value
class TaskHeld(Decision):
    """No attempt is left, and the run is one that waits for somebody then (`on_failure`), instead of failing."""

    task: int
    attempt: int
    reason: str


@value
class TaskRetryRequested(Fact):
    """Somebody wants another attempt of a task that is held or waits for its retry; what `@retry` allows is counted anew."""

    task: int
    reason: str = ""


@value
class TaskSkipRequested(Fact):
    """Somebody wants the run to go on without a result of this task.

    Attributes:
        step: Where to go on, for a step that chooses; empty where the source has one way only.
    """

    task: int
    step: str = ""
    reason: str = ""


@value
class TaskSkipped(Decision):
    """The run goes on without a result of the task.

    Attributes:
        manifest: Digest of the manifest of what the task had inherited, which is what follows it inherits.
        next_kind: As for `AttemptSucceeded`, like the next one.
    """

    task: int
    manifest: bytes
    next_kind: str
    next_steps: tuple[str, ...]


@value
class GangRefused(Fact):
    """The nodes of a gang cannot ever run at the same time here: the run fails.

    Attributes:
        task: The gang's first node.
        reason: Sentences for people: how many there are, and how many can be.
    """

    task: int
    reason: str


@value
class Unknown(Event):
    """An event of a later version: kept, shown, without effect."""

    tag: str
    fields: tuple[Plain, ...]


TAGS: dict[str, type[Event]] = {
    "RunStarted": RunStarted,
    "RunContinued": RunContinued,
    "LogRegressed": LogRegressed,
    "RunCancelRequested": RunCancelRequested,
    "RunSucceeded": RunSucceeded,
    "RunFailed": RunFailed,
    "RunCancelled": RunCancelled,
    "RunSealed": RunSealed,
    "TasksCreated": TasksCreated,
    "TaskReused": TaskReused,
    "TaskQueued": TaskQueued,
    "SlotGranted": SlotGranted,
    "TaskLaunched": TaskLaunched,
    "AttemptStarted": AttemptStarted,
    "AttemptSucceeded": AttemptSucceeded,
    "AttemptFailed": AttemptFailed,
    "AttemptExited": AttemptExited,
    "AttemptLost": AttemptLost,
    "AttemptCrashed": AttemptCrashed,
    "AttemptTimedOut": AttemptTimedOut,
    "AttemptCancelled": AttemptCancelled,
    "AttemptCancelRequested": AttemptCancelRequested,
    "RetryScheduled": RetryScheduled,
    "TaskFailed": TaskFailed,
    "RunPauseRequested": RunPauseRequested,
    "RunResumeRequested": RunResumeRequested,
    "RunPriorityRequested": RunPriorityRequested,
    "RunPaused": RunPaused,
    "TaskHeld": TaskHeld,
    "TaskRetryRequested": TaskRetryRequested,
    "TaskSkipRequested": TaskSkipRequested,
    "TaskSkipped": TaskSkipped,
    "RunOverdue": RunOverdue,
    "GangRefused": GangRefused,
    "EnvironmentResolved": EnvironmentResolved,
    "EnvironmentReplaced": EnvironmentReplaced,
    "EnvironmentReady": EnvironmentReady,
    "ExitHookStarted": ExitHookStarted,
    "ExitHookEnded": ExitHookEnded,
}
"""The format's tags. Append only."""
