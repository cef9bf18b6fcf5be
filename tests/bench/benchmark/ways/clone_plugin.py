"""MySQL's own peer: the CLONE plugin, into a server that runs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from benchmark.errors import WayFailedError
from benchmark.hands import start_server
from benchmark.registry import way
from benchmark.results import Outcome
from benchmark.ways import logical
from orchestrator.models import Coordinates

if TYPE_CHECKING:
    from benchmark.stand import Stand

_ACCOUNT = "bench_clone"
_STATE = """
SELECT STATE AS state, ERROR_MESSAGE AS error, BINLOG_FILE AS file, BINLOG_POSITION AS position,
    REPLACE(GTID_EXECUTED, CHAR(10), '') AS gtid
FROM performance_schema.clone_status
"""


@way("clone-plugin", "MySQL's CLONE plugin", flavors=("mysql",))
def measure(stand: Stand) -> Outcome:
    """Clone into a fresh server over TLS, start it again, and wire replication."""
    logical.make_fresh_server(stand)
    password, address = secrets.token_hex(16), stand.recipient.address
    account = f"{_ACCOUNT}@'{address}'"
    stand.execute(
        stand.donor,
        f"CREATE USER IF NOT EXISTS {account} REQUIRE SSL;\n"
        f"ALTER USER {account} IDENTIFIED BY '{password}';\n"
        f"GRANT BACKUP_ADMIN ON *.* TO {account}",
    )
    donor = stand.donor.address
    stand.execute(stand.recipient, f"SET GLOBAL clone_valid_donor_list = '{donor}:3306'")
    clock = stand.start_clock()
    _clone(
        stand,
        f"CLONE INSTANCE FROM {_ACCOUNT}@'{donor}':3306 IDENTIFIED BY '{password}' REQUIRE SSL",
    )
    clock.end_phase("transfer")
    start_server(stand)
    clock.end_phase("start")
    found = stand.query(stand.recipient, " ".join(_STATE.split()))[0]
    if found["state"] != "Completed":
        raise WayFailedError(f"the clone: {found['state']}, {found['error']}")
    at = Coordinates(file=found["file"], position=int(found["position"]), gtid=found["gtid"])
    stand.wire(at)
    stand.start_replication()
    clock.end_phase("replication")
    clock.end_whole("replicating")
    stand.check_replica()
    return Outcome(values=clock.seconds)


def _clone(stand: Stand, statement: str) -> None:
    """Clone, and wait until the server, which nobody supervises, has shut itself down."""
    client = stand.programs.client
    said = stand.run(stand.recipient, f"{client} --batch 2>&1 <<'SQL' || true\n{statement};\nSQL")
    if "ERROR" in said and "ERROR 3707" not in said:
        raise WayFailedError(f"the clone: {said.strip()}")
    stand.run(stand.recipient, "while pgrep -x mysqld >/dev/null; do sleep 0.05; done", seconds=300)
