"""What is said of a shard that somebody else owns."""

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
