"""The nouns cross JSON unchanged, and a secret never becomes a string that can be kept."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
from typing import Any

import pytest
from cli_lab import make_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import models
from orchestrator.models import (
    BackupPlan,
    Check,
    Coordinates,
    KeyVersions,
    Plan,
    RestorePlan,
    RunPlan,
    Secret,
)

VALUE = "s.aTokenThatNobodyMaySee0001"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """A part."""

    name: str
    sizes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """A whole with every kind of part that results have."""

    inner: Inner
    many: tuple[Inner, ...]
    by_name: dict[str, tuple[int, ...]]
    maybe: Inner | None
    ratio: float
    done: bool


INNER = st.builds(Inner, name=TEXT, sizes=st.lists(st.integers(-(2**53), 2**53)).map(tuple))
OUTER = st.builds(
    Outer,
    inner=INNER,
    many=st.lists(INNER, max_size=3).map(tuple),
    by_name=st.dictionaries(TEXT, st.lists(st.integers(0, 99)).map(tuple), max_size=3),
    maybe=st.none() | INNER,
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    done=st.booleans(),
)


@settings(max_examples=40)
@given(OUTER)
def test_dataclass_comes_back_from_json(value: Outer) -> None:
    """Tuples, dictionaries, optional and nested parts survive real JSON text."""
    text = json.dumps(models.as_json(value))
    assert models.from_json(Outer, json.loads(text)) == value


def test_unknown_keys_are_left_out_and_missing_ones_take_their_default() -> None:
    """What a later or earlier version wrote can be read."""
    assert models.from_json(Inner, {"name": "a", "colour": "red"}) == Inner(name="a")


@pytest.mark.parametrize(
    "value",
    [
        Check(name="space", ok=False, evidence="1 GB", host="db2", hint="free some"),
        Coordinates(file="bin.000001", position=4, gtid="0-1-2"),
        KeyVersions(key_id="1", donor=3, own=5),
    ],
)
def test_nouns_come_back(value: Any) -> None:
    """The nouns that results are made of."""
    document = json.loads(json.dumps(models.as_json(value)))
    assert models.from_json(type(value), document) == value


@pytest.mark.parametrize(
    "value",
    [
        Secret(VALUE),
        [Secret(VALUE)],
        {"key": (Secret(VALUE),)},
        b"bytes",
        {1, 2},
        object(),
        Inner,
    ],
)
def test_what_is_no_json_value_is_refused(value: Any) -> None:
    """A secret in any depth, bytes, sets and objects never reach the journal."""
    with pytest.raises(TypeError, match="not a JSON value") as caught:
        models.as_json(value)
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    ("donor", "own", "padded", "first_new"), [(3, 0, 3, 4), (3, 5, 5, 6), (4, 4, 4, 5)]
)
def test_new_key_versions_stand_above_both_mounts(
    donor: int, own: int, padded: int, first_new: int
) -> None:
    """The pair is new in either mount."""
    versions = KeyVersions(key_id="1", donor=donor, own=own)
    assert (versions.padded, versions.first_new) == (padded, first_new)


def test_an_older_plan_follows_its_donor() -> None:
    """A plan that was stored before there were siblings is that of a child, and plain on the wire."""
    stored = models.as_json(make_plan())
    of_the_wire = ("expected_stream_bytes", "throttle", "nice", "compress", "compress_reason")
    for name in ("source", "source_version", "source_is_replica", *of_the_wire, "ciphers"):
        del stored[name]
    plan = models.from_json(Plan, stored)
    assert plan == make_plan()
    assert not plan.is_sibling
    assert (plan.compress, plan.throttle, plan.nice) == ("none", 0, False)
    assert plan.source_host == plan.donor
    assert plan.account_path.startswith(f"replication/{plan.donor}/{plan.recipient}/")


def test_the_account_of_a_sibling_is_kept_under_its_source() -> None:
    """The account is made there, and found there again by forget."""
    plan = dataclasses.replace(make_plan(), source="primary")
    assert plan.is_sibling
    assert plan.account_path.startswith(f"replication/primary/{plan.recipient}/")


def test_a_plan_is_read_as_what_its_form_says() -> None:
    """One that was stored before there were forms is that of a clone."""
    clone = make_plan()
    stored = models.as_json(clone)
    assert models.read_plan(stored) == clone
    del stored["form"]
    assert models.read_plan(stored) == clone
    backup = BackupPlan(
        **{
            field.name: getattr(clone, field.name)
            for field in dataclasses.fields(RunPlan)
            if field.name != "form"
        },
        set_dir="/srv/b1",
        part_bytes=1 << 20,
    )
    assert models.read_plan(models.as_json(backup)) == backup
    assert backup.lock_dir == f"/var/lib/xbvault/backups-of/{clone.donor}"
    assert clone.lock_dir == "/var/lib/xbvault"


@pytest.mark.parametrize("document", [{"form": "drill2"}, {"form": None}, [], "clone", None])
def test_a_plan_of_an_unknown_form_is_refused(document: Any) -> None:
    """Of a newer version, or none at all."""
    with pytest.raises(ValueError, match=r"form|kind"):
        models.read_plan(document)


def test_a_restore_leaves_the_record_of_its_set_alone() -> None:
    """What it writes down stands beside it, under its own name."""
    clone = make_plan()
    restore = RestorePlan(
        **{
            field.name: getattr(clone, field.name)
            for field in dataclasses.fields(Plan)
            if field.name not in ("form", "group_runs", "source")
        },
        set_dir="/srv/b1",
        set_host="db1",
        part_bytes=1,
        parts=1,
        stored_bytes=1,
        to_lsn=1,
        ended_at="2026-11-21T21:05:00Z",
    )
    assert restore.record_path == f"{restore.key_path}.{restore.run_id}"
    assert not restore.replicates
    assert not restore.is_sibling
    assert dataclasses.replace(restore, source="db1").replicates


# Secret.


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(VALUE)),
        str(Secret(VALUE)),
        f"{Secret(VALUE)}",
        f"{Secret(VALUE)!r:>40}",
        f"{Secret(VALUE):>40}",
        "%s %r" % (Secret(VALUE), Secret(VALUE)),  # noqa: UP031 - one more way to print
        str([Secret(VALUE)]),
        repr({"token": Secret(VALUE)}),
        str(Inner(name=Secret(VALUE))),  # type: ignore[arg-type]  # on purpose
        str(ValueError(Secret(VALUE))),
    ],
)
def test_it_is_never_printed(shown: str) -> None:
    """However it is turned to text, its value is not in it."""
    assert VALUE not in shown
    assert "Secret(***)" in shown


def test_it_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Not by the standard library's logging either."""
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("xbvault-test").debug("the token is %s", Secret(VALUE))
    assert VALUE not in caplog.text


