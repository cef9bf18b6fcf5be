"""The report of a drill: one document as JSON, as Markdown, and as one HTML page. Pure.

The page needs nothing from anywhere: style and pictures stand in it, and it forbids itself to load or
run anything. Whatever hosts, tools and people have named is text there and never markup.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jinja2

JSON: Final = "report.json"
MARKDOWN: Final = "report.md"
HTML: Final = "report.html"
FILES: Final = (JSON, MARKDOWN, HTML)
PASSED: Final = "passed"
FAILED: Final = "failed"
INCOMPLETE: Final = "incomplete"
VERDICTS: Final = {
    PASSED: "The stored backup came back, every table opened, and wrong keys were refused.",
    FAILED: "The stored backup did not prove that it can be relied on.",
    INCOMPLETE: "The drill did not come to its end; it proves nothing about the stored backup.",
}
OF_CLONES: Final = {
    PASSED: "The clone came to life, every table opened, under keys of the scratch host's own.",
    FAILED: "The clone did not prove that another one could be relied on.",
    INCOMPLETE: "The drill did not come to its end; it proves nothing about clones of this donor.",
}
"""The same of the drill of a clone."""
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>|~&#!]|^[-+])")
_MINUTE: Final = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class PastDrill:
    """An earlier drill, as the trend shows it.

    Attributes:
        run_id: The run.
        backup_id: The set.
        set_host: The host that it was made of.
        began_at: When, ISO 8601 in UTC.
        verdict: ``passed``, ``failed`` or ``incomplete``.
        answers_sql_seconds: Until the restored server answered; None if it never did.
        recovery_point_seconds: From the set to the live host's clock; None if that is not known.
    """

    run_id: str
    backup_id: str
    set_host: str
    began_at: str
    verdict: str
    answers_sql_seconds: float | None = None
    recovery_point_seconds: float | None = None


def render(evidence: dict[str, Any], trend: Sequence[PastDrill]) -> dict[str, bytes]:
    """Return the files of a report, by name; the same bytes for the same evidence.

    Args:
        evidence: The document of the drill; see ``docs/reference/documents.md``.
        trend: The drills before it, the oldest first.
    """
    document = {**evidence, "trend": [dataclasses.asdict(past) for past in trend]}
    words = VERDICTS if document["repository"] else OF_CLONES
    shown = {"drill": document, "verdict_text": words.get(document["verdict"], "")}
    text = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False)
    return {
        JSON: f"{text}\n".encode("utf-8", "backslashreplace"),
        MARKDOWN: _fill("report.md.j2", shown),
        HTML: _fill("report.html.j2", {**shown, "bars": _lay_out(document)}),
    }


def read_run_id(content: bytes) -> str:
    """Return which drill a filed ``report.json`` is of; empty if it is none."""
    try:
        found = json.loads(content)
    except ValueError:
        return ""
    return str(found.get("run_id", "")) if isinstance(found, dict) else ""


def format_seconds(seconds: float | None, otherwise: str = "not known") -> str:
    """Return a duration for a reader, such as ``4.2 s``, ``2 min 05 s`` or ``3 d 04 h``.

    Args:
        seconds: The duration; None where there is none.
        otherwise: What is said then.
    """
    if seconds is None:
        return otherwise
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def escape_markdown(value: object) -> str:
    """Return a value as one line of Markdown that shows it as it is."""
    line = " ".join(str(value).split())
    return _MARKDOWN.sub(r"\\\1", line)


def _lay_out(document: dict[str, Any]) -> dict[str, Any]:
    """Return where the bars of both pictures stand, in percent of their width."""
    phases = [phase for phase in document["phases"] if phase["status"] != "not reached"]
    whole = max((p["offset_seconds"] + p["seconds"] for p in phases), default=0.0) or 1.0
    last = [
        *document["trend"],
        {
            "began_at": document["began_at"],
            "verdict": document["verdict"],
            "answers_sql_seconds": document["recovery_time"]["answers_sql_seconds"],
        },
    ]
    longest = max((item["answers_sql_seconds"] or 0.0 for item in last), default=0.0) or 1.0
    step = 100 / len(last)
    return {
        "phases": [
            {
                **phase,
                "x": _percent(100 * phase["offset_seconds"] / whole),
                "width": _percent(max(0.4, 100 * phase["seconds"] / whole)),
            }
            for phase in phases
        ],
        "trend": [
            {
                **item,
                "x": _percent(index * step + step * 0.15),
                "width": _percent(min(step * 0.7, 12.0)),
                "height": round(4 + 76 * (item["answers_sql_seconds"] or 0.0) / longest, 1),
            }
            for index, item in enumerate(last)
        ],
    }


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _fill(name: str, values: dict[str, Any]) -> bytes:
    text = _templates().get_template(name).render(values)
    return text.encode("utf-8", "backslashreplace")


@functools.cache
def _templates() -> jinja2.Environment:
    import jinja2  # noqa: PLC0415 - for drills alone

    def load(name: str) -> str:
        return (resources.files(__package__) / name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["duration"] = format_seconds
    environment.filters["md"] = escape_markdown
    return environment
