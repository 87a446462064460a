"""The flows whose runs are recorded, as source; and how each run is brought about."""

LINEAR = '''
from evflow import FlowSpec, Parameter, step


class Linear(FlowSpec):
    """Three steps in a row."""

    alpha = Parameter("alpha", default=0.5, help="How much.")

    @step
    def start(self):
        self.x = 1 + self.alpha
        self.next(self.middle)

    @step
    def middle(self):
        self.y = 2 * self.x
        self.next(self.end)

    @step
    def end(self):
        print("y is", self.y)


if __name__ == "__main__":
    Linear()
'''

NESTED = '''
from evflow import FlowSpec, step


class Nested(FlowSpec):
    """A foreach in a foreach, beside a branch that joins at once."""

    @step
    def start(self):
        self.next(self.fan, self.alone)

    @step
    def fan(self):
        self.outer = ["a", "b"]
        self.next(self.row, foreach="outer")

    @step
    def row(self):
        self.letter = self.input
        self.inner = range(3)
        self.next(self.cell, foreach="inner")

    @step
    def cell(self):
        self.made = f"{self.letter}{self.input}"
        self.next(self.row_join)

    @step
    def row_join(self, inputs):
        self.made = [one.made for one in inputs]
        self.next(self.fan_join)

    @step
    def fan_join(self, inputs):
        self.made = [name for one in inputs for name in one.made]
        self.next(self.last_join)

    @step
    def alone(self):
        self.made = []
        self.next(self.last_join)

    @step
    def last_join(self, inputs):
        self.made = [name for one in inputs for name in one.made]
        self.next(self.end)

    @step
    def end(self):
        print(self.made)


if __name__ == "__main__":
    Nested()
'''

WAYS = '''
from evflow import FlowSpec, step


class Ways(FlowSpec):
    """A switch, a condition, a loop around a foreach, and a step that chooses itself."""

    @step
    def start(self):
        self.kind, self.rounds = "good", 0
        self.next({"good": self.good, "bad": self.bad}, condition="kind")

    @step
    def good(self):
        self.next(self.spread)

    @step
    def bad(self):
        self.next(self.spread)

    @step
    def spread(self):
        self.items = ["x", "y"]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.done = self.input
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.rounds = inputs[0].rounds + 1
        if self.rounds < 2:
            self.next(self.spread)
        else:
            self.next(self.again)

    @step
    def again(self):
        self.rounds = self.rounds + 1
        self.more = "yes" if self.rounds < 4 else "no"
        self.next({"yes": self.again, "no": self.end}, condition="more")

    @step
    def end(self):
        print(self.rounds)


if __name__ == "__main__":
    Ways()
'''

TROUBLE = '''
import os
import signal
import time

from evflow import FlowSpec, catch, current, retry, step, timeout


class Trouble(FlowSpec):
    """A retry that waits, a lost worker, a crash that is caught, a soft timeout that is caught, a hard one that is retried."""

    @retry(times=2, minutes_between_retries=0.005)
    @step
    def start(self):
        if current.retry_count < 2:
            raise ValueError(f"not at the {current.retry_count + 1}. time")
        self.next(self.lost)

    @step
    def lost(self):
        if current.retry_count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.next(self.crash)

    @catch(var="problem")
    @step
    def crash(self):
        os.abort()
        self.next(self.late)

    @catch(var="problem")
    @timeout(seconds=1)
    @step
    def late(self):
        time.sleep(60)
        self.next(self.stuck)

    @retry(times=1, minutes_between_retries=0)
    @timeout(seconds=1)
    @step
    def stuck(self):
        if current.retry_count == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        print("all of it survived")


if __name__ == "__main__":
    Trouble()
'''

SLOW = '''
import os
import pathlib
import time

from evflow import FlowSpec, step


class Slow(FlowSpec):
    """Four members of which two wait for a file, so that somebody can come in between."""

    @step
    def start(self):
        self.items = list(range(4))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        gate = pathlib.Path("gate")
        while self.input >= 2 and not gate.exists():
            time.sleep(0.01)
        if os.environ.get("BREAK") and self.input == 1:
            raise ValueError("as told")
        self.double = 2 * self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(one.double for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        print(self.total)


if __name__ == "__main__":
    Slow()
'''

