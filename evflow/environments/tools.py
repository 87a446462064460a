"""How uv is found and called, with the settings that pip has on this machine.

Who has told pip where packages come from has told it for all of Python. uv reads its own settings only; so what pip knows
(its variables, then its files) is handed to it where nothing is said to uv itself.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from configparser import ConfigParser, Error as UnreadableSettings
from pathlib import Path
from typing import Final

from evflow.environments.errors import ToolMissing

PYPI: Final = "PyPI"
_PIP_TO_UV: Final = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "cert": ("SSL_CERT_FILE", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "proxy": ("ALL_PROXY", " "),
}
"""pip's name of a setting to uv's variable, and what separates its values there."""
_ALSO: Final = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
"""Older names of uv's, which count as said to it, too."""
_PIP_VARIABLES: Final = {"timeout": ("PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT")}


class Failed(Exception):
    """A tool ended with another code than 0; the text is what it said."""


def uv_binary() -> str:
    """The path of uv: of the package of that name, else on the PATH.

    Raises:
        ToolMissing: There is none.
    """
    try:
        from uv import find_uv_bin  # a soft dependency

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise ToolMissing("pypi", "uv")
    return found


def run_uv(arguments: Sequence[str], *, stdin: str = "", more: Mapping[str, str] | None = None) -> str:
    """Run uv; return what it printed.

    Raises:
        Failed: It could not do what it was asked to.
        ToolMissing: It is not installed.
    """
    variables = {**os.environ, **pip_settings(os.environ), **(more or {})}
    told = [*arguments, "--no-index"] if arguments[0] == "pip" and has_no_index(os.environ) else arguments  # uv has no variable for it
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT", "UV_PYTHON"):  # what is said here of another environment
        variables.pop(name, None)
    done = subprocess.run(
        [uv_binary(), "--no-progress", *told], input=stdin, capture_output=True, text=True, env=variables, check=False, close_fds=False
    )
    if done.returncode:
        raise Failed(done.stderr.strip() or f"(exit code {done.returncode})")
    return done.stdout


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip is told, as uv's variables; nothing of what uv is told itself."""
    files = _pip_files(environ)
    found: dict[str, str] = {}
    for name, (variable, separator) in _PIP_TO_UV.items():
        if environ.get(variable) or environ.get(_ALSO.get(variable, "")):
            continue
        names = _PIP_VARIABLES.get(name, (f"PIP_{name.upper().replace('-', '_')}",))
        said = next((environ[one] for one in names if environ.get(one)), "") or files.get(name, "")
        if said.strip():
            found[variable] = separator.join(said.split())
    if "UV_INDEX" in found and not environ.get("UV_INDEX_STRATEGY"):
        found["UV_INDEX_STRATEGY"] = (
            "unsafe-best-match"  # pip takes the best version of all its indexes; uv stops at the first that has any
        )
    return found


def has_no_index(environ: Mapping[str, str]) -> bool:
    """Whether pip is told to ask no index, only the places of `find-links`."""
    said = environ.get("PIP_NO_INDEX") or _pip_files(environ).get("no-index", "")
    return said.lower() in {"1", "true", "yes", "on"}


def index() -> str:
    """Where packages come from, for people: without passwords."""
    variables = {**os.environ, **pip_settings(os.environ)}
    links = variables.get("UV_FIND_LINKS", "")
    if has_no_index(os.environ):
        return links.replace(",", ", ") or "no index at all"
    main = variables.get("UV_DEFAULT_INDEX") or variables.get("UV_INDEX_URL") or PYPI
    others = (variables.get("UV_INDEX") or variables.get("UV_EXTRA_INDEX_URL") or "").split()
    return ", ".join(dict.fromkeys(without_password(one) for one in (main, *others, *links.split(",")) if one))


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    head, slashes, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{head}://{user.partition(':')[0]}@{host}" if slashes and at else url


def _pip_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Pip's settings from its files, in its order: a later one overrides (https://pip.pypa.io/en/stable/topics/configuration/)."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return {}
    home = Path(environ.get("HOME") or Path.home())
    shared = environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
    places = [*(Path(folder) / "pip/pip.conf" for folder in shared), Path("/etc/pip.conf"), home / ".pip/pip.conf", own]
    found: dict[str, str] = {}
    for place in [*places, *([Path(named)] if named else [])]:
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(place, encoding="utf-8")
        except (UnreadableSettings, UnicodeDecodeError):
            continue  # pip would refuse it; what it says is then not known to us either
        for section in ("global", "install"):
            if parser.has_section(section):
                found.update({name.replace("_", "-"): text for name, text in parser.items(section)})
    return found
