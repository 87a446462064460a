"""What the first `import metaflow` of a process puts in force, beside the names."""

import os

from evflow.compat.metaflow.variables import translated
from evflow.flow import dialect


def begin() -> None:
    """Put Metaflow's rules in force: its stricter language, and its variables."""
    dialect.speak(dialect.METAFLOW)
    os.environ.update(translated(os.environ))
