"""What came of the strikes, as a table on the screen and as the page `docs/reference/faults.md`."""

from __future__ import annotations

import dataclasses
import signal
from typing import TYPE_CHECKING, Any

from nemesis import NEMESES
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KILLED = {
    "clone-killed": "The orchestrator of a clone is killed (SIGKILL), and the run resumed.",
    "group-killed": (
        "Of a clone to several recipients, the command, the process of one, or those of all are "
        "killed (SIGKILL), and what has not ended is resumed."
    ),
    "undo-killed": "The orchestrator of an undo is killed (SIGKILL), and the undo begun again.",
    "cancel-killed": "The orchestrator of a cancel is killed (SIGKILL), and it is begun again.",
    "forget-killed": "The orchestrator of a forget is killed (SIGKILL), and it is begun again.",
}
"""The loops of kills, beside the nemeses."""
PROPERTY = "fault"
"""Name under which a test's report carries its rows."""
HEAD = """\
# Faults: what breaks, and what `xbvault clone` does then

Written by `make fault`, which breaks each of these on real servers, one at a time.
The clone replaces a replica's data while the donor is written to.
What is broken is mended afterwards, and the run resumed where it failed.
Then these laws are judged, from outside of the tool, and held in every row:

- (a) a run that says succeeded has made every table of the recipient equal to the donor's;
- (b) the donor is as it was: running, no lock, no file, process or account left over;
- (c) the recipient's earlier data is in place, or one command away: each run is undone at the end;
- (d) no transition mount, token, key or credential outlives the run;
- (e) the run ends, says how, and holds no lock any more;
- (f) resuming it again changes nothing.

Kills inside a step come after each act on a host or in Vault, and amid the long ones.

A step that is repeated by itself meets short breaks without a failure: *goes on*.
`xbvault explain CLASS` says of each class what was kept and what to do.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one strike.

    Attributes:
        nemesis: Its name.
        phase: When it struck.
        status: Exit status of the command; None if the run went on.
        error: Class of the error; empty if there was none.
        message: Its message, without what is another one in each run.
        hint: Its hint, likewise.
        after: What the run came to once it was mended.
    """

    nemesis: str
    phase: str
    status: int | None
    error: str
    message: str
    hint: str
    after: str

    def as_json(self) -> dict[str, Any]:
        """Return the row as the reports of tests carry it."""
        return dataclasses.asdict(self)


def read_rows(report: Any) -> list[dict[str, Any]]:
    """Return the rows that a test's report carries, as they can be written down."""
    found = getattr(report, "user_properties", ())
    return [value for name, value in found if name == PROPERTY]


def arrange(rows: Iterable[dict[str, Any]]) -> list[Row]:
    """Return rows that were written down, in the order of the nemeses."""
    order = [*KILLED, *NEMESES]
    return sorted((Row(**row) for row in rows), key=lambda row: order.index(row.nemesis))


def list_kills(verb: str, phases: Iterable[str], ends: str) -> list[Row]:
    """Return the rows of a loop of kills in which every process was killed and resumed.

    Args:
        verb: What was killed: clone, group, undo, cancel or forget.
        phases: Where.
        ends: Status of the run in the end.
    """
    return [
        Row(
            nemesis=f"{verb}-killed",
            phase=phase,
            status=-signal.SIGKILL,
            error="",
            message="",
            hint="",
            after=f"resumed, {ends}",
        )
        for phase in phases
    ]


def show(rows: Sequence[Row]) -> str:
    """Return the table for a screen."""
    table = Table("nemesis", "phase", "exit", "outcome", "after", "laws")
    for row in rows:
        table.add_row(row.nemesis, row.phase, _status(row), _outcome(row), row.after, "hold")
    console = Console(width=150)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def write_page(rows: Sequence[Row]) -> str:
    """Return the reference page."""
    parts = [HEAD]
    described = KILLED | {name: nemesis.what for name, nemesis in NEMESES.items()}
    for name, what in described.items():
        own = [row for row in rows if row.nemesis == name]
        if own:
            parts.append(f"\n## {name}\n\n{what}\n\n{_section(own)}")
    return "".join(parts)


def _section(rows: Sequence[Row]) -> str:
    lines = ["| When | Exit | What is said | In the end |", "| --- | --- | --- | --- |"]
    for row in _merge(rows):
        said = f"`{row.error}`: {_cell(row.message)}" if row.error else _outcome(row)
        hint = f"<br>*{_cell(row.hint)}*" if row.hint else ""
        lines.append(f"| {row.phase} | {_status(row)} | {said}{hint} | {row.after} |")
    return "\n".join(lines) + "\n"


def _merge(rows: Sequence[Row]) -> list[Row]:
    """Return one row for all phases of which the same came."""
    merged: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        merged.setdefault((row.error, row.message, row.hint, row.after), []).append(row)
    return [
        dataclasses.replace(same[0], phase="; ".join(row.phase for row in same))
        for same in merged.values()
    ]


def _outcome(row: Row) -> str:
    return row.error or ("goes on" if row.status is None else "killed")


def _status(row: Row) -> str:
    return "" if row.status is None else str(row.status)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
