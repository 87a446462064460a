"""A step that takes longer than anybody measures: its runs are live until they are killed."""

import time

from evflow import FlowSpec, step


class Waiting(FlowSpec):
    """One long step."""

    @step
    def start(self):
        time.sleep(3600)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Waiting()
