"""A task's values by name: saved at its end, loaded by later tasks and the client when they are asked for.

What a task inherits is passed on by reference, unread. A value that a task read (and may have changed in
place) is serialised again at its end, and written only if it differs. Differs means: its bytes do. Pickle does not always write
the same bytes for what it loaded as for what was stored (a data frame's column names come back as one string where
they were two), so a value whose arrays are the same and whose pickle alone differs is compared with
what the stored one pickles to after loading. Without that, a step that only reads a frame would make a new one, and a
join whose other inputs did not read it would see two.

Where the bytes go: up to `INLINE_BYTES` of small ones lie in the manifest; what does not fit there, in packs; what is
larger than `PACKED_BYTES`, in objects of their own. So a task with 1,000 small artifacts writes one file.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, NamedTuple, Self

from evflow.core.ids import Digest
from evflow.store import pickles
from evflow.store.diagnosis import ArtifactNotSerializable, type_name
from evflow.store.encodings import RAW, Content, Encoded, sha256_of
from evflow.store.items import load_item, pack_items
from evflow.store.loading import ArtifactNotLoadable, Fetched, MainResolver, fetch, load_entry, revive
from evflow.store.manifests import (
    INLINE,
    MAX_DEPTH,
    Code,
    Draft,
    Entry,
    Manifest,
    manifest_objects,
    read_manifest,
    verify_object,
)
from evflow.store.protocol import Buffer, ObjectStore
from evflow.store.serializers import Serialized, serialize

__all__ = [
    "ArtifactNotLoadable",
    "ArtifactNotSerializable",
    "ArtifactView",
    "Code",
    "Entry",
    "MainResolver",
    "Saved",
    "load_entry",
    "load_item",
    "manifest_objects",
    "pack_items",
    "save",
    "verify_object",
]

INLINE_BYTES = 256 << 10
"""A manifest's payload at most: opening it reads and checks that (0.2 ms)."""

INLINE_EACH_BYTES = 64 << 10

PACKED_BYTES = 1 << 20
"""Larger artifacts are objects of their own: their file costs less than a tenth of their writing."""

PACK_BYTES = 64 << 20
"""A pack is written when it holds so much."""

FLAT_ENTRIES = 64
"""Up to here inherited entries are copied (100 bytes each); more are left in a base."""

RELOAD_BYTES = 16 << 20
"""A pickle larger than this is not loaded again to find out whether it means the same."""

_IMMUTABLE = frozenset({NoneType, bool, int, float, str, bytes})
_SPOTS = 16
_SPOT_BYTES = 4 << 10


class Saved(NamedTuple):
    """What `save` wrote.

    Attributes:
        manifest: Digest of the manifest.
        artifacts: How many artifacts it names, inherited ones included.
        size_bytes: Their size, serialised.
    """

    manifest: Digest
    artifacts: int
    size_bytes: int


