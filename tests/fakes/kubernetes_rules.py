"""What an API server checks of a Job before it takes it, written from the API's reference and not from our own rules."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
QUANTITY = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)")
ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
JOB_FIELDS = {
    "parallelism", "completions", "activeDeadlineSeconds", "podFailurePolicy", "backoffLimit", "backoffLimitPerIndex", "selector", "manualSelector",
    "template", "ttlSecondsAfterFinished", "completionMode", "suspend", "podReplacementPolicy", "maxFailedIndexes",
}  # fmt: skip
POD_FIELDS = {
    "volumes", "initContainers", "containers", "restartPolicy", "terminationGracePeriodSeconds", "activeDeadlineSeconds", "dnsPolicy", "nodeSelector",
    "serviceAccountName", "automountServiceAccountToken", "nodeName", "hostNetwork", "hostPID", "hostIPC", "securityContext", "imagePullSecrets", "hostname",
    "subdomain", "affinity", "schedulerName", "tolerations", "hostAliases", "priorityClassName", "priority", "dnsConfig", "readinessGates",
    "runtimeClassName", "enableServiceLinks", "preemptionPolicy", "overhead", "topologySpreadConstraints", "shareProcessNamespace",
}  # fmt: skip
CONTAINER_FIELDS = {
    "name", "image", "command", "args", "workingDir", "ports", "envFrom", "env", "resources", "volumeMounts", "volumeDevices", "livenessProbe",
    "readinessProbe", "startupProbe", "lifecycle", "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "securityContext", "stdin", "tty",
}  # fmt: skip


def amount(text: object) -> float | None:
    """A quantity as a number; None where it is none."""
    found = QUANTITY.fullmatch(str(text))
    if found is None:
        return None
    number, unit = found.groups()
    try:
        return float(number) * UNITS[unit] if unit in UNITS else float(number + unit)
    except ValueError:
        return None


def unknown_fields(job: Mapping[str, Any]) -> Iterator[str]:
    """What `fieldValidation=Strict` refuses."""
    spec = job.get("spec", {})
    pod = spec.get("template", {}).get("spec", {})
    yield from (f'unknown field "spec.{key}"' for key in spec.keys() - JOB_FIELDS)
    yield from (f'unknown field "spec.template.spec.{key}"' for key in pod.keys() - POD_FIELDS)
    for index, container in enumerate(pod.get("containers", [])):
        yield from (f'unknown field "spec.template.spec.containers[{index}].{key}"' for key in container.keys() - CONTAINER_FIELDS)


def invalid(job: Mapping[str, Any], version: tuple[int, int]) -> Iterator[str]:
    """What the server's validation says of a Job, as it says it."""
    metadata, spec = job.get("metadata", {}), job.get("spec", {})
    if not DNS_SUBDOMAIN.fullmatch(metadata.get("name", "")):
        yield f"metadata.name: Invalid value: \"{metadata.get('name', '')}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
    yield from _metadata("metadata", metadata)
    template = spec.get("template", {})
    yield from _metadata("spec.template.metadata", template.get("metadata", {}))
    # From 1.28 on; before, the name of a Job that is longer than a label is refused by way of its pods' labels.
    if len(metadata.get("name", "")) > 63:
        yield "spec.template.labels: Invalid value: must be no more than 63 characters"
    for field in ("backoffLimit", "parallelism", "completions", "ttlSecondsAfterFinished"):
        if field in spec and (not isinstance(spec[field], int) or spec[field] < 0):
            yield f"spec.{field}: Invalid value: {spec[field]}: must be greater than or equal to 0"
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        yield "spec.completions: Required value: when completion mode is Indexed"
    elif spec.get("completionMode") == "Indexed":
        # A pod's host name is a label. Servers check it since 1.27; before, the pods cannot be made.
        if len(f"{metadata.get('name', '')}-{spec['completions'] - 1}") > 63:
            yield f'spec.completions: Invalid value: {spec["completions"]}: the pods\' host names "{metadata.get("name", "")}-0" must be no more than 63 characters'
        if spec.get("parallelism", 1) > spec["completions"] or spec["completions"] > 100_000:
            yield "spec.parallelism: Invalid value: must be less than or equal to completions"
    if "podFailurePolicy" in spec and version >= (1, 26):
        yield from _failure_policy(spec["podFailurePolicy"], [each.get("name") for each in template.get("spec", {}).get("containers", [])])
    yield from _pod("spec.template.spec", template.get("spec", {}))


