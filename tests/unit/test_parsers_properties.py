"""What the tools' formats let a parser know: cut files are seen, and what was written comes back."""

from __future__ import annotations

import base64

import parsers
import pytest
import samples
from hostile import MODEST, NAMES, TEXT
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import jobs, lock, log, numerals, sql
from orchestrator.durable.serial import JournalSerializer
from orchestrator.errors import VerificationError
from orchestrator.facts import hosts, places
from orchestrator.flavors import mariadb, option_files
from orchestrator.remote import known_hosts
from orchestrator.steps.stream import judge_checkpoints

SERIALIZER = JournalSerializer()
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=40)
NUMBER = st.integers(0, 2**63)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("whole", parsers.BINLOG_INFO)
def test_cut_coordinates_are_seen(whole: str) -> None:
    """Wherever the file was cut, replication does not begin from what is left of it."""
    assert mariadb.parse_binlog_info(whole)
    for length in range(len(whole)):
        with pytest.raises(VerificationError):
            mariadb.parse_binlog_info(whole[:length])


@pytest.mark.parametrize("whole", parsers.CHECKPOINTS)
def test_cut_checkpoints_are_seen(whole: str) -> None:
    """A set is whole by its whole checkpoints; only lines that nobody reads can be missing."""
    needed = whole.index("\n", whole.index("last_lsn")) + 1
    for length in range(len(whole)):
        is_good, _ = judge_checkpoints(whole[:length], mariadb.MariaDB.prepared_types)
        assert is_good is (length >= needed and whole[length - 1] == "\n")


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("backup_type = incremental\nfrom_lsn = 7\nto_lsn = 9\nlast_lsn = 9\n", True),
        ("backup_type = incremental\nfrom_lsn = 7\nto_lsn = 7\nlast_lsn = 8\n", True),
        ("backup_type = incremental\nfrom_lsn = 8\nto_lsn = 9\nlast_lsn = 9\n", False),
        ("backup_type = incremental\nfrom_lsn = 7\nto_lsn = 6\nlast_lsn = 9\n", False),
        ("backup_type = full-backuped\nfrom_lsn = 7\nto_lsn = 9\nlast_lsn = 9\n", False),
        ("backup_type = incremental\nto_lsn = 9\nlast_lsn = 9\n", False),
    ],
)
def test_checkpoints_of_an_increment(text: str, *, is_good: bool) -> None:
    """It has the changes from where its base ends, and no full set is taken for one, nor it for that."""
    assert judge_checkpoints(text, (), from_lsn=7)[0] is is_good
    assert judge_checkpoints(text, ())[0] is text.startswith("backup_type = full")


@pytest.mark.parametrize("name", ["slave-status", "slave-status-stopped", "checksums"])
def test_a_cut_row_is_seen(name: str) -> None:
    """What is left of a cut answer are whole rows, or nothing."""
    whole = samples.read(f"mariadb/{name}").split("\nTable\tCh")[0].rstrip("\n") + "\n"
    rows = sql.parse_batch(whole)
    for length in range(0, len(whole), 7):
        try:
            found = sql.parse_batch(whole[:length])
        except VerificationError:
            continue
        assert found == rows[: len(found)]


def test_a_cut_state_of_the_lock_is_seen() -> None:
    """No number of it is taken for a shorter one."""
    for length in range(len(parsers.LOCK)):
        with pytest.raises(VerificationError):
            lock.parse_lock(parsers.LOCK[:length])


@pytest.mark.parametrize("whole", parsers.REPORTS[:3])
def test_a_cut_report_of_a_job_is_seen(whole: str) -> None:
    """All that tells how a job ended stands before a line that must be there."""
    head = whole.index("stderr\n") + len("stderr\n")
    for length in range(head):
        with pytest.raises(VerificationError):
            jobs.parse_report(whole[:length])


@pytest.mark.parametrize("whole", parsers.HOST_FACTS)
def test_cut_facts_are_seen(whole: str) -> None:
    """No fact is taken for a shorter one."""
    for length in range(1, len(whole), 5):
        if whole[length - 1] != "\n":
            with pytest.raises(VerificationError):
                hosts.parse_host("db1", whole[:length], mariadb.MariaDB(), before=1, after=2)


@MODEST
@given(run=LINE, holder=LINE, fence=NUMBER, left=NUMBER, live=st.booleans())
def test_the_lock_comes_back(*, run: str, holder: str, fence: int, left: int, live: bool) -> None:
    """What the script prints is the state."""
    text = f"run={run}\nholder={holder}\nfence={fence}\nlive={live:d}\nleft={left}\n"
    state = lock.parse_lock(f"{text}changed_by={run}\nchanged_fence={fence}\n")
    assert (state.run, state.holder, state.fence, state.live) == (run, holder, fence, live)
    assert (state.seconds_left, state.changed_by, state.changed_fence) == (left, run, fence)


