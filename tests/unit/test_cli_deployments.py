"""The commands on deployed flows, and what the others say of a run that waits for a scheduler."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evflow import FlowSpec, config, schedule, step, trigger_on_finish
from evflow.cli import session
from evflow.cli.complete import of_deployments
from evflow.cli.flow_deploy import far_store, own_end
from evflow.cli.follow import follow
from evflow.cli.run_deployed import command as run_command
from evflow.core.ids import RunId, RunNumber
from evflow.log.keys import shared_shard
from evflow.log.protocol import LogClient, StoredEvent
from evflow.log.shard_sets import announced
from evflow.store.logs import make_folder, path_of
from evflow.testing.simulated_log import SimulatedLogClient
from tests.unit.deploy_world import FLOW, World
from tests.unit.story import NOON_US, Story
from tests.unit.test_cli import TWO_STEPS, evflow
from tests.unit.ticking_world import ticking

ONE = RunId(FLOW, RunNumber(1))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A log and a store that the commands look at."""
    config.reset()
    made = World(tmp_path)

    @contextmanager
    def log() -> Generator[LogClient]:
        yield made.log

    monkeypatch.setattr(session, "log", log)
    monkeypatch.setenv("EVFLOW_USER", "ada")
    yield made
    config.reset()


def carry_out(world: World, *, fails: bool = False) -> Story:
    """Play the scheduler: run 1 from its start to its seal, in its shared shard."""
    story = Story(TWO_STEPS, flow=FLOW, number=1).start().wait(1)
    story = story.fail(1) if fails else story.succeed(1, "end").wait(1).succeed(2)
    call, shard = story.seal().call(), shared_shard(ONE)
    lease = world.server.write(lambda state: state.take(shard, "box:1", 30.0, world.server.now_us()))
    world.server.write(lambda state: state.append(lease, call))
    world.server.write(lambda state: state.release(lease))
    return story


# --- what is deployed -------------------------------------------------------------------------------------


def test_deployments_are_listed_with_their_version_and_state(world: World) -> None:
    world.deploy()
    world.deploy(name="prod", production=True)
    world.deploy(name="prod", production=True)
    evflow("pause", "Nightly")
    lines = evflow("deployments").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["Nightly", "1", "paused"], ["Nightly:prod", "2", "active,"]]
    found = json.loads(evflow("deployments", "Nightly", "--json").stdout)
    assert [(one["deployment"], one["version"], one["paused"], one["production"]) for one in found] == [
        ("Nightly", 1, True, False),
        ("Nightly:prod", 2, False, True),
    ]
    assert found[0]["paused_by"] == "user:ada"


def test_deployments_are_listed_with_schedule_and_next_tick(world: World) -> None:
    world.deploy()
    assert "SCHEDULE" not in evflow("deployments").stdout
    world.deploy(ticking(timezone="Europe/Berlin"))
    head, plain, ticks = evflow("deployments").stdout.splitlines()
    assert head.split()[3:6] == ["SCHEDULE", "NEXT", "TICK"]
    assert "0 * * * * (Europe/Berlin)" in ticks
    assert "Europe" not in plain
    one, other = json.loads(evflow("deployments", "--json").stdout)
    assert (one["schedule"], one["next_tick_at"]) == (None, None)
    assert other["schedule"] == {"cron": "0 * * * *", "timezone": "Europe/Berlin", "catch_up": "none", "catch_up_most": 10}
    assert other["next_tick_at"].endswith(":00:00.000000+00:00")


def test_where_nothing_is_deployed_the_list_is_empty(world: World) -> None:
    assert world.log.flows() == []
    result = evflow("deployments")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Nothing is deployed" in result.stderr
    assert json.loads(evflow("deployments", "--json").stdout) == []
    result = evflow("deployments", "Nightly")
    assert result.exit_code == 1
    assert "'Nightly' is not deployed" in result.stderr


