"""MariaDB with ``mariadb-backup`` and the ``hashicorp_key_management`` plugin.

Pure: argument lists, option files and parsers for what its tools write. Sources for the choices are
in ``docs/explanation/how-a-clone-stays-encrypted.md``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.errors import VerificationError
from orchestrator.flavors import backup_sets, mariadb_files, mariadb_sql, versions
from orchestrator.flavors.interface import (
    FailedStart,
    Flavor,
    Programs,
    SetFiles,
    StartFailure,
    Upstream,
)
from orchestrator.flavors.option_files import is_on
from orchestrator.flavors.quoting import quote_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.flavors.file_sets import FileSet
    from orchestrator.models import Coordinates

SEALED_DONOR_MILLISECONDS = 3_600_000
"""Caches shorter than this let a Vault that seals crash the donor in the middle of a run."""
LOG_COPY_MILLISECONDS = 100

_STARTING = "[Note] Starting MariaDB "
_ERROR_LINE = re.compile(r"\[ERROR\] (?:\w+: )?(.*)")
_VAULT_ANSWER = re.compile(r"hashicorp: Hashicorp server error: (\d+), .*")
"""The key plugin gives it as a warning, before the error that follows from it."""
_NO_ANSWER = re.compile(r"hashicorp: curl returned this error code: (?:5|6|7|28|35|52|56) .*")
"""curl: no such name, no connection, no answer in time, cut off."""
_DENIED_STATUS = "403"
_PAGES_LEFT = re.compile(r"InnoDB: To recover: (?:LSN [0-9/]{1,50}; )?([0-9]{1,15}) pages")
_URL_OPTION = "hashicorp_key_management_vault_url"
_CA_OPTION = "hashicorp_key_management_vault_ca"
_GTID = re.compile(r"([0-9]{1,10})-[0-9]{1,10}-[0-9]{1,20}")
_SLAVE_POS = re.compile(r"SET GLOBAL gtid_slave_pos = '([^'\n]*)';\n")
_CHANGE = re.compile(
    r"CHANGE MASTER (?:'(?P<channel>[^\n]*)' )?TO "
    r"(?:(?P<by_gtid>master_use_gtid = slave_pos)"
    r"|MASTER_LOG_FILE='(?P<file>[^'\n]*)', MASTER_LOG_POS=(?P<position>[0-9]{1,20}));\n"
)
_OLD_NAMES = SetFiles(
    info="xtrabackup_info",
    checkpoints="xtrabackup_checkpoints",
    binlog_info="xtrabackup_binlog_info",
    slave_info="xtrabackup_slave_info",
)
_NEW_NAMES = SetFiles(
    info="mariadb_backup_info",
    checkpoints="mariadb_backup_checkpoints",
    binlog_info="mariadb_backup_binlog_info",
    slave_info="mariadb_backup_slave_info",
)


def parse_program_version(text: str) -> str:
    """Return the server version that a ``--version`` output names.

    ``mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)`` and
    ``mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu`` both give ``10.11.19``.
    """
    found = re.search(r"(?<![\w.])([0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5})-MariaDB", text)
    return found.group(1) if found else ""


def parse_failed_start(text: str) -> FailedStart:
    """Return what the last start in a server's log says.

    The key plugin comes up first, and everything after it fails for want of keys.
    """
    last = text[max(text.rfind(_STARTING), 0) :]
    errors = tuple(line.strip() for line in _ERROR_LINE.findall(last))
    cause, reason = StartFailure.OTHER, next(iter(errors), "")
    if answer := _VAULT_ANSWER.search(last):
        is_denied = answer.group(1) == _DENIED_STATUS
        cause = StartFailure.VAULT_DENIES if is_denied else StartFailure.VAULT_UNAVAILABLE
        reason = answer.group()
    elif silence := _NO_ANSWER.search(last):
        cause, reason = StartFailure.VAULT_UNAVAILABLE, silence.group()
    return FailedStart(cause=cause, reason=reason.strip(), errors=errors)


def parse_binlog_info(text: str) -> Coordinates:
    """Return the coordinates in a ``…_binlog_info`` file.

    One record ``FILE<TAB>POSITION[<TAB>GTID]`` with a newline at its end; a GTID list may go on
    after a comma on a further line.

    Raises:
        VerificationError: It is not of this form, or was cut.
    """
    file, _, rest = text.removesuffix("\n").replace(",\n", ",").partition("\t")
    position, _, gtid = rest.partition("\t")
    if not text.endswith("\n"):
        raise VerificationError(f"no binary log coordinates in {text[:80]!r}")
    return backup_sets.need_coordinates(file, position, _need_gtid(gtid))


def parse_slave_info(text: str) -> tuple[Upstream, ...]:
    """Return what a ``…_slave_info`` file says, a channel each.

    Statements as the server takes them: first, where GTIDs are used, the position that is there
    already; then a CHANGE MASTER for each channel, without address and account. Names of channels
    are not escaped.

    Raises:
        VerificationError: It is not of this form, was cut, or names no source.
    """
    there = _SLAVE_POS.match(text)
    gtid = _need_gtid(there.group(1)) if there else ""
    return backup_sets.need_upstreams(text[there.end() if there else 0 :], _CHANGE, gtid=gtid)


def _need_gtid(text: str) -> str:
    found = [_GTID.fullmatch(part) for part in text.split(",")] if text else []
    domains = [one.group(1) for one in found if one]
    if len(domains) != len(found) or len(set(domains)) != len(domains):
        raise VerificationError(f"no GTID position in {text[:80]!r}")
    return text


def retarget_options(text: str, *, vault_url: str, vault_ca: str) -> str:
    """Return a set's ``backup-my.cnf`` with the keys' place changed.

    Prepare takes the plugin's options from this file alone; there is no command-line override.

    Raises:
        VerificationError: The file names no key plugin, although it should, or a value could not
            stand in it.
    """
    lines = text.removesuffix("\n").split("\n")
    if not any(line.startswith(f"{_URL_OPTION}=") for line in lines):
        raise VerificationError(
            "backup-my.cnf of the set does not name the key plugin",
            hint="is hashicorp_key_management loaded by an option (not INSTALL PLUGIN) on the donor?",
        )
    changed = [
        f"{_URL_OPTION}={quote_option(vault_url)}"
        if line.startswith(f"{_URL_OPTION}=")
        else f"{_CA_OPTION}={quote_option(vault_ca)}"
        if vault_ca and line.startswith(f"{_CA_OPTION}=")
        else line
        for line in lines
    ]
    return "\n".join(changed) + "\n"


def _is_set(options: Mapping[str, str], name: str) -> bool:
    value = options.get(name, "")
    return is_on(value) or (name == "log_bin" and value not in ("", "0", "OFF"))


class MariaDB(Flavor):
    """MariaDB 10.5 and later; tried with 10.11."""

    name = "mariadb"
    label = "MariaDB"
    own = Programs(
        client="mariadb",
        server="mariadbd",
        backup="mariadb-backup",
        stream="mbstream",
        print_defaults="my_print_defaults",
        binlog="mariadb-binlog",
    )
    config_dir = "/etc/mysql/mariadb.conf.d"
    unit = "mariadb"
    packages = "mariadb-server, mariadb-backup, pv, openssh-client, util-linux"
    keyrings = "hashicorp_key_management"
    option_groups = ("mysqld", "server", "mariadb", "mariadbd")
    series_groups = ("mysqld-", "mariadb-", "mariadbd-")
    client_groups = ("mysql", "mariadb-client", "client", "client-server", "client-mariadb")
    # It speaks TLS by socket too, and would read every CA of the system first, most of its time; it
    # has no use for them there. An account that requires TLS is let in as before.
    socket_environment = ("SSL_CERT_FILE=/dev/null",)
    carries_keys = False
    prepared_types = ("log-applied", "full-prepared")  # 10.11 was seen to write the first
    default_event_scheduler = "OFF"
    accounts_table = "mysql.global_priv"
    variables_sql = mariadb_sql.VARIABLES_SQL

    def trust_options(self, version: str, ca_file: str) -> list[str]:
        """Return the options.

        From 11.4 on, and without a CA, the replica's password vouches for the certificate. The client
        has none here, and would refuse it by default.
        """
        if ca_file:
            return ["--ssl-verify-server-cert", f"--ssl-ca={ca_file}"]
        by_password = bool(version) and versions.read_numbers(version) >= (11, 4)
        return [f"--{'disable-' if by_password else ''}ssl-verify-server-cert"]

    def dialect(self, version: str) -> mariadb_sql.MariaDBDialect:
        """Return the SQL of any version."""
        return mariadb_sql.MariaDBDialect()

    def list_file_sets(self, values: Mapping[str, str], *, datadir: str) -> tuple[FileSet, ...]:
        """Return the kinds of files that can lie outside of the data directory."""
        return mariadb_files.list_file_sets(values, datadir=datadir)

    def list_unlogged(self, options: Mapping[str, str], version: str) -> list[str]:
        """Return the options that are off, as they are by default."""
        wanted = ("log_bin", "log_slave_updates")
        return [
            f"{name}={options.get(name, 'off')}" for name in wanted if not _is_set(options, name)
        ]

    def has_gtid(self, variables: Mapping[str, str]) -> bool:
        """Return whether anything was logged: there are always GTIDs."""
        return bool(variables.get("gtid_binlog_pos"))

    def read_server_version(self, text: str) -> str:
        """Return the version that the server's ``--version`` names; empty if none."""
        return parse_program_version(text)

    def read_tool_version(self, text: str) -> str:
        """Return the server version that mariadb-backup was made for; empty if none."""
        return parse_program_version(text)

    def judge_tool(self, server_version: str, tool_version: str) -> str:
        """Return why this mariadb-backup does not fit: it must be of the server's own version."""
        if server_version and server_version == tool_version:
            return ""
        return "install the mariadb-backup of the server's own version"

    def judge_versions(self, donor: str, recipient: str) -> str:
        """Return why the recipient's server cannot take the data: it must be the donor's version."""
        return (
            ""
            if donor and donor == recipient
            else "install the donor's server version on the recipient"
        )

    def judge_tools(self, donor: str, recipient: str) -> str:
        """Return nothing: each tool is its server's, and the servers must be of one version."""
        return ""

    def set_files(self, version: str) -> SetFiles:
        """Return the names that mariadb-backup of this series gives.

        They were renamed in 11.1 (MDEV-18931).
        """
        return _NEW_NAMES if versions.read_numbers(version)[:2] >= (11, 1) else _OLD_NAMES

    def read_coordinates(self, text: str) -> Coordinates:
        """Return the coordinates in the set's file of them; see `parse_binlog_info`."""
        return parse_binlog_info(text)

    def read_upstreams(self, text: str) -> tuple[Upstream, ...]:
        """Return the donor's own sources in the set's file of them; see `parse_slave_info`."""
        return parse_slave_info(text)

    def backup_command(
        self,
        programs: Programs,
        *,
        parallel: int,
        tmp_dir: str,
        socket: str,
        defaults_file: str,
        options_file: str,
        slave_info: bool,
        extra_dir: str = "",
        from_lsn: int = 0,
        is_shared: bool = False,
    ) -> tuple[str, ...]:
        """Return the command that writes a backup as an mbstream to stdout."""
        command = [programs.backup]
        if defaults_file:
            command.append(f"--defaults-extra-file={defaults_file}")  # must be the first
        command += [
            "--backup",
            "--stream=mbstream",
            f"--target-dir={tmp_dir}",
            f"--parallel={parallel}",
        ]
        if not is_shared:
            # The end waits for the thread that copies the redo log, which looks each second by
            # default; it reads megabytes of the log each time, which a long reading is not to do
            # that often. Loose: a tool of another series may not know it.
            command.append(f"--loose-log-copy-interval={LOG_COPY_MILLISECONDS}")
        if slave_info:
            command.append("--slave-info")
        if extra_dir:
            command.append(f"--extra-lsndir={extra_dir}")
        if from_lsn:
            command.append(f"--incremental-lsn={from_lsn}")
        if socket:
            command.append(f"--socket={socket}")
        return tuple(command)

    def extract_command(
        self, programs: Programs, *, parallel: int, staging_dir: str
    ) -> tuple[str, ...]:
        """Return the command that extracts an mbstream from stdin."""
        return (programs.stream, "-x", f"--parallel={parallel}", f"--directory={staging_dir}")

    def prepare_command(
        self,
        programs: Programs,
        *,
        staging_dir: str,
        memory_bytes: int,
        options_file: str,
        increment_dir: str = "",
        has_more: bool = False,
    ) -> tuple[str, ...]:
        """Return the command that makes a set consistent.

        Before 10.2 the one for a set that increments come to had ``--apply-log-only``.
        """
        return (
            programs.backup,
            "--prepare",
            f"--use-memory={memory_bytes}",
            f"--target-dir={staging_dir}",
            *((f"--incremental-dir={increment_dir}",) if increment_dir else ()),
        )

    def restore_command(
        self,
        programs: Programs,
        *,
        staging_dir: str,
        new_datadir: str,
        parallel: int,
        rekey: bool,
        options_file: str,
    ) -> tuple[str, ...]:
        """Return the command that moves a prepared set into a new data directory.

        ``--no-defaults``, because with the server's defaults it was seen to put undo files into the
        live datadir and to exit 0.
        """
        return (
            programs.backup,
            "--no-defaults",
            "--move-back",
            f"--target-dir={staging_dir}",
            f"--datadir={new_datadir}",
        )

    def read_prepare_progress(self, words: str) -> dict[str, int]:
        """Return how many pages are left to recover, as InnoDB said last."""
        found = _PAGES_LEFT.findall(words)
        return {"pages_left": int(found[-1])} if found else {}

    def read_failed_start(self, text: str) -> FailedStart:
        """Return what the last start in the server's log says; see `parse_failed_start`."""
        return parse_failed_start(text)

    def quiet_drop_in(
        self,
        *,
        run_id: str,
        version: str,
        vault_url: str = "",
        ignored_directories: tuple[str, ...] = (),
    ) -> str:
        """Return the option file of a new replica that must stay quiet."""
        lines = [
            f"# written by xbvault for run {run_id}, until the replica is released",
            "[mariadb]",
            "skip-slave-start",
            "read_only=ON",
            "event_scheduler=OFF",
        ]
        lines += [f"ignore_db_dirs={name}" for name in ignored_directories]
        if vault_url:
            lines.append(f"hashicorp-key-management-vault-url={quote_option(vault_url)}")
        return "\n".join(lines) + "\n"

    def released_drop_in(
        self,
        *,
        run_id: str,
        version: str,
        read_only: bool,
        is_replica: bool = True,
        ignored_directories: tuple[str, ...] = (),
    ) -> str:
        """Return the option file that a released server keeps."""
        what = "is a replica" if is_replica else "was restored"
        lines = [f"# written by xbvault for run {run_id}: this server {what}", "[mariadb]"]
        lines += [f"ignore_db_dirs={name}" for name in ignored_directories]
        if read_only:
            # The events of a replica are disabled one by one.
            lines += ["read_only=ON", *(() if is_replica else ("event_scheduler=OFF",))]
        return "\n".join(lines) + "\n"
