"""What is said of a shard that somebody else owns."""

from pathlib import Path

import pytest

from evflow.log.owners import lives, owner_name
from evflow.log.protocol import LeaseHeld, LeaseLost

OWNER = "laptop:812:1795435200000000:0123456789abcdef"


def test_a_run_that_is_owned_is_told_with_its_process_and_what_to_do() -> None:
    error = LeaseHeld("run:Train:7", OWNER, 13.12)
    assert error.message == "'Train/7' is being run by process 812 on laptop; its lease holds for 13.1 s more."
    assert error.hint == (
        "It goes on by itself. `evflow cancel Train/7` ends it. "
        "If laptop is another machine and has died, try again when the lease has run out."
    )


def test_a_run_that_was_taken_over_is_told_with_its_new_process() -> None:
    assert LeaseLost("run:Train:7", OWNER).message == "'Train/7' has been taken over by process 812 on laptop: this process stops."
    assert LeaseLost("run:Train:7", "").message == "'Train/7' has no owner any more: this process stops."


def test_a_shard_of_many_runs_and_an_owner_of_another_kind_are_named_as_they_are() -> None:
    assert LeaseHeld("pool-3", "ada", 1).message.startswith("The shard 'pool-3' is being run by ada;")


def test_an_owner_of_this_host_whose_process_is_not_there_is_dead_unless_it_is_in_another_pid_namespace() -> None:
    own = owner_name()
    host, _, named_us, chance = own.split(":")
    assert lives(own)
    assert lives(f"{own}:0-3:1")
    nobody = 2**22 + 1  # more than Linux ever gives
    assert not lives(f"{host}:{nobody}:{named_us}:{chance}")
    assert not lives(f"{host}:{nobody}:{named_us}:{chance.partition('-')[0]}")
    assert lives(f"{host}:{nobody}:{named_us}:{chance.partition('-')[0]}-4")


def test_an_owners_name_says_its_pid_namespace_where_there_are_any() -> None:
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        pytest.skip("this system has no PID namespaces in /proc")
    assert owner_name().rpartition("-")[2] == namespace[len("pid:[") : -1]
