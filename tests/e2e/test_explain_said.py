"""What commands say of a run that waits for its store: what its owner said beside the log, until it takes that back."""

import asyncio
import json
from pathlib import Path
from typing import Any

from evflow.core import chain
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log import open_event_log
from evflow.log.keys import shared_shard
from evflow.log.link import Link
from evflow.log.owners import owner_name
from evflow.log.protocol import AppendCall, Head, RunEntry
from evflow.log.said_waits import SaidWaits
from tests.core_run import CoreRun, fan
from tests.real_runs import evflow, open_log

RUN = RunId(FlowName("TestFlow"), RunNumber(1))
SHARD = shared_shard(RUN)
WHY = "The store cannot use 's3://bucket': no answer."


def told(*command: str) -> Any:
    done = evflow(*command, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def _begin(url: str, owner: str) -> None:
    """Own a run whose first attempt has its slot, and say that its store is away."""
    run = CoreRun(*fan())
    run.grant(1)
    log, link = await open_event_log(url), Link(url)
    lease = await log.take(SHARD, owner, 600.0)
    payloads = run.payloads()
    await log.append(lease, AppendCall(RUN, Head(), tuple(payloads), tuple(chain.links(chain.START, payloads))))
    await log.index_run(RunEntry(RUN, SHARD, {"status": "running", "started_us": run.now}))
    await SaidWaits(link, SHARD, owner).say(RUN, "local", 0, WHY)
    await link.aclose()
    await log.aclose()


async def _take_back(url: str, owner: str) -> None:
    link = Link(url)
    waits = SaidWaits(link, SHARD, owner)
    await waits.say(RUN, "local", 0, WHY)
    await waits.unsay(RUN, "local")
    await link.aclose()


def test_explain_show_and_top_name_the_wait_until_it_is_over(evflow_home: Path) -> None:
    with open_log(evflow_home) as log:
        owner = owner_name()
        asyncio.run(_begin(log.url, owner))
        found = told("explain", str(RUN))
        assert found["explanation"][-1].startswith(f"{RUN} waits for its store, since ")
        assert found["explanation"][-1].endswith(f": the code of 1 task cannot be fetched. {WHY} It is tried again.")
        reason = found["reasons"][-1]
        assert (reason["of"], reason["reason"], reason["executor"], reason["tasks"], reason["why"]) == (
            str(RUN), "waits-for-store", "local", 1, WHY,
        )  # fmt: skip
        assert [(one["tasks"], one["why"]) for one in told("show", str(RUN))["waits_for_store"]] == [(1, WHY)]
        assert f"the code of 1 task cannot be fetched. {WHY}" in evflow("show", str(RUN)).stdout
        [row] = told("top")["runs"]
        assert (row["waiting"], row["running"]) == ({"store": 1}, 0)

        asyncio.run(_take_back(log.url, owner))
        assert "waits for its store" not in evflow("explain", str(RUN)).stdout
        assert told("show", str(RUN))["waits_for_store"] == []
        [row] = told("top")["runs"]
        assert (row["waiting"], row["running"]) == ({}, 1)
