"""What the container of an attempt runs. Pure.

    sh -c 'exec python3 -c "$EVFLOW_BOOTSTRAP"'      evflow is made importable (`bootstrap`)
    python -P -m evflow_executors.remote.container   the attempt: code, environment, output, report (`container`)

What is the same for all attempts of a step is kept apart from what is one attempt's own, because a platform may know the first by a
definition that is registered once. Nothing of it is secret: a password in the log's URL never leaves the executor, and credentials come
from the platform. Large orders (a join's) are too much for a variable: they go to the store, and the variable says where.
"""

import ast
import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Final, Literal
from urllib.parse import urlsplit

from evflow.core.values import field, value
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.pool_orders import PoolOrder

MOST_ORDER_BYTES: Final = 4_096
"""A larger order goes to the store: platforms bound what a job may carry (AWS Batch: 30 KiB)."""
ORDER, ORDER_AT, ATTEMPT = "EVFLOW_ORDER", "EVFLOW_ORDER_AT", "EVFLOW_ATTEMPT"
ORDERS_AT: Final = "EVFLOW_ORDERS_AT"
"""The digest of a sheet (`sheets`), in hexadecimal: the other three stand in the entry of this container's index."""
ARRAY_INDEX: Final = "AWS_BATCH_JOB_ARRAY_INDEX"
NODES: Final = "EVFLOW_NODES"
"""How many nodes a gang has whose orders the container is told; not set for one attempt by itself."""
FRAMEWORK: Final = "EVFLOW_FRAMEWORK"
OF_OBJECTS: Final = (ORDER_AT, ORDERS_AT, FRAMEWORK)
"""The variables that name an object of the store."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_OURS: Final = re.compile(r"EVFLOW_|PYTHONPATH$")
_SHELL: Final = (
    'p=$(command -v python3 || command -v python) || { echo "evflow: this image has no Python; evflow needs 3.11 or newer." >&2; exit 176; }; '
    'exec "$p" -c "$EVFLOW_BOOTSTRAP"'
)


@value
class ContainerSettings:
    """What containers are told, whatever they run.

    Attributes:
        version: Of evflow.
        store: URL of the store, as containers reach it.
        report_via: `log` or `store`.
        redis_url: The log as containers reach it; empty where they report by the store, or where the platform's secrets give it.
        framework: Where the archive of evflow is, `file://… or s3://…#sha256=…`; empty for none.
        requirements: What that needs, as pip takes it.
        install: What pip installs instead of all that; empty for nothing.
        env: Further variables.
        aws_endpoint: URL of another server than AWS's.
        aws_region: The region.
        s3: What they are told of the store's server, by the names of settings; nothing of it is secret.
        grace_s: What an attempt gets of the platform's grace.
    """

    version: str
    store: str
    report_via: Literal["log", "store"] = "log"
    redis_url: str = ""
    framework: str = ""
    requirements: tuple[str, ...] = ()
    install: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    aws_endpoint: str = ""
    aws_region: str = ""
    s3: Mapping[str, str] = field(default_factory=dict[str, str])
    grace_s: float = 20.0


@value
class ContainerCommand:
    """What a container runs.

    Attributes:
        argv: Its command.
        shared: Its variables that all attempts of a step have.
        own: Its variables beside those that are this attempt's.
    """

    argv: tuple[str, ...]
    shared: Mapping[str, str]
    own: Mapping[str, str]

    @property
    def env(self) -> Mapping[str, str]:
        """All its variables."""
        return {**self.shared, **self.own}


def packed_order(context: RunContext, order: AttemptOrder | Sequence[AttemptOrder], store: str) -> bytes:
    """What the container is told to do: a pool's order, without the places of the owner's machine.

    Args:
        context: Of the run, as the owner knows it.
        order: The attempt; or the nodes of a gang by index, which are told the same, and pick their own by JOB_COMPLETION_INDEX.
        store: URL of the store, as the container reaches it.
    """
    plain = replace(context, log_url="", store_url=store, lock_file="", log_folder="").pack()
    if isinstance(order, AttemptOrder):
        return PoolOrder.pack(plain, order, live=True)
    return PoolOrder.pack_gang(plain, order, live=True)


def command_of(
    attempt: str,
    packed: bytes,
    settings: ContainerSettings,
    *,
    executable: str | None = None,
    order_at: str = "",
    env: Mapping[str, str] | None = None,
    nodes: int = 0,
) -> ContainerCommand:
    """The command of an attempt.

    Args:
        attempt: Its name, `Flow/3/17.0`; of a gang that of node 0.
        packed: Its order.
        settings: What all containers are told.
        executable: The Python in the image, where the step names one; else the one on the path.
        order_at: The digest of the order in the store, in hexadecimal, where it is there.
        env: Variables that the step asks for.
        nodes: How many nodes' orders it is told; 0 where it is one attempt's.
    """
    argv = ("sh", "-c", _SHELL) if executable is None else (executable, "-c", bootstrap_source())
    shared = {**settings.env, **(env or {}), **_variables(settings)}
    if executable is None:
        shared["EVFLOW_BOOTSTRAP"] = bootstrap_source()
    own = {
        ATTEMPT: attempt,
        **({NODES: str(nodes)} if nodes else {}),
        **({ORDER_AT: order_at} if order_at else {ORDER: base64.b64encode(packed).decode()}),
    }
    return ContainerCommand(argv, shared, own)


def objects_read(variables: Mapping[str, str]) -> frozenset[bytes]:
    """The digests of what a container with these variables reads from the store before anything else: its order, its sheet, the archive of evflow."""
    found = (variables.get(name, "").rpartition("#sha256=")[2] for name in OF_OBJECTS)
    return frozenset(bytes.fromhex(text) for text in found if _DIGEST.fullmatch(text))


def unfit_variables(names: Sequence[str]) -> list[str]:
    """Which variables nobody but us may set in a container."""
    return [name for name in names if _OURS.match(name) and name not in ("EVFLOW_REDIS_URL", "EVFLOW_HOME")]


def has_password(url: str) -> bool:
    """Whether a log's URL holds one: it must not stand in the definition of a job."""
    return urlsplit(url).password is not None or "password=" in urlsplit(url).query


@cache
def bootstrap_source() -> str:
    """The source of `bootstrap` as it travels: without comments and docstrings."""
    tree = ast.parse(files("evflow_executors.remote").joinpath("bootstrap.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.unparse(tree)


def _variables(settings: ContainerSettings) -> dict[str, str]:
    found = {
        "EVFLOW_VERSION": settings.version,
        "EVFLOW_STORE": settings.store,
        "EVFLOW_REPORT_VIA": settings.report_via,
        "EVFLOW_REDIS_URL": settings.redis_url,
        FRAMEWORK: settings.framework,
        "EVFLOW_REQUIREMENTS": "\n".join(settings.requirements),
        "EVFLOW_INSTALL": settings.install,
        "EVFLOW_AWS_ENDPOINT": settings.aws_endpoint,
        "EVFLOW_AWS_REGION": settings.aws_region,
        **{f"EVFLOW_{name.upper()}": text for name, text in settings.s3.items()},
        "EVFLOW_CONTAINER_GRACE": f"{settings.grace_s:g}",
    }
    return {name: text for name, text in found.items() if text}
