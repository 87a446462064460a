import io
import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from evflow import config
from evflow.cli import output, session
from evflow.cli.app import app
from evflow.cli.explain import of_run
from evflow.cli.lazy import Lazy, LazyGroup
from evflow.cli.naming import BadReference, Reference, flows_in, parse
from evflow.cli.render import outcome
from evflow.core import flow_events
from evflow.core.graph import Node, Policy
from evflow.core.ids import FlowName, RunId
from evflow.errors import Conflict, UsageError
from evflow.log.protocol import LogClient, TagChange
from evflow.store.logs import make_folder, path_of
from evflow.testing.simulated_log import SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer
from tests.unit.story import NOON_US, Story, cross_validation, graph

TWO_STEPS = graph(Node("start", "linear", ("end",)), Node("end", "end"))


@pytest.fixture(autouse=True)
def fresh_config() -> Iterator[None]:
    config.reset()
    yield
    config.reset()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> SimulatedServer:
    """A log that the commands look at."""
    made = SimulatedServer(lambda: NOON_US)

    @contextmanager
    def log() -> Generator[LogClient]:
        yield SimulatedLogClient(made)

    monkeypatch.setattr(session, "log", log)
    return made


def evflow(*arguments: str) -> Result:
    """The outcome of `evflow …`, as a process would have it."""

    @click.command()
    @click.pass_context
    def process(ctx: click.Context) -> None:
        ctx.exit(outcome(lambda: app().main(list(arguments), prog_name="evflow", standalone_mode=False)))

    return CliRunner().invoke(process)


def finished(number: int = 3, flow: str = "TrainFlow") -> Story:
    story = Story(TWO_STEPS, flow=flow, number=number).start().wait(1)
    return story.succeed(1, "end").wait(1).succeed(2).seal()


def spreading() -> Story:
    story = Story(cross_validation(retries=2, delay_s=60), slots=4).start()
    return story.succeed(1, "train", kind="foreach", splits=12).succeed(2, "join").fail(3, where="/flows/cv.py:31")


# --- what people type for a run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("TrainFlow/3/train/7", ("TrainFlow", 3, "train", 7)),
        ("TrainFlow/3/train", ("TrainFlow", 3, "train", None)),
        ("TrainFlow/3/7", ("TrainFlow", 3, "", 7)),
        ("TrainFlow/3", ("TrainFlow", 3, "", None)),
        ("TrainFlow", ("TrainFlow", None, "", None)),
        ("3", ("", 3, "", None)),
        ("3/train/7", ("", 3, "train", 7)),
    ],
)
def test_a_reference_is_taken_apart(text: str, reference: tuple[Any, ...]) -> None:
    assert parse(text) == Reference(text, *reference)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "Train-Flow/3",
        "TrainFlow/x",
        "TrainFlow/3/train/7/x",
        "TrainFlow/3/train/x",
        "a/b/c",
        "TrainFlow/3/2/1",
        "3/2/1",
        "TrainFlow/" + 5000 * "9",
        5000 * "9",
    ],
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadReference):
        parse(text)


def test_a_number_is_the_run_of_the_flow_in_this_folder(server: SimulatedServer) -> None:
    finished(3, "TrainFlow").write_to(server)
    finished(3, "OtherFlow").write_to(server)
    Path("train.py").write_text("from evflow import FlowSpec\n\n\nclass TrainFlow(FlowSpec):\n    pass\n")
    assert json.loads(evflow("show", "3", "--json").stdout)["run"] == "TrainFlow/3"


def test_a_number_is_the_one_run_that_has_it(server: SimulatedServer) -> None:
    finished(3, "TrainFlow").write_to(server)
    finished(1, "OtherFlow").write_to(server)
    assert json.loads(evflow("show", "3", "--json").stdout)["run"] == "TrainFlow/3"


