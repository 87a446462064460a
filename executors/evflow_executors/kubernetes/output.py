"""What containers print, as Kubernetes has it: lines with times, followed over cuts."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from evflow import diagnostics
from evflow.aws import pause_s
from evflow_executors.kubernetes.answers import container_state, part
from evflow_executors.kubernetes.api import CallRefused, KubernetesApi, path_of
from evflow_executors.kubernetes.known import Known, stamped
from evflow_executors.kubernetes.manifest import CONTAINER
from evflow_executors.kubernetes.reasons import pod_seen
from evflow_executors.remote.platform import LogText, PlatformProblem

AGAIN_S: Final = 1.0
_NOT_YET: Final = b"unable to retrieve container logs for "
"""What a kubelet says in place of a log, with success, while its container's engine is not as far."""


async def followed(
    api: KubernetesApi, name: str, known_now: Callable[[], Known | None], changed: Callable[[], Awaitable[None]]
) -> AsyncGenerator[LogText]:
    """What a container prints, as it comes; where the connection is cut it goes on behind the last line.

    Args:
        api: The API server.
        name: The Job's, for messages.
        known_now: What is known of it at present; None when it is over and forgotten.
        changed: Waits until something changes.

    Raises:
        CallRefused: It may not be read.
    """
    after_us, failures = 0, 0
    last: set[bytes] = set()
    while True:
        known = known_now()
        pod = known.pod if known is not None else None
        over = _is_over(known)
        if pod is None or pod_seen(pod).phase == "waiting":
            if over:
                return
            await changed()
            continue
        query = {"container": CONTAINER, "follow": "true", "timestamps": "true"}
        told_us, told = after_us, frozenset(last)
        if after_us:
            query["sinceTime"] = datetime.fromtimestamp(after_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            async with api.lines(_log_of(pod), query) as lines:
                failures = 0
                async for line in lines:
                    if line.startswith(_NOT_YET):
                        break
                    at_us, text = stamped(line)
                    if at_us < told_us or (at_us == told_us and line in told):
                        continue  # from before the cut; on one connection lines of two streams may come a moment out of order
                    if at_us > after_us:
                        after_us = at_us
                        last.clear()
                    if at_us == after_us:
                        last.add(line)
                    yield LogText(at_us, text)
        except CallRefused as error:
            # 400: it has not started; 404: its pod is gone, or a kubelet has not heard of it yet. The watch tells which.
            if error.status not in (400, 404) and not error.transient:
                raise
            if over or _is_over(known_now()):
                return
        except PlatformProblem as error:
            failures += 1
            diagnostics.debug("a log of Kubernetes was cut", job=name, why=error.message)
        else:
            if over or _is_over(known_now()):
                return
        await anyio.sleep(max(AGAIN_S, pause_s(failures) if failures else 0.0))


async def tail(api: KubernetesApi, name: str, pod: Mapping[str, Any], lines: int) -> str:
    """The last lines of a pod's container; the message of its end where there is no log any more."""
    try:
        return str(await api.call("GET", _log_of(pod), {"container": CONTAINER, "tailLines": str(lines)}))
    except PlatformProblem as error:
        diagnostics.debug("the last lines of a pod cannot be had", job=name, why=error.message)
        return str(part(container_state(pod), "terminated").get("message") or "")


def _is_over(known: Known | None) -> bool:
    return known is None or known.ended


def _log_of(pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    return path_of(namespace=metadata["namespace"], kind="pods", name=metadata["name"], sub="log")
