"""The memory of one cloud or host: resources, revisions, watch, cursors, leases, steps.

`store.Store` is the door; `transaction.Transaction` is what a unit of work sees.
"""
