"""Tests by cost: recorded logs of released versions, replayed."""
