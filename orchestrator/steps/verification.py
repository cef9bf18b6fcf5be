"""Steps that prove the replica right, from evidence.

Each returns its findings; a bad one raises `VerificationError` with all of them.
"""

from __future__ import annotations

import dataclasses
import re
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, sql
from orchestrator.errors import SecretError, VerificationError
from orchestrator.facts import instances
from orchestrator.flavors.interface import account_name
from orchestrator.flavors.quoting import (
    describe_names,
    quote_name,
    quote_plain,
)
from orchestrator.models import COPIES, Check, RestorePlan, Secret
from orchestrator.steps import encryption, records, replication, tool_keys, transition
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator.config import HostConfig
    from orchestrator.facts.instances import Table, Tablespace
    from orchestrator.flavors.interface import Dialect
    from orchestrator.models import Plan
    from orchestrator.remote import Remote
    from orchestrator.vault import Vault

POLL_SECONDS = 0.25
LOOKS = 20
"""What is amiss in each of as many looks is not being made anew."""
_ERROR_LINE = re.compile(r"^ERROR [0-9]+ .*? at line ([1-9][0-9]{0,8}): ", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What a verification found; every one of them is good.

    Attributes:
        checks: By name.
    """

    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifiedReplication:
    """Replication, running and advancing.

    Attributes:
        checks: The verdict.
        replication: What the replica reports.
    """

    checks: tuple[Check, ...]
    replication: replication.Replication


@step(
    "verify-encryption",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=86400,
    needs_server=True,
    forms=COPIES,
)
def verify_encryption(tools: Tools, plan: Plan) -> Findings:
    """Open every table, and see that every encrypted tablespace is under the new keys.

    Args:
        tools: The door to the recipient.
        plan: The clone.

    Returns:
        The findings.

    Raises:
        VerificationError: A table does not open, or a tablespace is under an older key.

    Repeat:
        Looks again.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect = flavors.dialect_of(plan)
    tables = instances.read_tables(remote, host, dialect)
    closed = _open_all(tools, remote, host, tables, dialect)
    checks = [
        Check(
            name="tables-open",
            host=plan.recipient,
            ok=not closed,
            evidence=f"{len(tables)} tables opened"
            if not closed
            else f"cannot be opened: {describe_names(closed)}",
        )
    ]
    theirs = _list_encrypted(tools, plan)
    spaces, missing = _read_unencrypted(tools, plan, theirs)
    checks.append(
        Check(
            name="tablespaces-encrypted",
            host=plan.recipient,
            ok=not missing,
            evidence=f"encrypted on the donor only: {describe_names(missing)}"
            if missing
            else f"{len(spaces)} encrypted, {len(theirs)} on the donor"
            if theirs
            else f"nothing is encrypted on the donor; {len(spaces)} encrypted here",
        )
    )
    if flavors.needs_transition_mount(plan):
        wanted = {v.key_id: v.first_new for v in records.need_transition(tools, plan).versions}
        old = [s.name for s in spaces if encryption.is_under_old_key(s, wanted)]
        checks += [
            Check(
                name="tablespaces-own-key",
                host=plan.recipient,
                ok=not old,
                evidence=f"oldest key version {min((s.min_key_version for s in spaces), default=0)}"
                if not old
                else f"under older keys: {describe_names(old)}",
            ),
            Check(
                name="server-on-own-mount",
                host=plan.recipient,
                ok=encryption.is_on_own_mount(tools, plan),
                evidence=f"keys from {plan.own_mount}",
            ),
        ]
    return Findings(checks=_all_good(plan, checks))


@step(
    "verify-replication",
    role="both",
    repeat=Repeat.SAFE,
    deadline_seconds=86400,
    needs_server=True,
    forms=COPIES,
)
def verify_replication(tools: Tools, plan: Plan) -> VerifiedReplication:
    """See that replication runs, advances, is encrypted, and has caught up.

    Something of the source must have arrived that is newer than the backup, even when nobody writes:
    the account that was created there; or, where that is kept out of the binary log because the source
    is a replica itself, the next file of its binary log.

    Args:
        tools: The doors to the source and to the recipient.
        plan: The clone.

    Returns:
        The findings and what the replica reports.

    Raises:
        VerificationError: It does not run, or has not advanced.
        CommandError: It does not come to its source, or not to where that one is.

    Repeat:
        Looks again.
    """
    replication.wait_until_connected(tools, plan)
    wanted = replication.wait_until_caught_up(tools, plan)
    arrived = (
        replication.follow_rotation(tools, plan)
        if plan.source_is_replica
        else _find_account(tools, plan)
    )
    state = replication.read_state(tools, plan)
    checks = [
        Check(
            name="replication-running",
            host=plan.recipient,
            ok=state.io_running and state.sql_running,
            evidence=f"from {state.source}, {state.seconds_behind} s behind",
        ),
        Check(
            name="replication-advancing",
            host=plan.recipient,
            ok=bool(arrived),
            evidence=f"reached {wanted}; {arrived} has arrived"
            if arrived
            else f"what is newer on {plan.source_host} than the backup has not arrived",
        ),
        Check(
            name="replication-encrypted",
            host=plan.recipient,
            ok=state.uses_tls,
            evidence="TLS, certificate verified" if state.uses_tls else "no TLS",
        ),
    ]
    return VerifiedReplication(checks=_all_good(plan, checks), replication=state)


def _find_account(tools: Tools, plan: Plan) -> str:
    """Return what has arrived, if the run's account has; else nothing."""
    user = account_name(plan.run_id)
    arrived = sql.query_row(
        tools.recipient,
        tools.config.host(plan.recipient),
        f"SELECT COUNT(*) AS n FROM {flavors.of(plan).accounts_table} "
        f"WHERE User = {quote_plain(user)}",
    )["n"]
    return "" if arrived == "0" else "the account made after the backup"


@step(
    "verify-key-separation", role="recipient", repeat=Repeat.SAFE, needs_server=True, forms=COPIES
)
def verify_key_separation(tools: Tools, plan: Plan) -> Findings:
    """See that the recipient cannot read the donor's keys, and holds none of them.

    The donor's keys are taken from the bundle; its mount is not read again. A set that goes back to
    the host it was made of has that host's own earlier keys: then only what the run made is compared.

    Args:
        tools: The doors to Vault and to the recipient.
        plan: The clone.

    Returns:
        The findings.

    Raises:
        VerificationError: The recipient's token reads the donor's mount, or a key is in both.

    Repeat:
        Looks again.
    """
    if flavors.tool_carries_keys(plan):
        return Findings(checks=_all_good(plan, tool_keys.judge_separation(tools, plan)))
    if not flavors.needs_transition_mount(plan):
        return Findings(checks=())
    host = tools.config.host(plan.recipient)
    token = tools.recipient.read_secret(host.vault_env_file, "VAULT_TOKEN")
    as_host = tools.vault.with_token(token)
    theirs = transition.open_key_bundle(tools, plan)
    values = {value for versions in theirs.values() for value in versions.values()}
    checks = [*_judge_donor_mount(plan, as_host), _judge_values(tools, plan, values)]
    return Findings(checks=_all_good(plan, checks))


def _judge_values(tools: Tools, plan: Plan, values: set[Secret]) -> Check:
    """Judge whether no key in the recipient's own mount is one of the donor's.

    Args:
        tools: The door to Vault.
        plan: The clone.
        values: The donor's keys.
    """
    earlier = _list_earlier(tools, plan)
    shared = _shared_versions(tools, plan, values, earlier)
    evidence = f"no value of {plan.own_mount} is one of the donor's"
    if shared:
        evidence = f"in both mounts: {', '.join(shared)}"
    if earlier and shared:
        evidence = f"made by this run in {plan.own_mount}, and in the set: {', '.join(shared)}"
    elif earlier:
        kept = ", ".join(f"key {key_id} up to version {last}" for key_id, last in earlier.items())
        evidence = (
            f"no value that this run made in {plan.own_mount} is one of the set's; not compared: "
            f"{kept}, for the set was made of {plan.recipient} itself"
        )
    return Check(name="keys-not-shared", host=plan.recipient, ok=not shared, evidence=evidence)


def _list_earlier(tools: Tools, plan: Plan) -> dict[str, int]:
    """Return, by key id, the newest version from before the run that may be one of the donor's.

    Only a host that gets back a set of its own has any: the set's keys are its earlier ones.
    """
    if not isinstance(plan, RestorePlan) or not plan.is_homecoming:
        return {}
    return {v.key_id: v.own for v in records.need_transition(tools, plan).versions}


def _judge_donor_mount(plan: Plan, as_host: Vault) -> Iterator[Check]:
    """Judge whether a recipient's token is refused on the donor's mount, if that is known."""
    if not plan.donor_mount:
        return
    refused = True
    try:
        as_host.read_secret(plan.donor_mount, "1")
        refused = False
    except SecretError as error:
        if error.transient:
            raise
    yield Check(
        name="donor-mount-refused",
        host=plan.recipient,
        ok=refused,
        evidence=f"the recipient's token is {'refused' if refused else 'accepted'} on "
        f"{plan.donor_mount}",
    )


def _list_encrypted(tools: Tools, plan: Plan) -> frozenset[str]:
    """Return the names of the tablespaces that are encrypted on the donor, or were in its backup."""
    if isinstance(plan, RestorePlan):
        if not plan.has_keyring:
            return frozenset()
        return frozenset(
            tool_keys.parse_files(tools.recipient.read_file(tool_keys.list_path(tools, plan)))
        )
    dialect = flavors.dialect_of(plan)
    found = instances.read_tablespaces(tools.donor, tools.config.host(plan.donor), dialect)
    return frozenset(space.name for space in found)


def find_unencrypted(
    theirs: Iterable[str], ours: Iterable[Tablespace], present: frozenset[str]
) -> list[str]:
    """Return the tablespaces that are encrypted on the donor, and are here but not encrypted.

    Args:
        theirs: Names of the donor's encrypted ones.
        ours: The recipient's encrypted ones.
        present: Names of all that the recipient has; what the donor has made since the backup may
            not have arrived yet.
    """
    lost = set(theirs) - {space.name for space in ours}
    return sorted((lost & present) - {"innodb_temporary"})


def _read_unencrypted(
    tools: Tools, plan: Plan, theirs: frozenset[str]
) -> tuple[tuple[Tablespace, ...], list[str]]:
    """Return the recipient's encrypted tablespaces, and which of the donor's lost their encryption.

    They are read one list after another, and what is replicated meanwhile may make a table between
    two: so only what each look finds unencrypted is.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect = flavors.dialect_of(plan)
    missing = set(theirs)
    for _ in range(LOOKS):
        spaces = instances.read_tablespaces(remote, host, dialect)
        present = instances.read_tablespace_names(remote, host, dialect)
        missing &= set(find_unencrypted(theirs, spaces, present))
        if not missing:
            break
        time.sleep(POLL_SECONDS)
    return spaces, sorted(missing)


def _open_all(
    tools: Tools, remote: Remote, host: HostConfig, tables: tuple[Table, ...], dialect: Dialect
) -> list[str]:
    """Read a row of every table; return those that give an error.

    What is replicated meanwhile may drop a table, or drop it and make it again: such a one is tried
    again, and not missed where it is gone.
    """
    for _ in range(LOOKS):
        closed = _try_to_open(tools, remote, host, tables, dialect)
        if not {table.label for table in tables}.issuperset(closed):
            return closed  # not a table's error, but the client's
        there = instances.read_tables(remote, host, dialect) if closed else ()
        tables = tuple(table for table in there if table.label in closed)
        if not tables:
            return []
        time.sleep(POLL_SECONDS)
    return [table.label for table in tables]


def _try_to_open(
    tools: Tools, remote: Remote, host: HostConfig, tables: tuple[Table, ...], dialect: Dialect
) -> list[str]:
    reads = [f"SELECT 1 FROM {quote_name(t.schema)}.{quote_name(t.name)} LIMIT 1" for t in tables]
    # As hexadecimal digits: a name with a line break in it would spoil the count of lines.
    statements = "".join(f"{dialect.open_sql(read)};\n" for read in reads)
    seconds = tools.seconds_left()
    result = remote.run(
        [*sql.client_command(host), "--force"],
        stdin=statements,
        check=False,
        timeout_seconds=seconds,
    )
    return list_unopened(tables, result.status, result.stderr)


def list_unopened(tables: tuple[Table, ...], status: int, stderr: str) -> list[str]:
    """Return the tables whose statements failed, one statement a line; else the client's words.

    Args:
        tables: The tables, in the order of their statements.
        status: The client's.
        stderr: What it complained about.
    """
    lines = [int(found.group(1)) for found in _ERROR_LINE.finditer(stderr)]
    bad = [tables[line - 1].label for line in dict.fromkeys(lines) if line <= len(tables)]
    if status != 0 and not bad:
        bad = [stderr.strip().rpartition("\n")[2][:200] or "unknown"]
    return bad


def _shared_versions(
    tools: Tools, plan: Plan, values: set[Secret], earlier: Mapping[str, int]
) -> list[str]:
    """Return the live versions in the recipient's own mount that are among some values.

    Args:
        tools: The door to Vault.
        plan: The clone.
        values: The donor's keys.
        earlier: By key id, up to which version none is looked at.
    """
    shared = []
    for key_id in tools.vault.list_secrets(plan.own_mount):
        metadata = tools.vault.read_metadata(plan.own_mount, key_id)
        versions = metadata.versions.items() if metadata else ()
        for number, version in versions:
            if version.destroyed or version.deleted or number <= earlier.get(key_id, 0):
                continue
            found = tools.vault.read_secret(plan.own_mount, key_id, version=number)
            if found and found.get(transition.VALUE) in values:
                shared.append(f"key {key_id} version {number}")
    return shared


def _all_good(plan: Plan, checks: list[Check]) -> tuple[Check, ...]:
    bad = [check for check in checks if not check.ok]
    if bad:
        raise VerificationError(
            f"{bad[0].name}: {bad[0].evidence}",
            host=plan.recipient,
            hint="do not use this replica; `xbvault runs cancel` gives the earlier data back",
            problems=[f"{check.name}: {check.evidence}" for check in bad] if len(bad) > 1 else (),
        )
    return tuple(checks)
