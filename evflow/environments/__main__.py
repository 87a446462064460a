"""Resolve or build one environment: `python -m evflow.environments`, with JSON in and JSON out."""

import json
import sys

from evflow.environments.building import act

if __name__ == "__main__":
    sys.stdout.write(json.dumps(act(json.loads(sys.stdin.buffer.read()))))
    sys.stdout.flush()  # now: a tool's threads may end the process without doing so
