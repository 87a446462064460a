"""From one store to another, and whether a store is whole: every object is read and compared with the digest that is its name."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from evflow.core.ids import Digest
from evflow.store.protocol import NameMissing, NameTaken, ObjectDamaged, ObjectMissing, Store

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE: Final = 8
"""Objects that are under way together."""
PIECE_BYTES: Final = 4 << 20
_BATCH: Final = 256


class Copied(NamedTuple):
    """What a copy did.

    Attributes:
        objects: Objects that were copied.
        objects_bytes: Their size.
        files: Named files that were copied.
        files_bytes: Their size.
        there: Objects and files that the other store had already.
        damaged: Addresses of objects that are not what was written; they were left out.
    """

    objects: int
    objects_bytes: int
    files: int
    files_bytes: int
    there: int
    damaged: tuple[str, ...]


class Verified(NamedTuple):
    """What a look at all objects found.

    Attributes:
        objects: How many there are.
        bytes: Their size.
        damaged: Addresses of those that are not what was written, each with why.
    """

    objects: int
    bytes: int
    damaged: tuple[str, ...]


def copy(source: Store, target: Store, seen: Callable[[int], None] = lambda _: None) -> Copied:
    """Copy all objects and named files that the target has not, each checked on its way. Another copy goes on where one was cut.

    A named file that both have and that differs in length is copied again: a log may have grown.

    Args:
        source: Where from; it may be written to meanwhile: what comes later is not copied.
        target: Where to.
        seen: Told how many objects and files were looked at.

    Raises:
        StoreFull, StoreUnusable: One of the stores cannot be used.
    """
    there = {digest: size for digest, _, size in target.written()}
    objects = size = present = looked = 0
    damaged: list[str] = []

    def one(given: tuple[Digest, int]) -> int | ObjectDamaged | None:
        digest, length = given
        if there.get(digest) == length:
            return None
        try:
            content = source.get(digest)
        except ObjectMissing:  # removed since it was listed
            return None
        except ObjectDamaged as error:
            return error
        target.put(content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES))
        return len(content)

    for found in _side_by_side(one, ((digest, length) for digest, _, length in source.written())):
        looked += 1
        seen(looked)
        if isinstance(found, ObjectDamaged):
            damaged.append(found.where)
        elif found is None:
            present += 1
        else:
            objects, size = objects + 1, size + found
    files = files_size = 0
    for length in _side_by_side(lambda name: _copy_named(source, target, name), iter(source.list_named())):
        looked += 1
        seen(looked)
        if length is None:
            present += 1
        else:
            files, files_size = files + 1, files_size + length
    return Copied(objects, size, files, files_size, present, tuple(damaged))


def _copy_named(source: Store, target: Store, name: str) -> int | None:
    size = source.size_named(name)
    if size is None or target.size_named(name) == size:
        return None

    def pieces() -> Iterator[bytes]:
        for at in range(0, size, PIECE_BYTES):
            yield source.read_named(name, at, min(PIECE_BYTES, size - at))

    try:
        return target.write_named(name, pieces())
    except (NameMissing, NameTaken):
        return None


def verify(store: Store, seen: Callable[[int], None] = lambda _: None) -> Verified:
    """Read every object and compare it with its digest.

    Args:
        store: The store.
        seen: Told how many were looked at.

    Raises:
        StoreUnusable: The store cannot be read.
    """
    size = looked = 0
    damaged: list[str] = []

    def one(digest: Digest) -> int | ObjectDamaged:
        try:
            return len(store.get(digest))
        except ObjectMissing:  # removed since it was listed
            return 0
        except ObjectDamaged as error:
            return error

    for found in _side_by_side(one, store.digests()):
        looked += 1
        seen(looked)
        if isinstance(found, ObjectDamaged):
            damaged.append(found.message)
        else:
            size += found
    return Verified(looked, size, tuple(damaged))


def _side_by_side(act: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
    with ThreadPoolExecutor(AT_ONCE, "evflow-copy") as pool:
        while batch := list(islice(items, _BATCH)):
            yield from pool.map(act, batch)
