"""Hostile values on their way to a host: through real shells, OpenSSH, option files and MariaDB.

Each value must come out on the other side as it went in, or be refused by us before; nothing of it
may be run. The values are made by machine, the programs are those of this machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hostile import FEW, NAMES, SCARCE
from hypothesis import given
from hypothesis import strategies as st
from local_remote import LocalRemote

from orchestrator import config as config_module
from orchestrator import jobs, sql
from orchestrator.config import HostConfig, ServerConfig, SshConfig
from orchestrator.errors import ConfigError, OrchestratorError, VerificationError
from orchestrator.facts import hosts, instances, places
from orchestrator.flavors import mariadb, mariadb_files, option_files
from orchestrator.flavors.quoting import (
    MOST_OPTION_BYTES,
    is_plain,
    quote_definer,
    quote_name,
    quote_option,
    quote_plain,
    quote_text,
    unhex,
)
from orchestrator.host import script
from orchestrator.remote import files, hops
from orchestrator.steps import comparison, verification

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)

PATHS = NAMES.map(lambda name: name.replace("/", "_")[:80]).filter(
    lambda name: name not in ("", ".", "..")
)
"""Names of files and directories."""
IDENTIFIER = (
    st.one_of(
        st.sampled_from(
            [*(n for n in ("x'; touch pwned #", "`touch pwned`", "two\nlines", "-rf", "a.b"))]
        ),
        st.text(st.characters(min_codepoint=1, max_codepoint=0xFFFF, exclude_categories=["Cs"])),
        st.text("'\"`$\\;&|<>(){}[]*?~#!%=.@/ \t\n\r-"),
    )
    .map(lambda name: name[:20].rstrip())
    .filter(lambda name: name.strip(" ") != "" and "\0" not in name)
    .filter(lambda name: not name[-1].isspace() and name not in (".", ".."))
)
"""What MariaDB takes as a name: characters of the basic plane, no space at the end."""
FLAVOR = mariadb.MariaDB()
DIALECT = FLAVOR.dialect("10.11.19")
MODES = ("", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES", "NO_BACKSLASH_ESCAPES", "ORACLE")


@pytest.fixture(autouse=True)
def nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder of its own, in which nothing called ``pwned`` appears."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert [path.name for path in folder.iterdir()] == []
    assert not Path("/pwned").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for what tests make."""
    return tmp_path_factory.mktemp("hostile")


# Words of a command.


@pytest.mark.parametrize("shell", ["sh", "bash"])
@FEW
@given(words=st.lists(NAMES | st.just(""), max_size=6))
def test_words_reach_a_shell_as_they_are(shell: str, words: list[str]) -> None:
    """SSH hands one text to a shell; quoted as `SshRemote` does it, the words come out again."""
    command = shlex.join(["printf", "%s\\0", "first", *words])
    ended = subprocess.run([shell, "-c", command], capture_output=True, check=True)
    assert ended.stdout.decode().split("\0")[1:-1] == words


@FEW
@given(words=st.lists(NAMES, max_size=5), place=PATHS)
def test_a_job_hands_words_and_paths_on(folder: Path, words: list[str], place: str) -> None:
    """Command, directory, output and environment file of a remote job are data."""
    remote = LocalRemote(root=folder)
    (folder / "var/lib/xbvault").mkdir(parents=True, exist_ok=True)
    target = folder / place
    if "\n" in place or "\r" in place:
        with pytest.raises(ValueError, match="no line break"):
            jobs.Stage(argv=("true",), environment_file=str(target))
        return
    target.mkdir(exist_ok=True)
    environment = target / "env"
    environment.write_text("VAULT_TOKEN='$(touch pwned)'\n")
    out = target / "out $(touch pwned)"
    spec = jobs.JobSpec(
        name="r1.print",
        stages=(
            jobs.Stage(
                argv=("sh", "-c", 'printf "%s\\0" "$VAULT_TOKEN" "$PWD" "$@"', "sh", *words),
                environment_file=str(environment),
            ),
        ),
        stdout_file=str(out),
        directory=str(target),
    )
    base = str(folder / "var/lib/xbvault")
    called = ["sh", "-s", "--", "start", base, spec.name]
    remote.run(called, stdin=jobs._write_job(spec) + script("job.sh"))
    state = _wait(remote, base, spec.name)
    assert state.is_ok, state.stderr
    assert out.read_bytes().decode().split("\0")[:-1] == ["$(touch pwned)", str(target), *words]
    remote.run(["sh", "-s", "--", "remove", base, spec.name, "0"], stdin=script("job.sh"))
    out.unlink()


