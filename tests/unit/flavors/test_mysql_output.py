"""What programs say, as they really said it, and every message whose cause is known."""

from __future__ import annotations

import re

import pytest
import samples

from orchestrator.flavors import backup_sets, mysql_output
from orchestrator.flavors.mysql_output import Phase
from orchestrator.flavors.mysql_output import ToolCause as Cause

UUID = "c14d6d67-e5fb-11f1-a307-1a083b08fc0d"
NEW = "2026-11-22T06:30:43.143040-00:00 0 [ERROR] [MY-011825] [Xtrabackup] "


@pytest.mark.parametrize(
    ("text", "version", "is_percona"),
    [
        ("mysqld  Ver 5.7.44 for Linux on x86_64 (MySQL Community Server (GPL))", "5.7.44", False),
        (
            "mysqld  Ver 5.7.44-48 for Linux on x86_64 (Percona Server (GPL), Release 48)",
            "5.7.44",
            True,
        ),
        (
            "/usr/sbin/mysqld  Ver 8.0.36-28 for Linux on x86_64 (Percona Server (GPL), Release 28)",
            "8.0.36",
            True,
        ),
        (
            "/usr/sbin/mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)",
            "8.0.36",
            False,
        ),
        ("/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", "9.7.4", False),
        (samples.read("mariadb/mariadbd-version"), "", False),
        ("mysql  Ver 15.1 Distrib 10.11.19-MariaDB, for debian-linux-gnu", "", False),
        ("mysqld  Ver 8.0", "", False),
        ("", "", False),
    ],
)
def test_version_of_a_server(text: str, version: str, *, is_percona: bool) -> None:
    """Three numbers; another product has none."""
    assert mysql_output.parse_server_version(text) == version
    assert mysql_output.is_percona(text) is is_percona


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "xtrabackup version 2.4.29 based on MySQL server 5.7.44 Linux (x86_64) (revision id: 2)",
            "2.4.29",
        ),
        ("xtrabackup version 8.0.35-34 based on MySQL server 8.0.35 Linux (x86_64)", "8.0.35-34"),
        ("xtrabackup version 8.4.0-5 based on MySQL server 8.4.0 Linux (x86_64)", "8.4.0-5"),
        ("xtrabackup version 9.7.1-rc1 based on MySQL server 9.7.1 Linux (x86_64)", "9.7.1-rc1"),
        (samples.read("xtrabackup-2.4/copy-back-datadir-not-empty"), "2.4.12"),
        (samples.read("mariadb-backup/version"), ""),
        ("xtrabackup: recognized server arguments: --datadir=/var/lib/mysql", ""),
        ("", ""),
    ],
)
def test_version_of_the_tool(text: str, version: str) -> None:
    """With its build; another tool has none."""
    assert mysql_output.parse_tool_version(text) == version


@pytest.mark.parametrize("name", ["backup-log", "prepare-log", "copy-back-log"])
def test_logs_of_work_that_completed(name: str) -> None:
    """The last line says so, and nothing contradicts it."""
    text = samples.read(f"xtrabackup-2.4/{name}").removesuffix("rc 0\n")
    assert backup_sets.is_completed(text)
    assert mysql_output.find_contradictions(text) == ()


@pytest.mark.parametrize("name", ["prepare-wrong-key", "copy-back-datadir-not-empty"])
def test_logs_of_work_that_did_not(name: str) -> None:
    """It does not say that it completed."""
    assert not backup_sets.is_completed(samples.read(f"xtrabackup-2.4/{name}"))


# A new master key.


def test_new_key_of_a_real_restore() -> None:
    """Its id has the donor's UUID and the next number; two tables are encrypted."""
    text = samples.read("xtrabackup-2.4/copy-back-log")
    assert mysql_output.parse_new_master_key(text) == f"{UUID}-2"
    assert mysql_output.count_rewritten_headers(text) == 2


@pytest.mark.parametrize("name", ["prepare-log", "copy-back-vault-denied", "backup-log"])
def test_no_new_key(name: str) -> None:
    """Other work makes none, and a restore that failed makes none."""
    text = samples.read(f"xtrabackup-2.4/{name}")
    assert mysql_output.parse_new_master_key(text) is None
    assert mysql_output.count_rewritten_headers(text) == 0


def test_new_key_without_a_name() -> None:
    """Newer tools do not tell the id, and put labels before their lines."""
    note = NEW.replace("ERROR", "Note")
    text = (
        f"{note}Generated new master key\n"
        f"{note}Encrypting ./shop/my orders.ibd tablespace header with new master key.\n"
        f"{note}Encrypting ./undo_001 tablespace header with new master key.\n"
        f"{note}completed OK!\n"
    )
    assert mysql_output.parse_new_master_key(text) == ""
    assert mysql_output.count_rewritten_headers(text) == 2


