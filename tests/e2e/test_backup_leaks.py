"""No secret of a stored backup or its restore is found anywhere but where it must be.

Every process is traced, and every small file sampled, while a backup is taken and restored. That
the scanner sees into each kind of place is proved in ``test_leaks.py``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from clone_lab import REPOSITORY, CloneLab, running_lab
from lab import bao, model, product
from leak_scanner import Content, Hit, Known, Recorder, leaks, scan, trees_of
from vault_root import VaultRoot

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(600),
]

RECORDS = "xbvault"
IDENTITY_FILE = re.compile(r"/run/xbvault/[^/]+/(?:\.xbvault\.\w+|identity)")
"""The one place for it: 0600 on the recipient's tmpfs, while a restore decrypts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found.

    Attributes:
        hits: Every place where a secret stood.
        programs: Host and name of every process that was traced.
    """

    hits: tuple[Hit, ...]
    programs: frozenset[tuple[str, str]]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """A backup and its restore that were watched, and all that was found."""
    folder = tmp_path_factory.mktemp("backup-leaks")
    with running_lab(folder / "lab", "--stores", "1", size=0.02, is_warm=False) as stand:
        lab, root = model.load(stand.directory), VaultRoot(stand.directory)
        recorder = Recorder(lab, folder / "seen")
        outputs: list[Content] = []
        with recorder:
            name = _run(stand, recorder, outputs, "backup", "master")
            _run(stand, recorder, outputs, "restore", "latest", "replica")
        keys = root.read_secret(RECORDS, f"transition-keys/{name}")
        deployment = root.read_secret(RECORDS, "backups/deployment")
        known = [
            Known(kind="transition-key", value=keys["key"].encode()),
            Known(kind="age-identity", value=keys["age_identity"].encode(), host="replica"),
            Known(kind="manifest-key", value=deployment["manifest_key"].encode()),
            *_read_tokens(lab),
        ]
        contents = [*recorder.contents(), *outputs]
        yield Evidence(
            hits=tuple(scan(known, contents=contents, trees=trees_of(lab))),
            programs=frozenset((c.host, c.name) for c in contents if c.seen_by == "strace"),
        )


def _run(stand: CloneLab, recorder: Recorder, outputs: list[Content], *arguments: str) -> str:
    """Run a command under watch; return the set."""
    command = recorder.command([*product.command(), *arguments, "--yes", "--json"])
    command[command.index("-o") + 1] += f".{arguments[0]}.strace"
    ended = subprocess.run(
        command,
        env={
            **os.environ,
            "XBVAULT_CONFIG": str(stand.config_file),
            "TMPDIR": str(recorder.temporary),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        cwd=REPOSITORY,
    )
    assert ended.returncode == 0, ended.stderr
    for shown, text in (("stdout", ended.stdout), ("stderr", ended.stderr)):
        outputs.append(Content(place="output", host="", name=shown, content=text.encode()))
    return str(json.loads(ended.stdout)["backup_id"])


def _read_tokens(lab: model.Lab) -> Iterator[Known]:
    """Yield the tokens that the laboratory was set up with."""
    path = product.orchestrator_token_file(lab)
    yield Known(kind="orchestrator-token", value=path.read_bytes().strip())
    yield Known(kind="root-token", value=bao.root_token(lab).encode())
    for host in lab.hosts:
        text = (host.root / "etc/mysql/vault.env").read_text(encoding="utf-8")
        value = text.partition("VAULT_TOKEN=")[2].splitlines()[0].strip("'\"")
        yield Known(kind="host-token", value=value.encode(), host=host.name)


def _is_identity_in_use(hit: Hit) -> bool:
    return (
        (hit.kind, hit.place, hit.host, hit.form, hit.seen_by)
        == ("age-identity", "tmpfs", "replica", "raw", "sample")
    ) and IDENTITY_FILE.fullmatch(hit.name) is not None


def test_a_stored_backup_and_its_restore_leak_nothing(evidence: Evidence) -> None:
    """No key, identity or token stands in a process, file, journal, log or output where none may."""
    found = [hit for hit in leaks(evidence.hits) if not _is_identity_in_use(hit)]
    assert not found, "\n".join(map(str, found))


def test_the_watch_was_awake(evidence: Evidence) -> None:
    """It saw the programs of both ways on their hosts, and the identity in the one place for it."""
    assert {
        ("master", "age"),
        ("master", "mariadb-backup"),
        ("store", "perl"),
        ("replica", "age"),
        ("replica", "mbstream"),
    } <= evidence.programs
    assert any(_is_identity_in_use(hit) for hit in evidence.hits)
