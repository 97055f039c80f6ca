"""Roles and bindings: what a rule allows, what rules cover, who is given what, and who may give."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.api.access import ADMINISTRATORS, READERS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity import rules as evaluation
from roost.api.identity import shipped
from roost.api.identity.aggregation import ALL, AggregationController
from roost.api.identity.directory import Directory
from roost.api.identity.grants import Grants, gathered
from roost.api.identity.rules import EVERYTHING, Attributes, TooManyCases, allows, apart, uncovered
from roost.link.exchange import Caller
from roost.model.access import User, UserSpec
from roost.model.account import ServiceAccount
from roost.model.cloud import Subcloud
from roost.model.meta import Metadata
from roost.model.rbac import (
    AUTOUPDATE,
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    LabelSelector,
    PolicyRule,
    Role,
    RoleBinding,
    RoleRef,
    SelectorExpression,
    Subject,
)
from roost.store.errors import Unavailable
from roost.store.store import Store
from tests.api.client import HOSTS, V1, Client, Watch, host

RBAC = "/apis/rbac.authorization.k8s.io/v1"
OPERATORS, CONFIGURATORS = "roost:operators", "roost:configurators"


def rule(
    verbs: str, resources: str = "", groups: str = "roost.edge", names: str = "", paths: str = ""
) -> PolicyRule:
    """A rule from words; groups are apart by commas, "" is the core."""
    return PolicyRule(
        verbs=verbs.split(),
        api_groups=groups.split(",") if resources else [],
        resources=resources.split(),
        resource_names=names.split(),
        non_resource_urls=paths.split(),
    )


def asked(
    verb: str, resource: str = "", group: str = "roost.edge", name: str = "", path: str = ""
) -> Attributes:
    plural, _, subresource = resource.partition("/")
    return Attributes(verb=verb, group=group, resource=plural, subresource=subresource, name=name, path=path)


@pytest.mark.parametrize(
    ("given", "wanted", "allowed"),
    [
        (rule("get list", "hosts"), asked("get", "hosts"), True),
        (rule("get list", "hosts"), asked("delete", "hosts"), False),
        (rule("get", "hosts"), asked("get", "hosts", group=""), False),
        (rule("get", "hosts", groups="apps,roost.edge"), asked("get", "hosts"), True),
        (rule("*", "hosts"), asked("escalate", "hosts"), True),
        (rule("get", "*"), asked("get", "hosts/status"), True),
        (rule("get", "hosts", groups="*"), asked("get", "hosts", group="any"), True),
        (rule("get", "hosts"), asked("get", "hosts/status"), False),
        (rule("get", "hosts/status"), asked("get", "hosts/status"), True),
        (rule("get", "hosts/status"), asked("get", "hosts"), False),
        (rule("get", "*/status"), asked("get", "hosts/status"), True),
        (rule("get", "*/status"), asked("get", "hosts"), False),
        (rule("get", "hosts", names="a b"), asked("get", "hosts", name="b"), True),
        (rule("get", "hosts", names="a b"), asked("get", "hosts", name="c"), False),
        (rule("list", "hosts", names="a"), asked("list", "hosts"), False),
        (rule("create", "hosts", names="a"), asked("create", "hosts"), False),
        (rule("get", paths="/healthz"), asked("get", path="/healthz"), True),
        (rule("get", paths="/healthz"), asked("get", path="/healthz/x"), False),
        (rule("get", paths="/logs/*"), asked("get", path="/logs/a/b"), True),
        (rule("get", paths="/logs/*"), asked("get", path="/logs"), False),
        (rule("get", paths="*"), asked("get", path="/anything"), True),
        (rule("get", paths="/healthz"), asked("post", path="/healthz"), False),
        (rule("*", "*", groups="*"), asked("get", path="/healthz"), False),
        (rule("get", paths="*"), asked("get", "hosts"), False),
    ],
)
def test_what_a_rule_allows(given: PolicyRule, wanted: Attributes, allowed: bool) -> None:  # noqa: FBT001
    assert allows(given, wanted) is allowed


@pytest.mark.parametrize(
    ("holder", "wanted", "missing"),
    [
        ([rule("get list", "hosts")], [rule("get", "hosts")], 0),
        ([rule("get", "hosts"), rule("list", "hosts")], [rule("get list", "hosts")], 0),
        ([rule("get", "hosts")], [rule("get list", "hosts")], 1),
        ([rule("get", "hosts", names="a")], [rule("get", "hosts")], 1),
        ([rule("get", "hosts")], [rule("get", "hosts", names="a")], 0),
        ([rule("get", "hosts", names="a")], [rule("get", "hosts", names="a b")], 1),
        ([rule("get", "*")], [rule("get", "hosts hosts/status */x")], 0),
        ([rule("get", "*/status")], [rule("get", "hosts/status")], 0),
        ([rule("get", "hosts")], [rule("get", "*")], 1),
        ([rule("get", "hosts")], [rule("*", "hosts")], 1),
        ([rule("get", paths="/logs/*")], [rule("get", paths="/logs/a /logs/b/*")], 0),
        ([rule("get", paths="/logs/*")], [rule("get", paths="/logs /x")], 2),
        ([rule("get", paths="/logs/a")], [rule("get", paths="/logs/*")], 1),
        (list(EVERYTHING), [rule("*", "*", groups="*"), rule("*", paths="*")], 0),
        ([EVERYTHING[0]], [rule("get", paths="/x")], 1),
    ],
)
def test_what_rules_cover(holder: list[PolicyRule], wanted: list[PolicyRule], missing: int) -> None:
    assert len(uncovered(holder, wanted)) == missing


def test_rules_that_are_too_many_cases_are_not_compared() -> None:
    words = [f"w{n}" for n in range(200)]
    wide = PolicyRule(verbs=words, api_groups=words, resources=words)
    with pytest.raises(TooManyCases):
        uncovered([rule("get", "hosts")], [wide])
    assert uncovered(list(EVERYTHING), [wide]) == []
    some = PolicyRule(verbs=words[:100], api_groups=["a"], resources=words[:100])
    assert len(uncovered([rule("get", "hosts")], [some] * 2)) == 20_000
    with pytest.raises(TooManyCases):
        uncovered([rule("get", "hosts")], [some] * 3)


# -- properties

VERBS, PLURALS, NAMES = (
    ["get", "list", "patch", "*"],
    ["hosts", "hosts/status", "*/status", "users", "*"],
    ["a", "b"],
)
RULES = st.one_of(
    st.builds(
        PolicyRule,
        verbs=st.lists(st.sampled_from(VERBS), min_size=1, max_size=3),
        api_groups=st.lists(st.sampled_from(["", "roost.edge", "*"]), min_size=1, max_size=2),
        resources=st.lists(st.sampled_from(PLURALS), min_size=1, max_size=3),
        resource_names=st.lists(st.sampled_from(NAMES), max_size=2),
    ),
    st.builds(
        PolicyRule,
        verbs=st.lists(st.sampled_from(VERBS), min_size=1, max_size=2),
        non_resource_urls=st.lists(st.sampled_from(["/a", "/a/*", "/a/b", "*"]), min_size=1, max_size=2),
    ),
)
ASKED = st.one_of(
    st.builds(
        Attributes,
        verb=st.sampled_from(["get", "list", "patch", "delete"]),
        group=st.sampled_from(["", "roost.edge", "apps"]),
        resource=st.sampled_from(["hosts", "users"]),
        subresource=st.sampled_from(["", "status", "token"]),
        name=st.sampled_from(["", "a", "b", "c"]),
    ),
    st.builds(
        Attributes,
        verb=st.sampled_from(["get", "list"]),
        path=st.sampled_from(["/a", "/a/b", "/a/b/c", "/x"]),
    ),
)


def naive(rules: list[PolicyRule], wanted: Attributes) -> bool:
    """The same question, asked word for word of every single case."""
    for case in (case for rule in rules for case in apart(rule)):
        if case.verbs[0] not in ("*", wanted.verb):
            continue
        if case.non_resource_urls:
            pattern = case.non_resource_urls[0]
            stem = pattern[:-1] if pattern.endswith("*") else None
            if wanted.path and (
                pattern == wanted.path or (stem is not None and wanted.path.startswith(stem))
            ):
                return True
            continue
        if wanted.path or case.api_groups[0] not in ("*", wanted.group):
            continue
        whole = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
        fits = {"*", whole} | ({f"*/{wanted.subresource}"} if wanted.subresource else set())
        if case.resources[0] in fits and (not case.resource_names or case.resource_names == [wanted.name]):
            return True
    return False


@settings(max_examples=400, deadline=None)
@given(st.lists(RULES, max_size=4), ASKED)
def test_evaluation_equals_the_naive_one(rules: list[PolicyRule], wanted: Attributes) -> None:
    assert any(allows(r, wanted) for r in rules) == naive(rules, wanted)


@settings(max_examples=300, deadline=None)
@given(st.lists(RULES, max_size=4), RULES, ASKED)
def test_adding_a_rule_takes_nothing_away(
    rules: list[PolicyRule], more: PolicyRule, wanted: Attributes
) -> None:
    grants = [_granted([*rules]), _granted([*rules, more])]
    before, after = (g.allowed(Caller("ada", []), wanted) for g in grants)
    assert after or not before


@settings(max_examples=400, deadline=None)
@given(st.lists(RULES, max_size=4), st.lists(RULES, max_size=3), ASKED)
def test_what_is_covered_allows_nothing_more(
    holder: list[PolicyRule], wanted: list[PolicyRule], request: Attributes
) -> None:
    missing = uncovered(holder, wanted)
    if any(allows(r, request) for r in wanted) and not any(allows(r, request) for r in holder):
        assert any(allows(r, request) for r in missing)
    assert uncovered([*holder, *missing], wanted) == []


def _granted(rules: list[PolicyRule]) -> Grants:
    role = ClusterRole(metadata=Metadata(name="r"), rules=rules)
    binding = ClusterRoleBinding(
        metadata=Metadata(name="b"),
        role_ref=RoleRef(kind="ClusterRole", name="r"),
        subjects=[Subject(kind="User", name="ada")],
    )
    return Grants(cluster_roles=[role], cluster_bindings=[binding])


# -- who is given what


def _binding(namespace: str, kind: Any, role: str, *subjects: Subject) -> RoleBinding:
    return RoleBinding(
        metadata=Metadata(name=f"b-{role}", namespace=namespace),
        role_ref=RoleRef(kind=kind, name=role),
        subjects=list(subjects),
    )


def test_bindings_speak_of_their_namespace() -> None:
    ada = Subject(kind="User", name="ada")
    bot = Subject(kind="ServiceAccount", name="bot", namespace="harbor")
    grants = Grants(
        roles=[Role(metadata=Metadata(name="looker", namespace="harbor"), rules=[rule("get", "hosts")])],
        cluster_roles=[ClusterRole(metadata=Metadata(name="reach"), rules=[rule("list", "hosts")])],
        bindings=[
            _binding("harbor", "Role", "looker", ada, bot),
            _binding("ridge", "ClusterRole", "reach", Subject(kind="Group", name="crew")),
            _binding("ridge", "Role", "looker", ada),
        ],
    )

    def may(name: str, verb: str, namespace: str, *groups: str) -> bool:
        wanted = Attributes(verb=verb, group="roost.edge", resource="hosts", namespace=namespace)
        return grants.allowed(Caller(name, list(groups)), wanted)

    assert may("ada", "get", "harbor") and not may("ada", "get", "ridge") and not may("ada", "get", "")
    assert may("system:serviceaccount:harbor:bot", "get", "harbor")
    assert not may("bot", "get", "harbor") and not may("system:serviceaccount:ridge:bot", "get", "harbor")
    assert may("x", "list", "ridge", "crew") and not may("x", "list", "harbor", "crew")
    assert may("x", "delete", "anywhere", ADMINISTRATORS)


def test_names_from_above_are_not_names_here() -> None:
    grants = _granted([rule("get", "hosts")])
    wanted = asked("get", "hosts")
    assert grants.allowed(Caller("ada", []), wanted)
    assert not grants.allowed(Caller("ada", [], linked=True), wanted)


def test_aggregated_roles_gather_through_levels_and_circles() -> None:
    def role(name: str, labels: str, gathers: str = "", *rules: PolicyRule) -> ClusterRole:
        selectors = [LabelSelector(match_labels={g: "true"}) for g in gathers.split()]
        aggregation = AggregationRule(cluster_role_selectors=selectors) if selectors else None
        meta = Metadata(name=name, labels=dict.fromkeys(labels.split(), "true"))
        return ClusterRole(metadata=meta, aggregation_rule=aggregation, rules=list(rules))

    one, two = rule("get", "hosts"), rule("list", "clouds")
    roles = {
        r.metadata.name: r
        for r in (
            role("low", "a", "", one),
            role("other", "b", "", two, one),
            role("middle", "b c", "a c"),
            role("top", "c", "b", rule("*", "*")),
        )
    }
    assert gathered(roles["middle"], roles) == [one, two]
    assert gathered(roles["top"], roles) == [one, two]
    assert gathered(roles["low"], roles) == [one]
    some = LabelSelector(match_expressions=[SelectorExpression(key="a", operator="DoesNotExist")])
    rest = ClusterRole(
        metadata=Metadata(name="rest"), aggregation_rule=AggregationRule(cluster_role_selectors=[some])
    )
    assert gathered(rest, {**roles, "rest": rest}) == [one, two]


# -- the shipped roles

MATRIX = [
    # verb, resource, group: reader, operator, configurator
    ("get", "hosts", "roost.edge", "roc"),
    ("watch", "hosts/status", "roost.edge", "roc"),
    ("list", "users", "roost.edge", "roc"),
    ("operate", "hosts", "roost.edge", "oc"),
    ("operate", "subclouds", "roost.edge", "oc"),
    ("create", "operations", "roost.edge", "oc"),
    ("patch", "alarms", "roost.edge", "oc"),
    ("patch", "hosts", "roost.edge", "c"),
    ("create", "hosts", "roost.edge", "c"),
    ("create", "hosts/enrolment", "roost.edge", "c"),
    ("delete", "firewallpolicies", "roost.edge", "c"),
    ("create", "firewallpolicies/plan", "roost.edge", "c"),
    ("create", "users", "roost.edge", ""),
    ("patch", "users", "roost.edge", ""),
    ("create", "users/token", "roost.edge", ""),
    ("create", "users/password", "roost.edge", ""),
    ("get", "serviceaccounts", "", "roc"),
    ("create", "serviceaccounts", "", ""),
    ("create", "serviceaccounts/token", "", ""),
    ("get", "namespaces", "", "roc"),
    ("get", "secrets", "", ""),
    ("create", "secrets", "", "c"),
    ("list", "clusterroles", "rbac.authorization.k8s.io", "roc"),
    ("create", "rolebindings", "rbac.authorization.k8s.io", ""),
    ("escalate", "clusterroles", "rbac.authorization.k8s.io", ""),
    ("bind", "clusterroles", "rbac.authorization.k8s.io", ""),
    ("impersonate", "users", "", ""),
    ("create", "selfsubjectaccessreviews", "authorization.k8s.io", "roc"),
    ("create", "subjectaccessreviews", "authorization.k8s.io", ""),
    ("create", "tokenreviews", "authentication.k8s.io", ""),
]
SHIPPED = Grants(
    cluster_roles=shipped.CLUSTER_ROLES.values(), cluster_bindings=shipped.CLUSTER_BINDINGS.values()
)


@pytest.mark.parametrize(("verb", "resource", "group", "who"), MATRIX)
def test_what_the_shipped_roles_may(verb: str, resource: str, group: str, who: str) -> None:
    for letter, members in (("r", READERS), ("o", OPERATORS), ("c", CONFIGURATORS)):
        caller = Caller("x", [members, "system:authenticated"])
        assert SHIPPED.allowed(caller, asked(verb, resource, group=group)) is (letter in who), members
    assert SHIPPED.allowed(Caller("x", [ADMINISTRATORS]), asked(verb, resource, group=group))


def test_the_documented_matrix_is_what_the_roles_may() -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `(\w+) ([\w/]+)\.?([\w.]*)` \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) >= 20
    for verb, resource, group, told in rows:
        wanted = asked(verb, resource, group=group)
        held = [SHIPPED.allowed(Caller("x", [g]), wanted) for g in shipped.GROUPS.values()]
        assert [("no", "yes")[h] for h in held] == told.split(" | "), (verb, resource)


def test_each_role_holds_what_the_lower_one_does() -> None:
    held = [SHIPPED.rules(Caller("x", [g]), "") for g in shipped.GROUPS.values()]
    for higher, lower in pairwise(held):
        assert uncovered(higher, lower) == [] and uncovered(lower, higher) != []


async def test_shipped_roles_are_declared_and_restored(store: Store) -> None:
    await store.transact(shipped.declare)
    before = store.revision
    await store.transact(shipped.declare)
    assert store.revision == before
    name = "roost:aggregate-to-reader"
    role = await store.load(ClusterRole, "", name)
    await store.save(msgspec.structs.replace(role, rules=[*role.rules[1:], rule("get", "mine")]))
    binding = await store.load(ClusterRoleBinding, "", READERS)
    await store.save(msgspec.structs.replace(binding, subjects=[]))
    kept = await store.load(ClusterRole, "", "view")
    annotations = {**kept.metadata.annotations, AUTOUPDATE: "false"}
    metadata = msgspec.structs.replace(kept.metadata, annotations=annotations)
    await store.save(ClusterRole(metadata=metadata, rules=[]))
    await store.transact(lambda tx: tx.remove("ClusterRole", "", "edit"))
    await store.transact(shipped.declare)
    restored = await store.load(ClusterRole, "", name)
    assert uncovered(restored.rules, role.rules) == [] and rule("get", "mine") in restored.rules
    assert (await store.load(ClusterRoleBinding, "", READERS)).subjects == binding.subjects
    assert (await store.load(ClusterRole, "", "view")).aggregation_rule is None
    assert (await store.load(ClusterRole, "", "edit")).aggregation_rule is not None


async def test_aggregated_rules_are_shown(store: Store) -> None:
    await store.transact(shipped.declare)
    controller = AggregationController()
    await controller.reconcile(store, ALL)
    role = await store.load(ClusterRole, "", "roost:operator")
    assert role.rules == SHIPPED.aggregated()["roost:operator"]
    before = store.revision
    await controller.reconcile(store, ALL)
    assert store.revision == before


# -- through the API


def role_body(name: str, *rules: PolicyRule, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, **more.pop("metadata", {})},
        "rules": msgspec.to_builtins(rules),
        **more,
    }


def binding_body(name: str, role: str, *users: str, kind: str = "ClusterRole") -> dict[str, Any]:
    subjects = [{"kind": "User", "name": user} for user in users]
    return {"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role}, "subjects": subjects}


def local(client: Client, name: str, *groups: str) -> Client:
    """A caller as a socket brings him: his name counts."""
    return client.local(name, *groups)


async def test_roles_are_seen_at_once(client: Client) -> None:
    eve = local(client, "eve")
    (await eve.get(HOSTS)).refused(403, 'User "eve" cannot list resource "hosts"', "it has no role here")
    (await client.post(f"{RBAC}/namespaces/central/roles", role_body("looker", rule("list", "hosts")))).ok(
        201
    )
    bindings = f"{RBAC}/namespaces/central/rolebindings"
    (await client.post(bindings, binding_body("b", "looker", "eve", kind="Role"))).ok(201)
    (await eve.get(f"{V1}/subclouds")).refused(403, "it has roles in these namespaces alone: central")
    (await eve.get(HOSTS)).ok()
    (await eve.get(f"{V1}/hosts")).refused(403, "at the cluster scope")
    (await eve.get(f"{V1}/namespaces/harbor/hosts")).refused(403, 'in the namespace "harbor"')
    (await eve.post(HOSTS, host("h"))).refused(403)
    (await client.delete(f"{bindings}/b")).ok()
    (await eve.get(HOSTS)).refused(403)


async def test_another_process_write_is_seen(client: Client, store: Store) -> None:
    eve = local(client, "eve")
    (await eve.get(HOSTS)).refused(403)
    await store.save(ClusterRole(metadata=Metadata(name="r"), rules=[rule("list", "hosts")]))
    subjects = [Subject(kind="User", name="eve")]
    reference = RoleRef(kind="ClusterRole", name="r")
    await store.save(ClusterRoleBinding(metadata=Metadata(name="b"), role_ref=reference, subjects=subjects))
    (await eve.get(HOSTS)).ok()


async def test_deciding_reads_no_database(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await client.reader().get(HOSTS)).ok()
    directory = Directory(store)
    await directory.current()

    async def read(work: Any) -> Any:
        raise AssertionError("read")

    await store.save(User(metadata=Metadata(name="u")))
    monkeypatch.setattr(store, "read", read)
    await directory.current()
    assert directory.user("u") is not None


async def test_it_fails_closed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Api(ApiContext(store=store, cloud="central")))

    async def read(work: Any) -> Any:
        raise Unavailable("the disk is gone")

    monkeypatch.setattr(store, "read", read)
    (await client.get("/apis")).refused(503, "the disk is gone")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (role_body("r", PolicyRule(verbs=["get"], api_groups=[""])), "rules[0].resources"),
        (role_body("r", PolicyRule(verbs=["get"], resources=["x"])), "rules[0].apiGroups"),
        (role_body("r", rule("get", paths="logs")), "is no path"),
        (role_body("r", rule("get", paths="/a*b")), "is no path"),
        (role_body("r", rule("get", "hosts", paths="/x")), "not of both"),
        ({"metadata": {"name": "r"}, "rules": [{"verbs": []}]}, "rules[0].verbs"),
        ({"metadata": {"name": "r"}, "aggregationRule": {}}, "at least one selector"),
        ({"metadata": {"name": "a/b"}, "rules": []}, "metadata.name"),
    ],
)
async def test_roles_that_make_no_sense(client: Client, body: Any, words: str) -> None:
    (await client.post(f"{RBAC}/clusterroles", body)).refused(422, words)


async def test_bindings_that_make_no_sense(client: Client) -> None:
    path = f"{RBAC}/clusterrolebindings"
    (await client.post(path, binding_body("b", "r", kind="Role"))).refused(422, "roleRef.kind")
    body = binding_body("b", "roost:reader")
    body["subjects"] = [{"kind": "ServiceAccount", "name": "x"}]
    (await client.post(path, body)).refused(422, "subjects[0].namespace")
    (await client.post(path, binding_body("b", "roost:reader", "u"))).ok(201)
    changed = {"roleRef": {"kind": "ClusterRole", "name": "roost:admin"}}
    (await client.merge(f"{path}/b", changed)).refused(422, "can't change")
    paths = f"{RBAC}/namespaces/central/roles"
    (await client.post(paths, role_body("r", rule("get", paths="/x")))).refused(422, "use a ClusterRole")


async def test_nobody_gives_what_he_does_not_have(client: Client, store: Store) -> None:
    writes = rule(
        "create update patch", "clusterroles clusterrolebindings", groups="rbac.authorization.k8s.io"
    )
    (await client.post(f"{RBAC}/clusterroles", role_body("giver", writes, rule("get list", "hosts")))).ok(201)
    (await client.post(f"{RBAC}/clusterrolebindings", binding_body("giver", "giver", "eve"))).ok(201)
    (await client.post(f"{RBAC}/clusterroles", role_body("full", rule("*", "*", groups="*")))).ok(201)
    eve = local(client, "eve")
    roles, bindings = f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"
    (await eve.post(roles, role_body("more", rule("delete", "hosts")))).refused(
        403, "attempting to grant RBAC permissions not currently held", "delete", "hosts.roost.edge"
    )
    (await eve.post(roles, role_body("same", rule("get", "hosts")))).ok(201)
    (
        await eve.merge(
            f"{roles}/same", {"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}
        )
    ).refused(403)
    (await eve.merge(f"{roles}/full", {"metadata": {"annotations": {"a": "b"}}})).ok()
    label = {"metadata": {"labels": {"roost.edge/aggregate-to-reader": "true"}}}
    (await eve.merge(f"{roles}/full", label)).refused(403, "not currently held")
    aggregation = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    (await eve.post(roles, role_body("agg", aggregationRule=aggregation))).refused(403, "aggregationRule")
    for role in ("full", "cluster-admin", "roost:admin", "roost:operator"):
        (await eve.post(bindings, binding_body("mine", role, "eve"))).refused(403, "not currently held")
    (await eve.post(bindings, binding_body("mine", "nowhere", "eve"))).refused(422, "is not there")
    (await eve.post(bindings, binding_body("mine", "same", "eve"))).ok(201)
    (await eve.merge(f"{bindings}/cluster-admin", {"subjects": []})).refused(404)
    await store.transact(shipped.declare)
    subjects = [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]
    (await eve.merge(f"{bindings}/cluster-admin", {"subjects": subjects})).refused(403, "not currently held")
    (await eve.merge(f"{bindings}/cluster-admin", {"subjects": []})).ok()
    for verb, role in (("bind", "full"), ("escalate", "more")):
        named = rule(verb, "clusterroles", groups="rbac.authorization.k8s.io", names=role)
        (await client.post(roles, role_body(f"may-{verb}", named))).ok(201)
        (await client.post(bindings, binding_body(f"may-{verb}", f"may-{verb}", "eve"))).ok(201)
    (await eve.post(bindings, binding_body("bound", "full", "rob"))).ok(201)
    (await eve.put(f"{roles}/same", role_body("same", rule("delete", "hosts")))).refused(403)


async def test_what_a_role_gathers_is_not_given_on_by_a_label(client: Client, store: Store) -> None:
    await store.transact(shipped.declare)
    writes = rule("get update patch", "clusterroles", groups="rbac.authorization.k8s.io")
    (await client.post(f"{RBAC}/clusterroles", role_body("giver", writes))).ok(201)
    (await client.post(f"{RBAC}/clusterrolebindings", binding_body("giver", "giver", "eve"))).ok(201)
    path = f"{RBAC}/clusterroles/roost:configurator"
    label = {"metadata": {"labels": {"roost.edge/aggregate-to-reader": "true"}}, "rules": []}
    (await local(client, "eve").merge(path, label)).refused(403, "aggregationRule")
    (await client.merge(path, label)).ok()


async def test_who_names_owners_may_delete(client: Client) -> None:
    (await client.post(f"{RBAC}/clusterroles", role_body("mender", rule("patch update", "hosts")))).ok(201)
    (await client.post(f"{RBAC}/clusterrolebindings", binding_body("mender", "mender", "eve"))).ok(201)
    (await client.post(HOSTS, host("h1"))).ok(201)
    eve, ghost = local(client, "eve"), {"apiVersion": "roost.edge/v1", "kind": "User", "name": "ghost"}
    owned = {"metadata": {"ownerReferences": [{**ghost, "uid": "1f0e5a4c-0000-4000-8000-000000000000"}]}}
    (await eve.merge(f"{HOSTS}/h1", owned)).refused(422, "ownerReferences", "cannot delete")
    (await client.merge(f"{HOSTS}/h1", owned)).ok()
    (await eve.merge(f"{HOSTS}/h1", {"spec": {"location": "moon"}})).ok()


async def test_roles_of_users_are_given_by_who_has_them(client: Client) -> None:
    (await client.post(f"{RBAC}/clusterroles", role_body("hr", rule("create update patch", "users")))).ok(201)
    (await client.post(f"{RBAC}/clusterrolebindings", binding_body("hr", "hr", "eve"))).ok(201)
    eve = local(client, "eve", READERS)
    for role in ("administrator", "configurator", "operator"):
        body = {"metadata": {"name": "x"}, "spec": {"role": role}}
        (await eve.post(f"{V1}/users", body)).refused(403, "not currently held")
    (await eve.post(f"{V1}/users", {"metadata": {"name": "x"}, "spec": {"role": "reader"}})).ok(201)
    (await eve.merge(f"{V1}/users/x", {"spec": {"role": "administrator"}})).refused(403)
    (await eve.merge(f"{V1}/users/x", {"spec": {"description": "d"}})).ok()
    admin = {"metadata": {"name": "boss"}, "spec": {"role": "administrator", "disabled": True}}
    (await client.post(f"{V1}/users", admin)).ok(201)
    (await eve.merge(f"{V1}/users/boss", {"spec": {"disabled": False}})).refused(403)


async def test_tokens_and_passwords_are_given_by_who_holds_as_much(client: Client) -> None:
    desk = rule("create", "users/token users/password")
    (await client.post(f"{RBAC}/clusterroles", role_body("desk", desk))).ok(201)
    (await client.post(f"{RBAC}/clusterrolebindings", binding_body("desk", "desk", "eve"))).ok(201)
    for role in ("administrator", "reader"):
        (await client.post(f"{V1}/users", {"metadata": {"name": role}, "spec": {"role": role}})).ok(201)
    eve, password = local(client, "eve", READERS), {"spec": {"password": "correct horse battery"}}
    (await eve.post(f"{V1}/users/reader/token", {})).ok(201)
    (await eve.post(f"{V1}/users/reader/password", password)).ok(201)
    for refused in (
        await eve.post(f"{V1}/users/administrator/token", {}),
        await eve.post(f"{V1}/users/administrator/password", password),
    ):
        refused.refused(403, "not currently held", 'user "administrator"')


async def test_tokens_carry_no_rights_of_a_namespace_that_the_giver_lacks(client: Client) -> None:
    desk = rule("create", "users/token users/password")
    (await client.post(f"{RBAC}/clusterroles", role_body("desk", desk))).ok(201)
    (await client.post(f"{RBAC}/clusterrolebindings", binding_body("desk", "desk", "eve"))).ok(201)
    (await client.post(f"{V1}/users", {"metadata": {"name": "tom"}})).ok(201)
    eve, path = local(client, "eve", READERS), f"{RBAC}/namespaces/central/rolebindings"
    (await eve.post(f"{V1}/users/tom/token", {})).ok(201)
    (await client.post(path, binding_body("tom", "roost:operator", "tom"))).ok(201)
    (await eve.post(f"{V1}/users/tom/token", {})).refused(403, "not currently held", 'user "tom"')
    (await client.post(path, binding_body("eve", "roost:operator", "eve"))).ok(201)
    (await eve.post(f"{V1}/users/tom/token", {})).ok(201)


async def test_applying_what_is_not_there_takes_the_right_to_create(client: Client) -> None:
    (await client.post(f"{RBAC}/clusterroles", role_body("mender", rule("patch get", "hosts")))).ok(201)
    (await client.post(f"{RBAC}/clusterrolebindings", binding_body("mender", "mender", "eve"))).ok(201)
    eve = local(client, "eve")
    body = host("h1", location="moon")
    applied = {"kind": "application/apply-patch+yaml"}
    path = f"{HOSTS}/h1?fieldManager=test"
    (await eve.send("PATCH", path, body, **applied)).refused(403, "cannot create")
    assert (await client.send("PATCH", path, body, **applied)).status in (200, 201)
    (await eve.send("PATCH", path, body, **applied)).ok()


async def test_what_is_shipped_is_not_deleted(client: Client, store: Store) -> None:
    await store.transact(shipped.declare)
    for path in ("clusterroles/roost:reader", "clusterrolebindings/roost:readers"):
        (await client.delete(f"{RBAC}/{path}")).refused(403, "shipped with every cloud", AUTOUPDATE)
    (await client.delete(f"{RBAC}/clusterrolebindings/system:basic-user")).refused(403)


async def test_who_operates_changes_only_what_is_for_that(client: Client) -> None:
    (await client.post(HOSTS, host("h1"))).ok(201)
    operator = Client(client.app, "olga", (OPERATORS,))
    (await operator.merge(f"{HOSTS}/h1", {"spec": {"administrativeState": "unlocked"}})).ok()
    (await operator.merge(f"{HOSTS}/h1", {"spec": {"location": "moon"}})).refused(
        422, "your role operates hosts"
    )
    (await operator.merge(f"{HOSTS}/h1", {"metadata": {"labels": {"a": "b"}}})).refused(422, "labels")
    (await operator.delete(f"{HOSTS}/h1")).refused(403, "its role is operator")
    (await operator.post(f"{V1}/users", {"metadata": {"name": "x"}})).refused(403)
    configurator = Client(client.app, "carl", (CONFIGURATORS,))
    (await configurator.merge(f"{HOSTS}/h1", {"spec": {"location": "moon"}})).ok()
    (await configurator.post(f"{V1}/users", {"metadata": {"name": "x"}})).refused(
        403, "its role is configurator"
    )
    (await Client(client.app, "rita", (READERS,)).merge(f"{HOSTS}/h1", {"spec": {}})).refused(403)


async def test_rights_in_a_subclouds_namespace_go_with_the_call(store: Store) -> None:
    seen: list[list[str]] = []

    async def call(cloud: str, request: Any) -> Any:
        seen.append(request.caller.groups)
        raise RuntimeError("stop here")

    client = Client(Api(ApiContext(store=store, cloud="central", call_cloud=call)))
    await store.save(Subcloud(metadata=Metadata(name="harbor")))
    path = f"{RBAC}/namespaces/harbor/rolebindings"
    (await client.post(path, binding_body("b", "roost:operator", "eve"))).ok(201)
    eve = local(client, "eve")
    await eve.get("/clouds/harbor/apis")
    await eve.get("/clouds/ridge/apis")
    assert OPERATORS in seen[0] and OPERATORS not in seen[1]
    assert "system:authenticated" not in seen[0]


async def test_a_role_named_as_a_shipped_one_gives_nothing_below(store: Store) -> None:
    seen: list[list[str]] = []

    async def call(cloud: str, request: Any) -> Any:
        seen.append(request.caller.groups)
        raise RuntimeError("stop here")

    client = Client(Api(ApiContext(store=store, cloud="central", call_cloud=call)))
    await store.save(Subcloud(metadata=Metadata(name="harbor")))
    # Whoever may write roles in the namespace may name one so, and it need not allow anything.
    (await client.post(f"{RBAC}/namespaces/harbor/roles", role_body("roost:admin"))).ok(201)
    body = binding_body("b", "roost:admin", "eve", kind="Role")
    (await client.post(f"{RBAC}/namespaces/harbor/rolebindings", body)).ok(201)
    await local(client, "eve").get("/clouds/harbor/apis")
    assert ADMINISTRATORS not in seen[0]


# -- watches


async def _ends(watch: Watch) -> None:
    async with asyncio.timeout(10):
        await watch.rest()


async def test_watches_end_with_the_right_to_them(client: Client, store: Store) -> None:
    await store.save(User(metadata=Metadata(name="eve"), spec=UserSpec(role="reader")))
    binding = binding_body("b", "roost:reader", "rob")
    (await client.post(f"{RBAC}/clusterrolebindings", binding)).ok(201)
    eve, rob = local(client, "eve"), local(client, "rob")
    other = await client.watch(f"{HOSTS}?watch=1")
    watches = [await eve.watch(f"{HOSTS}?watch=1"), await rob.watch(f"{HOSTS}?watch=1")]
    await client.post(HOSTS, host("h1"))
    for watch in watches:
        assert await watch.names(1) == [("ADDED", "h1")]
    (await client.merge(f"{V1}/users/eve", {"spec": {"disabled": True}})).ok()
    await _ends(watches[0])
    (await client.post(HOSTS, host("h2"))).ok(201)
    assert await watches[1].names(1) == [("ADDED", "h2")]
    (await client.delete(f"{RBAC}/clusterrolebindings/b")).ok()
    await _ends(watches[1])
    assert await other.names(2) == [("ADDED", "h1"), ("ADDED", "h2")]
    await other.close()


async def test_watches_end_with_their_user(client: Client, store: Store) -> None:
    await client.post(f"{V1}/users", {"metadata": {"name": "tom"}})
    token = (await client.post(f"{V1}/users/tom/token", {})).ok(201)["status"]["token"]
    tom = client.bearing(token)
    watch = await tom.watch(f"{HOSTS}?watch=1")
    (await client.delete(f"{V1}/users/tom")).ok()
    await _ends(watch)


async def test_watches_of_accounts_end_with_them(client: Client, store: Store) -> None:
    await store.save(ServiceAccount(metadata=Metadata(name="bot", namespace="central")))
    body = binding_body("b", "roost:reader")
    body["subjects"] = [{"kind": "ServiceAccount", "name": "bot", "namespace": "central"}]
    (await client.post(f"{RBAC}/clusterrolebindings", body)).ok(201)
    accounts = "/api/v1/namespaces/central/serviceaccounts"
    token = (await client.post(f"{accounts}/bot/token", {})).ok(201)["status"]["token"]
    watch = await client.bearing(token).watch(f"{HOSTS}?watch=1")
    (await client.delete(f"{accounts}/bot")).ok()
    await _ends(watch)


def test_words_for_a_rule() -> None:
    assert (
        evaluation.in_words(rule("get", "hosts", names="a"))
        == "{verbs: get; resources: hosts.roost.edge; names: a}"
    )
    assert evaluation.in_words(rule("get", paths="/x")) == "{verbs: get; paths: /x}"
