"""Flows of the kinds that Metaflow's own tests are made of, through the compatibility module, read through the client in its words."""

from pathlib import Path

from tests.metaflow_world import AT_ONCE, asked, flow, run, through

CURRENT = """
from metaflow import FlowSpec, Run, Task, current, step

class Current(FlowSpec):
    fixed = {"a": 1}

    @step
    def start(self):
        self.seen = [current.flow_name, current.run_id, current.step_name, current.retry_count, current.origin_run_id]
        self.who = [current.username, current.namespace, sorted(current.tags), current.is_running_flow]
        self.task_obj, self.run_obj = current.task, current.run
        self.lineage = (self._current_step,)
        self.items = ["a", "b", "c"]
        self.next(self.inner, foreach="items")

    @step
    def inner(self):
        self.pathspec = current.pathspec
        self.mine = [self.input, self.index, self.foreach_stack()]
        self.lineage += (self._current_step,)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.pathspecs = {i.pathspec for i in inputs}
        self.lineage = (tuple(sorted({i.lineage for i in inputs})), self._current_step)
        self.merge_artifacts(inputs, exclude=["pathspec", "mine"])
        self.kept = [self.fixed["a"], len(self.items)]
        del self.items
        self.next(self.end)

    @step
    def end(self):
        self.has = [hasattr(self, "items"), hasattr(self, "kept")]
        print("the end")

if __name__ == "__main__":
    Current()
"""

FAILURES = """
import os, signal, sys, time
from metaflow import FlowSpec, catch, current, retry, step, timeout
from metaflow.exception import ExternalCommandFailed, MetaflowException
from metaflow.plugins.timeout_decorator import TimeoutException

class Mine(MetaflowException):
    headline = "mine"

    def __init__(self, what):
        super(Mine, self).__init__(msg="it was " + what)

class Failures(FlowSpec):
    @retry(times=3)
    @step
    def start(self):
        self.attempt = current.retry_count
        print("attempt", self.attempt)
        if self.attempt < 3:
            self.invisible = True
            raise Mine("early")
        self.next(self.slow)

    @catch(var="slow_ex", print_exception=False)
    @timeout(seconds=1)
    @step
    def slow(self):
        try:
            time.sleep(60)
        except TimeoutException as error:
            self.seen = isinstance(error, MetaflowException)
            raise
        self.next(self.killed)

    @catch(var="kill_ex", print_exception=False)
    @retry(times=2)
    @step
    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)
        self.next(self.own)

    @catch(var="own_ex", print_exception=False)
    @step
    def own(self):
        raise Mine("late")
        self.next(self.fine)

    @catch(var="fine_ex")
    @step
    def fine(self):
        self.next(self.end)

    @catch(var="end_ex", print_exception=False)
    @step
    def end(self):
        self.here = True
        raise ExternalCommandFailed("catch me!")

if __name__ == "__main__":
    Failures()
"""

SETTINGS = """
import json, os
from metaflow import Config, FlowSpec, JSONType, Parameter, config_expr, environment, step
from metaflow.parameters import JSONTypeClass

os.environ["METAFLOW_RUN_LATE"] = "False"
os.environ["METAFLOW_FLOW_CONFIG_VALUE"] = json.dumps({"given": {"size": 123}, "env": {"vars": {"ONE": "1"}}})

def text(ctx):
    assert ctx.parameter_name == "text" and ctx.flow_name == "Settings" and ctx.user_name == os.environ["METAFLOW_USER"]
    return "computed"

def parser(content):
    key, value = content.split(":")
    return {key: value.strip()}

class Settings(FlowSpec):
    late = Parameter("late", default=lambda ctx: True, type=bool)
    text = Parameter("text", default=text)
    data = Parameter("data", default=lambda ctx: json.dumps({"a": [8]}), type=JSONType)
    fixed = Config("fixed", default_value={"value": 42, "word": "foobar", "nested": {"value": 43}})
    given = Config("given")
    made = Config("made", default_value=lambda ctx: {"val": 456})
    parsed = Config("parsed", default="silly.txt", parser=parser, required=True)
    env = Config("env")
    size = Parameter("size", default=config_expr("given").size, type=int)
    more = Parameter("more", default=lambda ctx: ctx.configs.given.size + 1, type=int)

    @environment(**env)
    @step
    def start(self):
        self.seen = [os.environ["ONE"], self.late, self.text, self.data, self.size, self.more]
        self.next(self.end)

    @environment(vars={"WORD": fixed.word, "NUMBER": config_expr("str(fixed.value)")})
    @step
    def end(self):
        self.read = [os.environ["WORD"], os.environ["NUMBER"], self.fixed.nested["value"], self.made.val, self.parsed["baz"]]
        for change in (lambda: self.made.__setitem__("val", 5), lambda: setattr(self.made, "val", 5)):
            try:
                change()
            except TypeError:
                self.read.append("immutable")
        try:
            self.size = 4
        except AttributeError as error:
            self.said = str(error)

if __name__ == "__main__":
    Settings()
"""


