"""Names of schemas, tables, columns, routines, events and accounts that would be code elsewhere.

One laboratory for the whole file. The donor gets every name that its server permits and that a
careless script, statement or report would trip over; then it is cloned, and the clone is undone.
The fixtures are the story, and the tests hold in their order.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import MARIADB_CHECKS, REPOSITORY, CloneLab, running_lab
from replicas import OBJECTS, check_arrival, list_leftovers, read_inode

from orchestrator.flavors.quoting import quote_name

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(240),
]

NAMES = (
    "x'; touch /pwned #",
    "$(touch /pwned)",
    "`touch /pwned`",
    "-rf",
    'say "it\'s"; \\! touch /pwned',
    "two\nlines\ttab\rreturn",
    "next\x85line\u2028and\u2029another",
    "../../../pwned",
    "a\N{COMBINING DIAERESIS} ✓ ÅÄ 表",
    "%s %n {0} * ? [a] ~ & | > /pwned",
    "NULL",
)
"""For a schema, a table, a column, and whatever else has a name."""
ACCOUNTS = (
    ("x'; touch /pwned #", "%"),
    ("a@b`; touch /pwned", "it's %"),
    ("$(touch /pwned)", "two\nlines"),
    ('"\\', 'h`"\\ x'),
    ("", "nobody.example"),
)
"""User and host."""
ODD = 'it\'s; "odd" $(touch pwned) #1'
"""In the name of every path that the configuration can name."""
PATHS = {
    "/etc/mysql/tls/vault-ca.pem": f"/etc/mysql/tls/-{ODD} vault.pem",
    "/etc/mysql/tls/ca.pem": f"/etc/mysql/tls/-{ODD} ca.pem",
    "/etc/mysql/vault.env": f"/etc/mysql/-{ODD}.env",
    "/run/mysqld/mysqld.sock": f"/run/mysqld/-{ODD}.sock",
}
"""Paths of the laboratory's configuration, and links to them."""
HOSTILE = f"TABLE_SCHEMA IN ({', '.join(f'X{chr(39)}{n.encode().hex()}{chr(39)}' for n in NAMES)})"
SEARCHED = ("/", "/etc/mysql", "/root", "/run", "/tmp", "/var/lib", "/var/log/mysql")
"""Directories in which a command could have been run, or that a path could have led to."""


def quote_literal(text: str) -> str:
    """Return a literal for a server with the sql_mode that the laboratory has."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def make_schema(name: str) -> str:
    """Return the statements that make a schema in which everything has the schema's name."""
    n = quote_name(name)
    user, host = ACCOUNTS[NAMES.index(name) % len(ACCOUNTS)]
    definer = f"DEFINER = {quote_name(user)}@{quote_name(host)}"
    return f"""
        CREATE SCHEMA {n};
        USE {n};
        CREATE TABLE {n} ({n} INT PRIMARY KEY, v TEXT) ENGINE=InnoDB COMMENT {quote_literal(name)};
        INSERT INTO {n} VALUES (1, {quote_literal(name)}), (2, NULL);
        CREATE TABLE {quote_name("generated " + name)} (
            id INT PRIMARY KEY, {n} INT AS (id * 2) STORED, {quote_name("v " + name)} INT AS (id + 1)
        ) ENGINE=InnoDB;
        INSERT INTO {quote_name("generated " + name)} (id) VALUES (7), (8), (9);
        CREATE TABLE {quote_name("parts " + name)} ({n} INT PRIMARY KEY) ENGINE=InnoDB
            PARTITION BY HASH ({n}) PARTITIONS 2;
        INSERT INTO {quote_name("parts " + name)} VALUES (1), (2), (3);
        {make_aria(name) if "`" not in name else ""}
        CREATE {definer} VIEW {quote_name("view " + name)} AS SELECT {n} FROM {n};
        CREATE {definer} FUNCTION {n}({n} INT) RETURNS INT DETERMINISTIC RETURN {n} + 1;
        CREATE {definer} PROCEDURE {n}() COMMENT {quote_literal(name)} SELECT 1;
        CREATE {definer} TRIGGER {n} BEFORE INSERT ON {n} FOR EACH ROW SET @x = 1;
        CREATE {definer} EVENT {n} ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO SELECT 1;
    """


