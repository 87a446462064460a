"""Runs of many codes on one machine: who shares a fork server, which of them stay, and what becomes of code that cannot be loaded."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest

from evflow.core.events import AttemptExited, AttemptFailed
from evflow.core.ids import AttemptId, TaskId
from evflow.store import open_store
from evflow.store.artifacts import save
from evflow.worker.spec import AttemptOrder
from evflow_executors import packages
from evflow_executors.local import FORK_SERVER_DIED, ForkServerBroken, RunUnknown
from evflow_executors.packages import idle_sizes_bytes
from tests.integration.test_local_executor import gone
from tests.packaged_world import PATIENCE_S, PackagedWorld, a_flow, a_packaged_world, run_of
from tests.waiting import wait_until_async

pytestmark = pytest.mark.may_block("the tests look at processes")

SLEEPS = "time.sleep(600)"


def folders(world: PackagedWorld) -> list[str]:
    """The folders of the codes that have a fork server, the longest idle one first."""
    return [Path(file).parent.name for file in world.executor.fork_servers.values()]


# --- who shares a fork server --------------------------------------------------------------------------------


async def test_flows_import_the_modules_of_their_own_package_whatever_others_have_of_that_name(root: Path) -> None:
    async with a_packaged_world() as world:
        for folder in ("one", "two"):
            (root / folder).mkdir()
            (root / folder / "beside.py").write_text(f"NAME = {folder!r}\n")
        flows = [
            a_flow(root, folder, "print(beside.NAME)", head="import beside\n", run=number)
            for number, folder in enumerate(("one", "two"), 1)
        ]
        assert [await world.run(context) for context in flows] == ["one", "two"]


async def test_a_body_finds_its_packages_files_by_relative_paths(root: Path) -> None:
    async with a_packaged_world() as world:
        context = a_flow(root, "one", "print(open('data.txt').read())")
        (root / "one" / "data.txt").write_text("forty-two")
        assert await world.run(context) == "forty-two"
        spawned = replace(context, run=2, options={**context.options, "start_method": "spawn"})
        assert await world.run(spawned) == "forty-two"


async def test_runs_of_one_code_share_a_fork_server_and_others_do_not(root: Path) -> None:
    async with a_packaged_world() as world:
        context = a_flow(root, "one", "print(os.getppid())")
        first = await world.run(context)
        assert await world.run(replace(context, run=2)) == first
        others = [replace(context, run=3, package=b"other"), replace(context, run=4, options={**context.options, "with": ["retry"]})]
        assert first not in {await world.run(other) for other in others}
        assert len(world.executor.fork_servers) == 3


# --- code that cannot be loaded ------------------------------------------------------------------------------


async def test_a_flow_that_cannot_be_imported_fails_its_own_attempts_only(root: Path) -> None:
    async with a_packaged_world() as world:
        broken = a_flow(root, "broken", "pass", name="Broken", head="import no_such_module\n")
        sound = a_flow(root, "sound", "print('fine')")
        name = await world.begin(broken)
        assert await world.run(sound) == "fine"
        await world.end(name)
        assert "ModuleNotFoundError: No module named 'no_such_module'" in world.output(name)
        assert await world.run(sound, 2) == "fine"


async def test_code_that_ends_the_process_which_imports_it_crashes_its_own_attempts_only(root: Path) -> None:
    async with a_packaged_world() as world:
        fatal = a_flow(root, "fatal", "pass", name="Fatal", head="print('ending', flush=True)\nos._exit(3)\n")
        sound = a_flow(root, "sound", "print('fine')")
        name = await world.begin(fatal)
        assert await world.run(sound) == "fine"
        assert await world.end(name) == AttemptExited(1, 0, 3, None), "a crash of its own, not a lost worker"
        assert world.output(name) == "ending"
        assert await world.end(await world.begin(fatal, 1, 1)) == AttemptExited(1, 1, 3, None)
        assert world.ends(name) == 1


async def test_a_flow_whose_file_is_gone_is_told_by_its_attempts(root: Path) -> None:
    async with a_packaged_world() as world:
        context = a_flow(root, "one", "pass")
        (root / "one" / "flow.py").unlink()
        (root / "one").rmdir()
        name = await world.begin(context)
        await world.end(name)
        assert "cannot be read" in world.output(name)


async def test_an_attempt_is_cancelled_though_its_flow_is_never_loaded(root: Path) -> None:
    async with a_packaged_world() as world:
        context = a_flow(root, "slow", "pass", head="time.sleep(600)\n")
        name = await world.begin(context)
        await world.executor.cancel(name, grace_s=0.05)
        assert await world.end(name) == AttemptExited(1, 0, None, None, "never-started")
        [pid] = world.executor.fork_servers
        await world.executor.release(run_of(context))
        await wait_until_async(_async(lambda: gone(pid)), "a fork server that loads for nobody is ended")


async def test_an_interpreter_that_cannot_serve_fails_attempts_and_not_the_executor(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_packaged_world() as world:
        sound = a_flow(root, "sound", "print('fine')")
        assert await world.run(sound) == "fine"
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/bin/false")
            other = a_flow(root, "other", "print('later')", name="Other")
            name = await world.begin(other)
            failed = await world.end(name)
        assert isinstance(failed, AttemptFailed)
        assert (failed.kind, failed.error) == ("load", ForkServerBroken.code)
        assert (world.executor.running, world.ends(name)) == (frozenset(), 1)
        assert await world.run(sound, 2) == "fine"
        assert await world.run(other, 2) == "later", "its code is tried anew"


async def test_an_attempt_for_which_the_system_gives_no_process_has_never_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_packaged_world() as world:
        context = a_flow(root, "one", "print('later')")
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", str(root / "nothing"))
            with pytest.raises(OSError, match="No such file"):
                await world.executor.prepare(context)
            name = AttemptId(run_of(context), TaskId(1), 0)
            await world.executor.launch(name, AttemptOrder("start", 1, 0))
            assert await world.end(name) == AttemptExited(1, 0, None, None, "never-started: No such file or directory")
        assert await world.run(context, 2) == "later"


async def test_launching_into_a_flow_that_still_loads_waits_for_nothing(root: Path) -> None:
    head = "while not os.path.exists('../go'):\n    time.sleep(0.005)\n"
    async with a_packaged_world() as world:
        context = a_flow(root, "slow", "pass", head=head)
        await world.executor.prepare(context)
        names = [AttemptId(run_of(context), TaskId(task), 0) for task in range(1, 21)]
        with anyio.fail_after(PATIENCE_S):
            for name in names:
                await world.executor.launch(name, AttemptOrder("start", name.task, 0, crash="x" * 500_000))
        assert world.executor.running == set(names)
        (root / "go").touch()
        assert [await world.end(name) for name in names] == [AttemptExited(name.task, 0, 0, None) for name in names]


async def test_a_fork_server_whose_flow_never_loads_dies_with_its_owner(root: Path) -> None:
    head = "open('../loads', 'w').close()\ntime.sleep(600)\n"
    async with a_packaged_world() as world:
        await world.begin(a_flow(root, "slow", "pass", head=head))
        [pid] = world.executor.fork_servers
        await wait_until_async(_async((root / "loads").exists), "it loads")
        os.kill(pid, signal.SIGTERM)  # as the kernel does when the owner dies
        await wait_until_async(_async(lambda: gone(pid)), "it is dead")


async def test_modules_that_take_signals_for_themselves_hinder_no_attempt(root: Path) -> None:
    head = "signal.set_wakeup_fd(-1)\nfor number in (signal.SIGCHLD, signal.SIGTERM):\n    signal.signal(number, signal.SIG_IGN)\n"
    async with a_packaged_world() as world:
        context = a_flow(root, "one", "print('fine')", head=head)
        assert [await world.run(context, task) for task in (1, 2)] == ["fine", "fine"]


# --- deaths --------------------------------------------------------------------------------------------------


async def test_a_killed_fork_server_takes_the_attempts_of_its_own_code_only(root: Path) -> None:
    async with a_packaged_world() as world:
        names = [await world.begin(a_flow(root, folder, SLEEPS, run=number)) for number, folder in enumerate(("one", "two"), 1)]
        pids = [(await world.started(name)).pid for name in names]
        victim = next(pid for pid, file in world.executor.fork_servers.items() if Path(file).parent.name == "one")
        os.kill(victim, signal.SIGKILL)
        assert await world.end(names[0]) == AttemptExited(1, 0, None, None, FORK_SERVER_DIED)
        assert gone(pids[0])
        assert not gone(pids[1])
        assert world.executor.running == {names[1]}
        again = AttemptId(names[0].run, names[0].task, 1)
        await world.executor.launch(again, AttemptOrder("start", 1, 1))
        assert (await world.started(again)).attempt == 1


async def test_attempts_of_a_fork_server_that_is_killed_while_it_loads_run_in_the_next_one(root: Path) -> None:
    async with a_packaged_world() as world:
        head = "while not os.path.exists('../go'):\n    time.sleep(0.005)\n"
        name = await world.begin(a_flow(root, "one", "print('ran')", head=head))
        [pid] = world.executor.fork_servers
        os.kill(pid, signal.SIGKILL)
        (root / "go").touch()
        assert await world.end(name) == AttemptExited(1, 0, 0, None)
        assert world.output(name) == "ran"


async def test_nothing_is_left_of_any_code_when_the_executor_was_closed(root: Path) -> None:
    async with a_packaged_world() as world:
        names = [await world.begin(a_flow(root, folder, SLEEPS, run=number)) for number, folder in enumerate(("one", "two"), 1)]
        pids = [(await world.started(name)).pid for name in names]
        pids += world.executor.fork_servers
        await world.executor.aclose()
        assert all(map(gone, pids))
        assert not world.executor.running


async def test_an_executor_is_closed_though_nobody_takes_what_its_attempts_print(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "STOP_WITHIN_S", 10 * PATIENCE_S)  # it has not to give up waiting
    async with a_packaged_world() as world:
        body = "[print(n, flush=True) for n in range(5_000)]; open('../printed', 'w').close(); time.sleep(600)"
        name = await world.begin(a_flow(root, "one", body))
        pid = (await world.started(name)).pid
        await wait_until_async(_async((root / "printed").exists), "it has printed")
        with anyio.fail_after(PATIENCE_S):
            await world.executor.aclose()
        assert gone(pid)


async def test_adopting_ends_what_a_dead_owner_left_of_each_run(root: Path) -> None:
    contexts = [a_flow(root, folder, SLEEPS, run=number) for number, folder in enumerate(("one", "two"), 1)]
    async with a_packaged_world() as former, a_packaged_world() as world:
        names = [await former.begin(context) for context in contexts]
        pids = [(await former.started(name)).pid for name in names]
        for context in contexts:
            await world.executor.prepare(context)
        assert list(await world.executor.adopt(names)) == []
        await wait_until_async(_async(lambda: all(map(gone, pids))), "nothing of them runs")
        with pytest.raises(RunUnknown):
            await world.executor.adopt([AttemptId.parse("Other/1/1.0")])


# --- runs that are over --------------------------------------------------------------------------------------


async def test_warm_fork_servers_beyond_the_memory_for_them_are_stopped_oldest_first(root: Path) -> None:
    flows = [a_flow(root, folder, "pass", run=number) for number, folder in enumerate(("one", "two", "three"), 1)]
    async with a_packaged_world() as world:
        for context in flows:
            await world.run(context)
        servers_now = [psutil.Process(pid) for pid in world.executor.fork_servers]
        for server in servers_now:
            await a_process_waits(server)
        for context in flows:
            await world.executor.release(run_of(context))
        size_bytes = max(idle_sizes_bytes([server.pid for server in servers_now]))
        assert size_bytes > max(server.memory_full_info().pss for server in servers_now), "the process that waits counts"
    async with a_packaged_world(warm_bytes=int(2.5 * size_bytes)) as world:
        for context in flows:
            await world.run(context)
        pids = {Path(file).parent.name: pid for pid, file in world.executor.fork_servers.items()}
        for context in (flows[1], flows[0], flows[2]):
            await world.executor.release(run_of(context))
        await wait_until_async(_async(lambda: gone(pids["two"])), "the one that was idle first is stopped")
        assert folders(world) == ["one", "three"]
        await world.run(replace(flows[0], run=10))
        assert pids["one"] in world.executor.fork_servers, "a warm one was used"


async def test_the_process_that_waits_for_the_next_run_is_told_of_that_run_and_begins_with_what_it_was_given(root: Path) -> None:
    async with a_packaged_world() as world:
        context = a_flow(root, "one", "print(current.run_id, self.alpha)", head="from evflow import current\n")
        given = [save(open_store(context.store_url), {"alpha": alpha}).manifest for alpha in ("first", "later")]
        assert await world.run(replace(context, parameters=given[0])) == "1 first"
        [server] = world.executor.fork_servers
        spare = await a_process_waits(psutil.Process(server))
        await world.executor.release(run_of(context))
        name = await world.begin(replace(context, run=7, parameters=given[1]))
        assert (await world.started(name)).pid == spare.pid
        await world.end(name)
        assert world.output(name) == "7 later"


async def test_a_fork_server_with_attempts_is_never_stopped(root: Path) -> None:
    async with a_packaged_world(warm_bytes=0) as world:
        name = await world.begin(a_flow(root, "one", SLEEPS))
        await world.started(name)
        other = a_flow(root, "two", "pass", name="Other")
        await world.run(other)
        await world.executor.release(run_of(other))
        await world.executor.release(name.run)
        await wait_until_async(_async(lambda: folders(world) == ["one"]), "the idle one is stopped")
        assert world.executor.running == {name}


async def test_an_attempt_that_still_exits_when_its_run_is_released_is_observed(root: Path) -> None:
    async with a_packaged_world(warm_bytes=0) as world:
        name = await world.begin(a_flow(root, "one", SLEEPS))
        pid = (await world.started(name)).pid
        await world.executor.release(name.run)
        with pytest.raises(RunUnknown):
            await world.executor.launch(AttemptId(name.run, name.task, 1), AttemptOrder("start", 1, 1))
        os.kill(pid, signal.SIGKILL)
        assert await world.end(name) == AttemptExited(1, 0, None, signal.SIGKILL)
        await wait_until_async(_async(lambda: not world.executor.fork_servers), "its fork server is not needed any more")


async def test_two_hundred_runs_leave_nothing_behind_in_the_executor_nor_in_its_fork_server(root: Path) -> None:
    counts = "sum(type(each).__name__ in ('RunContext', 'Surroundings') for each in gc.get_objects())"
    async with a_packaged_world() as world:
        context = a_flow(root, "one", f"gc.unfreeze(); print({counts})", head="import gc\n")
        before = int(await world.run(context))
        assert before >= 2, "it counts what the fork server had when it forked"
        for number in range(2, 202):
            run = replace(context, run=number)
            await world.executor.prepare(run)
            await world.executor.release(run_of(run))
        assert int(await world.run(context, 2)) <= before
        assert world.executor.runs == {run_of(context)}
        [workshop] = world.executor._workshops.values()
        assert (
            workshop.runs == set(workshop.local._contexts) == set(map(workshop.local._runs.get, workshop.local._runs)) == {run_of(context)}
        )


async def a_process_waits(server: psutil.Process) -> psutil.Process:
    """The process that a fork server made ahead: it does while it has nothing else to do, and a run of its code is not released."""
    await wait_until_async(_async(lambda: len(server.children()) == 1), "a process waits for an order")
    [spare] = server.children()
    return spare


def _async(predicate: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return predicate()

    return asked
