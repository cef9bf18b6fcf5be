"""How XtraBackup is called: its arguments, and the option files that carry what nobody may see. Pure.

The transition key stands in an option file and nowhere else. In the arguments every user of the host
could read it, and older tools copied it from there into the backup set; the tool's own prompt takes
the terminal's input and cuts a long key off.

Each option file is named by ``--defaults-file``. With ``--defaults-extra-file`` the tool would also
read the files that were compiled into it, whose ``[xtrabackup]`` group could change what it does:
those before ours and, what is worse, ``~/.my.cnf`` after it.
"""

from __future__ import annotations

import dataclasses
import posixpath
from typing import TYPE_CHECKING, Final

from orchestrator.errors import VerificationError
from orchestrator.flavors.quoting import quote_option
from orchestrator.flavors.versions import read_numbers
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.flavors.mysql_keyrings import KeyringKind

CARRIED_OPTIONS: Final = (
    "innodb_data_file_path",
    "innodb_page_size",
    "innodb_undo_tablespaces",
    "innodb_log_files_in_group",
)
"""Options of the donor's server by which the tool knows which files to put back."""
_HOMES: Final = ("innodb_data_home_dir", "innodb_undo_directory", "innodb_log_group_home_dir")
"""Set in every restore: newer tools take the donor's from the set, and they may be in use here."""
_FIRST_COMMON_CONFIG: Final = (8, 0, 27)
"""Before, the option for a component's configuration had another name."""
_FIRST_LOCK_CHOICE: Final = (8, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetKeyring:
    """Where a restore puts the new master key.

    Attributes:
        kind: Plugin or component.
        config: Its configuration file; for the plugin ``keyring_file``, the file of its keys.
        plugin_dir: Where the tool's own plugins and components are; empty for its default.
    """

    kind: KeyringKind
    config: str
    plugin_dir: str = ""


def backup_command(
    *,
    tool: str,
    options_file: str,
    parallel: int,
    tmp_dir: str,
    socket: str,
    slave_info: bool,
    extra_dir: str = "",
    from_lsn: int = 0,
) -> tuple[str, ...]:
    """Return the command that writes a backup as an xbstream to stdout.

    Args:
        tool: Name or path of the tool.
        options_file: What `backup_options` gave.
        parallel: Copy threads.
        tmp_dir: Where it may put what it needs in between.
        socket: The server's socket; empty for what the option file says.
        slave_info: Whether to record what the donor itself replicates from, and up to where.
        extra_dir: Where it leaves a copy of the set's checkpoints and information; empty: nowhere.
        from_lsn: Only pages that were changed since this log sequence number; 0: all of them.
    """
    command = [
        tool,
        f"--defaults-file={options_file}",  # must be the first
        "--backup",
        "--stream=xbstream",
        f"--target-dir={tmp_dir}",
        f"--parallel={parallel}",
        "--strict",  # a misspelt option fails; a tool that does not know this one skips it
        "--no-version-check",  # it would ask its maker's site
    ]
    if slave_info:
        command.append("--slave-info")
    if extra_dir:
        command.append(f"--extra-lsndir={extra_dir}")
    if from_lsn:
        command.append(f"--incremental-lsn={from_lsn}")
    if socket:
        command.append(f"--socket={socket}")
    return tuple(command)


def backup_options(
    *,
    server_version: str,
    datadir: str,
    transition_key: Secret | None,
    includes: tuple[str, ...] = (),
) -> Secret:
    """Return the option file of a backup.

    The server tells the tool its own settings, so its option files need not be read. Ours stand
    behind the included ones, for a later option wins.

    Args:
        server_version: Of the donor.
        datadir: Of the donor; the tool does not begin without.
        transition_key: Seals the tablespace keys; None where the donor has no keyring.
        includes: Option files with the account to log in with.

    Raises:
        VerificationError: A path could not stand in it.
    """
    lines = [*map(_include, includes), "[xtrabackup]", f"datadir={quote_option(datadir)}"]
    if read_numbers(server_version) >= _FIRST_LOCK_CHOICE:
        lines.append("lock-ddl=ON")
    return _with_key(lines, transition_key)


def extract_command(*, tool: str, parallel: int, staging_dir: str) -> tuple[str, ...]:
    """Return the command that extracts an xbstream from stdin."""
    return (tool, "-x", f"--parallel={parallel}", f"--directory={staging_dir}")


def prepare_command(
    *,
    tool: str,
    options_file: str,
    memory_bytes: int,
    increment_dir: str = "",
    has_more: bool = False,
) -> tuple[str, ...]:
    """Return the command that makes a set consistent.

    It does not name the set: with ``--target-dir`` in its arguments, the tool reads the set's own
    option file and passes over ours without a word.

    Args:
        tool: Name or path of the tool.
        options_file: What `prepare_options` gave; it names the set.
        memory_bytes: What the tool may use.
        increment_dir: An incremental set that is put into it; empty for none.
        has_more: Whether another one comes behind this one: then no transaction is rolled back yet,
            for a set that is past that takes no increment.
    """
    command = [tool, f"--defaults-file={options_file}", "--prepare", "--strict"]
    if has_more:
        command.append("--apply-log-only")
    if increment_dir:
        command.append(f"--incremental-dir={increment_dir}")
    return (*command, f"--use-memory={memory_bytes}")


def prepare_options(*, staging_dir: str, transition_key: Secret | None) -> Secret:
    """Return the option file of a prepare.

    Args:
        staging_dir: The set.
        transition_key: Opens its keys; None where the set has no file of them, for then the tool
            refuses one.

    Raises:
        VerificationError: The path could not stand in it.
    """
    text = _with_key(["[xtrabackup]", f"target-dir={quote_option(staging_dir)}"], transition_key)
    return Secret.join(text, _include(f"{staging_dir}/backup-my.cnf"), "\n")


def restore_command(
    *, tool: str, options_file: str, staging_dir: str, new_datadir: str, parallel: int, rekey: bool
) -> tuple[str, ...]:
    """Return the command that puts a prepared set into a new data directory.

    A set with encrypted tables is copied: the tool rewrites each file as soon as it is in its place,
    so a move that is cut off would leave neither the set nor the data directory whole. Any other is
    moved.

    Args:
        tool: Name or path of the tool.
        options_file: What `restore_options` gave.
        staging_dir: The set.
        new_datadir: An empty directory.
        parallel: Copy threads.
        rekey: Whether the set has tablespace keys, so that a new master key is made for them.
    """
    command = [tool, f"--defaults-file={options_file}"]
    command += ["--copy-back", "--generate-new-master-key"] if rekey else ["--move-back"]
    command += [
        f"--target-dir={staging_dir}",
        f"--datadir={new_datadir}",
        f"--parallel={parallel}",
        "--strict",
    ]
    return tuple(command)


def restore_options(
    *,
    tool_version: str,
    new_datadir: str,
    set_options: Mapping[str, str],
    keyring: TargetKeyring | None,
    transition_key: Secret | None,
) -> Secret:
    """Return the option file of a restore.

    Nothing of the recipient's own option files is read, so no file goes where its server keeps its
    own. A plugin comes first: the tool takes the first option that it does not know for the name of
    the program, and only ``early-plugin-load`` is found there all the same.

    Args:
        tool_version: Such as ``8.0.35-34``.
        new_datadir: An empty directory.
        set_options: Of the set's ``backup-my.cnf``.
        keyring: Gets the new master key; None where the set has no tablespace keys.
        transition_key: Opens the set's keys; None where it has none.

    Raises:
        VerificationError: The donor's system tablespace is named by absolute paths, a path could
            not stand in the file, or the configuration is not called after its component.
    """
    lines = ["[mysqld]"]
    if keyring and not keyring.kind.is_component:
        option = "keyring_vault_config" if keyring.kind.uses_vault else "keyring_file_data"
        lines.append(f"early-plugin-load={keyring.kind.library}")
        lines.append(f"{option}={quote_option(keyring.config)}")
    lines += [f"{name}={quote_option(new_datadir)}" for name in _HOMES]
    for name in CARRIED_OPTIONS:
        if name in set_options:
            lines.append(f"{name}={quote_option(_check_carried(set_options[name]))}")
    lines.append("[xtrabackup]")
    if keyring and keyring.kind.is_component:
        name = posixpath.basename(keyring.config)
        if name != keyring.kind.config_name:
            raise VerificationError(f"the configuration of {keyring.kind.value} is called {name!r}")
        is_common = read_numbers(tool_version) >= _FIRST_COMMON_CONFIG
        option = "component-keyring-config" if is_common else "component-keyring-file-config"
        lines.append(f"{option}={quote_option(keyring.config)}")
    if keyring and keyring.plugin_dir:
        lines.append(f"xtrabackup-plugin-dir={quote_option(keyring.plugin_dir)}")
    return _with_key(lines, transition_key)


def _with_key(lines: list[str], transition_key: Secret | None) -> Secret:
    """Return the lines, and the key in the group that they end with, in quotes."""
    text = "".join(f"{line}\n" for line in lines)
    if transition_key is None:
        return Secret.join(text)
    return Secret.join(text, 'transition-key="', transition_key, '"\n')


def _include(path: str) -> str:
    """Return the line that includes an option file; nothing can be quoted there."""
    if not path.startswith("/") or not path.isprintable() or path != path.strip():
        raise VerificationError(f"cannot be included by an option file: {path[:80]!r}")
    return f"!include {path}"


def _check_carried(value: str) -> str:
    if "/" in value:
        raise VerificationError(
            f"the donor names files of its system tablespace by a path: {value[:80]!r}",
            hint="such a server is not cloned: the files would go to the same path here",
        )
    return value
