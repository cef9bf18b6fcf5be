"""Which ways there are."""

from __future__ import annotations

from benchmark import registry, ways


def names(flavor: str, *wanted: str, cold: bool | None = False) -> list[str]:
    """Return the names of the ways that are chosen."""
    assert ways.__all__
    return [way.name for way in registry.choose_ways(flavor, wanted, cold=cold)]


def test_ways_come_in_the_order_of_the_table() -> None:
    """The product first, then the floor that it is compared with; the limits last."""
    assert names("mariadb")[:2] == ["ours", "bare"]
    assert names("mariadb")[-3:] == ["limit-read", "limit-wire", "limit-write"]


def test_a_flavor_has_the_peers_of_its_own() -> None:
    """MariaDB's state transfer and re-encryption there, MySQL's plugin here."""
    only_mariadb = set(names("mariadb")) - set(names("mysql"))
    assert only_mariadb == {"sst", "mydumper", "re-encryption"}
    assert set(names("mysql")) - set(names("mariadb")) == {"clone-plugin"}


def test_the_cold_ones_are_added_when_asked_for() -> None:
    """With a name of their own, so that no median mixes both, and in the first rounds only."""
    assert names("mariadb", "ours", "dump", cold=True) == ["ours", "dump", "ours-cold"]
    found = {way.name: way for way in registry.choose_ways("mariadb", ("bare",), cold=True)}
    assert not found["bare"].is_cold
    assert not found["bare"].is_slow
    assert found["bare-cold"].is_cold
    assert found["bare-cold"].is_slow
    assert found["bare-cold"].label.endswith(", page cache dropped")


def test_what_is_named_is_what_is_measured() -> None:
    """Cold ones by their own name, too; where nothing is named, all, unless the cold are refused."""
    assert names("mariadb", "ours", "bare-cold", cold=None) == ["ours", "bare-cold"]
    assert names("mariadb", "ours-cold", "seeds-cold", cold=None) == ["ours-cold", "seeds-cold"]
    assert names("mariadb", cold=None)[-3:] == ["ours-cold", "bare-cold", "seeds-cold"]
    assert names("mariadb", "ours", "ours-cold", cold=False) == ["ours"]


def test_every_way_can_be_named() -> None:
    """Those of all flavors, warm and cold."""
    there = registry.list_names()
    assert set(names("mariadb", cold=True)) | set(names("mysql", cold=True)) == set(there)
    assert len(there) == len(set(there))


def test_three_recipients_are_there_for_the_ways_that_need_them() -> None:
    """Both of them, so that one laboratory has both."""
    found = registry.choose_ways("mysql", ("three-at-once", "three-in-turn", "ours"))
    assert [way.recipients for way in found] == [1, 3, 3]
