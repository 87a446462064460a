"""What an operator says of all Jobs, and the Job that an attempt or a gang becomes with it. Pure."""

from collections.abc import Mapping
from typing import Any

from evflow.core.values import field, value
from evflow_executors.kubernetes.manifest import Server, TaskJob, filled, gang_manifest, job_manifest
from evflow_executors.kubernetes.template import laid_over, template_in
from evflow_executors.remote.platform import Job


@value
class Operator:
    """What an operator says of all Jobs.

    Attributes:
        namespace: Where Jobs are made; empty for the one that the credentials name.
        secret_env: Variables that Kubernetes takes from its secrets, by name: `secret/key`.
        defaults: Fields of `@kubernetes` for steps that leave them open.
        templates: Pod templates to be laid over ours, each with its source.
        ttl_s: After so many seconds a Job that ended is removed.
        patience_s: How long a pod may wait for a node or an image; 0 for as long as it takes.
    """

    namespace: str = ""
    secret_env: Mapping[str, str] = field(default_factory=dict[str, str])
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    templates: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    ttl_s: int = 86_400
    patience_s: float = 0.0


def manifest_of(job: Job, operator: Operator, server: Server) -> dict[str, Any]:
    """The Job of an attempt, or of a gang.

    Args:
        job: What is to be run.
        operator: What holds for all Jobs.
        server: What the server can do; it has Indexed Jobs where it is a gang.

    Raises:
        EvflowError: There can be no such Job.
    """
    fields = filled(job.asked, operator.defaults)
    own = fields.pop("pod_template", None)
    about = {"evflow.dev/attempt": str(job.attempt), "evflow.dev/step": job.step}
    task = TaskJob(job.name, job.labels, fields, job.command.argv, job.command.env, job.step, job.timeout_s, about, operator.secret_env)
    if job.nodes:
        made = gang_manifest(task, len(job.nodes), server, ttl_s=operator.ttl_s)
    else:
        made = job_manifest(task, server, ttl_s=operator.ttl_s)
    templates = list(operator.templates)
    if own is not None:
        source = f"of step '{job.step}'"
        templates.append((source, template_in(own, source)))
    return laid_over(made, templates) if templates else made
