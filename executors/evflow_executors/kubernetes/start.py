"""Kubernetes as a platform, made from the settings."""

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from evflow import config
from evflow.core.kubernetes_rules import field_mistakes
from evflow.errors import EvflowError
from evflow.flow.pod_templates import read_template
from evflow_executors.kubernetes.api import Cluster, KubernetesMissing
from evflow_executors.kubernetes.manifest import filled
from evflow_executors.kubernetes.operator import Operator
from evflow_executors.kubernetes.platform import KubernetesPlatform
from evflow_executors.kubernetes.template import template_in
from evflow_executors.remote.platform import Sheets
from evflow_executors.remote.provision import pairs
from evflow_executors.remote.rate import CallRate

HOW_SECRETS: Final = "Set `kubernetes_secret_env` to EVFLOW_REDIS_URL=<secret>/<key>"
_TEXTS: Final = ("service_account", "image_pull_policy", "gpu_vendor", "qos", "cpu", "memory", "disk", "shared_memory", "port")
_LISTS: Final = ("image_pull_secrets", "secrets")
_PAIRS: Final = ("node_selector", "labels", "annotations", "persistent_volume_claims")


def platform(sheets: Sheets | None = None) -> KubernetesPlatform:
    """Kubernetes, as the settings have it. A Job is one attempt's: it needs no sheets.

    Raises:
        KubernetesMissing: The client is not installed.
    """
    del sheets
    installed()
    return KubernetesPlatform(cluster(), rate(config.get("kubernetes_rate")), operator)


def secrets() -> Collection[str]:
    """The variables that Kubernetes takes from its secrets."""
    return pairs(config.get("kubernetes_secret_env")).keys()


def why_not(asked: Sequence[Mapping[str, Any]]) -> str:
    """Why steps that ask so cannot run on Kubernetes from here; an empty string where they can. Nothing is asked of a server."""
    try:
        installed()
        found = operator()
    except EvflowError as error:
        return f"{error.message} {error.hint}".strip()
    for one in asked:
        for name, said in filled(one, found.defaults).items():
            if mistake := next(field_mistakes(name, said), ""):
                return f"@kubernetes {mistake}"
    if not _names_a_cluster():
        return "no cluster is named (KUBECONFIG, `kubernetes_config`, ~/.kube/config, or the account of a pod)"
    return ""


def installed() -> None:
    """See that the client is there, without importing it.

    Raises:
        KubernetesMissing: It is not.
    """
    if find_spec("kubernetes_asyncio") is None:
        raise KubernetesMissing


def cluster() -> Cluster:
    """Which cluster, and as whom."""
    return Cluster(config.get("kubernetes_config") or "", config.get("kubernetes_context") or "")


@cache
def rate(calls_per_s: float) -> CallRate:
    """What all platforms of this process share."""
    return CallRate(calls_per_s)


def operator() -> Operator:
    """What the settings say of all Jobs. Blocking: a template is a file.

    Raises:
        TemplateInvalid: The template cannot be used.
    """
    path: str | None = config.get("kubernetes_pod_template")
    templates = ((path, template_in(read_template(path), path)),) if path else ()
    return Operator(
        namespace=config.get("kubernetes_namespace") or "",
        secret_env=pairs(config.get("kubernetes_secret_env")),
        defaults=_defaults(),
        templates=templates,
        ttl_s=config.get("kubernetes_ttl_s"),
        patience_s=config.get("kubernetes_patience_s"),
    )


def _defaults() -> dict[str, Any]:
    image: str | None = config.get("kubernetes_container_image") or config.get("container_image")
    found: dict[str, Any] = {
        "image": image or f"python:{sys.version_info.major}.{sys.version_info.minor}",
        "tolerations": config.get("kubernetes_tolerations"),
        **{name: config.get(f"kubernetes_{name}") for name in _TEXTS},
        **{name: list(config.get(f"kubernetes_{name}")) for name in _LISTS},
        **{name: dict(pairs(config.get(f"kubernetes_{name}"))) for name in _PAIRS},
    }
    return {name: said for name, said in found.items() if said}


def _names_a_cluster() -> bool:
    named: str = config.get("kubernetes_config") or os.environ.get("KUBECONFIG", "")
    if named:
        return any(Path(one).expanduser().is_file() for one in named.split(os.pathsep) if one)
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) or (Path.home() / ".kube" / "config").is_file()
