"""`@batch` and `@kubernetes`: steps that are to run on AWS Batch or Kubernetes, for which this version of evflow has no executor yet.

A run in the foreground runs them on this machine, says so once, and records it with the slot that each attempt gets; what was asked for stands in the graph
that the run records. With `--fallback error` it refuses, and so does a scheduler.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final, overload

from evflow.flow.decorators.base import F, StepDecorator, apply

PLACES: Final = MappingProxyType({"batch": "AWS Batch", "kubernetes": "Kubernetes"})
"""An executor that does not exist yet, and its name for people."""


class _Remote(StepDecorator):
    """The fields mean something to the executor alone: they are taken as they are."""

    def policy(self) -> dict[str, object]:
        """The executor. What it is to give the step is nothing that this machine has to have."""
        return {"executor": self.name}


class Batch(_Remote):
    """See `batch`."""

    name = "batch"
    defaults = MappingProxyType(
        {
            **dict.fromkeys(("cpu", "gpu", "memory", "image", "queue", "iam_role", "execution_role", "shared_memory", "max_swap")),
            **dict.fromkeys(("swappiness", "inferentia", "trainium", "efa", "host_volumes", "efs_volumes", "aws_batch_tags")),
            **dict.fromkeys(("tmpfs_size", "ephemeral_storage", "log_driver", "log_options", "executable")),
            "use_tmpfs": False,
            "tmpfs_tempdir": True,
            "tmpfs_path": "/metaflow_temp",
            "privileged": False,
        }
    )


class Kubernetes(_Remote):
    """See `kubernetes`."""

    name = "kubernetes"
    defaults = MappingProxyType(
        {
            "cpu": 1,
            "memory": 4096,
            "disk": 10240,
            **dict.fromkeys(
                ("image", "image_pull_policy", "image_pull_secrets", "service_account", "secrets", "node_selector", "namespace")
            ),
            **dict.fromkeys(("gpu", "gpu_vendor", "tolerations", "labels", "annotations", "use_tmpfs", "tmpfs_size")),
            **dict.fromkeys(("persistent_volume_claims", "shared_memory", "port", "compute_pool", "executable", "security_context")),
            "tmpfs_tempdir": True,
            "tmpfs_path": "/metaflow_temp",
            "hostname_resolution_timeout": 600,
            "qos": "burstable",
            "extended_resources": {},
        }
    )


@overload
def batch(function: F, /) -> F: ...
@overload
def batch(**fields: Any) -> Callable[[F], F]: ...
def batch(function: Any = None, /, **fields: Any) -> Any:
    """Ask for AWS Batch. Until evflow has an executor for it, the step runs on this machine; see the module.

    Args:
        function: The step, where it is used bare.
        fields: Those of Metaflow's `@batch`: `cpu`, `gpu`, `memory`, `image`, `queue`, ...
    """
    return apply(Batch, function, fields)


@overload
def kubernetes(function: F, /) -> F: ...
@overload
def kubernetes(**fields: Any) -> Callable[[F], F]: ...
def kubernetes(function: Any = None, /, **fields: Any) -> Any:
    """Ask for Kubernetes. Until evflow has an executor for it, the step runs on this machine; see the module.

    Args:
        function: The step, where it is used bare.
        fields: Those of Metaflow's `@kubernetes`: `cpu`, `memory`, `image`, `gpu`, `node_selector`, ...
    """
    return apply(Kubernetes, function, fields)
