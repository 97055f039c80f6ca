"""Benchmarks of whole processes on this machine. `python -m bench` runs all, `python -m bench api` one.

Each figure is measured several times; the table shows the median of the runs and their span. Where a
bound of the machine can be told, the same work is done in the same run by a bare peer, and the ratio is
shown beside. docs/benchmarks.md says what each row means.
"""
