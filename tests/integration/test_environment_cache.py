"""The cache of environments: killed builders, tools that outlive them, what is in use, what is too much."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evflow.environments import building
from evflow.environments.cache import Built, Cache
from evflow.environments.spec import Lock, Spec
from tests.packages import only, wheel
from tests.waiting import wait_until

SLOW_BUILDER = """
import sys, time
from pathlib import Path
from evflow.environments import building, pypi
from evflow.environments.spec import Lock

def build(lock, folder):
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("half of it")
    {then}

pypi.build = build
building.ensure(Path(sys.argv[1]), Lock.from_bytes(sys.stdin.buffer.read()))
"""


@pytest.fixture
def lock(root: Path, evflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """The lock of one small package, resolved by uv."""
    wheel(root / "index", "greeting", "1.0")
    for name, text in only(root / "index").items():
        monkeypatch.setenv(name, text)
    return building.resolved(evflow_home, Spec("pypi", {"greeting": "1.0"}))


def a_builder(home: Path, lock: Lock, then: str) -> "subprocess.Popen[bytes]":
    """A process that builds, and does something else in the middle of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILDER.format(then=then), str(home)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(lock.to_bytes())
    process.stdin.close()
    return process


def test_a_killed_builder_leaves_nothing_that_counts_as_built(evflow_home: Path, lock: Lock) -> None:
    """The next one removes what is there and builds anew."""
    cache = Cache(evflow_home)
    half = cache.folder(lock.name) / "bin" / "python"
    process = a_builder(evflow_home, lock, "time.sleep(600)")
    wait_until(half.exists, "half of it is there")
    process.kill()
    process.wait()
    assert cache.ready(lock.name) is None
    assert cache.names() == []
    assert cache.leftovers() == [lock.name]
    built, how = building.ensure(evflow_home, lock)
    assert how == "built"
    assert (
        subprocess.run([built.python, "-c", "import greeting; print(greeting.__version__)"], capture_output=True, check=True).stdout
        == b"1.0\n"
    )
    assert building.ensure(evflow_home, lock) == (built, "reused")
    assert cache.leftovers() == []


def test_a_tool_that_outlives_its_builder_keeps_others_out_of_the_folder(root: Path, evflow_home: Path, lock: Lock) -> None:
    """It still writes there."""
    tool = f"import subprocess; p = subprocess.Popen(['sleep', '600'], close_fds=False); Path({str(root / 'tool')!r}).write_text(str(p.pid)); time.sleep(600)"
    process = a_builder(evflow_home, lock, tool)
    wait_until(lambda: (root / "tool").exists() and (root / "tool").read_text() != "", "the tool is at work")
    process.kill()
    process.wait()
    cache = Cache(evflow_home)
    with cache.alone_or_not(lock.name) as free:
        assert not free
    os.kill(int((root / "tool").read_text()), signal.SIGKILL)

    def is_free() -> bool:
        with cache.alone_or_not(lock.name) as free:
            return free

    wait_until(is_free, "its lock is free")


def test_what_is_in_use_is_not_removed(evflow_home: Path, lock: Lock) -> None:
    """And nobody begins to use what is not there."""
    cache = Cache(evflow_home)
    assert cache.share(lock.name) is None
    building.ensure(evflow_home, lock)
    held = cache.share(lock.name)
    assert held is not None
    assert cache.prune([lock.name]) == ([], [lock.name])
    assert cache.ready(lock.name) is not None
    os.close(held)
    assert cache.prune([lock.name]) == ([lock.name], [])
    assert cache.share(lock.name) is None
    assert not cache.folder(lock.name).exists()


def test_what_was_used_longest_ago_goes_first(evflow_home: Path) -> None:
    """Until the rest is small enough; or whatever was not used for a time."""
    cache = Cache(evflow_home)
    lock = Lock("pypi", "3.11", (), "")
    for number in range(4):
        name = f"{number}" * 32
        cache.folder(name).mkdir(parents=True)
        cache.finish(Built(name, "pypi", sys.executable, "3.11.7", "abi", 0, 100), lock)
        at = 1_000_000_000 + number * 1_000
        os.utime(cache.folder(name) / "ready.json", (at, at))
    assert cache.surplus(max_bytes=250) == ["1" * 32, "0" * 32]
    assert cache.surplus(max_bytes=400) == []
    cache.used("0" * 32)
    assert cache.surplus(max_bytes=100) == ["3" * 32, "2" * 32, "1" * 32]
    assert cache.surplus(unused_s=3600) == ["3" * 32, "2" * 32, "1" * 32]


def test_an_environment_whose_python_is_gone_is_built_anew(root: Path, evflow_home: Path, lock: Lock) -> None:
    """A Python that was upgraded leaves links to nothing."""
    built, _ = building.ensure(evflow_home, lock)
    Path(built.python).unlink()
    Path(built.python).symlink_to(root / "gone")
    assert Cache(evflow_home).ready(lock.name) is None
    assert building.ensure(evflow_home, lock)[1] == "built"
