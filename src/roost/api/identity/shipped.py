"""The roles and bindings that every cloud has: four for people, and those of Kubernetes that tools expect.

The four are ideas of StarlingX: a reader looks; an operator acts on what exists; a configurator changes
configuration, but not access; an administrator does everything. Each of the first three gathers its
rules by label (`roost.edge/aggregate-to-reader: "true"` and so on), so that a ClusterRole of one's own
adds to it. `view`, `edit` and `admin` gather by Kubernetes' own labels, for bindings in one namespace.

Which kinds a role reaches follows from the list of kinds: a new kind is looked at by readers and changed
by configurators without a word here, except secrets and what gives access.

They count also where the store does not have them. `declare` writes them at each start: what is missing
is added, rules and subjects that were taken out are put back, what was added stays; those annotated
`rbac.authorization.kubernetes.io/autoupdate: "false"` stay as they are (all as Kubernetes does).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from roost.api.identity.grants import SUPERUSERS
from roost.api.identity.rules import EVERYTHING, uncovered
from roost.model.access import USER, Role
from roost.model.account import SERVICE_ACCOUNT
from roost.model.meta import GROUP, Metadata, Owner, Resource
from roost.model.rbac import (
    AUTOUPDATE,
    RBAC,
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    LabelSelector,
    PolicyRule,
    RoleRef,
    Subject,
)
from roost.model.registry import SERVED
from roost.store.transaction import Transaction

GROUPS: dict[Role, str] = {
    "administrator": SUPERUSERS,
    "configurator": "roost:configurators",
    "operator": "roost:operators",
    "reader": "roost:readers",
}
"""The group that a User's role puts him into."""
ROLES: dict[Role, str] = {
    "administrator": "roost:admin",
    "configurator": "roost:configurator",
    "operator": "roost:operator",
    "reader": "roost:reader",
}
"""The ClusterRole that the group is bound to."""
AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
LOOKING = ["get", "list", "watch"]
CHANGING = ["create", "update", "patch", "delete", "deletecollection"]
OPEN_PATHS = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz"]
VERSION_PATHS = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
SECRETS = frozenset({"secrets"})
"""Kinds whose content is not for who only looks."""
ACCESS = frozenset({USER.plural, SERVICE_ACCOUNT.plural})
"""Kinds that give access, besides those of RBAC."""


def _resources(*, without: Iterable[str]) -> dict[str, list[str]]:
    """Plurals of what is served, by group."""
    left_out = set(without)
    found: dict[str, list[str]] = defaultdict(list)
    for info in SERVED:
        if info.plural not in left_out and info.plural not in found[info.group]:
            found[info.group].append(info.plural)
    return found


def _reading() -> list[PolicyRule]:
    rules = [PolicyRule(verbs=LOOKING, api_groups=[GROUP], resources=["*"])]
    rules.append(PolicyRule(verbs=["get"], non_resource_urls=["/metrics"]))
    rules.append(PolicyRule(verbs=LOOKING, api_groups=[""], resources=["namespaces", "events"]))
    rules += [
        PolicyRule(verbs=LOOKING, api_groups=[group], resources=plurals)
        for group, plurals in _resources(without=SECRETS | {"namespaces"}).items()
        if group != GROUP and plurals
    ]
    return rules


def _operating() -> list[PolicyRule]:
    named = {info.kind: info for info in SERVED}
    return [
        PolicyRule(verbs=["operate"], api_groups=[GROUP], resources=["*"]),
        PolicyRule(verbs=["create"], api_groups=[GROUP], resources=["alarmoutlets/test"]),
        PolicyRule(verbs=["update", "patch"], api_groups=[GROUP], resources=[named["Alarm"].plural]),
        PolicyRule(
            verbs=["create", "update", "patch", "delete"],
            api_groups=[GROUP],
            resources=[named["Operation"].plural],
        ),
    ]


def _configuring() -> list[PolicyRule]:
    rules = [PolicyRule(verbs=["create"], api_groups=[GROUP], resources=["*/enrolment", "*/plan"])]
    for group, plurals in _resources(without=ACCESS).items():
        if group == RBAC:
            continue
        written = [i.plural for i in SERVED if i.group == group and i.spec_owner is Owner.OPERATOR]
        chosen = [p for p in plurals if p in written]
        if chosen:
            rules.append(PolicyRule(verbs=CHANGING, api_groups=[group], resources=chosen))
    return rules