def _wait(remote: LocalRemote, base: str, name: str) -> jobs.JobState:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        report = remote.run(["sh", "-s", "--", "report", base, name], stdin=script("job.sh"))
        state = jobs.parse_report(report.text)
        if state.ended:
            return state
        time.sleep(0.02)
    raise AssertionError("the job did not end")


@FEW
@given(place=PATHS, content=st.binary(max_size=300))
def test_files_are_written_and_read_by_any_name(folder: Path, place: str, content: bytes) -> None:
    """The path of a file is an argument and nothing else."""
    path = str(folder / f"file {place}")
    command = files.make_write_command(path, size_bytes=len(content), mode=0o600, owner="")
    subprocess.run(command, input=content, check=True)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    read = subprocess.run(files.make_read_command(path), capture_output=True, check=True)
    assert read.stdout == content
    Path(path).unlink()


# Environment files.

LINES = st.lists(
    st.sampled_from(
        ["# x", "; y=1", "", "  ", "OTHER=1", "export VAULT_TOKEN=1", "VAULT_TOKEN=\\x"]
    )
    | st.builds(
        "{}VAULT_TOKEN{}{}{}".format,
        st.text(" \t", max_size=2),
        st.sampled_from(["=", "= ", "=\t"]),
        st.text("abc'\"$()`; #=*~\x0b\x85\u2028é", max_size=12),
        st.text(" \t", max_size=2),
    ),
    max_size=4,
)


@FEW
@given(lines=LINES)
def test_a_job_reads_the_token_that_we_read(folder: Path, lines: list[str]) -> None:
    """What we take from a host's environment file is what the backup tool will get there."""
    path = folder / "vault.env"
    path.write_text("\n".join(lines), newline="")
    text = script("job.sh")
    begin = text.index("load_environment() {")
    function = text[begin : text.index("\n}\n", begin) + 3]
    code = f'die() {{ exit 78; }}\n{function}load_environment "$1"; printf %s "${{VAULT_TOKEN-}}"'
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    ended = subprocess.run(
        ["sh", "-c", code, "sh", str(path)], capture_output=True, check=False, env=environment
    )
    assert ended.returncode in (0, 78)
    if ended.returncode == 0:
        ours = files.parse_environment_file(path.read_text()).get("VAULT_TOKEN", "")
        assert ours == ended.stdout.decode()


# Scripts that ask.


def _fake_sshd(folder: Path, principals: Path) -> None:
    program = folder / "sshd"
    program.write_text(f"#!/bin/sh\necho authorizedprincipalsfile {principals}/%u/%h\n")
    program.chmod(0o755)


@SCARCE
@given(place=PATHS, user=NAMES)
def test_facts_of_a_hostile_datadir_and_login(folder: Path, place: str, user: str) -> None:
    """A datadir of any name is told as it is, or as one that cannot be told; no login is run."""
    _fake_sshd(folder, folder)
    datadir = folder / f"d {place}"
    datadir.mkdir(exist_ok=True)
    command = ["sh", "-s", "--", str(datadir), user, "no_such_group", "p-"]
    command += ["mariadbd", "mariadb-backup", "my_print_defaults", "", "cat", user]
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    ended = subprocess.run(
        command,
        input=hosts.facts_script().encode(),
        capture_output=True,
        check=False,
        env=environment,
    )
    text = ended.stdout.decode("utf-8", "replace")
    if "\n" in place or "\n" in user:
        with pytest.raises(VerificationError, match="has a line break"):
            hosts.parse_host("db1", text, FLAVOR, before=1, after=2)
        return
    found = hosts.parse_host("db1", text, FLAVOR, before=1, after=2)
    assert found.datadir == found.real_datadir == str(datadir)
    assert found.datadir_inode == datadir.stat().st_ino
    assert found.sshd["authorizedprincipalsfile"] == f"{folder}/{user}/"


