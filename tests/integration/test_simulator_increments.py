"""The double's incremental backups: of small sets without a server, and of a real one."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import TYPE_CHECKING

import pytest
from mysql_server import MysqlServer, mysql_tree
from simulators import metadata
from simulators.delta import describe_space, make_delta
from simulators.keysfile import open_keys, seal_keys
from simulators.tablespaces import is_tablespace, read_headers
from xtrabackup_double import (
    SPACE_ID,
    SPACE_KEY,
    TRANSITION_KEY,
    Done,
    prepare,
    run_tool,
    write_key_file,
    write_set,
    write_tablespace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_PROPER = "Check 'to_lsn' of the target and 'from_lsn' of the incremental."
NOT_APPLIED = "applying incremental backup needs target prepared with --apply-log-only."
WRONG_KEY = "Wrong transition key?"


def apply(
    target: Path, increment: Path, *words: str, key: str = TRANSITION_KEY, **settings: str
) -> Done:
    """Put an increment into a set."""
    return run_tool(
        "xtrabackup",
        *("--prepare", f"--target-dir={target}", f"--incremental-dir={increment}"),
        *("--transition-key", *words),
        stdin=f"{key}\n".encode(),
        settings=settings,
    )


def apply_log(target: Path) -> Done:
    """Prepare a full set so that it takes increments."""
    words = ("--prepare", "--apply-log-only", f"--target-dir={target}", "--transition-key")
    return run_tool("xtrabackup", *words, stdin=f"{TRANSITION_KEY}\n".encode())


def read_state(directory: Path) -> tuple[str, ...]:
    """Return what a set says it is, and its three numbers but the flushed one."""
    state = metadata.read_checkpoints(directory)
    return tuple(state[name] for name in ("backup_type", "from_lsn", "to_lsn", "last_lsn"))


def read_files(directory: Path) -> dict[str, bytes]:
    """Return all files of a set."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def write_increment(
    directory: Path, begin: int = 1, end: int = 11, *, number: int = 1, tables: str = "customer"
) -> Path:
    """Write a small incremental set with some tables."""
    write_set(directory, number=number)
    (directory / "shop" / "customer.ibd").unlink()
    for name in tables.split():
        path = write_tablespace(directory / "shop" / f"{name}.ibd", number=number)
        meta = describe_space(path)
        path.with_name(f"{path.name}.meta").write_text(meta.text)
        path.with_name(f"{path.name}.delta").write_bytes(b"".join(make_delta(path, meta)))
        path.unlink()
    lines = f"from_lsn = {begin}\nto_lsn = {end}\nlast_lsn = {end + 1}\n"
    (directory / "xtrabackup_checkpoints").write_text(f"backup_type = incremental\n{lines}")
    (directory / "xtrabackup_binlog_info").write_text(f"binlog.{end:06}\t4\n")
    (directory / f"binlog.{end:06}").write_text(f"up to {end}")
    (directory / f"binlog.{end:06}.index").write_text("not the index")
    (directory / "binlog.index").write_text(f"/donor/binlog.{end:06}\n")
    (directory / "xtrabackup_info").write_text(f"server_version = 9.7.4\nend = {end}\n")
    return directory


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A small full set that may take increments."""
    return write_set(tmp_path / "full", state="log-applied")


@pytest.fixture
def increment(tmp_path: Path) -> Path:
    """A small increment that fits to it."""
    return write_increment(tmp_path / "increment")


def test_increments_are_put_in_one_after_the_other(full: Path, tmp_path: Path) -> None:
    """The target gets to each one's number, and is prepared by the one without the option."""
    first = write_increment(tmp_path / "first", 1, 11)
    second = write_increment(tmp_path / "second", 11, 21)
    assert apply_log(full).is_ok
    assert apply_log(full).is_ok
    assert apply(full, first, "--apply-log-only").is_ok
    assert read_state(full) == ("log-applied", "0", "11", "12")
    done = apply(full, second)
    assert done.is_ok, done.stderr
    assert "incremental backup from 11 is enabled." in done.stderr
    assert read_state(full) == ("full-prepared", "0", "21", "22")
    assert not (full / "xtrabackup_logfile").exists()


