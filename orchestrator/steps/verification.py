"""Steps that prove the replica right, from evidence.

Each returns its findings; a bad one raises `VerificationError` with all of them.
"""

from __future__ import annotations

import dataclasses
import re
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, numerals, sql
from orchestrator.errors import CommandError, SecretError, VerificationError
from orchestrator.facts import instances
from orchestrator.flavors.interface import account_name
from orchestrator.flavors.quoting import (
    describe_names,
    quote_name,
    quote_plain,
    quote_text,
    show_name,
)
from orchestrator.models import Check, Coordinates, Secret
from orchestrator.steps import encryption, records, replication, tool_keys, transition
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.config import HostConfig
    from orchestrator.facts.instances import Table, Tablespace
    from orchestrator.flavors.interface import Dialect, ReplicationStatus
    from orchestrator.models import Plan
    from orchestrator.remote import Remote

COMPARED_ENGINES = ("InnoDB",)
"""CHECKSUM TABLE inside a consistent snapshot holds for InnoDB, not for Aria or MyISAM."""
POLL_SECONDS = 0.25
OPEN_TRIES = 20
"""A table that does not open in as many looks is not one that is being made anew."""
_SUMS_MARK = "xbvault_sums"
_SUMS_BEGIN = f"SELECT '' AS {_SUMS_MARK}"
"""Divides what a server says of its snapshot from the checksums."""
_SUM = re.compile(r"[0-9]+(?:/[0-9]+/[0-9]+)?")
_ERROR_LINE = re.compile(r"^ERROR [0-9]+ .*? at line ([1-9][0-9]{0,8}): ", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What a verification found; every one of them is good.

    Attributes:
        checks: By name.
    """

    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tables compared at one position.

    Attributes:
        checks: The verdict.
        compared: How many tables are equal.
        not_compared: Tables that were left out, with the reason.
        position: Where both were read: a position of the host that the replica follows.
    """

    checks: tuple[Check, ...]
    compared: int
    not_compared: tuple[str, ...]
    position: str


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
    spaces = instances.read_tablespaces(remote, host, dialect)
    theirs = instances.read_tablespaces(tools.donor, tools.config.host(plan.donor), dialect)
    present = instances.read_tablespace_names(remote, host, dialect)
    missing = find_unencrypted(theirs, spaces, present)
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
    "compare-tables", role="both", repeat=Repeat.SAFE, deadline_seconds=2 * 86400, needs_server=True
)
def compare_tables(tools: Tools, plan: Plan) -> Comparison:
    """Compare the InnoDB tables of both at one position, while the donor is being written.

    The replica stops; one session on the donor opens a snapshot, reads its position and checksums
    there; the replica goes on until that position, stops, checksums, and goes on. Where both follow
    the same source, it is a position of that source, and the donor first comes up to the replica.

    Args:
        tools: The doors to both hosts.
        plan: The clone.

    Returns:
        What was compared, and what was not and why.

    Raises:
        VerificationError: Tables differ; they are named.
        CommandError: A server refuses, or a replica does not reach the position.

    Repeat:
        Compares again.
    """
    donor_host = tools.config.host(plan.donor)
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect = flavors.dialect_of(plan)
    tables = instances.read_tables(tools.donor, donor_host, dialect)
    chosen, left_out = choose_tables(
        tables, plan.checksums, sample_bytes=tools.config.clone.sample_bytes
    )
    if not chosen:
        return Comparison(checks=(), compared=0, not_compared=tuple(left_out), position="")
    columns = instances.read_base_columns(tools.donor, donor_host, dialect)
    by_gtid = plan.is_sibling and replication.read_status(tools, plan).uses_gtid
    sql.execute(remote, host, dialect.stop_sql if by_gtid else dialect.stop_applier_sql)
    try:
        if plan.is_sibling:
            _bring_donor_up(tools, plan, by_gtid=by_gtid)
        begin = (
            dialect.upstream_snapshot_sql(by_gtid=by_gtid)
            if plan.is_sibling
            else dialect.snapshot_sql()
        )
        script = checksum_sql(chosen, columns, begin=(*begin, _SUMS_BEGIN))
        output = _checksum(tools, tools.donor, donor_host, script)
        wanted = _read_snapshot(plan, output, by_gtid=by_gtid)
        if not (wanted.gtid or (wanted.file and wanted.position)):
            raise VerificationError(
                "the donor did not say at which position its snapshot stands",
                host=plan.donor,
                hint="`xbvault runs resume` compares again",
            )
        theirs = parse_checksums(output.partition(f"\n{_SUMS_MARK}\n")[2])
        _run_until(tools, plan, wanted)
        script = checksum_sql(chosen, columns)
        output = _checksum(tools, remote, host, script)
        ours = parse_checksums(output)
    finally:
        sql.execute(remote, host, dialect.start_sql)
    bad = find_differences(chosen, theirs, ours)
    at = _describe_position(wanted)
    check = Check(
        name="tables-equal",
        ok=not bad,
        evidence=f"{len(chosen)} tables equal at {at}{_describe_left_out(left_out)}"
        if not bad
        else f"differ at {at}: {describe_names(label for label, _, _ in bad)}",
    )
    if bad:
        raise VerificationError(
            f"{len(bad)} of {len(chosen)} tables differ: "
            f"{describe_names(label for label, _, _ in bad)}",
            host=plan.recipient,
            hint="do not use this replica; `xbvault runs cancel` gives the earlier data back",
            problems=[
                f"{show_name(label)}: donor {one}, replica {other}" for label, one, other in bad
            ],
        )
    return Comparison(
        checks=(check,), compared=len(chosen), not_compared=tuple(left_out), position=at
    )


