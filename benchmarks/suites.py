"""The suites: each has its workloads, the engine that evflow is measured beside, and a section of the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import engines
from benchmarks.cloud_workloads import CLOUD_WORKLOADS
from benchmarks.engines import Engine
from benchmarks.s3 import aws_cli
from benchmarks.scheduler_workloads import SCHEDULER_WORKLOADS
from benchmarks.workloads import WORKLOADS, Lab, Workload, warm_up


@dataclass(frozen=True, slots=True)
class Suite:
    """What is measured in one go.

    Attributes:
        peer: The name of the other engine.
        peer_title: As the page prints it.
        install: Makes the other engine's environment in a folder.
        warm_up: Runs each engine once, unmeasured; None where the workloads do it.
        notes: How it is measured, and what to keep in mind: the text below the table.
    """

    name: str
    title: str
    peer: str
    peer_title: str
    install: Callable[[Path], Engine]
    workloads: Sequence[Workload]
    warm_up: Callable[[Lab, Engine], None] | None
    notes: str


FLOWS_NOTES = """\
* `make bench` makes an environment for Metaflow, lays out the same flows (`benchmarks/flows/`) for both engines with only the import
  line changed, and runs them in turn: Metaflow, evflow, Metaflow, evflow. One unmeasured run of each goes first.
* Each run has a fresh data folder. Bytecode caches are allowed for both, but for the rows that say otherwise: there Metaflow is installed as uv does,
  without any, evflow is as `make` leaves it, and neither writes any (`PYTHONDONTWRITEBYTECODE`, as in container images). Metaflow's processes
  then compile its modules anew, each time. The goals of starts, chains, what lies between two steps, and of the foreach were set by figures taken so
  ([decision 123](decisions/0123-which-metaflow-the-goals-mean.md)).
* The time of a command ends when the last process that it started is gone. For evflow that includes the start and the stop of its embedded
  server and of the reaper that stops it (`EVFLOW_LINGER_S=0`; the default is 10 s, so that consecutive commands share a server).
* Memory is the largest sum of PSS over all processes of the command, sampled each 100 ms in a run of its own.
* From step to step means from the end of the body that makes a value until the next body has it, by the monotonic clock that all
  processes of a machine share. Writing it, durably, lies between, and so does the start of the next task.
* Bytes and files are those under the engine's data folder, less those of a two-step run that does nothing. evflow's include its event log.
* The client reads in a fresh process; imports do not count.
* Metaflow starts an interpreter for each task, and imports itself and the flow in it. evflow forks a process that has imported both. That
  is nearly all of the difference, and why a body that runs for minutes gains nothing of it.
* Metaflow's local mode is measured. Its metadata service and cloud back ends have other costs.
"""

SCHEDULER_NOTES = """\
* A scheduler, the log's embedded server and the client that asks are three processes of this machine; so are Temporal's worker, its development
  server and its client. Each measurement starts them anew, with empty data, and lets some runs go first (`benchmarks/drivers/`).
* Temporal runs the same three steps as activities of a workflow: functions, in 16 threads of its worker. evflow runs each step in a process of its
  own, 16 at once, as it runs all user code. A step that holds the interpreter, leaks or crashes takes others along there, and none here. In the rows
  of reused processes (`@pool(reuse=True)`) a process runs one step after the other, one at a time, as each of those threads does.
* Temporal's development server keeps its state in memory unless it is given a file; then it is SQLite. evflow's log is always on the disk, synced each
  second (`everysec`), or before anything is done (`fsync`). Temporal's servers for production, on their databases, are others, and not measured.
* Latencies begin before the call that publishes or asks, and end at a stamp in the first line of the first body, by the monotonic clock that all
  processes of a machine share. Each run is over before the next one is asked for. A fork server with the flow's code is there, but for the cold start.
* From a task's report to the next one's process is an upper bound of the time from ready to durably dispatched: no process is started before the
  log has its order.
* The cost of a task is the time of the whole run, from the request until the client sees its end, by the number of tasks. Memory is the PSS of the scheduler
  alone, sampled four times a second; workers and fork servers are others' processes.
* The scheduler that takes over is started when the other one is dead. The dead one's leases hold four seconds, and are in the time.
"""

CLOUD_NOTES = """\
* Kubernetes and AWS Batch are doubles in a process of their own on this machine (`benchmarks/drivers/cloud_double.py`). They cost little, answer in
  the shape and about the size of the real ones, check nothing and run no containers: for each task they report what a container says whose body does nothing.
  A pod has five changes from its creation to its end. A real server's answers take longer; up to 32 calls are on their way at once.
* A deployed flow runs on one scheduler, its log is the embedded server, and containers report to it. The rate is set to 250 calls a second for
  both (`EVFLOW_KUBERNETES_RATE`, `EVFLOW_BATCH_RATE`), and all calls count. Jobs are held back until the last one is submitted.
* Submits a second are those between the first and the last. Arrays are one call each, so their rate is tasks by the time from the request of the run
  until the last one is submitted.
* The CPU time is that of the scheduler's process alone, with all that the run costs it, divided by the tasks.
* moto's server on this machine stands for S3, a new one for each measurement; what it holds lies in the machine's memory, if there is room, as S3's disks are not this machine's.
  The content is on the disk, and evflow writes the copy there that it keeps. It is random, so nothing makes it smaller. Steps run in forks of a process that
  has imported the client; so the first two rows begin behind the import for evflow, and with the start of the command for the other. The memory is the peak of the process. Bytes are checked against their digest when they come back.
"""

SUITES = (
    Suite("flows", "Runs in the foreground", "metaflow", "Metaflow", engines.metaflow, WORKLOADS, warm_up, FLOWS_NOTES),
    Suite("scheduler", "The scheduler and pools", "temporal", "Temporal", engines.temporal, SCHEDULER_WORKLOADS, None, SCHEDULER_NOTES),
    Suite("cloud", "Containers elsewhere, and S3", "awscli", "`aws s3 cp`", aws_cli, CLOUD_WORKLOADS, None, CLOUD_NOTES),
)
