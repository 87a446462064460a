"""What a Kubernetes API server accepts of what a step asks for, told before anything is submitted.

Each rule is the server's own (apimachinery's `util/validation` and core's `validation.go`), so that a mistake is a sentence of `check` and not a 422 in the
middle of a run. `field_mistakes` takes a field of `@kubernetes` by its name; the rest is for whoever has such a value from elsewhere, such as a setting.
Pure: the decorator asks at import, the executor before it makes a manifest.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final, cast

LABEL_CHARS: Final = 63
SUBDOMAIN_CHARS: Final = 253
ANNOTATION_BYTES: Final = 256 * 1024
"""All annotations of an object together, keys and values."""

QOS: Final = ("guaranteed", "burstable", "besteffort")
GPU_VENDORS: Final = MappingProxyType(
    {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "gpu.intel.com/i915", "habana": "habana.ai/gaudi"}
)
"""A vendor of accelerators, and the resource that its device plugin offers. Metaflow knows the first two."""
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
SECURITY_KEYS: Final = (
    "privileged",
    "allow_privilege_escalation",
    "run_as_user",
    "run_as_group",
    "run_as_non_root",
    "read_only_root_filesystem",
)
_TOLERATION_KEYS: Final = ("key", "operator", "value", "effect", "tolerationSeconds")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_IMAGE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.:/@]*[A-Za-z0-9])?")
_QUANTITY = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?[0-9]{1,2})?")
_SUFFIXES: Final[Mapping[str, Decimal]] = MappingProxyType(
    {
        "m": Decimal("0.001"),
        **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))},
        **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
    }
)
_LARGEST: Final = Decimal(10) ** 15


def quantity(text: str) -> Decimal | None:
    """A quantity as the API writes it (`500m`, `4Gi`, `1e3`), as a number; None where it is none, or negative."""
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        return None
    number, suffix = found.group(1), found.group(2) or ""
    try:
        return Decimal(number) * _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(number + suffix)
    except InvalidOperation:
        return None


def cores(asked: object) -> Decimal | None:
    """Cores: a number, a number as a string, or a quantity (`500m`). None where it is nothing of them."""
    return _number(asked)


def megabytes(asked: object) -> Decimal | None:
    """Megabytes: a number or a number as a string, as in Metaflow; or a quantity with a unit, which is of bytes (`4Gi`)."""
    number = _number(asked)
    if number is None or not isinstance(asked, str) or not asked.strip()[-1:].isalpha():
        return number
    return number / 1_000_000


def _number(asked: object) -> Decimal | None:
    if isinstance(asked, bool) or not isinstance(asked, int | float | str | Decimal):
        return None
    number = quantity(asked if isinstance(asked, str) else format(Decimal(str(asked)), "f"))
    return number if number is not None and number <= _LARGEST else None


def label_fault(name: object) -> str:
    """What keeps it from being a DNS label (names of Jobs, containers, volumes); empty where nothing does."""
    if not isinstance(name, str) or not _LABEL.fullmatch(name):
        return "which may have small letters, digits and '-' only, and begins and ends with a letter or digit"
    return f"which is longer than {LABEL_CHARS} characters" if len(name) > LABEL_CHARS else ""


def subdomain_fault(name: object) -> str:
    """What keeps it from being a DNS subdomain (names of secrets, service accounts, claims); empty where nothing does."""
    if not isinstance(name, str) or not _SUBDOMAIN.fullmatch(name):
        return "which may have small letters, digits, '-' and '.' only, and begins and ends with a letter or digit"
    return f"which is longer than {SUBDOMAIN_CHARS} characters" if len(name) > SUBDOMAIN_CHARS else ""


def key_fault(key: object) -> str:
    """What keeps it from being the key of a label, an annotation or a resource: a name, after a domain and '/' where it has one."""
    if not isinstance(key, str) or not key:
        return "which is no text" if not isinstance(key, str) else "which is empty"
    domain, slash, name = key.rpartition("/")
    if slash and (fault := subdomain_fault(domain)):
        return f"whose part before the '/' is {domain!r}, {fault}"
    if not _NAME_PART.fullmatch(name):
        return "whose name may have letters, digits, '-', '_' and '.' only, and begins and ends with a letter or digit"
    return f"whose name is longer than {LABEL_CHARS} characters" if len(name) > LABEL_CHARS else ""


def label_value_fault(text: object) -> str:
    """What keeps it from being the value of a label; the empty text is one."""
    if not isinstance(text, str):
        return f"which is no text: write {str(text)!r}"
    if text and not _NAME_PART.fullmatch(text):
        return "which may have letters, digits, '-', '_' and '.' only, and begins and ends with a letter or digit"
    return f"which is longer than {LABEL_CHARS} characters" if len(text) > LABEL_CHARS else ""


def label_mistakes(labels: object, what: str = "label") -> Iterator[str]:
    """What is wrong with labels, or with a node selector, which selects by labels."""
    if not isinstance(labels, Mapping):
        yield f"takes a dictionary of {what}s, not {labels!r}."
        return
    for key, text in cast("Mapping[object, object]", labels).items():
        if fault := key_fault(key):
            yield f"has the {what} {key!r}, {fault}."
        if fault := label_value_fault(text):
            yield f"gives the {what} {key!r} the value {text!r}, {fault}."


def annotation_mistakes(annotations: object) -> Iterator[str]:
    """What is wrong with annotations, whose values may be any text."""
    if not isinstance(annotations, Mapping):
        yield f"takes a dictionary of annotations, not {annotations!r}."
        return
    size = 0
    for key, text in cast("Mapping[object, object]", annotations).items():
        # The server compares the key in small letters here, and only here.
        if fault := key_fault(key.lower() if isinstance(key, str) else key):
            yield f"has the annotation {key!r}, {fault}."
        if isinstance(text, str):
            size += len(str(key).encode()) + len(text.encode())
        else:
            yield f"gives the annotation {key!r} the value {text!r}, which is no text."
    if size > ANNOTATION_BYTES:
        yield f"has annotations of {size:,} bytes; the server takes {ANNOTATION_BYTES:,}."


def node_selector(asked: object) -> Any:
    """A node selector as a dictionary: it may be written `key=value,key=value`; what is neither is given back as it is."""
    if not isinstance(asked, str):
        return asked
    pairs = [part.partition("=") for part in asked.split(",") if part.strip()]
    return {key.strip(): text.strip() for key, _, text in pairs}


def toleration_mistakes(tolerations: object) -> Iterator[str]:
    """What is wrong with tolerations, a list of dictionaries as the API writes them."""
    if isinstance(tolerations, str) or not isinstance(tolerations, Sequence):
        yield f"takes a list of tolerations, each a dictionary, not {tolerations!r}."
        return
    for each in cast("Sequence[object]", tolerations):
        if not isinstance(each, Mapping):
            yield f"has the toleration {each!r}, which is no dictionary."
            continue
        yield from (f"has the toleration {each!r}, {fault}." for fault in _toleration_faults(cast("Mapping[str, Any]", each)))


def _toleration_faults(toleration: Mapping[str, Any]) -> Iterator[str]:
    if unknown := [key for key in toleration if key not in _TOLERATION_KEYS]:
        yield f"which has no field {unknown[0]!r}; its fields are {', '.join(_TOLERATION_KEYS)}"
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    if key and (fault := key_fault(key)):
        yield f"with the key {key!r}, {fault}"
    if operator not in ("Equal", "Exists"):
        yield f"whose operator is {operator!r} and not Equal or Exists"
    if not key and operator != "Exists":
        yield "which has no key: its operator must be Exists"
    if operator == "Exists" and toleration.get("value"):
        yield "which has a value though its operator is Exists"
    if operator == "Equal" and (fault := label_value_fault(toleration.get("value") or "")):
        yield f"with the value {toleration.get('value')!r}, {fault}"
    effect = toleration.get("effect") or ""
    if effect and effect not in _EFFECTS:
        yield f"whose effect is {effect!r} and not {', '.join(_EFFECTS)}"
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield "which has tolerationSeconds though its effect is not NoExecute"


def _resource_mistakes(resources: object) -> Iterator[str]:
    if not isinstance(resources, Mapping):
        yield f"takes a dictionary of extended_resources, not {resources!r}."
        return
    for key, count in cast("Mapping[object, object]", resources).items():
        fault = key_fault(key) or ("" if "/" in str(key) else "which has no domain, as in 'vendor.example/device'")
        if fault:
            yield f"has the extended resource {key!r}, {fault}."
        number = _number(count)
        if number is None or number != number.to_integral_value():
            yield f"gives the extended resource {key!r} the value {count!r}; the server takes whole numbers."


def _claim_mistakes(claims: object) -> Iterator[str]:
    if not isinstance(claims, Mapping):
        yield f"takes a dictionary of persistent_volume_claims, from a claim to the path of its mount, not {claims!r}."
        return
    paths: set[str] = set()
    for name, path in cast("Mapping[object, object]", claims).items():
        if fault := subdomain_fault(name):
            yield f"has the persistent volume claim {name!r}, {fault}."
        yield from _path_mistakes(f"mounts the claim {name!r} at", path)
        if path in paths:
            yield f"mounts two claims at {path!r}."
        paths.add(str(path))


def _path_mistakes(what: str, path: object) -> Iterator[str]:
    if not isinstance(path, str) or not path.startswith("/") or path.rstrip("/") == "" or ":" in path or ".." in path.split("/"):
        yield f"{what} {path!r}; the path is absolute, not the root, and without ':' and '..'."


def _security_mistakes(context: object) -> Iterator[str]:
    if not isinstance(context, Mapping):
        yield f"takes a dictionary as security_context, not {context!r}."
        return
    given = cast("Mapping[str, Any]", context)
    for key, said in given.items():
        if key not in SECURITY_KEYS:
            yield f"has a security_context with {key!r}; its fields are {', '.join(SECURITY_KEYS)}."
        elif said is None:
            continue
        elif key in ("run_as_user", "run_as_group"):
            if isinstance(said, bool) or not isinstance(said, int) or not 0 <= said < 2**31:
                yield f"has a security_context with {key}={said!r}; it is a number from 0 to {2**31 - 1}."
        elif not isinstance(said, bool):
            yield f"has a security_context with {key}={said!r}; it is True or False."
    if given.get("run_as_non_root") and given.get("run_as_user") == 0:
        yield "has a security_context with run_as_non_root and run_as_user=0, which is root."
    if given.get("privileged") and given.get("allow_privilege_escalation") is False:
        yield "has a security_context with privileged, but without allow_privilege_escalation: the server refuses that."


def _amount(field: str, read: Callable[[object], Decimal | None], unit: str, least: Decimal) -> Callable[[object], Iterator[str]]:
    def mistakes(asked: object) -> Iterator[str]:
        number = read(asked)
        if number is None or number < least:
            yield f"takes {unit} of at least {least} as {field}, not {asked!r}."

    return mistakes


def _whole(field: str, least: int, most: int) -> Callable[[object], Iterator[str]]:
    def mistakes(asked: object) -> Iterator[str]:
        number = _number(asked)
        if number is None or number != number.to_integral_value() or not least <= number <= most:
            yield f"takes a whole number from {least} to {most:,} as {field}, not {asked!r}."

    return mistakes


def _name(field: str, fault: Callable[[object], str]) -> Callable[[object], Iterator[str]]:
    def mistakes(asked: object) -> Iterator[str]:
        if why := fault(asked):
            yield f"has the {field} {asked!r}, {why}."

    return mistakes


def _names(field: str) -> Callable[[object], Iterator[str]]:
    def mistakes(asked: object) -> Iterator[str]:
        if not isinstance(asked, str | list | tuple):
            yield f"takes a list of names as {field}, not {asked!r}."
            return
        for name in names_of(cast("Any", asked)):
            if why := subdomain_fault(name):
                yield f"names {name!r} in {field}, {why}."

    return mistakes


def names_of(asked: str | Sequence[str]) -> list[str]:
    """Names that are written as a list, or as a text with commas between them."""
    return [part.strip() for part in asked.split(",") if part.strip()] if isinstance(asked, str) else list(asked)


def _choice(field: str, choices: Sequence[str]) -> Callable[[object], Iterator[str]]:
    def mistakes(asked: object) -> Iterator[str]:
        if not isinstance(asked, str) or asked.lower() not in [choice.lower() for choice in choices]:
            yield f"takes {', '.join(choices)} as {field}, not {asked!r}."

    return mistakes


def _image_mistakes(image: object) -> Iterator[str]:
    if not isinstance(image, str) or not _IMAGE.fullmatch(image) or "//" in image:
        yield f"takes the name of an image, as in 'python:3.12', not {image!r}."


def _selector_mistakes(asked: object) -> Iterator[str]:
    if isinstance(asked, str) and any("=" not in part for part in asked.split(",")):
        yield f"takes a node_selector as in 'kubernetes.io/arch=amd64', not {asked!r}."
        return
    yield from label_mistakes(node_selector(asked), "node selector")


def _template_mistakes(asked: object) -> Iterator[str]:
    if not isinstance(asked, Mapping) and not (isinstance(asked, str) and asked):
        yield f"takes the path of a file as pod_template, or a dictionary, not {asked!r}."


_LARGEST_MB: Final = 10**9
_RULES: Final[Mapping[str, Callable[[object], Iterator[str]]]] = MappingProxyType(
    {
        "cpu": _amount("cpu", cores, "a number of cores", Decimal("0.001")),
        "memory": _amount("memory", megabytes, "a size in MB", Decimal(1)),
        "disk": _amount("disk", megabytes, "a size in MB", Decimal(1)),
        "gpu": _whole("gpu", 0, 1_000_000),
        "tmpfs_size": _whole("tmpfs_size", 1, _LARGEST_MB),
        "shared_memory": _whole("shared_memory", 1, _LARGEST_MB),
        "port": _whole("port", 1, 65_535),
        "hostname_resolution_timeout": _whole("hostname_resolution_timeout", 1, _LARGEST_MB),
        "image": _image_mistakes,
        "image_pull_policy": _choice("image_pull_policy", PULL_POLICIES),
        "image_pull_secrets": _names("image_pull_secrets"),
        "secrets": _names("secrets"),
        "service_account": _name("service account", subdomain_fault),
        "namespace": _name("namespace", label_fault),
        "node_selector": _selector_mistakes,
        "gpu_vendor": _choice("gpu_vendor", tuple(GPU_VENDORS)),
        "tolerations": toleration_mistakes,
        "labels": label_mistakes,
        "annotations": annotation_mistakes,
        "tmpfs_path": lambda path: _path_mistakes("mounts its tmpfs at", path),
        "persistent_volume_claims": _claim_mistakes,
        "compute_pool": _name("compute pool", label_value_fault),
        "qos": _choice("qos", QOS),
        "extended_resources": _resource_mistakes,
        "security_context": _security_mistakes,
        "pod_template": _template_mistakes,
    }
)


def field_mistakes(field: str, asked: object) -> Iterator[str]:
    """What the server would refuse in a field of `@kubernetes`, as sentences without their subject. None asks for nothing."""
    rule = _RULES.get(field)
    if rule is not None and asked is not None:
        yield from rule(asked)
