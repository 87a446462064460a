"""What a container does with its report while the store that takes it is away."""

from collections.abc import Sequence

import pytest

from evflow.core.codec import decode_report
from evflow.core.events import AttemptExited
from evflow.core.ids import AttemptId
from evflow.store import StoreUnusable, patience
from evflow.worker.spec import RunContext
from evflow_executors.remote import container

ATTEMPT = AttemptId.parse("Flow/1/7.2")
CONTEXT = RunContext(
    flow="Flow", run=1, flow_file="flow.py", shard="s1", log_url="", store_url="s3://bucket", parameters=b"", user="ada", namespace="", lock_file=""
)  # fmt: skip


def refusal(*, transient: bool) -> StoreUnusable:
    error = StoreUnusable("s3://bucket", "no answer")
    error.is_transient = transient
    return error


def no_pause(failures: int) -> float:
    assert failures
    return 0.0


async def test_a_report_waits_for_a_store_that_is_away_and_not_for_one_that_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [refusal(transient=True), refusal(transient=True)]
    left: list[bytes] = []

    def leave(store: str, attempt: AttemptId, payloads: Sequence[bytes]) -> None:
        assert (store, attempt, patience.holds_results()) == ("s3://bucket", ATTEMPT, True)
        if errors:
            raise errors.pop()
        left.extend(payloads)

    monkeypatch.setattr(patience, "_holds_results", False)
    monkeypatch.setattr("evflow_executors.remote.reports.leave", leave)
    monkeypatch.setattr(container, "pause_s", no_pause)
    told = container._Reports(ATTEMPT, CONTEXT, None)
    exited = AttemptExited(ATTEMPT.task, ATTEMPT.attempt, 3, None)
    await told.say(exited)
    await told.finish(None)
    assert [decode_report(payload)[0] for payload in left] == [exited]

    errors.append(refusal(transient=False))
    with pytest.raises(StoreUnusable):
        await told.finish(None)
