"""What holds for every test: a world of its own, and nothing left behind in ours.

Each test gets a short folder under /tmp (unix socket paths must fit 103 bytes), which is its HOME, EVFLOW_HOME, TMPDIR and
working folder, an environment without any EVFLOW_* setting of the developer's, and no waiting for lingers and retries.
After it, `tests.leaks` looks for what it left. Async tests run under anyio on asyncio; a blocking call in our code on the
event loop fails them, unless marked `may_block`; marked `virtual_time` they run on a loop whose clock jumps.
"""

import asyncio
import functools
import inspect
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.configuration
import psutil
import pytest
from blockbuster import BlockBuster

from evflow import diagnostics
from evflow.log.wire import reply_timeout_s
from evflow.testing.virtual_time import VirtualTimeLoop
from tests.aws import Aws, serving
from tests.effort import SCALE, SEED, scaled
from tests.leaks import TEST_ROOT_VARIABLE, Before, hear_signals, new_tasks
from tests.redis_server import DebianRedis, foreign_keys

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_HOME = Path.home()
# Cheap first: a mistake shows in the first seconds. Chaos goes on for a minute at a time; were it the last, all other processes would wait for it.
ORDER = ("unit", "typing", "contract", "simulation", "histories", "integration", "chaos", "e2e")
WATCHED = (REPOSITORY, REAL_HOME / ".evflow", REAL_HOME / ".config" / "evflow", REAL_HOME / ".cache" / "evflow")
CLEARED = ("EVFLOW_", "METAFLOW_", "XDG_", "REDIS_", "VALKEY_", "AWS_", "KUBE")
TERMINAL = ("CI", "NO_COLOR", "COLUMNS", "LINES", "PYTHONUNBUFFERED")
"""What changes how output is written: the same everywhere, unless a test says otherwise."""
KEPT = ("EVFLOW_TEST_SCALE", "EVFLOW_TEST_SEED")

pytest_plugins = ["pytester"]


# ---------------------------------------------------------------- order, scale, seed


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give hypothesis the scale and the seed, and hear the signals that are sent to what we start."""
    hear_signals()
    hypothesis.settings.register_profile(
        "evflow",
        max_examples=scaled(100, at_least=10),
        deadline=None,  # a shared machine's hiccup is no failure
        database=None,  # a failure is repeated by its seed, and becomes a test
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("evflow")
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(SEED)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Answer three processes for each two cores: a third of what the tests take is waiting for processes, leases and clocks."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # pytest-xdist reads it
    return (3 * (psutil.cpu_count() or 1) + 1) // 2


def pytest_report_header() -> str:
    """Print what repeats this run."""
    return f"evflow: EVFLOW_TEST_SCALE={SCALE:g} EVFLOW_TEST_SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by cost, keeping the order within a folder."""
    unnamed = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unnamed:
        raise pytest.UsageError(f"called otherwise in each process, so that nobody can ask for it again: give {unnamed[0]} an id")

    def cost(item: pytest.Item) -> int:
        parts = item.path.relative_to(REPOSITORY / "tests").parts if item.path.is_relative_to(REPOSITORY / "tests") else ()
        return ORDER.index(parts[0]) if parts and parts[0] in ORDER else len(ORDER)

    items.sort(key=cost)


@pytest.fixture(scope="session")
def scale() -> float:
    """Answer EVFLOW_TEST_SCALE: 0.1 in a local run, 1 in CI, 10 in the soak."""
    return SCALE


@pytest.fixture(scope="session")
def seed() -> int:
    """Answer EVFLOW_TEST_SEED."""
    return SEED


# ---------------------------------------------------------------- a world of its own


@pytest.fixture
def root() -> Iterator[Path]:
    """Answer the test's own folder: short, empty, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="ev-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def tmp_path(root: Path) -> Path:
    """Replace pytest's own, whose long paths do not fit unix sockets."""
    path = root / "p"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """Answer a server that speaks as S3 does; tests keep to buckets of their own."""
    with serving(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(scope="session", autouse=True)
def session_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Settle what pytest and hypothesis would otherwise place into the folder of the first test that asks."""
    hypothesis.configuration.set_hypothesis_home_dir(tmp_path_factory.getbasetemp() / "hypothesis")


@pytest.fixture
def evflow_home(root: Path) -> Path:
    """Answer EVFLOW_HOME of this test. It does not exist yet."""
    return root / "e"


@pytest.fixture(autouse=True)
def own_world(root: Path, evflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the developer's settings out of the test, and the test's files out of the developer's folders."""
    for name in list(os.environ):
        if (name.startswith(CLEARED) or name in TERMINAL) and name not in KEPT:
            monkeypatch.delenv(name)
    folders = {name: root / folder for name, folder in (("HOME", "h"), ("TMPDIR", "t"))}
    work = root / "w"
    for folder in (*folders.values(), work):
        folder.mkdir()
    for name, folder in folders.items():
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("EVFLOW_HOME", str(evflow_home))
    monkeypatch.setenv("EVFLOW_LINGER_S", "0")
    monkeypatch.setenv("EVFLOW_RETRY_SCALE", "0")
    monkeypatch.setenv(TEST_ROOT_VARIABLE, str(root))
    monkeypatch.setattr(tempfile, "tempdir", None)
    os.chdir(work)
    random.seed(SEED)
    before = Before.look(root, WATCHED)
    yield
    diagnostics.silence()
    os.chdir(REPOSITORY)
    leaks = before.leaks()
    if leaks:
        pytest.fail("the test left behind:\n  " + "\n  ".join(leaks), pytrace=False)


# ---------------------------------------------------------------- the event loop


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run async tests and fixtures on asyncio, in virtual time if the test is marked so."""
    node: pytest.Item = request.node
    return ("asyncio", {"loop_factory": VirtualTimeLoop} if node.get_closest_marker("virtual_time") else {})


@functools.cache
def _blockbuster() -> BlockBuster:
    reply_timeout_s()  # read once a process, and in one of ours before there is a loop
    return BlockBuster(scanned_modules=["evflow", "evflow_scheduler", "evflow_executors"])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail an async test of which a task goes on, or during which our code blocks the loop."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return (yield)
    pyfuncitem.obj = _without_task_leak(function)
    blockbuster = None if pyfuncitem.get_closest_marker("may_block") else _blockbuster()
    try:
        if blockbuster:
            blockbuster.activate()
        return (yield)
    finally:
        if blockbuster:
            blockbuster.deactivate()
        pyfuncitem.obj = function


def _without_task_leak(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(function)
    async def checked(**arguments: Any) -> None:
        before = asyncio.all_tasks()
        await function(**arguments)
        await asyncio.sleep(0)  # lets a task that was cancelled last end
        leaks = new_tasks(before)
        if leaks:
            pytest.fail("the test left behind:\n  " + "\n  ".join(leaks), pytrace=False)

    return checked


# ---------------------------------------------------------------- Debian's redis-server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[DebianRedis]:
    """Answer one running `redis-server` (the machine's own, 7.0 or newer) for the whole run, else skip with the reason."""
    missing = DebianRedis.why_missing()
    if missing:
        pytest.skip(missing)
    with DebianRedis.started() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: DebianRedis) -> Iterator[str]:
    """Answer the URL of an empty Redis. A key outside of our key space fails the test; the rest is removed."""
    redis_server.call("FLUSHALL")
    yield redis_server.url
    leaks = foreign_keys(redis_server)
    redis_server.call("FLUSHALL")
    if leaks:
        pytest.fail("the test left keys outside of the documented key space:\n  " + "\n  ".join(leaks), pytrace=False)
