"""What is done by hand with the servers' own tools, for each flavor with its own keys.

The flags are those that the product would give them: the arguments come from its flavors. What a
person would have done long before the clone, such as lending the recipient the keys, is done by
`lend_keys`, which nobody times.
"""

from __future__ import annotations

import secrets
import shlex
from typing import TYPE_CHECKING, Protocol

from lab import bao, servers
from lab.commands import wait_until
from lab.errors import LabError

from benchmark.errors import WayFailedError
from benchmark.stand import DATADIR, SECRETS, SERVER_ENVIRONMENT, SOCKET, WORK
from orchestrator.flavors import mysql_commands, mysql_files, mysql_sets
from orchestrator.flavors.mysql_commands import TargetKeyring
from orchestrator.flavors.mysql_keyrings import KeyringKind, component_keyring_file_conf
from orchestrator.models import Coordinates, Secret
from orchestrator.steps import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmark.stand import Stand

SET = f"{WORK}/set"
"""Where a backup set lands."""
OWN_TOKEN = f"set -a; . {servers.VAULT_ENV}; set +a"
LENT_TOKEN = f"set -a; . {SERVER_ENVIRONMENT}; set +a"
_LOG = f"{SECRETS}/tool.log"
_BENCH_MOUNT = "bench-transition"
_TRANSITION_MOST_VERSIONS = 1000
_KEYRING = "/var/lib/mysql-keyring/keyring"


class Hands(Protocol):
    """The phases by hand, on one flavor."""

    def lend_keys(self) -> None:
        """Let the recipient read what it needs of the donor's keys."""

    def backup(self, *, quick: bool = True) -> str:
        """Return the shell text, for the donor, that writes a backup to stdout.

        Args:
            quick: Whether with the product's flags; otherwise with none but those that it needs.
        """

    def extract(self, *, quick: bool = True) -> str:
        """Return the shell text, for the recipient, that extracts a stream into the set."""

    def prepare(self) -> None:
        """Make the set consistent."""

    def restore(self, *, copy: bool = False) -> None:
        """Put the set into the empty datadir, and give it to the server's user."""

    def read_coordinates(self) -> Coordinates:
        """Return the coordinates in the set that was restored."""


def choose_hands(stand: Stand) -> Hands:
    """Return the hands for a stand's flavor."""
    return MySQLHands(stand) if stand.flavor.carries_keys else MariaDBHands(stand)


def need_completed(stand: Stand) -> None:
    """See that the backup tool on the donor says of itself that all is well.

    Raises:
        WayFailedError: It does not.
    """
    words = stand.run(stand.donor, f"tail -n 5 {_LOG}")
    if not words.rstrip().endswith("completed OK!"):
        raise WayFailedError(f"the backup tool: {words.strip()}")


def start_server(stand: Stand) -> None:
    """Start the recipient's server, and wait until it answers."""
    stand.run(stand.recipient, f"{servers.SERVER} start")


def _tool(argv: Sequence[str], *, token: str = "") -> str:
    """Return the shell text that runs a backup tool, its words kept in a file."""
    command = f"{shlex.join(argv)} 2>{_LOG}"
    return f"{{ {token}; {command}; }}" if token else command


