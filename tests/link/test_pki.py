"""Certificates, tokens and frames: what is accepted, and above all what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from roost.link import identity, messages, node, pki, token
from roost.link.errors import BadMessage
from roost.link.files import write_private
from roost.link.messages import Entries, Entry, Heartbeat, Hello

NOW = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)
DAY = timedelta(days=1)
HARBOR = node.subcloud("harbor")


# -- the authority


def test_an_authority_is_made_once_and_kept_private(tmp_path: Path) -> None:
    first = pki.Authority.open(tmp_path / "ca", "central", NOW)
    again = pki.Authority.open(tmp_path / "ca", "central", NOW + DAY)
    assert first.pin == again.pin and len(first.pin) == 64
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "ca").glob(".*")) == []


def test_a_crash_while_it_is_made_is_carried_on_from(tmp_path: Path) -> None:
    pki.Authority.open(tmp_path, "central", NOW)
    key = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.crt").unlink()
    pki.Authority.open(tmp_path, "central", NOW)
    assert (tmp_path / "ca.key").read_bytes() == key


def test_a_lost_key_is_not_replaced_behind_ones_back(tmp_path: Path) -> None:
    pki.Authority.open(tmp_path, "central", NOW)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(pki.BadCertificate, match="put the key back"):
        pki.Authority.open(tmp_path, "central", NOW)


def test_a_node_is_named_by_the_authority_not_by_its_request() -> None:
    authority, key = pki.Authority.create("central", NOW), pki.new_key()
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin")])
    liar = x509.CertificateSigningRequestBuilder().subject_name(name)
    liar = liar.add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier("roost:subcloud/ridge")]), critical=False
    )
    request = liar.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    certificate = authority.sign_node(request, HARBOR, NOW, 90 * DAY)
    assert pki.node_of(certificate) == HARBOR
    assert pki.expires_at(certificate) == NOW + 90 * DAY
    found = x509.load_pem_x509_certificate(certificate)
    assert found.not_valid_before_utc == NOW - timedelta(hours=1)
    assert "admin" not in found.subject.rfc4514_string()
    pki.check_issued(certificate, key, HARBOR)
    with pytest.raises(pki.BadCertificate, match="another key"):
        pki.check_issued(certificate, pki.new_key(), HARBOR)
    with pytest.raises(pki.BadCertificate, match="not for"):
        pki.check_issued(certificate, key, node.subcloud("ridge"))


def test_other_keys_and_broken_requests_are_not_signed() -> None:
    authority = pki.Authority.create("central", NOW)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(weak, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    for bad in (request, b"", b"nonsense", b"x" * 20_000):
        with pytest.raises(pki.BadCertificate):
            authority.sign_node(bad, HARBOR, NOW, DAY)


def test_users_are_no_nodes() -> None:
    issued = pki.Authority.create("central", NOW).issue_user("ada", ["readers"], NOW, DAY)
    with pytest.raises(pki.BadCertificate, match="names 0 nodes"):
        pki.node_of(issued.certificate)
    subject = x509.load_pem_x509_certificate(issued.certificate).subject.rfc4514_string()
    assert "CN=ada" in subject and "O=readers" in subject and issued.expires_at == NOW + DAY


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["roost:subcloud/a", "roost:subcloud/b"],
        ["spiffe://a"],
        ["roost:subcloud/A"],
        ["roost:user/a"],
        ["roost:subcloud/a/"],
    ],
)
def test_a_certificate_names_exactly_one_node(uris: list[str]) -> None:
    with pytest.raises(pki.BadCertificate):
        pki.only_node(uris)


@pytest.mark.parametrize("content", [b"", b"junk", "without its key"])
def test_a_server_file_that_can_not_be_read_is_made_again(tmp_path: Path, content: bytes | str) -> None:
    authority, path = pki.Authority.create("central", NOW), tmp_path / "link.pem"
    made = pki.server_file(authority, path, ["192.0.2.1"], NOW, 30 * DAY).read_bytes()
    path.write_bytes(content if isinstance(content, bytes) else made[made.index(b"-----BEGIN CERTIFICATE") :])
    again = pki.server_file(authority, path, ["192.0.2.1"], NOW, 30 * DAY).read_bytes()
    assert b"PRIVATE KEY" in again and b"BEGIN CERTIFICATE" in again


@pytest.mark.parametrize("name", ["ca.key", "ca.crt"])
def test_a_broken_authority_is_said_so_and_left(tmp_path: Path, name: str) -> None:
    pki.Authority.open(tmp_path, "central", NOW)
    (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(pki.BadCertificate, match=r"no usable authority.*from a backup"):
        pki.Authority.open(tmp_path, "central", NOW)
    assert (tmp_path / name).read_bytes() == b"junk"


def test_a_server_certificate_is_kept_until_its_names_change_or_it_ages(tmp_path: Path) -> None:
    authority, path = pki.Authority.create("central", NOW), tmp_path / "link.pem"

    def current(names: list[str], days: float) -> bytes:
        return pki.server_file(authority, path, names, NOW + days * DAY, 30 * DAY).read_bytes()

    first = current(["central.example", "192.0.2.1"], 0)
    assert current(["192.0.2.1", "central.example"], 19) == first
    assert current(["central.example", "192.0.2.1"], 21) != first
    second = path.read_bytes()
    assert current(["central.example", "192.0.2.2"], 21) != second
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "link.roost" in names.get_values_for_type(x509.DNSName)
    assert "192.0.2.2" in map(str, names.get_values_for_type(x509.IPAddress))
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_outlives_its_authority() -> None:
    authority = pki.Authority.create("central", NOW)
    late = NOW + timedelta(days=20 * 365 - 1)
    certificate = authority.sign_node(pki.request(pki.new_key()), HARBOR, late, 90 * DAY)
    assert pki.expires_at(certificate) == late + DAY


# -- the identity


def test_an_identity_survives_a_crash_between_its_files(tmp_path: Path) -> None:
    authority, key = pki.Authority.create("central", NOW), pki.new_key()
    certificate = authority.sign_node(pki.request(key), HARBOR, NOW, 90 * DAY)
    kept = identity.save(
        tmp_path,
        node=HARBOR,
        upper="central",
        endpoints=["192.0.2.1:7443"],
        authority=authority.certificate_pem,
        key=key,
        certificate=certificate,
        now=NOW,
    )
    assert identity.load(tmp_path) == kept and kept.renewal_due() == NOW + 60 * DAY
    ahead = identity.replace_certificate(tmp_path, key, certificate, NOW + 200 * DAY)
    assert ahead.renewal_due() == NOW + 60 * DAY
    renewed = authority.sign_node(pki.request(key), HARBOR, NOW + 60 * DAY, 90 * DAY)
    write_private(tmp_path / "node.pem", key + renewed)
    assert identity.load(tmp_path).expires() == NOW + 150 * DAY


def test_no_identity_is_said_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(identity.NotEnrolled, match="enrolment token"):
        identity.load(tmp_path)
    write_private(tmp_path / "node.json", b"{}")
    with pytest.raises(identity.NotEnrolled, match="can't be read"):
        identity.load(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"old")
    with pytest.raises(TypeError):
        write_private(tmp_path / "a", None)  # type: ignore[arg-type]
    assert (tmp_path / "a").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


# -- the token

TOKEN = token.Token(
    endpoints=["central.example:7443", "[2001:db8::1]:7443"],
    ca="ab" * 32,
    secret="0123456789abcdef." + "s" * 43,
)


def test_a_token_says_what_was_put_in_and_hides_its_secret() -> None:
    assert token.decode(token.encode(TOKEN)) == TOKEN
    assert token.decode(f" {token.encode(TOKEN)[:50]}\n{token.encode(TOKEN)[50:]} ") == TOKEN
    assert "sss" not in repr(TOKEN) and TOKEN.id == "0123456789abcdef"
    assert token.endpoint("[2001:db8::1]:7443") == ("2001:db8::1", 7443)


@pytest.mark.parametrize("text", ["", "roost1.", "roost2.abc", "roost1.!!!!", "roost1." + "A" * 9000])
def test_other_strings_are_no_tokens(text: str) -> None:
    with pytest.raises(token.BadToken, match="this is no enrolment token"):
        token.decode(text)


@given(st.integers(0, 200))
def test_a_token_cut_short_is_no_token(length: int) -> None:
    whole = token.encode(TOKEN)
    if length < len(whole):
        with pytest.raises(token.BadToken):
            token.decode(whole[:length])


@pytest.mark.parametrize(
    "where", ["central", "central:0", "central:99999", "a b:1", "::1:7443", ":1", "a:-1"]
)
def test_endpoints_are_host_and_port(where: str) -> None:
    with pytest.raises(ValueError, match="no host:port"):
        token.endpoint(where)


# -- frames


def test_frames_carry_messages_small_and_large() -> None:
    large = Entry(type="object", kind="Host", namespace="a", name="b", data=b"x" * 100_000)
    message = Entries(number=1, entries=[large], upto=3)
    frame = messages.pack(message)
    assert len(frame) < 1000 and messages.unpack(frame) == message
    beat = messages.pack(Heartbeat(sequence=3))
    assert beat[0] == 0 and messages.unpack(beat) == Heartbeat(sequence=3)


def test_newer_peers_are_understood_as_far_as_may_be() -> None:
    import msgspec

    newer = {"type": "heartbeat", "sequence": 1, "mood": "good"}
    assert messages.unpack(b"\0" + msgspec.msgpack.encode(newer)) == Heartbeat(sequence=1)
    assert messages.unpack(b"\0" + msgspec.msgpack.encode({"type": "sing", "song": 1})) is None


def bomb() -> bytes:
    return b"\1" + zstandard.ZstdCompressor().compress(bytes(64 * 1024 * 1024))


def streamed() -> bytes:
    """Without its size in the header."""
    worker = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return b"\1" + worker.compress(bytes(100)) + worker.flush()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\2x",
        b"\0",
        b"\0\xff",
        b"\0\x81\xa4type\xa9heartbeat",
        b"\1nonsense",
        bomb(),
        streamed(),
        bytes(9 * 1024 * 1024),
        b"\0" + b"\x90",
        b"\0\x81\xa1x" + b"\x91" * 100_000,
        b"\0\x83\xa4type\xa7goodbye\xa6reason\xa2\xff\xfe",
        b"\0\x81\xa4type\xa2\xff\xfe",
    ],
    ids=[
        *["empty", "packing", "nothing", "junk", "field", "zstd", "bomb", "unsized", "large", "list"],
        *["deep", "no text", "no type"],
    ],
)
def test_bad_frames_are_refused(frame: bytes) -> None:
    with pytest.raises(BadMessage):
        messages.unpack(frame)


@given(st.binary(max_size=300))
@example(b"\0\0\0")
def test_no_bytes_do_harm(data: bytes) -> None:
    try:
        messages.unpack(data)
    except BadMessage:
        return


def test_old_recorded_hello_is_understood() -> None:
    """As version 0.1.0 sent it. Must stay readable for two releases."""
    recorded = bytes.fromhex(
        "0089a474797065a568656c6c6fac70726f746f636f6c5f6d696e01ac70726f746f636f6c5f6d617801"
        "a776657273696f6ea5302e312e30a46e6f6465af737562636c6f75642f686172626f72a873746f72655f6964a161"
        "ae74616b656e5f73746f72655f6964a0ae74616b656e5f7265766973696f6e00a86665617475726573"
        "92a5616761696ea563616c6c73"
    )
    assert messages.unpack(recorded) == Hello(
        protocol_min=1,
        protocol_max=1,
        version="0.1.0",
        node="subcloud/harbor",
        store_id="a",
        taken_store_id="",
        taken_revision=0,
        features=["again", "calls"],
    )


# -- clocks that are wrong

CENTURY = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)


def test_a_first_start_in_1970_makes_what_is_good_once_the_clock_is_right(tmp_path: Path) -> None:
    authority = pki.Authority.open(tmp_path / "ca", "central", CENTURY)
    assert authority.begins < CENTURY and authority.ends > NOW + 15 * 365 * DAY
    server = pki.server_file(authority, tmp_path / "link.pem", [], CENTURY).read_bytes()
    assert pki.expires_at(server) > NOW
    assert authority.issue_user("admin", ["x"], CENTURY, 365 * DAY).expires_at > pki.RELEASED


def test_a_server_certificate_outlives_a_clock_that_fell_back_to_1970(tmp_path: Path) -> None:
    authority, path = pki.Authority.create("central", NOW), tmp_path / "link.pem"
    first = pki.server_file(authority, path, [], NOW).read_bytes()
    assert pki.server_file(authority, path, [], CENTURY).read_bytes() == first
    assert pki.server_file(authority, path, [], NOW).read_bytes() == first


def test_a_server_certificate_made_while_the_clock_ran_ahead_is_good_at_once(tmp_path: Path) -> None:
    authority, path = pki.Authority.create("central", NOW), tmp_path / "link.pem"
    pki.server_file(authority, path, [], NOW)
    ahead = pki.server_file(authority, path, [], NOW + 390 * DAY).read_bytes()
    found = x509.load_pem_x509_certificate(ahead)
    assert found.not_valid_before_utc <= NOW and found.not_valid_after_utc > NOW + 700 * DAY
    assert pki.server_file(authority, path, [], NOW).read_bytes() == ahead


def test_a_server_certificate_that_can_not_be_replaced_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, path = pki.Authority.create("central", NOW), tmp_path / "link.pem"
    first = pki.server_file(authority, path, [], NOW, 30 * DAY).read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pki, "write_private", full)
        for day in (21, 22):
            assert pki.server_file(authority, path, [], NOW + day * DAY, 30 * DAY).read_bytes() == first
        with pytest.raises(OSError, match="No space"):
            pki.server_file(authority, path, [], NOW + 31 * DAY, 30 * DAY)
    assert pki.server_file(authority, path, [], NOW + 23 * DAY, 30 * DAY).read_bytes() != first


def test_no_server_certificate_is_made_again_and_again_at_the_end_of_the_authority(tmp_path: Path) -> None:
    authority, path = pki.Authority.create("central", NOW), tmp_path / "link.pem"
    late = NOW + timedelta(days=20 * 365 - 20)
    first = pki.server_file(authority, path, [], late, 30 * DAY).read_bytes()
    assert pki.server_file(authority, path, [], late + 5 * DAY, 30 * DAY).read_bytes() == first
    with pytest.raises(pki.BadCertificate, match="the authority itself ended"):
        authority.sign_node(pki.request(pki.new_key()), HARBOR, NOW + 21 * 365 * DAY, DAY)
