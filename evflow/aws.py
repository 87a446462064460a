"""How evflow talks to AWS, for whatever does: one session, explicit options, one way to say what went wrong.

The client (aioboto3) is no dependency of evflow but of its extra `aws`. Importing it takes a second, and making a client reads files: `client`
does both in a thread. Credentials come from the platform's own chain alone (variables, profile, container, instance, web identity); evflow has no setting for them.

botocore's own retries are off: whoever calls knows whether a repeat is right, counts the failures and says them.
"""

import random
import re
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

from evflow.errors import EnvironmentProblem
from evflow.imports import framework_view

CONNECT_S: Final = 5.0
READ_S: Final = 30.0
"""Longer than the longest wait of a queue, 20 s."""
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
_REGION_IN_HOST: Final = re.compile(r"(?:^|\.)(?:sqs(?:-fips)?\.|(?=[a-z0-9-]+\.queue\.))([a-z]{2}(?:-[a-z]+)+-\d+)\.")
_BUSY: Final = (
    "Throttl",
    "TooManyRequests",
    "RequestLimitExceeded",
    "SlowDown",
    "OverLimit",
    "ServiceUnavailable",
    "InternalError",
    "InternalFailure",
)
_NOT_ALLOWED: Final = ("AccessDenied", "Unauthorized", "Forbidden", "403")
_NOT_KNOWN: Final = (
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "UnrecognizedClient",
    "InvalidAccessKeyId",
    "RequestExpired",
)
CERTIFICATES_UNREADABLE: Final = "CertificatesUnreadable"
"""What is wrong where the certificates to trust cannot be read; the client says no more than that it got no answer."""
_PERMANENT: Final = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "NoRegionError",
    "ProfileNotFound",
    "ConfigParseError",
    "ParamValidationError",
    CERTIFICATES_UNREADABLE,
)
_NOT_THERE: Final = ("NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket", "404")


NO_PROFILE: Final = "Compare AWS_PROFILE with what `aws configure list-profiles` shows."
NO_CONFIG: Final = "Mend that file, or name another one with AWS_CONFIG_FILE."
NO_CERTIFICATES: Final = (
    "Compare AWS_CA_BUNDLE, or `ca_bundle` of the profile, with what there is: it names a file with the certificates to trust."
)


class AwsMissing(EnvironmentProblem):
    """The client of AWS is not installed."""

    code = "aws-missing"

    def __init__(self, wanted_by: str) -> None:
        super().__init__(f"{wanted_by} needs the client of AWS, which is not installed.", "Install it: `pip install 'evflow[aws]'`.")


class AwsProblem(EnvironmentProblem):
    """AWS did not do what it was asked for.

    Attributes:
        kind: AWS's code, or the client's name of the condition.
        transient: Waiting may help, without anybody changing anything.
    """

    code = "aws-problem"

    def __init__(self, message: str, hint: str, kind: str, transient: bool) -> None:
        super().__init__(message, hint)
        self.kind = kind
        self.transient = transient


def installed(wanted_by: str) -> None:
    """See that the client is there, without importing it.

    Raises:
        AwsMissing: It is not.
    """
    from importlib.util import find_spec

    if find_spec("aioboto3") is None:
        raise AwsMissing(wanted_by)


def region_of(url: str) -> str | None:
    """The region that a queue's URL names, if it does."""
    found = _REGION_IN_HOST.search(urlsplit(url).hostname or "")
    return found[1] if found else None


