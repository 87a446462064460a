"""Everything else as pickle, protocol 5, with the memory of arrays and data frames beside it, uncopied.

    buffers · pickle · u64 length of each buffer · u32 buffers · u64 length of the pickle · "evp5"

Integers are little endian; each buffer begins at a multiple of 64 bytes. A buffer is the array's own memory when
it is written, and a part of the mapped object when it is read. The buffers come first so that one pass of SHA-256
gives their digest on its way to that of the whole: see `artifacts`, which tells a changed value from one whose
pickle alone came out differently.

An array that was read-only when it was stored is read-only when it is loaded.
"""

import pickle
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from struct import Struct
from types import ModuleType
from typing import Any, NamedTuple

from evflow.store.encodings import ALIGNMENT, Content, Undecodable
from evflow.store.protocol import Buffer

NAME = "pickle5"

MainModule = Callable[[], ModuleType]
"""Loads the module that was `__main__` where the value was made."""

OUT_OF_BAND_BYTES = 4 << 10
"""Smaller buffers stay inside the pickle: a list of many small arrays would be mostly padding."""

_METAFLOW = "metaflow"
"""A flow written for Metaflow may have stored what has the name of a class there."""
_PROTOCOL = 5
_MAGIC = b"evp5"
_TAIL = Struct("<IQ4s")
_LENGTH = Struct("<Q")


class Pickled(NamedTuple):
    """A value's bytes.

    Attributes:
        chunks: Buffers and their padding, the pickle, the footer.
        leading: How many of the chunks lie before the pickle.
    """

    chunks: list[Buffer]
    leading: int

    @property
    def body(self) -> Buffer:
        """The pickle itself."""
        return self.chunks[self.leading]


def write(value: Any) -> Pickled:
    """The value's bytes.

    Raises:
        Exception: Whatever the classes inside the value raise when they are pickled.
    """
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND_BYTES:
            return True
        buffers.append(view)
        return False

    body = pickle.dumps(value, _PROTOCOL, buffer_callback=keep)
    chunks: list[Buffer] = []
    for view in buffers:
        chunks.append(view)
        if padding := -len(view) % ALIGNMENT:
            chunks.append(bytes(padding))
    leading = len(chunks)
    lengths = b"".join(_LENGTH.pack(len(view)) for view in buffers)
    chunks += [body, lengths + _TAIL.pack(len(buffers), len(body), _MAGIC)]
    return Pickled(chunks, leading)


def read(content: Content, main: MainModule | None = None) -> Any:
    """The value again; imports the modules of the classes inside it.

    Args:
        content: The bytes, already checked against their digest.
        main: Where to look for a class of `__main__` that this process's `__main__` has not.

    Raises:
        Undecodable: The bytes are not of this form.
        Exception: Whatever the classes inside the value raise when they are made.
    """
    lengths, start, stop = _layout(content)
    body = content[start:stop]
    buffers: list[memoryview] = []
    offset = 0
    for length in lengths:
        buffers.append(content[offset : offset + length])
        offset += length + -length % ALIGNMENT
    try:
        return _load(body, buffers, main)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != _METAFLOW:
            raise
    # By name: that package stands above the store, and only this asks upwards.
    import_module("evflow.compat.metaflow").install_to_read()
    return _load(body, buffers, main)


def _load(body: memoryview, buffers: list[memoryview], main: MainModule | None) -> Any:
    if main is None:
        return pickle.loads(body, buffers=buffers)
    return _Unpickler(BytesIO(body), buffers, main).load()


def leading_size(content: Content) -> int:
    """Size of what lies before the pickle.

    Raises:
        Undecodable: The bytes are not of this form.
    """
    return _layout(content)[1]


def _layout(content: Content) -> tuple[list[int], int, int]:
    """The lengths of the buffers, and where the pickle begins and ends."""
    size = len(content)
    if size >= _TAIL.size:
        count, length, magic = _TAIL.unpack(content[size - _TAIL.size :])
        stop = size - _TAIL.size - count * _LENGTH.size
        start = stop - length
        if magic == _MAGIC and start >= 0:
            lengths = [item for (item,) in _LENGTH.iter_unpack(content[stop : size - _TAIL.size])]
            if sum(item + -item % ALIGNMENT for item in lengths) == start:
                return lengths, start, stop
    raise Undecodable("it is not the pickle that was written")


class _Unpickler(pickle.Unpickler):
    """Finds classes of `__main__` in the module that was `__main__` when they were pickled."""

    def __init__(self, file: Any, buffers: list[memoryview], main: MainModule) -> None:
        super().__init__(file, buffers=buffers)
        self._main = main

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name != "__main__":
            return super().find_class(module_name, global_name)
        try:
            return super().find_class(module_name, global_name)
        except AttributeError:
            found: Any = self._main()
            for part in global_name.split("."):
                found = getattr(found, part)
            return found
