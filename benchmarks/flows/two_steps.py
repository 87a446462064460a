"""The smallest flow: what is left when nothing is done."""

from evflow import FlowSpec, step


class TwoSteps(FlowSpec):
    """Start, end."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TwoSteps()
