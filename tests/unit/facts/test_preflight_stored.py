"""Preflight of stored backups and their restores: good surveys, and one thing bad at a time."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
import stored_sets
import surveys
from surveys import change, make_account, make_host, make_survey

from orchestrator import config as config_module
from orchestrator.errors import HostUnreachableError, SecretStoreUnavailableError
from orchestrator.facts import preflight, stores
from orchestrator.facts.bases import Base
from orchestrator.facts.preflight import Request
from orchestrator.facts.survey import HostSurvey, Survey, needed_for_restore
from orchestrator.facts.ways import Way
from orchestrator.flavors.interface import DONOR_PROGRAMS, RESTORE_PROGRAMS, STORE_PROGRAMS
from orchestrator.lock import LockState
from orchestrator.models import BACKUP, RESTORE, BaseSet, Coordinates
from orchestrator.privileges.database import MARIADB
from orchestrator.repository.sets import judge_folder

if TYPE_CHECKING:
    from orchestrator.models import Check
    from orchestrator.repository.manifest import Manifest

TABLES: dict[str, Any] = {
    "vault": {"address": "https://vault.example:8200"},
    "hosts": {
        "db1": {"address": "192.0.2.1", "vault_mount": "keys/db1"},
        "db2": {"address": "192.0.2.2", "vault_mount": "keys/db2"},
    },
    "repositories": {"store": {"address": "192.0.2.3", "path": "/srv/xbvault"}},
}
CONFIG = config_module.parse(TABLES)
BACKUP_REQUEST = Request(
    form=BACKUP,
    donor="db1",
    recipient="store",
    run_id="20261121T210500Z-store-1d4e77c0",
    backup_id=stored_sets.BACKUP_ID,
    replace=False,
    require_encryption=True,
)
RESTORE_REQUEST = Request(
    form=RESTORE,
    donor="store",
    recipient="db2",
    run_id="20261121T210500Z-db2-1d4e77c0",
    backup_id=stored_sets.BACKUP_ID,
    replace=False,
    require_encryption=False,
    set_host="db1",
    flavor="mariadb",
)
WAY = Way(address="192.0.2.3", port=22)
FREE = LockState(run="", holder="", fence=3, live=False, changed_by="", changed_fence=0)


def make_store(**changes: Any) -> HostSurvey:
    """Return what the host of a repository tells, with everything as it must be."""
    programs = {name: f"/usr/bin/{name}" for name in (*STORE_PROGRAMS, *DONOR_PROGRAMS)}
    facts: dict[str, Any] = {
        "programs": programs,
        "server_version": "",
        "tool_version": "",
        "options": {},
        "datadir": "/srv/xbvault",
        "real_datadir": "/srv/xbvault",
    }
    host = make_host("store", **(facts | changes))
    return HostSurvey(host=host, instance=None, token=None, peer_address="", errors=())


def make_backup_survey() -> Survey:
    """Return a survey in which a stored backup can begin."""
    made = make_survey()
    assert made.donor.host is not None
    programs = {**made.donor.host.programs, "age": "/usr/bin/age"}
    made = change(made, "donor.host", programs=programs)
    made = change(made, "donor", account=make_account("xbvault_donor", MARIADB.backup))
    needed = stores.needed_capabilities(CONFIG, "db1", "store", BACKUP_REQUEST.backup_id)
    made = change(
        made,
        "vault",
        capabilities=needed,
        kv_versions={"xbvault": 2, "keys/db1": 2},
        host_tokens={},
        host_capabilities={},
    )
    return dataclasses.replace(
        made, recipient=make_store(), lock=FREE, way=WAY, arriving=None, connection=None
    )


def make_restore_survey() -> Survey:
    """Return a survey in which a restore can begin."""
    made = make_survey()
    assert made.recipient.host is not None
    more = {name: f"/usr/bin/{name}" for name in (*RESTORE_PROGRAMS, "zstd")}
    made = change(made, "recipient.host", programs=made.recipient.host.programs | more)
    needed = needed_for_restore(CONFIG, "db2", RESTORE_REQUEST.run_id, RESTORE_REQUEST.backup_id)
    vault = made.vault
    made = change(
        made,
        "vault",
        capabilities=needed,
        kv_versions={"xbvault": 2, "keys/db2": 2},
        host_tokens={"db2": vault.host_tokens["db2"]},
        host_capabilities={"db2": vault.host_capabilities["db2"]},
        donor_key_ids=(),
    )
    return dataclasses.replace(
        made, donor=make_store(), lock=FREE, way=WAY, arriving=None, connection=None
    )


def judge_backup(survey: Survey, **changes: Any) -> tuple[Check, ...]:
    """Judge a survey for a stored backup, with something in the request changed."""
    return preflight.judge_backup(survey, CONFIG, dataclasses.replace(BACKUP_REQUEST, **changes))


def judge_restore(
    survey: Survey, document: Manifest | None = None, key_problem: str = "", **changes: Any
) -> tuple[Check, ...]:
    """Judge a survey for a restore, with something in set or request changed."""
    document = document or stored_sets.make_manifest(server_version="10.11.19")
    return preflight.judge_restore(
        survey,
        CONFIG,
        dataclasses.replace(RESTORE_REQUEST, **changes),
        document=document,
        report=judge_folder(stored_sets.make_folder(document)),
        key_problem=key_problem,
    )


def bad(checks: tuple[Check, ...]) -> list[tuple[str, str]]:
    """Return name and host of the findings that do not hold; each says what to do."""
    found = [check for check in checks if not check.ok]
    assert all(check.hint for check in found)
    return [(check.name, check.host) for check in found]


def without(host: str, survey: Survey, program: str) -> Survey:
    """Return a survey in which a program is missing on a side."""
    side = getattr(survey, host).host
    left = {name: path for name, path in side.programs.items() if name != program}
    return change(survey, f"{host}.host", programs=left)


def test_a_good_backup_has_no_bad_finding() -> None:
    """And asks for nothing that only a replica needs."""
    checks = judge_backup(make_backup_survey())
    assert bad(checks) == []
    names = {check.name for check in checks}
    assert {"repository", "space", "receiver", "donor-binlog", "vault-donor-keys"} <= names
    assert not {"donor-tls", "name-resolution", "recipient-datadir", "server-ids"} & names


def test_an_account_that_can_make_no_other_is_enough_for_a_backup() -> None:
    """No replica will need one."""
    assert "CREATE USER" not in MARIADB.backup
    survey = change(
        make_backup_survey(),
        "donor",
        account=make_account("xbvault_donor", MARIADB.backup, without="RELOAD"),
    )
    assert bad(judge_backup(survey)) == [("donor-privileges", "db1")]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"datadir_inode": 0}, [("repository", "store")]),
        ({"is_symlink": True}, [("repository", "store")]),
        ({"parent_free_bytes": 1_000_000_000}, [("space", "store")]),
        ({"receiver_sha256": ""}, [("receiver", "store")]),
        ({"principals": ()}, [("receiver", "store")]),
        ({"sshd": {}}, [("ssh-keepalive", "store")]),
        ({"clock_offset_seconds": 60.0}, [("clocks", "")]),
    ],
)
def test_what_is_wrong_with_a_repository(
    changes: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    """Each by itself, and named with its host."""
    survey = dataclasses.replace(make_backup_survey(), recipient=make_store(**changes))
    assert bad(judge_backup(survey)) == found


@pytest.mark.parametrize(
    ("side", "program", "host"),
    [("donor", "age", "db1"), ("recipient", "perl", "store"), ("recipient", "pv", "store")],
)
def test_a_program_that_a_backup_needs(side: str, program: str, host: str) -> None:
    """Of the donor and of the repository's host."""
    assert bad(judge_backup(without(side, make_backup_survey(), program))) == [("programs", host)]


