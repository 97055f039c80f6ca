"""The doors: the Kubernetes API conventions over the store, so that kubectl and its like just work.

`app` takes requests apart and answers them, `context` is what it needs from the rest of the house,
`server` is the TLS listener, `through` answers calls that come over a link.
"""
