"""`inspect_spin`: reading what `spin --persist` kept, as runs are read."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from evflow.client.connection import SharedLog, look_at, shared
from evflow.core.spin import FOLDER
from evflow.errors import UsageError


class NoSpinsThere(UsageError):
    """The folder has no spins that were kept."""

    code = "no-spins-there"

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"There are no spins in '{root}': it has no folder {FOLDER}.", "`python flow.py spin PATH --persist` makes one there."
        )


class SpinInspection(AbstractContextManager["SpinInspection"]):
    """The client looks at spins; as a context until its end, else until `close`."""

    def __init__(self, before: SharedLog | None) -> None:
        self._before = before

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Look at what was looked at before."""
        self.close()

    def close(self) -> None:
        """Look at what was looked at before. Objects that were made meanwhile stay what they are."""
        look_at(self._before)


def inspect_spin(root: str | Path = ".") -> SpinInspection:
    """Let `Flow`, `Run`, `Task` and the others that are made from now on be of the spins that were kept in a folder.

    `with inspect_spin("."):` does so for a while; else it holds until `close` of what this returns.

    Args:
        root: The folder in which `spin --persist` was called.

    Raises:
        NoSpinsThere: None was kept there.
    """
    folder = Path(root).absolute() / FOLDER
    if not folder.is_dir():
        raise NoSpinsThere(Path(root))
    return SpinInspection(look_at(shared(str(folder))))
