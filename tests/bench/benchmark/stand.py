"""The laboratory as a way finds it: both hosts, their servers, Vault, and the same start each time."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from lab import bao, hosts, product, servers
from lab.commands import run, wait_until
from lab.errors import LabError
from vault_root import VaultRoot

from benchmark import cache
from benchmark.errors import WayFailedError
from benchmark.timing import Clock, Process, run_process
from orchestrator import config, flavors, models, wire
from orchestrator.models import Coordinates, Plan

if TYPE_CHECKING:
    from lab.model import Host, Lab

    from orchestrator.config import HostConfig
    from orchestrator.flavors.interface import Flavor, Programs, ReplicationStatus

WAY_SECONDS = 3600.0
"""Longest time that one thing of a way may take."""
DATADIR = "/var/lib/mysql"
WORK = "/var/lib/bench"
"""Folder of the ways by hand, on the filesystem of the datadir."""
SECRETS = "/run/bench"
"""The same for tokens and option files, on tmpfs."""
SERVER_ENVIRONMENT = "/run/xbvault/server.env"
"""Read last by the server's start command in the laboratory."""
DROP_IN = "zz-bench.cnf"
KEY = "/root/.ssh/bench"
ACCOUNT = "bench_replica"
SOCKET = "/run/mysqld/mysqld.sock"
_MOST_WORDS = 400
"""How much of what a tool said is told of a way that failed."""
REPOSITORY = "/srv/backups"
PART_SIZE = "256M"
"""Of sets that are measured; those of the laboratory are small, so that there are many parts."""
STABLE_TABLES = (
    "shop.customers",
    "documents.articles",
    "documents.archive_1",
    "documents.archive_2",
    "documents.attachments",
    "metrics.readings",
)
"""Nobody writes to them, so a replica has as many rows as the donor."""

_EMPTY = """
{server} stop
if [ -s {secrets}/listener ]; then kill -KILL -- "-$(cat {secrets}/listener)" || true; fi
install -d -m 0755 -o mysql -g mysql {datadir}
find {datadir} -mindepth 1 -delete
rm -rf -- {datadir}.xbvault-* /var/lib/xbvault /run/xbvault {work} {secrets}
rm -f -- {config_dir}/zz-*.cnf
if [ -d /var/lib/mysql-keyring ]; then find /var/lib/mysql-keyring -mindepth 1 -delete; fi
install -d -m 0700 {work} {secrets} /run/xbvault
"""
_START_EMPTY = f"""
{servers.SERVER} stop
rm -f -- {DATADIR}/ib_buffer_pool
{servers.SERVER} start
"""
"""The server has written into the file which pages it had, and would read them again."""


