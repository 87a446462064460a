"""Attempts in environments, as the executor runs them: one build, one fork server, ends that are seen once."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from evflow.core.events import AttemptExited, AttemptFailed, EnvironmentReady
from evflow.core.ids import AttemptId, TaskId
from evflow.environments import building
from evflow.environments.cache import Cache
from evflow.environments.spec import Lock, Spec
from evflow.store import open_store
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.protocol import Observation
from tests.packaged_world import PackagedWorld, a_flow, a_packaged_world, run_of
from tests.packages import only, wheel

pytestmark = pytest.mark.anyio

BODY = "import greeting; print(os.getppid(), greeting.__version__, sys.executable)"


@pytest.fixture
def lock(root: Path, evflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """The lock of one small package; nothing of it is built."""
    wheel(root / "index", "greeting", "1.0")
    for name, text in only(root / "index").items():
        monkeypatch.setenv(name, text)
    return building.resolved(evflow_home, Spec("pypi", {"greeting": "1.0"}))


async def a_run(root: Path, lock: Lock | None, *, run: int = 1, body: str = BODY) -> RunContext:
    """A run whose step has an environment; made beside the loop, which nothing may block."""
    return await anyio.to_thread.run_sync(partial(_a_run, root, lock, run=run, body=body))


def _a_run(root: Path, lock: Lock | None, *, run: int, body: str) -> RunContext:
    options: dict[str, Any] = {}
    if lock is not None:
        options["environments"] = {"start": open_store(f"file://{root}/store").put([lock.to_bytes()])}
    return a_flow(root, "flow", body, run=run, options=options)


def ready(world: PackagedWorld) -> list[EnvironmentReady]:
    """What was said of environments."""
    return [seen.event for seen in world.seen if isinstance(seen, Observation) and isinstance(seen.event, EnvironmentReady)]


async def launch(world: PackagedWorld, context: RunContext, *tasks: int) -> list[AttemptId]:
    """Prepare a run and launch attempts of it."""
    await world.executor.prepare(context)
    names = [AttemptId(run_of(context), TaskId(task), 0) for task in tasks]
    for name in names:
        await world.executor.launch(name, AttemptOrder("start", name.task, 0))
    return names


async def test_fifty_attempts_wait_for_one_build_and_share_one_fork_server(root: Path, lock: Lock, evflow_home: Path) -> None:
    """They are launched at once; each has the package and the interpreter."""
    async with a_packaged_world() as world:
        names = await launch(world, await a_run(root, lock), *range(1, 51))
        assert world.executor.running == frozenset(names)
        for name in names:
            assert await world.end(name) == AttemptExited(name.task, 0, 0, None)
        outputs = {world.output(name) for name in names}
        assert len(outputs) == 1
        _, version, interpreter = outputs.pop().split()
        assert version == "1.0"
        assert interpreter == str(evflow_home / "environments" / lock.name / "bin" / "python")
        assert [one.how for one in ready(world)] == ["built"]
        again = (await launch(world, await a_run(root, lock, run=2), 1))[0]
        await world.end(again)
        assert [one.how for one in ready(world)] == ["built", "reused"]


async def test_an_environment_is_kept_while_its_fork_server_lives(root: Path, lock: Lock, evflow_home: Path) -> None:
    """And can go when that one has gone."""
    cache = Cache(evflow_home)
    async with a_packaged_world() as world:
        [name] = await launch(world, await a_run(root, lock), 1)
        await world.end(name)
        assert await anyio.to_thread.run_sync(cache.prune, [lock.name]) == ([], [lock.name])
    assert await anyio.to_thread.run_sync(cache.prune, [lock.name]) == ([lock.name], [])


@pytest.fixture
def held_up(lock: Lock, evflow_home: Path) -> Iterator[ExitStack]:
    """Nobody builds the environment until it is closed: who is to, waits."""
    with ExitStack() as stack:
        assert stack.enter_context(Cache(evflow_home).alone_or_not(lock.name))
        yield stack


async def test_an_attempt_that_is_cancelled_while_its_environment_is_built_has_ended_once(
    root: Path, lock: Lock, held_up: ExitStack
) -> None:
    """The others go on waiting for it."""
    async with a_packaged_world() as world:
        one, other = await launch(world, await a_run(root, lock), 1, 2)
        await world.executor.cancel(one, grace_s=1.0)
        assert await world.end(one) == AttemptExited(1, 0, None, None, "never-started")
        held_up.close()
        assert await world.end(other) == AttemptExited(2, 0, 0, None)
        assert world.ends(one) == 1


async def test_what_cannot_be_built_fails_each_attempt_that_waits_and_is_tried_again_by_the_next(root: Path, lock: Lock) -> None:
    """With the tool's words."""
    await anyio.Path(root / "index" / "greeting-1.0-py3-none-any.whl").unlink()
    async with a_packaged_world() as world:
        context = await a_run(root, lock)
        for name in await launch(world, context, 1, 2):
            ended = await world.end(name)
            assert isinstance(ended, AttemptFailed)
            assert (ended.kind, ended.error) == ("environment", "environment-unbuilt")
            assert "greeting" in ended.message
        await anyio.to_thread.run_sync(wheel, root / "index", "greeting", "1.0")
        [name] = await launch(world, context, 3)
        assert await world.end(name) == AttemptExited(3, 0, 0, None)


async def test_a_lock_that_the_store_has_not_fails_the_attempt(root: Path, evflow_home: Path) -> None:
    async with a_packaged_world() as world:
        options = {"environments": {"start": b"x" * 32}}
        context = await anyio.to_thread.run_sync(partial(a_flow, root, "flow", BODY, options=options))
        [name] = await launch(world, context, 1)
        ended = await world.end(name)
        assert isinstance(ended, AttemptFailed)
        assert ended.error == "object-missing"


async def test_steps_without_an_environment_have_the_interpreter_of_now(root: Path, lock: Lock) -> None:
    """In the same run."""
    async with a_packaged_world() as world:
        context = await a_run(root, lock, body="print(sys.executable)")
        await world.executor.prepare(context)
        name = AttemptId(run_of(context), TaskId(1), 0)
        await world.executor.launch(name, AttemptOrder("start", 1, 0))
        await world.end(name)
        plain = await a_run(root, None, run=2, body="print(sys.executable)")
        assert await world.run(plain) == sys.executable
        assert world.output(name) != sys.executable