def make_aria(name: str) -> str:
    """Return the statements that make an Aria table in the schema that is used."""
    table = quote_name(f"aria {name}")
    return f"""
        CREATE TABLE {table} ({quote_name(name)} INT PRIMARY KEY) ENGINE=Aria TRANSACTIONAL=1;
        INSERT INTO {table} VALUES (5), (6);
    """


def make_all() -> str:
    """Return the statements that make all that has a hostile name."""
    accounts = "".join(
        f"CREATE USER {quote_literal(user)}@{quote_literal(host)} ACCOUNT LOCK;"
        f"GRANT SELECT ON {quote_name(name)}.* TO {quote_literal(user)}@{quote_literal(host)};"
        for name, (user, host) in zip(NAMES, ACCOUNTS, strict=False)
    )
    # Two tables that read the same with a dot between schema and name.
    same = (
        "CREATE SCHEMA `a.b`; CREATE SCHEMA a;"
        "CREATE TABLE `a.b`.c (one INT PRIMARY KEY, two INT AS (one + 1)) ENGINE=InnoDB;"
        "CREATE TABLE a.`b.c` (three INT PRIMARY KEY) ENGINE=InnoDB;"
        "INSERT INTO `a.b`.c (one) VALUES (1); INSERT INTO a.`b.c` VALUES (3);"
    )
    return "SET NAMES utf8mb4;" + "".join(map(make_schema, NAMES)) + accounts + same


def list_pwned(lab: CloneLab) -> list[str]:
    """Return every file that a name could have made, here and on both hosts."""
    look = f"find {' '.join(SEARCHED)} -maxdepth 1 -name '*pwned*'"
    found = [
        f"{host}: {line}"
        for host in ("master", "replica")
        for line in lab.on(host, look).split("\n")
        if line and line not in PATHS.values()
    ]
    here = [Path("/"), Path.home(), Path.cwd(), REPOSITORY, lab.directory, lab.directory / "state"]
    return found + [str(path) for folder in here for path in folder.glob("*pwned*")]


def read_checksums(lab: CloneLab, host: str) -> dict[str, str]:
    """Return the checksum of every table that nobody writes, by its quoted name."""
    hexed = [
        (bytes.fromhex(schema).decode(), bytes.fromhex(table).decode())
        for schema, table in lab.sql(
            host,
            "SELECT HEX(TABLE_SCHEMA), HEX(TABLE_NAME) FROM information_schema.TABLES WHERE "
            f"({HOSTILE} OR TABLE_SCHEMA IN ('a.b', 'a')) AND TABLE_TYPE = 'BASE TABLE' "
            "ORDER BY 1, 2",
        )
    ]
    names = [f"{quote_name(schema)}.{quote_name(table)}" for schema, table in hexed]
    sums = lab.sql(
        host, "SET NAMES utf8mb4;" + "".join(f"CHECKSUM TABLE {name} EXTENDED;" for name in names)
    )
    values = [row[-1] for row in sums]
    return dict(zip(names, values, strict=True))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up, with hostile names on the donor, and a server on the recipient."""
    directory = tmp_path_factory.mktemp("hostile") / "lab"
    with running_lab(directory, "--replica-server", size=0.01) as found:
        found.sql("master", make_all())
        text = found.config_file.read_text()
        for path, odd in PATHS.items():
            for host in ("master", "replica"):
                found.on(host, f"ln -s {shlex.quote(path)} {shlex.quote(odd)}")
            assert f'"{path}"' in text
            text = text.replace(f'"{path}"', json.dumps(odd))
        found.config_file.write_text(text)
        yield found


@pytest.fixture(scope="module")
def before(lab: CloneLab) -> str:
    """Return the identity of the recipient's datadir before the clone."""
    assert list_pwned(lab) == []
    assert len(read_checksums(lab, "master")) == 4 * len(NAMES) - 1 + 2
    return read_inode(lab)


@pytest.fixture(scope="module")
def document(lab: CloneLab, before: str) -> dict[str, Any]:
    """Clone."""
    return lab.clone("--replace")