def test_the_last_increment_may_be_followed_by_a_prepare(full: Path, increment: Path) -> None:
    """All with --apply-log-only, and then once without: the same."""
    assert apply(full, increment, "--apply-log-only").is_ok
    assert (full / "xtrabackup_logfile").stat().st_size
    assert prepare(full).is_ok
    assert read_state(full) == ("full-prepared", "0", "11", "12")


def test_the_target_gets_what_the_increment_has(full: Path, tmp_path: Path) -> None:
    """New tables come, dropped ones go; of the other files those go over that are newer there."""
    write_tablespace(full / "shop" / "gone.ibd")
    write_tablespace(full / "old" / "t.ibd")
    (full / "shop" / "log_1.sdi").write_text("of the full one")
    (full / "binlog.000001").write_text("of the full one")
    (full / "binlog.index").write_text("/donor/binlog.000001\n")
    (full / "xtrabackup_slave_info").write_text("of the full one")
    before = read_files(full)
    increment = write_increment(tmp_path / "increment", number=2, tables="customer fresh")
    (increment / "backup-my.cnf").write_text("[mysqld]\nserver_id=2\n")
    (increment / "logs").mkdir()
    (increment / "logs" / "log_2.sdi").write_text("of the increment")
    newer = read_files(increment)
    assert apply(full, increment, "--apply-log-only").is_ok
    after = read_files(full)
    assert {name for name in after if is_tablespace(full / name)} == {
        "shop/customer.ibd",
        "shop/fresh.ibd",
    }
    assert not (full / "old").exists()
    assert {name for name in after if name.endswith(".sdi")} == {"logs/log_2.sdi"}
    assert {header.number for header in read_headers(full).values()} == {2}
    for name in ("binlog.000011", "binlog.index", "xtrabackup_binlog_info", "xtrabackup_info"):
        assert after[name] == newer[name]
    assert after["xtrabackup_keys"] == newer["xtrabackup_keys"] != before["xtrabackup_keys"]
    assert "binlog.000001" not in after
    for name in ("backup-my.cnf", "xtrabackup_slave_info"):
        assert after[name] == before[name]
    assert read_files(increment) == newer


@pytest.mark.parametrize(
    ("state", "begin", "said"),
    [
        ("log-applied", 2, NOT_PROPER),
        ("log-applied", 0, NOT_PROPER),
        ("full-backuped", 1, NOT_APPLIED),
        ("full-prepared", 1, NOT_APPLIED),
        ("incremental", 1, "does not have correct metadata"),
    ],
)
@pytest.mark.parametrize("version", ["2.4.29", "9.7.1"])
def test_an_increment_needs_its_base(
    state: str, begin: int, said: str, version: str, tmp_path: Path
) -> None:
    """Refused with status 1, in the real tool's words, and the target is as it was."""
    full = write_set(tmp_path / "full", state=state)
    before = read_files(full)
    done = apply(full, write_increment(tmp_path / "increment", begin), version=version)
    assert (done.status, done.is_ok) == (1, False)
    assert said in done.stderr
    assert read_files(full) == before


def test_only_an_increment_is_one(full: Path, tmp_path: Path) -> None:
    """A full set, one that says only that it fits, and a directory that is no set."""
    other = write_set(tmp_path / "other")
    assert NOT_PROPER in apply(full, other).stderr
    checkpoints = other / "xtrabackup_checkpoints"
    checkpoints.write_text(checkpoints.read_text().replace("from_lsn = 0", "from_lsn = 1"))
    assert "is no incremental backup" in apply(full, other).stderr
    checkpoints.write_text("backup_type = incremental\n")
    said = f"failed to read metadata from {checkpoints}"
    assert said in apply(full, other).stderr
    checkpoints.unlink()
    done = apply(full, other)
    assert (done.status, said in done.stderr) == (1, True)


