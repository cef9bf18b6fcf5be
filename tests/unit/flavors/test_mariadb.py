"""MariaDB's flags, option files, statements, and what its tools write."""

from __future__ import annotations

import dataclasses
import re

import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from surveys import REQUEST

from orchestrator import sql
from orchestrator.errors import VerificationError
from orchestrator.flavors import (
    backup_sets,
    mariadb,
    mariadb_files,
    mariadb_sql,
    option_files,
    versions,
)
from orchestrator.flavors.interface import DROP_IN, StartFailure, Upstream, account_name
from orchestrator.flavors.quoting import describe_names
from orchestrator.models import Coordinates, Plan

PLAN = Plan(
    run_id=REQUEST.run_id,
    backup_id=REQUEST.backup_id,
    donor="db1",
    recipient="db2",
    flavor="mariadb",
    server_version="10.11.19",
    datadir="/var/lib/mysql",
    staging_dir="/var/lib/mysql.xbvault-staging-r",
    new_datadir="/var/lib/mysql.xbvault-new-r",
    old_datadir="/var/lib/mysql.xbvault-old-r",
    donor_mount="keys/db1",
    own_mount="keys/db2",
    source_address="192.0.2.1",
    source_port=3307,
    parallel=2,
    replace=False,
    require_encryption=True,
    coordinates="auto",
    checksums="all",
)
FLAVOR = mariadb.MariaDB()
DIALECT = FLAVOR.dialect(PLAN.server_version)
AT = Coordinates(file="bin.000002", position=19_642_476, gtid="0-11-9143")


# Versions.


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (samples.read("mariadb-backup/version"), "10.11.19"),
        (samples.read("mariadb/mariadbd-version"), "10.11.19"),
        (samples.read("mariadb/mariadbd-version-no-defaults"), "10.11.19"),
        ("mariadbd from 11.4.3-MariaDB, client 15.2", "11.4.3"),
        ("mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server)", ""),
        ("xtrabackup version 8.0.35-31 based on MySQL server 8.0.35", ""),
        ("", ""),
    ],
)
def test_program_version(text: str, version: str) -> None:
    """Server and tool name the server's version; another product's is none."""
    assert mariadb.parse_program_version(text) == version


def test_version_numbers() -> None:
    """Three numbers, from whatever stands around them; none is an error."""
    assert versions.read_numbers("10.11.19-MariaDB-0+deb12u1-log") == (10, 11, 19)
    with pytest.raises(VerificationError, match="no version number in ''"):
        versions.read_numbers("")


@pytest.mark.parametrize(
    ("version", "prefix"),
    [
        ("10.6.0", "xtrabackup"),
        ("10.11.19", "xtrabackup"),
        ("11.0.6", "xtrabackup"),
        ("11.1.2", "mariadb_backup"),
        ("11.4.3", "mariadb_backup"),
        ("12.0.1", "mariadb_backup"),
    ],
)
def test_file_names_of_a_set(version: str, prefix: str) -> None:
    """The metadata files were renamed in 11.1."""
    assert dataclasses.astuple(FLAVOR.set_files(version)) == (
        f"{prefix}_info",
        f"{prefix}_checkpoints",
        f"{prefix}_binlog_info",
        f"{prefix}_slave_info",
        "",
    )


# What the tools write.


