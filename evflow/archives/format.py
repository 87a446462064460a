r"""The bytes of an archive: a log's events in segments, then what a reader needs to find them.

    "evflow archive 1\n" · segment … · footer · u32 length of the footer · SHA-256 of the footer · "evfa"

A segment is a zstd frame of a msgpack array `[[payload, link], …]`, some 256 kB of events, so that a long log is read by parts. The
footer is a zstd frame of a msgpack map:

    events    how many there are
    chain     the chain's digest (32 bytes) of them all
    segments  for each: number of events, length in the file, SHA-256
    about     whatever else belongs to the log, as the writer names it

Segments follow each other without a gap, and each byte of the file is under a digest or compared with a constant: no byte can be changed
without a reader's noticing. Integers are little endian. Readers pass over keys that they do not know; another first line is
another format.
"""

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from importlib import import_module
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgpack

from evflow.core.chain import LINK_BYTES, START, extend
from evflow.log.protocol import StoredEvent

HEADER: Final = b"evflow archive 1\n"
SEGMENT_BYTES: Final = 256 << 10
"""A segment ends once its events have so many bytes."""
_TRAILER_MAGIC: Final = b"evfa"
_DIGEST_BYTES: Final = 32
_TRAILER_BYTES: Final = 4 + _DIGEST_BYTES + len(_TRAILER_MAGIC)
_MOST_FOOTER_BYTES: Final = 64 << 20
_TAIL_BYTES: Final = 64 << 10
"""Read first: the footer of all but huge logs, and the whole file of small ones."""
_LEVEL: Final = 3


class Unsound(Exception):
    """The bytes are not an archive that was written; whoever knows where they are says it."""


class BrokenChain(Exception):
    """The events that are to be written are not a whole log: something else wrote there, or some are missing."""

    def __init__(self, seq: int, why: str) -> None:
        super().__init__(f"event {seq} {why}")
        self.seq = seq


class _Segment(NamedTuple):
    events: int
    length: int
    digest: bytes


class Encoder:
    """Events on their way into an archive; iterate once to get its bytes.

    Memory holds a segment, however long the log is.

    Args:
        events: A log from its first event on.
        about: Gives what else belongs to it, when all events were read.

    Raises:
        BrokenChain: From the iteration: a position is missing, or an event's link is not the chain's.

    Attributes:
        seq: How many events were encoded so far.
        chain: The chain's digest of them.
        digest: SHA-256 of all bytes, once they were made.
        size_bytes: How many bytes were made so far.
    """

    def __init__(self, events: Iterable[StoredEvent], about: Callable[[], Mapping[str, Any]]) -> None:
        self._events = events
        self._about = about
        self._segments: list[_Segment] = []
        self._sha = sha256()
        self.seq = 0
        self.chain = START
        self.size_bytes = 0

    @property
    def digest(self) -> bytes:
        """SHA-256 of all bytes."""
        return self._sha.digest()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces():
            self._sha.update(piece)
            self.size_bytes += len(piece)
            yield piece

    def _pieces(self) -> Iterator[bytes]:
        yield HEADER
        held: list[tuple[bytes, bytes]] = []
        size = 0
        for event in self._events:
            self._check(event)
            held.append((event.payload, event.link))
            size += len(event.payload)
            if size >= SEGMENT_BYTES:
                yield self._segment(held)
                held, size = [], 0
        if held:
            yield self._segment(held)
        footer = _zstd().compress(
            msgpack.packb({"events": self.seq, "chain": self.chain, "segments": self._segments, "about": dict(self._about())}), _LEVEL
        )
        yield footer
        yield len(footer).to_bytes(4, "little") + sha256(footer).digest() + _TRAILER_MAGIC

    def _check(self, event: StoredEvent) -> None:
        if event.seq != self.seq + 1:
            raise BrokenChain(event.seq, f"stands where event {self.seq + 1} should")
        self.seq = event.seq
        self.chain = extend(self.chain, event.payload)
        if event.link != self.chain[:LINK_BYTES]:
            raise BrokenChain(event.seq, "was changed after it was written")

    def _segment(self, held: list[tuple[bytes, bytes]]) -> bytes:
        frame: bytes = _zstd().compress(msgpack.packb(held), _LEVEL)
        self._segments.append(_Segment(len(held), len(frame), sha256(frame).digest()))
        return frame