@SCARCE
@given(place=PATHS, base=PATHS)
def test_places_of_hostile_names(folder: Path, place: str, base: str) -> None:
    """Directories and the base names of logs are no patterns, and no code."""
    directory = folder / f"p {place}"
    directory.mkdir(exist_ok=True)
    base = f"l {base}".partition("\n")[0]
    log = directory / f"{base}.000001"
    log.write_bytes(b"x" * 7)
    (directory / "other.000001").write_bytes(b"y" * 100)
    values = {"log_bin_basename": str(directory / base)}
    sets = mariadb_files.list_file_sets(values, datadir=str(folder))
    words = [word for one in sets for word in (one.directory, "\n".join(one.patterns))]
    answer = LocalRemote().run(["sh", "-s", "--", str(folder), *words], stdin=script("places.sh"))
    if "\n" in place:
        with pytest.raises(VerificationError, match="has a line break"):
            places.parse_places("db1", answer.stdout.decode(), sets)
    elif "\\" not in base:  # preflight refuses it: shells disagree on it in a pattern
        found = places.parse_places("db1", answer.stdout.decode(), sets).files[0]
        assert (found.real, found.bytes) == (str(directory), 7)
    log.unlink()


# OpenSSH.


@FEW
@given(
    value=NAMES, key=st.sampled_from(["address", "ssh_user", "receive_user", "replication_address"])
)
def test_what_the_configuration_lets_through_is_no_option_of_ssh(value: str, key: str) -> None:
    """An address or a login is refused, or reaches ssh as itself and sets nothing else."""
    host = {"vault_mount": "k"}
    inner = {"server": {key: value}} if key == "replication_address" else {key: value}
    try:
        config = config_module.parse({"hosts": {"db1": {**host, **inner}}}).host("db1")
    except ConfigError:
        return
    ssh = SshConfig(config_file="/dev/null")
    with contextlib.suppress(ConfigError):
        (hop,) = hops.resolve_way("db1", config, ssh)
        assert (hop.proxy_command, hop.proxy_jump) == ("", "")
        # ssh writes an IPv4 address out that was shortened to a number
        assert hop.address == (config.address or "db1").lower() or config.address[0].isdigit()
        if config.ssh_user:
            assert hop.user == config.ssh_user


# Option files.


def read_option(path: Path, name: str) -> str:
    """Return an option as MariaDB's own programs read it."""
    shown = subprocess.run(
        ["my_print_defaults", f"--defaults-file={path}", "mariadb", "mysqld"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    options = option_files.parse_print_defaults(shown)
    return options.get(name, "")


@FEW
@given(value=NAMES)
def test_a_value_in_an_option_file_is_read_back(folder: Path, value: str) -> None:
    """URL and CA path mean themselves to the server, and set no other option; or are refused."""
    path = folder / "drop-in.cnf"
    try:
        quote_option(value)
    except VerificationError:
        assert not value.isprintable() or len(value.encode()) > MOST_OPTION_BYTES // 2
        return
    assert value.isprintable()
    path.write_text(FLAVOR.quiet_drop_in(run_id="r1", version="10.11.19", vault_url=value))
    assert read_option(path, "hashicorp_key_management_vault_url") == value
    old = (
        "[mysqld]\nhashicorp_key_management_vault_url=x\nhashicorp_key_management_vault_ca=y\nz=1\n"
    )
    path.write_text(mariadb.retarget_options(old, vault_url=value, vault_ca=f"/ {value}"))
    assert read_option(path, "hashicorp_key_management_vault_url") == value
    assert read_option(path, "hashicorp_key_management_vault_ca") == f"/ {value}"
    assert read_option(path, "z") == "1"


# SQL.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostConfig]:
    """Run a server of its own, without network."""
    folder = tmp_path_factory.mktemp("mariadb")
    datadir, socket = folder / "data", folder / "it's a socket; #"
    who = "--user=root"
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={datadir}", who, "--skip-test-db"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    options = [
        "--skip-networking",
        "--log-bin=bin",
        "--server-id=1",
        "--innodb-buffer-pool-size=32M",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "mariadbd",
                "--no-defaults",
                f"--datadir={datadir}",
                f"--socket={socket}",
                who,
                *options,
            ],
            stdout=log,
            stderr=log,
        )
    found = HostConfig(vault_mount="k", server=ServerConfig(socket=str(socket)))
    try:
        end = time.monotonic() + 60
        while not instances.is_answering(LocalRemote(), found):
            assert time.monotonic() < end, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("mode", MODES)
