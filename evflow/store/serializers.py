"""Values to bytes and back. The name of the form is kept with the bytes.

`msgpack` takes what is JSON-like, `pickle5` the rest. A form that was ever written must be readable for ever:
a changed one gets a new name here, beside the old.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from evflow.store import pickles, plain
from evflow.store.diagnosis import ArtifactNotSerializable, find, refused
from evflow.store.encodings import Content, Undecodable
from evflow.store.pickles import MainModule
from evflow.store.protocol import Buffer

_READERS: dict[str, Callable[[Content, MainModule | None], Any]] = {
    plain.NAME: lambda content, _: plain.read(content),
    pickles.NAME: pickles.read,
}


class Serialized(NamedTuple):
    """A value's bytes; the chunks may be the value's own memory, which must not change until they are stored."""

    serializer: str
    chunks: Sequence[Buffer]
    leading: int = 0
    """How many of the chunks are memory of the value, before its pickle."""

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.chunks))


def serialize(name: str, value: Any) -> Serialized:
    """The value in the first form that can carry it.

    Args:
        name: What an error calls the value.
        value: The value.

    Raises:
        ArtifactNotSerializable: No form can.
        MemoryError: There is too little memory for its bytes; the message names it.
    """
    try:
        return _serialize(name, value)
    except MemoryError as error:
        raise MemoryError(f"There is too little memory to store '{name}', of the type {type(value).__qualname__}.") from error


def _serialize(name: str, value: Any) -> Serialized:
    chunks = plain.write(value)
    if chunks is not None:
        return Serialized(plain.NAME, chunks)
    if culprit := refused(value):
        raise ArtifactNotSerializable(name, culprit)
    try:
        pickled = pickles.write(value)
    except MemoryError:
        raise
    except Exception as error:
        # Whatever the value's own classes raise means the same.
        raise ArtifactNotSerializable(name, find(value, error)) from error
    return Serialized(pickles.NAME, pickled.chunks, pickled.leading)


def deserialize(serializer: str, content: Content, main: MainModule | None = None) -> Any:
    """The value again. The content must have been checked: unpickling runs what it says.

    Raises:
        Undecodable: The content is not of that form, or the form is of a later version.
        Exception: Whatever the value's classes raise when they are made.
    """
    reader = _READERS.get(serializer)
    if reader is None:
        raise Undecodable(f"the serializer '{serializer}' is not known to this version")
    return reader(content, main)
