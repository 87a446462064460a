"""`metaflow.metaflow_config` and `metaflow.util`: what public code reads of them."""

import os
from typing import Any

from evflow import config
from evflow.compat.metaflow.variables import THEIRS, settings

_DEFAULTS: dict[str, str | None] = {
    "DEFAULT_DATASTORE": "local",
    "DEFAULT_ENVIRONMENT": "local",
    "DEFAULT_METADATA": "local",
    "TEMPDIR": ".",
    **dict.fromkeys(("BATCH_CONTAINER_IMAGE", "BATCH_JOB_QUEUE", "CARD_LOCALROOT", "CLIENT_CACHE_PATH", "DATASTORE_SYSROOT_S3")),
    **dict.fromkeys(("DATATOOLS_S3ROOT", "KUBERNETES_CONTAINER_IMAGE", "KUBERNETES_NAMESPACE", "SERVICE_URL", "UI_URL")),
}
"""Settings that decide nothing here, and that a flow may read all the same."""
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


def temporary_folder() -> str | None:
    """The folder for temporary files, where somebody said which."""
    return settings(os.environ).get(f"{THEIRS}TEMPDIR")


def get_username() -> str:
    """Who starts runs."""
    user: str = config.get("user")
    return user


def resolve_identity() -> str:
    """Who starts runs, as a tag says it."""
    return f"user:{get_username()}"
