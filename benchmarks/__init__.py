"""What evflow costs, beside Metaflow, on one machine in one run.

``make bench`` runs it. Both engines run the same flows (``flows/``), in turn (A B A B), each run on
fresh data folders and after a warm-up; medians become ratios, and the ratios become
``docs/benchmarks.md``, which is written here and nowhere else.

=============  ============================================================================
``engines``    the two engines: their interpreters, environments and data folders
``processes``  one measured command: its time until the last process is gone, its peak memory
``workloads``  what is measured and what is aimed at: a function and its metrics each
``report``     medians, ratios, the table
=============  ============================================================================

Linux only: it adopts orphans (``PR_SET_CHILD_SUBREAPER``) and reads ``/proc``.
"""
