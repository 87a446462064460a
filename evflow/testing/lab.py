"""The lab: a recorded run played again and again in the simulation, with something else going wrong each time.

    lab = Lab(Recording.of(events))
    for trial in lab.trials(seeds=200): ...
    assert lab.report.ok

A trial is a scenario: the recorded run under one owner that is killed at one point, or whose reply is lost there, or under faults
that are drawn from a seed. After it every invariant is checked, at each turn of the log. A trial that breaks one is a defect of
evflow (or of this model of the world), and is made as small as it gets. What users learn of their own flow is the rest: whether
it still ends as it did, where it does not and why, and which bodies may begin more than once.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.log.protocol import Durability, StoredEvent
from evflow.testing.recording import Recording
from evflow.testing.simulation.checks import check
from evflow.testing.simulation.scenario import Fault, Scenario, faults
from evflow.testing.simulation.shrink import failure, shrunk
from evflow.testing.simulation.world import World

EACH_TURN_UP_TO_TASKS: Final = 200
"""In larger runs the state is compared at the seal only: comparing it at each turn costs as much as the run has tasks."""
USUAL_POINTS: Final = 60
"""How many points are tried where not all of them are asked for."""
AT_EACH_POINT: Final = ("crash", "lost-reply", "kill-attempt")
"""What is tried at a point: the owner dies there; its connection breaks there; an attempt is killed then."""
_MOST_EXAMPLES: Final = 3
_PATIENCE: Final = 50
"""How many times as long as everything took one after the other a disturbed run may take, before it counts as stuck."""


@dataclass(frozen=True)
class Trial:
    """One scenario that was played.

    Attributes:
        name: What it is: `crash at 17`, `seed 4`.
        scenario: How to play it again.
        status: How the run ended.
        reason: Why, where it did not succeed.
        problem: The invariant that did not hold, or an empty string.
        begun: Task to how often its body began.
        state: The run's last state.
    """

    name: str
    scenario: Scenario
    status: str
    reason: str
    problem: str
    begun: dict[int, int]
    state: RunState


@dataclass(frozen=True)
class Story:
    """A trial in which an invariant did not hold, as small as it gets.

    Attributes:
        name: The trial that it was found in.
        problem: What did not hold.
        faults: What still has to go wrong for it.
        trace: What the owners went through.
        events: The run's log.
    """

    name: str
    problem: str
    faults: tuple[Fault, ...]
    trace: tuple[str, ...]
    events: tuple[StoredEvent, ...]


@dataclass
class Report:
    """What a lab has seen so far.

    Attributes:
        trials: How many were played.
        ends: How the run ended, to the number of trials.
        otherwise: Why the run ended otherwise than the recorded one, to the trials in which it did.
        again: Step to the most often that a body of one of its tasks began, where that is more often than in the undisturbed run.
        points: Acts of an undisturbed owner, twice each: where it can be killed.
        stories: Trials in which an invariant did not hold.
    """

    trials: int = 0
    ends: Counter[str] = field(default_factory=Counter[str])
    otherwise: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    again: dict[str, int] = field(default_factory=dict[str, int])
    points: int = 0
    stories: list[Story] = field(default_factory=list[Story])

    @property
    def ok(self) -> bool:
        """Every invariant held in every trial."""
        return not self.stories


class Lab:
    """Plays a recorded run.

    Args:
        recording: The run.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.report = Report()
        # Waits of `@retry` cost nothing in virtual time, so they are those of the flow.
        options = {**recording.options, "retry_scale": 1.0}
        if recording.nodes > 1:  # a gang needs its slots, of the machine and of the run
            options["max_workers"] = max(recording.max_workers, recording.nodes)
        self._calm = Scenario(0, (recording,), recording.max_workers, "everysec", outlives=False, wild=False, options=options)
        self._calm = replace(self._calm, patience_s=self._calm.patience_s + _PATIENCE * recording.busy_s)
        self._each_turn = recording.tasks <= EACH_TURN_UP_TO_TASKS
        calm = self._world(self._calm).play()
        check(calm)
        self.report.points = calm.points
        state = calm.state_of(calm.runs[0])
        self._usual_status = state.status
        self._usual = _by_step(state, _begun(calm, calm.runs[0]))

    def trials(self, *, seeds: int, first_seed: int = 0, points: int | None = USUAL_POINTS) -> Iterator[Trial]:
        """Play trials, one by one; `report` has what they came to so far.

        Args:
            seeds: How many seeds to draw faults from.
            first_seed: The first one.
            points: How many points of the undisturbed run to try, evenly spread; None: all of them.
        """
        there = self.report.points
        chosen = range(there) if points is None else range(0, there if points else 0, max(1, -(-there // max(points, 1))))
        for kind in AT_EACH_POINT:
            for point in chosen:
                yield self._play(f"{kind} at {point}", replace(self._calm, seed=point, faults=(Fault(point, kind, 0.3),)))
        for seed in range(first_seed, first_seed + seeds):
            yield self._play(f"seed {seed}", self._drawn(seed))

    def _drawn(self, seed: int) -> Scenario:
        random = Random(seed)
        levels: tuple[Durability, ...] = ("everysec", "everysec", "fsync", "replicated")
        return replace(
            self._calm,
            seed=seed,
            slots=max(random.choice((1, 2, self._calm.slots)), self.recording.nodes),
            level=random.choice(levels),
            outlives=random.random() < 0.3,
            wild=random.random() < 0.3,
            offered=random.random() < 0.3,
            faults=faults(random, reach=self.report.points, count=random.choice((1, 2, 3, 5, 8))),
        )

    def _world(self, scenario: Scenario) -> World:
        return World(scenario, each_turn=self._each_turn and not scenario.offered, limits={})

    def _play(self, name: str, scenario: Scenario) -> Trial:
        found = failure(scenario, limits={}, each_turn=self._each_turn)
        problem, world = found.problem, found.world
        run = world.runs[0]
        state, begun = world.state_of(run), _begun(world, run)
        reason = state.outcome.reason if state.outcome is not None else ""
        trial = Trial(name, scenario, state.status, reason, problem, begun, state)
        self._note(trial)
        return trial

    def _note(self, trial: Trial) -> None:
        report = self.report
        report.trials += 1
        if trial.problem:
            report.stories.append(self._story(trial))
            return
        report.ends[trial.status] += 1
        if trial.status != self._usual_status:
            examples = report.otherwise.setdefault(trial.reason or trial.status, [])
            if len(examples) < _MOST_EXAMPLES:
                examples.append(trial.name)
        for step, times in _by_step(trial.state, trial.begun).items():
            if times > max(self._usual.get(step, 1), report.again.get(step, 0)):
                report.again[step] = times

    def _story(self, trial: Trial) -> Story:
        small = shrunk(trial.scenario, limits={}, each_turn=self._each_turn)
        found = failure(small, limits={}, each_turn=self._each_turn)
        events = tuple(found.world.log_of(found.world.runs[0]))
        return Story(trial.name, found.problem or trial.problem, small.faults, tuple(found.world.trace), events)


def _begun(world: World, run: RunId) -> dict[int, int]:
    return {int(task): times for (of, task), times in world.machine.books.begun.items() if of == run}


def _by_step(state: RunState, begun: dict[int, int]) -> dict[str, int]:
    """The most often that a body of one task of each step began."""
    most: dict[str, int] = {}
    for task, times in begun.items():
        found = state.task(task)
        if found is not None:  # else a server that lost its log has lost it, too
            most[found.step] = max(most.get(found.step, 0), times)
    return most
