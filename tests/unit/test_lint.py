"""What `evflow lint` warns about, and what it must not warn about: both for each rule."""

import io
import json
import pickle
import sys
import textwrap
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evflow import FlowSpec
from evflow.cli.lint import command
from evflow.exception import FunctionIsNoArtifact
from evflow.lint.calls import UNKEPT
from evflow.lint.check import findings
from evflow.lint.rules import CODES
from evflow.lint.source import SourceUnreadable
from evflow.store.diagnosis import ArtifactNotSerializable
from evflow.testing import run_step
from tests.conftest import REPOSITORY

HEAD = "from evflow import FlowSpec, Parameter, step\n"


def said(text: str) -> list[tuple[int, str]]:
    """Line and code of each warning."""
    found = findings(textwrap.dedent(text), "flow.py")
    assert found is not None
    return [(one.line, one.code) for one in found]


def in_flow(start: str, *, head: str = "", body: str = "", target: str = "self.next(self.end)", other: str = "pass") -> str:
    """A flow with these statements in its first step; what is looked at begins at its line 1."""
    lines = [
        *textwrap.dedent(head).splitlines(),
        HEAD.rstrip(),
        "class F(FlowSpec):",
        *textwrap.indent(textwrap.dedent(body), "    ").splitlines(),
    ]
    lines += ["    @step", "    def start(self):", *textwrap.indent(textwrap.dedent(start), "        ").splitlines(), f"        {target}"]
    lines += ["    @step", "    def end(self):", f"        {other}"]
    return "\n".join(lines) + "\n"


def codes(text: str) -> list[str]:
    return [code for _, code in said(text)]


# ---------------------------------------------------------------- what a file does while it is loaded


@pytest.mark.parametrize(
    "work",
    [
        "import pandas as pd\nROWS = pd.read_csv('rows.csv')",
        "from pandas import read_parquet as load\nif True:\n    ROWS = load('rows')",
        "TEXT = open('a.txt').read()",
        "from pathlib import Path\nTEXT = Path('a.txt').read_text()",
        "with open('a.txt') as file:\n    TEXT = file.read()",
        "import requests\nSAID = requests.get('https://…').json()",
        "import urllib.request\nurllib.request.urlretrieve('https://…', 'x')",
        "import subprocess\nVERSION = subprocess.check_output(['git', 'describe'])",
        "import time\nfor _ in range(3):\n    time.sleep(1)",
        "from sklearn.svm import SVC\nMODEL = SVC().fit([[1], [2]], [0, 1])",
        "from transformers import AutoModel\nMODEL = AutoModel.from_pretrained('x')",
        "def load():\n    return inner()\ndef inner():\n    return open('a.txt').read()\nTEXT = load()",
        "class Table:\n    rows = open('a.txt').readlines()",
        "def f(text=open('a.txt').read()):\n    return text",
    ],
)
def test_work_at_the_top_of_a_file_is_warned_of(work: str) -> None:
    assert codes(in_flow("self.x = 1", head=work)) == ["module-work"]


def test_work_under_the_main_guard_runs_in_every_task_too() -> None:
    text = in_flow("self.x = 1") + "if __name__ == '__main__':\n    open('a.txt').read()\n    F()\n"
    assert codes(text) == ["module-work"]


@pytest.mark.parametrize(
    "work",
    [
        "import pandas as pd\ndef load():\n    return pd.read_csv('rows.csv')",
        "load = lambda: open('a.txt').read()",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas as pd\n    ROWS = pd.read_csv('x')",
        "import re\nPATTERN = re.compile('x')\nimport json\nTABLE = json.loads('{}')",
        "from pathlib import Path\nFOLDER = Path('a.txt')\nNAME = FOLDER.name",
        "class Model:\n    def fit(self, x):\n        return open(x)",
        "class Mine:\n    def open(self): ...\nMine().open()",
        "import matplotlib\nmatplotlib.use('agg')",
        "requests = {}\nrequests.get('a')",
        "def open(name): ...\nTEXT = open('a.txt')",
    ],
)
def test_no_work_is_warned_of_that_is_not_done_when_the_file_is_loaded(work: str) -> None:
    assert codes(in_flow("self.x = open('a.txt').read()", head=work)) == []