def test_a_run_is_read_through_the_client_as_there(folder: Path) -> None:
    flow(folder, CURRENT)
    run("flow.py", "--tag", "刺身 means sashimi", **AT_ONCE)
    setup = """
from flow import Current
from metaflow.metaflow_version import get_version
flow = Current(use_cli=False)
run = Flow("Current").latest_run
task = run["start"].task
inner = list(run["inner"])
namespace("no such namespace")
other = task.data.run_obj["end"].task.data.kept, task.parent.parent.id
namespace(None)
"""
    found = asked(
        folder,
        """{
        "seen": task.data.seen, "who": task.data.who, "lineage": run.data.lineage, "has": run.data.has, "kept": run.data.kept,
        "inner": sorted(t.data.mine for t in inner), "index": sorted(t.index for t in inner), "other": other,
        "parents": {t.pathspec for t in run["join"].task.parent_tasks} == run.data.pathspecs,
        "children": len(list(task.child_tasks)), "steps": [s.id for s in run], "names": sorted(run.end_task.artifacts._fields),
        "objects": [task.data.task_obj.pathspec, task.data.run_obj.pathspec], "out": run.end_task.stdout,
        "state": [run.successful, run.finished, task.exception, run.end_task.finished_at >= run.created_at],
        "tags": [sorted(run.user_tags), "user:tester" in run.system_tags, task.metadata_dict["metaflow_version"] == get_version(),
            task.metadata_dict["ds-type"]],
        "graph": [flow._graph[s.name].type for s in flow],
        "one": [DataArtifact(run.end_task.pathspec + "/kept").data, Task(task.pathspec, attempt=0).data.fixed, "kept" in run.data],
        "edges": [s.id for s in run["join"].parent_steps] + [s.id for s in run["join"].child_steps],
        }""",
        setup,
        **AT_ONCE,
    )
    tag = "刺身 means sashimi"
    assert found == {
        "seen": ["Current", "1", "start", 0, None], "who": ["tester", "user:tester", [tag], True],
        "lineage": [[["start", "inner"]], "join"], "has": [False, True], "kept": [1, 3],
        "inner": [["a", 0, [[0, 3, "a"]]], ["b", 1, [[1, 3, "b"]]], ["c", 2, [[2, 3, "c"]]]], "index": [0, 1, 2], "other": [[1, 3], "1"],
        "parents": True, "children": 3, "steps": ["end", "join", "inner", "start"],
        "names": ["fixed", "has", "kept", "lineage", "name", "pathspecs", "run_obj", "seen", "task_obj", "who"],
        "objects": ["Current/1/start/1", "Current/1"], "out": "the end\n", "state": [True, True, None, True],
        "tags": [[tag], True, True, "local"], "graph": ["foreach", "linear", "join", "end"], "one": [[1, 3], {"a": 1}, True], "edges": ["inner", "end"],
    }  # fmt: skip


