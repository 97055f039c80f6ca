"""Secrets are written and never shown: through every door, with real kubectl, and on the disk."""

from __future__ import annotations

import base64
import json
import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roost.api.app import Api
from roost.api.context import ApiContext
from roost.engine.vault import SEALED, Place, Vault
from roost.link.files import write_private
from roost.model.codec import Raw
from roost.model.secrecy import MARK
from roost.store.store import Store
from tests.api.client import Client
from tests.support import kubectl
from tests.support.api import ApiServer

SECRETS = "/api/v1/namespaces/central/secrets"
MAPS = "/api/v1/namespaces/central/configmaps"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
LAST = "kubectl.kubernetes.io/last-applied-configuration"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "keys" / "secrets", write_private, NOW)


@pytest.fixture
def client(store: Store, vault: Vault) -> Client:
    return Client(Api(ApiContext(store=store, cloud="central", vault=vault)))


def secret(name: str = "db", **parts: Any) -> Raw:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, **parts}


async def opened(store: Store, vault: Vault, name: str = "db") -> dict[str, str]:
    """The values of a Secret as a controller opens them, decoded."""
    raw = (await store.get("Secret", "central", name)).raw
    values = {}
    for key, sealed in raw.get("data", {}).items():
        assert sealed.startswith(SEALED)
        encoded = vault.unseal(Place("Secret", "central", name, f"data.{key}"), sealed)
        values[key] = base64.b64decode(encoded).decode()
    return values


async def test_values_are_sealed_and_shown_as_a_mark_alone(
    client: Client, store: Store, vault: Vault
) -> None:
    made = await client.post(SECRETS, secret(data={"a": b64("one")}, stringData={"b": "two"}))
    raw = made.ok(201)
    assert raw["data"] == {"a": MARK, "b": MARK} and "stringData" not in raw and raw["type"] == "Opaque"
    base64.b64decode(MARK, validate=True)
    assert await opened(store, vault) == {"a": "one", "b": "two"}
    watch = await client.watch(f"{SECRETS}?watch=true&timeoutSeconds=1")
    answers = [
        (await client.get(f"{SECRETS}/db")).body,
        (await client.get(SECRETS)).body,
        (await client.get(SECRETS, accept="application/json;as=Table;v=v1;g=meta.k8s.io")).body,
        msgspec.json.encode(await watch.rest()),
        (await client.delete(SECRETS)).body,
    ]
    for answer in answers:
        for hidden in (b64("one"), b64("two"), "one", SEALED):
            assert hidden.encode() not in answer.replace(b"Done", b""), answer


async def test_what_was_read_can_be_written_back(client: Client, store: Store, vault: Vault) -> None:
    await client.post(SECRETS, secret(stringData={"a": "one", "b": "two", "c": "three"}))
    raw = (await client.get(f"{SECRETS}/db")).ok()
    before = (await store.get("Secret", "central", "db")).revision
    same = (await client.put(f"{SECRETS}/db", raw)).ok()
    assert same["metadata"]["resourceVersion"] == str(before), "nothing changed, so nothing was written"
    raw["data"]["b"] = b64("other")
    del raw["data"]["c"]
    raw["metadata"]["labels"] = {"x": "y"}
    (await client.put(f"{SECRETS}/db", raw)).ok()
    assert await opened(store, vault) == {"a": "one", "b": "other"}


async def test_patches_work_on_what_is_shown(client: Client, store: Store, vault: Vault) -> None:
    await client.post(SECRETS, secret(stringData={"a": "one", "b": "two"}))
    (await client.merge(f"{SECRETS}/db", {"metadata": {"labels": {"x": "y"}}})).ok()
    (await client.merge(f"{SECRETS}/db", {"data": {"b": None}, "stringData": {"c": "three"}})).ok()
    assert await opened(store, vault) == {"a": "one", "c": "three"}
    steps = [{"op": "test", "path": "/data/a", "value": MARK}, {"op": "remove", "path": "/data/c"}]
    (await client.patch(f"{SECRETS}/db", steps)).ok()
    assert await opened(store, vault) == {"a": "one"}
    copied = [{"op": "copy", "from": "/data/a", "path": "/metadata/annotations", "value": {}}]
    refused = await client.patch(f"{SECRETS}/db", [{"op": "copy", "from": "/data/a", "path": "/data/z"}])
    refused.refused(422, "data.z", "there is none")
    assert (await client.patch(f"{SECRETS}/db", copied)).status == 422
    sealed = (await store.get("Secret", "central", "db")).raw["data"]["a"]
    for taken in (sealed, MARK):
        answer = await client.post(SECRETS, secret("other", data={"a": taken}))
        assert answer.status == 422, answer.body


