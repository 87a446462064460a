"""Calls of a Kubernetes API server, as JSON: kubernetes-asyncio has the credentials and the connections, we have the bodies.

Its typed models are left aside: turning each pod of a watch into one costs a millisecond, and back into what we read another; and a field that the
models do not know yet would be lost. What a call did not do is a `PlatformProblem` that says whether a repeat helps.

kubernetes-asyncio takes seconds to import, so that happens in a thread, and only where Kubernetes is used.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio.to_thread

from evflow import diagnostics
from evflow.core.values import value
from evflow.errors import EnvironmentProblem
from evflow.imports import framework_view
from evflow_executors.kubernetes.answers import part, rows
from evflow_executors.kubernetes.manifest import Server
from evflow_executors.remote.platform import PlatformProblem
from evflow_executors.remote.rate import CallRate

CALL_S: Final = 30.0
"""The longest that a call may take which is no stream."""
CONNECT_S: Final = 10.0
SILENCE_S: Final = 330.0
"""A stream that says nothing for so long is dead: a watch ends by itself before that, and a log may be followed anew."""
PAGE: Final = 500
FEW: Final = 20
"""So many Jobs are asked for one by one."""
_MOST_CONNECTIONS: Final = 64
_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_READ_BYTES: Final = 2**21
"""A thing may have 1.5 MB, and a line of a watch has one whole."""
_QUOTA: Final = ("exceeded quota", "status unknown for quota")
"""Why a quota refuses for now: it is full, or so new that what is used of it is not counted yet."""


class KubernetesMissing(EnvironmentProblem):
    """The extra with Kubernetes' client is not installed."""

    code = "kubernetes-missing"

    def __init__(self) -> None:
        super().__init__(
            "Kubernetes needs the package kubernetes-asyncio, which is not installed.", "Install it: `pip install 'evflow[kubernetes]'`."
        )


class NoCluster(EnvironmentProblem):
    """Nothing says which cluster is meant, or as whom."""

    code = "kubernetes-config"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"There is no way to a Kubernetes cluster: {why}.",
            "Set KUBECONFIG to a file that `kubectl` works with, or run inside of a pod with a service account.",
        )


