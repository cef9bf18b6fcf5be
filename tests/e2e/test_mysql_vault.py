"""The clone of an encrypted MySQL server onto one whose keyring is in Vault, undone and forgotten.

The servers beneath are real, but have their keys in a file: this MySQL has no component for Vault.
The double of XtraBackup stores the new master key in the recipient's own mount, over HTTPS, and gives
it to the server beneath only if it is really there. The donor's keyring is a file.
"""

from __future__ import annotations

import base64
import os
import re
import tomllib
from typing import TYPE_CHECKING

import pytest
from lab import bao, model
from mysql_lab import KEYRING, knobs, mysql_lab, program
from replicas import check_arrival
from vault_root import VaultRoot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]
MOUNT = "mysql-replica"
CONFIG_FILE = "/etc/mysql/component_keyring_vault.cnf"
OWN = re.compile(r"[0-9]+_(?:INNODBKey-[0-9a-f-]{36}-|MySQLReplicationKey_[0-9a-f-]{36}_)[0-9]+0_")
UUID = "SELECT @@GLOBAL.server_uuid"
PERCONA = """\
#!/bin/sh
case " $* " in
*" --version "*) /opt/mysql/bin/mysqld --version | sed 's/(.*$/(Percona Server (GPL))/' ;;
*) exec /opt/mysql/bin/mysqld "$@" ;;
esac
"""
START = """\
#!/bin/sh
# The server beneath has a keyring of another kind, which the run knows nothing of.
set -eu
install -o mysql -g mysql -m 0640 /etc/mysql/lab/component_keyring_file.cnf /var/lib/mysql
echo '{"components": "file://component_keyring_file"}' >/var/lib/mysql/mysqld.my
chmod 0444 /var/lib/mysql/mysqld.my
exec /usr/local/sbin/server start
"""


def list_names(lab: CloneLab) -> set[str]:
    """Return the names of the keys in the recipient's mount."""
    names = VaultRoot(lab.directory).list_secrets(MOUNT)
    return {base64.b64decode(name).decode() for name in names}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    with mysql_lab(tmp_path_factory.mktemp("mysql") / "lab") as found:
        yield found


@pytest.fixture(scope="module")
def config(lab: CloneLab) -> Iterator[Path]:
    """The configuration of a recipient with a keyring in Vault; its mount is there."""
    text = lab.config_file.read_text(encoding="utf-8")
    start = tomllib.loads(text)["hosts"]["replica"]["service"]["start"]
    head, _, tail = text.partition("[hosts.replica]")
    tail = tail.replace(f'start = ["{start[0]}", "start"]', 'start = ["/usr/local/sbin/start"]')
    tail = tail.partition("[hosts.replica.keyring]")[0]
    tail += f"""[hosts.replica.keyring]
kind = "component_keyring_vault"
config_file = "{CONFIG_FILE}"
"""
    path = lab.directory / "vault.toml"
    path.write_text(f"{head}[hosts.replica]{tail}", encoding="utf-8")
    seen = model.load(lab.directory)
    starter = seen.host("replica").root / "usr/local/sbin/start"
    starter.write_text(START.replace("/usr/local/sbin/server", start[0]), encoding="utf-8")
    starter.chmod(0o755)
    admin = str(bao.root_token_file(seen))
    lab.xbvault("vault", "init", "--yes", "--admin-token-file", admin, config=path)
    with (
        program(lab, "master", "mysqld", PERCONA),
        program(lab, "replica", "mysqld", PERCONA),
        knobs(lab, "replica", server_keyring=f"{KEYRING}/keyring"),
    ):
        yield path


def test_a_clone_into_a_keyring_in_vault(lab: CloneLab, config: Path) -> None:
    """The new key is in the recipient's mount, and its server has its configuration and the data."""
    lab.xbvault("vault", "check", config=config)
    lab.xbvault("hosts", "check", "replica", config=config)
    document = lab.clone(config=config)
    assert [check for check in document["checks"] if not check["ok"]] == []
    names = list_names(lab)
    assert names
    assert all(OWN.fullmatch(name) for name in names), names  # of the binary log as well
    assert lab.on("replica", f"stat -c '%U %a' {CONFIG_FILE}").strip() == "mysql 600"
    check_arrival(lab)


def test_undo_and_forget_keep_what_is_needed(lab: CloneLab, config: Path) -> None:
    """Undo takes no key away; forget takes that of the first clone, when its data is given up."""
    first = list_names(lab)
    undone = lab.clone("--replace", config=config)
    second = list_names(lab)
    assert first < second
    lab.xbvault("runs", "undo", undone["run_id"], "--yes", config=config)
    assert list_names(lab) == second
    kept = lab.clone("--replace", config=config)
    names = list_names(lab)
    assert second < names
    lab.xbvault("runs", "forget", kept["run_id"], "--yes", config=config)
    assert list_names(lab) == names - second
    lab.on("replica", "/usr/local/sbin/start")
    check_arrival(lab)


def test_a_host_that_does_not_trust_vault(lab: CloneLab, config: Path) -> None:
    """The restore ends with the tool's words, and the same run goes on once that is mended."""
    before = lab.sql("replica", UUID)
    bad = lab.directory / "bad.toml"
    text = config.read_text(encoding="utf-8")
    ca = tomllib.loads(text)["hosts"]["replica"]["vault_ca_file"]
    head, _, tail = text.partition("[hosts.replica]")
    bad.write_text(f"{head}[hosts.replica]{tail.replace(ca, '/etc/hostname')}", encoding="utf-8")
    failed = lab.clone("--replace", check=False, config=bad)
    assert failed["exit"] == 5
    assert "component_keyring_vault: CURL returned" in failed["error"]["message"]
    assert lab.sql("replica", UUID) == before
    resumed = lab.xbvault("runs", "resume", failed["run_id"], config=config)
    assert resumed.returncode == 0
    check_arrival(lab)
