"""Attempts as jobs of AWS Batch.

* `definitions`: what is registered and submitted for a step. `reasons`: what the state of a job means. Both pure.
* `arrays`: many attempts by one submit. `registered`: job definitions that are there. `calls`: the one module that talks to AWS Batch and to the
  log of its jobs.
* `api`: AWS Batch as a platform, over these. `start`: it, made from the settings.
"""
