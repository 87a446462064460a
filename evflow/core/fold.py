"""Fold what a log holds, for whoever goes on from there: nothing is folded that its writer did not write."""

from collections.abc import Iterable
from hashlib import sha256

from evflow.core.apply import apply
from evflow.core.chain import LINK_BYTES
from evflow.core.codec import decode
from evflow.core.state import RunState
from evflow.errors import InternalError


class ChainBroken(InternalError):
    """The digest beside an event is not the one of the log up to it."""

    code = "chain-broken"

    def __init__(self, seq: int) -> None:
        super().__init__(f"Event {seq} is not the one that was written: its digest is not that of the log up to here.")
        self.seq = seq


def fold(state: RunState, digest: bytes, events: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """Fold the next events of a run's log into its state, each after its place in the chain was checked.

    Args:
        state: What the events before fold to. It is of no use any more when an event does not fold.
        digest: The chain's digest behind them.
        events: For each event its position, its bytes, and the first `LINK_BYTES` of the chain's digest up to it.

    Returns:
        The chain's digest behind the last one.

    Raises:
        ChainBroken: An event was changed.
        UnreadableEvent: The bytes of an event are not one.
        ImpossibleEvent: An event cannot follow what stands before it.
    """
    for seq, payload, link in events:
        digest = sha256(digest + payload).digest()
        if digest[:LINK_BYTES] != link:
            raise ChainBroken(seq)
        apply(state, decode(seq, payload))
    return digest
