"""Which tables are compared, by which statements, and what their output says."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import samples

from orchestrator.errors import VerificationError
from orchestrator.facts.instances import Table
from orchestrator.flavors.mariadb_sql import MariaDBDialect
from orchestrator.steps.comparison import (
    LOOKS,
    Look,
    Verdict,
    checksum_sql,
    choose_tables,
    find_differences,
    judge,
    parse_checksums,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(label: str, engine: str = "InnoDB", size: int = 100) -> Table:
    """Return a table."""
    schema, _, name = label.partition(".")
    return Table(schema=schema, name=name, engine=engine, bytes=size)


DIALECT = MariaDBDialect()
TABLES = (
    table("shop.big", size=1000),
    table("shop.small", size=10),
    table("shop.middle", size=100),
    table("shop.old", "MyISAM"),
    table("shop.aria", "Aria"),
    table("mysql.gtid_slave_pos", size=1),
    table("live.small", size=10),
)


def labels(tables: list[Table]) -> list[str]:
    """Return the names of tables."""
    return [found.label for found in tables]


def test_all_but_what_has_no_snapshot() -> None:
    """All InnoDB tables of users are compared; each other is named with the reason."""
    chosen, left_out = choose_tables(TABLES, "all", sample_bytes=0)
    assert labels(chosen) == ["live.small", "shop.big", "shop.middle", "shop.small"]
    assert left_out == [
        "mysql.gtid_slave_pos (each server's own)",
        "shop.aria (Aria: no consistent snapshot)",
        "shop.old (MyISAM: no consistent snapshot)",
    ]


@pytest.mark.parametrize(
    ("bound", "wanted"),
    [
        (0, []),
        (10, ["live.small"]),
        (20, ["live.small", "shop.small"]),
        (119, ["live.small", "shop.small"]),
        (120, ["live.small", "shop.middle", "shop.small"]),
        (1119, ["live.small", "shop.middle", "shop.small"]),
        (1120, ["live.small", "shop.big", "shop.middle", "shop.small"]),
    ],
)
def test_sample_takes_the_smallest_first(bound: int, wanted: list[str]) -> None:
    """As many tables as fit are compared, and what did not fit is said."""
    chosen, left_out = choose_tables(TABLES, "sample", sample_bytes=bound)
    assert labels(chosen) == wanted
    assert len(chosen) + len(left_out) == len(TABLES)
    assert ("shop.big (not in the sample)" in left_out) is ("shop.big" not in wanted)


def test_none_is_none() -> None:
    """Nothing is compared, and everything is listed."""
    chosen, left_out = choose_tables(TABLES, "none", sample_bytes=10**9)
    assert chosen == []
    assert len(left_out) == len(TABLES)


def test_statements_of_the_donor() -> None:
    """A snapshot, its position, then a checksum for each table, names quoted."""
    tables = [table("shop.orders"), table("we`ird.it's a `table`")]
    assert checksum_sql(tables, {}, begin=DIALECT.snapshot_sql()).splitlines() == [
        "START TRANSACTION WITH CONSISTENT SNAPSHOT;",
        "SHOW STATUS LIKE 'binlog_snapshot_%';",
        "CHECKSUM TABLE `shop`.`orders`;",
        "CHECKSUM TABLE `we``ird`.`it's a ``table```;",
    ]


def test_statements_of_the_replica() -> None:
    """Its position is fixed already, so it needs no snapshot."""
    text = checksum_sql([table("shop.orders")], {})
    assert text == "CHECKSUM TABLE `shop`.`orders`;\n"


def test_table_with_generated_columns_is_summed_row_by_row() -> None:
    """Only its stored columns count, by a statement whose output looks like a checksum's."""
    columns = {("shop", "orders"): ("id", "o`dd"), ("shop", "empty"): ()}
    text = checksum_sql([table("shop.orders"), table("shop.empty")], columns)
    summed, plain = text.splitlines()
    assert "FROM `shop`.`orders`" in summed
    assert "COALESCE(CRC32(`id`), 'N'), COALESCE(CRC32(`o``dd`), 'N')" in summed
    assert "AS `Table`" in summed
    assert "AS `Checksum`" in summed
    assert b"shop.orders".hex() in summed
    assert plain == "CHECKSUM TABLE `shop`.`empty`;"