@pytest.mark.parametrize("turn", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_it_is_never_copied_out(turn: Any) -> None:
    """Pickling, copying and JSON refuse it."""
    with pytest.raises(TypeError) as caught:
        turn(Secret(VALUE))
    assert VALUE not in str(caught.value)


def test_it_has_no_attributes_to_walk_through() -> None:
    """What dumps objects by their attributes finds none."""
    secret = Secret(VALUE)
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        vars(secret)
    with pytest.raises(AttributeError):
        secret.other = 1  # type: ignore[attr-defined]  # that is what must fail


def test_a_reader_sees_the_clear_text_around_it() -> None:
    """Each secret in what was joined is masked, however deep, and one by itself is masked whole."""
    inner = Secret.join("key=", Secret(VALUE), "\n")
    whole = Secret.join("[tool]\n", inner, "port=1\n")
    assert whole.masked == "[tool]\nkey=***\nport=1\n"
    assert whole.reveal() == f"[tool]\nkey={VALUE}\nport=1\n"
    assert Secret(VALUE).masked == "***"


def test_it_compares_by_value() -> None:
    """Equal values are equal secrets, and a text is none."""
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret(f"{VALUE}x")
    assert Secret(VALUE) != VALUE
    assert len({Secret(VALUE), Secret(VALUE), Secret("other")}) == 2
    assert bool(Secret(VALUE))
    assert not Secret("")


def test_parts_are_joined_to_a_secret() -> None:
    """A statement with a password in it is as secret as the password."""
    joined = Secret.join("SET PASSWORD = '", Secret("hunter2-joined"), "'")
    assert joined.reveal() == "SET PASSWORD = 'hunter2-joined'"
    assert "hunter2-joined" not in repr(joined)


def test_values_are_known_for_redaction() -> None:
    """Every value is remembered but short ones, which would blot out ordinary words."""
    Secret("known-value-0001")
    Secret("short")
    Secret.join("SELECT 1 /* joined-0001 */", Secret("x"))
    known = models.known_secret_values()
    assert "known-value-0001" in known
    assert "short" not in known
    assert not any("joined-0001" in value for value in known)
