"""What every event log promises of the logs of flows, of numbers, the index, what is deployed and what is published."""

from dataclasses import replace
from functools import partial

import anyio
import pytest

from evflow import clock
from evflow.core import flow_events
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.errors import Conflict
from evflow.log.flow_commands import DeploymentMoved, FlowLogForked, NumbersUnknown
from evflow.log.protocol import BackfillChange, Deployed, DeploymentChange, EventLog, Keep, LogClient, RunEntry, TagChange
from tests.contract.log_worlds import RUN, SHARD, RealWorld, World, request
from tests.waiting import wait_until_async

pytestmark = pytest.mark.may_block("the blocking client is called from the test's loop")


def test_runs_are_numbered_densely_and_each_has_its_request(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert [client.request_run(flow, request(user)) for user in ("ada", "bob")] == [1, 2]
    records = [flow_events.decode(*event) for event in client.flow_events(flow)]
    assert [record.event for record in records] == [flow_events.RunRequested(1, "ada"), flow_events.RunRequested(2, "bob")]
    assert [record.seq for record in records] == [1, 2]
    assert client.flow_seq(flow) == 2


def test_a_number_lies_above_the_archived_ones(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert client.request_run(flow, request(), minimum=300) == 301
    assert client.request_run(flow, request(), minimum=7) == 302
    assert flow_events.decode(*client.flow_events(flow)[0]).event == flow_events.RunRequested(301, "ada")


def test_a_request_that_follows_from_the_log_s_end_takes_its_number_there_only(client: LogClient) -> None:
    flow = FlowName("Flow")
    first = DeploymentChange("default", b"ticked once")
    assert client.request_run(flow, request(), expected=Seq(0), change=first) == 1
    for stale in (0, 2):
        with pytest.raises(Conflict):
            client.request_run(flow, request(), expected=Seq(stale), change=DeploymentChange("default", b"ticked twice"))
    assert client.deployments(flow) == {"default": b"ticked once"}
    assert client.flow_seq(flow) == 1
    assert client.request_run(flow, request("bob"), 10, Seq(1), DeploymentChange("nightly", b"n")) == 11
    assert client.request_run(flow, request()) == 12
    assert client.deployments(flow) == {"default": b"ticked once", "nightly": b"n"}
    assert [flow_events.decode(*event).event for event in client.flow_events(flow)] == [
        flow_events.RunRequested(1, "ada"), flow_events.RunRequested(11, "bob"), flow_events.RunRequested(12, "ada"),
    ]  # fmt: skip


def test_a_request_of_a_deployment_takes_a_number_where_that_is_deployed_still(client: LogClient) -> None:
    flow = FlowName("Flow")
    mine = Deployed("default", b"first")
    with pytest.raises(DeploymentMoved) as gone:
        client.request_run(flow, request(), deployed=mine)
    assert gone.value.found == b""
    client.append_flow(flow, Seq(0), b"event", DeploymentChange("default", b"first"))
    assert client.request_run(flow, request(), deployed=mine) == 1
    client.append_flow(flow, Seq(2), b"event", DeploymentChange("default", b"second"))
    with pytest.raises(DeploymentMoved) as moved:
        client.request_run(flow, request(), deployed=mine)
    assert moved.value.found == b"second"
    assert client.request_run(flow, request(), deployed=Deployed("default", b"second")) == 2
    assert client.flow_seq(flow) == 4


def test_no_number_is_taken_where_nobody_says_behind_which_and_the_server_knows_none(client: LogClient) -> None:
    flow = FlowName("Flow")
    with pytest.raises(NumbersUnknown):
        client.request_run(flow, request(), minimum=None)
    assert (client.counter(flow), client.flow_seq(flow)) == (0, 0)
    assert client.request_run(flow, request(), minimum=0) == 1
    assert client.request_run(flow, request(), minimum=None) == 2


async def test_an_offer_is_a_line_in_the_index_and_a_report(log: EventLog, client: LogClient) -> None:
    entry = RunEntry(RUN, SHARD, {"status": "requested"})
    assert client.offer_run(entry, b"first event")
    assert client.run(RUN) == entry
    assert [(inbound.run, inbound.payload) for inbound in await log.receive(SHARD, b"0", 0)] == [(str(RUN), b"first event")]


def test_the_clock_for_times_that_are_written_down_is_the_server_s(client: LogClient) -> None:
    began_us = clock.now_us()
    before_us = client.now_us()
    took_us = clock.now_us() - began_us  # a comparison is as exact as half of its exchange
    between_us = client.clock_us()
    assert before_us - took_us <= between_us <= client.now_us() + took_us


def test_the_ends_of_several_flows_logs_are_asked_in_one_request(client: LogClient) -> None:
    flow, other, nothing = FlowName("Flow"), FlowName("Other"), FlowName("Nothing")
    client.request_run(flow, request())
    client.request_run(other, request())
    client.append_flow(other, Seq(1), b"event")
    assert client.flow_seqs([other, nothing, flow]) == [2, 0, 1]
    assert client.flow_seqs([]) == []


def test_flows_are_listed_once_a_run_was_asked_for(client: LogClient) -> None:
    assert client.flows() == []
    for flow in ("Zebra", "Ant", "Zebra"):
        client.request_run(FlowName(flow), request())
    assert client.flows() == ["Ant", "Zebra"]


async def test_the_index_answers_the_newest_runs_first(log: EventLog, client: LogClient) -> None:
    flow = FlowName("Flow")
    for number in (1, 2, 3):
        client.request_run(flow, request())
        client.index_run(RunEntry(RunId(flow, RunNumber(number)), f"run:Flow:{number}", {"status": "running"}))
    last = RunEntry(RunId(flow, RunNumber(3)), "run:Flow:3", {"status": "done", "tags": ["a"], "tasks": {"start": 1}})
    await log.index_run(last)
    assert [entry.run.number for entry in client.runs(flow)] == [3, 2, 1]
    assert client.runs(flow, limit=2) == [last, client.run(RunId(flow, RunNumber(2)))]
    assert client.run(RunId(flow, RunNumber(9))) is None
    assert client.runs(FlowName("Nothing")) == []


def test_a_flow_s_log_takes_an_event_at_its_end_only(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert client.flow_seq(flow) == 0
    client.request_run(flow, request())
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(0), b"stale")
    assert client.append_flow(flow, Seq(1), b"fresh") == 2
    assert [event.payload for event in client.flow_events(flow, after=1)] == [b"fresh"]


def test_tags_change_with_their_event_or_not_at_all(client: LogClient) -> None:
    assert client.tags(RUN) is None
    assert client.append_flow(RUN.flow, Seq(0), b"event", TagChange(RUN, ("a", "b"))) == 1
    with pytest.raises(Conflict):
        client.append_flow(RUN.flow, Seq(0), b"event", TagChange(RUN, ()))
    assert client.tags(RUN) == ("a", "b")


def test_the_changed_tags_of_a_flow_are_read_in_one_request(client: LogClient) -> None:
    assert client.all_tags(RUN.flow) == {}
    other = RunId(RUN.flow, RunNumber(RUN.number + 10))
    client.append_flow(RUN.flow, Seq(0), b"event", TagChange(RUN, ("a", "b")))
    client.append_flow(RUN.flow, Seq(1), b"event", TagChange(other, ()))
    assert client.all_tags(RUN.flow) == {RUN.number: ("a", "b"), other.number: ()}
    assert client.all_tags(FlowName("Nothing")) == {}


def test_a_deployment_changes_with_its_event_or_not_at_all(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert client.deployments(flow) == {}
    assert client.append_flow(flow, Seq(0), b"event", DeploymentChange("nightly", b"first")) == 1
    assert client.append_flow(flow, Seq(1), b"event", DeploymentChange("default", b"other")) == 2
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(1), b"event", DeploymentChange("nightly", b"late"))
    assert list(client.deployments(flow).items()) == [("default", b"other"), ("nightly", b"first")]
    assert client.append_flow(flow, Seq(2), b"event", DeploymentChange("default", b"")) == 3
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(2), b"event", DeploymentChange("nightly", b""))
    assert client.deployments(flow) == {"nightly": b"first"}
    assert client.all_tags(flow) == {}


def test_where_events_about_deployments_stand_is_noted_with_them(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert client.flow_marks(flow) is None
    client.request_run(flow, request())
    client.append_flow(flow, Seq(1), b"event", DeploymentChange("nightly", b"first", (2,)))
    client.append_flow(flow, Seq(2), b"event", DeploymentChange("nightly", b"ticked"))
    assert client.flow_marks(flow) == (2,)
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(2), b"event", DeploymentChange("nightly", b"late", (2, 3)))
    client.append_flow(flow, Seq(3), b"event", DeploymentChange("nightly", b"", (2, 4)))
    assert client.flow_marks(flow) == (2, 4)


def test_a_backfill_changes_with_its_event_or_its_run_or_not_at_all(client: LogClient) -> None:
    flow = FlowName("Flow")
    assert (client.backfills(flow), client.backfilled()) == ({}, [])
    assert client.append_flow(flow, Seq(0), b"event", BackfillChange(10, b"ten")) == 1
    assert client.append_flow(flow, Seq(1), b"event", BackfillChange(2, b"two")) == 2
    with pytest.raises(Conflict):
        client.append_flow(flow, Seq(1), b"event", BackfillChange(2, b"late"))
    with pytest.raises(Conflict):
        client.request_run(flow, request(), expected=Seq(1), change=BackfillChange(2, b"late"))
    assert client.request_run(flow, request(), expected=Seq(2), change=BackfillChange(2, b"asked")) == 1
    assert list(client.backfills(flow).items()) == [(2, b"asked"), (10, b"ten")]
    assert client.backfilled() == ["Flow"]
    assert client.deployments(flow) == {}


@pytest.mark.parametrize("change", [DeploymentChange("nightly", b"then", before=b"was"), BackfillChange(1, b"then", before=b"was")])
def test_a_change_that_was_made_of_something_else_than_what_is_there_is_refused(
    client: LogClient, change: DeploymentChange | BackfillChange
) -> None:
    """As after a fail-over that lost events, and others that stand in their place: the position alone says nothing."""
    flow = FlowName("Flow")
    for end, there in enumerate((b"", b"other")):
        if there:
            client.append_flow(flow, Seq(0), b"event", replace(change, packed=there, before=b""))
        with pytest.raises(FlowLogForked):
            client.append_flow(flow, Seq(end), b"event", change)
        with pytest.raises(FlowLogForked):
            client.request_run(flow, request(), expected=Seq(end), change=change)
    assert client.flow_seq(flow) == 1
    with pytest.raises(FlowLogForked):
        client.append_flow(flow, Seq(1), b"event", replace(change, before=b""))
    assert client.append_flow(flow, Seq(1), b"event", replace(change, packed=b"was", before=b"other")) == 2
    assert client.request_run(flow, request(), expected=Seq(2), change=change) == 1
    assert [*client.deployments(flow).values(), *client.backfills(flow).values()] == [b"then"]


def test_a_flow_is_listed_once_it_is_deployed(client: LogClient) -> None:
    client.append_flow(FlowName("Flow"), Seq(0), b"event", DeploymentChange("default", b"first"))
    assert client.flows() == ["Flow"]


async def test_schedulers_that_say_that_they_live_are_known_until_they_end_or_fall_silent(client: LogClient) -> None:
    assert client.schedulers() == []
    assert client.schedulers("b", 60) == ["b"]
    assert client.schedulers("a", 60) == ["a", "b"]
    assert client.schedulers("c", 0.01) == ["a", "b", "c"]

    async def is_forgotten() -> bool:
        return client.schedulers() == ["a", "b"]

    await wait_until_async(is_forgotten, "the silent one is forgotten")
    assert client.schedulers("a", 0) == ["b"]
    assert client.schedulers("never was", 0) == ["b"]


# --- what is published ------------------------------------------------------------------------------------


def test_an_event_is_published_once_whoever_repeats_it(client: LogClient) -> None:
    first = client.publish("one", b"body")
    assert first.is_new
    assert client.publish("one", b"another body") == (first.at_us, False)
    second = client.publish("two", b"")
    assert second.is_new
    assert second.at_us > first.at_us
    assert client.published() == [(first.at_us, "one", b"body"), (second.at_us, "two", b"")]
    assert client.published(first.at_us) == [(second.at_us, "two", b"")]
    assert client.published(limit=1) == [(first.at_us, "one", b"body")]
    assert client.event_bounds() == (0, second.at_us)


def test_nothing_is_published_at_first(client: LogClient) -> None:
    assert client.published() == []
    assert client.event_bounds() == (0, 0)
    assert client.looked_at() == {}


def test_more_events_than_are_kept_push_the_oldest_out_and_their_ids_stay_known(client: LogClient) -> None:
    keep = Keep(most=3)
    places = [client.publish(f"e{number}", b"", keep).at_us for number in range(5)]
    assert [event.id for event in client.published()] == ["e2", "e3", "e4"]
    assert client.event_bounds() == (places[1], places[4])
    assert not client.publish("e0", b"", keep).is_new


def test_what_is_older_than_it_is_kept_goes_with_the_next_event_and_its_id_is_new_again(client: LogClient) -> None:
    client.publish("old", b"")
    place = client.publish("new", b"", Keep(time_us=1)).at_us
    assert [event.id for event in client.published()] == ["new"]
    assert client.event_bounds().last_us == place
    assert client.publish("old", b"").is_new


def test_a_large_surplus_goes_in_portions(client: LogClient) -> None:
    for number in range(250):
        client.publish(str(number), b"")
    for number, left in ((250, 151), (251, 52), (252, 2), (253, 2)):
        client.publish(str(number), b"", Keep(most=2))
        assert len(client.published()) == left


def test_how_far_flows_have_looked_is_kept(client: LogClient) -> None:
    client.look_at({FlowName("One"): 5, FlowName("Two"): 6})
    client.look_at({FlowName("One"): 7})
    client.look_at({})
    assert client.looked_at() == {"One": 7, "Two": 6}


async def test_whoever_waits_for_events_gets_them_as_they_are_published(world: World, log: EventLog, client: LogClient) -> None:
    assert await log.published(0, 0.01) == []
    found: list[str] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            after_us = 0
            while len(found) < 2:
                for event in await log.published(after_us, 20):
                    after_us = event.at_us
                    found.append(event.id)

        group.start_soon(wait)
        client.publish("one", b"")
        await wait_until_async(partial(have_come, found, "one"), "the first event comes")
        assert (await log.publish("two", b"")).is_new
        await wait_until_async(partial(have_come, found, "one", "two"), "the second one comes")


async def have_come(found: list[str], *ids: str) -> bool:
    return found == list(ids)


def test_what_somebody_else_writes_there_is_an_event_without_an_id(world: World, client: LogClient) -> None:
    if not isinstance(world, RealWorld):
        pytest.skip("nobody else writes to the simulated log")
    place = client.publish("one", b"").at_us
    world.call("XADD", "{evflow:events}:log", f"{place + 1}-0", "what", "ever")
    assert client.published() == [(place, "one", b""), (place + 1, "", b"")]


def test_a_log_has_one_identity(world: World, client: LogClient) -> None:
    identity = client.installation()
    assert identity
    assert client.installation() == identity == world.client().installation()


async def test_the_clock_is_the_server_s_and_never_goes_back(log: EventLog, client: LogClient) -> None:
    await log.now_us()
    instants = [log.clock_us() for _ in range(100)]
    assert instants == sorted(instants)
    assert abs(client.now_us() - log.clock_us()) < 60_000_000
