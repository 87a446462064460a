"""`evflow env`: the environments of steps that this machine has, and those that it does not need any more."""

from typing import Any

import click

from evflow import config
from evflow.cli.complete import of_environments
from evflow.cli.output import count, duration, instant, iso, size, table, write_json
from evflow.environments.cache import Built, Cache
from evflow.errors import UsageError, did_you_mean

_NAME_CHARS = 12


class NoSuchEnvironment(UsageError):
    """No environment of this machine is called so."""

    code = "no-such-environment"

    def __init__(self, name: str, names: list[str]) -> None:
        short = [one[:_NAME_CHARS] for one in names]
        super().__init__(
            f"No environment on this machine has a name that begins with '{name}'.{did_you_mean(name, short)}",
            "`evflow env list` shows what there is. Runs make environments when they need them.",
        )


class NameFitsSeveral(UsageError):
    """What was typed begins more than one name."""

    code = "environment-ambiguous"

    def __init__(self, name: str, fits: list[str]) -> None:
        super().__init__(f"'{name}' begins the names of {len(fits)} environments: {', '.join(fits)}.", "Type more of it.")


@click.group("env", help="The environments of steps (@pypi, @conda) that this machine has made.")
def command() -> None:
    """Group of the three."""


@command.command("list", help="List them, the one that was used last first.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_command(as_json: bool) -> None:
    """List them."""
    cache = Cache(config.home())
    found = _found(cache)
    if as_json:
        write_json([_plain(cache, built) for built in found])
        return
    if not found:
        click.echo("This machine has no environment yet. A run whose steps have @pypi or @conda makes what it needs.", err=True)
        return
    rows = [
        [
            built.name[:_NAME_CHARS], built.kind, built.version, str(built.packages), size(built.size_bytes), instant(_used_us(cache, built))[:19],
            ", ".join(built.installed),
        ]
        for built in found
    ]  # fmt: skip
    for line in table(
        ["name", "kind", "python", "packages", "size", "last used", "what"], rows, right=["packages", "size"], flexible="what"
    ):
        click.echo(line)
    click.echo(f"{count(len(found), 'environment')}, {size(sum(built.size_bytes for built in found))} in {cache.root}", err=True)


@command.command("show", help="Show an environment: where it is, and every package in it. NAME may be the beginning of its name.")
@click.argument("name", shell_complete=of_environments())
@click.option("--lock", "as_lock", is_flag=True, help="Print what it was built from, for uv or rattler.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(name: str, as_lock: bool, as_json: bool) -> None:
    """Show one."""
    cache = Cache(config.home())
    built = _named(cache, name)
    lock = cache.lock_of(built.name)
    if as_lock:
        click.echo(lock.text if lock is not None else "", nl=False)
    elif as_json:
        write_json({**_plain(cache, built), "installed": list(built.installed), "lock": lock.text if lock is not None else None})
    else:
        click.echo(f"{click.style(built.name, bold=True)}  @{built.kind}, Python {built.version}")
        for label, text in (
            ("folder", str(cache.folder(built.name))),
            ("python", built.python),
            ("size", size(built.size_bytes)),
            ("built", f"{instant(built.built_us)[:19]}, in {duration(built.took_us)}"),
            ("used", instant(_used_us(cache, built))[:19]),
        ):
            click.echo(f"  {click.style(label.ljust(6), dim=True)}  {text}")
        for package in built.installed:
            click.echo(f"  {package}")


@command.command("prune", help="Remove environments: those named, or those that were not used for a time. What is in use stays.")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=of_environments())
@click.option("--unused", "unused_days", type=click.FloatRange(0), metavar="DAYS", help="Those not used for so many days  [default: 30]")
@click.option("--max-size", "max_gb", type=click.FloatRange(0), metavar="GB", help="The ones used longest ago, until the rest is smaller.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--resolved", is_flag=True, help="What was resolved, too: the next runs ask the index again.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def prune(
    names: tuple[str, ...], unused_days: float | None, max_gb: float | None, everything: bool, resolved: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove some."""
    cache = Cache(config.home())
    sizes = {name: built.size_bytes if (built := cache.ready(name)) is not None else 0 for name in cache.names()}
    if names:
        chosen = [_named(cache, name).name for name in names]
    elif everything:
        chosen = cache.names()
    else:
        days = 30.0 if unused_days is None and max_gb is None and not resolved else unused_days
        chosen = cache.surplus(max_bytes=None if max_gb is None else round(max_gb * 1e9), unused_s=None if days is None else days * 86_400)
    forgotten = cache.resolutions() if resolved else []
    if dry_run:
        removed, stayed = chosen, list[str]()
    else:
        removed, stayed = cache.prune(chosen)
        cache.prune(cache.leftovers())
        for place in forgotten:
            place.unlink(missing_ok=True)
    freed = sum(sizes.get(name, 0) for name in removed)
    if as_json:
        write_json({"removed": removed, "in_use": stayed, "resolved": len(forgotten), "size_bytes": freed, "dry_run": dry_run})
        return
    verb = "Would remove" if dry_run else "Removed"
    also = f", and forgot {count(len(forgotten), 'resolution')}" if resolved and not dry_run else ""
    click.echo(f"{verb} {count(len(removed), 'environment')}, {size(freed)}{also}.", err=True)
    for name in stayed:
        click.echo(f"{name[:_NAME_CHARS]} is in use, and stays.", err=True)


def _found(cache: Cache) -> list[Built]:
    built = [one for name in cache.names() if (one := cache.ready(name)) is not None]
    return sorted(built, key=lambda one: cache.last_use_s(one.name), reverse=True)


def _named(cache: Cache, name: str) -> Built:
    found = {one.name: one for one in _found(cache)}
    fits = [full for full in found if full.startswith(name)]
    if not fits:
        raise NoSuchEnvironment(name, list(found))
    if len(fits) > 1:
        raise NameFitsSeveral(name, [full[:_NAME_CHARS] for full in fits])
    return found[fits[0]]


def _used_us(cache: Cache, built: Built) -> int:
    return round(cache.last_use_s(built.name) * 1e6)


def _plain(cache: Cache, built: Built) -> dict[str, Any]:
    return {
        "name": built.name,
        "kind": built.kind,
        "python": built.version,
        "interpreter": built.python,
        "folder": str(cache.folder(built.name)),
        "packages": built.packages,
        "size_bytes": built.size_bytes,
        "built": iso(built.built_us),
        "build_s": built.took_us / 1e6,
        "last_used": iso(_used_us(cache, built)),
    }
