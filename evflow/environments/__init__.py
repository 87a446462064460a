"""The environments of steps: what `@pypi` and `@conda` ask for, as one folder on each machine that runs such a step.

Three acts, each done once and remembered by the digest of what it began with:

* **resolve**: from what was asked for (`spec`) to a *lock*: every package with its version and its hash. Done before a run
  begins, or when a flow is deployed; the lock is an object in the store, which the run's first event names, so all attempts of
  the run, wherever they are made, use the same one, and so does a run that resumes it.
* **build**: from a lock to a folder below `EVFLOW_HOME/environments`. Done where an attempt runs, once however many want it
  (`cache`), by a process of its own (`python -m evflow.environments`), since it takes threads and heavy imports.
* **use**: a fork server whose interpreter is the environment's (`evflow.worker.interpreters`). What evflow itself needs is
  put behind everything else on its path (`support`), so that the environment holds what the user asked for and nothing else.

`pypi` talks to uv and `conda` to rattler; nothing else here knows either.
"""
