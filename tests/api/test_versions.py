"""Kinds in several versions over the API, and what says which there are."""

from __future__ import annotations

from roost.model.codec import Raw
from tests.api.client import Client

V1 = "/apis/roost.edge/v1/namespaces/central/firewallpolicies"
V2 = "/apis/roost.edge/v2alpha1/namespaces/central/firewallpolicies"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList,application/json"


def policy(*ports: Raw, name: str = "web", **metadata: object) -> Raw:
    """A policy as v2alpha1 has it."""
    rule = {"action": "allow", "protocol": "tcp", "ports": list(ports)}
    return {
        "apiVersion": "roost.edge/v2alpha1",
        "kind": "FirewallPolicy",
        "metadata": {"name": name, **metadata},
        "spec": {"networks": ["oam"], "rules": [rule]},
    }


def ports(raw: Raw) -> list[object]:
    found: list[object] = raw["spec"]["rules"][0]["ports"]
    return found


async def test_made_in_one_version_and_read_in_the_other(client: Client) -> None:
    made = (await client.post(V2, policy({"from": 443}, {"from": 8000, "to": 8010}))).ok(201)
    assert made["apiVersion"] == "roost.edge/v2alpha1"
    assert ports(made) == [{"from": 443}, {"from": 8000, "to": 8010}]
    old = (await client.get(f"{V1}/web")).ok()
    assert old["apiVersion"] == "roost.edge/v1" and ports(old) == ["443", "8000-8010"]
    assert old["metadata"]["uid"] == made["metadata"]["uid"]
    listed = (await client.get(V2)).ok()
    assert listed["apiVersion"] == "roost.edge/v2alpha1" and ports(listed["items"][0])[0] == {"from": 443}
    (await client.post(V1, policy())).refused(400, "apiVersion")


async def test_changed_in_either_version(client: Client) -> None:
    (await client.post(V2, policy({"from": 443}))).ok(201)
    body = (await client.get(f"{V2}/web")).ok()
    body["spec"]["rules"][0]["ports"] = [{"from": 80}]
    assert ports((await client.put(f"{V2}/web", body)).ok()) == [{"from": 80}]
    steps = [{"op": "add", "path": "/spec/rules/0/ports/-", "value": {"from": 90, "to": 99}}]
    assert ports((await client.patch(f"{V2}/web", steps)).ok())[1] == {"from": 90, "to": 99}
    (
        await client.patch(f"{V1}/web", [{"op": "replace", "path": "/spec/rules/0/ports/0", "value": "22"}])
    ).ok()
    assert ports((await client.get(f"{V2}/web")).ok()) == [{"from": 22}, {"from": 90, "to": 99}]
    (await client.merge(f"{V2}/web", {"metadata": {"labels": {"a": "b"}}})).ok()
    assert (await client.get(f"{V1}/web")).ok()["metadata"]["labels"] == {"a": "b"}
    (await client.delete(f"{V2}/web")).ok()
    (await client.get(f"{V1}/web")).refused(404)


async def test_each_version_says_what_is_wrong_in_its_own_words(client: Client) -> None:
    (await client.post(V2, policy({"from": 9, "to": 8}))).refused(
        422, "spec.rules[0].ports[0].to", "less than"
    )
    text = policy()
    text["spec"]["rules"][0]["ports"] = ["80"]
    (await client.post(V2, text)).refused(422, "spec.rules[0].ports[0]", "Expected `object`, got `str`")
    strict = policy({"from": 80, "until": 90})
    refused = await client.post(f"{V2}?fieldValidation=Strict", strict)
    refused.refused(400, "v2alpha1", 'unknown field "spec.rules[0].ports[0].until"')
    (await client.post(V2, policy({"from": 443}))).ok(201)
    steps = [{"op": "replace", "path": "/spec/rules/0/ports/0", "value": "443"}]
    (await client.patch(f"{V2}/web", steps)).refused(422, "spec.rules[0].ports[0]")


async def test_a_watch_in_one_version_sees_writes_of_the_other(client: Client) -> None:
    start = (await client.get(V2)).ok()["metadata"]["resourceVersion"]
    watch = await client.watch(f"{V2}?watch=1&resourceVersion={start}")
    old = policy(name="old") | {"apiVersion": "roost.edge/v1"}
    old["spec"]["rules"][0]["ports"] = ["1-2"]
    (await client.post(V1, old)).ok(201)
    event = await watch.next()
    assert event["type"] == "ADDED" and event["object"]["apiVersion"] == "roost.edge/v2alpha1"
    assert ports(event["object"]) == [{"from": 1, "to": 2}]
    await watch.close()