def test_a_number_that_several_flows_have_lists_the_candidates(server: SimulatedServer) -> None:
    finished(3, "TrainFlow").write_to(server)
    finished(3, "OtherFlow").write_to(server)
    result = evflow("show", "3")
    assert result.exit_code == 1
    assert "  OtherFlow/3\n  TrainFlow/3\n" in result.stderr
    assert result.stdout == ""


def test_a_flow_alone_is_its_newest_run(server: SimulatedServer) -> None:
    finished(1).write_to(server)
    finished(2).write_to(server)
    assert json.loads(evflow("show", "TrainFlow", "--json").stdout)["number"] == 2


def test_a_flow_that_never_ran_gets_a_suggestion(server: SimulatedServer) -> None:
    finished().write_to(server)
    result = evflow("show", "TranFlow")
    assert result.exit_code == 1
    assert "Did you mean 'TrainFlow'?" in result.stderr


def test_a_flow_of_which_no_run_began_is_not_suggested_to_itself(server: SimulatedServer) -> None:
    requested = flow_events.encode(flow_events.RunRequested(0, "ada"), at_us=NOON_US, principal="user:ada")
    SimulatedLogClient(server).request_run(FlowName("TrainFlow"), requested)
    for name in ("TrainFlow", "TrainFlow/1"):
        result = evflow("show", name)
        assert result.exit_code == 1
        assert "Did you mean" not in result.stderr
        assert "no run that began" in result.stderr


def test_a_step_that_is_not_there_gets_a_suggestion(server: SimulatedServer) -> None:
    finished().write_to(server)
    result = evflow("show", "TrainFlow/3/strat")
    assert (result.exit_code, "Did you mean 'start'?" in result.stderr) == (1, True)


def test_flows_are_found_in_files_without_importing_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("raise SystemExit\n\nclass A(FlowSpec):\n    ...\n")
    (tmp_path / "b.py").write_text("class B(evflow.FlowSpec): ...\nclass NoFlow(dict): ...\n")
    (tmp_path / "c.txt").write_text("class C(FlowSpec): ...\n")
    assert list(flows_in(tmp_path)) == ["A", "B"]


# --- commands on runs -------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first(server: SimulatedServer) -> None:
    for number in (1, 2, 3):
        story = Story(TWO_STEPS, number=number)
        story.now_us += number
        story.start().write_to(server, owned=True)
    assert [run["number"] for run in json.loads(evflow("runs", "--json").stdout)] == [3, 2, 1]
    assert [run["number"] for run in json.loads(evflow("runs", "--json", "--limit", "1").stdout)] == [3]


def test_a_run_that_nobody_runs_any_more_is_interrupted(server: SimulatedServer) -> None:
    Story(TWO_STEPS).start().write_to(server)
    result = evflow("runs")
    assert "interrupted" in result.stdout
    assert "evflow continue TrainFlow/3" in result.stderr


def test_a_run_that_is_being_run_is_running(server: SimulatedServer) -> None:
    Story(TWO_STEPS).start().write_to(server, owned=True)
    [run] = json.loads(evflow("runs", "--json").stdout)
    assert run["status"] == "running"
    assert run["tasks"] is None, "the index has the number of the run's beginning"


def test_runs_are_filtered_by_status(server: SimulatedServer) -> None:
    finished(1).write_to(server)
    Story(TWO_STEPS, number=2).start().write_to(server, owned=True)
    assert [run["number"] for run in json.loads(evflow("runs", "--json", "--status", "succeeded").stdout)] == [1]


def test_runs_are_listed_and_filtered_by_the_tags_that_they_have_now(server: SimulatedServer) -> None:
    for number in (1, 2):
        finished(number).write_to(server)
    client = SimulatedLogClient(server)
    change = TagChange(RunId.parse("TrainFlow/1"), ("good",))
    client.append_flow(FlowName("TrainFlow"), client.flow_seq(FlowName("TrainFlow")), b"event", change)
    found = json.loads(evflow("runs", "--json", "--tag", "good").stdout)
    assert [(run["number"], run["tags"]) for run in found] == [(1, ["good"])]
    assert [run["tags"] for run in json.loads(evflow("tag", "list", "--json").stdout)] == [[], ["good"]]