def test_what_metaflow_keeps_beside_the_user_s_artifacts_is_there_by_name(folder: Path) -> None:
    flow(folder, CURRENT)
    run("flow.py", **AT_ONCE)
    setup = """
run = Run("Current/1")
info = run["_parameters"].task["_graph_info"].data
def told(question):
    try:
        return question()
    except KeyError:
        return "none"
first = sorted(run["inner"], key=lambda task: task.index)[0]
"""
    found = asked(
        folder,
        """[
        info["start_step"], info["end_step"], {name: step["type"] for name, step in info["steps"].items()},
        run["_parameters"].task.metadata_dict["start_step"], run["_parameters"].task.metadata_dict["end_step"],
        run["start"].task["_transition"].data, run["join"].task["_transition"].data, run["end"].task["_transition"].data,
        first["_foreach_stack"].data, first["_foreach_stack"].data[0].var, run["end"].task["_foreach_stack"].data,
        run["join"].task["_current_step"].data, run["join"].task["_success"].data, run["join"].task["_task_ok"].data,
        told(lambda: run["join"].task["_nothing"]), [a.id for a in run["start"].task if a.id.startswith("_")],
        [run["join"].task["_exception"].data, run["join"].task["_iteration_stack"].data],
        ]""",
        setup,
        **AT_ONCE,
    )
    types = {"start": "split-foreach", "inner": "linear", "join": "join", "end": "end"}
    assert found == [
        "start", "end", types, "start", "end", [["inner"], "items"], [["end"], None], None,
        [["inner", "items", 3, 0, "a"]], "items", [], "join", True, True, "none", [], [None, []],
    ]  # fmt: skip


def test_failures_are_caught_under_metaflow_s_names(folder: Path) -> None:
    flow(folder, FAILURES)
    run("flow.py", **AT_ONCE)
    found = asked(
        folder,
        """{
        "start": [start.data.attempt, "invisible" in start.data, sorted(m.value for m in start.metadata if m.type == "attempt")],
        "out": start.stdout, "first": Task(start.pathspec, attempt=0).stdout,
        "types": [getattr(run[s].task.data, v).type for s, v in caught],
        "texts": [getattr(run[s].task.data, v).exception for s, v in caught[2:]],
        "none": [run["fine"].task.data.fine_ex, run["end"].task.exception, run["slow"].task.data.seen, run["end"].task.data.here],
        "ends": [run["end"].task.successful, run["end"].task.finished, run.successful, run.finished],
        }""",
        'run = Flow("Failures").latest_run\nstart = run["start"].task\n'
        'caught = [("slow", "slow_ex"), ("killed", "kill_ex"), ("own", "own_ex"), ("end", "end_ex")]\n',
        **AT_ONCE,
    )
    assert found == {
        "start": [3, False, ["0", "1", "2", "3"]], "out": "attempt 3\n", "first": "attempt 0\n",
        "types": ["metaflow.plugins.timeout_decorator.TimeoutException", "metaflow.plugins.catch_decorator.FailureHandledByCatch",
                  "__main__.Mine", "metaflow.exception.ExternalCommandFailed"],
        "texts": ["it was late", "catch me!"], "none": [None, None, True, True], "ends": [False, True, False, True],
    }  # fmt: skip


def test_parameters_and_configurations_are_as_there(folder: Path) -> None:
    flow(folder, SETTINGS)
    (folder / "silly.txt").write_text("baz: amazing")
    run("flow.py", **AT_ONCE)
    seen, read, said = asked(folder, "[r.data.seen, r.data.read, r.data.said]", "r = Flow('Settings').latest_run", **AT_ONCE)
    assert seen == ["1", False, "computed", {"a": [8]}, 123, 124]
    assert read == ["foobar", "42", 43, 456, "amazing", "immutable", "immutable"]
    assert said.startswith("Flow level attributes and Parameters are not modifiable")


def test_configurations_may_have_dashes_be_plain_or_be_none(folder: Path) -> None:
    flow(
        folder,
        """
        import json
        from metaflow import Config, FlowSpec, step

        def words(content):
            return content.strip().split(",")

        class Plain(FlowSpec):
            dashed = Config("with-dash_both", default_value={"a": 1})
            text = Config("plain-text", default_value='{"raw": 1}', plain=True)
            words = Config("plain-list", default_value="apple,banana", parser=words, plain=True)
            nothing = Config("plain-none", default_value=None, plain=True)
            none = Config("none", default_value=None)

            @step
            def start(self):
                self.next(self.end)

            @step
            def end(self):
                self.seen = [dict(self.dashed), self.text, self.words, self.nothing, self.none]

        if __name__ == "__main__":
            Plain()
        """,
    )
    run("flow.py", **AT_ONCE)
    run("flow.py", **AT_ONCE, METAFLOW_FLOW_CONFIG_VALUE='{"with-dash_both": {"a": 2}, "plain-text": "else"}')
    rest = [["apple", "banana"], None, None]
    found = asked(folder, "[Run('Plain/1').data.seen, Run('Plain/2').data.seen]", **AT_ONCE)
    assert found == [[{"a": 1}, '{"raw": 1}', *rest], [{"a": 2}, "else", *rest]]


