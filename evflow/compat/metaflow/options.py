"""Metaflow's options before the command that have nothing to decide here: taken as they are; what somebody may have counted on is said once."""

import sys

import click

_ELSEWHERE = {
    "metadata": ("local", "what happens is kept in evflow's log (EVFLOW_REDIS_URL)"),
    "datastore": ("local", "artifacts are kept in evflow's store (EVFLOW_STORE)"),
}
"""An option, the value that means no more than what happens anyway, and what happens."""


def without_effect(option: str) -> click.Option:
    """One of these options, taking any value."""
    return click.Option([f"--{option}"], hidden=True, expose_value=False, callback=_say)


def _say(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    usual, instead = _ELSEWHERE.get(str(parameter.name), (value, ""))
    if value is not None and value.partition("@")[0] != usual and not ctx.resilient_parsing:
        sys.stderr.write(f"--{parameter.name} {value} has no effect: {instead}.\n")