def test_a_fresh_machine_has_no_runs_and_is_left_as_it_is(evflow_home: Path) -> None:
    assert evflow("runs", "--json").stdout == "[]\n"
    result = evflow("show", "TrainFlow/1")
    assert (result.exit_code, "There are no runs in" in result.stderr) == (1, True)
    assert not evflow_home.exists()


@pytest.mark.parametrize(
    ("command", "nothing"),
    [
        ("runs", "There are no runs in"),
        ("deployments", "Nothing is deployed"),
        ("pools", "There are no pools yet."),
        ("limits", "No limit is set"),
        ("backfills", "There are no backfills."),
    ],
)
def test_to_a_list_nothing_is_wrong_with_a_fresh_machine(command: str, nothing: str, evflow_home: Path) -> None:
    listed = evflow(command)
    assert (listed.exit_code, listed.stdout, nothing in listed.stderr) == (0, "", True)
    assert json.loads(evflow(command, "--json").stdout) == []
    assert not evflow_home.exists()


def test_where_no_log_is_yet_nothing_is_deployed_in_it() -> None:
    result = evflow("run", "Nope")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, "Error: 'Nope' is not deployed.")
    assert "Nothing is deployed in this log." in result.stderr


def test_a_run_is_shown_with_its_tasks(server: SimulatedServer) -> None:
    finished().write_to(server)
    shown = json.loads(evflow("show", "TrainFlow/3", "--json").stdout)
    assert (shown["status"], shown["duration_s"]) == ("succeeded", 2.0)
    assert [(task["task"], task["status"]) for task in shown["tasks"]] == [
        ("TrainFlow/3/start/1", "succeeded"),
        ("TrainFlow/3/end/2", "succeeded"),
    ]


def test_a_large_run_is_shown_by_its_steps(server: SimulatedServer) -> None:
    story = Story(cross_validation(), slots=4).start()
    story.succeed(1, "train", kind="foreach", splits=50).write_to(server, owned=True)
    shown = evflow("show", "TrainFlow/3").stdout
    assert "train/40" not in shown
    assert "STEP" in shown


def test_a_failed_task_is_shown_with_its_reason_and_place(server: SimulatedServer) -> None:
    story = Story(cross_validation()).start().succeed(1, "train", kind="foreach", splits=1).fail(2, where="/flows/cv.py:31").seal()
    story.write_to(server)
    shown = evflow("show", "TrainFlow/3").stdout
    assert "ValueError: nope  (/flows/cv.py:31)" in shown


def test_a_task_is_shown_with_its_attempts(server: SimulatedServer) -> None:
    spreading().write_to(server, owned=True)
    [attempt] = json.loads(evflow("show", "TrainFlow/3/train/3", "--json").stdout)["attempts"]
    assert (attempt["outcome"], attempt["error"], attempt["message"]) == ("failed", "builtins.ValueError", "nope")


def test_events_are_printed_in_their_order_and_by_type(server: SimulatedServer) -> None:
    finished().write_to(server)
    events = json.loads(evflow("events", "TrainFlow/3", "--json").stdout)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("RunStarted", "RunSealed")
    only = json.loads(evflow("events", "TrainFlow/3", "--json", "--type", "TaskQueued", "--after", "3").stdout)
    assert [event["type"] for event in only] == ["TaskQueued"]


def test_following_ends_with_the_seal_and_gives_a_document_a_line(server: SimulatedServer) -> None:
    finished().write_to(server)
    lines = evflow("events", "TrainFlow/3", "--follow", "--json").stdout.splitlines()
    assert json.loads(lines[-1])["type"] == "RunSealed"


