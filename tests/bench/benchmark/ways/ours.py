"""The product, through its own command line."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from benchmark.errors import WayFailedError
from benchmark.registry import way
from benchmark.results import STEP, Outcome

if TYPE_CHECKING:
    from lab.model import Host

    from benchmark.stand import Stand
    from benchmark.timing import Process

REPLICATING = "wait-for-replication"
"""The step after which the replica is where its source was."""
MEGABYTE = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clone:
    """A call of ``xbvault clone`` that has ended well.

    Attributes:
        done: The process.
        shown: What ``runs show --json`` says of each of its runs.
    """

    done: Process
    shown: tuple[dict[str, Any], ...]


@way("ours", "`xbvault clone`", has_cold=True)
def measure(stand: Stand) -> Outcome:
    """Clone as a user would, and read the steps' moments from the run."""
    stand.start_clock()
    found = clone(stand, stand.recipient)
    return Outcome(values=read_values(found.done, found.shown[0]))


def clone(stand: Stand, *recipients: Host) -> Clone:
    """Clone to one host or to several at once, and see that all of them are replicas.

    Raises:
        WayFailedError: It failed, or one of them is no replica.
    """
    names = [host.name for host in recipients]
    done = stand.xbvault("clone", stand.donor.name, *names, "--json", "--yes")
    document = read_document(done)
    runs = [run["run_id"] for run in document.get("runs", [document]) if run.get("run_id")]
    if done.status != 0:
        for run in runs:  # its jobs on the hosts must not go on
            stand.xbvault("runs", "cancel", run, "--yes", "--json")
        error = document.get("error") or {}
        raise WayFailedError(f"exit status {done.status}: {error.get('message') or done.stderr}")
    shown = [read_document(stand.xbvault("runs", "show", run, "--json")) for run in runs]
    for host in recipients:
        stand.check_replica(host)
    return Clone(done=done, shown=tuple(shown))


def read_document(done: Process) -> dict[str, Any]:
    """Return what a command printed as JSON.

    Raises:
        WayFailedError: It printed something else.
    """
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        raise WayFailedError(f"exit status {done.status}: {done.stderr.strip()[-500:]}") from error
    return found if isinstance(found, dict) else {}


def read_values(done: Process, shown: dict[str, Any]) -> dict[str, float]:
    """Return the measures of a run.

    Args:
        done: The process.
        shown: What ``runs show --json`` says of the run.
    """
    steps = {step["name"]: step for step in shown["steps"]}
    parts = [step for part in shown["parts"] for step in part["steps"]]
    server_up = _moment(steps["start-server"])
    values = {
        "replicating": _moment(steps[REPLICATING]) - done.began_at,
        "verified": done.seconds,
        "transfer": steps["stream-backup"]["seconds"],
    }
    if (steps["re-encrypt-tablespaces"]["result"] or {}).get("tablespaces"):
        values["re-encryption"] = steps["re-encrypt-tablespaces"]["seconds"]
        values["re-encryption-from-start"] = _moment(steps["re-encrypt-tablespaces"]) - server_up
    values |= {
        "memory": done.peak_bytes / MEGABYTE,
        "cpu": 100 * done.cpu_seconds / done.seconds,
        "cpu-seconds": done.cpu_seconds,
        "bytes": shown["bytes_streamed"],
    }
    first = shown["steps"][0]
    values[f"{STEP}(before the first)"] = (
        dt.datetime.fromisoformat(first["began_at"]).timestamp() - done.began_at
    )
    values |= {f"{STEP}{step['name']}": step["seconds"] for step in (*shown["steps"], *parts)}
    values[f"{STEP}(between and after)"] = done.seconds - sum(
        seconds for name, seconds in values.items() if name.startswith(STEP)
    )
    return values


def _moment(step: dict[str, Any]) -> float:
    return dt.datetime.fromisoformat(step["ended_at"]).timestamp()
