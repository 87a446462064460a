"""What `explain` reads from beside a run's log: who owns its shard, and who holds and awaits what only so many may hold."""

from typing import Any

from hypothesis import given, strategies as st

from evflow.cli import explain_limits as limit_words, explain_owner as owner_words, explain_store as store_words
from evflow.cli.explain_plain import plain
from evflow.core import events as ev
from evflow.core.explain_limits import WaitsForLimit, of_limit
from evflow.core.explain_owner import IsCarriedOut, IsDrained, IsToBeTaken, NobodyLives, NobodyMayOwn, whose
from evflow.core.explain_store import FRESH_US, WaitsForStore, of_store
from evflow.core.limits import Limit
from evflow.core.line import KEPT_US, Rank, Waiter
from tests.core_run import CoreRun, fan, node

ALL = range(8)
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
    assert store_words.said("F/7", said[0]).endswith(": 2 tasks cannot be ordered of Kubernetes. No answer. It is tried again.")
    assert "the code of 1 task cannot be fetched." in store_words.said("F/7", WaitsForStore("local", 1, "No answer.", NOW, NOW, "me"))


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