def test_real_output() -> None:
    """Position and sums from what a server wrote; a table that cannot be read is NULL."""
    text = samples.read("mariadb/checksums")
    file, position = DIALECT.read_snapshot(text)
    sums = dict(parse_checksums(text))
    assert (file, position > 4) == ("bin.000002", True)
    assert list(sums) == [
        "shop.customers",
        "shop.no_such_table",
        'Läden & Söhne 100%.it\'s a "table" ✓',
        "Läden & Söhne 100%.back`tick",
        "shop.order_items",
    ]
    assert sums["shop.no_such_table"] == "NULL"
    assert sums["shop.order_items"].count("/") == 2
    assert sums["shop.customers"].isdecimal()


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\x0bb", "a\rb"])
def test_name_with_what_looks_like_the_end_of_a_line(name: str) -> None:
    """Only a newline ends a row, and one in a name is escaped by the client."""
    sums = parse_checksums(f"Table\tChecksum\ns.{name}\t17\n")
    assert sums == [(f"s.{name}", "17")]


def test_name_with_escapes() -> None:
    """Tabs, newlines and backslashes in names come back."""
    sums = parse_checksums("s.a\\tb\\nc\\\\d\t17\n")
    assert sums == [("s.a\tb\nc\\d", "17")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Table\tChecksum\ns.a\t17\n",
        "Binlog_snapshot_file\tbin.000001\n",
        "Binlog_snapshot_file\t\nBinlog_snapshot_position\t0\n",
        "Binlog_snapshot_position\t17\n",
    ],
)
def test_snapshot_without_its_position(text: str) -> None:
    """What does not say both is no position."""
    assert not all(DIALECT.read_snapshot(text))


def test_error_among_the_output_is_no_checksum() -> None:
    """Words where a sum belongs leave the table without one, so that it counts as different."""
    sums = parse_checksums("s.a\tcorrupt\ns.b\t1/2\ns.c\t-1\ns.d\t3/4/5\n")
    assert sums == [("s.d", "3/4/5")]


def test_tables_that_read_the_same_are_told_apart() -> None:
    """Table c of schema a.b and table b.c of schema a are two tables, and both are compared."""
    tables = [
        Table(schema="a.b", name="c", engine="InnoDB", bytes=1),
        Table(schema="a", name="b.c", engine="InnoDB", bytes=1),
    ]
    theirs = [("a.b.c", "1"), ("a.b.c", "2")]
    assert find_differences(tables, theirs, theirs) == []
    assert find_differences(tables, theirs, [("a.b.c", "1"), ("a.b.c", "3")]) == [
        (tables[1], "2", "3")
    ]


def test_table_without_a_checksum_is_not_equal() -> None:
    """NULL on both sides proves nothing."""
    tables = [table("s.a")]
    assert find_differences(tables, [("s.a", "NULL")], [("s.a", "NULL")])


@pytest.mark.parametrize("answer", [[], [("s.b", "1")], [("s.a", "1"), ("s.b", "1")]])
def test_answers_of_other_tables_are_refused(answer: list[tuple[str, str]]) -> None:
    """A missing, foreign or additional answer is no comparison."""
    with pytest.raises(VerificationError, match="were asked for"):
        find_differences([table("s.a")], [("s.a", "1")], answer)


