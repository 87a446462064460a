"""Tests by cost: one suite for every implementation of a protocol, fakes included."""
