"""The doubles of xtrabackup and xbstream against real MySQL servers: the whole way of the data."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from mysql_server import MysqlServer, mysql_tree
from openbao import running_openbao
from simulators import binlog
from simulators.keyring import KeyringFile
from simulators.keysfile import open_keys
from simulators.tablespaces import read_headers
from xtrabackup_double import SIMULATORS, TRANSITION_KEY, Done, prepare, run_tool, write_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKER = "a value that is nowhere in clear"
TABLES = ("shop.customer", "shop.plain", '`odd name; \'x`.`t "q"`')
MAKE = f"""
CREATE DATABASE shop; CREATE DATABASE `odd name; 'x`;
CREATE TABLE shop.customer (id INT PRIMARY KEY, v TEXT);
INSERT INTO shop.customer VALUES (1, '{MARKER}'), (2, 'two');
CREATE TABLE `odd name; 'x`.`t "q"` (id INT PRIMARY KEY, v TEXT);
INSERT INTO `odd name; 'x`.`t "q"` VALUES (1, '{MARKER}');
CREATE TABLE shop.plain (id INT PRIMARY KEY) ENCRYPTION = 'N';
INSERT INTO shop.plain VALUES (5);
ALTER TABLESPACE mysql ENCRYPTION = 'Y';
CREATE USER backup@localhost IDENTIFIED BY 'b # "quoted" \\\\';
GRANT BACKUP_ADMIN, PROCESS, RELOAD, LOCK TABLES, REPLICATION CLIENT ON *.* TO backup@localhost;
GRANT SELECT ON performance_schema.log_status TO backup@localhost;
GRANT SELECT ON performance_schema.keyring_component_status TO backup@localhost;
CREATE USER nobody@localhost IDENTIFIED BY 'n';
ALTER INSTANCE ROTATE INNODB MASTER KEY;
"""


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MysqlServer]:
    """A server with encrypted tables, undo, redo, binlog and system tablespace."""
    tree = mysql_tree()
    server = MysqlServer(tree=tree, directory=tmp_path_factory.mktemp("donor")).make()
    server.initialise()
    server.use_keyring()
    with server.running():
        server.sql(MAKE)
        yield server


@pytest.fixture(scope="module")
def taken(donor: MysqlServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A set that was streamed from the donor, and how the backup ended."""
    return take(donor, tmp_path_factory.mktemp("taken"))


@pytest.fixture
def received(taken: tuple[Path, Done], tmp_path: Path) -> Path:
    """A copy of the set, for one test."""
    subprocess.run(["cp", "-a", taken[0], tmp_path / "set"], check=True)
    return tmp_path / "set"


@pytest.fixture
def recipient(donor: MysqlServer, tmp_path: Path) -> MysqlServer:
    """Where a set is to be put; it has no datadir yet."""
    return MysqlServer(tree=donor.tree, directory=tmp_path / "recipient").make()


def take(
    donor: MysqlServer, directory: Path, *words: str, user: str = "backup", **settings: str
) -> tuple[Path, Done]:
    """Stream a set from the donor and extract it, whatever came."""
    password = {"backup": r"b # \"quoted\" \\"}.get(user, "n")
    login = f'[client]\nuser={user}\npassword="{password}"\nsocket={donor.socket}'
    own = write_key_file(directory / "own.cnf", login)
    done = run_tool(
        "xtrabackup",
        *(f"--defaults-file={own}", "--backup", "--stream=xbstream", *words),
        settings={"mysql_prefix": donor.tree, **settings},
    )
    goal = directory / "set"
    goal.mkdir()
    run_tool("xbstream", "-x", "-C", goal, stdin=done.stdout)
    return goal, done


def copy_back(received: Path, recipient: MysqlServer, **settings: str) -> Done:
    """Put a prepared set in place under a new master key, and let the datadir name its keyring."""
    own = write_key_file(recipient.directory / "own.cnf")
    done = run_tool(
        "xtrabackup",
        *(f"--defaults-file={own}", "--copy-back", f"--target-dir={received}"),
        *(f"--datadir={recipient.datadir}", "--generate-new-master-key"),
        f"--component-keyring-config={recipient.keyring_config}",
        f"--log-bin={recipient.directory}/binlog/binlog",
        settings=settings,
    )
    recipient.use_keyring()
    return done


def checksums(server: MysqlServer) -> list[str]:
    """Return the checksums of the tables."""
    return server.sql(f"CHECKSUM TABLE {', '.join(TABLES)}").splitlines()