def test_zstd_is_needed_on_the_donor_alone_for_a_backup() -> None:
    """A repository stores what comes."""
    survey = make_backup_survey()
    assert bad(judge_backup(survey, compress="zstd:3")) == []
    checks = judge_backup(without("donor", survey, "zstd"), compress="zstd:3")
    assert bad(checks) == [("compression", "")]


def test_a_backup_of_a_host_that_another_run_backs_up() -> None:
    """The lock is for the backups of this one donor."""
    held = dataclasses.replace(FREE, run="r2", holder="j", live=True)
    checks = judge_backup(dataclasses.replace(make_backup_survey(), lock=held))
    assert bad(checks) == [("recipient-lock", "store")]


def test_a_backup_without_vault_or_host() -> None:
    """What cannot be read is a finding, and the others are told as well."""
    error = SecretStoreUnavailableError("Vault is sealed", hint="unseal it")
    survey = change(make_backup_survey(), "vault", errors=(error,), token=None)
    assert bad(judge_backup(survey)) == [("vault-readable", "")]
    gone = HostUnreachableError("no answer", hint="look at it")
    side = HostSurvey(host=None, instance=None, token=None, peer_address="", errors=(gone,))
    survey = dataclasses.replace(make_backup_survey(), recipient=side, lock=None, way=None)
    assert bad(judge_backup(survey)) == [("host-readable", "store")]


def test_rights_that_a_backup_lacks() -> None:
    """Named by the path as the policy has it."""
    survey = make_backup_survey()
    kept = {k: v for k, v in survey.vault.capabilities.items() if "backups/deployment" not in k}
    (check,) = (c for c in judge_backup(change(survey, "vault", capabilities=kept)) if not c.ok)
    assert check.name == "vault-capabilities"
    assert "xbvault/data/backups/deployment" in check.evidence


