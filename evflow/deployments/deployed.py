"""`DeployedFlow`: what is deployed under a name, seen from Python, and asking for runs of it.

It is no snapshot: whatever can change is asked of the log when it is asked for.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from evflow import clock, config
from evflow.client.connection import SharedLog, shared_log
from evflow.client.objects import local_time
from evflow.core.deployments import Deployment, unpacked
from evflow.core.events import Event
from evflow.core.flow_events import FlowPaused, FlowUndeployed, FlowUnpaused
from evflow.core.ids import FlowName
from evflow.deployments.beginning import take_number
from evflow.deployments.catalog import Reference, change, deployed, existing, find, find_packed, parse
from evflow.deployments.request import Asked, KnownContents, Ready, Requested, make_ready, offer
from evflow.deployments.triggered import TriggeredRun
from evflow.imports import framework_view
from evflow.log.flow_commands import DeploymentMoved
from evflow.log.protocol import Deployed, LogClient
from evflow.store import open_store

T = TypeVar("T")
_LATELY_S: Final = 1.0
"""How long what was seen of a deployment is good for a request."""
_MOST_TRIES: Final = 3
"""Each event that starts a run changes its deployment: who loses to such changes so often asks for a run of what was deployed a moment ago."""


class DeployedFlow:
    """A deployment. `Deployer` and `from_deployment` make them; equal where they are the same deployment."""

    __slots__ = ("_contents", "_reference", "_seen")

    _reference: Reference
    _contents: KnownContents
    _seen: "_Seen | None"

    def __init__(self, name: str) -> None:
        """Look a deployment up; see `from_deployment`."""
        with framework_view():
            self._begin(parse(name))
        self._now()

    @classmethod
    def of(cls, reference: Reference) -> "DeployedFlow":
        """One that is known to exist."""
        made = cls.__new__(cls)
        made._begin(reference)  # noqa: SLF001 - its own class
        return made

    @classmethod
    def from_deployment(cls, identifier: str, metadata: str | None = None, impl: str | None = None) -> "DeployedFlow":
        """What is deployed under a name, `Flow:name`, or `Flow` for the one called `default`.

        Args:
            identifier: The name.
            metadata: Metaflow's, accepted and not used: here there is one log.
            impl: As `metadata`: there is one scheduler.

        Raises:
            DeploymentNameInvalid: The name is of another form.
            DeploymentNotFound: Nothing is deployed under it.
        """
        return cls(identifier)

    @classmethod
    def list_deployed_flows(cls, flow_name: str | None = None, impl: str | None = None) -> Iterator["DeployedFlow"]:
        """All that is deployed, of one flow if one is named, in the order of their names; `impl` as in `from_deployment`."""
        log = shared_log()
        if not log.exists():
            return
        names = log.ask(lambda asked: asked.flows())
        for flow in [name for name in names if flow_name in (None, name)]:
            for name in log.ask(partial(deployed, flow=flow)):
                yield cls.of(Reference(flow, name))

    @classmethod
    def get_triggered_run(cls, identifier: str, run_id: str | int, metadata: str | None = None, impl: str | None = None) -> TriggeredRun:
        """A run that was asked for.

        Args:
            identifier: The deployment.
            run_id: The run's number, or its pathspec.
            metadata: As in `from_deployment`.
            impl: As in `from_deployment`.

        Raises:
            EvflowNotFound: There is no such run.
        """
        return TriggeredRun(f"{parse(identifier).flow}/{str(run_id).rpartition('/')[2]}")

    # --- what it is -----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name among all deployments, which `from_deployment` takes: `Flow:name`, or `Flow` for the one called `default`."""
        return str(self._reference)

    @property
    def flow_name(self) -> str:
        """The flow's name."""
        return self._reference.flow

    @property
    def version(self) -> int:
        """The version that is deployed now."""
        return self._now().version

    @property
    def namespace(self) -> str:
        """The namespace of its runs."""
        return self._now().namespace

    @property
    def production(self) -> bool:
        """Whether it was deployed for production."""
        return self._now().production

    @property
    def user(self) -> str:
        """Who deployed it."""
        return self._now().user

    @property
    def deployed_at(self) -> datetime:
        """When it was deployed."""
        return local_time(self._now().deployed_us)

    @property
    def paused(self) -> bool:
        """Whether schedules and triggers start no runs of it."""
        return self._now().paused

    @property
    def schedule(self) -> Mapping[str, Any] | None:
        """When its runs begin by themselves (`cron`, `timezone`, …), or None."""
        return self._now().schedule

    # --- what can be done with it ---------------------------------------------------------------------------

    def trigger(self, parameters: Mapping[str, object] | None = None, /, *, tags: Sequence[str] = (), **named: object) -> TriggeredRun:
        """Ask for a run. A scheduler carries it out; until one takes it, the run is `requested`.

        It is a run of the version that is deployed when it gets its number. Several in a row cost two exchanges with the log each.

        Args:
            parameters: Parameters by their names, where those are no words of Python.
            tags: Tags of the run, besides the deployment's.
            named: Parameters: values, or texts as on a command line.

        Raises:
            DeploymentNotFound: It is not deployed any more.
            ParameterUnknown, ParameterInvalid, ParameterMissing, TagInvalid: The request does not fit the flow. No run was started.
            DeploymentIsElsewhere: What was deployed is not in the store as this machine sees it.
            LogUnavailable: The server cannot be used.
        """
        wished = (tags,) if isinstance(tags, str) else tuple(tags)
        with framework_view():
            asked = Asked({**(parameters or {}), **named}, wished, config.get("user"), os.uname().nodename)
            log, tries = shared_log(), 0
            while True:
                packed, found = self._seen_lately(log)
                store = open_store(found.store)
                ready = make_ready(store, found, asked, self._contents.of(store, found, asked.host))
                # It may have been changed since: the act that takes the number looks.
                expected = Deployed(found.name, packed) if tries < _MOST_TRIES else None
                try:
                    requested = log.ask(partial(_request, ready=ready, expected=expected), repeat=False)
                except DeploymentMoved as moved:
                    self._seen = _Seen.of(log, moved.found) if moved.found else None
                    tries += 1
                else:
                    return TriggeredRun.of(requested.run, found.version)

    async def async_trigger(
        self, parameters: Mapping[str, object] | None = None, /, *, tags: Sequence[str] = (), **named: object
    ) -> TriggeredRun:
        """As `trigger`, without blocking the event loop."""
        return await in_thread(lambda: self.trigger(parameters, tags=tags, **named))

    def pause(self) -> None:
        """Let nothing but people start runs of it, until `unpause`."""
        if not self.paused:
            self._change(FlowPaused(self._reference.name))

    def unpause(self) -> None:
        """End a pause."""
        if self.paused:
            self._change(FlowUnpaused(self._reference.name))

    def undeploy(self) -> None:
        """Take the deployment away: no more runs of it can be asked for. Its runs go on."""
        self._now()
        self._change(FlowUndeployed(self._reference.name))

    delete = undeploy
    """Metaflow's name for it."""

    def __repr__(self) -> str:
        return f"DeployedFlow('{self.name}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeployedFlow) and other.name == self.name

    def __hash__(self) -> int:
        return hash(("DeployedFlow", self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return DeployedFlow.of, (self._reference,)

    def _begin(self, reference: Reference) -> None:
        self._reference = reference
        self._contents = KnownContents(1)
        self._seen = None

    def _now(self) -> Deployment:
        return shared_log().ask(lambda log: find(log, self._reference))

    def _seen_lately(self, log: SharedLog) -> tuple[bytes, Deployment]:
        """What is deployed, as it was a moment ago at most.

        It is asked for again soon, though what is made of it is checked: a connection that broke is to be met by a question, which may
        be repeated, and not by a request, which may not.
        """
        seen = self._seen
        if seen is None or seen.log is not log or clock.monotonic_s() - seen.at_s > _LATELY_S or not log.is_connected():
            seen = self._seen = _Seen.of(log, log.ask(partial(find_packed, wanted=self._reference)))
        return seen.packed, seen.deployment

    def _change(self, event: Event) -> None:
        wanted, user = self._reference, config.get("user")
        shared_log().ask(lambda log: change(log, wanted, existing(log, wanted, event), user=user), repeat=False)


class _Seen(NamedTuple):
    """What was deployed at an instant (seconds of the monotonic clock), in a log."""

    log: SharedLog
    at_s: float
    packed: bytes
    deployment: Deployment

    @classmethod
    def of(cls, log: SharedLog, packed: bytes) -> "_Seen":
        """What is seen now."""
        return cls(log, clock.monotonic_s(), packed, unpacked(packed))


def _request(log: LogClient, ready: Ready, expected: Deployed | None) -> Requested:
    run = take_number(log, FlowName(ready.manifest.flow), ready.requested(), deployed=expected, store=ready.deployment.store)
    return offer(log, ready, run)


async def in_thread(call: Callable[[], T]) -> T:
    """Call something that blocks beside the event loop."""
    with framework_view():
        from anyio.to_thread import run_sync

    return await run_sync(call)