@MODEST
@given(path=LINE, number=NUMBER, siblings=st.lists(LINE))
def test_facts_come_back(path: str, number: int, siblings: list[str]) -> None:
    """Paths may hold whatever is no line break, tabs and Unicode's own separators included."""
    facts = {"epoch": "1.5", "hostname": path, "memory_available_bytes": number, "cpus": 2}
    facts |= {"datadir": path, "real_datadir": path, "filesystem": number}
    lines = [f"{key}\t{value}\n" for key, value in facts.items()]
    lines += [f"sibling\t{sibling}\n" for sibling in siblings]
    found = hosts.parse_host("db1", "".join(lines), mariadb.MariaDB(), before=1, after=2)
    assert (found.datadir, found.real_datadir, found.hostname) == (path, path, path)
    assert (found.filesystem, found.memory_available_bytes) == (number, number)
    assert found.siblings == tuple(siblings)


@MODEST
@given(real=LINE, number=NUMBER, foreign=st.lists(LINE))
def test_places_come_back(real: str, number: int, foreign: list[str]) -> None:
    """Directories and names of files may hold whatever is no line break."""
    text = f"0.real\t{real}\n0.free_bytes\t{number}\n" + "".join(
        f"0.foreign\t{f}\n" for f in foreign
    )
    found = places.parse_places("db1", text, parsers.FILE_SETS).files[0]
    assert (found.real, found.free_bytes, found.foreign) == (real, number, tuple(foreign))


@pytest.mark.parametrize("key", ["datadir", "mount_inside"])
def test_a_fact_that_is_no_line_is_refused(key: str) -> None:
    """The script says that it cannot say it, and the clone does not begin."""
    with pytest.raises(VerificationError, match=f"{key} has a line break"):
        hosts.parse_host("db1", f"unsayable\t{key}\n", mariadb.MariaDB(), before=1, after=2)
    with pytest.raises(VerificationError, match=r"0\.real has a line break"):
        places.parse_places("db1", "unsayable\t0.real\n", parsers.FILE_SETS)


@pytest.mark.parametrize("epoch", ["nan", "inf", "1e9", "-5", "1_0", "٣", "9" * 5000, ""])
def test_a_clock_that_is_none_is_refused(epoch: str) -> None:
    """Of nan, no clock would ever be found to differ."""
    text = f"epoch\t{epoch}\nhostname\th\nmemory_available_bytes\t1\ncpus\t1\ndatadir\t/d\n"
    with pytest.raises(VerificationError, match="cannot read the facts"):
        hosts.parse_host("db1", text, mariadb.MariaDB(), before=1, after=2)


@MODEST
@given(number=st.integers(0, 10**20 - 1))
def test_whole_numbers_come_back(number: int) -> None:
    """As they are written; with a sign, a space or an underscore they are none."""
    assert numerals.parse_whole(str(number)) == number
    for odd in (f"-{number}", f"+{number}", f" {number}", f"{number}_0", f"{number}.5"):
        assert not numerals.is_whole(odd)


@MODEST
@given(options=st.dictionaries(st.from_regex(r"[a-z][a-z_]{3,20}", fullmatch=True), LINE))
def test_options_come_back(options: dict[str, str]) -> None:
    """A value goes on to the end of its line, whatever is in it."""
    plain = {f"x{name}": value for name, value in options.items()}
    text = "".join(f"--{name.replace('_', '-')}={value}\n" for name, value in plain.items())
    assert option_files.parse_print_defaults(text) == plain


@MODEST
@given(
    blob=st.binary(min_size=1),
    names=st.lists(st.from_regex(r"[a-z0-9.]{1,9}", fullmatch=True), min_size=1),
)
def test_known_keys_come_back(blob: bytes, names: list[str]) -> None:
    """A key that stands in the file is known for each of its names."""
    line = f"{','.join(names)} ssh-ed25519 {base64.b64encode(blob).decode()}\n"
    known = known_hosts.parse_known_hosts(f"# x\n\x85 junk\n{line}")
    for name in names:
        assert known_hosts.judge(known, [name], blob).verdict is known_hosts.Verdict.KNOWN


@MODEST
@given(
    value=st.recursive(
        PLAIN | TEXT | NAMES, lambda v: st.lists(v) | st.dictionaries(TEXT, v), max_leaves=8
    )
)
def test_journalled_values_come_back(value: object) -> None:
    """Every JSON value, whatever texts are in it."""
    assert SERIALIZER.deserialize(SERIALIZER.serialize(value)) == value


@MODEST
@given(message=NAMES, problems=st.lists(NAMES))
def test_journalled_errors_come_back(message: str, problems: list[str]) -> None:
    """An error about a hostile name is still that error after the journal."""
    error = VerificationError(message, host=message, problems=problems)
    found = SERIALIZER.deserialize(SERIALIZER.serialize(error))
    assert type(found) is VerificationError
    # Another test of this process may have met the text as a secret's value.
    assert found.as_json() == log.redact(error.as_json())
