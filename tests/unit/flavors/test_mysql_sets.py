"""What XtraBackup writes into a set: real files, every other form, and what is none."""

from __future__ import annotations

import json
import struct

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import VerificationError
from orchestrator.flavors import backup_sets, mysql, mysql_sets
from orchestrator.flavors.interface import Upstream
from orchestrator.flavors.mysql_keyrings import KeyringKind
from orchestrator.flavors.mysql_sets import KeysFile
from orchestrator.models import Coordinates

UUID = "c14d6d67-e5fb-11f1-a307-1a083b08fc0d"
OTHER = "3ba8f2ff-e63e-11f1-ae33-02fc00000001"
GTIDS = st.lists(
    st.builds(
        lambda uuid, parts: f"{uuid}:{':'.join(parts)}",
        st.uuids().map(str),
        st.lists(
            st.sampled_from(["1-5", "7", "tag:1-2", "_t9:8:10-11", "1-9223372036854775806"]),
            min_size=1,
        ),
    ),
    max_size=4,
)


# Coordinates.


def test_coordinates_of_a_real_set() -> None:
    """File, position and GTID set, as the tool wrote them."""
    assert mysql_sets.parse_binlog_info(samples.read("xtrabackup-2.4/binlog_info")) == Coordinates(
        file="mysql-bin.000001", position=139645, gtid=f"{UUID}:1-22"
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("binlog.000002\t157\n", Coordinates(file="binlog.000002", position=157)),
        ("binlog.000002\t157\t\n", Coordinates(file="binlog.000002", position=157)),
        ("my, logs.000002\t157\n", Coordinates(file="my, logs.000002", position=157)),
        (
            f"binlog.000002\t157\t{UUID}:1-5,{OTHER}:1-3:7\n",
            Coordinates(file="binlog.000002", position=157, gtid=f"{UUID}:1-5,{OTHER}:1-3:7"),
        ),
        (
            f"binlog.000002\t157\t{UUID}:1-5,\n{OTHER}:1-3\n",
            Coordinates(file="binlog.000002", position=157, gtid=f"{UUID}:1-5,{OTHER}:1-3"),
        ),
        (
            f"binlog.000002\t157\t{UUID}:1-3:blue:1-2:green:4,{OTHER}:red:1\n",
            Coordinates(
                file="binlog.000002",
                position=157,
                gtid=f"{UUID}:1-3:blue:1-2:green:4,{OTHER}:red:1",
            ),
        ),
        (f"\t\t{UUID}:1-5\n", Coordinates(file="", position=0, gtid=f"{UUID}:1-5")),
        (f"\t0\t{UUID}:1-5\n", Coordinates(file="", position=0, gtid=f"{UUID}:1-5")),
    ],
)
def test_other_coordinates(text: str, wanted: Coordinates) -> None:
    """Without GTIDs, with several servers, over several lines, with tags, without a binary log."""
    assert mysql_sets.parse_binlog_info(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\t\t\n",
        "binlog.000002\n",
        "binlog.000002\t157",
        "binlog.000002\tmany\n",
        "binlog.000002\t-5\n",
        "binlog.000002\t3\n",
        "binlog\t157\n",
        "binlog.000002'; DROP\t157\n",
        "a\\b.000002\t157\n",
        f"binlog.000002\t157\t{UUID}:1-5",
        f"binlog.000002\t157\t{UUID}:1-5,\n",
        f"binlog.000002\t157\t{UUID}\n",
        f"binlog.000002\t157\t{UUID}:\n",
        f"binlog.000002\t157\t{UUID}:tag\n",
        f"binlog.000002\t157\t{UUID}:1-\n",
        f"binlog.000002\t157\t{UUID}:1-5;{OTHER}:1\n",
        f"binlog.000002\t157\t{UUID[:-1]}:1-5\n",
        f"binlog.000002\t157\t{UUID}:1-5'\n",
        f"binlog.000002\t157\t{UUID}:1-5\nbinlog.000003\t157\n",
        "binlog.000002\t157\t0-1-2\n",
    ],
)
def test_no_coordinates(text: str) -> None:
    """What is cut or of another form is refused, for it would go into a statement."""
    with pytest.raises(VerificationError):
        mysql_sets.parse_binlog_info(text)


@pytest.mark.parametrize("end", ["", f",\n{OTHER}:1-3", f":blue:1-2,\n{OTHER}:red:7"])
def test_cut_coordinates_are_seen(end: str) -> None:
    """Wherever the file was cut, replication does not begin from what is left of it."""
    whole = f"binlog.000002\t157\t{UUID}:1-5{end}\n"
    assert mysql_sets.parse_binlog_info(whole)
    for length in range(len(whole)):
        with pytest.raises(VerificationError):
            mysql_sets.parse_binlog_info(whole[:length])


@given(gtids=GTIDS, separator=st.sampled_from([",", ",\n", ", ", ",\r\n"]))
def test_gtid_sets_come_back(gtids: list[str], separator: str) -> None:
    """Servers break lines in them; the set is the same."""
    assert mysql_sets.parse_gtid_set(separator.join(gtids)) == ",".join(gtids)


