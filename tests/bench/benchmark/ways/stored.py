"""Stored backups and restores, the product's and by hand with the same tools.

By hand there is one file and one key pair, no parts, no checksum, no manifest; and the recipient may
read the donor's keys.
"""

from __future__ import annotations

import datetime as dt
import shlex
from typing import TYPE_CHECKING

from benchmark.errors import WayFailedError
from benchmark.hands import choose_hands, need_completed, start_server
from benchmark.registry import way
from benchmark.results import STEP, Outcome
from benchmark.stand import REPOSITORY, SECRETS
from benchmark.ways.ours import MEGABYTE, read_document
from orchestrator.steps import stream_jobs

if TYPE_CHECKING:
    from typing import Any

    from benchmark.hands import Hands
    from benchmark.stand import Stand

SERVER_UP = "start-server"
_FILE = f"{REPOSITORY}/by-hand.age"
_IDENTITY = f"{SECRETS}/identity"


@way("backup", "`xbvault backup`", needs_store=True)
def measure_backup(stand: Stand) -> Outcome:
    """Store a backup as a user would."""
    stand.start_clock()
    return Outcome(values=_back_up(stand))


@way("bare-backup", "backup tool, age, ssh, cat into a file", needs_store=True)
def measure_bare_backup(stand: Stand) -> Outcome:
    """Store the same stream by hand."""
    hands = choose_hands(stand)
    hands.lend_keys()
    recipient = _make_identity(stand)
    clock = stand.start_clock()
    _back_up_by_hand(stand, hands, recipient)
    clock.end_phase("transfer")
    clock.end_whole("stored")
    return Outcome(values=clock.seconds)


@way("restore", "`xbvault restore`", needs_store=True)
def measure_restore(stand: Stand) -> Outcome:
    """Bring the latest backup back, and see that the server has the donor's rows."""
    _back_up(stand)
    stand.start_clock()
    done, shown = _run(stand, "restore", "latest", stand.recipient.name)
    stand.check_rows()
    steps = {step["name"]: step for step in shown["steps"]}
    up = dt.datetime.fromisoformat(steps[SERVER_UP]["ended_at"]).timestamp()
    values = {
        "transfer": steps["fetch-backup-set"]["seconds"],
        "server-up": up - done.began_at,
        "verified": done.seconds,
    }
    return Outcome(values=values | {f"{STEP}{name}": s["seconds"] for name, s in steps.items()})


@way("bare-restore", "cat, ssh, age, extraction; prepare, move, start", needs_store=True)
def measure_bare_restore(stand: Stand) -> Outcome:
    """Bring the file that was stored by hand back, by hand."""
    hands = choose_hands(stand)
    hands.lend_keys()
    _back_up_by_hand(stand, hands, _make_identity(stand))
    opened = shlex.join(stream_jobs.unseal_command(_IDENTITY))
    clock = stand.start_clock()
    command = f"{opened} | ({hands.extract()})"
    stand.run(stand.store, f"cat {_FILE} | {stand.ssh(command)}")
    clock.end_phase("transfer")
    hands.prepare()
    clock.end_phase("prepare")
    hands.restore()
    clock.end_phase("restore")
    start_server(stand)
    clock.end_phase("start")
    clock.end_whole("server-up")
    stand.check_rows()
    return Outcome(values=clock.seconds)


def _back_up(stand: Stand) -> dict[str, float]:
    done, shown = _run(stand, "backup", stand.donor.name)
    steps = {step["name"]: step["seconds"] for step in shown["steps"]}
    return {
        "transfer": steps["store-backup"],
        "stored": done.seconds,
        "memory": done.peak_bytes / MEGABYTE,
        "bytes": shown["bytes_streamed"],
        **{f"{STEP}{name}": seconds for name, seconds in steps.items()},
    }


def _run(stand: Stand, *arguments: str) -> tuple[Any, dict[str, Any]]:
    done = stand.xbvault(*arguments, "--json", "--yes")
    document = read_document(done)
    if done.status != 0:
        error = document.get("error") or {}
        raise WayFailedError(f"exit status {done.status}: {error.get('message') or done.stderr}")
    return done, read_document(stand.xbvault("runs", "show", document["run_id"], "--json"))


def _make_identity(stand: Stand) -> str:
    """Make a key pair, its identity on the recipient's tmpfs; return the public key."""
    return stand.run(
        stand.recipient, f"age-keygen -o {_IDENTITY} 2>/dev/null; age-keygen -y {_IDENTITY}"
    ).strip()


def _back_up_by_hand(stand: Stand, hands: Hands, recipient: str) -> None:
    seal = shlex.join(stream_jobs.seal_command(recipient))
    to = stand.ssh(f"cat >{_FILE}", stand.store)
    stand.run(stand.donor, f"{hands.backup()} | {seal} | {to}")
    need_completed(stand)
