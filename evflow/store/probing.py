"""Whether a store does what evflow needs of it, tried out with files and an object of its own, which are removed again."""

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from evflow.clock import now_us
from evflow.errors import EvflowError
from evflow.store.protocol import NameTaken, ObjectMissing, Store

_FOLDER: Final = "probes"
_LARGE_BYTES: Final = 9 << 20
"""More than a part of an upload."""
CLOCKS: Final = "clocks agree"
"""The try whose failure costs no run."""
SKEW_US: Final = 60_000_000
"""Clocks that differ by more are told: logs and garbage are dated by different ones."""


class Probe(NamedTuple):
    """What a try found.

    Attributes:
        name: What was tried.
        ok: It works.
        told: What is wrong, and what to do; or what is worth knowing.
    """

    name: str
    ok: bool
    told: str = ""


def probe(store: Store, *, parts: bool = True) -> list[Probe]:
    """Try a store out: each thing once, in an order in which the first failure explains the others.

    Args:
        store: Which one; without what this machine keeps of it.
        parts: Also with an object of more than a part of an upload, 9 MB.
    """
    token = os.urandom(8).hex()
    tries: list[tuple[str, Callable[[], str]]] = [
        ("list", lambda: _list(store)),
        ("write, read and remove a file", lambda: _file(store, f"{_FOLDER}/{token}")),
        ("create a file once", lambda: _once(store, f"{_FOLDER}/{token}-once")),
        (
            "store and read objects, whole and in parts" if parts else "store and read an object",
            lambda: _objects(store, [token.encode(), *([token.encode() * (_LARGE_BYTES // len(token))] if parts else [])]),
        ),
        (CLOCKS, lambda: _clock(store)),
    ]
    found: list[Probe] = []
    for name, act in tries:
        try:
            found.append(Probe(name, True, act()))
        except EvflowError as error:
            found.append(Probe(name, False, str(error)))
            if not found[1:]:  # nothing else can be right
                break
        except _Wrong as error:
            found.append(Probe(name, False, str(error)))
    return found


class _Wrong(Exception):
    """The store does something else than it should; the text says what."""


def _list(store: Store) -> str:
    store.list_folders()
    return ""


def _file(store: Store, name: str) -> str:
    store.write_named(name, [b"first"])
    try:
        store.write_named(name, [b"second"])
        if store.read_named(name, 1, 3) != b"eco":
            raise _Wrong("A file that was written over, and is read in part, has not the new content: the store gives old answers.")
    finally:
        store.remove_named(name)
    if store.size_named(name) is not None:
        raise _Wrong("A file that was removed is still there: the store gives old answers.")
    return ""


def _once(store: Store, name: str) -> str:
    store.write_named(name, [b"first"], create_only=True)
    try:
        store.write_named(name, [b"second"], create_only=True)
    except NameTaken:
        return ""
    finally:
        store.remove_named(name)
    raise _Wrong(
        "A file that was to be created was written over one that was there: the server ignores If-None-Match. "
        "Archives would not be safe from each other: take a newer version of it, or another store."
    )


def _objects(store: Store, contents: list[bytes]) -> str:
    digests = [store.put([content]) for content in contents]
    try:
        for digest, wanted in zip(digests, contents, strict=True):
            if bytes(store.get(digest)) != wanted or bytes(store.get(digest, 3, 5)) != wanted[3:8]:
                raise _Wrong(f"'{store.where(digest)}' is not what was written.")
    finally:
        later_us = store.now_us() + 86_400_000_000
        for digest in digests:
            store.remove(digest, later_us)
    try:
        store.get(digests[0])
    except ObjectMissing:
        return ""
    raise _Wrong(f"'{store.where(digests[0])}' was removed and is still there.")


def _clock(store: Store) -> str:
    off_us = store.now_us() - now_us()
    if abs(off_us) > SKEW_US:
        raise _Wrong(
            f"The store's clock is {abs(off_us) / 1e6:,.0f} s {'ahead of' if off_us > 0 else 'behind'} this machine's. "
            "Set this machine's (`timedatectl set-ntp true`): S3 refuses requests that are 15 minutes off."
        )
    return ""
