"""What every event log promises of names that only so many may hold."""

import pytest

from evflow.core import line
from evflow.core.line import KEPT_US, Rank
from evflow.log import limits
from evflow.log.limits import LOOK
from evflow.log.protocol import EventLog, LogClient
from tests.contract.log_worlds import SHARD

pytestmark = pytest.mark.may_block("the blocking client is called from the test's loop")


async def test_no_more_hold_a_name_than_may_and_each_has_a_slot(log: EventLog, client: LogClient) -> None:
    assert await log.acquire("key:a}b", 2, SHARD, ["F/1/1.0", "F/1/2.0", "F/1/3.0"]) == (2, {"F/1/1.0": 0, "F/1/2.0": 1}, 0)
    assert await log.acquire("key:a}b", 2, SHARD, ["F/1/2.0"]) == (2, {"F/1/2.0": 1}, 0), "whoever holds it keeps its slot"
    assert await log.acquire("key:other", 1, SHARD, ["F/1/3.0"]) == (1, {"F/1/3.0": 0}, 0)
    await log.give_back("key:a}b", ["F/1/1.0", "F/9/9.0"])
    assert await log.acquire("key:a}b", 2, SHARD, ["F/1/3.0", "F/1/4.0"]) == (2, {"F/1/3.0": 0}, 0)
    assert await log.acquire("key:a}b", 1, SHARD, ["F/1/5.0"]) == (2, {}, 0), "a lower limit takes nothing away"
    held = client.holders("key:a}b")
    assert [(one.name, one.slot, one.shard) for one in held] == [("F/1/3.0", 0, SHARD), ("F/1/2.0", 1, SHARD)]
    assert all(abs(one.since_us - client.now_us()) < 60_000_000 for one in held)
    client.set_limit("flow:F", 3)
    assert client.limited() == ["key:a}b", "key:other"]
    names = ["key:other", "key:a}b", "key:never"]
    assert client.standings(names) == [(client.holders(name), client.line(name)) for name in names]
    assert [len(held) for held, _ in client.standings(names)] == [1, 2, 0]
    assert client.standings([]) == []
    assert await log.limited() == ({"flow:F": 3}, ["key:a}b", "key:other"])


async def test_what_runs_holds_its_name_whatever_the_limit(log: EventLog) -> None:
    await log.acquire("flow:F", 1, SHARD, ["F/1/1.0"])
    assert await log.hold("flow:F", SHARD, ["F/1/2.0", "F/1/1.0"]) == (2, {"F/1/2.0": 1, "F/1/1.0": 0}, 0)


async def test_whoever_was_refused_is_woken_when_the_name_is_given_back(log: EventLog, client: LogClient) -> None:
    await log.acquire("key:a", 1, "s1", ["F/1/1.0"])
    await log.acquire("key:a", 1, SHARD, ["F/2/1.0"])
    await log.give_back("key:a", ["F/2/1.0"])
    assert await log.receive(SHARD, b"0", 0) == [], "it gave nothing back"
    await log.give_back("key:a", ["F/1/1.0"])
    [woken] = await log.receive(SHARD, b"0", 0)
    assert (woken.run, woken.payload) == ("", LOOK)
    assert await log.receive("s1", b"0", 0) == []
    await log.acquire("key:a", 1, "s1", ["F/1/1.0"])
    await log.give_back("key:a", ["F/1/1.0"])
    assert len(await log.receive(SHARD, b"0", 0)) == 1, "it is told once"
    client.wake([SHARD, "s1"])
    client.wake([])
    assert [len(await log.receive(shard, b"0", 0)) for shard in (SHARD, "s1")] == [2, 1]


def keep(monkeypatch: pytest.MonkeyPatch, kept_us: int) -> None:
    """Free places are kept for so long."""
    for module in (line, limits):
        monkeypatch.setattr(module, "KEPT_US", kept_us)


