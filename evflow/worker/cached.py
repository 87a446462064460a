"""`@cached` in an attempt: ask before the body whether the same was done before, and keep what it left for whoever asks next.

    key = code · version · inputs        all of it digests: nothing is loaded
    cache/<installation>/<2 hex>/<key>   what a task left: its manifest, which names in it are its own, where it went on
    cache/<installation>/last/<place>    the parts of the key that was kept last at the same place of the flow, to say what a miss is due to

A hit takes what the other task set, by reference, and everything else from the inputs of now, since a narrow key may not have looked at
them. Whatever is not there any more, or cannot be read, is a miss. Two tasks that do the same at the same time both do it.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final, cast

import msgpack

from evflow.clock import now_us
from evflow.core.events import AttemptSucceeded
from evflow.core.values import replaced
from evflow.errors import EvflowError, UsageError, did_you_mean
from evflow.flow.code_key import code_digest
from evflow.flow.decorators.cached import INDEX, ITEM, Cached
from evflow.flow.execution import Outcome, collect
from evflow.flow.flowspec import FlowSpec
from evflow.flow.scope import Frame, Scope, scope_of
from evflow.flow.steps import facts
from evflow.imports import user_view
from evflow.store import NameMissing, ObjectDamaged, ObjectMissing, Store
from evflow.store.artifacts import ArtifactView, Entry, manifest_objects, save
from evflow.store.encodings import sha256_of
from evflow.store.items import item_entry, pack_items
from evflow.store.manifests import NotAManifest
from evflow.store.serializers import serialize
from evflow.worker.interpreters import lock_of
from evflow.worker.spec import AttemptOrder, RunContext

FOLDER: Final = "cache"
LAST: Final = "last"
_FORMAT: Final = 1
_ABSENT: Final = b"-"
_SHOWN: Final = 5


class CacheKeyUnknown(UsageError):
    """The key of `@cached` names what the step has not."""

    code = "cache-key-unknown"

    def __init__(self, step: str, name: str, known: Iterable[str]) -> None:
        has = sorted(known)
        super().__init__(
            f"Step '{step}' is keyed by '{name}' (@cached), and has no artifact or parameter of that name.",
            f"It has: {', '.join(has)}.{did_you_mean(name, has)} '{ITEM}' is the item of a foreach, '{INDEX}' its place.",
        )


class TaskCache:
    """What is known of a task that was done before.

    Attributes:
        key: The digest of all that has to be the same.
    """

    def __init__(self, flow: FlowSpec, decorator: Cached, context: RunContext, order: AttemptOrder, store: Store) -> None:
        self._flow = flow
        self._context = context
        self._order = order
        self._store = store
        self._folder = f"{FOLDER}/{context.options['installation']}"
        self._parts = _parts(flow, decorator, store)
        lock = lock_of(context, order.step)
        if lock is not None:  # what stands in @pypi or @conda is in the code's part, and allows many of them
            self._parts["the environment"] = lock
        self.key = _digest(_FORMAT, context.flow, order.step, sorted(self._parts.items()))
        self._note = ""

    @classmethod
    def of(cls, flow: FlowSpec, context: RunContext, order: AttemptOrder, store: Store) -> "TaskCache | None":
        """The cache of a step that asks for one; None for any other, and in a spin, which is to be run.

        Raises:
            CacheKeyUnknown: The key names what is not there.
            BaseException: What the key raised, where it is a function.
        """
        found = [one for one in facts(type(flow)).decorators(order.step) if isinstance(one, Cached)]
        if not found or order.mode != "run" or not context.options.get("installation") or "reports" in context.options:
            return None
        return cls(flow, found[-1], context, order, store)

    # --- before the body ---------------------------------------------------------------------------------------------

    def look(self, started_us: int) -> AttemptSucceeded | None:
        """The report of a task that need not be run, or None."""
        if not self._context.options.get("cache", True):
            self._note = "--no-cache"
            return None
        kept = self._read(self._name)
        if kept is None:
            self._note = self._why_missed()
            return None
        try:
            with user_view():  # values may have to be loaded and written, for which classes are looked up
                return self._taken(kept, started_us)
        except (ObjectMissing, ObjectDamaged, NotAManifest):
            self._note = f"what {kept['from']} left is not in the store any more"
        except (KeyError, TypeError, ValueError) as error:
            self._note = f"what was kept cannot be read ({type(error).__name__}: {error})"
        return None

    def _taken(self, kept: Mapping[str, Any], started_us: int) -> AttemptSucceeded:
        store, scope = self._store, scope_of(self._flow)
        then = ArtifactView.open(store, kept["manifest"])
        for digest in (*manifest_objects(store, then.digest), *([kept["items"]] if kept["items"] else ())):
            if not store.confirm(digest):  # from here on it is young, and no `evflow gc` takes it before our report counts
                raise ObjectMissing(digest, store.where(digest))
        if scope.joined is not None:
            _merge_as(scope, kept["merged"])
        outcome = collect(self._flow, resumed=self._context.origin is not None)
        base = cast("ArtifactView", outcome.base)
        entries = {**base.entries(), **cast("Mapping[str, Entry]", outcome.inherited), **{name: then.entry(name) for name in kept["own"]}}
        saved = save(store, outcome.values, entries, removed={*kept["removed"]} - {*kept["own"]})
        cards = tuple(tuple(card) for card in kept["cards"] if all(store.confirm(digest) for digest in (card[2], *card[5:6])))
        items, splits = kept["items"], kept["splits"]
        if items is not None and kept["variable"] not in kept["own"]:  # the split is over what the task inherits
            items, splits = pack_items(store, getattr(self._flow, kept["variable"]), name=kept["variable"])
        return AttemptSucceeded(
            self._order.task, self._order.attempt, saved.manifest, kept["next_kind"], tuple(kept["next_steps"]), splits, items,
            kept["variable"], None, saved.artifacts, saved.size_bytes, started_us, now_us(), cards, (self.key, kept["from"], ""),
        )  # fmt: skip

    def _why_missed(self) -> str:
        """What is different from what was kept last at this place."""
        last = self._read(self._last_name)
        if last is None:
            return "nothing was kept of it before"
        then: Mapping[str, bytes] = last["parts"]
        differing = sorted(name for name in {*then, *self._parts} if then.get(name) != self._parts.get(name))
        if not differing:
            return "what was kept is gone"
        shown = ", ".join(differing[:_SHOWN]) + (", …" if len(differing) > _SHOWN else "")
        return f"changed since {last['from']}: {shown}"

    # --- after it ----------------------------------------------------------------------------------------------------

    def keep(self, outcome: Outcome, ended: AttemptSucceeded) -> AttemptSucceeded:
        """Keep what the task left, unless `@catch` made it of an exception; its report, which says so."""
        ended = replaced(ended, cache=(self.key, "", self._note))
        if ended.caught is not None:
            return ended
        try:
            self._write(outcome, ended)
        except EvflowError as error:  # the task's result is there; that it cannot be found again is no failure of it
            sys.stderr.write(f"The result was not kept for @cached: {error.message}\n")
        return ended

    def _write(self, outcome: Outcome, ended: AttemptSucceeded) -> None:
        name = f"{self._context.flow}/{self._context.run}/{self._order.step}/{self._order.task}"
        scope = scope_of(self._flow)
        kept = {
            "from": name,
            "manifest": ended.manifest,
            "own": sorted(self._own(outcome, scope, ended.manifest)),
            "removed": sorted(outcome.without),
            "merged": [dict(scope.merge.holders), sorted(scope.merge.excluded), scope.merge.only_included],
            "next_kind": ended.next_kind,
            "next_steps": ended.next_steps,
            "splits": ended.splits,
            "items": ended.items,
            "variable": ended.variable,
            "cards": ended.cards,
        }
        self._store.write_named(self._name, [msgpack.packb(kept)])
        self._store.write_named(self._last_name, [msgpack.packb({"from": name, "manifest": ended.manifest, "parts": self._parts})])

    def _own(self, outcome: Outcome, scope: Scope, manifest: bytes) -> Iterator[str]:
        """The names that the step set itself, or whose value it changed: not what it only read, nor what belongs to the run."""
        left = ArtifactView.open(self._store, manifest)
        fixed = facts(type(self._flow)).fixed
        for name in outcome.values:
            if name in fixed:
                continue
            is_read = name in scope.read and scope.read[name] is self._flow.__dict__.get(name)
            before = outcome.base.entry(name) if name in outcome.base else None
            if not (is_read and before is not None and before.digest == left.entry(name).digest):
                yield name

    # --- its files ---------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        digits = self.key.hex()
        return f"{self._folder}/{digits[:2]}/{digits}"

    @property
    def _last_name(self) -> str:
        places = [(frame.step, frame.position) for frame in scope_of(self._flow).frames]
        return f"{self._folder}/{LAST}/{_digest(self._context.flow, self._order.step, places).hex()}"

    def _read(self, name: str) -> "dict[str, Any] | None":
        with suppress(NameMissing, ValueError, msgpack.UnpackException):
            found = msgpack.unpackb(self._store.read_named(name))
            return cast("dict[str, Any]", found) if isinstance(found, dict) else None
        return None


# --- the parts of a key ----------------------------------------------------------------------------------------------


def _parts(flow: FlowSpec, decorator: Cached, store: Store) -> dict[str, bytes]:
    """What has to be the same, each under the name that a miss gives as its reason."""
    scope = scope_of(flow)
    parts = {"the code": code_digest(type(flow), scope.step)}
    if decorator.value("version") != "":
        parts["the version"] = _digest(str(decorator.value("version")))
    key = decorator.value("key")
    names = decorator.names()
    if callable(key):
        arguments = () if scope.joined is None else (scope.joined.inputs,)
        with user_view():
            value = key(flow, *arguments)
        parts["the key's value"] = sha256_of(serialize("the key of @cached", value).chunks)
    elif names is not None:
        inputs = _inputs(scope)
        for name in names:
            parts[name] = _named(name, scope, inputs, store)
    else:
        parts |= _inputs(scope)
        for frame in scope.frames:
            item = _item(frame, store)
            parts[f"the place in {frame.step}"] = _digest(frame.kind, frame.position, frame.size, item)
    return parts


def _named(name: str, scope: Scope, inputs: Mapping[str, bytes], store: Store) -> bytes:
    frame = next((frame for frame in reversed(scope.frames) if frame.items is not None), None)
    if name == INDEX and frame is not None:
        return _digest(frame.position)
    if name == ITEM and frame is not None:
        return _item(frame, store)
    if name not in inputs:
        raise CacheKeyUnknown(scope.step, name, inputs)
    return inputs[name]


def _inputs(scope: Scope) -> dict[str, bytes]:
    """Digests of all artifacts and parameters that the step can read; of a join's members those of all of them, in order."""
    own = {name: scope.parameters.entry(name).digest for name in scope.parameters.names()}
    if scope.joined is None:
        view = scope.view
        found = {} if view is None else {name: view.entry(name).digest for name in view.names()}
        return {**found, **own}
    members = [scope.joined.view(index) for index in range(len(scope.joined))]
    names = {name for view in members for name in view.names()} - own.keys()
    joined = {name: _digest(*(view.entry(name).digest if name in view else _ABSENT for view in members)) for name in names}
    return {**joined, **own, "the inputs": _digest(len(members), scope.joined.steps())}


def _item(frame: Frame, store: Store) -> bytes:
    """The digest of a foreach's item; nothing of a branch."""
    return _ABSENT if frame.items is None else item_entry(store, frame.items, frame.position).digest


def _merge_as(scope: Scope, merged: "tuple[dict[str, int], list[str], bool]") -> None:
    """Choose what passes the join as its body did then, of the inputs of now."""
    holders, excluded, only_included = merged
    assert scope.joined is not None
    for name, holder in holders.items():
        if holder < len(scope.joined) and name in (view := scope.joined.view(holder)):
            scope.merge.entries[name] = view.entry(name)
    scope.merge.excluded |= set(excluded)
    scope.merge.only_included |= only_included


def _digest(*values: object) -> bytes:
    return sha256(msgpack.packb(values)).digest()