def test_a_set_has_what_the_real_tool_writes(taken: tuple[Path, Done]) -> None:
    """All files of the newest version, success in the last line, and the key nowhere."""
    directory, done = taken
    assert done.is_ok, done.stderr
    names = {path.name for path in directory.iterdir()}
    assert names >= {
        *("backup-my.cnf", "xtrabackup_checkpoints", "xtrabackup_info", "xtrabackup_keys"),
        *("xtrabackup_binlog_info", "xtrabackup_tablespaces", "xtrabackup_logfile"),
        *("component_keyring_file.cnf", "ibdata1", "mysql.ibd", "undo_001", "ib_buffer_pool"),
    }
    assert "auto.cnf" not in names
    assert TRANSITION_KEY not in done.stderr
    assert TRANSITION_KEY.encode() not in done.stdout
    assert MARKER.encode() not in done.stdout


def test_a_set_does_not_hold_the_donors_master_keys(
    taken: tuple[Path, Done], donor: MysqlServer
) -> None:
    """Neither as bytes nor as digits; only the keys of the tablespaces travel, sealed."""
    directory, done = taken
    keys = re.findall(r'"INNODBKey-[^}]*"data":"(\w{64})"', donor.keyring.read_text())
    assert len(keys) >= 2
    for key in keys:
        assert bytes.fromhex(key) not in done.stdout
        assert key.lower().encode() not in done.stdout.lower()
    sealed = open_keys(TRANSITION_KEY, (directory / "xtrabackup_keys").read_bytes())
    spaces = {header.space_id for header in read_headers(directory).values()}
    assert set(sealed) == spaces | {binlog.SPACE_ID}


def test_the_keys_are_those_of_all_encrypted_tablespaces(
    taken: tuple[Path, Done], donor: MysqlServer
) -> None:
    """As the donor itself lists them."""
    statement = "SELECT space FROM information_schema.innodb_tablespaces WHERE encryption = 'Y'"
    sealed = open_keys(TRANSITION_KEY, (taken[0] / "xtrabackup_keys").read_bytes())
    assert set(sealed) - {binlog.SPACE_ID} == set(map(int, donor.sql(statement).split()))
    assert len(sealed) == 6


def test_the_position_is_the_donors(taken: tuple[Path, Done], donor: MysqlServer) -> None:
    """The donor stood still meanwhile."""
    fields = donor.sql("SHOW BINARY LOG STATUS").split("\t")
    info = (taken[0] / "xtrabackup_binlog_info").read_text()
    assert info == f"{fields[0]}\t{fields[1]}\t{fields[4]}\n"
    assert (
        f"binlog_pos = filename '{fields[0]}', position '{fields[1]}'"
        in (taken[0] / "xtrabackup_info").read_text()
    )


def test_the_donor_keeps_nothing_of_a_backup(taken: tuple[Path, Done], donor: MysqlServer) -> None:
    """The copy beside its datadir is gone."""
    assert taken[1].is_ok
    assert list(donor.directory.glob(".xbsim-*")) == []


def test_a_set_is_brought_to_life(
    received: Path, recipient: MysqlServer, donor: MysqlServer
) -> None:
    """Streamed, prepared, copied back under a new key: the server starts with equal data."""
    assert prepare(received).is_ok
    done = copy_back(received, recipient)
    assert done.is_ok, done.stderr
    headers = read_headers(recipient.datadir)
    encrypted = re.findall(r"Encrypting (\S.*) tablespace header", done.stderr)
    assert {str(recipient.datadir / path) for path in headers} == set(encrypted)
    names = {header.master_key_id for header in headers.values()}
    assert len(names) == 1
    (name,) = names
    assert KeyringFile(path=donor.keyring).read_key(name) is None
    with recipient.running():
        assert checksums(recipient) == checksums(donor)
        events = recipient.sql("SHOW BINLOG EVENTS IN 'binlog.000001'")
        assert events == donor.sql("SHOW BINLOG EVENTS IN 'binlog.000001'")
        assert recipient.sql("SELECT @@gtid_executed") == donor.sql("SELECT @@gtid_executed")
        recipient.sql("ALTER INSTANCE ROTATE INNODB MASTER KEY; INSERT INTO shop.plain VALUES (6)")
    with recipient.running():
        assert recipient.sql("SELECT v FROM shop.customer WHERE id = 1") == MARKER


