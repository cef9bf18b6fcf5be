from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import stored_sets
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_sets import BACKUP_ID, DEPLOYMENT, KEY, OTHER_ID, OTHER_KEY, PART_BYTES, make_manifest

from orchestrator import keys, models
from orchestrator.errors import SecretError, VerificationError
from orchestrator.models import Check, Coordinates, Secret
from orchestrator.repository import manifest, names
from orchestrator.repository.manifest import Manifest, StoredFile, TableChecksum

SEALED = manifest.seal_manifest(make_manifest(), KEY)
CLEAR: dict[str, Any] = json.loads(SEALED)["manifest"]

unhurried = settings(deadline=None)  # a shared machine pauses now and then


def open_sealed(data: bytes, key: Secret = KEY, backup_id: str = BACKUP_ID) -> Manifest:
    """Open a manifest as the set and the deployment that were asked for."""
    return manifest.open_manifest(data, backup_id=backup_id, deployment=DEPLOYMENT, key=key)


def write(clear: Any, key: Secret = KEY) -> bytes:
    """Write any document as a manifest with the right MAC, as a faulty program of ours would."""
    text = json.dumps(clear, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    mac = keys.authenticate(text.encode(), key)
    return f'{{"mac":"{mac}","manifest":{text}}}\n'.encode()


def file(name: str, size: int = PART_BYTES, sha256: str = "a1" * 32) -> StoredFile:
    """Return a file of a set."""
    return StoredFile(name=name, bytes=size, sha256=sha256)


def test_a_manifest_opens_to_what_was_sealed() -> None:
    """Every field comes back, and so do those that are empty."""
    assert open_sealed(SEALED) == make_manifest()
    bare = make_manifest(
        coordinates=None, checksums=(), files=(), key_versions={}, layout={}, checks=()
    )
    assert open_sealed(manifest.seal_manifest(bare, KEY)) == bare


def test_the_form_of_the_file_is_fixed() -> None:
    """One line of canonical JSON; the MAC is over the inner document alone, in that form."""
    text = SEALED.decode()
    head, _, inner = text.partition(',"manifest":')
    assert text.count("\n") == 1
    assert text.endswith("}}\n")
    assert ": " not in text
    assert "é" in text
    assert list(CLEAR) == sorted(field.name for field in dataclasses.fields(Manifest))
    assert head == f'{{"mac":"{keys.authenticate(inner[:-2].encode(), KEY)}"'
    assert KEY.reveal() not in text


def test_what_version_1_has_written_is_read_for_ever() -> None:
    """A manifest as it lies in repositories: no later program may refuse it."""
    data = (Path(__file__).parent / "samples" / "manifest-1.json").read_bytes()
    assert open_sealed(data) == make_manifest()
    assert data == SEALED


@unhurried
@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_any_altered_byte_is_noticed(position: int, flip: int) -> None:
    """A manifest with one byte changed, wherever it is, is refused."""
    data = bytearray(SEALED)
    data[position % len(data)] ^= flip
    with pytest.raises(VerificationError) as caught:
        open_sealed(bytes(data))
    assert BACKUP_ID in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        SEALED[:-1],
        SEALED[: len(SEALED) // 2],
        SEALED + b"\n",
        b" " + SEALED,
        b"\xef\xbb\xbf" + SEALED,
        SEALED.decode().encode("utf-16"),
        json.dumps(json.loads(SEALED)).encode(),
        json.dumps(json.loads(SEALED), indent=1).encode(),
        SEALED.replace(b'{"mac"', b'{"mac":"x","mac"', 1),
        SEALED.replace(b'"host":"db1"', b'"host":"db9","host":"db1"', 1),
        SEALED.replace("é".encode(), b"\\u00e9"),
        b"[]",
        b"null",
        b"[" * 100_000,
        b"1" * 5000,
        b'{"manifest":{}}',
        b'{"manifest":[],"mac":""}',
        b'{"manifest":{"format":"xbvault-backup-set","format_version":1},"mac":7}\n',
        b'{"mac":"' + b"0" * 64 + b'","manifest":{"format":"other","format_version":1}}\n',
        b'{"mac":"'
        + b"0" * 64
        + b'","manifest":{"format":"xbvault-backup-set","format_version":1,"x":"\\ud800"}}\n',
        b'{"mac":"'
        + b"0" * 64
        + b'","manifest":{"format":"xbvault-backup-set","format_version":1,"x":1e999}}\n',
    ],
)
def test_other_bytes_cannot_be_read(data: bytes) -> None:
    """What is cut, is written in another way or says a thing twice is none, whatever it means."""
    with pytest.raises(VerificationError, match=f"{BACKUP_ID} cannot be read"):
        open_sealed(data)


