"""Record the histories of this version: real runs, real processes, each in a world of its own.

    python -m tests.histories.record [NAME ...]

Do it once for each release, before it: what a released version wrote is never recorded anew.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import evflow
from evflow.core.ids import RunId
from evflow.log import connect
from evflow.log.embedded import EmbeddedServer
from evflow.replay.load import load
from evflow.replay.verify import verify
from tests.histories import flows
from tests.histories.history import HERE, History, write
from tests.waiting import wait_until

PLACE = Path("/tmp/evflow-history")
"""Everything happens there: it stands in the events, so it names nobody's folder."""


class World:
    """A folder, a home with an embedded server, and the commands in it."""

    def __init__(self, name: str, flow: str) -> None:
        self.folder = PLACE / name  # Each its own: the server of the one before may not have gone yet.
        self.folder.mkdir(parents=True)
        (self.folder / "flow.py").write_text(flow.lstrip())
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("EVFLOW_")},
            "EVFLOW_HOME": str(self.folder / "home"), "EVFLOW_USER": "ada", "EVFLOW_LINGER_S": "5", "HOME": str(self.folder),
        }  # fmt: skip

    def run(self, *arguments: str, **variables: str) -> None:
        """Run the flow's file to its end, whatever that is."""
        self.start(*arguments, **variables).wait(120)

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
        """Start the flow's file, or with `-m` a module."""
        command = [sys.executable, *(arguments if arguments[0] == "-m" else ("flow.py", *arguments))]
        return subprocess.Popen(command, cwd=self.folder, env={**self.environment, **variables})

    def open_gate(self) -> None:
        """Let the members that wait go on."""
        (self.folder / "gate").touch()

    def history(self, name: str, story: str, run: str) -> History:
        """The log of a run, if it verifies."""
        with EmbeddedServer.begin(self.folder / "home", linger_s=0) as server:
            client = connect(server.ready())
            try:
                found = load(client, RunId.parse(run))
            finally:
                client.close()
        problems = verify(found.events, found.head).problems
        if problems:
            raise SystemExit(f"{name} does not verify: {problems[0].what}")
        return History(name, story, evflow.__version__, tuple(found.events), found.head)


@contextmanager
def _half_done(world: World) -> Generator["subprocess.Popen[bytes]"]:
    """A run of which two members are done and two wait."""
    process = world.start("run")
    try:
        wait_until(lambda: _started(world) >= 2, "two members are done and two wait")
        yield process
        process.wait(60)
    finally:
        process.kill()


def _started(world: World) -> int:
    return min(_count(world, "AttemptStarted") - 3, _count(world, "AttemptSucceeded") - 1)


def _count(world: World, kind: str, run: str = "Slow/1") -> int:
    command = [sys.executable, "-m", "evflow.cli", "events", run, "--type", kind]
    out = subprocess.run(command, cwd=world.folder, env=world.environment, capture_output=True, text=True, check=False)
    return out.stdout.count(kind)


def _simple(flow: str) -> Callable[[str], World]:
    def act(name: str) -> World:
        world = World(name, flow)
        world.run("run")
        return world

    return act


def _cancelled(name: str) -> World:
    world = World(name, flows.SLOW)
    with _half_done(world) as process:
        process.send_signal(signal.SIGINT)
    return world


def _continued(name: str) -> World:
    world = World(name, flows.SLOW)
    with _half_done(world) as process:
        process.send_signal(signal.SIGKILL)
    world.open_gate()
    world.run("-m", "evflow.cli", "continue", "Slow/1")
    return world


def _failed(name: str) -> World:
    world = World(name, flows.SLOW)
    world.open_gate()
    world.run("run", BREAK="1")
    return world


def _overdue(name: str) -> World:
    world = World(name, flows.SLOW)
    world.run("run", "--max-run-time", "3s")
    return world


def _resumed(name: str) -> World:
    world = World(name, flows.SLOW)
    world.open_gate()
    world.run("run", "--max-workers", "2", BREAK="1")
    world.run("resume", "--origin-run-id", "1")
    return world


def _gang(name: str) -> World:
    world = World(name, flows.GANG)
    world.run("run", "--max-workers", "4")
    return world


def _cached(name: str) -> World:
    world = World(name, flows.CACHED)
    world.run("run")
    world.run("run", "--n", "3")
    return world


def _cards(name: str) -> World:
    world = World(name, flows.CARDS)
    world.run("run", BREAK="1")
    world.run("resume", "--origin-run-id", "1")
    return world


def _environments(name: str) -> World:
    world = World(name, flows.ENVIRONMENTS)
    world.run("run", "--fallback", "local")
    return world


