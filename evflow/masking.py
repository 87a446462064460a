"""Texts that must not be shown: the values of secrets that this process was given, and `***` in their place.

A process hides what it writes itself (`masked`): tracebacks, messages of failures, cards. What is printed goes through pipes to the
supervisor of attempts, children of the step's included, and is masked there, where lines are put together from several writes. So the
supervisor has to know the texts: an attempt tells it in the very pipes, before it prints anything that could hold one. An announcement is a
line of its own that never gets into a log:

    NUL evflow:mask: BASE64 LF          at most 4096 bytes: a pipe takes it whole

Texts are hidden in pieces: each line of a value, because output is read by lines, and long lines in parts.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

SHORTEST_CHARS: Final = 4
"""A shorter value is not hidden: `1` or `on` stand everywhere, and stars in their place would tell what they are."""
MASK: Final = b"***"
MOST_PIECE_BYTES: Final = 2048
ANNOUNCEMENT: Final = b"\0evflow:mask:"


class Masker:
    """Replaces texts by `***`."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """What is replaced."""
        return tuple(self._pieces)

    def add(self, pieces: Iterable[bytes]) -> None:
        """Replace these, too."""
        self._pieces += [piece for piece in dict.fromkeys(pieces) if piece and piece not in self._pieces]

    def masked(self, data: bytes) -> bytes:
        """The bytes with everything in them replaced; what overlaps is replaced once."""
        found = self._found(data)
        if not found:
            return data
        parts, begin = list[bytes](), 0
        for start, end in found:
            parts += [data[begin:start], MASK]
            begin = end
        return b"".join((*parts, data[begin:]))

    def cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Of output that goes on: what can be shown, masked, and the rest, which may be the beginning of something to be replaced."""
        held = max((_overlap(data, piece) for piece in self._pieces), default=0)
        place = len(data) - held
        for start, end in self._found(data):
            if start < place < end:
                place = end
        return self.masked(data[:place]), data[place:]

    def _found(self, data: bytes) -> list[tuple[int, int]]:
        """Where something is to be replaced, in order, and with something between them."""
        spans: list[tuple[int, int]] = []
        for piece in self._pieces:
            at = data.find(piece)
            while at >= 0:
                spans.append((at, at + len(piece)))
                at = data.find(piece, at + 1)
        apart: list[tuple[int, int]] = []
        for start, end in sorted(spans):
            if apart and start <= apart[-1][1]:
                apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
            else:
                apart.append((start, end))
        return apart


_here: Final = Masker()
_announce: Callable[[Iterable[bytes]], None] | None = None


def announce_by(announce: Callable[[Iterable[bytes]], None]) -> None:
    """Say how whoever captures this process's output is told; at once of what is known already."""
    global _announce
    _announce = announce
    if _here:
        announce(_here.pieces)


def hide(values: Iterable[str]) -> None:
    """From now on these never leave this process but where the user's code sends them."""
    found = [piece for value in values for piece in pieces(value)]
    _here.add(found)
    if _announce is not None:
        _announce(found)


def is_hidden(value: str) -> bool:
    """Whether a value is long enough to be hidden."""
    return any(len(line.strip()) >= SHORTEST_CHARS for line in value.splitlines())


def masked(text: str) -> str:
    """A text without what is hidden in this process."""
    if not _here:
        return text
    return _here.masked(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def masked_bytes(data: bytes) -> bytes:
    """The same, of bytes."""
    return _here.masked(data) if _here else data


def pieces(value: str) -> Iterator[bytes]:
    """What of a value is looked for: its lines, as they are and as Python, JSON, HTML and URLs write them."""
    from urllib.parse import quote, quote_plus

    lines = [line.strip() for line in value.splitlines()]
    forms = dict.fromkeys(form for form in _written(value) if "\n" not in form) if len(lines) > 1 else {}
    for line in lines:
        if len(line) >= SHORTEST_CHARS:
            forms |= dict.fromkeys((*_written(line), quote(line, safe=""), quote(line), quote_plus(line)))
    for form in forms:
        yield from _parts(form.encode("utf-8", "surrogatepass"))


def _written(text: str) -> Iterator[str]:
    """A text, as it is and as parts of literals, and these as HTML has them: a card shows what Python and JSON write.

    Python escapes a quotation mark where the text around it has both.
    """
    import html
    import json

    literals = (repr(text)[1:-1], repr(f"\"{text}'")[2:-3], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    for form in (text, *literals):
        escaped = html.escape(form)
        yield from (form, escaped, html.escape(form, quote=False), escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;"))


def announcement(found: Iterable[bytes]) -> Iterator[bytes]:
    """What is written into a pipe, a line each."""
    from binascii import b2a_base64

    for piece in found:
        yield ANNOUNCEMENT + b2a_base64(piece, newline=False) + b"\n"


def taken(data: bytes, masker: Masker) -> bytes:
    """Output without its announcements, which the masker takes."""
    import re
    from binascii import a2b_base64

    line = re.compile(re.escape(ANNOUNCEMENT) + rb"((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)\n")
    masker.add(a2b_base64(encoded) for encoded in line.findall(data))
    return line.sub(b"", data)


def _parts(form: bytes) -> Iterator[bytes]:
    """The form, or parts of it that are about as long as each other."""
    count = -(-len(form) // MOST_PIECE_BYTES)
    size = -(-len(form) // count)
    for begin in range(0, len(form), size):
        yield form[begin : begin + size]


def _overlap(data: bytes, piece: bytes) -> int:
    """How many bytes at the end of the data may be the beginning of the piece."""
    for size in range(min(len(piece) - 1, len(data)), 0, -1):
        if data.endswith(piece[:size]):
            return size
    return 0