class Hosts:
    """Two hosts whose tables are looked at; an entry of the script is a look."""

    def __init__(
        self, *looks: dict[str, tuple[str, str]], dropped: str = "", is_idle: bool = False
    ) -> None:
        self.looks = list(looks)
        self.is_idle = is_idle
        self.dropped = dropped
        self.asked: list[list[str]] = []

    def look(self, tables: Sequence[Table]) -> Look:
        """Say what is not equal; the rest is."""
        self.asked.append(labels(list(tables)))
        unequal = self.looks.pop(0)
        return Look(
            at="bin.1:4" if self.is_idle else f"bin.1:{len(self.asked)}",
            unequal=tuple((t, *unequal[t.label]) for t in tables if t.label in unequal),
        )

    def read_tables(self) -> list[Table]:
        """List what is there."""
        return [table(label) for label in ("s.a", "s.b", "s.c") if label != self.dropped]


def is_clean(verdict: Verdict) -> bool:
    """Return whether nothing is left that is not equal."""
    return not (verdict.differ or verdict.unread or verdict.gone)


OVERTAKEN = ("NULL", "17")
DIFFERS = ("17", "18")


def test_equal_at_the_first_look_is_not_looked_at_again() -> None:
    """One look at all."""
    hosts = Hosts({})
    verdict = judge(hosts.read_tables(), hosts.look, hosts.read_tables)
    assert verdict.equal == {"bin.1:1": 3}
    assert is_clean(verdict)


def test_what_was_altered_meanwhile_is_looked_at_again() -> None:
    """Only that, and it is equal at a later position."""
    hosts = Hosts({"s.b": OVERTAKEN}, {"s.b": ("NULL", "NULL")}, {})
    verdict = judge(hosts.read_tables(), hosts.look, hosts.read_tables)
    assert hosts.asked == [["s.a", "s.b", "s.c"], ["s.b"], ["s.b"]]
    assert verdict.equal == {"bin.1:1": 2, "bin.1:2": 0, "bin.1:3": 1}
    assert is_clean(verdict)


def test_looks_at_one_position_add_up() -> None:
    """What is altered outside of the binary log leaves the position as it is."""
    hosts = Hosts({"s.b": OVERTAKEN}, {}, is_idle=True)
    verdict = judge(hosts.read_tables(), hosts.look, hosts.read_tables)
    assert verdict.equal == {"bin.1:4": 3}


def test_a_table_swapped_for_another_is_no_difference() -> None:
    """A snapshot shows what the new one was then; the next one shows what it is."""
    hosts = Hosts({"s.a": DIFFERS, "s.b": OVERTAKEN}, {"s.b": DIFFERS}, {})
    verdict = judge(hosts.read_tables(), hosts.look, hosts.read_tables)
    assert sum(verdict.equal.values()) == 3
    assert is_clean(verdict)


def test_what_differs_twice_differs() -> None:
    """It is named with both sums; what is not there on the replica is a difference too."""
    lost = ("17", "NULL")
    hosts = Hosts({"s.a": DIFFERS, "s.c": lost}, {"s.a": DIFFERS, "s.c": lost})
    verdict = judge(hosts.read_tables(), hosts.look, hosts.read_tables)
    assert verdict.differ == [("s.a", *DIFFERS), ("s.c", *lost)]


def test_a_table_that_was_dropped_is_not_missed() -> None:
    """It is named as not compared."""
    hosts = Hosts({"s.c": ("NULL", "NULL")}, dropped="s.c")
    tables = [*hosts.read_tables(), table("s.c")]
    verdict = judge(tables, hosts.look, hosts.read_tables)
    assert (verdict.gone, verdict.equal) == (["s.c"], {"bin.1:1": 2})
    assert is_clean(dataclasses.replace(verdict, gone=[]))


def test_a_table_that_no_snapshot_holds_is_named() -> None:
    """It is neither called equal nor different, and there is an end of looking."""
    hosts = Hosts(*[{"s.b": OVERTAKEN}] * (LOOKS + 1))
    verdict = judge(hosts.read_tables(), hosts.look, hosts.read_tables)
    assert (verdict.unread, verdict.differ, len(hosts.asked)) == (["s.b"], [], LOOKS)
