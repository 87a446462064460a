"""What attempts are called on platforms of containers."""

import re

from hypothesis import given, strategies as st

from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow_executors.remote.names import LABELS, MOST_CHARS, job_name, label_value, labels, log_prefix, run_prefix

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")

FLOWS = st.one_of(
    st.sampled_from(["Flow", "flow", "FLOW", "F_low", "F__low", "Flöw", "_", "F" * 100]), st.text(min_size=1).filter(str.isidentifier)
)
RUNS = st.builds(RunId, FLOWS.map(FlowName), st.integers(1, 10**12).map(RunNumber))
ATTEMPTS = st.builds(AttemptId, RUNS, st.integers(1, 10**9).map(TaskId), st.integers(0, 4096))
LOGS = st.sampled_from(["a", "b", "1f0c" * 8])


@given(LOGS, ATTEMPTS)
def test_a_name_is_one_on_either_platform(log: str, attempt: AttemptId) -> None:
    name = job_name(log, attempt)
    assert DNS_LABEL.fullmatch(name)
    assert BATCH_NAME.fullmatch(name)
    assert len(name) <= MOST_CHARS


@given(LOGS, ATTEMPTS, LOGS, ATTEMPTS)
def test_names_are_equal_for_equal_attempts_of_one_log_alone(log: str, attempt: AttemptId, other_log: str, other: AttemptId) -> None:
    assert (job_name(log, attempt) == job_name(other_log, other)) is ((log, attempt) == (other_log, other))


@given(LOGS, ATTEMPTS, RUNS)
def test_a_run_s_prefix_finds_its_own_jobs_alone(log: str, attempt: AttemptId, run: RunId) -> None:
    name = job_name(log, attempt)
    assert name.startswith(log_prefix(log))
    if len(f"{run_prefix(log, attempt.run)}{attempt.task}-{attempt.attempt}") <= MOST_CHARS:
        assert name.startswith(run_prefix(log, run)) is (run == attempt.run)


@given(LOGS, ATTEMPTS, st.text(), st.text())
def test_labels_are_values_that_kubernetes_takes(log: str, attempt: AttemptId, shard: str, step: str) -> None:
    found = labels(log, attempt, shard=shard, epoch=7, step=step)
    assert tuple(found) == LABELS
    assert all(LABEL_VALUE.fullmatch(text) and len(text) <= 63 for text in found.values())


def test_a_usual_text_stays_as_it_is_in_a_label() -> None:
    assert label_value("train_model.v2") == "train_model.v2"
