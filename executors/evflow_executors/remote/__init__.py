"""Attempts in containers of a platform: what AWS Batch and Kubernetes have in common.

* `names`: what an attempt is called there. `command`: what its container runs. `verdicts`: what its end means. All pure.
* `platform`: what a platform has to be able to do. `records`: what is kept of an attempt. `sheets`: the orders of what goes as one.
* `executor`: the executor over any platform. It watches jobs; `submitting` submits them, and `terminations` ends them. All three work on the attempts that are
  `in_flight`.
* `bootstrap`, `container`: what runs inside of the container.
"""
