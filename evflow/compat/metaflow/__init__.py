"""Flows that say `import metaflow`, run by evflow as they are.

    python -m evflow.compat.metaflow flow.py run

or, where the command cannot change, in a `sitecustomize.py` of the environment:

    from evflow.compat.metaflow import install
    install()

From then on `metaflow` and its public submodules are evflow's, in this process and in those of its tasks, wherever they run; an
installed Metaflow is not looked at. Nothing is loaded before somebody imports `metaflow`: the process of somebody who does not pays for one
entry of `sys.meta_path`. With that import, Metaflow's stricter rules are in force (`evflow.flow.dialect`), its variables
are read (`variables`), and evflow's errors have its names (`errors`). `docs/metaflow.md` says what works and what differs.
"""

import sys

from evflow.errors import UsageError

__all__ = ["MetaflowIsLoaded", "install", "install_to_read"]


class MetaflowIsLoaded(UsageError):
    """Metaflow itself was imported before evflow could take its name."""

    code = "metaflow-is-loaded"

    def __init__(self, file: str) -> None:
        super().__init__(
            f"This process has imported Metaflow itself already, from {file}: its name cannot stand for evflow any more.",
            "Call evflow.compat.metaflow.install() before anything imports metaflow: at the top of the program, or in sitecustomize.py.",
        )


def install() -> None:
    """Let `import metaflow` mean evflow, from now on and in this process. To call it again has no effect.

    Raises:
        MetaflowIsLoaded: Metaflow itself is imported already.
    """
    from evflow.compat.metaflow.finder import FINDER, ROOT, is_ours

    loaded = sys.modules.get(ROOT)
    if loaded is not None and not is_ours(loaded):
        raise MetaflowIsLoaded(getattr(loaded, "__file__", None) or "an unknown place")
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
    FINDER.say_rules(loaded is not None)


def install_to_read() -> None:
    """Let `import metaflow` mean evflow for what comes out of the store: names only, since this process may run flows of evflow's own."""
    from evflow.compat.metaflow.finder import FINDER

    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
