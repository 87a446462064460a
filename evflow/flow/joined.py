"""The tasks that a join joins: their manifests, on what they agree, and the flow as each of them left it.

Views of manifests are opened in chunks as iteration comes to them, by a function that may read many in parallel.
Whether inputs agree on an artifact is decided by digests, as the views are opened; a value is loaded when it is read from
an input. A join of 10,000 inputs holds neither all manifests nor all values at once: both are dropped when they were not used for
long, and read again if need be (docs/decisions/0032-a-join-does-not-hold-its-inputs.md).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evflow.flow.inputs import Inputs
from evflow.flow.scope import Entry, Frame, LoadItem, Scope, View, place, scope_of
from evflow.flow.steps import SCOPE

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec

CHUNK = 64
"""How many manifests are opened at once: enough to hide the latency of a remote store, and few to hold in flight."""
VIEWS_HELD = 256
"""Opened manifests in memory; the store keeps up to 256 KB of small values in each."""
VALUES_HELD_BYTES = 256 << 20
"""Values read from inputs, as serialised, that stay in memory although the step may be done with them."""
OWNERS_SHOWN = 4

OpenViews = Callable[[Sequence[bytes]], Iterable[View]]
"""Opens manifests by digest, in order; may read them in parallel."""


class Member(NamedTuple):
    """A task that arrived at the join."""

    step: str
    task: int
    manifest: bytes


class JoinedTasks:
    """The members of a join, in order, and what their manifests say. A step sees them through `Inputs`."""

    def __init__(
        self,
        cls: "type[FlowSpec]",
        members: Iterable[Sequence[Any]],
        open_views: OpenViews,
        *,
        parameters: View,
        frames: Sequence[Frame] = (),
        joined: Frame | None = None,
        load_item: LoadItem | None = None,
    ) -> None:
        """Describe the members of a join.

        Args:
            cls: The flow.
            members: `(step, task, manifest)` each, in order.
            open_views: Opens their manifests.
            parameters: Values of parameters.
            frames: The splits around the join.
            joined: The split that it closes, with any index.
            load_item: Loads an item of a foreach.
        """
        self.cls = cls
        self.inputs = Inputs(self)
        self._members = [Member(*member) for member in members]
        self._open_views = open_views
        self._parameters = parameters
        self._frames = tuple(frames)
        self._joined = joined
        self._load_item = load_item
        self._views: dict[int, View] = {}
        self._flows: dict[int, FlowSpec] = {}
        self._bytes: dict[int, int] = {}
        self._held_bytes = 0
        self._agreed: dict[str, Entry] | None = None
        self._asked = bytearray(len(self._members))

    def __len__(self) -> int:
        return len(self._members)

    def flow(self, index: int) -> "FlowSpec":
        """One input: the flow as that task left it; the same object each time."""
        if index not in self._flows:
            member = self._members[index]
            inner = () if self._joined is None else (self._joined._replace(position=index),)
            scope = Scope(
                member.step,
                parameters=self._parameters,
                view=_MemberView(self, index),
                frames=(*self._frames, *inner),
                load_item=self._load_item,
                running=False,
            )
            self._flows[index] = place(self.cls, scope)
        return self._flows[index]

    def position(self, flow: object) -> int | None:
        """Which input an object is; None if it is none of this join's."""
        view = getattr(getattr(flow, SCOPE, None), "view", None)
        return view.index if isinstance(view, _MemberView) and view.joined is self else None

    def find(self, step: str) -> int | None:
        """The position of the last input that comes from a step."""
        return next((index for index in range(len(self) - 1, -1, -1) if self._members[index].step == step), None)

    def steps(self) -> list[str]:
        """The steps that the inputs come from."""
        return list(dict.fromkeys(member.step for member in self._members))

    def view(self, index: int) -> View:
        """The artifacts of one input; its neighbours' are opened with it. The first one's is always the same object."""
        if index not in self._views:
            span = [position for position in range(index, min(index + CHUNK, len(self))) if position not in self._views]
            digests = [self._members[position].manifest for position in span]
            for position, view in zip(span, self._open_views(digests), strict=True):
                self._views[position] = view
                self._compare(position, view)
            droppable = [position for position in self._views if position and position not in span]
            for position in droppable[: max(0, len(self._views) - VIEWS_HELD)]:
                del self._views[position]
        view = self._views[index]
        if index:
            self._views[index] = self._views.pop(index)  # the last one used is the last one dropped
        return view

    def views(self) -> Iterator[View]:
        """The artifacts of every input, in order."""
        return map(self.view, range(len(self)))

    def agreed(self) -> Mapping[str, Entry]:
        """The public artifacts that every input has with one and the same digest; found by digests alone."""
        for index in range(len(self)):
            if not self._asked[index]:
                self.view(index)
        return self._agreed or {}

    def agreed_names(self) -> Iterable[str]:
        """The names in `agreed`."""
        return self.agreed().keys()

    def agreed_view(self, name: str) -> View | None:
        """A view to load the artifact from, if all inputs agree on it."""
        return self.view(0) if name in self.agreed() else None

    def owners(self, name: str, positions: Iterable[int] | None = None) -> str:
        """Who, of some inputs or of all, has which value of an artifact that they do not agree on; empty where nobody has it."""
        holders: dict[bytes, list[int]] = {}
        for index in range(len(self)) if positions is None else positions:
            view = self.view(index)
            if name in view:
                holders.setdefault(view.entry(name).digest, []).append(index)
        if not holders:
            return ""
        if len(holders) == 1:
            [indexes] = holders.values()
            if len(indexes) == len(self):
                return f"all {len(self)} inputs have the same"
            return f"only {self._named(indexes)} of {len(self)} inputs has it"
        groups = [self._named(indexes) for indexes in list(holders.values())[:OWNERS_SHOWN]]
        more = f" and {len(holders) - OWNERS_SHOWN} more values" if len(holders) > OWNERS_SHOWN else ""
        return f"it has {len(holders)} values, of {'; of '.join(groups)}{more}"

    def _named(self, indexes: Sequence[int]) -> str:
        shown = [f"inputs[{index}] ({self._members[index].step}, task {self._members[index].task})" for index in indexes[:2]]
        return " and ".join(shown) + (f" and {len(indexes) - 2} more" if len(indexes) > 2 else "")

    def note_read(self, index: int, size: int) -> None:
        """Count a value that was read from an input; forget those that were read first when it becomes too much.

        What the step itself set on an input is kept, and not counted.
        """
        self._bytes[index] = self._bytes.pop(index, 0) + size
        self._held_bytes += size
        while self._held_bytes > VALUES_HELD_BYTES and (oldest := next(iter(self._bytes))) != index:
            self._held_bytes -= self._bytes.pop(oldest)
            flow = self._flows.get(oldest)  # it is gone already where the step alone had held on to it
            read = scope_of(flow).read if flow is not None else {}
            if flow is not None and all(read.get(name, self) is value for name, value in flow.__dict__.items()):
                del self._flows[oldest]

    def _compare(self, index: int, view: View) -> None:
        """Keep of what the inputs agree on what this one has as well."""
        if self._asked[index]:
            return
        self._asked[index] = True
        if self._agreed is None:
            self._agreed = {name: view.entry(name) for name in view.names() if not name.startswith("_")}
        else:
            entries = self._agreed.items()
            self._agreed = {name: entry for name, entry in entries if name in view and view.entry(name).digest == entry.digest}


class _MemberView:
    """The artifacts of one input, without holding its manifest."""

    __slots__ = ("index", "joined")

    def __init__(self, joined: JoinedTasks, index: int) -> None:
        self.joined = joined
        self.index = index

    def names(self) -> Collection[str]:
        return self.joined.view(self.index).names()

    def entry(self, name: str) -> Entry:
        return self.joined.view(self.index).entry(name)

    def load(self, name: str) -> object:
        view = self.joined.view(self.index)
        value = view.load(name)
        self.joined.note_read(self.index, view.entry(name).size)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self.joined.view(self.index)
