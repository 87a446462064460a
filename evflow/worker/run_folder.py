"""Where a host keeps what belongs to a run while attempts of it run there."""

from pathlib import Path

from evflow.core.ids import RunId
from evflow.core.values import value


@value
class RunFolder:
    """A run's folder on this host: the locks of its attempts."""

    path: Path

    @classmethod
    def of(cls, home: Path, run: RunId) -> "RunFolder":
        """The folder of a run below EVFLOW_HOME."""
        return cls(home / "runs" / run.flow / str(run.number))

    @property
    def locks(self) -> Path:
        """The file of the attempts' locks."""
        return self.path / "locks"

    def make(self) -> None:
        """Make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
