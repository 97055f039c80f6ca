"""Nobody gives what he does not have: rules for writes on what gives access, made for one caller.

Who creates or changes a role must hold every permission in it, or the verb `escalate` on roles; who
creates or changes a binding, or a User with a role, must hold every permission of the role, or the verb
`bind` on it (Kubernetes' own rules). A role that aggregates may be given by who may do everything only.
Who hands out a token or a password of a User must hold everything that this User does. What a change
leaves as it was is not asked for again. The role of a binding never changes.

A patch that creates takes the right to create, too; one that names new owners the right to delete, for what
has lost its owners is collected.

The shipped roles and bindings can be changed, not deleted: they count also where they are missing.

Whoever may `operate` a kind but not change it is held to the fields that are for that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from roost.api.identity import shipped
from roost.api.identity.grants import Grants
from roost.api.identity.rules import EVERYTHING, Attributes, TooManyCases, in_words, uncovered
from roost.api.target import Target
from roost.engine import admission
from roost.engine.admission import Refused
from roost.link.exchange import Caller
from roost.model.access import User
from roost.model.kind import KindInfo
from roost.model.rbac import (
    AUTOUPDATE,
    RBAC,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    RoleRef,
)
from roost.store.transaction import Transaction

GIVING = frozenset({"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "User"})
SHOWN = 10


def rules(grants: Grants, caller: Caller, target: Target, *, operating: bool) -> Sequence[admission.Rule]:
    """The further rules for this caller's write."""
    found: list[admission.Rule] = []
    if target.verb in ("patch", "update"):
        found += [_creating(grants, caller, target), _owned(grants, caller, target)]
    if target.info.kind in GIVING:
        found.append(_Giving(grants, caller).check)
    if operating:
        found.append(only_operating)
    return found


def _creating(grants: Grants, caller: Caller, target: Target) -> admission.Rule:
    """Refuse a patch or update that would create, when the caller may not create."""
    info = target.info
    asked = Attributes(
        verb="create", group=info.group, resource=info.plural, namespace=target.namespace, name=target.name
    )

    def check(tx: Transaction, request: admission.Request) -> None:
        if request.operation == "create" and not grants.allowed(caller, asked):
            raise Refused(
                f'user "{caller.name}" cannot create resource "{info.plural}" in API group "{info.group}"',
                "it is not there yet; ask who may create it",
            )

    return check


def _owned(grants: Grants, caller: Caller, target: Target) -> admission.Rule:
    """Refuse owners that a change adds, when the caller may not delete: one that is not there would have the
    resource collected (Kubernetes: OwnerReferencesPermissionEnforcement)."""
    info = target.info
    asked = Attributes(
        verb="delete", group=info.group, resource=info.plural, namespace=target.namespace, name=target.name
    )

    def check(tx: Transaction, request: admission.Request) -> None:
        if request.old is None or request.new is None:
            return
        former = request.old.metadata.owner_references
        added = [owner for owner in request.new.metadata.owner_references if owner not in former]
        if added and not grants.allowed(caller, asked):
            raise Refused(
                f'user "{caller.name}" cannot delete resource "{info.plural}" in API group "{info.group}"',
                "what names owners is deleted with them; ask who may delete it",
                field="metadata.ownerReferences",
            )

    return check


def check_stand_in(grants: Grants, caller: Caller, user: Caller) -> None:
    """Refuse to hand out what proves to be `user` unless the caller holds every permission of his,
    everywhere and in each namespace."""
    giving = _Giving(grants, caller)
    for namespace in ("", *grants.namespaces(user)):
        giving.hold(grants.rules(user, namespace), namespace, f'user "{user.name}"')


def only_operating(tx: Transaction, request: admission.Request) -> None:
    """Refuse a change of anything but the fields of the kind that are for operating."""
    old, new = request.old, request.new
    if old is None or new is None:
        raise Refused("only what exists may be operated", "ask for the right to change it")
    before, after = (msgspec.to_builtins(r) for r in (old, new))
    for part in ("labels", "annotations", "finalizers", "ownerReferences"):
        if before["metadata"].get(part) != after["metadata"].get(part):
            raise Refused(*_beyond(request.info), field=f"metadata.{part}")
    changed = [k for k in {*before["spec"], *after["spec"]} if before["spec"].get(k) != after["spec"].get(k)]
    for field in sorted(set(changed) - set(request.info.operating)):
        raise Refused(*_beyond(request.info), field=f"spec.{field}")


