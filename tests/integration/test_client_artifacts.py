"""Artifacts through the client: values, classes of the flow's file, data that is elsewhere, output that is elsewhere."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from evflow import Run, Task, namespace
from evflow.client.artifact import DataArtifact
from evflow.client.errors import DataElsewhere
from evflow.log.embedded.places import find
from evflow.log.embedded.server import recorded_pids
from evflow.store import ObjectMissing
from evflow.store.artifacts import ArtifactNotLoadable
from evflow.store.packages import build
from tests.client_world import ClientWorld, client_world
from tests.waiting import wait_until

FLOW = """
import helpers
from evflow import FlowSpec, step

class Model:
    def __init__(self, weight):
        self.weight = weight

    def predict(self):
        return helpers.double(self.weight)

class Started(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass

Started()
"""
HELPERS = """
def double(x):
    return 2 * x

class Helped:
    value = 7
"""


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ClientWorld]:
    """Answer an empty log; the global namespace is in force."""
    with client_world(evflow_home) as made:
        yield made


@pytest.fixture
def package(world: ClientWorld, tmp_path: Path) -> bytes:
    """Answer the code package of a folder with a flow and a module beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flow.py").write_text(FLOW)
    (folder / "helpers.py").write_text(HELPERS)
    digest = build(world.store, folder / "flow.py").digest
    shutil.rmtree(folder)
    return digest


@pytest.fixture
def flow_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Answer a `__main__` that has the flow's class, as the process has it that makes the artifact."""
    before = set(sys.modules)
    main = ModuleType("__main__")
    exec("class Model:\n    def __init__(self, weight):\n        self.weight = weight\n", main.__dict__)
    yield main
    for name in set(sys.modules) - before:
        if name.startswith("evflow_main_") or name == "helpers":
            del sys.modules[name]


def one_value(world: ClientWorld, value: object, package: bytes | None = None) -> Task:
    run = world.run(code={"package": package}).succeed(1, "end", values={"x": value}, package=package).publish()
    return Task(f"{run.pathspec}/start/1")


def one_model(world: ClientWorld, main: ModuleType, package: bytes | None, monkeypatch: pytest.MonkeyPatch) -> Task:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "__main__", main)
        return one_value(world, main.Model(21), package)


# ---------------------------------------------------------------- values


def test_an_artifact_tells_its_size_digest_and_type_without_being_loaded(world: ClientWorld) -> None:
    task = one_value(world, {"a": [1, 2]})
    artifact = task["x"]
    assert artifact == DataArtifact(artifact.pathspec) == task.artifacts.x
    assert artifact.size > 0
    assert len(artifact.sha) == 64
    assert artifact.type == "dict"
    assert artifact.created_at == artifact.finished_at == task.finished_at
    assert artifact.data == {"a": [1, 2]}
    assert artifact.parent == task


def test_a_value_is_loaded_anew_each_time(world: ClientWorld) -> None:
    task = one_value(world, [1])
    task.data.x.append(2)
    assert task.data.x == [1]


def test_an_array_can_be_written_to(world: ClientWorld) -> None:
    array = one_value(world, np.arange(100_000.0)).data.x
    array[0] = 7
    assert array[0] == 7


def test_data_is_asked_like_an_object_and_artifacts_like_a_named_tuple(world: ClientWorld) -> None:
    task = one_value(world, 1)
    assert "x" in task.data
    assert "y" not in task.data
    assert "x" in dir(task.data)
    assert [artifact.id for artifact in task] == [artifact.id for artifact in task.artifacts] == ["x"]
    assert task.artifacts._fields == ("x",)
    assert list(task.artifacts._asdict()) == ["x"]
    assert len(task.artifacts) == 1


def test_private_artifacts_are_not_listed_and_can_be_asked_for(world: ClientWorld) -> None:
    run = world.run().succeed(1, "end", values={"_hidden": 1, "shown": 2}).publish()
    task = Task(f"{run.pathspec}/start/1")
    assert [artifact.id for artifact in task] == ["shown"]
    assert task.data._hidden == 1
    assert "_hidden" in task


# ---------------------------------------------------------------- code


