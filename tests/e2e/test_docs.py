"""The pages tell the truth: every command on them runs, and prints what they say that it prints.

A page is a story. Its fenced blocks are carried out in their order, in one folder with an empty EVFLOW_HOME:

    sh        commands; a `make` target must exist, everything else must end with exit code 0
    console   lines that begin with `$ ` are commands, the lines under one are its output, stderr and stdout together.
              Numbers, times, digests and widths may differ, and lines may come in another order; `…` on a line of
              its own stands for any lines
    python    `>>>` lines are a doctest, anything else is a script
    toml      is parsed
    other     is only shown

An HTML comment right above a block changes that:

    <!-- not run: WHY -->                            only shown
    <!-- exit code: N -->                            of the block's first command
    <!-- file: NAME -->                              a file of the folder; if an example has the name, it must be a part of it
    <!-- file: NAME, with "OLD" as "NEW" -->         that file is edited before the block
    <!-- goes on: NAME, … -->                        the command goes on in another terminal, in which each of these, a run or a task, is running
    <!-- when: RUN is STATUS -->                     a command waits for that moment
    <!-- killed when: STEP: N succeeded, M under way -->   the command is killed as soon as the run's log says so of its tasks
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import click
import pytest

from evflow.cli.app import app
from evflow.config import SETTINGS
from evflow.flow.config_values import FILES_VARIABLE, VALUES_VARIABLE
from evflow.replay.refold import refold
from tests.conftest import REPOSITORY
from tests.real_runs import OpenLog, open_log, run_id
from tests.waiting import wait_until

BIN = Path(sys.executable).parent
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((REPOSITORY / "docs").glob("*.md"))
RUNBOOKS = sorted((REPOSITORY / "ops" / "runbooks").glob("*.md"))
"""Carried out by `tests/e2e/test_runbooks.py`, since they need an installation."""
LINKING = [*PAGES, *sorted((REPOSITORY / "docs" / "decisions").glob("*.md")), *sorted((REPOSITORY / "ops").glob("*/*.md"))]
PYTHON_RUN_ELSEWHERE = {"flows.md": "tests/unit/test_flow_docs.py", "client.md": "tests/e2e/test_client_page.py"}
WRITTEN_BY_A_COMMAND = {"benchmarks.md"}
"""Pages that may be linked to before they were made for the first time."""
COMMAND_S = 200.0


@dataclass(frozen=True)
class Block:
    """A fenced block and the comment above it."""

    page: Path
    line: int
    language: str
    text: str
    marker: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    def says(self, name: str) -> str | None:
        """The value of a marker."""
        found = [re.fullmatch(rf"{name}: (.+)", part) for part in self.marker.split("; ")]
        return next((one[1] for one in found if one), None)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    pattern = r"(?:^<!-- ([^\n]*?) -->\n)?^(```+)([^\n]*)\n(.*?)^\2$"
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[3].strip(), found[4], found[1] or "")
        for found in re.finditer(pattern, text, re.MULTILINE | re.DOTALL)
    ]


# ---------------------------------------------------------------- carrying a page out


class Reader:
    """Somebody who types what a page says, in the folder of a test."""

    def __init__(self) -> None:
        self.folder = Path.cwd()
        self.behind: list[subprocess.Popen[bytes]] = []
        (self.folder / "examples").mkdir()
        for example in (REPOSITORY / "examples").glob("*.py"):
            shutil.copy(example, self.folder / "examples")
        (self.folder / ".venv").symlink_to(sys.prefix)
        self.variables = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "EVFLOW_USER": "ada", "PYTHONUNBUFFERED": "1"}

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.says("not run"):
            return
        if (edit := re.fullmatch(r'file: (\S+), with "(.*)" as "(.*)"', block.marker)) is not None:
            self.edit(self.folder / edit[1], edit[2], edit[3].replace("\\n", "\n"))
        elif (name := block.says("file")) is not None:
            self.place(name, block)
            return
        if block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "python":
            self.python(block)
        elif block.language == "sh":
            for command in block.text.splitlines():
                self.type(block, command, None)
        elif block.language == "console":
            for number, (command, output) in enumerate(typed(block)):
                self.type(block, command, output, expected=int(block.says("exit code") or 0) if number == 0 else 0)

    def place(self, name: str, block: Block) -> None:
        example = REPOSITORY / "examples" / name
        if example.exists():
            assert block.text in example.read_text(encoding="utf-8"), f"{block}: is not what examples/{name} says"
        (self.folder / name).write_text(block.text, encoding="utf-8")

    def edit(self, path: Path, old: str, new: str) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def python(self, block: Block) -> None:
        script = self.folder / "snippet.py"
        if ">>> " in block.text:
            script.write_text(f"import doctest, sys\nsys.exit(doctest.testfile({str(self.folder / 'snippet.txt')!r}, False)[0] > 0)\n")
            (self.folder / "snippet.txt").write_text(block.text + "\n", encoding="utf-8")
        else:
            script.write_text(block.text, encoding="utf-8")
        done = self.run([sys.executable, str(script)])
        assert done.returncode == 0, f"{block}: {done.stdout}"
        script.unlink()

    def type(self, block: Block, command: str, output: list[str] | None, *, expected: int = 0) -> None:
        if not command.strip() or command.startswith("#"):
            return
        if command.startswith("make "):
            done = self.run(["make", "--dry-run", *shlex.split(command, comments=True)[1:]], REPOSITORY)
            assert done.returncode == 0, f"{block}: {command}\n{done.stdout}"
            return
        if (names := block.says("goes on")) is not None:
            self.begin(command)
            for name in names.split(", "):
                wait_until(partial(self.goes_on, name), f"{name} runs")
            return
        if (moment := block.says("killed when")) is not None:
            process = self.begin(command)
            with open_log(Path(os.environ["EVFLOW_HOME"])) as log:  # a command would answer when the moment is over
                wait_until(partial(self.has_come, log, moment), moment)
                process.kill()
            assert process.wait(COMMAND_S) == -signal.SIGKILL
            return
        if (moment := block.says("when")) is not None:
            wait_until(partial(self.is_so, *moment.split(" is ")), moment)
        done = self.run(["sh", "-c", command])
        assert done.returncode == expected, f"{block}: {command} ended with {done.returncode}\n{done.stdout}"
        if output is not None:
            self.compare(block, command, output, done.stdout)

    def compare(self, block: Block, command: str, promised: list[str], printed: str) -> None:
        wanted = Counter(shape(line) for line in promised if line.strip() not in ("", "…"))
        found = Counter(shape(line) for line in self.neutral(printed).splitlines() if line.strip())
        missing = list((wanted - found).elements())
        surplus = [] if "…" in [line.strip() for line in promised] else list((found - wanted).elements())
        assert (missing, surplus) == ([], []), f"{block}: {command} printed\n{printed}"

    def neutral(self, text: str) -> str:
        text = text.replace(str(self.folder), "/home/ada").replace(os.environ["EVFLOW_HOME"], "/home/ada/.evflow")
        return re.sub(rf"\b{re.escape(os.uname().nodename)}\b", "laptop", text)

    def goes_on(self, name: str) -> bool:
        """Whether a run, or a task, is running or waits for its reader."""
        said = self.answer("explain", name)
        return "has been running" in said or "waits with" in said

    def has_come(self, log: OpenLog, moment: str) -> bool:
        """Whether a run's log says that so many tasks of a step have succeeded, and so many are under way."""
        found = re.fullmatch(r"(\w+)/(\d+)/(\w+): (\d+) succeeded, (\d+) under way", moment)
        assert found is not None, moment
        state = refold(log.events(run_id(found[1], int(found[2]))))
        counts = Counter(task.status for task in state.all_tasks() if task.step == found[3])
        return (counts["succeeded"], counts["launched"] + counts["running"]) == (int(found[4]), int(found[5]))

    def is_so(self, run: str, status: str) -> bool:
        """Whether a run's log says so, and the index of runs, which is written a moment later."""
        listed = {line["run"]: line["status"] for line in json.loads(self.answer("runs", "--json") or "[]")}
        return listed.get(run) == status and f'"status": "{status}"' in self.answer("show", run, "--json").partition('"tasks"')[0]

    def answer(self, *arguments: str) -> str:
        return self.run(["evflow", *arguments]).stdout

    def run(self, command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=folder or self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def begin(self, command: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(shlex.split(command), cwd=self.folder, env=self.variables, stdin=quiet, stdout=quiet, stderr=quiet)
        self.behind.append(process)
        return process

    def leave(self) -> None:
        """Whatever went on has come to its end by what the page said."""
        for process in self.behind:
            process.wait(COMMAND_S)

    def abandon(self) -> None:
        for process in self.behind:
            if process.poll() is None:
                process.kill()
                process.wait()


def typed(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines under it."""
    lines = block.text.splitlines()
    assert lines, f"{block}: is empty"
    assert lines[0].startswith("$ "), f"{block}: begins with a command"
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")] + [len(lines)]
    for first, last in pairwise(starts):
        yield lines[first][2:], lines[first + 1 : last]


def shape(line: str) -> str:
    """A line without what differs between two runs: digits, digests, durations, widths of columns."""
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b", "DIGEST", line)
    line = re.sub(r"\d+(?:[.,:]\d+)*", "N", line)
    line = re.sub(r"\bN m N s\b|\bN (?:ms|s)\b", "TIME", line)
    return " ".join(line.split())


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.abandon()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem.lower())
def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        if block.language != "python" or page.name not in PYTHON_RUN_ELSEWHERE:
            reader.follow(block)
    reader.leave()


# ---------------------------------------------------------------- what needs no running


MARKERS = "not run|exit code|file|goes on|when|killed when"
MARKERS_OF_RUNBOOKS = "servers|killed|lost|disk|gone|until"


@pytest.mark.parametrize("page", [*PAGES, *RUNBOOKS], ids=lambda page: page.stem.lower())
def test_every_block_has_a_language_and_a_known_marker(page: Path) -> None:
    names = f"{MARKERS}|{MARKERS_OF_RUNBOOKS}" if page in RUNBOOKS else MARKERS
    for block in blocks(page):
        assert re.fullmatch(r"sh|console|python|toml|text|mermaid|json|lua", block.language), f"{block}: '{block.language}'"
        assert re.fullmatch(rf"|(?:{names}): .+", block.marker), f"{block}: '{block.marker}'"


def test_python_that_is_not_run_here_is_run_elsewhere() -> None:
    for page, test in PYTHON_RUN_ELSEWHERE.items():
        assert page in (REPOSITORY / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.stem.lower())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists() or path.name in WRITTEN_BY_A_COMMAND, f"{page.name} links to '{target}'"
        assert not anchor or anchor in anchors(path), f"{page.name} links to '{target}'"


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as its readers' browsers know them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_page() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, f"docs/index.md does not name {page.name}"


def test_every_setting_and_command_that_a_page_names_exists() -> None:
    commands = app().list_commands(click.Context(app()))
    known = {f"EVFLOW_{name.upper()}" for name in SETTINGS} | {"EVFLOW_PYTHON", FILES_VARIABLE, VALUES_VARIABLE}
    for page in [*PAGES, *sorted((REPOSITORY / "ops").glob("*/*.md"))]:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\bEVFLOW_[A-Z_]+\b", text):
            assert name in known or name.startswith(("EVFLOW_RUN_", "EVFLOW_TEST_")), f"{page.name}: {name}"
        for name in re.findall(r"`evflow ([a-z][\w-]*)", text):
            assert name in commands, f"{page.name}: evflow {name}"
