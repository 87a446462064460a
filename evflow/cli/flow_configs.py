"""A flow's configurations on its command line: `--config NAME FILE`, `--config-value NAME JSON`; those of the run that is resumed."""

from contextlib import suppress

from evflow import config
from evflow.cli.flow_main import FlowContext
from evflow.core.ids import RunId
from evflow.errors import EvflowError
from evflow.flow.config_values import resolve, settle, settle_from


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


def settle_origin(context: FlowContext, origin: RunId) -> None:
    """Put the configurations of another run into the flow's class; those that it had not get their defaults.

    Raises:
        RunNotFound, RunNeverBegan: There is no such run, or it has no events.
        UsageError: The flow takes of them what is not there.
    """
    from evflow.cli import session
    from evflow.flow.config_values import configs_of
    from evflow.flow.configs import spec_of
    from evflow.replay.load import load
    from evflow.replay.refold import refold
    from evflow.store.artifacts import ArtifactView

    flow = context.flow
    with session.log() as log:
        header = refold(load(log, origin).events).header
    stored = ArtifactView.open(session.store(header["store"]), header["parameters"])
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
