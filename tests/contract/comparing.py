"""One program of acts carried out at a real server and at its simulation: both must answer the same, act by act."""

from collections.abc import Sequence
from typing import Any, Protocol


class Doer(Protocol):
    """Carries acts out and answers in terms that compare."""

    async def do(self, act: tuple[Any, ...]) -> object:
        """Carry out an act: its name and what it is about."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


async def compare(real: Doer, simulated: Doer, acts: Sequence[tuple[Any, ...]]) -> None:
    """Carry the acts out at both.

    Raises:
        AssertionError: They differ; with the act.
    """
    try:
        for number, act in enumerate(acts):
            expected, found = [await program.do(act) for program in (real, simulated)]
            assert found == expected, f"act {number}: {act}"
    finally:
        for program in (real, simulated):
            await program.aclose()
