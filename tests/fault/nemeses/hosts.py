"""What breaks on the hosts, and on the way to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import servers
from nemesis import GOES_ON, Moment, before, before_each, in_stream, nemesis
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand

STREAM = in_stream(OURS.backup_gate)
PREPARE = Moment(step="prepare-backup-set", gate=OURS.prepare_gate)
LOST = ["HostUnreachableError", "ConnectionLostError"]


@nemesis(
    "orchestrator-ssh-reset",
    moments=before_each(),
    comes=[GOES_ON],
    sample=True,
)
def _ssh_reset(stand: Stand) -> Iterator[None]:
    """Every SSH connection of the orchestrator is reset."""
    for name in ("master", "replica"):
        stand.on(name, "pkill -KILL -f '^sshd: .*@'", check=False)
    yield


@nemesis(
    "orchestrator-cut-off-for-a-moment",
    moments=[*STREAM, PREPARE, *before("re-encrypt-tablespaces", "compare-tables")],
    comes=[GOES_ON],
    mends_after_seconds=6,
)
def _cut_off_for_a_moment(stand: Stand) -> Iterator[None]:
    """Neither host reaches the orchestrator or Vault for six seconds; they reach each other."""
    with stand.cut_off("master", "replica"):
        yield


@nemesis(
    "orchestrator-cut-off",
    moments=[*STREAM, *before("re-encrypt-tablespaces")],
    comes=[*LOST, "CommandError"],
)
def _cut_off(stand: Stand) -> Iterator[None]:
    """Neither host reaches the orchestrator or Vault until the run has given up."""
    with stand.cut_off("master", "replica"):
        yield


@nemesis(
    "recipient-powered-off",
    moments=[
        *STREAM,
        PREPARE,
        *before("swap-datadir", "re-encrypt-tablespaces"),
    ],
    comes=LOST,
)
def _powered_off(stand: Stand) -> Iterator[None]:
    """The recipient loses its power, and gets it back when the run has given up."""
    stand.power_off("replica")
    yield
    stand.power_on("replica")


@nemesis("recipient-powered-off-in-the-clean-up", moments=before("remove-staging"), comes=LOST)
def _powered_off_late(stand: Stand) -> Iterator[None]:
    """The recipient is without power when the clone is done; its server starts as at each boot."""
    stand.power_off("replica")
    yield
    stand.power_on("replica")
    servers.start(stand.model, stand.host("replica"))


CLEANUP = (
    "revoke-transition-token",
    "remove-transition-mount",
    "destroy-transition-key",
    "remove-staging",
    "remove-job-files",
)


@nemesis("recipient-restarted", moments=before_each(without=CLEANUP), comes=[GOES_ON])
def _restarted(stand: Stand) -> Iterator[None]:
    """The recipient loses its power and has it back at once; nobody starts its server."""
    stand.power_off("replica")
    stand.power_on("replica")
    yield


@nemesis("recipient-restarted-in-the-clean-up", moments=before(*CLEANUP), comes=[GOES_ON])
def _restarted_late(stand: Stand) -> Iterator[None]:
    """The recipient loses its power when the clone is done; its server starts as at each boot."""
    stand.power_off("replica")
    stand.power_on("replica")
    servers.start(stand.model, stand.host("replica"))
    yield


@nemesis(
    "recipient-server-killed",
    moments=before(
        "start-replication",
        "wait-for-replication",
        "re-encrypt-tablespaces",
        "rebuild-aria-tables",
        "restart-on-own-mount",
        "verify-encryption",
        "compare-tables",
        "verify-replication",
        "release-replica",
    ),
    comes=[GOES_ON],
)
def _server_killed(stand: Stand) -> Iterator[None]:
    """The recipient's new server is killed; nobody starts it."""
    stand.signal_on("replica", OURS.server, "KILL")
    yield


@nemesis(
    "donor-powered-off",
    moments=[*STREAM, *before("create-replication-account", "compare-tables")],
    comes=LOST,
    harms_donor=True,
)
def _donor_off(stand: Stand) -> Iterator[None]:
    """The donor loses its power; it has it back, with its server, when the run has given up."""
    stand.power_off("master")
    yield
    stand.power_on("master")
    servers.start(stand.model, stand.host("master"))