@FEW
@given(text=NAMES)
def test_a_text_is_itself_to_the_server(server: HostConfig, mode: str, text: str) -> None:
    """Under every sql_mode; the client does not act on it either."""
    row = sql.query_row(
        LocalRemote(), server, f"SET sql_mode = '{mode}'; SELECT HEX({quote_text(text)}) AS t"
    )
    assert unhex(row["t"]) == text


@pytest.mark.parametrize("mode", MODES)
@FEW
@given(text=NAMES.map(lambda name: name[:60]))
def test_a_plain_literal_is_itself_to_the_server(server: HostConfig, mode: str, text: str) -> None:
    """Also in CHANGE MASTER, which takes no expression; or it is refused before."""
    if not is_plain(text):
        with pytest.raises(VerificationError):
            quote_plain(text)
        return
    remote, literal = LocalRemote(), quote_plain(text)
    row = sql.query_row(remote, server, f"SET sql_mode = '{mode}'; SELECT HEX({literal}) AS t")
    assert unhex(row["t"]) == text
    sql.execute(
        remote,
        server,
        f"SET sql_mode = '{mode}'; CHANGE MASTER TO MASTER_HOST = 'h', MASTER_SSL_CA = {literal}",
    )
    (status,) = sql.query(remote, server, DIALECT.status_sql)
    assert status["Master_SSL_CA_File"] == text


@SCARCE
@given(schema=IDENTIFIER, table=IDENTIFIER, column=IDENTIFIER, value=NAMES)
def test_names_of_tables_come_back(
    server: HostConfig, schema: str, table: str, column: str, value: str
) -> None:
    """Listed, opened, compared, with and without generated columns: by the names that they have."""
    remote = LocalRemote()
    schema = f"s{schema}"[:20].rstrip()
    s, t, c = quote_name(schema), quote_name(table), quote_name(column)
    g = quote_name(f"g {table}")
    try:
        sql.execute(
            remote,
            server,
            f"CREATE SCHEMA {s};"
            f"CREATE TABLE {s}.{t} ({c} LONGTEXT CHARACTER SET utf8mb4) ENGINE=InnoDB;"
            f"CREATE TABLE {s}.{g} ({c} INT, {quote_name('g' + column)} INT AS (1)) ENGINE=InnoDB;"
            f"INSERT INTO {s}.{t} VALUES ({quote_text(value)})",
        )
        tables = [
            one for one in instances.read_tables(remote, server, DIALECT) if one.schema == schema
        ]
        assert {one.name for one in tables} == {table, f"g {table}"}
        columns = instances.read_base_columns(remote, server, DIALECT)
        assert columns[schema, f"g {table}"] == (column,)
        text = comparison.checksum_sql(tables, columns, begin=DIALECT.snapshot_sql())
        answer = remote.run(sql.client_command(server), stdin=text).stdout.decode()
        sums = comparison.parse_checksums(answer)
        assert comparison.find_differences(tables, sums, sums) == []
        row = sql.query_row(remote, server, f"SELECT HEX({c}) AS v FROM {s}.{t}")
        assert unhex(row["v"]) == value
        assert _unopened(server, tables) == []
        gone = [*tables, instances.Table(schema=schema, name="no such", engine="InnoDB", bytes=0)]
        assert _unopened(server, gone) == [f"{schema}.no such"]
    finally:
        sql.execute(remote, server, f"DROP SCHEMA IF EXISTS {s}")