def test_large_values_at_the_top_of_a_file() -> None:
    large = "import numpy as np\nN = 10_000\nA = np.zeros((N, N))\nB = [0] * 10**7\nC = list(range(2 * 10**7))\nD = np.random.rand(N, N)\n"
    assert codes(in_flow("pass", head=large)) == ["large-constant"] * 4
    assert codes(in_flow("pass", head="import os\nA = 'x' * 10**8\nB = os.urandom(10**8)\nC = 'x' * 10**7")) == ["large-constant"] * 2
    small = "import numpy as np\nA = np.zeros((10, 10))\nB = range(3)\nC = [0] * 1000\nD = np.zeros(size())\n"
    assert codes(in_flow("pass", head=small)) == []
    assert codes(in_flow("self.a = np.zeros((10_000, 10_000))", head="import numpy as np")) == []


def test_large_artifacts() -> None:
    head = "import numpy as np\nN = 20_000"
    more = f"import os\nimport pandas as pd\n{head}"
    for large in ("np.zeros((N, N))", "np.random.rand(N, N)", "list(range(2 * 10**8))", "[0] * (N * N)"):
        assert codes(in_flow(f"self.a = {large}", head=head)) == ["large-artifact"], large
        for left in (
            f"a = {large}",
            f"self.a = {large}; self.a = len(self.a)",
            f"self.a = {large}; del self.a",
            f"self.__a = {large}",
        ):
            assert codes(in_flow(left, head=head)) == [], left
    for large in (
        "'x' * 10**9", "10**9 * b'ab'", "os.urandom(10**9)", "bytearray(N * N * 10)", "np.random.randint(0, 9, size=(N, N))",
        "np.random.choice(3, 1, N * N)", "np.array([0] * (N * N))", "pd.DataFrame(np.zeros((N, N)))",
    ):  # fmt: skip
        assert codes(in_flow(f"self.a = {large}", head=more)) == ["large-artifact"], large
        assert codes(in_flow(f"data = {large}; self.a = data", head=more)) == ["large-artifact"], large
        assert codes(in_flow(f"self.b, self.a = 1, {large}", head=more)) == ["large-artifact"], large
        for left in ("data.clear()", "del data[10:]", "data = data[:10]", "data += other()"):
            assert codes(in_flow(f"data = {large}; {left}; self.a = data", head=more)) == [], left
        assert codes(in_flow(f"self.a, *self.b = {large}, 1, 2", head=more)) == []
    for small in ("'x' * 10**8", "bytes(10**8)", "bytes(x)", "np.random.randint(0, 10**9)", "pd.DataFrame(x)", "N * N", "'x' * n()"):
        assert codes(in_flow(f"self.a = {small}", head=more)) == [], small
    for small in ("np.zeros((N, 10))", "range(10**9)", "np.zeros((N, N)).sum()", "np.zeros(size())"):
        assert codes(in_flow(f"self.a = {small}", head=head)) == [], small
    assert codes(in_flow("pass", head="A = range(10**9)\nB = list(A)")) == []  # neither holds what the source says


def test_a_constant_that_differs_by_process() -> None:
    for clock in (
        "import time\nNOW = time.time()",
        "from datetime import datetime\nNOW = datetime.now().isoformat()",
        "import random\nNOW = random.randint(1, 9)",
        "import uuid\nNOW = str(uuid.uuid4())",
        "import numpy as np\nNOW = np.random.default_rng().integers(9)",
    ):
        assert codes(in_flow("self.now = NOW", head=clock)) == ["differs-by-process"]
        assert codes(in_flow("NOWHERE = 3", head=clock)) == []
    assert codes(in_flow("self.now = NOW", head="import random\nrandom.seed(3)\nNOW = random.randint(1, 9)")) == []
    assert codes(in_flow("self.now = NOW", head="import numpy as np\nNOW = np.random.default_rng(3).integers(9)")) == []
    assert codes(in_flow("self.now = time.time()", head="import time")) == []


def test_a_default_by_chance() -> None:
    imports = "import random, time\nfrom datetime import date"
    for default in ("random.random()", "int(time.time())", "date.today().isoformat()"):
        assert codes(in_flow("pass", head=imports, body=f"seed = Parameter('seed', default={default})")) == ["default-by-chance"]
        assert codes(in_flow("pass", head=imports, body=f"seed = Parameter('seed', {default})")) == ["default-by-chance"]
        assert codes(in_flow("pass", head=imports, body=f"seed = Parameter('seed', default=lambda context: {default})")) == []
    assert codes(in_flow("pass", body="seed = Parameter('seed', default=3)")) == []


