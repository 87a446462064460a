"""Runs in virtual time, on the real core and shell, against a server and a machine that misbehave.

`Scenario` says what is played and what goes wrong, `World` plays it, `check` says whether every invariant held, `shrunk` makes a
scenario that fails as small as it gets. `evflow lab` is this for a flow of one's own.

    world = World(scenario).play()
    check(world)
"""
