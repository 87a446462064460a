"""How the nodes of a gang in containers learn where node 0 is, and which of them a container is."""

import base64
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from evflow.core.ids import AttemptId
from evflow.store import open_store
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.remote import meeting
from evflow_executors.remote.command import ContainerSettings, command_of, packed_order
from evflow_executors.remote.container import INDEX, OrderMissing, read_order

NODES = [AttemptId.parse(f"Crew/1/{task}.0") for task in (2, 3, 4)]
ORDERS = [AttemptOrder("work", node.task, 0, frames=(("start", 1, "parallel", index, 3, None, None),)) for index, node in enumerate(NODES)]


async def test_the_others_wait_for_the_address_of_node_0_of_their_attempt(root: Path) -> None:
    store = f"file://{root}/store"
    found: list[str] = []

    async def meet(index: int) -> None:
        found.append(await meeting.meet(store, NODES[index], index, f"10.0.0.{index}", 60))

    async with anyio.create_task_group() as group:
        group.start_soon(meet, 1)
        group.start_soon(meet, 2)
        group.start_soon(meet, 0)
    assert found == ["10.0.0.0"] * 3
    with pytest.raises(meeting.GangUnmet, match="hostname_resolution_timeout"):
        await meeting.meet(store, AttemptId.parse("Crew/1/3.1"), 1, "10.0.0.1", 0.01)
    await anyio.to_thread.run_sync(meeting.remove, store, NODES[0])
    with pytest.raises(meeting.GangUnmet):
        await meeting.meet(store, NODES[1], 1, "10.0.0.1", 0.01)


def test_a_container_takes_the_order_of_its_index(root: Path) -> None:
    context = RunContext("Crew", 1, "", "s0", "", "file:///store", b"")
    command = command_of(str(NODES[0]), packed_order(context, ORDERS, "file:///store"), ContainerSettings("0", "file:///store"), nodes=3)
    for index, node in enumerate(NODES):
        attempt, order = read_order({**command.env, INDEX: str(index)})
        assert (attempt, order.order) == (node, ORDERS[index])
        assert order.order.gang == (index, 3)
    store = f"file://{root}/store"
    at = open_store(store).put([packed_order(context, ORDERS, store)]).hex()  # as a large one
    kept = command_of(str(NODES[0]), b"", ContainerSettings("0", store), order_at=at, nodes=3)
    assert read_order({**kept.env, INDEX: "2"})[0] == NODES[2]
    for variables in (command.env, {**command.env, INDEX: "3"}):
        with pytest.raises(OrderMissing):
            read_order(variables)
    alone = {**command.env, "EVFLOW_ORDER": base64.b64encode(packed_order(context, ORDERS[0], "file:///store")).decode()}
    with pytest.raises(OrderMissing):
        read_order({**alone, INDEX: "0"})
