"""Names and passwords: what is answered, how often one may try, and that nothing tells who is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity import passwords, throttle
from roost.api.identity.accounts import ROTATE
from roost.api.identity.login import LIFETIME
from roost.api.identity.passwords import Busy, Hasher
from roost.api.identity.throttle import FIRST, FREE, FREE_OF_ALL, LONGEST, Throttle, Throttled
from roost.engine import allowance
from roost.engine.credentials import PER_SUBJECT
from roost.model.access import Credential
from roost.model.account import Password
from roost.model.cloud import Cloud
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.api.client import HOSTS, V1, Answer, Client

SECRET = "correct horse battery"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    await opened.save(Cloud(metadata=Metadata(name="central")))
    yield opened
    await opened.close()


@pytest.fixture
async def admin(store: Store) -> AsyncIterator[Client]:
    app = Api(ApiContext(store=store, cloud="central"))
    yield Client(app)
    app.end_watches()


async def login(client: Client, name: object, password: object = SECRET) -> Answer:
    return await client.local("").post("/login", {"name": name, "password": password})


async def _tom(admin: Client) -> None:
    (await admin.post(f"{V1}/users", {"metadata": {"name": "tom"}})).ok(201)
    (await admin.post(f"{V1}/users/tom/password", {"spec": {"password": SECRET}})).ok(201)


async def test_a_session_from_login_to_logout(admin: Client, store: Store) -> None:
    await _tom(admin)
    token = (await login(admin, "tom")).ok()["status"]["token"]
    tom = admin.bearing(token)
    (await tom.get(HOSTS)).ok()
    (await tom.post("/logout", {})).ok()
    (await tom.get(HOSTS)).refused(401)
    (await admin.post("/logout", {})).refused(400, "only a session")
    bearer = (await admin.post(f"{V1}/users/tom/token", {})).ok(201)["status"]["token"]
    (await admin.bearing(bearer).post("/logout", {})).refused(400)


async def test_sessions_end_with_what_they_rest_on(admin: Client, store: Store) -> None:
    await _tom(admin)

    async def session() -> Client:
        return admin.bearing((await login(admin, "tom")).ok()["status"]["token"])

    tom = await session()
    (await admin.post(f"{V1}/users/tom/password", {"spec": {"password": SECRET + "2"}})).ok(201)
    (await tom.get(HOSTS)).refused(401)
    (await login(admin, "tom")).refused(401)
    tom = admin.bearing((await login(admin, "tom", SECRET + "2")).ok()["status"]["token"])
    (await admin.merge(f"{V1}/users/tom", {"spec": {"disabled": True}})).ok()
    (await tom.get(HOSTS)).refused(403)
    (await login(admin, "tom", SECRET + "2")).refused(401)
    (await admin.delete(f"{V1}/users/tom")).ok()
    assert await store.every(Password) == [] and await store.every(Credential) == []
    (await admin.post(f"{V1}/users", {"metadata": {"name": "tom"}})).ok(201)
    (await login(admin, "tom", SECRET + "2")).refused(401)


async def test_of_many_sessions_the_oldest_ends(
    admin: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "PER_NAME", (1000.0, 1.0))
    client = Client(Api(ApiContext(store=store, cloud="central")))
    await _tom(admin)
    tokens = [(await login(client, "tom")).ok()["status"]["token"] for _ in range(PER_SUBJECT + 1)]
    assert len(await store.every(Credential)) == PER_SUBJECT and len(set(tokens)) == PER_SUBJECT + 1
    (await admin.bearing(tokens[-1]).get(HOSTS)).ok()


async def test_nothing_tells_who_is_there(admin: Client) -> None:
    await _tom(admin)
    await admin.post(f"{V1}/users", {"metadata": {"name": "bare"}})
    await admin.post(f"{V1}/users", {"metadata": {"name": "off"}})
    await admin.post(f"{V1}/users/off/password", {"spec": {"password": SECRET}})
    await admin.merge(f"{V1}/users/off", {"spec": {"disabled": True}})
    answers = [
        await login(admin, name, password)
        for name, password in (
            ("tom", "wrong"),
            ("nobody", "wrong"),
            ("bare", "wrong"),
            ("off", SECRET),
            ("system:x", "wrong"),
            ("x" * 300, "wrong"),
            ("tom", "x" * 300),
        )
    ]
    assert {a.status for a in answers} == {401} and len({a.body for a in answers}) == 1

    def shown(answer: Answer) -> dict[str, str]:
        return {k: v for k, v in answer.headers.items() if k not in ("audit-id", "date")}

    assert all(shown(a) == shown(answers[0]) for a in answers)


async def test_the_same_is_computed_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = passwords._hasher()

    class Spy:
        def verify(self, hash: str, password: str) -> bool:
            compared.append(hash)
            return real.verify(hash, password)

        def hash(self, password: str) -> str:
            return real.hash(password)

    monkeypatch.setattr(passwords, "_hasher", Spy)
    hasher = Hasher()
    stored = await hasher.hash(SECRET)
    assert await hasher.matches(stored, SECRET) and not await hasher.matches(stored, "wrong")
    assert not await hasher.matches("", SECRET) and not await hasher.matches("nonsense", SECRET)
    assert not await hasher.matches("", "a password that nobody has")
    costs = {h.rpartition("$")[0].rpartition("$")[0] for h in compared if h != "nonsense"}
    assert costs == {"$argon2id$v=19$m=19456,t=2,p=1"}
    hasher.close()


async def test_known_and_unknown_names_are_locked_alike(admin: Client) -> None:
    await _tom(admin)
    for name in ("tom", "nobody"):
        for _ in range(FREE):
            (await login(admin, name, "wrong")).refused(401)
        locked = await login(admin, name)
        locked.refused(429, "too many logins")
        assert locked.headers["retry-after"] == "10"


@pytest.mark.parametrize(
    "body", [{}, {"name": "x"}, {"name": 1, "password": "x"}, {"name": "", "password": ""}]
)
async def test_bodies_that_make_no_sense(admin: Client, body: object) -> None:
    (await admin.local("").post("/login", body)).refused(400)
    (await admin.local("").get("/login")).refused(401)


async def test_who_may_set_a_password(admin: Client) -> None:
    await _tom(admin)
    path = f"{V1}/users/tom/password"
    (await admin.reader().post(path, {"spec": {"password": SECRET}})).refused(403, "users/password")
    for wrong in (None, 7, "short", "x" * 257):
        (await admin.post(path, {"spec": {"password": wrong}})).refused(422, "the password does not do")
    (await admin.post(f"{V1}/users/nobody/password", {"spec": {"password": SECRET}})).refused(404)


async def test_passwords_are_kept_as_hashes(
    admin: Client, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    await _tom(admin)
    await login(admin, "tom", SECRET + "?")
    (kept,) = await store.every(Password)
    assert kept.spec.hash.startswith("$argon2id$") and SECRET not in kept.spec.hash
    assert SECRET not in capsys.readouterr().out


def test_passwords_are_judged_by_length_in_characters() -> None:
    assert passwords.problem("a" * 12) == "" and passwords.problem("é" * 12) == ""
    assert passwords.problem("a" * 11) and passwords.problem("e\u0301" * 11)
    assert passwords.normal("e\u0301") == passwords.normal("é")


async def test_a_flood_waits_in_a_short_line() -> None:
    hasher = Hasher()
    many = [asyncio.create_task(hasher.matches("", "x")) for _ in range(passwords.WAITING + 5)]
    done = await asyncio.gather(*many, return_exceptions=True)
    assert sum(isinstance(d, Busy) for d in done) == 5 and done.count(False) == passwords.WAITING
    hasher.close()


# -- the throttle, on a clock of its own


def test_the_lockout_grows_and_ends() -> None:
    door, now = Throttle(), 1_000.0
    for _ in range(FREE):
        door.begin("tom", "", now)
        door.failed("tom", "", now)
    for n in range(12):
        lock = min(LONGEST, FIRST * 2**n)
        with pytest.raises(Throttled) as raised:
            door.begin("tom", "", now)
        assert raised.value.wait == pytest.approx(lock)
        now += lock
        door.begin("tom", "", now)
        door.failed("tom", "", now)
    door.succeeded("tom", "", now)
    door.begin("tom", "", now)
    assert door.locked("tom", "", now) == 0


def test_failures_of_long_ago_are_forgotten() -> None:
    door = Throttle()
    for n in range(FREE_OF_ALL + 3):
        door.failed("tom", f"192.0.2.{n}" if n > FREE else "", 0.0)
    later = throttle.FORGOTTEN + 1
    door.failed("tom", "", later)
    assert door.locked("tom", "", later) == 0


def test_who_guesses_locks_out_himself_alone() -> None:
    door = Throttle()
    for _ in range(FREE):
        door.failed("tom", "192.0.2.66", 0.0)
    assert door.locked("tom", "192.0.2.66", 0.0) == FIRST
    for name, origin in (("tom", "192.0.2.1"), ("tom", ""), ("ann", "192.0.2.66")):
        assert door.locked(name, origin, 0.0) == 0
        door.begin(name, origin, 0.0)


def spread(door: Throttle, name: str, count: int, now: float) -> None:
    """Wrong passwords, each from elsewhere."""
    for n in range(count):
        door.failed(name, f"198.51.100.{n}", now)


def test_guesses_from_everywhere_lock_a_name_but_where_it_is_at_home() -> None:
    door = Throttle()
    door.succeeded("tom", "192.0.2.1", 0.0)
    spread(door, "tom", FREE_OF_ALL, 1.0)
    assert door.locked("tom", "203.0.113.9", 1.0) == FIRST
    spread(door, "tom", 3, 1.0)
    assert door.locked("tom", "203.0.113.9", 1.0) == FIRST * 2**3
    assert door.locked("tom", "192.0.2.1", 1.0) == 0
    for _ in range(FREE):
        # Also at home nobody guesses freely.
        door.failed("tom", "192.0.2.1", 1.0)
    assert door.locked("tom", "192.0.2.1", 1.0) == FIRST
    door.succeeded("tom", "192.0.2.1", 20.0)
    assert door.locked("tom", "203.0.113.9", 20.0) == 0
    late = 20.0 + throttle.TRUSTED_FOR + 1
    spread(door, "tom", FREE_OF_ALL, late)
    assert door.locked("tom", "192.0.2.1", late) == FIRST


def test_a_new_password_clears_a_name_everywhere() -> None:
    door = Throttle()
    door.succeeded("tom", "192.0.2.1", 0.0)
    for _ in range(FREE):
        door.failed("tom", "192.0.2.2", 0.0)
        door.failed("ann", "192.0.2.2", 0.0)
    spread(door, "tom", FREE_OF_ALL, 0.0)
    door.renewed("tom")
    assert door.locked("tom", "192.0.2.2", 0.0) == 0 and door.locked("ann", "192.0.2.2", 0.0) == FIRST
    spread(door, "tom", FREE_OF_ALL, 0.0)
    # Where the former password was right nothing is trusted any more.
    assert door.locked("tom", "192.0.2.1", 0.0) == FIRST


async def test_the_true_user_gets_in_while_others_guess(admin: Client) -> None:
    await _tom(admin)
    for _ in range(FREE):
        (await login(admin, "tom", "wrong")).refused(401)
    (await login(admin, "tom")).refused(429)
    elsewhere = Client(admin.app).at("198.51.100.9")
    (await elsewhere.post("/login", {"name": "tom", "password": SECRET})).ok()
    (await login(admin, "tom")).refused(429)


def test_an_address_has_its_own_allowance() -> None:
    door, (burst, rate) = Throttle(), throttle.PER_ADDRESS
    for n in range(int(burst)):
        door.begin(f"u{n}", "192.0.2.1", 0.0)
    with pytest.raises(Throttled) as raised:
        door.begin("more", "192.0.2.1", 0.0)
    assert raised.value.wait == pytest.approx(1 / rate)
    door.begin("more", "192.0.2.2", 0.0)
    door.begin("more", "192.0.2.1", 1 / rate)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.floats(0, 100)), max_size=60))
def test_who_waits_as_told_gets_in(steps: list[tuple[str, bool, float]]) -> None:
    door, now = Throttle(), 0.0
    for name, right, pause in steps:
        now += pause
        try:
            door.begin(name, "192.0.2.1", now)
        except Throttled as error:
            now += error.wait + 0.001
            try:
                door.begin(name, "192.0.2.1", now)
            except Throttled as again:
                now += again.wait + 0.001
                door.begin(name, "192.0.2.1", now)
        if right:
            door.succeeded(name, "192.0.2.1", now)
        else:
            door.failed(name, "192.0.2.1", now)


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (allowance, throttle):
        monkeypatch.setattr(module, "MOST", 10)
    door = Throttle()
    for n in range(100):
        door.failed(f"n{n}", "", 0.0)
        door.succeeded(f"m{n}", "", 0.0)
        door._names.take(f"n{n}", 0.0)
    assert len(list(door._here)) == len(list(door._everywhere)) == 10
    assert len(door._trusted) == len(door._names._left) == 10


def test_the_numbers_of_the_security_model_are_those_of_the_code() -> None:
    text = " ".join((Path(__file__).parents[2] / "docs" / "security.md").read_text().split())
    hours = int(LIFETIME.total_seconds()) // 3600
    many, each = int(throttle.PER_ADDRESS[0]), round(throttle.PER_ADDRESS[1] * 60)
    for told in (
        f"a bearer token for {hours} hours",
        f"Argon2id ({passwords.MEMORY // 1024} MiB, {passwords.PASSES} passes)",
        f"({passwords.SHORTEST} to {passwords.LONGEST} characters)",
        f"in a thread of their own, with {passwords.WAITING} in line",
        f"After {FREE} wrong ones from one address a name is locked for that address",
        f"that address for {FIRST:.0f} seconds, doubling up to an hour",
        f"After {FREE_OF_ALL} from all addresses together it is locked in the same way for all but",
        f"within {throttle.TRUSTED_FOR // 86400:.0f} days",
        f"One address has {many} tries at once and {each} a minute",
        f"Keys are made anew every {ROTATE.days} days",
    ):
        assert told in text, told
    assert (LONGEST, passwords.THREADS) == (3600, 1)
