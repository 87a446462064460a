"""`evflow top`: what is shown of an overview, what keys mean, and what a watch makes of a log."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, strategies as st

from evflow.cli.panel import ASCII
from evflow.cli.top.keys import after
from evflow.cli.top.overview import ORDERS, Overview, RunRow, SchedulerRow, TickRow, Wish, chosen, failures, plain
from evflow.cli.top.panel import lines
from evflow.cli.top.watch import LOOK_EVERY_US, Watch
from evflow.core import chain
from evflow.core.explain_said import WaitsForStore
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log.errors import LogConnectionLost
from evflow.log.feeds import Feeds
from evflow.log.keys import shared_shard
from evflow.log.protocol import AppendCall, RunEntry
from evflow.testing.simulated_log import SimulatedEventLog, SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer
from tests.core_run import CoreRun, fan, node

NOW_US = 1_800_000_000_000_000
RUN = RunId(FlowName("Train"), RunNumber(3))


def row(number: int, flow: str = "Train", *, status: str = "running", since_s: int = 10, **fields: object) -> RunRow:
    plain_row = RunRow(f"{flow}/{number}", flow, number, status, "work", 3, 8, 2, (("slot", 3), ("join", 1)), NOW_US - since_s * 1_000_000, 0,
                       "ada", "box:7")  # fmt: skip
    return replace(plain_row, **fields)  # type: ignore[arg-type]


FULL = Overview(
    now_us=NOW_US,
    where="redis:6379",
    schedulers=(SchedulerRow("box", "7", ("s0", "s1"), 2),),
    free=("s2",),
    live=(row(3), row(1, "Load", since_s=99, running=5, waiting=())),
    ended=(row(2, status="failed", until_us=NOW_US - 65_000_000, reason="Step 'x' failed: no\nmore"),),
    ticks=(TickRow("Load", NOW_US + 20_000_000),),
    rate=1.25,
)


def shown(overview: Overview, wish: Wish | None = None, *, width: int = 120, height: int | None = None) -> list[str]:
    return [line.plain for line in lines(overview, wish or Wish(), width=width, height=height)]


def test_all_that_goes_on_is_shown() -> None:
    text = "\n".join(shown(FULL))
    for part in ("7 running, 3 waiting, 1.2 tasks/s", "box, process 7      2  s0 s1", "Nobody owns s2", "3 slot, 1 join", "in 20 s",
                 "Train/2          1 m 05 s ago  Step 'x' failed: no"):  # fmt: skip
        assert part in text
    assert "more" not in text


def test_without_a_scheduler_it_says_what_that_means() -> None:
    assert "No scheduler runs" in "\n".join(shown(replace(FULL, schedulers=())))


@given(width=st.integers(20, 200), height=st.integers(4, 60), count=st.integers(0, 80), glyphs=st.sampled_from(["u", "a"]))
def test_it_always_fits_the_terminal(width: int, height: int, count: int, glyphs: str) -> None:
    overview = replace(FULL, live=tuple(row(number, "Flow" * (number % 9 + 1)) for number in range(count)))
    drawn = lines(overview, Wish(), width=width, height=height, **({"glyphs": ASCII} if glyphs == "a" else {}))
    assert len(drawn) == height
    assert max(line.cell_len for line in drawn) < width


def test_runs_beyond_the_terminal_are_counted() -> None:
    overview = replace(FULL, live=tuple(row(number) for number in range(50)))
    assert "more runs" in "\n".join(shown(overview, height=30))


@pytest.mark.parametrize(("order", "first"), [("age", "Train/3"), ("flow", "Load/1"), ("tasks", "Load/1"), ("waiting", "Train/3")])
def test_each_order_has_its_first(order: str, first: str) -> None:
    assert chosen(FULL.live, Wish(order))[0].run == first  # type: ignore[arg-type]


def test_a_filter_takes_a_part_of_a_flow_s_name_in_runs_ticks_and_failures() -> None:
    wish = Wish(flow="rai")
    told = plain(FULL, wish)
    assert [run["run"] for run in told["runs"]] == ["Train/3"]
    assert told["next_ticks"] == []
    assert [run.run for run in failures(FULL, wish)] == ["Train/2"]
    assert failures(FULL, Wish(flow="load")) == []


def test_keys_sort_filter_and_end() -> None:
    wish = Wish()
    assert after(wish, "q") is None
    for order in (*ORDERS[1:], ORDERS[0]):
        wish = cast("Wish", after(wish, "s"))
        assert wish.order == order
    for key in ("/", "q", "x", "\x7f", "\r"):
        wish = cast("Wish", after(wish, key))
    assert wish == Wish(flow="q")
    assert after(wish, "\x1b") == Wish()


# --- a watch ----------------------------------------------------------------------------------------------


class Told:
    """Feeds that say what a test says."""

    def __init__(self) -> None:
        self.followed: set[str] = set()
        self.changed: set[tuple[str, str]] = set()

    def follow(self, shards: Iterable[str]) -> None:
        self.followed.update(shards)

    def leave(self, shard: str) -> None:
        self.followed.discard(shard)

    def wait(self, _: float) -> set[tuple[str, str]]:
        changed, self.changed = self.changed, set()
        return changed


async def test_a_run_is_followed_from_its_feed_to_its_end() -> None:
    now_us = NOW_US
    server = SimulatedServer(lambda: now_us)
    log, feeds, owner = SimulatedLogClient(server), Told(), SimulatedEventLog(server)
    shard = shared_shard(RUN)
    watch = Watch(log, cast("Feeds", feeds), "here")
    lease = await owner.take(shard, "box:7:1:x", 60.0)
    log.schedulers("box:7:1:x", 60.0)
    watch.look(0)
    assert watch.overview().live == ()
    run = CoreRun(*fan())

    async def write() -> None:
        nonlocal now_us
        now_us += 100_000
        head = await owner.head(shard, RUN)
        stored = run.stored()[head.seq :]
        links = chain.links(chain.START, run.payloads())[head.seq :]
        await owner.append(lease, AppendCall(RUN, head, tuple(one.payload for one in stored), tuple(links)))
        feeds.changed = {(shard, str(RUN))}

    run.turn()
    await write()
    log.index_run(RunEntry(RUN, shard, {"status": "running", "started_us": NOW_US}))
    watch.look(0)
    [seen] = watch.overview().live
    assert (seen.run, seen.status, seen.step, seen.waiting, seen.where) == ("Train/3", "running", "start", (("slot", 1),), "box:7")
    run.fail(1)
    await write()
    watch.look(0)
    found = watch.overview()
    assert found.live == ()
    assert [(one.run, one.status) for one in found.ended] == [("Train/3", "failed")]
    assert "failed" in found.ended[0].reason


async def test_what_waits_for_a_limit_is_said_to_wait_for_it_for_as_long_as_another_run_holds_it() -> None:
    now_us = NOW_US
    server = SimulatedServer(lambda: now_us)
    log, owner, shard = SimulatedLogClient(server), SimulatedEventLog(server), shared_shard(RUN)
    lease = await owner.take(shard, "box:7:1:x", 60.0)
    run = CoreRun(node("start", "end", limits={"db": 1}), node("end"))
    run.turn()
    head = await owner.head(shard, RUN)
    payloads = run.payloads()
    await owner.append(lease, AppendCall(RUN, head, tuple(payloads), tuple(chain.links(chain.START, payloads))))
    log.index_run(RunEntry(RUN, shard, {"status": "running", "started_us": NOW_US}))
    watch = Watch(log, cast("Feeds", Told()), "here")

    def waiting() -> tuple[tuple[str, int], ...]:
        nonlocal now_us
        now_us += LOOK_EVERY_US
        watch.look(0)
        [seen] = watch.overview().live
        return seen.waiting

    assert waiting() == (("slot", 1),), "it is to be had"
    await owner.acquire("key:db", 1, "s7", ["Load/1/1.0"])
    assert waiting() == (("limit", 1),)
    log.set_limit("key:db", 2)
    assert waiting() == (("slot", 1),), "the operator lets two hold it"
    log.set_limit("flow:TestFlow", 0)
    assert waiting() == (("limit", 1),)
    assert "1 limit" in "\n".join(shown(watch.overview()))
    assert plain(watch.overview(), Wish())["runs"][0]["waiting"] == {"limit": 1}


async def test_what_is_about_to_begin_and_waits_for_its_store_is_said_to_wait_for_it() -> None:
    class Said(SimulatedLogClient):
        def said_waits(self, shards: Sequence[str]) -> Mapping[str, Sequence[WaitsForStore]]:
            assert list(shards) == [shared_shard(RUN)], "runs of which nothing is to begin are not asked for"
            return {str(RUN): [WaitsForStore("local", 0, "It is away.", NOW_US, NOW_US, by)]}

    server = SimulatedServer(lambda: NOW_US)
    log, owner, shard, by = Said(server), SimulatedEventLog(server), shared_shard(RUN), "box:7:1:x"
    lease = await owner.take(shard, by, 60.0)
    run = CoreRun(*fan())
    run.grant(1)
    head = await owner.head(shard, RUN)
    payloads = run.payloads()
    await owner.append(lease, AppendCall(RUN, head, tuple(payloads), tuple(chain.links(chain.START, payloads))))
    log.index_run(RunEntry(RUN, shard, {"status": "running", "started_us": NOW_US}))
    watch = Watch(log, cast("Feeds", Told()), "here")
    watch.look(0)
    [seen] = watch.overview().live
    assert (seen.waiting, seen.running) == ((("store", 1),), 0)
    by = "box:6:1:y"
    watch = Watch(log, cast("Feeds", Told()), "here")
    watch.look(0)
    [seen] = watch.overview().live
    assert (seen.waiting, seen.running) == ((), 1), "a former owner said it"


def test_a_server_that_is_away_leaves_what_was_known() -> None:
    class Away(Told):
        def wait(self, _: float) -> set[tuple[str, str]]:
            raise LogConnectionLost("there")

    log = SimulatedLogClient(SimulatedServer(lambda: NOW_US))
    log.index_run(RunEntry(RUN, "s0", {"status": "requested", "requested_us": NOW_US}))
    watch = Watch(log, cast("Feeds", Away()), "there")
    with pytest.raises(LogConnectionLost):
        watch.look(0)
    found = watch.overview("it is away")
    assert [one.status for one in found.live] == ["requested"]
    assert "it is away" in shown(found)[0]
