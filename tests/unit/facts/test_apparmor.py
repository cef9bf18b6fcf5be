"""Rules of AppArmor profiles."""

from __future__ import annotations

import pytest

from orchestrator.facts.apparmor import find_enforced, list_denied


@pytest.mark.parametrize(
    ("rule", "directory"),
    [
        ("/var/lib/mysql/** rwk,", "/var/lib/mysql"),
        ("owner /data/*/** rw,", "/data/a/b"),
        ('"/a disk/{one,t*o}/**" rwk,', "/a disk/two"),
        ("/data/[a-c]/? rw,", "/nowhere"),
        ("@{HOME}/** rw,", "/anywhere"),
        ("/exact/file rw,", "/exact"),
    ],
)
def test_a_rule_that_allows(rule: str, directory: str) -> None:
    """A directory is allowed by a rule that covers its files and lets them be written."""
    denied = list_denied([directory], ["/data/[a-c]/???? rw,", rule])
    assert denied == (("/nowhere",) if directory == "/nowhere" else ())


@pytest.mark.parametrize(
    "rule", ["/data/** r,", "deny /data/** rwk,", "/data/* rw,", "/dat/** rw,", "/data/ rw,", "{"]
)
def test_a_rule_that_does_not_allow(rule: str) -> None:
    """Reading alone, denying, and other or shallower paths allow nothing."""
    assert list_denied(["/data/a"], [rule]) == ("/data/a",)


def test_only_profiles_in_force_count() -> None:
    """A profile in complain mode keeps nobody out."""
    assert find_enforced(["mysqld (complain)"]) == ""
    assert find_enforced(["mysqld (complain)", "/usr/sbin/mariadbd (enforce)"]) == (
        "/usr/sbin/mariadbd"
    )