# Failures.

MESSAGES = [
    (
        Cause.WRONG_TRANSITION_KEY,
        "Error reading xtrabackup_keys: failed to decrypt key and iv for tablespace 25. "
        "Wrong transition key?",
    ),
    (Cause.NO_KEYS_FILE, "--transition-key specified, but xtrabackup_keys is not found."),
    (
        Cause.NO_KEYS_FILE,
        "option --generate_new_master_key is specified but xtrabackup_keys is absent.",
    ),
    (
        Cause.NO_TRANSITION_KEY,
        "Error reading xtrabackup_keys: failed to derive encryption key.",
    ),
    (
        Cause.KEY_NOT_IN_KEYRING,
        "Can't fetch the key, please check the keyring plugin is loaded.",
    ),
    (Cause.NOT_PREPARED, "can't read master_key_id"),
    (
        Cause.NOT_PREPARED,
        "The target is not fully prepared. Please prepare it without option --apply-log-only",
    ),
    (
        Cause.KEYRING_MISSING,
        "can't generate new master key. Please check keyring plugin settings.",
    ),
    (Cause.KEYRING_MISSING, "failed to init keyring plugin"),
    (Cause.DATADIR_NOT_EMPTY, "Original data directory /var/lib/mysql is not empty!"),
    (Cause.COPY_FAILED, "Error: copy_file() failed."),
    (Cause.COPY_FAILED, "move_file() failed."),
    (
        Cause.DISK_FULL,
        "Error writing file '/new/shop/customer.ibd' (Errcode: 28 - No space left on device)",
    ),
    (Cause.DISK_FULL, "cannot write to file, OS errno 28"),
    (
        Cause.WRONG_OPTIONS,
        "Error: options --transition-key and --generate-transition-key are mutually exclusive.",
    ),
    (Cause.WRONG_OPTIONS, "--defaults-file must be specified first on the command line"),
    (Cause.WRONG_OPTIONS, "unknown argument: 'abc'"),
    (Cause.WRONG_OPTIONS, "datadir must be specified."),
    (
        Cause.NOT_DECRYPTED,
        "Encryption information in datafile: ./t/x.ibd can't be decrypted, please check the "
        "keyring",
    ),
    (
        Cause.VAULT_DENIES,
        "Plugin keyring_vault reported: 'Could not retrieve list of keys from Vault. Vault has "
        'returned the following error(s): ["permission denied"]\'',
    ),
    (
        Cause.VAULT_DENIES,
        "Plugin keyring_vault reported: 'Could not write key to Vault. Vault has returned the "
        'following error(s): ["1 error occurred"]\'',
    ),
    (
        Cause.VAULT_UNAVAILABLE,
        "Plugin keyring_vault reported: 'CURL returned this error code: 7 with error message : "
        "Failed to connect to vault.example.net port 8200'",
    ),
    (
        Cause.VAULT_UNAVAILABLE,
        "Component component_keyring_vault reported: 'CURL returned this error code: 28 with error "
        "message : Operation timed out'",
    ),
    (
        Cause.VAULT_UNAVAILABLE,
        "Plugin keyring_vault reported: 'Could not read key from Vault. Vault has returned the "
        'following error(s): ["Vault is sealed"]\'',
    ),
    (
        Cause.VAULT_CERTIFICATE,
        "Plugin keyring_vault reported: 'CURL returned this error code: 60 with error message : "
        "SSL certificate problem: unable to get local issuer certificate'",
    ),
    (
        Cause.KEYRING_CONFIG,
        "Plugin keyring_vault reported: 'Could not open file with credentials.'",
    ),
    (
        Cause.KEYRING_CONFIG,
        "Plugin keyring_vault reported: 'Empty file with credentials.'",
    ),
    (
        Cause.KEYRING_CONFIG,
        "Plugin keyring_vault reported: 'Could not parse credential file. Cannot find equal sign "
        "(=) in line: 1.'",
    ),
    (
        Cause.KEYRING_CONFIG,
        "Plugin keyring_vault reported: 'Could not read token from the configuration file.'",
    ),
    (
        Cause.LOGIN_FAILED,
        "Failed to connect to MySQL server: Access denied for user 'nobody'@'localhost' (using "
        "password: YES).",
    ),
    (Cause.PRIVILEGE_MISSING, " missing required privilege BACKUP_ADMIN on *.*"),
    (Cause.LOCK_TIMEOUT, "failed to execute query: Lock wait timeout exceeded"),
    (Cause.REDO_OVERWRITTEN, "log block numbers mismatch"),
    (Cause.WRONG_TOOL, "Unsupported server version: '9.7.4'."),
    (Cause.WRONG_TOOL, "Unsupported redo log format"),
    (Cause.WRONG_TOOL, "failed to load tablespaces list."),
    (Cause.STREAM_CUT, "xb_stream_read_chunk(): my_read() failed."),
    (Cause.STREAM_CUT, "xb_stream_read_chunk(): wrong chunk magic at offset 0x0."),
    (Cause.CRASHED, "22:35:00 UTC - xtrabackup got signal 6 ;"),
    (Cause.OTHER, "Error: something else"),
]


