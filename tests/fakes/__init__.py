"""Platforms that are not there: their APIs, and their containers as local processes. Each says what it fakes."""
