"""The catalogue on a real set: stored by the product, spoiled by hand, and judged.

The set is stored once, and put back before each test.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import CloneLab, running_lab
from lab import bao, model

from orchestrator import config, vault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

REPOSITORY = "/srv/backups"
GOOD = "/root/good"
SECOND = f"{REPOSITORY}/$SET/part-000002.age"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring a laboratory with two repositories up, and store a backup in the first."""
    with running_lab(
        tmp_path_factory.mktemp("catalogue") / "lab", "--stores", "2", "--no-writer", size=0.02
    ) as found:
        found.xbvault("backup", "master", "--to", "store", "--yes")
        found.on("store", f"cp -a {REPOSITORY} {GOOD}")
        yield found


@pytest.fixture
def backup_id(lab: CloneLab) -> Iterator[str]:
    """Return the name of the set, whole in the first repository and in no other."""
    put_back(lab)
    yield lab.on("store", f"ls {GOOD}").strip()
    put_back(lab)


def put_back(lab: CloneLab) -> None:
    """Undo whatever a test has spoiled."""
    lab.on("store", f"rm -rf {REPOSITORY} && cp -a {GOOD} {REPOSITORY}")
    lab.on("store2", f"rm -rf {REPOSITORY} && mkdir -m 0700 {REPOSITORY}")


def call(lab: CloneLab, *arguments: str, **keywords: Any) -> tuple[int, Any]:
    """Return exit status and document of a command."""
    ended = lab.xbvault("backups", *arguments, "--json", check=False, **keywords)
    return ended.returncode, json.loads(ended.stdout)


def state_of(lab: CloneLab, backup_id: str) -> str:
    """Return what the list says of the set in the first repository."""
    status, listed = call(lab, "list", "--repo", "store")
    assert status == 0
    (state,) = [each["state"] for each in listed if each["backup_id"] == backup_id]
    return str(state)


def spoil(lab: CloneLab, backup_id: str, command: str) -> None:
    """Run a command as root on the repository's host, with SET for the set's name."""
    lab.on("store", f"SET={backup_id}; cd {REPOSITORY}/$SET && {command}")


def test_a_whole_set_is_listed_shown_and_verified(lab: CloneLab, backup_id: str) -> None:
    """By its name and as the latest one, for people and for programs."""
    status, (item,) = call(lab, "list")
    assert (status, item["backup_id"], item["state"]) == (0, backup_id, "complete")
    assert (item["repository"], item["host"], item["kind"]) == ("store", "master", "full")
    assert item["keys"] == {"state": "active", "destroyed_at": None, "destroyed_by": None}
    assert item["parts"] > 5
    for name in (backup_id, "latest", "latest:master"):
        status, shown = call(lab, "show", name)
        manifest = shown.pop("manifest")
        assert (status, shown) == (0, item)
        assert manifest["backup_id"] == backup_id
        status, document = call(lab, "verify", name)
        assert (status, document["status"], document["error"]) == (0, "verified", None)
        (found,) = document["sets"]
        assert [check["name"] for check in found["checks"]] == [
            "stored-manifest",
            "stored-files",
            "stored-sums",
            "stored-decrypts",
        ]
        assert str(manifest["stream_bytes"]) in found["checks"][-1]["evidence"]
    shown = lab.xbvault("backups", "show", "latest").stdout
    assert "state: complete" in shown
    assert f"transition-keys/{backup_id}" in shown
    assert "verified, in" in lab.xbvault("backups", "verify", "--all").stdout
    assert backup_id in lab.xbvault("backups", "list", "--host", "master").stdout
    assert lab.xbvault("backups", "list", "--host", "replica").stdout == "no backups\n"
    assert lab.xbvault("backups", "list", "--repo", "store2").stdout == "no backups\n"


def test_a_login_that_needs_sudo_sees_the_same(lab: CloneLab, backup_id: str) -> None:
    """Whole streams come through sudo as well."""
    with_sudo = lab.directory / "xbvault-dba.toml"
    assert call(lab, "list", config=with_sudo) == call(lab, "list")
    assert call(lab, "verify", backup_id, config=with_sudo)[0] == 0


