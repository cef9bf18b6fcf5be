"""The step that compares the tables of donor and replica, at one position."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, log, numerals, sql
from orchestrator.errors import CommandError, VerificationError
from orchestrator.facts import instances
from orchestrator.flavors.quoting import (
    describe_names,
    quote_name,
    quote_text,
    show_name,
)
from orchestrator.models import Check, Coordinates
from orchestrator.steps import replication
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orchestrator.config import HostConfig
    from orchestrator.facts.instances import Table
    from orchestrator.flavors.interface import ReplicationStatus
    from orchestrator.models import Plan
    from orchestrator.remote import Remote

POLL_SECONDS = 0.25
COMPARED_ENGINES = ("InnoDB",)
"""CHECKSUM TABLE inside a consistent snapshot holds for InnoDB, not for Aria or MyISAM."""
SUMS_MARK = "xbvault_sums"
SUMS_BEGIN = f"SELECT '' AS {SUMS_MARK}"
"""Divides what a server says of its snapshot from the checksums."""
_SUM = re.compile(r"[0-9]+(?:/[0-9]+/[0-9]+)?")
UNREAD = "NULL"
"""The checksum of a table that is not there, or is younger than the snapshot."""
_OVERTAKEN = re.compile(r"^ERROR (?:1054|1146|1412) ", re.MULTILINE)
"""No such column, no such table, table younger than the snapshot: where rows are summed one by one."""
LOOKS = 5
"""Where a table was altered in each of as many looks, there is no end of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tables compared at one position.

    Attributes:
        checks: The verdict.
        compared: How many tables are equal.
        not_compared: Tables that were left out, with the reason.
        position: Where both were read: a position of the host that the replica follows. It is the
            first one, where tables were altered and had to be read again.
    """

    checks: tuple[Check, ...]
    compared: int
    not_compared: tuple[str, ...]
    position: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """Tables looked at on both hosts, at one position.

    Attributes:
        at: The position, for a reader; empty where the donor's snapshot was overtaken.
        unequal: The tables not proved equal, with the donor's checksum and the replica's.
    """

    at: str
    unequal: tuple[tuple[Table, str, str], ...]


@dataclasses.dataclass(kw_only=True)
class Verdict:
    """What one or more looks have shown.

    Attributes:
        equal: How many tables are equal, by position.
        gone: Tables that were dropped before they could be compared.
        differ: Tables that differ, with the donor's checksum and the replica's.
        unread: Tables that the donor could not read in any of its snapshots.
    """

    equal: dict[str, int] = dataclasses.field(default_factory=dict)
    gone: list[str] = dataclasses.field(default_factory=list)
    differ: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    unread: list[str] = dataclasses.field(default_factory=list)


@step(
    "compare-tables", role="both", repeat=Repeat.SAFE, deadline_seconds=2 * 86400, needs_server=True
)
def compare_tables(tools: Tools, plan: Plan) -> Comparison:
    """Compare the InnoDB tables of both at one position, while the donor is being written.

    The replica stops; one session on the donor opens a snapshot, reads its position and checksums
    there; the replica goes on until that position, stops, checksums, and goes on. Where both follow
    the same source, it is a position of that source, and the donor first comes up to the replica.
    What is altered meanwhile is compared again, see `judge`.

    Args:
        tools: The doors to both hosts.
        plan: The clone.

    Returns:
        What was compared, and what was not and why.

    Raises:
        VerificationError: Tables differ; they are named.
        CommandError: A server refuses, a replica does not reach the position, or tables are altered
            all the time.

    Repeat:
        Compares again.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect = flavors.dialect_of(plan)

    def read_tables() -> tuple[Table, ...]:
        return instances.read_tables(tools.donor, tools.config.host(plan.donor), dialect)

    def look(tables: Sequence[Table]) -> Look:
        log.get().info(
            "job.progress",
            job="compare-tables",
            host=plan.recipient,
            tables=len(chosen) - len(tables),
            expected_tables=len(chosen),
        )
        return _look(tools, plan, tables, by_gtid=by_gtid)

    chosen, left_out = choose_tables(
        read_tables(), plan.checksums, sample_bytes=tools.config.clone.sample_bytes
    )
    if not chosen:
        return Comparison(checks=(), compared=0, not_compared=tuple(left_out), position="")
    by_gtid = plan.is_sibling and replication.read_status(tools, plan).uses_gtid
    sql.execute(remote, host, dialect.stop_sql if by_gtid else dialect.stop_applier_sql)
    try:
        verdict = judge(chosen, look, read_tables)
    finally:
        sql.execute(remote, host, dialect.start_sql)
    if verdict.differ:
        raise VerificationError(
            f"{len(verdict.differ)} of {len(chosen)} tables differ: "
            f"{describe_names(label for label, _, _ in verdict.differ)}",
            host=plan.recipient,
            hint="do not use this replica; `xbvault runs cancel` gives the earlier data back",
            problems=[
                f"{show_name(label)}: donor {one}, replica {other}"
                for label, one, other in verdict.differ
            ],
        )
    if verdict.unread:
        raise CommandError(
            f"{len(verdict.unread)} of {len(chosen)} tables could not be compared, for each snapshot "
            f"was overtaken: {describe_names(verdict.unread)}",
            host=plan.donor,
            hint="when nobody alters them any longer, and the donor itself can read them, "
            "`xbvault runs resume` compares again",
        )
    left_out = sorted([*left_out, *(f"{label} (dropped meanwhile)" for label in verdict.gone)])
    first, *later = verdict.equal.items() or [("no position", 0)]
    evidence = f"{first[1]} tables equal at {first[0]}" + "".join(
        f", {number} at {at}" for at, number in later if number
    )
    check = Check(name="tables-equal", ok=True, evidence=f"{evidence}{describe_left_out(left_out)}")
    return Comparison(
        checks=(check,),
        compared=sum(verdict.equal.values()),
        not_compared=tuple(left_out),
        position=first[0],
    )


