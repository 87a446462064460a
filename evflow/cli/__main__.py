"""`python -m evflow.cli` is `evflow`."""

from evflow.cli import main

main()
