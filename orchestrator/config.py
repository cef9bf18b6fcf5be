"""``xbvault.toml``, checked whole, as frozen models.

Unknown keys are errors, every problem is reported at once with its path, and no secret stands in
the file: only the paths of token files and mounts in Vault. ``config example`` and the reference
page are printed from the descriptions here.
"""

from __future__ import annotations

import os.path
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from orchestrator import wire
from orchestrator.errors import ConfigError, PreconditionError

SSH_PORT = 22
SMALLEST_PART_BYTES = 1 << 20
"""A set of small parts is a folder of too many files, and a manifest that is too long."""
HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_MOUNT = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~%!$&()*+,;=:/-]*)?")
_ADDRESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]{0,254}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?")
_UNIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@\\-]{0,254}")
DEFAULT_FILES = ("xbvault.toml", "/etc/xbvault/xbvault.toml")


def _check_mount(value: str) -> str:
    if not _MOUNT.fullmatch(value) or {".", ".."} & set(value.split("/")):
        raise ValueError("must be a path of letters, digits, '.', '_', '-' and inner '/'")
    return value


def has_control(text: str) -> bool:
    """Return whether a text holds a character that ends a line, or that a terminal acts on."""
    return any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)  # noqa: PLR2004 - C0, C1


def _check_absolute(value: str) -> str:
    if value and not value.startswith("/"):
        raise ValueError("must be an absolute path on the host")
    if has_control(value):
        raise ValueError("must hold no control character")
    return value


def _check_literal(value: str) -> str:
    if "\\" in value or not value.isprintable():
        raise ValueError("must hold no backslash and no control character, for SQL cannot carry it")
    return value


def _check_pattern(value: str) -> str:
    if any(c in value for c in "*?[\\") or value != value.rstrip():
        raise ValueError("must hold none of * ? [ and backslash, for systemd reads a pattern")
    return value


def _check_local(value: str) -> str:
    if has_control(value) or os.path.expanduser(value).startswith("~"):  # noqa: PTH111 - never raises
        raise ValueError("must be a path on this machine, without control characters")
    return value


def _check_textfile(value: str) -> str:
    if _check_local(value) and not value.endswith(".prom"):
        raise ValueError("must end in .prom, for node_exporter reads no other file")
    return value


def _check_url(value: str) -> str:
    if value and not is_url(value):
        raise ValueError("must be an http or https URL, without user, password and query")
    return value


def _check_address(value: str) -> str:
    if value and not _ADDRESS.fullmatch(value):
        raise ValueError("must be a host name or an IP address")
    return value


def _check_account(value: str) -> str:
    if not _ACCOUNT.fullmatch(value):
        raise ValueError("must be the name of an account on the host")
    return value


def _check_login(value: str) -> str:
    if value.startswith("-") or has_control(value) or any(c.isspace() for c in value):
        raise ValueError("must be a login, without spaces, not beginning with a dash")
    return value


def _check_unit(value: str) -> str:
    if value and not _UNIT.fullmatch(value):
        raise ValueError("must be the name of a systemd unit")
    return value


def _check_program(value: str) -> str:
    if value.startswith("-") or has_control(value) or ("/" in value and value[0] != "/"):
        raise ValueError("must be a program's name, or its absolute path")
    return value


def _check_command(value: tuple[str, ...]) -> tuple[str, ...]:
    if any("\0" in word for word in value) or (value and not value[0]):
        raise ValueError("must be a program and its arguments")
    return value


def _check_rate(value: str) -> str:
    wire.parse_rate(value)
    return value


def _check_repository_path(value: str) -> str:
    parts = _check_absolute(value).rstrip("/").split("/")[1:]
    if not parts or {"", ".", ".."} & set(parts):
        raise ValueError(
            "must be a directory below /, without '.', '..' and doubled '/' in its path"
        )
    return "/" + "/".join(parts)


def _check_part_size(value: str) -> str:
    if wire.parse_size(value) < SMALLEST_PART_BYTES:
        raise ValueError("must be a size of 1M at least, such as 256M (K, M, G)")
    return value


def is_url(text: str) -> bool:
    """Return whether a text is a URL of Vault, fit for a header, an option file and a script."""
    return bool(_URL.fullmatch(text))


