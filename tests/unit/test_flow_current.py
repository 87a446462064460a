"""`current`: what a step may ask about itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow import current
from evflow.flow.current import enter, enter_gang, leave


@pytest.fixture
def inside() -> Iterator[None]:
    enter(
        flow_name="Flow",
        run_id=3,
        step_name="train",
        task_id=17,
        retry_count=1,
        namespace="user:ada",
        username="ada",
        tags=("a", "b"),
        graph=lambda: {"start": "start"},
        parameter_names=["alpha"],
        trigger={"kind": "schedule", "tick": "2026-03-29T03:00:00+02:00"},
    )
    yield
    leave()


@pytest.mark.usefixtures("inside")
def test_a_step_knows_where_it_is() -> None:
    assert (current.flow_name, current.run_id, current.step_name, current.task_id) == ("Flow", "3", "train", "17")
    assert current.pathspec == "Flow/3/train/17"
    assert (current.retry_count, current.origin_run_id, current.namespace, current.username) == (1, None, "user:ada", "ada")
    assert current.tags == {"a", "b"}
    assert current.graph == {"start": "start"}
    assert current.parameter_names == ["alpha"]
    assert current.is_running_flow
    assert current.trigger is not None
    assert current.trigger["tick"] == "2026-03-29T03:00:00+02:00"


@pytest.mark.usefixtures("inside")
def test_a_step_has_a_folder_for_temporary_files() -> None:
    assert Path(current.tempdir).is_dir()
    assert "tempdir" in current
    leave()
    assert "tempdir" not in current
    with pytest.raises(AttributeError, match="only while a step runs"):
        _ = current.tempdir


@pytest.mark.usefixtures("inside")
def test_members_can_be_asked_for() -> None:
    assert "run_id" in current
    assert "pathspec" in current
    assert "card" not in current
    assert current.get("run_id") == "3"
    assert current.get("card", "none") == "none"


@pytest.mark.usefixtures("inside")
def test_an_unknown_member_is_guessed() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'run_di'. Did you mean 'run_id'"):
        _ = current.run_di


def test_outside_of_a_step_nothing_is_there() -> None:
    assert not current.is_running_flow
    assert "run_id" not in current
    assert current.get("pathspec") is None
    with pytest.raises(AttributeError, match="only while a step runs"):
        _ = current.run_id


@pytest.mark.usefixtures("inside")
def test_a_node_knows_its_gang_and_any_other_task_is_alone() -> None:
    assert not current.is_parallel
    assert current.parallel == ("127.0.0.1", 1, 0, None)
    enter_gang(17, (2, 4), "10.0.0.7")
    assert current.is_parallel
    assert "parallel" in current
    place = current.parallel
    assert (place.main_ip, place.num_nodes, place.node_index, place.control_task_id) == ("10.0.0.7", 4, 2, "15")
    leave()
    assert not current.is_parallel
    assert "parallel" not in current
    with pytest.raises(AttributeError, match="only while a step runs"):
        _ = current.parallel