def _granting() -> list[PolicyRule]:
    """What Kubernetes' `admin` of a namespace may do beside editing: give access in it."""
    return [
        PolicyRule(verbs=[*LOOKING, *CHANGING], api_groups=[RBAC], resources=["roles", "rolebindings"]),
        PolicyRule(
            verbs=[*LOOKING, *CHANGING, "impersonate"], api_groups=[""], resources=[SERVICE_ACCOUNT.plural]
        ),
        PolicyRule(verbs=["create"], api_groups=[""], resources=[f"{SERVICE_ACCOUNT.plural}/token"]),
        PolicyRule(
            verbs=["create"], api_groups=["authorization.k8s.io"], resources=["localsubjectaccessreviews"]
        ),
    ]


def _role(
    name: str, rules: Iterable[PolicyRule] = (), *, labels: Iterable[str] = (), gathers: Iterable[str] = ()
) -> ClusterRole:
    selectors = [LabelSelector(match_labels={label: "true"}) for label in gathers]
    meta = Metadata(
        name=name,
        labels={**LABELS, **dict.fromkeys(labels, "true")},
        annotations={AUTOUPDATE: "true"},
    )
    aggregation = AggregationRule(cluster_role_selectors=selectors) if selectors else None
    return ClusterRole(metadata=meta, aggregation_rule=aggregation, rules=list(rules))


def _binding(name: str, role: str, *groups: str) -> ClusterRoleBinding:
    return ClusterRoleBinding(
        metadata=Metadata(name=name, labels=LABELS, annotations={AUTOUPDATE: "true"}),
        role_ref=RoleRef(kind="ClusterRole", name=role),
        subjects=[Subject(kind="Group", name=group) for group in groups],
    )


