"""`evflow lint`: what in a flow's file will bite, seen in its source; nothing of it is imported or run."""
