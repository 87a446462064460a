"""Tests by cost: real `python flow.py` processes, seen from outside."""
