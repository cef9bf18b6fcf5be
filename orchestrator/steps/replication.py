"""Steps that make the recipient a replica: of the donor, or of the donor's own source."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, keys, log, sql
from orchestrator.errors import CommandError, PreconditionError, SecretError, VerificationError
from orchestrator.facts import instances
from orchestrator.flavors.interface import account_name
from orchestrator.flavors.quoting import quote_plain, unhex
from orchestrator.models import COPIES, RestorePlan, Secret
from orchestrator.steps import servers, stream
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.flavors.interface import ReplicationStatus
    from orchestrator.models import Coordinates, Plan

_LOGS_ARE_GONE = ("1236", "13114")
"""What a source answers when it cannot begin where the replica wants to; MySQL has both."""
POLL_SECONDS = 0.25
_FIRST_POLL_SECONDS = 0.05
"""A replica connects at once, or not for a while."""
CONNECT_SECONDS = 60
"""A replica that has not connected by then says why, and the step ends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplicationAccount:
    """The account on the source for this run alone.

    Attributes:
        user: Its name.
        host: The address that it may log in from.
        path: Path in Vault of its password.
    """

    user: str
    host: str
    path: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replication:
    """Replication as the replica reports it.

    Attributes:
        source: Host and port.
        io_running: Whether events are fetched.
        sql_running: Whether events are applied.
        seconds_behind: Delay; -1 when unknown.
        uses_gtid: Whether GTIDs are used.
        gtid_position: What was applied last.
        uses_tls: Whether the connection is encrypted and the certificate verified.
    """

    source: str
    io_running: bool
    sql_running: bool
    seconds_behind: int
    uses_gtid: bool
    gtid_position: str
    uses_tls: bool


@step("create-replication-account", role="source", repeat=Repeat.SAFE, forms=COPIES)
def create_replication_account(tools: Tools, plan: Plan) -> ReplicationAccount:
    """Create an account on the source for this run alone, by hash, with TLS required.

    On a source that is a replica itself it is kept out of the binary log: there a transaction of its
    own could stop its replication, and would be in the way of a later failover.

    Args:
        tools: The doors to the source and to Vault.
        plan: The clone.

    Returns:
        The account.

    Raises:
        SecretError: The password cannot be stored.
        CommandError: The source refuses.

    Repeat:
        The password that Vault holds is kept, and the account is created if it is not there.
    """
    user = account_name(plan.run_id)
    host = _account_host(tools, plan)
    mount = tools.config.vault.mount
    if read_account(tools, plan) is None:
        tools.vault.write_secret(
            mount,
            plan.account_path,
            {"user": user, "host": host, "password": keys.new_password()},
            cas=0,
        )
    password = read_password(tools, plan)
    dialect = flavors.source_dialect_of(plan)
    before, after = dialect.account_sql(user, host)
    spoken = keys.native_password_hash(password) if dialect.takes_password_hash else password
    sql.execute(
        tools.source,
        tools.config.host(plan.source_host),
        Secret.join(quiet_sql(plan), before, spoken, after),
    )
    return ReplicationAccount(user=user, host=host, path=f"{mount}/{plan.account_path}")


