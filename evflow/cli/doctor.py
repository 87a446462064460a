"""`evflow doctor`: what keeps this machine, or the log's server, from running flows."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from evflow import config
from evflow.cli.output import count, write_json
from evflow.cli.unknown_settings import unknown_settings
from evflow.errors import EvflowError

if TYPE_CHECKING:
    from evflow.log.diagnose import Finding

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "error": ("error", "red")}


@click.command(
    "doctor", help="Check settings, machine, home, store and server; say what to change. Exits with 1 where something does not work."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show what is right, too.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, verbose: bool) -> None:
    """Look at everything, then report."""
    from evflow.log.diagnose import Finding, diagnose

    findings = [
        Finding("settings", "error", problem, "`evflow config` shows every setting and its place.") for problem in _wrong_settings()
    ]
    if not findings:
        findings = [
            Finding("settings", "warning", f"{place}: there is no setting '{key}'", f"Remove it, or mend its name.{nearest}")
            for place, key, nearest in unknown_settings()
        ]
        findings += diagnose(config.get("redis_url"), config.home(), config.get("store"))
        if "://" in config.get("store") and not config.get("store").startswith("file://"):
            findings.append(_probed(config.get("store")))
        if config.get("event_queues") or config.get("event_buckets"):
            from evflow.cli.doctor_aws import check_sources

            findings += check_sources()
    worst = "error" if any(f.level == "error" for f in findings) else "warning" if any(f.level == "warning" for f in findings) else "ok"
    if as_json:
        write_json({"level": worst, "findings": [asdict(finding) for finding in findings]})
    else:
        shown = [finding for finding in findings if verbose or finding.level != "ok"]
        width = max((len(finding.name) for finding in shown), default=0)
        for finding in shown:
            word, color = _MARKS[finding.level]
            click.echo(f"{click.style(word.ljust(7), fg=color)}  {finding.name.ljust(width)}  {finding.seen}")
            if finding.advice:
                click.echo(f"{' ' * (width + 11)}{click.style(finding.advice, bold=True)}")
        good = sum(finding.level == "ok" for finding in findings)
        bad = count(len(findings) - good, "finding")
        click.echo(f"{count(len(findings), 'check')}: {'all is well' if good == len(findings) else f'{bad} to look at'}.", err=True)
    if worst == "error":
        ctx.exit(1)


def _probed(url: str) -> "Finding":
    """A store elsewhere, tried out."""
    from evflow.log.diagnose import Finding
    from evflow.store import open_store
    from evflow.store.probing import CLOCKS, probe

    shown = config.shown("store", url)
    try:
        tried = probe(open_store(url, cached=False), parts=False)
    except EvflowError as error:  # no such kind of store, or no client for it
        return Finding("store", "error", f"{shown}: {error.message}", error.hint)
    wrong = [one for one in tried if not one.ok]
    if not wrong:
        return Finding("store", "ok", f"{shown}: {', '.join(one.name for one in tried)}: all of it works")
    said, _, advice = wrong[0].told.partition("\n")
    return Finding("store", "warning" if wrong[0].name == CLOCKS else "error", f"{shown}: {wrong[0].name}: {said}", advice)


def _wrong_settings() -> list[str]:
    problems: list[str] = []
    for name in config.SETTINGS:
        try:
            config.get(name)
        except EvflowError as error:
            problems.append(error.message)
    return list(dict.fromkeys(problems))
