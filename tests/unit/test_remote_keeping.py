"""What waiting jobs will read: kept while they wait, and by those who adopt them; over a platform that does what it is told."""

import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from evflow.core.ids import AttemptId
from evflow.log.link import Link
from evflow.store import open_store
from evflow.worker.spec import AttemptOrder
from evflow_executors.kubernetes.answers import lean
from evflow_executors.kubernetes.known import job_seen
from evflow_executors.kubernetes.reasons import pod_seen
from evflow_executors.remote import provision
from evflow_executors.remote.keeping import KEEP_EVERY_S
from evflow_executors.remote.names import job_name
from evflow_executors.remote.owner import OwnerDispatch
from evflow_executors.remote.platform import JobSeen
from tests.contract.test_executor import FLOW
from tests.pool_world import a_pooled_context
from tests.unit.test_remote_gangs import World

ONE = AttemptId.parse("Flow/1/2.0")
NAME = job_name("log", ONE)
ORDER, ARCHIVE, SHEET = (bytes([number]) * 32 for number in (1, 2, 3))
VARIABLES = {"EVFLOW_ORDER_AT": ORDER.hex(), "EVFLOW_FRAMEWORK": f"s3://bucket/x#sha256={ARCHIVE.hex()}"}
LONG_AGO_S = 1_000_000_000.0


async def watched(world: World) -> None:
    async for _ in world._watch:
        pass


@pytest.mark.virtual_time
async def test_what_a_waiting_job_will_read_is_kept_each_half_hour_until_it_begins() -> None:
    async with World.made() as world, anyio.create_task_group() as group:
        group.start_soon(watched, world)
        await anyio.sleep(3 * KEEP_EVERY_S)
        assert world.owner.kept == []  # nothing waits
        world.owner.variables = VARIABLES
        await world.executor.launch(ONE, AttemptOrder("work", 2, 0))
        await anyio.sleep(1)
        world.platform.says.put_nowait(JobSeen(NAME, "waiting", reads=frozenset({SHEET})))
        await anyio.sleep(2 * KEEP_EVERY_S)
        assert world.owner.kept == [{ONE: frozenset({ORDER, ARCHIVE, SHEET})}] * 2
        world.platform.says.put_nowait(JobSeen(NAME, "running"))
        await anyio.sleep(3 * KEEP_EVERY_S)
        assert len(world.owner.kept) == 2
        group.cancel_scope.cancel()


@pytest.mark.virtual_time
async def test_an_adopted_job_that_waits_has_its_objects_kept_at_once_by_what_it_says() -> None:
    async with World.made() as world, anyio.create_task_group() as group:
        world.platform.there, world.platform.phase, world.platform.reads = {NAME}, "waiting", frozenset({ORDER})
        assert list(await world.executor.adopt([ONE])) == [ONE]
        group.start_soon(watched, world)
        await anyio.sleep(1)
        assert world.owner.kept[0] == {ONE: frozenset({ORDER})}
        group.cancel_scope.cancel()


def test_an_order_and_the_archive_that_a_collection_would_take_are_young_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provision, "framework", lambda: b"the packages")
    store = open_store(str(root / "store"))
    order, archive = store.put([b"an order"]), store.put([b"the packages"])
    other = store.put([b"what nobody waits for"])
    for digest in (order, archive, other):
        os.utime(store.where(digest), (LONG_AGO_S, LONG_AGO_S))
    context = a_pooled_context(root, FLOW)

    async def keep() -> bool:
        link = Link("unix:///nowhere")
        owner = OwnerDispatch(link, "0", "me", lambda: 1, lambda _: replace(context, store_url=str(root / "store")))
        owner.log_of(ONE)  # the executor needs its name first
        try:
            return await owner.keep({ONE: frozenset({order})})
        finally:
            await link.aclose()

    assert anyio.run(keep)
    young = {digest for digest, at_us, _ in store.written() if at_us > (LONG_AGO_S + 60) * 1e6}
    assert {order, archive} <= young
    assert other not in young


def test_what_is_kept_of_a_pod_and_a_job_of_kubernetes_says_what_they_will_read() -> None:
    env = [{"name": name, "value": text} for name, text in {**VARIABLES, "OTHER": "x"}.items()]
    spec = {"containers": [{"name": "task", "image": "python", "env": env}]}
    pod = lean({"metadata": {"name": "one"}, "spec": spec, "status": {"phase": "Pending"}})
    job = {"metadata": {"name": "one"}, "spec": {"template": {"spec": spec}}}
    for thing in (pod, job):
        assert job_seen("one", thing, pod_seen(pod), "default").reads == {ORDER, ARCHIVE}
