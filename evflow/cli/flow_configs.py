"""A flow's configurations on its command line: `--config NAME FILE`, `--config-value NAME JSON`; those of the run that is resumed."""

from contextlib import suppress
from typing import TYPE_CHECKING

from evflow import config
from evflow.cli.flow_main import FlowContext
from evflow.core.ids import RunId
from evflow.errors import EvflowError
from evflow.flow.config_values import resolve, settle, settle_from

if TYPE_CHECKING:
    from evflow.flow.configs import ConfigSpec


def settle_configs(context: FlowContext) -> None:
    """Read the configurations, and put them into the flow's class.

    Raises:
        UsageError: One is missing, cannot be read, or lacks what the flow takes of it.
    """
    values = resolve(context.flow, context.config_files, context.config_values, user=config.get("user"))
    settle(context.flow, values)
    context.configured = True


def settle_for_help(context: FlowContext) -> None:
    """The same for a help, which is shown in any case: without them, defaults that they give are said to be computed."""
    with suppress(EvflowError):
        settle_configs(context)


def described(flow: type) -> list[tuple[str, str]]:
    """The configurations for `--help` and `show`: how each is given, and its help and default."""
    from evflow.flow.config_values import configs_of
    from evflow.flow.configs import spec_of

    return [(f"--config {spec.name} FILE", _described(spec)) for spec in map(spec_of, configs_of(flow))]


def _described(spec: "ConfigSpec") -> str:
    if callable(spec.default) or callable(spec.default_value):
        note = "[default: computed]"
    elif spec.default is not None:
        note = f"[default: {spec.default}]"
    elif spec.default_value is not None:  # it may be long, and secret
        note = "[default: a value]"
    else:
        note = "[required]" if spec.required else ""
    return "  ".join(part for part in (spec.help or "", note) if part)


def settle_origin(context: FlowContext, origin: RunId) -> None:
    """Put the configurations of another run into the flow's class; those that it had not get their defaults.

    Raises:
        RunNotFound, RunNeverBegan: There is no such run, or it has no events.
        UsageError: The flow takes of them what is not there.
    """
    from evflow.cli import session
    from evflow.flow.config_values import configs_of
    from evflow.flow.configs import spec_of
    from evflow.replay.load import folded
    from evflow.store.artifacts import ArtifactView

    flow = context.flow
    with session.log() as log:
        _, state = folded(log, origin)
    stored = ArtifactView.open(session.store(state.header["store"]), state.header["parameters"])
    context.configured = True
    if all(spec_of(one).attribute in stored for one in configs_of(flow)):
        settle_from(flow, stored)
        return
    known = {spec.name: stored.load(spec.attribute) for spec in map(spec_of, configs_of(flow)) if spec.attribute in stored}
    settle(flow, {**resolve(flow, values=known, env={}, user=config.get("user")), **_by_attribute(flow, known)})


def _by_attribute(flow: type, known: dict[str, object]) -> dict[str, object]:
    from evflow.flow.config_values import configs_of
    from evflow.flow.configs import spec_of

    return {spec.attribute: known[spec.name] for spec in map(spec_of, configs_of(flow)) if spec.name in known}