def judge(
    tables: Sequence[Table],
    look: Callable[[Sequence[Table]], Look],
    read_tables: Callable[[], Iterable[Table]],
) -> Verdict:
    """Look at tables until each is equal, gone, or differs for certain.

    A snapshot does not hold for a table that is altered, made anew or swapped for another after it
    was opened: the donor answers nothing then, or something of another time. So what is not equal is
    looked at again, at a later position, and only what differs twice does differ.

    Args:
        tables: Which.
        look: Compares some of them at one position.
        read_tables: Lists what the donor has now.
    """
    verdict = Verdict()
    suspected: set[tuple[str, str]] = set()
    for _ in range(LOOKS):
        found = look(tables)
        if found.at:
            equal = len(tables) - len(found.unequal)
            verdict.equal[found.at] = verdict.equal.get(found.at, 0) + equal
        differ = [entry for entry in found.unequal if entry[1] != UNREAD]
        verdict.differ = [(t.label, a, b) for t, a, b in differ if _key(t) in suspected]
        suspected |= {_key(table) for table, _, _ in differ}
        left = {_key(table): table for table, _, _ in found.unequal}
        if verdict.differ or not left:
            return verdict
        tables = [table for table in read_tables() if _key(table) in left]
        there = {_key(table) for table in tables}
        verdict.gone += [table.label for key, table in left.items() if key not in there]
        if not tables:
            return verdict
    verdict.unread = [table.label for table in tables]
    return verdict


def _key(table: Table) -> tuple[str, str]:
    return table.schema, table.name


def _look(tools: Tools, plan: Plan, tables: Sequence[Table], *, by_gtid: bool) -> Look:
    """Compare some tables at one position; the replica's applier stands before and after."""
    donor_host, dialect = tools.config.host(plan.donor), flavors.dialect_of(plan)
    columns = instances.read_base_columns(tools.donor, donor_host, dialect)
    if plan.is_sibling:
        _bring_donor_up(tools, plan, by_gtid=by_gtid)
    begin = (
        dialect.upstream_snapshot_sql(by_gtid=by_gtid)
        if plan.is_sibling
        else dialect.snapshot_sql()
    )
    script = checksum_sql(tables, columns, begin=(*begin, SUMS_BEGIN))
    try:
        output = run_sums(tools, tools.donor, donor_host, script)
    except CommandError as error:
        if not _OVERTAKEN.search(error.stderr):
            raise
        return Look(at="", unequal=tuple((table, UNREAD, UNREAD) for table in tables))
    wanted = _read_snapshot(plan, output, by_gtid=by_gtid)
    if not (wanted.gtid or (wanted.file and wanted.position)):
        raise VerificationError(
            "the donor did not say at which position its snapshot stands",
            host=plan.donor,
            hint="`xbvault runs resume` compares again",
        )
    theirs = parse_checksums(output.partition(f"\n{SUMS_MARK}\n")[2])
    _run_until(tools, plan, wanted)
    script = checksum_sql(tables, columns)
    ours = parse_checksums(
        run_sums(tools, tools.recipient, tools.config.host(plan.recipient), script)
    )
    return Look(
        at=_describe_position(wanted), unequal=tuple(find_differences(tables, theirs, ours))
    )


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
    tables: Sequence[Table],
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


def describe_left_out(left_out: list[str], what: str = "not compared") -> str:
    """Return what was not compared, for the evidence: every table that is not the server's own."""
    own = [label for label in left_out if label.startswith("mysql.")]
    others = [label for label in left_out if not label.startswith("mysql.")]
    parts = []
    if others:
        parts.append(f"; {what}: {describe_names(others, most=20)}")
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
        if value == UNREAD or _SUM.fullmatch(value):
            sums.append((sql.unescape(name), value))
    return sums


def find_differences(
    tables: Sequence[Table], theirs: list[tuple[str, str]], ours: list[tuple[str, str]]
) -> list[tuple[Table, str, str]]:
    """Return the tables that are not proved equal, with both checksums.

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
        (table, one, other)
        for table, (_, one), (_, other) in zip(tables, theirs, ours, strict=True)
        if one != other or one == UNREAD
    ]


def run_sums(tools: Tools, remote: Remote, host: HostConfig, script: str) -> str:
    """Run the script of `checksum_sql` on a host; the host ends the client, and its snapshot, when the time is over."""
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
