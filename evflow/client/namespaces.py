"""Namespaces: a namespace is a tag, and while one is in force only runs with that tag are seen.

The order: what `namespace` said in this process; inside a step, the namespace of the run; the setting `namespace`,
which is `user:<name>` where nobody set it. `None` is the global namespace, which holds everything.
"""

import sys
from typing import Final

from evflow import config
from evflow.errors import UsageError


class BadNamespace(UsageError):
    """A namespace is a tag or None."""

    code = "bad-namespace"

    def __init__(self, given: object) -> None:
        super().__init__(f"A namespace is a tag, like 'user:ada', or None for all runs; not {given!r}.")


class _Unsaid:
    """Nobody called `namespace` yet."""


_UNSAID: Final = _Unsaid()
_said: str | _Unsaid | None = _UNSAID


def namespace(ns: str | None) -> str | None:
    """Show only runs with this tag, from now on and in this process; None shows all. Returns the namespace in force.

    Raises:
        BadNamespace: It is neither a text nor None.
    """
    global _said
    given: object = ns  # whatever the annotation says
    if not (given is None or isinstance(given, str)) or given == "":  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadNamespace(ns)
    _said = ns
    return ns


def get_namespace() -> str | None:
    """The namespace in force, None for the global one."""
    if not isinstance(_said, _Unsaid):
        return _said
    flow = sys.modules.get("evflow.flow.current")
    if flow is not None and flow.current.is_running_flow:
        inside: str | None = flow.current.get("namespace")
        if inside:
            return inside
    return default()


def default_namespace() -> str | None:
    """Go back to the namespace of the settings, which is the user's own unless they say otherwise; returns it."""
    return namespace(default())


def default() -> str | None:
    """The namespace of the settings."""
    found: str | None = config.get("namespace")
    return found


def forget() -> None:
    """As if nobody had called `namespace`."""
    global _said
    _said = _UNSAID