def _hooked(name: str) -> World:
    world = World(name, flows.HOOKED)
    process = world.start("run")
    try:
        wait_until(lambda: _count(world, "ExitHookStarted", "Hooked/1") == 1, "the hooks have begun")
    finally:
        process.kill()
        process.wait()
    world.open_gate()
    world.run("-m", "evflow.cli", "continue", "Hooked/1")
    return world


def _paused(name: str) -> World:
    world = World(name, flows.SLOW)
    with _half_done(world):
        world.run("-m", "evflow.cli", "pause", "Slow/1", "--reason", "a look at it")
        world.run("-m", "evflow.cli", "set-priority", "Slow/1", "7")
        world.open_gate()
        wait_until(lambda: _count(world, "AttemptSucceeded") == 5, "what ran has ended")
        world.run("-m", "evflow.cli", "resume-run", "Slow/1")
    return world


def _waits_again(world: World, times: int) -> bool:
    return _count(world, "RunPaused", "Mended/1") == times


def _again(name: str) -> World:
    world = World(name, flows.AGAIN)
    world.run("run", "--max-workers", "1")
    return world


def _mended(name: str) -> World:
    world = World(name, flows.MENDED)
    process = world.start("run", "--on-failure", "pause", "--priority", "2")
    try:
        for asks, held in ((("retry", "Mended/1/work/3"), 1), (("retry", "Mended/1/work"), 2), (("skip", "Mended/1/work/4"), 3)):
            wait_until(partial(_waits_again, world, held), "the run waits")
            if held == 2:
                world.open_gate()
            world.run("-m", "evflow.cli", *asks)
        wait_until(partial(_waits_again, world, 4), "the join has failed")
        world.run("-m", "evflow.cli", "skip", "Mended/1/choose_join", "--to", "even", "--reason", "it does not matter")
        process.wait(60)
    finally:
        process.kill()
    return world


RECORDS: dict[str, tuple[str, str, Callable[[str], World]]] = {
    "linear": ("Three steps in a row.", "Linear/1", _simple(flows.LINEAR)),
    "nested": ("A foreach in a foreach, beside a branch that joins at once.", "Nested/1", _simple(flows.NESTED)),
    "ways": ("A switch, a condition, a loop around a foreach, a step that chooses itself.", "Ways/1", _simple(flows.WAYS)),
    "trouble": ("A retry that waits, a lost worker, a caught crash, timeouts soft and hard.", "Trouble/1", _simple(flows.TROUBLE)),
    "ill-formed": ("Members of one foreach reach different joins.", "IllFormed/1", _simple(flows.ILL_FORMED)),
    "cancelled": ("Ctrl-C while two members run.", "Slow/1", _cancelled),
    "continued": ("The foreground process is killed while two members run; evflow continue.", "Slow/1", _continued),
    "failed": ("A member of a foreach raises; what runs beside it is ended.", "Slow/1", _failed),
    "paused": ("A run is paused while two members run, gets another priority, and is resumed.", "Slow/1", _paused),
    "again": ("Each item fails at first, and is tried again before the next one.", "Again/1", _again),
    "overdue": ("Two members wait for something that never comes, until the run's time is over.", "Slow/1", _overdue),
    "mended": ("What fails is held: tried again twice, skipped; a join that chooses is skipped to a step.", "Mended/1", _mended),
    "cached": ("What a run before had done is taken; one item, and the join of all, are new.", "Reckoned/2", _cached),
    "cards": ("Cards of attempts that succeed, fail and are taken over.", "Cards/2", _cards),
    "gang": ("A gang whose nodes fail and are killed, until it succeeds; one that is larger than the run may be.", "Gang/1", _gang),
    "environments": (
        "A step in an environment of its own; one whose environment cannot be had, and that goes on.",
        "Environments/1",
        _environments,
    ),
    "hooked": (
        "The foreground process is killed while exit hooks run; evflow continue runs them again, and one fails.",
        "Hooked/1",
        _hooked,
    ),
    "resumed": ("The second run of a flow whose first one failed in one member of a foreach.", "Slow/2", _resumed),
}


def main(names: list[str]) -> None:
    """Record all histories, or some."""
    shutil.rmtree(PLACE, ignore_errors=True)
    for name in names or list(RECORDS):
        story, run, act = RECORDS[name]
        world = act(name)
        history = world.history(name, story, run)
        write(HERE / evflow.__version__ / f"{name}.jsonl", history)
        print(f"{name}: {len(history.events)} events, {history.head.status}")
    shutil.rmtree(PLACE, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