def test_options_of_the_laboratory() -> None:
    """Dashes and underscores are one, and every option is there."""
    options = option_files.parse_print_defaults(samples.read("mariadb/my_print_defaults"))
    assert options["hashicorp_key_management_cache_timeout"] == "86400000"
    assert options["hashicorp_key_management"] == "FORCE"
    assert options["log_bin"] == "bin"
    assert options["read_only"] == "ON"
    assert options["ssl_key"] == "/etc/mysql/tls/server.key"
    assert "_" not in {name[0] for name in options}
    assert len(options) == samples.read("mariadb/my_print_defaults").count("\n")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--log-bin", {"log_bin": "1"}),
        ("--log-bin=", {"log_bin": ""}),
        ("--loose-innodb-encrypt-log=ON", {"innodb_encrypt_log": "ON"}),
        ("--skip-log-bin", {"log_bin": "0"}),
        ("--disable-log-bin", {"log_bin": "0"}),
        ("--enable-log-bin", {"log_bin": "1"}),
        ("--skip-name-resolve", {"skip_name_resolve": "1"}),
        ("--skip_name_resolve=OFF", {"skip_name_resolve": "OFF"}),
        ("--skip-slave-start", {"skip_slave_start": "1"}),
        ("--init-connect=SET a=b, c=d", {"init_connect": "SET a=b, c=d"}),
        ("--Server-ID=7", {"server_id": "7"}),
        ("Warning: something", {}),
        ("", {}),
    ],
)
def test_one_option(line: str, wanted: dict[str, str]) -> None:
    """Prefixes, values and their absence mean what they mean to the server."""
    assert option_files.parse_print_defaults(line) == wanted


def test_later_option_wins() -> None:
    """As the server does it."""
    assert option_files.parse_print_defaults("--port=1\n--port=2\n--skip-log-bin\n--log-bin=x") == {
        "port": "2",
        "log_bin": "x",
    }


@pytest.mark.parametrize(
    ("value", "on"),
    [
        ("ON", True),
        ("on", True),
        ("1", True),
        (" YES ", True),
        ("TRUE", True),
        ("FORCE", True),
        ("FORCE_PLUS_PERMANENT", True),
        ("OFF", False),
        ("0", False),
        ("", False),
        ("NULL", False),
    ],
)
def test_on(value: str, *, on: bool) -> None:
    """The words by which servers say yes."""
    assert option_files.is_on(value) is on


@pytest.mark.parametrize("name", ["backup-log-tail", "prepare-log", "move-back-log-tail"])
def test_log_of_work_that_completed(name: str) -> None:
    """Backup, prepare and move-back end with the same words."""
    text = samples.read(f"mariadb-backup/{name}")
    assert backup_sets.is_completed(text)
    assert not backup_sets.is_completed(text[: text.rindex("completed OK!")])
    assert not backup_sets.is_completed(f"{text}[00] FATAL ERROR: something after it\n")


def test_pages_left_of_a_prepare() -> None:
    """InnoDB tells how many pages are left to recover, now and then; the last word counts."""
    text = samples.read("mariadb-backup/prepare-log")
    flavor = mariadb.MariaDB()
    assert flavor.read_prepare_progress(text) == {"pages_left": 660}
    assert flavor.read_prepare_progress(text[: text.index("To recover")]) == {}
    later = f"{text}0 [Note] InnoDB: To recover: LSN 12512819/25354677; 41 pages\n"
    assert flavor.read_prepare_progress(later) == {"pages_left": 41}


def test_log_of_nothing() -> None:
    """A tool that wrote nothing has not completed."""
    assert not backup_sets.is_completed("")
    assert not backup_sets.is_completed("\n \n")


@pytest.mark.parametrize(
    ("name", "cause", "words"),
    [
        ("sealed", StartFailure.VAULT_UNAVAILABLE, "Vault is sealed"),
        ("unreachable", StartFailure.VAULT_UNAVAILABLE, "Failed to connect to 10.99.3.1"),
        ("denied", StartFailure.VAULT_DENIES, "permission denied"),
        ("unknown-option", StartFailure.OTHER, "unknown variable 'no_such_option=1'"),
    ],
)
def test_log_of_a_start_that_failed(name: str, cause: StartFailure, words: str) -> None:
    """What must be mended, and by whom, stands in the log; only the last start in it counts."""
    earlier = "\n".join(samples.read(f"mariadb/start-{other}") for other in ("sealed", "denied"))
    found = mariadb.parse_failed_start(f"{earlier}\n{samples.read(f'mariadb/start-{name}')}")
    assert found.cause is cause
    assert words in found.reason
    assert found.errors[-1] == "Aborting"
    assert not any("[ERROR]" in error or "2026-" in error for error in found.errors)


