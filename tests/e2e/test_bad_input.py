"""Bad input and bad surroundings: each is named, with what to do, and nothing is touched.

One laboratory for the whole file. Its recipient has a server of its own, running and empty, so
that ``clone --replace`` would go well: every row spoils one thing, tries it, and mends it again.
The second replica is a plain server, neither encrypted nor with a binary log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import time
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import CloneLab, running_lab
from lab import bao, hosts, model, product
from lab.commands import wait_until
from openbao import make_ca
from vault_root import VaultRoot
from warm_cli import WarmCli, warm_cli

from orchestrator.host import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

CLONE = ("clone", "master", "replica", "--replace", "--yes", "--json")
PLAIN = "replica2"
OTHER_RUN = "20200101T000000Z-replica-00000000"
BASE = "/var/lib/xbvault"
UNTOUCHED = ("etc", "root", "usr", "var/lib/xbvault")
"""Folders of a host that a refused clone must leave to the byte."""
HINTED = re.compile(r"^hint: \S", re.MULTILINE)
ANSWERS_SECONDS = 60
"""No refusal takes longer, whatever does not answer."""


class Bench:
    """The lab, and the tools to spoil and mend what is in it.

    Args:
        lab: The lab.
        cli: Runs ``xbvault``.
    """

    def __init__(self, lab: CloneLab, cli: WarmCli) -> None:
        self.lab = lab
        self.vault = VaultRoot(lab.directory)
        self._cli = cli
        self._model = model.load(lab.directory)

    def root(self, host: str) -> Path:
        """Return a host's own files as this machine sees them."""
        return self._model.host(host).root

    def on(self, host: str, *argv: str, stdin: str = "") -> str:
        """Run a command as root on a host."""
        return hosts.run_on(
            self._model, self._model.host(host), *argv, stdin=stdin, timeout_seconds=60
        ).stdout

    def ask_vault(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        """Ask Vault with the root token."""
        return bao.request(self._model, method, path, document, token=bao.root_token(self._model))

    def config(self, **changes: str) -> Path:
        """Write a variant of the configuration.

        Args:
            **changes: Lines for a table, its name written with ``__`` for a dot.
        """
        text = self.lab.config_file.read_text()
        for table, lines in changes.items():
            header = f"[{table.replace('__', '.')}]\n"
            names = [line.partition(" =")[0] for line in lines.splitlines()]
            before, _, after = text.partition(header)
            body, bracket, rest = after.partition("\n[")
            kept = [line for line in body.splitlines() if line.partition(" =")[0] not in names]
            text = before + header + "\n".join([lines, *kept]) + bracket + rest
        return self.write(text)

    def write(self, text: str, suffix: str = ".toml") -> Path:
        """Write a file outside of all hosts."""
        path = self.lab.directory / f"variant-{secrets.token_hex(4)}{suffix}"
        path.write_text(text)
        return path

    def call(self, arguments: Sequence[str], config: Path | None) -> Answer:
        """Run ``xbvault``."""
        env = {"XBVAULT_CONFIG": str(config)} if config else {}
        began = time.monotonic()
        done = self._cli.call(*arguments, env=env)
        assert time.monotonic() - began < ANSWERS_SECONDS
        return Answer(status=done.returncode, out=done.stdout, talk=done.stderr)

    @contextmanager
    def changed_file(self, host: str, path: str, change: Callable[[str], str]) -> Iterator[None]:
        """Change a file of a host, and put it back."""
        target = self.root(host) / path
        kept = target.read_text()
        target.write_text(change(kept))
        try:
            yield
        finally:
            target.write_text(kept)

    @contextmanager
    def changed_policy(self, name: str, old: str, new: str) -> Iterator[None]:
        """Rewrite a policy, and put it back."""
        kept = self.vault.read_policy(name)
        assert old in kept, kept
        self.vault.write_policy(name, kept.replace(old, new))
        try:
            yield
        finally:
            self.vault.write_policy(name, kept)

    @contextmanager
    def program(self, host: str, name: str, text: str) -> Iterator[None]:
        """Put a program before the real one on a host's path."""
        path = self.root(host) / "usr/local/sbin" / name
        path.write_text(text)
        path.chmod(0o755)
        try:
            yield
        finally:
            path.unlink()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """How a command ended.

    Attributes:
        status: Its exit status.
        out: What it wrote to stdout.
        talk: What it wrote to stderr.
    """

    status: int
    out: str
    talk: str

    @property
    def error(self) -> dict[str, Any]:
        """The error in its document."""
        found: dict[str, Any] = json.loads(self.out)["error"]
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """What to try.

    Attributes:
        arguments: After ``xbvault``.
        config: The configuration; None for the lab's own.
    """

    arguments: Sequence[str] = CLONE
    config: Path | None = None


Spoil = "Callable[[Bench], AbstractContextManager[Attempt]]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: What is wrong.
        spoil: Makes it so, says what to try, and mends it.
        status: The exit status.
        error: The class.
        says: What message and problems must say.
        hint: What the hint must say; of several problems, each has its own.
        contacts: Whether a host or Vault may be contacted.
    """

    name: str
    spoil: Callable[[Bench], AbstractContextManager[Attempt]]
    status: int
    error: str
    says: tuple[str, ...]
    hint: str
    contacts: bool = True


ROWS: list[Row] = []


def row(
    name: str,
    *,
    status: int,
    error: str,
    says: Sequence[str],
    hint: str,
    contacts: bool = True,
) -> Callable[[Callable[[Bench], Iterator[Attempt]]], None]:
    """Add a line to the table."""

    def add(spoil: Callable[[Bench], Iterator[Attempt]]) -> None:
        ROWS.append(
            Row(
                name=name,
                spoil=contextlib.contextmanager(spoil),
                status=status,
                error=error,
                says=tuple(says),
                hint=hint,
                contacts=contacts,
            )
        )

    return add


# Configuration, playbooks and arguments: nothing is contacted.


@row(
    "unknown host",
    status=2,
    error="ConfigError",
    says=["unknown host 'nowhere'"],
    hint="[hosts.nowhere]",
    contacts=False,
)
def _unknown_host(_bench: Bench) -> Iterator[Attempt]:
    yield Attempt(arguments=("clone", "master", "nowhere", "--yes", "--json"))


@row(
    "no configuration file",
    status=2,
    error="ConfigError",
    says=["no configuration file /nowhere/xbvault.toml"],
    hint="xbvault config example",
    contacts=False,
)
def _no_file(_bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=Path("/nowhere/xbvault.toml"))


@row(
    "malformed configuration",
    status=2,
    error="ConfigError",
    says=["is not TOML", "line 2"],
    hint="mend that line",
    contacts=False,
)
def _malformed(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.write('[vault]\naddress = "https://no end\n'))


@row(
    "every problem of a configuration at once",
    status=2,
    error="ConfigError",
    says=[
        "5 problems",
        "vault.adress: unknown key",
        "clone.parallel: ",
        "is 0",
        "hosts.master.ssh_port: must be 1-65535, is 70000",
        "hosts.replica.vault_mount: is required",
        "hosts.replica.server.socket: must be an absolute path on the host, is 'mysqld.sock'",
    ],
    hint="xbvault config example",
    contacts=False,
)
def _many_problems(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(
        config=bench.write(
            '[vault]\nadress = "https://vault"\n[clone]\nparallel = 0\n'
            '[hosts.master]\nvault_mount = "a"\nssh_port = 70000\n'
            '[hosts.replica]\n[hosts.replica.server]\nsocket = "mysqld.sock"\n'
        )
    )


@row(
    "two hosts with one mount",
    status=2,
    error="ConfigError",
    says=["hosts: replica and master share the vault_mount 'mariadb-master'"],
    hint="xbvault config example",
    contacts=False,
)
def _one_mount(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(hosts__replica='vault_mount = "mariadb-master"'))


@row(
    "no token file",
    status=2,
    error="ConfigError",
    says=["cannot read the token file /nowhere/token"],
    hint="vault.token_file",
    contacts=False,
)
def _no_token_file(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(vault='token_file = "/nowhere/token"'))


@row(
    "every problem of a playbook at once",
    status=2,
    error="ConfigError",
    says=[
        "7 problems",
        "colour: unknown key",
        "steps[0].use: unknown step 'stop-sever'; did you mean 'stop-server'?",
        "steps[1].on: step 'swap-datadir' acts on 'recipient', not on 'donor'",
        "steps[1].use: step 'swap-datadir' goes back to 'stream-backup'",
        "steps[2].use: step 'stop-server' goes back to 'stream-backup'",
        "steps[2].with.speed: unknown value",
        "steps[3].use: step 'prepare-backup-set' goes back to 'stream-backup'",
    ],
    hint="docs/reference/steps.md",
    contacts=False,
)
def _wrong_playbook(bench: Bench) -> Iterator[Attempt]:
    path = bench.write(
        "name: mine\nsummary: a try\nversion: 1\ncolour: red\nsteps:\n"
        "  - {use: stop-sever, on: recipient}\n"
        "  - {use: swap-datadir, on: donor}\n"
        "  - {use: stop-server, on: recipient, with: {speed: 9}}\n"
        "  - {use: prepare-backup-set, on: recipient}\n",
        suffix=".yaml",
    )
    yield Attempt(arguments=("playbook", "check", str(path), "--json"))


@row(
    "nobody to ask",
    status=2,
    error="ConfigError",
    says=["nobody to ask"],
    hint="--yes",
    contacts=False,
)
def _nobody(_bench: Bench) -> Iterator[Attempt]:
    yield Attempt(arguments=("clone", "master", "replica", "--json"))


@row(
    "recipient is the donor",
    status=3,
    error="PreconditionError",
    says=["master is donor and recipient at once"],
    hint="name two different hosts",
    contacts=False,
)
def _same_host(_bench: Bench) -> Iterator[Attempt]:
    yield Attempt(arguments=("clone", "master", "master", "--replace", "--yes", "--json"))


@row(
    "recipient is the donor by another name",
    status=3,
    error="PreconditionError",
    says=["different-hosts: master and replica (hint: donor and recipient must be two machines)"],
    hint="mend these",
)
def _same_machine(bench: Bench) -> Iterator[Attempt]:
    donor = model.load(bench.lab.directory).host("master")
    yield Attempt(config=bench.config(hosts__replica=f'address = "{donor.address}"'))


# The recipient.


@row(
    "recipient with data, and no --replace",
    status=3,
    error="PreconditionError",
    says=[
        "2 preconditions do not hold",
        "replica: recipient-datadir: /var/lib/mysql has data",
        "replica: recipient-server: a server runs in /var/lib/mysql",
    ],
    hint="use --replace",
)
def _has_data(_bench: Bench) -> Iterator[Attempt]:
    yield Attempt(arguments=("clone", "master", "replica", "--yes", "--json"))


@row(
    "recipient takes writes",
    status=3,
    error="PreconditionError",
    says=["a server that takes writes runs here (1 user schemas)"],
    hint="set read_only=ON",
)
def _takes_writes(bench: Bench) -> Iterator[Attempt]:
    bench.lab.sql("replica", "CREATE DATABASE mine")
    try:
        yield Attempt()
    finally:
        bench.lab.sql("replica", "DROP DATABASE IF EXISTS mine")


@row(
    "recipient is a source",
    status=3,
    error="PreconditionError",
    says=["is a source: ", "read its binary log"],
    hint="move its replicas elsewhere first",
)
def _is_source(bench: Bench) -> Iterator[Attempt]:
    bench.on(
        "replica",
        "sh",
        "-c",
        "setsid mariadb-binlog --read-from-remote-server --stop-never bin.000001"
        " </dev/null >/dev/null 2>&1 &",
    )
    dumps = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    wait_until(lambda: bench.lab.sql("replica", dumps) != [], "a replica", timeout_seconds=20)
    try:
        yield Attempt()
    finally:
        bench.on("replica", "pkill", "-f", "stop-never")
        for (thread,) in bench.lab.sql("replica", dumps):
            bench.lab.sql("replica", f"KILL {thread}")


@row(
    "recipient would read another mount",
    status=3,
    error="PreconditionError",
    says=["/v1/mariadb-other", "mount mariadb-replica"],
    hint="hashicorp-key-management-vault-url=…/v1/mariadb-replica",
)
def _wrong_url(bench: Bench) -> Iterator[Attempt]:
    path = "etc/mysql/mariadb.conf.d/60-encryption.cnf"
    with bench.changed_file(
        "replica", path, lambda t: t.replace("mariadb-replica", "mariadb-other")
    ):
        yield Attempt()


@row(
    "recipient without the key plugin",
    status=3,
    error="PreconditionError",
    says=["the options do not load hashicorp_key_management"],
    hint="plugin-load-add=hashicorp_key_management",
)
def _no_plugin(bench: Bench) -> Iterator[Attempt]:
    path = "etc/mysql/mariadb.conf.d/60-encryption.cnf"
    with bench.changed_file("replica", path, lambda _text: "[mariadb]\n"):
        yield Attempt()


@row(
    "option files that disagree with the server",
    status=3,
    error="PreconditionError",
    says=["redo log are in /var/lib/mysql, and in /var/lib/redo after a restart"],
    hint="the layouts that can be swapped",
)
def _redo_elsewhere(bench: Bench) -> Iterator[Attempt]:
    path = "etc/mysql/mariadb.conf.d/60-encryption.cnf"
    line = "[mariadb]\ninnodb_log_group_home_dir = /var/lib/redo\n"
    with bench.changed_file("replica", path, lambda text: f"{text}\n{line}"):
        yield Attempt()


@row(
    "receiver of another version",
    status=3,
    error="PreconditionError",
    says=["/usr/local/sbin/xbvault-receive is of another version"],
    hint="docs/how-to/set-up-your-hosts.md",
)
def _old_receiver(bench: Bench) -> Iterator[Attempt]:
    path = "usr/local/sbin/xbvault-receive"
    with bench.changed_file("replica", path, lambda text: text + "\n"):
        yield Attempt()


@row(
    "not enough space",
    status=3,
    error="PreconditionError",
    says=["GB free beside /run/small/mysql", "wanted"],
    hint="free space on the filesystem of the recipient's datadir",
)
def _no_space(bench: Bench) -> Iterator[Attempt]:
    # A host's /run is a tmpfs of 64 MB.
    yield Attempt(config=bench.config(hosts__replica__server='datadir = "/run/small/mysql"'))


@row(
    "versions differ",
    status=3,
    error="PreconditionError",
    says=[
        "2 preconditions do not hold",
        "replica: tool-version: server 10.6.16, mariadb-backup 10.11",
        "versions-match: donor 10.11",
        "recipient 10.6.16",
    ],
    hint="mend these",
)
def _other_version(bench: Bench) -> Iterator[Attempt]:
    shown = "mariadbd  Ver 10.6.16-MariaDB-1 for debian-linux-gnu on x86_64 (Debian)"
    with bench.program("replica", "mariadbd", f"#!/bin/sh\necho '{shown}'\n"):
        yield Attempt()


@row(
    "programs missing on both hosts",
    status=3,
    error="PreconditionError",
    says=["master: programs: missing: pv", "replica: programs: missing: mbstream, pv"],
    hint="mend these",
)
def _no_programs(bench: Bench) -> Iterator[Attempt]:
    hidden = [
        ("master", "/usr/bin/pv"),
        ("replica", "/usr/bin/pv"),
        ("replica", "/usr/bin/mbstream"),
    ]
    with contextlib.ExitStack() as stack:
        for host, path in hidden:
            bench.on(host, "mount", "--bind", "/dev/null", path)
            stack.callback(bench.on, host, "umount", path)
        yield Attempt()


@row(
    "compression that is demanded and not there",
    status=3,
    error="PreconditionError",
    says=["compression: zstd is not installed on replica"],
    hint="install zstd there",
)
def _no_zstd(bench: Bench) -> Iterator[Attempt]:
    bench.on("replica", "mount", "--bind", "/dev/null", "/usr/bin/zstd")
    try:
        yield Attempt(arguments=(*CLONE, "--compress", "zstd"))
    finally:
        bench.on("replica", "umount", "/usr/bin/zstd")


@row(
    "a throttle that the stream cannot end with",
    status=3,
    error="PreconditionError",
    says=["throttle: ", "at 1024 bytes a second take"],
    hint="raise --throttle, or clone.stream_seconds",
)
def _too_slow(_bench: Bench) -> Iterator[Attempt]:
    yield Attempt(arguments=(*CLONE, "--throttle", "1K"))


@row(
    "another run on this recipient",
    status=3,
    error="LockHeldError",
    says=[f"run {OTHER_RUN} of elsewhere:1 holds replica"],
    hint="wait until that run has ended, or cancel it",
)
def _locked(bench: Bench) -> Iterator[Attempt]:
    lock = ("sh", "-s", "--")
    words = (BASE, OTHER_RUN, "elsewhere:1")
    bench.on("replica", *lock, "take", *words, "600", stdin=script("lock.sh"))
    try:
        yield Attempt()
    finally:
        bench.on("replica", *lock, "release", *words, stdin=script("lock.sh"))


# The donor.


@row(
    "donor neither encrypted nor with a binary log, all listed",
    status=3,
    error="PreconditionError",
    says=[
        f"{PLAIN}: donor-keyring: no keyring",
        f"{PLAIN}: donor-binlog: log_bin=OFF",
        "replica: recipient-datadir",
        "replica: recipient-server",
    ],
    hint="mend these",
)
def _plain_donor(_bench: Bench) -> Iterator[Attempt]:
    yield Attempt(arguments=("clone", PLAIN, "replica", "--require-encryption", "--yes", "--json"))


@row(
    "donor's server is stopped",
    status=3,
    error="PreconditionError",
    says=["no server runs in /var/lib/mysql"],
    hint="start the donor's server",
)
def _stopped_donor(bench: Bench) -> Iterator[Attempt]:
    bench.lab.lab("server", "stop", PLAIN)
    try:
        yield Attempt(arguments=("clone", PLAIN, "replica", "--replace", "--yes", "--json"))
    finally:
        bench.lab.lab("server", "start", PLAIN)


@row(
    "donor's server does not answer",
    status=4,
    error="CommandError",
    says=["none.sock", "donor-running: no answer from the server in"],
    hint="hosts.*.server.socket",
)
def _mute_donor(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(hosts__master__server='socket = "/run/mysqld/none.sock"'))


@row(
    "donor's server not where its replica would look",
    status=3,
    error="PreconditionError",
    says=["source-reachable: does not connect to", ":1: ERROR 200"],
    hint="see server.replication_address and server.port of master",
)
def _port_nobody_listens_on(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(hosts__master__server="port = 1"))


@row(
    "no CA for the donor's certificate",
    status=3,
    error="PreconditionError",
    says=["source-certificate: ", "with no server.replication_ca_file: ERROR 2026"],
    hint="server.replication_ca_file of replica must be the CA that signed the certificate",
)
def _no_ca(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(hosts__replica__server='replication_ca_file = ""'))


@row(
    "a stranger's CA for the donor's certificate",
    status=3,
    error="PreconditionError",
    says=["source-certificate: ", "ERROR 2026"],
    hint="server.replication_ca_file of replica must be the CA that signed the certificate",
)
def _stranger(bench: Bench) -> Iterator[Attempt]:
    ca_file = make_ca(bench.root("replica") / "tmp")
    yield Attempt(
        config=bench.config(hosts__replica__server=f'replication_ca_file = "/tmp/{ca_file.name}"')
    )


@row(
    "binary logs kept too briefly",
    status=3,
    error="PreconditionError",
    says=["kept 60 s, wanted 3600 s"],
    hint="raise binlog_expire_logs_seconds",
)
def _short_binlog(bench: Bench) -> Iterator[Attempt]:
    bench.lab.sql("master", "SET GLOBAL binlog_expire_logs_seconds = 60")
    try:
        yield Attempt()
    finally:
        bench.lab.sql("master", "SET GLOBAL binlog_expire_logs_seconds = 604800")


@row(
    "donor's key cache too short",
    status=3,
    error="PreconditionError",
    says=["too short or off: cache_timeout=60000, cache_version_timeout=0"],
    hint="a Vault that seals would crash the donor",
)
def _short_cache(bench: Bench) -> Iterator[Attempt]:
    prefix = "SET GLOBAL hashicorp_key_management"
    bench.lab.sql("master", f"{prefix}_cache_timeout = 60000; {prefix}_cache_version_timeout = 0")
    try:
        yield Attempt()
    finally:
        kept = 86_400_000
        bench.lab.sql(
            "master", f"{prefix}_cache_timeout = {kept}; {prefix}_cache_version_timeout = {kept}"
        )


# Vault.


@row(
    "wrong Vault token",
    status=5,
    error="SecretError",
    says=["does not know the token"],
    hint="wrong, expired or revoked",
)
def _wrong_token(bench: Bench) -> Iterator[Attempt]:
    path = bench.write(f"s.{secrets.token_hex(12)}\n", suffix=".token")
    yield Attempt(config=bench.config(vault=f'token_file = "{path}"'))


@row(
    "expired Vault token",
    status=5,
    error="SecretError",
    says=["does not know the token"],
    hint="wrong, expired or revoked",
)
def _expired_token(bench: Bench) -> Iterator[Attempt]:
    wanted = {"ttl": "1s", "policies": ["xbvault-orchestrator"]}
    token = bench.ask_vault("POST", "auth/token/create", wanted)["auth"]["client_token"]
    path = bench.write(f"{token}\n", suffix=".token")
    time.sleep(1.2)  # the only way in which a token expires
    yield Attempt(config=bench.config(vault=f'token_file = "{path}"'))


@row(
    "missing capability",
    status=5,
    error="SecretError",
    says=["the token lacks update on xbvault-ssh/sign/xbvault-receive-replica"],
    hint="xbvault vault init",
)
def _no_capability(bench: Bench) -> Iterator[Attempt]:
    path = 'path "xbvault-ssh/sign/'
    with bench.changed_policy("xbvault-orchestrator", path, 'path "xbvault-ssh/other/'):
        yield Attempt()


@row(
    "wrong CA of Vault",
    status=5,
    error="SecretError",
    says=["the TLS certificate of Vault at https://", "is not trusted"],
    hint="vault.ca_file",
)
def _wrong_ca(bench: Bench) -> Iterator[Attempt]:
    wrong = bench.lab.directory / "tls/replica.pem"
    yield Attempt(config=bench.config(vault=f'ca_file = "{wrong}"'))


@row(
    "nothing at Vault's address",
    status=5,
    error="SecretStoreUnavailableError",
    says=["cannot be reached", "connection refused"],
    hint="check vault.address",
)
def _no_vault(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(vault='address = "https://127.0.0.1:9"'))


@row(
    "sealed Vault",
    status=5,
    error="SecretStoreUnavailableError",
    says=["Vault at https://", "is sealed"],
    hint="unseal it",
)
def _sealed(bench: Bench) -> Iterator[Attempt]:
    bench.lab.lab("vault", "seal")
    try:
        yield Attempt()
    finally:
        bench.lab.lab("vault", "unseal")


@row(
    "mount of our records not there",
    status=5,
    error="SecretError",
    says=["vault-mounts: records is not there", "vault-capabilities: the token lacks"],
    hint="mend these",
)
def _no_mount(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(vault='mount = "records"'))


@row(
    "Vault would prune the recipient's keys",
    status=5,
    error="SecretError",
    says=["the recipient's mount keeps 10 versions"],
    hint="raise max_versions",
)
def _pruned(bench: Bench) -> Iterator[Attempt]:
    bench.ask_vault("POST", "mariadb-replica/config", {"max_versions": 10})
    try:
        yield Attempt()
    finally:
        bench.ask_vault("POST", "mariadb-replica/config", {"max_versions": 1000})


@row(
    "host's own token is wrong",
    status=5,
    error="SecretError",
    says=["the Vault token of host replica cannot be used", "does not know the token"],
    hint="/etc/mysql/vault.env",
)
def _wrong_host_token(bench: Bench) -> Iterator[Attempt]:
    wrong = f"VAULT_TOKEN=s.{secrets.token_hex(12)}\n"
    with bench.changed_file("replica", "etc/mysql/vault.env", lambda _text: wrong):
        yield Attempt()


@row(
    "host's own token is denied on its mount",
    status=5,
    error="SecretError",
    says=["replica's token cannot read mariadb-replica"],
    hint="xbvault vault init",
)
def _denied_host_token(bench: Bench) -> Iterator[Attempt]:
    path = 'path "mariadb-replica/data/'
    with bench.changed_policy("xbvault-host-replica", path, 'path "mariadb-other/data/'):
        yield Attempt()


@row(
    "recipient's token reads the donor's keys",
    status=5,
    error="SecretError",
    says=["replica's token reads mariadb-master"],
    hint="a policy for its own mount only",
)
def _too_much(bench: Bench) -> Iterator[Attempt]:
    more = 'path "mariadb-master/data/*" { capabilities = ["read"] }\npath "mariadb-replica/data/'
    with bench.changed_policy("xbvault-host-replica", 'path "mariadb-replica/data/', more):
        yield Attempt()


@row(
    "no token on the host",
    status=5,
    error="SecretError",
    says=["no file /etc/mysql/vault.env"],
    hint="vault_env_file",
)
def _no_host_token(bench: Bench) -> Iterator[Attempt]:
    path = bench.root("replica") / "etc/mysql/vault.env"
    hidden = path.with_name("hidden.env")
    path.rename(hidden)
    try:
        yield Attempt()
    finally:
        hidden.rename(path)


# SSH.


def ssh_config(bench: Bench, old: str, new: str) -> Path:
    """Write a variant of the operator's SSH configuration, and the configuration that names it."""
    text = (bench.lab.directory / "ssh/config").read_text()
    assert old in text, text
    variant = bench.write(text.replace(old, new), suffix=".ssh")
    return bench.config(ssh=f'config_file = "{variant}"')


@row(
    "unknown SSH host keys",
    status=4,
    error="HostKeyError",
    says=[
        "the host key of ",
        "is unknown: it shows the ",
        "SHA256:",
        "master: host-readable",
        "replica: host-readable",
    ],
    hint="compare the fingerprint",
)
def _unknown_keys(bench: Bench) -> Iterator[Attempt]:
    known = bench.lab.directory / "ssh/known_hosts"
    yield Attempt(config=ssh_config(bench, str(known), "/dev/null"))


@row(
    "changed SSH host key",
    status=4,
    error="HostKeyError",
    says=["has changed: it shows the ", "known is ", "SHA256:"],
    hint="somebody may be in between",
)
def _changed_key(bench: Bench) -> Iterator[Attempt]:
    known = bench.lab.directory / "ssh/known_hosts"
    lines = known.read_text().splitlines()
    of_master, of_replica = (line.split() for line in lines[:2])
    forged = bench.write(
        f"{' '.join(of_master)}\n{of_replica[0]} {' '.join(of_master[1:])}\n", suffix=".known"
    )
    yield Attempt(config=ssh_config(bench, str(known), str(forged)))


@row(
    "wrong login key",
    status=4,
    error="RemoteError",
    says=["login", "master: host-readable", "replica: host-readable"],
    hint="authorized_keys",
)
def _wrong_login(bench: Bench) -> Iterator[Attempt]:
    # A real key, but one that no host lets in.
    key = bench.root("replica") / "etc/ssh/ssh_host_ed25519_key"
    operator = bench.lab.directory / "ssh/operator"
    yield Attempt(config=ssh_config(bench, f'"{operator}"', f'"{key}"'))


@row(
    "host without power",
    status=4,
    error="HostUnreachableError",
    says=["replica2", "10.99."],
    hint="check that the host is up",
)
def _no_power(bench: Bench) -> Iterator[Attempt]:
    bench.lab.lab("power-off", PLAIN)
    try:
        yield Attempt(
            arguments=("clone", "master", PLAIN, "--replace", "--yes", "--json"),
            config=bench.config(ssh="connect_timeout_seconds = 2"),
        )
    finally:
        bench.lab.lab("power-on", PLAIN)
        bench.lab.lab("server", "start", PLAIN)


@row(
    "nothing at the SSH port",
    status=4,
    error="HostUnreachableError",
    says=["port 2222: nothing answers: connection refused"],
    hint="its sshd answers on the port",
)
def _wrong_port(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(hosts__replica="ssh_port = 2222"))


@row(
    "host name that does not exist",
    status=4,
    error="HostUnreachableError",
    says=["replica", "no-such-host.invalid"],
    hint="its address",
)
def _wrong_name(bench: Bench) -> Iterator[Attempt]:
    yield Attempt(config=bench.config(hosts__replica='address = "no-such-host.invalid"'))


@row(
    "host and Vault wrong at once, both listed",
    status=4,
    error="HostUnreachableError",
    says=["replica: host-readable", "vault-readable", "does not know the token"],
    hint="check that the host is up",
)
def _both_wrong(bench: Bench) -> Iterator[Attempt]:
    path = bench.write(f"s.{secrets.token_hex(12)}\n", suffix=".token")
    yield Attempt(
        config=bench.config(hosts__replica="ssh_port = 2222", vault=f'token_file = "{path}"')
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A lab in which a clone would go well, and a second replica with a plain server."""
    directory = tmp_path_factory.mktemp("bad") / "lab"
    options = ("--replica-server", "--replicas", "2", "--no-writer")
    with running_lab(directory, *options, size=0.02) as lab, warm_cli(lab.config_file) as cli:
        found = Bench(lab, cli)
        lab.lab("server", "stop", PLAIN)
        drop_ins = found.root(PLAIN) / "etc/mysql/mariadb.conf.d"
        (drop_ins / "60-encryption.cnf").unlink()
        (drop_ins / "70-plain.cnf").write_text("[mariadb]\nskip_log_bin\n")
        lab.on(PLAIN, "rm -rf /var/lib/mysql/*")
        lab.lab("server", "initialize", PLAIN)
        lab.lab("server", "start", PLAIN)
        yield found


def read_untouched(bench: Bench) -> dict[str, Any]:
    """Return what a refused clone must leave as it is, on every host and on this machine.

    Files are looked at from outside, so it can be asked of a host without power.
    """
    found: dict[str, Any] = {}
    for host in ("master", "replica", PLAIN):
        root = bench.root(host)
        datadir = (root / "var/lib/mysql").stat()
        found[host] = {
            "library": sorted(path.name for path in (root / "var/lib").iterdir()),
            "datadir": (datadir.st_ino, datadir.st_uid, datadir.st_mode),
            "tables": sorted(str(path) for path in (root / "var/lib/mysql").rglob("*.frm")),
            "files": {
                str(path.relative_to(root)): path.read_bytes()
                for folder in UNTOUCHED
                for path in (root / folder).rglob("*")
                if path.is_file() and not path.is_symlink()
            },
        }
    state = bench.lab.directory / "state"
    found["journal"] = sorted(str(path) for path in state.rglob("*")) if state.exists() else []
    return found


def read_vault(bench: Bench) -> dict[str, Any]:
    """Return what a refused clone must leave as it is in Vault, and the donor's accounts."""
    return {
        "records": bench.vault.list_secrets("xbvault"),
        "transition keys": bench.vault.list_secrets("xbvault", "transition-keys"),
        "mounts": bench.vault.list_mounts(),
        "own keys": {
            key: bench.vault.live_versions("mariadb-replica", key)
            for key in bench.vault.list_secrets("mariadb-replica")
        },
        "accounts": bench.lab.sql("master", "SELECT user, host FROM mysql.user ORDER BY 1, 2"),
        "servers": [bench.on(host, "pgrep", "-x", "mariadbd") for host in ("master", "replica")],
    }


def read_contacts(bench: Bench) -> tuple[int, ...]:
    """Return how often the hosts were connected to, and the length of Vault's audit log."""
    logs = [bench.root(h).parent / "console.log" for h in ("master", "replica", PLAIN)]
    counts = [path.read_text(errors="replace").count("Connection from") for path in logs]
    return (*counts, (bench.lab.directory / "vault/audit.log").stat().st_size)


def test_the_lab_itself_is_right(bench: Bench) -> None:
    """Unspoiled, a clone would begin: so every refusal below is for its own reason."""
    answer = bench.call(("clone", "master", "replica", "--replace", "--plan", "--json"), None)
    assert answer.status == 0, answer.talk
    assert json.loads(answer.out)["status"] == "planned"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_bad_input_is_named_and_nothing_is_touched(bench: Bench, row: Row) -> None:
    """The exit status is right, message and hint name the thing, and nothing was touched."""
    vault = read_vault(bench)
    with row.spoil(bench) as attempt:
        before, contacts = read_untouched(bench), read_contacts(bench)
        answer = bench.call(attempt.arguments, attempt.config)
        after, contacted = read_untouched(bench), read_contacts(bench)
    assert answer.status == row.status, answer.talk
    assert answer.error["error"] == row.error, answer.talk
    told = "\n".join([answer.error["message"], *answer.error["problems"]])
    for words in row.says:
        assert words in told, answer.talk
        assert words in answer.talk
    assert answer.talk.startswith("error: "), answer.talk
    assert HINTED.search(answer.talk), answer.talk
    hints = "\n".join([answer.error["hint"], *answer.error["problems"]])
    assert row.hint in hints, answer.talk
    assert "Traceback" not in answer.talk + answer.out
    assert after == before
    assert contacted == contacts or row.contacts
    assert read_vault(bench) == vault


def test_run_that_was_killed_holds_its_recipient_for_a_while(bench: Bench) -> None:
    """Another clone is told which run holds the recipient, on this machine and on another."""
    # A lease that a busy machine does not outlast.
    text = bench.lab.config_file.read_text() + "\n[clone]\nlock_lease_seconds = 600\n"
    crash = {"XBVAULT_CRASH_AT": "create-transition-key:after"}
    killed = bench.lab.xbvault(*CLONE, check=False, config=bench.write(text), env=crash)
    assert killed.returncode == -9, killed.stderr
    run_id = json.loads(bench.lab.xbvault("runs", "list", "--json").stdout)[0]["run_id"]
    vault = read_vault(bench)
    elsewhere = bench.lab.directory / "state-elsewhere"
    before = read_untouched(bench)
    for config in (None, bench.config(journal=f'directory = "{elsewhere}"')):
        answer = bench.call(CLONE, config)
        assert (answer.status, answer.error["error"]) == (3, "LockHeldError"), answer.talk
        assert f"run {run_id} of " in answer.error["message"]
        assert "holds replica" in answer.error["message"]
        assert "cancel it" in answer.error["hint"]
    assert read_untouched(bench) == before
    assert read_vault(bench) == vault
    cancelled = bench.call(("runs", "cancel", run_id, "--yes", "--json"), None)
    assert cancelled.status == 0, cancelled.talk
    test_the_lab_itself_is_right(bench)


def test_wrong_tokens_are_not_repeated(bench: Bench) -> None:
    """A token that Vault refuses stands nowhere in what is said about it."""
    token = f"s.{secrets.token_hex(12)}"
    path = bench.write(f"{token}\n", suffix=".token")
    answer = bench.call(CLONE, bench.config(vault=f'token_file = "{path}"'))
    assert answer.status == 5
    assert token not in answer.out + answer.talk


def test_orchestrator_token_file_is_the_labs(bench: Bench) -> None:
    """The variants of the configuration above change what they name, and keep the rest."""
    text = bench.config(vault='mount = "records"').read_text()
    token_file = product.orchestrator_token_file(model.load(bench.lab.directory))
    assert f'token_file = "{token_file}"' in text
    assert text.count("mount = ") == bench.lab.config_file.read_text().count("mount = ")