# ---------------------------------------------------------------- what steps keep


KEPT = """
import sqlite3, threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor as Pool
class Other: ...
def numbers():
    yield 1
def top():
    return 1
"""
OPEN_FILES = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
UNKEEPABLE = [
    "self.f = top",
    "def inner(): ...\nself.f = (1, inner)",
    "self.f = self.end",
    "self.f = lambda x: x",
    "self.f = (one for one in [1])",
    "self.f = open(__file__)",
    "self.f = threading.Lock()",
    "self.f = sqlite3.connect(':memory:')",
    "self.f = Pool(3)",
    "self.f = threading",
    "def inner(): ...\nself.f = inner",
    "if True:\n    self.f: object = lambda: 1",
    "self.f = 1\nself.f = lambda: 1",
    "self.f = self.end",
    "with open(__file__) as file:\n    self.f = file",
    "made = sqlite3.connect(':memory:')\nself.f = made",
    "self.f = numbers()",
    "self.f = defaultdict(lambda: 0)",
    "self.f = {'a': 1, 'b': [1, lambda: 0]}",
]
KEEPABLE = [
    "self.f = lambda x: x\ndel self.f",
    "self.f = open(__file__)\nself.f = self.f.read()",
    "f = lambda x: x\nself.f = f(3)",
    "self.__f = lambda x: x",
    "self.f = [one for one in (two for two in [1])]",
    "self.f = open(__file__).read()",
    "self.f = sqlite3.connect(':memory:').execute('select 1').fetchall()",
    "self.f = sorted([1], key=lambda x: x)",
    "def inner():\n    self.f = lambda: 1\nself.f = inner()",
    "Other.f = lambda: 1",
    "self.f, self.g = 1, 2",
    "self.f = top()",
    "self.f = [top]",
    "top = 3\nself.f = top",
    "self.f = list(numbers())",
    "self.f = defaultdict(int)",
    "self.f = self.shape",
    "made = open(__file__)\nmade = made.read()\nself.f = made",
    "for threading in [1]:\n    self.f = threading",
    "with open(__file__) as file:\n    self.f = file.read()",
]


def keeping(kept: str) -> str:
    return in_flow(kept, head=KEPT, body="@property\ndef shape(self):\n    return 1")


@OPEN_FILES
@pytest.mark.parametrize("kept", UNKEEPABLE)
def test_what_cannot_be_an_artifact(kept: str, tmp_path: Path) -> None:
    assert codes(keeping(kept)) == ["not-an-artifact"]
    with pytest.raises((ArtifactNotSerializable, FunctionIsNoArtifact)):
        run_step(loaded(tmp_path, keeping(kept)), "start")


@OPEN_FILES
@pytest.mark.parametrize("kept", KEEPABLE)
def test_what_is_an_artifact(kept: str, tmp_path: Path) -> None:
    assert codes(keeping(kept)) == []
    assert run_step(loaded(tmp_path, keeping(kept)), "start").next == ("end",)


MADE_OF: dict[str, tuple[Any, ...]] = {
    "csv.DictWriter": (io.StringIO(), []), "csv.reader": ([],), "csv.writer": (io.StringIO(),), "logging.FileHandler": ("/dev/null",),
    "sqlite3.connect": (":memory:",), "subprocess.Popen": (["true"],), "threading.Barrier": (2,), "threading.Timer": (1, print),
    "socket.create_server": (("127.0.0.1", 0),),
}  # fmt: skip


@OPEN_FILES
@pytest.mark.parametrize("module", sorted(set(UNKEPT) & sys.stdlib_module_names - {"asyncio", "multiprocessing"}))
def test_what_is_said_to_be_no_artifact_cannot_be_pickled(module: str) -> None:
    for name in sorted(UNKEPT[module] - {"create_connection"}):
        made = getattr(import_module(module), name)(*MADE_OF.get(f"{module}.{name}", ()))
        with pytest.raises((TypeError, pickle.PicklingError)):
            pickle.dumps(made)
        for end in ("close", "wait"):
            if name not in {"Barrier", "Condition", "Event"} and hasattr(made, end):
                getattr(made, end)()


