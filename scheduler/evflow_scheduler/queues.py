"""Events from queues of SQS: notifications of S3, and whatever else is sent there.

A message is deleted after what it tells is durable in the log, and the ids of its events follow from what it tells: so one that comes twice, because a
scheduler died in between or because SQS says that it may, leads to one event. Any number of schedulers may read a queue beside each other.

While a message is worked on, and for as long as the log is away, it is kept from other readers; a scheduler that dies keeps it for `_OURS_FOR_S` more. None
is taken while the log does not answer: each taking counts for the queue's dead-letter policy.

What cannot be read is recorded once, as the event `evflow.refused`, and left where the queue has a dead-letter queue, which gets it after as many
tries as its policy says; else deleted, or it would come for days.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import anyio

from evflow import aws, diagnostics
from evflow.core.notifications import Other, Rule, S3Object, read_message
from evflow_scheduler.accepting import Acceptance, Offered
from evflow_scheduler.reading import Reading

_BATCH: Final = 10
"""The most that SQS gives at once."""
_WAIT_S: Final = 20
"""The longest that SQS waits for a message: an idle queue costs three requests a minute."""
_OURS_FOR_S: Final = 30
_HOLD_EVERY_S: Final = 10.0
_LEAVE_S: Final = 2.0
_POLICY_FOR_S: Final = 60.0
_DELETE_TRIES: Final = 3


class _Taken(NamedTuple):
    """A message that is ours for a while."""

    id: str
    receipt: str
    body: str


class QueueReader:
    """Reads one queue.

    Args:
        sqs: A client of SQS.
        url: The queue.
        rules: What becomes an event; the first one that takes a notice gives the name.
        acceptance: Where events go.
        reading: Counts.
    """

    def __init__(self, sqs: Any, url: str, rules: Sequence[Rule], acceptance: Acceptance, reading: Reading) -> None:
        self._sqs = sqs
        self._url = url
        self._rules = rules
        self._accept = acceptance
        self._reading = reading
        self._has_policy = True
        self._policy_seen_s = -_POLICY_FOR_S

    async def read(self) -> None:
        """Read until cancelled. Whatever AWS does not do is said, and tried again, less and less often."""
        while True:
            await self._accept.log_answers()
            try:
                taken = await self._receive()
                self._reading.works()
                if taken:
                    await self._take_in(taken)
            except aws.AwsProblem as problem:
                await anyio.sleep(aws.pause_s(self._reading.fails(str(problem))))

    async def _receive(self) -> list[_Taken]:
        with aws.explained(f"receive messages of {self._url}"):
            answer = await self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=_WAIT_S, VisibilityTimeout=_OURS_FOR_S
            )
        return [_Taken(one["MessageId"], one["ReceiptHandle"], one.get("Body", "")) for one in answer.get("Messages", ())]

    async def _take_in(self, taken: Sequence[_Taken]) -> None:
        """Make events of messages, then delete them."""
        done: list[_Taken] = []
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._hold, taken)
                for message in taken:
                    if await self._accepted(message):
                        done.append(message)  # noqa: PERF401 - what is done so far counts where this ends early
                group.cancel_scope.cancel()
        except BaseException:
            with anyio.move_on_after(_LEAVE_S, shield=True):
                await self._let_go([message for message in taken if message not in done])
                await self._delete(done)
            raise
        await self._delete(done)

    async def _accepted(self, message: _Taken) -> bool:
        """Publish what a message tells; True once it may be deleted."""
        told = read_message(message.body)
        taken = [(notice, rule) for notice in told.notices if (rule := self._rule_of(notice)) is not None]
        for _ in range(len(told.notices) - len(taken)):
            self._reading.count("passed")
        offered = [Offered(_id_of(notice, message), rule.event, notice.payload) for notice, rule in taken]
        faults = [*told.faults, *await self._accept.all_of(offered)]
        if not faults:
            return True
        await self._accept.refuse(message.id, faults)
        return not await self._policy()

    def _rule_of(self, notice: S3Object | Other) -> Rule | None:
        return next((rule for rule in self._rules if rule.takes(notice)), None)

    async def _policy(self) -> bool:
        """Whether the queue has a dead-letter queue, as far as we may know: if we may not, it is left to the queue all the same."""
        if anyio.current_time() - self._policy_seen_s >= _POLICY_FOR_S:
            self._policy_seen_s = anyio.current_time()
            try:
                with aws.explained(f"look at the attributes of {self._url}"):
                    answer = await self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["RedrivePolicy"])
                self._has_policy = "RedrivePolicy" in answer.get("Attributes", {})
            except aws.AwsProblem as problem:
                diagnostics.warning("what cannot be read stays in the queue: its policy is not known", place=self._url, why=str(problem))
                self._has_policy = True
        return self._has_policy

    async def _hold(self, taken: Sequence[_Taken]) -> None:
        """Keep messages from other readers until cancelled."""
        while True:
            await anyio.sleep(_HOLD_EVERY_S)
            try:
                await self._visible_in(taken, _OURS_FOR_S)
            except aws.AwsProblem as problem:  # then another reader may get them too, which is no harm
                diagnostics.debug("messages may come to another reader too", place=self._url, why=str(problem))

    async def _let_go(self, taken: Sequence[_Taken]) -> None:
        """Give messages to whoever reads next, at once."""
        try:
            await self._visible_in(taken, 0)
        except aws.AwsProblem as problem:
            diagnostics.debug("messages come to others only in a while", place=self._url, why=str(problem))

    async def _visible_in(self, taken: Sequence[_Taken], seconds: int) -> None:
        if taken:
            entries = [
                {"Id": str(place), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds} for place, message in enumerate(taken)
            ]
            with aws.explained(f"keep messages of {self._url}"):
                await self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

    async def _delete(self, deletable: Sequence[_Taken]) -> None:
        """Delete messages. One that stays comes again, and is an event that is known.

        Raises:
            AwsProblem: SQS does not do it.
        """
        done: list[_Taken] = [*deletable]
        for pause_s in range(_DELETE_TRIES):
            if not done:
                return
            await anyio.sleep(pause_s)
            entries = [{"Id": str(place), "ReceiptHandle": message.receipt} for place, message in enumerate(done)]
            with aws.explained(f"delete messages of {self._url}"):
                answer = await self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
            failed: list[Any] = answer.get("Failed", [])
            done = [done[int(one["Id"])] for one in failed if not one.get("SenderFault")]
            for one in failed:
                diagnostics.debug("a message was not deleted", place=self._url, why=one.get("Message", one.get("Code", "")))


def _id_of(notice: S3Object | Other, message: _Taken) -> str:
    """The event's id: of the change, of the sender's name for the message, or of the queue's."""
    return notice.id if isinstance(notice, S3Object) else f"sqs:{notice.id or message.id}"[:128]
