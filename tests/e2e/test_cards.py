"""Cards from outside: a run makes them, commands and the client show them, a resumed run keeps them, and the log replays."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.real_runs import evflow, python, verified

FLOW = """
from evflow import FlowSpec, Parameter, card, current, retry, step
from evflow.cards import Markdown


class CardFlow(FlowSpec):
    word = Parameter("word", default="hello")
    fail = Parameter("fail", default=False)

    @card
    @card(type="blank", id="mine")
    @step
    def start(self):
        current.card.append(Markdown(f"# {self.word}"))
        current.card["mine"].append(Markdown("mine <script>alert(1)</script>"))
        self.next(self.middle)

    @card
    @retry(times=1, seconds_between_retries=0)
    @step
    def middle(self):
        current.card.append(Markdown(f"attempt {current.retry_count}"))
        if current.retry_count == 0 or self.fail:
            raise ValueError("not yet")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    CardFlow()
"""
CLIENT = """
from evflow import Run
from evflow.cards import get_cards
first = get_cards("CardFlow/1/start/1")
print(len(first), [card.type for card in first], get_cards("CardFlow/1/start/1", id="mine")[0].id, len(get_cards("CardFlow/1/start/1", type="default")))
middle = get_cards(Run("CardFlow/1")["middle"].task)
print("attempt 1" in middle[0].html, "attempt 0" in middle[0].html)
resumed = Run("CardFlow/2")["start"].task
cards = get_cards(resumed)
print(len(cards), cards[0].from_resumed, cards[0].origin_pathspec, cards[0].html == first[0].html, len(get_cards(resumed, follow_resumed=False)))
"""


def test_cards_are_made_listed_fetched_and_kept(root: Path) -> None:
    folder = root / "w"
    flow = folder / "flow.py"
    flow.write_text(FLOW)
    ran = python(flow, "run", "--word", "good day", cwd=folder)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    listed = evflow("card", "list", "CardFlow/1", "--json", cwd=folder)
    cards = json.loads(listed.stdout)
    assert [(card["pathspec"], card["type"], card["id"], card["failed"]) for card in cards] == [
        ("CardFlow/1/start/1", "default", None, False),
        ("CardFlow/1/start/1", "blank", "mine", False),
        ("CardFlow/1/middle/2", "default", None, False),
    ]
    got = python(flow, "card", "get", "start", "--type", "default", cwd=folder)
    assert "<h1>good day</h1>" in got.stdout
    for stage in ("Waiting", "Starting", "Running"):  # the log's times, which the order told
        assert f">{stage}</text>" in got.stdout
    assert "<script" not in python(flow, "card", "get", "1/start", "--id", "mine", cwd=folder).stdout
    several = evflow("card", "get", "1/start", cwd=folder)
    assert several.returncode == 1
    assert "has 2 cards" in several.stderr
    assert "--id mine" in several.stderr
    none = evflow("card", "get", "1/end", cwd=folder)
    assert none.returncode == 1
    assert "has no cards" in none.stderr
    middle = python(flow, "card", "get", "middle", cwd=folder).stdout
    assert python(flow, "card", "get", "middle/2", cwd=folder).stdout == middle
    assert "has no task 'middle/9'" in python(flow, "card", "get", "middle/9", cwd=folder).stderr
    for what in ("midle", "midle/1"):
        no_step = python(flow, "card", "get", what, cwd=folder)
        assert no_step.returncode == 1
        assert "Run 'CardFlow/1' has no step 'midle'. Did you mean 'middle'?\nIts steps are start, middle, end." in no_step.stderr
    assert "`evflow card list CardFlow/1` lists those of the whole run." in none.stderr
    other = python(flow, "card", "get", "middle", "--id", "other", cwd=folder)
    assert "'middle' has no card with --id other: the one that it has does not fit." in other.stderr
    assert "`evflow card list CardFlow/1` lists" in other.stderr
    for command in ("view", "get", "list", "server"):
        unnamed = evflow("card", command, cwd=folder)
        assert unnamed.returncode == 2, unnamed.stderr
        assert "Missing argument" in unnamed.stderr

    resumed = python(flow, "resume", "end", "--origin-run-id", "1", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    client = folder / "client.py"
    client.write_text(CLIENT)
    seen = python(client, cwd=folder)
    assert seen.stdout.splitlines() == [
        "2 ['default', 'blank'] mine 1",
        "True False",
        "2 True CardFlow/1/start/1 True 0",
    ], seen.stderr
    for run in ("CardFlow/1", "CardFlow/2"):
        verdict = verified(run, cwd=folder)
        assert verdict["exit"] == 0, verdict
    for path in Path(os.environ["EVFLOW_HOME"], "store").rglob("*"):
        os.utime(path, (1, 1))  # nothing is too young to be collected
    collected = evflow("gc", "--yes", cwd=folder)
    assert collected.returncode == 0, collected.stderr
    assert "<h1>good day</h1>" in evflow("card", "get", "1/start", "--type", "default", cwd=folder).stdout


def test_what_cards_need_is_loaded_before_the_forks_where_only_with_asks_for_them(root: Path) -> None:
    flow = root / "w" / "flow.py"
    flow.write_text(
        "import sys\nfrom evflow import FlowSpec, step\n\n\nclass Plain(FlowSpec):\n    @step\n    def start(self):\n"
        "        print('loaded' if 'evflow.cards.default' in sys.modules else 'not yet')\n        self.next(self.end)\n\n"
        "    @step\n    def end(self):\n        pass\n\n\nif __name__ == '__main__':\n    Plain()\n"
    )
    for options, said in (((), "] not yet\n"), (("--with", "card"), "] loaded\n")):
        assert said in python(flow, "run", *options, cwd=flow.parent).stdout


def test_a_card_loads_no_module_and_compiles_no_pattern_in_its_attempt_since_each_attempt_would_do_it_again(root: Path) -> None:
    flow = root / "w" / "flow.py"
    flow.write_text(
        "import atexit\nimport re\nimport sys\nfrom evflow import FlowSpec, Parameter, card, step\n\n\n"
        "class Warm(FlowSpec):\n    word = Parameter('word', default='hello')\n\n    @card\n    @step\n    def start(self):\n"
        "        self.rows = [1, 2]\n        modules, patterns, compiling = {*sys.modules}, [], re._compiler.compile\n"
        "        re._compiler.compile = lambda pattern, flags=0: patterns.append(pattern) or compiling(pattern, flags)\n"
        "        atexit.register(lambda: print('anew:', sorted({*sys.modules} - modules), patterns))  # called when the cards are made\n"
        "        self.next(self.end)\n\n    @step\n    def end(self):\n        pass\n\n\nif __name__ == '__main__':\n    Warm()\n"
    )
    assert "] anew: [] []\n" in python(flow, "run", cwd=flow.parent).stdout
    assert "rows" in python(flow, "card", "get", "start", cwd=flow.parent).stdout


def test_the_card_of_a_task_that_failed_can_be_looked_at(root: Path) -> None:
    folder = root / "w"
    flow = folder / "flow.py"
    flow.write_text(FLOW)
    ran = python(flow, "run", "--fail", "True", cwd=folder)
    assert ran.returncode == 1
    page = python(flow, "card", "get", "middle", cwd=folder).stdout
    assert "attempt 1" in page
    assert "ValueError: not yet" in page


def test_a_card_is_opened_in_a_browser_and_served(root: Path) -> None:
    folder = root / "w"
    flow = folder / "flow.py"
    flow.write_text(FLOW)
    assert python(flow, "run", cwd=folder).returncode == 0
    opened = python(flow, "card", "view", "start", "--id", "mine", cwd=folder, BROWSER="/bin/true")
    file = re.search(r"^Opened (.*\.html)$", opened.stderr, re.MULTILINE)
    assert file is not None, opened.stderr
    assert "mine" in Path(file[1]).read_text()
    Path(file[1]).unlink()
    Path(file[1]).parent.rmdir()
    Path(file[1]).parent.touch()  # as a folder that cannot be written
    unwritten = python(flow, "card", "view", "start", "--id", "mine", cwd=folder, BROWSER="/bin/true")
    assert unwritten.returncode == 1
    assert "`card get` writes a card to a file that you name" in unwritten.stderr
    serving = subprocess.Popen(
        [sys.executable, flow, "card", "server", "--port", "0"], cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert serving.stderr is not None
        address = re.search(r"http://localhost:\d+/", serving.stderr.readline())
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=60) as answer:
            listed = answer.read().decode()
        cards = re.findall(r'href="(/card/[^"]+)"', listed)
        assert len(cards) == 3
        with urllib.request.urlopen(address[0] + cards[-1].lstrip("/"), timeout=60) as answer:
            assert "<h1>hello</h1>" in answer.read().decode()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.wait()
        assert serving.stderr is not None
        serving.stderr.close()


OWN = """
import glob
import os

