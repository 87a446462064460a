"""Tests by cost: what a type checker tells our users."""