def loaded(folder: Path, text: str) -> type[FlowSpec]:
    """The flow of a file with this text."""
    file = folder / "lint_case.py"
    file.write_text(text)
    spec = spec_from_file_location("lint_case", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["lint_case"] = module_from_spec(spec)  # where pickle looks for what is at its top
    spec.loader.exec_module(module)
    flow: type[FlowSpec] = module.F
    return flow


def test_data_that_a_loop_collects() -> None:
    head = "import pickle\nimport pandas as pd"
    for loop in (
        "self.all = []\nfor one in [1]:\n    self.all.append(pd.read_csv(one))",
        "self.all = {}\nfor one in [1]:\n    self.all[one] = pd.read_csv(one)",
        "self.all = []\nfor one in [1]:\n    frame = pd.read_csv(one)\n    self.all += [frame]",
    ):
        assert codes(in_flow(loop, head=head)) == ["artifact-grows"]
    for loop in (
        "self.all = []\nfor one in [1]:\n    self.all.append(len(pd.read_csv(one)))",
        "frames = []\nfor one in [1]:\n    frames.append(pd.read_csv(one))",
        "self.all = {}\nfor one in [1]:\n    self.all[one] = pickle.load(one)",
        "self.all = [1]\nself.all.append(pd.read_csv('x'))",
    ):
        assert codes(in_flow(loop, head=head)) == []


def test_an_artifact_that_grows_with_each_turn_of_the_flow() -> None:
    body = """
    @step
    def train(self):
        self.model = [0]
        self.models.append(self.model)
        self.losses.append(0.5)
        self.next({})
    """
    again = body.format("{True: self.train, False: self.end}, condition='more'")
    assert codes(in_flow("self.models = []", body=again, target="self.next(self.train)")) == ["artifact-grows"]
    assert codes(in_flow("self.models = []", body=body.format("self.end"), target="self.next(self.train)")) == []


def test_a_constant_that_a_step_changes() -> None:
    body = "rows = []\ntable = {}\nsizes = (1, 2)\n"
    for change in ("self.rows.append(1)", "self.table['a'] = 1", "del self.table['a']", "self.rows += [1]"):
        assert codes(in_flow(change, body=body)) == ["mutable-constant"]
    for use in ("self.mine = list(self.rows)", "self.own.append(1)", "rows.append(1)", "self.count = self.sizes.count(1)", "self.rows[0]"):
        assert codes(in_flow(use, body=body)) == []


# ---------------------------------------------------------------- foreach


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ("list(range(101))", "many-splits"),
        ("[one for one in range(10) for two in range(20)]", "many-splits"),
        ("range(N)", "huge-foreach"),
        ("np.arange(1e5)", "huge-foreach"),
        ("[0] * N + [1]", "huge-foreach"),
        ("list(product(range(200), range(100)))", "huge-foreach"),
        ("list(range(100))", ""),
        ("[one for one in range(1000) if one % 100 == 0]", ""),
        ("load()", ""),
        ("[1, 2]", ""),
        ("range(*bounds)", ""),
    ],
)
def test_a_wide_foreach(items: str, code: str) -> None:
    head = "import numpy as np\nfrom itertools import product\nN = 50_000\n"
    target = "self.next(self.end, foreach='items')"
    assert codes(in_flow(f"self.items = {items}", head=head, target=target)) == ([code] if code else [])
    assert codes(in_flow(f"self.items = {items}", head=head)) == []
    assert codes(in_flow(f"self.items = {items}\nself.items = self.items[:3]", head=head, target=target)) == []
    assert codes(in_flow("pass", head=head, body=f"items = {items}", target=target)) == ([code] if code else [])


def test_data_that_each_task_of_a_foreach_loads() -> None:
    head, target = "import pandas as pd", "self.next(self.end, foreach='items')"
    assert codes(in_flow("self.items = [1]", head=head, target=target, other="self.rows = pd.read_csv('rows.csv')")) == [
        "same-in-each-task"
    ]
    assert codes(in_flow("self.items = [1]", head=head, target=target, other="self.rows = pd.read_csv(self.input)")) == []
    assert codes(in_flow("self.items = [1]", head=head, target=target, other="rows = pd.read_csv('rows.csv')")) == []
    assert codes(in_flow("self.items = [1]", head=head, other="self.rows = pd.read_csv('rows.csv')")) == []