def test_the_wrong_key_stops_at_the_first_record(received: Path) -> None:
    """Of the real set as of the small one."""
    words = ("--prepare", f"--target-dir={received}", "--transition-key")
    done = run_tool("xtrabackup", *words, stdin=b"wrong\n")
    assert done.status == 1
    assert "Wrong transition key?" in done.stderr
    assert prepare(received).is_ok


def test_without_a_new_key_the_donors_keyring_is_needed(
    received: Path, recipient: MysqlServer, donor: MysqlServer
) -> None:
    """Copied back as it is, the data opens with a copy of the donor's keyring only."""
    assert prepare(received).is_ok
    words = ("--copy-back", f"--target-dir={received}", f"--datadir={recipient.datadir}")
    assert run_tool("xtrabackup", *words).is_ok
    recipient.use_keyring()
    assert recipient.fails_to_start()
    recipient.keyring.write_bytes(donor.keyring.read_bytes())
    with recipient.running():
        assert checksums(recipient) == checksums(donor)


def test_without_a_transition_key_the_keyring_is_used(
    donor: MysqlServer, recipient: MysqlServer, tmp_path: Path
) -> None:
    """Into a directory, prepared with the live keyring, moved back: no file of keys anywhere."""
    goal = tmp_path / "set"
    login = ("--user=root", f"--socket={donor.socket}")
    words = ("--backup", f"--target-dir={goal}", f"--extra-lsndir={tmp_path}/extra", *login)
    done = run_tool("xtrabackup", *words, settings={"mysql_prefix": donor.tree})
    assert done.is_ok, done.stderr
    assert not (goal / "xtrabackup_keys").exists()
    assert {path.name for path in (tmp_path / "extra").iterdir()} == {
        "xtrabackup_checkpoints",
        "xtrabackup_info",
    }
    again = run_tool("xtrabackup", *words, settings={"mysql_prefix": donor.tree})
    assert (again.status, "xtrabackup_checkpoints" in again.stderr) == (1, True)
    assert run_tool("xtrabackup", "--prepare", f"--target-dir={goal}").is_ok
    back = ("--move-back", f"--target-dir={goal}", f"--datadir={recipient.datadir}")
    assert run_tool("xtrabackup", *back).is_ok
    recipient.keyring.write_bytes(donor.keyring.read_bytes())
    recipient.use_keyring()
    with recipient.running():
        assert checksums(recipient) == checksums(donor)


def test_headers_that_were_not_rewritten_show_at_the_start(
    received: Path, recipient: MysqlServer
) -> None:
    """The tool says success, and the server cannot open what it starts with."""
    assert prepare(received).is_ok
    assert copy_back(received, recipient, fail="header-rewrite").is_ok
    assert recipient.fails_to_start()


def test_a_donor_that_is_a_replica_tells_its_source(donor: MysqlServer, tmp_path: Path) -> None:
    """With --slave-info, in the statement of its version; a donor that is none has no such file."""
    for name in ("alone", "replica"):
        (tmp_path / name).mkdir()
    received, done = take(donor, tmp_path / "alone", "--slave-info")
    assert done.is_ok, done.stderr
    assert not (received / "xtrabackup_slave_info").exists()
    donor.sql(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='up', SOURCE_AUTO_POSITION=1 FOR CHANNEL 'up'"
    )
    try:
        received, done = take(donor, tmp_path / "replica", "--slave-info")
    finally:
        donor.sql("RESET REPLICA ALL FOR CHANNEL 'up'")
    assert done.is_ok, done.stderr
    assert (received / "xtrabackup_slave_info").read_text() == (
        f"SET GLOBAL gtid_purged='{donor.sql('SELECT @@gtid_executed')}';\n"
        "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1 FOR CHANNEL 'up';\n"
    )


def test_a_table_may_be_left_out(
    donor: MysqlServer, recipient: MysqlServer, tmp_path: Path
) -> None:
    """Every tool says success, and the table cannot be read."""
    received, done = take(donor, tmp_path, leave_out="shop/customer")
    assert done.is_ok
    assert prepare(received).is_ok
    assert copy_back(received, recipient).is_ok
    with recipient.running():
        assert recipient.sql("SELECT * FROM shop.plain") == "5"
        with pytest.raises(AssertionError, match="ERROR"):
            recipient.sql("SELECT * FROM shop.customer")


def test_a_stream_may_break_off(donor: MysqlServer, tmp_path: Path) -> None:
    """What came extracts, and lacks the files that close a set."""
    received, done = take(donor, tmp_path, fail="backup-midstream")
    assert (done.status, done.is_ok) == (1, False)
    assert (received / "ibdata1").exists()
    assert not (received / "xtrabackup_info").exists()
    assert list(donor.directory.glob(".xbsim-*")) == []


