"""What is deployed, and changing it: an event of the flow's log, appended by whoever comes first, decided again by the others."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from evflow.core import flow_events
from evflow.core.deployments import DEFAULT_NAME, Deployment, after, fold, name_fault, pack, subject, unpacked
from evflow.core.events import Event
from evflow.core.flow_events import FlowDeployed, FlowRecord
from evflow.core.ids import FlowName
from evflow.core.projects import taken_apart
from evflow.deployments.finding import records
from evflow.errors import Conflict, EnvironmentProblem, UsageError, did_you_mean
from evflow.log.protocol import DeploymentChange, LogClient

_MOST_TRIES = 100
"""Each try loses to another writer of the same flow's log; that this happens so often in a row means a defect."""


class DeploymentNameInvalid(UsageError):
    """A text can be no deployment's name."""

    code = "deployment-name-invalid"

    def __init__(self, why: str) -> None:
        super().__init__(why, "A deployment is written FLOW:NAME, FLOW for the one called 'default', or PROJECT.BRANCH.FLOW.")


class DeploymentNotFound(UsageError):
    """Nothing is deployed under this name."""

    code = "deployment-not-found"

    def __init__(self, flow: str, name: str, deployed: dict[str, list[str]]) -> None:
        here = deployed.get(flow, [])
        if here:
            text = f"'{flow}' has no deployment '{name}'."
            hint = f"It has: {', '.join(shown(flow, known) for known in here)}.{did_you_mean(name, here)}"
        else:
            text = f"'{flow}' is not deployed."
            others = [flow for flow, names in deployed.items() if names]
            has = f"Deployed are: {', '.join(others)}.{did_you_mean(flow, others)}" if others else "Nothing is deployed in this log."
            hint = f"{has} `python FILE deploy` deploys a flow."
        super().__init__(text, hint)

    @classmethod
    def of(cls, log: LogClient, wanted: "Reference") -> Self:
        """The error, with what is deployed in this log."""
        return cls(wanted.flow, wanted.name, {flow: list(log.deployments(flow)) for flow in log.flows()})


class DeploymentsChangeTooFast(EnvironmentProblem):
    """Every try to append lost to another writer."""

    code = "deployments-change-too-fast"

    def __init__(self, flow: str) -> None:
        super().__init__(f"The log of flow '{flow}' changes faster than it can be read.", "Try again later.")


class Reference(NamedTuple):
    """A deployment as people write it: FLOW:NAME."""

    flow: FlowName
    name: str = DEFAULT_NAME

    def __str__(self) -> str:
        return shown(self.flow, self.name)


class Change(NamedTuple):
    """An event of a flow's log, and what is deployed after it; None where nothing is."""

    record: FlowRecord
    deployment: Deployment | None


def shown(flow: str, name: str) -> str:
    """A deployment for people: FLOW:NAME, or FLOW for the default one."""
    return flow if name == DEFAULT_NAME else f"{flow}:{name}"


def parse(text: str) -> Reference:
    """Take FLOW:NAME apart, or PROJECT.BRANCH.FLOW.

    Raises:
        DeploymentNameInvalid: It is not of this form.
    """
    flow, colon, name = text.partition(":")
    if not colon:
        flow, name = taken_apart(text)
    if not flow.isidentifier():
        raise DeploymentNameInvalid(f"'{text}' does not begin with the name of a flow.")
    return Reference(FlowName(flow), checked_name(name) if colon or name else DEFAULT_NAME)


def checked_name(name: str) -> str:
    """The name, if it can be a deployment's.

    Raises:
        DeploymentNameInvalid: It cannot.
    """
    wrong = name_fault(name)
    if wrong is not None:
        raise DeploymentNameInvalid(wrong)
    return name


def deployed(log: LogClient, flow: FlowName) -> dict[str, Deployment]:
    """What is deployed of a flow now, by name."""
    return {name: unpacked(packed) for name, packed in log.deployments(flow).items()}


def find(log: LogClient, wanted: Reference) -> Deployment:
    """What is deployed under a name.

    Raises:
        DeploymentNotFound: Nothing is.
    """
    return unpacked(find_packed(log, wanted))


def find_packed(log: LogClient, wanted: Reference) -> bytes:
    """The same, as the log has it.

    Raises:
        DeploymentNotFound: Nothing is.
    """
    packed = log.deployments(wanted.flow).get(wanted.name)
    if packed is None:
        raise DeploymentNotFound.of(log, wanted)
    return packed


def history(log: LogClient, flow: FlowName) -> Iterator[FlowRecord]:
    """All events of a flow's log about its deployments, oldest first; where their positions are noted these alone are read."""
    marks = log.flow_marks(flow)
    if marks is None:
        yield from _searched(log, flow)
        return
    for seq in marks:
        record = next(records(log, flow, seq - 1, 1), None)
        if record is not None and record.seq == seq:
            yield record


def _searched(log: LogClient, flow: FlowName) -> Iterator[FlowRecord]:
    """The same, looked for in the whole log."""
    return (record for record in records(log, flow) if subject(record.event) is not None)


def last_version(log: LogClient, wanted: Reference) -> int:
    """The last version that a name ever had."""
    return fold(history(log, wanted.flow)).versions.get(wanted.name, 0)


def version_of(log: LogClient, wanted: Reference, version: int) -> Deployment | None:
    """A version of a deployment; one that is not deployed any more is looked for in the flow's log. None where it is not there."""
    packed = log.deployments(wanted.flow).get(wanted.name)
    now = None if packed is None else unpacked(packed)
    if now is not None and now.version == version:
        return now
    for record in history(log, wanted.flow):
        if isinstance(record.event, FlowDeployed) and (record.event.name, record.event.version) == (wanted.name, version):
            return after(None, record.event, record.at_us, record.principal)
    return None


def change(log: LogClient, wanted: Reference, decide: Callable[[Deployment | None], Event], *, user: str) -> Change:
    """Append the event that `decide` makes of what is deployed now, and change what is deployed in the same act.

    `decide` is asked again where somebody else was faster; what it raises is passed on.

    Raises:
        DeploymentsChangeTooFast: Somebody else was faster a hundred times.
    """
    principal = f"user:{user}"
    for _ in range(_MOST_TRIES):
        expected = log.flow_seq(wanted.flow)  # before what is deployed: a change between the two is a conflict
        marks = _marks(log, wanted.flow)
        packed = log.deployments(wanted.flow).get(wanted.name)
        before = None if packed is None else unpacked(packed)
        event = decide(before)
        at_us = log.now_us()
        now = after(before, event, at_us, principal)
        payload = flow_events.encode(event, at_us=at_us, principal=principal)
        try:
            changed = DeploymentChange(wanted.name, pack(now) if now else b"", (*marks, expected + 1), packed or b"")
            seq = log.append_flow(wanted.flow, expected, payload, changed)
        except Conflict:
            continue
        return Change(FlowRecord(seq, at_us, principal, event), now)
    raise DeploymentsChangeTooFast(wanted.flow)


def _marks(log: LogClient, flow: FlowName) -> tuple[int, ...]:
    """Where the events about deployments stand: a log that was written before positions were noted, or whose server lost them, is read once."""
    marks = log.flow_marks(flow)
    return tuple(record.seq for record in _searched(log, flow)) if marks is None else marks


def existing(log: LogClient, wanted: Reference, event: Event) -> Callable[[Deployment | None], Event]:
    """For `change`: this event, where something is deployed.

    Raises:
        DeploymentNotFound: From what is returned: nothing is.
    """

    def decide(before: Deployment | None) -> Event:
        if before is None:
            raise DeploymentNotFound.of(log, wanted)
        return event

    return decide