MENDED = '''
import pathlib
import time

from evflow import FlowSpec, step


class Mended(FlowSpec):
    """Three members of which one fails until somebody has put a file there, and another one always."""

    @step
    def start(self):
        self.items = list(range(3))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        if self.input == 1 and not pathlib.Path("gate").exists():
            raise ValueError("no gate")
        if self.input == 2:
            raise ValueError("as told")
        self.double = 2 * self.input
        self.next(self.choose_join)

    @step
    def choose_join(self, inputs):
        self.total = sum(getattr(one, "double", 0) for one in inputs)
        self.kind = "odd"
        raise ValueError("cannot choose")
        self.next({"even": self.even, "odd": self.odd}, condition="kind")

    @step
    def even(self):
        self.next(self.end)

    @step
    def odd(self):
        self.next(self.end)

    @step
    def end(self):
        print(self.items)


if __name__ == "__main__":
    Mended()
'''

ILL_FORMED = '''
from evflow import FlowSpec, step


class IllFormed(FlowSpec):
    """Well-formed to whoever reads it, ill-formed as it runs: the branches reach different joins."""

    @step
    def start(self):
        self.items = [0, 1]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        if self.input:
            self.next(self.this_join)
        else:
            self.next(self.that_join)

    @step
    def this_join(self, inputs):
        self.next(self.end)

    @step
    def that_join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    IllFormed()
'''

CARDS = '''
import os

from evflow import FlowSpec, card, current, retry, step
from evflow.cards import Markdown


class Cards(FlowSpec):
    """Pages of attempts that succeed and fail; the first run fails in its last step."""

    @card
    @card(type="blank", id="second")
    @step
    def start(self):
        current.card.append(Markdown("by default"))
        current.card["second"].append(Markdown("by id"))
        self.next(self.end)

    @card
    @card(type="nonsense")
    @retry(times=1, seconds_between_retries=0)
    @step
    def end(self):
        if current.retry_count == 0 or "BREAK" in os.environ:
            raise ValueError("not yet")


if __name__ == "__main__":
    Cards()
'''

GANG = '''
import os
import signal
import time

from evflow import FlowSpec, current, parallel, retry, step


class Gang(FlowSpec):
    """A gang of three, one node of which fails, then another one is killed; behind it one that is larger than the run may be."""

    @step
    def start(self):
        self.next(self.train, num_parallel=3)

    @retry(times=1, minutes_between_retries=0)
    @parallel
    @step
    def train(self):
        node = current.parallel.node_index
        if (node, current.retry_count) == (1, 0):
            raise ValueError("as told")
        if (node, current.retry_count) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if node != 0:
            time.sleep(60 if current.retry_count < 2 else 0)
        self.place = (node, current.retry_count)
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.places = [node.place for node in inputs]
        self.next(self.too_many, num_parallel=9)

    @parallel
    @step
    def too_many(self):
        self.next(self.never)

    @step
    def never(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Gang()
'''

CACHED = '''
from evflow import FlowSpec, Parameter, cached, step


class Reckoned(FlowSpec):
    """Steps that are cached: each item, a join by what it joins, and one whose key changes."""

    n = Parameter("n", default=2)

    @step
    def start(self):
        self.items = list(range(self.n))
        self.next(self.each, foreach="items")

    @cached(key="input")
    @step
    def each(self):
        self.square = self.input**2
        self.next(self.gather)

    @cached(key=lambda self, inputs: [one.square for one in inputs])
    @step
    def gather(self, inputs):
        self.squares = [one.square for one in inputs]
        self.next(self.same)

    @cached(key=lambda self: "always")
    @step
    def same(self):
        self.next(self.end)

    @step
    def end(self):
        print(self.squares)


if __name__ == "__main__":
    Reckoned()
'''

ENVIRONMENTS = '''
from evflow import FlowSpec, pypi, step


class Environments(FlowSpec):
    """Nothing is installed: the first step's environment has only a Python, the other's cannot be had."""

    @pypi
    @step
    def start(self):
        self.next(self.end)

    @pypi(python="3.9")
    @step
    def end(self):
        pass


if __name__ == "__main__":
    Environments()
'''

HOOKED = '''
import os
import time

from evflow import FlowSpec, exit_hook, step


def tell(run):
    print(run.pathspec, flush=True)
    while not os.path.exists("gate"):
        time.sleep(0.05)


def broken():
    raise ValueError("the hook is broken")


@exit_hook(on_success=[tell, broken], on_error=[broken])
class Hooked(FlowSpec):
    """Something runs when it has ended."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Hooked()
'''


AGAIN = """
from evflow import FlowSpec, current, retry, step


class Again(FlowSpec):
    @step
    def start(self):
        self.items = [1, 2, 3]
        self.next(self.work, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @step
    def work(self):
        if not current.retry_count:
            raise ValueError("not at once")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Again()
"""
