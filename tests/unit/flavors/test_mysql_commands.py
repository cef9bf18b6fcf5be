"""Commands and option files for every pair of server and tool, with every keyring."""

from __future__ import annotations

import itertools
import re

import golden
import pytest

from orchestrator.errors import VerificationError
from orchestrator.flavors import mysql_commands as commands
from orchestrator.flavors.mysql_keyrings import KeyringKind as Kind
from orchestrator.flavors.mysql_keyrings import judge_keyring, list_keyrings
from orchestrator.models import Secret

KEY = Secret("0123456789abcdef" * 4)
PAIRS = {
    "2.4": ("5.7.44-48", "2.4.29"),
    "8.0": ("8.0.46-37", "8.0.35-34"),
    "8.4": ("8.4.11-11", "8.4.0-5"),
    "9.7": ("9.7.2-2", "9.7.1-rc1"),
}
SET_OPTIONS = {
    "innodb_checksum_algorithm": "crc32",
    "innodb_data_file_path": "ibdata1:12M;ibdata2:12M:autoextend",
    "innodb_page_size": "16384",
    "innodb_undo_directory": "/srv/undo",
    "innodb_undo_tablespaces": "2",
    "plugin_load": "keyring_vault.so",
    "server_uuid": "c14d6d67-e5fb-11f1-a307-1a083b08fc0d",
}
CONFIGS = {
    Kind.VAULT_PLUGIN: "/run/xbvault/r/keyring_vault.conf",
    Kind.VAULT_COMPONENT: "/run/xbvault/r/component_keyring_vault.cnf",
    Kind.FILE_PLUGIN: "/var/lib/mysql-keyring/keyring",
    Kind.FILE_COMPONENT: "/run/xbvault/r/component_keyring_file.cnf",
}


def make_sections(server: str, tool: str) -> dict[str, str]:
    """Return every command and option file for a pair."""
    encrypted = {
        "backup": commands.backup_command(
            tool="xtrabackup",
            options_file="/run/xbvault/r/backup.cnf",
            parallel=4,
            tmp_dir="/tmp/xbvault-r",
            socket="/run/mysqld/mysqld.sock",
            slave_info=False,
        ),
        "extract": commands.extract_command(
            tool="xbstream", parallel=4, staging_dir="/var/lib/mysql.xbvault-staging-r"
        ),
        "prepare": commands.prepare_command(
            tool="xtrabackup",
            options_file="/run/xbvault/r/prepare.cnf",
            memory_bytes=1073741824,
        ),
        "backup of what has changed": commands.backup_command(
            tool="xtrabackup",
            options_file="/run/xbvault/r/backup.cnf",
            parallel=4,
            tmp_dir="/tmp/xbvault-r",
            socket="",
            slave_info=False,
            from_lsn=29393291,
        ),
        "prepare before increments": commands.prepare_command(
            tool="xtrabackup",
            options_file="/run/xbvault/r/prepare.cnf",
            memory_bytes=1073741824,
            has_more=True,
        ),
        "prepare of the last increment": commands.prepare_command(
            tool="xtrabackup",
            options_file="/run/xbvault/r/prepare.cnf",
            memory_bytes=1073741824,
            increment_dir="/var/lib/mysql.xbvault-staging-r-increment-2",
        ),
        "restore": make_restore(rekey=True),
        "restore of a set without keys": make_restore(rekey=False),
    }
    sections = {name: "\n".join(command) for name, command in encrypted.items()}
    for with_key, key in (("", KEY), (" without a key", None)):
        sections[f"backup.cnf{with_key}"] = commands.backup_options(
            server_version=server,
            datadir="/srv/my sql",
            transition_key=key,
            includes=("/etc/mysql/xbvault-client.cnf",),
        ).reveal()
        sections[f"prepare.cnf{with_key}"] = commands.prepare_options(
            staging_dir="/var/lib/mysql.xbvault-staging-r", transition_key=key
        ).reveal()
    for kind in list_keyrings(server, is_percona=True):
        assert not judge_keyring(kind, server_version=server, is_percona=True, tool_version=tool)
        sections[f"restore.cnf with {kind.value}"] = make_options(tool, kind).reveal()
    sections["restore.cnf without a key"] = commands.restore_options(
        tool_version=tool,
        new_datadir="/var/lib/mysql.xbvault-new-r",
        set_options=SET_OPTIONS,
        keyring=None,
        transition_key=None,
    ).reveal()
    return {name: text.replace(KEY.reveal(), "KEY") for name, text in sections.items()}


def make_restore(*, rekey: bool) -> tuple[str, ...]:
    """Return the command of a restore."""
    return commands.restore_command(
        tool="xtrabackup",
        options_file="/run/xbvault/r/restore.cnf",
        staging_dir="/var/lib/mysql.xbvault-staging-r",
        new_datadir="/var/lib/mysql.xbvault-new-r",
        parallel=4,
        rekey=rekey,
    )


def make_options(tool: str, kind: Kind, **changes: str) -> Secret:
    """Return the option file of a restore into a keyring."""
    return commands.restore_options(
        tool_version=tool,
        new_datadir="/var/lib/mysql.xbvault-new-r",
        set_options=SET_OPTIONS,
        keyring=commands.TargetKeyring(kind=kind, **{"config": CONFIGS[kind], **changes}),
        transition_key=KEY,
    )


@pytest.mark.parametrize("series", PAIRS)
def test_commands_of_a_pair(series: str) -> None:
    """They are those that were read and approved."""
    made = golden.format_sections(make_sections(*PAIRS[series]))
    assert made == golden.read(f"mysql-commands-{series}", made=made)


