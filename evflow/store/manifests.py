"""The manifest of a task: one object that names its artifacts and carries the small ones.

    "evfm" · u32 length of the head · head · payload

The head is a msgpack array: version, base, depth, removed names, tables (objects, codes, serializers, types,
encodings), entries. An entry names its bytes as (object, offset, length): object 0 is this manifest's payload, n
the n-th of the table. So an inherited artifact is named where it lies, in an older manifest or an object of
its own, and never copied.

A manifest with many inherited entries names only what differs from its base, which is another manifest; a chain
of bases has at most `MAX_DEPTH` members. Opening a manifest checks its digest, so the payload stays small
(`artifacts.INLINE_BYTES`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from evflow.core.ids import Digest
from evflow.core.values import value
from evflow.errors import InternalError
from evflow.store.protocol import Buffer, ObjectStore

MAX_DEPTH = 8
"""Manifests that are read to open one."""

_VERSION = 1
_MAGIC = b"evfm"
_HEAD_AT = len(_MAGIC) + 4


class NotAManifest(InternalError):
    """An object is whole, but no manifest that this version can read."""

    code = "not-a-manifest"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"'{where}' is not a manifest of artifacts: {why}.")


class Code(NamedTuple):
    """The code that an artifact's classes of `__main__` are from.

    Attributes:
        file: The flow's file, relative to the folder that was packaged.
        package: Digest of the code package, or None where none was made.
    """

    file: str
    package: bytes | None = None


class Entry(NamedTuple):
    """An artifact: what it is, and where its bytes lie.

    Attributes:
        digest: SHA-256 of the serialised bytes: equal for equal values, wherever and however they lie.
        serializer: Their form.
        type: The value's type, for people.
        size: Their size.
        object: The object that they lie in.
        offset: Where in it.
        length: How many bytes there.
        encoding: How they lie there: see `encodings`.
        code: Where its classes of `__main__` are from, or None if it has none.
    """

    digest: Digest
    serializer: str
    type: str
    size: int
    object: Digest
    offset: int
    length: int
    encoding: str = "raw"
    code: Code | None = None


INLINE = Digest(b"")
"""As an entry's object, while a manifest is being made: its own payload."""


class Manifest:
    """A manifest, read; its entries are made when they are asked for.

    Attributes:
        digest: Its own.
        base: The manifest that it builds on, or None.
        depth: How many manifests lie below it.
        removed: Names of the base that it has no more.
    """

    def __init__(self, digest: Digest, data: memoryview, where: str) -> None:
        self.digest = digest
        self.data = data
        if bytes(data[: len(_MAGIC)]) != _MAGIC:
            raise NotAManifest(where, "it begins otherwise")
        self.payload_at = _HEAD_AT + int.from_bytes(data[len(_MAGIC) : _HEAD_AT], "little")
        head = msgpack.unpackb(data[_HEAD_AT : self.payload_at], use_list=False)
        if head[0] != _VERSION:
            raise NotAManifest(where, f"it is of version {head[0]}, and this evflow reads version {_VERSION}")
        base: bytes | None
        depth: int
        _, base, depth, removed, self._tables, entries = head[:6]
        self.base = None if base is None else Digest(base)
        self.depth = depth
        self.removed: frozenset[str] = frozenset(removed)
        self._rows: dict[str, Sequence[Any]] = {row[0]: row for row in entries}

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def names(self) -> Iterable[str]:
        """The names of the entries here; those of the base are not among them."""
        return self._rows.keys()

    def sizes(self) -> dict[str, int]:
        """The sizes of the entries here, serialised."""
        return {name: row[4] for name, row in self._rows.items()}

    def entry(self, name: str) -> Entry:
        """An entry.

        Raises:
            KeyError: There is none of that name here.
        """
        _, digest, serializer, kind, size, at, offset, length, encoding, code = self._rows[name]
        objects, codes, serializers, kinds, encodings = self._tables
        return Entry(
            digest,
            serializers[serializer],
            kinds[kind],
            size,
            objects[at - 1] if at else self.digest,
            offset if at else offset + self.payload_at,
            length,
            encodings[encoding],
            Code(*codes[code - 1]) if code else None,
        )

    def objects(self) -> Iterator[Digest]:
        """The objects that the entries here lie in, besides the manifest itself."""
        yield from self._tables[0]


@value
class Draft:
    """What a manifest is made of.

    Attributes:
        entries: By name; those whose object is `INLINE` have offsets in the payload.
        payload: The bytes of those.
        base: See `Manifest`.
        depth: See `Manifest`.
        removed: See `Manifest`.
    """

    entries: Mapping[str, Entry]
    payload: Sequence[Buffer] = ()
    base: Digest | None = None
    depth: int = 0
    removed: Iterable[str] = ()

    def encode(self) -> Iterator[Buffer]:
        """The manifest's bytes. Equal drafts have equal bytes."""
        objects: dict[object, int] = {INLINE: 0}
        codes: dict[object, int] = {None: 0}
        serializers: dict[object, int] = {}
        kinds: dict[object, int] = {}
        encodings: dict[object, int] = {}
        rows = [
            (
                name,
                entry.digest,
                serializers.setdefault(entry.serializer, len(serializers)),
                kinds.setdefault(entry.type, len(kinds)),
                entry.size,
                objects.setdefault(entry.object, len(objects)),
                entry.offset,
                entry.length,
                encodings.setdefault(entry.encoding, len(encodings)),
                codes.setdefault(entry.code, len(codes)),
            )
            for name, entry in sorted(self.entries.items())
        ]
        tables = ([*objects][1:], [*codes][1:], [*serializers], [*kinds], [*encodings])
        head: bytes = msgpack.packb((_VERSION, self.base, self.depth, sorted(self.removed), tables, rows))
        yield _MAGIC + len(head).to_bytes(4, "little") + head
        yield from self.payload


def read_manifest(store: ObjectStore, digest: bytes) -> Manifest:
    """Read a manifest, checking its digest.

    Raises:
        ObjectMissing: The store has no such object.
        ObjectDamaged: Its content is not what was written.
        NotAManifest: It is something else.
    """
    return Manifest(Digest(bytes(digest)), store.get(digest), store.where(digest))


def manifest_objects(store: ObjectStore, digest: bytes) -> Iterator[Digest]:
    """All objects that the artifacts of a manifest need: itself, its bases, and where the bytes lie.

    An object may come more than once. What is in `removed` of a later manifest still counts.
    """
    at: bytes | None = digest
    while at is not None:
        manifest = read_manifest(store, at)
        yield manifest.digest
        yield from manifest.objects()
        at = manifest.base


def verify_object(store: ObjectStore, digest: bytes) -> int:
    """Read an object and check its digest; returns its size in bytes.

    Raises:
        ObjectMissing: The store has no such object.
        ObjectDamaged: Its content is not what was written.
    """
    return len(store.get(digest))