@step("start-replication", role="recipient", repeat=Repeat.SAFE, needs_server=True, forms=COPIES)
def start_replication(tools: Tools, plan: Plan) -> Replication:
    """Wire the replica from the recorded coordinates, with TLS and certificate verification.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.

    Returns:
        What the replica reports.

    Raises:
        PreconditionError: The set tells no position of the kind that was asked for.
        CommandError: The server refuses, or cannot connect to the source.

    Repeat:
        Already wired with this run's account: it is started if it is not running, and nothing is
        reset, for it may have advanced.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    user, dialect = account_name(plan.run_id), flavors.dialect_of(plan)
    status = instances.read_replication(remote, host, dialect)
    if status is None or status.user != user:
        coordinates = stream.read_set_coordinates(tools, plan)
        use_gtid = _uses_gtid(plan, coordinates)
        before, after = dialect.change_source_sql(
            plan,
            coordinates,
            use_gtid=use_gtid,
            user=user,
            ca_file=host.server.replication_ca_file,
        )
        wired = Secret.join(before, read_password(tools, plan), after)
        sql.execute(remote, host, Secret.join(wired, ";\n", dialect.start_sql))
    else:
        sql.execute(remote, host, dialect.start_sql)
    wait_until_connected(tools, plan)
    return read_state(tools, plan)


@step(
    "wait-for-replication",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7 * 86400,
    needs_server=True,
    forms=COPIES,
)
def wait_for_replication(tools: Tools, plan: Plan) -> Replication:
    """Wait until the replica has applied all that the source had when the waiting began.

    Args:
        tools: The doors to the source and to the recipient.
        plan: The clone.

    Returns:
        What the replica reports.

    Raises:
        CommandError: Replication stopped with an error, or did not catch up in time.

    Repeat:
        Waits again.
    """
    wait_until_caught_up(tools, plan)
    return read_state(tools, plan)


def wait_until_connected(tools: Tools, plan: Plan) -> None:
    """Wait until the replica fetches from its source, as it does some seconds after that came back.

    Raises:
        CommandError: It does not connect within a minute, with the server's words.
        PreconditionError: The source has purged what it needs.
    """
    end = time.monotonic() + CONNECT_SECONDS
    pause = _FIRST_POLL_SECONDS
    while True:
        tools.check_cancelled()
        status = _read_status(tools, plan)
        if status and status.io == "Yes":
            return
        error = status.io_error if status else ""
        if status and status.io_errno in _LOGS_ARE_GONE:
            raise PreconditionError(
                f"the source has purged a binary log that the replica needs: {error[:300]}",
                host=plan.source_host,
                hint=f"`xbvault runs cancel {plan.run_id}`; let the source keep its binary logs "
                "longer (binlog_expire_logs_seconds), and clone again",
            )
        if (status and status.io == "No" and error) or time.monotonic() > end:
            raise CommandError(
                f"the replica cannot connect to its source: {error[:300] or 'no answer'}",
                host=plan.recipient,
                hint="check server.replication_address, server.port, server.account_host, and "
                "server.replication_ca_file; then `xbvault runs resume`",
            )
        time.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS)


def wait_until_caught_up(tools: Tools, plan: Plan) -> str:
    """Wait until the replica has applied the source's position of now; return that position."""
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect, theirs = flavors.dialect_of(plan), flavors.source_dialect_of(plan)
    wanted = theirs.read_position(
        sql.query_row(tools.source, tools.config.host(plan.source_host), theirs.position_sql)
    )
    limit = min(tools.config.clone.catch_up_seconds, tools.seconds_left())
    end = time.monotonic() + limit
    while True:
        tools.check_cancelled()
        status = check_running(tools, plan)
        reached = sql.query_row(remote, host, dialect.wait_sql(wanted))["reached"]
        if reached == "0":
            return wanted
        if status and status.seconds_behind >= 0:
            log.get().info(
                "job.progress",
                job="wait-for-replication",
                host=plan.recipient,
                seconds_behind=status.seconds_behind,
            )
        if time.monotonic() > end:
            state = read_state(tools, plan)
            hint = "`xbvault runs resume` goes on waiting; see clone.catch_up_seconds"
            if servers.has_no_space(tools, plan):  # MySQL waits, and says so in its log alone
                hint = f"free space on {plan.recipient}'s filesystem, then `xbvault runs resume`"
            raise CommandError(
                f"the replica did not catch up within {limit:.0f} s "
                f"({state.seconds_behind} s behind)",
                host=plan.recipient,
                hint=hint,
            )


def follow_rotation(tools: Tools, plan: Plan) -> str:
    """Begin a new binary log on the source, and wait until the replica has come to it.

    Returns:
        What has arrived; empty if it did not within a minute.
    """
    theirs, source = flavors.source_dialect_of(plan), tools.config.host(plan.source_host)
    sql.execute(tools.source, source, "FLUSH BINARY LOGS")
    row = sql.query_row(tools.source, source, theirs.binlog_sql)
    end = time.monotonic() + CONNECT_SECONDS
    while read_status(tools, plan).applied_file != row["File"]:
        tools.check_cancelled()
        if time.monotonic() > end:
            return ""
        time.sleep(POLL_SECONDS)
    return f"the binary log {row['File']}, begun after the backup,"


def check_running(tools: Tools, plan: Plan) -> ReplicationStatus | None:
    """Return what the replica says of its source; raise when replication has stopped with an error.

    Raises:
        CommandError: With the server's words, redacted.
    """
    dialect = flavors.dialect_of(plan)
    status = _read_status(tools, plan)
    if status is None:
        return None
    for state, error in ((status.sql, status.sql_error), (status.io, status.io_error)):
        if state == "No" and error:
            raise CommandError(
                f"replication stopped: {error[:300]}",
                host=plan.recipient,
                hint=f"mend the cause, {dialect.start_sql} there, then `xbvault runs resume`",
            )
    return status


