"""How serialised bytes lie on the disk: as they are (`raw`), or compressed piece by piece (`zstd`).

An artifact's digest is over its serialised bytes, so it does not depend on what is decided here. Each chunk
that a serializer made (the pickle itself, each array's memory) is tried on its own: compressing what
does not shrink would cost 150 ms and save nothing on 100 MB of random doubles.

A `zstd` content is its segments, then a footer that names them, then the footer's length:

    segment … · msgpack [[kind, offset, stored, size], …] · u32 little endian

Kind 0 is stored as it is, at a multiple of 64 bytes so that it can be mapped; kind 1 is a zstd frame.
"""

import hashlib
import mmap
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

import msgpack

from evflow.store.protocol import Buffer

RAW = "raw"
ZSTD = "zstd"

ALIGNMENT = 64
"""Where the memory of arrays begins: a cache line, and what vector instructions and Arrow want."""

WORTH_TRYING_BYTES = 64 << 10
"""Below this, compressing saves less than a disk block or two."""

_LEVEL = 1
_SAMPLE_BYTES = 64 << 10
_SAMPLES = 3
_MUST_SHRINK_TO = 0.9
_STEP_BYTES = 1 << 20
_MAP_FROM_BYTES = 1 << 20


NOTHING = hashlib.sha256().digest()
"""The digest of no bytes."""


class Undecodable(Exception):
    """Stored bytes are not what `encode` wrote; the reader says which object they are from."""


class Content:
    """Serialised bytes in memory, in one piece or several."""

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self._pieces = pieces
        self._starts = [0]
        for piece in pieces:
            self._starts.append(self._starts[-1] + len(piece))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, part: slice) -> memoryview:
        """A part; without a copy where it lies in one piece, as each chunk of a serializer does."""
        start, stop, _ = part.indices(len(self))
        index = max(bisect_right(self._starts, start) - 1, 0)
        if start == stop:
            return memoryview(b"")
        if stop <= self._starts[index + 1]:
            return self._pieces[index][start - self._starts[index] : stop - self._starts[index]]
        joined = bytearray()
        while start < stop:
            end = min(stop, self._starts[index + 1])
            joined += self._pieces[index][start - self._starts[index] : end - self._starts[index]]
            start, index = end, index + 1
        return memoryview(joined)

    def joined(self) -> memoryview:
        """All of it."""
        return self._pieces[0] if len(self._pieces) == 1 else self[:]

    def digests(self, leading: int = 0) -> tuple[bytes, bytes]:
        """The digest of the first `leading` bytes, and that of all, in one pass."""
        if not leading:
            return NOTHING, sha256_of(self._pieces)
        sha = hashlib.sha256()
        before = NOTHING
        for start, piece in zip(self._starts, self._pieces, strict=False):
            cut = leading - start
            if 0 < cut <= len(piece):
                sha.update(piece[:cut])
                before = sha.digest()
                piece = piece[cut:]
            sha.update(piece)
        return before, sha.digest()


def sha256_of(chunks: Iterable[Buffer]) -> bytes:
    """The digest of chunks, one after another."""
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return sha.digest()


