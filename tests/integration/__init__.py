"""Tests by cost: against a real Valkey or Redis."""