def test_there_is_a_bound_to_what_is_read_and_written() -> None:
    """The same one, so that what was written can be read again, whoever wrote it."""
    tables = (TableChecksum(schema="s", name="t" * 400_000, checksum="1"),) * 170
    large = make_manifest(checksums=tables)
    with pytest.raises(VerificationError, match="can be read"):
        manifest.seal_manifest(large, KEY)
    with pytest.raises(VerificationError, match=f"{BACKUP_ID} cannot be read"):
        open_sealed(write(models.as_json(large)))


@pytest.mark.parametrize("version", [2, 3, 10**30])
def test_a_newer_format_is_named_before_all_else(version: int) -> None:
    """Even where the rest looks otherwise, and the MAC is another."""
    for document in (
        {"manifest": CLEAR | {"format_version": version}, "mac": "0" * 64},
        {"manifest": {"format": manifest.FORMAT, "format_version": version}, "signature": []},
    ):
        with pytest.raises(VerificationError, match=f"{BACKUP_ID} is of a newer format") as caught:
            open_sealed(json.dumps(document, indent=1).encode())
        assert "later one" in caught.value.hint


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None, [1]])
def test_what_is_no_version_cannot_be_read(version: object) -> None:
    """Versions are whole numbers from 1 on, even with the right MAC."""
    with pytest.raises(VerificationError, match=r"cannot be read|what cannot"):
        open_sealed(write(CLEAR | {"format_version": version}))


def test_a_wrong_mac_names_the_set_and_nothing_else() -> None:
    """No word of the manifest is in the error."""
    data = write(CLEAR | {"host": "planted", "server_version": "planted"}, OTHER_KEY)
    with pytest.raises(VerificationError, match=f"{BACKUP_ID} is not authentic") as caught:
        open_sealed(data)
    assert caught.value.exit_status == 6
    assert "planted" not in str(caught.value.as_json())


def test_an_edited_manifest_with_the_old_mac_is_refused() -> None:
    """In canonical form, so that nothing but the MAC tells."""
    data = SEALED.replace(b"a2" * 32, b"a4" * 32)
    assert len(data) == len(SEALED)
    with pytest.raises(VerificationError, match="is not authentic"):
        open_sealed(data)


def test_another_deployment_is_named() -> None:
    """Whether its key is ours or not; its id is not shown."""
    for key in (KEY, OTHER_KEY):
        data = write(CLEAR | {"deployment": stored_sets.OTHER_DEPLOYMENT}, key)
        with pytest.raises(VerificationError, match=f"{BACKUP_ID} is a .* another deployment"):
            open_sealed(data)


def test_a_swapped_set_is_refused() -> None:
    """An authentic manifest in the folder of another set."""
    with pytest.raises(VerificationError, match=f"folder of {OTHER_ID} is that of {BACKUP_ID}"):
        open_sealed(SEALED, backup_id=OTHER_ID)


@pytest.mark.parametrize("name", ["", "..", "x\x1b[31m", "é" * 5000])
def test_what_is_no_backup_id_is_not_asked_for(name: str) -> None:
    """A folder's name comes from outside as well."""
    with pytest.raises(VerificationError, match="no name of a backup set") as caught:
        open_sealed(SEALED, backup_id=name)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


def test_what_is_no_key_neither_seals_nor_opens() -> None:
    """It is Vault that holds something else then."""
    with pytest.raises(SecretError):
        manifest.seal_manifest(make_manifest(), Secret("abc"))
    with pytest.raises(SecretError):
        open_sealed(SEALED, Secret("abc"))


@pytest.mark.parametrize("name", list(CLEAR))
def test_every_field_is_there(name: str) -> None:
    """A manifest that lacks one is refused, even under the right MAC."""
    less = {key: value for key, value in CLEAR.items() if key != name}
    with pytest.raises(VerificationError):
        open_sealed(write(less))


def test_a_field_that_is_not_of_this_version_is_refused() -> None:
    """At the top and further in: it could mean that the rest means something else."""
    part = CLEAR["parts"][0] | {"colour": "red"}
    for more in ({"colour": "red"}, {"parts": [part, *CLEAR["parts"][1:]]}):
        with pytest.raises(VerificationError, match="has one more"):
            open_sealed(write(CLEAR | more))