def test_a_digest_is_hexadecimal_in_json(server: SimulatedServer) -> None:
    finished().write_to(server)
    started = json.loads(evflow("events", "TrainFlow/3", "--json").stdout)[0]
    assert started["fields"]["parameters"] == "00" * 32


def test_cancelling_a_run_that_is_over_changes_nothing(server: SimulatedServer) -> None:
    finished().write_to(server)
    result = evflow("cancel", "TrainFlow/3")
    assert (result.exit_code, "TrainFlow/3 was over before: it succeeded at" in result.stderr) == (1, True)
    assert not server.state.shard("run:TrainFlow:3").inbox


# --- explain ----------------------------------------------------------------------------------------------


def explained(story: Story, after_s: int = 0) -> str:
    return "\n".join(of_run(story.state, story.now_us + after_s * 1_000_000))


def test_a_queued_task_is_explained_by_the_slots_and_its_place() -> None:
    assert "TrainFlow/3/train/8 waits for a slot of 'local'" in explained(spreading())
    said = next(text for text in explained(spreading()).splitlines() if "train/10 " in text)
    assert "4 tasks run (0: " in said
    assert all(f": train/{task}" in said for task in (4, 5, 6, 7))
    assert said.endswith("2 tasks ahead of it (train/8, train/9).")


def test_a_retry_is_explained_by_its_time_and_the_failure() -> None:
    assert (
        "train/3 waits for its retry: attempt 1 begins in 50.0 s, because attempt 0 ended with ValueError: nope (1 of 3 counted"
        in explained(spreading(), after_s=10)
    )


def test_a_join_is_explained_by_the_members_that_are_missing() -> None:
    assert (
        "The join 'join' of the split at start/1 in TrainFlow/3 waits for 11 of 12 members: 1 (train/3 retrying), 2 (train/4 running), 3 (train/5 running), 4 (train/6 running), 5 (train/7 running), …."
        in explained(spreading())
    )


def test_a_run_without_an_owner_is_explained_by_continue() -> None:
    story = spreading()
    assert "evflow continue TrainFlow/3" in "\n".join(of_run(story.state, story.now_us, owned=False))


def test_a_task_of_a_run_without_an_owner_waits_for_one_too(server: SimulatedServer) -> None:
    spreading().write_to(server)
    assert "`evflow cancel TrainFlow/3` ends it" in evflow("explain", "TrainFlow/3/train/8").stdout


def test_what_ran_when_its_runs_process_died_is_not_said_to_run(server: SimulatedServer) -> None:
    spreading().write_to(server)
    said = evflow("explain", "TrainFlow/3").stdout
    assert "TrainFlow/3/train/4 was running on box (pid 4004) when the run's process died.\n" in said
    assert "TrainFlow/3/train/8 was waiting for a slot of 'local' when the run's process died.\n" in said
    assert "has been running" not in said
    assert said.count("evflow continue") == 1


def test_a_run_whose_process_is_gone_from_this_machine_is_interrupted_though_its_lease_holds(server: SimulatedServer) -> None:
    spreading().write_to(server)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    server.write(lambda state: state.take("run:TrainFlow:3", f"{os.uname().nodename}:{gone.pid}:1:x", 30.0, NOON_US))
    assert json.loads(evflow("runs", "--json").stdout)[0]["status"] == "interrupted"
    assert json.loads(evflow("show", "TrainFlow/3", "--json").stdout)["status"] == "interrupted"
    assert "when the run's process died" in evflow("explain", "TrainFlow/3").stdout
    assert SimulatedLogClient(server).owner("run:TrainFlow:3") is not None, "who only looks ends no lease"


def test_a_run_that_is_being_cancelled_is_explained_by_what_still_runs() -> None:
    said = explained(spreading().cancel("enough"))
    assert said.startswith(
        "TrainFlow/3 is being cancelled (enough): it waits for 4 running tasks to end (train/4, train/5, train/6, train/7)."
    )
    assert "It was asked to end: the run was cancelled." in said


