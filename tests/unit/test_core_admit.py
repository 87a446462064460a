"""Slots are given in order, never more than there are, and come back."""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import example, given, strategies as st

from evflow.core.admit import Admission, Capacity, Slots, Waiting, admit, admit_elsewhere, fair, in_one_line, rank
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.core.values import value
from tests.effort import seeds

RUN = RunId(FlowName("TestFlow"), RunNumber(1))


def waiting(task: int, cpu: float = 0, memory_mb: int = 0, gpu: int = 0) -> Waiting:
    """A waiting attempt."""
    return Waiting(AttemptId(RUN, TaskId(task), 0), cpu, memory_mb, gpu)


def tasks(slots: Slots, *queue: Waiting) -> list[tuple[int, int]]:
    """Who gets which slot."""
    return [(grant.attempt.task, grant.slot) for grant in admit(slots, queue).grants]


def test_slots_are_given_in_the_order_of_the_queue_the_lowest_first() -> None:
    """Until there is none."""
    slots = Slots(Capacity(2))
    assert tasks(slots, waiting(7), waiting(5), waiting(6)) == [(7, 0), (5, 1)]
    slots.free(waiting(7).attempt)
    assert tasks(slots, waiting(6)) == [(6, 0)]


def test_a_grant_says_how_full_it_is() -> None:
    """For `explain` and the story of the run."""
    grants = admit(Slots(Capacity(4)), [waiting(1), waiting(2)]).grants
    assert [grant.reason for grant in grants] == ["1 of 4 slots", "2 of 4 slots"]


@pytest.mark.parametrize("resource", ["cpu", "memory_mb", "gpu"])
def test_a_task_waits_for_the_resources_that_its_step_declared(resource: str) -> None:
    """And the reason names the one, what it needs and what is free."""
    slots = Slots(Capacity(8, cpu=4, memory_mb=4, gpu=4))
    assert tasks(slots, waiting(1, **{resource: 3})) == [(1, 0)]
    assert tasks(slots, waiting(2, **{resource: 2})) == []
    assert slots.room_for(waiting(2, **{resource: 2})) == f"{resource}: needs 2, 1 free"
    assert tasks(slots, waiting(3, **{resource: 1})) == [(3, 1)]


def test_a_large_task_is_not_overtaken_by_small_ones() -> None:
    """The first that does not fit stops the round."""
    slots = Slots(Capacity(8, cpu=4))
    assert tasks(slots, waiting(1, cpu=3), waiting(2, cpu=2), waiting(3, cpu=1)) == [(1, 0)]


def test_a_task_that_asks_for_more_than_there_is_runs_alone() -> None:
    """Else it would wait for ever."""
    slots = Slots(Capacity(8, cpu=4))
    assert tasks(slots, waiting(1, cpu=64), waiting(2, cpu=1)) == [(1, 0)]
    slots.free(waiting(1).attempt)
    assert tasks(slots, waiting(2, cpu=1), waiting(3, cpu=64)) == [(2, 0)]


def test_a_resource_that_is_not_bounded_holds_nobody_up() -> None:
    """Capacity 0 means: not known here."""
    assert len(tasks(Slots(Capacity(8)), *(waiting(task, cpu=99) for task in range(1, 5)))) == 4


def test_freeing_what_holds_no_slot_changes_nothing() -> None:
    """An attempt's end may be seen twice."""
    slots = Slots(Capacity(1))
    slots.take(waiting(1))
    for _ in range(3):
        slots.free(waiting(1).attempt)
    assert tasks(slots, waiting(2), waiting(3)) == [(2, 0)]


def test_a_new_owner_with_fewer_slots_waits_until_it_has_room() -> None:
    """Attempts of the old one go on; their slots are gone when they end."""
    slots = Slots(Capacity(2))
    for task, slot in ((1, 5), (2, 0), (3, 1), (4, 7)):
        slots.hold(waiting(task), slot)
    assert tasks(slots, waiting(9)) == []
    slots.free(waiting(4).attempt)
    slots.free(waiting(3).attempt)
    assert tasks(slots, waiting(9)) == []
    slots.free(waiting(1).attempt)
    slots.free(waiting(2).attempt)
    assert tasks(slots, waiting(9), waiting(10), waiting(11)) == [(9, 0), (10, 1)]


