"""`evflow lint`: what in flows' files will bite, without running anything of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from evflow.cli.output import write_json
from evflow.errors import UsageError
from evflow.lint.check import findings
from evflow.lint.source import Finding, SourceUnreadable

_HELP = """Warn about what will bite in flows' files.

FILE is a flow's file, or a folder: all files in it that define a flow. They are read, and nothing in them is imported or run. The exit
code is 1 if there is a warning.

    evflow lint train.py

A comment on the line silences a warning: # evflow: ignore[module-work]
"""
_SKIPPED = frozenset({"__pycache__", "build", "dist", "node_modules", "site-packages"})


class NoFlowInFile(UsageError):
    """A file that was named defines no flow."""

    code = "no-flow-in-file"

    def __init__(self, file: Path) -> None:
        super().__init__(f"{file} defines no flow.", "A flow is a class that derives from FlowSpec, at the top level of a file.")


@click.command(help=_HELP)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Look at each file."""
    found: dict[Path, list[Finding]] = {}
    for file in files:
        for path in _files_of(file):
            said = findings(_text(path), str(path))
            if said is not None:
                found[path] = said
            elif path == file:
                raise NoFlowInFile(file)
    total = sum(map(len, found.values()))
    if as_json:
        write_json(
            {"files": [str(path) for path in found], "findings": [_plain(path, one) for path, said in found.items() for one in said]}
        )
    else:
        _show(found, total)
    ctx.exit(1 if total else 0)


def _show(found: dict[Path, list[Finding]], total: int) -> None:
    for path, said in found.items():
        for one in said:
            place = click.style(f"{path}:{one.line}:{one.column}:", bold=True)
            click.echo(f"{place} {click.style(one.code, fg='yellow')}: {one.message}\n    {one.hint}")
    files = f"{len(found)} file{'' if len(found) == 1 else 's'}"
    if total:
        click.echo(
            f"{total} warning{'' if total == 1 else 's'} in {files}. A comment on its line silences one: # evflow: ignore[code]", err=True
        )
    else:
        click.echo(f"Nothing to warn about in {files}.", err=True)


def _plain(path: Path, one: Finding) -> dict[str, Any]:
    return {"file": str(path), "line": one.line, "column": one.column, "code": one.code, "message": one.message, "hint": one.hint}


def _files_of(file: Path) -> Iterator[Path]:
    if not file.is_dir():
        yield file
        return
    for path in sorted(file.rglob("*.py")):
        inner = path.relative_to(file).parts[:-1]
        if not any(part in _SKIPPED or part.startswith(".") for part in inner):
            yield path


def _text(path: Path) -> str:
    import tokenize

    try:
        with tokenize.open(path) as file:  # as Python reads it: by its coding line
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise SourceUnreadable(str(path), 0, getattr(error, "strerror", None) or str(error)) from None
