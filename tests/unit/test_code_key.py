"""What counts as the code of a step: what it runs, wherever it stands, and nothing else."""

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from evflow.flow.code_key import code_digest

HELPERS = """
    import functools
    LIMIT = 3
    UNUSED = 1
    TABLE = {"a": [1, 2], "b": {3, 1, 2}}

    class Base:
        def shared(self): return 1

    class Model(Base):
        rate = 0.1
        def fit(self): return self.rate

    def inner(x): return x + LIMIT
    def outer(x):
        def local(y): return inner(y)
        return local(x)
    def never(x): return x

    @functools.cache
    def memo(x): return x * 2
"""
FLOW = """
    from evflow import FlowSpec, environment, kubernetes, retry, step
    import numbers_of, lookup
    from numbers_of import Model, TABLE, memo, outer
    from around import bounded, doubled

    class F(FlowSpec):
        KIND = "tree"

        @environment(vars={"A": "1"})
        @retry(times=1)
        @kubernetes(memory=100)
        @doubled(times=2)
        @bounded
        @step
        def start(self):
            # a comment
            self.x = self.helped(outer(3)) + len(TABLE) + memo(2) + self.share
            self.model = Model()
            self.seen = [lookup.of(i) for i in range(3)]
            import later
            self.next(self.end)

        def helped(self, value, more=5):
            return value + more

        @property
        def share(self): return 7

        @step
        def end(self): pass
"""
AROUND = """
    from evflow import UserStepDecorator, user_step_decorator
    from lookup import of

    @user_step_decorator
    def doubled(step_name, flow, inputs=None, attributes=None):
        yield
        flow.x = of(flow.x) * attributes["times"]

    class bounded(UserStepDecorator):
        def post_step(self, step_name, flow, exception=None):
            flow.x = min(flow.x, 100)
            return exception
"""
FILES = {"around.py": AROUND, "numbers_of.py": HELPERS, "lookup.py": "def of(i): return i\n", "later.py": "X = 1\n", "flow.py": FLOW}


class Folder:
    """A flow's folder, which is loaded anew each time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name, text in FILES.items():
            (path / name).write_text(textwrap.dedent(text))

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.path / file).read_text()
        assert old in text
        (self.path / file).write_text(text.replace(old, new))

    def digest(self) -> bytes:
        for name in ("numbers_of", "lookup", "later", "around", "flow"):
            sys.modules.pop(name, None)
        spec = importlib.util.spec_from_file_location("flow", self.path / "flow.py")
        assert spec is not None
        assert spec.loader is not None
        module: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules["flow"] = module
        importlib.invalidate_caches()
        spec.loader.exec_module(module)
        return code_digest(module.F, "start")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Folder(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flow.py", "len(TABLE)", "2 * len(TABLE)"),
        ("flow.py", "value + more", "value - more"),
        ("flow.py", "more=5", "more=6"),
        ("flow.py", "return 7", "return 8"),
        ("flow.py", '"A": "1"', '"A": "2"'),
        ("numbers_of.py", "LIMIT = 3", "LIMIT = 4"),
        ("numbers_of.py", "x + LIMIT", "x - LIMIT"),
        ("numbers_of.py", "inner(y)", "inner(y) + 1"),
        ("numbers_of.py", "rate = 0.1", "rate = 0.2"),
        ("numbers_of.py", "def shared(self): return 1", "def shared(self): return 2"),
        ("numbers_of.py", "[1, 2]", "[1, 2, 3]"),
        ("numbers_of.py", "return x * 2", "return x * 3"),
        ("lookup.py", "return i", "return i + 1"),
        ("later.py", "X = 1", "X = 2"),
        ("flow.py", "times=2", "times=3"),
        ("around.py", 'attributes["times"]', 'attributes["times"] + 1'),
        ("around.py", "100", "200"),
    ],
)
def test_what_the_step_runs_counts(folder: Folder, file: str, old: str, new: str) -> None:
    """Itself, methods and properties of the flow, functions and values that it names, at any distance, @environment, decorators of the user's."""
    before = folder.digest()
    folder.edit(file, old, new)
    assert folder.digest() != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flow.py", "# a comment", "# another one\n        # and more"),
        ("flow.py", "def end(self): pass", "def end(self): print(1)"),
        ("flow.py", "memory=100", "memory=200"),
        ("flow.py", "times=1", "times=9"),
        ("flow.py", 'KIND = "tree"', 'KIND = "bush"'),  # its value is among the inputs
        ("numbers_of.py", "UNUSED = 1", "UNUSED = 2"),
        ("numbers_of.py", "def never(x): return x", "def never(x): return -x"),
    ],
)
def test_what_it_does_not_run_does_not(folder: Folder, file: str, old: str, new: str) -> None:
    """Comments, where things stand, other steps, how often it is tried."""
    if file == "numbers_of.py":  # the module itself is named, and then all of it counts
        folder.edit("flow.py", "import numbers_of, lookup", "import lookup")
    before = folder.digest()
    folder.edit(file, old, new)
    assert folder.digest() == before


def test_it_is_the_same_in_every_process(folder: Folder) -> None:
    """Whatever the seed of the hashes, and whether a module came from its bytecode."""
    program = "import flow; from evflow.flow.code_key import code_digest; print(code_digest(flow.F, 'start').hex())"
    found = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=folder.path, env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1


def test_a_value_that_contains_itself_ends(folder: Folder) -> None:
    """And a function that calls itself."""
    (folder.path / "numbers_of.py").write_text((folder.path / "numbers_of.py").read_text() + "\nTABLE['a'].append(TABLE['a'])\n")
    folder.edit("numbers_of.py", "return x + LIMIT", "return inner(x - 1) if x else LIMIT")
    assert folder.digest() == folder.digest()