def test_a_switch_loops_inside_of_a_foreach_and_a_failed_run_is_resumed(folder: Path) -> None:
    flow(
        folder,
        """
        import os
        from metaflow import FlowSpec, current, step

        class Loops(FlowSpec):
            @step
            def start(self):
                self.where = current.pathspec
                self.items = [{"id": "A", "times": 3}, {"id": "B", "times": 1}]
                self.next(self.begin, foreach="items")

            @step
            def begin(self):
                self.count = 0
                self.stack = [(frame.var, frame.num_splits) for frame in self._foreach_stack]
                self.next(self.body)

            @step
            def body(self):
                self.count += 1
                self.more = str(self.count < self.input["times"])
                self.next({"True": self.body, "False": self.leave}, condition="more")

            @step
            def leave(self):
                self.result = f"{self.input['id']} after {self.count}"
                self.next(self.join)

            @step
            def join(self, inputs):
                self.results = [i.result for i in inputs]
                self.stack, self.origin = inputs[0].stack, current.origin_run_id
                self.next(self.end)

            @step
            def end(self):
                if current.origin_run_id is None:
                    raise ValueError("not yet")
                self.origin = current.origin_run_id

        if __name__ == "__main__":
            Loops()
        """,
    )
    assert through("flow.py", "run", **AT_ONCE).returncode == 1
    done = through("flow.py", "resume", **AT_ONCE)
    assert done.returncode == 0, done.stderr
    setup = "r = Run('Loops/2', _namespace_check=False)\ns = r['start']\nd = r.data"
    found = asked(
        folder,
        "[d.results, d.stack, d.origin, s.task.data.where, s.task.origin_pathspec, s.origin_pathspec, r.origin_pathspec, len(list(r['body']))]",
        setup,
        **AT_ONCE,
    )
    assert found == [
        ["A after 3", "B after 1"], [["items", 2]], "1", "Loops/1/start/1", "Loops/1/start/1", "Loops/1/start", "Loops/1", 4,
    ]  # fmt: skip


def test_errors_of_the_client_have_metaflow_s_names(folder: Path) -> None:
    flow(folder, CURRENT)
    run("flow.py", **AT_ONCE)
    setup = """
from metaflow.exception import MetaflowException
def told(question):
    try:
        question()
    except (MetaflowException, KeyError, AttributeError) as error:
        return f"{type(error).__module__}.{type(error).__name__}", isinstance(error, MetaflowException), error.headline
run = Flow("Current").latest_run
def elsewhere():
    namespace("no such namespace")
    Run("Current/1")
"""
    questions = 'lambda: Flow("None"), lambda: Run("Current/7"), lambda: Task("Current/1"), lambda: run.add_tag(""), elsewhere'
    assert asked(folder, f"[told(q) for q in ({questions})]", setup, **AT_ONCE) == [
        ["metaflow.exception.MetaflowNotFound", True, "Object not found"],
        ["metaflow.exception.MetaflowNotFound", True, "Object not found"],
        ["metaflow.exception.MetaflowInvalidPathspec", True, "Invalid pathspec"],
        ["metaflow.exception.MetaflowTaggingError", True, "Tagging error"],
        ["metaflow.exception.MetaflowNamespaceMismatch", True, "Object not in the current namespace"],
    ]


