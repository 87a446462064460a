"""Objects in the memory of this process, for tests of flows: nothing of them outlives it, and no other process sees them."""

import hashlib
from collections.abc import Iterable, Iterator

from evflow.core.ids import Digest
from evflow.store.protocol import Buffer, ObjectDamaged, ObjectMissing


class MemoryStore:
    """An `ObjectStore` without a place."""

    def __init__(self) -> None:
        self._objects: dict[bytes, bytes] = {}

    @property
    def url(self) -> str:
        """A name for messages: there is nothing to open again."""
        return "memory:"

    def put(self, chunks: Iterable[Buffer]) -> Digest:
        """Keep the chunks as one object."""
        gathered = bytearray()
        for chunk in chunks:  # each before the next is asked for: its memory may be used again
            gathered += chunk
        content = bytes(gathered)
        digest = Digest(hashlib.sha256(content).digest())
        self._objects[digest] = content
        return digest

    def get(self, digest: bytes, offset: int = 0, length: int | None = None) -> memoryview:
        """A copy of the object or of a part of it, which is the caller's.

        Raises:
            ObjectMissing: There is no such object.
            ObjectDamaged: It ends before the part does.
        """
        content = self._objects.get(digest)
        if content is None:
            raise ObjectMissing(digest, self.where(digest))
        end = len(content) if length is None else offset + length
        if end > len(content):
            raise ObjectDamaged(self.where(digest), digest, None, f"it has {len(content)} bytes, {end} were asked for")
        return memoryview(bytearray(content[offset:end]))

    def size(self, digest: bytes) -> int | None:
        """The object's size in bytes, or None."""
        content = self._objects.get(digest)
        return None if content is None else len(content)

    def exists(self, digest: bytes) -> bool:
        """Whether it is there."""
        return digest in self._objects

    def digests(self) -> Iterator[Digest]:
        """All objects."""
        return map(Digest, list(self._objects))

    def confirm(self, digest: bytes) -> bool:
        """Whether it is there: nothing is ever removed."""
        return digest in self._objects

    def where(self, digest: bytes) -> str:
        """Its address, for people."""
        return f"memory:{digest.hex()}"
