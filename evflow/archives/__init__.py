"""The life of a log after its run: archives in the store, the index rebuilt, garbage collected.

`connect(url)` gives the log as everybody but a worker reads it: what was archived and removed from the server is read from the store.

* `format`: an archive's bytes; `reading`: archives in stores.
* `archiving`: write, verify, note, remove; `keeping`: which runs, and when.
* `reindex`, `reachable` and `collect`: rebuild the index; find what kept runs refer to, and remove the rest.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evflow.log.keeper import RedisLogKeeper


def connect(url: str) -> "RedisLogKeeper":
    """A blocking client of the log at `url`; it connects on first use, and opens archives where they are needed.

    Raises:
        LogUrlInvalid: The URL names no server.
    """
    from evflow.archives.reading import ArchiveReader
    from evflow.log.keeper import RedisLogKeeper

    return RedisLogKeeper(url, ArchiveReader())
