"""Cards of real attempts: made in the attempt's process, named by its report; nothing about them touches the task."""

from pathlib import Path
from typing import Any

import pytest

from evflow.core.cards import RecordedCard, recorded
from evflow.core.events import AttemptFailed, AttemptSucceeded
from evflow.store.live_cards import LiveCard, live_cards
from tests.attempt_world import AttemptWorld, Ended, an_attempt_world

pytestmark = pytest.mark.may_block("the harness reads the inbox and the store between attempts")

STEPS = """
from evflow import card
from evflow.cards import CardComponent, Image, Markdown


class Broken(CardComponent):
    def render(self):
        raise RuntimeError("broken component")


class Endless(CardComponent):
    def render(self):
        while True:
            try:
                time.sleep(60)
            except Exception:
                pass


class Leaves(CardComponent):
    def render(self):
        sys.exit(3)


class MyFlow(FlowSpec):
    @card
    @card(type="blank", id="mine")
    @step
    def start(self):
        self.answer = 42
        current.card.append(Markdown("# by default"))
        current.card["mine"].append(Markdown("# by id"))
        self.next(self.bare)

    @step
    def bare(self):
        print(hasattr(current, "card"), "card" in current)
        self.next(self.fails)

    @card
    @step
    def fails(self):
        current.card.append(Markdown("# so far"))
        raise ValueError("no <luck>")

    @card
    @step
    def broken(self):
        current.card.append(Markdown("# whole"))
        current.card.append(Broken())
        self.next(self.end)

    @card(id="slow", timeout=0.3)
    @card(id="quick")
    @step
    def slow(self):
        current.card["slow"].append(Endless())
        current.card["quick"].append(Markdown("# quick"))
        self.next(self.end)

    @card(timeout=0.3, save_errors=False)
    @step
    def unsaved(self):
        current.card.append(Endless())
        self.next(self.end)

    @card(type="nonsense")
    @step
    def unknown(self):
        self.next(self.end)

    @card
    @step
    def leaves(self):
        current.card.append(Leaves())
        self.next(self.end)

    @card
    @step
    def end(self):
        pass
"""


def cards(ended: Ended) -> list[RecordedCard]:
    assert isinstance(ended.report, AttemptSucceeded | AttemptFailed), ended
    return [*recorded(ended.report.cards)]


def content(live: LiveCard) -> str:
    return Path(live.path).read_text()


def page_of(world: AttemptWorld, card: RecordedCard) -> str:
    data = bytes(world.store.get(card.page))
    assert len(data) == card.size_bytes
    return data.decode()


async def one(root: Path, step: str, **order: Any) -> tuple[Ended, list[RecordedCard], list[str]]:
    async with an_attempt_world(root, STEPS) as world:
        ended = await world.run(step, **order)
        made = cards(ended)
        return ended, made, [page_of(world, card) for card in made]


async def test_a_report_names_the_cards_in_the_order_of_the_decorators(root: Path) -> None:
    ended, made, pages = await one(root, "start", times_us=(1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000))
    assert ended.succeeded.next_steps == ("bare",)
    assert [(card.type, card.id, card.failed) for card in made] == [("default", "", False), ("blank", "mine", False)]
    assert "<h1>by default</h1>" in pages[0]
    assert "<h1>by id</h1>" not in pages[0]
    for part in ("answer", "42", "<h2>Times</h2>", "Waiting", "<h2>Code</h2>"):
        assert part in pages[0], part
    assert "<h1>by id</h1>" in pages[1]
    assert "<h2>" not in pages[1]


async def test_a_step_without_cards_has_none(root: Path) -> None:
    ended, made, _ = await one(root, "bare")
    assert made == []
    assert ended.stdout == "False False"


async def test_a_flow_without_cards_loads_nothing_of_them(root: Path) -> None:
    names = '[name for name in sys.modules if name.startswith("evflow.cards") or name in ("nh3", "markdown_it", "pygments")]'
    steps = f"class MyFlow(FlowSpec):\n    @step\n    def start(self):\n        print({names})\n        self.next(self.end)\n\n"
    async with an_attempt_world(root, steps + "    @step\n    def end(self):\n        pass\n") as world:
        assert (await world.run("start")).stdout == "[]"


async def test_a_failed_attempt_has_the_card_that_it_had_begun(root: Path) -> None:
    ended, made, pages = await one(root, "fails")
    assert ended.failed.error == "ValueError"
    assert [card.failed for card in made] == [False]
    assert "<h1>so far</h1>" in pages[0]
    assert "no &lt;luck&gt;" in pages[0]


