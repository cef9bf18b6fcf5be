"""The report of a drill: the texts that were approved, and that nothing in it is markup."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import browser
import golden
import pytest
from drilled import (
    PAST,
    POINT,
    make_clone_drill_plan,
    make_drill_plan,
    make_drill_record,
    make_steps,
)
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import report, summary
from orchestrator.errors import VerificationError

GOLDEN = Path(__file__).parent / "golden"
ALTERED = VerificationError(
    "part-000007.age is not the part that the manifest names: its SHA-256 differs",
    host="store",
    problems=("part-000007.age: SHA-256 differs",),
).as_json()
HOSTILE = (
    "<script>document.documentElement.dataset.ran=1</script>'\"&<img src=x onerror=1>|`**[a](b)"
)
VOID = {"meta", "rect"}


def make_evidence(**changes: Any) -> dict[str, Any]:
    """Return the evidence of a drill that has passed."""
    return summary.build_evidence(make_drill_record()) | {"xbvault_version": "0.1.0"} | changes


FAILED = summary.build_evidence(
    make_drill_record(
        status="cancelled", steps=make_steps("fetch-backup-set", ALTERED), error=ALTERED
    )
) | {"xbvault_version": "0.1.0", "torn_down": True}
UNREACHED = make_evidence(
    recovery_point={
        **POINT,
        "reached": False,
        "reason": "the donor could not be reached: nothing answers",
        "at": "",
        "position": "",
        "seconds": None,
        "transactions": None,
    },
    kept=True,
    torn_down=False,
)
REPLICATED = summary.build_evidence(
    make_drill_record(
        plan=make_drill_plan(replicate_seconds=60, source="master"),
        playbook="drill-replicate",
        steps=make_steps(replicates=True),
    )
) | {
    "xbvault_version": "0.1.0",
    "tables_compared": {
        "recorded": 0,
        "compared": 0,
        "reason": "not recorded: `xbvault backup --checksums`",
    },
}
OF_A_CLONE = summary.build_evidence(
    make_drill_record(
        plan=make_clone_drill_plan(),
        playbook="drill-clone",
        steps=tuple(
            step
            for step in make_steps(phases=summary.CLONE_PHASES)
            if step.name not in (summary.COMPARED_STEP, "try-wrong-keys")
        ),
    )
) | {"xbvault_version": "0.1.0"}
CASES = {
    "passed": (make_evidence(), PAST),
    "failed": (FAILED, PAST[:1]),
    "unreached": (UNREACHED, ()),
    "replicated": (REPLICATED, PAST[:1]),
    "clone": (OF_A_CLONE, ()),
}


class Page(html.parser.HTMLParser):
    """What is in a page, by a parser that does not forgive.

    Args:
        text: The page.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag in."""
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag in that ends itself."""
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        """See that the tag that ends is the one that was opened last."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Take text in."""
        if self._open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        """All that is shown."""
        return "".join(self.words)