@pytest.mark.parametrize(
    ("changes", "problem", "found"),
    [
        ({}, "", []),
        ({"server_version": "10.11.18"}, "", [("base-set", "db1")]),
        ({}, "no such place", [("base-position", "db1")]),
    ],
)
def test_what_an_incremental_backup_builds_on(
    changes: dict[str, Any], problem: str, found: list[tuple[str, str]]
) -> None:
    """A set of the same version, of the same server as it was then; the space is not known."""
    document = stored_sets.make_manifest(**({"server_version": "10.11.19"} | changes))
    base = Base(document=document, problem=problem, evidence="the same")
    small = make_store(parent_free_bytes=250_000_000)
    survey = dataclasses.replace(make_backup_survey(), recipient=small)
    assert bad(preflight.judge_backup(survey, CONFIG, BACKUP_REQUEST, base=base)) == found
    assert bad(preflight.judge_backup(survey, CONFIG, BACKUP_REQUEST)) == [("space", "store")]


@pytest.mark.parametrize("then", [True, False])
def test_a_keyring_that_came_or_went_since_the_base(*, then: bool) -> None:
    """MySQL's tool opens both sets with one transition key, or with none; MariaDB's has no such file."""
    document = stored_sets.make_manifest(server_version="10.11.19", has_keyring=then)
    base = Base(document=document, problem="", evidence="the same")
    survey = make_backup_survey()
    assert bad(preflight.judge_backup(survey, CONFIG, BACKUP_REQUEST, base=base)) == []
    hosts = {"db1": {"address": "192.0.2.1", "flavor": "mysql", "vault_mount": "keys/db1"}}
    config = config_module.parse({**TABLES, "hosts": hosts})
    checks = preflight.judge_backup(survey, config, BACKUP_REQUEST, base=base)
    (found,) = (check for check in checks if check.name == "base-keyring")
    assert found.ok is then
    assert found.host == "db1"


def test_a_restore_of_a_chain() -> None:
    """It names the sets, and reckons with all of them."""
    changes = {"kind": "incremental", "base_backup_id": stored_sets.OTHER_ID, "from_lsn": 5}
    document = stored_sets.make_manifest(server_version="10.11.19", **changes)
    base = BaseSet(
        backup_id=stored_sets.OTHER_ID,
        parts=1,
        stored_bytes=100,
        compress="none",
        from_lsn=0,
        to_lsn=5,
    )
    checks = preflight.judge_restore(
        make_restore_survey(),
        CONFIG,
        RESTORE_REQUEST,
        document=document,
        report=judge_folder(stored_sets.make_folder(document)),
        key_problem="",
        bases=(base,),
    )
    assert bad(checks) == []
    (told,) = (check.evidence for check in checks if check.name == "set-chain")
    assert told == f"2 sets: {stored_sets.OTHER_ID}, {stored_sets.BACKUP_ID}"


def test_a_good_restore_has_no_bad_finding() -> None:
    """Nothing is asked of the host that the set was made of."""
    checks = judge_restore(make_restore_survey())
    assert bad(checks) == []
    assert {"set-complete", "set-chain", "vault-set-keys", "restore-programs"} <= {
        check.name for check in checks
    }
    assert not [check for check in checks if "db1" in check.host]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"server_version": "11.4.2"}, [("versions-match", "db2")]),
        ({"flavor": "mysql"}, [("set-flavor", "store")]),
        (
            {"kind": "incremental", "base_backup_id": stored_sets.OTHER_ID, "from_lsn": 5},
            [("set-chain", "store")],
        ),
        ({"data_bytes": 10**12}, [("space", "db2")]),
    ],
)
def test_a_set_that_does_not_fit(changes: dict[str, Any], found: list[tuple[str, str]]) -> None:
    """A newer server's, another kind's, a part of a chain, one that is too large."""
    document = stored_sets.make_manifest(**({"server_version": "10.11.19"} | changes))
    assert bad(judge_restore(make_restore_survey(), document)) == found


@pytest.mark.parametrize("program", ["age", "zstd", "sha256sum"])
def test_a_program_that_a_restore_needs(program: str) -> None:
    """Of the recipient; zstd where the set is compressed."""
    survey = without("recipient", make_restore_survey(), program)
    assert bad(judge_restore(survey)) == [("restore-programs", "db2")]
    plain = stored_sets.make_manifest(server_version="10.11.19", compress="none")
    expected = [] if program == "zstd" else [("restore-programs", "db2")]
    assert bad(judge_restore(survey, plain)) == expected