def test_log_that_says_nothing_of_a_start() -> None:
    """No error is made up."""
    found = mariadb.parse_failed_start("")
    assert (found.cause, found.reason, found.errors) == (StartFailure.OTHER, "", ())


def test_coordinates_of_the_laboratory() -> None:
    """File, position and GTID, as the tool wrote them."""
    assert mariadb.parse_binlog_info(samples.read("mariadb-backup/binlog_info")) == AT


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bin.000001\t329\t\n", Coordinates(file="bin.000001", position=329)),
        ("bin.000001\t329\n", Coordinates(file="bin.000001", position=329)),
        (
            "db-1-bin.1000000\t4\t0-1-2,\n1-2-3,\n12-4-5\n",
            Coordinates(file="db-1-bin.1000000", position=4, gtid="0-1-2,1-2-3,12-4-5"),
        ),
    ],
)
def test_other_coordinates(text: str, wanted: Coordinates) -> None:
    """Without GTIDs, with several domains, and over several lines."""
    assert mariadb.parse_binlog_info(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "bin.000001\n",
        "bin.000001\tmany\t0-1-2\n",
        "bin.000001\t-5\n",
        "bin\t5\n",
        "bin.000001'; DROP\t5\n",
        "bin.000001\t5\t0-1\n",
        "bin.000001\t5\t0-1-2;0-1-3\n",
        "bin.000001\t5\t0-1-2,0-1-3\n",
        "bin.000001\t5\t0-1-2\n3\n",
        "bin.000001\t5\t0-1-2,\n",
        "bin.000001\t5\t0-1-2",
        "bin.000001\t5",
        "bin.000001\t3\t0-1-2\n",
        "bin.000001\t\N{ARABIC-INDIC DIGIT FIVE}\n",
        "bin.000001\t" + "5" * 5000 + "\n",
        "b\0in.000001\t5\n",
        "bin.000001\t5\t0-1-2\nbin.000002\t5\t0-1-2\n",
        "bin.000001\t5\te3b0c442-98fc-1c14-9afb-f4c8996fb924:1-5\n",
    ],
)
def test_no_coordinates(text: str) -> None:
    """What is cut or of another form is refused, for it would go into a statement."""
    with pytest.raises(VerificationError):
        mariadb.parse_binlog_info(text)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("slave_info", [("", Coordinates(file="", position=0, gtid="0-11-10543"), True)]),
        (
            "slave_info-position",
            [("", Coordinates(file="bin.000002", position=29166979, gtid=""), False)],
        ),
        (
            "slave_info-two",
            [
                ("", Coordinates(file="", position=0, gtid="0-11-12671"), True),
                ("it's b", Coordinates(file="", position=0, gtid="0-11-12671"), True),
            ],
        ),
    ],
)
def test_sources_of_the_donor(name: str, wanted: list[tuple[str, Coordinates, bool]]) -> None:
    """What the tool writes of a donor that is a replica: by GTID, by position, with two sources."""
    assert mariadb.parse_slave_info(samples.read(f"mariadb-backup/{name}")) == tuple(
        Upstream(channel=channel, coordinates=coordinates, uses_gtid=uses_gtid)
        for channel, coordinates, uses_gtid in wanted
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "SET GLOBAL gtid_slave_pos = '0-11-1';\n",
        "CHANGE MASTER TO master_use_gtid = slave_pos;\n",
        "SET GLOBAL gtid_slave_pos = '';\nCHANGE MASTER TO master_use_gtid = slave_pos;\n",
        "SET GLOBAL gtid_slave_pos = '0-11';\nCHANGE MASTER TO master_use_gtid = slave_pos;\n",
        "SET GLOBAL gtid_slave_pos = '0-11-1';\nCHANGE MASTER TO master_use_gtid = slave_p",
        "SET GLOBAL gtid_slave_pos = '0-11-1';\nCHANGE MASTER TO master_use_gtid = slave_pos;",
        "CHANGE MASTER TO MASTER_LOG_FILE='bin.000002', MASTER_LOG_POS=2;\n",
        "CHANGE MASTER TO MASTER_LOG_FILE='bin.000002', MASTER_LOG_POS=29166979;\nDROP",
        "CHANGE MASTER TO MASTER_LOG_FILE='', MASTER_LOG_POS=29166979;\n",
    ],
)
def test_no_sources(text: str) -> None:
    """What is cut or of another form is refused, for it would go into a statement."""
    with pytest.raises(VerificationError):
        mariadb.parse_slave_info(text)


