"""Sums of tables in a manifest: recorded where they are certain, compared where they were recorded."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from drilled import make_drill_plan
from fake_remote import FakeRemote
from stored_runs import make_backup_plan

from orchestrator import config as config_module
from orchestrator.errors import CommandError, HostUnreachableError, VerificationError
from orchestrator.facts import changes, instances
from orchestrator.facts.changes import Changes
from orchestrator.facts.instances import Table
from orchestrator.models import BackupPlan, Coordinates
from orchestrator.remote import Result
from orchestrator.repository.manifest import TableChecksum
from orchestrator.steps import checksums, fetch, recorded_sums
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from fake_remote import Call

RUN = "20261121T210500Z-store-1d4e77c0"
PLAN: BackupPlan = dataclasses.replace(make_backup_plan(RUN), checksums="all")
INFO = "binlog_pos = filename 'bin.000002', position '700', GTID of the last change '0-11-7'\n"
PLACE = Coordinates(file="bin.000002", position=700, gtid="0-11-7")
KEPT = f"{PLAN.run_dir}/checksums.1.json"
TABLES = tuple(
    Table(schema="shop", name=name, engine=engine, bytes=1)
    for name, engine in (
        ("audit", "InnoDB"),
        ("old", "Aria"),
        ("orders", "InnoDB"),
        ("x", "InnoDB"),
    )
)
SUMS = "Binlog_snapshot_file\tbin.000002\nBinlog_snapshot_position\t900\nxbvault_sums\n\n"
RECORDED = (
    TableChecksum(schema="shop", name="orders", checksum="17"),
    TableChecksum(schema="shop", name="x", checksum="1/2/3"),
)


@dataclasses.dataclass
class Donor:
    """What a donor tells.

    Attributes:
        unlogged: Why its log does not tell of every write.
        written: Which tables were written, one answer for each question.
        values: Sums by table.
        asked: The stretches of the log that were asked for, as positions.
    """

    written: list[Changes]
    unlogged: str = ""
    values: dict[str, str] = dataclasses.field(
        default_factory=lambda: {"audit": "5", "orders": "17", "x": "NULL"}
    )
    asked: list[tuple[int, int]] = dataclasses.field(default_factory=list)


@pytest.fixture
def donor(monkeypatch: pytest.MonkeyPatch) -> Donor:
    """A donor on which the table audit was written before the snapshot."""
    found = Donor(written=[Changes(tables=frozenset({("shop", "audit")})), Changes()])

    def read_changes(*arguments: Any, **_options: Any) -> Changes:
        begin, end = arguments[4]
        found.asked.append((begin.position, end.position))
        return found.written[len(found.asked) - 1]

    now = Coordinates(file="bin.000002", position=800)
    monkeypatch.setattr(changes, "find_unlogged", lambda *_: found.unlogged)
    monkeypatch.setattr(changes, "read_end", lambda *_: now)
    monkeypatch.setattr(changes, "read_changes", read_changes)
    monkeypatch.setattr(instances, "read_tables", lambda *_: TABLES)
    monkeypatch.setattr(instances, "read_base_columns", lambda *_: {})
    return found


def make_tools(donor: Donor | None = None) -> Tools:
    """Return doors to a donor, or a store, and to a recipient."""
    config = config_module.parse(
        {
            "hosts": {
                name: {"flavor": "mariadb", "vault_mount": name} for name in ("db1", "replica")
            },
            "repositories": {"store": {"path": "/srv/backups"}},
        }
    )
    values = donor.values if donor else {}

    def answer(call: Call) -> Result:
        text = call.stdin.decode()
        lines = [f"shop.{n}\t{v}\n" for n, v in values.items() if f"`shop`.`{n}`" in text]
        head = SUMS if "SNAPSHOT" in text else ""
        return Result(status=0, stdout=f"{head}{''.join(lines)}".encode(), stderr="")

    remote = FakeRemote("db1", answers={("mariadb", "--batch"): answer})
    remote.answer("install")
    remote.answer("cat", "--", f"{PLAN.run_dir}/information/xtrabackup_info", stdout=INFO)
    remote.answers["cat",] = lambda call: Result(
        status=0 if call.argv[-1] in remote.files else 1,
        stdout=remote.files.get(call.argv[-1], b""),
        stderr="",
    )
    return Tools(
        config=config, vault=cast("Any", None), donor=remote, recipient=FakeRemote("replica")
    )


def read_kept(tools: Tools) -> Any:
    """Return what stands on the donor for the manifest."""
    return json.loads(cast("FakeRemote", tools.donor).files[KEPT])


# --- sum-up-tables ---


def test_what_was_not_written_is_summed_up_and_recorded(donor: Donor) -> None:
    """The log is read to the snapshot, in two stretches; what is left out has its reason."""
    tools = make_tools(donor)
    found = checksums.sum_up_tables(tools, PLAN)
    assert donor.asked == [(700, 800), (800, 900)]
    assert (found.recorded, found.position, found.reason) == (1, "bin.000002:900", "")
    assert found.left_out == (
        "shop.audit (written since the backup)",
        "shop.old (Aria: no consistent snapshot)",
        "shop.x (not read)",
    )
    (check,) = found.checks
    assert (check.name, check.ok) == ("tables-summed", True)
    assert check.evidence.startswith("1 tables summed up at bin.000002:900; left out: shop.audit")
    assert recorded_sums.read_sums(tools, PLAN, PLACE) == RECORDED[:1]
    (script,) = [
        call.stdin.decode()
        for call in cast("FakeRemote", tools.donor).ran("mariadb")
        if b"CHECKSUM" in call.stdin
    ]
    assert "`audit`" not in script


def test_repeated_it_sums_up_again(donor: Donor) -> None:
    """From a later snapshot; what is recorded then takes the place of the earlier."""
    tools = make_tools(donor)
    checksums.sum_up_tables(tools, PLAN)
    donor.asked.clear()
    donor.written[1] = Changes(tables=frozenset({("shop", "orders")}))
    found = checksums.sum_up_tables(tools, PLAN)
    assert (found.recorded, found.checks) == (0, ())
    assert found.reason == "no table is left that was not written since the backup"
    assert recorded_sums.read_sums(tools, PLAN, PLACE) == ()


def test_without_being_asked_it_asks_nothing() -> None:
    """And the manifest has none."""
    tools = make_tools()
    plan = dataclasses.replace(PLAN, checksums="none")
    found = checksums.sum_up_tables(tools, plan)
    assert (found.recorded, found.reason, found.checks) == (0, "", ())
    assert cast("FakeRemote", tools.donor).calls == []
    assert recorded_sums.read_sums(tools, plan, PLACE) == ()


@pytest.mark.parametrize("stretch", [0, 1])
def test_what_the_log_cannot_tell_is_not_recorded(donor: Donor, stretch: int) -> None:
    """Not one table, and no check is called good; the backup goes on."""
    donor.written[stretch] = Changes(problem="a statement stands at bin.000002:710")
    tools = make_tools(donor)
    found = checksums.sum_up_tables(tools, PLAN)
    assert (found.recorded, found.checks) == (0, ())
    assert found.reason == "a statement stands at bin.000002:710"
    assert read_kept(tools)["tables"] == []


def test_a_donor_that_logs_not_all_or_does_not_answer_as_asked(donor: Donor) -> None:
    """Says why nothing is recorded."""
    donor.unlogged = "the donor writes no binary log"
    assert checksums.sum_up_tables(make_tools(donor), PLAN).reason == donor.unlogged
    donor.unlogged = ""
    donor.values = {}
    assert "2 sums were asked for" in checksums.sum_up_tables(make_tools(donor), PLAN).reason
    donor.asked.clear()
    tools = make_tools(donor)
    cast("FakeRemote", tools.donor).answers["mariadb", "--batch"] = CommandError("ERROR 1205")
    assert checksums.sum_up_tables(tools, PLAN).reason == "ERROR 1205"


def test_a_donor_that_is_gone_ends_the_step(donor: Donor) -> None:
    """It is tried again then, and nothing false is said."""
    tools = make_tools(donor)
    cast("FakeRemote", tools.donor).answers["mariadb", "--batch"] = HostUnreachableError("gone")
    with pytest.raises(HostUnreachableError):
        checksums.sum_up_tables(tools, PLAN)


def test_sums_of_another_set_or_none_do_not_come_into_a_manifest(donor: Donor) -> None:
    """They belong to the coordinates that they were made for."""
    tools = make_tools(donor)
    with pytest.raises(VerificationError, match="not there any more"):
        recorded_sums.read_sums(tools, PLAN, PLACE)
    checksums.sum_up_tables(tools, PLAN)
    with pytest.raises(VerificationError, match="other coordinates"):
        recorded_sums.read_sums(tools, PLAN, dataclasses.replace(PLACE, position=701))
    assert recorded_sums.read_sums(dataclasses.replace(tools), PLAN, PLACE)
    with pytest.raises(VerificationError, match="not there any more"):
        recorded_sums.read_sums(dataclasses.replace(tools, attempt=2), PLAN, PLACE)


# --- compare-recorded-tables ---


@dataclasses.dataclass(frozen=True)
class Document:
    """A manifest with sums."""

    checksums: tuple[TableChecksum, ...]


def compare(
    monkeypatch: pytest.MonkeyPatch,
    recorded: tuple[TableChecksum, ...],
    restored: dict[str, str],
    tables: tuple[Table, ...] = TABLES,
) -> checksums.ComparedTables:
    """Compare a restored server with a manifest, in batches of one table."""
    monkeypatch.setattr(fetch, "need_chain", lambda *_: (Document(recorded),))
    monkeypatch.setattr(instances, "read_tables", lambda *_: tables)
    monkeypatch.setattr(instances, "read_base_columns", lambda *_: {})
    monkeypatch.setattr(checksums, "BATCH", 1)
    made = make_tools(Donor(written=[], values=restored))
    tools = dataclasses.replace(made, donor=made.recipient, recipient=made.donor)
    return checksums.compare_recorded_tables(tools, make_drill_plan())


def test_every_recorded_table_is_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are not asked for; and again."""
    for _ in range(2):
        found = compare(monkeypatch, RECORDED, {"orders": "17", "x": "1/2/3"})
        assert (found.recorded, found.compared, found.reason) == (2, 2, "")
        assert [(check.name, check.ok) for check in found.checks] == [("tables-equal", True)]


def test_a_set_without_sums_has_nothing_called_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to do."""
    found = compare(monkeypatch, (), {})
    assert found.checks == ()
    assert found.reason == "not recorded: `xbvault backup --checksums`"


@pytest.mark.parametrize(
    ("restored", "tables", "words"),
    [
        ({"orders": "18", "x": "1/2/3"}, TABLES, "shop.orders: backed up 17, restored 18"),
        ({"orders": "NULL", "x": "1/2/3"}, TABLES, "shop.orders: backed up 17, restored NULL"),
        ({"x": "1/2/3"}, (TABLES[3],), "shop.orders: backed up 17, restored missing"),
    ],
)
def test_a_table_that_differs_or_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
    restored: dict[str, str],
    tables: tuple[Table, ...],
    words: str,
) -> None:
    """With both sums."""
    with pytest.raises(VerificationError, match=r"1 of 2 tables differ .*: shop\.orders") as caught:
        compare(monkeypatch, RECORDED, restored, tables)
    assert list(caught.value.problems) == [words]


def test_a_server_that_answers_less_than_was_asked_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No sum is not an equal one."""
    with pytest.raises(VerificationError, match="1 sums were asked for, and 0 were answered"):
        compare(monkeypatch, RECORDED, {})