def test_an_increment_is_no_target(increment: Path) -> None:
    """It is nothing by itself."""
    done = prepare(increment)
    assert (done.status, "does not have correct metadata" in done.stderr) == (1, True)


def test_both_files_of_keys_are_opened(full: Path, increment: Path) -> None:
    """With one transition key: that of the one or of the other alone is wrong, and changes nothing."""
    before = read_files(full)
    (increment / "xtrabackup_keys").write_bytes(seal_keys("another", {SPACE_ID: SPACE_KEY}))
    for key in (TRANSITION_KEY, "another"):
        done = apply(full, increment, key=key)
        assert (done.status, WRONG_KEY in done.stderr) == (1, True)
        assert done.stderr.strip().endswith("failed to load tablespace keys")
    assert read_files(full) == before
    (increment / "xtrabackup_keys").write_bytes(seal_keys(TRANSITION_KEY, {SPACE_ID: SPACE_KEY}))
    assert apply(full, increment).is_ok


def test_a_tablespace_without_its_key_is_met_too_late(full: Path, increment: Path) -> None:
    """The pages are in the target by then, and the tool crashes as with a full set."""
    for directory in (full, increment):
        (directory / "xtrabackup_keys").write_bytes(seal_keys(TRANSITION_KEY, {}))
    (full / "shop" / "customer.ibd").unlink()
    done = apply(full, increment)
    assert (done.status, "signal 6" in done.stderr) == (2, True)


def test_an_interrupted_apply_spoils_the_target(full: Path, tmp_path: Path) -> None:
    """The target says what it said, and neither takes the increment again nor is prepared."""
    increment = write_increment(tmp_path / "increment", tables="a b c")
    assert apply(full, increment, fail="prepare").status == 1
    assert (full / "shop" / "a.ibd").exists()
    assert not (full / "shop" / "c.ibd").exists()
    assert read_state(full) == ("log-applied", "0", "1", "2")
    for done in (apply(full, increment), prepare(full)):
        assert (done.status, "xtrabackup_init_temp_log() failed" in done.stderr) == (1, True)


def test_an_increment_without_its_redo_is_refused(full: Path, increment: Path) -> None:
    """Before anything is changed."""
    before = read_files(full)
    (increment / "xtrabackup_logfile").unlink()
    done = apply(full, increment)
    assert f"xtrabackup_logfile does not exist in {increment}" in done.stderr
    assert read_files(full) == before


def test_a_delta_without_its_description_is_refused(full: Path, increment: Path) -> None:
    """Nothing then says where its pages belong."""
    (increment / "shop" / "customer.ibd.meta").unlink()
    done = apply(full, increment)
    assert (done.status, "customer.ibd.meta" in done.stderr) == (1, True)


def test_no_other_option_file_is_read_for_an_increment(
    full: Path, increment: Path, tmp_path: Path
) -> None:
    """The key in --defaults-file is not seen; with both directories in the file it is."""
    own = write_key_file(tmp_path / "k.cnf")
    words = ("--prepare", f"--target-dir={full}", f"--incremental-dir={increment}")
    done = run_tool("xtrabackup", f"--defaults-file={own}", *words)
    assert (done.status, "failed to derive encryption key" in done.stderr) == (1, True)
    own = write_key_file(tmp_path / "k.cnf", f"target-dir={full}", f"incremental-dir={increment}")
    assert run_tool("xtrabackup", f"--defaults-file={own}", "--prepare").is_ok


def test_version_2_4_takes_the_newest_master_key_of_the_increment(
    full: Path, tmp_path: Path
) -> None:
    """Its number is the one that the key of a copy is counted from."""
    increment = write_increment(tmp_path / "increment", number=7)
    assert apply(full, increment, version="2.4.29").is_ok
    assert (full / "xtrabackup_master_key_id").read_text() == "7"
    assert (full / "xtrabackup_binlog_pos_innodb").read_text() == "binlog.000011\t4\n"


