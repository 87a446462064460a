"""Joins: reading inputs, merging artifacts, and what passes down without being asked."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

import evflow.flow.joined
from evflow import FlowSpec, Inputs, Parameter, step
from evflow.exception import MergeArtifactsException, MissingInMergeArtifactsException, UnhandledInMergeArtifactsException
from evflow.flow.execution import collect, instantiate
from evflow.flow.joined import CHUNK
from evflow.flow.scope import scope_of
from evflow.flow.transitions import END
from tests.unit.flow_world import StoredView, after, stored


class Flow(FlowSpec):
    alpha = Parameter("alpha", default=1)

    @step
    def start(self) -> None:
        self.next(self.a, self.b)

    @step
    def a(self) -> None:
        self.next(self.join)

    @step
    def b(self) -> None:
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


class Joining:
    """An instance in the join step, whose inputs have these artifacts."""

    def __init__(self, *views: StoredView, steps: Sequence[str] = ("a", "b")) -> None:
        self.views = views
        self.opened: list[int] = []
        parents = [(steps[index % len(steps)], index + 2, str(index).encode()) for index in range(len(views))]
        self.flow: Any = instantiate(
            Flow, "join", parameters=stored(alpha=1), parents=parents, open_views=self.open, joined=("start", 1, "split", 0, 2)
        )
        joined = scope_of(self.flow).joined
        assert joined is not None
        self.joined = joined
        self.inputs: Any = joined.inputs

    def open(self, digests: Iterable[bytes]) -> list[StoredView]:
        indexes = [int(digest) for digest in digests]
        self.opened += indexes
        return [self.views[index] for index in indexes]

    def left(self) -> StoredView:
        """What the join leaves to the steps behind it."""
        scope_of(self.flow).transition = END
        return after(collect(self.flow))

    def loads(self) -> int:
        return sum(entry.loads for view in self.views for entry in view.values())


# --- inputs ----------------------------------------------------------------------------------------------


def test_inputs_are_read_by_position_slice_name_and_iteration() -> None:
    joining = Joining(stored(x=1), stored(x=2))
    inputs = joining.inputs
    assert len(inputs) == 2
    assert (inputs[0].x, inputs[-1].x) == (1, 2)
    assert [each.x for each in inputs[1:]] == [2]
    assert [each.x for each in inputs] == [1, 2]
    assert (inputs.a.x, inputs.b.x) == (1, 2)


def test_an_input_that_is_not_there_says_how_many_there_are() -> None:
    with pytest.raises(IndexError, match=r"2 inputs; there is no inputs\[2\]"):
        Joining(stored(), stored()).inputs[2]


def test_an_unknown_branch_lists_the_branches() -> None:
    with pytest.raises(AttributeError, match=r"no input of this join|No input of this join comes from a step 'bb'.*a, b.*Did you mean 'b'"):
        _ = Joining(stored(), stored()).inputs.bb


def test_what_is_set_on_an_input_changes_this_joins_copy_only() -> None:
    joining = Joining(stored(x=1), stored(x=2))
    for each in joining.inputs:
        each.x *= 10
    assert [each.x for each in joining.inputs] == [10, 20]
    assert joining.views[0].load("x") == 1
    assert "x" not in joining.left()


def test_an_input_has_the_parameters_and_the_methods_of_the_flow() -> None:
    assert Joining(stored(), stored()).inputs.a.alpha == 1


def test_reading_an_artifact_that_an_input_lacks_says_so() -> None:
    with pytest.raises(AttributeError, match=r"Flow Flow has no attribute 'y'\. In step a it has: x"):
        _ = Joining(stored(x=1), stored()).inputs.a.y


def test_next_on_an_input_is_refused() -> None:
    joining = Joining(stored(), stored())
    with pytest.raises(Exception, match="on an input of a join"):
        joining.inputs.a.next(joining.inputs.a.end)


def test_manifests_are_opened_in_chunks_and_once() -> None:
    views = [stored(x=index) for index in range(CHUNK + 5)]
    joining = Joining(*views)
    iterator = iter(joining.inputs)
    assert next(iterator).x == 0
    assert joining.opened == list(range(CHUNK))
    assert sum(each.x for each in joining.inputs) == sum(range(CHUNK + 5))
    assert joining.opened == list(range(CHUNK + 5))


def test_a_join_of_many_holds_few_manifests_and_opens_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evflow.flow.joined, "VIEWS_HELD", 2 * CHUNK)
    joining = Joining(*(stored(x=index, same="s") for index in range(10 * CHUNK)))
    assert sum(each.x for each in joining.inputs) == sum(range(10 * CHUNK))
    assert joining.left().keys() == {"alpha", "same"}
    assert joining.opened == list(range(10 * CHUNK))
    assert len(joining.joined._views) <= 2 * CHUNK
    assert joining.joined.view(0) is joining.views[0]


def test_a_join_of_large_values_holds_few_of_them_but_all_that_it_set(monkeypatch: pytest.MonkeyPatch) -> None:
    joining = Joining(*(stored(x=bytes(1000)) for _ in range(50)))
    monkeypatch.setattr(evflow.flow.joined, "VALUES_HELD_BYTES", 5_000)
    joining.inputs[3].x = b"set"
    first = joining.inputs[0]
    assert [len(each.x) for each in joining.inputs] == [1000] * 3 + [3] + [1000] * 46
    assert len(joining.joined._flows) <= 6
    assert joining.inputs[3].x == b"set"
    assert len(first.x) == 1000


def test_values_of_inputs_stay_in_memory_while_they_are_small() -> None:
    joining = Joining(*(stored(x=[index]) for index in range(3)))
    for each in joining.inputs:
        each.x.append("changed")
    assert [each.x for each in joining.inputs] == [[0, "changed"], [1, "changed"], [2, "changed"]]
    assert joining.loads() == 3


@pytest.mark.parametrize("name", ["view", "views", "agreed", "flow", "steps", "find", "index", "count", "_members"])
def test_no_name_of_a_step_is_taken_by_the_inputs(name: str) -> None:
    assert getattr(Joining(stored(x=1), stored(x=2), steps=("a", name)).inputs, name).x == 2


def test_inputs_cannot_be_kept() -> None:
    import pickle

    with pytest.raises(TypeError, match="keep the values that you need"):
        pickle.dumps(Joining(stored(), stored()).inputs)


# --- what passes down without being asked ----------------------------------------------------------------


def test_an_artifact_that_all_inputs_have_alike_passes_the_join_without_being_loaded() -> None:
    joining = Joining(stored(x=[1], y=1), stored(x=[1], y=2))
    behind = joining.left()
    assert behind.keys() == {"alpha", "x"}
    assert joining.loads() == 0


def test_a_parameter_of_the_resumed_run_does_not_pass_in_place_of_this_runs() -> None:
    joining = Joining(stored(alpha=2), stored(alpha=2))
    assert joining.left().load("alpha") == 1


def test_an_artifact_that_one_input_lacks_does_not_pass() -> None:
    assert "x" not in Joining(stored(x=1), stored()).left()


def test_a_private_artifact_does_not_pass_by_itself() -> None:
    assert "_x" not in Joining(stored(_x=1), stored(_x=1)).left()


def test_what_the_join_sets_takes_the_place_of_what_would_pass() -> None:
    joining = Joining(stored(x=1), stored(x=1))
    joining.flow.x = 5
    assert joining.left().load("x") == 5


def test_what_the_join_deletes_does_not_pass() -> None:
    joining = Joining(stored(x=1), stored(x=1))
    del joining.flow.x
    assert "x" not in joining.left()


def test_an_artifact_on_which_the_inputs_agree_is_read_in_the_join() -> None:
    assert Joining(stored(x=7), stored(x=7)).flow.x == 7


def test_a_change_to_such_an_artifact_is_kept() -> None:
    joining = Joining(stored(x=[7]), stored(x=[7]))
    joining.flow.x.append(8)
    assert joining.left().load("x") == [7, 8]


def test_reading_an_artifact_on_which_they_do_not_agree_names_the_owners_and_advises() -> None:
    joining = Joining(stored(x=1), stored(x=2), stored(x=2))
    with pytest.raises(AttributeError) as caught:
        _ = joining.flow.x
    text = str(caught.value)
    assert "Flow Flow has no single 'x' in the join step join" in text
    assert "2 values, of inputs[0] (a, task 2); of inputs[1] (b, task 3) and inputs[2] (a, task 4)" in text
    assert "inputs[0].x" in text


def test_reading_an_artifact_that_one_input_has_names_it() -> None:
    with pytest.raises(AttributeError, match=r"only inputs\[1\] \(b, task 3\) of 2 inputs has it"):
        _ = Joining(stored(), stored(x=1)).flow.x


# --- merge_artifacts -------------------------------------------------------------------------------------


def test_merging_passes_down_what_only_some_inputs_have_and_private_ones() -> None:
    joining = Joining(stored(x=1, _p=3), stored(y=2, _p=3))
    joining.flow.merge_artifacts(joining.inputs)
    behind = joining.left()
    assert {name: behind.load(name) for name in ("x", "y", "_p")} == {"x": 1, "y": 2, "_p": 3}
    assert joining.loads() == 3  # by this test, not by the merge


def test_what_was_merged_is_read_in_the_join_and_a_change_to_it_is_kept() -> None:
    joining = Joining(stored(same=1), stored(x=[1], same=1), stored(x=[1], _p=3, same=1))
    joining.flow.merge_artifacts(joining.inputs)
    assert (joining.flow.x, joining.flow._p) == ([1], 3)
    joining.flow.x.append(2)
    behind = joining.left()
    assert (behind.load("x"), behind.load("_p")) == ([1, 2], 3)
    assert collect(joining.flow).read_through == [joining.views[1], joining.views[2]]


def test_what_is_not_merged_cannot_be_read_where_only_some_inputs_have_it() -> None:
    joining = Joining(stored(x=1, z=3), stored(y=2, z=3))
    joining.flow.merge_artifacts(joining.inputs, include=["x"])
    with pytest.raises(AttributeError, match=r"only inputs\[1\]"):
        _ = joining.flow.y
    with pytest.raises(AttributeError, match=r"it has: .*\bx\b"):
        _ = joining.flow.nothing


def test_merging_a_conflict_names_it_and_merges_nothing() -> None:
    joining = Joining(stored(x=1, y=1, z=1), stored(x=2, y=2, z=1, only=4))
    with pytest.raises(UnhandledInMergeArtifactsException) as caught:
        joining.flow.merge_artifacts(joining.inputs)
    assert caught.value.artifact_names == ["x", "y"]
    assert "Step join cannot merge the following artifacts due to them having conflicting values: [x, y]" in caught.value.message
    assert "inputs[1] (b, task 3)" in caught.value.message
    assert "only" not in joining.left()


def test_what_was_set_before_the_merge_is_no_conflict() -> None:
    joining = Joining(stored(x=1), stored(x=2))
    joining.flow.x = 3
    joining.flow.merge_artifacts(joining.inputs)
    assert joining.left().load("x") == 3


def test_what_was_only_read_before_the_merge_is_merged() -> None:
    joining = Joining(stored(x=[1]), stored(x=[1]))
    _ = joining.flow.x
    joining.flow.merge_artifacts(joining.inputs, include=["x"])
    assert joining.left().load("x") == [1]


def test_excluded_artifacts_neither_conflict_nor_pass() -> None:
    joining = Joining(stored(x=1, same=1), stored(x=2, same=1))
    joining.flow.merge_artifacts(joining.inputs, exclude=["x", "same"])
    assert joining.left().keys() == {"alpha"}


def test_an_excluded_artifact_that_was_read_does_not_pass() -> None:
    joining = Joining(stored(same=[1]), stored(same=[1]))
    _ = joining.flow.same
    joining.flow.merge_artifacts(joining.inputs, exclude=["same"])
    assert "same" not in joining.left()


def test_included_artifacts_alone_pass() -> None:
    joining = Joining(stored(x=1, same=1, conflict=1), stored(x=1, same=1, conflict=2))
    joining.flow.merge_artifacts(joining.inputs, include=["x"])
    assert joining.left().keys() == {"alpha", "x"}


def test_an_included_artifact_that_no_input_has_is_told() -> None:
    joining = Joining(stored(x=1), stored(x=1))
    with pytest.raises(MissingInMergeArtifactsException) as caught:
        joining.flow.merge_artifacts(joining.inputs, include=["z", "x"])
    assert caught.value.artifact_names == ["z"]
    assert "The inputs have: x" in caught.value.hint


def test_an_included_artifact_that_the_join_set_is_there() -> None:
    joining = Joining(stored(), stored())
    joining.flow.z = 1
    joining.flow.merge_artifacts(joining.inputs, include=["z"])
    assert joining.left().load("z") == 1


def test_exclude_and_include_together_are_refused() -> None:
    joining = Joining(stored(x=1), stored(x=1))
    with pytest.raises(MergeArtifactsException, match="both exclude and include"):
        joining.flow.merge_artifacts(joining.inputs, exclude=["x"], include=["x"])


def test_a_string_instead_of_a_list_of_names_is_refused() -> None:
    joining = Joining(stored(x=1), stored(x=1))
    with pytest.raises(MergeArtifactsException, match=r"exclude=\['x'\]"):
        joining.flow.merge_artifacts(joining.inputs, exclude="x")


def test_merging_outside_of_a_join_is_refused() -> None:
    flow = instantiate(Flow, "a", parameters=stored(), view=stored())
    with pytest.raises(MergeArtifactsException, match="which is not a join"):
        flow.merge_artifacts([])


def test_some_of_the_inputs_are_merged_alone() -> None:
    joining = Joining(stored(x=1), stored(x=2, broken=True), stored(x=1, y=3))
    joining.flow.merge_artifacts([each for each in joining.inputs if not hasattr(each, "broken")])
    assert (joining.flow.x, joining.flow.y) == (1, 3)
    assert joining.left().keys() == {"alpha", "x", "y"}


def test_a_conflict_among_some_of_the_inputs_names_those() -> None:
    joining = Joining(stored(x=1), stored(x=2), stored(x=3))
    with pytest.raises(UnhandledInMergeArtifactsException, match=r"2 values, of inputs\[0\] \(a, task 2\); of inputs\[2\] \(a, task 4\)"):
        joining.flow.merge_artifacts([joining.inputs[0], joining.inputs[2]])


@pytest.mark.parametrize("given", [5, None, "ab", [1], ["x"]], ids=repr)
def test_merging_what_is_no_input_is_refused(given: object) -> None:
    joining = Joining(stored(), stored())
    with pytest.raises(MergeArtifactsException, match="Give it the inputs of the step"):
        joining.flow.merge_artifacts(given)


def test_merging_the_inputs_of_another_join_is_refused() -> None:
    joining, other = Joining(stored(x=1), stored(x=1)), Joining(stored(x=1), stored(x=1))
    with pytest.raises(MergeArtifactsException, match="was given list"):
        joining.flow.merge_artifacts(other.inputs[:1])


def test_parameters_are_no_conflict_even_where_a_resumed_input_has_another_value() -> None:
    joining = Joining(stored(alpha=1), stored(alpha=2))
    joining.flow.merge_artifacts(joining.inputs)
    assert joining.left().load("alpha") == 1
