"""What a run of a deployment needs without the flow's code, as one object in the store.

The object is a msgpack map. It is named by its digest in `FlowDeployed`, so what a version of a deployment is can never change.
Fields that a later version of evflow adds are passed over; a manifest of another format is refused.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgpack

from evflow.core.graph import Graph
from evflow.core.ids import Digest
from evflow.core.values import declared, field, fits, value
from evflow.deployments.specs import ParameterSpec, from_plain, to_plain
from evflow.errors import InternalError
from evflow.store.protocol import ObjectStore

_FORMAT: Final = 1


class NotADeployment(InternalError):
    """An object is whole, but no deployment's manifest that this version can read."""

    code = "not-a-deployment"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"'{where}' is not the manifest of a deployment: {why}.", "Deploy the flow again, with this version of evflow.")


@value
class DeploymentManifest:
    """All that the runs of a deployment have in common.

    Attributes:
        flow: The flow's name.
        graph: The graph in the form of `Graph.to_plain`, each step's policy included.
        options: As `RunStarted` has them.
        code: As `RunStarted` has it.
        values: Manifest (digest) of the flow's class constants and its parameters' defaults, as artifacts by attribute.
        parameters: The parameters, in the order of the source.
        namespace: The namespace of the client inside steps.
        tags: User tags of every run.
        system_tags: What evflow says of every run.
        configs_shown: The flow's configurations for people; their values are among `values`.
    """

    flow: str
    graph: dict[str, Any]
    options: dict[str, Any]
    code: dict[str, Any]
    values: bytes
    parameters: tuple[ParameterSpec, ...] = ()
    namespace: str = ""
    tags: tuple[str, ...] = ()
    system_tags: tuple[str, ...] = ()
    configs_shown: dict[str, Any] = field(default_factory=dict[str, Any])


_FIELDS = declared(DeploymentManifest)


def write(store: ObjectStore, manifest: DeploymentManifest) -> Digest:
    """Put a manifest into the store.

    Raises:
        StoreFull, StoreUnusable: It cannot be written.
    """
    plain = {name: getattr(manifest, name) for name in _FIELDS}
    plain["parameters"] = [to_plain(spec) for spec in manifest.parameters]
    packed: bytes = msgpack.packb({"format": _FORMAT, **plain}, unicode_errors="backslashreplace")
    return store.put([packed])


def read(store: ObjectStore, digest: bytes) -> DeploymentManifest:
    """Read a manifest, checking its digest.

    Raises:
        ObjectMissing: The store has no such object.
        ObjectDamaged: Its content is not what was written.
        NotADeployment: It is something else.
    """
    data = store.get(digest)
    try:
        return _manifest(msgpack.unpackb(data))
    except (ValueError, TypeError, AttributeError, LookupError, msgpack.UnpackException) as error:
        raise NotADeployment(store.where(digest), str(error).rstrip(".") or type(error).__name__) from error


def _manifest(plain: Mapping[str, Any]) -> DeploymentManifest:
    if plain["format"] != _FORMAT:
        raise ValueError(f"it is of format {plain['format']}, and this evflow reads format {_FORMAT}")
    known: dict[str, Any] = {"parameters": tuple(from_plain(spec) for spec in plain["parameters"])}
    for name in _FIELDS.keys() & plain.keys() - {"parameters"}:
        given = tuple(plain[name]) if isinstance(plain[name], list) else plain[name]
        if not fits(given, _FIELDS[name]):
            raise ValueError(f"its {name} is {type(given).__name__}")
        known[name] = given
    Graph.from_plain(known["graph"])
    return DeploymentManifest(**known)
