"""The pure core: events, the state that they fold to, and the decisions on it.

Nothing here does I/O, reads a clock, draws a random number or logs; the build enforces it. That is what
makes replay exact: the same events give the same state, and the same state at the same instant gives the
same decisions, in any process, on any machine, years later.
"""