class ArtifactView:
    """The artifacts that a manifest names, loaded one by one.

    It keeps no value, but remembers what it needs to tell later whether one was changed.
    """

    def __init__(self, store: ObjectStore, manifest: Manifest, main: MainResolver | None = None) -> None:
        self.store = store
        self._layers = [manifest]
        self._main = main
        self._sizes: dict[str, int] | None = None
        self._constants: dict[Digest, object] = {}
        self._read: dict[Digest, tuple[int, bytes]] = {}

    @classmethod
    def open(cls, store: ObjectStore, manifest: bytes, *, main: MainResolver | None = None) -> Self:
        """Read a manifest; no value is loaded.

        Args:
            store: Where it is.
            manifest: Its digest.
            main: Loads the module that was `__main__` where an artifact was made, for classes that this
                process's own `__main__` has not.

        Raises:
            ObjectMissing: The store has no such object.
            ObjectDamaged: Its content is not what was written.
        """
        return cls(store, read_manifest(store, manifest), main)

    @property
    def digest(self) -> Digest:
        """The manifest's."""
        return self._layers[0].digest

    @property
    def depth(self) -> int:
        """How many manifests lie below this one."""
        return self._layers[0].depth

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._layer(name) is not None

    def __len__(self) -> int:
        return len(self.sizes())

    def names(self) -> list[str]:
        """The names of all artifacts, sorted."""
        return [*self.sizes()]

    def sizes(self) -> dict[str, int]:
        """The size in bytes of each artifact, serialised, by sorted name."""
        if self._sizes is None:
            sizes: dict[str, int] = {}
            for layer in reversed([*self._walk()]):
                for name in layer.removed:
                    sizes.pop(name, None)
                sizes.update(layer.sizes())
            self._sizes = dict(sorted(sizes.items()))
        return self._sizes

    def entry(self, name: str) -> Entry:
        """What an artifact is, without loading it.

        Raises:
            KeyError: There is none of that name.
        """
        layer = self._layer(name)
        if layer is None:
            raise KeyError(name)
        return layer.entry(name)

    def entries(self) -> dict[str, Entry]:
        """All artifacts by name, none loaded."""
        return {name: self.entry(name) for name in self.names()}

    def load(self, name: str) -> Any:
        """An artifact's value, made anew each time: changing it changes nothing here.

        Raises:
            KeyError: There is none of that name.
            ObjectMissing: The store has not its bytes.
            ObjectDamaged: They are not those that were written.
            ArtifactNotLoadable: A module or class is missing here, or a class raises.
        """
        entry = self.entry(name)
        fetched = self._fetch(entry)
        value = revive(name, entry, fetched.content, self._main)
        if type(value) in _IMMUTABLE:
            self._constants[entry.digest] = value
        else:
            self._read[entry.digest] = (fetched.leading, fetched.before)
        return value

    def holds(self, entry: Entry, value: object) -> bool:
        """Whether `value` is the very object that was loaded for the entry, and cannot have changed."""
        return type(value) in _IMMUTABLE and self._constants.get(entry.digest, self) is value

    def same_but_for_pickle(self, entry: Entry, serialized: Serialized) -> bool:
        """Whether a loaded value is what was stored, though its pickle differs; see the module's docstring.

        False where that is not known: the value was not loaded here, or is too large to find out.
        """
        body = serialized.chunks[serialized.leading]
        leading = serialized.chunks[: serialized.leading]
        read = self._read.get(entry.digest)
        if read is None or len(body) > RELOAD_BYTES:
            return False
        memory_alike = sum(map(len, leading)) == read[0]
        if sha256_of(leading) != read[1] if memory_alike else entry.size > RELOAD_BYTES:
            return False
        try:
            stored = pickles.write(revive("value", entry, self._fetch(entry).content, self._main))
        except Exception:  # noqa: BLE001  a class that loads or pickles only once: the value counts as changed
            return False
        if memory_alike:
            return bytes(stored.body) == bytes(body)
        # An array that was not contiguous is, once it was loaded: what was inside the pickle then lies before it.
        return sha256_of(stored.chunks) == sha256_of(serialized.chunks)

    def _fetch(self, entry: Entry) -> Fetched:
        for layer in self._layers:
            if layer.digest == entry.object:  # it came with the manifest; a copy, since the value may be changed
                return fetch(self.store, entry, memoryview(bytearray(layer.data[entry.offset : entry.offset + entry.length])))
        return fetch(self.store, entry)

    def _layer(self, name: str) -> Manifest | None:
        for layer in self._walk():
            if name in layer:
                return layer
            if name in layer.removed:
                return None
        return None

    def _walk(self) -> Iterator[Manifest]:
        """The manifest, its base, the base's base; read as far as somebody walks."""
        for layer in self._layers:  # grows while it is walked
            yield layer
            if layer is self._layers[-1] and layer.base is not None:
                self._layers.append(read_manifest(self.store, layer.base))


Inherited = ArtifactView | Mapping[str, Entry] | None
"""What a task begins with: its parent's artifacts; for a join, entries chosen from its inputs."""


def save(
    store: ObjectStore,
    values: Mapping[str, Any],
    inherited: Inherited = None,
    *,
    removed: Iterable[str] = (),
    read_through: Iterable[ArtifactView] = (),
    code: Code | None = None,
) -> Saved:
    """Write a task's artifacts and its manifest; durable when this returns.

    Args:
        store: Where to.
        values: What the task set, and what it loaded and may have changed.
        inherited: What it passes on besides, unless it is in `values` or `removed`.
        removed: Names that it deleted.
        read_through: Views besides `inherited` that values were loaded by (those of a join's inputs).
        code: Where the classes of `__main__` are from; kept with the artifacts that need them.

    Raises:
        ArtifactNotSerializable: A value cannot be stored. No manifest was written.
        StoreFull: There is no room.
        StoreUnusable: The store cannot be written.
    """
    views = [view for view in (inherited, *read_through) if isinstance(view, ArtifactView)]
    writer = _Writer(store, code)
    for name, value in values.items():
        old = _entry(inherited, name)
        if old is not None and any(view.holds(old, value) for view in views):
            continue
        serialized = serialize(name, value)
        if old is None or not _is_stored(store, old, serialized, views):
            writer.add(name, value, serialized)
    gone = set(removed).difference(values)
    if isinstance(inherited, ArtifactView):
        return _finish_on_view(writer, inherited, gone)
    kept = {name: entry for name, entry in (inherited or {}).items() if name not in gone}
    return writer.finish(kept)


def _entry(inherited: Inherited, name: str) -> Entry | None:
    if inherited is None or name not in inherited:
        return None
    return inherited.entry(name) if isinstance(inherited, ArtifactView) else inherited[name]


