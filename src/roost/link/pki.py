"""The certificate authority of one cloud, and what it issues. EC P-256 throughout.

- server certificates: for the link and the API. `link.roost` is always among the names: the lower end
  asks for that name whatever address it dialled, so addresses may change and NAT may stand between;
- node certificates: signed from a request, identity as URI `roost:subcloud/NAME` or
  `roost:host/CLOUD/NAME`. The request's own names are ignored: the authority says who it is;
- certificates of the cloud's own processes, for calls among them: identity as URI `roost:process`;
- user certificates: common name is the user, organisations are the groups.

The key never leaves its machine: a node sends a request. Time is passed in, and clocks are wrong: machines
boot in 1970 or with the date of their firmware, and find the time later. So certificates of nodes begin an
hour before now, authorities at a time that has surely passed, and servers' and users' with their authority:
who looks at them with a clock that is behind, or has them from one that ran ahead, trusts them all the same.
None ends earlier than one that is issued at that time. Importing this module costs 8 MB of memory: a lower
end does so only to enrol and to renew.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roost.link.errors import LinkError
from roost.link.files import write_private
from roost.link.node import BadNode, Node, parse_uri

SERVER_NAME = "link.roost"
BACKDATE = timedelta(hours=1)
AUTHORITY_LIFETIME = timedelta(days=20 * 365)
SERVER_LIFETIME = timedelta(days=397)
NODE_LIFETIME = timedelta(days=90)
REQUEST_LIMIT = 16 * 1024
PROCESS_URI = "roost:process"
"""Identity of a process of the cloud itself; no node has one like it."""
RELEASED = datetime(2026, 1, 1, tzinfo=UTC)
"""No machine runs this program earlier: a clock that says so is wrong."""


class BadCertificate(LinkError):
    """A certificate, key or request that is not what it should be."""


class Issued(msgspec.Struct, frozen=True):
    """A new key with its certificate, both PEM."""

    key: bytes
    certificate: bytes

    @property
    def expires_at(self) -> datetime:
        return expires_at(self.certificate)


class Authority:
    """A cloud's CA. Open with `Authority.open`; the key stays in its directory, mode 0600."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.pin = pin(self.certificate_pem)
        self.begins, self.ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc

    @classmethod
    def create(cls, name: str, now: datetime) -> Authority:
        """A new authority, kept nowhere yet."""
        return cls._self_signed(name, now, _new_key())

    @classmethod
    def _self_signed(cls, name: str, now: datetime, key: ec.EllipticCurvePrivateKey) -> Authority:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Roost"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA"),
            ]
        )
        begin, end = min(now - BACKDATE, RELEASED), max(now, RELEASED) + AUTHORITY_LIFETIME
        builder = _builder(subject, subject, key.public_key(), begin, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def open(cls, directory: Path, name: str, now: datetime) -> Authority:
        """The authority kept in `directory` (ca.key, ca.crt), made there if there is none."""
        key_file, certificate_file = directory / "ca.key", directory / "ca.crt"
        if key_file.exists() and certificate_file.exists():
            try:
                return cls(_certificate(certificate_file.read_bytes()), _key(key_file.read_bytes()))
            except BadCertificate as error:
                raise BadCertificate(
                    f"{directory} holds no usable authority: {error}; put both files back from a backup"
                ) from error
        if certificate_file.exists():
            raise BadCertificate(
                f"{certificate_file} is there but {key_file} is not; put the key back from a backup"
            )
        # A key without certificate is what a crash in the next three lines leaves: carry on with it.
        key = _key(key_file.read_bytes()) if key_file.exists() else _new_key()
        write_private(key_file, _key_pem(key))
        authority = cls._self_signed(name, now, key)
        write_private(certificate_file, authority.certificate_pem)
        return authority

    def issue_server(
        self, names: Iterable[str], now: datetime, lifetime: timedelta = SERVER_LIFETIME
    ) -> Issued:
        """For a server reached as `names` (DNS names and IP addresses), `link.roost` and this machine."""
        alternatives: list[x509.GeneralName] = []
        for name in dict.fromkeys([SERVER_NAME, "localhost", "127.0.0.1", "::1", *names]):
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        key = _new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        begin = min(self.begins, now - BACKDATE)
        end = self._end(now, lifetime)
        return Issued(
            _key_pem(key), self._issue(subject, key.public_key(), alternatives, purpose, begin, end)
        )

    def issue_user(self, user: str, groups: Iterable[str], now: datetime, lifetime: timedelta) -> Issued:
        """For a person or program that uses the API."""
        organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        key, purpose = _new_key(), ExtendedKeyUsageOID.CLIENT_AUTH
        begin, end = min(self.begins, now - BACKDATE), self._end(now, lifetime)
        return Issued(_key_pem(key), self._issue(subject, key.public_key(), [], purpose, begin, end))

    def issue_process(self, now: datetime, lifetime: timedelta) -> Issued:
        """For a process of this cloud that asks another one."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, PROCESS_URI)])
        key, purpose = _new_key(), ExtendedKeyUsageOID.CLIENT_AUTH
        identity = [x509.UniformResourceIdentifier(PROCESS_URI)]
        begin, end = now - BACKDATE, self._end(now, lifetime)
        return Issued(_key_pem(key), self._issue(subject, key.public_key(), identity, purpose, begin, end))

    def sign_node(self, request: bytes, node: Node, now: datetime, lifetime: timedelta) -> bytes:
        """Certificate (PEM) of a node from its request (PEM); raises BadCertificate."""
        public = _requested(request).public_key()
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "roost:nodes"),
                x509.NameAttribute(NameOID.COMMON_NAME, _common_name(node)),
            ]
        )
        identity = [x509.UniformResourceIdentifier(node.uri)]
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH
        return self._issue(subject, public, identity, purpose, now - BACKDATE, self._end(now, lifetime))

    def _end(self, now: datetime, lifetime: timedelta) -> datetime:
        """When what is issued now ends: counted from a time that has passed even if the clock is behind."""
        return min(max(now, RELEASED) + lifetime, self.ends)

    def _issue(
        self,
        subject: x509.Name,
        public: object,
        alternatives: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        begin: datetime,
        end: datetime,
    ) -> bytes:
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise BadCertificate("only EC keys are signed")
        if end <= begin:
            raise BadCertificate(
                f"the authority itself ended at {self.ends:%Y-%m-%d}: renew it, or set the clock"
            )
        builder = _builder(subject, self._certificate.subject, public, begin, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


# -- requests, at the lower end


def new_key() -> bytes:
    """A new private key, PEM."""
    return _key_pem(_new_key())


def request(key: bytes) -> bytes:
    """A certificate signing request (PEM) for a key (PEM)."""
    private = _key(key)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def public_key(request: bytes) -> bytes:
    """Public key (DER) of a request (PEM); raises BadCertificate."""
    return _der(_requested(request).public_key())


def check_successor(authority: bytes, successor: bytes) -> None:
    """That a CA certificate (PEM) is the same authority's with a later end; raises BadCertificate.

    An authority is its key and its name. So who holds the pinned one may take its successor's word.
    """
    old, new = _certificate(authority), _certificate(successor)
    if _der(old.public_key()) != _der(new.public_key()) or old.subject != new.subject:
        raise BadCertificate("the authority that was offered is another one")
    try:
        new.verify_directly_issued_by(new)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BadCertificate(f"the authority that was offered did not sign itself: {error}") from None
    if new.not_valid_after_utc <= old.not_valid_after_utc:
        raise BadCertificate("the authority that was offered does not end later")


def check_issued(certificate: bytes, key: bytes, node: Node) -> None:
    """That a certificate (PEM) is for this key and node; raises BadCertificate."""
    found = _certificate(certificate)
    if _der(found.public_key()) != _der(_key(key).public_key()):
        raise BadCertificate("the certificate is for another key")
    if node_of(certificate) != node:
        raise BadCertificate(f"the certificate is not for {node}")


# -- reading certificates


def pin(certificate: bytes) -> str:
    """SHA-256 of a certificate (PEM) in hexadecimal."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode("ascii"))).hexdigest()
    except ValueError as error:
        raise BadCertificate(f"not a certificate: {error}") from None


def expires_at(certificate: bytes) -> datetime:
    """End of a certificate's life (PEM)."""
    return _certificate(certificate).not_valid_after_utc


def issued_at(certificate: bytes) -> datetime:
    """When a certificate (PEM) was made, by the authority's clock."""
    return _certificate(certificate).not_valid_before_utc + BACKDATE


def node_of(certificate: bytes) -> Node:
    """The node a certificate (PEM) is for; raises BadCertificate."""
    try:
        names = _certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    return only_node(uris)


def only_node(uris: list[str]) -> Node:
    """The node that the URIs of a certificate name; there must be exactly one."""
    if len(uris) != 1:
        raise BadCertificate(f"the certificate names {len(uris)} nodes, not one")
    try:
        return parse_uri(uris[0])
    except BadNode as error:
        raise BadCertificate(str(error)) from None


# -- servers


def server_file(
    authority: Authority,
    path: Path,
    names: Iterable[str],
    now: datetime,
    lifetime: timedelta = SERVER_LIFETIME,
) -> Path:
    """Key and certificate of a server in one PEM file; made anew when names changed or a third of
    its life is left. For `ssl.SSLContext.load_cert_chain`.

    One that ends later than it should was made by a clock that ran ahead, or the clock is behind now: it is
    good, and kept. When a new one can't be written, one that is still good is gone on with.
    """
    wanted = sorted(set(names))
    note, noted = path.with_suffix(".names"), f"{authority.pin} {' '.join(wanted)}"
    end = _server_end(path)
    same = note.exists() and note.read_text() == noted
    if end is not None and same and (now < end - lifetime / 3 or end >= authority.ends):
        return path
    issued = authority.issue_server(wanted, now, lifetime)
    try:
        note.unlink(missing_ok=True)
        write_private(path, issued.key + issued.certificate)
        write_private(note, noted.encode())
    except OSError:
        if end is None or end <= now:
            raise
    return path


def _server_end(path: Path) -> datetime | None:
    """When the server's certificate in a file ends. One that can't be read is like none: it is made again."""
    try:
        pem = path.read_bytes()
        _key(pem)
        return _certificate(pem).not_valid_after_utc
    except (FileNotFoundError, BadCertificate):
        return None


# -- inside


def _common_name(node: Node) -> str:
    """For people only, and bounded by X.509 to 64 characters; the identity is the URI."""
    return f"roost:{node}"[:64]


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"not a private key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("not an EC key")
    return key


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise BadCertificate(f"not a certificate: {error}") from None


def _requested(pem: bytes) -> x509.CertificateSigningRequest:
    if len(pem) > REQUEST_LIMIT:
        raise BadCertificate(f"a request of {len(pem)} bytes, the limit is {REQUEST_LIMIT}")
    try:
        found = x509.load_pem_x509_csr(pem)
        valid = found.is_signature_valid
        public = found.public_key()
    except (ValueError, InvalidSignature, TypeError) as error:
        raise BadCertificate(f"not a certificate request: {error}") from None
    if not valid:
        raise BadCertificate("the request is not signed by its own key")
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise BadCertificate("the request's key is not EC P-256")
    return found


def _der(public: object) -> bytes:
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise BadCertificate("not an EC key")
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin.astimezone(UTC))
        .not_valid_after(end.astimezone(UTC))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