def test_history_says_what_happened_when_and_by_whom(world: World) -> None:
    world.deploy(user="bob")
    world.deploy(name="other")
    for command in ("pause", "pause", "unpause", "unpause", "undeploy"):
        assert evflow(command, "Nightly").exit_code == 0
    told = json.loads(evflow("history", "Nightly", "--json").stdout)
    assert [(one["deployment"], one["what"], one["principal"]) for one in told] == [
        ("Nightly", "undeployed", "user:ada"),
        ("Nightly", "unpaused", "user:ada"),
        ("Nightly", "paused", "user:ada"),
        ("Nightly:other", "deployed", "user:ada"),
        ("Nightly", "deployed", "user:bob"),
    ]
    assert [one["what"] for one in json.loads(evflow("history", "Nightly:other", "--json").stdout)] == ["deployed"]
    assert "undeployed" in evflow("history", "Nightly:default").stdout


def test_undeploy_tells_programs_what_it_took_away(world: World) -> None:
    world.deploy(user="bob")
    told = json.loads(evflow("undeploy", "Nightly", "--json").stdout)
    assert (told["deployment"], told["version"], told["user"]) == ("Nightly", 1, "bob")
    assert json.loads(evflow("deployments", "--json").stdout) == []


@pytest.mark.parametrize("command", ["pause", "unpause", "undeploy", "run", "history"])
def test_what_is_not_deployed_is_told_with_what_is(world: World, command: str) -> None:
    world.deploy()
    result = evflow(command, "Nighty")
    assert result.exit_code == 1
    assert "'Nighty' is not deployed." in result.stderr
    assert "Did you mean 'Nightly'?" in result.stderr


def test_a_name_that_is_none_is_wrong_usage(world: World) -> None:
    world.deploy()
    result = evflow("pause", "Nightly:a b")
    assert result.exit_code == 1
    assert "cannot be called 'a b'" in result.stderr


def test_pausing_says_whom_it_concerns_and_changes_nothing_twice(world: World) -> None:
    world.deploy()
    assert "schedules and triggers will start no run of it" in evflow("pause", "Nightly").stdout
    seq = world.log.flow_seq(FLOW)
    assert "was paused before, by user:ada" in evflow("pause", "Nightly").stdout
    assert world.log.flow_seq(FLOW) == seq
    assert "not paused any more" in evflow("unpause", "Nightly").stdout
    assert "was not paused" in evflow("unpause", "Nightly").stdout


def test_deployments_are_completed(world: World) -> None:
    world.deploy()
    world.deploy(name="other")
    ctx = run_command.make_context("run", ["Nightly"])
    found = of_deployments()(ctx, run_command.params[0], "Night")
    assert [item.value for item in found] == ["Nightly", "Nightly:other"]


@pytest.mark.parametrize(
    ("url", "is_far"),
    [
        ("redis://redis.example:6379", True),
        ("redis://10.0.0.7", True),
        ("redis://localhost", False),
        ("redis://127.0.0.1:7000", False),
        ("redis://[::1]", False),
        ("unix:///s", False),
        (None, False),
    ],
)
def test_a_store_that_other_machines_do_not_see_is_pointed_out(monkeypatch: pytest.MonkeyPatch, url: str | None, is_far: bool) -> None:
    config.reset()
    if url:
        monkeypatch.setenv("EVFLOW_REDIS_URL", url)
    said = " ".join(far_store())
    assert bool(said) == is_far
    assert (os.uname().nodename in said) == is_far
    monkeypatch.setenv("EVFLOW_STORE", "s3://bucket/evflow")
    assert [*far_store()] == []


# --- asking for runs --------------------------------------------------------------------------------------


def test_a_request_prints_the_run_and_that_no_scheduler_is_there(world: World) -> None:
    world.deploy()
    result = evflow("run", "Nightly", "--param", "day=monday", "-p", "alpha=7", "--tag", "mine")
    assert (result.exit_code, result.stdout) == (0, "Nightly/1\n")
    assert "none is there: `evflow scheduler` starts one" in result.stderr
    entry = world.log.run(ONE)
    assert entry is not None
    assert (entry.summary["status"], entry.summary["tags"]) == ("requested", ["mine"])


