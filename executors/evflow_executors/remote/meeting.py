"""How the nodes of a gang in containers learn the address of node 0: it leaves it in the store, where the others look for it.

`gangs/<Flow>/<run>/<task>.<attempt>` among the store's named files, by the attempt of node 0; the owner removes it when the gang is over. The store is what
each container reaches in any case. Names in the cluster's DNS would take a service for each gang, and the right to make one.
"""

import socket
from collections.abc import Mapping
from typing import Final

import anyio
import anyio.to_thread

from evflow.core.ids import AttemptId, TaskId
from evflow.errors import EnvironmentProblem
from evflow.store import NameMissing, StoreUnusable, open_store

WITHIN_S: Final = 600.0
"""How long node 0 is waited for where the step does not say: Metaflow's `hostname_resolution_timeout`."""
FIRST_LOOK_S: Final = 0.1
LONGEST_LOOK_S: Final = 2.0


class GangUnmet(EnvironmentProblem):
    """A node of a gang was not told where node 0 is."""

    code = "gang-unmet"

    def __init__(self, within_s: float, why: str) -> None:
        super().__init__(
            f"Node 0 of the gang has not said where it is for {within_s:g} s{why}.",
            "It may have found no machine. `@kubernetes(hostname_resolution_timeout=…)`, in seconds, says how long it is waited for.",
        )


def name_of(control: AttemptId) -> str:
    """The file with the address of a gang's node 0."""
    return f"gangs/{control.run}/{control.task}.{control.attempt}"


async def meet(store: str, attempt: AttemptId, index: int, own: str, within_s: float) -> str:
    """The address of node 0: told to the others by that one, waited for by the others.

    Args:
        store: URL of the store.
        attempt: The node's attempt.
        index: The node's index.
        own: The node's own address.
        within_s: How long to wait.

    Raises:
        GangUnmet: It was not told in time, or the store could not be used for so long.
        EvflowError: Node 0 cannot tell it.
    """
    control = AttemptId(attempt.run, TaskId(attempt.task - index), attempt.attempt)
    if index == 0:
        await anyio.to_thread.run_sync(_leave, store, control, own)
        return own
    pause_s, until, why = FIRST_LOOK_S, anyio.current_time() + within_s, ""
    while anyio.current_time() < until:
        try:
            if found := await anyio.to_thread.run_sync(_look, store, control):
                return found
            why = ""
        except StoreUnusable as error:
            why = f": {error.message.rstrip('.')}"
        await anyio.sleep(pause_s)
        pause_s = min(LONGEST_LOOK_S, 1.5 * pause_s)
    raise GangUnmet(within_s, why)


def remove(store: str, control: AttemptId) -> None:
    """Remove the address, which nobody will look for any more. Blocking.

    Raises:
        StoreUnusable: It cannot be removed.
    """
    open_store(store).remove_named(name_of(control))


def own_address(variables: Mapping[str, str]) -> str:
    """Under which address other containers reach this one: what its platform says, else that of its host name."""
    return variables.get("EVFLOW_KUBERNETES_POD_IP") or socket.gethostbyname(socket.gethostname())


def _leave(store: str, control: AttemptId, address: str) -> None:
    open_store(store).write_named(name_of(control), [address.encode()])


def _look(store: str, control: AttemptId) -> str:
    try:
        return bytes(open_store(store).read_named(name_of(control))).decode()
    except NameMissing:
        return ""