class Archive:
    """An archive that is read by parts.

    Args:
        read: Gives the bytes from an offset on, so many.
        size_bytes: The archive's size.

    Attributes:
        events: How many events it has.
        chain: The chain's digest of them.
        about: What else belongs to the log.

    Raises:
        Unsound: It is no archive, or was changed.
    """

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._read = read
        if read(0, len(HEADER)) != HEADER:
            raise Unsound("it does not begin as an archive does")
        footer, footer_at = _footer(read, size_bytes)
        try:
            fields = msgpack.unpackb(_zstd().decompress(footer), strict_map_key=False)
            self.events: int = fields["events"]
            self.chain: bytes = fields["chain"]
            self.about: dict[str, Any] = fields["about"]
            self._segments = [_Segment(*segment[:3]) for segment in fields["segments"]]
            self._firsts = list(accumulate((segment.events for segment in self._segments), initial=0))
            self._offsets = list(accumulate((segment.length for segment in self._segments), initial=len(HEADER)))
        except (ValueError, TypeError, LookupError, msgpack.UnpackException, _zstd().ZstdError) as error:
            raise Unsound(f"its list of segments cannot be read: {error}") from error
        if self._firsts[-1] != self.events or self._offsets[-1] != footer_at:
            raise Unsound("its segments are not all of it")

    def read(self, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Up to `limit` events behind a position, from one segment after another.

        Raises:
            Unsound: A segment was changed.
        """
        found: list[StoredEvent] = []
        index = bisect_right(self._firsts, after) - 1
        while 0 <= index < len(self._segments) and (limit is None or len(found) < limit):
            found += self._segment(index)[max(0, after - self._firsts[index]) :]
            index += 1
        return found if limit is None else found[:limit]

    def all(self) -> Iterator[StoredEvent]:
        """All events, a segment at a time; raises as `read`."""
        for index in range(len(self._segments)):
            yield from self._segment(index)

    def verify(self) -> None:
        """Read everything, and see that it is a log whose chain ends as the archive says.

        Raises:
            Unsound: It is not.
        """
        chain = START
        for seq, payload, link in self.all():
            chain = extend(chain, payload)
            if link != chain[:LINK_BYTES]:
                raise Unsound(f"event {seq} is not the one that its link names")
        if chain != self.chain:
            raise Unsound("the chain of its events ends otherwise")

    def _segment(self, index: int) -> list[StoredEvent]:
        segment, first = self._segments[index], self._firsts[index] + 1
        frame = self._read(self._offsets[index], segment.length)
        if sha256(frame).digest() != segment.digest:
            raise Unsound(f"events {first} to {first + segment.events - 1} were changed")
        try:
            pairs = msgpack.unpackb(_zstd().decompress(frame), use_list=False)
            return [StoredEvent(seq, payload, link) for seq, (payload, link) in enumerate(pairs, first)]
        except (ValueError, TypeError, msgpack.UnpackException, _zstd().ZstdError) as error:
            raise Unsound(f"events {first} and behind cannot be read: {error}") from error


def _footer(read: Callable[[int, int], bytes], size_bytes: int) -> tuple[bytes, int]:
    """The footer, and where it begins."""
    tail = read(max(0, size_bytes - _TAIL_BYTES), _TAIL_BYTES)
    trailer = tail[-_TRAILER_BYTES:]
    if len(trailer) != _TRAILER_BYTES or not trailer.endswith(_TRAILER_MAGIC):
        raise Unsound("it does not end as an archive does")
    length = int.from_bytes(trailer[:4], "little")
    begin = size_bytes - _TRAILER_BYTES - length
    if begin < len(HEADER) or length > _MOST_FOOTER_BYTES:
        raise Unsound("its end is not what was written")
    have = len(tail) - _TRAILER_BYTES
    footer = tail[have - length : have] if length <= have else read(begin, length)
    if sha256(footer).digest() != trailer[4 : 4 + _DIGEST_BYTES]:
        raise Unsound("its list of segments was changed")
    return footer, begin


def _zstd() -> Any:
    # Imported with the first archive: most processes open none.
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
