"""Sheets: the orders of jobs that a platform takes as one, in an object of the store. All calls are blocking.

The containers of an array have one command and one environment; each knows its index. So what would be their own variables stands in a sheet, in
their order, and a container reads its own entry (`evflow.store.items`: three small reads, however many there are). The last entry lists all of
them, for an owner who finds the array and knows no more than its name, in which the sheet's digest is.

The sheet is durable before the array is submitted: there is no array whose members nobody can tell.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from evflow import diagnostics
from evflow.core.ids import Digest
from evflow.errors import InternalError
from evflow.store import ObjectDamaged, ObjectMissing, ObjectStore, open_store
from evflow.store.items import load_item, pack_items


class SheetUnreadable(InternalError):
    """An object is no sheet."""

    code = "sheet-unreadable"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"The orders in '{where}' cannot be read: {why}.")


def write(store: ObjectStore, members: Sequence[str], own: Sequence[Mapping[str, str]]) -> Digest:
    """Write one; equal orders make the same one.

    Args:
        store: Where to.
        members: What tells each member from the others, in order.
        own: The variables of each.

    Raises:
        StoreFull, StoreUnusable: The store does not take it.
    """
    return pack_items(store, [*map(dict, own), list(members)], name="orders")[0]


def members_of(store: ObjectStore, digest: bytes, size: int) -> Sequence[str]:
    """The members, in order.

    Args:
        store: Where the sheet is.
        digest: The sheet's.
        size: How many members there are.

    Raises:
        ObjectMissing, ObjectDamaged, StoreUnusable: It cannot be read.
        SheetUnreadable: It is something else.
    """
    found: Any = load_item(store, digest, size)
    if not isinstance(found, list) or len(cast("list[object]", found)) != size:
        raise SheetUnreadable(store.where(digest), f"its last entry does not list {size} members")
    return [str(member) for member in cast("list[object]", found)]


def members_if_there(store_url: str, digest: bytes, size: int, prefix: str) -> Sequence[str] | None:
    """As `members_of`, of a store by its URL; None where the sheet is gone or damaged, and a line about the run whose jobs are called so.

    Raises:
        UnknownStore, StoreUnusable: The store cannot be read.
    """
    try:
        return members_of(open_store(store_url), digest, size)
    except (ObjectMissing, ObjectDamaged, SheetUnreadable) as error:
        diagnostics.warning("the members of an array cannot be told", of=prefix, why=error.message)
        return None


def variables_of(store: ObjectStore, digest: bytes, index: int) -> Mapping[str, str]:
    """The variables of one member.

    Args:
        store: Where the sheet is, as the container reaches it.
        digest: The sheet's.
        index: The member's, from 0.

    Raises:
        ObjectMissing, ObjectDamaged, StoreUnusable: It cannot be read.
        NoSuchItem: There are not as many.
        SheetUnreadable: It is something else.
    """
    found: Any = load_item(store, digest, index)
    if not isinstance(found, dict):
        raise SheetUnreadable(store.where(digest), f"entry {index} has no variables")
    return {str(name): str(text) for name, text in cast("dict[object, object]", found).items()}
