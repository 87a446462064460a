"""What a scheduler can be measured by, for Prometheus; imported only where somebody may ask.

`meter` holds what is counted as it happens, `gauges` what is counted when it is asked for. Names are Prometheus' own way: units
in the name, totals end in `_total`. docs/scheduler.md lists them all; a test compares.
"""
