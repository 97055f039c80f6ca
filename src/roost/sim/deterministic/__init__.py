"""The deterministic simulation: whole trees of real code on a simulated clock, network and disk.

One process, one thread, no sockets. A run is a `Plan` (`events`): the tree, a seed and what happens when.
`run.run(plan)` performs it and tells what the laws found. The same plan gives the same run, to the byte, in
any process that runs with PYTHONHASHSEED=0.
"""
