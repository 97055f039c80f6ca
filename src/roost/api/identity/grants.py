"""Who is given which rules: roles and bindings as an index that is never changed, only made anew.

A binding counts when the role it names is there: a ClusterRoleBinding everywhere, a RoleBinding in its
namespace. An aggregated ClusterRole has the rules of every ClusterRole that its selectors choose,
through several levels and whatever its own `rules` show.

Of a caller from an upper cloud only the groups count: names are those of another cloud.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from roost.api.identity.rules import EVERYTHING, Attributes, allows
from roost.link.exchange import Caller
from roost.model.rbac import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject

SUPERUSERS = "roost:administrators"
"""Members do everything whatever the roles say, so that nobody can lock everybody out."""
ACCOUNT = "system:serviceaccount:"
REMEMBERED = 1024


class Grant(msgspec.Struct, frozen=True):
    """Rules that somebody has, and through which binding to which role. A name alone does not tell the
    role: whoever writes the roles of a namespace may give one the name of any ClusterRole."""

    binding: str
    role: RoleRef
    rules: Sequence[PolicyRule]


class Grants:
    """The index. Lookups cost what the caller has, not what there is."""

    def __init__(
        self,
        roles: Iterable[Role] = (),
        cluster_roles: Iterable[ClusterRole] = (),
        bindings: Iterable[RoleBinding] = (),
        cluster_bindings: Iterable[ClusterRoleBinding] = (),
    ) -> None:
        self._roles = {(r.metadata.namespace, r.metadata.name): r for r in roles}
        self._cluster_roles = {r.metadata.name: r for r in cluster_roles}
        self._effective = {
            name: gathered(role, self._cluster_roles) for name, role in self._cluster_roles.items()
        }
        self._everywhere: dict[str, list[Grant]] = defaultdict(list)
        self._within: dict[str, dict[str, list[Grant]]] = defaultdict(lambda: defaultdict(list))
        self._remembered: dict[tuple[str, tuple[str, ...], str], list[Grant]] = {}
        for cluster_binding in cluster_bindings:
            self._add(self._everywhere, cluster_binding, "")
        for binding in bindings:
            namespace = binding.metadata.namespace
            self._add(self._within[namespace], binding, namespace)

    def _add(
        self, index: dict[str, list[Grant]], binding: RoleBinding | ClusterRoleBinding, namespace: str
    ) -> None:
        rules = self.rules_of(binding.role_ref, namespace)
        if rules is None:
            return
        grant = Grant(f"{type(binding).__name__} {binding.metadata.name}", binding.role_ref, rules)
        for subject in binding.subjects:
            index[_key(subject)].append(grant)

    def rules_of(self, reference: RoleRef, namespace: str) -> Sequence[PolicyRule] | None:
        """The rules of the role that a binding names; None when it is not there."""
        if reference.kind == "ClusterRole":
            return self._effective.get(reference.name)
        role = self._roles.get((namespace, reference.name))
        return role.rules if role else None

    def grants(self, caller: Caller, namespace: str) -> list[Grant]:
        """What a caller is given, everywhere and in a namespace; the empty one means everywhere alone."""
        key = ("" if caller.linked else caller.name, tuple(caller.groups), namespace)
        known = self._remembered.get(key)
        if known is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            known = self._remembered[key] = list(self._find(*key))
        return known

    def rules(self, caller: Caller, namespace: str) -> list[PolicyRule]:
        """The rules that a caller has in a namespace."""
        if SUPERUSERS in caller.groups:
            return list(EVERYTHING)
        return [rule for grant in self.grants(caller, namespace) for rule in grant.rules]

    def allowed(self, caller: Caller, asked: Attributes) -> bool:
        """Whether a caller may do it."""
        if SUPERUSERS in caller.groups:
            return True
        return any(allows(rule, asked) for g in self.grants(caller, asked.namespace) for rule in g.rules)

    def why(self, caller: Caller, asked: Attributes) -> str:
        """Through which binding a caller may do it, for people; empty when he needs none, or may not."""
        if SUPERUSERS in caller.groups:
            return ""
        for grant in self.grants(caller, asked.namespace):
            if any(allows(rule, asked) for rule in grant.rules):
                return f'RBAC: allowed by {grant.binding} of role "{grant.role.name}"'
        return ""

    def aggregated(self) -> dict[str, list[PolicyRule]]:
        """The rules of every aggregated ClusterRole."""
        return {n: self._effective[n] for n, r in self._cluster_roles.items() if r.aggregation_rule}

    def namespaces(self, caller: Caller) -> list[str]:
        """Namespaces in which a caller is given more than everywhere."""
        if SUPERUSERS in caller.groups:
            return []
        keys = _keys("" if caller.linked else caller.name, caller.groups)
        return sorted(namespace for namespace, index in self._within.items() if any(k in index for k in keys))

    def _find(self, name: str, groups: Sequence[str], namespace: str) -> Iterator[Grant]:
        keys = _keys(name, groups)
        for key in keys:
            yield from self._everywhere.get(key, ())
        within = self._within.get(namespace) if namespace else None
        if within is not None:
            for key in keys:
                yield from within.get(key, ())


def gathered(role: ClusterRole, roles: Mapping[str, ClusterRole]) -> list[PolicyRule]:
    """The rules of a ClusterRole; of an aggregated one those it gathers, each once, in order of names."""
    if role.aggregation_rule is None:
        return role.rules
    found: dict[str, ClusterRole] = {}
    waiting = [role]
    while waiting:
        aggregation = waiting.pop().aggregation_rule
        selectors = aggregation.cluster_role_selectors if aggregation else []
        for name, other in roles.items():
            if name == role.metadata.name or name in found:
                continue
            if any(s.matches(other.metadata.labels) for s in selectors):
                found[name] = other
                waiting.append(other)
    rules: list[PolicyRule] = []
    for name in sorted(found):
        if found[name].aggregation_rule is None:
            rules += [r for r in found[name].rules if r not in rules]
    return rules


def account_name(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"{ACCOUNT}{namespace}:{name}"


def _keys(name: str, groups: Sequence[str]) -> list[str]:
    """Under which keys a caller's grants stand; an empty name has none."""
    return [*([f"user/{name}"] if name else ()), *(f"group/{g}" for g in groups)]


def _key(subject: Subject) -> str:
    match subject.kind:
        case "User":
            return f"user/{subject.name}"
        case "Group":
            return f"group/{subject.name}"
        case "ServiceAccount":
            return f"user/{account_name(subject.namespace, subject.name)}"
