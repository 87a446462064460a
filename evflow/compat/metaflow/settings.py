"""`metaflow.metaflow_config` and `metaflow.util`: what public code reads of them."""

import os
from typing import Any

from evflow import config
from evflow.compat.metaflow.variables import THEIRS, settings

_DEFAULTS = {
    "DEFAULT_DATASTORE": "local",
    "DEFAULT_ENVIRONMENT": "local",
    "DEFAULT_METADATA": "local",
    "TEMPDIR": ".",
}
MAX_ATTEMPTS = 6


def __getattr__(name: str) -> Any:
    if name == "USER":
        return get_username()
    if name == "DATASTORE_SYSROOT_LOCAL":
        return config.get("store")
    if name == "DEFAULT_DECOSPECS":
        return " ".join(config.get("default_decospecs"))
    if name in _DEFAULTS:
        return settings(os.environ).get(THEIRS + name, _DEFAULTS[name])
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def get_username() -> str:
    """Who starts runs."""
    user: str = config.get("user")
    return user


def resolve_identity() -> str:
    """Who starts runs, as a tag says it."""
    return f"user:{get_username()}"
