"""A pod template that is laid over ours, by the rules of a strategic merge patch. Pure.

An operator knows what we do not: sidecars, proxies, host networking, admission rules. So what we make of a step is the base, and their template is the
patch, as `kubectl patch --type strategic` would apply it: dictionaries are merged by key, lists of named things by name (`_MERGE_KEYS`), other lists are
replaced, `null` removes a key, and `$patch: delete | replace`, `$retainKeys` and `$deleteFromPrimitiveList/<key>` are directives. Our container is called `task`.

What evflow needs in order to find, run and end the pod is not for templates: see `_refuse_ours`. Sources of the rules: the API's `patchMergeKey` tags
(`k8s.io/api/core/v1/types.go`) and `apimachinery/pkg/util/strategicpatch`.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from types import MappingProxyType
from typing import Any, Final, cast

from evflow.errors import UsageError
from evflow_executors.kubernetes.manifest import CONTAINER

_MERGE_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "containers": "name",
        "initContainers": "name",
        "ephemeralContainers": "name",
        "volumes": "name",
        "env": "name",
        "imagePullSecrets": "name",
        "resourceClaims": "name",
        "schedulingGates": "name",
        "volumeMounts": "mountPath",
        "volumeDevices": "devicePath",
        "ports": "containerPort",
        "hostAliases": "ip",
        "topologySpreadConstraints": "topologyKey",
        "ownerReferences": "uid",
    }
)
"""A list of a pod's spec that is merged, and the field by which its members are told apart."""
_PRIMITIVE: Final = frozenset({"finalizers"})
"""Lists of texts that are united."""
_DIRECTIVE: Final = "$patch"
_DELETED_TEXTS: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"
_RETAINED: Final = "$retainKeys"


class TemplateInvalid(UsageError):
    """A pod template cannot be laid over a step's pod."""

    code = "pod-template"

    def __init__(self, source: str, why: str) -> None:
        super().__init__(
            f"The pod template {source} cannot be used: {why}.",
            "It is a Pod, a PodTemplate or a PodTemplateSpec of Kubernetes, with a `spec` and perhaps `metadata` (labels, annotations).",
        )


def template_in(document: object, source: str) -> dict[str, Any]:
    """The pod template in what a file or a dictionary holds, as `{"metadata": …, "spec": …}`.

    Args:
        document: What was read: a Pod, a PodTemplate, or a PodTemplateSpec.
        source: Where it was read, for messages.

    Raises:
        TemplateInvalid: It is something else, or says what evflow has to say.
    """
    if not isinstance(document, Mapping):
        raise TemplateInvalid(source, f"it is {'empty' if document is None else type(document).__name__} and not a mapping")
    said = cast("dict[str, Any]", _plain(cast("object", document)))
    kind = said.pop("kind", None)
    said.pop("apiVersion", None)
    if kind == "PodTemplate":
        return template_in(said.get("template"), source)
    if kind not in (None, "Pod", "PodTemplateSpec"):
        raise TemplateInvalid(source, f"it is a {kind}")
    said.pop("status", None)
    if unknown := [key for key in said if key not in ("metadata", "spec")]:
        raise TemplateInvalid(source, f"it has '{unknown[0]}' beside metadata and spec")
    for part in ("metadata", "spec"):
        if not isinstance(said.get(part, {}), Mapping):
            raise TemplateInvalid(source, f"its {part} is no mapping")
    _refuse_ours(said, source)
    return {part: deepcopy(dict(said[part])) for part in ("metadata", "spec") if said.get(part)}