def test_public_modules_have_their_names(folder: Path) -> None:
    script = flow(
        folder,
        """
        import metaflow, metaflow.plugins, sys
        from metaflow import *
        from metaflow import cards, client, exception
        from metaflow.client.core import MetaflowCode, MetaflowData
        from metaflow.decorators import InvalidDecoratorAttribute, step as other
        from metaflow.exception import MetaflowInternalError, MetaflowNotFound
        from metaflow.flowspec import FlowSpec as Again, InvalidNextException
        from metaflow.includefile import IncludeFile as Included, IncludedFile
        from metaflow.lint import LintWarn
        from metaflow.metaflow_config import DATASTORE_SYSROOT_S3, DEFAULT_DATASTORE, MAX_ATTEMPTS
        from metaflow.metaflow_current import current as now
        from metaflow.parameters import Parameter as P
        from metaflow.plugins.cards.card_client import Card, CardContainer
        from metaflow.plugins.cards.card_modules.basic import MarkdownComponent
        from metaflow.plugins.cards.exception import CardClassFoundException, CardNotPresentException
        from metaflow.runner.deployer import Deployer as D
        from metaflow.user_configs.config_parameters import Config as C
        from metaflow.tagging_util import MAX_TAG_SIZE, MAX_USER_TAG_SET_SIZE
        from metaflow.tuple_util import ForeachFrame
        from metaflow.util import get_username, is_stringish, resolve_identity, to_bytes, to_unicode
        assert (MAX_TAG_SIZE, MAX_USER_TAG_SET_SIZE, ForeachFrame._fields[0]) == (500, 50, "step") and not isinstance("x", IncludedFile)
        assert is_stringish("a") and not is_stringish(1) and to_bytes(to_unicode(b"a")) == b"a"
        assert Again is FlowSpec and other is step and now is current and P is Parameter and D is Deployer and C is Config
        assert MarkdownComponent is cards.Markdown and issubclass(CardNotPresentException, MetaflowException := exception.MetaflowException)
        assert issubclass(CardClassFoundException, MetaflowException) and Card and CardContainer
        assert metaflow.cards is cards and metaflow.client.Run is Run and Included is IncludeFile and metaflow.plugins.yaml_parser
        print(InvalidNextException.__module__, MetaflowNotFound.__qualname__, LintWarn.__module__, InvalidDecoratorAttribute.__module__)
        print(DEFAULT_DATASTORE, DATASTORE_SYSROOT_S3, MAX_ATTEMPTS, get_username(), resolve_identity(), sorted({"Flow", "retry"} - set(dir(metaflow))))
        """,
    )
    done = through(script, **AT_ONCE, METAFLOW_DEFAULT_DATASTORE="s3")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "metaflow.flowspec MetaflowNotFound metaflow.lint metaflow.exception",
        "s3 None 6 tester user:tester []",
    ]


def test_the_odds_and_ends_of_the_package_work(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, get_metadata, metadata, parallel_map, profile, step
        from metaflow.integrations import ArgoEvent

        class Odds(FlowSpec):
            @step
            def start(self):
                with profile("a block"):
                    self.squares = parallel_map(lambda x: x * x, range(5), max_parallel=2)
                self.event = ArgoEvent("made", payload={"a": 1}).add_to_payload("b", 2).publish({"c": 3})
                self.silent = ArgoEvent("made").safe_publish()
                self.where = [get_metadata(), metadata("local@/elsewhere")]
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Odds()
        """,
    )
    done = run("flow.py", **AT_ONCE)
    assert "PROFILE: a block completed in" in done.stdout
    squares, event, silent, where = asked(folder, "[d.squares, d.event, d.silent, d.where]", "d = Run('Odds/1').data", **AT_ONCE)
    assert squares == [0, 1, 4, 9, 16]
    assert len(event) == 24
    assert silent is None
    assert where[0] == where[1]
    assert where[0].startswith("local@")


def test_a_flow_that_fails_has_its_error_in_the_client(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, step

        class Fails(FlowSpec):
            @step
            def start(self):
                self.x = 1
                raise KeyError("Something has gone wrong")
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Fails()
        """,
    )
    assert through("flow.py", "run", **AT_ONCE).returncode == 1
    found = asked(
        folder,
        "[r.successful, r.finished, r.data is None, t.exception.type, t.exception.exception]",
        "r = Run('Fails/1')\nt = r['start'].task",
        **AT_ONCE,
    )
    assert found == [False, False, True, "builtins.KeyError", "'Something has gone wrong'"]
    again = through("flow.py", "resume", **AT_ONCE)
    assert again.returncode == 1
    assert asked(folder, "Run('Fails/2').successful", **AT_ONCE) is False