# ---------------------------------------------------------------- comments, files, the command


def test_a_comment_silences_its_line() -> None:
    text = in_flow("self.f = lambda x: x  # evflow: ignore[{}]")
    assert codes(text.format("not-an-artifact")) == []
    assert codes(text.format("module-work, not-an-artifact")) == []
    assert codes(text.format("module-work")) == ["not-an-artifact"]
    assert codes(in_flow("self.f = lambda x: x  # evflow: ignore")) == []
    assert codes(in_flow("self.f = open(\n    'a.txt',\n)  # evflow: ignore[not-an-artifact]")) == []
    assert codes(in_flow("self.g = 1  # evflow: ignore[not-an-artifact]\nself.f = lambda x: x")) == ["not-an-artifact"]
    assert codes(in_flow("self.g = 1  # evflow: ignore[not-an-artefact]")) == ["unknown-code"]


def test_metaflow_s_rules_leave_functions_out_and_fail_for_the_rest() -> None:
    for given, lost in (("lambda: 1", True), ("print_it", True), ("self.help", True), ("[lambda: 1]", False), ("open('a')", False)):
        text = in_flow(f"self.f = {given}", head="def print_it(): pass", body="def help(self): pass")
        for source, end in (
            (text, "fails at its end."),
            (text.replace("from evflow", "from metaflow"), "do not have it." if lost else "at its end."),
        ):
            (found,) = findings(source, "f.py") or []
            assert found.message.endswith(end), (given, found.message)


def test_flows_are_found_by_what_they_derive_from() -> None:
    mistake = "    @step\n    def start(self):\n        self.f = lambda: 1\n"
    assert codes(f"import metaflow\nclass F(metaflow.FlowSpec):\n{mistake.replace('@step', '@metaflow.step')}") == ["not-an-artifact"]
    assert codes(f"{HEAD}class Base(FlowSpec):\n{mistake}class F(Base):\n    pass\n") == ["not-an-artifact"]
    assert findings(f"class F:\n{mistake}", "f.py") is None
    assert codes(f"{HEAD}class F(FlowSpec):\n    def helper(self):\n        self.f = lambda: 1\n") == []
    with pytest.raises(SourceUnreadable, match=r"f\.py:2: it is no Python"):
        findings("import os\ndef (:\n", "f.py")


def test_the_command_for_people_and_programs(tmp_path: Path) -> None:
    good, bad, none = tmp_path / "good.py", tmp_path / "sub" / "bad.py", tmp_path / "none.py"
    bad.parent.mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "skipped.py").write_text("def (:")
    good.write_text(in_flow("self.x = 1"))
    bad.write_text(in_flow("self.f = lambda: 1"))
    none.write_text("x = 1\n")
    done = CliRunner().invoke(command, [str(tmp_path)])
    assert done.exit_code == 1
    assert (
        f"{bad}:5:9: not-an-artifact: self.f is a lambda, which cannot be kept: the step fails at its end.\n    Use a local" in done.stdout
    )
    assert "1 warning in 2 files." in done.stderr
    done = CliRunner().invoke(command, [str(bad), "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["files"] == [str(bad)]
    assert [{key: one[key] for key in ("file", "line", "column", "code")} for one in found["findings"]] == [
        {"file": str(bad), "line": 5, "column": 9, "code": "not-an-artifact"}
    ]
    done = CliRunner().invoke(command, [str(good)])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "Nothing to warn about in 1 file.\n")
    for wrong, why in ((none, "defines no flow"), (tmp_path / "gone.py", "No such file")):
        done = CliRunner().invoke(command, [str(wrong)])
        assert done.exit_code == 1
        assert why in str(done.exception)


def test_no_flow_of_this_repository_is_warned_of() -> None:
    for folder in ("benchmarks", "examples", "tests", "evflow"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert not findings(path.read_text(encoding="utf-8"), str(path)), path


def test_every_rule_is_on_its_page() -> None:
    page = (REPOSITORY / "docs" / "lint.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"| `{code}` |" not in page] == []
