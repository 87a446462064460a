"""Which attempts go as an array job, and what the array is called."""

from typing import Any

import pytest

from evflow.core.ids import AttemptId
from evflow_executors.batch import arrays
from evflow_executors.batch.arrays import Array, PlannedArray, array_name, grouped, parts_of, prefix_of, submit_of_array
from evflow_executors.batch.definitions import BatchDefaults
from evflow_executors.remote.command import ContainerCommand
from evflow_executors.remote.names import job_name, labels
from evflow_executors.remote.platform import Job


def a_job(task: int, attempt: int = 0, run: int = 1, **changed: Any) -> Job:
    name = AttemptId.parse(f"Flow/{run}/{task}.{attempt}")
    command = ContainerCommand(("true",), {}, {"EVFLOW_ORDER": str(task)})
    given: dict[str, Any] = {"step": "work", "asked": {}, "command": command, "timeout_s": 100.0, **changed}
    return Job(job_name("log", name), name, labels=labels("log", name, shard="s1", epoch=7, step="work"), **given)


def kinds(jobs: list[Job]) -> dict[str, object]:
    return {job.name: job.step for job in jobs}


def test_attempts_of_one_step_and_one_run_go_together_and_others_alone() -> None:
    wide = [a_job(task) for task in range(5)]
    others = [a_job(9, step="other"), a_job(3, run=2), a_job(7, timeout_s=7.0)]
    together, alone = grouped([*wide, *others], 3, kinds([*wide, *others]))
    assert [list(array) for array in together] == [wide]
    assert alone == others


def test_fewer_than_the_least_go_alone_and_with_zero_all_do() -> None:
    two = [a_job(1), a_job(2)]
    assert grouped(two, 3, kinds(two)) == ([], two)
    assert grouped(two, 0, kinds(two)) == ([], two)
    assert grouped(two[:1], 1, kinds(two)) == ([], two[:1])  # an array has two members at least


def test_what_may_be_there_already_is_in_no_array() -> None:
    three = [a_job(1), a_job(2), a_job(3)]
    together, alone = grouped(three, 2, kinds(three[1:]))
    assert [list(array) for array in together] == [three[1:]]
    assert alone == three[:1]


def test_what_is_more_than_an_array_may_have_goes_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arrays.MOST == 10_000
    monkeypatch.setattr(arrays, "MOST", 4)
    many = [a_job(task) for task in range(9)]
    together, alone = grouped(many, 2, kinds(many))
    assert [list(array) for array in together] == [many[:4], many[4:8]]
    assert alone == many[8:]


def test_an_array_s_name_says_whose_it_is_and_where_its_members_stand() -> None:
    digest = bytes(range(32))
    name = array_name(prefix_of(a_job(1)), digest)
    assert parts_of(name) == (prefix_of(a_job(1)), digest)
    assert len(name) <= 128
    assert parts_of(a_job(1).name) is None
    assert parts_of("ev7k2m4qpa-array-x3fb2a-12-34-0") is None


def test_what_is_one_attempt_s_own_is_not_submitted_with_the_array_and_is_told_of_its_member() -> None:
    jobs = (a_job(4), a_job(5, 1))
    planned = PlannedArray(array_name(prefix_of(jobs[0]), bytes(32)), prefix_of(jobs[0]), bytes(32), jobs)
    given = submit_of_array(planned, "queue", "definition", BatchDefaults("image"))
    assert given["arrayProperties"] == {"size": 2}
    assert given["containerOverrides"] == {"environment": [{"name": "EVFLOW_ORDERS_AT", "value": "00" * 32}]}
    assert "evflow-task" not in given["tags"]
    member = Array("id", planned.name, planned.names, given["tags"]).member({"jobId": "id:1", "jobName": planned.name, "status": "RUNNING"})
    assert (member["jobName"], member["jobId"]) == (jobs[1].name, "id:1")
    assert member["tags"] == jobs[1].labels