SPOILED = {
    "no manifest": ("rm manifest.json", "no-manifest", "there is no manifest.json"),
    "being removed": ("mv manifest.json manifest.expired", "expired", "manifest.expired"),
    "a part missing": (f"rm {SECOND}", "file-missing", "part-000002.age is missing"),
    "a part cut": (f"truncate -s -1 {SECOND}", "wrong-size", "part-000002.age has 4194303 bytes"),
    "a link for a part": (
        f"mv {SECOND} /tmp/part; ln -s /tmp/part {SECOND}",
        "file-missing",
        "part-000002.age is no file",
    ),
    "a folder for a part": (f"rm {SECOND}; mkdir {SECOND}", "file-missing", "is no file"),
    "two parts swapped": (
        f"mv {SECOND} x; mv part-000003.age {SECOND}; mv x part-000003.age",
        "complete",
        "part-000002.age",
    ),
    "a byte flipped": (
        f"printf 'x' | dd of={SECOND} bs=1 seek=4096 conv=notrunc status=none",
        "complete",
        "part-000002.age",
    ),
    "a byte of the key bundle flipped": (
        "printf 'x' | dd of=$(ls | grep -v 'part-\\|manifest' | head -n 1) bs=1 conv=notrunc "
        "status=none",
        "complete",
        "is not what the backup stored",
    ),
    "a manifest of another deployment": (
        r"""sed -i 's/"deployment":"[0-9a-f]*"/"deployment":"00000000000000000000000000000000"/' """
        "manifest.json",
        "manifest-refused",
        "of another deployment",
    ),
    "a manifest of a newer format": (
        """sed -i 's/"format_version":1/"format_version":2/' manifest.json""",
        "manifest-refused",
        "newer format",
    ),
    "a manifest with another number": (
        """sed -i 's/"data_bytes":/"data_bytes":1/' manifest.json""",
        "manifest-refused",
        "not authentic",
    ),
    "a manifest cut": ("truncate -s 100 manifest.json", "manifest-refused", "cannot be read"),
    "an empty manifest": (": > manifest.json", "manifest-refused", "cannot be read"),
    "a huge manifest": ("truncate -s 65M manifest.json", "manifest-refused", "can be read"),
    "a link for a manifest": (
        "mv manifest.json /tmp/m; ln -s /tmp/m manifest.json",
        "manifest-refused",
        "was not read",
    ),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_set_is_not_verified(lab: CloneLab, backup_id: str, how: str) -> None:
    """Its state is told by the list where that can be seen, and `verify` names what is wrong."""
    command, state, words = SPOILED[how]
    spoil(lab, backup_id, command)
    assert state_of(lab, backup_id) == state
    status, document = call(lab, "verify", backup_id)
    assert (status, document["status"]) == (6, "failed")
    assert words in f"{document['error']['message']} {document['error']['problems']}"
    assert document["error"]["hint"]
    assert document["sets"][0]["ok"] is False
    assert call(lab, "show", backup_id)[0] == 0
    if state != "complete":
        assert call(lab, "show", "latest")[0] == 3


def test_a_file_too_many_is_told_and_does_no_harm(lab: CloneLab, backup_id: str) -> None:
    """Whatever its name."""
    spoil(lab, backup_id, "touch -- notes.txt '-rf' \"$(printf 'a\\nb\\033[31m')\"")
    assert state_of(lab, backup_id) == "unexpected-file"
    assert call(lab, "verify", backup_id)[0] == 0
    assert "\x1b" not in lab.xbvault("backups", "show", backup_id).stdout


def test_a_renamed_folder_is_another_set(lab: CloneLab, backup_id: str) -> None:
    """Its manifest is refused under the other name; folders of others are left alone."""
    other = f"{backup_id[:-8]}00000000"
    spoil(
        lab, backup_id, f"cd .. && mv $SET {other} && mkdir lost+found \"$(printf '\\033[31mx')\""
    )
    assert state_of(lab, other) == "manifest-refused"
    status, document = call(lab, "verify", other)
    assert status == 6
    assert f"is that of {backup_id}" in str(document["error"]["problems"])
    assert call(lab, "verify", backup_id)[0] == 3
    listed = lab.xbvault("backups", "list").stdout
    assert listed.count("foreign") == 2
    assert "\x1b" not in listed
    status, document = call(lab, "verify", "--all")
    assert (status, [each["backup_id"] for each in document["sets"]]) == (6, [other])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"rm -rf {REPOSITORY}", "there is no directory"),
        (f"rm -rf {REPOSITORY}; touch {REPOSITORY}", "there is no directory"),
        (f"mv {REPOSITORY} /srv/real; ln -s /srv/real {REPOSITORY}", "is a symbolic link"),
    ],
    ids=["missing", "a file", "a link"],
)
def test_a_repository_that_is_none_is_said(
    lab: CloneLab, backup_id: str, command: str, words: str
) -> None:
    """It is not taken for an empty one, by no command."""
    lab.on("store", command)
    for arguments in (("list",), ("show", "latest"), ("verify", backup_id), ("verify", "--all")):
        status, document = call(lab, *arguments)
        assert status == 3
        assert words in document["error"]["message"]
        assert document["error"]["host"] == "store"
    lab.on("store", "rm -rf /srv/real")