def _failure_policy(policy: Mapping[str, Any], containers: list[Any]) -> Iterator[str]:
    for index, rule in enumerate(policy.get("rules", [])):
        at = f"spec.podFailurePolicy.rules[{index}]"
        if rule.get("action") not in ("FailJob", "Ignore", "Count", "FailIndex"):
            yield f'{at}.action: Unsupported value: "{rule.get("action")}"'
        codes = rule.get("onExitCodes")
        if (codes is None) == (not rule.get("onPodConditions")):
            yield f"{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
        if codes is not None:
            if codes.get("operator") == "In" and 0 in codes.get("values", []):
                yield f"{at}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"
            if codes.get("containerName") is not None and codes["containerName"] not in containers:
                yield f'{at}.onExitCodes.containerName: Invalid value: "{codes["containerName"]}": must be one of the container or initContainer names in the pod template'
        for condition in rule.get("onPodConditions") or ():
            if not condition.get("type") or condition.get("status") not in ("True", "False", "Unknown"):
                yield f"{at}.onPodConditions: Required value"


def _metadata(at: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    for key, text in (metadata.get("labels") or {}).items():
        yield from _key(f"{at}.labels", key)
        if not isinstance(text, str) or not LABEL_VALUE.fullmatch(text):
            yield f"{at}.labels: Invalid value: \"{text}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
    total = 0
    for key, text in (metadata.get("annotations") or {}).items():
        yield from _key(f"{at}.annotations", key.lower())
        total += len(key.encode()) + len(str(text).encode())
    if total > 256 * 1024:
        yield f"{at}.annotations: Too long: must have at most 262144 bytes"


def _key(at: str, key: str) -> Iterator[str]:
    domain, _, name = key.rpartition("/")
    if (domain and not DNS_SUBDOMAIN.fullmatch(domain)) or not name or not LABEL_VALUE.fullmatch(name):
        yield f"{at}: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.'"


def _pod(at: str, pod: Mapping[str, Any]) -> Iterator[str]:
    if not pod.get("containers"):
        yield f"{at}.containers: Required value"
    if pod.get("restartPolicy", "Always") not in ("Never", "OnFailure"):
        yield f'{at}.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    volumes = [volume.get("name", "") for volume in pod.get("volumes") or ()]
    for index, volume in enumerate(pod.get("volumes") or ()):
        if not DNS_LABEL.fullmatch(volume.get("name", "")):
            yield f'{at}.volumes[{index}].name: Invalid value: "{volume.get("name", "")}"'
        if volumes.count(volume.get("name")) > 1:
            yield f'{at}.volumes[{index}].name: Duplicate value: "{volume["name"]}"'
        if len(volume) != 2:
            yield f"{at}.volumes[{index}]: Required value: must specify a volume type"
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        if limit is not None and amount(limit) is None:
            yield f'{at}.volumes[{index}].emptyDir.sizeLimit: Invalid value: "{limit}"'
    names: set[str] = set()
    for index, container in enumerate(pod.get("containers") or ()):
        if container.get("name") in names:
            yield f'{at}.containers[{index}].name: Duplicate value: "{container["name"]}"'
        names.add(container.get("name", ""))
        yield from _container(f"{at}.containers[{index}]", container, volumes)
    for index, toleration in enumerate(pod.get("tolerations") or ()):
        if not toleration.get("key") and toleration.get("operator", "Equal") != "Exists":
            yield f"{at}.tolerations[{index}].operator: Invalid value: operator must be Exists when `key` is empty"
        if toleration.get("operator") == "Exists" and toleration.get("value"):
            yield f"{at}.tolerations[{index}].operator: Invalid value: value must be empty when `operator` is 'Exists'"
        if toleration.get("effect", "NoExecute") not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            yield f'{at}.tolerations[{index}].effect: Unsupported value: "{toleration["effect"]}"'
    for key, text in (pod.get("nodeSelector") or {}).items():
        yield from _key(f"{at}.nodeSelector", key)
        if not LABEL_VALUE.fullmatch(str(text)):
            yield f'{at}.nodeSelector: Invalid value: "{text}"'
    for secret in pod.get("imagePullSecrets") or ():
        if not DNS_SUBDOMAIN.fullmatch(secret.get("name", "")):
            yield f"{at}.imagePullSecrets: Invalid value"


def _container(at: str, container: Mapping[str, Any], volumes: list[str]) -> Iterator[str]:
    if not DNS_LABEL.fullmatch(container.get("name", "")):
        yield f'{at}.name: Invalid value: "{container.get("name", "")}"'
    if not container.get("image") or container["image"] != container["image"].strip():
        yield f"{at}.image: Required value"
    if container.get("imagePullPolicy", "Always") not in ("Always", "IfNotPresent", "Never"):
        yield f'{at}.imagePullPolicy: Unsupported value: "{container["imagePullPolicy"]}"'
    for index, variable in enumerate(container.get("env") or ()):
        if not ENV_NAME.fullmatch(variable.get("name", "")):
            yield f'{at}.env[{index}].name: Invalid value: "{variable.get("name", "")}"'
        if variable.get("value") and variable.get("valueFrom"):
            yield f"{at}.env[{index}].valueFrom: Invalid value: may not be specified when `value` is not empty"
        if "value" in variable and type(variable["value"]) is not str:
            yield f"{at}.env[{index}].value: Invalid value"
    seen: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            yield f'{at}.volumeMounts[{index}].name: Not found: "{mount.get("name")}"'
        if mount.get("mountPath") in seen:
            yield f'{at}.volumeMounts[{index}].mountPath: Invalid value: "{mount["mountPath"]}": must be unique'
        seen.add(mount.get("mountPath", ""))
    yield from _resources(at, container.get("resources") or {})
    security = container.get("securityContext") or {}
    if security.get("privileged") and security.get("allowPrivilegeEscalation") is False:
        yield f"{at}.securityContext: Invalid value: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"


def _resources(at: str, resources: Mapping[str, Any]) -> Iterator[str]:
    for part in ("requests", "limits"):
        for name, text in (resources.get(part) or {}).items():
            number = amount(text)
            if number is None or number < 0:
                yield f'{at}.resources.{part}[{name}]: Invalid value: "{text}"'
            elif "/" in name and number != int(number):
                yield f'{at}.resources.{part}[{name}]: Invalid value: "{text}": must be an integer'
    for name, text in (resources.get("limits") or {}).items():
        asked = (resources.get("requests") or {}).get(name)
        if asked is not None and (amount(asked) or 0) > (amount(text) or 0):
            yield f'{at}.resources.requests: Invalid value: "{asked}": must be less than or equal to {name} limit of {text}'
        if "/" in name and asked is not None and amount(asked) != amount(text):
            yield f'{at}.resources.requests: Invalid value: "{asked}": must be equal to {name} limit of {text}'


def unrestricted(pod: Mapping[str, Any]) -> Iterator[str]:
    """Why the *restricted* level of the pod security standards does not let a pod in, from the standard's table of controls."""
    around = pod.get("securityContext") or {}
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field}=true"
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod.get("volumes") or ():
        yield from (f'restricted volume types: volume "{volume["name"]}" uses {kind}' for kind in volume.keys() - allowed - {"name"})
    for container in [*(pod.get("initContainers") or ()), *pod["containers"]]:
        own, name = container.get("securityContext") or {}, container["name"]
        both = {**around, **own}
        if own.get("privileged"):
            yield f'privileged: container "{name}"'
        if own.get("allowPrivilegeEscalation") is not False:
            yield f'allowPrivilegeEscalation != false: container "{name}"'
        capabilities = own.get("capabilities") or {}
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f'unrestricted capabilities: container "{name}"'
        if both.get("runAsNonRoot") is not True:
            yield f'runAsNonRoot != true: container "{name}"'
        if both.get("runAsUser") == 0:
            yield f'runAsUser=0: container "{name}"'
        if (both.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f'seccompProfile: container "{name}"'
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield f'hostPort: container "{name}"'