@pytest.mark.parametrize("before", ["", "xtrabackup: Error: ", "261121 22:34:57 ", NEW])
@pytest.mark.parametrize(("cause", "message"), MESSAGES)
def test_a_message_has_its_cause(cause: Cause, message: str, before: str) -> None:
    """Whatever stands before it and however general the last line is."""
    text = f"xtrabackup: cd to /var/lib/mysql\n{before}{message}\nrc 1\n"
    found = mysql_output.explain_tool_failure(text, Phase.RESTORE)
    assert found.cause is cause
    assert found.words == re.sub(
        r"^(?:Plugin|Component) (\w+) reported: '(.*)'$", r"\1: \2", message.strip()
    )
    assert bool(found.hint) is (cause is not Cause.OTHER)


def test_every_cause_is_told_by_a_message() -> None:
    """None is in the list that nothing leads to."""
    assert {cause for cause, _ in MESSAGES} == set(Cause)


@pytest.mark.parametrize(
    ("name", "phase", "cause", "words"),
    [
        (
            "prepare-wrong-key",
            Phase.PREPARE,
            Cause.WRONG_TRANSITION_KEY,
            "Error reading xtrabackup_keys: failed to decrypt key and iv for tablespace 25. "
            "Wrong transition key?",
        ),
        (
            "copy-back-datadir-not-empty",
            Phase.RESTORE,
            Cause.DATADIR_NOT_EMPTY,
            "Original data directory /var/lib/mysql is not empty!",
        ),
        (
            "copy-back-vault-denied",
            Phase.RESTORE,
            Cause.VAULT_DENIES,
            "keyring_vault: Could not retrieve list of keys from Vault. Vault has returned the "
            'following error(s): ["permission denied"]',
        ),
        (
            "backup-access-denied",
            Phase.BACKUP,
            Cause.LOGIN_FAILED,
            "Failed to connect to MySQL server: Access denied for user 'nobody'@'localhost' "
            "(using password: YES).",
        ),
        (
            "xbstream-cut-in-chunk",
            Phase.EXTRACT,
            Cause.STREAM_CUT,
            "xb_stream_read_chunk(): my_read() failed.",
        ),
    ],
)
def test_real_failures(name: str, phase: Phase, cause: Cause, words: str) -> None:
    """The line that tells most is shown, not the last one."""
    found = mysql_output.explain_tool_failure(samples.read(f"xtrabackup-2.4/{name}"), phase)
    assert (found.cause, found.words) == (cause, words)


def test_the_hint_names_the_host_that_must_be_mended() -> None:
    """The same words in a backup and in a restore concern different hosts."""
    text = next(message for cause, message in MESSAGES if cause is Cause.VAULT_UNAVAILABLE)
    assert "from the donor" in mysql_output.explain_tool_failure(text, Phase.BACKUP).hint
    for phase in (Phase.EXTRACT, Phase.PREPARE, Phase.RESTORE):
        assert "from the recipient" in mysql_output.explain_tool_failure(text, phase).hint


def test_nothing_is_made_up() -> None:
    """A tool that said nothing gave no reason; one that said no error, its last words."""
    assert mysql_output.explain_tool_failure("", Phase.BACKUP).words == ""
    found = mysql_output.explain_tool_failure("one\ntwo\n\n", Phase.BACKUP)
    assert (found.cause, found.words, found.hint) == (Cause.OTHER, "two", "")


@pytest.mark.parametrize(
    "line",
    [
        "Unable to open #ib_redo1504",
        "Encryption information in datafile: ./t/x.ibd can't be decrypted",
    ],
)
def test_a_set_can_be_bad_although_it_completed(line: str) -> None:
    """The lines that say so are shown."""
    text = f"261121 22:34:57 {line}\n261121 22:34:58 completed OK!\n"
    assert mysql_output.find_contradictions(text) == (line,)
