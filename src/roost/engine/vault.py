"""Seals secret values before the store sees them, and opens them for controllers.

A sealed value is text: `roost:sealed:1:KEY:DATA`, where KEY names the key and DATA is base64 of a nonce of 12
random bytes and what AES-256-GCM makes of the value. Kind, namespace, name and field are the associated data:
a sealed value that is copied to another place does not open there.

Keys stand in one file, readable by its owner alone, replaced whole: the active key, and former ones for what
they sealed. Processes that share a database share the file; it is read again when it has changed. A value
whose key is missing is told with the field and the key, and nothing else is affected.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from roost.model import time

SEALED = "roost:sealed:1:"
_NONCE = 12
MOST_KEYS = 32


class VaultError(Exception):
    """Base of what can go wrong with keys and sealed values: why, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


class BadKeys(VaultError):
    """The file of keys can't be used."""


class Place(msgspec.Struct, frozen=True):
    """Where a value belongs. `field` is its path, as `data.password`."""

    kind: str
    namespace: str
    name: str
    field: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}, field {self.field}"


class Unopened(VaultError):
    """A sealed value does not open: which, and by which key it was sealed."""

    def __init__(self, place: Place, key: str, why: str) -> None:
        super().__init__(f"{place}: {why}", "bring back the file of keys, or set the value anew")
        self.place, self.key = place, key


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One data key. `retired` is when another took its place, empty for the active one."""

    id: str
    key: bytes
    created: str
    retired: str = ""

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, created={self.created!r}, retired={self.retired!r})"


class _File(msgspec.Struct, frozen=True):
    active: str
    keys: list[Key]


class Vault:
    """The keys of one cloud. `write` puts bytes at a path, wholly or not at all, for the owner alone."""

    def __init__(self, path: Path, write: Callable[[Path, bytes], None]) -> None:
        self._path, self._write = path, write
        self._version: tuple[int, int] | None = None
        self._file = _File("", [])
        self._ciphers: dict[str, AESGCM] = {}

    @classmethod
    def open(cls, path: Path, write: Callable[[Path, bytes], None], now: datetime) -> Vault:
        """The vault of a file of keys, which is made when there is none. Raises BadKeys."""
        vault = cls(path, write)
        if not path.exists():
            first = _new_key(now)
            vault._begin(_File(first.id, [first]))
        vault._look()
        return vault

    # -- sealing

    @property
    def active(self) -> str:
        """The key that new values are sealed by. Raises BadKeys."""
        self._look()
        return self._file.active

    def seal(self, place: Place, value: str) -> str:
        """A value as it is stored. Raises BadKeys."""
        key = self.active
        nonce = os.urandom(_NONCE)
        sealed = self._ciphers[key].encrypt(nonce, value.encode(), _bound(place))
        return f"{SEALED}{key}:{base64.b64encode(nonce + sealed).decode()}"

    def unseal(self, place: Place, sealed: str) -> str:
        """The value that was sealed for a place. Raises Unopened, BadKeys."""
        key = key_of(sealed)
        if key not in self._ciphers:
            self._look()
        if key not in self._ciphers:
            raise Unopened(
                place, key, f"it was sealed by key {key or '(none)'}, which {self._path.name} lacks"
            )
        try:
            text = sealed.rpartition(":")[2]
            data = base64.b64decode(text, validate=True)
            if base64.b64encode(data).decode() != text:
                raise ValueError("not as it was written")
            opened = self._ciphers[key].decrypt(data[:_NONCE], data[_NONCE:], _bound(place))
        except (InvalidTag, binascii.Error, ValueError) as error:
            why = f"what key {key} sealed there was changed, or moved there from another place"
            raise Unopened(place, key, why) from error
        return opened.decode()

    # -- keys

    def every_key(self) -> list[Key]:
        """All keys, the active one last. Raises BadKeys."""
        self._look()
        return sorted(self._file.keys, key=lambda k: (k.id == self._file.active, k.created))

    def rotate(self, now: datetime) -> str:
        """Make a new key the active one; the former stay for what they sealed. Raises BadKeys."""
        self._look()
        if len(self._file.keys) >= MOST_KEYS:
            raise BadKeys(f"{self._path} holds {MOST_KEYS} keys", "drop those that nothing is sealed by")
        new, stamp = _new_key(now), time.seconds(now)
        former = [k if k.retired else msgspec.structs.replace(k, retired=stamp) for k in self._file.keys]
        self._save(_File(new.id, [*former, new]))
        return new.id

    def drop(self, key: str) -> None:
        """Forget a former key: what it sealed opens never again. Raises BadKeys."""
        self._look()
        if key == self._file.active:
            raise BadKeys(f"key {key} is the active one", "rotate first")
        left = [k for k in self._file.keys if k.id != key]
        if len(left) == len(self._file.keys):
            raise BadKeys(f"there is no key {key}", "`roost secrets keys` lists them")
        self._save(_File(self._file.active, left))

    # -- the file

    def _look(self) -> None:
        """Read the file when it is another than the last time."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise BadKeys(f"{self._path} can't be read: {error.strerror}", "bring back the keys") from error
        version = (found.st_mtime_ns, found.st_ino)
        if version == self._version:
            return
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise BadKeys(
                f"{self._path} can be read by others", f"chmod 600 {self._path}, and rotate the key"
            )
        try:
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
            ciphers = {k.id: AESGCM(k.key) for k in file.keys}
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise BadKeys(f"{self._path} holds no keys: {error}", "bring back the keys") from error
        if file.active not in ciphers:
            raise BadKeys(f"{self._path} lacks its active key {file.active}", "bring back the keys")
        self._file, self._ciphers, self._version = file, ciphers, version

    def _begin(self, file: _File) -> None:
        """Make the file unless another process has meanwhile: the first one stands."""
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        self._write(draft, _encode(file))
        try:
            os.link(draft, self._path)
        except FileExistsError:
            return
        finally:
            draft.unlink(missing_ok=True)

    def _save(self, file: _File) -> None:
        self._write(self._path, _encode(file))
        self._version = None
        self._look()


def key_of(sealed: str) -> str:
    """The key that a value was sealed by; empty when it is no sealed value."""
    return sealed[len(SEALED) :].partition(":")[0] if sealed.startswith(SEALED) else ""


def _encode(file: _File) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file)) + b"\n"


def _new_key(now: datetime) -> Key:
    return Key(id=secrets.token_hex(4), key=AESGCM.generate_key(256), created=time.seconds(now))


def _bound(place: Place) -> bytes:
    return msgspec.json.encode([place.kind, place.namespace, place.name, place.field])