# What the donor replicates from.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "CHANGE MASTER TO MASTER_LOG_FILE='bin.000007', MASTER_LOG_POS=154;\n",
            [("", Coordinates(file="bin.000007", position=154), False)],
        ),
        (
            "CHANGE MASTER TO MASTER_LOG_FILE='it;s bin.000007', MASTER_LOG_POS=154\n",
            [("", Coordinates(file="it;s bin.000007", position=154), False)],
        ),
        (
            "CHANGE MASTER TO MASTER_LOG_FILE='a.000007', MASTER_LOG_POS=154 FOR CHANNEL 'one';\n"
            "CHANGE MASTER TO MASTER_LOG_FILE='b.000001', MASTER_LOG_POS=4 FOR CHANNEL 'two';\n",
            [
                ("one", Coordinates(file="a.000007", position=154), False),
                ("two", Coordinates(file="b.000001", position=4), False),
            ],
        ),
        (
            f"SET GLOBAL gtid_purged='{UUID}:1-5,\n{OTHER}:1-3';\n"
            "CHANGE MASTER TO MASTER_AUTO_POSITION=1;\n",
            [("", Coordinates(file="", position=0, gtid=f"{UUID}:1-5,{OTHER}:1-3"), True)],
        ),
        (
            "CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='bin.000007', SOURCE_LOG_POS=154;\n",
            [("", Coordinates(file="bin.000007", position=154), False)],
        ),
        (
            f"SET GLOBAL gtid_purged='{UUID}:1-3:blue:1-2';\n"
            "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1 FOR CHANNEL 'one';\n"
            "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1 FOR CHANNEL 'two';\n",
            [
                ("one", Coordinates(file="", position=0, gtid=f"{UUID}:1-3:blue:1-2"), True),
                ("two", Coordinates(file="", position=0, gtid=f"{UUID}:1-3:blue:1-2"), True),
            ],
        ),
    ],
)
def test_sources_of_the_donor(text: str, wanted: list[tuple[str, Coordinates, bool]]) -> None:
    """By file or GTID, in old and new words, on one channel or several."""
    assert mysql_sets.parse_slave_info(text) == tuple(
        Upstream(channel=channel, coordinates=coordinates, uses_gtid=uses_gtid)
        for channel, coordinates, uses_gtid in wanted
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "CHANGE MASTER TO MASTER_LOG_FILE='bin.000007', MASTER_LOG_POS=154;",
        "CHANGE MASTER TO MASTER_LOG_FILE='bin.000007', MASTER_LOG_POS=;\n",
        "CHANGE MASTER TO MASTER_LOG_FILE='bin', MASTER_LOG_POS=154;\n",
        "CHANGE MASTER TO MASTER_LOG_FILE='bin.000007', MASTER_LOG_POS=1;\n",
        "CHANGE MASTER TO MASTER_HOST='x', MASTER_LOG_FILE='b.000001', MASTER_LOG_POS=154;\n",
        f"SET GLOBAL gtid_purged='{UUID}:1-5';\n",
        "CHANGE MASTER TO MASTER_AUTO_POSITION=1;\n",
        f"SET GLOBAL gtid_purged='{UUID}';\nCHANGE MASTER TO MASTER_AUTO_POSITION=1;\n",
        "CHANGE MASTER TO MASTER_LOG_FILE='a.000007', MASTER_LOG_POS=154;\nDROP TABLE x;\n",
    ],
)
def test_no_sources(text: str) -> None:
    """What is cut or of another form is refused, for it would go into a statement."""
    with pytest.raises(VerificationError):
        mysql_sets.parse_slave_info(text)


# Tablespace keys.


def read_head() -> bytes:
    """Return the first bytes of a real file of keys."""
    lines = samples.read("xtrabackup-2.4/keys-head").split("\n")
    return bytes.fromhex("".join(line[10:49] for line in lines).replace(" ", ""))


def make_keys(*space_ids: int) -> bytes:
    """Return a file of keys for these tablespaces; what is sealed in it is nothing."""
    return read_head() + b"".join(struct.pack("<I", i) + bytes(68) for i in space_ids)


def test_keys_of_a_real_set() -> None:
    """The head is 154 bytes long and names no key; with two records it has the real file's size."""
    assert len(read_head()) == 154
    assert mysql_sets.parse_keys(read_head()) == KeysFile(space_ids=(), key_name="")
    listed = samples.read("xtrabackup-2.4/ls-datadir")
    assert f" {len(make_keys(25, 26))} " in next(
        line for line in listed.split("\n") if line.endswith(" xtrabackup_keys")
    )


@given(st.lists(st.integers(0, 2**32 - 1), max_size=5))
def test_space_ids_come_back(space_ids: list[int]) -> None:
    """As many as there are records, with the reserved ones of redo and binary log."""
    assert mysql_sets.parse_keys(make_keys(*space_ids)).space_ids == tuple(space_ids)


