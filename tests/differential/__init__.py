"""The same requests to Kubernetes' own API server and to ours: what differs must be known and have a reason.

`definitions` makes CustomResourceDefinitions from our kinds, `servers` speaks to both, `corpus` and
`sequences` hold requests, `normal` makes answers comparable, `differences` is the list of what may differ,
and why.
"""
