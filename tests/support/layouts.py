"""A laboratory whose replicas have their data as it is in the wild.

The datadir of ``replica`` is a filesystem of its own, and its binary, relay, redo and Aria logs, its
undo and system tablespaces lie in other directories; that of ``replica2`` is a symbolic link.
"""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clone_lab import CloneLab, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATADIR = "/var/lib/mysql"
LOGS = "/var/log/mysql"
REDO = "/var/lib/redo log"
UNDO = "/var/lib/undo"
ARIA = "/var/lib/it's aria"
SYSTEM = "/var/lib/system"
OUTSIDE = (LOGS, REDO, UNDO, ARIA, SYSTEM)
REAL = "/var/lib/a disk/data"
"""Where the datadir of ``replica2`` really is."""
OPTIONS = f"""\
[mariadb]
log_bin = {LOGS}/mysql-bin.log
relay_log = {LOGS}/relay
innodb_log_group_home_dir = {REDO}
innodb_undo_directory = {UNDO}
innodb_undo_tablespaces = 3
aria_log_dir_path = {ARIA}
innodb_data_home_dir = {SYSTEM}
read_only = ON
"""
SPREAD = f"""\
set -eu
cat > /etc/mysql/mariadb.conf.d/70-places.cnf
rm -r {DATADIR}
mkdir {DATADIR}
mount -t tmpfs -o size=1g tmpfs {DATADIR}
mkdir -m 0700 {DATADIR}/lost+found
echo kept > {DATADIR}/lost+found/file
mkdir {" ".join(shlex.quote(path) for path in OUTSIDE[1:])}
chown mysql:mysql {DATADIR} {" ".join(shlex.quote(path) for path in OUTSIDE)}
echo "nobody's" > {LOGS}/mysql-bin.err
"""
LINK = f"""\
set -eu
mkdir '{REAL.rpartition("/")[0]}'
mv {DATADIR} '{REAL}'
ln -s '{REAL}' {DATADIR}
"""
Listing = dict[str, list[str]]


def list_places(lab: CloneLab) -> Listing:
    """Return the names of all that lies in each place of ``replica``, ours included."""
    paths = (DATADIR, *OUTSIDE)
    quoted = " ".join(shlex.quote(path) for path in paths)
    parts = lab.on("replica", f'for d in {quoted}; do echo /; ls -1A "$d"; done').split("/\n")
    return {path: part.split() for path, part in zip(paths, parts[1:], strict=True)}


@contextmanager
def spread_lab(directory: Path) -> Iterator[CloneLab]:
    """Bring the laboratory up, with a server and data of its own on both replicas."""
    with running_lab(directory, "--replicas", "2", "--replica-server", size=0.02) as found:
        for host in ("replica", "replica2"):
            found.lab("server", "stop", host)
        script = f"cat > /tmp/options && sh -c {shlex.quote(SPREAD)} < /tmp/options"
        found.on("replica", f"echo {shlex.quote(OPTIONS)} | ({script})")
        found.lab("server", "initialize", "replica")
        found.on("replica2", LINK)
        for host in ("replica", "replica2"):
            found.lab("server", "start", host)
            found.sql(
                host,
                "CREATE SCHEMA `kept 'here'`; CREATE TABLE `kept 'here'`.t (a INT) ENGINE=InnoDB;"
                "INSERT INTO `kept 'here'`.t VALUES (1), (2); SET GLOBAL read_only = ON",
            )
        yield found
