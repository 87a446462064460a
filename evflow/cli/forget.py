"""`evflow forget`: let runs go."""

import sys

import click

from evflow import config
from evflow.archives.archiving import Archivist
from evflow.archives.forget import RunGoesOn, forget
from evflow.cli import session
from evflow.cli.complete import of_runs
from evflow.cli.naming import NoSuchRun, whole
from evflow.cli.output import count, write_json
from evflow.core.ids import RunId
from evflow.core.summary import OVER
from evflow.errors import UsageError

_MOST_REASON = 1_000


class NotConfirmed(UsageError):
    """Somebody is to be asked, and there is no terminal; or the answer was no."""

    code = "not-confirmed"

    def __init__(self, question: str, *, asked: bool) -> None:
        why = "The answer was no." if asked else f"There is no terminal to ask: {question}"
        super().__init__(f"{why} Nothing was changed.", "" if asked else "Give --yes where it is meant.")


def confirmed(question: str, *, yes: bool) -> None:
    """Ask, unless the answer is given.

    Raises:
        NotConfirmed: No, or nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed(question, asked=False)
    if not click.confirm(question, err=True):
        raise NotConfirmed(question, asked=True)


@click.command(
    "forget", help="Let RUN go for ever: it leaves every list, and `evflow gc` removes what only it needed. Its number is not used again."
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=of_runs("succeeded", "failed", "cancelled"))
@click.option("--reason", default="", help="What the log says.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(runs: tuple[str, ...], reason: str, yes: bool, as_json: bool) -> None:
    """Forget them, all or none."""
    if len(reason) > _MOST_REASON:
        raise click.BadParameter(f"it has {len(reason):,} characters, and the log takes {_MOST_REASON:,}.", param_hint="--reason")
    user = config.get("user")
    with session.log() as log:
        found: list[RunId] = []
        for text in runs:
            run = whole(log, text)
            entry = log.run(run)
            if entry is None:  # forgotten by somebody else just now
                raise NoSuchRun(text, log.flows())
            if (
                entry.summary.get("status") not in OVER
                and log.head(entry.shard, run).status != "sealed"
                and entry.summary.get("started_us")
            ):
                raise RunGoesOn(run)
            found.append(run)
        named = (
            str(found[0])
            if len(found) == 1
            else f"{count(len(found), 'run')}, {', '.join(map(str, found[:5]))}{', …' if len(found) > 5 else ''},"
        )
        confirmed(f"Forget {named} for ever?", yes=yes)
        archivist = Archivist(log, config.get("store"), f"user:{user}")
        for run in dict.fromkeys(found):
            forget(log, archivist, run, reason, f"user:{user}")
    if as_json:
        write_json({"forgotten": [str(run) for run in found]})
    else:
        click.echo(f"{count(len(found), 'run')} forgotten. `evflow gc` removes what nothing else needs.", err=True)