@step(
    "verify-replication", role="both", repeat=Repeat.SAFE, deadline_seconds=86400, needs_server=True
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

    Repeat:
        Looks again.
    """
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


@step("verify-key-separation", role="recipient", repeat=Repeat.SAFE, needs_server=True)
def verify_key_separation(tools: Tools, plan: Plan) -> Findings:
    """See that the recipient cannot read the donor's keys, and holds none of them.

    The donor's keys are taken from the bundle; its mount is not read again.

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
    refused = True
    try:
        as_host.read_secret(plan.donor_mount, "1")
        refused = False
    except SecretError as error:
        if error.transient:
            raise
    values = {value for versions in theirs.values() for value in versions.values()}
    shared = _shared_versions(tools, plan, values)
    checks = [
        Check(
            name="donor-mount-refused",
            host=plan.recipient,
            ok=refused,
            evidence=f"the recipient's token is {'refused' if refused else 'accepted'} on "
            f"{plan.donor_mount}",
        ),
        Check(
            name="keys-not-shared",
            host=plan.recipient,
            ok=not shared,
            evidence=f"no value of {plan.own_mount} is one of the donor's"
            if not shared
            else f"in both mounts: {', '.join(shared)}",
        ),
    ]
    return Findings(checks=_all_good(plan, checks))


def find_unencrypted(
    theirs: Iterable[Tablespace], ours: Iterable[Tablespace], present: frozenset[str]
) -> list[str]:
    """Return the tablespaces that are encrypted on the donor, and are here but not encrypted.

    Args:
        theirs: The donor's encrypted ones.
        ours: The recipient's encrypted ones.
        present: Names of all that the recipient has; what the donor has made since the backup may
            not have arrived yet.
    """
    lost = {space.name for space in theirs} - {space.name for space in ours}
    return sorted((lost & present) - {"innodb_temporary"})


def choose_tables(
    tables: tuple[Table, ...], mode: str, *, sample_bytes: int
) -> tuple[list[Table], list[str]]:
    """Return the tables to compare, and those that are not, each with the reason.

    Args:
        tables: All base tables of the donor.
        mode: ``all``, ``sample`` (smallest first, up to `sample_bytes`) or ``none``.
        sample_bytes: Bound of a sample.
    """
    chosen: list[Table] = []
    left_out = []
    spent = 0
    for table in sorted(tables, key=lambda t: (t.bytes, t.label)):
        if table.engine not in COMPARED_ENGINES:
            left_out.append(f"{table.label} ({table.engine}: no consistent snapshot)")
        elif table.schema == "mysql":
            left_out.append(f"{table.label} (each server's own)")
        elif mode == "none" or (mode == "sample" and spent + table.bytes > sample_bytes):
            left_out.append(f"{table.label} (not in the sample)")
        else:
            spent += table.bytes
            chosen.append(table)
    return sorted(chosen, key=lambda t: t.label), sorted(left_out)


def checksum_sql(
    tables: list[Table],
    base_columns: dict[tuple[str, str], tuple[str, ...]],
    *,
    begin: tuple[str, ...] = (),
) -> str:
    """Return the script that checksums tables.

    CHECKSUM TABLE was seen to differ for equal rows where a table has generated columns and is
    being written (MariaDB 10.11.19), so such tables are summed row by row over their stored ones.

    Args:
        tables: The tables.
        base_columns: Stored columns of those tables that have generated columns too, by schema
            and name.
        begin: Statements before, such as those that open a snapshot and say its position.
    """
    lines = list(begin)
    lines += [
        _sum_rows_sql(table, base_columns[table.schema, table.name])
        if base_columns.get((table.schema, table.name))
        else f"CHECKSUM TABLE {quote_name(table.schema)}.{quote_name(table.name)}"
        for table in tables
    ]
    return ";\n".join(lines) + ";\n"


def _describe_left_out(left_out: list[str]) -> str:
    """Return what was not compared, for the evidence: every table that is not the server's own."""
    own = [label for label in left_out if label.startswith("mysql.")]
    others = [label for label in left_out if not label.startswith("mysql.")]
    parts = []
    if others:
        parts.append(f"; not compared: {describe_names(others, most=20)}")
    if own:
        parts.append(f"; {len(own)} tables of schema mysql are each server's own")
    return "".join(parts)


def _sum_rows_sql(table: Table, columns: tuple[str, ...]) -> str:
    """Return a query for count, exclusive-or and sum of the rows' checksums.

    Each column is reduced to a checksum first: a row put together could exceed max_allowed_packet.
    """
    parts = ", ".join(f"COALESCE(CRC32({quote_name(column)}), 'N')" for column in columns)
    return (
        f"SELECT {quote_text(table.label)} AS `Table`, CONCAT(COUNT(*), '/', "
        f"COALESCE(BIT_XOR(crc), 0), '/', COALESCE(SUM(crc), 0)) AS `Checksum` "
        f"FROM (SELECT CRC32(CONCAT_WS(',', {parts})) AS crc "
        f"FROM {quote_name(table.schema)}.{quote_name(table.name)}) AS summed"
    )


def parse_checksums(text: str) -> list[tuple[str, str]]:
    """Return the checksums in the output of `checksum_sql`, in its order.

    The order tells tables apart whose schema and name read the same with a dot between them.

    Args:
        text: What the client wrote.
    """
    sums: list[tuple[str, str]] = []
    for line in text.split("\n"):  # a name may hold what splitlines() takes for an end of line
        name, tab, value = line.rpartition("\t")
        if not tab or "." not in name:  # the position's, not a schema's and a table's
            continue
        if value == "NULL" or _SUM.fullmatch(value):
            sums.append((sql.unescape(name), value))
    return sums


def find_differences(
    tables: list[Table], theirs: list[tuple[str, str]], ours: list[tuple[str, str]]
) -> list[tuple[str, str, str]]:
    """Return label and both checksums of the tables that are not proved equal.

    Args:
        tables: The tables, in the order of the script.
        theirs: What the donor answered.
        ours: What the replica answered.

    Raises:
        VerificationError: An answer is not of these tables in this order.
    """
    for answer in (theirs, ours):
        if [name for name, _ in answer] != [table.label for table in tables]:
            raise VerificationError(
                f"{len(tables)} checksums were asked for, and {len(answer)} were answered or in "
                "another order",
                hint="`xbvault runs resume` compares again",
            )
    return [
        (name, one, other)
        for (name, one), (_, other) in zip(theirs, ours, strict=True)
        if one != other or one == "NULL"
    ]


def _checksum(
    tools: Tools,
    remote: Remote,
    host: HostConfig,
    script: str,
) -> str:
    """Checksum on a host; the host ends the client, and its snapshot, when the time is over."""
    result = remote.run(
        sql.client_command(host), stdin=script, timeout_seconds=tools.seconds_left()
    )
    return result.stdout.decode("utf-8", "replace")


def _read_snapshot(plan: Plan, output: str, *, by_gtid: bool) -> Coordinates:
    """Return where the donor's snapshot stands, as the host that the replica follows counts."""
    dialect = flavors.dialect_of(plan)
    if plan.is_sibling:
        found = dialect.read_upstream_snapshot(output, by_gtid=by_gtid)
        return dataclasses.replace(found, gtid=_in_order(found.gtid))
    file, position = dialect.read_snapshot(output)
    return Coordinates(file=file, position=position, gtid="")


def _bring_donor_up(tools: Tools, plan: Plan, *, by_gtid: bool) -> None:
    """Wait until the donor has applied what its sibling has.

    The sibling is stopped. From then on the donor is ahead of it or where it is, so the sibling can go
    on to where the donor is.

    Raises:
        CommandError: It does not come up in time.
    """
    donor, dialect = tools.config.host(plan.donor), flavors.dialect_of(plan)
    status = replication.read_status(tools, plan)
    position = _read_applied(tools, plan, status, by_gtid=by_gtid)
    end = time.monotonic() + min(tools.config.clone.catch_up_seconds, tools.seconds_left())
    statement = dialect.reach_sql(position)
    while sql.query_row(tools.donor, donor, statement)["reached"] != "0":
        tools.check_cancelled()
        if time.monotonic() > end:
            raise CommandError(
                f"the donor did not come up to its sibling at {_describe_position(position)}",
                host=plan.donor,
                hint="does its replication run? then `xbvault runs resume` compares again; see "
                "clone.catch_up_seconds, and --checksums none for a donor that is delayed on purpose",
            )


def _run_until(tools: Tools, plan: Plan, wanted: Coordinates) -> None:
    """Let the replica apply events up to a position of its source, and wait until it stops there.

    Raises:
        CommandError: Replication stopped, or did not come so far in time.
        VerificationError: It stopped elsewhere.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect = flavors.dialect_of(plan)
    by_gtid, again = bool(wanted.gtid), "`xbvault runs resume` compares again"
    status = replication.read_status(tools, plan)
    if by_gtid and _read_applied(tools, plan, status, by_gtid=True) == wanted:
        return
    until = (
        dialect.until_gtid_sql(wanted.gtid)
        if by_gtid
        else dialect.until_sql(wanted.file, wanted.position)
    )
    sql.execute(remote, host, until)
    end = time.monotonic() + tools.config.clone.catch_up_seconds
    while True:
        tools.check_cancelled()
        status = replication.read_status(tools, plan)
        if status.sql == "No":
            if status.sql_error:
                raise CommandError(
                    f"replication stopped: {status.sql_error[:300]}", host=plan.recipient
                )
            reached = _read_applied(tools, plan, status, by_gtid=by_gtid)
            if reached != wanted:
                raise VerificationError(
                    f"the replica stopped at {_describe_position(reached)}, "
                    f"not at {_describe_position(wanted)}",
                    host=plan.recipient,
                    hint=again,
                )
            return
        if time.monotonic() > end:
            raise CommandError(
                f"the replica did not reach {_describe_position(wanted)} in time",
                host=plan.recipient,
                hint=again,
            )
        time.sleep(POLL_SECONDS)


def _read_applied(
    tools: Tools, plan: Plan, status: ReplicationStatus, *, by_gtid: bool
) -> Coordinates:
    """Return up to where the replica has applied its source's events."""
    if not by_gtid:
        file, position = status.applied_file, status.applied_position
        whole = numerals.parse_whole(position) if numerals.is_whole(position) else 0
        return Coordinates(file=file, position=whole, gtid="")
    host, dialect = tools.config.host(plan.recipient), flavors.dialect_of(plan)
    applied = sql.query_row(tools.recipient, host, dialect.applied_sql)["pos"]
    return Coordinates(file="", position=0, gtid=_in_order(applied))


def _in_order(gtid: str) -> str:
    """Return a GTID position with its domains, or its servers, in order."""
    return ",".join(sorted("".join(gtid.split()).split(",")))


def _describe_position(position: Coordinates) -> str:
    return position.gtid or f"{position.file}:{position.position}"


def _open_all(
    tools: Tools, remote: Remote, host: HostConfig, tables: tuple[Table, ...], dialect: Dialect
) -> list[str]:
    """Read a row of every table; return those that give an error.

    What is replicated meanwhile may drop a table, or drop it and make it again: such a one is tried
    again, and not missed where it is gone.
    """
    for _ in range(OPEN_TRIES):
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


def _shared_versions(tools: Tools, plan: Plan, values: set[Secret]) -> list[str]:
    shared = []
    for key_id in tools.vault.list_secrets(plan.own_mount):
        metadata = tools.vault.read_metadata(plan.own_mount, key_id)
        versions = metadata.versions.items() if metadata else ()
        for number, version in versions:
            if version.destroyed or version.deleted:
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
