"""From an entry to its value: find the bytes, check them, make the value.

The digest is checked before anything is unpickled, because unpickling runs what the bytes say.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from evflow.errors import EnvironmentProblem
from evflow.store import pickles
from evflow.store.encodings import Content, Undecodable, decode
from evflow.store.manifests import Code, Entry
from evflow.store.protocol import ObjectDamaged, ObjectStore
from evflow.store.serializers import deserialize

MainResolver = Callable[[Code | None], ModuleType]
"""Loads the module that was `__main__` where a value was made, given where its code is from."""


class ArtifactNotLoadable(EnvironmentProblem):
    """An artifact's bytes are whole, but its value cannot be made in this process."""

    code = "artifact-not-loadable"

    def __init__(self, name: str, entry: Entry, error: Exception) -> None:
        super().__init__(
            f"The artifact '{name}' ({entry.type}) cannot be loaded here: {type(error).__name__}: {error}", _hint(entry, error)
        )
        self.name = name


def _hint(entry: Entry, error: Exception) -> str:
    if entry.code is not None and "__main__" in str(error):
        package = f" (code package {entry.code.package.hex()[:12]})" if entry.code.package else ""
        return f"Its class was defined in '{entry.code.file}'{package}: import it from there into your main module first."
    if isinstance(error, ImportError):
        return f"Install or make importable what it needs: {error.name or 'see the error'}."
    return "Its class raised this error; the stored bytes are whole. Was it stored under another version of its library?"


class Fetched(NamedTuple):
    """The serialised bytes of a value, checked.

    Attributes:
        content: They.
        leading: Size of the memory before the pickle.
        before: The digest of that memory.
    """

    content: Content
    leading: int
    before: bytes


def fetch(store: ObjectStore, entry: Entry, stored: memoryview | None = None) -> Fetched:
    """An entry's serialised bytes.

    Args:
        store: Where they are.
        entry: Which.
        stored: The entry's part of its object, writable and nobody else's, where it is in memory already.

    Raises:
        ObjectMissing: The store has not the object.
        ObjectDamaged: The bytes are not those that were written.
    """
    if stored is None:
        stored = store.get(entry.object, entry.offset, entry.length)
    try:
        content = decode(entry.encoding, stored, entry.size)
        leading = pickles.leading_size(content) if entry.serializer == pickles.NAME else 0
    except Undecodable as error:
        raise ObjectDamaged(store.where(entry.object), entry.digest, None, str(error)) from error
    before, found = content.digests(leading)
    if found != entry.digest:
        raise ObjectDamaged(store.where(entry.object), entry.digest, found)
    return Fetched(content, leading, before)


def revive(name: str, entry: Entry, content: Content, main: MainResolver | None) -> Any:
    """The value of bytes that were checked.

    Raises:
        ArtifactNotLoadable: A module or class is missing here, or a class raises.
    """
    try:
        return deserialize(entry.serializer, content, None if main is None else lambda: main(entry.code))
    except MemoryError:
        raise
    except Exception as error:
        # Unpickling runs the code of the value's classes: whatever it raises means the same.
        raise ArtifactNotLoadable(name, entry, error) from error


def load_entry(store: ObjectStore, entry: Entry, *, name: str = "value", main: MainResolver | None = None) -> Any:
    """The value of an entry.

    Raises:
        ObjectMissing: The store has not its bytes.
        ObjectDamaged: They are not those that were written.
        ArtifactNotLoadable: A module or class is missing here, or a class raises.
    """
    return revive(name, entry, fetch(store, entry).content, main)