def _unopened(server: HostConfig, tables: list[instances.Table]) -> list[str]:
    class Doors:
        """What `_try_to_open` asks of the tools."""

        @staticmethod
        def seconds_left() -> float:
            return 60.0

    doors: Any = Doors()
    return verification._try_to_open(doors, LocalRemote(), server, tuple(tables), DIALECT)


@SCARCE
@given(user=IDENTIFIER, host=IDENTIFIER, name=IDENTIFIER)
def test_events_are_disabled_with_their_definers(
    server: HostConfig, user: str, host: str, name: str
) -> None:
    """The statement that release-replica makes names event and definer as they are."""
    remote, host = LocalRemote(), host.replace("@", "a").lower()
    definer = f"{quote_name(user)}@{quote_name(host)}"
    event = f"mysql.{quote_name(name)}"
    sql.execute(
        remote,
        server,
        f"SET sql_log_bin = 0; CREATE DEFINER = {definer} EVENT {event} ON SCHEDULE EVERY 1 DAY DO DO 1",
    )
    try:
        (row,) = sql.query(remote, server, DIALECT.events_sql)
        found = unhex(row["event_name"]), unhex(row["definer"])
        assert found == (name, f"{user}@{host}")
        sql.execute(
            remote,
            server,
            f"ALTER DEFINER = {quote_definer(found[1])} EVENT {event} DISABLE ON SLAVE",
        )
        (row,) = sql.query(remote, server, DIALECT.events_sql)
        assert (unhex(row["definer"]), row["status"]) == (found[1], "SLAVESIDE_DISABLED")
    finally:
        sql.execute(remote, server, f"DROP EVENT {event}")


def test_names_that_the_backup_tool_would_not_quote(server: HostConfig, folder: Path) -> None:
    """Preflight names what mariadb-backup fails at, and only that."""
    remote = LocalRemote()
    made = "CREATE SCHEMA `b``s`; CREATE TABLE `b``s`.i (a INT) ENGINE=InnoDB; CREATE SCHEMA plain;"
    sql.execute(remote, server, f"{made} CREATE TABLE plain.m (a INT) ENGINE=MyISAM")
    backup = ["mariadb-backup", "--no-defaults", "--backup", f"--socket={server.server.socket}"]
    try:
        assert instances.read_instance(remote, server).unquoted_tables == ()
        remote.run([*backup, "--user=root", f"--target-dir={folder / 'good'}"])
        sql.execute(remote, server, "CREATE TABLE plain.`a``b` (a INT) ENGINE=Aria")
        assert instances.read_instance(remote, server).unquoted_tables == ("plain.a`b",)
        failed = remote.run([*backup, "--user=root", f"--target-dir={folder / 'bad'}"], check=False)
        assert failed.status != 0
        assert re.search("FATAL ERROR: .*BACKUP LOCK", failed.stderr)
    finally:
        sql.execute(remote, server, "DROP SCHEMA `b``s`; DROP SCHEMA plain")


def test_a_server_error_about_a_hostile_name_is_ours(server: HostConfig) -> None:
    """The words of the client come as an error of ours, whatever name is in them."""
    for name in ("x'; touch pwned #", "two\nERROR 1 (x) at line 1: y"):
        with pytest.raises(OrchestratorError):
            sql.query(LocalRemote(), server, f"SELECT 1 FROM mysql.{quote_name(name)}")


def test_brief_facts_of_this_host(tmp_path: Path) -> None:
    """The script tells of a directory what is true of it."""
    datadir = tmp_path / "data dir"
    assert hosts.read_brief(LocalRemote(), str(datadir)).datadir_owner == ""
    datadir.mkdir(mode=0o750)
    facts = hosts.read_brief(LocalRemote(), str(datadir))
    assert not facts.has_data
    assert facts.datadir_inode == datadir.stat().st_ino
    assert facts.datadir_mode == "750"
    (datadir / "ibdata1").touch()
    assert hosts.read_brief(LocalRemote(), str(datadir)).has_data
