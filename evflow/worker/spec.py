"""What an attempt is told before it runs: the context of its run, and its order.

Both pass through a socket or a file as msgpack, so both hold plain values only. The context is the same for
all attempts of a run and is sent once; the order is small.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

import msgpack

from evflow.core.values import field, value

_PATHS: Final = "surrogateescape"
"""How Python reads the bytes of a path that are no UTF-8: the flow's file may lie anywhere."""


class _Plain:
    """Values that travel as a msgpack array of their fields, by position.

    A new field goes to the end and has a default, so that versions understand each other.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()  # the fields, as `dataclass` fills it in

    def pack(self) -> bytes:
        """As bytes."""
        values = [getattr(self, name) for name in type(self).__match_args__]
        packed: bytes = msgpack.packb(values, unicode_errors=_PATHS)
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The inverse of `pack`."""
        values: tuple[Any, ...] = msgpack.unpackb(data, use_list=False, strict_map_key=False, unicode_errors=_PATHS)
        return cls(*values[: len(cls.__match_args__)])


@value
class RunContext(_Plain):
    """What all attempts of a run share.

    Attributes:
        flow: The flow's name.
        run: The run's number.
        flow_file: The file that defines the flow, absolute; empty where the class is already there.
        shard: The shard whose inbox takes the reports.
        log_url: The log's URL; the embedded server's socket as `unix://`.
        store_url: The object store's URL.
        parameters: Digest of the manifest of parameters and class constants.
        package: Digest of the code package, or None.
        user: Who started the run.
        namespace: The namespace of the client inside steps.
        tags: The run's tags, user and system.
        origin: The run that this one resumes, or None.
        lock_file: The run's file of attempt locks (see `evflow.worker.locks`).
        log_folder: Where captured output goes (see `evflow.store.logs`).
        options: What else was said at the start: `with` (the specs of `--with`, in order), `start_method`,
            `max_log_size_mb`, `report_within_s`, `project` (as `Project.to_plain` writes it); of a spin also `reports`, the folder that
            takes reports in place of the log, and `skip_decorators`; of a gang in containers `failures`, the folder in which an attempt that failed
            leaves its report as well.
        trigger: What started the run, or None for a person.
    """

    flow: str
    run: int
    flow_file: str
    shard: str
    log_url: str
    store_url: str
    parameters: bytes
    package: bytes | None = None
    user: str = ""
    namespace: str = ""
    tags: tuple[str, ...] = ()
    origin: str | None = None
    lock_file: str = ""
    log_folder: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trigger: Mapping[str, Any] | None = None


@value
class AttemptOrder(_Plain):
    """One attempt of one task.

    Attributes:
        step: The step.
        task: The task.
        attempt: Its number, from 0.
        mode: `run`, or `catch` to record a crash for `@catch` without running the body; `hook` for the exit hooks of the run, of which the step is the
            status and the task 0.
        last: No counted attempt is left after this one, so that `@catch` applies.
        crash: For mode `catch`: what happened to the attempt before.
        parents: `(step, task, manifest)` of the parent; of the members, in order, for a join.
        takes_inputs: The step takes the members as `inputs`: it is a join.
        frames: The splits around the task, outermost first:
            `(step, task, kind, index, size, items, variable)`.
        iteration: Which time this step runs on the task's path, from 0.
        timeout_s: The limit of the attempt, 0 for none.
        joined: The split that a join closes, as in `frames`, with any index; None for other steps.
        priority: The run's, when the attempt was launched: what waits for a worker of a pool goes by it.
        reuse: How many attempts the process may serve that runs it; 0 and 1 for this one alone.
        times_us: When the run started and the task was created, queued, given its slot and launched, for the cards of a step that has some.
        main_ip: The address of node 0 of the attempt's gang, as its container has learned it; empty where all nodes run on one machine.
    """

    step: str
    task: int
    attempt: int
    mode: str = "run"
    last: bool = True
    crash: str = ""
    parents: tuple[tuple[str, int, bytes], ...] = ()
    takes_inputs: bool = False
    frames: tuple[tuple[str, int, str, int, int, bytes | None, str | None], ...] = ()
    iteration: int = 0
    timeout_s: float = 0
    joined: tuple[str, int, str, int, int, bytes | None, str | None] | None = None
    priority: int = 0
    reuse: int = 0
    times_us: tuple[int, ...] = ()
    main_ip: str = ""

    @property
    def gang(self) -> tuple[int, int] | None:
        """Its index among the nodes of its gang, and their number; None of a task that is no node."""
        return (self.frames[-1][3], self.frames[-1][4]) if self.frames and self.frames[-1][2] == "parallel" else None
