"""Loading a user's file without starting its flow, and tracebacks that show the user's frames only."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evflow import FlowSpec, step
from evflow.flow import loading
from evflow.flow.execution import instantiate, run_step
from evflow.flow.loading import FlowFileBroken, FlowFileRaised, FlowFileUnreadable, NoFlowInFile, SeveralFlowsInFile, load_flow
from evflow.flow.tracebacks import user_traceback, where
from tests.conftest import REPOSITORY
from tests.unit.flow_world import stored

HELLO = """
from evflow import FlowSpec, step

class Hello(FlowSpec):
    @step
    def start(self):
        self.next(self.end)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    Hello()
    AFTER = True
"""


@pytest.fixture(autouse=True)
def own_main() -> Iterator[None]:
    """Give back `__main__` and the path."""
    main, path = sys.modules["__main__"], list(sys.path)
    yield
    sys.modules["__main__"] = main
    sys.path[:] = path


def written(text: str, name: str = "flow.py") -> str:
    path = Path(name)
    path.write_text(text)
    return str(path)


def test_the_file_runs_as_main_and_its_flow_does_not_start() -> None:
    cls = load_flow(written(HELLO))
    assert cls.__name__ == "Hello"
    main: Any = sys.modules["__main__"]
    assert main.Hello is cls
    assert main.AFTER
    assert main.__file__ == str(Path("flow.py").resolve())
    assert cls.__module__ == "__main__"


def test_the_files_folder_is_on_the_path() -> None:
    Path("beside.py").write_text("WORD = 'found'")
    cls: Any = load_flow(written("import beside\n" + HELLO + "\nHello.word = beside.WORD"))
    assert cls.word == "found"
    del sys.modules["beside"]


def test_a_file_of_a_package_may_import_relatively() -> None:
    Path("ours/sub").mkdir(parents=True)
    for folder in ("ours", "ours/sub"):
        Path(folder, "__init__.py").touch()
    Path("ours/words.py").write_text("WORD = 'relative'")
    cls: Any = load_flow(written("from ..words import WORD\n" + HELLO + "\nHello.word = WORD", "ours/sub/flow.py"))
    assert cls.word == "relative"
    for name in ("ours", "ours.sub", "ours.words"):
        sys.modules.pop(name, None)


def test_a_flow_is_inert_only_while_its_file_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = load_flow(written(HELLO))
    assert not loading.is_inert(cls)
    monkeypatch.setattr(loading, "_inert", False)
    loading.stay_inert()
    assert cls() is not None


def test_the_flow_that_the_file_starts_is_the_flow() -> None:
    text = HELLO.replace("    Hello()", "    Other()").replace("if __name__", "class Other(Hello):\n    pass\n\nif __name__")
    text += "\nclass Third(FlowSpec):\n    pass\n"
    assert load_flow(written(text)).__name__ == "Other"


def test_a_derived_flow_is_preferred_to_its_base_in_the_same_file() -> None:
    text = HELLO.partition("if __name__")[0] + "class Other(Hello):\n    pass\n"
    assert load_flow(written(text)).__name__ == "Other"


def test_a_flow_is_found_by_name_even_where_it_is_imported() -> None:
    Path("flows_of_ours.py").write_text(HELLO)
    assert load_flow(written("from flows_of_ours import Hello"), "Hello").__name__ == "Hello"
    del sys.modules["flows_of_ours"]


def test_several_flows_are_told_with_their_names() -> None:
    text = HELLO.partition("if __name__")[0] + "class Other(FlowSpec):\n    pass\n"
    with pytest.raises(SeveralFlowsInFile, match="several flows: Hello, Other"):
        load_flow(written(text))


def test_a_file_without_a_flow_is_told() -> None:
    with pytest.raises(NoFlowInFile, match="defines no flow"):
        load_flow(written("from evflow import FlowSpec\nx = 1"))


def test_a_flow_that_the_file_does_not_define_is_told_with_those_that_it_does() -> None:
    with pytest.raises(NoFlowInFile, match=r"no flow 'Hullo'\.\nIt defines: Hello"):
        load_flow(written(HELLO), "Hullo")


def test_a_missing_file_is_told() -> None:
    with pytest.raises(FlowFileUnreadable, match="No such file"):
        load_flow("nowhere.py")


def test_a_syntax_error_names_file_line_and_text() -> None:
    with pytest.raises(FlowFileBroken) as caught:
        load_flow(written("x = 1\ndef f(:\n    pass\n"))
    assert str(Path("flow.py").resolve()) + ":2: SyntaxError" in caught.value.message
    assert "def f(:" in caught.value.message


def test_a_syntax_error_in_an_imported_module_names_that_one() -> None:
    Path("beside.py").write_text("def g(:\n")
    with pytest.raises(FlowFileBroken, match=r"beside\.py:1"):
        load_flow(written("import beside"))


def test_an_exception_at_import_is_shown_with_the_users_frames_only() -> None:
    with pytest.raises(FlowFileRaised) as caught:
        load_flow(written("import importlib\nimportlib.import_module('does_not_exist')\n"))
    text = caught.value.traceback
    assert "flow.py" in text
    assert "ModuleNotFoundError" in text
    assert "importlib/__init__" not in text
    assert "loading.py" not in text


def test_sys_exit_at_import_is_an_exception_too() -> None:
    with pytest.raises(FlowFileRaised, match="SystemExit"):
        load_flow(written("raise SystemExit(3)"))


def test_main_and_path_are_as_before_after_an_error() -> None:
    main, path = sys.modules["__main__"], list(sys.path)
    with pytest.raises(FlowFileRaised):
        load_flow(written("1 / 0"))
    assert sys.modules["__main__"] is main
    assert sys.path == path


# --- tracebacks ------------------------------------------------------------------------------------------


class Raising(FlowSpec):
    @step
    def start(self) -> None:
        deep(2)

    @step
    async def asynchronous(self) -> None:
        deep(0)

    @step
    def reads(self) -> None:
        _ = self.nothing

    @step
    def recurses(self) -> None:
        self.recurses()

    @step
    def chains(self) -> None:
        try:
            deep(0)
        except KeyError as error:
            raise ExceptionGroup("both", [ValueError("second")]) from error

    @step
    def end(self) -> None:
        pass


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise KeyError("deep")


def raised_by(name: str) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        run_step(instantiate(Raising, name, parameters=stored()))
    # As where the worker catches it: without the frames of this test.
    error = caught.value
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)


@pytest.mark.parametrize("name", ["start", "asynchronous", "reads"])
def test_a_traceback_has_the_users_frames_only(name: str) -> None:
    text = user_traceback(raised_by(name))
    files = {line.split('"')[1] for line in text.splitlines() if line.startswith("  File ")}
    assert files == {__file__}


def test_the_innermost_frame_of_the_user_is_named() -> None:
    assert where(raised_by("reads")).startswith(f"{__file__}:")


def test_frames_of_a_library_stay_but_the_place_is_the_users() -> None:
    import json

    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert "json/decoder.py" in user_traceback(caught.value)
    assert where(caught.value).startswith(__file__)


def test_a_deep_recursion_is_cut() -> None:
    assert len(user_traceback(raised_by("recurses")).splitlines()) < 300


def test_causes_and_groups_are_shown_without_our_frames() -> None:
    text = user_traceback(raised_by("chains"))
    assert "KeyError: 'deep'" in text
    assert "ValueError: second" in text
    assert "evflow/flow" not in text


# --- what an import costs --------------------------------------------------------------------------------


def test_importing_the_language_imports_nothing_heavy() -> None:
    script = (
        "import sys; from evflow import FlowSpec, step, Parameter, retry, timeout, catch, resources, environment, JSONType, current\n"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    loaded = set(run.stdout.split())
    heavy = {
        "inspect",
        "asyncio",
        "anyio",
        "click",
        "dataclasses",
        "typing_extensions",
        "ast",
        "json",
        "msgpack",
        "pathlib",
        "difflib",
        "traceback",
    }
    assert heavy & loaded == set()


def test_evflow_lists_its_public_names() -> None:
    import evflow

    assert {"FlowSpec", "step", "Parameter", "current", "retry"} <= set(dir(evflow))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = evflow.nothing


def test_an_unknown_field_of_a_decorator_ends_the_script_without_a_traceback() -> None:
    file = written(
        HELLO.replace("import FlowSpec", "import retry, FlowSpec").replace(
            "    @step\n    def start", "    @retry(tims=3)\n    @step\n    def start"
        )
    )
    run = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"@retry has no field 'tims' ({Path(file).resolve()}:5)." in run.stderr
    assert "Did you mean 'times'?" in run.stderr
    assert "Traceback" not in run.stderr
