"""What Kubernetes does not take, and what then may be there; over an API server that runs containers as processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.kubernetes_api import FakeKubernetes, fake_kubernetes
from tests.fakes.kubernetes_cluster import Status
from tests.kubernetes_world import FOR_EVER, a_gang, a_job, a_platform

pytest.importorskip("kubernetes_asyncio", reason="the extra 'kubernetes' is not installed")
pytestmark = pytest.mark.may_block("kubernetes-asyncio reads its configuration's files in the loop")


@pytest.fixture
def server(root: Path) -> Iterator[FakeKubernetes]:
    """An API server of a current version."""
    with fake_kubernetes(root / "cluster") as found:
        yield found


@pytest.fixture
def kubeconfig(server: FakeKubernetes, root: Path) -> Path:
    return server.kubeconfig(root / "kubeconfig")


async def test_nothing_is_done_before_a_server_has_answered_at_all(server: FakeKubernetes, kubeconfig: Path) -> None:
    job = a_job("true")
    async with a_platform(kubeconfig) as watched:
        server.faults.away = True
        problem = (await watched.platform.submit([job]))[job.name]
        assert (problem.transient, problem.undone) == (True, True)
        server.faults.away = False
        assert await watched.platform.submit([job]) == {}


async def test_a_server_that_throttles_is_told_as_throttling_and_asked_for_no_more(server: FakeKubernetes, kubeconfig: Path) -> None:
    jobs = [a_job("true", task) for task in range(100)]
    server.faults.runs = False
    async with a_platform(kubeconfig) as watched:
        await watched.platform.find([], [])
        server.requests.clear()
        server.faults.throttled, server.faults.retry_after_s = 40, 1
        problems = await watched.platform.submit(jobs)
        assert problems
        assert all(problem.undone for problem in problems.values())
        assert max(problem.retry_after_s for problem in problems.values()) == 1
        assert server.requests.count("create jobs") < len(jobs)
        server.faults.throttled = 0
        assert await watched.platform.submit([job for job in jobs if job.name in problems]) == {}
        assert len(server.jobs()) == len(jobs)


async def test_a_job_that_a_quota_refuses_is_not_there_unless_an_answer_was_lost_before(server: FakeKubernetes, kubeconfig: Path) -> None:
    one, two = a_job("true", 1), a_job("true", 2)

    def cut(point: str, name: str) -> None:
        if name == one.name:
            raise ConnectionAbortedError

    def is_full(point: str, name: str) -> None:
        raise Status(403, "Forbidden", f'jobs.batch "{name}" is forbidden: exceeded quota: small')

    async with a_platform(kubeconfig) as watched:
        server.faults.on_create = cut
        problems = await watched.platform.submit([one])
        assert (problems[one.name].transient, problems[one.name].undone) == (True, False)
        server.faults.on_create = is_full
        problems = await watched.platform.submit([one, two])
        assert [(problems[job.name].transient, problems[job.name].undone) for job in (one, two)] == [(True, False), (True, True)]
        assert all("exceeded quota" in problem.message for problem in problems.values()), "each is asked for"
        server.faults.on_create = None
        assert await watched.platform.submit([one, two]) == {}


async def test_a_job_that_was_made_without_an_answer_can_be_ended_where_it_is_though_its_repeat_is_refused(
    server: FakeKubernetes, kubeconfig: Path
) -> None:
    job, gang = a_job("sleep 60", namespace="flows"), a_gang(FOR_EVER, namespace="flows")
    async with a_platform(kubeconfig) as watched:
        server.faults.lost_answers = 2
        assert all(problem.transient for problem in (await watched.platform.submit([job, gang])).values())
        server.faults.forbidden.add("create jobs")
        refused = await watched.platform.submit([job, gang])
        assert [problem.transient for problem in refused.values()] == [False, False]
        for name in (job.name, *(node.name for node in gang.nodes)):
            await watched.platform.terminate(name, "test", 1)
        assert server.jobs() == {}


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "small": the object has been modified'),
        (403, "Forbidden", 'jobs.batch "a" is forbidden: status unknown for quota: small, resources: count/jobs.batch'),
    ],
    ids=["that many take of at once", "that is new"],
)
async def test_a_quota_that_cannot_tell_now_is_asked_again(
    code: int, reason: str, message: str, server: FakeKubernetes, kubeconfig: Path
) -> None:
    job = a_job("sleep 60")

    def is_taken_of(point: str, name: str) -> None:
        raise Status(code, reason, message)

    async with a_platform(kubeconfig) as watched:
        server.faults.on_create = is_taken_of
        problem = (await watched.platform.submit([job]))[job.name]
        assert (problem.transient, problem.undone) == (True, True)
        server.faults.on_create = None
        assert await watched.platform.submit([job]) == {}
        assert list(server.jobs()) == [job.name]


async def test_a_job_that_the_server_fails_at_each_time_does_not_keep_the_others_waiting(server: FakeKubernetes, kubeconfig: Path) -> None:
    jobs = [a_job("true", task) for task in range(1, 5)]

    def fail_at_the_first(point: str, name: str) -> None:
        if is_away or name == jobs[0].name:
            raise Status(500, "InternalError", "Internal error occurred: etcdserver: request is too large")

    server.faults.runs = False
    is_away = True
    async with a_platform(kubeconfig) as watched:
        server.faults.on_create = fail_at_the_first
        problems = await watched.platform.submit(jobs)
        assert len(problems) == 4
        is_away = False
        for _ in range(2):
            problems = await watched.platform.submit([job for job in jobs if job.name not in server.jobs()])
        assert problems.keys() == {jobs[0].name}
        assert sorted(server.jobs()) == [job.name for job in jobs[1:]]


async def test_a_job_whose_end_was_asked_for_is_not_made_any_more(server: FakeKubernetes, kubeconfig: Path) -> None:
    one, two, gang = a_job("sleep 60", 1), a_job("sleep 60", 7), a_gang(FOR_EVER)
    async with a_platform(kubeconfig) as watched:
        for name in (one.name, *(node.name for node in gang.nodes)):
            await watched.platform.terminate(name, "the run insists", 0)
        problems = await watched.platform.submit([one, two, gang])
        assert {name: (problem.transient, problem.undone) for name, problem in problems.items()} == dict.fromkeys(
            (one.name, gang.name), (True, True)
        )
        assert list(server.jobs()) == [two.name]


async def test_what_the_server_refuses_is_told_and_no_repeat_is_asked_for(server: FakeKubernetes, kubeconfig: Path) -> None:
    async with a_platform(kubeconfig) as watched:
        server.faults.forbidden.add("create jobs")
        forbidden = (await watched.platform.submit([a_job("true")]))[a_job("true").name]
        assert not forbidden.transient
        assert "cannot create resource" in forbidden.message
        assert "docs/kubernetes.md" in forbidden.hint
        server.faults.forbidden.clear()
        nowhere = (await watched.platform.submit([a_job("true", namespace="nowhere")]))[a_job("true").name]
        assert 'namespaces "nowhere" not found' in nowhere.message
        unfit = (await watched.platform.submit([a_job("true", labels={"a": "b c"})]))[a_job("true").name]
        assert "Step 'train' cannot run on Kubernetes" in unfit.message
        odd = {"spec": {"hostNetwrok": True}}
        typo = (await watched.platform.submit([a_job("true", pod_template=odd)]))[a_job("true").name]
        assert 'unknown field "spec.template.spec.hostNetwrok"' in typo.message
        assert server.jobs() == {}


async def test_of_a_gang_whose_nodes_are_jobs_none_is_left_where_one_is_refused(root: Path) -> None:
    with fake_kubernetes(root / "cluster", (1, 20)) as server:
        made: list[str] = []

        def refuse_the_next(at: str, name: str) -> None:
            if at == "after":
                made.append(name)
                server.faults.forbidden.add("create jobs")

        server.faults.on_create = refuse_the_next
        gang = a_gang(FOR_EVER)
        async with a_platform(server.kubeconfig(root / "kubeconfig")) as watched:
            problem = (await watched.platform.submit([gang]))[gang.name]
            assert (made, problem.transient) == ([gang.nodes[0].name], False)
            await watched.ended(made[0])
            assert any("no Indexed Jobs" in notice for notice in watched.notices)
        assert server.jobs() == {}
