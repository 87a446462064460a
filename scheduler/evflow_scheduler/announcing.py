"""Tells the program that asked for a run which run it is, once the run has begun: `--runner-attribute-file`."""

import json
import os
from typing import Any

from evflow import config
from evflow.core.codec import Record
from evflow.core.ids import RunId
from evflow_scheduler.request import RunView


class AnnouncingView:
    """A view that writes flow, number and log to a file at the run's first event, and shows nothing itself.

    At the number already would be too early: who asks then finds a run without an owner. What is written has Metaflow's names. The
    log's address is the one for people, without a password.

    Args:
        view: What shows the run.
        file: A file, or a pipe that somebody reads.
        run: The run.
    """

    def __init__(self, view: RunView, file: str, run: RunId) -> None:
        self._view = view
        self._file = file
        self._run = run
        self._waits = True
        self.on_start, self.on_line, self.on_notice = view.on_start, view.on_line, view.on_notice
        self.tick, self.close = view.tick, view.close

    def on_event(self, record: Record, state: Any) -> None:
        """Write at the first one, then show it."""
        if self._waits:
            self._waits = False
            self._write()
        self._view.on_event(record, state)

    def _write(self) -> None:
        url = config.get("redis_url")
        log = config.shown("redis_url", url) if url else config.get("home")
        text = json.dumps({"flow_name": self._run.flow, "run_id": str(self._run.number), "metadata": str(log)})
        try:
            # Not to wait for a reader: a pipe that has none is an error.
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")
        except OSError as error:  # the run is what counts; who asked may be gone
            self.on_notice(f"'{self._file}' does not learn which run this is: {error.strerror}.")
