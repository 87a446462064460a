"""Tests by cost: kill -9 at random moments."""
