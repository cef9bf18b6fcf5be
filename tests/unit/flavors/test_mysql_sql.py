"""Statements of every version, read by a person once, and what answers mean."""

from __future__ import annotations

import re

import cli_lab
import golden
import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import VerificationError
from orchestrator.flavors import mysql_sql
from orchestrator.flavors.mysql_versions import Words, choose_words
from orchestrator.models import Coordinates

PLAN = cli_lab.make_plan(flavor="mysql", source_address="192.0.2.1", source_port=3307)
UUID = "c14d6d67-e5fb-11f1-a307-1a083b08fc0d"
AT = Coordinates(file="mysql-bin.000001", position=139645, gtid=f"{UUID}:1-22")
POSITION = f"mysql-bin.000001:139645 {UUID}:1-22"
VERSIONS = ("5.7.44", "8.0.11", "8.0.22", "8.0.25", "8.0.46", "8.1.0", "8.4.11", "9.7.4")


def read_vertical(name: str) -> dict[str, str]:
    """Return the one row of a sample that the client gave line by line."""
    return dict(re.findall(r"^ *(\w+): (.*)$", samples.read(f"mysql-5.7/{name}"), re.MULTILINE))


def make_sections(words: Words) -> dict[str, str]:
    """Return every statement that depends on the version."""
    gtid = mysql_sql.change_source_sql(
        words, PLAN, AT, use_gtid=True, user="xbvault_1", ca_file="/etc/it's ca.pem"
    )
    position = mysql_sql.change_source_sql(
        words,
        PLAN,
        Coordinates(file="bin.000002", position=157),
        use_gtid=False,
        user="xbvault_1",
        ca_file="",
    )
    return {
        "tablespaces": mysql_sql.tablespaces_sql(words),
        "encryption": mysql_sql.encryption_sql(words),
        "datafiles": mysql_sql.datafiles_sql(words),
        "keyring": mysql_sql.keyring_sql(words),
        "position": words.binlog_status,
        "wait for a GTID set": mysql_sql.wait_sql(words, POSITION),
        "wait for a position": mysql_sql.wait_sql(words, "my bin.000002:157"),
        "until": mysql_sql.until_sql(words, "bin.000002", 157),
        "snapshot": "\n".join(mysql_sql.snapshot_sql(words)),
        "until a GTID set": mysql_sql.until_gtid_sql(words, f"{UUID}:1-22"),
        "wait for a source's GTID set": mysql_sql.reach_sql(words, AT),
        "wait for a source's position": mysql_sql.reach_sql(
            words, Coordinates(file="bin.000002", position=157)
        ),
        "account": "PASSWORD".join(mysql_sql.account_sql(words, "xbvault_1", "192.0.2.2")),
        "fresh logs": mysql_sql.fresh_logs_sql(words),
        "change source, GTID": "PASSWORD".join(gtid),
        "change source, position": "PASSWORD".join(position),
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_statements_of_a_version(version: str) -> None:
    """They are those that were read and approved."""
    made = golden.format_sections(make_sections(choose_words(version)))
    assert made == golden.read(f"mysql-sql-{version}", made=made)


def test_statements_of_every_version() -> None:
    """They are those that were read and approved."""
    made = golden.format_sections(
        {
            "variables": mysql_sql.VARIABLES_SQL,
            "tables": mysql_sql.TABLES_SQL,
            "columns": mysql_sql.COLUMNS_SQL,
            "summary": mysql_sql.SUMMARY_SQL,
            "replicas": mysql_sql.REPLICAS_SQL,
            "events": mysql_sql.EVENTS_SQL,
            "applied": mysql_sql.APPLIED_SQL,
            "keys": mysql_sql.KEYS_SQL,
            "open": mysql_sql.open_sql("SELECT 1 FROM `a\nb`.`it's` LIMIT 1"),
        }
    )
    assert made == golden.read("mysql-sql", made=made)


@pytest.mark.parametrize("version", ["8.4.0", "9.7.4"])
def test_removed_words_are_not_spoken(version: str) -> None:
    """Servers from 8.4 on refuse them."""
    text = golden.read(f"mysql-sql-{'8.4.11' if version == '8.4.0' else version}")
    assert "MASTER" not in text
    assert "SLAVE" not in text.replace("REPLICATION SLAVE", "")
    assert choose_words(version) == choose_words("8.4.11")


def test_a_password_is_not_in_what_surrounds_it() -> None:
    """Nothing but quotes stands around it, so that it can be put between."""
    words = choose_words("9.7.4")
    for before, after in (
        mysql_sql.account_sql(words, "u", "h"),
        mysql_sql.change_source_sql(words, PLAN, AT, use_gtid=True, user="u", ca_file=""),
    ):
        assert before.endswith("'")
        assert after.startswith("'")


@pytest.mark.parametrize("hostile", ["a\\", "a\nb"])
def test_texts_that_cannot_be_quoted(hostile: str) -> None:
    """They are refused, for their meaning depends on the server's mode."""
    words = choose_words("8.4.0")
    with pytest.raises(VerificationError):
        mysql_sql.change_source_sql(words, PLAN, AT, use_gtid=True, user=hostile, ca_file="")
    with pytest.raises(VerificationError):
        mysql_sql.account_sql(words, "u", hostile)


# Positions.


def test_position_of_a_real_server() -> None:
    """File, offset and GTID set, as 5.7 gives them."""
    assert mysql_sql.read_position(read_vertical("show_master_status")) == POSITION


def test_position_of_a_set_over_several_lines() -> None:
    """The server breaks a line behind each comma; a server without GTIDs has none."""
    row = {"File": "my bin.000002", "Position": "157", "Executed_Gtid_Set": "a:1-2,\nb:3"}
    assert mysql_sql.read_position(row) == "my bin.000002:157 a:1-2,b:3"
    row["Executed_Gtid_Set"] = ""
    assert mysql_sql.read_position(row) == "my bin.000002:157"


@given(
    file=st.from_regex(r"[a-z :]{0,9}[a-z]\.[0-9]{6}", fullmatch=True),
    offset=st.integers(4, 2**63),
    gtid=st.sampled_from(["", AT.gtid, f"{UUID}:1-3:tag:1-2,{UUID}:7"]),
)
def test_positions_come_back(file: str, offset: int, gtid: str) -> None:
    """Whatever the file is called."""
    row = {"File": file, "Position": str(offset), "Executed_Gtid_Set": gtid}
    assert mysql_sql.split_position(mysql_sql.read_position(row)) == (file, offset, gtid)


@pytest.mark.parametrize("text", ["", ":", "a:", ":5", "a:x", "a:5 b c", "a:5\n"])
def test_no_position(text: str) -> None:
    """It would go into a statement."""
    with pytest.raises(VerificationError):
        mysql_sql.split_position(text)


HEAD = "File\tPosition\tBinlog_Do_DB\tBinlog_Ignore_DB\tExecuted_Gtid_Set\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{HEAD}bin.000002\t5105\t\t\t{UUID}:1-5,\\n{UUID}:7\n", ("bin.000002", 5105)),
        (f"{HEAD}bin.000002\t5105\t\t\t\nTable\tChecksum\na.b\t7\n", ("bin.000002", 5105)),
        (HEAD, ("", 0)),
        ("", ("", 0)),
        (f"{HEAD}bin.000002\tmany\t\t\t\n", ("", 0)),
        (f"{HEAD}\t5105\t\t\t\n", ("", 0)),
        ("Table\tChecksum\na.b\t7\n", ("", 0)),
    ],
)
def test_position_of_a_snapshot(text: str, wanted: tuple[str, int]) -> None:
    """It stands in the row below the head of its own statement."""
    assert mysql_sql.read_snapshot(text) == wanted


