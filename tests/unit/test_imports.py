"""A user's modules and the framework's may have the same name: each side sees its own."""

import subprocess
import sys
from pathlib import Path

import pytest

# Each is what a user might call a file or folder of theirs, and each is something that the framework imports.
FILES = ("redis", "click", "msgpack", "anyio", "hiredis", "structlog", "calendar", "cronsim", "queue")
PACKAGES = ("rich", "scheduler", "executors")
VIEWS = """
from evflow.imports import framework_view
with framework_view():
    import click
    print(getattr(click, "WHOSE", "framework"))
import click
print(click.WHOSE)
"""
UNRELATED = ("evflow_unrelated", "features")


def a_folder(root: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Write a folder in which every module says `WHOSE = "user"`."""
    folder = root / "project"
    folder.mkdir()
    for name in (*FILES, *UNRELATED):
        if name not in without:
            (folder / f"{name}.py").write_text('WHOSE = "user"\n')
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text('WHOSE = "user"\n')
    (folder / "rich" / "console.py").write_text('WHOSE = "user"\n')
    return folder


def run(folder: Path, program: str, *arguments: str) -> str:
    """Run `python flow.py` in the folder and return what it printed."""
    flow = folder / "flow.py"
    flow.write_text(program)
    done = subprocess.run([sys.executable, *arguments, str(flow)], capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def whose(*names: str) -> str:
    return f"print(*[getattr(__import__(name), 'WHOSE', 'framework') for name in {names!r}])\n"


def test_the_framework_gets_its_own_modules_beside_a_users_of_the_same_names(root: Path) -> None:
    names = (*FILES, "rich")
    program = "from evflow.imports import framework_view\nwith framework_view():\n    " + whose(*names)
    assert run(a_folder(root), program).split() == ["framework"] * len(names)


def test_the_user_gets_their_own_modules_after_the_framework_imported_its(root: Path) -> None:
    names = (*FILES, *PACKAGES, *UNRELATED)
    program = (
        "from evflow.imports import framework_view\n"
        "with framework_view():\n    import redis, click, msgpack, anyio, hiredis, structlog, calendar, queue, rich.console\n"
        + whose(*names)
    )
    assert run(a_folder(root), program).split() == ["user"] * len(names)


def test_a_module_that_the_user_imported_first_stays_theirs_and_is_not_the_frameworks(root: Path) -> None:
    program = (
        "import click, rich.console\n"
        "mine = click\n"
        "from evflow.imports import framework_view\n"
        "with framework_view():\n    import click\n    import rich.console\n"
        "    print(hasattr(click, 'command'), hasattr(rich.console, 'Console'))\n"
        "import click, sys\n"
        "print(click is mine, sys.modules['rich.console'].WHOSE)\n"
    )
    assert run(a_folder(root), program).split() == ["True", "True", "True", "user"]


def test_views_nest_and_each_time_the_same_modules_come_back(root: Path) -> None:
    program = (
        "from evflow.imports import framework_view, user_view\n"
        "seen = []\n"
        "def look():\n    import click\n    seen.append(click)\n"
        "with framework_view():\n"
        "    look()\n"
        "    with user_view():\n"
        "        look()\n"
        "        with framework_view():\n            look()\n"
        "        look()\n"
        "    look()\n"
        "look()\n"
        "ours, users = seen[0], seen[1]\n"
        "print([module is ours for module in seen], [module is users for module in seen])\n"
    )
    ours = [True, False, True, False, True, False]
    assert run(a_folder(root), program) == f"{ours} {[not o for o in ours]}"


def test_a_view_ends_when_its_block_raises(root: Path) -> None:
    program = (
        "from evflow.imports import framework_view\n"
        "try:\n    with framework_view():\n        raise KeyError\n"
        "except KeyError:\n    import click, sys\n    print(click.WHOSE, len(sys.path) == len(set(sys.path)))\n"
    )
    assert run(a_folder(root), program) == "user True"


def test_a_fresh_interpreter_is_told_where_the_users_folder_is(root: Path) -> None:
    folder = a_folder(root)
    program = (
        "import sys\n"
        "from evflow import imports\n"
        "with imports.framework_view():\n"
        "    import msgpack\n"
        f"    imports.set_user_folder({str(folder)!r})\n"
        "    with imports.user_view():\n"
        f"        sys.path.insert(0, {str(folder)!r})\n"
        "        import msgpack as mine, click\n"
        "        print(mine.WHOSE, click.WHOSE)\n"
        "    import msgpack as again, click\n"
        f"    print(again is msgpack, hasattr(click, 'command'), {str(folder)!r} in sys.path)\n"
    )
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    assert run(elsewhere, program, "-P").split() == ["user", "user", "True", "True", "False"]


def test_a_forked_child_keeps_both_sides(root: Path) -> None:
    program = (
        "import os\n"
        "from evflow.imports import framework_view, user_view\n"
        "with framework_view():\n"
        "    import click\n"
        "    if os.fork() == 0:\n"
        "        with user_view():\n            import click\n            print(click.WHOSE, flush=True)\n"
        "        import click\n"
        "        print(hasattr(click, 'command'), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    assert run(a_folder(root), program).split() == ["user", "True"]


def test_a_folder_that_the_user_puts_on_the_path_later_is_the_users_too(root: Path) -> None:
    folder = a_folder(root, without=("click",))
    (folder / "lib").mkdir()
    (folder / "lib" / "click.py").write_text('WHOSE = "user"\n')
    program = (
        "import sys\n"
        "from evflow.imports import framework_view\n"
        "with framework_view():\n    pass\n"
        f"sys.path.insert(0, {str(folder / 'lib')!r})\n"
        "with framework_view():\n    import click\n    print(hasattr(click, 'command'))\n"
        "import click\n"
        "print(click.WHOSE)\n"
    )
    assert run(folder, program).split() == ["True", "user"]


def test_a_folder_without_an_init_is_no_module_of_the_users(root: Path) -> None:
    folder = root / "project"
    (folder / "click").mkdir(parents=True)
    program = (
        "from evflow import imports\n"
        "with imports.framework_view():\n    import click\n"
        "print(hasattr(click, 'command'), sorted(imports.shared_names()))\n"
    )
    assert run(folder, program) == "True []"


def test_a_name_that_the_interpreter_loaded_itself_is_not_shared(root: Path) -> None:
    folder = root / "project"
    folder.mkdir()
    (folder / "os.py").write_text("raise RuntimeError('nobody imports this')\n")
    program = "from evflow import imports\nwith imports.framework_view():\n    import os\nprint(sorted(imports.shared_names()))\n"
    assert run(folder, program) == "[]"


def test_nothing_shared_leaves_path_and_modules_alone(root: Path) -> None:
    folder = root / "project"
    folder.mkdir()
    (folder / "features.py").write_text("")
    program = (
        "import sys\n"
        "from evflow.imports import framework_view\n"
        "before = list(sys.path)\n"
        "with framework_view():\n    print(sys.path == before)\n"
        "print(sys.path == before)\n"
    )
    assert run(folder, program).split() == ["True", "True"]


def test_a_flow_that_is_started_through_a_link_has_the_folder_of_the_real_file(root: Path) -> None:
    folder = a_folder(root)
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (folder / "flow.py").write_text(VIEWS)
    (elsewhere / "flow.py").symlink_to(folder / "flow.py")
    done = subprocess.run([sys.executable, "flow.py"], capture_output=True, text=True, cwd=elsewhere, timeout=60, check=False)
    assert done.stdout.split() == ["framework", "user"], done.stderr


@pytest.mark.parametrize("early", ["", "import evflow.imports\n"])
def test_a_flow_that_is_started_as_a_module_has_the_current_folder(root: Path, early: str) -> None:
    folder = a_folder(root)
    (folder / "team").mkdir()
    (folder / "team" / "__init__.py").write_text(early)
    (folder / "team" / "flow.py").write_text(VIEWS)
    done = subprocess.run([sys.executable, "-m", "team.flow"], capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    assert done.stdout.split() == ["framework", "user"], done.stderr


def test_the_module_itself_imports_nothing_that_could_be_the_users(root: Path) -> None:
    folder = root / "project"
    folder.mkdir()
    program = "import sys, evflow\nbefore = set(sys.modules)\nimport evflow.imports\nprint(sorted(set(sys.modules) - before))\n"
    assert run(folder, program) == "['__future__', 'evflow.imports']"