async def test_a_broken_component_costs_its_own_place_only(root: Path) -> None:
    ended, made, pages = await one(root, "broken")
    assert ended.succeeded.next_steps == ("end",)
    assert [card.failed for card in made] == [False]
    assert "<h1>whole</h1>" in pages[0]
    assert "broken component" in pages[0]


async def test_a_rendering_without_an_end_is_given_up_after_its_timeout(root: Path) -> None:
    ended, made, pages = await one(root, "slow")
    assert ended.succeeded.next_steps == ("end",)
    assert [(card.id, card.failed) for card in made] == [("slow", True), ("quick", False)]
    assert "longer than 0.3 s" in pages[0]
    assert "<h1>quick</h1>" in pages[1]
    assert "longer than 0.3 s" in ended.stderr


async def test_without_save_errors_there_is_no_card_of_a_failure(root: Path) -> None:
    ended, made, _ = await one(root, "unsaved")
    assert ended.succeeded.next_steps == ("end",)
    assert made == []
    assert "could not be rendered" in ended.stderr


async def test_an_unknown_type_makes_a_page_that_names_the_known_ones(root: Path) -> None:
    ended, made, pages = await one(root, "unknown")
    assert ended.succeeded.next_steps == ("end",)
    assert [(card.type, card.failed) for card in made] == [("nonsense", True)]
    assert "The types are: default, blank, error" in pages[0]


async def test_a_component_that_exits_does_not_take_the_task_along(root: Path) -> None:
    ended, made, _ = await one(root, "leaves")
    assert ended.succeeded.next_steps == ("end",)
    assert [card.failed for card in made] == [True]


LIVE = """
from evflow import card
from evflow.cards import CardComponent, Markdown, ProgressBar


class Broken(CardComponent):
    def render(self):
        raise RuntimeError("broken component")


class MyFlow(FlowSpec):
    @card(refresh_interval=3600)
    @card(type="blank", id="other")
    @step
    def start(self):
        bar = ProgressBar(max=4, label="Work")
        current.card.append(Markdown("# so far"))
        current.card.append(bar)
        for number in range(3):
            bar.update(number + 1)
            current.card.refresh(force=number == 1)
        print("drawn", flush=True)
        while not os.path.exists("go on"):
            time.sleep(0.01)
        self.next(self.end)

    @step
    def end(self):
        pass
"""


async def test_a_card_is_drawn_while_its_task_goes_on_and_is_final_in_the_end(root: Path) -> None:
    async with an_attempt_world(root, LIVE) as world:
        name = await world.launch("start", times_us=(1, 2, 3, 4, 5))
        assert await world.line_of(name) == "drawn"
        [live] = live_cards(world.context.log_folder)
        assert (live.task, live.attempt, live.place, live.type, live.id) == (1, 0, 0, "default", "")
        page = content(live)
        assert "2 of 4" in page  # the third came within the interval, the second was told to be drawn at once
        assert 'http-equiv="refresh"' in page
        assert ">running<" in page
        (world.folder / "go on").touch()
        ended = await world.end_of(name)
        final = content(live)
        assert final == page_of(world, cards(ended)[0])
        assert "3 of 4" in final
        assert 'http-equiv="refresh"' not in final
        assert [card.id for card in cards(ended)] == ["", "other"]


async def test_what_was_drawn_of_an_attempt_that_is_killed_stays(root: Path) -> None:
    async with an_attempt_world(root, LIVE) as world:
        name = await world.launch("start", times_us=(1, 2, 3, 4, 5))
        assert await world.line_of(name) == "drawn"
        await world.executor.cancel(name, grace_s=0)
        ended = await world.end_of(name)
        assert ended.report is None
        [live] = live_cards(world.context.log_folder)
        assert "2 of 4" in content(live)


def write_namesakes(root: Path) -> None:
    for name in ("nh3", "markdown_it", "pygments", "inspect", "textwrap", "traceback", "orjson"):
        (root / "w" / f"{name}.py").write_text("raise RuntimeError('this is the user's')\n")


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_files_of_the_users_are_not_taken_for_what_cards_need(root: Path, method: str) -> None:
    write_namesakes(root)
    async with an_attempt_world(root, STEPS, method=method) as world:
        ended = await world.run("start")
        assert [card.failed for card in cards(ended)] == [False, False]
        assert "<h1>by default</h1>" in page_of(world, cards(ended)[0])


async def test_a_component_that_exits_while_its_task_goes_on_costs_the_task_nothing(root: Path) -> None:
    flow = LIVE.replace('raise RuntimeError("broken component")', "raise SystemExit(3)")
    flow = flow.replace("current.card.append(bar)", "current.card.append(Broken())")
    async with an_attempt_world(root, flow) as world:
        (world.folder / "go on").touch()
        ended = await world.run("start")
        assert ended.succeeded.next_steps == ("end",)