class Encoded:
    """Chunks on their way to the disk; iterate once to get the bytes to store.

    Attributes:
        encoding: `raw` or `zstd`.
        size: Size of the chunks.
        stored: Size of what was yielded so far.
    """

    def __init__(self, chunks: Sequence[Buffer], *, digest: bytes | None = None) -> None:
        self._chunks = chunks
        self._digest = digest
        self.size = sum(map(len, chunks))
        self.stored = 0
        self._shrinks: list[bool] = []
        if self.size >= WORTH_TRYING_BYTES:
            self._shrinks = [_shrinks(chunk) for chunk in chunks]
        self.encoding = ZSTD if any(self._shrinks) else RAW

    @property
    def digest(self) -> bytes:
        """The digest of the chunks; costs a pass over them unless it was given, or made while compressing."""
        if self._digest is None:
            self._digest = sha256_of(self._chunks)
        return self._digest

    def __iter__(self) -> Iterator[Buffer]:
        for piece in self._chunks if self.encoding == RAW else self._compressed():
            self.stored += len(piece)
            yield piece

    def _compressed(self) -> Iterator[Buffer]:
        segments: list[tuple[int, int, int, int]] = []
        sha = hashlib.sha256() if self._digest is None else None
        for chunk, shrinks in zip(self._chunks, self._shrinks, strict=True):
            if not shrinks:
                yield bytes(-self.stored % ALIGNMENT)
            start = self.stored
            if not shrinks:
                if sha is not None:
                    sha.update(chunk)
                yield chunk
            else:
                compressor = _zstd().ZstdCompressor(_LEVEL)
                view = memoryview(chunk)
                for offset in range(0, len(view), _STEP_BYTES):
                    step = view[offset : offset + _STEP_BYTES]
                    if sha is not None:
                        sha.update(step)
                    yield compressor.compress(step)
                yield compressor.flush()
            segments.append((int(shrinks), start, self.stored - start, len(chunk)))
        if sha is not None:
            self._digest = sha.digest()
        footer: bytes = msgpack.packb(segments)
        yield footer + len(footer).to_bytes(4, "little")


def decode(encoding: str, stored: memoryview, size: int) -> Content:
    """The serialised bytes again, writable.

    Args:
        encoding: As `Encoded` named it.
        stored: The stored bytes.
        size: Size of the serialised bytes.

    Raises:
        Undecodable: The stored bytes are damaged in a way that shows here; a digest is for the rest.
    """
    if encoding == RAW:
        return Content([stored])
    if encoding != ZSTD:
        raise Undecodable(f"the encoding '{encoding}' is not known to this version")
    pieces: list[memoryview] = []
    room = size
    for kind, start, length, expanded in _footer(stored):
        part = stored[start : start + length]
        room -= expanded
        if len(part) != length or room < 0:
            raise Undecodable("its list of segments is wrong")
        pieces.append(_expand(part, expanded) if kind else part)
    return Content(pieces)


def _footer(stored: memoryview) -> list[Any]:
    length = int.from_bytes(stored[-4:], "little")
    try:
        segments = msgpack.unpackb(stored[-4 - length : -4])
        if all(len(item) == 4 and all(type(field) is int and field >= 0 for field in item) for item in segments):
            return list(segments)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Undecodable(f"its list of segments cannot be read: {error}") from error
    raise Undecodable("its list of segments is wrong")


def _expand(frame: memoryview, size: int) -> memoryview:
    """A zstd frame's content, made step by step in the memory that it stays in."""
    zstd = _zstd()
    target = memory(size)
    decompressor = zstd.ZstdDecompressor()
    done = 0
    taken = 0
    try:
        while not decompressor.eof:
            step = frame[taken : taken + _STEP_BYTES] if decompressor.needs_input else b""
            if decompressor.needs_input and not step:
                raise Undecodable("a segment ends too early")
            taken += len(step)
            made = decompressor.decompress(step, _STEP_BYTES)
            if done + len(made) > size:
                raise Undecodable("a segment is too long")
            target[done : done + len(made)] = made
            done += len(made)
    except zstd.ZstdError as error:
        raise Undecodable(str(error)) from error
    if done != size:
        raise Undecodable("a segment is too short")
    return target


def memory(size: int) -> memoryview:
    """Writable memory of zeros; from the kernel where it is large, so that it is not cleared twice."""
    if size < _MAP_FROM_BYTES:
        return memoryview(bytearray(size))
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def _shrinks(chunk: Buffer) -> bool:
    """Whether samples of the chunk (begin, middle, end) shrink by a tenth."""
    size = len(chunk)
    if size < WORTH_TRYING_BYTES:
        return False
    view = memoryview(chunk)
    compress = _zstd().compress
    last = size - min(size, _SAMPLE_BYTES)
    starts = sorted({last * part // (_SAMPLES - 1) for part in range(_SAMPLES)})
    samples = [view[start : start + _SAMPLE_BYTES] for start in starts]
    return sum(len(compress(sample, _LEVEL)) for sample in samples) < _MUST_SHRINK_TO * sum(map(len, samples))


def _zstd() -> Any:
    # Imported with the first value that is large enough: most tasks have none.
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