def spoil(value: Any) -> Any:
    """Return a document with hostile text in the place of every text."""
    if isinstance(value, dict):
        return {key: spoil(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spoil(item) for item in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) else value


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_the_one_that_was_approved(case: str) -> None:
    """Word for word, in all its forms; and the same for the same evidence."""
    evidence, trend = CASES[case]
    files = report.render(evidence, trend)
    assert list(files) == list(report.FILES)
    for name, content in files.items():
        made = content.decode()
        assert made == golden.read(f"{case}-{name}", made=made, directory=GOLDEN)
    assert report.render(json.loads(json.dumps(evidence)), trend) == files


@pytest.mark.parametrize("case", CASES)
def test_the_page_needs_nothing_from_anywhere(case: str) -> None:
    """No script, no link, no picture from outside, and a policy that forbids all that."""
    page = Page(report.render(*CASES[case])[report.HTML].decode())
    assert {"script", "link", "img", "iframe", "object", "form", "a"} & set(page.tags) == set()
    assert [n for n, _ in page.attributes if n.startswith("on") or n in ("src", "href")] == []
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert "url(" not in report.render(*CASES[case])[report.HTML].decode()
    assert page.tags.count("svg") == (2 if CASES[case][1] else 1)


def test_every_check_and_phase_stands_in_every_form() -> None:
    """With its evidence; the trend too."""
    evidence, trend = CASES["passed"]
    files = report.render(evidence, trend)
    page = Page(files[report.HTML].decode())
    shown = files[report.MARKDOWN].decode().replace("\\", "")
    for check in evidence["checks"]:
        for text in (page.text, shown):
            assert check["name"] in text
            assert check["evidence"] in text
    for phase in evidence["phases"]:
        assert f"{phase['name']} · {report.format_seconds(phase['seconds'])}" in page.text
        assert f"| {phase['name']} | done |" in shown
    for past in trend:
        assert past.backup_id in page.text
        assert past.backup_id in shown
    document = json.loads(files[report.JSON])
    assert document["trend"] == [dataclasses.asdict(past) for past in trend]
    assert {key: document[key] for key in evidence} == evidence


def test_what_hosts_and_people_have_named_is_no_markup() -> None:
    """Every text of the evidence shows as it is, and makes no element of its own."""
    evidence, trend = CASES["passed"]
    wrong = spoil({**FAILED, "recovery_point": POINT, "checks": evidence["checks"]})
    named = tuple(report.PastDrill(**spoil(dataclasses.asdict(past))) for past in trend)
    files = report.render(wrong, named)
    clean = report.render({**FAILED, "recovery_point": POINT, "checks": evidence["checks"]}, trend)
    page, other = (Page(found[report.HTML].decode()) for found in (files, clean))
    assert {"script", "img"} & set(page.tags) == set()
    assert sorted(set(page.tags)) == sorted(set(other.tags))
    assert page.text.count(HOSTILE) > 20
    for line in files[report.MARKDOWN].decode().splitlines():
        bare = re.sub(r"\\.", "", line)
        assert "<" not in bare
        assert "[" not in bare


@given(st.text())
def test_markdown_of_any_text_is_one_line_without_cells(text: str) -> None:
    """A table's row stays one row."""
    line = report.escape_markdown(text)
    assert len(line.splitlines()) <= 1
    assert "|" not in re.sub(r"\\.", "", line)


@given(st.text())
def test_a_page_is_made_of_any_text(text: str) -> None:
    """Bytes that are UTF-8, whatever a host has said."""
    files = report.render(make_evidence(set_host=text, error={**ALTERED, "message": text}), PAST)
    for content in files.values():
        content.decode()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "not known"),
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (125.0, "2 min 05 s"),
        (7500.0, "2 h 05 min"),
        (100_000.0, "1 d 03 h"),
        (-3.0, "-3.0 s"),
    ],
)
def test_durations_for_a_reader(seconds: float | None, shown: str) -> None:
    """As a person says them."""
    assert report.format_seconds(seconds) == shown


@pytest.mark.parametrize("width", [browser.DESKTOP, browser.PHONE])
def test_the_page_is_readable_in_a_browser(width: int, tmp_path: Path) -> None:
    """Nobody scrolls sideways, nothing is cut off, letters are large enough, nothing is executed."""
    evidence, trend = CASES["passed"]
    long = {**evidence["checks"][0], "evidence": "x" * 300}
    wrong = {**evidence, "set_host": HOSTILE, "checks": [*evidence["checks"], long]}
    page = report.render(wrong, trend)[report.HTML].decode()
    seen = browser.look(page, width, tmp_path)
    assert seen.width == width == seen.scroll_width
    assert seen.outside == []
    assert seen.smallest >= 12
    assert seen.bars == len(summary.ALWAYS) + len(trend) + 1
    assert HOSTILE in seen.text
    assert not seen.ran


def test_the_plan_of_a_drill_is_read_again() -> None:
    """As the journal stores it; what asks the live host has its name."""
    from orchestrator import models  # noqa: PLC0415 - of this test alone

    plan = make_drill_plan()
    assert models.read_plan(json.loads(json.dumps(models.as_json(plan)))) == plan
    assert (plan.source_host, plan.replicates, plan.is_sibling) == ("master", False, False)
    assert make_drill_plan(live_host="").source_host == "store"
    clone = make_clone_drill_plan(replicate_seconds=5)
    assert models.read_plan(json.loads(json.dumps(models.as_json(clone)))) == clone
    assert (clone.replicates, clone.makes_account, clone.keep) == (False, True, False)
    assert (plan.makes_account, make_drill_plan(replicate_seconds=5).makes_account) == (False, True)
