"""Tests by cost: pure code, no process, no server."""
