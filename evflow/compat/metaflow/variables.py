"""Metaflow's variables of the environment, and its files of settings, as evflow's variables.

A variable of evflow's own that is set wins. Then comes Metaflow's variable, then the same name in `.metaflow/config.json` of this folder or
one above, then in `config.json` or `config_<METAFLOW_PROFILE>.json` in METAFLOW_HOME. What has no counterpart here is left alone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from evflow.errors import UsageError

THEIRS: Final = "METAFLOW_"
OURS: Final = "EVFLOW_"
_RUN: Final = "RUN_"
_SETTINGS: Final = {
    "DATASTORE_SYSROOT_LOCAL": "STORE",
    "DATATOOLS_S3ROOT": "S3_ROOT",
    "DEFAULT_DECOSPECS": "DEFAULT_DECOSPECS",
    "DEFAULT_PACKAGE_SUFFIXES": "PACKAGE_SUFFIXES",
    "FLOW_CONFIG": "FLOW_CONFIG",
    "S3_ENDPOINT_URL": "S3_ENDPOINT",
    "S3_SERVER_SIDE_ENCRYPTION": "S3_SSE",
    "FLOW_CONFIG_VALUE": "FLOW_CONFIG_VALUE",
    "USER": "USER",
}
"""A variable, without its prefix, there and here."""
_OPTIONS_OF_RUN: Final = frozenset({"MAX_LOG_SIZE", "MAX_NUM_SPLITS", "MAX_WORKERS", "NAMESPACE"})
"""Options of `run` that are settings here; what else begins with RUN_ gives a parameter."""
_FOLDER: Final = ".evflow"
"""Where, in the folder of DATASTORE_SYSROOT_LOCAL, the store is, as `.metaflow` is there."""


class SettingsUnreadable(UsageError):
    """A file of Metaflow's settings is named or found, and cannot be read."""

    code = "metaflow-settings-unreadable"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path}: this file of Metaflow's settings cannot be read: {why}.", "Mend it, move it away, or unset METAFLOW_PROFILE."
        )


def translated(environment: Mapping[str, str], folder: Path | None = None) -> dict[str, str]:
    """The variables of evflow that follow from Metaflow's, but for those that are set already.

    Args:
        environment: All variables.
        folder: Where files of settings are looked for; without it, the current folder.

    Raises:
        SettingsUnreadable: There is such a file, and it cannot be read.
    """
    given = {**_from_files(environment, Path.cwd() if folder is None else folder), **environment}
    found = {name: value for theirs, value in given.items() if value and (name := _name(theirs))}
    if f"{OURS}STORE" in found:
        found[f"{OURS}STORE"] = str(Path(found[f"{OURS}STORE"]).expanduser() / _FOLDER)
    return {name: value for name, value in found.items() if not environment.get(name)}


def settings(environment: Mapping[str, str], folder: Path | None = None) -> dict[str, str]:
    """All of Metaflow's settings that somebody made, by the name of their variable.

    Raises:
        SettingsUnreadable: As for `translated`.
    """
    given = {**_from_files(environment, Path.cwd() if folder is None else folder), **environment}
    return {name: value for name, value in given.items() if name.startswith(THEIRS)}


def origins(names: Iterable[str]) -> dict[str, str]:
    """For each variable of evflow's that was made of one of Metaflow's, the latter."""
    found = {f"{OURS}{ours}": f"{THEIRS}{theirs}" for theirs, ours in _SETTINGS.items()}
    found |= {f"{OURS}{option}": f"{THEIRS}{_RUN}{option}" for option in _OPTIONS_OF_RUN}
    return {name: found.get(name, THEIRS + name.removeprefix(OURS)) for name in names}


def _name(theirs: str) -> str:
    """Our variable for one of theirs; an empty string where there is none."""
    if not theirs.startswith(THEIRS):
        return ""
    name = theirs.removeprefix(THEIRS)
    if name in _SETTINGS:
        return OURS + _SETTINGS[name]
    if not name.startswith(_RUN):
        return ""
    option = name.removeprefix(_RUN)
    return OURS + option if option in _OPTIONS_OF_RUN else OURS + name


def _from_files(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _files(environment, folder):
        for name, value in _read(path).items():
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


def _files(environment: Mapping[str, str], folder: Path) -> Iterator[Path]:
    """The files that are there, the weakest first."""
    profile = environment.get("METAFLOW_PROFILE")
    home = Path(environment.get("METAFLOW_HOME") or "~/.metaflowconfig").expanduser()
    own = home / (f"config_{profile}.json" if profile else "config.json")
    if profile and not own.exists():
        raise SettingsUnreadable(own, f"there is none, and METAFLOW_PROFILE is '{profile}'")
    local = next((above for above in (folder, *folder.parents) if (above / ".metaflow").is_dir()), None)
    yield from (path for path in (own, *([] if local is None else [local / ".metaflow" / "config.json"])) if path.is_file())


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] | list[Any] | str | float | None = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsUnreadable(path, str(error)) from None
    if not isinstance(found, dict):
        raise SettingsUnreadable(path, "it is no JSON object")
    return found
