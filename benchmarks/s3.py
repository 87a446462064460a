"""A gigabyte to and from S3, beside the command line of AWS: ``python -m benchmarks.s3``.

moto's server on this machine stands for S3; both are given the same file and the same server, in turn. Each round moves another content, and
evflow's copy of it on this machine is dropped before it is read back. The peak of resident memory is that of the process that moves it. Goals: no
slower than `aws s3 cp`, less than 200 MB.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.engines import installed
from tests.aws import CREDENTIALS, serving

REPOSITORY = Path(__file__).parent.parent
AWSCLI = "awscli==1.42.61"
MEMORY_GOAL_BYTES = 200_000_000
PUT, GET = "put", "get"


def main() -> int:
    options = parse()
    if options.inside:
        return inside(*options.inside)
    cli = installed("awscli", REPOSITORY / ".bench" / "awscli", AWSCLI).python.parent / "aws"
    seconds: dict[str, list[float]] = {}
    peak = 0
    with tempfile.TemporaryDirectory(prefix="ev-s3-") as name, serving(Path(name)) as server:
        server.bucket("benchmark")
        folder = Path(name)
        shared = {**os.environ, **CREDENTIALS, "HOME": name, "EVFLOW_HOME": f"{name}/e", "AWS_ENDPOINT_URL_S3": server.url}
        for number in range(options.rounds):
            file = folder / "content"
            write(file, options.megabytes * 1_000_000)
            for what in (PUT, GET):
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.s3", "--inside", what, name],
                    env=shared,
                    cwd=REPOSITORY,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                took, memory = done.stdout.split()
                seconds.setdefault(f"evflow {what}", []).append(float(took))
                peak = max(peak, int(memory))
                there = f"s3://benchmark/cli/{number}"
                paths = [str(file), there] if what == PUT else [there, str(folder / "back")]
                began_s = time.monotonic()
                subprocess.run([cli, "s3", "cp", "--quiet", *paths], env=shared, check=True)
                seconds.setdefault(f"aws {what}", []).append(time.monotonic() - began_s)
    best = {what: min(all_of_them) for what, all_of_them in seconds.items()}
    met = peak < MEMORY_GOAL_BYTES
    for what in (PUT, GET):
        ours, theirs = best[f"evflow {what}"], best[f"aws {what}"]
        met = met and ours <= theirs
        print(f"{what}  evflow {ours:.1f} s, aws s3 cp {theirs:.1f} s: {ours / theirs:.2f} (goal <= 1)")
    print(f"evflow's peak of resident memory: {peak / 1e6:.0f} MB (goal < {MEMORY_GOAL_BYTES / 1e6:.0f} MB)")
    return 0 if met else 1


def write(path: Path, size: int) -> None:
    """Fill a file with bytes that nothing can make smaller."""
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - at)))


def inside(what: str, name: str) -> int:
    """Move the content, and print how long that took, from the start of this process's work on it, and the peak of memory."""
    from evflow.store.s3 import S3Store

    store = S3Store.from_url("s3://benchmark/evflow")
    noted = Path(name) / "digest"
    began_s = time.monotonic()
    if what == PUT:
        noted.write_bytes(store.put(chunks(Path(name) / "content")))
    else:
        size = len(store.uncached().get(noted.read_bytes()))
        assert size == (Path(name) / "content").stat().st_size
    took_s = time.monotonic() - began_s
    print(took_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return 0


def chunks(path: Path) -> Iterator[bytes]:
    """The content, as a serializer hands it over."""
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            yield data


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1_000, help="how much is moved (default: 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the best counts (default: 3)")
    parser.add_argument("--inside", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
