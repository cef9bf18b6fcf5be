"""Which tablespaces lost their encryption, and which tables do not open."""

from __future__ import annotations

from orchestrator.facts.instances import Table, Tablespace
from orchestrator.steps.verification import find_unencrypted, list_unopened


def table(label: str) -> Table:
    """Return a table."""
    schema, _, name = label.partition(".")
    return Table(schema=schema, name=name, engine="InnoDB", bytes=100)


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