def is_header(text: str) -> bool:
    """Return whether a text can stand in a header of HTTP."""
    return text.isascii() and text.isprintable()


VaultMount = Annotated[str, pydantic.AfterValidator(_check_mount)]
HostPath = Annotated[str, pydantic.AfterValidator(_check_absolute)]
RepositoryPath = Annotated[str, pydantic.AfterValidator(_check_repository_path)]
LocalPath = Annotated[str, pydantic.AfterValidator(_check_local)]
TextFile = Annotated[str, pydantic.AfterValidator(_check_textfile)]
Url = Annotated[str, pydantic.AfterValidator(_check_url)]
Address = Annotated[str, pydantic.AfterValidator(_check_address)]
Account = Annotated[str, pydantic.AfterValidator(_check_account)]
Login = Annotated[str, pydantic.AfterValidator(_check_login)]
Unit = Annotated[str, pydantic.AfterValidator(_check_unit)]
Program = Annotated[str, pydantic.AfterValidator(_check_program)]
Command = Annotated[tuple[str, ...], pydantic.AfterValidator(_check_command)]
Rate = Annotated[str, pydantic.AfterValidator(_check_rate)]
PartSize = Annotated[str, pydantic.AfterValidator(_check_part_size)]
Compression = Annotated[str, pydantic.AfterValidator(wire.parse_compression)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class VaultConfig(_Model):
    """HashiCorp Vault or OpenBao, as the orchestrator reaches it."""

    address: Url = Field("", description="URL; else VAULT_ADDR")
    ca_file: LocalPath = Field("", description="CA certificate on this machine; else VAULT_CACERT")
    namespace: str = Field(
        "", pattern=r"^[\x21-\x7e]*$", description="Vault namespace; else VAULT_NAMESPACE"
    )
    token_file: LocalPath = Field(
        "", description="file with the orchestrator's token; else VAULT_TOKEN, else ~/.vault-token"
    )
    mount: VaultMount = Field("xbvault", description="KV version 2 mount of our own records")
    transition_mount: VaultMount = Field(
        "xbvault-transition", description="prefix under which transition mounts are made"
    )
    ssh_mount: VaultMount = Field("xbvault-ssh", description="SSH secrets engine used as CA")
    audit_file: LocalPath = Field(
        "", description="Vault's audit log, where this machine has it, for `xbvault keys audit`"
    )
    key_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="keys of backups that are older than so many days are warned about; 0 for none",
    )


class JournalConfig(_Model):
    """Where runs are remembered."""

    directory: LocalPath = Field(
        "", description="journal and logs; else $XDG_STATE_HOME/xbvault, ~/.local/state/xbvault"
    )


class MetricsConfig(_Model):
    """What Prometheus is told of runs, through node_exporter's textfile collector."""

    textfile: TextFile = Field(
        "", description="file on this machine that is written after each run; empty for none"
    )


class NoticesConfig(_Model):
    """Whom to tell how runs end, through Apprise."""

    urls_file: LocalPath = Field(
        "",
        description="file on this machine, mode 0600, with a URL of Apprise on each line; empty for "
        "none",
    )
    on: Literal["failure", "always"] = Field(
        "failure", description="of which runs: those that do not succeed, or all"
    )


class SshConfig(_Model):
    """Control connections of the orchestrator."""

    config_file: LocalPath = Field(
        "", description="ssh_config to resolve hosts with; else OpenSSH's own"
    )
    connect_timeout_seconds: int = Field(10, ge=1, le=600, description="time to connect")


class ServiceConfig(_Model):
    """How the database server of a host is started and stopped.

    Without `start` and `stop`, systemd does it by `unit`.
    """

    unit: Unit = Field("", description="systemd unit; else mariadb, or mysql")
    start: Command = Field((), description="command that starts the server and waits")
    stop: Command = Field((), description="command that stops the server and waits")
    environment_file: Annotated[HostPath, pydantic.AfterValidator(_check_pattern)] = Field(
        "/run/xbvault/server.env",
        description="file that `start` sources last, if it is there; it holds the transition token",
    )

    @pydantic.model_validator(mode="after")
    def _both_or_none(self) -> ServiceConfig:
        if bool(self.start) != bool(self.stop):
            raise ValueError("start and stop go together")
        return self