@pytest.mark.parametrize("number", ["", "1e3", "-1", "0x10", "²"])
def test_a_backup_goes_on_from_a_number(number: str, tmp_path: Path) -> None:
    """Or it is refused before the server is asked for anything."""
    words = ("--backup", f"--target-dir={tmp_path}/set", f"--incremental-lsn={number}")
    done = run_tool("xtrabackup", *words)
    assert done.status == 1
    assert f"value '{number}' may be wrong format for incremental option." in done.stderr


def test_a_backup_goes_on_from_a_set(tmp_path: Path) -> None:
    """Or it is refused; a number goes before the set."""
    words = ("--backup", f"--target-dir={tmp_path}/set", f"--incremental-basedir={tmp_path}/none")
    done = run_tool("xtrabackup", *words)
    said = f"failed to read metadata from {tmp_path}/none/xtrabackup_checkpoints"
    assert (done.status, said in done.stderr) == (1, True)
    done = run_tool("xtrabackup", *words, "--incremental-lsn=5")
    assert "incremental backup from 5 is enabled." in done.stderr


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """A full set and two increments of a real server, with what was changed between them.

    Attributes:
        sets: The three.
        donor: The server, which is as it was at the last one.
    """

    sets: tuple[Path, Path, Path]
    donor: MysqlServer


MARKER = "a value that is nowhere in clear"
TABLES = "shop.customer, shop.fresh, shop.plain, shop.other"
MAKE = f"""
CREATE USER backup@localhost IDENTIFIED BY 'b';
GRANT BACKUP_ADMIN, PROCESS, RELOAD, LOCK TABLES, REPLICATION CLIENT ON *.* TO backup@localhost;
GRANT SELECT ON performance_schema.keyring_component_status TO backup@localhost;
CREATE DATABASE shop; CREATE DATABASE old;
CREATE TABLE shop.customer (id INT PRIMARY KEY, v TEXT);
INSERT INTO shop.customer VALUES (1, '{MARKER}');
CREATE TABLE shop.plain (id INT PRIMARY KEY) ENCRYPTION = 'N';
CREATE TABLE shop.gone (id INT PRIMARY KEY);
CREATE TABLE shop.renamed (id INT PRIMARY KEY);
CREATE TABLE old.t (id INT PRIMARY KEY);
"""
FIRST_CHANGES = f"""
INSERT INTO shop.customer VALUES (2, '{MARKER}');
CREATE TABLE shop.fresh (id INT PRIMARY KEY, v TEXT);
INSERT INTO shop.fresh VALUES (1, '{MARKER}');
DROP TABLE shop.gone; DROP DATABASE old;
ALTER INSTANCE ROTATE INNODB MASTER KEY; FLUSH BINARY LOGS;
INSERT INTO shop.plain VALUES (1);
"""
LSN = "SELECT storage_engines ->> '$.InnoDB.LSN' FROM performance_schema.log_status"
SECOND_CHANGES = """
INSERT INTO shop.customer VALUES (3, 'three');
TRUNCATE TABLE shop.plain; INSERT INTO shop.plain VALUES (2), (3);
RENAME TABLE shop.renamed TO shop.other; INSERT INTO shop.other VALUES (7);
INSERT INTO shop.fresh SELECT id + 1, REPEAT('x', 8000) FROM shop.plain;
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Three sets of an encrypted server: one streamed by a number, one into a directory."""
    directory = tmp_path_factory.mktemp("chain")
    donor = MysqlServer(tree=mysql_tree(), directory=directory / "donor").make()
    donor.initialise()
    donor.use_keyring()
    with donor.running():
        donor.sql(MAKE)
        full, first, second = (directory / name for name in ("full", "first", "second"))
        take(donor, full)
        donor.sql(FIRST_CHANGES)
        take(donor, first, f"--incremental-lsn={read_state(full)[2]}")
        donor.sql(SECOND_CHANGES)
        words = (f"--target-dir={second}", f"--incremental-basedir={first}")
        done = run_backup(donor, directory, *words)
        assert done.is_ok, done.stderr
        assert int(read_state(second)[2]) <= int(donor.sql(LSN))
        yield Chain(sets=(full, first, second), donor=donor)


