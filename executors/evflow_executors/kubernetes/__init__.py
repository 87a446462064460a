"""Attempts as Jobs of Kubernetes.

* `manifest`: from what a step asks for to the Job. `template`: what an operator lays over it. `operator`: both together. `reasons`: what a pod's state means. All pure.
* `api`: the calls, and the credentials. `watching`: one watch for all pods. `known`: what is known of a Job, and of a gang. `output`: what containers print. `warned`: why a pod does not start. `platform`: the platform that the remote executor drives.
"""