def test_what_a_step_asks_for_is_explained_beside_what_others_hold() -> None:
    shape = graph(
        Node("start", "foreach", ("train",), foreach="xs"),
        Node("train", "linear", ("join",), policy=Policy(cpu=2, memory_mb=512)),
        Node("join", "join", ("end",), takes_inputs=True),
        Node("end", "end"),
    )
    story = Story(shape, slots=2).start().succeed(1, "train", kind="foreach", splits=3)
    assert "It asks for 2 cpu, 512 MB of memory; running tasks asked for 4 cpu, 1024 MB of memory." in explained(story)


# --- settings ---------------------------------------------------------------------------------------------


def test_config_shows_each_value_and_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_MAX_WORKERS", "6")
    rows = {row["name"]: row for row in json.loads(evflow("config", "--json").stdout)["settings"]}
    assert (rows["max_workers"]["value"], rows["max_workers"]["place"]) == (6, "EVFLOW_MAX_WORKERS")
    assert set(rows) == set(config.SETTINGS)


@pytest.mark.parametrize(
    ("name", "value"),
    [("shards", "0-3,6"), ("event_streams", "orders=ordered"), ("event_queues", "https://h/1/q=e"), ("default_decospecs", "retry"), ("hot_for", "3h")],
)  # fmt: skip
def test_config_shows_a_setting_of_each_kind(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"EVFLOW_{name.upper()}", value)
    assert (evflow("config").exit_code, evflow("config", "--json").exit_code) == (0, 0)
    shown = "10800" if value == "3h" else value
    assert evflow("config", name).stdout == f"{shown}\n"


def test_config_masks_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_REDIS_URL", "redis://ada:hunter2@host")
    result = evflow("config")
    assert "redis://ada:***@host" in result.stdout
    assert "hunter2" not in result.output


def test_config_shows_all_settings_though_one_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_MAX_WORKERS", "many")
    result = evflow("config")
    assert result.exit_code == 1
    assert "task_budget" in result.stdout
    assert "EVFLOW_MAX_WORKERS" in result.stderr


def test_one_setting_is_printed_bare_and_a_wrong_one_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert evflow("config", "max-workers").stdout == "16\n"
    monkeypatch.setenv("EVFLOW_MAX_WORKERS", "many")
    result = evflow("config", "max-workers")
    assert (result.exit_code, result.stdout) == (1, "")


def test_config_names_a_broken_file_once() -> None:
    (Path.cwd() / "evflow.toml").write_text("max_workers =")
    assert evflow("config").stderr.count("evflow.toml: this file of settings cannot be read") == 1


# --- help, usage, errors ----------------------------------------------------------------------------------


def test_help_lists_every_command_and_imports_none() -> None:
    code = "import sys; from evflow.cli.app import app; app().main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, modules = done.stdout.rsplit("\n", 2)[0], done.stdout.split()
    for name in app().list_commands(click.Context(app())):
        assert f"  {name} " in shown
    heavy = {
        "rich",
        "asyncio",
        "anyio",
        "redis",
        "structlog",
        "orjson",
        "hiredis",
        "evflow.cli.runs",
        "evflow.log",
        "evflow.store",
        "tomllib",
    }
    assert heavy.isdisjoint(modules)


@pytest.mark.parametrize("name", app().list_commands(click.Context(app())))
def test_every_command_has_help(name: str) -> None:
    result = evflow(name, "--help")
    assert result.exit_code == 0
    assert "Usage: evflow" in result.stdout


def test_an_unknown_command_gets_a_suggestion() -> None:
    result = evflow("rnus")
    assert result.exit_code == 2
    assert "There is no command 'rnus'. Did you mean 'runs'?" in result.stderr


