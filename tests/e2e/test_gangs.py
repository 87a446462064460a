"""Gangs of real processes, whose nodes wait for each other: what was not started together would never end."""

import json
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tests.e2e.test_scheduler import WITHIN_S, ended, owned_by, scheduler, state_of, told
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

FLOW = """
import os, signal, socket, time
from evflow import FlowSpec, Parameter, current, limit, parallel, pytorch_parallel, retry, step

class Ring(FlowSpec):
    nodes = Parameter("nodes", default=3)
    gangs = Parameter("gangs", default=1)
    killed = Parameter("killed", default=-1)
    folder = Parameter("folder", default="")
    breaks = Parameter("breaks", default="")

    @step
    def start(self):
        self.items = list(range(self.gangs))
        self.next(self.fan, foreach="items")

    @step
    def fan(self):
        self.next(self.work, num_parallel=self.nodes)

    {above}
    @pytorch_parallel
    @step
    def work(self):
        place = current.parallel
        if self.folder:
            name = os.path.join(self.folder, f"{{current.run_id}}.{{current.task_id}}.{{current.retry_count}}")
            with open(name, "w") as file:
                file.write(f"{{os.getpid()}} {{time.monotonic_ns()}}")
        self.met = self.meet(place)
        while self.folder and not os.path.exists(os.path.join(self.folder, "go")):
            time.sleep(0.02)
        if self.breaks == "work" and place.node_index == 1 and not os.path.exists("mended"):
            raise ValueError("as told")
        self.place, self.attempt = place.node_index, current.retry_count
        self.next(self.gather)

    def meet(self, place):
        \"\"\"All nodes join node 0, which answers when it has heard of everyone; one is killed then, and the others see their peer go.\"\"\"
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if place.node_index == 0:
            with socket.create_server(address) as server:
                server.settimeout(100)
                peers = [server.accept()[0] for _ in range(place.num_nodes - 1)]
            for peer in peers:
                peer.sendall(b"go")
            if self.killed > 0 and current.retry_count == 0:
                for peer in peers:
                    if not peer.recv(2):
                        raise ConnectionError("a peer is gone")
            return len(peers)
        until = time.monotonic() + 100
        while True:
            try:
                peer = socket.create_connection(address, timeout=100)
                break
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        assert peer.recv(2) == b"go"
        if place.node_index == self.killed and current.retry_count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.killed > 0 and current.retry_count == 0:
            time.sleep(100)
        return int(os.environ["WORLD_SIZE"]) - 1

    @step
    def gather(self, inputs):
        if self.breaks == "gather" and not os.path.exists("mended"):
            raise ValueError("as told")
        self.places = [(node.place, node.attempt, node.met) for node in inputs]
        self.next(self.collect)

    @step
    def collect(self, inputs):
        self.all = [one.places for one in inputs]
        self.next(self.end)

    @step
    def end(self):
        print("all:", self.all)

if __name__ == "__main__":
    Ring()
"""


def write(folder: Path, above: str = "") -> None:
    (folder / "ring.py").write_text(textwrap.dedent(FLOW.format(above=above)))


def ring(folder: Path, *arguments: str, above: str = "") -> "subprocess.CompletedProcess[str]":
    write(folder, above)
    return python("ring.py", "--quiet", *arguments, cwd=folder)


def shown(run: str = "Ring/1") -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(evflow("show", run, "--json").stdout))


def events(kind: str, run: str = "Ring/1") -> list[dict[str, Any]]:
    return [event["fields"] for event in json.loads(evflow("events", run, "--type", kind, "--json").stdout)]


def places(nodes: int, attempt: int = 0) -> str:
    return str([(node, attempt, nodes - 1) for node in range(nodes)])


