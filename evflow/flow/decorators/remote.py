"""`@batch` and `@kubernetes`: steps that run in containers, on AWS Batch or Kubernetes.

What is asked for stands in the graph that the run records (`Policy.asked`), merged with `@resources` by the larger value, as Metaflow does it.
The executors make jobs of it (`evflow_executors.batch`, `evflow_executors.kubernetes`) and check what only their servers can know. Where the
executor is not configured, a run in the foreground runs such steps on this machine and says so once; with `--fallback error` it refuses, and so
does a scheduler.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, cast, overload

from evflow.flow.decorators.base import F, StepDecorator, apply
from evflow.flow.decorators.fields import as_number, missed_bound
from evflow.flow.decorators.resources import Resources
from evflow.flow.pod_templates import TemplateUnreadable, read_template

MERGED: Final = ("cpu", "gpu", "memory", "disk", "shared_memory")
"""The fields that `@resources` has as well."""


class Remote(StepDecorator):
    """A step in a container.

    Attributes:
        numbers: Fields that are numbers, which may be written as strings, and the least that each may be.
        switches: Fields that are True or False.
        lists: Fields that are lists of texts, or a text with commas.
        maps: Fields that are mappings of texts to texts, or a text like `a=1,b=2`.
    """

    numbers: ClassVar[Mapping[str, float]] = MappingProxyType({})
    switches: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[tuple[str, ...]] = ()
    maps: ClassVar[tuple[str, ...]] = ()

    def mistakes(self) -> Iterator[str]:
        """What can be known without the platform: the kinds of values."""
        for field, least in self.numbers.items():
            value = self.given.get(field)
            if value is not None and (bound := missed_bound(as_number(value), least)):
                yield f"@{self.name} takes a number {bound} as {field}, not {value!r}."
        for field in self.switches:
            if not isinstance(self.value(field), bool | None):
                yield f"@{self.name} takes True or False as {field}, not {self.value(field)!r}."
        for field in self.lists:
            value = self.given.get(field)
            if value is not None and not _is_texts(value):
                yield f"@{self.name} takes a list of texts as {field}, not {value!r}."
        for field in self.maps:
            value = self.given.get(field)
            if value is not None and not isinstance(value, Mapping) and not _is_pairs(value):
                yield f"@{self.name} takes a mapping as {field}, not {value!r}."

    def policy(self) -> dict[str, object]:
        """The executor, and what it is asked for. That is nothing that this machine has to have."""
        return {"executor": self.name, "asked": {name: plain(value) for name, value in self.given.items() if value is not None}}


class Batch(Remote):
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
    numbers = MappingProxyType(
        {
            **dict.fromkeys(("cpu", "memory", "shared_memory", "tmpfs_size", "ephemeral_storage"), 0.001),
            **dict.fromkeys(("gpu", "max_swap", "swappiness", "inferentia", "trainium", "efa"), 0.0),
        }
    )
    switches = ("use_tmpfs", "tmpfs_tempdir", "privileged")
    lists = ("host_volumes", "efs_volumes", "log_options")
    maps = ("aws_batch_tags",)

    def mistakes(self) -> Iterator[str]:
        """And what AWS Batch says of it in its documentation."""
        yield from super().mistakes()
        swappiness = as_number(self.given.get("swappiness"))
        if swappiness is not None and swappiness > 100:
            yield f"@batch takes a number from 0 to 100 as swappiness, not {self.given['swappiness']!r}."
        if self.given.get("inferentia") and self.given.get("trainium"):
            yield "@batch takes inferentia or trainium, which are two names of the same devices: keep one of them."


class Kubernetes(Remote):
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
            "pod_template": None,
        }
    )
    switches = ("use_tmpfs", "tmpfs_tempdir")

    def mistakes(self) -> Iterator[str]:
        """And what an API server would refuse."""
        from evflow.core.kubernetes_rules import field_mistakes

        yield from super().mistakes()
        for field, value in self.given.items():
            yield from (f"@kubernetes {mistake}" for mistake in field_mistakes(field, value))
        try:
            self._template()
        except TemplateUnreadable as error:
            yield f"{error.message}"

    def policy(self) -> dict[str, object]:
        """As of any platform; a template that is a file stands in the log as what is in it."""
        policy = super().policy()
        template = self._template()
        return policy if template is None else {**policy, "asked": {**cast("dict[str, object]", policy["asked"]), "pod_template": template}}

    def _template(self) -> Any:
        """What the file holds that `pod_template` names, beside the flow's; None where there is none."""
        path = self.given.get("pod_template")
        return plain(read_template(path, self.where.file.rpartition("/")[0])) if isinstance(path, str) and path else None


def merged(asked: Mapping[str, Any], decorators: Iterable[StepDecorator]) -> dict[str, Any]:
    """What a step asks for: its decorator's fields, and where `@resources` asks for more, that.

    Metaflow's rule (`compute_resource_attributes`): the larger of two numbers, or the one that is there; the defaults of `@resources` count.
    """
    found = dict(asked)
    for decorator in decorators:
        if not isinstance(decorator, Resources):
            continue
        for field in MERGED:
            more, own = as_number(decorator.value(field)), as_number(found.get(field))
            if more is not None and (own is None or more > own):
                found[field] = decorator.value(field)
    return found


def plain(value: object) -> Any:
    """A field's value as a log can hold it: numbers, texts, lists and mappings with texts as keys."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in cast("Iterable[object]", value)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list | tuple) and all(isinstance(one, str) for one in cast("Iterable[object]", value))
    )


def _is_pairs(value: object) -> bool:
    return isinstance(value, str) and all("=" in one for one in value.split(","))


@overload
def batch(function: F, /) -> F: ...
@overload
def batch(**fields: Any) -> Callable[[F], F]: ...
def batch(function: Any = None, /, **fields: Any) -> Any:
    """Run the step as a job of AWS Batch. See `docs/batch.md`.

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
    """Run the step as a Job of Kubernetes. See `docs/kubernetes.md`.

    Args:
        function: The step, where it is used bare.
        fields: Those of Metaflow's `@kubernetes`: `cpu`, `memory`, `image`, `gpu`, `node_selector`, ...; and `pod_template`, a file or a dictionary.
    """
    return apply(Kubernetes, function, fields)