class MariaDBHands:
    """mariadb-backup; the recipient reads the donor's keys from the donor's own mount.

    Args:
        stand: The laboratory.
    """

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._files = stand.flavor.set_files(stand.plan.server_version)
        self._memory = prepare_bytes(stand)
        self._coordinates = ""

    def lend_keys(self, mount: str = "", *options: str) -> None:
        """Let the recipient read the donor's mount, or another one; its server starts with these."""
        mount = mount or self._stand.donor.vault_mount
        token = self._stand.make_token(mount)
        self._stand.write(self._stand.recipient, SERVER_ENVIRONMENT, f"VAULT_TOKEN={token}\n")
        url = f"hashicorp-key-management-vault-url = {self.mount_url(mount)}"
        self._stand.keep_quiet(url, *options)

    def mount_url(self, mount: str) -> str:
        """Return the URL by which a server reads keys from a mount."""
        return f"{self._stand.lab.vault_address}/v1/{mount}"

    def backup(self, *, quick: bool = True) -> str:
        """Return the shell text, for the donor, that writes a backup to stdout."""
        stand = self._stand
        argv: Sequence[str] = stand.flavor.backup_command(
            stand.programs,
            parallel=stand.plan.parallel,
            tmp_dir=f"{WORK}/scratch",
            socket=SOCKET,
            defaults_file="",
            options_file="",
            slave_info=False,
        )
        if not quick:
            argv = [stand.programs.backup, "--stream=mbstream", "--backup", "--target-dir=backup/"]
        return _tool(argv, token=OWN_TOKEN)

    def extract(self, *, quick: bool = True) -> str:
        """Return the shell text, for the recipient, that extracts a stream into the set."""
        stand = self._stand
        argv: Sequence[str] = stand.flavor.extract_command(
            stand.programs, parallel=stand.plan.parallel, staging_dir=SET
        )
        if not quick:
            argv = [stand.programs.stream, "-x", "-C", SET]
        return f"mkdir -p {SET} && {shlex.join(argv)}"

    def prepare(self) -> None:
        """Make the set consistent, with the keys of the mount that was lent."""
        stand = self._stand
        argv = stand.flavor.prepare_command(
            stand.programs, staging_dir=SET, memory_bytes=self._memory, options_file=""
        )
        stand.run(stand.recipient, f"{LENT_TOKEN}; {shlex.join(argv)}")
        self._coordinates = stand.run(stand.recipient, f"cat {SET}/{self._files.binlog_info}")

    def retarget(self, mount: str) -> None:
        """Have prepare read its keys from another mount than the donor's own."""
        change = f"s#^hashicorp_key_management_vault_url=.*#hashicorp_key_management_vault_url={self.mount_url(mount)}#"
        self._stand.run(self._stand.recipient, f"sed -i '{change}' {SET}/backup-my.cnf")

    def restore(self, *, copy: bool = False) -> None:
        """Put the set into the empty datadir, and give it to the server's user."""
        stand = self._stand
        argv: Sequence[str] = stand.flavor.restore_command(
            stand.programs,
            staging_dir=SET,
            new_datadir=DATADIR,
            parallel=stand.plan.parallel,
            rekey=False,
            options_file="",
        )
        if copy:
            argv = [stand.programs.backup, "--copy-back", f"--target-dir={SET}"]
        stand.run(stand.recipient, f"{shlex.join(argv)}; chown -R mysql:mysql {DATADIR}")

    def read_coordinates(self) -> Coordinates:
        """Return the coordinates that the set had when it was prepared."""
        return self._stand.flavor.read_coordinates(self._coordinates)

    def make_transition_mount(self) -> tuple[str, int]:
        """Make a mount with the donor's key versions and two new ones, as the product would.

        Returns:
            The mount, and the first of the new versions.
        """
        stand = self._stand
        if _BENCH_MOUNT in stand.vault.list_mounts():
            stand.vault.remove_mount(_BENCH_MOUNT)
        asked = {"type": "kv", "options": {"version": "2"}}
        stand.request("POST", f"sys/mounts/{_BENCH_MOUNT}", asked)

        def is_ready() -> bool:  # it is being upgraded for a moment
            try:
                most = {"max_versions": _TRANSITION_MOST_VERSIONS}
                stand.request("POST", f"{_BENCH_MOUNT}/config", most)
            except LabError:
                return False
            return True

        wait_until(is_ready, f"the mount {_BENCH_MOUNT}", timeout_seconds=20)
        newest = 0
        for key_id in stand.vault.list_secrets(stand.donor.vault_mount):
            versions = stand.vault.live_versions(stand.donor.vault_mount, key_id)
            for version in versions:
                found = stand.vault.read_secret(stand.donor.vault_mount, key_id, version)
                stand.vault.write_secret(_BENCH_MOUNT, key_id, found)
            for _ in range(2):
                bao.write_key(stand.lab, _BENCH_MOUNT, int(key_id), secrets.token_hex(32))
            newest = max(newest, *versions)
        return _BENCH_MOUNT, newest + 1


