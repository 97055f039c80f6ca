"""Random sequences: a list, changes of a few objects, and all events since."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.differential.requests import WEB, apply, create, delete, get, merge, put, steps_patch
from tests.differential.servers import SENTINEL_LABELS, Step

POLICIES_OF_DELETION = ["Background", "Foreground", "Orphan"]

_names = st.sampled_from(["a", "b", "c"])
_labels = st.sampled_from([{}, {"app": "web"}, {"app": "db"}, SENTINEL_LABELS])
_orders = st.sampled_from([1, 2, 10000, 10001, "first"])
_revisions = st.sampled_from(["{{rv a}}", "{{rv b}}", "{{first a}}", "1"])
_changes = st.one_of(
    st.builds(lambda n, lb, o: create(n, labels=lb, order=o), _names, _labels, _orders),
    st.builds(lambda n, r, lb, o: put(n, r, labels=lb, order=o), _names, _revisions, _labels, _orders),
    st.builds(lambda n, o: merge(f"/{n}", {"spec": {"order": o}}), _names, _orders),
    st.builds(lambda n, lb: merge(f"/{n}", {"metadata": {"labels": lb or None}}), _names, _labels),
    st.builds(
        lambda n, o: steps_patch(f"/{n}", {"op": "replace", "path": "/spec/order", "value": o}),
        _names,
        _orders,
    ),
    st.builds(
        lambda n, lb: steps_patch(f"/{n}", {"op": "test", "path": "/metadata/labels", "value": lb}),
        _names,
        _labels,
    ),
    st.builds(
        lambda n, m, q, o: apply(n, m, q, networks=["oam"], order=o),
        _names,
        st.sampled_from(["one", "two"]),
        st.sampled_from(["", "&force=true"]),
        _orders,
    ),
    st.builds(lambda n: delete(f"/{n}"), _names),
    st.builds(lambda n, r: delete(f"/{n}", {"preconditions": {"resourceVersion": r}}), _names, _revisions),
    st.builds(lambda n: get(f"/{n}"), _names),
    st.builds(lambda q: get(f"?{q}"), st.sampled_from(["", WEB, "limit=1", "limit=2&continue={{continue}}"])),
)
_ends = st.one_of(
    _changes,
    st.builds(
        lambda n, f: merge(f"/{n}", {"metadata": {"finalizers": f}}),
        _names,
        st.sampled_from([None, ["roost.edge/test"]]),
    ),
    st.builds(
        lambda n, p: delete(f"/{n}", {"propagationPolicy": p}), _names, st.sampled_from(POLICIES_OF_DELETION)
    ),
    st.builds(lambda q: Step(method="DELETE", path=f"?{q}"), st.sampled_from([WEB, "dryRun=All"])),
)


def _whole(steps: list[Step]) -> list[Step]:
    """A sequence between a list and all events since."""
    last = Step(method="WATCH", path="?watch=true&resourceVersion={{begin}}")
    return [get(), *steps, get(), last]


random_changes = st.lists(_changes, min_size=4, max_size=16).map(_whole)
random_ends = st.lists(_ends, min_size=4, max_size=16).map(_whole)
"""With finalizers, policies of deletion and the deletion of many."""
