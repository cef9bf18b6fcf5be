"""Which tables are compared, by which statements, and what their output says."""

from __future__ import annotations

import pytest
import samples

from orchestrator.errors import VerificationError
from orchestrator.facts.instances import Table, Tablespace
from orchestrator.flavors.mariadb_sql import MariaDBDialect
from orchestrator.steps.comparison import (
    checksum_sql,
    choose_tables,
    find_differences,
    parse_checksums,
)
from orchestrator.steps.verification import find_unencrypted, list_unopened


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
        ("a.b.c", "2", "3")
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


def spaces(*names: str) -> list[Tablespace]:
    """Return encrypted tablespaces."""
    return [
        Tablespace(name=name, key_id="1", min_key_version=1, is_rotating=False) for name in names
    ]


def test_tablespace_that_lost_its_encryption() -> None:
    """Names are InnoDB's own, so that partitions and odd names are compared as well."""
    odd, part = "x@0027@003b/a@0020b", "shop/parts#P#p0"
    theirs = spaces("shop/a", odd, part, "shop/made_since", "innodb_temporary")
    present = frozenset({"shop/a", odd, part, "innodb_temporary", "shop/plain"})
    assert find_unencrypted(theirs, spaces("shop/a"), present) == sorted([odd, part])
    assert find_unencrypted(theirs, spaces("shop/a", odd, part), present) == []


def test_tables_that_do_not_open_are_named_by_their_line() -> None:
    """Whatever else the client says; and words of its own are kept where no line is named."""
    tables = (table("a.b"), table("c.d"))
    said = (
        "ERROR 1932 (42S02) at line 2: Table 'c.d' doesn't exist in engine\nERROR 1 at line 77: x"
    )
    assert list_unopened(tables, 1, said) == ["c.d"]
    assert list_unopened(tables, 1, "ERROR 2002 (HY000): Can't connect\n") == [
        "ERROR 2002 (HY000): Can't connect"
    ]
    assert list_unopened(tables, 1, "") == ["unknown"]
    assert list_unopened(tables, 0, "") == []