def test_statements_of_a_sibling() -> None:
    """A sibling goes on to its donor's GTID position; one wired by position to that of the source."""
    dialect = FLAVOR.dialect("10.11.19")
    gtid = Coordinates(file="", position=0, gtid="0-11-7,1-12-3")
    place = Coordinates(file="bin.000002", position=157, gtid="")
    assert (
        dialect.until_gtid_sql(gtid.gtid) == "START SLAVE UNTIL master_gtid_pos = '0-11-7,1-12-3'"
    )
    assert dialect.reach_sql(gtid) == "SELECT MASTER_GTID_WAIT('0-11-7,1-12-3', 1) AS reached"
    assert "MASTER_POS_WAIT('bin.000002', 157, 1)" in dialect.reach_sql(place)
    assert dialect.upstream_snapshot_sql(by_gtid=True)[0] == (
        "START TRANSACTION WITH CONSISTENT SNAPSHOT"
    )
    locked = dialect.upstream_snapshot_sql(by_gtid=False)
    assert locked.index("FLUSH TABLES WITH READ LOCK") < locked.index("SHOW SLAVE STATUS")
    assert locked[-1] == "UNLOCK TABLES"


@pytest.mark.parametrize(
    ("output", "by_gtid", "wanted"),
    [
        ("xbvault_applied\n0-11-7\nxbvault_sums\n", True, ("", 0, "0-11-7")),
        ("xbvault_applied\nNULL\n", True, ("", 0, "")),
        ("xbvault_sums\n\n", True, ("", 0, "")),
        ("", False, ("", 0, "")),
        ("xbvault_applied\n0-11-7\n", False, ("", 0, "")),
    ],
)
def test_where_a_donors_snapshot_stands(
    output: str, *, by_gtid: bool, wanted: tuple[str, int, str]
) -> None:
    """A GTID position is read from its own column; none is told where there is none."""
    found = FLAVOR.dialect("10.11.19").read_upstream_snapshot(output, by_gtid=by_gtid)
    assert dataclasses.astuple(found) == wanted


def test_where_a_donors_snapshot_stands_by_position() -> None:
    """Without GTIDs, it is what the donor has applied of its source, in the source's own terms."""
    output = samples.read("mariadb/slave-status")
    row = sql.parse_batch(output)[0]
    found = FLAVOR.dialect("10.11.19").read_upstream_snapshot(output, by_gtid=False)
    assert (found.file, str(found.position)) == (
        row["Relay_Master_Log_File"],
        row["Exec_Master_Log_Pos"],
    )
    assert found.position


@settings(max_examples=30)
@given(
    st.builds(
        Coordinates,
        file=st.from_regex(r"[A-Za-z0-9._-]{1,30}\.[0-9]{6,10}", fullmatch=True),
        position=st.integers(4, 2**63),
        gtid=st.lists(
            st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1), st.integers(0, 2**63)),
            unique_by=lambda gtid: gtid[0],
        ).map(lambda gtids: ",".join("-".join(map(str, gtid)) for gtid in gtids)),
    )
)
def test_coordinates_come_back(coordinates: Coordinates) -> None:
    """What the tool can write is read as it was."""
    text = f"{coordinates.file}\t{coordinates.position}\t{coordinates.gtid}\n"
    assert mariadb.parse_binlog_info(text) == coordinates