class Stand:
    """A laboratory that ways are measured in.

    Args:
        lab: The laboratory, whose master has its data.

    Attributes:
        lab: The laboratory.
        donor: Its master.
        recipient: Its first replica.
        recipients: All of them.
        vault: Its Vault, with the root token.
        plan: What ``xbvault clone`` would do, for the flags and the wiring of the ways by hand.
        round: The number of the round.
        is_cold: Whether the page cache is dropped before the clock starts.
        stream_bytes: Size of the stream that the limits move.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.donor, *self.recipients = lab.hosts
        self.recipient = self.recipients[0]
        self._stores = lab.store_hosts
        self.vault = VaultRoot(lab.directory)
        text = lab.config_file.read_text(encoding="utf-8")
        parts = re.sub(r'part_size = "\w+"', f'part_size = "{PART_SIZE}"', text)
        lab.config_file.write_text(parts, encoding="utf-8")
        self.config = config.load(lab.config_file)
        self.plan = self._read_plan()
        self.round = 0
        self.is_cold = False
        self._is_dropped = False
        self.stream_bytes = 0
        self._password = secrets.token_hex(16)
        self._rows: list[str] = []

    @property
    def store(self) -> Host:
        """The host with the repository."""
        return self._stores[0]

    @property
    def flavor(self) -> Flavor:
        """What differs between kinds of server, as the product knows it."""
        return flavors.of(self.plan)

    @property
    def programs(self) -> Programs:
        """The servers' programs."""
        return self.flavor.programs(self.recipient_config)

    @property
    def recipient_config(self) -> HostConfig:
        """What the product's configuration says of the recipient."""
        return self.config.host(self.recipient.name)

    @property
    def config_dir(self) -> str:
        """Where a server reads drop-ins."""
        return flavors.config_dir(self.recipient_config)

    def make_ready(self) -> None:
        """Make what the ways by hand stand on: an SSH key, an account, the counts of the rows."""
        folder = self.donor.root / "root/.ssh"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "bench"])
        for store in self._stores:
            for name in ("bench", "bench.pub"):
                shutil.copy2(folder / name, store.root / "root/.ssh" / name)
        public = (folder / "bench.pub").read_text(encoding="utf-8")
        known = ""
        for host in (self.recipient, *self._stores):
            keys = host.root / "root/.ssh/authorized_keys"
            keys.write_text(keys.read_text(encoding="utf-8") + public, encoding="utf-8")
            host_key = host.root / "etc/ssh/ssh_host_ed25519_key.pub"
            known += f"{host.address} {host_key.read_text(encoding='utf-8')}"
        for host in (self.donor, *self._stores):
            (host.root / "root/.ssh/known_hosts").write_text(known, encoding="utf-8")
        dialect = flavors.dialect_of(self.plan)
        before, after = dialect.account_sql(ACCOUNT, self.recipient.address)
        if dialect.takes_password_hash:
            spoken = self.query(self.donor, f"SELECT PASSWORD('{self._password}') AS hash")
            self.execute(self.donor, f"{before}{spoken[0]['hash']}{after}")
        else:
            self.execute(self.donor, f"{before}{self._password}{after}")
        self._rows = self._count_rows(self.donor)

    def reset(self) -> None:
        """Bring all hosts and Vault to the start.

        No recipient has a server, data or keys; the donor's data is in the page cache, unless the
        way that follows begins without it.
        """
        for host in self.recipients:
            self._empty(host)
        self.run(self.donor, f"rm -rf -- /var/lib/xbvault /run/xbvault {WORK}/dump {SECRETS}")
        self.run(self.donor, f"install -d -m 0700 {WORK} {SECRETS}")
        for store in self._stores:
            self.run(store, f"rm -rf -- {REPOSITORY}/* /var/lib/xbvault")
        table = self.flavor.accounts_table
        found = self.query(
            self.donor,
            f"SELECT User AS user, Host AS host FROM {table} WHERE User LIKE 'xbvault\\_%'",
        )
        for row in found:
            self.execute(self.donor, f"DROP USER '{row['user']}'@'{row['host']}'")
        for mount in self.vault.list_mounts("xbvault-transition/"):
            self.vault.remove_mount(mount)
        mounts = self.vault.list_mounts()
        for host in self.recipients:
            if host.vault_mount in mounts:
                self._remove_keys(host.vault_mount)
        if self.is_cold:
            self.run(self.donor, _START_EMPTY)
        elif self._is_dropped:
            self._fill_cache()

    def keep_quiet(self, *options: str) -> None:
        """Have the recipient's server start without replication and events, and with these options.

        An event that ran on both sides would write a row that then arrives by replication as well.
        """
        skip = "skip_replica_start" if self.flavor.carries_keys else "skip_slave_start"
        lines = ["[mysqld]", f"{skip} = ON", "event_scheduler = OFF", *options]
        path = f"{self.config_dir}/{DROP_IN}"
        self.write(self.recipient, path, "\n".join(lines) + "\n", mode="0644")

    def start_clock(self) -> Clock:
        """Start the clock of a way, when all that was written before is on the disk."""
        os.sync()
        if self.is_cold:
            cache.drop()
            self._is_dropped = True
            cache.need_dropped(self.run(self.donor, cache.LOOK.format(folder=DATADIR)))
        return Clock()

    def run(self, host: Host, script: str, *, seconds: float = WAY_SECONDS) -> str:
        """Run a script as root on a host; it ends, with all its processes, when its time is over.

        Raises:
            WayFailedError: It failed.
        """
        try:
            done = hosts.run_on(
                self.lab, host, *_bash(script, seconds), check=False, timeout_seconds=seconds + 30
            )
        except LabError as error:
            raise WayFailedError(f"{host.name}: {error.message}") from error
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip()[-_MOST_WORDS:]
            raise WayFailedError(f"{host.name}: exit status {done.returncode}: {words}")
        return done.stdout

    def listen(self, script: str, port: int) -> Listener:
        """Start a script on the recipient that takes a stream, and wait until it listens."""
        # Its group is that of timeout(1), its parent.
        note = f"echo $PPID >{SECRETS}/listener\n{script}\nrm -f {SECRETS}/listener"
        argv = hosts.command_in(self.lab, self.recipient, _bash(note, WAY_SECONDS))
        listener = Listener(argv)
        look = f"ss -Hltn 'sport = :{port}' | grep -q ."

        def listens() -> bool:
            listener.need_alive()
            found = hosts.run_on(self.lab, self.recipient, "sh", "-c", look, check=False)
            return found.returncode == 0

        try:
            wait_until(listens, f"a listener at port {port}", timeout_seconds=20)
        except LabError as error:
            listener.stop()
            raise WayFailedError(error.message) from error
        return listener

    def ssh(self, command: str, host: Host | None = None) -> str:
        """Return the shell text that runs a command on another host over SSH.

        With the ciphers of the product, and without anything that would slow it down.

        Args:
            command: The command.
            host: The host; by default the recipient.
        """
        return (
            f"ssh -F none -T -i {KEY} -o IdentitiesOnly=yes -o BatchMode=yes -o Compression=no "
            f"-o Ciphers={wire.AES_FIRST} root@{(host or self.recipient).address} {_quote(command)}"
        )

    def execute(self, host: Host, statements: str) -> str:
        """Run SQL as the administrator of a host's server; return the rows, tab-separated.

        Raises:
            WayFailedError: The server refuses.
        """
        try:
            return servers.execute(self.lab, host, f"{statements};\n")
        except LabError as error:
            raise WayFailedError(f"{host.name}: {error.message}") from error

    def query(self, host: Host, statement: str) -> list[dict[str, str]]:
        """Run a query as the administrator of a host's server; return the rows by column."""
        text = self.run(host, f"{self.programs.client} --batch <<'SQL'\n{statement};\nSQL")
        head, *rows = text.split("\n")[:-1] or [""]
        return [dict(zip(head.split("\t"), row.split("\t"), strict=True)) for row in rows]

    def wire(self, coordinates: Coordinates) -> None:
        """Make the recipient's server a replica of the donor, from coordinates."""
        dialect = flavors.dialect_of(self.plan)
        before, after = dialect.change_source_sql(
            self.plan, coordinates, use_gtid=False, user=ACCOUNT, ca_file=servers.SERVER_CA
        )
        self.execute(self.recipient, f"{before}{self._password}{after}")

    def start_replication(self) -> None:
        """Start replication, and wait until the replica is where the donor is now.

        Raises:
            WayFailedError: It stops with an error, or does not come there.
        """
        dialect = flavors.dialect_of(self.plan)
        now = self.query(self.donor, dialect.binlog_sql)[0]
        at = Coordinates(file=now["File"], position=int(now["Position"]))
        self.execute(self.recipient, dialect.start_sql)
        end = time.monotonic() + WAY_SECONDS
        while self.execute(self.recipient, dialect.reach_sql(at)).strip() != "0":
            status = self.read_replication()
            if status.sql_error or (status.io == "No" and status.io_error):
                raise WayFailedError(f"replication stopped: {status.sql_error or status.io_error}")
            if time.monotonic() > end:
                raise WayFailedError("the replica did not catch up")
            time.sleep(0.05)
        self._need_running(self.recipient)

    def read_replication(self, host: Host | None = None) -> ReplicationStatus:
        """Return what the server of a host, by default the recipient, says of its replication.

        Raises:
            WayFailedError: It is no replica.
        """
        dialect = flavors.dialect_of(self.plan)
        asked = host or self.recipient
        rows = self.query(asked, dialect.status_sql)
        if not rows:
            raise WayFailedError(f"{asked.name} is no replica")
        return dialect.read_status(rows[0])

    def check_replica(self, host: Host | None = None) -> None:
        """See that a host, by default the recipient, is a running replica with the donor's rows.

        Raises:
            WayFailedError: It is not.
        """
        asked = host or self.recipient
        self._need_running(asked)
        self.check_rows(asked)

    def check_rows(self, host: Host | None = None) -> None:
        """See that a host, by default the recipient, has the donor's rows.

        Raises:
            WayFailedError: It has not.
        """
        asked = host or self.recipient
        found = self._count_rows(asked)
        if found != self._rows:
            raise WayFailedError(f"rows on {asked.name}: {found}, on the donor: {self._rows}")

    def xbvault(self, *arguments: str) -> Process:
        """Run the product's command line, as a user would; its exit status may be any."""
        return run_process(
            [*product.command(), *arguments],
            environment={"XBVAULT_CONFIG": str(self.lab.config_file)},
            timeout_seconds=WAY_SECONDS,
        )

    def make_token(self, *mounts: str) -> str:
        """Make a Vault token that reads the keys of these mounts, and nothing else."""
        policy = "".join(
            f'path "{mount}/data/*" {{ capabilities = ["read"] }}\n'
            f'path "sys/mounts/{mount}/tune" {{ capabilities = ["read"] }}\n'
            for mount in mounts
        )
        self.vault.write_policy("bench", policy)
        asked = {"policies": ["bench"], "no_default_policy": True, "ttl": "24h"}
        root = bao.root_token(self.lab)
        answer = bao.request(self.lab, "POST", "auth/token/create", asked, token=root)
        return str(answer["auth"]["client_token"])

    def request(self, method: str, path: str, document: dict[str, Any] | None = None) -> None:
        """Send a request to Vault, with the root token."""
        bao.request(self.lab, method, path, document, token=bao.root_token(self.lab))

    def write(self, host: Host, path: str, text: str, *, mode: str = "0600") -> None:
        """Write a file on a host."""
        hosts.run_on(self.lab, host, "install", "-m", mode, "/dev/stdin", path, stdin=text)

    def _empty(self, host: Host) -> None:
        """Leave a recipient no server, no data and nothing of a way."""
        self.run(
            host,
            _EMPTY.format(
                server=servers.SERVER,
                datadir=DATADIR,
                work=WORK,
                secrets=SECRETS,
                config_dir=self.config_dir,
            ),
            seconds=600,
        )

    def _fill_cache(self) -> None:
        """Have data, kept stream and programs in the page cache again, after it was dropped."""
        self.run(self.donor, f"find {DATADIR} {WORK} -type f -exec cat {{}} + >/dev/null || true")
        self._read_plan()
        self._is_dropped = False

    def _read_plan(self) -> Plan:
        shown = self.xbvault("clone", self.donor.name, self.recipient.name, "--plan", "--json")
        document = json.loads(shown.stdout or "{}")
        if not document.get("plan"):
            raise WayFailedError(f"no plan: {shown.stdout[-500:]}{shown.stderr[-500:]}")
        return models.from_json(Plan, document["plan"])

    def _remove_keys(self, mount: str) -> None:
        for name in self.vault.list_secrets(mount):
            self.request("DELETE", f"{mount}/metadata/{name}")

    def _need_running(self, host: Host) -> None:
        status = self.read_replication(host)
        if (status.io, status.sql) != ("Yes", "Yes"):
            raise WayFailedError(
                f"replication: fetching {status.io}, applying {status.sql}: "
                f"{status.io_error or status.sql_error}"
            )

    def _count_rows(self, host: Host) -> list[str]:
        counts = ";\n".join(f"SELECT COUNT(*) FROM {table}" for table in STABLE_TABLES)
        return self.execute(host, counts).split()


class Listener:
    """A script on a host that runs beside another.

    Args:
        argv: What runs it.
    """

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def need_alive(self) -> None:
        """See that it runs.

        Raises:
            WayFailedError: It has ended.
        """
        if self._process.poll() is not None:
            raise WayFailedError(f"the listener ended: {self.wait()}")

    def wait(self) -> str:
        """Wait for its end, and return what it said.

        Raises:
            WayFailedError: It failed.
        """
        _, words = self._process.communicate(timeout=WAY_SECONDS)
        if self._process.returncode != 0:
            raise WayFailedError(f"the listener failed: {words.strip()[-_MOST_WORDS:]}")
        return words

    def stop(self) -> None:
        """End it; the next reset ends what it has left on its host."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def _bash(script: str, seconds: float) -> list[str]:
    limit = ["timeout", "--kill-after=5", f"{seconds:.0f}"]
    return [*limit, "bash", "-euo", "pipefail", "-c", script]


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
