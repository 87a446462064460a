"""The digest chain of a log: h(n) = SHA-256(h(n-1) || event n), from 32 zero bytes.

16 bytes of each digest stand beside the event, so that the first event that was touched can be named; all
32 of the last one stand in the log's head and in the seal.
"""

from collections.abc import Iterable
from hashlib import sha256

START = bytes(32)
LINK_BYTES = 16


def extend(digest: bytes, payload: bytes) -> bytes:
    """The chain's digest after one more event."""
    return sha256(digest + payload).digest()


def links(digest: bytes, payloads: Iterable[bytes]) -> list[bytes]:
    """The chain's digest after each of the events, 32 bytes each."""
    found: list[bytes] = []
    for payload in payloads:
        digest = sha256(digest + payload).digest()
        found.append(digest)
    return found
