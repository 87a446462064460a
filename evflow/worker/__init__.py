"""Runs one attempt of one task in a process of its own, and supervises such processes."""
