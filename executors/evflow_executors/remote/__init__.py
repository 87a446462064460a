"""Attempts in containers of a platform: what AWS Batch and Kubernetes have in common.

* `names`: what an attempt is called there. `command`: what its container runs. `verdicts`: what its end means. All pure.
* `platform`: what a platform has to be able to do. `executor`: the executor over any platform.
* `bootstrap`, `container`: what runs inside of the container.
"""
