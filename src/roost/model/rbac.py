"""Roles and bindings as Kubernetes has them (rbac.authorization.k8s.io/v1): who may do what.

They have no `spec`: `rules`, `roleRef` and `subjects` stand beside `metadata`. Rules only add: there is
none that takes away. A Role speaks of one namespace; a ClusterRole of all, or, through a RoleBinding,
of the binding's namespace. What the rules mean stands in `roost.api.identity.rules`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from roost.model.kind import Column, KindInfo, Problem
from roost.model.meta import Part, Resource, doc
from roost.model.selector import LABEL_KEY, LABEL_VALUE, Operator, Requirement

RBAC: Literal["rbac.authorization.k8s.io"] = "rbac.authorization.k8s.io"
ROLE_NAME = r"^(?!\.{1,2}$)[^/%]{1,253}$"
"""Names of roles and bindings are one part of a path, nothing stricter: `roost:admin`."""
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
"""Annotation of shipped roles and bindings; "false" keeps them as they were changed."""
MOST_RULES = 256
MOST_WORDS = 256
MOST_SUBJECTS = 1024
MOST_SELECTORS = 32

RuleWord = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class PolicyRule(Part, frozen=True, kw_only=True):
    """What is allowed: verbs on resources, or on paths that are no resources."""

    verbs: Annotated[
        list[RuleWord],
        doc("Verbs, as get, list, patch; `*` is every one.", min_length=1, max_length=MOST_WORDS),
    ]
    api_groups: Annotated[
        list[str],
        doc("API groups of the resources, empty text is the core; `*` is every one.", max_length=MOST_WORDS),
    ] = []
    resources: Annotated[
        list[RuleWord],
        doc("Plurals, as hosts or hosts/status; `*/status`; `*` is every one.", max_length=MOST_WORDS),
    ] = []
    resource_names: Annotated[
        list[RuleWord], doc("Only resources of these names; empty is every one.", max_length=MOST_WORDS)
    ] = []
    non_resource_urls: Annotated[
        list[RuleWord],
        doc("Paths that are no resources; `*` at the end stands for any rest.", max_length=MOST_WORDS),
    ] = msgspec.field(default_factory=list, name="nonResourceURLs")


class SelectorExpression(Part, frozen=True, kw_only=True):
    """One condition on labels."""

    key: Annotated[str, doc("Key of the label.")]
    operator: Annotated[Literal["In", "NotIn", "Exists", "DoesNotExist"], doc("How it is compared.")]
    values: Annotated[list[str], doc("Values, for In and NotIn.", max_length=MOST_WORDS)] = []


class LabelSelector(Part, frozen=True, kw_only=True):
    """Conditions on labels that must all hold; none is every label."""

    match_labels: Annotated[dict[str, str], doc("Labels with these values.")] = {}
    match_expressions: Annotated[
        list[SelectorExpression], doc("Further conditions.", max_length=MOST_SELECTORS)
    ] = []

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether labels fulfil every condition."""
        return all(r.holds(labels) for r in self.requirements())

    def requirements(self) -> list[Requirement]:
        """The conditions in the form that lists and watches use."""
        equal = [Requirement(k, Operator.IN, frozenset({v})) for k, v in self.match_labels.items()]
        return equal + [
            Requirement(e.key, _OPERATORS[e.operator], frozenset(e.values)) for e in self.match_expressions
        ]


_OPERATORS = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.ABSENT,
}


class AggregationRule(Part, frozen=True, kw_only=True):
    """Where a ClusterRole gathers its rules from."""

    cluster_role_selectors: Annotated[
        list[LabelSelector],
        doc("ClusterRoles that fulfil one of these give their rules.", max_length=MOST_SELECTORS),
    ] = []


class RoleRef(Part, frozen=True, kw_only=True, omit_defaults=False):
    """The role that a binding gives."""

    api_group: Annotated[
        Literal["rbac.authorization.k8s.io", ""], doc("Always rbac.authorization.k8s.io.")
    ] = RBAC
    kind: Annotated[Literal["Role", "ClusterRole"], doc("Role (of the same namespace) or ClusterRole.")]
    name: Annotated[str, doc("Name of the role.", pattern=ROLE_NAME)]

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "api_group", RBAC)


class Subject(Part, frozen=True, kw_only=True):
    """Who is given a role."""

    kind: Annotated[Literal["User", "Group", "ServiceAccount"], doc("What the name means.")]
    api_group: Annotated[str, doc("rbac.authorization.k8s.io for users and groups, else empty.")] = ""
    name: Annotated[str, doc("Name of the user, group or service account.", min_length=1, max_length=1024)]
    namespace: Annotated[str, doc("Namespace of a service account.", max_length=63)] = ""

    def __post_init__(self) -> None:
        if not self.api_group and self.kind != "ServiceAccount":
            msgspec.structs.force_setattr(self, "api_group", RBAC)