_OURS, _KUBERNETES = f"{GROUP}/aggregate-to-", f"{RBAC}/aggregate-to-"
_SELF = [
    PolicyRule(
        verbs=["create"],
        api_groups=["authorization.k8s.io"],
        resources=["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    ),
    PolicyRule(verbs=["create"], api_groups=["authentication.k8s.io"], resources=["selfsubjectreviews"]),
]

CLUSTER_ROLES: dict[str, ClusterRole] = {
    role.metadata.name: role
    for role in (
        _role(ROLES["administrator"], EVERYTHING),
        _role(
            ROLES["configurator"],
            gathers=[f"{_OURS}{role}" for role in ("configurator", "operator", "reader")],
        ),
        _role(ROLES["operator"], gathers=[f"{_OURS}operator", f"{_OURS}reader"]),
        _role(ROLES["reader"], gathers=[f"{_OURS}reader"]),
        _role(
            "roost:aggregate-to-configurator",
            _configuring(),
            labels=[f"{_OURS}configurator", f"{_KUBERNETES}edit"],
        ),
        _role("roost:aggregate-to-operator", _operating(), labels=[f"{_OURS}operator", f"{_KUBERNETES}edit"]),
        _role("roost:aggregate-to-reader", _reading(), labels=[f"{_OURS}reader", f"{_KUBERNETES}view"]),
        _role("cluster-admin", EVERYTHING),
        _role("admin", gathers=[f"{_KUBERNETES}admin"]),
        _role("edit", labels=[f"{_KUBERNETES}admin"], gathers=[f"{_KUBERNETES}edit"]),
        _role("view", labels=[f"{_KUBERNETES}edit"], gathers=[f"{_KUBERNETES}view"]),
        _role("system:aggregate-to-admin", _granting(), labels=[f"{_KUBERNETES}admin"]),
        _role("system:basic-user", _SELF),
        _role(
            "system:monitoring",
            [PolicyRule(verbs=["get"], non_resource_urls=["/metrics", "/healthz", "/livez", "/readyz"])],
        ),
        _role("system:discovery", [PolicyRule(verbs=["get"], non_resource_urls=[*OPEN_PATHS, "/version"])]),
        _role(
            "system:public-info-viewer",
            [PolicyRule(verbs=["get"], non_resource_urls=VERSION_PATHS)],
        ),
        _role(
            "system:service-account-issuer-discovery",
            [
                PolicyRule(
                    verbs=["get"], non_resource_urls=["/.well-known/openid-configuration", "/openid/v1/jwks"]
                )
            ],
        ),
        _role(
            "system:auth-delegator",
            [
                PolicyRule(
                    verbs=["create"], api_groups=["authentication.k8s.io"], resources=["tokenreviews"]
                ),
                PolicyRule(
                    verbs=["create"], api_groups=["authorization.k8s.io"], resources=["subjectaccessreviews"]
                ),
            ],
        ),
    )
}
CLUSTER_BINDINGS: dict[str, ClusterRoleBinding] = {
    binding.metadata.name: binding
    for binding in (
        *(_binding(GROUPS[role], ROLES[role], GROUPS[role]) for role in GROUPS),
        _binding("cluster-admin", "cluster-admin", "system:masters"),
        _binding("system:basic-user", "system:basic-user", AUTHENTICATED),
        _binding("system:discovery", "system:discovery", AUTHENTICATED),
        _binding("system:monitoring", "system:monitoring", "system:monitoring"),
        _binding("system:public-info-viewer", "system:public-info-viewer", AUTHENTICATED, UNAUTHENTICATED),
        _binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            "system:serviceaccounts",
        ),
    )
}


def is_shipped(resource: Resource) -> bool:
    """Whether a role or binding is one of these."""
    name = resource.metadata.name
    return (isinstance(resource, ClusterRole) and name in CLUSTER_ROLES) or (
        isinstance(resource, ClusterRoleBinding) and name in CLUSTER_BINDINGS
    )


def declare(tx: Transaction) -> None:
    """Write the shipped roles and bindings where they are missing or lack something."""
    for role in CLUSTER_ROLES.values():
        found = tx.seek(ClusterRole, "", role.metadata.name)
        wanted = role if found is None else restored_role(found, role)
        if wanted != found:
            tx.save(wanted)
    for binding in CLUSTER_BINDINGS.values():
        bound = tx.seek(ClusterRoleBinding, "", binding.metadata.name)
        if bound is not None and bound.role_ref != binding.role_ref and _kept_up(bound):
            tx.remove("ClusterRoleBinding", "", binding.metadata.name)
            bound = None
        given = binding if bound is None else restored_binding(bound, binding)
        if given != bound:
            tx.save(given)


def restored_role(found: ClusterRole, shipped: ClusterRole) -> ClusterRole:
    """`found` with what it lacks of `shipped`: rules, selectors, labels."""
    if not _kept_up(found):
        return found
    changes: dict[str, object] = {}
    if shipped.aggregation_rule is None:
        lacking = uncovered(found.rules, shipped.rules)
        if lacking:
            changes["rules"] = [*found.rules, *(r for r in shipped.rules if uncovered(found.rules, [r]))]
    else:
        present = found.aggregation_rule.cluster_role_selectors if found.aggregation_rule else []
        selectors = [
            *present,
            *(s for s in shipped.aggregation_rule.cluster_role_selectors if s not in present),
        ]
        if found.aggregation_rule is None or len(selectors) > len(present):
            changes["aggregation_rule"] = AggregationRule(cluster_role_selectors=selectors)
    return msgspec.structs.replace(found, metadata=_labelled(found.metadata, shipped.metadata), **changes)


def restored_binding(found: ClusterRoleBinding, shipped: ClusterRoleBinding) -> ClusterRoleBinding:
    """`found` with the subjects it lacks of `shipped`."""
    if not _kept_up(found):
        return found
    lacking = [s for s in shipped.subjects if s not in found.subjects]
    metadata = _labelled(found.metadata, shipped.metadata)
    return msgspec.structs.replace(found, metadata=metadata, subjects=[*found.subjects, *lacking])


def _kept_up(resource: Resource) -> bool:
    return resource.metadata.annotations.get(AUTOUPDATE) != "false"


def _labelled(found: Metadata, shipped: Metadata) -> Metadata:
    return msgspec.structs.replace(
        found,
        labels={**found.labels, **shipped.labels},
        annotations={**shipped.annotations, **found.annotations},
    )
