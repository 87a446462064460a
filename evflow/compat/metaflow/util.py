"""Small helpers of Metaflow's that programs around flows import: texts and bytes."""

from typing import Any


def is_stringish(x: object) -> bool:
    """Whether something is a text or bytes."""
    return isinstance(x, str | bytes)


def to_unicode(x: Any) -> str:
    """Bytes as the text that they are in UTF-8; anything else as its text."""
    return x.decode("utf-8") if isinstance(x, bytes) else str(x)


def to_bytes(x: Any) -> bytes:
    """A text, or the text of anything, in UTF-8; bytes as they are."""
    return x if isinstance(x, bytes) else str(x).encode("utf-8")


class IncludedFile:
    """What Metaflow keeps in place of an included file's content; evflow keeps the content, so nothing is one of these."""