def test_gangs_that_need_all_slots_take_turns(tmp_path: Path) -> None:
    """Three gangs of three on four slots: none holds a part of them, and the join gets the nodes in their order."""
    done = ring(tmp_path, "run", "--max-workers", "4", "--gangs", "3")
    assert done.returncode == 0, done.stderr
    assert f"all: [{', '.join([places(3)] * 3)}]" in done.stdout
    assert verified("Ring/1")["problems"] == []
    first = [task["id"] for task in shown()["tasks"] if task["step"] == "work" and task["index"] == 0]
    code = "from evflow import Step; work = Step('Ring/1/work'); print([task.id for task in work.control_tasks()], work.control_task.metadata_dict['internal_task_type'])"
    told_by_client = python("-c", code, EVFLOW_NAMESPACE="")
    assert told_by_client.stdout.strip() == f"{[str(number) for number in reversed(first)]} control_task", told_by_client.stderr


def test_a_node_that_is_killed_does_not_count_though_its_peers_fail_of_it(tmp_path: Path) -> None:
    """Without @retry: the gang was lost, and begins again whole."""
    done = ring(tmp_path, "run", "--killed", "2")
    assert done.returncode == 0, done.stderr
    assert f"all: [{places(3, attempt=1)}]" in done.stdout
    assert [(event["count"], event["counted"]) for event in events("RetryScheduled")] == [(3, False)]
    assert len(events("AttemptLost")) == 1


def test_a_gang_is_tried_again_as_a_whole_and_fails_as_a_whole(tmp_path: Path) -> None:
    """One node raises each time: the attempts of all go up together, and the run fails of that node."""
    done = ring(tmp_path, "run", "--breaks", "work", above="@retry(times=1, minutes_between_retries=0)")
    assert done.returncode == 1
    assert [(event["count"], event["counted"]) for event in events("RetryScheduled")] == [(3, True)]
    nodes = [task for task in shown()["tasks"] if task["step"] == "work"]
    assert [(node["status"], len(node["attempts"])) for node in nodes] == [("cancelled", 2), ("failed", 2), ("cancelled", 2)]
    assert "ValueError: as told" in done.stderr


@pytest.mark.parametrize(("breaks", "reused"), [("gather", 3), ("work", 0)])
def test_resume_takes_a_gang_over_as_a_whole_or_runs_it_as_a_whole(tmp_path: Path, breaks: str, reused: int) -> None:
    """Node 0 and node 2 of the gang that failed had come to their end; they run again with node 1."""
    assert ring(tmp_path, "run", "--breaks", breaks).returncode == 1
    (tmp_path / "mended").touch()
    done = ring(tmp_path, "resume")
    assert done.returncode == 0, done.stderr
    work = {task["id"] for task in shown("Ring/2")["tasks"] if task["step"] == "work"}
    assert len(work & {event["task"] for event in events("TaskReused", "Ring/2")}) == reused
    assert f"all: [{places(3)}]" in done.stdout


SPUN = """
import os
from evflow import FlowSpec, current, parallel, retry, secrets, step

class Spun(FlowSpec):
    @step
    def start(self):
        self.next(self.work, num_parallel=3)

    @retry(times=1, minutes_between_retries=0)
    @secrets(sources=["environment.TOKEN"])
    @parallel
    @step
    def work(self):
        node = current.parallel
        print(node.node_index, node.num_nodes, node.control_task_id, self.index, os.environ["TOKEN"])
        if "BREAKS" in os.environ:
            raise ValueError("with " + os.environ["TOKEN"])
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Spun()
"""


def test_a_node_is_spun_by_itself_with_its_place_its_retries_and_its_secrets(tmp_path: Path) -> None:
    """Nobody waits for peers that do not run, whether the node comes to its end or fails."""
    (tmp_path / "spun.py").write_text(textwrap.dedent(SPUN))
    secret = {"TOKEN": "t0ken-of-the-gang"}
    assert python("spun.py", "run", cwd=tmp_path, **secret).returncode == 0
    done = python("spun.py", "spin", "1/work/3", cwd=tmp_path, **secret)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "1 3 2 1 ***"), done.stderr
    assert "It is one of 3 nodes of a gang, and runs without the others." in done.stderr
    failed = python("spun.py", "spin", "1/work/3", cwd=tmp_path, BREAKS="1", **secret)
    assert (failed.returncode, failed.stdout.count("1 3 2 1 ***")) == (1, 2)
    assert "ValueError: with ***" in failed.stderr
    assert secret["TOKEN"] not in done.stdout + done.stderr + failed.stdout + failed.stderr


