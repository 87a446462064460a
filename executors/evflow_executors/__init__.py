"""Where tasks run: one protocol, an implementation for each place (local processes, worker pools, clouds)."""
