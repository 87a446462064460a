"""Where values live: content-addressed objects, and on top of them artifacts, foreach items and code packages.

* `protocol`: what a store is; `files`: one in a folder; `s3`: one in a bucket.
* `artifacts`: a task's values, by name (`save`, `ArtifactView`); `items`: those of a foreach.
* `packages`: the code of a flow, as an archive.

Nothing here imports numpy, pandas or a user's module: pickle does, when a value that needs them is loaded.
"""

import sys

from evflow.store.files import FileStore
from evflow.store.protocol import (
    NamedFiles,
    NameMissing,
    NameTaken,
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    Store,
    StoreFull,
    StoreUnusable,
    UnknownStore,
)

__all__ = [
    "FileStore",
    "NameMissing",
    "NameTaken",
    "NamedFiles",
    "ObjectDamaged",
    "ObjectMissing",
    "ObjectStore",
    "Store",
    "StoreFull",
    "StoreUnusable",
    "UnknownStore",
    "open_store",
    "preload",
    "quiet",
]


def preload(url: str) -> None:
    """Import what a store needs, for a process that forks others which will use it; without a thread or a connection.

    What fails is left to them: each says so in its own report.
    """
    if url.startswith("s3://"):
        from contextlib import suppress

        from evflow.errors import EvflowError
        from evflow.store.s3.requests import preload as preload_s3

        with suppress(EvflowError):
            preload_s3()


def quiet() -> None:
    """End the threads of stores, which no process may have that forks others; they begin again when they are needed."""
    loop = sys.modules.get("evflow.store.s3.loop")
    if loop is not None:
        loop.close()


def open_store(url: str, *, cached: bool = True) -> Store:
    """The store at a URL (`file:///folder`, `s3://bucket/prefix`) or in a folder. Nothing is read or made yet.

    Args:
        url: Where it is.
        cached: Whether what this machine keeps of a store elsewhere may be used; not by who wants to know what is there.

    Raises:
        UnknownStore: No kind of store has such a URL.
        AwsMissing: It lies in S3, and the client of AWS is not installed.
    """
    if url.startswith("s3://"):
        from evflow.store.s3 import S3Store  # only who uses it pays for it

        store = S3Store.from_url(url)
        return store if cached else store.uncached()
    return FileStore.from_url(url)