@pytest.mark.parametrize(
    ("space_id", "counts"),
    [
        (0, True),
        (25, True),
        (0xFFFFFFEF, True),
        (0xFFFFFFFE, True),
        (0xFFFFFFF0, False),
        (0xFFFFFFF1, False),
        (0xFFFFFFFD, False),
        (0xFFFFFFFF, False),
    ],
)
def test_only_tablespaces_have_a_header(space_id: int, *, counts: bool) -> None:
    """Undo tablespaces and the dictionary have; redo and binary log are rewritten otherwise."""
    assert mysql_sets.parse_keys(make_keys(25, space_id)).tablespaces == 1 + counts


def test_name_of_a_generated_key() -> None:
    """It stands in the head, padded with zeros."""
    name = f"XBKey-{UUID}-MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5"
    data = read_head()[:71] + name.encode().ljust(83, b"\0")
    assert mysql_sets.parse_keys(data).key_name == name


def test_cut_keys_are_seen() -> None:
    """Unless it was cut between two records, which the number of tablespaces tells."""
    whole = make_keys(25, 26)
    for length in range(len(whole)):
        if length in (154, 226):
            assert len(mysql_sets.parse_keys(whole[:length]).space_ids) == (length - 154) // 72
        else:
            with pytest.raises(VerificationError):
                mysql_sets.parse_keys(whole[:length])


@pytest.mark.parametrize("data", [b"", b"KEYSV02" + bytes(147), bytes(154)])
def test_no_keys(data: bytes) -> None:
    """Another format is not guessed."""
    with pytest.raises(VerificationError, match="no file of tablespace keys"):
        mysql_sets.parse_keys(data)


def test_an_unreadable_name_of_a_key() -> None:
    """It would be shown."""
    with pytest.raises(VerificationError, match="unknown bytes"):
        mysql_sets.parse_keys(read_head()[:71] + b"\xff".ljust(83, b"\0"))
    with pytest.raises(VerificationError, match="unknown bytes"):
        mysql_sets.parse_keys(read_head()[:71] + b"a\nb".ljust(83, b"\0"))


# Files elsewhere, options, checkpoints.


def test_the_donors_keyring_is_known_by_its_files() -> None:
    """The configuration of every component that a donor can have is among those to be removed."""
    components = {kind.config_name for kind in KeyringKind if kind.is_component}
    assert components < set(mysql_sets.CARRIED_CONFIGS)


def test_files_outside_of_the_datadir() -> None:
    """Tables are told; undo tablespaces go where the tool is told."""
    entries = [
        {"file_name": "/srv/t.ibd", "tablespace_name": "a/t", "tablespace_type": "TABLESPACE"},
        {"file_name": "/undo/u.ibu", "tablespace_name": "u", "tablespace_type": "UNDO_LOG"},
    ]
    text = json.dumps({"version": 3, "external_tablespaces": entries})
    assert mysql_sets.parse_tablespaces(text) == ("/srv/t.ibd",)
    assert mysql_sets.parse_tablespaces('{"version":3,"external_tablespaces":[]}') == ()
    for length in range(len(text)):
        with pytest.raises(VerificationError):
            mysql_sets.parse_tablespaces(text[:length])


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"external_tablespaces": [1]}', "[" * 5000])
def test_no_list_of_tablespaces(text: str) -> None:
    """Another format is not taken for an empty list."""
    with pytest.raises(VerificationError):
        mysql_sets.parse_tablespaces(text)


def test_options_of_a_real_set() -> None:
    """Names with underscores, values as they are, no comments."""
    options = mysql_sets.parse_set_options(samples.read("xtrabackup-2.4/backup-my.cnf"))
    assert options["innodb_data_file_path"] == "ibdata1:12M:autoextend"
    assert options["innodb_undo_tablespaces"] == "0"
    assert options["plugin_load"] == "keyring_vault.so"
    assert options["server_uuid"] == UUID
    assert options["master_key_id"] == "1"
    assert len(options) == 15


@pytest.mark.parametrize("text", ["", "a=1", "a=1\0\n", "a=\ufffd\n"])
def test_no_options(text: str) -> None:
    """What is cut is refused."""
    with pytest.raises(VerificationError):
        mysql_sets.parse_set_options(text)


def test_checkpoints_and_info_of_a_real_set() -> None:
    """They have the form of the other tool of the family."""
    read = {
        name: backup_sets.parse_checkpoints(samples.read(f"xtrabackup-2.4/{name}"))
        for name in ("checkpoints-received", "checkpoints-prepared", "info")
    }
    assert read["checkpoints-received"]["backup_type"] == backup_sets.RECEIVED_TYPE
    assert read["checkpoints-prepared"]["backup_type"] in mysql.MySQL.prepared_types
    assert backup_sets.parse_lsn(read["checkpoints-prepared"], "to_lsn") == 1509460
    assert read["info"]["tool_version"] == "2.4.12"
    assert read["info"]["server_version"] == "5.7.13-log"
    assert "transition" not in read["info"]["tool_command"]