def origin_of(url: str) -> str:
    """Where a queue's URL leads: the service is asked there, so private endpoints and other servers need no further setting."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@asynccontextmanager
async def client(
    service: str,
    *,
    region: str | None = None,
    endpoint: str | None = None,
    credentials: Mapping[str, str] | None = None,
    connections: int = 8,
) -> AsyncGenerator[Any]:
    """A client of a service, for as long as the block; its calls are coroutines.

    Args:
        service: `sqs`, `s3`, ….
        region: None: what the platform says.
        endpoint: URL of another server than AWS's; None: what the platform says.
        credentials: Those of a role that was taken on, by boto's names; None: what the platform says.
        connections: How many connections the client may have at once.

    Raises:
        AwsMissing: The client is not installed.
        AwsProblem: No region is known, or no credentials are to be had.
    """
    import anyio.to_thread

    with explained(f"make a client of {service.upper()}"):
        session, options = await anyio.to_thread.run_sync(prepared, service, connections)
        if service == "s3":
            check_profile(session)
        made = session.client(service, region_name=region, endpoint_url=endpoint, config=options, **(credentials or {}))
        opened = await made.__aenter__()
    try:
        yield opened
    finally:
        with anyio.CancelScope(shield=True):  # closes sockets
            await made.__aexit__(None, None, None)


_preparing = threading.Lock()


def prepared(service: str, connections: int = 8) -> tuple[Any, Any]:
    """A session that has read what a client of the service needs, and the client's options. Blocking: up to two seconds.

    Args:
        service: `sqs`, `s3`, ….
        connections: How many connections the client may have at once.

    Raises:
        AwsMissing: The client is not installed.
    """
    with _preparing, framework_view():
        try:
            aioboto3, config = import_module("aioboto3"), import_module("aiobotocore.config")  # published without annotations
        except ModuleNotFoundError as error:
            raise AwsMissing(f"A client of {service.upper()}") from error
        session: Any = aioboto3.Session()
        loader = session._session.get_component("data_loader")  # noqa: SLF001 - kept by the loader, so that making a client reads nothing
        for name in ("endpoints", "partitions", "sdk-default-configuration"):
            loader.load_data(name)
        for kind in ("service-2", "endpoint-rule-set-1"):
            loader.load_service_model(service, kind)
        options = config.AioConfig(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=connections,
            tcp_keepalive=True,
            user_agent_extra="evflow",
        )
        return session, options


def check_profile(session: Any) -> None:
    """See that what the profile says of `s3` are settings of it: a client of S3 takes that for granted, and fails as if it had a defect.

    Raises:
        BotoCoreError: It is not, or the profile cannot be read.
    """
    core = session._session  # noqa: SLF001 - the session that boto's wraps
    said = core.get_scoped_config().get("s3")
    if said is not None and not isinstance(said, Mapping):
        path = core.get_config_variable("config_file")
        raise import_module("botocore.exceptions").ConfigParseError(path=f"{path} (the settings of `s3` stand in lines below it, indented)")


@contextmanager
def explained(doing: str) -> Generator[None]:
    """Turn what the client raises within the block into an `AwsProblem`.

    Args:
        doing: What is done there, as it goes on after "could not".
    """
    try:
        yield
    except AwsMissing:
        raise
    except Exception as error:
        problem = problem_of(doing, error)
        if problem is None:
            raise
        raise problem from error


def problem_of(doing: str, error: Exception) -> AwsProblem | None:
    """What an error of the client means; None where it is none."""
    known = import_module("botocore.exceptions")
    if isinstance(error, known.ClientError):
        told: Any = getattr(error, "response", {})
        kind = str(told.get("Error", {}).get("Code", "unknown"))
        text = str(told.get("Error", {}).get("Message", "")) or kind
        status = int(told.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        transient = status >= 500 or status == 429 or any(word in kind for word in _BUSY)
        return AwsProblem(f"AWS could not {doing}: {kind}: {text}", _hint(kind), kind, transient)
    if isinstance(error, known.BotoCoreError):
        kind = CERTIFICATES_UNREADABLE if lacks_certificates(error) else type(error).__name__
        permanent = kind in _PERMANENT
        return AwsProblem(f"AWS could not be asked to {doing}: {error}", _hint(kind), kind, not permanent)
    return None


def lacks_certificates(error: Exception) -> bool:
    """Whether an error of the client is that of a file of this machine: it reads no other than the certificates to trust when it connects."""
    cause = getattr(error, "kwargs", {}).get("error")
    if isinstance(cause, ssl.SSLError):
        return cause.reason == "NO_CERTIFICATE_OR_CRL_FOUND"
    return isinstance(cause, FileNotFoundError | IsADirectoryError | PermissionError)


def _hint(kind: str) -> str:
    if any(word in kind for word in _NOT_ALLOWED):
        return "Allow it to the scheduler's role: ops/aws has the least policy."
    if any(word in kind for word in _NOT_THERE):
        return "Compare the name and the region with what there is."
    if "Credentials" in kind or any(word in kind for word in _NOT_KNOWN):
        return "Credentials come from the platform: a role of the machine or the pod, AWS_PROFILE, or AWS_ACCESS_KEY_ID with its secret."
    if kind == "ProfileNotFound":
        return NO_PROFILE
    if kind == "ConfigParseError":
        return NO_CONFIG
    if kind == CERTIFICATES_UNREADABLE:
        return NO_CERTIFICATES
    if "Region" in kind:
        return "Set `aws_region`, or AWS_REGION."
    return ""


def pause_s(failures: int, chance: Callable[[], float] = random.random) -> float:
    """How long to wait after so many failures in a row, in seconds: doubled each time, half of it by chance, a minute at most.

    Backoff: AWS Architecture Blog, "Exponential Backoff And Jitter", equal jitter.
    """
    longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
    return longest_s / 2 * (1 + chance())
