"""The inputs of a join: the flow as each of the joined tasks left it.

Views of manifests are opened in chunks as iteration comes to them, by a function that may read many in parallel.
Whether inputs agree on an artifact is decided by digests; a value is loaded when it is read from an input.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from evflow.flow.scope import Entry, Frame, LoadItem, Scope, View, did_you_mean, place

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec

CHUNK = 64
"""How many manifests are opened at once: enough to hide the latency of a remote store, and few to hold in flight."""
OWNERS_SHOWN = 4

OpenViews = Callable[[Sequence[bytes]], Iterable[View]]
"""Opens manifests by digest, in order; may read them in parallel."""


class Member(NamedTuple):
    """A task that arrived at the join."""

    step: str
    task: int
    manifest: bytes


class Inputs:
    """The joined tasks, by position, by slice, by the name of a branch's last step, or one after the other.

    The order is that of the foreach's items, or of the branches in the source. What is set on an input changes the copy in
    this step's memory only.
    """

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
        self._cls = cls
        self._members = [Member(*member) for member in members]
        self._open_views = open_views
        self._parameters = parameters
        self._frames = tuple(frames)
        self._joined = joined
        self._load_item = load_item
        self._views: dict[int, View] = {}
        self._flows: dict[int, FlowSpec] = {}
        self._agreed: dict[str, Entry] | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self)):
            yield self._flow(index)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._flow(position) for position in range(len(self))[index]]
        try:
            return self._flow(range(len(self))[index])
        except IndexError:
            raise IndexError(f"This join has {len(self)} inputs; there is no inputs[{index}].") from None

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for index in range(len(self) - 1, -1, -1):
                if self._members[index].step == name:
                    return self._flow(index)
        raise AttributeError(self._no_branch(name))

    def __repr__(self) -> str:
        return f"<{len(self)} inputs of {self._cls.__name__}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("the inputs of a join cannot be kept as an artifact; keep the values that you need from them")

    def view(self, index: int) -> View:
        """The artifacts of one input; its neighbours' are opened with it."""
        if index not in self._views:
            span = [position for position in range(index, min(index + CHUNK, len(self))) if position not in self._views]
            digests = [self._members[position].manifest for position in span]
            self._views.update(zip(span, self._open_views(digests), strict=True))
        return self._views[index]

    def views(self) -> Iterator[View]:
        """The artifacts of every input, in order."""
        return map(self.view, range(len(self)))

    def agreed(self) -> Mapping[str, Entry]:
        """The public artifacts that every input has with one and the same digest; found once, by digests alone."""
        if self._agreed is None:
            self._agreed = _agreed(self.views())
        return self._agreed

    def agreed_names(self) -> Iterable[str]:
        """The names in `agreed`."""
        return self.agreed().keys()

    def agreed_view(self, name: str) -> View | None:
        """A view to load the artifact from, if all inputs agree on it."""
        return self.view(0) if name in self.agreed() else None

    def owners(self, name: str) -> str:
        """Who has which value of an artifact that the inputs do not agree on; empty where nobody has it."""
        holders: dict[bytes, list[int]] = {}
        for index, view in enumerate(self.views()):
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

    def _flow(self, index: int) -> Any:
        if index not in self._flows:
            member = self._members[index]
            inner = () if self._joined is None else (self._joined._replace(position=index),)
            scope = Scope(
                member.step,
                parameters=self._parameters,
                view=self.view(index),
                frames=(*self._frames, *inner),
                load_item=self._load_item,
                running=False,
            )
            self._flows[index] = place(self._cls, scope)
        return self._flows[index]

    def _no_branch(self, name: str) -> str:
        steps = list(dict.fromkeys(member.step for member in self._members))
        text = f"No input of this join comes from a step '{name}'; they come from: {', '.join(steps)}."
        return f"{text}{did_you_mean(name, steps)}"


def _agreed(views: Iterator[View]) -> dict[str, Entry]:
    first = next(views, None)
    if first is None:
        return {}
    agreed = {name: first.entry(name) for name in first.names() if not name.startswith("_")}
    for view in views:
        if view is first:
            continue
        agreed = {name: entry for name, entry in agreed.items() if name in view and view.entry(name).digest == entry.digest}
        if not agreed:
            break
    return agreed
