"""How a command ends: its exit code, and the words on stderr that explain it.

| What was raised | What is shown | Exit code |
|---|---|---|
| `EvflowError` | its message, its hint | its own: 1, or 2 where what was typed is wrong; 1 in flows for Metaflow, as there |
| click's usage errors | the usage line, what is wrong | 2 |
| Ctrl-C | nothing | 130 |
| a reader that went away (`evflow runs | head`) | nothing | 141 |
| a full disk behind stdout (`evflow runs > file`) | that it could not be written | 1 |
| anything else | "internal error", and the file that has the traceback | 1 |

`EVFLOW_DEBUG=1` shows the traceback of the last kind.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from evflow.cli.leave import leave
from evflow.cli.streams import take_any_text, to_nowhere
from evflow.errors import EvflowError

if TYPE_CHECKING:
    from pathlib import Path

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EBADF, errno.EIO})


def run_command(command: click.Command, arguments: list[str], *, program: str, obj: Any = None) -> NoReturn:
    """Run a command on its arguments, show what went wrong, and exit with the right code."""
    leave(outcome(lambda: command.main(arguments, prog_name=program, standalone_mode=False, obj=obj)))


def outcome(body: Callable[[], Any]) -> int:
    """Run the body and answer the exit code; whatever it raised has been shown."""
    take_any_text()
    stdout = sys.stdout
    try:
        code = body()
        sys.stdout.flush()
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        to_nowhere(stdout)
        return EXIT_PIPE
    except SystemExit:
        if sys.stdout is stdout:
            raise
        sys.stdout = stdout  # click has wrapped it: it took the broken pipe, and ends with 1
        to_nowhere(stdout)
        return EXIT_PIPE
    except EvflowError as error:
        from evflow.flow import dialect

        show_error(error)
        return EXIT_FAILED if dialect.is_metaflow() else error.exit_code
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            show_internal_error(error)
            return EXIT_FAILED
        to_nowhere(sys.stdout)
        click.echo(f"Error: The output could not be written: {error.strerror}.", err=True)
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the last place that can tell the user; the traceback is kept
        if _is_interruption(error):
            return EXIT_INTERRUPTED
        show_internal_error(error)
        return EXIT_FAILED
    return code if isinstance(code, int) else 0


def _is_interruption(error: Exception) -> bool:
    """Whether it stands for a Ctrl-C in the middle of an import: until Python 3.12 `__set_name__` wraps what is raised in it."""
    return isinstance(error, RuntimeError) and isinstance(error.__cause__, KeyboardInterrupt)


def error_text(error: EvflowError, *, colored: bool) -> str:
    """The error as people read it: the message, then what to do."""
    head = click.style("Error:", fg="red", bold=True) if colored else "Error:"
    first, _, rest = error.message.partition("\n")
    text = f"{head} {first}"
    if rest:
        text += f"\n{rest}"
    if error.hint:
        text += f"\n{click.style(error.hint, dim=True) if colored else error.hint}"
    return text


def show_error(error: EvflowError) -> None:
    """Print the error on stderr."""
    sys.stdout.flush()
    print(error_text(error, colored=use_color(sys.stderr)), file=sys.stderr)


def show_internal_error(error: Exception) -> None:
    """Say that evflow itself failed, and where the traceback is."""
    from traceback import format_exception

    trace = "".join(format_exception(error))
    if _debug():
        print(trace, file=sys.stderr)
    print(f"Internal error: {type(error).__name__}: {error}", file=sys.stderr)
    path = _keep(trace)
    if path:
        print(f"This is a defect of evflow. The traceback is in {path}; please report it.", file=sys.stderr)
    else:
        print("This is a defect of evflow. EVFLOW_DEBUG=1 shows the traceback; please report it.", file=sys.stderr)


def color_wish() -> bool | None:
    """Whether to color output, as the setting `color`, NO_COLOR and TERM say; None: where it is a terminal."""
    from evflow import config

    try:
        wanted = config.get("color")
    except EvflowError:  # the wrong setting is reported by whoever needs it; an error message must get out
        wanted = "auto"
    if wanted != "auto":
        return bool(wanted == "always")
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def use_color(stream: TextIO) -> bool:
    """Whether to color what goes to a stream."""
    wish = color_wish()
    return stream.isatty() if wish is None else wish


def _debug() -> bool:
    from evflow import config

    try:
        return bool(config.get("debug"))
    except EvflowError:  # see color_wish
        return False


def _keep(trace: str) -> "Path | None":
    """Write the traceback to a file of its own; None where nothing can be written."""
    import tempfile
    from pathlib import Path

    from evflow import config

    folders: list[Path] = []
    with contextlib.suppress(EvflowError):  # an error message must get out
        folders.append(config.home() / "errors")
    folders.append(Path(tempfile.gettempdir()))
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="evflow-", suffix=".txt", dir=folder)
        except OSError:
            continue
        with os.fdopen(handle, "w") as file:
            file.write(f"{sys.version}\n{sys.argv}\n\n{trace}")
        return Path(name)
    return None