def run_backup(donor: MysqlServer, directory: Path, *words: str) -> Done:
    """Back the donor up with the transition key of an option file."""
    login = f"[client]\nuser=backup\npassword=b\nsocket={donor.socket}"
    own = write_key_file(directory / "own.cnf", login)
    settings = {"mysql_prefix": donor.tree}
    return run_tool("xtrabackup", f"--defaults-file={own}", "--backup", *words, settings=settings)


def take(donor: MysqlServer, goal: Path, *words: str) -> None:
    """Stream a set into a directory."""
    done = run_backup(donor, goal.parent, "--stream=xbstream", *words)
    assert done.is_ok, done.stderr
    assert MARKER.encode() not in done.stdout
    goal.mkdir()
    assert run_tool("xbstream", "-x", "-C", goal, stdin=done.stdout).status == 0


def copy_set(source: Path, goal: Path) -> Path:
    """Copy a set for one test."""
    subprocess.run(["cp", "-a", source, goal], check=True)
    return goal


def test_an_increment_says_what_it_is(chain: Chain) -> None:
    """Each goes on where the one before it ended; a full one begins at nothing."""
    full, first, second = map(read_state, chain.sets)
    assert full[:2] == ("full-backuped", "0")
    assert first[:2] == ("incremental", full[2])
    assert second[:2] == ("incremental", first[2])
    assert int(full[2]) <= int(first[2]) <= int(second[2]) <= int(second[3])
    for directory, begin, kind in zip(chain.sets, ("0", full[2], first[2]), "NYY", strict=True):
        info = (directory / "xtrabackup_info").read_text()
        assert f"\ninnodb_from_lsn = {begin}\n" in info
        assert f"\nincremental = {kind}\n" in info


def test_an_increment_has_deltas_and_all_else_as_a_full_one(chain: Chain) -> None:
    """No tablespace as such; each delta with the tablespace's number as the server has it."""
    full, *increments = chain.sets
    for directory in increments:
        names = set(read_files(directory))
        assert not [name for name in names if is_tablespace(directory / name)]
        deltas = {name.removesuffix(".delta") for name in names if name.endswith(".delta")}
        metas = {name.removesuffix(".meta") for name in names if name.endswith(".meta")}
        assert deltas == metas > {"ibdata1", "mysql.ibd", "undo_001", "shop/fresh.ibd"}
        top = {path.name for path in full.iterdir() if path.is_file()}
        assert names > {name for name in top if not is_tablespace(full / name)} - {"binlog.000001"}
    statement = "SELECT space, flag FROM information_schema.innodb_tablespaces WHERE name = '{}'"
    for table in ("shop/fresh", "shop/plain"):
        meta = (chain.sets[2] / f"{table}.ibd.meta").read_text()
        space, flags = chain.donor.sql(statement.format(table)).split()
        assert meta.endswith(f"zip_size = 0\nspace_id = {space}\nspace_flags = {flags}\n")


def test_an_increment_has_its_own_keys(chain: Chain) -> None:
    """Those of its own encrypted tablespaces, under the same transition key and another salt."""
    full, first, second = (directory / "xtrabackup_keys" for directory in chain.sets)
    assert len({path.read_bytes()[:71] for path in (full, first, second)}) == 3
    statement = "SELECT space FROM information_schema.innodb_tablespaces WHERE encryption = 'Y'"
    spaces = set(map(int, chain.donor.sql(statement).split()))
    assert spaces <= set(open_keys(TRANSITION_KEY, second.read_bytes()))
    assert not spaces <= set(open_keys(TRANSITION_KEY, full.read_bytes()))