def _is_stored(store: ObjectStore, old: Entry, serialized: Serialized, views: list[ArtifactView]) -> bool:
    """Whether a value is what the store has already as `old`."""
    if old.serializer != serialized.serializer or _differs_at_a_glance(store, old, serialized):
        return False
    if old.size == serialized.size and sha256_of(serialized.chunks) == old.digest:
        return True
    return serialized.serializer == pickles.NAME and any(view.same_but_for_pickle(old, serialized) for view in views)


def _differs_at_a_glance(store: ObjectStore, old: Entry, serialized: Serialized) -> bool:
    """Whether large arrays differ in a few spots from what is stored: saves hashing those that changed as a whole."""
    if old.encoding != RAW or old.length <= PACKED_BYTES:
        return False
    memory = Content([memoryview(chunk) for chunk in serialized.chunks[: serialized.leading]])
    stored = store.get(old.object, old.offset, old.length)
    starts = (len(memory) * spot // _SPOTS for spot in range(_SPOTS))
    return any(bytes(memory[at : at + _SPOT_BYTES]) != bytes(stored[at : at + len(memory[at : at + _SPOT_BYTES])]) for at in starts)


def _finish_on_view(writer: "_Writer", view: ArtifactView, gone: set[str]) -> Saved:
    """Write the manifest of a task that inherits from one other."""
    sizes = view.sizes()
    gone = gone.intersection(sizes)
    if not writer.entries and not gone:
        return Saved(view.digest, len(sizes), sum(sizes.values()))
    kept = [name for name in sizes if name not in gone and name not in writer.entries]
    if len(kept) <= FLAT_ENTRIES or view.depth + 1 > MAX_DEPTH:
        return writer.finish({name: view.entry(name) for name in kept})
    return writer.finish({}, view, gone)


class _Writer:
    """Writes values, and then the manifest that names them."""

    def __init__(self, store: ObjectStore, code: Code | None) -> None:
        self.entries: dict[str, Entry] = {}
        self._store = store
        self._code = code
        self._payload: list[Buffer] = []
        self._payload_size = 0
        self._pack: list[Buffer] = []
        self._pack_size = 0
        self._packed: dict[str, Entry] = {}

    def add(self, name: str, value: object, serialized: Serialized) -> None:
        """Write a value, or keep it for a pack or the manifest."""
        encoded = Encoded(serialized.chunks)
        code = self._code if _names_main(serialized) else None

        def entry(digest: Digest, where: Digest, offset: int) -> Entry:
            return Entry(
                digest, serialized.serializer, type_name(value), encoded.size, where, offset, encoded.stored, encoded.encoding, code
            )

        if encoded.size > PACKED_BYTES:
            where = self._store.put(encoded)
            digest = where if encoded.encoding == RAW else Digest(encoded.digest)
            self.entries[name] = entry(digest, where, 0)
            return
        stored = list(encoded)
        digest = Digest(encoded.digest)
        if encoded.stored <= INLINE_EACH_BYTES and self._payload_size + encoded.stored <= INLINE_BYTES:
            self.entries[name] = entry(digest, INLINE, self._payload_size)
            self._payload += stored
            self._payload_size += encoded.stored
            return
        self.entries[name] = self._packed[name] = entry(digest, INLINE, self._pack_size)
        self._pack += stored
        self._pack_size += encoded.stored
        if self._pack_size >= PACK_BYTES:
            self._write_pack()

    def _write_pack(self) -> None:
        where = self._store.put(self._pack)
        self.entries.update({name: entry._replace(object=where) for name, entry in self._packed.items()})
        self._pack, self._pack_size, self._packed = [], 0, {}

    def finish(self, kept: Mapping[str, Entry], base: ArtifactView | None = None, removed: Iterable[str] = ()) -> Saved:
        """Write the manifest.

        Args:
            kept: Inherited entries to name again; those that were written win.
            base: The manifest to inherit from by reference, or None.
            removed: Names of the base that are no more.
        """
        if self._pack:
            self._write_pack()
        entries = {**kept, **self.entries}
        removed = frozenset(removed)
        draft = Draft(
            entries,
            self._payload,
            None if base is None else base.digest,
            0 if base is None else base.depth + 1,
            removed,
        )
        count, size = len(entries), sum(entry.size for entry in entries.values())
        if base is not None:
            hidden = removed.union(entries)
            inherited = [length for name, length in base.sizes().items() if name not in hidden]
            count += len(inherited)
            size += sum(inherited)
        return Saved(self._store.put(draft.encode()), count, size)


def _names_main(serialized: Serialized) -> bool:
    """Whether loading the value may need a class of `__main__`."""
    return serialized.serializer == pickles.NAME and b"__main__" in bytes(serialized.chunks[serialized.leading])
