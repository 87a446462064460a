"""The items of a foreach: one object, from which a child reads its own item only.

    items, each at a multiple of 64 bytes · a record of 64 bytes for each · "evfi" · u32 CRC · u64 number of items

A record is: u64 offset, u64 length, u64 size, u8 serializer, u8 encoding, u16 0, u32 CRC, the 32 bytes of the item's
digest. Integers are little endian; a CRC is that of its record, or of the end, with 0 in its place. Reading an item takes
three reads, however many there are. They are checked each for itself: the item by its digest, the rest by the CRCs.
"""

import zlib
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any

from evflow.core.ids import Digest
from evflow.errors import InternalError
from evflow.store import pickles, plain
from evflow.store.encodings import ALIGNMENT, RAW, ZSTD, Encoded
from evflow.store.loading import MainResolver, load_entry
from evflow.store.manifests import Code, Entry
from evflow.store.protocol import Buffer, ObjectDamaged, ObjectMissing, ObjectStore
from evflow.store.serializers import serialize

_RECORD = Struct("<QQQBBHI32s")
_TAIL = Struct("<4sIQ")
_MAGIC = b"evfi"
_SERIALIZERS = (plain.NAME, pickles.NAME)
_ENCODINGS = (RAW, ZSTD)


class NoSuchItem(InternalError):
    """The items have no item of that index."""

    code = "no-such-item"

    def __init__(self, where: str, index: int, count: int) -> None:
        super().__init__(f"The items in '{where}' are {count}; number {index} (counted from 0) was asked for.")


def pack_items(store: ObjectStore, items: Iterable[Any], *, name: str = "items") -> tuple[Digest, int]:
    """Write items, one after another, as they come: memory holds one item and 64 bytes for each before it.

    Args:
        store: Where to.
        items: They.
        name: What an error calls them: an item is then `name[3]`.

    Returns:
        The object's digest, and how many items there were.

    Raises:
        ArtifactNotSerializable: An item cannot be stored; nothing was.
        StoreFull: There is no room.
        StoreUnusable: The store cannot be written.
    """
    records = bytearray()
    digest = store.put(_packed(items, name, records))
    return digest, len(records) // _RECORD.size


def _packed(items: Iterable[Any], name: str, records: bytearray) -> Iterator[Buffer]:
    offset = 0
    for index, item in enumerate(items):
        serialized = serialize(f"{name}[{index}]", item)
        encoded = Encoded(serialized.chunks)
        yield from encoded
        records += _record(
            offset,
            encoded.stored,
            encoded.size,
            _SERIALIZERS.index(serialized.serializer),
            _ENCODINGS.index(encoded.encoding),
            encoded.digest,
        )
        padding = -encoded.stored % ALIGNMENT
        yield bytes(padding)
        offset += encoded.stored + padding
    yield records
    yield _tail(len(records) // _RECORD.size)


def _tail(count: int) -> bytes:
    return _TAIL.pack(_MAGIC, zlib.crc32(_TAIL.pack(_MAGIC, 0, count)), count)


def _record(offset: int, length: int, size: int, serializer: int, encoding: int, digest: bytes) -> bytes:
    crc = zlib.crc32(_RECORD.pack(offset, length, size, serializer, encoding, 0, 0, digest))
    return _RECORD.pack(offset, length, size, serializer, encoding, 0, crc, digest)


def load_item(store: ObjectStore, digest: bytes, index: int, *, main: MainResolver | None = None, code: Code | None = None) -> Any:
    """One item.

    Args:
        store: Where it is.
        digest: The object that `pack_items` wrote.
        index: The item's, from 0.
        main: See `ArtifactView.open`.
        code: Where the classes of `__main__` are from, for `main`.

    Raises:
        ObjectMissing: The store has no such object.
        ObjectDamaged: The item is not what was written.
        ArtifactNotLoadable: A module or class is missing here, or a class raises.
        NoSuchItem: There is none of that index.
    """
    return load_entry(store, item_entry(store, digest, index)._replace(code=code), name=f"item {index}", main=main)


def item_entry(store: ObjectStore, digest: bytes, index: int) -> Entry:
    """What one item is, without loading it.

    Raises:
        ObjectMissing, ObjectDamaged, NoSuchItem: As `load_item`.
    """
    count, records_at = _count(store, digest)
    if not 0 <= index < count:
        raise NoSuchItem(store.where(digest), index, count)
    record = bytes(store.get(digest, records_at + index * _RECORD.size, _RECORD.size))
    offset, length, size, serializer, encoding, _, _, item = _RECORD.unpack(record)
    if record != _record(offset, length, size, serializer, encoding, item):
        raise ObjectDamaged(store.where(digest), digest, None, f"the record of item {index} is not what was written")
    return Entry(item, _SERIALIZERS[serializer], "", size, Digest(bytes(digest)), offset, length, _ENCODINGS[encoding])


def _count(store: ObjectStore, digest: bytes) -> tuple[int, int]:
    """The number of items, and where their records begin."""
    size = store.size(digest)
    if size is None:
        raise ObjectMissing(digest, store.where(digest))
    if size >= _TAIL.size:
        tail = bytes(store.get(digest, size - _TAIL.size, _TAIL.size))
        _, _, count = _TAIL.unpack(tail)
        if tail == _tail(count):
            return count, size - _TAIL.size - count * _RECORD.size
    raise ObjectDamaged(store.where(digest), digest, None, "it does not end as a pack of items does")