def test_gtids_are_used() -> None:
    """By the column that all versions have."""
    row = read_vertical("show_slave_status")
    assert mysql_sql.uses_gtid(row)
    assert not mysql_sql.uses_gtid({**row, "Auto_Position": "0"})
    assert not mysql_sql.uses_gtid({})


def test_encrypted_tablespaces_of_a_real_server() -> None:
    """In 5.7 a bit of the flags tells them."""
    text = samples.read("mysql-5.7/encryption_facts")
    rows = re.findall(r"^\| (\S+/\S+) +\| +(\d+) \| +([01]) \|$", text, re.MULTILINE)
    assert len(rows) == 23
    assert choose_words("5.7.13-log").is_encrypted == "FLAG & 8192 <> 0"
    assert {name for name, flag, _ in rows if int(flag) & 8192} == {
        name for name, _, encrypted in rows if encrypted == "1"
    }


# Files outside of the data directory.


@pytest.mark.parametrize(
    ("path", "outside"),
    [
        ("/srv/fast/shop/t.ibd", "/srv/fast/shop/t.ibd"),
        ("../elsewhere/ts.ibd", "/var/lib/elsewhere/ts.ibd"),
        ("/var/lib/mysql/shop/t.ibd", ""),
        ("ts.ibd", ""),
        ("ibdata1", ""),
        ("mysql.ibd", ""),
        ("/undo/undo_001", ""),
        ("/undo/undo002", ""),
        ("/undo/more.ibu", ""),
        ("/var/lib/mysql2/t.ibd", "/var/lib/mysql2/t.ibd"),
    ],
)
def test_files_that_the_tool_would_put_elsewhere(path: str, outside: str) -> None:
    """Files that lie below the datadir, and undo tablespaces, are not among them."""
    found = mysql_sql.list_outside([path], datadir="/var/lib/mysql/")
    assert found == ((outside,) if outside else ())