async def test_the_same_value_again_is_no_change(client: Client, store: Store) -> None:
    first = (await client.post(SECRETS, secret(stringData={"a": "one"}))).ok(201)
    again = (await client.merge(f"{SECRETS}/db", {"stringData": {"a": "one"}})).ok()
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_who_may_not_look_may_not_guess(client: Client) -> None:
    (await client.post(SECRETS, secret(stringData={"pin": "4711"}))).ok(201)
    (await client.post(SECRETS, secret("fixed", stringData={"pin": "4711"}, immutable=True))).ok(201)
    carl = Client(client.app, "carl", ("roost:configurators",))
    (await carl.get(f"{SECRETS}/db")).refused(403)
    applied = {"kind": "application/apply-patch+yaml"}
    for guess in ("0000", "4711"):
        body = secret(data={"pin": b64(guess)})
        for options in ("", "&dryRun=All"):
            answer = await carl.send("PATCH", f"{SECRETS}/db?fieldManager=x{options}", body, **applied)
            answer.refused(409, "conflict")
        (await carl.merge(f"{SECRETS}/fixed", {"stringData": {"pin": guess}})).refused(422, "immutable")
    (await carl.merge(f"{SECRETS}/fixed", {"metadata": {"labels": {"a": "b"}}})).ok()
    before = (await client.get(f"{SECRETS}/db")).ok()["metadata"]["resourceVersion"]
    after = (await carl.merge(f"{SECRETS}/db", {"stringData": {"pin": "4711"}})).ok()["metadata"]
    assert after["resourceVersion"] != before


async def test_what_kubectl_last_applied_is_masked(client: Client, store: Store) -> None:
    applied = json.dumps(secret(data={"a": b64("one")}, stringData={"b": "plain-two"})) + "\n"
    body = secret(data={"a": b64("one")}, stringData={"b": "plain-two"})
    body["metadata"]["annotations"] = {LAST: applied}
    raw = (await client.post(SECRETS, body)).ok(201)
    kept = json.loads(raw["metadata"]["annotations"][LAST])
    assert kept["data"] == {"a": MARK} and kept["stringData"] == {"b": MARK}
    assert "plain-two" not in (await store.get("Secret", "central", "db")).data
    await client.merge(f"{SECRETS}/db", {"metadata": {"annotations": {LAST: "plain-two"}}})
    assert "plain-two" not in (await store.get("Secret", "central", "db")).data


async def test_what_is_immutable_stays(client: Client) -> None:
    await client.post(SECRETS, secret(stringData={"a": "one"}, immutable=True))
    (await client.merge(f"{SECRETS}/db", {"stringData": {"a": "two"}})).refused(422, "immutable")
    (await client.merge(f"{SECRETS}/db", {"immutable": False})).refused(422, "immutable")
    (
        await client.merge(f"{SECRETS}/db", {"stringData": {"a": "one"}, "metadata": {"labels": {"x": "y"}}})
    ).ok()
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}}
    (await client.post(MAPS, {**config, "immutable": True})).ok(201)
    (await client.merge(f"{MAPS}/c", {"data": {"k": "w"}})).refused(422, "immutable")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (secret(data={"a": "not base64!"}), "base64"),
        (secret(data={"a/b": ""}), "no key"),
        (secret(data={"a": b64("x" * 1_100_000)}), "1048576 are allowed"),
        (secret(data={"a": 7}), "data"),
    ],
)
async def test_what_is_no_secret_is_refused_and_not_repeated(client: Client, body: Raw, word: str) -> None:
    answer = await client.post(SECRETS, body)
    answer.refused(422, word)
    assert b"not base64!" not in answer.body