class Role(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """What may be done in one namespace."""

    rules: Annotated[list[PolicyRule], doc("What is allowed.", max_length=MOST_RULES)] = []


class ClusterRole(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """What may be done, in all namespaces or in that of the binding."""

    aggregation_rule: Annotated[
        AggregationRule | None, doc("ClusterRoles whose rules this one gathers; `rules` then shows them.")
    ] = None
    rules: Annotated[list[PolicyRule], doc("What is allowed.", max_length=4096)] = []


class RoleBinding(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """Gives a role in one namespace."""

    role_ref: Annotated[RoleRef, doc("The role; it can't change.", map_type="atomic")]
    subjects: Annotated[list[Subject], doc("Who is given it.", max_length=MOST_SUBJECTS)] = []


class ClusterRoleBinding(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """Gives a ClusterRole in all namespaces."""

    role_ref: Annotated[RoleRef, doc("The ClusterRole; it can't change.", map_type="atomic")]
    subjects: Annotated[list[Subject], doc("Who is given it.", max_length=MOST_SUBJECTS)] = []


def rule_problems(rules: list[PolicyRule], *, paths: bool) -> list[Problem]:
    """What is wrong with rules; `paths` says whether they may speak of paths (Kubernetes' own checks)."""
    problems = []
    for n, rule in enumerate(rules):
        at = f"rules[{n}]"
        if rule.non_resource_urls:
            if not paths:
                problems.append(
                    Problem(
                        f"{at}.nonResourceURLs",
                        "a namespace has no paths that are not resources",
                        "use a ClusterRole",
                    )
                )
            if rule.api_groups or rule.resources or rule.resource_names:
                problems.append(
                    Problem(at, "a rule is of resources or of nonResourceURLs, not of both", "make two rules")
                )
            problems += [
                Problem(f"{at}.nonResourceURLs", f"{p[:100]!r} is no path", "as /metrics, /logs/* or *")
                for p in rule.non_resource_urls
                if "*" in p[:-1] or not (p.startswith("/") or p == "*")
            ]
            continue
        if not rule.api_groups:
            problems.append(Problem(f"{at}.apiGroups", "at least one is required", 'the core group is ""'))
        if not rule.resources:
            problems.append(Problem(f"{at}.resources", "at least one is required", "as hosts"))
    return problems


def _cluster_role_problems(role: ClusterRole) -> list[Problem]:
    problems = rule_problems(role.rules, paths=True)
    if role.aggregation_rule is None:
        return problems
    at = "aggregationRule.clusterRoleSelectors"
    if not role.aggregation_rule.cluster_role_selectors:
        problems.append(Problem(at, "at least one selector is required", "as [{matchLabels: {a: b}}]"))
    for n, selector in enumerate(role.aggregation_rule.cluster_role_selectors):
        problems += _selector_problems(selector, f"{at}[{n}]")
    return problems


def _selector_problems(selector: LabelSelector, at: str) -> list[Problem]:
    problems = []
    for requirement in selector.requirements():
        if not LABEL_KEY.match(requirement.key):
            problems.append(Problem(at, f"{requirement.key[:100]!r} is not a label key", "as [PREFIX/]NAME"))
        problems += [
            Problem(at, f"{v[:100]!r} is not a label value", "letters, digits, '-_.', 63 at most")
            for v in requirement.values
            if not LABEL_VALUE.match(v)
        ]
        listed = requirement.operator in (Operator.IN, Operator.NOT_IN)
        if listed != bool(requirement.values):
            problems.append(Problem(at, "values are for In and NotIn, which need one", "give values or none"))
    return problems


def _binding_problems(binding: RoleBinding | ClusterRoleBinding) -> list[Problem]:
    problems = []
    if isinstance(binding, ClusterRoleBinding) and binding.role_ref.kind != "ClusterRole":
        problems.append(Problem("roleRef.kind", "a ClusterRoleBinding gives a ClusterRole", "ClusterRole"))
    for n, subject in enumerate(binding.subjects):
        at = f"subjects[{n}]"
        group = "" if subject.kind == "ServiceAccount" else RBAC
        if subject.api_group != group:
            reason = f"{subject.api_group[:100]!r} is not the group of a {subject.kind}"
            problems.append(Problem(f"{at}.apiGroup", reason, f"use {group!r}"))
        if subject.kind == "ServiceAccount" and not subject.namespace:
            problems.append(Problem(f"{at}.namespace", "a service account has a namespace", "name it"))
    return problems


_AGE = Column("Age", "metadata.creationTimestamp", "Time since creation.", "date")
_CREATED = Column("Created At", "metadata.creationTimestamp", "When it was created.")
_REFERENCE = Column("Role", "roleRef.name", "Role that is given.")

ROLE = KindInfo(
    kind="Role",
    plural="roles",
    singular="role",
    type=Role,
    group=RBAC,
    description="What may be done in one namespace.",
    name_pattern=ROLE_NAME,
    columns=(_CREATED,),
    invariants=lambda role: rule_problems(role.rules, paths=False),
)
CLUSTER_ROLE = KindInfo(
    kind="ClusterRole",
    plural="clusterroles",
    singular="clusterrole",
    type=ClusterRole,
    group=RBAC,
    namespaced=False,
    description="What may be done in all namespaces, or through a RoleBinding in one.",
    name_pattern=ROLE_NAME,
    columns=(_CREATED,),
    invariants=_cluster_role_problems,
)
ROLE_BINDING = KindInfo(
    kind="RoleBinding",
    plural="rolebindings",
    singular="rolebinding",
    type=RoleBinding,
    group=RBAC,
    description="Who is given a Role or ClusterRole in one namespace.",
    name_pattern=ROLE_NAME,
    columns=(_REFERENCE, _AGE),
    invariants=_binding_problems,
)
CLUSTER_ROLE_BINDING = KindInfo(
    kind="ClusterRoleBinding",
    plural="clusterrolebindings",
    singular="clusterrolebinding",
    type=ClusterRoleBinding,
    group=RBAC,
    namespaced=False,
    description="Who is given a ClusterRole in all namespaces.",
    name_pattern=ROLE_NAME,
    columns=(_REFERENCE, _AGE),
    invariants=_binding_problems,
)
