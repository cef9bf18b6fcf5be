"""Preflight of a donor that is a replica itself: cloned as a child, and as a sibling."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from surveys import REQUEST, change, make_account, make_host, make_instance, make_survey

from orchestrator import config as config_module
from orchestrator.errors import OrchestratorError
from orchestrator.facts import preflight
from orchestrator.facts.survey import HostSurvey, Survey, UpstreamSurvey
from orchestrator.flavors.interface import ReplicationStatus
from orchestrator.privileges import database

if TYPE_CHECKING:
    from orchestrator.models import Check

CONFIG = config_module.parse(
    {
        "vault": {"address": "https://vault.example:8200"},
        "hosts": {
            f"db{number}": {"address": f"192.0.2.{number}", "vault_mount": f"keys/db{number}"}
            for number in (1, 2, 9)
        },
    }
)
SIBLING = dataclasses.replace(REQUEST, source="db9")
STATUS = ReplicationStatus(
    host="192.0.2.9",
    port="3306",
    user="xbvault_1",
    io="Yes",
    sql="Yes",
    io_errno="0",
    io_error="",
    sql_error="",
    seconds_behind=0,
    uses_gtid=True,
    uses_tls=True,
    applied_file="bin.000002",
    applied_position="157",
    source_id="9",
)
LOGS = {"log_slave_updates": "ON"}
QUIET = (*database.DONOR, *database.MARIADB.quiet)


def make_replica(
    *statuses: ReplicationStatus, variables: dict[str, str] = LOGS, **changes: Any
) -> Survey:
    """Return a good survey whose donor replicates; for a sibling, from db9."""
    instance = make_instance("1", variables=variables, is_replica=True, sources=statuses)
    survey = change(
        make_survey(), "donor", instance=instance, account=make_account("xbvault_donor", QUIET)
    )
    source = HostSurvey(
        host=make_host("db9"),
        instance=make_instance("9"),
        token=None,
        peer_address="192.0.2.2",
        errors=(),
        account=make_account("xbvault_donor", database.MARIADB.source),
    )
    return dataclasses.replace(
        survey,
        source=source,
        upstream=UpstreamSurvey(donor_address="192.0.2.9", source_address="192.0.2.9", **changes),
    )


def as_child(survey: Survey) -> Survey:
    """Return the survey as it is without --source."""
    return dataclasses.replace(survey, source=None, upstream=None)


def find(
    survey: Survey, request: preflight.Request = SIBLING, *, good: bool = False
) -> dict[str, Check]:
    """Return the findings by name that do not hold, or with `good` those that do."""
    checks = preflight.judge(survey, CONFIG, request)
    return {check.name: check for check in checks if check.ok is good}


def status(**changes: Any) -> ReplicationStatus:
    """Return the state of a donor's replication with something changed."""
    return dataclasses.replace(STATUS, **changes)


def test_a_good_sibling_is_asked_for_all_of_it() -> None:
    """Nothing is bad, and what a replica needs of its source is asked of the source alone."""
    survey = make_replica(STATUS)
    assert find(survey) == {}
    found = preflight.judge(survey, CONFIG, SIBLING)
    asked = {(check.name, check.host) for check in found}
    assert asked >= {
        ("donor-replication", "db1"),
        ("source-running", "db9"),
        ("source-privileges", "db9"),
        ("source-followed", "db9"),
        ("source-binlog", "db9"),
        ("binlog-retention", "db9"),
        ("name-resolution", "db9"),
        ("source-reachable", "db2"),
        ("host-readable", "db9"),
    }
    assert not {name for name, host in asked if host == "db1"} & {
        "donor-binlog",
        "binlog-retention",
        "name-resolution",
        "donor-logs-updates",
    }


def test_a_good_child() -> None:
    """A donor that logs what it applies can be followed itself."""
    survey = as_child(make_replica(STATUS))
    assert find(survey, REQUEST) == {}
    assert {"donor-replication", "donor-logs-updates", "source-writable"} <= set(
        find(survey, REQUEST, good=True)
    )


