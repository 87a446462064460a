"""What `explain` reads from beside a run's log: who owns its shard, and who holds and awaits what only so many may hold."""

from typing import Any, cast

from hypothesis import given, strategies as st

from evflow.cli import explain_limits as limit_words, explain_owner as owner_words, explain_said as heard_words
from evflow.cli.explain_plain import plain
from evflow.core import events as ev
from evflow.core.explain_limits import WaitsForLimit, of_limit
from evflow.core.explain_owner import IsCarriedOut, IsDrained, IsToBeTaken, NobodyLives, NobodyMayOwn, whose
from evflow.core.explain_said import FRESH_US, MOST_NAMED, UnstartedJob, WaitsForPlatform, WaitsForStore, of_platform, of_store
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.limits import Limit
from evflow.core.line import KEPT_US, Rank, Waiter
from evflow.log import said_waits
from evflow.log.keys import said_waits_key
from tests.core_run import CoreRun, fan, node

ALL = range(8)
RUN = RunId(FlowName("F"), RunNumber(7))
NOW = 50_000_000
ME = Waiter("s3", "F/7", Rank(0, 100), 0)


def test_each_case_of_an_owner_has_its_reason_and_says_what_to_do() -> None:
    cases: list[tuple[Any, Any, str]] = [
        (whose(3, "a:1", {"a:1": ALL}), IsCarriedOut("a:1"), ""),
        (whose(3, "a:1", {"b:2": ALL}), IsDrained("a:1", ("b:2",)), "a:1, which has it, was told to end and begins nothing more; b:2 goes on with it then."),
        (whose(3, "a:1", {"b:2": [4]}), IsDrained("a:1", ()), "`evflow scheduler` starts one"),
        (whose(3, "", {"b:2": ALL, "c:3": [4]}), IsToBeTaken(("b:2",)), "none has it at present; b:2 may take it"),
        (whose(3, "", {"b:2": [0, 1]}), NobodyMayOwn("s3", ("b:2",)), "`evflow scheduler --shards 3` goes on with it."),
        (whose(3, "", {}), NobodyLives(), "the one that had it is gone. `evflow scheduler` goes on with it."),
    ]  # fmt: skip
    for found, expected, text in cases:
        assert found == expected
        assert text in owner_words.said("F/7", found, begun=True)
    assert owner_words.said("F/7", IsCarriedOut("a:1"), begun=True) == ""
    assert "the scheduler a:1 is to take it" in owner_words.said("F/7", IsCarriedOut("a:1"), begun=False)


@given(st.integers(0, 7), st.sampled_from(["", "a", "b"]), st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 7), min_size=1)))
def test_whoever_is_named_lives_and_may_own_the_shard(number: int, owner: str, living: dict[str, set[int]]) -> None:
    found = whose(number, owner, living)
    named = found.others if isinstance(found, IsDrained) else found.by if isinstance(found, IsToBeTaken) else ()
    assert all(number in living[name] for name in named)
    assert isinstance(found, NobodyLives) == (not living and not owner)
    assert isinstance(found, IsCarriedOut | IsDrained) == bool(owner)


def test_a_limit_is_explained_by_its_holders_and_who_comes_first() -> None:
    line = [Waiter("s1", "F/2/1.0", Rank(4, 900), 1), Waiter("s3", "F/5/1.0", Rank(0, 50), 1), Waiter("s2", "F/9/1.0", Rank(0, 200), 1)]
    found = of_limit(Limit("key:db", 2), ["F/1/1.0", "F/3/1.0"], line, ME, NOW)
    assert found == WaitsForLimit("key:db", 2, ("F/1/1.0", "F/3/1.0"), (line[0], line[1]))
    assert found is not None
    assert limit_words.said("F/7", found) == (
        "F/7 waits for limit key:db: 2 of 2 hold it (F/1/1.0, F/3/1.0); before it come F/2/1.0 (priority 4), F/5/1.0."
    )
    first = of_limit(Limit("key:db", 1), ["F/1/1.0"], line[2:], ME, NOW)
    assert first is not None
    assert limit_words.said("F/7", first).endswith("1 of 1 hold it (F/1/1.0); of those that asked for it none comes before it.")


def test_a_free_place_that_is_kept_for_another_one_is_said_and_one_that_is_not_is_no_wait() -> None:
    told = Waiter("s1", "F/2/1.0", Rank(4, 900), 1, NOW - KEPT_US + 1)
    kept = of_limit(Limit("key:db", 1), [], [told], ME, NOW)
    assert kept is not None
    assert kept.kept_for == "F/2/1.0"
    assert "the next place is kept for F/2/1.0, which comes first" in limit_words.said("F/7", kept)
    assert of_limit(Limit("key:db", 1), [], [told], ME, NOW + KEPT_US) is None
    assert of_limit(Limit("key:db", 2), [], [told], ME, NOW) is None, "there is one for each"
    assert of_limit(Limit("runs:F", 1), ["F/7"], [told], ME, NOW) is None, "it holds it"


def test_nothing_may_hold_what_the_operator_set_to_none() -> None:
    found = of_limit(Limit("flow:F", 0), [], [], ME, NOW)
    assert found is not None
    assert "the operator lets nothing hold it. `evflow limits set`" in limit_words.said("F/7", found)


