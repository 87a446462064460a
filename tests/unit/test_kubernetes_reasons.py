"""What a pod's state means for its attempt."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow_executors.kubernetes.reasons import overdue, pod_seen, told_by_job


def pod(phase: str = "Running", state: Mapping[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    statuses = [{"name": "task", "state": state}, {"name": "proxy", "state": {"running": {}}}] if state is not None else []
    return {
        "metadata": {"name": "p-1"},
        "spec": {"containers": [{"name": "task", "image": "python:3.99"}]},
        "status": {"phase": phase, "containerStatuses": statuses, **status},
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod("Pending", {"waiting": {"reason": reason, "message": message}})


def terminated(code: int, why: str = "Error", **status: Any) -> dict[str, Any]:
    return pod("Failed", {"terminated": {"exitCode": code, "reason": why}}, **status)


def disrupted(reason: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]}


def test_a_pod_waits_then_runs_then_ends_as_its_container_did() -> None:
    assert pod_seen(pod("Pending")).phase == "waiting"
    assert pod_seen(waiting("ContainerCreating")).note == ""
    assert pod_seen(pod("Running", {"running": {}})).phase == "running"
    good = pod_seen(pod("Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}}))
    assert (good.phase, good.exit_code) == ("ended", 0)
    bad = pod_seen(terminated(3))
    assert bad.verdict is not None
    assert (bad.phase, bad.exit_code, bad.verdict.kind) == ("ended", 3, "exited")


def test_a_sidecar_that_lives_on_does_not_keep_a_step_from_being_over() -> None:
    assert pod_seen(pod("Running", {"terminated": {"exitCode": 0}})).phase == "ended"


@pytest.mark.parametrize(
    ("seen", "kind", "code", "says"),
    [
        (terminated(137, "OOMKilled"), "failed", "container-out-of-memory", "memory"),
        (
            pod("Failed", None, reason="Evicted", message="The node was low on resource: memory."),
            "lost",
            "evicted",
            "low on resource: memory.",
        ),
        (terminated(143, "Error", reason="Evicted", message="low on disk"), "lost", "evicted", "low on disk."),
        (terminated(143, "Error", **disrupted("PreemptionByScheduler", "for x")), "lost", "preempted", "for x."),
        (pod("Failed", None, **disrupted("DeletionByTaintManager")), "lost", "host-lost", "tainted"),
        (pod("Failed", None, **disrupted("EvictionByEvictionAPI")), "lost", "evicted", "drained"),
        (pod("Failed", None, **disrupted("SomethingNew", "new text")), "lost", "evicted", "SomethingNew"),
        (pod("Failed", None, reason="NodeLost"), "lost", "host-lost", "does not answer"),
        (pod("Failed", None, reason="Terminated", message="imminent node shutdown"), "lost", "host-lost", "imminent node shutdown."),
        (pod("Failed", None, reason="OutOfcpu"), "lost", "evicted", "no cores left"),
        (pod("Failed", None, reason="DeadlineExceeded"), "failed", "container-timeout", "@timeout"),
        (terminated(143, "Error", reason="DeadlineExceeded"), "failed", "container-timeout", "@timeout"),
        (pod("Failed", None, reason="Strange", message="who knows"), "lost", "job-gone", "who knows."),
        (waiting("InvalidImageName", "couldn't parse"), "failed", "image-pull", "'python:3.99'"),
        (waiting("ErrImagePull", "manifest for python:3.99 not found"), "failed", "image-pull", "manifest for python:3.99 not found."),
        (waiting("ErrImagePull", "pull access denied"), "failed", "image-pull", "denied"),
        (waiting("CreateContainerConfigError", "couldn't find key url in Secret jobs/db"), "failed", "container-broken", "find key url"),
        (waiting("CreateContainerConfigError", 'secret "db" not found'), "failed", "container-broken", 'secret "db" not found.'),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            "failed",
            "container-broken",
            "will run as root",
        ),
        (
            pod("Failed", {"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: no sh"}}),
            "failed",
            "container-broken",
            "exec: no sh.",
        ),
    ],
)
def test_each_reason_has_its_verdict_and_says_it(seen: dict[str, Any], kind: str, code: str, says: str) -> None:
    found = pod_seen(seen)
    assert found.phase == "ended"
    assert found.verdict is not None
    assert (found.verdict.kind, found.verdict.code) == (kind, code)
    assert says in found.verdict.text
    assert found.verdict.text.endswith((".", "MB."))


def test_a_registry_that_hangs_is_told_and_waited_for() -> None:
    seen = pod_seen(waiting("ImagePullBackOff", "Back-off pulling image"))
    assert seen.phase == "waiting"
    assert seen.note == "The image 'python:3.99' cannot be pulled (ImagePullBackOff): Back-off pulling image."
    assert overdue(seen, 10, 60) == seen
    assert overdue(seen, 1e9, 0) == seen  # no patience is all patience
    late = overdue(seen, 61, 60)
    assert late.phase == "ended"
    assert late.verdict is not None
    assert late.verdict.code == "image-pull"
    assert "61 s" in late.verdict.text


@pytest.mark.parametrize(
    "message",
    [
        'failed to do request: Head "https://registry.example/v2/x": dial tcp: lookup registry.example on 10.0.0.10:53: no such host',
        "dial tcp: lookup registry.example: Temporary failure in name resolution",
        "dial tcp 192.0.2.1:443: i/o timeout",
        "dial tcp 192.0.2.1:443: connect: connection refused",
        "net/http: TLS handshake timeout",
        "failed to authorize: failed to fetch anonymous token: unexpected status: 503 Service Unavailable",
        "unexpected status code https://registry.example/v2/x/manifests/1: 502 Bad Gateway",
        "received unexpected HTTP status: 500 Internal Server Error",
        "toomanyrequests: You have reached your pull rate limit.",
    ],
)
def test_a_registry_that_is_away_or_busy_is_told_and_waited_for(message: str) -> None:
    seen = pod_seen(waiting("ErrImagePull", message))
    assert (seen.phase, seen.verdict, seen.code) == ("waiting", None, "image-pull")
    assert message in seen.note
    late = overdue(seen, 61, 60)
    assert late.verdict is not None
    assert late.verdict.code == "image-pull"


@pytest.mark.parametrize(
    "message",
    [
        "manifest unknown",
        "python:3.99: not found",
        "pull access denied for python",
        "unauthorized: authentication required",
        "repository does not exist",
    ],
)
def test_a_registry_that_says_no_ends_the_attempt(message: str) -> None:
    assert pod_seen(waiting("ErrImagePull", message)).phase == "ended"


@pytest.mark.parametrize("image", ["registry.invalid/denied:1", "registry.example/timeout/unauthorized:503@sha256:00", "not found"])
def test_words_in_the_name_of_an_image_say_nothing(image: str) -> None:
    seen = waiting("ErrImagePull", f'failed to pull "{image}": something else')
    seen["spec"]["containers"][0]["image"] = image
    assert pod_seen(seen).phase == "waiting"
    seen = waiting("ErrImagePull", f'failed to pull "{image}": manifest unknown')
    seen["spec"]["containers"][0]["image"] = image
    assert pod_seen(seen).phase == "ended"


def test_what_the_scheduler_says_is_told_and_waited_for() -> None:
    message = "0/3 nodes are available: 3 Insufficient memory."
    seen = pod_seen(
        pod("Pending", None, conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}])
    )
    assert (seen.phase, seen.note) == ("waiting", f"No node can take the pod: {message}")
    late = overdue(seen, 100, 60)
    assert late.verdict is not None
    assert late.verdict.code == "unschedulable"


@pytest.mark.parametrize(
    "message", ['persistentvolumeclaim "data" not found', '0/3 nodes are available: 3 persistentvolumeclaim "data" not found.']
)
def test_a_claim_that_is_not_there_ends_the_attempt(message: str) -> None:
    seen = pod_seen(
        pod("Pending", None, conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}])
    )
    assert seen.verdict is not None
    assert (seen.phase, seen.verdict.kind, seen.verdict.code) == ("ended", "failed", "unschedulable")
    assert '"data" not found' in seen.verdict.text


def test_a_pod_that_waits_for_nothing_in_particular_is_never_overdue() -> None:
    assert overdue(pod_seen(waiting("ContainerCreating")), 1e6, 60).phase == "waiting"


def test_a_container_before_ours_is_told_by_its_name() -> None:
    seen = pod(
        "Pending",
        {"waiting": None},
        initContainerStatuses=[{"name": "pre", "state": {"waiting": {"reason": "ErrImagePull", "message": "x"}}}],
    )
    seen["spec"]["initContainers"] = [{"name": "pre", "image": "pre:1"}]
    assert "'pre:1'" in pod_seen(seen).note


def test_a_pod_deleted_by_hand_failed_and_one_that_we_ended_did_not() -> None:
    running = pod("Running", {"running": {}})
    by_hand = pod_seen(running, gone=True)
    assert by_hand.verdict is not None
    assert (by_hand.verdict.kind, by_hand.verdict.code) == ("failed", "killed-by-hand")
    assert "'p-1'" in by_hand.verdict.text
    ours = pod_seen(running, gone=True, ending=True)
    assert ours.verdict is not None
    assert ours.verdict.kind == "exited"


def test_a_pod_that_we_end_has_no_verdict_though_its_kubelet_lost_the_container() -> None:
    lost = pod("Failed", {"waiting": {"reason": "ContainerCreating"}})
    lost["metadata"]["deletionTimestamp"] = "2026-11-27T19:35:38Z"
    ours = pod_seen(lost, ending=True)
    assert ours.verdict is not None
    assert (ours.phase, ours.verdict.kind, ours.exit_code) == ("ended", "exited", None)
    theirs = pod_seen(lost)
    assert theirs.verdict is not None
    assert theirs.verdict.code == "killed-by-hand"


def test_a_server_that_does_not_say_why_it_deletes_has_lost_the_pod() -> None:
    seen = pod_seen(pod("Running", {"running": {}}), gone=True, tells_disruptions=False)
    assert seen.verdict is not None
    assert (seen.verdict.kind, seen.verdict.code) == ("lost", "evicted")


def test_a_node_that_does_not_answer_is_told_and_lost_with_its_pod() -> None:
    unknown = pod("Unknown")
    assert pod_seen(unknown).note
    gone = pod_seen(unknown, gone=True)
    assert gone.verdict is not None
    assert gone.verdict.code == "host-lost"


def test_a_job_speaks_for_a_pod_that_is_not_there() -> None:
    def job(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
        return {
            "metadata": {"name": "j"},
            "status": {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]},
        }

    assert told_by_job({"status": {}}) is None
    done = told_by_job(job("Complete"))
    assert done is not None
    assert done.exit_code == 0
    failed = told_by_job(job("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"))
    assert failed is not None
    assert failed.verdict is not None
    assert (failed.verdict.kind, failed.verdict.code) == ("lost", "job-gone")
    gone = told_by_job({"metadata": {"name": "j"}}, gone=True)
    assert gone is not None
    assert gone.verdict is not None
    assert "The Job 'j' was deleted" in gone.verdict.text


PARTS = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown", None]),
        "reason": st.sampled_from(["Evicted", "DeadlineExceeded", "Odd", None]),
        "message": st.text(max_size=2000) | st.none(),
        "conditions": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["DisruptionTarget", "PodScheduled"]), "status": st.sampled_from(["True", "False"])}
            ),
            max_size=2,
        ),
        "containerStatuses": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["task", "other"]),
                    "state": st.none()
                    | st.fixed_dictionaries(
                        {},
                        optional={
                            "waiting": st.fixed_dictionaries({"reason": st.sampled_from(["ErrImagePull", "X"])}),
                            "running": st.just({}),
                        },
                    )
                    | st.fixed_dictionaries(
                        {
                            "terminated": st.fixed_dictionaries(
                                {"exitCode": st.integers(0, 255)}, optional={"reason": st.sampled_from(["OOMKilled", "Error", None])}
                            )
                        }
                    ),
                }
            ),
            max_size=2,
        ),
    },
)


@given(PARTS, st.booleans(), st.booleans())
def test_whatever_a_server_says_an_end_has_a_verdict_and_texts_are_bounded(status: dict[str, Any], gone: bool, ending: bool) -> None:
    seen = pod_seen({"status": status}, gone=gone, ending=ending)
    assert (seen.phase == "ended") == (seen.verdict is not None)
    assert not gone or seen.verdict is not None or seen.phase != "running"
    assert seen.verdict is None or len(seen.verdict.text) < 1_000
    assert len(seen.note) < 1_000
