"""Past runs from their logs alone: load, fold anew, verify, travel in time, tell as a story.

Nothing here needs the flow's code, and nothing here writes.
"""