class CallRefused(PlatformProblem):
    """The server answered a call, and not with what it asked for.

    Attributes:
        status: Of the answer: 404, 409, ...
    """

    code = "kubernetes-refused"

    def __init__(self, status: int, message: str, hint: str = "", *, transient: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(message, hint, transient=transient, undone=status < 500, retry_after_s=retry_after_s)
        self.status = status

    @property
    def is_throttle(self) -> bool:
        """It asks for fewer calls."""
        return self.status == 429


@value
class Cluster:
    """Which cluster, and as whom.

    Attributes:
        config: Path of a kubeconfig; empty for what KUBECONFIG says, then the pod's own account, then `~/.kube/config`.
        context: Of the kubeconfig; empty for its current one.
    """

    config: str = ""
    context: str = ""


class KubernetesApi:
    """An API server. Made by `connect`; `aclose` ends its connections.

    Args:
        client: kubernetes-asyncio's ApiClient.
        cluster: What it was made of, to make it anew when its credentials have expired.
        namespace: The one that the credentials name, or `default`.
        rate: All calls take of it.
    """

    def __init__(self, client: Any, cluster: Cluster, namespace: str, rate: CallRate) -> None:
        self._client = client
        self._old: list[Any] = []
        self._cluster = cluster
        self._rate = rate
        self._renewing = asyncio.Lock()
        self.namespace = namespace
        self.server = Server()

    @classmethod
    async def connect(cls, cluster: Cluster, rate: CallRate) -> "KubernetesApi":
        """Find cluster and credentials. Nothing is asked of the server yet.

        Raises:
            KubernetesMissing: The extra is not installed.
            NoCluster: There is no cluster to be found.
        """
        client, namespace = await _client(cluster)
        return cls(client, cluster, namespace, rate)

    async def greet(self) -> None:
        """Ask for the server's version, which manifests depend on.

        Raises:
            PlatformProblem: It does not answer.
        """
        said = await self.call("GET", "/version")
        self.server = Server(_version_in(said))

    async def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None, *, unread: bool = False
    ) -> Any:
        """What the server answers, as JSON; as text where it is none.

        Args:
            method: `GET`, `POST`, `DELETE`.
            path: Of what it is about.
            query: Behind the path.
            body: What is sent, of what JSON has.
            unread: Nobody reads the answer to a success: it is None. A Job is answered with all that it is.

        Raises:
            CallRefused: It answered something else than success.
            PlatformProblem: It did not answer.
        """
        for renewed in (False, True):
            client = self._client
            async with self._rate.call(), self._request(method, path, query, body, total_s=CALL_S) as response:
                data: bytes = await response.read()
                if response.status == 401 and not renewed:
                    await self._renew(client)
                    continue
                if response.status >= 300:
                    raise self._refusal(method, path, response.status, data, response.headers)
            try:
                return None if unread else from_json(data)
            except ValueError:
                return data.decode(errors="replace")
        raise AssertionError("a call is answered or refused")

    async def items(self, path: str, selector: str) -> tuple[list[dict[str, Any]], str]:
        """All things of a list, in pages, and the version of the list, from which a watch goes on.

        Raises:
            PlatformProblem: The server does not answer, or refuses.
        """
        found: list[dict[str, Any]] = []
        query: dict[str, str] = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            said = await self.call("GET", path, query)
            found += map(dict, rows(said, "items"))
            metadata = part(said, "metadata")
            if not metadata.get("continue"):
                return found, str(metadata.get("resourceVersion", ""))
            query = {**query, "continue": metadata["continue"]}

    async def jobs(self, namespace: str, names: Collection[str], selector: str) -> dict[str, dict[str, Any]]:
        """The Jobs of these names that there are: few are asked for one by one, of more all that the selector finds are listed.

        Raises:
            PlatformProblem: The server does not answer, or refuses.
        """
        if len(names) > FEW:
            listed, _ = await self.items(path_of(namespace=namespace, kind="jobs"), selector)
            return {job["metadata"]["name"]: job for job in listed if job["metadata"]["name"] in names}
        found: dict[str, dict[str, Any]] = {}
        for name in names:
            try:
                found[name] = await self.call("GET", path_of(namespace=namespace, kind="jobs", name=name))
            except CallRefused as error:
                if error.status != 404:
                    raise
        return found

    async def delete(self, kind: str, namespace: str, name: str, options: Mapping[str, Any]) -> None:
        """Delete a thing; one that is gone is fine.

        Raises:
            PlatformProblem: The server does not answer, or refuses.
        """
        try:
            await self.call("DELETE", path_of(namespace=namespace, kind=kind, name=name), body=options)
        except CallRefused as error:
            if error.status != 404:
                raise

    @asynccontextmanager
    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[AsyncGenerator[bytes]]:
        """A stream of lines: a watch, or a log that is followed.

        Raises:
            CallRefused: The server answered something else than success.
            PlatformProblem: It did not answer, or the stream was cut.
        """
        client = self._client
        async with AsyncExitStack() as stack:
            async with self._rate.call():  # a stream is one call, which is answered when it begins
                response = await stack.enter_async_context(self._request("GET", path, query, None, total_s=None))
            if response.status >= 300:
                data: bytes = await response.read()
                if response.status == 401:
                    await self._renew(client)
                raise self._refusal("GET", path, response.status, data, response.headers, repeat=response.status == 401)
            yield _lines_of(response)

    async def aclose(self) -> None:
        """End its connections."""
        for client in (*self._old, self._client):
            await client.close()

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, query: Mapping[str, str] | None, body: object, *, total_s: float | None
    ) -> AsyncGenerator[Any]:
        aiohttp: Any = import_module("aiohttp")
        headers: dict[str, str] = {"Accept": "application/json", "User-Agent": "evflow", "Content-Type": "application/json"}
        client = self._client
        await client.update_params_for_auth(headers, [], ["BearerToken"])
        rest = client.rest_client
        url = f"{client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        more: dict[str, Any] = {"proxy": rest.proxy, "proxy_headers": rest.proxy_headers} if rest.proxy else {}
        if rest.server_hostname:
            more["server_hostname"] = rest.server_hostname
        data = None if body is None else to_json(body)
        try:
            response = await rest.pool_manager.request(method, url, data=data, headers=headers, timeout=timeout, **more)
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            raise _unanswered(client.configuration.host, error) from error
        try:
            yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unanswered(client.configuration.host, error) from error
        finally:
            response.release() if response.content.at_eof() else _cut(response)

    async def _renew(self, refused: Any) -> None:
        """Take the credentials anew: tokens of clouds live for minutes, and a login helper gives another one."""
        async with self._renewing:
            if refused is not self._client:
                return  # another call has done it
            self._client, _ = await _client(self._cluster)
            self._old.append(refused)
            diagnostics.debug("the credentials for Kubernetes were taken anew")
            if len(self._old) > 1:  # what was begun with that one has its end: it is minutes ago
                await self._old.pop(0).close()

    def _refusal(
        self, method: str, path: str, status: int, data: bytes, headers: Mapping[str, str], *, repeat: bool = False
    ) -> CallRefused:
        reason = ""
        try:
            said: dict[str, Any] = from_json(data)
            message, reason = str(said.get("message") or said), str(said.get("reason"))
        except (ValueError, AttributeError):
            message = data.decode(errors="replace")[:300].strip() or "without a reason"
        retry_after_s = float(headers["Retry-After"]) if re.fullmatch(r"\d{1,4}", headers.get("Retry-After", "")) else 0.0
        text = f"Kubernetes refused {method} {path}: {message.rstrip('.')}."
        if status == 401:
            return CallRefused(
                status,
                f"Kubernetes does not accept the credentials ({message.rstrip('.')}).",
                "Try `kubectl get pods` with the same kubeconfig.",
                transient=repeat,
            )
        if status == 403:
            # A full quota is told as forbidden; there will be room when other Jobs are over.
            by_quota = any(why in message for why in _QUOTA)
            hint = "It waits for room in the quota." if by_quota else "Give the account the rights that docs/kubernetes.md lists."
            return CallRefused(status, text, hint, transient=by_quota)
        # Of a thing that was changed meanwhile: where a Job is made, the quota of which others take. One that is there already is told with another reason.
        is_conflict = status == 409 and reason == "Conflict"
        return CallRefused(status, text, transient=status >= 500 or status in {408, 429} or is_conflict, retry_after_s=retry_after_s)