@pytest.mark.parametrize(
    ("survey", "name", "words"),
    [
        (make_replica(), "donor-replication", "from nobody"),
        (make_replica(STATUS, status(channel="b")), "donor-replication", "2 sources"),
        (make_replica(status(sql="No", sql_error="HA_ERR")), "donor-replication", "HA_ERR"),
        (make_replica(status(io="No")), "donor-replication", "is stopped"),
        (make_replica(status(host="192.0.2.7", source_id="7")), "source-followed", "192.0.2.7"),
        (make_replica(status(port="3307")), "source-followed", "3307"),
        (make_replica(status(source_id="8")), "source-followed", "server_id 8"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_donor_that_cannot_have_a_sibling(survey: Survey, name: str, words: str) -> None:
    """No source, several, stopped replication, and another source than the one named are refused."""
    if name == "source-followed" and "192.0.2.7" in words:
        survey = change(survey, "upstream", donor_address="192.0.2.7")
    bad = find(survey)
    assert list(bad) == [name]
    assert words in bad[name].evidence
    assert bad[name].hint


def test_the_source_under_another_name() -> None:
    """An alias that the donor resolves to the source's address is the source."""
    assert find(make_replica(status(host="db-master.example"))) == {}


def test_a_uuid_tells_the_source_whatever_its_address() -> None:
    """A server_uuid is proof, both ways."""
    known = {"server_uuid": "c14d6d67-e5fb-11f1-a307-1a083b08fc0d"}
    survey = make_replica(status(host="proxy", source_uuid=known["server_uuid"]))
    survey = change(survey, "source", instance=make_instance("9", variables=known))
    survey = change(survey, "upstream", donor_address="192.0.2.77")
    assert find(survey) == {}
    other = change(survey, "source.instance", variables={**known, "server_uuid": "other"})
    assert "source-followed" in find(other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seconds_behind": 1800}, "1800 s behind"),
        ({"delay_seconds": 3600}, "delayed by 3600 s"),
        ({"io": "Connecting", "io_error": "Host is down"}, "Host is down"),
    ],
)
def test_a_donor_that_lags_is_told_and_not_refused(changes: dict[str, Any], words: str) -> None:
    """Lag, a delay on purpose and a broken connection stand in the evidence."""
    survey = make_replica(status(**changes))
    assert find(survey) == {}
    assert words in find(survey, good=True)["donor-replication"].evidence


def test_lag_counts_for_the_binary_logs() -> None:
    """The sibling begins where the donor is, so the source must still have that."""
    assert "binlog-retention" in find(make_replica(status(seconds_behind=604_000)))


@pytest.mark.parametrize(
    ("coordinates", "uses_gtid", "ok"),
    [
        ("gtid", True, True),
        ("position", False, True),
        ("gtid", False, False),
        ("position", True, False),
    ],
)
def test_a_sibling_goes_on_as_its_donor(coordinates: str, *, uses_gtid: bool, ok: bool) -> None:
    """The set tells a position of one kind only."""
    request = dataclasses.replace(SIBLING, coordinates=coordinates)
    bad = find(make_replica(status(uses_gtid=uses_gtid)), request)
    assert ("donor-replication" not in bad) is ok


@pytest.mark.parametrize(
    ("part", "changes", "name"),
    [
        ("connection", {"refusal": "ERROR 2002 (HY000): Can't connect"}, "source-reachable"),
        ("connection", {"distrust": "ERROR 2026 (HY000): TLS/SSL error"}, "source-certificate"),
        ("source", {"account": make_account("x", database.READING)}, "source-privileges"),
        ("source", {"instance": None, "account": None}, "source-running"),
        ("source", {"instance": make_instance("9", variables={"log_bin": "OFF"})}, "source-binlog"),
        ("source", {"peer_address": ""}, "name-resolution"),
        (
            "source",
            {"instance": make_instance("9", variables={"have_ssl": "DISABLED"})},
            "source-tls",
        ),
        (
            "source",
            {"instance": make_instance("9", variables={"binlog_expire_logs_seconds": "60"})},
            "binlog-retention",
        ),
        (
            "source",
            {
                "instance": make_instance(
                    "9", variables={"log_slave_updates": "OFF"}, sources=(STATUS,)
                )
            },
            "source-logs-updates",
        ),
        ("recipient", {"host": make_host("db2", options={"server_id": "9"})}, "server-ids"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_source_that_cannot_be_followed(part: str, changes: dict[str, Any], name: str) -> None:
    """What is wrong with the source is found on the source."""
    assert name in find(change(make_replica(STATUS), part, **changes))


def test_a_source_that_cannot_be_read() -> None:
    """A source that does not answer is told like any other host."""
    error = OrchestratorError("no route to host", host="db9")
    survey = change(make_replica(STATUS), "source", host=None, instance=None, errors=(error,))
    assert find(survey)["host-readable"].host == "db9"
    assert error in survey.errors


def test_a_child_needs_a_donor_that_logs_what_it_applies() -> None:
    """Without that the donor's binary log has nothing to follow; the hint names the way out."""
    bad = find(as_child(make_replica(STATUS, variables={"log_slave_updates": "OFF"})), REQUEST)
    assert list(bad) == ["donor-logs-updates"]
    assert "--source" in bad["donor-logs-updates"].hint


def test_a_former_replica_is_a_donor_like_any_other() -> None:
    """Who is no replica any more, but was not told to forget it, need not log what it applies."""
    former = status(io="No", sql="No")
    survey = as_child(make_replica(former, variables={"log_slave_updates": "OFF"}))
    survey = change(survey, "donor", account=make_account("xbvault_donor", database.DONOR))
    assert find(survey, REQUEST) == {}


def test_an_account_on_a_replica_needs_more() -> None:
    """The donor takes no writes, and the account stays out of its binary log."""
    survey = as_child(make_replica(STATUS))
    survey = change(survey, "donor", account=make_account("xbvault_donor", database.DONOR))
    lacking = find(survey, REQUEST)["donor-privileges"]
    assert "READ_ONLY ADMIN" in lacking.hint
    assert "BINLOG ADMIN" in lacking.hint


def test_nothing_can_be_made_on_a_server_that_takes_no_writes_at_all() -> None:
    """super_read_only stops even our account."""
    survey = as_child(make_replica(STATUS, variables={**LOGS, "super_read_only": "ON"}))
    assert list(find(survey, REQUEST)) == ["source-writable"]