async def test_without_keys_secrets_are_refused_and_other_kinds_go_on(store: Store) -> None:
    client = Client(Api(ApiContext(store=store, cloud="central")))
    (await client.post(SECRETS, secret(stringData={"a": "one"}))).refused(503, "field data.a", "keys")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}}
    assert (await client.post(MAPS, config)).ok(201)["data"] == {"k": "v"}


async def test_values_whose_key_is_lost_can_be_kept_and_set_anew(
    client: Client, store: Store, vault: Vault, tmp_path: Path
) -> None:
    await client.post(SECRETS, secret(stringData={"a": "one", "b": "two"}))
    other = Vault.open(tmp_path / "other", write_private, NOW)
    late = Client(Api(ApiContext(store=store, cloud="central", vault=other)))
    (await late.merge(f"{SECRETS}/db", {"stringData": {"b": "new"}})).ok()
    raw = (await store.get("Secret", "central", "db")).raw["data"]
    assert other.unseal(Place("Secret", "central", "db", "data.b"), raw["b"]) == b64("new")
    assert vault.unseal(Place("Secret", "central", "db", "data.a"), raw["a"]) == b64("one")


# -- with kubectl


@pytest.fixture
def server(tmp_path: Path, vault: Vault) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, vault=vault) as running:
        yield running


def run(server: ApiServer, which: str, *arguments: str, stdin: str = "") -> str:
    program = kubectl.program(which)
    assert program is not None
    done = server.kubectl(*arguments, program=program, stdin=stdin)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


def test_kubectl_makes_applies_edits_and_shows_secrets(server: ApiServer, version: str, vault: Vault) -> None:
    def here() -> dict[str, str]:
        return server.do(opened(server.store, vault))

    run(
        server,
        version,
        "create",
        "secret",
        "generic",
        "db",
        "--from-literal=user=ada",
        "--from-literal=password=s3cret",
    )
    assert here() == {"user": "ada", "password": "s3cret"}
    listed = run(server, version, "get", "secret", "db")
    assert "Opaque" in listed and "2" in listed
    shown = json.loads(run(server, version, "get", "secret", "db", "-o", "json"))
    assert shown["data"] == {"user": MARK, "password": MARK}
    assert "password" in run(server, version, "describe", "secret", "db")
    run(server, version, "label", "secret", "db", "tier=gold")
    run(server, version, "patch", "secret", "db", "-p", json.dumps({"stringData": {"user": "bob"}}))
    assert here() == {"user": "bob", "password": "s3cret"}
    edit = {"KUBE_EDITOR": "sed -i s/gold/silver/"}
    done = server.kubectl("edit", "secret", "db", program=kubectl.program(version) or "", environment=edit)
    assert done.returncode == 0, done.stderr
    assert here() == {"user": "bob", "password": "s3cret"}


def test_kubectl_apply_neither_wipes_nor_reveals(server: ApiServer, version: str, vault: Vault) -> None:
    def apply(**parts: Any) -> str:
        return run(server, version, "apply", "-f", "-", stdin=json.dumps(secret(**parts)))

    def here() -> dict[str, str]:
        return server.do(opened(server.store, vault))

    apply(stringData={"a": "first-value", "b": "second-value"})
    revision = server.store.revision
    apply(stringData={"a": "first-value", "b": "second-value"})
    assert server.store.revision == revision, "the same file again changes nothing"
    other = json.dumps(secret(data={"a": b64("unseen"), "b": b64("second-value")}))
    differing = server.kubectl("diff", "-f", "-", program=kubectl.program(version) or "", stdin=other)
    assert b64("unseen") not in differing.stdout and b64("first-value") not in differing.stdout
    apply(stringData={"a": "third-value"}, data={"c": b64("fourth-value")})
    assert here()["a"] == "third-value" and here()["c"] == "fourth-value"
    stored = server.do(server.store.get("Secret", "central", "db")).data
    for value in ("first-value", "second-value", "third-value", b64("third-value"), b64("fourth-value")):
        assert value not in stored
    apply(data={"a": b64("third-value")})
    assert "c" not in here(), "what was applied and is no longer in the file goes"