async def test_a_free_place_is_kept_for_whoever_comes_first_in_the_line(
    log: EventLog, client: LogClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, 60 * KEPT_US)  # longer than a machine stands still
    [urgent, early, late] = [Rank(5, 900), Rank(0, 100), Rank(0, 200)]
    await log.acquire("key:a", 1, "s0", ["F/1/1.0"], early)
    for shard, holder, rank in (("s1", "F/4/1.0", late), ("s2", "F/2/1.0", early), ("s4", "F/3/1.0", urgent)):
        assert await log.acquire("key:a", 1, shard, [holder], rank) == (1, {}, 0)
    assert [(one.shard, one.holder, one.rank, one.called_us) for one in client.line("key:a")] == [
        ("s4", "F/3/1.0", urgent, 0), ("s2", "F/2/1.0", early, 0), ("s1", "F/4/1.0", late, 0),
    ]  # fmt: skip
    await log.give_back("key:a", ["F/1/1.0"])
    refused = await log.acquire("key:a", 1, "s1", ["F/4/1.0"], late)
    assert refused[:2] == (0, {}), "it is free, and kept for others"
    assert 0 < refused.kept_us <= 60 * KEPT_US
    assert (await log.acquire("key:a", 1, "s4", ["F/3/1.0"], urgent)).slots == {"F/3/1.0": 0}
    assert [one.shard for one in client.line("key:a")] == ["s2", "s1"], "who got it waits no more"
    await log.give_back("key:a", ["F/3/1.0"])
    assert (await log.acquire("key:a", 2, "s1", ["F/4/1.0"], late)).slots == {"F/4/1.0": 0}, "one place is kept, and there are two"
    assert (await log.acquire("key:a", 2, "s2", ["F/2/1.0"], early)).slots == {"F/2/1.0": 1}
    assert client.line("key:a") == []


async def test_a_kept_place_is_passed_on_by_whoever_does_not_take_it(
    log: EventLog, client: LogClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, 60 * KEPT_US)
    await log.acquire("key:a", 1, "s0", ["F/1/1.0"])
    await log.acquire("key:a", 1, "s1", ["F/2/1.0"], Rank(9, 100))
    await log.give_back("key:a", ["F/1/1.0"])
    refused = await log.acquire("key:a", 1, SHARD, ["F/3/1.0"], Rank(0, 100))
    assert refused.slots == {}
    assert refused.kept_us > 0
    keep(monkeypatch, 1)  # so it is over
    assert (await log.acquire("key:a", 1, SHARD, ["F/3/1.0"], Rank(0, 100))).slots == {"F/3/1.0": 0}
    assert client.line("key:a") == [], "it has lost its place in the line"


async def test_whoever_comes_first_is_told_of_a_place_that_nobody_gave_back(log: EventLog, client: LogClient) -> None:
    await log.acquire("key:a", 1, "s0", ["F/1/1.0"])
    await log.acquire("key:a", 1, "s1", ["F/2/1.0"], Rank(9, 100))
    assert (await log.acquire("key:a", 2, SHARD, ["F/3/1.0"])).slots == {}, "a limit was raised"
    [woken] = await log.receive("s1", b"0", 0)
    assert (woken.run, woken.payload) == ("", LOOK)
    assert (await log.acquire("key:a", 3, SHARD, ["F/3/1.0"])).slots == {"F/3/1.0": 1}
    assert len(await log.receive("s1", b"0", 0)) == 1, "it is told once"
    assert [one.shard for one in client.line("key:a")] == ["s1"]


async def test_the_operator_s_limits_are_a_table(log: EventLog, client: LogClient) -> None:
    assert await log.limits() == client.limits() == {}
    client.set_limit("flow:F", 3)
    client.set_limit("tag:big", 1)
    client.set_limit("flow:F", 0)
    assert await log.limits() == client.limits() == {"flow:F": 0, "tag:big": 1}
    client.set_limit("tag:big", None)
    client.set_limit("never was", None)
    assert client.limits() == {"flow:F": 0}
