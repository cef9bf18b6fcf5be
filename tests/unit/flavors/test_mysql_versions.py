"""Every cell of the tables of versions: words, tools, restores, defects."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.flavors import mysql_versions as versions

OLD = {
    "change_source": "CHANGE MASTER TO",
    "source_prefix": "MASTER_",
    "replica": "SLAVE",
    "source_column": "Master",
    "replica_column": "Slave",
    "binlog_status": "SHOW MASTER STATUS",
    "reset_binlogs": "RESET MASTER",
    "wait_for_position": "MASTER_POS_WAIT",
    "skip_start": "skip_slave_start",
    "logs_updates": "log_slave_updates",
    "disable_event": "DISABLE ON SLAVE",
    "disabled_status": "SLAVESIDE_DISABLED",
    "account_plugin": "mysql_native_password",
    "tablespaces": "information_schema.INNODB_SYS_TABLESPACES",
    "datafiles": "information_schema.INNODB_SYS_DATAFILES",
    "is_encrypted": "FLAG & 8192 <> 0",
    "has_keyring_keys": False,
    "has_component_status": False,
    "has_log_status": False,
    "has_backup_admin": False,
    "has_tagged_gtids": False,
    "shows_foreign_keys": False,
}
NEW = {
    "change_source": "CHANGE REPLICATION SOURCE TO",
    "source_prefix": "SOURCE_",
    "replica": "REPLICA",
    "source_column": "Source",
    "replica_column": "Replica",
    "binlog_status": "SHOW BINARY LOG STATUS",
    "reset_binlogs": "RESET BINARY LOGS AND GTIDS",
    "wait_for_position": "SOURCE_POS_WAIT",
    "skip_start": "skip_replica_start",
    "logs_updates": "log_replica_updates",
    "disable_event": "DISABLE ON REPLICA",
    "disabled_status": "REPLICA_SIDE_DISABLED",
    "account_plugin": "caching_sha2_password",
    "tablespaces": "information_schema.INNODB_TABLESPACES",
    "datafiles": "information_schema.INNODB_DATAFILES",
    "is_encrypted": "ENCRYPTION = 'Y'",
    "has_keyring_keys": True,
    "has_component_status": True,
    "has_log_status": True,
    "has_backup_admin": True,
    "has_tagged_gtids": True,
    "shows_foreign_keys": True,
}
CHANGED = {
    "account_plugin": ("5.7.44", "8.0.11"),
    "tablespaces": ("5.7.44", "8.0.11"),
    "datafiles": ("5.7.44", "8.0.11"),
    "has_log_status": ("5.7.44", "8.0.11"),
    "has_backup_admin": ("5.7.44", "8.0.11"),
    "shows_foreign_keys": ("5.7.44", "8.0.11"),
    "is_encrypted": ("8.0.12", "8.0.13"),
    "has_keyring_keys": ("8.0.15", "8.0.16"),
    "replica": ("8.0.21", "8.0.22"),
    "source_column": ("8.0.21", "8.0.22"),
    "replica_column": ("8.0.21", "8.0.22"),
    "change_source": ("8.0.22", "8.0.23"),
    "source_prefix": ("8.0.22", "8.0.23"),
    "has_component_status": ("8.0.23", "8.0.24"),
    "wait_for_position": ("8.0.25", "8.0.26"),
    "skip_start": ("8.0.25", "8.0.26"),
    "logs_updates": ("8.0.25", "8.0.26"),
    "binlog_status": ("8.1.0", "8.2.0"),
    "reset_binlogs": ("8.1.0", "8.2.0"),
    "disable_event": ("8.1.0", "8.2.0"),
    "disabled_status": ("8.1.0", "8.2.0"),
    "has_tagged_gtids": ("8.2.0", "8.3.0"),
}
"""Last version with the old word, first with the new one."""


@pytest.mark.parametrize("word", CHANGED)
def test_a_word_changes_at_its_version(word: str) -> None:
    """The last version with the old word and the first with the new one have theirs."""
    last, first = CHANGED[word]
    assert getattr(versions.choose_words(last), word) == OLD[word]
    assert getattr(versions.choose_words(first), word) == NEW[word]


def test_the_first_and_the_last_series_have_all_old_and_all_new_words() -> None:
    """No word is forgotten, and none changes twice."""
    assert set(CHANGED) == {field.name for field in dataclasses.fields(versions.Words)}
    for version in ("5.7.11", "5.7.13-log", "5.7.44-48-log"):
        assert dataclasses.asdict(versions.choose_words(version)) == OLD
    for version in ("8.3.0", "8.4.0", "8.4.11-11", "9.7.4-2"):
        assert dataclasses.asdict(versions.choose_words(version)) == NEW
    changed = [word for _, changes in versions.WORD_CHANGES for word in changes]
    assert sorted(changed) == sorted(CHANGED)
    assert list(versions.WORD_CHANGES) == sorted(versions.WORD_CHANGES, key=lambda row: row[0])


@pytest.mark.parametrize("version", ["5.6.51", "5.7.10", "5.5.62-log", "4.1.22"])
def test_servers_that_cannot_encrypt_are_refused(version: str) -> None:
    """They have none of what is asked of them later."""
    with pytest.raises(PreconditionError, match=r"older than 5\.7\.11"):
        versions.choose_words(version)
    assert "older than 5.7.11" in versions.judge_tool(version, "2.4.29")


@pytest.mark.parametrize("text", ["", "x", "8.0", "xtrabackup"])
def test_no_version(text: str) -> None:
    """What names none is not guessed."""
    with pytest.raises(VerificationError):
        versions.choose_words(text)
    with pytest.raises(VerificationError):
        versions.judge_tool("8.0.36", text)
    with pytest.raises(VerificationError):
        versions.judge_restore("8.0.36", text)
    with pytest.raises(VerificationError):
        versions.judge_tools("8.0.35-31", text)


@pytest.mark.parametrize(
    ("server", "tool"),
    [
        ("5.7.13-log", "2.4.20"),
        ("5.7.31", "2.4.20"),
        ("5.7.32", "2.4.21"),
        ("5.7.44-48-log", "2.4.29"),
        ("8.0.11", "8.0.22-15"),
        ("8.0.22", "8.0.22-15"),
        ("8.0.33", "8.0.33-28"),
        ("8.0.34", "8.0.34-29"),
        ("8.0.36-28", "8.0.34-29"),
        ("8.0.46-37", "8.0.35-34"),
        ("8.1.0", "8.1.0-1"),
        ("8.2.0", "8.2.0-1"),
        ("8.3.0", "8.3.0-1"),
        ("8.4.0", "8.4.0-1"),
        ("8.4.11-11", "8.4.0-5"),
        ("9.0.1", "9.0.0-1"),
        ("9.1.0", "9.1.0-1"),
        ("9.6.0", "9.6.0-1"),
        ("9.7.4-2", "9.7.1-rc1"),
        ("9.7.0", "9.7.1-1"),
    ],
)
def test_pairs_that_fit(server: str, tool: str) -> None:
    """Tool and server are of one series, and the tool is new enough."""
    assert versions.judge_tool(server, tool) == ""


@pytest.mark.parametrize(
    ("server", "tool", "reason"),
    [
        ("5.7.31", "2.4.7", "knows no transition key"),
        ("5.7.31", "2.4.10", "knows no transition key"),
        ("5.7.31", "2.4.11", "PXB-1544"),
        ("5.7.31", "2.4.12", "PXB-1648"),
        ("5.7.31", "2.4.13", "PXB-1902"),
        ("5.7.31", "2.4.15", "PXB-1902"),
        ("5.7.31", "2.4.16", "PXB-2152"),
        ("5.7.31", "2.4.19", "PXB-2152"),
        ("5.7.32", "2.4.20", "cannot read compressed pages"),
        ("5.7.44", "8.0.35-34", "take 2.4"),
        ("8.0.36", "2.4.29", "take 8.0"),
        ("8.0.36", "8.4.0-5", "take 8.0"),
        ("8.0.20", "8.0.14", "too old"),
        ("8.0.23", "8.0.22-15", "older than server 8.0.23"),
        ("8.0.36", "8.0.33-28", "older than server 8.0.36"),
        ("8.4.0", "8.0.35-34", "take 8.4"),
        ("8.4.0", "8.3.0-1", "take 8.4"),
        ("8.1.0", "8.2.0-1", "take 8.1"),
        ("9.0.1", "8.4.0-5", "take 9.0"),
        ("9.6.0", "9.7.1-rc1", "take 9.6"),
        ("9.7.4-2", "9.6.0-1", "take 9.7"),
        ("10.3.39-MariaDB", "2.4.29", "is MariaDB"),
        ("10.11.19-MariaDB-0+deb12u1", "8.0.35-34", "is MariaDB"),
        ("10.2.44-MariaDB-log", "2.4.29", "is MariaDB"),
    ],
)
def test_pairs_that_do_not_fit(server: str, tool: str, reason: str) -> None:
    """Each is refused in words that say why, or what to take."""
    assert reason in versions.judge_tool(server, tool)


def test_without_keys_an_older_tool_does() -> None:
    """Defects with keys concern nobody who has none; the series does."""
    assert versions.judge_tool("5.7.31", "2.4.7", uses_keys=False) == ""
    assert versions.judge_tool("5.7.31", "8.0.35-34", uses_keys=False)
    assert versions.judge_tool("5.7.32", "2.4.20", uses_keys=False)


def test_the_advice_suffices() -> None:
    """The tool that a refusal for a defect names is not refused."""
    for patch in range(12, 20):
        assert "take 2.4.20 or newer" in versions.judge_tool("5.7.31", f"2.4.{patch}")
    assert versions.judge_tool("5.7.31", "2.4.20") == ""


@pytest.mark.parametrize(
    ("tool", "names"),
    [
        ("2.4.11", "PXB-1544 PXB-1648 PXB-1902 PXB-1936 PXB-2142 PXB-2152"),
        ("2.4.12", "PXB-1648 PXB-1902 PXB-1936 PXB-2142 PXB-2152"),
        ("2.4.13", "PXB-1902 PXB-1936 PXB-2142 PXB-2152"),
        ("2.4.16", "PXB-2142 PXB-2152"),
        ("2.4.20", ""),
        ("2.4.29", ""),
        ("8.0.22-15", ""),
        ("8.0.35-34", ""),
        ("8.4.0-3", "PXB-3571"),
        ("8.4.0-4", ""),
        ("9.7.1-rc1", ""),
    ],
)
def test_defects_of_a_tool(tool: str, names: str) -> None:
    """Each ends with the version that mends it, in its own series."""
    assert [defect.name for defect in versions.list_defects(tool)] == names.split()


@pytest.mark.parametrize(
    ("donor", "recipient", "reason"),
    [
        ("2.4.29", "2.4.29", ""),
        ("2.4.26", "2.4.29", ""),
        ("8.0.33-28", "8.0.35-34", ""),
        ("8.4.0-4", "8.4.0-5", ""),
        ("8.4.0-5", "8.4.0-4", "older"),
        ("8.0.35-34", "8.0.33-28", "older"),
        ("8.0.35-34", "8.4.0-5", "is not for"),
        ("2.4.29", "8.0.35-34", "is not for"),
        ("9.7.1-rc1", "9.7.1-1", ""),
        ("8.4.0-" + "9" * 5000, "8.4.0-5", ""),
    ],
)
def test_tools_of_both_hosts(donor: str, recipient: str, reason: str) -> None:
    """One series, and the recipient's not older."""
    found = versions.judge_tools(donor, recipient)
    assert reason in found
    assert bool(found) is bool(reason)


@pytest.mark.parametrize(
    ("donor", "recipient", "reason"),
    [
        ("5.7.44", "5.7.44-48", ""),
        ("5.7.40", "5.7.44", ""),
        ("8.0.11", "8.0.46", ""),
        ("8.4.0", "8.4.11-11", ""),
        ("9.7.4-2", "9.7.4-2", ""),
        ("5.7.44", "5.7.43", "older"),
        ("8.0.36", "8.0.35", "older"),
        ("5.7.44", "8.0.36", "another series"),
        ("8.0.36", "8.4.0", "another series"),
        ("8.4.0", "8.0.46", "another series"),
        ("9.6.0", "9.7.4", "another series"),
    ],
)
def test_servers_of_both_hosts(donor: str, recipient: str, reason: str) -> None:
    """One series, and the recipient's not older."""
    found = versions.judge_restore(donor, recipient)
    assert reason in found
    assert bool(found) is bool(reason)
