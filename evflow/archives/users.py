"""Which logs use a store: each installation leaves a note there with its first run, so that nobody takes its objects for garbage.

installations/<installation>    JSON: the log's address without passwords, and the host that wrote the note
"""

from contextlib import suppress
from typing import Final

from evflow import config
from evflow.core.values import value
from evflow.store import NameMissing, NameTaken, Store

FOLDER: Final = "installations"


@value
class StoreUser:
    """A log that uses a store.

    Attributes:
        installation: Its identity.
        log: Its address, for people.
        host: Where the note was written.
    """

    installation: str
    log: str = ""
    host: str = ""


def sign(store: Store, installation: str, log_url: str, host: str) -> None:
    """Leave the note, if it is not there.

    Raises:
        StoreFull, StoreUnusable: It cannot be written.
    """
    name = f"{FOLDER}/{installation}"
    if installation and store.size_named(name) is None:
        with suppress(NameTaken):
            store.write_named(name, [f"{shown(log_url)}\n{host}\n".encode()], create_only=True)


def users(store: Store) -> list[StoreUser]:
    """All logs that left a note.

    Raises:
        StoreUnusable: The store cannot be read.
    """
    found: list[StoreUser] = []
    for name in store.list_named(FOLDER):
        with suppress(NameMissing):  # it has just been taken away
            log, host, *_ = [*store.read_named(name).decode(errors="replace").splitlines(), "", ""]
            found.append(StoreUser(name.rpartition("/")[2], log, host))
    return found


def retire(store: Store, installation: str) -> bool:
    """Take a note away: that log is gone for good. Answers whether there was one."""
    return store.remove_named(f"{FOLDER}/{installation}") > 0


def shown(log_url: str) -> str:
    """A log's address without its password."""
    return str(config.shown("redis_url", log_url))