def test_a_set_in_two_repositories(lab: CloneLab, backup_id: str, tmp_path: Path) -> None:
    """It is listed twice and verified twice; to show it, one must be named."""
    machine = model.load(lab.directory)
    lab.on("store", f"tar -C {REPOSITORY} -cf /tmp/set.tar .")
    content = (machine.host("store").root / "tmp/set.tar").read_bytes()
    (machine.host("store2").root / "tmp/set.tar").write_bytes(content)
    lab.on("store2", f"tar -C {REPOSITORY} -xf /tmp/set.tar")
    status, listed = call(lab, "list")
    assert (status, {each["repository"] for each in listed}) == (0, {"store", "store2"})
    status, document = call(lab, "show", backup_id)
    assert (status, "--repo" in document["error"]["hint"]) == (2, True)
    assert call(lab, "show", backup_id, "--repo", "store2")[1]["repository"] == "store2"
    lab.on("store2", f"rm {REPOSITORY}/{backup_id}/part-000001.age")
    status, document = call(lab, "verify", backup_id)
    assert status == 6
    assert {each["repository"]: each["ok"] for each in document["sets"]} == {
        "store": True,
        "store2": False,
    }


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("show", "../../etc"), 2, "is no name of a backup set"),
        (("verify", "latest:"), 2, "is no name of a backup set"),
        (("show", "latest:nowhere"), 3, "no backup set of nowhere"),
        (("show", "20260101T000000Z-master-00000000"), 3, "no backup set 20260101T000000Z"),
        (("list", "--repo", "nowhere"), 2, "unknown repository 'nowhere'"),
    ],
)
def test_unknown_names(
    lab: CloneLab, backup_id: str, arguments: tuple[str, ...], status: int, words: str
) -> None:
    """Each is told, with what to do."""
    ended, document = call(lab, *arguments)
    assert ended == status
    assert words in document["error"]["message"]
    assert document["error"]["hint"]


def test_with_vault_sealed_nothing_is_told_of_a_set(lab: CloneLab, backup_id: str) -> None:
    """Neither good nor bad."""
    lab.lab("vault", "seal")
    try:
        for arguments in (("list",), ("verify", backup_id)):
            status, document = call(lab, *arguments)
            assert (status, document["error"]["error"]) == (5, "SecretStoreUnavailableError")
    finally:
        lab.lab("vault", "unseal")


def test_a_set_whose_keys_were_destroyed(lab: CloneLab, backup_id: str) -> None:
    """The last test here, for nothing brings them back: when and by whom, and all else still proved."""
    machine = model.load(lab.directory)
    settings = config.load(lab.config_file).vault
    token = str(bao.root_token_file(machine))
    root = vault.Vault.from_config(settings.model_copy(update={"token_file": token}))
    path = f"transition-keys/{backup_id}"
    found = root.read_metadata("xbvault", path)
    assert found
    end = {"state": "destroyed", "destroyed": "2026-11-22T12:00:00+00:00", "destroyed_by": "ops"}
    root.write_custom_metadata("xbvault", path, {**found.custom, **end})
    root.destroy_versions("xbvault", path, list(found.versions))
    status, (item,) = call(lab, "list")
    assert (status, item["state"], item["keys"]["state"]) == (0, "complete", "destroyed")
    assert item["keys"]["destroyed_by"] == "ops"
    status, document = call(lab, "verify", backup_id)
    assert (status, document["error"]["error"]) == (5, "SecretError")
    assert "destroyed on 2026-11-22T12:00:00+00:00 by ops" in document["error"]["message"]
    assert [check["name"] for check in document["sets"][0]["checks"]][-1] == "stored-sums"
    assert call(lab, "show", "latest")[0] == 3
