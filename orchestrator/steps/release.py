"""The step that hands the replica over."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import flavors, sql
from orchestrator.facts import instances
from orchestrator.flavors.quoting import quote_definer, quote_name, unhex
from orchestrator.models import COPIES
from orchestrator.steps import places, restore
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """The replica as it was handed over.

    Attributes:
        read_only: Whether it refuses writes of ordinary accounts.
        events_disabled: How many events were disabled on it.
        event_scheduler: Whether its event scheduler runs.
    """

    read_only: bool
    events_disabled: int
    event_scheduler: bool


@step("release-replica", role="recipient", repeat=Repeat.SAFE, needs_server=True, forms=COPIES)
def release_replica(tools: Tools, plan: Plan) -> Release:
    """Disable the donor's events on the replica, and leave it with the settings that it keeps.

    Args:
        tools: The door to the recipient.
        plan: The clone.

    Returns:
        How it was handed over.

    Raises:
        CommandError: The server refuses.

    Repeat:
        Events that are disabled already are left alone; the option file is written again.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    flavor, dialect = flavors.of(plan), flavors.dialect_of(plan)
    wanted = dialect.disable_event if tools.config.clone.events == "replica" else "DISABLE"
    rows = sql.query(remote, host, dialect.events_sql)
    enabled = [row for row in rows if row["status"] == "ENABLED"]
    statements = ["SET SESSION sql_log_bin = 0"]
    for row in enabled:
        name = f"{quote_name(unhex(row['event_schema']))}.{quote_name(unhex(row['event_name']))}"
        # Without its definer, the event would run with our rights from the day that it is enabled.
        definer = quote_definer(unhex(row["definer"]))
        statements.append(f"ALTER DEFINER = {definer} EVENT {name} {wanted}")
    read_only = tools.config.clone.read_only
    scheduler = restore.wants_event_scheduler(tools, plan)
    statements.append(f"SET GLOBAL event_scheduler = {'ON' if scheduler else 'OFF'}")
    statements.append(f"SET GLOBAL read_only = {'ON' if read_only else 'OFF'}")
    sql.execute(remote, host, ";\n".join(statements))
    restore.write_drop_in(
        tools,
        plan,
        flavor.released_drop_in(
            run_id=plan.run_id,
            version=plan.server_version,
            read_only=read_only,
            ignored_directories=places.ignored_directories(plan),
        ),
    )
    facts = instances.read_instance(remote, host)
    return Release(
        read_only=facts.is_on("read_only"),
        events_disabled=sum(row["status"] != "ENABLED" for row in rows) + len(enabled),
        event_scheduler=scheduler,
    )
