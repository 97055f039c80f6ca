"""The vault: values open where they were sealed and nowhere else, and keys come and go without a gap."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.engine.vault import MOST_KEYS, SEALED, BadKeys, Place, Unopened, Vault, key_of
from roost.link.files import write_private

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HERE = Place("Secret", "central", "db", "data.password")


def vault(directory: Path) -> Vault:
    return Vault.open(directory / "keys" / "secrets", write_private, NOW)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return vault(tmp_path_factory.mktemp("vault"))


@given(value=st.text())
def test_a_sealed_value_opens_in_its_place_and_shows_nothing(shared: Vault, value: str) -> None:
    sealed = shared.seal(HERE, value)
    assert shared.unseal(HERE, sealed) == value
    assert sealed.startswith(SEALED) and key_of(sealed) == shared.active
    assert shared.seal(HERE, value) != sealed, "equal values look different"


@given(st.data())
def test_a_changed_or_moved_value_does_not_open(shared: Vault, data: st.DataObject) -> None:
    sealed = shared.seal(HERE, "s3cret")
    field = data.draw(st.sampled_from(["kind", "namespace", "name", "field"]))
    with pytest.raises(Unopened, match="moved"):
        shared.unseal(msgspec.structs.replace(HERE, **{field: "other"}), sealed)
    at = data.draw(st.integers(len(SEALED) + 9, len(sealed) - 3))
    changed = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
    with pytest.raises(Unopened):
        shared.unseal(HERE, changed)


def test_the_file_of_keys_is_the_owners_alone(tmp_path: Path) -> None:
    made = vault(tmp_path)
    path = tmp_path / "keys" / "secrets"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(BadKeys, match="chmod 600"):
        vault(tmp_path)
    assert "key" not in repr(made.every_key()[0]).replace("Key(", "")


def test_after_a_rotation_both_keys_open_and_the_new_one_seals(tmp_path: Path) -> None:
    one, other = vault(tmp_path), vault(tmp_path)
    old = one.seal(HERE, "a")
    new_key = one.rotate(NOW + timedelta(days=1))
    assert key_of(one.seal(HERE, "b")) == new_key
    assert one.unseal(HERE, old) == "a"
    assert key_of(other.seal(HERE, "c")) == new_key, "another process sees the new key"
    assert [k.retired for k in one.every_key()] == ["2026-11-24T00:00:00Z", ""]
    one.drop(key_of(old))
    with pytest.raises(Unopened) as error:
        one.unseal(HERE, old)
    assert error.value.key == key_of(old) and "Secret central/db, field data.password" in str(error.value)
    with pytest.raises(BadKeys, match="active"):
        one.drop(new_key)
    with pytest.raises(BadKeys, match="no key"):
        one.drop("nonsense")


def test_keys_are_bounded(tmp_path: Path) -> None:
    made = vault(tmp_path)
    for _ in range(MOST_KEYS - 1):
        made.rotate(NOW)
    with pytest.raises(BadKeys, match="drop"):
        made.rotate(NOW)


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense", b'{"active":"a","keys":[]}'])
def test_a_broken_file_of_keys_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    write_private(path, content)
    with pytest.raises(BadKeys, match="bring back"):
        Vault.open(path, write_private, NOW)


def test_keys_that_are_lost_while_running_are_told(tmp_path: Path) -> None:
    made = vault(tmp_path)
    (tmp_path / "keys" / "secrets").unlink()
    with pytest.raises(BadKeys, match="can't be read"):
        made.seal(HERE, "a")


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    program = f"""
from datetime import UTC, datetime
from pathlib import Path
from roost.engine.vault import Vault
from roost.link.files import write_private
print(Vault.open(Path({str(tmp_path / "keys")!r}), write_private, datetime.now(UTC)).active)
"""
    command = [sys.executable, "-c", program]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["keys"]