def test_ctrl_c_ends_all_nodes(tmp_path: Path) -> None:
    """No process of the gang is left."""
    said = tmp_path / "said"
    said.mkdir()
    write(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "ring.py", "--quiet", "run", "--folder", str(said)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(pids(said)) == 3, "all nodes are at work", WITHIN_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN_S) != 0
    finally:
        process.kill()
        process.wait()
    assert shown()["status"] == "cancelled"
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids(said)), "all nodes are gone", WITHIN_S)


def pids(said: Path) -> list[int]:
    return [int(text[0]) for file in said.iterdir() if file.name != "go" and len(text := file.read_text().split()) == 2]


@pytest.mark.parametrize(
    ("above", "nodes", "numbers"),
    [
        ("", 5, "its gang has 5 nodes, which run at the same time, and there are 4 slots"),
        (
            "@limit('seats', at_most=2)",
            3,
            "its gang has 3 nodes, which run at the same time, and only 2 at once may hold the limit key:seats",
        ),
    ],
    ids=["slots", "limit"],
)
def test_a_gang_that_cannot_ever_begin_fails_the_run_with_the_numbers(tmp_path: Path, above: str, nodes: int, numbers: str) -> None:
    done = ring(tmp_path, "run", "--max-workers", "4", "--nodes", str(nodes), above=above)
    assert done.returncode == 1
    assert numbers in done.stderr
    assert [event["task"] for event in events("TaskLaunched")] == [1, 2]
    assert verified("Ring/1")["problems"] == []


def test_an_explanation_says_how_many_slots_a_gang_waits_for(tmp_path: Path) -> None:
    """And a node that has finished says for whom it waits."""
    said = tmp_path / "said"
    said.mkdir()
    write(tmp_path)
    command = [sys.executable, "ring.py", "--quiet", "run", "--folder", str(said), "--gangs", "2", "--max-workers", "4"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: len(pids(said)) == 3, "the first gang is at work", WITHIN_S)
            waits = "waits for 3 slots of 'local' at once, with its gang, 1 is free"
            wait_until(lambda: waits in evflow("explain", "Ring/1").stdout, "the other gang waits", WITHIN_S)
            reasons = json.loads(evflow("explain", "Ring/1", "--json").stdout)["reasons"]
        finally:
            (said / "go").touch()
            process.wait(WITHIN_S)
    assert {one["nodes"] for one in reasons if one["reason"] == "waits-for-slot"} == {3}


def test_two_schedulers_and_the_death_of_one_and_every_gang_was_together(root: Path) -> None:
    """Runs of several gangs under a limit that just lets one gang in: nothing waits for ever, and the killed one's gangs begin again whole."""
    site, said = root / "site", root / "said"
    site.mkdir()
    said.mkdir()
    write(site, "@limit('seats', at_most=4)")
    done = python("ring.py", "deploy", cwd=site)
    assert done.returncode == 0, done.stderr
    with scheduler(root, "--concurrency", "4") as first, scheduler(root, "--concurrency", "4", shards=4) as second:
        with ThreadPoolExecutor(2) as pool:
            asked = list(pool.map(partial(told, "run", "Ring", "--param"), [f"folder={said}"] * 4))
        runs = [str(one["run"]) for one in asked]
        wait_until(lambda: len(pids(said)) >= 3, "a gang is at work", WITHIN_S)
        victim = wait_until(lambda: next((one for one in (first, second) if owned_by(one.pid)), None), "one is seen to live", WITHIN_S)
        assert victim is not None
        victim.kill()
        victim.wait()
        (said / "go").touch()
        assert [(ended(run), state_of(run)["reason"]) for run in runs] == [("succeeded", None)] * 4
        # What a process held is given back when that is seen to have ended, which may be behind its run's end.
        wait_until(lambda: not any(one["held"] for one in json.loads(evflow("limits", "--json").stdout)), "nothing is held", WITHIN_S)
    assert [problem for run in runs for problem in verified(run)["problems"]] == []
