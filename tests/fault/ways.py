"""How each flavor is asked and what its programs are called, for those who look from outside."""

from __future__ import annotations

import dataclasses
import os


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ways:
    """The ways of one flavor.

    Attributes:
        flavor: As the laboratory calls it, and its client.
        server: Name of the server's process.
        backup_tool: Name of the backup tool.
        stream_tool: Name of the stream tool.
        restore_word: By which the restore is known among its commands.
        dump: The command that dumps a table; schema and table follow.
        unsaved: What in a dump stands in memory alone until a restart, as a pattern of sed.
        status: The command that shows the state of replication, a column a line.
        source_word: How that calls the source.
        replica_word: How it calls the replica.
        position: The donor's position of now.
        wait: Waits five seconds for a position; 0 when it is reached.
        config_dir: Where drop-ins lie on a host.
        table_files: Files that a table has in the datadir.
        stall_seconds: So long the backup tool may have nothing to say, on a busy machine as well.
        keyring: File of keys on a host; empty where they are in Vault.
    """

    flavor: str
    server: str
    backup_tool: str
    stream_tool: str
    restore_word: str
    dump: str
    unsaved: str
    status: str
    source_word: str
    replica_word: str
    position: str
    wait: str
    config_dir: str
    table_files: str
    stall_seconds: int
    keyring: str = ""

    @property
    def backup_gate(self) -> str:
        """The gate in the donor's stream."""
        return f"master:{self.backup_tool}"

    @property
    def extract_gate(self) -> str:
        """The gate in the recipient's stream."""
        return f"replica:{self.stream_tool}"

    @property
    def prepare_gate(self) -> str:
        """The gate before prepare."""
        return f"replica:{self.backup_tool}"

    @property
    def restore_gate(self) -> str:
        """The gate before the prepared set is put in place."""
        return f"replica:{self.backup_tool} {self.restore_word}"

    @property
    def tools(self) -> tuple[str, ...]:
        """Programs of which none runs when a run has ended."""
        return (self.backup_tool, self.stream_tool, "pv", "ssh", "age", "perl")


MARIADB = Ways(
    flavor="mariadb",
    server="mariadbd",
    backup_tool="mariadb-backup",
    stream_tool="mbstream",
    restore_word="--move-back",
    dump="mariadb-dump --skip-comments --order-by-primary --",
    unsaved="^$",
    status="mariadb -e 'SHOW SLAVE STATUS\\G'",
    source_word="Master",
    replica_word="Slave",
    position="SELECT @@GLOBAL.gtid_binlog_pos",
    wait="SELECT MASTER_GTID_WAIT('{}', 5)",
    config_dir="etc/mysql/mariadb.conf.d",
    table_files="*.frm",
    stall_seconds=6,
)
MYSQL = Ways(
    flavor="mysql",
    server="mysqld",
    backup_tool="xtrabackup",
    stream_tool="xbstream",
    restore_word="--copy-back",
    dump="mysqldump --skip-comments --order-by-primary --set-gtid-purged=OFF --no-tablespaces --",
    # InnoDB reserves numbers for an insert of many rows, and saves the last one that was used.
    unsaved=" AUTO_INCREMENT=[0-9]*",
    status="mysql -E -e 'SHOW REPLICA STATUS'",
    source_word="Source",
    replica_word="Replica",
    position="SELECT REPLACE(@@GLOBAL.gtid_executed, CHAR(10), '')",
    wait="SELECT WAIT_FOR_EXECUTED_GTID_SET('{}', 5)",
    config_dir="etc/mysql/mysql.conf.d",
    table_files="*.ibd",
    stall_seconds=30,  # its double copies the whole server before the first byte
    keyring="var/lib/mysql-keyring/keyring",
)
OURS = {ways.flavor: ways for ways in (MARIADB, MYSQL)}[
    os.environ.get("XBVAULT_FAULT_FLAVOR", "mariadb")
]
"""Those of the flavor that ``make fault FLAVOR=…`` asks for."""