@pytest.mark.parametrize("seed", seeds(200))
def test_slots_and_resources_are_never_exceeded_and_none_is_lost(seed: int) -> None:
    """I11, and no slot leaks: any order of takes, ends and take-overs."""
    random = Random(seed)
    capacity = Capacity(random.randint(1, 5), cpu=random.choice([0, 4]), memory_mb=random.choice([0, 1_000]))
    slots = Slots(capacity)
    held = [waiting(task) for task in range(1_000, 1_000 + random.randint(0, 7))]
    for one in held:
        slots.hold(one, random.randint(0, 7))
    queue = [waiting(task, random.choice([0, 1, 2.5, 9]), random.choice([0, 300, 2_000])) for task in range(1, 40)]
    running = {one.attempt for one in held}
    while queue or running:
        before = len(slots.taken)
        for grant in admit(slots, queue).grants:
            queue = [one for one in queue if one.attempt != grant.attempt]
            running.add(grant.attempt)
        assert len(slots.taken) <= max(capacity.slots, before)
        own = [slot for slot, _ in slots.taken.values() if slot >= 0]
        assert len(own) == len(set(own))
        assert sorted([*own, *slots.unused]) == list(range(capacity.slots))
        for name in ("cpu", "memory_mb"):
            used = [getattr(one, name) for _, one in slots.taken.values() if getattr(one, name)]
            assert not getattr(capacity, name) or sum(used) <= getattr(capacity, name) or len(used) == 1
        ended = random.choice(sorted(running, key=str))
        running.discard(ended)
        slots.free(ended)
    assert sorted(slots.unused) == list(range(capacity.slots))


def test_runs_come_by_priority_and_among_equals_by_age() -> None:
    """Higher ones first."""
    runs = {"old": rank(0, 1), "new": rank(0, 2), "urgent": rank(5, 3), "patient": rank(-1, 0)}
    assert sorted(runs, key=lambda name: runs[name]) == ["urgent", "old", "new", "patient"]


@pytest.mark.parametrize("random", [Random(seed) for seed in seeds(20)])
def test_attempts_elsewhere_get_numbers_that_none_of_their_run_has_the_lowest_first(random: Random) -> None:
    """All that are asked for: who asks keeps to the run's limit."""
    taken = {random.randrange(20) for _ in range(random.randrange(10))}
    names = [waiting(task).attempt for task in range(1, 1 + random.randrange(10))]
    grants = admit_elsewhere(names, taken, 30)
    assert [grant.attempt for grant in grants] == names
    numbers = [grant.slot for grant in grants]
    assert numbers == sorted(set(range(40)) - taken)[: len(names)]
    assert [grant.reason for grant in grants] == [f"{len(taken) + place} of 30 at once" for place in range(1, len(names) + 1)]


def line_of(namespace: str, *priorities: int, first: int = 1) -> list[Waiting]:
    return [
        Waiting(AttemptId(RUN, TaskId(first + place), 0), namespace=namespace, priority=priority)
        for place, priority in enumerate(priorities)
    ]


def held_by(*namespaces: str) -> Slots:
    slots = Slots(Capacity(20))
    for place, namespace in enumerate(namespaces):
        slots.take(line_of(namespace, 0, first=900 + place)[0])
    return slots


def test_namespaces_take_turns_and_those_that_have_least_come_first() -> None:
    lines = {"ada": iter(line_of("ada", 0, 0, 0, 0)), "bob": iter(line_of("bob", 0, 0, first=11)), "eve": iter(line_of("eve", 0, first=21))}
    order = [waiting.namespace for waiting in fair(lines, held_by("ada"))]
    assert order == ["bob", "eve", "bob", "ada", "ada", "ada", "ada"]


