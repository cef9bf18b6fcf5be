"""Steps that sum tables up for a stored backup, and compare a restored server with those sums."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import flavors, log
from orchestrator.errors import CommandError, VerificationError
from orchestrator.facts import changes, instances
from orchestrator.flavors.quoting import describe_names, show_name
from orchestrator.models import BACKUP, RESTORES, Check, Coordinates
from orchestrator.repository.manifest import TableChecksum
from orchestrator.steps import backup, comparison, fetch, recorded_sums
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.facts.instances import Table
    from orchestrator.models import BackupPlan, RestorePlan

NOT_RECORDED = "not recorded: `xbvault backup --checksums`"
BATCH = 100
"""So many tables are summed up between two looks at the cancel flag."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SummedTables:
    """Tables of the donor, summed up as they are in its backup set.

    Attributes:
        recorded: How many.
        left_out: Those that were not, with the reason.
        position: Where the snapshot stood in which they were read; empty where there was none.
        reason: Why none was recorded; empty if some were, or none was asked for.
        checks: That those recorded were not written since the backup.
    """

    recorded: int
    left_out: tuple[str, ...]
    position: str
    reason: str
    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedTables:
    """Tables of a restored server, compared with what its manifest has recorded.

    Attributes:
        recorded: How many the manifest has.
        compared: How many are equal, which is all of them.
        reason: Why nothing was compared; empty if something was.
        checks: The verdict; none where nothing was recorded.
    """

    recorded: int
    compared: int
    reason: str
    checks: tuple[Check, ...]


class _UnknownError(Exception):
    """What no sum can be recorded for, in words."""


@step(
    "sum-up-tables",
    role="donor",
    repeat=Repeat.RESTART,
    deadline_seconds=2 * 86400,
    forms=(BACKUP,),
)
def sum_up_tables(tools: Tools, plan: BackupPlan) -> SummedTables:
    """Sum up the donor's InnoDB tables as they are in the set, for a later drill to compare.

    The donor may have gone on since the set's coordinates. So its binary log is read from there to
    the snapshot in which the tables are summed up, and what was written between is left out. Where
    the log cannot tell, nothing is recorded; the backup is as good without.

    Args:
        tools: The door to the donor.
        plan: The backup.

    Returns:
        How many were recorded, and what was left out and why.

    Raises:
        VerificationError: The set's own coordinates are not to be understood.

    Repeat:
        Sums up again, from a later snapshot.
    """
    if plan.checksums == recorded_sums.NONE:
        return SummedTables(recorded=0, left_out=(), position="", reason="", checks=())
    coordinates = backup.read_told_coordinates(tools, plan)
    try:
        sums, left_out, position = _sum_up(tools, plan, coordinates)
        reason = "" if sums else "no table is left that was not written since the backup"
    except (_UnknownError, CommandError) as error:
        words = error.message if isinstance(error, CommandError) else str(error)
        sums, left_out, position, reason = (), [], "", log.redact_text(words)
    recorded_sums.keep_sums(tools, plan, coordinates, sums)
    if reason:
        log.get().info("notice", message=f"no table is summed up: {reason}")
    evidence = f"{len(sums)} tables summed up at {position}"
    check = Check(
        name="tables-summed",
        host=plan.donor,
        ok=True,
        evidence=f"{evidence}{comparison.describe_left_out(left_out, 'left out')}",
    )
    return SummedTables(
        recorded=len(sums),
        left_out=tuple(left_out),
        position=position,
        reason=reason,
        checks=() if reason else (check,),
    )


@step(
    "compare-recorded-tables",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=2 * 86400,
    needs_server=True,
    forms=RESTORES,
)
def compare_recorded_tables(tools: Tools, plan: RestorePlan) -> ComparedTables:
    """Sum up the restored tables that the manifest has sums of, and compare.

    Args:
        tools: The doors to the repository's host and to the recipient.
        plan: The restore.

    Returns:
        How many are equal; where nothing was recorded, that alone.

    Raises:
        VerificationError: Tables differ or are missing; they are named.
        CommandError: The server refuses.

    Repeat:
        Compares again.
    """
    recorded = fetch.need_chain(tools, plan)[-1].checksums
    if not recorded:
        return ComparedTables(recorded=0, compared=0, reason=NOT_RECORDED, checks=())
    found = _sum_restored(tools, plan, recorded)
    differ = [
        (
            f"{each.schema}.{each.name}",
            each.checksum,
            found.get((each.schema, each.name), "missing"),
        )
        for each in recorded
        if found.get((each.schema, each.name)) != each.checksum
    ]
    if differ:
        raise VerificationError(
            f"{len(differ)} of {len(recorded)} tables differ from those that were backed up: "
            f"{describe_names(label for label, _, _ in differ)}",
            host=plan.recipient,
            hint=f"do not rely on this set; `xbvault runs cancel {plan.run_id}` gives the earlier "
            "data back",
            problems=[
                f"{show_name(label)}: backed up {one}, restored {other}"
                for label, one, other in differ
            ],
        )
    check = Check(
        name="tables-equal",
        host=plan.recipient,
        ok=True,
        evidence=f"{len(recorded)} tables equal to the sums in the manifest",
    )
    return ComparedTables(
        recorded=len(recorded), compared=len(recorded), reason="", checks=(check,)
    )