def path_of(*, namespace: str, kind: str, name: str = "", sub: str = "") -> str:
    """The path of Jobs or Pods, of one of them, or of something below it."""
    prefix = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
    return "/".join([f"{prefix}/namespaces/{quote(namespace)}/{kind}", *(quote(part) for part in (name, sub) if part)])


async def _client(cluster: Cluster) -> tuple[Any, str]:
    """kubernetes-asyncio's client, and the namespace that the credentials name."""
    try:
        config, client = await anyio.to_thread.run_sync(_modules)
    except ImportError as error:
        raise KubernetesMissing from error
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = _MOST_CONNECTIONS
    in_pod = bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and await anyio.Path(f"{_TOKEN}/token").exists()
    named = cluster.config or os.environ.get("KUBECONFIG", "")
    no_yaml: type[Exception] = import_module("yaml").YAMLError  # the client has read it already
    try:
        if in_pod and not named and not cluster.context:
            await anyio.to_thread.run_sync(config.load_incluster_config, configuration)
            namespace = (await anyio.Path(f"{_TOKEN}/namespace").read_text()).strip() or "default"
        else:
            # It reads files, and may start a login helper of a cloud.
            loader = await config.load_kube_config(
                config_file=named or None, context=cluster.context or None, client_configuration=configuration
            )
            namespace = _namespace_in(loader)
    except no_yaml as error:
        raise NoCluster(f"{named or '~/.kube/config'} is no YAML: {' '.join(str(error).split())}") from error
    except (config.ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoCluster(str(error).strip().rstrip(".") or type(error).__name__) from error
    if configuration.proxy is None:
        configuration.proxy = await anyio.to_thread.run_sync(_proxy_of, configuration.host)
    made = client.ApiClient(configuration)
    _without_looking_around(made.rest_client)
    return made, namespace


def _proxy_of(host: str) -> str | None:
    """The proxy that the environment names for a server. Blocking: some systems are asked for it."""
    parts = urlsplit(host)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    found = getproxies().get(parts.scheme)
    return found if found and found.startswith("http://") else None  # no client speaks TLS to a proxy


def _without_looking_around(rest: Any) -> None:
    """Have requests not look for proxies and for netrc files each: that reads files, in a thread, and costs as much as the call.

    The proxy is known, and credentials of a cluster are in no netrc file.
    """
    aiohttp: Any = import_module("aiohttp")
    former = rest.pool_manager
    rest.pool_manager = aiohttp.ClientSession(connector=former.connector, trust_env=False, read_bufsize=_READ_BYTES)
    former.detach()


def from_json(data: bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: It is none.
    """
    import orjson  # which `_modules` has imported

    return orjson.loads(data)


def to_json(said: object) -> bytes:
    """It as JSON."""
    import orjson

    return orjson.dumps(said, option=orjson.OPT_NON_STR_KEYS)


def _modules() -> tuple[Any, Any]:
    """Blocking, for seconds. A file `yaml.py` beside the flow is not meant."""
    with framework_view():
        import_module("orjson")
        return import_module("kubernetes_asyncio.config"), import_module("kubernetes_asyncio.client")


def _namespace_in(loader: Any) -> str:
    return str(part(loader.current_context or {}, "context").get("namespace") or "default")


def _version_in(said: Mapping[str, Any]) -> tuple[int, int]:
    """The version of a server. Clouds write `28+` for a minor one; a build by a distribution may say nothing but `v1.20.2`."""
    found = re.match(r"v?(\d+)\.(\d+)", f"{said.get('major')}.{said.get('minor')}") or re.match(
        r"v?(\d+)\.(\d+)", str(said.get("gitVersion"))
    )
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _unanswered(host: str, error: BaseException) -> PlatformProblem:
    why = "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    aiohttp: Any = import_module("aiohttp")
    late: type[Exception] = getattr(aiohttp, "ConnectionTimeoutError", aiohttp.ClientConnectorError)  # since 3.10
    unsent = isinstance(error, (aiohttp.ClientConnectorError, late))  # so it has done nothing
    return PlatformProblem(f"The Kubernetes API server at {host} does not answer: {why.rstrip('.')}.", transient=True, undone=unsent)


def _cut(response: Any) -> None:
    """End a stream that has more to come: its connection is of no use to others.

    Over TLS to close it means to take leave and to wait for the server's: a stream that goes on says none, and the transport would outlive its loop.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


async def _lines_of(response: Any) -> AsyncGenerator[bytes]:
    """Lines, the last one even without an end."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


def selector(labels: Mapping[str, str]) -> str:
    """A selector of labels that all have to be there."""
    return ",".join(f"{name}={text}" for name, text in labels.items())
