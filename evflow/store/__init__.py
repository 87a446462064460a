"""Where values live: content-addressed objects, and on top of them artifacts, foreach items and code packages.

* `protocol`: what a store is; `files`: one in a folder.
* `artifacts`: a task's values, by name (`save`, `ArtifactView`); `items`: those of a foreach.
* `packages`: the code of a flow, as an archive.

Nothing here imports numpy, pandas or a user's module: pickle does, when a value that needs them is loaded.
"""

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
]


def open_store(url: str) -> Store:
    """The store at a URL (`file:///folder`) or in a folder. Nothing is read or made yet.

    Raises:
        UnknownStore: No kind of store has such a URL.
    """
    return FileStore.from_url(url)
