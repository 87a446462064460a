"""Packages made by hand, in an index or a channel on the local disk: environments are tested against those, without a network."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

REAL_HOME = Path.home()
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The version of Python of these tests."""


def wheel(folder: Path, name: str, version: str, code: str = "", *, requires: str = "") -> Path:
    """A wheel of one module, which says its own version."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": f"__version__ = {version!r}\n{code}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{place},,\n" for place in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in files.items():
            archive.writestr(zipfile.ZipInfo(place), text)  # of no date: the same bytes each time
    return path


def own_packages_for(folder: Path, python: str) -> Path | None:
    """An index with what evflow needs on another Python, from the real one; None where that does not answer."""
    from evflow.environments.support import requirements

    told = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", python, "--dest", str(folder)]
    done = subprocess.run([*told, *requirements()], env={**os.environ, "HOME": str(REAL_HOME)}, capture_output=True, check=False)
    return folder if done.returncode == 0 else None


def only(index: Path) -> dict[str, str]:
    """The variables with which uv knows this index and no other one."""
    return {"UV_FIND_LINKS": str(index), "PIP_NO_INDEX": "1", "UV_PYTHON_DOWNLOADS": "never", "PIP_CONFIG_FILE": os.devnull}


def conda_channel(folder: Path, *packages: tuple[str, str]) -> Path:
    """A channel with a `python` that is this one, and packages of one module each, which says its own version."""
    subdir = conda_subdir()
    records: dict[str, Any] = {}
    (folder / subdir).mkdir(parents=True, exist_ok=True)
    (folder / "noarch").mkdir(exist_ok=True)
    site = f"lib/python{HERE}/site-packages"
    base = os.path.realpath(sys.executable)
    version = ".".join(map(str, sys.version_info[:3]))
    settings = f"home = {Path(base).parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    _conda_package(
        folder / subdir, records, "python", version, {"pyvenv.cfg": settings, f"{site}/README": "modules"}, links={"bin/python": base}
    )
    for name, number in packages:
        _conda_package(folder / subdir, records, name, number, {f"{site}/{name}.py": f"__version__ = {number!r}\n"}, depends=["python"])
    for place, found in ((subdir, records), ("noarch", {})):
        plain = {"info": {"subdir": place}, "packages": found, "packages.conda": {}, "repodata_version": 1}
        (folder / place / "repodata.json").write_text(json.dumps(plain))
    return folder


def conda_subdir() -> str:
    """What conda calls this platform."""
    machine = os.uname().machine
    if sys.platform == "darwin":
        return "osx-arm64" if machine == "arm64" else "osx-64"
    return {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[machine]


def _conda_package(
    folder: Path,
    records: dict[str, Any],
    name: str,
    version: str,
    files: dict[str, str],
    *,
    links: dict[str, str] | None = None,
    depends: list[str] | None = None,
) -> None:
    about = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": depends or [], "subdir": folder.name}
    paths: list[dict[str, Any]] = [
        {"_path": place, "path_type": "hardlink", "sha256": hashlib.sha256(text.encode()).hexdigest(), "size_in_bytes": len(text)}
        for place, text in files.items()
    ]
    paths += [
        {"_path": place, "path_type": "softlink", "sha256": hashlib.sha256(b"").hexdigest(), "size_in_bytes": 0} for place in links or {}
    ]
    said = {**files, "info/index.json": json.dumps(about), "info/paths.json": json.dumps({"paths": paths, "paths_version": 1})}
    path = folder / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        for place, text in said.items():
            entry = tarfile.TarInfo(place)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        for place, target in (links or {}).items():
            entry = tarfile.TarInfo(place)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    data = path.read_bytes()
    records[path.name] = {
        **about,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
    }