def test_a_store_is_waited_for_as_the_owner_of_now_said_it_lately_of_tasks_that_have_not_begun() -> None:
    run = CoreRun(*fan(node("work", "join", executor="kubernetes")))
    run.done(1, "work", splits=4)
    said = [WaitsForStore("kubernetes", 2, "No answer.", NOW - 9, NOW, "me"), WaitsForStore("local", 0, "No answer.", NOW - 9, NOW, "me")]
    assert of_store(run.state, said, "me", NOW) == [], "none has a slot"
    run.grant(2, 3, 4)
    assert of_store(run.state, said, "me", NOW) == [said[0]], "nothing is to begin on the owner's machine"
    assert of_store(run.state, said, "another", NOW) == of_store(run.state, said, "", NOW) == []
    assert of_store(run.state, said, "me", NOW + FRESH_US) == [], "whoever waits says it anew"
    run.turn(*(ev.AttemptStarted(task, 0, "box", 7, run.now) for task in (2, 3)))
    assert [one.tasks for one in of_store(run.state, said, "me", NOW)] == [1], "the others have begun"
    assert heard_words.shortly(said[0]).endswith(": 2 tasks cannot be ordered of Kubernetes. No answer. It is tried again.")
    assert "the code of 1 task cannot be fetched." in heard_words.shortly(WaitsForStore("local", 1, "No answer.", NOW, NOW, "me"))


def test_a_platform_is_waited_for_by_jobs_that_have_not_begun_each_with_what_is_said_of_it() -> None:
    run = CoreRun(*fan(node("work", "join", executor="kubernetes")))
    run.done(1, "work", splits=4)
    run.grant(2, 3, 4, 5)
    jobs = tuple(UnstartedJob(task, 0, why) for task, why in ((5, "No node."), (4, "No node."), (3, "No image."), (2, "No node.")))
    wait = WaitsForPlatform("kubernetes", 4, jobs, NOW - 9, NOW, "me")
    said = (wait, WaitsForStore("local", 0, "No answer.", NOW - 9, NOW, "me"))
    assert of_platform(run.state, said, "me", NOW) == [wait]
    assert of_platform(run.state, said, "another", NOW) == of_platform(run.state, said, "me", NOW + FRESH_US) == []
    [line] = heard_words.said("F/7", run.state, heard_words.Waits(platforms=(wait,)))
    assert line.startswith("F/7 waits for Kubernetes, since ")
    assert line.endswith(": 4 jobs there have not begun. work/5, work/4, work/2: No node. work/3: No image.")
    narrow = heard_words.Waits(platforms=(wait,)).of({3})
    assert [(one.tasks, one.jobs) for one in narrow.platforms] == [(1, (jobs[2],))]
    assert heard_words.Waits(platforms=(wait,)).of({1}).platforms == (), "of others nothing is known"
    run.turn(*(ev.AttemptStarted(task, 0, "box", 7, run.now) for task in (2, 3)))
    assert [(one.tasks, one.jobs) for one in of_platform(run.state, said, "me", NOW)] == [(2, jobs[:2])], "the others have begun"
    many = [WaitsForPlatform("kubernetes", 900, jobs[:1], NOW - 9, NOW, "me")]
    assert [one.tasks for one in of_platform(run.state, many, "me", NOW)] == [2], "no more than are to begin"
    again = [WaitsForPlatform("kubernetes", 1, (UnstartedJob(4, 1, "No node."),), NOW - 9, NOW, "me")]
    assert of_platform(run.state, again, "me", NOW) == [], "another attempt of the task is meant"


def test_what_an_owner_says_of_many_jobs_is_bounded_and_read_back() -> None:
    jobs = [UnstartedJob(task, 0, f"Reason {task % 30} of them. {'x' * 600}") for task in range(1, MOST_NAMED + 1)]
    said = WaitsForPlatform("kubernetes", 900, tuple(jobs), 5, 9, "me")
    [(_, key, field, body), _] = said_waits.say("s1", RUN, said).commands
    assert len(cast("bytes", body)) < 20_000
    told = said_waits.said(["s1"]).parse([[str(field).encode(), body]])
    [read] = told[str(RUN)]
    assert isinstance(read, WaitsForPlatform)
    assert (key, read.tasks, read.since_us, read.heard_us, read.by) == (said_waits_key("s1"), 900, 5, 9, "me")
    assert [job.task for job in read.jobs] == [job.task for job in jobs if job.task % 30 in range(1, 21)], (
        "those of the first twenty reasons"
    )
    assert read.jobs[0] == UnstartedJob(1, 0, jobs[0].why[:500])


def test_programs_get_each_reason_with_its_fields() -> None:
    waiter = Waiter("s1", "F/2/1.0", Rank(4, 900), 1_000_000)
    assert plain("F/7", WaitsForLimit("key:db", 1, ("F/1/1.0",), (waiter,))) == {
        "of": "F/7",
        "reason": "waits-for-limit",
        "name": "key:db",
        "most": 1,
        "held": ["F/1/1.0"],
        "before": [
            {
                "shard": "s1",
                "holder": "F/2/1.0",
                "rank": {"priority": 4, "began": "1970-01-01T00:00:00.000900+00:00"},
                "since": "1970-01-01T00:00:01.000000+00:00",
                "called": None,
            }
        ],
        "kept_for": "",
    }
