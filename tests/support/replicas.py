"""What tests ask of a lab's servers after a clone, past the product."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from lab.commands import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from clone_lab import CloneLab

DATADIR = "/var/lib/mysql"
ARRIVES_SECONDS = 60
"""A replica whose source was restarted tries again every few seconds."""

_NOT_VIRTUAL = "NOT IN ('information_schema', 'performance_schema')"
OBJECTS = {
    "schemas": "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA",
    "tables": "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, ROW_FORMAT, TABLE_COLLATION, "
    # Aria writes its default page_checksum=1 down when a table is rebuilt.
    "TABLE_COMMENT, TRIM(REPLACE(CREATE_OPTIONS, 'page_checksum=1', '')) "
    "FROM information_schema.TABLES "
    f"WHERE TABLE_SCHEMA {_NOT_VIRTUAL}",
    "columns": "SELECT TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION, COLUMN_NAME, COLUMN_TYPE, "
    "IS_NULLABLE, COLUMN_DEFAULT, EXTRA, GENERATION_EXPRESSION FROM information_schema.COLUMNS "
    f"WHERE TABLE_SCHEMA {_NOT_VIRTUAL}",
    "indexes": "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, "
    "INDEX_TYPE, NON_UNIQUE FROM information_schema.STATISTICS",
    "foreign keys": "SELECT CONSTRAINT_SCHEMA, CONSTRAINT_NAME, TABLE_NAME, "
    "REFERENCED_TABLE_NAME, DELETE_RULE FROM information_schema.REFERENTIAL_CONSTRAINTS",
    "partitions": "SELECT TABLE_SCHEMA, TABLE_NAME, PARTITION_NAME, PARTITION_METHOD, "
    "PARTITION_DESCRIPTION FROM information_schema.PARTITIONS WHERE PARTITION_NAME IS NOT NULL",
    "views": "SELECT TABLE_SCHEMA, TABLE_NAME, DEFINER, SECURITY_TYPE, VIEW_DEFINITION "
    "FROM information_schema.VIEWS",
    "routines": "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE, DEFINER, SQL_MODE, "
    "ROUTINE_DEFINITION FROM information_schema.ROUTINES",
    "triggers": "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_TIMING, DEFINER, "
    "SQL_MODE, ACTION_STATEMENT FROM information_schema.TRIGGERS",
    "events": "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER, SQL_MODE, TIME_ZONE, INTERVAL_VALUE, "
    "INTERVAL_FIELD, STARTS, ON_COMPLETION, EVENT_DEFINITION FROM information_schema.EVENTS",
    "users": "SELECT User, Host, Priv FROM mysql.global_priv",
    "roles": "SELECT User, Host, Role, Admin_option FROM mysql.roles_mapping",
    "grants": "SELECT TABLE_CATALOG, GRANTEE, TABLE_SCHEMA, PRIVILEGE_TYPE, IS_GRANTABLE "
    "FROM information_schema.SCHEMA_PRIVILEGES",
}
"""Queries for all that a server holds beside rows, by what they list."""


def list_objects(lab: CloneLab, host: str, kind: str) -> list[list[str]]:
    """Return what a server holds of one kind, in one order everywhere."""
    return sorted(lab.sql(host, f"SET NAMES utf8mb4; {OBJECTS[kind]}"))


def list_tables(lab: CloneLab, host: str) -> list[str]:
    """Return the quoted names of all tables of a server, the virtual schemas left out."""
    rows = lab.sql(
        host,
        "SELECT CONCAT('`', REPLACE(TABLE_SCHEMA, '`', '``'), '`.`', "
        "REPLACE(TABLE_NAME, '`', '``'), '`') FROM information_schema.TABLES "
        f"WHERE TABLE_SCHEMA {_NOT_VIRTUAL} AND TABLE_TYPE <> 'VIEW' ORDER BY 1",
    )
    return [row[0] for row in rows]


def check_arrival(lab: CloneLab, source: str = "master", target: str = "replica") -> None:
    """Write a new row on the source, and wait until it is on the target.

    Raises:
        LabError: It does not come.
    """
    mark = secrets.token_hex(16)
    lab.sql(source, f"INSERT INTO shop.audit (what) VALUES ('{mark}')")
    question = f"SELECT COUNT(*) FROM shop.audit WHERE what = '{mark}'"
    wait_until(
        lambda: lab.sql(target, question) == [["1"]],
        f"a row of {source} on {target}",
        timeout_seconds=ARRIVES_SECONDS,
        pause_seconds=0.2,
    )


def read_source(lab: CloneLab, host: str = "replica") -> dict[str, str]:
    """Return what a replica says of its replication; empty where there is none."""
    text = lab.on(host, "mariadb --batch -e 'SHOW SLAVE STATUS\\G'")
    pairs = (line.strip().partition(": ") for line in text.splitlines() if ": " in line)
    return {name: value for name, _, value in pairs}


def restart(lab: CloneLab, host: str) -> None:
    """Stop and start a host's server."""
    lab.lab("server", "stop", host)
    lab.lab("server", "start", host)


