"""The environments of this machine, for what runs attempts in them: each is built once, however many attempts wait for it.

A lock comes from the store of the run. What is there already costs two looks at the disk; else a process of its own builds it
(`evflow.environments.building`), which waits where another process of this machine is doing the same.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream

from evflow import config
from evflow.clock import now_us
from evflow.environments import building, support
from evflow.environments.cache import Built, Cache
from evflow.environments.errors import EnvironmentUnavailable
from evflow.environments.spec import Lock
from evflow.store import open_store
from evflow.worker.interpreters import Interpreter

_TRIES: Final = 3


class Ready(NamedTuple):
    """An environment that an attempt can begin in.

    Attributes:
        interpreter: Its interpreter.
        built: What it is.
        how: `built` or `reused`.
        took_us: How long it was waited for.
    """

    interpreter: Interpreter
    built: Built
    how: str
    took_us: int


class EnvironmentGone(EnvironmentUnavailable):
    """An environment is removed as soon as it is built."""

    code = "environment-gone"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The environment '{name}' was removed before it could be used, {_TRIES} times.", "Is `evflow env prune` at work here?"
        )


class Environments:
    """The environments below a home. Those that it gives are held: nobody removes them before `let_go` or `aclose`.

    Args:
        home: EVFLOW_HOME.
        on_notice: Hears of what takes time.
    """

    def __init__(self, home: Path, on_notice: Callable[[str], None] | None = None) -> None:
        self._home = home
        self._on_notice = on_notice
        self._cache = Cache(home)
        self._locks: dict[bytes, Lock] = {}
        self._held: dict[str, int] = {}
        self._at_work: dict[bytes, asyncio.Task[str]] = {}

    async def get(self, store: str, digest: bytes) -> Ready:
        """The environment of a lock, which is built if it is not there.

        Args:
            store: URL of the store that has the lock.
            digest: Of the lock.

        Raises:
            EvflowError: It cannot be had.
        """
        began_us, how = now_us(), "reused"
        lock = self._locks.get(digest)
        if lock is None:
            lock = self._locks[digest] = await anyio.to_thread.run_sync(_read, store, digest)
        for _ in range(_TRIES):
            found = await anyio.to_thread.run_sync(self._find, lock)
            if found is not None:
                built, beside, held = found
                self._keep(built.name, held)
                return Ready(_interpreter(built, beside), built, how, now_us() - began_us)
            at_work = self._at_work.get(digest)
            if at_work is None:
                at_work = self._at_work[digest] = asyncio.create_task(self._build(lock))
                at_work.add_done_callback(lambda done: self._over(digest, done))
            how = await asyncio.shield(at_work)
        raise EnvironmentGone(lock.name)

    def let_go(self, name: str) -> None:
        """An environment may be removed: nothing runs in it any more that this process started."""
        held = self._held.pop(name, None)
        if held is not None:
            os.close(held)

    def _find(self, lock: Lock) -> tuple[Built, Path, int | None] | None:
        """The environment and its support, and a descriptor that keeps it from being removed, if this process has none yet. Blocking."""
        found = building.found_here(self._home, lock)
        if found is None or lock.name in self._held:
            return (*found, None) if found is not None else None
        held = self._cache.share(lock.name)
        return (*found, held) if held is not None else None

    def _keep(self, name: str, held: int | None) -> None:
        if held is None:
            return
        if name in self._held:  # another attempt's, found at the same time
            os.close(held)
        else:
            self._held[name] = held

    async def aclose(self) -> None:
        """End what is being built, of which nothing counts as built, and let everything go."""
        at_work = list(self._at_work.values())
        for task in at_work:
            task.cancel()
        if at_work:
            await asyncio.wait(at_work)
        for name in list(self._held):
            self.let_go(name)

    def _over(self, digest: bytes, done: "asyncio.Task[str]") -> None:
        self._at_work.pop(digest, None)
        if not done.cancelled():
            done.exception()  # whoever waits has it; where nobody does any more it is nobody's

    async def _build(self, lock: Lock) -> str:
        """Have it built by another process; `built` or `reused`."""
        if self._on_notice is not None:
            many = lock.count
            self._on_notice(f"Building the environment {lock.name[:12]}: {many} package{'' if many == 1 else 's'}, Python {lock.python}")
        process = await anyio.open_process(
            [sys.executable, *building.COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is the foreground's
        )
        said, code = [b"", b""], 0
        try:
            assert process.stdin is not None
            async with anyio.create_task_group() as group:
                group.start_soon(_drain, process.stdout, said, 0)
                group.start_soon(_drain, process.stderr, said, 1)
                await process.stdin.send(building.order(self._home, lock))
                await process.stdin.aclose()
                code = await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()
        return str(building.answer(code, *said)["how"])


async def _drain(stream: ByteReceiveStream | None, said: list[bytes], at: int) -> None:
    assert stream is not None
    async for part in stream:
        said[at] += part


def _read(store: str, digest: bytes) -> Lock:
    return Lock.from_bytes(bytes(open_store(store).get(digest)))


def _interpreter(built: Built, beside: Path) -> Interpreter:
    """Its interpreter, with the variables of a shell in which the environment is active."""
    folder = Path(built.python).parent.parent
    path = os.pathsep.join((str(folder / "bin"), os.environ.get("PATH", os.defpath)))
    own = "CONDA_PREFIX" if built.kind == "conda" else "VIRTUAL_ENV"
    variables = ((support.VARIABLE, str(beside)), ("PATH", path), (own, str(folder)), ("PYTHONNOUSERSITE", "1"))
    return Interpreter(built.python, variables, built.name)


def of_this_machine(on_notice: Callable[[str], None]) -> Environments:
    """The environments below EVFLOW_HOME. Blocking."""
    return Environments(config.home(), on_notice)