async def test_fields_are_owned_in_the_version_they_were_written_in(client: Client) -> None:
    kind = "application/apply-patch+yaml"
    body = policy({"from": 443})
    applied = await client.send("PATCH", f"{V2}/web?fieldManager=new", body, kind=kind)
    (entry,) = applied.ok(201)["metadata"]["managedFields"]
    assert (entry["manager"], entry["apiVersion"]) == ("new", "roost.edge/v2alpha1")
    old = {**policy(), "apiVersion": "roost.edge/v1"}
    old["spec"] = {"networks": ["oam"], "rules": [{"action": "allow", "protocol": "tcp", "ports": ["80"]}]}
    refused = await client.send("PATCH", f"{V1}/web?fieldManager=old", old, kind=kind)
    refused.refused(409, "conflict", ".spec.rules")
    forced = (await client.send("PATCH", f"{V1}/web?fieldManager=old&force=true", old, kind=kind)).ok()
    versions = {e["manager"]: e["apiVersion"] for e in forced["metadata"]["managedFields"]}
    assert versions["old"] == "roost.edge/v1"
    assert ports((await client.get(f"{V2}/web")).ok()) == [{"from": 80}]
    again = await client.send("PATCH", f"{V2}/web?fieldManager=new&force=true", body, kind=kind)
    assert ports(again.ok()) == [{"from": 443}]


async def test_tables_and_selectors_are_of_the_version(client: Client) -> None:
    (await client.post(V2, policy({"from": 443}))).ok(201)
    table = (await client.get(V2, accept="application/json;as=Table;v=v1;g=meta.k8s.io")).ok()
    assert table["rows"][0]["cells"][:3] == ["web", "oam", 1]
    deleted = (await client.delete(f"{V2}?fieldSelector=metadata.name=web")).ok()
    assert deleted["apiVersion"] == "roost.edge/v2alpha1"


async def test_discovery_lists_versions_with_the_stored_one_first(client: Client) -> None:
    group = (await client.get("/apis/roost.edge")).ok()
    assert [v["version"] for v in group["versions"]] == ["v1", "v2alpha1"]
    assert group["preferredVersion"]["version"] == "v1"
    (resource,) = (await client.get("/apis/roost.edge/v2alpha1")).ok()["resources"][:1]
    assert (resource["name"], resource["singularName"], resource["shortNames"]) == (
        "firewallpolicies",
        "firewallpolicy",
        ["fwp"],
    )
    (await client.get("/apis/roost.edge/v3")).refused(404)
    for name in ("events.k8s.io", "coordination.k8s.io"):
        served = (await client.get(f"/apis/{name}/v1")).ok()
        assert all(
            r["verbs"] and bool(r["singularName"]) is ("/" not in r["name"]) for r in served["resources"]
        )


async def test_aggregated_discovery_in_both_versions(client: Client) -> None:
    for version in ("v2", "v2beta1"):
        answer = await client.get("/apis", accept=AGGREGATED.format(version))
        found = answer.ok()
        assert found["apiVersion"] == f"apidiscovery.k8s.io/{version}"
        assert f"v={version}" in answer.headers["content-type"]
        (group,) = [g for g in found["items"] if g["metadata"]["name"] == "roost.edge"]
        (policies,) = [r for r in group["versions"][1]["resources"] if r["resource"] == "firewallpolicies"]
        assert policies["responseKind"]["version"] == "v2alpha1"
        assert policies["singularResource"] == "firewallpolicy" and policies["categories"] == ["roost"]
        assert "status" in [s["subresource"] for s in policies["subresources"]]
        core = (await client.get("/api", accept=AGGREGATED.format(version))).ok()
        assert {"events", "namespaces"} <= {
            r["resource"] for r in core["items"][0]["versions"][0]["resources"]
        }
    assert (await client.get("/apis", accept=AGGREGATED.format("v3"))).ok()["kind"] == "APIGroupList"


async def test_documents_are_known_by_their_tag(client: Client) -> None:
    for path, accept in (
        ("/apis", AGGREGATED.format("v2")),
        ("/apis/roost.edge/v1", ""),
        ("/openapi/v2", ""),
        ("/openapi/v3", ""),
        ("/openapi/v3/apis/roost.edge/v2alpha1", ""),
    ):
        tag = (await client.get(path, accept=accept)).headers["etag"]
        for known in (tag, f'"x", W/{tag}', "*"):
            same = await client.send("GET", path, accept=accept, none_match=known)
            assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
        assert (await client.send("GET", path, accept=accept, none_match='"x"')).status == 200


async def test_schemas_asked_for_by_hash_may_be_kept(client: Client) -> None:
    index = (await client.get("/openapi/v3")).ok()["paths"]
    assert {"api/v1", "apis/events.k8s.io/v1", "apis/roost.edge/v2alpha1"} <= set(index)
    url = index["apis/roost.edge/v2alpha1"]["serverRelativeURL"]
    kept = await client.get(url)
    assert kept.headers["cache-control"] == "public, immutable" and "GMT" in kept.headers["expires"]
    ranges = kept.ok()["components"]["schemas"]["edge.roost.v2alpha1.PortRange"]["properties"]
    assert (ranges["from"]["minimum"], ranges["from"]["maximum"]) == (1, 65535)
    plain = await client.get(url.partition("?")[0])
    assert "immutable" not in plain.headers["cache-control"]
    moved = await client.get(f"{url.partition('?')[0]}?hash=00")
    assert (moved.status, moved.headers["location"]) == (301, url)
