"""One stream of what several sources saw, in the order in which it came, and its end."""

from collections.abc import AsyncGenerator

from evflow_executors.mailbox import Mailbox
from evflow_executors.protocol import Observation, OutputLine


class MergedStream:
    """A bounded queue with one taker, and an end.

    Args:
        bound: Who puts more than this waits until the taker has caught up.
    """

    def __init__(self, bound: int) -> None:
        self._mail = Mailbox[Observation | OutputLine](bound)
        self._closed = False
        self._error: BaseException | None = None

    async def put(self, seen: Observation | OutputLine) -> None:
        """Put something in, behind all else. After `lift` nothing waits: there may be no taker any more."""
        await self._mail.put(seen)

    def lift(self) -> None:
        """Let in whatever comes from now on; what is left is bounded by what ran."""
        self._mail.lift()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will come; the taker gets what is there, then the end, or this error."""
        self._closed = True
        self._error = self._error or error
        self._mail.wake()

    async def take(self) -> AsyncGenerator[Observation | OutputLine]:
        """All of it, until the end. Nothing is lost with a watcher's deadline."""
        while True:
            while (seen := self._mail.take()) is not None:
                yield seen
            if self._error is not None:
                raise self._error
            if self._closed:
                return
            await self._mail.wait()