def test_of_those_that_have_as_few_the_one_comes_first_that_has_waited_for_longest() -> None:
    """One slot, which is given again and again: both get it in turn."""
    slots = Slots(Capacity(1))
    order: list[str] = []
    waiting = {name: line_of(name, *([0] * 4), first=first) for name, first in (("ada", 1), ("bob", 11))}
    while any(waiting.values()):
        [grant] = admit(slots, fair({name: iter(line) for name, line in waiting.items()}, slots)).grants
        name = "ada" if grant.attempt.task < 11 else "bob"
        order.append(name)
        waiting[name].pop(0)
        slots.free(grant.attempt)
    assert order == ["ada", "bob"] * 4


def test_a_higher_priority_comes_before_a_fair_share() -> None:
    lines = {"ada": iter(line_of("ada", 5, 5, 0)), "bob": iter(line_of("bob", 0, first=11))}
    order = [(waiting.namespace, waiting.priority) for waiting in fair(lines, held_by())]
    assert order == [("ada", 5), ("ada", 5), ("bob", 0), ("ada", 0)]


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 20), min_size=1), st.lists(st.sampled_from("abcd"), max_size=15))
def test_nobody_is_left_out_and_nobody_gets_a_slot_while_another_who_waits_has_fewer(waiting: dict[str, int], has: list[str]) -> None:
    lines = {name: iter(line_of(name, *([0] * number), first=100 * place)) for place, (name, number) in enumerate(waiting.items(), start=1)}
    shares, left = Counter(has), Counter(waiting)
    for one in fair(lines, held_by(*has)):
        assert all(shares[one.namespace] <= shares[other] for other, number in left.items() if number)
        shares[one.namespace] += 1
        left[one.namespace] -= 1
    assert not +left


SHARDS = [RunId(FlowName(name), RunNumber(1)) for name in ("Red", "Green", "Blue")]


@value
class Asked:
    """Something that waits in one of three shards."""

    shard: int
    namespace: str
    priority: int
    began_us: int


ASKED = st.lists(
    st.builds(Asked, st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 1_000)),
    max_size=15,
    unique_by=lambda one: one.began_us,
)


def lines_of(asked: list[Asked], shard: int | None, slots: Slots) -> dict[str, Iterator[Waiting]]:
    """What still waits in a shard, or in all, as its line in each namespace."""
    found: dict[str, list[Waiting]] = {}
    for one in sorted(asked, key=lambda one: rank(one.priority, one.began_us)):
        name = AttemptId(SHARDS[one.shard], TaskId(one.began_us + 1), 0)
        if (shard is None or shard == one.shard) and name not in slots.taken:
            waits = Waiting(name, namespace=one.namespace, priority=one.priority, began_us=one.began_us)
            found.setdefault(one.namespace, []).append(waits)
    return {namespace: iter(line) for namespace, line in found.items()}


@example([Asked(0, "a", 1, 2), Asked(0, "b", 1, 1), Asked(1, "a", 1, 3), Asked(1, "b", 1, 0)], 3, [1], Random(0))
@example(
    [Asked(0, "a", 1, 4), Asked(0, "b", 1, 2), Asked(0, "b", 2, 3), Asked(1, "a", 1, 0), Asked(1, "a", 1, 1), Asked(1, "b", 1, 5)],
    5,
    [1],
    Random(0),
)
@given(ASKED, st.integers(0, 6), st.lists(st.integers(0, 2), max_size=12), st.randoms(use_true_random=False))
def test_shards_that_look_in_any_order_give_the_slots_that_one_order_over_all_would_give(
    asked: list[Asked], free: int, looks: list[int], random: Random
) -> None:
    """Each gives its own attempts only, and nobody's that come later than another shard's; those that are called look at last."""
    together, apart = Slots(Capacity(free)), Slots(Capacity(free))
    admit(together, fair(lines_of(asked, None, together), together))

    def look(shard: int) -> Admission:
        lines = in_one_line([lines_of(asked, each, apart) for each in range(3)])
        admission = admit(apart, fair(lines, apart), SHARDS[shard].__eq__)
        assert len(apart.taken) <= free
        assert all(grant.attempt.run == SHARDS[shard] for grant in admission.grants)
        return admission

    called = {0, 1, 2}
    for shard in [*looks, *([-1] * 20)]:
        if shard < 0 and not called:
            break
        chosen = shard if shard >= 0 else random.choice(sorted(called))
        called.discard(chosen)
        called |= {SHARDS.index(attempt.run) for attempt in look(chosen).others}
    assert not called
    for slots in (apart, together):  # in a namespace who comes first has one
        for namespace, line in lines_of(asked, None, Slots(Capacity(0))).items():
            order = [one.attempt for one in line]
            assert set(order[: sum(one.namespace == namespace for _, one in slots.taken.values())]) == set(slots.taken) & set(order)
    by_priority, by_namespace = (
        [Counter(getattr(one, what) for _, one in slots.taken.values()) for slots in (apart, together)]
        for what in ("priority", "namespace")
    )
    assert by_priority[0] == by_priority[1]
    assert all(abs(by_namespace[0][name] - by_namespace[1][name]) <= 1 for name in "ab")  # between equals it is the turn that decides
    assert len({slot for slot, _ in apart.taken.values()}) == len(apart.taken)