def test_checkpoints_before_and_after_prepare() -> None:
    """The kind of the set is what changes."""
    received = backup_sets.parse_checkpoints(samples.read("mariadb-backup/checkpoints-received"))
    prepared = backup_sets.parse_checkpoints(samples.read("mariadb-backup/checkpoints-prepared"))
    assert received["backup_type"] == backup_sets.RECEIVED_TYPE
    assert prepared["backup_type"] in FLAVOR.prepared_types
    assert received["backup_type"] not in FLAVOR.prepared_types
    assert received["to_lsn"] == prepared["to_lsn"] == "12512819"
    assert int(received["last_lsn"]) >= int(received["to_lsn"])


def test_info_of_a_set() -> None:
    """The closing file names version and command; an equals sign in a value stays."""
    info = backup_sets.parse_checkpoints(samples.read("mariadb-backup/xtrabackup_info"))
    assert info["tool_version"] == "10.11.19-MariaDB"
    assert info["tool_command"].startswith("--backup --stream=mbstream --target-dir=/var/lib/")
    assert info["name"] == ""
    assert backup_sets.parse_checkpoints("no pairs here\n") == {}


def test_keys_place_is_changed_in_the_sets_options() -> None:
    """URL and CA are changed, and not one other byte."""
    text = samples.read("mariadb-backup/backup-my.cnf")
    changed = mariadb.retarget_options(
        text, vault_url="https://v:8200/v1/xbvault-transition/db2/r", vault_ca="/etc/v.pem"
    )
    before, after = text.splitlines(), changed.splitlines()
    different = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert [a for _, a in different] == [
        "hashicorp_key_management_vault_ca=/etc/v.pem",
        "hashicorp_key_management_vault_url=https://v:8200/v1/xbvault-transition/db2/r",
    ]
    assert changed.endswith("\n")


def test_keys_place_is_changed_again_without_harm() -> None:
    """A repeated step comes to the same; without a CA of its own, the donor's path stays."""
    text = samples.read("mariadb-backup/backup-my.cnf")
    once = mariadb.retarget_options(text, vault_url="https://v/v1/t", vault_ca="")
    assert mariadb.retarget_options(once, vault_url="https://v/v1/t", vault_ca="") == once
    assert "hashicorp_key_management_vault_ca=/etc/mysql/tls/vault-ca.pem\n" in once


def test_set_without_the_key_plugin_is_refused() -> None:
    """Prepare would find no key, and the plugin cannot be named on its command line."""
    text = samples.read("mariadb-backup/backup-my.cnf").replace("hashicorp", "other")
    with pytest.raises(VerificationError, match="does not name the key plugin") as caught:
        mariadb.retarget_options(text, vault_url="https://v", vault_ca="")
    assert caught.value.hint


# Commands.


def test_backup_command() -> None:
    """An option file must come first; a socket is named where there is one."""
    bare = FLAVOR.backup_command(
        FLAVOR.own,
        options_file="",
        parallel=2,
        tmp_dir="/t",
        socket="",
        defaults_file="",
        slave_info=False,
    )
    assert bare == (
        "mariadb-backup",
        "--backup",
        "--stream=mbstream",
        "--target-dir=/t",
        "--parallel=2",
        "--loose-log-copy-interval=100",
    )
    full = FLAVOR.backup_command(
        FLAVOR.own,
        options_file="",
        parallel=4,
        tmp_dir="/t",
        socket="/run/s.sock",
        defaults_file="/root/my.cnf",
        slave_info=True,
        is_shared=True,
    )
    assert full[1] == "--defaults-extra-file=/root/my.cnf"
    assert full[-3:] == ("--parallel=4", "--slave-info", "--socket=/run/s.sock")


