"""Other workflow systems' names for what evflow has; nothing of evflow's own needs this package."""