class ServerConfig(_Model):
    """The database server (instance) of a host."""

    socket: HostPath = Field("", description="socket; else the client's own default")
    defaults_file: HostPath = Field("", description="client option file for the administrator")
    port: Port = Field(3306, description="port that replicas connect to")
    datadir: HostPath = Field("", description="data directory; else from the server's options")
    options_file: HostPath = Field(
        "", description="option file that the server is started with; else the default ones"
    )
    config_dir: HostPath = Field(
        "",
        description="directory of drop-ins read by the server; else /etc/mysql/mariadb.conf.d, or "
        "/etc/mysql/mysql.conf.d",
    )
    owner: Account = Field("mysql", description="user that the server runs as")
    replication_address: Address = Field(
        "", description="name or address that replicas connect to; else the SSH address"
    )
    account_host: str = Field(
        "",
        pattern=r"^[A-Za-z0-9.:%_/-]*$",
        description="host part of the replica's account on its source; else its own address",
    )
    replication_ca_file: Annotated[HostPath, pydantic.AfterValidator(_check_literal)] = Field(
        "", description="CA on this host that the source's certificate is checked with"
    )


class ProgramsConfig(_Model):
    """Programs of a host, where they are not those that its PATH finds; a name or a path each."""

    client: Program = Field("", description="client; else mariadb, or mysql")
    server: Program = Field("", description="server; else mariadbd, or mysqld")
    backup: Program = Field("", description="backup tool; else mariadb-backup, or xtrabackup")
    stream: Program = Field("", description="stream tool; else mbstream, or xbstream")
    print_defaults: Program = Field("", description="reader of options; else my_print_defaults")
    binlog: Program = Field(
        "", description="reader of binary logs; else mariadb-binlog, or mysqlbinlog"
    )


