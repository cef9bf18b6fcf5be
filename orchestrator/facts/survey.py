"""All that a clone must know beforehand, read in one go: both hosts, both servers, Vault.

What cannot be read is kept as the error that it was, so that preflight can name every problem at
once instead of the first.
"""

from __future__ import annotations

import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from orchestrator import flavors, lock
from orchestrator.errors import (
    ConnectionLostError,
    OrchestratorError,
    SecretError,
    SecretStoreUnavailableError,
)
from orchestrator.facts import accounts, hosts, instances, places, ways
from orchestrator.facts import sample as samples
from orchestrator.privileges import vault as vault_rights
from orchestrator.privileges.database import wanted_privileges

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from orchestrator.config import Config, HostConfig
    from orchestrator.facts.accounts import Account
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.instances import InstanceFacts
    from orchestrator.facts.places import Places
    from orchestrator.facts.sample import WireFacts
    from orchestrator.facts.ways import Way
    from orchestrator.models import Secret
    from orchestrator.remote import Remote
    from orchestrator.vault import Health, TokenInfo, Vault


_NO_SERVER = re.compile(
    r"^ERROR (?:1129|2002|2003|2005|2013)\b(?!.*\bbefore completion of TLS handshake\b(?!.* 1129 - ))",
    re.MULTILINE,
)
"""The client's own errors: no connection, no such name, no answer; and a server that has shut this
host out for good. One that knows no account for it yet answers before TLS, which MariaDB's client
gives in the words of the first."""
_NO_TRUST = re.compile(r"^ERROR 2026\b", re.MULTILINE)
"""The client's own error: no TLS, or a certificate that does not hold."""
A_KEY = "1"
"""A page key that every mount of MariaDB's has, to ask for rights with."""
KEPT_IN = 2
"""Version of the KV engine that keeps versions of a secret."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostSurvey:
    """What one host told.

    Attributes:
        host: Facts about the machine; None if they could not be read.
        instance: Facts about the server; None if it does not run or could not be asked.
        token: The host's own Vault token; None if it could not be read.
        peer_address: The other host's address as it resolves it.
        errors: What could not be read.
        token_error: Why its token could not be read; it matters where the donor has keys.
        places: Where its server keeps its files; None if that could not be read.
        account: The account that is logged in to its server; None if that could not be read.
        wire: Its way to the other host, and for the donor a sample of its data; None if nobody asked.
    """

    host: HostFacts | None
    instance: InstanceFacts | None
    token: Secret | None
    peer_address: str
    errors: tuple[OrchestratorError, ...]
    token_error: OrchestratorError | None = None
    places: Places | None = None
    account: Account | None = None
    wire: WireFacts | None = None

    @property
    def expected_bytes(self) -> int:
        """Size of its server's data; an estimate."""
        on_disk = self.host.datadir_bytes if self.host else 0
        return max(on_disk, self.instance.data_bytes if self.instance else 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaultSurvey:
    """What Vault told.

    Attributes:
        health: None if it does not answer.
        token: The orchestrator's own token.
        capabilities: What that token may do, by path.
        kv_versions: Version of the KV engine by mount; 0 if there is no such mount.
        max_versions: Versions that a mount keeps of a secret, by mount; 0 for Vault's default.
        host_tokens: Facts about the hosts' own tokens, by host.
        host_capabilities: What those tokens may do, by host and path.
        reads_own: Whether a host's own token may read its own mount, by host.
        recipient_reads_donor: Whether the recipient's token may read the donor's mount.
        ssh_ca: Public key of the CA that signs the stream's credential.
        donor_key_ids: Keys in the donor's mount.
        errors: What could not be read.
    """

    health: Health | None
    token: TokenInfo | None
    capabilities: dict[str, tuple[str, ...]]
    kv_versions: dict[str, int]
    max_versions: dict[str, int]
    host_tokens: dict[str, TokenInfo]
    reads_own: dict[str, bool]
    recipient_reads_donor: bool
    ssh_ca: str
    donor_key_ids: tuple[str, ...]
    errors: tuple[OrchestratorError, ...]
    host_capabilities: dict[str, dict[str, tuple[str, ...]]] = dataclasses.field(
        default_factory=dict
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpstreamSurvey:
    """How the donor reaches the host that the new replica is to follow, where that is another.

    Attributes:
        donor_address: Address of the donor's own source, as the donor resolves it.
        source_address: Address of that host, as the donor resolves it.
    """

    donor_address: str
    source_address: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Connection:
    """How the recipient's client came to the server that the new replica is to follow.

    Attributes:
        refusal: Why it did not reach that server; empty if it did.
        distrust: Why it does not trust that server's certificate; empty if it does.
    """

    refusal: str = ""
    distrust: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """Everything that preflight judges.

    Attributes:
        donor: What the donor told.
        recipient: What the recipient told.
        vault: What Vault told.
        lock: Who holds the recipient; None if that could not be read.
        arriving: The account on the donor that works on the recipient once its data is there; None
            if that could not be read.
        source: What the host told that the new replica follows, where it is not the donor.
        upstream: How the donor reaches its own source, where that is to be followed.
        connection: How the recipient reaches the server to follow; None if that could not be tried.
        way: How the donor reaches the recipient's SSH server; None if that could not be tried.
    """

    donor: HostSurvey
    recipient: HostSurvey
    vault: VaultSurvey
    lock: lock.LockState | None
    arriving: Account | None = None
    source: HostSurvey | None = None
    upstream: UpstreamSurvey | None = None
    connection: Connection | None = None
    way: Way | None = None

    @property
    def errors(self) -> tuple[OrchestratorError, ...]:
        """All that could not be read."""
        source = self.source.errors if self.source else ()
        return self.donor.errors + self.recipient.errors + source + self.vault.errors


def needed_capabilities(
    config: Config, donor: str, recipient: str, run_id: str, backup_id: str
) -> dict[str, tuple[str, ...]]:
    """Return the rights in Vault that a clone needs, by path."""
    return vault_rights.clone_rights(
        config,
        donor,
        recipient,
        vault_rights.Names(
            recipient=recipient,
            run_id=run_id,
            transition_key=backup_id,
            account=f"{donor}/{recipient}/{run_id}",
            key_id=A_KEY,
        ),
    )


def needed_for_restore(
    config: Config, recipient: str, run_id: str, backup_id: str
) -> dict[str, tuple[str, ...]]:
    """Return the rights in Vault that a restore needs, by path."""
    return vault_rights.restore_rights(
        config,
        recipient,
        vault_rights.Names(
            recipient=recipient,
            run_id=run_id,
            transition_key=f"{backup_id}.{run_id}",
            account=f"{recipient}/{recipient}/{run_id}",
            key_id=A_KEY,
        ),
    )


def needed_by_host(config: Config, host: str) -> dict[str, tuple[str, ...]]:
    """Return the rights in Vault that a host's own token needs, by path."""
    return vault_rights.host_rights(config, host, vault_rights.Names(key_id=A_KEY))


def read_survey(
    config: Config,
    vault: Vault,
    donor: Remote,
    recipient: Remote,
    *,
    run_id: str,
    backup_id: str,
    source: Remote | None = None,
    with_sample: bool = False,
) -> Survey:
    """Ask the hosts and Vault. It raises nothing that a host or Vault is the cause of.

    Args:
        config: The configuration.
        vault: The door to Vault.
        donor: The door to the donor.
        recipient: The door to the recipient.
        run_id: Name of the run.
        backup_id: Name of the backup set.
        source: The door to the host that the new replica follows, where it is not the donor.
        with_sample: Whether to find out what compression would gain.
    """
    # A sample takes as long as all other questions, and nothing waits for it but the end.
    with ThreadPoolExecutor(2) as samplers, ThreadPoolExecutor(4) as pool:
        wires = Wires(samplers, with_sample_of=donor.name) if with_sample else None
        asked_hosts = {
            donor.name: pool.submit(
                read_host_survey, donor, config, peer=recipient.name, wires=wires
            ),
            recipient.name: pool.submit(
                read_host_survey, recipient, config, peer=donor.name, wires=wires
            ),
        }
        asked_source = source and pool.submit(read_host_survey, source, config, peer=recipient.name)
        told = pool.submit(
            read_vault,
            config,
            vault,
            asked_hosts,
            donor=donor.name,
            recipient=recipient.name,
            needed=needed_capabilities(config, donor.name, recipient.name, run_id, backup_id),
        )
        source_survey = asked_source.result() if asked_source else None
        found, errors = _read_between(
            config,
            donor,
            recipient,
            asked_hosts[donor.name].result(),
            asked_hosts[recipient.name].result(),
            source=source,
        )
        on_donor = add_wire(asked_hosts[donor.name].result(), wires, donor.name)
        on_recipient = add_wire(asked_hosts[recipient.name].result(), wires, recipient.name)
        return Survey(
            donor=on_donor,
            recipient=dataclasses.replace(on_recipient, errors=(*on_recipient.errors, *errors)),
            vault=told.result(),
            lock=found.get("lock"),
            arriving=found.get("arriving"),
            source=source_survey,
            upstream=found.get("upstream"),
            connection=found.get("connection"),
            way=found.get("way"),
        )


class Wires:
    """What hosts are asked about their way to each other, while everything else is asked."""

    def __init__(self, pool: ThreadPoolExecutor, *, with_sample_of: str) -> None:
        self._pool = pool
        self._with_sample_of = with_sample_of
        self._asked: dict[str, Future[WireFacts]] = {}

    def ask(self, remote: Remote, address: str, *, datadir: str) -> None:
        """Begin to ask a host, for a sample of its data as well where that is wanted."""
        place = datadir if remote.name == self._with_sample_of else ""
        asked = self._pool.submit(samples.read_wire, remote, address, datadir=place)
        self._asked[remote.name] = asked

    def find(self, name: str) -> WireFacts | None:
        """Return what a host has said; None if it was not asked.

        Raises:
            HostUnreachableError: The host does not answer any more.
        """
        return self._asked[name].result() if name in self._asked else None


def add_wire(survey: HostSurvey, wires: Wires | None, name: str) -> HostSurvey:
    """Return what a host told, with what it said of its way to the other one."""
    try:
        return dataclasses.replace(survey, wire=wires.find(name) if wires else None)
    except OrchestratorError as error:
        return dataclasses.replace(survey, errors=(*survey.errors, error))


def _read_between(
    config: Config,
    donor: Remote,
    recipient: Remote,
    on_donor: HostSurvey,
    on_recipient: HostSurvey,
    *,
    source: Remote | None,
) -> tuple[dict[str, Any], list[OrchestratorError]]:
    """Ask for what hangs on both hosts, each by its name in `Survey`; and return what failed."""
    reads = not on_recipient.errors
    sees = reads and not on_donor.errors
    followed = source.name if source else donor.name
    finds_account = bool(
        on_donor.account and "SELECT" in on_donor.account.privileges and on_recipient.host
    )
    at = config.host(recipient.name).find_stream_address(recipient.name)
    errors: list[OrchestratorError] = []
    with ThreadPoolExecutor(5) as pool:  # each asks somebody else, or something slow
        asked: dict[str, Future[Any]] = {}
        if reads:
            asked["lock"] = pool.submit(look_twice, lock.read_lock, recipient)
        if sees and source:
            asked["upstream"] = pool.submit(
                look_twice, _read_upstream, config, donor, source.name, on_donor
            )
        if sees:
            asked["connection"] = pool.submit(
                look_twice, try_connection, recipient, config, followed, on_recipient
            )
            asked["way"] = pool.submit(look_twice, ways.read_way, donor, recipient, *at)
        if finds_account:
            asked["arriving"] = pool.submit(look_twice, _read_arriving, config, donor, recipient)
        found: dict[str, Any] = {}
        for name, answer in asked.items():
            try:
                found[name] = answer.result()
            except OrchestratorError as error:
                errors.append(error)
    return found, errors


def look_twice(look: Callable[..., Any], *arguments: Any) -> Any:
    """Look at something, and once more where the connection broke meanwhile."""
    try:
        return look(*arguments)
    except ConnectionLostError:
        return look(*arguments)


def _read_arriving(config: Config, donor: Remote, recipient: Remote) -> Account:
    """Read the account on the donor that works on the recipient once its data is there."""
    user = accounts.read_client_user(recipient, config.host(recipient.name))
    return accounts.read_account(donor, config.host(donor.name), user)


def read_host_survey(
    remote: Remote,
    config: Config,
    *,
    peer: str,
    wires: Wires | None = None,
) -> HostSurvey:
    """Ask one host about everything; what it does not tell is kept as the error that it was.

    It is only looked at, so a host whose connection breaks meanwhile is asked once more.

    Args:
        remote: The host.
        config: The configuration.
        peer: Name of the other host.
        wires: Asks about the way to the other host meanwhile; None where nobody wants to know.
    """
    found = _read_host_survey(remote, config, peer=peer, wires=wires)
    if any(isinstance(error, ConnectionLostError) for error in found.errors):
        return _read_host_survey(remote, config, peer=peer, wires=wires)
    return found


def _read_host_survey(
    remote: Remote, config: Config, *, peer: str, wires: Wires | None
) -> HostSurvey:
    host_config: HostConfig = config.host(remote.name)
    errors: list[OrchestratorError] = []
    host = instance = account = token = found = None
    address = ""
    try:
        host = hosts.read_host(remote, host_config)
        address = _resolve(remote, config.door(peer).address or peer)
        if wires is not None:
            wires.ask(remote, address, datadir=host.real_datadir)
        if host.is_running:
            account = accounts.read_own_account(remote, host_config)
            # With less, the server refuses some answers and leaves things out of others.
            wanted = wanted_privileges(host_config.flavor, host.server_version)
            if account.privileges.issuperset(wanted.reading):
                instance = instances.read_instance(remote, host_config)
        found = places.read_places(remote, host, instance, host_config)
    except OrchestratorError as error:
        if host is not None and not error.hint:
            error.hint = "see hosts.*.server.socket and hosts.*.server.defaults_file"
        errors.append(error)
    token_error = None
    if host is not None:
        try:
            token = remote.read_secret(host_config.vault_env_file, "VAULT_TOKEN")
        except OrchestratorError as error:
            token_error = error
    return HostSurvey(
        host=host,
        instance=instance,
        token=token,
        peer_address=address,
        errors=tuple(errors),
        token_error=token_error,
        places=found,
        account=account,
    )


def source_address(config: Config, host: str) -> str:
    """Return the name or address at which replicas reach a host's server."""
    return config.host(host).server.replication_address or config.host(host).address or host


def _read_upstream(config: Config, donor: Remote, source: str, side: HostSurvey) -> UpstreamSurvey:
    sources = side.instance.sources if side.instance else ()
    return UpstreamSurvey(
        donor_address=_resolve(donor, sources[0].host) if sources else "",
        source_address=_resolve(donor, source_address(config, source)),
    )


def try_connection(
    recipient: Remote, config: Config, followed: str, side: HostSurvey
) -> Connection:
    """Let the recipient's client connect to the server to follow, as the replica will.

    It has no account there, and that server's refusal is an answer.
    """
    host = config.host(recipient.name)
    flavor = flavors.of(host)
    version = side.host.server_version if side.host else ""
    command = [flavor.programs(host).client, "--no-defaults", "--protocol=tcp"]
    command += [f"--host={source_address(config, followed)}"]
    command += [f"--port={config.host(followed).server.port}"]
    command += ["--user=xbvault", "--connect-timeout=5"]
    command += flavor.trust_options(version, host.server.replication_ca_file)
    result = recipient.run(
        ["timeout", "20", *command], check=False, stdin="SELECT 1;\n", timeout_seconds=60
    )
    words = result.stderr.strip()
    return Connection(
        refusal=words[:200] if _NO_SERVER.search(words) else "",
        distrust=words[:200] if _NO_TRUST.search(words) else "",
    )


def _resolve(remote: Remote, name: str) -> str:
    found = remote.run(
        ["timeout", "5", "getent", "ahosts", name], check=False, timeout_seconds=20
    ).stdout.split()
    return found[0].decode("ascii", "replace") if found else ""


def read_vault(
    config: Config,
    vault: Vault,
    asked_hosts: dict[str, Future[HostSurvey]],
    *,
    donor: str,
    recipient: str,
    needed: dict[str, tuple[str, ...]],
) -> VaultSurvey:
    """Ask Vault; what it does not tell is kept as the error that it was.

    Args:
        config: The configuration.
        vault: The door to Vault.
        asked_hosts: What the hosts tell, by name.
        donor: Host whose keys are carried over; empty where they come with a stored set.
        recipient: Host that gets new ones.
        needed: The rights that the run needs.
    """
    health = token = None
    capabilities: dict[str, tuple[str, ...]] = {}
    kv_versions: dict[str, int] = {}
    max_versions: dict[str, int] = {}
    host_tokens: dict[str, TokenInfo] = {}
    host_capabilities: dict[str, dict[str, tuple[str, ...]]] = {}
    reads_own: dict[str, bool] = {}
    recipient_reads_donor = False
    ssh_ca = ""
    key_ids: tuple[str, ...] = ()
    errors: list[OrchestratorError] = []
    try:
        health = vault.read_health()
        if health.sealed:
            errors.append(
                SecretStoreUnavailableError(
                    f"Vault at {vault.address} is sealed", hint="unseal it, then try again"
                )
            )
        else:
            token = vault.lookup_token()
            capabilities = vault.read_capabilities(list(needed))
            asked = list_token_holders(config, donor, recipient)
            for mount in (config.vault.mount, *(config.host(name).key_mount for name in asked)):
                kv_versions[mount] = vault.read_kv_version(mount) if vault.has_mount(mount) else 0
            ssh_ca = vault.read_ssh_ca(config.vault.ssh_mount)
            if donor in asked and kv_versions[config.host(donor).key_mount]:
                key_ids = vault.list_secrets(config.host(donor).key_mount)
            own = config.host(recipient).key_mount
            if keeps_versions(config, recipient) and kv_versions[own] == KEPT_IN:
                max_versions[own] = vault.read_mount_config(own)
            for name, answer in asked_hosts.items():
                token_of_host = answer.result().token
                if token_of_host is None or name not in asked:
                    continue
                try:
                    as_host = vault.with_token(token_of_host)
                    host_capabilities[name] = as_host.read_capabilities(
                        list(needed_by_host(config, name))
                    )
                    host_tokens[name] = as_host.lookup_token()
                    reads_own[name] = _reads_own(as_host, config, name)
                    if name == recipient and donor and config.host(donor).key_mount:
                        recipient_reads_donor = _may_read(as_host, config, donor)
                except OrchestratorError as error:
                    errors.append(make_token_error(error, name, config.host(name).vault_env_file))
    except OrchestratorError as error:
        errors.append(error)
    return VaultSurvey(
        health=health,
        token=token,
        capabilities=capabilities,
        kv_versions=kv_versions,
        max_versions=max_versions,
        host_tokens=host_tokens,
        reads_own=reads_own,
        recipient_reads_donor=recipient_reads_donor,
        ssh_ca=ssh_ca,
        donor_key_ids=key_ids,
        errors=tuple(errors),
        host_capabilities=host_capabilities,
    )


def make_token_error(error: OrchestratorError, name: str, path: str) -> SecretError:
    """Return what an error of Vault means, met with the token that a host keeps in a file."""
    is_lacking = error.message.startswith("Vault denies the token")
    return SecretError(
        f"the Vault token of host {name} cannot be used: {error.message}",
        host=name,
        hint=error.hint
        if error.transient or is_lacking
        else f"issue another with `xbvault vault init --issue-token {name} --out FILE`, and put it "
        f"on {name} as {path}",
    )


def list_token_holders(config: Config, donor: str, recipient: str) -> tuple[str, ...]:
    """Return the hosts of a clone whose own tokens it depends on.

    A donor with MySQL is not among them: its backup tool uses its server's keyring by itself.
    """
    return tuple(
        name
        for name in (donor, recipient)
        if name
        and config.host(name).has_keys_in_vault
        and (name == recipient or keeps_versions(config, name))
    )


def keeps_versions(config: Config, host: str) -> bool:
    """Return whether the keys of a host have many versions each, as MariaDB's page keys have."""
    return vault_rights.needs_transition(config, host)


def _reads_own(vault: Vault, config: Config, name: str) -> bool:
    """Return whether a host's own token does in its own mount what its server begins with."""
    if keeps_versions(config, name):
        return _may_read(vault, config, name)
    host = config.host(name)
    try:
        vault.list_secrets(host.key_mount, kv_version=host.kv_version)
    except SecretError as error:
        if error.transient:
            raise
        return False
    return True


def _may_read(vault: Vault, config: Config, name: str) -> bool:
    host = config.host(name)
    inner = "" if host.kv_version == 1 else "data/"
    try:
        return vault.can_read(f"{host.key_mount}/{inner}{A_KEY}")
    except SecretError as error:
        if error.transient:
            raise
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnVault:
    """What Vault told about one host by itself.

    Attributes:
        ssh_ca: Public key of the CA that its SSH server must trust; empty if Vault does not say.
        token_ok: Whether its own token reads its own mount; None if that could not be tried.
        kv_version: Of its own mount; 0 if there is none, None if that could not be read, or its
            keys are not in Vault.
    """

    ssh_ca: str = ""
    token_ok: bool | None = None
    kv_version: int | None = None


def read_one_host(
    config: Config, name: str, vault: Vault, remote: Remote
) -> tuple[HostSurvey, OwnVault]:
    """Read one host by itself; what Vault does not tell is left out."""
    side = read_host_survey(remote, config, peer=name)
    mount = config.host(name).key_mount
    try:
        ssh_ca = vault.read_ssh_ca(config.vault.ssh_mount)
        kv_version = token_ok = None
        if mount:
            kv_version = vault.read_kv_version(mount) if vault.has_mount(mount) else 0
        if mount and side.token:
            token_ok = _reads_own(vault.with_token(side.token), config, name)
    except OrchestratorError:
        return side, OwnVault()
    return side, OwnVault(ssh_ca=ssh_ca, token_ok=token_ok, kv_version=kv_version)
