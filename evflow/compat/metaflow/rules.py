"""What the first `import metaflow` of a process puts in force, beside the names."""

import os
from typing import Final

from evflow.compat.metaflow.errors import say_variables
from evflow.compat.metaflow.variables import SettingsUnreadable, origins, translated
from evflow.flow import dialect
from evflow.flow.decorators.base import raise_at_import

_ours: Final[dict[str, str]] = {}
"""The variables of evflow's that were made here of Metaflow's."""


def begin() -> None:
    """Put Metaflow's rules in force: its stricter language, and its variables."""
    dialect.speak(dialect.METAFLOW)
    take_variables()


def take_variables() -> None:
    """Take Metaflow's variables as they are now: a flow's file may set some before it starts its flow.

    Raises:
        SettingsUnreadable: A file of Metaflow's settings cannot be read. It is shown without a traceback.
    """
    for name, value in _ours.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _ours.clear()
    try:
        _ours.update(translated(os.environ))
    except SettingsUnreadable as error:
        raise_at_import(error)
    os.environ.update(_ours)
    say_variables(origins(_ours))