def test_a_request_names_the_scheduler_that_takes_it(world: World) -> None:
    world.deploy()
    world.server.write(lambda state: state.take(shared_shard(ONE), "box:812:1:ff", 30.0, world.server.now_us()))
    assert "A scheduler takes it: process 812 on box." in evflow("run", "Nightly", "-p", "day=x").stderr
    assert "box:812, which has it, was told to end and begins nothing more" in evflow("explain", "Nightly/1").stdout
    world.log.schedulers("box:812:1:ff", 30.0)
    assert "process 812 on box, a scheduler, is to take it" in evflow("explain", "Nightly/1").stdout
    said = json.loads(evflow("explain", "Nightly/1", "--json").stdout)
    assert said["reasons"] == [{"of": "Nightly/1", "reason": "is-carried-out", "by": "box:812"}]


def test_a_run_in_a_shard_that_no_scheduler_may_own_says_so(world: World) -> None:
    world.deploy()
    number = int(shared_shard(ONE).removeprefix("s"))
    world.log.schedulers(f"box:812:1:ff:{(number + 1) % 8}", 30.0)
    asked = evflow("run", "Nightly", "-p", "day=x").stderr
    assert asked.startswith(f"It waits for a scheduler: it is in the shard s{number}, which no scheduler that lives may own")
    said = evflow("explain", "Nightly/1").stdout
    assert f"it is in the shard s{number}, which no scheduler that lives may own (--shards of box:812)" in said
    assert f"`evflow scheduler --shards {number}` goes on with it" in said


def test_a_run_that_a_scheduler_is_about_to_take_says_which(world: World) -> None:
    world.deploy()
    world.log.schedulers("box:812:1:ff", 30.0)
    asked = evflow("run", "Nightly", "-p", "day=x").stderr
    assert asked == "It waits for a scheduler: none has it at present; box:812 may take it, within seconds.\n"


def test_a_scheduler_of_this_machine_that_is_dead_takes_nothing(world: World) -> None:
    world.deploy()
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    owner = f"{os.uname().nodename}:{process.pid}:1:ff"
    world.server.write(lambda state: state.take(shared_shard(ONE), owner, 30.0, world.server.now_us()))
    world.log.schedulers(f"{owner}:0-7", 30.0)  # its name outlives it for some seconds
    assert "none is there" in evflow("run", "Nightly", "-p", "day=x").stderr
    assert "none runs at present" in evflow("explain", "Nightly/1").stdout
    assert world.log.owner(shared_shard(ONE)) is not None


def test_a_request_as_json_has_what_a_program_goes_on_with(world: World) -> None:
    world.deploy()
    evflow("pause", "Nightly")
    said = json.loads(evflow("run", "Nightly", "-p", "day=monday", "--json").stdout)
    assert (said["run"], said["shard"], said["scheduler"], said["paused"]) == ("Nightly/1", shared_shard(ONE), None, True)
    assert said["parameters"]["day"] == "monday"


