"""JSON-like values as msgpack: readable in any language, and without unpickling.

Only what comes back exactly is taken: None, bool, int (64 bits), float, str, bytes, and lists and dicts of
them with keys of str or int. By exact type: a subclass, a tuple or a numpy number would come back as something
else. A container that is in the value twice would come back as two; that is for pickle too.
"""

from collections.abc import Collection
from types import NoneType
from typing import Any

import msgpack

from evflow.store.encodings import Content
from evflow.store.protocol import Buffer

NAME = "msgpack"

MAX_NODES = 100_000
"""Values inside a value. Looking through more of them costs more than pickling them."""

MAX_DEPTH = 200
"""Containers inside containers. msgpack writes 1,024 levels and more, but reads fewer."""

_JOIN_UP_TO_BYTES = 64 << 10
_LEAVES = frozenset({NoneType, bool, int, float, str, bytes})
_CONTAINERS = frozenset({list, dict})
_DICTS = frozenset({dict})
_NODES = _LEAVES | _CONTAINERS
_KEYS = frozenset({str, int})
_BYTES_HEADERS = {0xC4: 2, 0xC5: 3, 0xC6: 5}


def write(value: Any) -> list[Buffer] | None:
    """The value's bytes, or None where this form cannot carry it."""
    if type(value) is bytes and _JOIN_UP_TO_BYTES < len(value) < 1 << 32:
        return [b"\xc6" + len(value).to_bytes(4, "big"), value]
    if not is_plain(value):
        return None
    try:
        return [msgpack.packb(value)]
    except (ValueError, OverflowError):
        return None  # an int past 64 bits, a lone surrogate


def read(content: Content) -> Any:
    """The value again."""
    data = content.joined()
    if header := _BYTES_HEADERS.get(data[0]):
        return bytes(data[header:])
    return msgpack.unpackb(data, strict_map_key=False)


def is_plain(value: Any) -> bool:
    """Whether the value is of the types above, without an alias, and not too large to look through."""
    if type(value) in _LEAVES:
        return True
    if type(value) not in _CONTAINERS:
        return False
    level: list[Any] = [value]
    seen = {id(value)}
    count = depth = 1
    while level:
        below: list[Any] = []
        for container in level:
            count += len(container)
            if count > MAX_NODES:
                return False
            children: Collection[Any] = container
            if type(container) in _DICTS:
                if not _KEYS.issuperset(map(type, container)):
                    return False
                children = container.values()
            kinds = set(map(type, children))
            if not _NODES.issuperset(kinds):
                return False
            if not _CONTAINERS.isdisjoint(kinds):
                below += [child for child in children if type(child) in _CONTAINERS]
        known = len(seen)
        seen.update(map(id, below))
        if len(seen) != known + len(below) or depth == MAX_DEPTH:
            return not below
        level, depth = below, depth + 1
    return True