def _sum_up(
    tools: Tools, plan: BackupPlan, coordinates: Coordinates | None
) -> tuple[tuple[TableChecksum, ...], list[str], str]:
    """Return the sums, what was left out, and the position of the snapshot.

    The log is read twice: before, so that nothing is summed up in vain, and for the time between.

    Raises:
        _UnknownError: Nothing can be recorded.
        CommandError: The server refuses.
    """
    donor, host, dialect = tools.donor, tools.config.host(plan.donor), flavors.dialect_of(plan)
    if coordinates is None:
        raise _UnknownError("the set has no coordinates")
    if unlogged := changes.find_unlogged(donor, host, dialect):
        raise _UnknownError(unlogged)
    chosen, left_out = comparison.choose_tables(
        instances.read_tables(donor, host, dialect),
        plan.checksums,
        sample_bytes=tools.config.clone.sample_bytes,
    )
    now = changes.read_end(donor, host, dialect)
    early = _find_written(tools, plan, chosen, (coordinates, now))
    quiet = [table for table in chosen if _key(table) not in early]
    log.get().info(
        "job.progress", job="sum-up-tables", host=plan.donor, tables=0, expected_tables=len(quiet)
    )
    columns = instances.read_base_columns(donor, host, dialect)
    begin = (*dialect.snapshot_sql(), comparison.SUMS_BEGIN)
    script = comparison.checksum_sql(quiet, columns, begin=begin)
    told = comparison.run_sums(tools, donor, host, script)
    file, position = dialect.read_snapshot(told)
    if not (file and position):
        raise _UnknownError("the donor did not say at which position its snapshot stands")
    answers = comparison.parse_checksums(told.partition(f"\n{comparison.SUMS_MARK}\n")[2])
    if [label for label, _ in answers] != [table.label for table in quiet]:
        raise _UnknownError(f"{len(quiet)} sums were asked for, and {len(answers)} were answered")
    end = Coordinates(file=file, position=position)
    late = _find_written(tools, plan, quiet, (now, end))
    sums = []
    for table, (_, value) in zip(quiet, answers, strict=True):
        if value != comparison.UNREAD and _key(table) not in late:
            sums.append(TableChecksum(schema=table.schema, name=table.name, checksum=value))
    kept = {(each.schema, each.name) for each in sums}
    written = early | late
    left_out += [
        f"{table.label} ({'written since the backup' if _key(table) in written else 'not read'})"
        for table in chosen
        if _key(table) not in kept
    ]
    return tuple(sums), sorted(left_out), f"{file}:{position}"


def _find_written(
    tools: Tools,
    plan: BackupPlan,
    tables: Sequence[Table],
    between: tuple[Coordinates, Coordinates],
) -> frozenset[tuple[str, str]]:
    found = changes.read_changes(
        tools.donor,
        tools.config.host(plan.donor),
        flavors.dialect_of(plan),
        tables,
        between,
        check_cancelled=tools.check_cancelled,
    )
    if found.problem:
        raise _UnknownError(found.problem)
    return found.tables


def _sum_restored(
    tools: Tools, plan: RestorePlan, recorded: Sequence[TableChecksum]
) -> dict[tuple[str, str], str]:
    """Return the sums of the recorded tables that the restored server has."""
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect = flavors.dialect_of(plan)
    wanted = {(each.schema, each.name) for each in recorded}
    tables = [
        table for table in instances.read_tables(remote, host, dialect) if _key(table) in wanted
    ]
    columns = instances.read_base_columns(remote, host, dialect)
    found: dict[tuple[str, str], str] = {}
    for begin in range(0, len(tables), BATCH):
        tools.check_cancelled()
        batch = tables[begin : begin + BATCH]
        script = comparison.checksum_sql(batch, columns)
        answers = comparison.parse_checksums(comparison.run_sums(tools, remote, host, script))
        if [label for label, _ in answers] != [table.label for table in batch]:
            raise VerificationError(
                f"{len(batch)} sums were asked for, and {len(answers)} were answered",
                host=plan.recipient,
                hint="`xbvault runs resume` compares again",
            )
        found |= {_key(table): value for table, (_, value) in zip(batch, answers, strict=True)}
        log.get().info(
            "job.progress",
            job="compare-recorded-tables",
            host=plan.recipient,
            tables=len(found),
            expected_tables=len(recorded),
        )
    return found


def _key(table: Table) -> tuple[str, str]:
    return table.schema, table.name