def laid_over(manifest: Mapping[str, Any], templates: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """A Job whose pod template has others laid over it, one after the other.

    Args:
        manifest: The Job, as `manifest.job_manifest` makes it.
        templates: Each with where it comes from, as `template_in` gives it.

    Raises:
        TemplateInvalid: One of them cannot be merged.
    """
    made = deepcopy(dict(manifest))
    ours = made["spec"]["template"]
    for source, template in templates:
        try:
            spec = _merged(ours["spec"], template.get("spec", {}))
        except _Unmergeable as error:
            raise TemplateInvalid(source, str(error)) from error
        ours = {"metadata": _labelled(ours["metadata"], template.get("metadata", {})), "spec": spec}
        if not any(container.get("name") == CONTAINER for container in spec.get("containers", ())):
            raise TemplateInvalid(source, f"it removes the container '{CONTAINER}'")
    made["spec"]["template"] = ours
    return made


class _Unmergeable(ValueError):
    """Why two values cannot be merged."""


def _plain(said: object) -> object:
    """The same in dictionaries and lists of its own: what a run's log gives back has tuples in place of lists."""
    if isinstance(said, Mapping):
        return {key: _plain(each) for key, each in cast("Mapping[str, object]", said).items()}
    return [_plain(each) for each in cast("Sequence[object]", said)] if isinstance(said, list | tuple) else said


def _refuse_ours(said: Mapping[str, Any], source: str) -> None:
    spec: Mapping[str, Any] = said.get("spec") or {}
    if spec.get("restartPolicy", "Never") != "Never":
        raise TemplateInvalid(source, f"its restartPolicy is {spec['restartPolicy']}, and evflow decides about further attempts")
    if "activeDeadlineSeconds" in spec:
        raise TemplateInvalid(source, "it has activeDeadlineSeconds, which follows from the step's @timeout")
    containers = spec.get("containers", [])
    if not isinstance(containers, list):
        raise TemplateInvalid(source, "its containers are no list")
    for container in cast("list[object]", containers):
        if isinstance(container, Mapping) and cast("Mapping[str, Any]", container).get("name") == CONTAINER:
            for field in ("command", "args"):
                if field in container:
                    raise TemplateInvalid(source, f"it has a {field} for the container '{CONTAINER}', which runs the step")


def _labelled(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Labels and annotations; ours stay, since pods are found by them."""
    return {part: {**_texts(theirs.get(part)), **ours.get(part, {})} for part in ("labels", "annotations")}


def _texts(said: Mapping[str, str | None] | None) -> dict[str, str]:
    return {key: text for key, text in (said or {}).items() if text is not None}


def _merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    if patch.get(_DIRECTIVE) == "replace":
        return {key: deepcopy(said) for key, said in patch.items() if not key.startswith("$")}
    kept = dict(base)
    retained = patch.get(_RETAINED)
    if retained is not None:
        kept = {key: said for key, said in kept.items() if key in retained}
    for key, said in patch.items():
        if key.startswith(_DELETED_TEXTS):
            name = key.removeprefix(_DELETED_TEXTS)
            kept[name] = [text for text in kept.get(name, ()) if text not in said]
        elif key in (_DIRECTIVE, _RETAINED) or key.startswith(_ORDER):
            continue
        elif said is None:
            kept.pop(key, None)
        elif isinstance(said, Mapping):
            mapping = cast("Mapping[str, Any]", said)
            if mapping.get(_DIRECTIVE) == "delete":
                kept.pop(key, None)
            else:
                under = kept.get(key)
                kept[key] = _merged(cast("Mapping[str, Any]", under) if isinstance(under, Mapping) else {}, mapping)
        elif isinstance(said, list):
            kept[key] = _merged_list(key, kept.get(key) or [], list(cast("Sequence[Any]", said)))
        else:
            kept[key] = said
    return kept


def _merged_list(key: str, base: list[Any], patch: list[Any]) -> list[Any]:
    if key in _PRIMITIVE:
        return [*base, *(text for text in patch if text not in base)]
    by = _MERGE_KEYS.get(key)
    if by is None:
        return deepcopy(patch)
    if any(not isinstance(each, Mapping) for each in patch):
        raise _Unmergeable(f"{key} has a member that is no mapping")
    if any(each == {_DIRECTIVE: "replace"} for each in patch):
        return [deepcopy(each) for each in patch if each != {_DIRECTIVE: "replace"}]
    found = list(base)
    for each in patch:
        if by not in each:
            raise _Unmergeable(f"a member of {key} has no {by}")
        place = next((index for index, other in enumerate(found) if _same(key, by, other, each)), None)
        if each.get(_DIRECTIVE) == "delete":
            if place is not None:
                del found[place]
        elif place is None:
            found.append(_merged({}, each))
        else:
            found[place] = _volume(found[place], each) if key == "volumes" else _merged(found[place], each)
    return found


def _same(key: str, by: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two members of a list are one; a port is another one under another protocol."""
    return one.get(by) == other.get(by) and (key != "ports" or one.get("protocol", "TCP") == other.get("protocol", "TCP"))


def _volume(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A volume has one source: another one takes its place (the API's `retainKeys`)."""
    sources = [key for key in patch if key != "name" and not key.startswith("$") and patch[key] is not None]
    return _merged({key: said for key, said in base.items() if key == "name" or not sources or key in sources}, patch)
