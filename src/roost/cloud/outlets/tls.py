"""TLS towards receivers: which authorities count, and the certificate that proves us."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from roost.cloud.outlets.pausing import Failed
from roost.engine.authorities import trusting


def context_of(ca_bundle: str, credentials: Mapping[str, bytes]) -> ssl.SSLContext:
    """A client's context; raises Failed when the certificates can't be used.

    `ssl` loads key pairs from files only: they are handed over in anonymous memory, and are never on a disk.
    """
    try:
        context = trusting(ca_bundle)
    except ssl.SSLError as error:
        raise Failed(
            f"the authorities in spec.caBundle can't be read: {error.reason or 'no PEM'}",
            "write them as PEM",
            halted=True,
            code="BadAuthority",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = credentials.get("tls.crt"), credentials.get("tls.key")
    if certificate and key:
        handle = os.memfd_create("outlet", os.MFD_CLOEXEC)
        try:
            with os.fdopen(handle, "wb", closefd=False) as file:
                file.write(certificate + b"\n" + key + b"\n")
            # Without a pass phrase given, OpenSSL asks for one at the terminal, and the whole cloud waits.
            context.load_cert_chain(f"/proc/self/fd/{handle}", password="")
        except OSError as error:
            raise Failed(
                "tls.crt and tls.key of its Secret can't be used together",
                "write a certificate and its key, PEM, without a pass phrase",
                halted=True,
                code="BadCertificate",
            ) from error
        finally:
            os.close(handle)
    return context


def tls_failure(error: ssl.SSLError, host: str) -> Failed:
    """What a failed handshake means, with the next step."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failed(
            f"the certificate of {host} does not verify: {error.verify_message}",
            "set spec.caBundle to its authority, and check the name in it",
            code="CertificateNotTrusted",
        )
    return Failed(
        f"TLS with {host} failed: {error.reason or 'it ended the handshake'}",
        "check that it speaks TLS on this port, and whether it wants a client certificate (tls.crt, tls.key)",
        code="TlsFailed",
    )
