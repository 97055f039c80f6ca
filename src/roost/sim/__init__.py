"""Simulated hosts, clouds and networks: the real protocol in a world made for it.

`roost.sim.lab` makes hosts of network namespaces and sites of routers, and keeps real Roost
processes running in them: the ground of `roost demo` and of the tests that need a network.
"""
