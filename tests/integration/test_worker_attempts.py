"""One attempt of a real flow: what its body meets, and what it reports."""

import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from evflow.core.events import AttemptExited
from evflow.exception import ExceptionWrapper
from evflow_executors.protocol import Observation
from tests.attempt_world import HEAD, AttemptWorld, an_attempt_world

pytestmark = pytest.mark.may_block("the harness reads the inbox and the store between attempts")

LINEAR = """
class MyFlow(FlowSpec):
    @step
    def start(self):
        self.numbers = [1, 2, 3]
        print("hello from", current.pathspec, current.retry_count, sorted(current.tags))
        self.next(self.end)

    @step
    def end(self):
        self.total = sum(self.numbers)
"""


@pytest.fixture(params=["fork", "spawn"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_linear_flow_runs_step_by_step(root: Path, method: str) -> None:
    async with an_attempt_world(root, LINEAR, method=method) as world:
        start = await world.run("start", 1)
        assert start.exit.exit_code == 0
        assert start.stdout == "hello from MyFlow/1/start/1 0 ['a-tag']"
        assert (start.succeeded.next_kind, start.succeeded.next_steps) == ("linear", ("end",))
        end = await world.run("end", 2, parents=(("start", 1, start.succeeded.manifest),))
        assert (end.succeeded.next_kind, end.succeeded.artifacts) == ("end", 2)
        assert world.artifacts(end.succeeded.manifest) == {"numbers": [1, 2, 3], "total": 6}
        assert end.succeeded.started_us <= end.succeeded.ended_us


async def test_what_was_computed_is_not_given_up_at_once_where_the_store_is_away(root: Path) -> None:
    steps = """
    from evflow.store.patience import holds_results

    class Asks:
        def __reduce__(self):
            print("kept", holds_results())
            return Asks, ()

    class MyFlow(FlowSpec):
        @step
        def start(self):
            print("computed", holds_results())
            self.asks = Asks()
            self.next(self.end)

        @step
        def end(self):
            pass
    """
    async with an_attempt_world(root, steps) as world:
        start = await world.run("start", 1)
        assert start.stdout.splitlines() == ["computed False", "kept True"]


async def test_foreach_and_join(root: Path) -> None:
    steps = """
    class MyFlow(FlowSpec):
        @step
        def start(self):
            self.xs = ["a", "b", "c"]
            self.next(self.body, foreach="xs")

        @step
        def body(self):
            self.y = self.input * 2
            self.next(self.join)

        @step
        def join(self, inputs):
            self.ys = [(one.index, one.input, one.y) for one in inputs]
            self.next(self.end)

        @step
        def end(self):
            pass
    """
    async with an_attempt_world(root, steps) as world:
        start = (await world.run("start", 1)).succeeded
        assert (start.next_kind, start.splits, start.variable) == ("foreach", 3, "xs")
        members = []
        for index in range(3):
            frame = ("start", 1, "foreach", index, 3, start.items, "xs")
            body = await world.run("body", 2 + index, parents=(("start", 1, start.manifest),), frames=(frame,))
            members.append(("body", 2 + index, body.succeeded.manifest))
        joined = ("start", 1, "foreach", 0, 3, start.items, "xs")
        join = await world.run("join", 5, parents=tuple(members), takes_inputs=True, joined=joined)
        artifacts = world.artifacts(join.succeeded.manifest)
        assert artifacts["ys"] == [(0, "a", "aa"), (1, "b", "bb"), (2, "c", "cc")]
        assert artifacts["xs"] == ["a", "b", "c"], "what all inputs agree on passes down"
        assert "y" not in artifacts


BODIES = """
class MyFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def raises(self):
        self.kept = 1
        helper()
        self.next(self.end)

    @retry(times=1)
    @catch(var="error")
    @step
    def caught(self):
        self.kept = 1
        helper()
        self.next(self.end)

    @catch(var="error")
    @step
    def fine(self):
        self.next(self.end)

    @step
    def exits(self):
        sys.exit(3)
        self.next(self.end)

    @step
    def exits_with_0(self):
        sys.exit(0)
        self.next(self.end)

    @step
    def leaves(self):
        os._exit(0)

    @catch(var="error")
    @step
    def forks(self):
        child = os.fork()
        self.value = "parent" if child else "child"
        if child:
            print("child's status", os.waitpid(child, 0)[1])
        self.next(self.end)

    @catch(var="error")
    @step
    def forks_what_raises(self):
        child = os.fork()
        if not child:
            helper()
        print("child's status", os.waitpid(child, 0)[1])
        self.next(self.end)

    @step
    def forks_what_exits(self):
        child = os.fork()
        if not child:
            sys.exit(0)
        print("child's status", os.waitpid(child, 0)[1])
        self.next(self.end)

    @step
    def fans_out_locks(self):
        self.xs = map(lambda _: __import__("threading").Lock(), "ab")
        self.next(self.raises, foreach="xs")

    @step
    def forgets(self):
        pass

    @step
    def unserializable(self):
        self.lock = __import__("threading").Lock()
        self.next(self.end)

    @catch(var="error")
    @step
    def sleeps(self):
        try:
            print("asleep")
            time.sleep(600)
        except Exception as error:
            print("caught", type(error).__name__)
            raise
        self.next(self.end)

    @catch(var="error")
    @step
    def takes_all(self):
        try:
            print("asleep")
            time.sleep(600)
        except:
            print("cleaning up")
            raise
        self.next(self.end)

    @step
    def unprintable(self):
        raise Odd(ValueError("no text"))

    @step
    def unprintable_by_an_exit(self):
        raise Odd(SystemExit(3))

    @step
    def exits_unprintably(self):
        sys.exit(Odd(ValueError("no text")))

    @catch(var="error")
    @step
    def caught_unprintable(self):
        sys.stderr = None
        raise Odd(ValueError("no text"))
        self.next(self.end)

    @step
    def raises_without_streams(self):
        sys.stdout = sys.stderr = Broken()
        helper()

    @step
    def opens_too_much(self):
        files = use_up_descriptors()
        files.append(open(os.devnull))

    @step
    def keeps_too_much_open(self):
        self.opened = len(use_up_descriptors())
        self.next(self.end)

    @environment(vars={"COLOUR": "blue"})
    @step
    def surroundings(self):
        print(os.environ["COLOUR"], os.environ["EVFLOW_ATTEMPT"], __name__, os.path.basename(sys.modules["__main__"].__file__))
        self.next(self.end)

    @step
    def registers(self):
        import atexit, threading
        atexit.register(print, "called at the end")
        threading.Thread(target=lambda: (time.sleep(0.05), print("a thread's last line"))).start()
        self.next(self.end)

    @step
    def end(self):
        pass

def helper():
    raise KeyError("gone")

class Odd(Exception):
    def __str__(self):
        raise self.args[0]
    __repr__ = __str__

class Broken:
    def write(self, text):
        raise RuntimeError("broken")
    def flush(self):
        raise RuntimeError("broken")

opened = []

def use_up_descriptors():
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            opened.append(open(os.devnull))
    except OSError:
        return opened
"""


@pytest.fixture
async def world(root: Path) -> AsyncGenerator[AttemptWorld]:
    async with an_attempt_world(root, BODIES) as made:
        yield made


async def test_an_exception_is_reported_with_the_users_place_and_frames_only(world: AttemptWorld) -> None:
    ended = await world.run("raises")
    report = ended.failed
    assert (report.kind, report.error, report.message, report.retryable) == ("exception", "KeyError", "'gone'", True)
    assert report.where.startswith(f"{world.flow_file}:")
    assert "in helper" in ended.stderr
    assert "evflow/" not in ended.stderr
    assert report.detail is not None
    assert bytes(world.store.get(report.detail)).decode().strip() == ended.stderr.strip()
    assert ended.exit.exit_code == 0, "the log has its report"


async def test_catch_takes_the_last_attempts_exception_and_keeps_what_was_set(world: AttemptWorld) -> None:
    first = await world.run("caught", 1, 0, last=False)
    assert first.failed.kind == "exception"
    last = await world.run("caught", 1, 1, last=True)
    assert last.succeeded.caught == "KeyError: 'gone'"
    assert last.succeeded.next_steps == ("end",)
    artifacts = world.artifacts(last.succeeded.manifest)
    assert artifacts["kept"] == 1
    wrapped: ExceptionWrapper = artifacts["error"]
    assert (wrapped.type, wrapped.exception) == ("builtins.KeyError", "'gone'")
    assert "in helper" in (wrapped.stacktrace or "")


async def test_catch_leaves_none_where_nothing_was_raised(world: AttemptWorld) -> None:
    assert world.artifacts((await world.run("fine")).succeeded.manifest) == {"error": None}


async def test_a_crash_is_recorded_for_catch_without_running_the_body(world: AttemptWorld) -> None:
    ended = await world.run("sleeps", 1, 1, mode="catch", crash="killed by signal 9")
    assert "killed by signal 9" in (ended.succeeded.caught or "")
    assert "asleep" not in ended.stdout
    assert "killed by signal 9" in world.artifacts(ended.succeeded.manifest)["error"].exception


@pytest.mark.parametrize(
    ("step", "kind", "part"),
    [
        ("exits", "exit", "sys.exit(3)"),
        ("exits_with_0", "exit", "sys.exit(0)"),
        ("forgets", "transition", "missing a self.next()"),
        ("unserializable", "artifact", "lock"),
        ("fans_out_locks", "artifact", "'xs[0]'"),
        ("unprintable", "exception", "cannot be made"),
        ("unprintable_by_an_exit", "exception", "cannot be made: SystemExit"),
        ("exits_unprintably", "exit", "cannot be made"),
        ("opens_too_much", "exception", "Too many open files"),
    ],
)
async def test_each_way_to_fail_has_its_kind(world: AttemptWorld, step: str, kind: str, part: str) -> None:
    report = (await world.run(step)).failed
    assert report.kind == kind
    assert part in report.message


async def test_catch_takes_an_exception_that_cannot_be_shown(world: AttemptWorld) -> None:
    ended = await world.run("caught_unprintable")
    assert world.artifacts(ended.succeeded.manifest)["error"].exception == "<its text cannot be made: ValueError>"
    assert "raise Odd" in ended.stderr, "its traceback is shown although the body took sys.stderr away"


async def test_a_body_that_breaks_its_streams_is_reported_and_shown(world: AttemptWorld) -> None:
    ended = await world.run("raises_without_streams")
    assert (ended.failed.error, ended.failed.message) == ("KeyError", "'gone'")
    assert "in helper" in ended.stderr


async def test_a_body_that_leaves_no_descriptor_is_stored_and_reported(world: AttemptWorld) -> None:
    ended = await world.run("keeps_too_much_open")
    assert world.artifacts(ended.succeeded.manifest)["opened"] > 20


async def test_a_process_that_just_leaves_has_no_report(world: AttemptWorld) -> None:
    ended = await world.run("leaves")
    assert ended.report is None
    assert ended.exit.exit_code == 0


@pytest.mark.parametrize(
    ("step", "last", "status"),
    [("forks", True, 0), ("forks_what_raises", True, 256), ("forks_what_raises", False, 256), ("forks_what_exits", True, 0)],
)
async def test_a_fork_of_the_body_ends_without_a_word_in_its_parents_matters(
    world: AttemptWorld, step: str, last: bool, status: int
) -> None:
    ended = await world.run(step, last=last)
    artifacts = world.artifacts(ended.succeeded.manifest)
    assert f"child's status {status}" in ended.stdout
    assert artifacts.get("error") is None
    assert artifacts.get("value", "parent") == "parent"
    assert "which the step's body forked, ends here" in ended.stderr


async def test_a_timeout_is_an_exception_of_the_body_first(world: AttemptWorld) -> None:
    ended = await world.run("sleeps", timeout_s=0.1, last=False)
    assert ended.failed.kind == "timeout"
    assert "caught TimeoutException" in ended.stdout
    last = await world.run("sleeps", 1, 1, timeout_s=0.1)
    assert "timed out" in world.artifacts(last.succeeded.manifest)["error"].exception


async def test_a_cancellation_is_no_exception_and_has_no_report(world: AttemptWorld) -> None:
    name = await world.launch("sleeps")
    assert await world.line_of(name) == "asleep"
    await world.executor.cancel(name, grace_s=60)
    ended = await world.end_of(name)
    assert (ended.exit.exit_code, ended.exit.signal) == (None, signal.SIGTERM)
    assert ended.report is None
    assert "caught" not in ended.stdout
    assert ended.stderr == ""


async def test_a_body_may_clean_up_when_it_is_cancelled(world: AttemptWorld) -> None:
    name = await world.launch("takes_all")
    await world.line_of(name)
    await world.executor.cancel(name, grace_s=60)
    ended = await world.end_of(name)
    assert ended.stdout == "cleaning up"
    assert ended.report is None


async def test_the_body_sees_its_environment_and_runs_as_main(world: AttemptWorld) -> None:
    assert (await world.run("surroundings", 7, 2)).stdout == "blue MyFlow/1/7.2 __main__ flow.py"


async def test_threads_and_exit_callbacks_of_the_body_come_to_their_end(world: AttemptWorld) -> None:
    assert (await world.run("registers")).stdout.splitlines() == ["a thread's last line", "called at the end"]


async def test_a_flow_that_cannot_be_loaded_is_each_attempts_own_failure(root: Path, method: str) -> None:
    async with an_attempt_world(root, "raise LookupError('at import')\nclass MyFlow(FlowSpec): pass", method=method) as world:
        report = (await world.run("start")).failed
        assert (report.kind, report.error, report.message) == ("load", "LookupError", "at import")
        assert report.where == f"{world.flow_file}:{HEAD.count(chr(10)) + 1}"
        assert report.detail is not None
        assert "LookupError: at import" in bytes(world.store.get(report.detail)).decode()


async def test_decorators_of_with_hold_in_fresh_interpreters_too(root: Path) -> None:
    steps = """
    class MyFlow(FlowSpec):
        @step
        def start(self):
            print(os.environ.get("COLOUR"))
            self.next(self.end)

        @step
        def end(self):
            pass
    """
    options = {"with": ['environment:vars={"COLOUR": "blue"}']}
    async with an_attempt_world(root, steps, method="spawn", options=options) as world:
        assert (await world.run("start")).stdout == "blue"


async def test_an_attempt_reports_to_a_server_that_was_killed_and_comes_back(root: Path) -> None:
    steps = """
    class MyFlow(FlowSpec):
        @step
        def start(self):
            print("ready")
            while not os.path.exists("go"):
                time.sleep(0.005)
            self.next(self.end)

        @step
        def end(self):
            pass
    """
    async with an_attempt_world(root, steps) as world:
        name = await world.launch("start")
        await world.line_of(name)
        world.kill_server()
        (world.folder / "go").touch()
        await anyio.sleep(0.1)  # so that its first try most likely fails; it succeeds either way
        world.server.ensure()
        assert (await world.end_of(name)).succeeded.next_steps == ("end",)


async def test_async_steps_time_out_and_are_cancelled_like_others(root: Path) -> None:
    steps = """
    class MyFlow(FlowSpec):
        @step
        async def start(self):
            import anyio
            print("asleep")
            await anyio.sleep(0 if current.retry_count == 0 else 600)
            self.done = True
            self.next(self.end)

        @step
        def end(self):
            pass
    """
    async with an_attempt_world(root, steps) as world:
        assert world.artifacts((await world.run("start", 1, 0)).succeeded.manifest) == {"done": True}
        assert (await world.run("start", 1, 1, timeout_s=0.1)).failed.kind == "timeout"
        name = await world.launch("start", 1, 2)
        await world.line_of(name)
        await world.executor.cancel(name, grace_s=60)
        ended = await world.end_of(name)
        assert (ended.exit.signal, ended.report) == (signal.SIGTERM, None)


async def test_a_flow_that_imports_polars_is_spawned_and_works(root: Path) -> None:
    steps = """
    import polars
    class MyFlow(FlowSpec):
        @step
        def start(self):
            self.total = polars.DataFrame({"x": [1, 2, 3]}).lazy().select(polars.col("x").sum()).collect().item()
            self.next(self.end)

        @step
        def end(self):
            pass
    """
    async with an_attempt_world(root, steps, method="auto") as world:
        ended = await world.run("start")
        assert world.artifacts(ended.succeeded.manifest) == {"total": 6}


async def test_modules_of_the_user_with_our_names_are_each_sides_own(root: Path, method: str) -> None:
    folder = root / "w"
    for name in ("redis", "click", "msgpack", "anyio", "hiredis", "structlog", "rich", "psutil", "torch"):
        (folder / f"{name}.py").write_text('WHOSE = "user"\n')
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "__init__.py").write_text('WHOSE = "user"\n')
    steps = """
    import msgpack, click, torch
    class MyFlow(FlowSpec):
        @step
        def start(self):
            import redis, anyio, hiredis, structlog, rich, scheduler, psutil
            self.whose = {m.WHOSE for m in (msgpack, click, torch, redis, anyio, hiredis, structlog, rich, scheduler, psutil)}
            self.next(self.end)

        @step
        def end(self):
            pass
    """
    async with an_attempt_world(root, steps, method=method) as world:
        ended = await world.run("start")
        assert world.artifacts(ended.succeeded.manifest) == {"whose": {"user"}}


async def test_an_async_body_runs_beside_a_module_of_the_users_called_anyio(root: Path, method: str) -> None:
    (root / "w" / "anyio.py").write_text('WHOSE = "user"\n')
    steps = """
    class MyFlow(FlowSpec):
        @step
        async def start(self):
            import asyncio
            await asyncio.sleep(0)
            import anyio
            self.whose = anyio.WHOSE
            self.next(self.end)

        @step
        def end(self):
            pass
    """
    async with an_attempt_world(root, steps, method=method) as world:
        ended = await world.run("start")
        assert world.artifacts(ended.succeeded.manifest) == {"whose": "user"}


async def test_an_attempt_whose_log_stays_away_is_told_so_by_its_exit(root: Path) -> None:
    async with an_attempt_world(root, LINEAR, options={"report_within_s": 0.2}) as world:
        await world.run("start", 1, 0)
        world.kill_server()
        name = await world.launch("start", 1, 1)
        async for seen in world.watch:
            if isinstance(seen, Observation) and isinstance(seen.event, AttemptExited):
                assert (seen.attempt, seen.event.why) == (name, "unreported")
                break
        world.server.ensure()