def test_what_others_can_have_is_left_to_them_and_costs_their_namespace_no_turn() -> None:
    slots = Slots(Capacity(3))
    asked = [Asked(0, "a", 0, 1), Asked(1, "b", 5, 2), Asked(0, "a", 0, 3), Asked(0, "a", 0, 4)]
    admission = admit(slots, fair(lines_of(asked, None, slots), slots), SHARDS[0].__eq__)
    assert [grant.attempt.task for grant in admission.grants] == [2, 4]
    assert [attempt.run for attempt in admission.others] == [SHARDS[1]]
    assert admission.rest
    assert len(slots.unused) == 1
    assert slots.turns == {"a": 3}  # b's would have been the first


def gang(task: int, nodes: int, cpu: float = 0) -> Waiting:
    """A waiting gang."""
    return Waiting(AttemptId(RUN, TaskId(task), 0), cpu, nodes=nodes)


def test_a_gang_gets_its_slots_together_or_not_at_all_and_is_not_overtaken() -> None:
    """What waits behind it waits on, too, though there is room for it."""
    slots = Slots(Capacity(4))
    assert tasks(slots, waiting(1), gang(2, 4), waiting(9)) == [(1, 0)]
    assert len(slots.unused) == 3
    slots.free(waiting(1).attempt)
    assert tasks(slots, gang(2, 4), waiting(9)) == [(2, 0), (3, 1), (4, 2), (5, 3)]


def test_a_gang_asks_for_what_all_of_its_nodes_declare() -> None:
    slots = Slots(Capacity(8, cpu=8))
    assert tasks(slots, waiting(1, cpu=2)) == [(1, 0)]
    assert slots.room_for(gang(2, 4, cpu=2)) == "cpu: needs 8, 6 free"
    assert tasks(slots, gang(2, 4, cpu=2)) == []
    assert tasks(slots, gang(2, 3, cpu=2)) == [(2, 1), (3, 2), (4, 3)]


@given(st.lists(st.integers(1, 6), max_size=12), st.integers(1, 8), st.data())
def test_no_gang_ever_has_a_part_of_its_slots(queue: list[int], capacity: int, data: st.DataObject) -> None:
    """Whatever waits and whatever ends; and what fits comes to its turn."""
    slots = Slots(Capacity(capacity))
    left = [gang(1 + 10 * place, nodes) for place, nodes in enumerate(queue) if nodes <= capacity]
    running: list[Waiting] = []
    while left or running:
        admission = admit(slots, left)
        granted = Counter(grant.attempt.task // 10 for grant in admission.grants)
        for one in [one for one in left if one.attempt.task // 10 in granted]:
            assert granted[one.attempt.task // 10] == one.nodes
            left.remove(one)
            running.append(one)
        assert running, "nothing runs, and something waits"
        assert sum(one.nodes for one in running) == len(slots.taken) <= capacity
        ended = running.pop(data.draw(st.integers(0, len(running) - 1)))
        for node in ended.each():
            slots.free(node.attempt)
