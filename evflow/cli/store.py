"""`evflow store`: whether the store does what it should, and from one store to another."""

import sys
from typing import Any

import click

from evflow import config
from evflow.cli.output import count, size, write_json
from evflow.errors import UsageError
from evflow.store import open_store
from evflow.store.copying import Copied, copy, verify
from evflow.store.probing import probe

_TOLD_EVERY = 100


def _check(url: str | None, every: bool, as_json: bool) -> None:
    store = open_store(url or config.get("store"), cached=False)
    probes = probe(store)
    whole = verify(store, _progress) if every and all(one.ok for one in probes) else None
    failed = not all(one.ok for one in probes) or (whole is not None and whole.damaged)
    if as_json:
        said: dict[str, Any] = {"store": config.shown("store", store.url), "probes": [one._asdict() for one in probes]}
        if whole is not None:
            said["objects"] = whole._asdict()
        write_json({**said, "ok": not failed})
    else:
        click.echo(f"{config.shown('store', store.url)}")
        for one in probes:
            click.echo(f"  {'ok' if one.ok else 'FAILED':<7} {one.name}{f': {one.told}' if one.told else ''}")
        if whole is not None:
            click.echo(f"  {'FAILED' if whole.damaged else 'ok':<7} {count(whole.objects, 'object')} ({size(whole.bytes)}) read")
            for told in whole.damaged:
                click.echo(f"          {told}")
    if failed:
        sys.exit(1)


def _copy(source: str, target: str, as_json: bool) -> None:
    here, there = open_store(_url(source), cached=False), open_store(_url(target), cached=False)
    where = config.shown("store", here.url)
    if here.url == there.url:
        raise UsageError(f"Both stores are '{where}'.", "Name the one to copy from, and the one to copy to.")
    done = copy(here, there, _progress)
    if not (done.objects or done.files or done.there or done.damaged):
        raise UsageError(
            f"Nothing is in the store '{where}', so nothing was copied.",
            "Compare its name; `evflow config store` has that of the settings.",
        )
    if as_json:
        write_json(done._asdict())
    else:
        _print(done)
    if done.damaged:
        sys.exit(1)


def _url(given: str) -> str:
    return config.get("store") if given == "-" else given


def _print(done: Copied) -> None:
    click.echo(
        f"{count(done.objects, 'object')} ({size(done.objects_bytes)}) and {count(done.files, 'file')} ({size(done.files_bytes)}) copied; "
        f"{done.there:,} were there."
    )
    for where in done.damaged:
        click.echo(f"Not copied, since it is not what was written: {where}", err=True)


def _progress(looked: int) -> None:
    if looked % _TOLD_EVERY == 0 and sys.stderr.isatty():
        click.echo(f"\r{looked:,}", nl=False, err=True)


command = click.Group("store", help="See that the store works, and copy it.")
command.add_command(
    click.Command(
        "check",
        callback=_check,
        params=[
            click.Argument(["url"], required=False),
            click.Option(["--all", "every"], is_flag=True, help="Also read every object, and compare it with its digest."),
            click.Option(["--json", "as_json"], is_flag=True, help="As JSON."),
        ],
        help="Try out what evflow needs of the store, or of the one at URL, with files of its own that it removes again.",
    )
)
command.add_command(
    click.Command(
        "copy",
        callback=_copy,
        params=[
            click.Argument(["source"], metavar="FROM"),
            click.Argument(["target"], metavar="TO"),
            click.Option(["--json", "as_json"], is_flag=True, help="As JSON."),
        ],
        help="Copy what the store TO has not yet of the store FROM: objects, output, archives. Each is a folder or a URL; - is the store of the settings.",
    )
)
