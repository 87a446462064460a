"""Tests by cost: the real core and shell in virtual time, seeded faults."""
