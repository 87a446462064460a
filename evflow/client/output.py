"""What attempts printed, from the run's store."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from evflow import config
from evflow.client.errors import DataElsewhere
from evflow.client.history import RunHistory
from evflow.core.state import Task
from evflow.errors import UsageError
from evflow.store.live_cards import LiveCard, live_cards
from evflow.store.logs import STREAMS, Stream, find_folder, folder_of, read_log, read_text


class NoSuchStream(UsageError):
    """The output has two streams."""

    code = "no-such-stream"

    def __init__(self, stream: str) -> None:
        super().__init__(f"There is no stream '{stream}'; there are {' and '.join(STREAMS)}.")


class LogText(NamedTuple):
    """One stream of one attempt."""

    folder: str
    task: int
    attempt: int
    stream: Stream

    def text(self) -> str:
        """All of it."""
        return read_text(self.folder, self.task, self.attempt, self.stream)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Its lines with the instant (microseconds) at which each was read."""
        start_us, parts = 0, list[str]()
        for line in read_log(self.folder, self.task, self.attempt, self.stream):
            start_us = line.at_us if not parts else start_us
            parts.append(line.text)
            if line.ends:
                yield start_us, "".join(parts)
                parts.clear()
        if parts:
            yield start_us, "".join(parts)


def drawn(history: RunHistory, task: Task, attempt: int) -> list[LiveCard]:
    """The cards of an attempt as it drew them last while it went on; none where its output cannot be seen from here."""
    folder = find_folder(history.known().header.get("store", ""), history.run, config.get("store"))
    return [card for card in live_cards(folder) if (card.task, card.attempt) == (task.id, attempt)]


def output_of(history: RunHistory, task: Task, attempt: int, stream: str) -> LogText:
    """A stream of an attempt; empty where the attempt printed nothing.

    Raises:
        NoSuchStream: It is neither `stdout` nor `stderr`.
        DataElsewhere: The attempt ran on another machine, and its output is not here.
    """
    found: Stream | None = next((known for known in STREAMS if known == stream), None)
    if found is None:
        raise NoSuchStream(stream)
    run = history.run
    header = history.known().header
    configured: str = config.get("store")
    folder = find_folder(header.get("store", ""), run, configured)
    if folder is None:
        url: str = header.get("store") or configured
        folder = folder_of(url, run)
        host = next((known.host for known in reversed(task.attempts) if known.host), "") or header.get("host", "")
        if host and host != os.uname().nodename:
            raise DataElsewhere(f"The output of Task '{run}/{task.step}/{task.id}'", host, url, folder)
    return LogText(folder, task.id, attempt, found)
