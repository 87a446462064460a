"""What it costs to ask for the runs that begin by themselves."""

from collections import Counter
from pathlib import Path
from typing import Any, cast

from evflow import Parameter
from evflow.deployments.ledger import Ledger
from evflow.log.protocol import LogClient
from evflow.store.protocol import Store
from tests.unit.listening_world import LISTENING, ListenWorld, listening

TRIGGER = {"kind": "event", "events": list[object](), "trigger": 0}


class Counting:
    """Counts what is asked of a log or a store."""

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self.calls = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def counted(*given: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return found(*given, **named)

        return counted


def test_a_run_is_asked_for_in_two_exchanges_and_its_deployment_is_read_once(tmp_path: Path) -> None:
    world = ListenWorld(tmp_path)
    world.listen()
    log, store = Counting(world.log), Counting(world.store)
    ledger = Ledger(cast("LogClient", log), stores=lambda _: cast("Store", store))
    flow = ledger.load(LISTENING, world.log.flow_seq(LISTENING))
    [deployment] = flow.deployments.values()
    ledger.start(flow, ledger.ready(deployment, {}, TRIGGER), world.now_us)  # the first of all runs asks what archives have
    log.calls.clear()
    for number in (2, 3):
        ready = ledger.ready(flow.deployments[deployment.name], {}, TRIGGER)
        assert ledger.start(flow, ready, world.now_us).number == number
    assert log.calls == {"request_run": 2, "offer_run": 2, "clock_us": 6}, "a look at the clock is none"
    assert store.calls["get"] == 2, "the manifest and the defaults, once for both runs"


def test_another_version_of_a_deployment_is_read_anew(tmp_path: Path) -> None:
    world = ListenWorld(tmp_path)
    ledger = Ledger(world.log, stores=lambda _: world.store)
    for default in (3, 5):
        world.deploy(type(LISTENING, (listening(),), {"__module__": __name__, "size": Parameter("size", default=default)}))
        flow = ledger.load(LISTENING, world.log.flow_seq(LISTENING))
        [deployment] = flow.deployments.values()
        assert ledger.ready(deployment, {}, TRIGGER).given.shown == {"size": str(default)}