class KeyringConfig(_Model):
    """The keyring of a MySQL server, as a recipient gets it. MariaDB's is its plugin."""

    kind: Literal[
        "",
        "keyring_vault",
        "component_keyring_vault",
        "keyring_file",
        "component_keyring_file",
    ] = Field("", description="plugin or component; empty for none")
    config_file: HostPath = Field(
        "",
        description="configuration of keyring_vault, which a run writes; of a component, else it "
        "stands in the datadir with a manifest",
    )
    data_file: HostPath = Field("", description="file that keyring_file or its component keeps")
    plugin_dir: HostPath = Field(
        "", description="plugins and components of the backup tool; else its own"
    )
    kv_version: int = Field(
        0,
        ge=0,
        le=2,
        description="version of the KV engine at vault_mount; 0 for that of the kind: 1 of "
        "keyring_vault, 2 of its component",
    )

    @pydantic.model_validator(mode="after")
    def _check_files(self) -> KeyringConfig:
        if self.kind.endswith("keyring_file") and not self.data_file:
            raise ValueError("data_file is where this kind keeps its keys: name it")
        if self.kind == "keyring_vault" and not self.config_file:
            raise ValueError("config_file is what this kind reads: name it")
        if self.kv_version and not self.uses_vault:
            raise ValueError("kv_version is for a keyring in Vault")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the keys lie in a file of the host."""
        return self.kind.endswith("keyring_file")

    @property
    def uses_vault(self) -> bool:
        """Whether the keys lie in Vault."""
        return self.kind.endswith("keyring_vault")


class DoorConfig(_Model):
    """A machine reached over SSH."""

    address: Address = Field("", description="SSH address; else as `ssh -G NAME` says")
    ssh_port: Port | None = Field(None, description="SSH port; else as `ssh -G NAME` says")
    ssh_user: Login = Field("", description="SSH login; else as `ssh -G NAME` says")
    become: bool = Field(False, description="run commands with `sudo -n`")
    receive_user: Account = Field("root", description="login that takes a stream from another host")

    def find_stream_address(self, name: str) -> tuple[str, int]:
        """Return the address and port at which the host takes a stream from another.

        Args:
            name: The host's.
        """
        return self.address or name, self.ssh_port or SSH_PORT


class HostConfig(DoorConfig):
    """A machine reached over SSH, with the one database server that it runs."""

    flavor: Literal["mariadb", "mysql"] = Field("mariadb", description="kind of server")
    keyring: KeyringConfig = Field(default_factory=KeyringConfig)
    vault_mount: str = Field(
        "",
        validate_default=True,
        description="the host's own KV mount; needed where its keys are in Vault",
    )
    vault_address: Url = Field("", description="Vault as the host reaches it; else vault.address")
    vault_ca_file: HostPath = Field("", description="Vault's CA certificate on the host")
    vault_env_file: HostPath = Field(
        "/etc/mysql/vault.env", description="file on the host with VAULT_TOKEN=… of its own token"
    )
    server: ServerConfig = Field(default_factory=ServerConfig)
    service: ServiceConfig = Field(default_factory=ServiceConfig)
    programs: ProgramsConfig = Field(default_factory=ProgramsConfig)

    @pydantic.model_validator(mode="after")
    def _check_keyring(self) -> HostConfig:
        if self.keyring.kind and self.flavor != "mysql":
            raise ValueError("keyring is for flavor mysql")
        return self

    @pydantic.field_validator("vault_mount")
    @classmethod
    def _check_vault_mount(cls, value: str, info: pydantic.ValidationInfo) -> str:
        if value:
            return _check_mount(value)
        keyring = info.data.get("keyring")
        if info.data.get("flavor") != "mysql" or (keyring and keyring.uses_vault):
            raise PydanticCustomError("missing", "its keys are in Vault")
        return value

    @property
    def has_keys_in_vault(self) -> bool:
        """Whether its server reads its keys from Vault itself."""
        return self.flavor == "mariadb" or self.keyring.uses_vault

    @property
    def key_mount(self) -> str:
        """The mount of its keys; empty where they are not in Vault."""
        return self.vault_mount if self.has_keys_in_vault else ""

    @property
    def kv_version(self) -> int:
        """Version of the KV engine that this mount has; 0 where there is none.

        The plugin keyring_vault has version 1 by default: older ones know no other, and store keys
        nowhere in a mount of version 2, without an error.
        """
        if not self.has_keys_in_vault:
            return 0
        return self.keyring.kv_version or (1 if self.keyring.kind == "keyring_vault" else 2)


class RetentionConfig(_Model):
    """How many backups of each host a repository keeps; see `xbvault backups expire`."""

    last: int = Field(0, ge=0, le=100_000, description="the newest ones")
    daily: int = Field(0, ge=0, le=100_000, description="the newest of a day, of so many days")
    weekly: int = Field(0, ge=0, le=100_000, description="the newest of a week")
    monthly: int = Field(0, ge=0, le=100_000, description="the newest of a month")
    yearly: int = Field(0, ge=0, le=100_000, description="the newest of a year")
    minimum: int = Field(
        1, ge=1, le=100_000, description="full ones at least, whatever the others keep"
    )


class RepositoryConfig(DoorConfig):
    """A directory for stored backups on a machine reached over SSH."""

    path: RepositoryPath = Field(
        description="directory with a folder for each backup set; it must be there"
    )
    part_size: PartSize = Field(
        "1G", description="size of the files that a backup is stored in, such as 256M or 4G"
    )
    retention: RetentionConfig = Field(default_factory=RetentionConfig)

    @property
    def part_bytes(self) -> int:
        """Size of every part of a set but its last."""
        return wire.parse_size(self.part_size)


class CloneConfig(_Model):
    """Defaults and bounds of clones."""

    parallel: int = Field(2, ge=1, le=64, description="copy threads of the backup tool")
    throttle: Rate = Field(
        wire.NONE, description="most bytes per second of the stream, such as 50M (K, M, G); or none"
    )
    nice: bool = Field(
        False, description="the donor's server comes before its backup tool (nice, ionice)"
    )
    relay: bool = Field(
        False,
        description="where the donor does not reach the recipient, the stream goes through this "
        "machine",
    )
    compress: Compression = Field(
        wire.AUTO,
        description="compression of the stream: auto, none, zstd or zstd:LEVEL; auto takes zstd where "
        "a sample of the data and the wire make it pay",
    )
    coordinates: Literal["auto", "gtid", "position"] = Field(
        "auto", description="how replication is wired; auto takes GTID where the donor has it"
    )
    read_only: bool = Field(True, description="the released replica stays read_only")
    events: Literal["replica", "disabled"] = Field(
        "replica", description="events on the released replica: SLAVESIDE_DISABLED, or DISABLED"
    )
    checksums: Literal["all", "sample", "none"] = Field("all", description="tables compared")
    backup_checksums: Literal["all", "sample", "none"] = Field(
        "none", description="tables summed up for a stored backup, for a drill to compare"
    )
    sample_bytes: int = Field(
        1_000_000_000, ge=0, description="with checksums=sample: compare tables up to this in all"
    )
    stall_seconds: int = Field(300, ge=5, description="a stream with no new byte this long ends")
    stream_seconds: int = Field(86_400, ge=60, description="longest time for the stream")
    catch_up_seconds: int = Field(3_600, ge=10, description="longest time to catch up")
    re_encrypt_seconds: int = Field(86_400, ge=60, description="longest time to re-encrypt")
    clock_skew_seconds: float = Field(
        5.0, gt=0, allow_inf_nan=False, description="clocks may differ by this"
    )
    lock_lease_seconds: int = Field(60, ge=5, description="a dead holder's lock lasts this long")
    job_lease_seconds: int = Field(
        900, ge=10, description="a remote job that nobody asked after this long ends itself"
    )
    gather_seconds: int = Field(
        60, ge=1, description="clones of one donor wait this long for each other before the stream"
    )
    branch_stall_seconds: int = Field(
        60, ge=1, description="a recipient that holds the others up for this long is dropped"
    )
    transition_token_seconds: int = Field(3_600, ge=60, description="period of that token")


class Config(_Model):
    """The whole configuration."""

    vault: VaultConfig = Field(default_factory=VaultConfig)
    journal: JournalConfig = Field(default_factory=JournalConfig)
    metrics: MetricsConfig = Field(default_factory=MetricsConfig)
    notices: NoticesConfig = Field(default_factory=NoticesConfig)
    ssh: SshConfig = Field(default_factory=SshConfig)
    clone: CloneConfig = Field(default_factory=CloneConfig)
    hosts: dict[str, HostConfig] = Field(min_length=1)
    repositories: dict[str, RepositoryConfig] = Field(default_factory=dict)

    @pydantic.field_validator("hosts")
    @classmethod
    def _check_names(cls, hosts: dict[str, HostConfig]) -> dict[str, HostConfig]:
        for name in hosts:
            if not HOST_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no host name")
        mounts: dict[str, str] = {}
        for name, host in hosts.items():
            other = mounts.setdefault(host.vault_mount, name) if host.vault_mount else name
            if other != name:
                raise ValueError(f"{name} and {other} share the vault_mount {host.vault_mount!r}")
        return hosts

    @pydantic.field_validator("repositories")
    @classmethod
    def _check_repositories(
        cls, repositories: dict[str, RepositoryConfig], info: pydantic.ValidationInfo
    ) -> dict[str, RepositoryConfig]:
        for name in repositories:
            if not HOST_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a repository")
            if name in info.data.get("hosts", {}):
                raise ValueError(f"{name} is a host and a repository: give one another name")
        return repositories

    def host(self, name: str) -> HostConfig:
        """Return a host's configuration.

        Raises:
            ConfigError: No such host.
        """
        if name not in self.hosts:
            known = ", ".join(sorted(self.hosts))
            raise ConfigError(
                f"unknown host {name!r}", hint=f"add [hosts.{name}] to xbvault.toml; known: {known}"
            )
        return self.hosts[name]

    def repository(self, name: str) -> RepositoryConfig:
        """Return a repository's configuration.

        Raises:
            ConfigError: No such repository.
        """
        if name not in self.repositories:
            known = ", ".join(sorted(self.repositories)) or "none"
            raise ConfigError(
                f"unknown repository {name!r}",
                hint=f"add [repositories.{name}] to xbvault.toml; known: {known}",
            )
        return self.repositories[name]

    def find_repository(self, name: str) -> str:
        """Return the name of a repository: the one that is named, else the only one there is.

        Raises:
            ConfigError: There is none of that name; or none was named, and there is not just one.
        """
        if name:
            self.repository(name)
            return name
        if len(self.repositories) == 1:
            return next(iter(self.repositories))
        known = ", ".join(sorted(self.repositories))
        raise ConfigError(
            f"{len(self.repositories)} repositories are configured, and none was named"
            if known
            else "no repository is configured",
            hint=f"name one with --to: {known}"
            if known
            else "add [repositories.NAME] to xbvault.toml, see `xbvault config example`",
        )

    def door(self, name: str) -> DoorConfig:
        """Return how a host, or the host of a repository, is reached.

        Raises:
            ConfigError: Neither has that name.
        """
        return self.repositories[name] if name in self.repositories else self.host(name)

    @property
    def doors(self) -> dict[str, DoorConfig]:
        """Every host, and every host of a repository, by name."""
        return {**self.hosts, **self.repositories}

    def check_roles(self, donor: str, recipient: str, source: str | None) -> None:
        """See that the hosts of a clone can go together, without asking them.

        Raises:
            ConfigError: One is not in the configuration, or they are of different flavors.
            PreconditionError: The recipient is one of the others.
        """
        followed = source or donor
        for name in (donor, recipient, followed):
            self.host(name)
        for name, role in ((donor, "donor"), (followed, "source")):
            if name == recipient:
                raise PreconditionError(
                    f"{recipient} is {role} and recipient at once",
                    host=recipient,
                    hint="name two different hosts; nothing was contacted",
                )
        flavor = self.host(donor).flavor
        for name in (recipient, followed):
            if self.host(name).flavor != flavor:
                raise ConfigError(
                    f"{donor} is of flavor {flavor}, and {name} of {self.host(name).flavor}",
                    hint="donor, recipient and source are of one flavor; nothing was contacted",
                )

    @property
    def state_directory(self) -> Path:
        """The folder of journal and logs on this machine."""
        if self.journal.directory:
            return expand_path(self.journal.directory)
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return expand_path(state) / "xbvault"


def expand_path(text: str) -> Path:
    """Return a path on this machine, ``~`` resolved where that user is known."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's raises for an unknown user


