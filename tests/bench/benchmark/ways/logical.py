"""The logical peers: statements instead of files, into a fresh server with keys of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lab import flavors as lab_flavors

from benchmark.errors import WayFailedError
from benchmark.hands import start_server
from benchmark.registry import way
from benchmark.results import Outcome
from benchmark.stand import WORK
from orchestrator.models import Coordinates

if TYPE_CHECKING:
    from benchmark.stand import Stand

DUMP = f"{WORK}/dump"
QUIET = "SET SESSION sql_log_bin = 0"
"""What a DBA who cares for time puts first: the new replica has nobody to log it for."""
_ALL = "--single-transaction --quick --all-databases --routines --triggers --events"
_MARIADB_DUMP = "mariadb-dump --master-data=1"
_MYSQLDUMP = "mysqldump --source-data=1 --set-gtid-purged=OFF"
_METADATA = re.compile(r"Log: (\S+)\s+Pos: ([0-9]+)")
_SCHEMAS = r"^(shop|metrics|documents|live)\."
"""Not the one with odd names, about a thousandth of the data: mydumper 0.10 fails at a slash or a
backtick in the name of a table."""


@way("dump", "a dump piped into the client", is_slow=True)
def measure_dump(stand: Stand) -> Outcome:
    """Dump everything in one transaction, over SSH into the client, and start replication."""
    make_fresh_server(stand)
    argv = _MYSQLDUMP if stand.flavor.carries_keys else _MARIADB_DUMP
    # The dump sets file and position; of whom, it does not know.
    stand.wire(Coordinates(file="", position=4))
    clock = stand.start_clock()
    load = f'{stand.programs.client} --binary-mode --init-command="{QUIET}"'
    stand.run(stand.donor, f"{argv} {_ALL} | {stand.ssh(load)}")
    clock.end_phase("load")
    stand.start_replication()
    clock.end_phase("replication")
    clock.end_whole("replicating")
    stand.check_replica()
    return Outcome(values=clock.seconds)


@way("mydumper", "mydumper and myloader, odd names left out", flavors=("mariadb",), is_slow=True)
def measure_mydumper(stand: Stand) -> Outcome:
    """Dump into files with several threads, copy these over SSH, and load them with as many."""
    make_fresh_server(stand)
    threads = f"--threads {stand.plan.parallel}"
    clock = stand.start_clock()
    kinds = "--triggers --routines --events"
    stand.run(stand.donor, f"mydumper {threads} {kinds} --regex '{_SCHEMAS}' --outputdir {DUMP}")
    clock.end_phase("dump")
    stand.run(stand.donor, f"tar -C {WORK} -c dump | {stand.ssh(f'tar -C {WORK} -x')}")
    clock.end_phase("transfer")
    stand.run(stand.recipient, f"myloader {threads} --directory {DUMP}")
    clock.end_phase("load")
    stand.wire(_read_metadata(stand))
    stand.start_replication()
    clock.end_phase("replication")
    clock.end_whole("replicating")
    stand.check_replica()
    return Outcome(values=clock.seconds)


def make_fresh_server(stand: Stand) -> None:
    """Give the recipient a server of its own, encrypted, empty and running."""
    stand.keep_quiet()
    lab_flavors.of(stand.lab).create_datadir(stand.lab, stand.recipient)
    start_server(stand)


def _read_metadata(stand: Stand) -> Coordinates:
    text = stand.run(stand.donor, f"cat {DUMP}/metadata")
    found = _METADATA.search(text)
    if not found:
        raise WayFailedError(f"no position in mydumper's metadata: {text[:200]}")
    return Coordinates(file=found.group(1), position=int(found.group(2)))