from evflow import FlowSpec, Parameter, card, current, step
from evflow.cards import CardType, DefaultCard, Markdown


class Pages(CardType):
    type = "pages"

    def __init__(self, options, flow, graph):
        self.title, self.flow, self.graph = options["title"], flow, graph

    def render(self, task):
        return (
            f"<h1>{self.title}</h1><p>{task.pathspec} {task.data.score} {task.successful} {sorted(one.id for one in task)} "
            f"{task.parent.parent.pathspec} {sorted(self.graph)} {type(self.flow).__name__}</p><script>alert(1)</script>"
        )


class Live(DefaultCard):
    type = "live"

    def render_runtime(self, task, data):
        return f"<p>{task.pathspec} is at {data['user']['epoch']}, {task.finished}</p>"

    def refresh(self, task, data):
        return data["user"]

    def reload_content_token(self, task, data):
        return str(data["user"])


class OwnCards(FlowSpec):
    fail = Parameter("fail", default=False)

    @card(type="live", id="live", refresh_interval=0)
    @card(type="pages", id="pages", options={"title": "Mine"})
    @step
    def start(self):
        self.score = 3
        current.card.append(Markdown("put in"))
        for epoch in range(3):
            current.card["live"].refresh({"epoch": epoch})
        [page] = glob.glob(os.environ["EVFLOW_HOME"] + f"/**/{current.run_id}/*.live.live.html", recursive=True)
        with open(page) as file, open(page.removesuffix("html") + "json") as news:
            self.drawn, self.news = file.read().partition("<main>")[2].partition("</main>")[0].strip(), news.read()
        self.next(self.end)

    @card(type="pages", options={"title": "End"})
    @step
    def end(self):
        if self.fail:
            raise ValueError("not this time")
        self.score += 1