class MySQLHands:
    """XtraBackup, here its double; the keys travel in the set, under a transition key.

    Args:
        stand: The laboratory.
    """

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._files = stand.flavor.set_files(stand.plan.server_version)
        self._key = Secret(secrets.token_hex(16))
        self._memory = prepare_bytes(stand)
        self._coordinates = ""

    def lend_keys(self) -> None:
        """Write the option files with the transition key on both hosts."""
        stand = self._stand
        backup = mysql_commands.backup_options(
            server_version=stand.plan.server_version, datadir=DATADIR, transition_key=self._key
        )
        stand.write(stand.donor, f"{SECRETS}/backup.cnf", backup.reveal())
        prepared = mysql_commands.prepare_options(staging_dir=SET, transition_key=self._key)
        stand.write(stand.recipient, f"{SECRETS}/prepare.cnf", prepared.reveal())
        keyring = component_keyring_file_conf(_KEYRING)
        stand.write(stand.recipient, self._keyring_config, keyring)
        stand.keep_quiet()

    @property
    def _keyring_config(self) -> str:
        return f"{SECRETS}/{KeyringKind.FILE_COMPONENT.config_name}"

    def backup(self, *, quick: bool = True) -> str:
        """Return the shell text, for the donor, that writes a backup to stdout."""
        stand = self._stand
        return _tool(
            stand.flavor.backup_command(
                stand.programs,
                parallel=stand.plan.parallel if quick else 1,
                tmp_dir=f"{WORK}/scratch",
                socket=SOCKET,
                defaults_file="",
                options_file=f"{SECRETS}/backup.cnf",
                slave_info=False,
            )
        )

    def extract(self, *, quick: bool = True) -> str:
        """Return the shell text, for the recipient, that extracts a stream into the set."""
        stand = self._stand
        argv = stand.flavor.extract_command(
            stand.programs, parallel=stand.plan.parallel if quick else 1, staging_dir=SET
        )
        return f"mkdir -p {SET} && {shlex.join(argv)}"

    def prepare(self) -> None:
        """Make the set consistent."""
        stand = self._stand
        argv = stand.flavor.prepare_command(
            stand.programs,
            staging_dir=SET,
            memory_bytes=self._memory,
            options_file=f"{SECRETS}/prepare.cnf",
        )
        stand.run(stand.recipient, f"cd {SET}; {shlex.join(argv)}")
        self._coordinates = stand.run(stand.recipient, f"cat {SET}/{self._files.binlog_info}")
        told = stand.run(stand.recipient, f"cat {SET}/backup-my.cnf")
        options = mysql_commands.restore_options(
            tool_version=stand.plan.tool_version,
            new_datadir=DATADIR,
            set_options=mysql_sets.parse_set_options(told),
            keyring=TargetKeyring(kind=KeyringKind.FILE_COMPONENT, config=self._keyring_config),
            transition_key=self._key,
        )
        stand.write(stand.recipient, f"{SECRETS}/restore.cnf", options.reveal())

    def restore(self, *, copy: bool = False) -> None:
        """Put the set into the empty datadir under a new master key; it is copied in any case."""
        stand = self._stand
        argv = stand.flavor.restore_command(
            stand.programs,
            staging_dir=SET,
            new_datadir=DATADIR,
            parallel=1 if copy else stand.plan.parallel,
            rekey=True,
            options_file=f"{SECRETS}/restore.cnf",
        )
        left = mysql_files.list_leftovers(self.read_coordinates())
        stand.run(
            stand.recipient,
            f"{shlex.join(argv)}\ncd {DATADIR}\nrm -f -- {shlex.join(left)}\n"
            f"cp {self._keyring_config} .\n"
            """echo '{"components": "file://component_keyring_file"}' >mysqld.my\n"""
            f"chown -R mysql:mysql {DATADIR} {_KEYRING}\nchmod 0444 mysqld.my",
        )

    def read_coordinates(self) -> Coordinates:
        """Return the coordinates that the set had when it was prepared."""
        return self._stand.flavor.read_coordinates(self._coordinates)


def prepare_bytes(stand: Stand) -> int:
    """Return the memory that the product would give to prepare."""
    told = stand.run(stand.recipient, "grep MemAvailable /proc/meminfo")
    available = int(told.split()[1]) * 1024
    return min(max(available // 4, prepare.LEAST_PREPARE_BYTES), prepare.MOST_PREPARE_BYTES)
