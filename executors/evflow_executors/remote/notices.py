"""What people are told of a platform: each text once, however often what it says is tried."""

from collections.abc import Callable
from typing import Final

MOST_SAID: Final = 1_000
"""Texts that are kept to know them again; behind so many all may be told once more."""


class Notices:
    """What was told.

    Args:
        on_notice: Hears what is new.
    """

    def __init__(self, on_notice: Callable[[str], None]) -> None:
        self._on_notice = on_notice
        self._said: set[str] = set()

    def tell(self, text: str) -> None:
        """Tell this, unless it was told."""
        if text not in self._said:
            if len(self._said) >= MOST_SAID:
                self._said.clear()
            self._said.add(text)
            self._on_notice(text)
