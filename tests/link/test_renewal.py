"""A certificate that ended while its node was off: who is given a new one, who is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roost.link import identity, messages, pki, renewal, sockets
from roost.link.errors import Refused
from roost.link.files import write_private
from roost.link.node import Node
from roost.link.renewal import check_return
from roost.link.sockets import CannotConnect
from roost.link.wire import Peer
from roost.store.errors import Unavailable
from tests.link.test_tls import HARBOR, Site, clock, until

NOW = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)
DAY = timedelta(days=1)
GRACE = 365 * DAY


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


async def holds(site: Site, who: Node, ended: timedelta) -> str:
    """The node's last certificate is one that ended so long ago; its fingerprint."""
    directory, key = site.path / "harbor", pki.new_key()
    end = clock() - ended
    made = end - 90 * DAY
    lifetime = end - max(made, pki.RELEASED)
    certificate = site.authority.sign_node(pki.request(key), who, made, lifetime)
    identity.replace_certificate(directory, key, certificate, made)
    fingerprint = pki.pin(certificate)
    await site.store.transact(lambda tx: renewal.remember(tx, who, fingerprint))
    return fingerprint


# -- over TLS


async def test_a_node_that_was_off_for_long_comes_back_by_itself(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    before = await holds(site, HARBOR, 200 * DAY)
    link = await site.lower()
    await until(lambda: link.state.connected)
    now = identity.load(site.path / "harbor")
    assert now.expires() > clock() + 89 * DAY
    assert link.state.certificate_expires_at == now.expires()
    assert site.upper.presence(HARBOR).certificate_expires_at == now.expires()
    noted = await site.store.read(lambda tx: renewal.known(tx, HARBOR))
    assert noted[0] == before and len(noted) == 2


async def test_what_is_over_opens_that_door_and_no_other(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    await holds(site, HARBOR, DAY)
    context = sockets.verified_context(
        site.authority.certificate_pem.decode(), site.path / "harbor" / identity.NODE_FILE
    )
    with pytest.raises(CannotConnect, match="has expired") as refused:
        await sockets.connect(site.endpoint, context, sockets.LINK_PATH, within=5)
    assert refused.value.expired
    nobody = sockets.verified_context(site.authority.certificate_pem.decode())
    with pytest.raises(CannotConnect, match="needs the certificate of a node"):
        await sockets.connect(site.endpoint, nobody, sockets.RENEWAL_PATH, within=5)
    other = pki.Authority.create("other", clock())
    key = pki.new_key()
    write_private(site.path / "forged.pem", key + other.sign_node(pki.request(key), HARBOR, clock(), DAY))
    forged = sockets.verified_context(site.authority.certificate_pem.decode(), site.path / "forged.pem")
    with pytest.raises(CannotConnect):
        connection = await sockets.connect(site.endpoint, forged, sockets.RENEWAL_PATH, within=5)
        await connection.receive()


async def test_a_key_that_was_replaced_meanwhile_opens_nothing(site: Site) -> None:
    """As one from the disk of a machine that was taken out of service."""
    await site.start()
    await site.enrol(await site.token())
    await holds(site, HARBOR, DAY)
    stolen = (site.path / "harbor" / identity.NODE_FILE).read_bytes()
    await holds(site, HARBOR, -DAY)
    write_private(site.path / "harbor" / identity.NODE_FILE, stolen)
    link = await site.lower()
    await until(lambda: "not the last that this node was given" in link.state.error)
    assert "new enrolment token" in link.state.error
    assert not link.state.connected


async def test_after_the_grace_a_person_has_to_enrol_it(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    await holds(site, HARBOR, 366 * DAY)
    link = await site.lower()
    await until(lambda: "could be renewed until" in link.state.error)
    assert "roost subcloud token harbor" in link.state.error
    assert (link.state.next_dial or clock()) > clock() + timedelta(seconds=20), "it hammers at the door"
    await link.stop()
    await site.enrol(await site.token())
    link.start()
    await until(lambda: link.state.connected)


async def test_a_node_that_is_not_wanted_any_more_is_given_nothing(site: Site) -> None:
    async def admit(who: Node) -> None:
        raise Refused("unknown", f"{who} is not known here", "declare it", retry_after=3600)

    await site.start(admit=admit)
    await site.enrol(await site.token())
    await holds(site, HARBOR, DAY)
    pem = (site.path / "harbor" / identity.NODE_FILE).read_bytes()
    link = await site.lower()
    await until(lambda: "is not known here" in link.state.error)
    assert (site.path / "harbor" / identity.NODE_FILE).read_bytes() == pem


async def test_nothing_is_given_that_could_not_be_noted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.start()
    await site.enrol(await site.token())
    await holds(site, HARBOR, DAY)
    transact, full = site.store.transact, True

    async def failing(work: Any, **options: Any) -> Any:
        if full:
            raise Unavailable("database or disk is full")
        return await transact(work, **options)

    monkeypatch.setattr(site.store, "transact", failing)
    link = await site.lower()
    await until(lambda: "can't write now" in link.state.error)
    full = False
    await until(lambda: link.state.connected)


async def test_the_answer_that_was_lost_locks_nobody_out(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    await holds(site, HARBOR, DAY)
    ca = site.authority.certificate_pem.decode()
    context = sockets.verified_context(ca, site.path / "harbor" / identity.NODE_FILE)
    for _ in range(3):
        connection = await sockets.connect(site.endpoint, context, sockets.RENEWAL_PATH, within=5)
        request = messages.RenewalRequest(request=pki.request(pki.new_key()).decode())
        await connection.send(messages.pack(request))
        assert isinstance(messages.unpack(await connection.receive()), messages.Renewed)
        await connection.close()
    link = await site.lower()
    await until(lambda: link.state.connected)


async def test_a_certificate_made_by_a_clock_that_ran_ahead_opens_the_link(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    key = pki.new_key()
    early = site.authority.sign_node(pki.request(key), HARBOR, clock() + 30 * DAY, 90 * DAY)
    identity.replace_certificate(site.path / "harbor", key, early, clock())
    link = await site.lower()
    await until(lambda: link.state.connected)


async def test_a_renewed_authority_reaches_its_nodes_with_their_next_certificate(site: Site) -> None:
    first = await site.start(node_lifetime=timedelta(seconds=6))
    link = await site.joined()
    port = first.ports[0]
    await first.stop()
    later = pki.Authority._self_signed("central", clock() + 30 * DAY, site.authority._key)
    site.authority = later
    await site.start(port, node_lifetime=timedelta(seconds=6))
    await until(
        lambda: (site.path / "harbor" / identity.AUTHORITY_FILE).read_bytes() == later.certificate_pem
    )
    await until(lambda: link.state.connected)


# -- purely


def test_another_authority_is_no_successor() -> None:
    mine = pki.Authority.create("central", NOW)
    later = pki.Authority._self_signed("central", NOW + 30 * DAY, mine._key)
    pki.check_successor(mine.certificate_pem, later.certificate_pem)
    for other in (
        pki.Authority.create("central", NOW + 30 * DAY),
        pki.Authority._self_signed("other", NOW + 30 * DAY, mine._key),
        pki.Authority._self_signed("central", NOW - DAY, mine._key),
        mine,
    ):
        with pytest.raises(pki.BadCertificate):
            pki.check_successor(mine.certificate_pem, other.certificate_pem)


@pytest.mark.parametrize(
    ("ended", "noted", "code"),
    [
        (-DAY, ("other",), ""),
        (timedelta(0), ("mine",), ""),
        (DAY, ("mine",), ""),
        (DAY, ("before", "mine"), ""),
        (DAY, ("mine", "after"), ""),
        (DAY, (), ""),
        (DAY, ("after", "later"), "superseded"),
        (365 * DAY, ("mine",), "ended"),
        (3650 * DAY, (), "ended"),
    ],
)
def test_who_may_have_a_new_one(ended: timedelta, noted: tuple[str, ...], code: str) -> None:
    peer = Peer(node=HARBOR, address="", certificate_expires_at=NOW - ended, fingerprint="mine")
    if not code:
        check_return(HARBOR, peer, noted, GRACE, NOW)
        return
    with pytest.raises(Refused) as refused:
        check_return(HARBOR, peer, noted, GRACE, NOW)
    assert refused.value.code == code and refused.value.retry_after == 3600
    assert "roost subcloud token harbor" in refused.value.remedy


def test_who_shows_nothing_gets_nothing() -> None:
    with pytest.raises(Refused, match="shows no certificate"):
        check_return(HARBOR, Peer(node=HARBOR, address=""), (), GRACE, NOW)


def test_what_is_noted_has_what_the_node_holds_whichever_answers_were_lost() -> None:
    noted: tuple[str, ...] = ("0",)
    for number in range(1, 20):
        noted = renewal.given(noted, "0", str(number))
        assert noted[0] == "0" and noted[-1] == str(number) and len(noted) <= renewal.KNOWN
    # The first answer came, the second was lost: over the link on which both were asked for.
    assert "1" in renewal.given(renewal.given(("0",), "0", "1"), "0", "2")
    assert renewal.given((), "", "1") == ("1",)
