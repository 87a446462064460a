"""`kill -9` at random moments: nothing that was acknowledged is lost, nothing finished is done again, nothing runs twice at once.

Each kind of process in turn. Afterwards a run has made the same artifacts as one that was left alone.
"""

from pathlib import Path

import psutil
import pytest

from tests.chaos.driver import Chaos, kill
from tests.effort import rng, scaled
from tests.real_runs import run_id

RUN = run_id("ChaosFlow")
MOMENTS = range(scaled(5))


@pytest.fixture
def chaos(root: Path, evflow_home: Path, request: pytest.FixtureRequest) -> Chaos:
    """A flow, and a moment for each test."""
    return Chaos(root, evflow_home, rng("chaos", request.node.name))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_foreground_is_continued(chaos: Chaos, moment: int) -> None:
    """Every other time the one that continues is killed as well."""
    foreground = chaos.start()
    chaos.moment()
    kill(psutil.Process(foreground.pid))
    chaos.ended(foreground)
    if moment % 2:
        second = chaos.go_on(RUN)
        chaos.moment()
        kill(psutil.Process(second.pid))
        chaos.ended(second)
    chaos.finish(RUN)
    chaos.check()
    chaos.gone()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_attempt_is_survived_by_its_run(chaos: Chaos, moment: int) -> None:
    """A lost attempt is started again."""
    del moment
    foreground = chaos.start()
    chaos.moment()
    attempts = chaos.attempts(foreground.pid)
    kill(chaos.random.choice(attempts) if attempts else None)
    assert chaos.ended(foreground) == 0, chaos.output()
    chaos.check()
    chaos.gone()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_fork_server_is_survived_by_its_run(chaos: Chaos, moment: int) -> None:
    """Another one is started; what the dead one ran is started again."""
    del moment
    foreground = chaos.start()
    chaos.moment()
    kill(chaos.fork_server(foreground.pid))
    assert chaos.ended(foreground) == 0, chaos.output()
    chaos.check()
    chaos.gone()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_embedded_server_is_survived_by_its_run(chaos: Chaos, moment: int) -> None:
    """The foreground starts it again from its file; attempts wait with their reports."""
    del moment
    foreground = chaos.start()
    chaos.moment()
    kill(chaos.embedded_server())
    assert chaos.ended(foreground) == 0, chaos.output()
    chaos.check()
    chaos.gone()


def test_killed_again_and_again_a_run_still_ends(chaos: Chaos) -> None:
    """Each owner gets far enough to finish something; a task may be lost three times."""
    foreground = chaos.start()
    for _ in range(3):
        chaos.moment()
        kill(psutil.Process(foreground.pid))
        chaos.ended(foreground)
        foreground = chaos.go_on(RUN)
    kill(psutil.Process(foreground.pid))
    chaos.ended(foreground)
    chaos.finish(RUN)
    chaos.check()
    chaos.gone()
