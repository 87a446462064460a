"""A gigabyte to and from S3, by evflow and by the command line of AWS: ``python -m benchmarks.s3``; a part of the suite `cloud`.

moto's server on this machine stands for S3. Each round moves another content, through a server and from a folder of its own, and evflow's copy of it on this
machine is dropped before it is read back. What the server holds lies in the machine's memory where there is room: S3's disks are not the disk from which a
content comes and on which evflow keeps a copy, and one disk for all three is slower the more is written. Measured is a process that does nothing else, its
time and its peak of resident memory. evflow's begins a second time when the client is imported: the process of a step is a fork of one that has done that. A command has no such beginning.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.engines import Engine, installed
from tests.aws import CREDENTIALS, serving

REPOSITORY = Path(__file__).parent.parent
AWSCLI = "awscli==1.42.61"
MEGABYTES = 1_000
MEMORY = Path("/dev/shm")
PUT, GET = "put", "get"


def aws_cli(folder: Path) -> Engine:
    """Take the command line of AWS from an environment of its own, which is made on the first call."""
    return installed("awscli", folder, AWSCLI)


def moved(engine: Engine, megabytes: int) -> dict[str, float]:
    """Seconds of a put and of a get, and the peak of memory in MB."""
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="ev-s3-"))
        contents = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ev-s3-", dir=held_in(megabytes))))
        server = stack.enter_context(serving(Path(name), contents=contents))
        server.bucket("benchmark")
        folder = Path(name)
        env = {**os.environ, **CREDENTIALS, "HOME": name, "EVFLOW_HOME": f"{name}/e", "AWS_ENDPOINT_URL_S3": server.url}
        write(folder / "content", megabytes * 1_000_000)
        os.sync()  # or the system writes it out, at the expense of what is measured, where memory for unwritten bytes becomes scarce
        readings: dict[str, float] = {}
        peak = 0.0
        for what in (PUT, GET):
            readings[f"{what}_all"], memory, said = timed(command(engine, what, folder), env)
            readings[what] = float(said) if said else readings[f"{what}_all"]
            peak = max(peak, memory)
        if (folder / "back").exists():
            assert (folder / "back").stat().st_size == megabytes * 1_000_000
        return {**readings, "memory": peak}


def held_in(megabytes: int) -> Path | None:
    """The folder in memory for what the server holds: a content's parts, what they are joined to, and half as much to spare; None where it has no room."""
    try:
        room = shutil.disk_usage(MEMORY).free
    except OSError:
        return None
    return MEMORY if room >= 2.5 * megabytes * 1_000_000 else None


def command(engine: Engine, what: str, folder: Path) -> list[str]:
    """The process that moves it."""
    if engine.name == "evflow":
        return [str(engine.python), "-m", "benchmarks.s3", "--inside", what, str(folder)]
    paths = [str(folder / "content"), "s3://benchmark/cli"] if what == PUT else ["s3://benchmark/cli", str(folder / "back")]
    return [str(engine.python.parent / "aws"), "s3", "cp", "--quiet", *paths]


def timed(argv: list[str], env: Mapping[str, str]) -> tuple[float, float, str]:
    """Seconds that a process takes, its peak of resident memory in MB, and what it says.

    Raises:
        CalledProcessError: It failed.
    """
    began_s = time.monotonic()
    process = subprocess.Popen(argv, env=env, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    took_s = time.monotonic() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return took_s, used.ru_maxrss * 1024 / 1e6, said


def write(path: Path, size: int) -> None:
    """Fill a file with bytes that nothing can make smaller."""
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - at)))


def inside(what: str, name: str) -> int:
    """Move the content; how long that took is printed."""
    from evflow.store.s3 import S3Store
    from evflow.store.s3.requests import preload

    preload()  # as a fork server does
    began_s = time.monotonic()
    store = S3Store.from_url("s3://benchmark/evflow")
    noted = Path(name) / "digest"
    if what == PUT:
        noted.write_bytes(store.put(chunks(Path(name) / "content")))
    else:
        size = len(store.uncached().get(noted.read_bytes()))
        assert size == (Path(name) / "content").stat().st_size
    print(time.monotonic() - began_s)
    return 0


def chunks(path: Path) -> Iterator[bytes]:
    """The content, as a serializer hands it over."""
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            yield data


def main() -> int:
    """Move it once by one of the two, and print the readings as JSON."""
    options = parse()
    if options.inside:
        return inside(*options.inside)
    engine = Engine("evflow", Path(sys.executable), "") if options.engine == "evflow" else aws_cli(options.folder)
    print(json.dumps(moved(engine, options.megabytes)))
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3", description=__doc__)
    parser.add_argument("--engine", choices=["evflow", "awscli"], default="evflow", help="who moves it (default: evflow)")
    parser.add_argument("--megabytes", type=int, default=MEGABYTES, help="how much is moved (default: 1000)")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".bench" / "awscli", help="the environment of AWS's command line")
    parser.add_argument("--inside", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
