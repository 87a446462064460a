"""Where metadata and data are, in Metaflow's words: there is one place, that of evflow's settings."""

import evflow
from evflow import config

VERSION = evflow.__version__
_LOCAL = "local"


def default_metadata() -> str:
    """The provider of metadata, as Metaflow writes it."""
    return get_metadata()


def get_metadata() -> str:
    """The provider of metadata, as Metaflow writes it: `local@` and the folder of everything that evflow keeps here, or the log's URL."""
    url: str | None = config.get("redis_url")
    return f"{_LOCAL}@{config.get('home')}" if url is None else f"service@{config.shown('redis_url', url)}"


def metadata(ms: str) -> str:
    """Would choose another provider; here there is one, whose name is returned. EVFLOW_HOME and EVFLOW_REDIS_URL say which."""
    return get_metadata()


def get_version(public: bool = False) -> str:
    """The version of what stands for Metaflow: evflow's."""
    return VERSION