def _beyond(info: KindInfo) -> tuple[str, str]:
    reason = f"your role operates {info.plural}: it changes {' and '.join(info.operating)} of spec alone"
    return reason, "ask who may configure"


class _Giving:
    """One caller who gives access."""

    def __init__(self, grants: Grants, caller: Caller) -> None:
        self._grants, self._caller = grants, caller

    def check(self, tx: Transaction, request: admission.Request) -> None:
        """Refuse to give what the caller does not have."""
        old, new = request.old, request.new
        if new is None:
            if old is not None and shipped.is_shipped(old):
                raise Refused(
                    "it is shipped with every cloud",
                    f'change it instead, with the annotation {AUTOUPDATE}: "false"',
                )
            return
        match new:
            case Role() | ClusterRole():
                self._role(new, old)
            case RoleBinding() | ClusterRoleBinding():
                self._binding(new, old)
            case User():
                self._user(new, old)

    def _role(self, new: Role | ClusterRole, old: object) -> None:
        plural = "roles" if isinstance(new, Role) else "clusterroles"
        former = old.rules if isinstance(old, Role | ClusterRole) else []
        aggregation = new.aggregation_rule if isinstance(new, ClusterRole) else None
        before = old.aggregation_rule if isinstance(old, ClusterRole) else None
        labels_more = isinstance(new, ClusterRole) and (
            not isinstance(old, ClusterRole) or old.metadata.labels != new.metadata.labels
        )
        # By its labels others gather what it gathers, whatever its own `rules` say.
        gathers_more = aggregation is not None and (aggregation != before or labels_more)
        if new.rules == former and not gathers_more and not labels_more:
            return
        if self._may("escalate", plural, new.metadata.namespace, new.metadata.name):
            return
        namespace = new.metadata.namespace
        if gathers_more:
            self.hold(EVERYTHING, namespace, "aggregationRule")
        added = new.rules if labels_more else [r for r in new.rules if r not in former]
        self.hold(added, namespace, "rules")

    def _binding(self, new: RoleBinding | ClusterRoleBinding, old: object) -> None:
        former = old if isinstance(old, RoleBinding | ClusterRoleBinding) else None
        if former is not None:
            if former.role_ref != new.role_ref:
                raise Refused(
                    "the role of a binding can't change",
                    "delete the binding and create another",
                    field="roleRef",
                )
            if all(s in former.subjects for s in new.subjects):
                return
        self._give(new.role_ref, new.metadata.namespace)

    def _user(self, new: User, old: object) -> None:
        before = old.spec if isinstance(old, User) else None
        if before is not None and before.role == new.spec.role and (new.spec.disabled or not before.disabled):
            return
        self._give(RoleRef(kind="ClusterRole", name=shipped.ROLES[new.spec.role]), "")

    def _give(self, reference: RoleRef, namespace: str) -> None:
        plural = "clusterroles" if reference.kind == "ClusterRole" else "roles"
        if self._may("bind", plural, namespace, reference.name):
            return
        given = self._grants.rules_of(reference, namespace)
        if given is None:
            raise Refused(
                f'{reference.kind} "{reference.name}" is not there',
                "create the role before you bind it",
                field="roleRef",
            )
        self.hold(given, namespace, "roleRef")

    def _may(self, verb: str, plural: str, namespace: str, name: str) -> bool:
        asked = Attributes(verb=verb, group=RBAC, resource=plural, namespace=namespace, name=name)
        return self._grants.allowed(self._caller, asked)

    def hold(self, given: Sequence[PolicyRule], namespace: str, field: str) -> None:
        """Refuse to give rules that the caller does not hold."""
        own = self._grants.rules(self._caller, namespace)
        try:
            missing = uncovered(own, given)
        except TooManyCases as error:
            raise Refused(
                "a rule has too many combinations to be compared with what you hold",
                "split it into several rules",
            ) from error
        if not missing:
            return
        listed = ", ".join(in_words(rule) for rule in missing[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise Refused(
            f'user "{self._caller.name}" is attempting to grant RBAC permissions not currently held '
            f"({field}): {listed}{more}",
            "ask who holds them",
        )