def test_keys_that_were_destroyed_stop_a_restore() -> None:
    """As an error of Vault, with who did it."""
    checks = judge_restore(make_restore_survey(), key_problem="destroyed on … by root@ops")
    assert bad(checks) == [("vault-set-keys", "")]


def test_a_recipient_in_use_is_refused() -> None:
    """As for a clone; --replace helps where its server takes no writes."""
    survey = change(make_restore_survey(), "recipient.host", has_data=True)
    assert bad(judge_restore(survey)) == [("recipient-datadir", "db2")]
    assert bad(judge_restore(survey, replace=True)) == []


def test_a_position_without_gtid_is_of_its_own_host_alone() -> None:
    """Another host's binary log has other positions."""
    at = Coordinates(file="bin.000002", position=4, gtid="")
    document = stored_sets.make_manifest(server_version="10.11.19", coordinates=at)
    found = bad(judge_restore(make_restore_survey(), document, source="db3"))
    assert ("set-position", "db3") in found
    assert bad(judge_restore(make_restore_survey(), document, source="db1")) == []


@pytest.mark.parametrize(
    ("source", "coordinates", "at", "words"),
    [
        ("db1", "auto", ("bin.000002", "0-1-2"), ""),
        ("db1", "auto", ("bin.000002", ""), ""),
        ("db1", "position", ("bin.000002", ""), ""),
        ("db1", "position", ("", "0-1-2"), ":4 0-1-2"),
        ("db1", "gtid", ("bin.000002", "0-1-2"), ""),
        ("db1", "gtid", ("bin.000002", ""), "clone.coordinates is gtid: bin.000002:4"),
        ("db3", "auto", ("bin.000002", "0-1-2"), ""),
        ("db3", "gtid", ("bin.000002", "0-1-2"), ""),
        ("db3", "gtid", ("bin.000002", ""), "bin.000002:4"),
        ("db3", "position", ("bin.000002", "0-1-2"), "0-1-2 is one of db1, not of db3"),
        ("db3", "position", None, "the set tells no position"),
    ],
)
def test_the_position_of_a_set_fits_who_is_followed_and_how(
    source: str, coordinates: str, at: tuple[str, str] | None, words: str
) -> None:
    """File and offset are never taken for those of another host."""
    made = Coordinates(file=at[0], position=4, gtid=at[1]) if at else None
    document = stored_sets.make_manifest(server_version="10.11.19", coordinates=made)
    checks = judge_restore(make_restore_survey(), document, source=source, coordinates=coordinates)
    (check,) = (check for check in checks if check.name == "set-position")
    assert check.host == source
    assert check.ok is not bool(words)
    assert words in check.evidence
    assert check.ok or check.hint


def test_a_restore_onto_the_machine_of_the_repository() -> None:
    """Both ends of the stream would have one folder for their secrets."""
    text = CONFIG.model_dump(exclude_unset=True)
    text["hosts"]["db2"]["address"] = "192.0.2.3"
    document = stored_sets.make_manifest(server_version="10.11.19")
    checks = preflight.judge_restore(
        make_restore_survey(),
        config_module.parse(text),
        RESTORE_REQUEST,
        document=document,
        report=judge_folder(stored_sets.make_folder(document)),
        key_problem="",
    )
    (check,) = (check for check in checks if check.name == "different-hosts")
    assert not check.ok
    assert check.evidence == "store and db2, both at 192.0.2.3"
    assert "backups copy" in check.hint


def judge_followed(*, server_id: str = "1", days: float = 1) -> list[tuple[str, str]]:
    """Judge a restore of a set of some days ago that follows db1, which keeps its logs for seven."""
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    at = f"{ended:%Y-%m-%dT%H:%M:%S.000Z}"
    document = stored_sets.make_manifest(server_version="10.11.19", began_at=at, ended_at=at)
    survey = dataclasses.replace(make_restore_survey(), source=make_survey().donor)
    instance = surveys.make_instance(server_id)
    survey = change(survey, "source", instance=instance, peer_address="192.0.2.2")
    return bad(judge_restore(survey, document, source="db1"))


def test_a_restored_replica_and_its_source() -> None:
    """They need a server_id each, and binary logs since the moment of the set."""
    assert judge_followed() == []
    assert judge_followed(server_id="2") == [("server-ids", "")]
    assert judge_followed(days=8) == [("binlog-retention", "db1")]


def test_a_way_that_is_closed() -> None:
    """From the repository's host to the recipient."""
    way = dataclasses.replace(WAY, problem="no answer")
    survey = dataclasses.replace(make_restore_survey(), way=way)
    assert bad(judge_restore(survey)) == [("stream-way", "")]


def test_the_surveys_are_those_of_this_page() -> None:
    """The good clone's survey stays as it was."""
    assert surveys.make_survey().recipient.host is not None