if __name__ == "__main__":
    OwnCards()
"""


def test_cards_of_types_of_one_s_own_are_made_by_their_classes(root: Path) -> None:
    folder = root / "w"
    flow = folder / "flow.py"
    flow.write_text(OWN)
    ran = python(flow, "run", cwd=folder)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "[@card]" not in ran.stdout
    first = python(flow, "card", "get", "start", "--id", "pages", cwd=folder).stdout
    said = "OwnCards/1/start/1 3 True ['drawn', 'fail', 'news', 'score'] OwnCards/1 ['end', 'start'] OwnCards"
    assert f"<h1>Mine</h1><p>{said}</p>" in first
    assert "<script" not in first
    assert "OwnCards/1/end/2 4 True" in python(flow, "card", "get", "end", cwd=folder).stdout
    last = python(flow, "card", "get", "start", "--id", "live", cwd=folder).stdout
    assert "put in" in last
    assert "<h2>Artifacts</h2>" in last
    client = folder / "client.py"
    client.write_text("from evflow import Run\ndata = Run('OwnCards/1')['start'].task.data\nprint(data.drawn)\nprint(data.news)\n")
    drawn, news = python(client, cwd=folder).stdout.splitlines()
    assert drawn == "<p>OwnCards/1/start/1 is at 2, False</p>"
    assert json.loads(news) == {"data": {"epoch": 2}, "reload_token": "{'epoch': 2}", "render_seq": 3}
    assert verified("OwnCards/1", cwd=folder)["exit"] == 0

    assert python(flow, "run", "--fail", "True", cwd=folder).returncode == 1
    assert "ValueError: not this time" in python(flow, "card", "get", "end", cwd=folder).stdout


def test_check_refuses_a_type_of_card_that_is_not_there(root: Path) -> None:
    flow = root / "w" / "flow.py"
    flow.write_text(OWN.replace('type="pages", options={"title": "End"}', 'type="page"'))
    for command in ("check", "run"):
        refused = python(flow, command, cwd=flow.parent)
        assert refused.returncode == 1
        assert "flow.py:51: Step end: There is no type of card called 'page'." in refused.stderr
        assert "Did you mean 'pages'?" in refused.stderr