def test_it_clones_with_every_check(lab: CloneLab, document: dict[str, Any]) -> None:
    """Every check is true, and every InnoDB table was compared, whatever it is called."""
    assert [check["name"] for check in document["checks"]] == MARIADB_CHECKS
    assert [check for check in document["checks"] if not check["ok"]] == []
    ((tables, where),) = lab.sql(
        "master",
        "SELECT COUNT(*), 0 FROM information_schema.TABLES WHERE ENGINE = 'InnoDB' AND "
        "TABLE_SCHEMA NOT IN ('mysql', 'sys') AND TABLE_TYPE = 'BASE TABLE'",
    )
    assert where == "0"
    equal = next(check for check in document["checks"] if check["name"] == "tables-equal")
    assert re.match(rf"{tables} tables equal at ", equal["evidence"])
    assert list_leftovers(lab, document["run_id"]) == []


def test_nothing_was_touched(lab: CloneLab, document: dict[str, Any]) -> None:
    """No name was run, on the donor, on the recipient or on the orchestrator."""
    assert list_pwned(lab) == []


def test_the_rows_are_there(lab: CloneLab, document: dict[str, Any]) -> None:
    """Asked past the product, every table of a hostile name holds what the donor's holds."""
    check_arrival(lab)
    sums = read_checksums(lab, "master")
    assert read_checksums(lab, "replica") == sums
    assert "NULL" not in sums.values()


def test_everything_with_a_name_is_there(lab: CloneLab, document: dict[str, Any]) -> None:
    """Columns, views, routines, triggers, events and accounts are those of the donor.

    Grants as they are stored: with skip_name_resolve, a server leaves those out that are for the
    name of a host, once it was started again.
    """
    queries = {**OBJECTS, "grants": "SELECT * FROM mysql.db"}
    script = "SET NAMES utf8mb4;" + "".join(f"SELECT '== {k}'; {q};" for k, q in queries.items())
    ours, theirs = (_by_kind(lab.sql(host, script)) for host in ("replica", "master"))
    assert list(ours) == list(queries)
    for kind, there in theirs.items():
        assert ours[kind] == there, kind
        assert there, kind


def _by_kind(rows: list[list[str]]) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for row in rows:
        if row[0].startswith("== "):
            kind = found.setdefault(row[0].removeprefix("== "), [])
        else:
            kind.append(row)
    return {name: sorted(listed) for name, listed in found.items()}


def test_events_of_hostile_names_are_disabled(lab: CloneLab, document: dict[str, Any]) -> None:
    """None of them would run on the replica, and the donor's go on."""
    count = "SELECT STATUS, COUNT(*) FROM information_schema.EVENTS WHERE STARTS > '2036-01-01' "
    count += "GROUP BY STATUS"
    assert lab.sql("replica", count) == [["SLAVESIDE_DISABLED", str(len(NAMES))]]
    assert lab.sql("master", count) == [["ENABLED", str(len(NAMES))]]


def test_the_journal_and_the_log_hold_names_as_data(
    lab: CloneLab, document: dict[str, Any]
) -> None:
    """What is shown of the run afterwards is one document, and each line of its log another."""
    shown = json.loads(lab.xbvault("runs", "show", document["run_id"], "--json").stdout)
    assert shown["status"] == "succeeded"
    log = lab.directory / "state" / "logs" / f"{document['run_id']}.jsonl"
    for line in log.read_text("utf-8").rstrip("\n").split("\n"):
        assert json.loads(line)["event"]


def test_undo_gives_the_earlier_data_back(
    lab: CloneLab, document: dict[str, Any], before: str
) -> None:
    """The way back meets the same names, and touches nothing either."""
    ended = lab.xbvault("runs", "undo", document["run_id"], "--yes", "--json", check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert read_inode(lab) == before
    assert lab.sql(
        "replica", f"SELECT COUNT(*) FROM information_schema.TABLES WHERE {HOSTILE}"
    ) == [["0"]]
    assert list_pwned(lab) == []


def test_the_search_finds_what_a_name_would_have_made(lab: CloneLab) -> None:
    """The search above is no idle one: it finds a file where it is made."""
    lab.on("replica", "touch /root/pwned")
    try:
        assert list_pwned(lab) == ["replica: /root/pwned"]
    finally:
        lab.on("replica", "rm /root/pwned")


def test_the_names_are_hostile(tmp_path: Path) -> None:
    """Run as code, the names do make a file; so a test that finds none says something."""
    script = "\n".join(name.replace("/pwned", str(tmp_path / "pwned")) for name in NAMES[:3])
    subprocess.run(["sh", "-c", f"true '{script}"], check=False, capture_output=True, timeout=10)
    assert (tmp_path / "pwned").exists()
