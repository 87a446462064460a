"""Tools for testing code that runs on evflow: virtual time, simulated logs and executors, fault injection."""