def test_a_paused_deployment_runs_when_a_person_asks(world: World) -> None:
    world.deploy()
    evflow("pause", "Nightly")
    result = evflow("run", "Nightly", "-p", "day=x")
    assert result.exit_code == 0
    assert "the deployment is paused" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["-p", "day"], 2, "'day' is not of the form NAME=VALUE"),
        (["-p", "=x"], 2, "is not of the form NAME=VALUE"),
        (["--day", "monday"], 2, "No such option '--day'. Did you mean '--tag'? A parameter of the flow is given as: --param day=VALUE"),
        ([], 1, "Give: --param day=VALUE"),
        (["-p", "day=x", "-p", "alpha=many"], 1, "'many' is not an integer"),
        (["-p", "day=x", "-p", "alhpa=1"], 1, "Did you mean 'alpha'?"),
        (["-p", "day=x", "--tag", ""], 2, "A tag cannot be empty"),
    ],
)
def test_a_request_that_does_not_fit_makes_no_run(world: World, arguments: list[str], code: int, text: str) -> None:
    world.deploy()
    result = evflow("run", "Nightly", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr
    assert world.log.runs(FLOW) == []


def test_a_value_may_hold_an_equals_sign(world: World) -> None:
    world.deploy()
    assert json.loads(evflow("run", "Nightly", "-p", "day=a=b", "--json").stdout)["parameters"]["day"] == "a=b"


# --- following --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fails", "status"), [(False, "succeeded"), (True, "failed")])
def test_a_run_is_followed_to_its_end(world: World, capsys: pytest.CaptureFixture[str], fails: bool, status: str) -> None:
    carry_out(world, fails=fails)
    assert follow(world.log, ONE, shared_shard(ONE), quiet=False).status == status
    said = capsys.readouterr()
    assert "Run Nightly/1 is asked for." in said.err
    assert f"Run Nightly/1 {status}" in said.err
    assert "[1/start/1" in said.out


def test_what_tasks_print_is_shown_before_the_word_that_they_ended(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVFLOW_STORE", str(world.home / "store"))
    folder = make_folder(str(world.home / "store"), ONE)
    for task, text in ((1, "making 3"), (2, "total 6")):
        Path(path_of(folder, task, 0)).write_bytes(b"%d o %s\n%d o not whole" % (NOON_US, text.encode(), NOON_US))
    carry_out(world)
    follow(world.log, ONE, shared_shard(ONE), quiet=False)
    lines = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Task has started."
    assert lines[1] == "making 3"
    assert lines[2].startswith("Task has finished")
    assert lines[4] == "total 6"
    assert len(lines) == 6


def test_ctrl_c_while_following_says_that_the_run_goes_on(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy()
    world.request()

    class Interrupted(SimulatedLogClient):
        def follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(Interrupted(world.server), ONE, shared_shard(ONE), quiet=False)
    said = capsys.readouterr().err
    assert "Nightly/1 waits for a scheduler, and none is there" in said
    assert "goes on without being watched" in said
    assert "evflow continue" not in said


def test_who_follows_hears_that_a_scheduler_may_take_the_shard_within_seconds(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy()
    world.request()
    world.log.schedulers("box:812:1:ff", 30.0)

    class Interrupted(SimulatedLogClient):
        def follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(Interrupted(world.server), ONE, shared_shard(ONE), quiet=False)
    said = capsys.readouterr().err
    assert "Nightly/1 waits for a scheduler: none has it at present; box:812 may take it, within seconds." in said
    assert "none is there" not in said


# --- a run that waits -------------------------------------------------------------------------------------


@pytest.fixture
def waiting(world: World) -> World:
    world.deploy()
    world.request()
    return world


@pytest.mark.usefixtures("waiting")
def test_a_run_that_waits_is_listed_as_requested() -> None:
    assert evflow("runs").stdout.splitlines()[1].split()[:2] == ["Nightly/1", "requested"]
    assert "A requested run waits for a scheduler" in evflow("runs").stderr
    assert [run["run"] for run in json.loads(evflow("runs", "--status", "requested", "--tag", "mine", "--json").stdout)] == ["Nightly/1"]


@pytest.mark.usefixtures("waiting")
def test_show_and_explain_say_that_it_waits_for_a_scheduler() -> None:
    for command in ("show", "explain"):
        result = evflow(command, "Nightly/1")
        assert result.exit_code == 0
        assert "'Nightly/1' waits for a scheduler: bob asked for it, and none runs at present." in result.stdout
        assert "`evflow scheduler` starts one" in result.stdout
    assert json.loads(evflow("show", "Nightly/1", "--json").stdout)["status"] == "requested"
    assert "waits for a scheduler" in json.loads(evflow("explain", "Nightly/1", "--json").stdout)["explanation"][0]


@pytest.mark.usefixtures("waiting")
def test_a_requested_run_can_be_cancelled_before_it_begins() -> None:
    result = evflow("cancel", "Nightly/1", "--no-wait", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (
        0, {"run": "Nightly/1", "status": "requested", "over": False, "was_over": False}
    )  # fmt: skip


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("command", [["events"], ["logs"], ["dump"], ["replay"], ["replay", "--verify"]], ids=" ".join)
def test_other_commands_say_that_it_waits_and_not_that_its_process_died(command: list[str]) -> None:
    result = evflow(command[0], "Nightly/1", *command[1:])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'Nightly/1' waits for a scheduler" in result.stderr
    assert "died" not in result.stderr


def test_once_it_has_an_event_it_is_shown_whatever_its_line_says(waiting: World) -> None:
    carry_out(waiting)
    assert json.loads(evflow("show", "Nightly/1", "--json").stdout)["status"] == "succeeded"
    assert "RunStarted" in evflow("events", "Nightly/1").stdout


def test_a_flow_that_is_deployed_and_never_ran_is_no_dead_run(world: World) -> None:
    world.deploy()
    result = evflow("show", "Nightly")
    assert "`evflow run Nightly` asks for one" in result.stderr
    assert "died" not in result.stderr


# --- schedulers -------------------------------------------------------------------------------------------


def own(world: World, shard: str, owner: str) -> None:
    world.server.write(lambda state: state.take(shard, owner, 30.0, world.server.now_us()))


def test_where_no_scheduler_runs_its_status_says_so(world: World) -> None:
    result = evflow("scheduler", "status")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`evflow scheduler` starts one" in result.stderr
    result = evflow("scheduler", "status", "--json")
    assert (result.exit_code, json.loads(result.stdout)["schedulers"], len(world.log.schedulers())) == (1, [], 0)


def test_the_status_names_who_owns_what_and_who_waits(world: World) -> None:
    own(world, "s3", "elsewhere:812:1:ff")
    own(world, "s5", "nobody we know")
    world.log.schedulers("elsewhere:900:1:ee", 60)
    said = json.loads(evflow("scheduler", "status", "--json").stdout)
    assert said["schedulers"] == [
        {"host": "elsewhere", "pid": 900, "shards": [], "may_own": [f"s{number}" for number in range(8)], "sources": []},
        {"host": "elsewhere", "pid": 812, "shards": ["s3"], "may_own": None, "sources": []},
        {"host": "nobody we know", "pid": None, "shards": ["s5"], "may_own": None, "sources": []},
    ]
    assert said["free"] == ["s0", "s1", "s2", "s4", "s6", "s7"]
    lines = evflow("scheduler", "status").stdout.splitlines()
    assert lines[1] == "process 812 on elsewhere  1 of 8 shards: s3"
    assert lines[-1] == "Nobody owns s0, s1, s2, s4, s6, s7: runs of theirs wait."


def test_the_status_says_whose_shards_go_to_a_later_version(world: World) -> None:
    for number, generation in enumerate(("2.60.310", "2.60.311", "")):
        world.log.schedulers(announced(f"elsewhere:90{number}:1:ee", range(8), generation), 60)
    said = evflow("scheduler", "status").stdout
    note = "  (of an earlier version: shards go to a later one)"
    assert f"process 900 on elsewhere  0 of 8 shards{note}\n" in said
    assert "process 901 on elsewhere  0 of 8 shards\n" in said
    assert f"process 902 on elsewhere  0 of 8 shards{note}\n" in said


def test_to_look_at_a_dead_scheduler_s_shards_changes_nothing(world: World) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    own(world, "s3", f"{os.uname().nodename}:{gone.pid}:1:ff")
    assert json.loads(evflow("scheduler", "status", "--json").stdout)["schedulers"] == []
    assert world.log.owner("s3") is not None


def test_a_flow_that_listens_for_its_own_end_is_told_so_and_why_not_names_its_schedule(world: World) -> None:
    @trigger_on_finish(flow="Nightly")
    @schedule(cron="0 3 * * *")
    class Nightly(FlowSpec):
        @step
        def start(self) -> None:
            pass

    change = world.deploy(Nightly)
    assert change.deployment is not None
    assert [note.partition(":")[0] for note in own_end("Nightly", change.deployment)] == ["Nightly listens for the end of its own runs"]
    assert list(own_end("Other", change.deployment)) == []
    told = json.loads(evflow("why-not", "Nightly", "--at", "9000-01-01 00:00", "--json").stdout)
    assert told["notes"][:2] == ["default has a schedule: 0 3 * * * (UTC).", "default listens for evflow.finished.Nightly."]