def test_a_chain_is_brought_to_life(chain: Chain, tmp_path: Path) -> None:
    """Prepared in order, copied back under a new key: the server has all rows of the last set."""
    target = copy_set(chain.sets[0], tmp_path / "set")
    assert apply_log(target).is_ok
    assert apply(target, chain.sets[1], "--apply-log-only").is_ok
    done = apply(target, chain.sets[2])
    assert done.is_ok, done.stderr
    recipient = MysqlServer(tree=chain.donor.tree, directory=tmp_path / "recipient").make()
    own = write_key_file(tmp_path / "own.cnf")
    done = run_tool(
        "xtrabackup",
        *(f"--defaults-file={own}", "--copy-back", f"--target-dir={target}"),
        *(f"--datadir={recipient.datadir}", "--generate-new-master-key"),
        f"--component-keyring-config={recipient.keyring_config}",
        f"--log-bin={recipient.directory}/binlog/binlog",
    )
    assert done.is_ok, done.stderr
    recipient.use_keyring()
    assert not (recipient.datadir / "old").exists()
    headers = read_headers(recipient.datadir)
    assert {header.server_uuid for header in headers.values()}.isdisjoint(
        {chain.donor.sql("SELECT @@server_uuid")}
    )
    assert not list(recipient.datadir.glob("binlog.*"))
    with recipient.running():
        for statement in (f"CHECKSUM TABLE {TABLES}", "SELECT @@gtid_executed", "SHOW DATABASES"):
            assert recipient.sql(statement) == chain.donor.sql(statement)
        assert recipient.sql("SELECT COUNT(*) FROM shop.customer") == "3"
        assert recipient.sql("SELECT v FROM shop.fresh WHERE id = 1") == MARKER
        assert recipient.sql("SHOW TABLES IN shop").split() == [
            *("customer", "fresh", "other", "plain")
        ]
        recipient.sql("ALTER INSTANCE ROTATE INNODB MASTER KEY; DELETE FROM shop.fresh")
    assert "[ERROR]" not in (recipient.directory / "log.err").read_text()


def test_a_chain_is_prepared_in_order_only(chain: Chain, tmp_path: Path) -> None:
    """One left out, one twice, one under another key, one too early and one too late are refused."""
    full, first, second = chain.sets
    target = copy_set(full, tmp_path / "set")
    other = copy_set(first, tmp_path / "other")
    sealed = open_keys(TRANSITION_KEY, (first / "xtrabackup_keys").read_bytes())
    (other / "xtrabackup_keys").write_bytes(seal_keys("another", sealed))
    assert NOT_APPLIED in apply(target, first).stderr
    assert apply_log(target).is_ok
    for refused, said in ((second, NOT_PROPER), (full, NOT_PROPER), (other, WRONG_KEY)):
        done = apply(target, refused)
        assert (done.status, said in done.stderr) == (1, True)
    assert apply(target, first, "--apply-log-only").is_ok
    assert NOT_PROPER in apply(target, first).stderr
    assert prepare(target).is_ok
    done = apply(target, second)
    assert (done.status, NOT_APPLIED in done.stderr) == (1, True)


def test_a_backup_does_not_go_on_from_the_future(chain: Chain, tmp_path: Path) -> None:
    """A number that the server has not come to is refused, and nothing is written."""
    beyond = int(read_state(chain.sets[2])[3]) + 10**9
    words = (f"--target-dir={tmp_path}/set", f"--incremental-lsn={beyond}")
    done = run_backup(chain.donor, tmp_path, *words)
    assert (done.status, (tmp_path / "set").exists()) == (1, False)
    assert f"an incremental backup from {beyond} cannot be made" in done.stderr