def test_a_class_of_the_flows_file_is_loaded_from_the_runs_package(
    world: ClientWorld, package: bytes, flow_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = one_model(world, flow_module, package, monkeypatch).data.x
    assert model.weight == 21
    assert model.predict() == 42
    assert "helpers" in sys.modules
    assert pickle.loads(pickle.dumps(model)).weight == 21


def test_without_a_package_the_error_names_class_and_file(
    world: ClientWorld, flow_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = one_model(world, flow_module, None, monkeypatch)
    with pytest.raises(ArtifactNotLoadable, match=r"'x' \(.*Model\).*flow\.py"):
        _ = task.data.x


def test_a_class_of_a_module_beside_the_flow_is_loaded_from_the_package_too(world: ClientWorld, package: bytes) -> None:
    helpers = ModuleType("helpers")
    exec(HELPERS, helpers.__dict__)
    sys.modules["helpers"] = helpers
    try:
        task = one_value(world, helpers.Helped(), package)
    finally:
        del sys.modules["helpers"]
    path = list(sys.path)
    try:
        assert task.data.x.value == 7
    finally:
        sys.modules.pop("helpers", None)
    assert sys.path == path


def test_the_code_of_a_run_can_be_read_and_unpacked(world: ClientWorld, package: bytes) -> None:
    task = one_value(world, 1, package)
    code = task.parent.parent.code
    assert code is not None
    assert code.flowspec == FLOW
    assert code.script_name == "flow.py"
    assert code.package == package.hex()
    with code.extract() as folder:
        assert sorted(path.name for path in Path(folder).iterdir()) == ["flow.py", "helpers.py"]
    assert not Path(folder).exists()
    assert Run(world.trained().pathspec).code is None


# ---------------------------------------------------------------- elsewhere


def test_data_on_another_machine_is_told_with_the_machines_name(world: ClientWorld) -> None:
    run = world.run(host="gpu-7", store="file:///home/ada/.evflow/store").succeed(1, "end", values={"x": 1}).publish()
    shutil.rmtree(world.home / "store")
    with pytest.raises(DataElsewhere, match=r"'TrainFlow/1'.*'gpu-7'.*file:///home/ada/.evflow/store"):
        _ = Task(f"{run.pathspec}/start/1").data.x


def test_data_that_is_gone_from_this_machine_is_told_as_that(world: ClientWorld) -> None:
    task = one_value(world, 1)
    shutil.rmtree(world.home / "store")
    with pytest.raises(ObjectMissing):
        _ = task.data.x


def test_a_store_that_was_moved_is_found_by_the_setting(world: ClientWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    task = one_value(world, 5)
    moved = world.home / "moved"
    (world.home / "store").rename(moved)
    monkeypatch.setenv("EVFLOW_STORE", str(moved))
    assert task.data.x == 5


def test_output_on_another_machine_is_told_with_the_machines_name(world: ClientWorld) -> None:
    run = world.run(host="gpu-7").publish()
    task = Task(f"{run.pathspec}/start/1")
    with pytest.raises(DataElsewhere, match=r"output of Task 'TrainFlow/1/start/1'.*'gpu-7'"):
        _ = task.stdout


def test_output_of_another_machine_that_shares_the_store_is_read_from_there(world: ClientWorld) -> None:
    run = world.run(host="gpu-7").print(1, "from afar").publish()
    assert Task(f"{run.pathspec}/start/1").stdout == "from afar\n"


def test_output_in_a_store_that_was_moved_is_found_by_the_setting(world: ClientWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run().print(1, "hello").publish()
    (world.home / "store").rename(world.home / "moved")
    monkeypatch.setenv("EVFLOW_STORE", str(world.home / "moved"))
    assert Task(f"{run.pathspec}/start/1").stdout == "hello\n"


def test_a_task_that_printed_nothing_has_empty_output(world: ClientWorld) -> None:
    assert Task(f"{world.run().publish().pathspec}/start/1").stdout == ""


# ---------------------------------------------------------------- pickling, forks, other processes


def test_objects_are_pickled_as_their_names(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    end = run["end"].task
    assert end is not None
    for item in (run.parent, run, run["end"], end, Task(end.pathspec, attempt=0), end["best"], end.data):
        again = pickle.loads(pickle.dumps(item))
        assert repr(again) == repr(item)
    assert pickle.loads(pickle.dumps(end)).data.best == 2


def test_unpickling_asks_nobody_and_ignores_the_namespace(world: ClientWorld) -> None:
    pickled = pickle.dumps(Run(world.trained().pathspec))
    namespace("user:nobody")
    assert pickle.loads(pickled).successful
    gone = pickle.loads(pickled.replace(b"TrainFlow", b"OtherFlow"))
    with pytest.raises(Exception, match="does not exist"):
        _ = gone.successful


def test_a_pickled_flow_keeps_its_namespace(world: ClientWorld) -> None:
    world.trained()
    world.trained(user="bob")
    namespace("user:ada")
    flow = pickle.dumps(Run("TrainFlow/1").parent)
    namespace("user:bob")
    assert [run.id for run in pickle.loads(flow)] == ["1"]


def test_a_forked_child_has_a_connection_of_its_own(world: ClientWorld) -> None:
    written = world.run().publish(owned=True)
    run = Run(written.pathspec)
    assert not run.finished
    written.succeed(1, "end").succeed(2, values={"x": 1}).seal()
    child = os.fork()
    if not child:
        try:
            data = run.data
            os._exit(0 if data is not None and data.x == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert run.successful
    assert Run(written.pathspec).data is not None


def test_the_client_starts_a_killed_server_again(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    # The server may answer before its guard, which starts beside it, has written down who they are.
    pids = wait_until(lambda: recorded_pids(find(world.home)), "the guard has named the server")
    assert pids is not None
    os.kill(pids[1], 9)
    assert Run("TrainFlow/1").successful
    assert run.tags


def test_importing_the_client_loads_neither_asyncio_nor_redis_py(world: ClientWorld) -> None:
    world.trained()
    script = (
        "import sys\nfrom evflow import Flow, namespace\nnamespace(None)\nrun = Flow('TrainFlow').latest_run\n"
        "assert run.successful and run.data.best == 2\n"
        "print([name for name in ('asyncio', 'anyio', 'redis', 'structlog', 'rich', 'click', 'numpy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


# ---------------------------------------------------------------- reading a wide run


def test_reading_a_run_is_one_request_however_many_tasks_it_has(world: ClientWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from evflow.log.client import RedisLogClient
    from tests.client_world import cross_validation

    run = world.run(cross_validation()).succeed(1, "train", kind="foreach", items=range(200))
    for task in range(2, 202):
        run.succeed(task, "join")
    run.succeed(202, "end").succeed(203).seal()
    asked: list[str] = []
    for name in ("read", "tags", "run", "runs", "flows", "head", "owner"):
        real = getattr(RedisLogClient, name)

        def counted(self: RedisLogClient, *arguments: object, _real: object = real, _name: str = name) -> object:
            asked.append(_name)
            return _real(self, *arguments)  # type: ignore[operator]

        monkeypatch.setattr(RedisLogClient, name, counted)
    found = Run(run.pathspec)
    tasks = [(task.successful, task.finished_at, [artifact.id for artifact in task]) for step in found for task in step]
    assert len(tasks) == 203
    assert all(task[0] for task in tasks)
    assert asked == ["run", "read"]
