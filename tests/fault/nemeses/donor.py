"""What happens on the donor while it is read."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from lab import bao, hosts, servers
from nemesis import GOES_ON, before, in_stream, nemesis
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand

STREAM = in_stream(OURS.backup_gate)
_STORM = """\
CREATE TABLE shop.storm LIKE shop.audit;
ALTER TABLE shop.storm ADD COLUMN blown INT DEFAULT 1;
INSERT INTO shop.storm (what) VALUES ('a'), ('b');
ALTER TABLE shop.storm ADD INDEX (blown), ALGORITHM=INPLACE;
RENAME TABLE shop.storm TO shop.gale;
OPTIMIZE TABLE shop.audit;
ALTER TABLE shop.order_items FORCE;
TRUNCATE TABLE shop.gale;
DROP TABLE shop.gale;
"""


@nemesis(
    "donor-server-killed",
    moments=STREAM,
    comes=["CommandError"],
    says=[f"{OURS.backup_tool} ended with"],
    harms_donor=True,
)
def _server_killed(stand: Stand) -> Iterator[None]:
    """The donor's server is killed in the middle of the stream, and started again later."""
    stand.signal_on("master", OURS.server, "KILL")
    yield
    servers.start(stand.model, stand.host("master"))


@nemesis(
    "donor-server-down",
    moments=before(
        "create-replication-account", "wait-for-replication", "compare-tables", "verify-replication"
    ),
    comes=[GOES_ON, "CommandError", "VerificationError", "PreconditionError"],
    options="catch_up_seconds = 20",
    harms_donor=True,
)
def _server_down(stand: Stand) -> Iterator[None]:
    """The donor's server is stopped by somebody, and started when the run has given up."""
    stand.lab.lab("writer", "stop", check=False)
    servers.stop(stand.model, stand.host("master"))
    yield
    servers.start(stand.model, stand.host("master"))


@nemesis("ddl-storm", moments=STREAM, comes=[GOES_ON, "CommandError"])
def _ddl_storm(stand: Stand) -> Iterator[None]:
    """Tables are made, altered, renamed, rebuilt, emptied and dropped during the stream."""
    over, script = (stand.host("master").root / "tmp" / name for name in ("over", "storm.sql"))
    script.write_text(_STORM, encoding="utf-8")
    blow = f"until [ -e /tmp/over ]; do {OURS.flavor} < /tmp/storm.sql || exit 1; done"
    host = stand.host("master")
    argv = hosts.command_in(stand.model, host, ["bash", "-c", blow])
    storm = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        over.touch()
        status = storm.wait(timeout=60)
        over.unlink()
        script.unlink()
    assert status == 0, "the storm broke down"


@nemesis("key-rotated-during-the-stream", moments=STREAM, comes=[GOES_ON])
def _key_rotated(stand: Stand) -> Iterator[None]:
    """The donor's key gets a new version, and a table is written anew under it."""
    for key in (1, 2):
        bao.write_key(stand.model, "mariadb-master", key, "5a" * 32)
    stand.lab.sql("master", "ALTER TABLE shop.audit FORCE")
    yield


@nemesis(
    "binlog-purged-during-the-stream",
    moments=STREAM,
    comes=[GOES_ON],
)
def _purged_in_stream(stand: Stand) -> Iterator[None]:
    """The donor's older binary logs are purged while it is read."""
    _purge(stand)
    yield


@nemesis(
    "binlog-purged",
    moments=before("start-replication"),
    comes=["PreconditionError"],
    says=["has purged a binary log"],
    ends="cancelled",
)
def _purged(stand: Stand) -> Iterator[None]:
    """The binary log that the replica must begin in is purged on the donor."""
    _purge(stand)
    yield


def _purge(stand: Stand) -> None:
    stand.lab.sql("master", "FLUSH BINARY LOGS")
    newest = stand.lab.sql("master", "SHOW MASTER STATUS")[0][0]
    stand.lab.sql("master", f"PURGE BINARY LOGS TO '{newest}'")


@nemesis(
    "donor-tmpfs-full",
    moments=before("check-preconditions", "stream-backup", "create-replication-account"),
    comes=[GOES_ON, "CommandError", "PreconditionError"],
    says=["space"],
)
def _tmpfs_full(stand: Stand) -> Iterator[None]:
    """The donor's tmpfs, where the credential of the stream lies, is full."""
    stand.fill("master", "/run")
    yield
    stand.make_room("master", "/run")
