"""Attempts as jobs of AWS Batch.

* `definitions`: what is registered and submitted for a step. `reasons`: what the state of a job means. Both pure.
* `api`: the one module that talks to AWS Batch and to the log of its jobs. `start`: it, made from the settings.
"""
