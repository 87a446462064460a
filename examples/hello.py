"""Greet some people, each in a task of its own, and collect what was said.

Run it with ``python hello.py run``.
"""

from evflow import FlowSpec, Parameter, step


class Hello(FlowSpec):
    """A foreach and its join, in one screen."""

    greeting = Parameter("greeting", default="Hello", help="What to say to each of them.")

    @step
    def start(self):
        self.people = ["Ada", "Grace", "Katherine"]
        self.next(self.greet, foreach="people")

    @step
    def greet(self):
        self.said = f"{self.greeting}, {self.input}!"
        self.next(self.collect)

    @step
    def collect(self, inputs):
        self.everything_said = [task.said for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        print(*self.everything_said, sep="\n")


if __name__ == "__main__":
    Hello()
