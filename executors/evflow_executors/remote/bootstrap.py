"""The first thing that runs in a container: it makes evflow importable there, then becomes `evflow_executors.remote.container`.

Its source travels with the job, so it imports the standard library alone, and is short. On a Python older than 3.11 it says so.

Where the image has the wanted version of evflow, that is used. Else pip installs into a folder of its own below EVFLOW_HOME, so neither root nor a
writable system is needed: what EVFLOW_INSTALL names, or the archive of the executor's own evflow (EVFLOW_FRAMEWORK) and what it needs.
"""

# It imports as little as it can, and prints, since nobody else does.
# ruff: noqa: PTH103, PTH118, PTH123, S606, T201, BLE001

import os
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

EXIT_NO_PYTHON = 176
EXIT_NO_EVFLOW = 177
EXIT_NO_ORDER = 178
EXIT_NO_LOG = 179
EXIT_NO_STORE = 180
OLDEST = (3, 11)


def main() -> None:
    """Do it; never returns."""
    if sys.version_info < OLDEST:
        leave(EXIT_NO_PYTHON, f"evflow needs Python 3.11 or newer; this image has {sys.version.split()[0]}")
    home = os.environ.setdefault("EVFLOW_HOME", "/tmp/evflow")  # noqa: S108 - the container's own
    wanted = os.environ.get("EVFLOW_VERSION", "")
    if found_version() != wanted:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (*installed(home, wanted), os.environ.get("PYTHONPATH"))))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "evflow_executors.remote.container"])


def found_version() -> str:
    """The version of evflow in the image; nothing where it has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("evflow")
    except PackageNotFoundError:
        return ""


def installed(home: str, wanted: str) -> list[str]:
    """Install what is missing; the folders that hold it."""
    folder, framework = os.path.join(home, "packages"), os.environ.get("EVFLOW_FRAMEWORK", "")
    os.makedirs(folder, exist_ok=True)
    if not framework:
        pip(folder, [os.environ.get("EVFLOW_INSTALL") or f"evflow=={wanted}"])
        return [folder]
    needs = os.environ.get("EVFLOW_REQUIREMENTS", "").split("\n")
    missing = [need for need in needs if need and not has(need)]
    if missing:
        pip(folder, missing)
    return [fetched(framework, home, folder), folder]


def has(requirement: str) -> bool:
    """Whether the image has a package that is needed, in whatever version."""
    import re
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
    except PackageNotFoundError:
        return False
    return True


def pip(folder: str, wanted: list[str]) -> None:
    """Have pip install into a folder; it says itself what is wrong."""
    print(f"evflow: pip installs {len(wanted)} packages; an image that has them begins faster", flush=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--target",
        folder,
        *wanted,
    ]
    if subprocess.call(command):
        leave(EXIT_NO_EVFLOW, "pip could not install evflow. An image with evflow in it, or PIP_INDEX_URL in container_env, helps")


def fetched(url: str, home: str, folder: str) -> str:
    """The archive of the framework, unpacked."""
    import hashlib
    import shutil

    place, _, digest = url.partition("#sha256=")
    target = os.path.join(home, f"evflow-{digest[:16]}")
    try:
        if place.startswith("s3://"):
            data = from_s3(place, folder)
        else:
            with open(place.removeprefix("file://"), "rb") as file:
                data = file.read()
    except Exception as error:
        leave(EXIT_NO_EVFLOW, f"the archive of evflow, {place}, cannot be read: {type(error).__name__}: {error}")
    if hashlib.sha256(data).hexdigest() != digest:
        leave(EXIT_NO_EVFLOW, f"the archive of evflow, {place}, is damaged")
    with open(f"{target}.zip", "wb") as file:
        file.write(data)
    shutil.unpack_archive(f"{target}.zip", target)
    return target


def from_s3(place: str, folder: str) -> bytes:
    """An object of S3, by boto3: that of the image, or one that pip installs."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("boto3") is None:
        pip(folder, ["aioboto3>=15.5"])
        sys.path.insert(0, folder)
    boto3 = import_module("boto3")
    bucket, _, key = place.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=os.environ.get("EVFLOW_S3_ENDPOINT") or os.environ.get("EVFLOW_AWS_ENDPOINT") or None)
    return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())


def leave(code: int, why: str) -> "NoReturn":
    """Say why nothing can be done, and end."""
    sys.stderr.write(f"evflow: {why}.\n")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
