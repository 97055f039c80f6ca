"""Simulated hosts, clouds and networks: the real protocol in a world made for it.

`roost.sim.lab` makes hosts of network namespaces and sites of routers, and keeps real Roost
processes running in them: the ground of `roost demo` and of the tests that need a network.

`roost.sim.fleet` runs a central cloud and hundreds of subclouds with simulated machines in one process,
over real links; `roost.sim.checking` tells whether all their stores agree.
"""