def test_other_commands() -> None:
    """Extraction, prepare and move name the directories that they work in."""
    assert FLAVOR.extract_command(FLAVOR.own, parallel=3, staging_dir="/s") == (
        "mbstream",
        "-x",
        "--parallel=3",
        "--directory=/s",
    )
    assert FLAVOR.prepare_command(
        FLAVOR.own, options_file="", staging_dir="/s", memory_bytes=1 << 27
    ) == (
        "mariadb-backup",
        "--prepare",
        "--use-memory=134217728",
        "--target-dir=/s",
    )
    move = FLAVOR.restore_command(
        FLAVOR.own, options_file="", parallel=2, rekey=False, staging_dir="/s", new_datadir="/n"
    )
    assert move[:3] == ("mariadb-backup", "--no-defaults", "--move-back")
    assert set(move[3:]) == {"--target-dir=/s", "--datadir=/n"}


def test_no_command_names_a_secret() -> None:
    """Nothing of the kind can be given on these command lines at all."""
    commands = [
        *FLAVOR.backup_command(
            FLAVOR.own,
            options_file="",
            parallel=2,
            tmp_dir="/t",
            socket="/s",
            defaults_file="/d",
            slave_info=True,
        ),
        *FLAVOR.extract_command(FLAVOR.own, parallel=2, staging_dir="/s"),
        *FLAVOR.prepare_command(FLAVOR.own, options_file="", staging_dir="/s", memory_bytes=1),
        *FLAVOR.restore_command(
            FLAVOR.own, options_file="", parallel=2, rekey=False, staging_dir="/s", new_datadir="/n"
        ),
    ]
    assert not [word for word in commands if re.search(r"password|token|key", word)]


# Option files.


def test_quiet_options() -> None:
    """A new replica starts without replication, events and writes, and where its keys are now."""
    text = FLAVOR.quiet_drop_in(version="10.11.19", run_id="r1", vault_url="https://v/v1/t")
    assert "r1" in text.splitlines()[0]
    assert text.splitlines()[1:] == [
        "[mariadb]",
        "skip-slave-start",
        "read_only=ON",
        "event_scheduler=OFF",
        "hashicorp-key-management-vault-url=https://v/v1/t",
    ]
    assert "vault" not in FLAVOR.quiet_drop_in(version="10.11.19", run_id="r1").partition("\n")[2]


def test_released_options() -> None:
    """A released replica starts its replication by itself, and keeps read_only if wanted."""
    text = FLAVOR.released_drop_in(version="10.11.19", run_id="r1", read_only=True)
    assert text.splitlines()[1:] == ["[mariadb]", "read_only=ON"]
    assert FLAVOR.released_drop_in(version="10.11.19", run_id="r1", read_only=False).splitlines()[
        1:
    ] == ["[mariadb]"]


def test_drop_in_is_read_last() -> None:
    """Drop-ins are read in alphabetical order; ours must win."""
    assert DROP_IN > "60-encryption.cnf"
    assert DROP_IN.endswith(".cnf")


# Statements.


def test_replication_by_gtid() -> None:
    """The GTID position is set before the source is named, and TLS is verified."""
    before, after = DIALECT.change_source_sql(
        PLAN, AT, use_gtid=True, user="xbvault_1d4e77c0", ca_file="/etc/ca.pem"
    )
    statements = (before + "PASSWORD" + after).split(";\n")
    assert statements[:6] == [
        "SET SESSION sql_log_off = 1",
        "STOP SLAVE",
        "RESET SLAVE ALL",
        "FLUSH LOCAL ENGINE LOGS",
        "EXECUTE IMMEDIATE IF(@@GLOBAL.gtid_binlog_state = '', 'DO 0', 'RESET MASTER')",
        "SET GLOBAL gtid_slave_pos = '0-11-9143'",
    ]
    assert statements[6] == (
        "CHANGE MASTER TO MASTER_HOST = '192.0.2.1', MASTER_PORT = 3307, "
        "MASTER_USER = 'xbvault_1d4e77c0', MASTER_CONNECT_RETRY = 5, MASTER_SSL = 1, "
        "MASTER_SSL_VERIFY_SERVER_CERT = 1, MASTER_SSL_CA = '/etc/ca.pem', "
        "MASTER_USE_GTID = slave_pos, MASTER_PASSWORD = 'PASSWORD'"
    )
    assert len(statements) == 7


