"""Event-sourced runtime for machine-learning flows."""
