"""Read the whole state of the newest run by the client, as a page that shows a run would."""

import json
import time

from evflow import Flow, namespace

begin = time.perf_counter()
namespace(None)
run = Flow("Wide").latest_run
tasks = [
    (task.pathspec, task.successful, task.created_at, task.finished_at, [artifact.id for artifact in task]) for step in run for task in step
]
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "tasks": len(tasks), "successful": sum(task[1] for task in tasks)}))