def read_state(tools: Tools, plan: Plan) -> Replication:
    """Read the state of replication.

    Raises:
        VerificationError: There is no replication.
    """
    dialect = flavors.dialect_of(plan)
    asked = {"status": dialect.status_sql, "applied": dialect.applied_sql}
    found = sql.query_all(tools.recipient, tools.config.host(plan.recipient), asked)
    status = _need_wired(plan, instances.find_status(found["status"], dialect))
    applied = sql.take_one(found["applied"], plan.recipient)["pos"]
    return Replication(
        source=f"{status.host}:{status.port}",
        io_running=status.io == "Yes",
        sql_running=status.sql == "Yes",
        seconds_behind=status.seconds_behind,
        uses_gtid=status.uses_gtid,
        gtid_position="".join(applied.split()),
        uses_tls=status.uses_tls,
    )


def read_status(tools: Tools, plan: Plan) -> ReplicationStatus:
    """Return what the replica says of its source.

    Raises:
        VerificationError: There is no replication.
    """
    return _need_wired(plan, _read_status(tools, plan))


def _need_wired(plan: Plan, status: ReplicationStatus | None) -> ReplicationStatus:
    if status is None:
        raise VerificationError("replication is not wired", host=plan.recipient)
    return status


def read_account(tools: Tools, plan: Plan) -> dict[str, Secret] | None:
    """Return what Vault holds of the run's account; its address stands in messages as well."""
    mount = tools.config.vault.mount
    return tools.vault.read_secret(mount, plan.account_path, plain=("user", "host"))


def read_password(tools: Tools, plan: Plan) -> Secret:
    """Fetch the password of this run's account.

    Raises:
        SecretError: It is not there.
    """
    found = read_account(tools, plan)
    if not found or "password" not in found:
        raise SecretError(f"no account at {tools.config.vault.mount}/{plan.account_path}")
    return found["password"]


def drop_accounts(tools: Tools, plan: Plan, *, user: str, path: str) -> None:
    """Drop an account of ours on the source, wherever it may log in from, and its password."""
    source, table = tools.config.host(plan.source_host), flavors.of(plan).accounts_table
    rows = sql.query(
        tools.source,
        source,
        f"SELECT HEX(Host) AS host FROM {table} WHERE User = {quote_plain(user)}",
    )
    for row in rows:
        account = f"{quote_plain(user)}@{quote_plain(unhex(row['host']))}"
        sql.execute(tools.source, source, f"{quiet_sql(plan)}DROP USER IF EXISTS {account}")
    tools.vault.remove_secret(tools.config.vault.mount, path)


def quiet_sql(plan: Plan) -> str:
    """Return what keeps the statements that follow out of the binary log, where it must."""
    return "SET SESSION sql_log_bin = 0;\n" if plan.source_is_replica else ""


def _account_host(tools: Tools, plan: Plan) -> str:
    """Return the address that the source's server sees the replica come from."""
    named = tools.config.host(plan.recipient).server.account_host
    if named:
        return named
    address = tools.config.host(plan.recipient).address or plan.recipient
    found = tools.source.run(
        ["timeout", "10", "getent", "ahosts", address], check=False
    ).text.split()
    if not found:
        raise PreconditionError(
            f"{plan.source_host} cannot resolve {address}",
            host=plan.source_host,
            hint="set hosts.*.server.account_host of the recipient to the address that "
            f"{plan.source_host} sees",
        )
    return found[0]


def _uses_gtid(plan: Plan, coordinates: Coordinates) -> bool:
    """Return whether the replica begins at a GTID position, else at a file and an offset.

    Raises:
        PreconditionError: The set does not tell the one that is wanted, or the other one is of the
            binary log of another host than the one that is to be followed.
    """
    if plan.coordinates == "gtid" and not coordinates.gtid:
        raise PreconditionError(
            "the backup set has no GTID position",
            host=plan.donor,
            hint="set clone.coordinates to position or auto and begin a new run",
        )
    if plan.coordinates == "position" and not coordinates.file:
        raise PreconditionError(
            f"the backup set tells no file and position of {plan.source_host}, only a GTID position",
            host=plan.donor,
            hint="set clone.coordinates to gtid or auto and begin a new run",
        )
    uses_gtid = plan.coordinates != "position" and bool(coordinates.gtid)
    if isinstance(plan, RestorePlan) and plan.source != plan.set_host and not uses_gtid:
        raise PreconditionError(
            f"{coordinates.file}:{coordinates.position} is a position of {plan.set_host}, not of "
            f"{plan.source}",
            host=plan.recipient,
            hint=f"follow {plan.set_host}; or, where the set has a GTID position, set "
            "clone.coordinates to auto and begin a new run",
        )
    return uses_gtid


def _read_status(tools: Tools, plan: Plan) -> ReplicationStatus | None:
    host = tools.config.host(plan.recipient)
    return instances.read_replication(tools.recipient, host, flavors.dialect_of(plan))
