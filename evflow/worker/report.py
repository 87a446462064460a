"""An attempt without its process: the instance from its order, and its one report from what the body did.

All that is needed is a store. So what runs attempts in processes of their own and what runs them in a test
(`evflow.testing.run_flow`) make the same of a body.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, cast

from evflow.clock import now_us
from evflow.core.events import AttemptFailed, AttemptSucceeded
from evflow.errors import EnvironmentProblem, EvflowError
from evflow.exception import FunctionIsNoArtifact, InvalidNextException, TimeoutException, class_name, text_of
from evflow.flow.execution import Done, Outcome, collect, instantiate, leave_out
from evflow.flow.flowspec import FlowSpec
from evflow.flow.scope import AnyFlow
from evflow.masking import masked
from evflow.store import ObjectStore
from evflow.store.artifacts import ArtifactView, Code, Entry, load_item, pack_items, save
from evflow.store.diagnosis import ArtifactNotSerializable
from evflow.worker.spec import AttemptOrder

MESSAGE_CHARS: Final = 2_000


def instance(
    flow: type[AnyFlow],
    order: AttemptOrder,
    store: ObjectStore,
    parameters: ArtifactView,
    open_view: Callable[[bytes], ArtifactView] | None = None,
) -> AnyFlow:
    """The flow at the attempt's place in the run.

    Args:
        flow: Its class.
        order: What the attempt was told.
        store: Where its artifacts are.
        parameters: Those of the run.
        open_view: Opens the manifest that it starts from, where it may have been read before; from the store otherwise.

    Raises:
        ObjectMissing, ObjectDamaged, StoreUnusable: What it starts from cannot be read.
    """
    view = None
    if not order.takes_inputs and order.parents:
        manifest = order.parents[0][2]
        view = ArtifactView.open(store, manifest) if open_view is None else open_view(manifest)

    def open_views(digests: Sequence[bytes]) -> Iterable[ArtifactView]:
        return [ArtifactView.open(store, digest) for digest in digests]

    def item(digest: bytes, index: int) -> object:
        return load_item(store, digest, index)

    return instantiate(
        flow,
        order.step,
        parameters=parameters,
        view=view,
        parents=order.parents if order.takes_inputs else None,
        open_views=open_views,
        frames=order.frames,
        joined=order.joined,
        load_item=item,
    )


def success(
    flow: FlowSpec,
    order: AttemptOrder,
    store: ObjectStore,
    done: Done,
    started_us: int,
    *,
    code: Code | None = None,
    outcome: Outcome | None = None,
) -> AttemptSucceeded:
    """Store what the step leaves, and say so.

    Args:
        flow: The instance, after its step.
        order: What it was told.
        store: Where to.
        done: What `run_step` made of it.
        started_us: When the attempt began.
        code: Where the classes of `__main__` are from.
        outcome: What `collect` made of it; without, it is asked here.

    Raises:
        FunctionIsNoArtifact, ArtifactNotSerializable: Something cannot be kept.
        StoreFull, StoreUnusable: The store cannot be written.
    """
    transition = done.transition
    items = splits = None
    if transition.items is not None:
        items, splits = pack_items(store, transition.items, name=transition.variable or "items")
    outcome = collect(flow) if outcome is None else outcome
    base = cast("ArtifactView", outcome.base)
    saved = save(
        store,
        outcome.values,
        {**base.entries(), **cast("Mapping[str, Entry]", outcome.inherited)} if order.takes_inputs else base,
        removed=outcome.without,
        read_through=cast("Sequence[ArtifactView]", outcome.read_through),
        code=code,
    )
    return AttemptSucceeded(
        task=order.task,
        attempt=order.attempt,
        manifest=saved.manifest,
        next_kind=transition.kind,
        next_steps=transition.steps,
        splits=splits or transition.nodes,
        items=items,
        variable=transition.variable,
        caught=None if done.caught is None else done.caught[:MESSAGE_CHARS],
        artifacts=saved.artifacts,
        size_bytes=saved.size_bytes,
        started_us=started_us,
        ended_us=now_us(),
    )


def kept(
    flow: FlowSpec, order: AttemptOrder, store: ObjectStore, done: Done, started_us: int, *, code: Code | None = None, resumed: bool = False
) -> tuple[AttemptSucceeded, Outcome]:
    """Store what the step leaves, as `success`; at the last attempt of a step with `@catch`, without what cannot be kept.

    Raises:
        FunctionIsNoArtifact, ArtifactNotSerializable: Something cannot be kept, and no `@catch` takes that.
        StoreFull, StoreUnusable: The store cannot be written.
    """
    while True:  # as often as there is something to leave out
        try:
            outcome = collect(flow, resumed=resumed)
            return success(flow, order, store, done, started_us, code=code, outcome=outcome), outcome
        except (ArtifactNotSerializable, FunctionIsNoArtifact) as error:
            if not order.last:
                raise
            names = error.names if isinstance(error, FunctionIsNoArtifact) else (error.name,)
            done = leave_out(flow, names, error, done)


def leave(folder: str, ended: AttemptSucceeded | AttemptFailed, payload: bytes) -> None:
    """Leave a report in a folder of its reader's, where it is whole or not there."""
    place = place_of(folder, ended.task, ended.attempt)
    with open(f"{place}.part", "wb") as file:  # noqa: PTH123 - pathlib is a heavy import
        file.write(payload)
    os.rename(f"{place}.part", place)  # noqa: PTH104 - as above


def place_of(folder: str, task: int, attempt: int) -> str:
    """Where `leave` leaves an attempt's report."""
    return f"{folder}/{task}.{attempt}"


def explained(error: BaseException, stage: str) -> str:
    """What went wrong, for people: the user's part of the traceback, or the message of an error of ours."""
    from evflow.flow.tracebacks import user_traceback

    return user_traceback(error) if stage == "exception" or not isinstance(error, EvflowError) else masked(f"{error}\n")


def failure(order: AttemptOrder, store: ObjectStore, error: BaseException, stage: str, started_us: int, text: str) -> AttemptFailed:
    """What went wrong, for the log; the whole text goes to the store, if that takes it.

    Args:
        order: What the attempt was told.
        store: Where to.
        error: What was raised.
        stage: How far it had come: `load`, `exception` (the body), `artifact`.
        started_us: When the attempt began.
        text: What `explained` says of it.
    """
    from evflow.flow.tracebacks import where

    detail = None
    with suppress(EvflowError, OSError):
        detail = store.put([text.encode("utf-8", "replace")])
    return AttemptFailed(
        order.task,
        order.attempt,
        _kind(error, stage),
        class_name(error),
        _message(error)[:MESSAGE_CHARS],
        where(error),
        detail,
        started_us=started_us,
        ended_us=now_us(),
    )


def _kind(error: BaseException, stage: str) -> str:
    if stage == "artifact" and isinstance(error, EnvironmentProblem):
        return "store"
    if stage != "exception":
        return stage
    if isinstance(error, TimeoutException):
        return "timeout"
    if isinstance(error, InvalidNextException):
        return "transition"
    return "exit" if isinstance(error, SystemExit) else "exception"


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"The body called sys.exit({text_of(error.code, repr)})."
    return text_of(error)