def test_options_are_taken_with_dashes_and_underscores_alike() -> None:
    group = LazyGroup(name="g", sections={"S": {"go-on": Lazy("tests.unit.test_cli", "go_on", "Go.")}})
    for given in (["go-on", "--n-folds", "3"], ["go_on", "--n_folds", "3"]):
        assert CliRunner().invoke(group, given).stdout == "3\n"


@click.command()
@click.option("--n_folds", type=int)
def go_on(n_folds: int) -> None:
    click.echo(n_folds)


class Broken(Conflict):
    code = "broken"


def test_an_error_of_ours_is_a_message_a_hint_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UsageError("Run 'F/3' has no artifact 'x'.", "Did you mean 'y'?")

    assert outcome(fail) == 1
    captured = capsys.readouterr()
    assert captured.err == "Error: Run 'F/3' has no artifact 'x'.\nDid you mean 'y'?\n"
    assert captured.out == ""


def test_an_unexpected_error_names_a_file_with_its_traceback(capsys: pytest.CaptureFixture[str], evflow_home: Path) -> None:
    assert outcome(lambda: 1 / 0) == 1
    shown = capsys.readouterr().err
    assert "Internal error: ZeroDivisionError" in shown
    assert "Traceback" not in shown
    [kept] = (evflow_home / "errors").iterdir()
    assert str(kept) in shown
    assert "1 / 0" in kept.read_text()


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_DEBUG", "1")
    outcome(lambda: 1 / 0)
    assert "Traceback" in capsys.readouterr().err


def test_an_internal_error_is_told_though_nothing_can_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVFLOW_HOME", "/proc/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/proc/nowhere")
    assert outcome(lambda: 1 / 0) == 1
    assert "EVFLOW_DEBUG=1 shows the traceback" in capsys.readouterr().err


def test_ctrl_c_ends_a_command_with_130() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert outcome(interrupted) == 130


def test_ctrl_c_in_the_creation_of_a_class_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    class Part:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    assert outcome(lambda: type("Whole", (), {"part": Part()})) == 130
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("at_us", "year"), [(2**62, "9999"), (-(2**60), "1970")])
def test_an_instant_that_no_calendar_has_is_shown_as_the_nearest(at_us: int, year: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    assert output.instant(at_us).startswith(year)
    assert (output.iso(at_us) or "").startswith(year)


def test_a_reader_that_went_away_is_no_error() -> None:
    process = subprocess.run(
        f"{sys.executable} -m evflow.cli config | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_evflow_itself(shell: str) -> None:
    result = evflow("completion", shell)
    assert (result.exit_code, "_EVFLOW_COMPLETE" in result.stdout) == (0, True)


def test_a_command_is_completed_from_its_beginning() -> None:
    environment = {**os.environ, "_EVFLOW_COMPLETE": "bash_complete", "COMP_WORDS": "evflow con", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "evflow.cli"], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,continue", "plain,config"]


def completed(*words: str) -> list[str]:
    """What the shell is offered for the last word."""
    found = ShellComplete(app(), {}, "evflow", "_EVFLOW_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


def test_runs_are_completed_newest_first(server: SimulatedServer) -> None:
    for number in (1, 2, 12):
        finished(number).write_to(server)
    finished(1, "OtherFlow").write_to(server)
    assert completed("show", "Tr") == ["TrainFlow/12", "TrainFlow/2", "TrainFlow/1"]
    assert completed("replay", "TrainFlow/1") == ["TrainFlow/12", "TrainFlow/1"]
    assert completed("events", "--follow", "Other") == ["OtherFlow/1"]
    assert completed("show", "Nothing") == []


def test_a_number_is_completed_where_one_flow_can_be_meant(server: SimulatedServer) -> None:
    for number in (1, 12):
        finished(number).write_to(server)
    assert completed("show", "1") == ["12", "1"]
    finished(1, "OtherFlow").write_to(server)
    assert completed("show", "1") == []


def test_steps_and_tasks_are_completed_behind_a_run(server: SimulatedServer) -> None:
    spreading().write_to(server)
    assert completed("logs", "TrainFlow/3/") == ["TrainFlow/3/start", "TrainFlow/3/train", "TrainFlow/3/join", "TrainFlow/3/end"]
    assert completed("explain", "3/tr") == ["3/train"]
    assert completed("dump", "TrainFlow/3/train/1") == [
        "TrainFlow/3/train/10",
        "TrainFlow/3/train/11",
        "TrainFlow/3/train/12",
        "TrainFlow/3/train/13",
    ]
    assert completed("show", "TrainFlow/4/") == []


def test_what_can_be_cancelled_or_continued_is_what_is_not_over(server: SimulatedServer) -> None:
    finished(1).write_to(server)
    Story(TWO_STEPS, number=2).start().write_to(server)
    assert completed("cancel", "Train") == ["TrainFlow/2"]
    assert completed("continue", "Train") == ["TrainFlow/2"]


def test_flows_options_and_settings_are_completed(server: SimulatedServer) -> None:
    finished().write_to(server)
    assert completed("runs", "T") == ["TrainFlow"]
    assert completed("cancel", "--no") == ["--no-wait"]
    assert completed("config", "max_n") == ["max_num_splits"]


def test_a_completion_without_a_log_is_empty() -> None:
    assert completed("show", "T") == []


# --- output -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 ms"),
        (12_300, "12 ms"),
        (999_400, "999 ms"),
        (999_600, "1.0 s"),
        (59_940_000, "59.9 s"),
        (59_960_000, "1 m 00 s"),
        (3_599_400_000, "59 m 59 s"),
        (3_599_600_000, "1 h 00 m"),
        (90_000_000_000, "1 d 01 h"),
    ],
)
def test_a_duration_is_as_long_as_people_read(us: int, text: str) -> None:
    assert output.duration(us) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_600, "1.0 MB"), (2_500_000_000, "2.5 GB")])
