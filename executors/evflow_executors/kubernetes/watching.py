"""One watch for all pods of a log in a namespace, which goes on where it was cut.

It lists once, then watches from the version of the list. A watch ends by itself after minutes, or is cut, and is taken up from the last version that it
told (bookmarks keep that young where no pod changes). A version that the server has forgotten (410) means to list anew: what is in the list and was changed
is told, and what is not in it is told as gone. A server that is away is waited for, with back-off and without an end.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Literal

import anyio

from evflow import diagnostics
from evflow.aws import pause_s
from evflow.core.values import value
from evflow_executors.kubernetes.answers import lean
from evflow_executors.kubernetes.api import CallRefused, KubernetesApi, from_json, path_of
from evflow_executors.remote.platform import PlatformProblem

WATCH_S: Final = 240
"""After so many seconds the server ends a watch, for it to be spread anew over the servers; below the idle limits of most proxies."""
_GONE: Final = 410
_FORGIVEN: Final = 3
"""So many failures in a row are nothing to tell people of: servers restart, watches are cut."""


@value
class PodEvent:
    """What a watch tells.

    Attributes:
        kind: `seen`: a pod as it is now. `gone`: as it was last, it is deleted. `listed`: all pods that exist have been told.
        pod: The pod; empty for `listed`.
    """

    kind: Literal["seen", "gone", "listed"]
    pod: dict[str, Any]


async def pod_events(api: KubernetesApi, namespace: str, selector: str, on_trouble: Callable[[str], None]) -> AsyncGenerator[PodEvent]:
    """All pods that a selector finds, and their changes, without an end.

    Args:
        api: The server.
        namespace: Of the pods.
        selector: By their labels.
        on_trouble: Hears why nothing is seen, once for each time that it lasts.
    """
    path = path_of(namespace=namespace, kind="pods")
    known: dict[str, dict[str, Any]] = {}
    version, failures = "", 0
    while True:
        try:
            if not version:
                found, version = await api.items(path, selector)
                found = [lean(pod) for pod in found]
                failures = 0
                for event in _relisted(known, found):
                    yield event
                yield PodEvent("listed", {})
            query = {
                "watch": "true",
                "labelSelector": selector,
                "resourceVersion": version,
                "timeoutSeconds": str(WATCH_S),
                "allowWatchBookmarks": "true",
            }
            async with api.lines(path, query) as lines:
                async for line in lines:
                    said = from_json(line)
                    kind, thing = said["type"], said["object"]
                    if kind == "ERROR":
                        raise CallRefused(int(thing.get("code") or 500), str(thing.get("message")), transient=True)
                    failures = 0
                    version = thing["metadata"]["resourceVersion"]
                    if kind == "BOOKMARK":
                        continue
                    thing = lean(thing)
                    uid = thing["metadata"]["uid"]
                    if kind == "DELETED":
                        known.pop(uid, None)
                    else:
                        known[uid] = thing
                    yield PodEvent("gone" if kind == "DELETED" else "seen", thing)
        except (PlatformProblem, ValueError, KeyError, TypeError) as error:
            if isinstance(error, CallRefused) and error.status == _GONE:
                diagnostics.debug("a watch of Kubernetes starts anew: its version is forgotten", namespace=namespace)
                version = ""
                continue
            failures += 1
            if failures == _FORGIVEN:
                on_trouble(
                    f"{error.message} {error.hint}".strip()
                    if isinstance(error, PlatformProblem)
                    else f"A watch of Kubernetes says what is no event: {error}."
                )
            if failures >= _FORGIVEN:
                version = ""  # who knows what happened meanwhile
            await anyio.sleep(max(error.retry_after_s if isinstance(error, PlatformProblem) else 0.0, pause_s(failures)))


def _relisted(known: dict[str, dict[str, Any]], found: list[dict[str, Any]]) -> list[PodEvent]:
    """What a new list says that was not known; `known` is the list afterwards."""
    by_uid = {pod["metadata"]["uid"]: pod for pod in found}
    gone = [PodEvent("gone", pod) for uid, pod in known.items() if uid not in by_uid]
    changed = [
        PodEvent("seen", pod)
        for uid, pod in by_uid.items()
        if uid not in known or known[uid]["metadata"]["resourceVersion"] != pod["metadata"]["resourceVersion"]
    ]
    known.clear()
    known.update(by_uid)
    return [*gone, *changed]