def read_pid(lab: CloneLab, host: str = "replica") -> str:
    """Return the process of a host's server, with its start time; empty if none runs."""
    return lab.on(
        host, "pgrep -x 'mariadbd|mysqld' | xargs -r ps -o pid=,lstart= -p", check=False
    ).strip()


def read_inode(lab: CloneLab, path: str = DATADIR, host: str = "replica") -> str:
    """Return the inode of a directory; empty if it is not there."""
    return lab.on(host, f"stat -c %i {path}", check=False).strip()


def list_beside(lab: CloneLab, host: str = "replica") -> list[str]:
    """Return what of ours lies beside the datadir, without its path."""
    text = lab.on(host, f"cd {DATADIR}/.. && ls -1d mysql.xbvault-* 2>/dev/null || true")
    return text.split()


def list_leftovers(lab: CloneLab, run_id: str) -> list[str]:
    """Return what of a run is still on the hosts: processes, jobs, staging, secrets."""
    script = (
        "pgrep -x 'mariadb-backup|mbstream' | sed 's/^/process /'; "
        "pgrep -f '[s]imulators/|/xtra[b]ackup|/xb[s]tream' | sed 's/^/process /'; "
        f"ls -1d /var/lib/xbvault/jobs/{run_id}* /run/xbvault/{run_id}* /run/xbvault/server.env "
        f"{DATADIR}.xbvault-staging-{run_id} {DATADIR}.xbvault-new-{run_id} 2>/dev/null; true"
    )
    return [
        f"{host}: {line}" for host in ("master", "replica") for line in _lines(lab, host, script)
    ]


def check_given_back(lab: CloneLab, inode: str, run_id: str) -> None:
    """See that a drill's scratch host has its own data and server, and nothing of the drill."""
    assert read_inode(lab) == inode
    assert read_pid(lab)
    assert list_beside(lab) == []
    assert list_leftovers(lab, run_id) == []
    assert read_lock_holder(lab) == ""
    assert lab.on("replica", "ls /var/lib/xbvault/runs").split() == []
    assert lab.sql("replica", "SHOW DATABASES LIKE 'shop'") == []


def read_lock_holder(lab: CloneLab, host: str = "replica") -> str:
    """Return the run that the recipient lock names; empty if it is free."""
    text = lab.on(host, "tr -d '\\0' < /var/lib/xbvault/lock")
    slots = [dict(pair.partition("=")[::2] for pair in line.split()) for line in text.splitlines()]
    return max(slots, key=lambda slot: int(slot["serial"]))["run"]


def _lines(lab: CloneLab, host: str, script: str) -> list[str]:
    return lab.on(host, script).splitlines()


def show_run(lab: CloneLab, run_id: str, config: Path | None = None) -> dict[str, Any]:
    """Return what ``runs show --json`` tells."""
    document: dict[str, Any] = json.loads(
        lab.xbvault("runs", "show", run_id, "--json", config=config).stdout
    )
    return document


def read_newest_run(lab: CloneLab, config: Path | None = None) -> dict[str, Any]:
    """Return the newest entry of ``runs list --json``; empty if there is none."""
    found = json.loads(lab.xbvault("runs", "list", "--json", config=config).stdout)
    return dict(found[0]) if found else {}