def test_kubectl_prunes_by_an_applyset_whose_parent_is_a_secret(server: ApiServer, tmp_path: Path) -> None:
    if kubectl.program(kubectl.NEW) is None or kubectl.minor(kubectl.NEW) < 27:
        pytest.skip("this kubectl has no applysets")

    def manifest(*names: str) -> str:
        kinds = [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": name}}
            for name in names
        ]
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": kinds})

    def apply(parent: str, *names: str) -> str:
        done = server.kubectl(
            *("apply", "-n", "central", "--prune", f"--applyset={parent}", "-f", "-"),
            stdin=manifest(*names),
            environment={"KUBECTL_APPLYSET": "true"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    apply("secrets/web", "one", "two")
    parent = json.loads(run(server, kubectl.NEW, "get", "secret", "web", "-o", "json"))
    assert "applyset.kubernetes.io/id" in parent["metadata"]["labels"]
    assert "configmap/two pruned" in apply("secrets/web", "one")
    assert "one" in run(server, kubectl.NEW, "get", "configmaps")
    assert "two" not in run(server, kubectl.NEW, "get", "configmaps")
    apply("configmaps/set", "three")


def test_kubectl_applies_on_the_server_and_edits_config_maps(
    server: ApiServer, version: str, vault: Vault
) -> None:
    body = json.dumps(secret(stringData={"a": "server-side-value"}))
    run(server, version, "apply", "--server-side", "-f", "-", stdin=body)
    revision = server.store.revision
    run(server, version, "apply", "--server-side", "-f", "-", stdin=body)
    assert server.do(opened(server.store, vault)) == {"a": "server-side-value"}
    assert server.store.revision == revision, "the same value again is no change"
    assert "server-side-value" not in server.do(server.store.get("Secret", "central", "db")).data
    run(server, version, "create", "configmap", "c", "--from-literal=k=v")
    run(server, version, "patch", "cm", "c", "-p", json.dumps({"data": {"l": "w"}}))
    shown = json.loads(run(server, version, "get", "cm", "c", "-o", "json"))
    assert shown["data"] == {"k": "v", "l": "w"}


# -- on the disk


def test_no_planted_secret_is_found_anywhere(
    tmp_path: Path, vault: Vault, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random session of writes; then every file, answer and line of the log is searched."""
    source = random.Random(11)
    planted: list[str] = []
    seen: list[str] = []

    def plant() -> str:
        planted.append(f"planted-{secrets.token_hex(8)}")
        return planted[-1]

    with ApiServer(tmp_path, vault=vault) as server:

        async def session() -> None:
            client = Client(server.app)
            for _ in range(60):
                name = source.choice(["a", "b", "c"])
                values = {source.choice("xyz"): plant() for _ in range(2)}
                annotated = {LAST: json.dumps(secret(name, stringData=values))}
                body = secret(name, stringData=values)
                match source.randrange(6):
                    case 0:
                        answer = await client.post(SECRETS, body)
                    case 1:
                        answer = await client.put(f"{SECRETS}/{name}", body)
                    case 2:
                        encoded = {k: b64(v) for k, v in values.items()}
                        patch = {"data": encoded, "metadata": {"annotations": annotated}}
                        answer = await client.merge(f"{SECRETS}/{name}", patch)
                    case 3:
                        steps = [
                            {"op": "add", "path": f"/data/{k}", "value": b64(v)} for k, v in values.items()
                        ]
                        answer = await client.patch(f"{SECRETS}/{name}", steps)
                    case 4:
                        answer = await client.post(f"{SECRETS}?dryRun=All", body)
                    case _:
                        wrong = secret(name, data={k: f"{v}!" for k, v in values.items()})
                        answer = await client.post(SECRETS, wrong)
                seen.append(answer.body.decode())
            seen.append((await client.get("/audit")).body.decode())
            for path in (SECRETS, *(f"{SECRETS}/{name}/history" for name in "abc"), "/keys"):
                seen.append((await client.get(path)).body.decode())
            await server.app.close()

        server.do(session())
    out, err = capsys.readouterr()
    texts = [out, err, *seen]
    texts += [p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file()]
    assert len(planted) > 100 and any("Secret" in t for t in texts)
    for value in planted:
        for form in (value, b64(value), b64(value)[:-4]):
            assert not [t for t in texts if form in t], form


# -- keys


async def step(client: Client, after: Raw | None) -> Raw:
    return (await client.post("/keys/reseal", {"after": after})).ok()


async def test_all_values_are_sealed_anew_and_then_the_former_key_can_go(
    client: Client, store: Store, vault: Vault
) -> None:
    for n in range(7):
        await client.post(SECRETS, secret(f"s{n}", stringData={"a": f"one-{n}", "b": "two"}))
    former = vault.active
    (await client.delete(f"/keys/{former}")).refused(409, "active")
    new = (await client.post("/keys", {})).ok(201)["active"]
    assert new != former
    (await client.delete(f"/keys/{former}")).refused(409, "14 values")
    done = await step(client, None)
    assert (done["looked"], done["resealed"], done["unopened"], done["next"]) == (7, 14, [], None)
    listed = (await client.get("/keys")).ok()
    assert {k["id"]: k["values"] for k in listed["keys"]} == {former: 0, new: 14}
    assert b"key" not in (await client.get("/keys")).body.replace(b"keys", b"").replace(b'"key"', b"")
    (await client.delete(f"/keys/{former}")).ok()
    assert await opened(store, vault, "s3") == {"a": "one-3", "b": "two"}
    assert (await step(client, None))["resealed"] == 0


async def test_resealing_goes_in_bounded_steps_and_on_after_an_end_in_between(
    client: Client, store: Store, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.api.rotating.TOGETHER", 3)
    for n in range(8):
        await client.post(SECRETS, secret(f"s{n}", stringData={"a": f"one-{n}"}))
    await client.post("/keys", {})
    first = await step(client, None)
    assert (first["looked"], first["resealed"]) == (3, 3)
    assert first["next"] == {"kind": "Secret", "namespace": "central", "name": "s2"}
    # Whoever drove it is gone, and so is the server: another process begins from what is on the disk.
    other = Vault.open(tmp_path / "keys" / "secrets", write_private, NOW)
    again = Client(Api(ApiContext(store=store, cloud="central", vault=other)))
    total, after = 0, None
    for _ in range(4):
        done = await step(again, after)
        total, after = total + done["resealed"], done["next"]
        if after is None:
            break
    assert total == 5 and after is None
    for n in range(8):
        assert await opened(store, other, f"s{n}") == {"a": f"one-{n}"}
    (await again.post("/keys/reseal", {"after": [1]})).refused(400, "after")


async def test_values_that_do_not_open_are_told_and_hold_nothing_up(
    client: Client, store: Store, tmp_path: Path
) -> None:
    await client.post(SECRETS, secret("a", stringData={"x": "one"}))
    other = Vault.open(tmp_path / "other", write_private, NOW)
    late = Client(Api(ApiContext(store=store, cloud="central", vault=other)))
    await late.post(SECRETS, secret("b", stringData={"x": "two"}))
    await late.post("/keys", {})
    done = await step(late, None)
    assert done["resealed"] == 1 and done["next"] is None
    (lost,) = done["unopened"]
    assert (lost["name"], lost["field"]) == ("a", "data.x") and lost["key"] in lost["reason"]
    listed = (await late.get("/keys")).ok()
    assert listed["missing"] == {lost["key"]: 1}


async def test_keys_are_for_administrators(client: Client) -> None:
    (await client.reader().get("/keys")).refused(403, "/keys")
    (await client.reader().post("/keys", {})).refused(403, "/keys")
    (await client.send("PATCH", "/keys", {})).refused(405)
    (await client.post("/keys/a/b", {})).refused(404)