def find_file(option: str | None) -> Path:
    """Return the configuration file: ``--config``, XBVAULT_CONFIG, ./xbvault.toml, /etc/xbvault.

    Raises:
        ConfigError: None of them exists.
    """
    named = option or os.environ.get("XBVAULT_CONFIG")
    for candidate in (named,) if named else DEFAULT_FILES:
        if os.path.isfile(candidate):  # noqa: PTH113 - never raises
            return Path(candidate)
    raise ConfigError(
        f"no configuration file {named}" if named else "no configuration file found",
        hint="write one with `xbvault config example > xbvault.toml`, or name it with --config",
    )


def load(path: Path) -> Config:
    """Read and check the configuration.

    Raises:
        ConfigError: It cannot be read or parsed, or has problems; all of them are listed.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", hint="see that it is text that this user may read"
        ) from error
    # a number of 5,000 digits is a plain ValueError, a thousand brackets are too deep
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not TOML: {error}",
            hint="mend that line; `xbvault config example` shows how each key is written",
        ) from error
    return parse(document, str(path))


def parse(document: dict[str, Any], name: str = "configuration") -> Config:
    """Check a parsed configuration.

    Raises:
        ConfigError: With one problem per wrong key.
    """
    try:
        return Config.model_validate(document)
    except pydantic.ValidationError as error:
        problems = [describe(found) for found in error.errors(include_url=False)]
        raise ConfigError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {name}",
            hint="`xbvault config example` shows every key",
            problems=problems,
        ) from error


def describe(found: Any) -> str:
    """Return one finding of pydantic as ``hosts.db2.ssh_port: must be 1-65535, is 70000``."""
    where = ".".join(str(part) for part in found["loc"])
    kind, context = found["type"], found.get("ctx", {})
    value = found.get("input")
    shown = f", is {value!r}" if isinstance(value, str | int | float | bool) else ""
    if kind == "extra_forbidden":
        return f"{where}: unknown key"
    if kind == "missing":
        return f"{where}: is required"
    if where.endswith("port") and kind in ("greater_than_equal", "less_than_equal"):
        return f"{where}: must be 1-65535{shown}"
    if kind == "value_error":
        return f"{where}: {context.get('error', found['msg'])}{shown}"
    return f"{where}: {str(found['msg'])[:1].lower()}{str(found['msg'])[1:]}{shown}"