@pytest.mark.parametrize("series", PAIRS)
def test_no_command_knows_the_key(series: str) -> None:
    """The key stands in option files, once each, in quotes; arguments have none."""
    for name, text in make_sections(*PAIRS[series]).items():
        if ".cnf" in name and "without" not in name:
            assert text.count("KEY") == text.count('transition-key="KEY"\n') == 1, name
        else:
            assert "KEY" not in text, name
            assert "transition-key" not in text, name


@pytest.mark.parametrize("series", PAIRS)
def test_the_option_file_is_the_first_argument(series: str) -> None:
    """Elsewhere the tool refuses it; prepare does not name its set, or it would not read it."""
    sections = make_sections(*PAIRS[series])
    for name in ("backup", "prepare", "restore", "restore of a set without keys"):
        assert sections[name].split("\n")[1].startswith("--defaults-file=/")
        assert "--strict" in sections[name]
    assert "--target-dir" not in sections["prepare"]
    assert "target-dir=/var/lib/mysql.xbvault-staging-r\n" in sections["prepare.cnf"]


def test_only_sets_without_keys_are_moved() -> None:
    """A rewritten file cannot be moved back."""
    assert "--copy-back" in make_restore(rekey=True)
    assert "--generate-new-master-key" in make_restore(rekey=True)
    assert "--move-back" in make_restore(rekey=False)
    assert "--generate-new-master-key" not in make_restore(rekey=False)


@pytest.mark.parametrize("kind", Kind)
def test_a_restore_stays_in_its_directory(kind: Kind) -> None:
    """No directory of the donor's is taken over, and all that InnoDB has are set."""
    text = make_options("8.0.35-34", kind).reveal()
    homes = re.findall(r"^innodb_\w+_(?:dir|directory)=(.*)$", text, re.MULTILINE)
    assert homes == ["/var/lib/mysql.xbvault-new-r"] * 3
    assert "/srv/undo" not in text
    assert "server_uuid" not in text
    assert "!include" not in text


@pytest.mark.parametrize("kind", [Kind.VAULT_PLUGIN, Kind.FILE_PLUGIN])
def test_a_plugin_is_named_before_its_settings(kind: Kind) -> None:
    """It is the first option of the first group; settings before it were seen to be lost."""
    lines = make_options("2.4.29", kind).reveal().split("\n")
    assert lines[:2] == ["[mysqld]", f"early-plugin-load={kind.value}.so"]
    assert lines[2].startswith("keyring_")


@pytest.mark.parametrize(
    ("tool", "option"),
    [
        ("8.0.25-17", "component-keyring-file-config"),
        ("8.0.26-18", "component-keyring-file-config"),
        ("8.0.27-19", "component-keyring-config"),
        ("8.4.0-5", "component-keyring-config"),
    ],
)
def test_the_option_of_a_component(tool: str, option: str) -> None:
    """It was renamed."""
    text = make_options(tool, Kind.FILE_COMPONENT).reveal()
    assert f"\n{option}={CONFIGS[Kind.FILE_COMPONENT]}\n" in text


@pytest.mark.parametrize("kind", [Kind.VAULT_COMPONENT, Kind.FILE_COMPONENT])
def test_a_component_is_known_by_the_name_of_its_configuration(kind: Kind) -> None:
    """With another name the tool would abort, so nothing is begun."""
    with pytest.raises(VerificationError, match=kind.value):
        make_options("8.4.0-5", kind, config="/run/xbvault/r/keyring.cnf")


def test_the_tools_own_plugins() -> None:
    """Where they are can be told."""
    text = make_options("2.4.29", Kind.VAULT_PLUGIN, plugin_dir="/opt/pxb/plugin").reveal()
    assert "\nxtrabackup-plugin-dir=/opt/pxb/plugin\n" in text
    assert "plugin-dir" not in make_options("2.4.29", Kind.VAULT_PLUGIN).reveal()


def test_what_the_donor_replicates_from() -> None:
    """It is recorded on request, and the socket is named where there is one."""
    command = commands.backup_command(
        tool="/opt/pxb/bin/xtrabackup",
        options_file="/o",
        parallel=1,
        tmp_dir="/t",
        socket="",
        slave_info=True,
    )
    assert command[0] == "/opt/pxb/bin/xtrabackup"
    assert "--slave-info" in command
    assert not any("--socket" in part for part in command)


@pytest.mark.parametrize("path", ["etc/my.cnf", "", "/a\nb", "/a ", "/a\0b", " /a"])
def test_paths_that_cannot_be_included(path: str) -> None:
    """Such a line would include another file, or none."""
    with pytest.raises(VerificationError, match="cannot be included"):
        commands.backup_options(
            server_version="8.4.0", datadir="/d", transition_key=KEY, includes=(path,)
        )


@pytest.mark.parametrize("path", ["/data/ibdata1:1G", "ibdata1:12M;/raw/data2:1G:autoextend"])
def test_a_system_tablespace_elsewhere_is_refused(path: str) -> None:
    """The tool would write to that path on the recipient."""
    with pytest.raises(VerificationError, match="system tablespace by a path"):
        commands.restore_options(
            tool_version="8.4.0-5",
            new_datadir="/n",
            set_options={"innodb_data_file_path": path},
            keyring=None,
            transition_key=None,
        )


def test_goldens_cover_every_keyring_that_can_be() -> None:
    """Each kind is restored into at least once, and each file has its key quoted."""
    texts = [golden.read(f"mysql-commands-{series}") for series in PAIRS]
    for kind, text in itertools.product(Kind, ["\n".join(texts)]):
        assert f"[restore.cnf with {kind.value}]\n" in text