@pytest.mark.parametrize(
    "more",
    [
        {"host": 7},
        {"to_lsn": "7"},
        {"to_lsn": 7.0},
        {"to_lsn": True},
        {"parts": {}},
        {"parts": ["part-000001.age"]},
        {"coordinates": []},
        {"key_versions": {"1": "7"}},
        {"layout": {"datadir": None}},
        {"has_keyring": 1},
    ],
)
def test_a_value_of_another_kind_is_refused(more: dict[str, Any]) -> None:
    """Even under the right MAC."""
    with pytest.raises(VerificationError, match="none of this format"):
        open_sealed(write(CLEAR | more))


P1, P2, P3 = make_manifest().parts
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"format": "x"}, "format"),
    ({"format_version": 2}, "format"),
    ({"backup_id": "b1"}, "backup_id is none"),
    ({"backup_id": "20261121T210500Z-db2-6f2c09ab"}, "another host"),
    ({"deployment": "d"}, "deployment"),
    ({"flavor": "oracle"}, "flavor"),
    ({"xbvault_version": ""}, "version"),
    ({"server_version": "10\n"}, "version"),
    ({"tool_version": "9" * 101}, "version"),
    ({"age_recipient": stored_sets.AGE_RECIPIENT.upper()}, "age_recipient"),
    ({"age_recipient": "ssh-ed25519 AAAA"}, "age_recipient"),
    ({"key_path": "/transition-keys/b"}, "key_path"),
    ({"key_path": "a/../b"}, "key_path"),
    ({"compress": "auto"}, "compress"),
    ({"compress": "zstd"}, "compress"),
    ({"compress": "lz4"}, "compress"),
    ({"kind": "copy"}, "kind"),
    ({"base_backup_id": OTHER_ID}, "a full set"),
    ({"from_lsn": 1}, "a full set"),
    ({"kind": "incremental"}, "builds on another"),
    ({"kind": "incremental", "base_backup_id": BACKUP_ID}, "builds on another"),
    ({"kind": "incremental", "base_backup_id": OTHER_ID, "from_lsn": 99999999}, "to_lsn"),
    ({"to_lsn": -1}, "bounds"),
    ({"to_lsn": 1 << 63}, "bounds"),
    ({"data_bytes": -1}, "bounds"),
    ({"key_versions": {"1": -1}}, "bounds"),
    ({"began_at": "yesterday"}, "no moment"),
    ({"ended_at": "2026-11-21T21:05:00+00:00"}, "no moment"),
    ({"coordinates": Coordinates(file="bin.000002", position=-1)}, "coordinates"),
    ({"coordinates": None}, "at no coordinates"),
    ({"checks": (Check(name="coordinates", ok=False, evidence=""),)}, "check does not hold"),
    ({"checksums": (TableChecksum(schema="s", name="t", checksum="NULL"),)}, "checksum is none"),
    ({"parts": ()}, "no parts"),
    ({"part_bytes": 0}, "no parts"),
    ({"parts": (P2, P1, P3)}, "numbered"),
    ({"parts": (P1, P3)}, "numbered"),
    ({"parts": (P1, P1, P2, P3)}, "numbered"),
    ({"parts": (P1, file("part-000002.age", 5), P3)}, "part_bytes"),
    ({"parts": (P1, P2, file("part-000003.age", PART_BYTES + 1))}, "part_bytes"),
    ({"parts": (P1, P2, file("part-000003.age", 0))}, "part_bytes"),
    ({"stream_bytes": 3 * PART_BYTES}, "smaller"),
    ({"files": (file("a"), file("a"))}, "twice"),
    ({"files": (file("../x"),)}, "not for them"),
    ({"files": (file("manifest.json"),)}, "not for them"),
    ({"files": (file("part-000004.age"),)}, "not for them"),
    ({"files": (file("a", -1),)}, "size or sha256"),
    ({"files": (file("a", sha256="A1" * 32),)}, "size or sha256"),
]


@pytest.mark.parametrize(("changes", "problem"), WRONG)
def test_what_cannot_be_is_neither_written_nor_believed(
    changes: dict[str, Any], problem: str
) -> None:
    """A program of ours that is mistaken is found as well as one of others."""
    odd = make_manifest(**changes)
    with pytest.raises(VerificationError, match="says what cannot be") as caught:
        manifest.seal_manifest(odd, KEY)
    assert problem in " ".join(caught.value.problems)
    with pytest.raises(VerificationError):
        open_sealed(write(models.as_json(odd)))


def test_a_manifest_says_what_it_takes() -> None:
    """Size and files of the set."""
    found = make_manifest()
    assert found.stored_files == (*found.parts, *found.files)
    assert found.stored_bytes == 2 * PART_BYTES + 712 + 400
    assert found.is_full
    assert found.ended == names.parse_moment("2026-11-21T21:25:00.125Z")
