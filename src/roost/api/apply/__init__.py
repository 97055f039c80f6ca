"""Field ownership: who wrote which field, and what that allows (Kubernetes: Server-Side Apply).

`shapes` says how values are shared, `fields` has sets of fields, `comparing` and `merging` have what
happens to two objects, `managers` has the entries of metadata.managedFields, `migration` what kubectl's
client-side apply left behind. All of it is pure.

Writes through the API alone are tracked. What the platform's own controllers write into the store, and
status, are not: the declarations of the kinds already say who owns those (law 1: one writer per fact).
"""
