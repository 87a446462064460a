"""What an owner says of its runs' waits stands beside the log as long as it is so, and no word of anybody else."""

from typing import TypeVar

import pytest

from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log.commands import Operation
from evflow.log.errors import LogConnectionLost
from evflow.log.link import Link
from evflow.log.said_waits import SaidWaits, said

T = TypeVar("T")
SHARD = "s1"
FIRST, SECOND, THIRD = (RunId(FlowName("F"), RunNumber(number)) for number in (1, 2, 3))


class Cut(Link):
    """A connection whose next word is lost."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.loses = False

    async def do(self, operation: Operation[T]) -> T:
        if self.loses:
            self.loses = False
            raise LogConnectionLost("here")
        return await super().do(operation)


async def told(link: Link) -> dict[str, list[str]]:
    """Who says something of each run."""
    return {run: [one.by for one in each] for run, each in (await link.do(said([SHARD]))).items()}


async def test_what_a_former_owner_said_is_gone_with_the_first_word_of_the_next_one(redis_url: str) -> None:
    link = Link(redis_url)
    former = SaidWaits(link, SHARD, "former")
    for run in (FIRST, SECOND):
        await former.say(run, "kubernetes", 1, "It is away.")
    owner = SaidWaits(link, SHARD, "owner")
    await owner.say(THIRD, "kubernetes", 1, "It is away.")
    await owner.say(FIRST, "kubernetes", 1, "It is away.")
    assert await told(link) == {"F/1": ["owner"], "F/3": ["owner"]}
    await link.aclose()


@pytest.mark.parametrize("others", [True, False])
async def test_what_is_taken_back_while_the_log_is_away_is_gone_with_the_next_word(redis_url: str, *, others: bool) -> None:
    link = Cut(redis_url)
    owner = SaidWaits(link, SHARD, "owner")
    for run in (FIRST, SECOND, THIRD):
        await owner.say(run, "kubernetes", 1, "It is away.")
    link.loses = True
    await owner.unsay(FIRST, "kubernetes")
    assert sorted(await told(link)) == ["F/1", "F/2", "F/3"]
    if others:
        await owner.say(THIRD, "kubernetes", 2, "It is away.")
        assert await told(link) == {"F/2": ["owner"], "F/3": ["owner"]}
    else:
        link.loses = True
        await owner.unsay(SECOND, "kubernetes")
        await owner.unsay(THIRD, "kubernetes")
        assert await told(link) == {}
    await link.aclose()
