"""Deployed flows: from a flow's class to a deployment, and from a deployment to runs that a scheduler carries out.

A deployment holds all that a run needs but the flow's code itself, which stays in its package until an attempt loads it. So whoever
asks for a run, a command today and a schedule tomorrow, needs neither the flow's file nor what it imports.
"""
