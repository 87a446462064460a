"""Reports by way of the store, from containers that cannot reach the log: one file an attempt, written whole at its end.

`reports/<Flow>/<run>/<task>.<attempt>` among the store's named files: the payloads that would have gone to the inbox, in their order. The
executor carries them there before it tells of the job's end, and removes the file after. A file that is carried twice, because an owner died in
between, changes nothing: one result of a task is accepted.

Who ends a job by a command leaves there, before it does so, how its attempt ends: the container itself sees a SIGTERM and cannot know whose.
"""

from collections.abc import Sequence
from typing import Any, cast

import msgpack

from evflow.core.ids import AttemptId
from evflow.errors import InternalError
from evflow.store import NameMissing, open_store


class ReportsUnreadable(InternalError):
    """A file of reports is none."""

    code = "reports-unreadable"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"The reports in {where} cannot be read: {why}.")


def name_of(attempt: AttemptId) -> str:
    """The file of an attempt's reports."""
    return f"reports/{attempt.run}/{attempt.task}.{attempt.attempt}"


def leave(store: str, attempt: AttemptId, payloads: Sequence[bytes]) -> None:
    """Write an attempt's reports. Blocking.

    Raises:
        StoreFull, StoreUnusable: The store does not take them.
    """
    packed: bytes = msgpack.packb(list(payloads))
    open_store(store).write_named(name_of(attempt), [packed])


def take(store: str, attempt: AttemptId) -> Sequence[bytes]:
    """An attempt's reports; none where there is no file. Blocking.

    Raises:
        StoreUnusable: The store cannot be read.
        ReportsUnreadable: The file is something else.
    """
    opened, name = open_store(store), name_of(attempt)
    try:
        data = opened.read_named(name)
    except NameMissing:
        return ()
    try:
        payloads: Any = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise ReportsUnreadable(opened.where_named(name), f"{type(error).__name__}: {error}") from error
    found = cast("list[object]", payloads) if isinstance(payloads, list) else [None]
    reports = [payload for payload in found if isinstance(payload, bytes)]
    if len(reports) < len(found):
        raise ReportsUnreadable(opened.where_named(name), "it is no list of reports")
    return reports


def remove(store: str, attempt: AttemptId) -> None:
    """Remove the file, which has been carried. Blocking.

    Raises:
        StoreUnusable: It cannot be removed.
    """
    open_store(store).remove_named(name_of(attempt))