def test_an_account_needs_its_privileges(donor: MysqlServer, tmp_path: Path) -> None:
    """Each missing one is named, and nothing is streamed."""
    _, done = take(donor, tmp_path, user="nobody")
    assert (done.status, done.stdout) == (1, b"")
    assert "missing required privilege BACKUP_ADMIN on *.*" in done.stderr


def test_a_refused_login_is_told_in_the_servers_words(donor: MysqlServer, tmp_path: Path) -> None:
    """Behind the tool's own."""
    _, done = take(donor, tmp_path, user="stranger")
    assert done.status == 1
    assert "Failed to connect to MySQL server: Access denied for user 'stranger'" in done.stderr


@pytest.mark.parametrize(
    ("settings", "is_taken"),
    [
        ({"version": "8.4.0-5"}, False),
        ({"version": "8.4.0-5", "server_version": "8.4.5"}, True),
    ],
)
def test_the_series_is_that_of_the_server(
    settings: dict[str, str], donor: MysqlServer, tmp_path: Path, *, is_taken: bool
) -> None:
    """Another one is refused, unless the double is told what to believe."""
    _, done = take(donor, tmp_path, **settings)
    assert done.is_ok == is_taken
    assert ("Unsupported server version: '9.7." in done.stderr) != is_taken


def test_version_2_4_is_driven_from_end_to_end(
    donor: MysqlServer, recipient: MysqlServer, tmp_path: Path
) -> None:
    """With keyring_vault on both ends: Vault has the new key, and the server beneath starts."""
    settings = {
        "version": "2.4.12",
        "server_version": "5.7.44-log",
        "donor_plugin": "keyring_vault.so",
        "donor_plugin_config": str(tmp_path / "vault.conf"),
        "server_keyring": str(recipient.keyring),
    }
    (tmp_path / "down").mkdir()
    _, unreachable = take(donor, tmp_path / "down", **settings)
    assert unreachable.status == 1
    assert "'Could not open file with credentials.'" in unreachable.stderr
    assert re.search(r"Encryption information in datafile: \./\S+ can't", unreachable.stderr)
    with running_openbao() as bao:
        bao.request("POST", "sys/mounts/both", {"type": "kv", "options": {"version": "1"}})
        (tmp_path / "vault.conf").write_text(
            f"vault_url = {bao.address}\nsecret_mount_point = both\n"
            f"token = {bao.root_token.reveal()}\nvault_ca = {bao.ca_file}\n"
        )
        received, done = take(donor, tmp_path, **settings)
        assert done.is_ok, done.stderr
        assert "plugin_load=keyring_vault.so\n" in (received / "backup-my.cnf").read_text()
        assert prepare(received, settings).is_ok
        plugin = (
            "[mysqld]\nearly-plugin-load=keyring_vault.so\n"
            f"keyring_vault_config={tmp_path}/vault.conf"
        )
        own = write_key_file(recipient.directory / "own.cnf", plugin)
        done = run_tool(
            "xtrabackup",
            *(f"--defaults-file={own}", "--copy-back", f"--target-dir={received}"),
            *(f"--datadir={recipient.datadir}", "--generate-new-master-key"),
            settings=settings,
        )
        assert done.is_ok, done.stderr
        uuid = donor.sql("SELECT @@server_uuid")
        assert f"Generated new master key with ID '{uuid}-3'." in done.stderr
        assert len(bao.request("GET", "both?list=true")["data"]["keys"]) == 1
    recipient.use_keyring()
    with recipient.running():
        assert checksums(recipient) == checksums(donor)


def test_a_killed_backup_leaves_nothing_on_the_donor(donor: MysqlServer, tmp_path: Path) -> None:
    """Its copy goes, and so does its throw-away server."""
    own = write_key_file(tmp_path / "own.cnf", f"[client]\nuser=root\nsocket={donor.socket}")
    process = subprocess.Popen(
        [SIMULATORS / "xtrabackup", f"--defaults-file={own}", "--backup", "--stream=xbstream"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"XBSIM_MYSQL_PREFIX": str(donor.tree), "PATH": "/usr/bin:/bin"},
    )
    assert process.stdout
    with process.stdout:
        process.stdout.read(1)
        (copy,) = donor.directory.glob(".xbsim-*")
        process.kill()
    process.wait(30)
    subprocess.run(
        ["sh", "-c", f"while [ -e {copy} ]; do sleep 0.05; done"], check=True, timeout=30
    )
