"""The Lua scripts, by name, with their digests."""

from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

from evflow.log.wire import Argument, Command

_FOLDER = Path(__file__).parent / "lua"
NAMES = (
    "append",
    "drop_run",
    "flow_append",
    "lease",
    "limit",
    "pool_claim",
    "pool_life",
    "pool_order",
    "project",
    "publish",
    "report",
    "request_run",
    "schedulers",
    "trim_flow",
)


class Script(NamedTuple):
    """A script as the server knows it."""

    name: str
    source: bytes
    sha: str


@cache
def script(name: str) -> Script:
    """The script in `lua/<name>.lua`."""
    source = (_FOLDER / f"{name}.lua").read_bytes()
    # Redis names scripts by SHA-1; nothing is protected by it.
    return Script(name, source, sha1(source, usedforsecurity=False).hexdigest())


def invocation(name: str, keys: tuple[str, ...], *arguments: Argument) -> Command:
    """The command that runs a script which the server holds."""
    return ("EVALSHA", script(name).sha, len(keys), *keys, *arguments)


def with_source(command: Command) -> Command:
    """The same run of a script for a server that does not hold it; it does afterwards."""
    _, sha, *rest = command
    source = next(known.source for known in map(script, NAMES) if known.sha == sha)
    return ("EVAL", source, *rest)


def load_scripts() -> None:
    """Read all scripts, so that no later call touches a file."""
    for name in NAMES:
        script(name)
