"""Run the feature store, look at its result, replay the run and verify it.

``make demo`` runs this. Each command is printed before it runs, so that it can be typed again; the
first one that fails ends the demo with its exit code.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

NEXT = """\
  . {bin}/activate
  evflow runs                    every run there is
  evflow show {run}     its tasks; also: logs, dump, explain, events
  python examples/hello.py run   the shortest flow, to change and run again

What you saw is in {home}; docs/quickstart.md goes on from here."""
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


def main() -> int:
    """Show a run from its start to its verified replay."""
    try:
        say("A nightly feature store, on all flights that left New York in 2013.")
        run("python", "feature_store.py", "run")

        say("Its result, by the client.")
        flow_run = look(
            "from evflow import Flow",
            "run = Flow('FeatureStore').latest_successful_run",
            "run",
            "[task.pathspec for task in run['look_back']]",
            "run.data.features.shape",
            "run.data.features.loc[('route', 'JFK-SFO'), ['flights_7d', 'delay_mean_7d']].tail(3)",
        )["run"]

        say("The run once more, from its event log alone.")
        run("evflow", "replay", flow_run.pathspec)

        say("Every decision taken again, every digest checked.")
        run("evflow", "replay", flow_run.pathspec, "--verify")

        say("Yours now.")
        print(NEXT.format(bin=BIN, run=flow_run.pathspec, home=os.environ.get("EVFLOW_HOME") or "~/.evflow"))
    except subprocess.CalledProcessError as failed:
        print(f"\nThis command failed with exit code {failed.returncode}.", file=sys.stderr)
        return failed.returncode if failed.returncode > 0 else 1
    except KeyboardInterrupt:
        return 130
    return 0


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n── {text}\n", flush=True)


def run(program: str, *arguments: str) -> None:
    """Print a command as one would type it, then run it with this environment's programs."""
    print("$", shlex.join([program, *arguments]), flush=True)
    subprocess.run([BIN / program, *arguments], cwd=HERE, check=True)


def look(*lines: str) -> dict[str, Any]:
    """Run lines as a Python prompt does: each is echoed, and a value is shown."""
    scope: dict[str, Any] = {}
    for line in lines:
        print(">>>", line, flush=True)
        exec(compile(line, "<demo>", "single"), scope)
    return scope


if __name__ == "__main__":
    sys.exit(main())
