"""`parallel_map` and `parallel_imap_unordered`: a function over items, each in a fork of this process; and `profile`.

The function may be a lambda or a closure, since it is inherited and not sent; what it returns is pickled. Each child writes into a file that has no
name, which takes any size without a reader.
"""

import os
import pickle
import select
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, NamedTuple, TypeVar

from evflow.clock import monotonic_s
from evflow.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")


class MulticoreException(UsageError):
    """A child of `parallel_map` failed."""

    code = "multicore"

    def __init__(self, pid: int, status: int) -> None:
        super().__init__(
            f"Child failed: process {pid} of parallel_map ended with {_ended(status)}.", "Its traceback stands above, on stderr."
        )


def parallel_imap_unordered(
    func: Callable[[Item], Result],
    iterable: Iterable[Item],
    max_parallel: int | None = None,
    dir: str | None = None,  # noqa: A002 - the argument's name there
) -> Iterator[Result]:
    """Results of `func` over the items, as they come.

    Args:
        func: The function; it runs in a process of its own for each item.
        iterable: The items; those that have not begun are not taken yet.
        max_parallel: Processes at once; as many as there are cores if None.
        dir: Where temporary files are.

    Raises:
        MulticoreException: A child failed. Those beside it go on, and are waited for.
    """
    items = iter(iterable)
    running: dict[int, _Child] = {}
    try:
        for item in islice(items, max_parallel or os.cpu_count() or 1):
            _begin(func, item, dir, running)
        while running:
            ended, _, _ = select.select(list(running), [], [])  # without a deadline: the function may take its time
            child = running.pop(ended[0])
            status = _wait(ended[0], child)
            with child.file as file:
                if status:
                    raise MulticoreException(child.pid, status)
                file.seek(0)
                result: Result = pickle.load(file)
            for item in islice(items, 1):
                _begin(func, item, dir, running)
            yield result
    finally:
        for end, child in running.items():
            _wait(end, child)
            child.file.close()


def parallel_map(
    func: Callable[[Item], Result],
    iterable: Iterable[Item],
    max_parallel: int | None = None,
    dir: str | None = None,  # noqa: A002 - the argument's name there
) -> list[Result]:
    """Results of `func` over the items, in their order; see `parallel_imap_unordered`."""

    def numbered(given: tuple[int, Item]) -> tuple[int, Result]:
        return given[0], func(given[1])

    found = dict(parallel_imap_unordered(numbered, enumerate(iterable), max_parallel, dir))
    return [found[index] for index in range(len(found))]


@contextmanager
def profile(label: str, stats_dict: dict[str, int] | None = None) -> Generator[None]:
    """Print how long the block takes, or add it to `stats_dict[label]`, in ms."""
    if stats_dict is None:
        sys.stdout.write(f"PROFILE: {label} starting\n")
    began_s = monotonic_s()
    yield
    took_ms = int((monotonic_s() - began_s) * 1_000)
    if stats_dict is None:
        sys.stdout.write(f"PROFILE: {label} completed in {took_ms}ms\n")
    else:
        stats_dict[label] = stats_dict.get(label, 0) + took_ms


class _Child(NamedTuple):
    """A process that works on an item, and the file that takes its result."""

    pid: int
    file: IO[bytes]


def _begin(func: Callable[[Item], object], item: Item, folder: str | None, running: "dict[int, _Child]") -> None:
    """Start a process; its key in `running` is the end of a pipe that can be read when the process has ended."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it is closed by who reads it
    end, held = os.pipe()
    sys.stdout.flush()  # what waits there would be written by both
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(held)
        running[end] = _Child(pid, file)
        return
    code = 1
    try:
        pickle.dump(func(item), file, pickle.HIGHEST_PROTOCOL)
        file.flush()
        code = 0
    except BaseException as error:  # noqa: BLE001 - it is the child's end, and is shown
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(end: int, child: _Child) -> int:
    os.close(end)
    return os.waitpid(child.pid, 0)[1]


def _ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit code {code}"
