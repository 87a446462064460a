"""Running flows from Python: `Runner`, and `NBRunner` and `NBDeployer` for flows of a notebook."""