def test_a_size_is_as_long_as_people_read(count: int, text: str) -> None:
    assert output.size(count) == text


def test_a_table_keeps_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = output.table(["name", "value"], [["a", "x" * 100], ["b", "1"]], right=["value"])
    assert max(len(click.unstyle(line)) for line in lines) <= 40
    assert lines[1].endswith("…")


def test_a_table_counts_the_columns_that_wide_characters_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    lines = output.table(["user", "tags"], [["山田", "東京" * 10], ["e\u0301va", "x"]])
    assert lines[1:] == ["山田  東京東京東京…", "e\u0301va   x"]


def test_a_table_whose_last_column_has_no_name_ends_with_the_last_that_has_one() -> None:
    head, row = output.table(["hash", ""], [["5d4da6a060b6", "live"]])
    assert (click.unstyle(head), row) == ("HASH", "5d4da6a060b6  live")


def test_a_table_in_a_pipe_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert output.table(["name"], [["x" * 500]])[1] == "x" * 500


def test_output_of_another_machine_is_named_with_its_host(server: SimulatedServer) -> None:
    story = Story(TWO_STEPS).start().succeed(1, "end").succeed(2).seal()
    story.write_to(server)
    assert "What start/1, end/2 printed is on the disk of box" in evflow("logs", "TrainFlow/3").stderr


def test_output_of_another_machine_that_is_in_the_store_is_shown(server: SimulatedServer, tmp_path: Path) -> None:
    story = Story(TWO_STEPS, store=str(tmp_path)).start().succeed(1, "end").succeed(2).seal()
    story.write_to(server)
    folder = make_folder(str(tmp_path), RunId.parse("TrainFlow/3"))
    Path(path_of(folder, 1, 0)).write_text("1732380000000000 o hello\n")
    shown = evflow("logs", "TrainFlow/3")
    assert (shown.stdout, shown.stderr) == ("[start/1] hello\n", "")
