"""Steps that bring the replica's data under keys of its own."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, log, service, sql
from orchestrator.errors import CommandError, VerificationError
from orchestrator.facts import hosts, instances
from orchestrator.flavors import mariadb_sql
from orchestrator.flavors.quoting import describe_names, quote_name
from orchestrator.models import COPIES
from orchestrator.steps import places, records, replication, restore, servers, tokens
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import Plan

POLL_SECONDS = 0.5
THREADS_PER_CPU = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReEncryption:
    """InnoDB after the re-encryption.

    Attributes:
        tablespaces: How many are encrypted.
        min_key_version: The oldest version that any of them uses; 0 if none is encrypted.
        seconds: How long was waited.
    """

    tablespaces: int
    min_key_version: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RebuiltTables:
    """Aria tables that were rebuilt.

    Attributes:
        count: How many.
    """

    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnMount:
    """The server on the recipient's own mount.

    Attributes:
        keys_from: Where it reads its keys.
    """

    keys_from: str


@step(
    "re-encrypt-tablespaces",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7 * 86400,
    needs_server=True,
    forms=COPIES,
)
def re_encrypt_tablespaces(tools: Tools, plan: Plan) -> ReEncryption:
    """Let the server re-encrypt every InnoDB page to the new key versions.

    Its settings are raised for the time of it. The restart on the own mount, which follows, sets
    them back.

    Args:
        tools: The door to the recipient.
        plan: The clone.

    Returns:
        What the server says about its tablespaces.

    Raises:
        CommandError: It did not end in time, and is named how far it came.

    Repeat:
        The server goes on by itself; the step waits again.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    if not flavors.needs_transition_mount(plan):
        return ReEncryption(tablespaces=0, min_key_version=0, seconds=0.0)
    wanted = {v.key_id: v.first_new for v in records.need_transition(tools, plan).versions}
    cpus = hosts.read_brief(remote, plan.datadir).cpus
    sql.execute(remote, host, mariadb_sql.rotation_sql(threads=THREADS_PER_CPU * cpus))
    began = time.monotonic()
    limit = min(tools.seconds_left(), tools.config.clone.re_encrypt_seconds)
    while True:
        tools.check_cancelled()
        spaces = instances.read_tablespaces(remote, host, flavors.dialect_of(plan))
        left = [s for s in spaces if is_under_old_key(s, wanted) or s.is_rotating]
        done = len(spaces) - len(left)
        log.get().info(
            "job.progress",
            job="re-encrypt-tablespaces",
            host=plan.recipient,
            tablespaces=done,
            expected_tablespaces=len(spaces),
        )
        seconds = time.monotonic() - began
        if not left:
            return ReEncryption(
                tablespaces=len(spaces),
                min_key_version=min((s.min_key_version for s in spaces), default=0),
                seconds=round(seconds, 3),
            )
        if seconds > limit:
            raise CommandError(
                f"{len(left)} of {len(spaces)} tablespaces are not re-encrypted after "
                f"{limit:.0f} s: {describe_names(s.name for s in left)}",
                host=plan.recipient,
                hint="`xbvault runs resume` goes on waiting; see clone.re_encrypt_seconds",
            )
        time.sleep(POLL_SECONDS)


@step(
    "rebuild-aria-tables",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=86400,
    needs_server=True,
    forms=COPIES,
)
def rebuild_aria_tables(tools: Tools, plan: Plan) -> RebuiltTables:
    """Rebuild every Aria table, because the server's rotation never touches them.

    A server whose Aria pages need a key that is gone starts, and then nobody can log in.

    Args:
        tools: The door to the recipient.
        plan: The clone.

    Returns:
        How many were rebuilt.

    Raises:
        CommandError: One could not be rebuilt.

    Repeat:
        Rebuilds them again.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    if not flavors.needs_transition_mount(plan):
        return RebuiltTables(count=0)
    tables = [
        t
        for t in instances.read_tables(remote, host, flavors.dialect_of(plan))
        if t.engine == "Aria"
    ]
    statements = ["SET SESSION sql_log_bin = 0"]
    statements += [f"ALTER TABLE {quote_name(t.schema)}.{quote_name(t.name)} FORCE" for t in tables]
    statements += ["FLUSH TABLES", "FLUSH PRIVILEGES"]
    sql.execute(remote, host, ";\n".join(statements), timeout_seconds=tools.seconds_left())
    return RebuiltTables(count=len(tables))


@step(
    "restart-on-own-mount",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7200,
    needs_server=True,
    forms=COPIES,
)
def restart_on_own_mount(tools: Tools, plan: Plan) -> OwnMount:
    """Restart the server on its own mount and its own token, with fresh binary logs.

    The server is stopped only when its own token has been seen to read the mount.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.

    Returns:
        Where the server reads its keys now.

    Raises:
        SecretError: The recipient's own token does not read its mount; the server was not stopped.
        CommandError: It does not start; its first error is shown.
        VerificationError: It still reads another mount.

    Repeat:
        On its own mount already: changes nothing.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    flavor, dialect = flavors.of(plan), flavors.dialect_of(plan)
    running = hosts.is_server_running(remote, plan.datadir)
    on_own_mount = running and is_on_own_mount(tools, plan)
    if not on_own_mount:
        tokens.check_own_token(tools, plan)
    if running and not on_own_mount:
        sql.execute(
            remote,
            host,
            dialect.fresh_logs_sql,
            timeout_seconds=tools.seconds_left(),
        )
        service.stop_server(remote, host, timeout_seconds=tools.seconds_left())
        running = False
    service.take_environment(remote, host)
    ignored = places.ignored_directories(plan)
    restore.write_drop_in(
        tools,
        plan,
        flavor.quiet_drop_in(
            run_id=plan.run_id, version=plan.server_version, ignored_directories=ignored
        ),
    )
    if not running:
        servers.start_server(tools, plan, timeout_seconds=tools.seconds_left())
    if flavors.needs_transition_mount(plan) and not is_on_own_mount(tools, plan):
        raise VerificationError(
            f"the server does not read its keys from {plan.own_mount}",
            host=plan.recipient,
            hint="check hashicorp-key-management-vault-url in the recipient's own options",
        )
    if plan.replicates:
        sql.execute(remote, host, dialect.start_sql)
    tokens.revoke_transition_tokens(tools, plan)
    if plan.replicates:
        replication.wait_until_caught_up(tools, plan)
    facts = instances.read_instance(remote, host)
    url = facts.variables.get("hashicorp_key_management_vault_url", "")
    return OwnMount(keys_from=url or plan.keyring)


def is_on_own_mount(tools: Tools, plan: Plan) -> bool:
    """Return whether the recipient's running server reads its keys from its own mount."""
    if flavors.of(plan).carries_keys:
        return True  # the restored files were never under another keyring's keys
    facts = instances.read_instance(tools.recipient, tools.config.host(plan.recipient))
    url = facts.variables.get("hashicorp_key_management_vault_url", "")
    return url.rstrip("/").endswith(f"/v1/{plan.own_mount}")


def is_under_old_key(space: instances.Tablespace, first_new: dict[str, int]) -> bool:
    """Return whether any page of a tablespace still needs a version older than the new ones."""
    return space.min_key_version < first_new.get(space.key_id, 1)
