"""`evflow init`: a flow to begin with."""

import errno
import keyword
import re
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click

from evflow.cli.output import write_json
from evflow.errors import EnvironmentProblem, UsageError

_HELP = """Write a flow to begin with, and its test.

With NAME they are in a folder of that name, else in this one. The flow has parameters, a foreach, a join, a card and a schedule; what
it does is yours to change. Nothing that exists is overwritten.

    evflow init daily-sales
"""
_LIBRARIES = frozenset({"evflow", "evflow_executors", "evflow_scheduler", "metaflow", "numpy", "pandas", "pytest", "test"})
_DEFAULT = "flow"


class NameUnfit(UsageError):
    """No flow can be called so."""

    code = "name-unfit"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"'{name}' cannot be the name of a flow: {why}.", "Use letters, digits, - and _, as in: evflow init daily-sales")


class AlreadyThere(UsageError):
    """Something has the name of a file that was to be written."""

    code = "already-there"

    def __init__(self, paths: list[Path]) -> None:
        there = ", ".join(map(str, paths))
        super().__init__(f"There is {there} already. Nothing was written.", "Give another name, as in: evflow init daily-sales")


class NotWritten(EnvironmentProblem):
    """The folder takes no files."""

    code = "flow-not-written"

    def __init__(self, path: Path, error: OSError) -> None:
        hint = "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Go to a folder that you may write to"
        super().__init__(f"The flow cannot be written: {path}: {error.strerror}.", f"{hint}. Nothing was written.")


@click.command(help=_HELP)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(name: str | None, as_json: bool) -> None:
    """Write the files, and say how to go on."""
    from evflow.cli.starter import files

    module, flow = names(name or _DEFAULT)
    folder = Path(name) if name else Path()
    texts = {folder / file: text for file, text in files(module, flow).items()}
    there = [path for path in texts if path.exists() or path.is_symlink()]
    if there or (folder.exists() and not folder.is_dir()):
        raise AlreadyThere(there or [folder])
    _write(folder, texts)
    if as_json:
        write_json({"flow": flow, "folder": str(folder.absolute()), "files": [str(path) for path in texts]})
        return
    click.echo(f"Wrote {', '.join(map(str, texts))}.\n")
    steps = [("Go there", f"cd {name}")] if name else []
    test = "python -m pytest" if find_spec("pytest") else "python -m pytest    (once pytest is installed)"
    steps += [("Run it", f"python {module}.py run"), ("Test it", test), ("Its commands", f"python {module}.py --help")]
    click.echo("\n".join(f"  {what:<13} {typed}" for what, typed in steps))


def _write(folder: Path, texts: dict[Path, str]) -> None:
    """Write all of the files, or none.

    Raises:
        NotWritten: They cannot be written.
    """
    made: list[Path] = []
    at = folder
    try:
        if not folder.is_dir():
            folder.mkdir()
            made.append(folder)
        for at, text in texts.items():
            with at.open("x", encoding="utf-8") as file:
                made.append(at)
                file.write(text)
    except OSError as error:
        with suppress(OSError):  # what was made cannot be removed either, or is not empty any more
            for path in reversed(made):
                path.rmdir() if path is folder else path.unlink()
        raise NotWritten(at, error) from None


def names(name: str) -> tuple[str, str]:
    """The module and the class for a name.

    Raises:
        NameUnfit: It makes none, or a module that would hide another.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name, re.ASCII):
        raise NameUnfit(name, "it has to begin with a letter, and to hold nothing but letters, digits, - and _")
    words = [word for word in re.split(r"[-_]|(?<=[a-z0-9])(?=[A-Z])", name) if word]
    module = "_".join(word.lower() for word in words)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _LIBRARIES:
        raise NameUnfit(name, f"{module}.py would hide what Python calls {module}")
    flow = "".join(word[0].upper() + word[1:] for word in words)
    return module, flow if flow.endswith("Flow") and flow != "Flow" else f"{flow}Flow" if flow != "Flow" else "MyFlow"