def test_replication_by_position() -> None:
    """File and position are named, and no GTID is used even where there is one."""
    before, after = DIALECT.change_source_sql(PLAN, AT, use_gtid=False, user="u", ca_file="")
    last = (before + after).split(";\n")[-1]
    assert "MASTER_USE_GTID = no" in last
    assert "MASTER_LOG_FILE = 'bin.000002', MASTER_LOG_POS = 19642476" in last
    assert "MASTER_SSL_CA" not in last
    assert "MASTER_SSL_VERIFY_SERVER_CERT = 1" in last


@pytest.mark.parametrize("value", ["a\\b", "a\nb", "a\0b"])
def test_no_name_breaks_out_of_a_statement(value: str) -> None:
    """What cannot stand in a plain literal is refused before it becomes SQL."""
    plan = dataclasses.replace(PLAN, source_address=value)
    with pytest.raises(VerificationError, match="plain literal"):
        DIALECT.change_source_sql(plan, AT, use_gtid=True, user="u", ca_file="")


def test_account_is_named_by_the_run() -> None:
    """One account for one run, of a length that every server takes."""
    assert account_name(PLAN.run_id) == "xbvault_1d4e77c0"
    assert len(account_name("x" * 60 + "-12345678")) <= 32


def test_rotation_is_three_settings() -> None:
    """Threads follow the processors; age and rate are at their most eager."""
    text = mariadb_sql.rotation_sql(threads=8)
    assert text.split(";") == [
        "SET GLOBAL innodb_encryption_rotate_key_age = 1",
        "SET GLOBAL innodb_encryption_rotation_iops = 100000",
        "SET GLOBAL innodb_encryption_threads = 8",
    ]


def test_every_variable_that_is_judged_is_asked_for() -> None:
    """The list in the query and the names that preflight looks at cannot drift apart."""
    assert set(mariadb_files.VARIABLES) <= set(mariadb_sql.VARIABLES)
    for name in mariadb_sql.VARIABLES:
        assert f"'{name}'" in mariadb_sql.VARIABLES_SQL


def test_names_for_a_message() -> None:
    """A few names, and how many more there are."""
    assert describe_names(["a", "b"]) == "a, b"
    assert describe_names(f"t{n}" for n in range(7)) == "t0, t1, t2, t3, t4 and 2 more"
    assert describe_names("abc", most=2) == "a, b and 1 more"
    assert describe_names([]) == ""


@pytest.mark.parametrize(
    ("earlier", "later", "count"),
    [
        ("0-11-700", "0-11-800", 100),
        ("0-11-700", "0-12-800", 100),  # another server took over
        ("0-11-700,1-5-9", "1-5-10, 0-11-701,2-1-3", 5),
        ("0-11-700", "0-11-700", 0),
        ("0-11-700", "0-11-699", None),  # not the same history
        ("0-11-700,1-5-9", "0-11-800", None),
        ("", "0-11-800", None),
        ("0-11-700", "", None),
        ("0-11-700", "nonsense", None),
    ],
)
def test_transactions_between_two_positions(earlier: str, later: str, count: int | None) -> None:
    """Over all domains; None where the positions do not tell."""
    assert mariadb_sql.MariaDBDialect().count_transactions(earlier, later) == count
