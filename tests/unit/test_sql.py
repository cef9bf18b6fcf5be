"""SQL through the host's client: the command, and what it writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import samples
from fake_remote import FakeRemote
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import sql
from orchestrator.config import HostConfig, ServerConfig
from orchestrator.errors import CommandError, VerificationError
from orchestrator.models import Secret
from orchestrator.remote import Result

if TYPE_CHECKING:
    from fake_remote import Call

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
BARE = HostConfig(vault_mount="keys/db1")
ADMIN = HostConfig(vault_mount="keys/db1", server=ServerConfig(defaults_file="/root/admin.cnf"))
FULL = HostConfig(
    vault_mount="keys/db1",
    server=ServerConfig(socket="/run/s.sock", defaults_file="/root/admin.cnf"),
)


def test_client_command() -> None:
    """Binary mode always; the option file comes first, or the client refuses it."""
    assert sql.client_command(BARE) == [
        "mariadb",
        "--batch",
        "--binary-mode",
        "--default-character-set=utf8mb4",
    ]
    command = sql.client_command(ADMIN, "--force")
    assert command[1] == "--defaults-extra-file=/root/admin.cnf"
    assert command[-1] == "--force"


def test_client_by_socket() -> None:
    """Where a socket is named, nothing but that is connected to, and MariaDB's reads no CA."""
    command = sql.client_command(FULL, "--force")
    assert command[:4] == [
        "env",
        "SSL_CERT_FILE=/dev/null",
        "mariadb",
        "--defaults-extra-file=/root/admin.cnf",
    ]
    assert command[-3:] == ["--force", "--protocol=socket", "--socket=/run/s.sock"]
    mysql = HostConfig(flavor="mysql", server=ServerConfig(socket="/run/s.sock"))
    assert sql.client_command(mysql)[0] == "mysql"


def test_real_escapes() -> None:
    """What the real client made of a tab, a newline, a backslash, NUL and more comes back."""
    text = samples.read("mariadb/batch-escapes")
    # Names are not escaped by the client, so the name "b<tab>c" looks like two.
    with pytest.raises(VerificationError, match="does not fit the 7 columns"):
        sql.parse_batch(text)
    first, second = sql.parse_batch(text.replace("b\tc", "bc", 1))
    assert list(first) == ["a", "bc", "c", "d", "e", "f"]
    assert list(first.values()) == ["1", "t\tn\nb\\z\0r\rq'", "NULL", "NULL", "", "ü"]
    assert "back\\n" in second.values()


@pytest.mark.parametrize("text", ["a\tb\n1\t2", "a\tb\n1\n", "a\tb\n1\t2\t3\n", "a"])
def test_output_that_is_not_whole(text: str) -> None:
    """A cut line, a missing column and one too many are seen."""
    with pytest.raises(VerificationError):
        sql.parse_batch(text)


def test_rows_know_their_columns() -> None:
    """A column that is not there, and a number that is none, are no crash."""
    (row,) = sql.parse_batch("n\tm\n7\tNULL\n")
    assert row.whole("n") == 7
    for name in ("m", "o"):
        with pytest.raises(VerificationError):
            row.whole(name)


@pytest.mark.parametrize("answer", ["", "n\n", "n\n1\n2\n"])
def test_one_row_is_one_row(answer: str) -> None:
    """None or several are refused where one is asked for."""
    remote = FakeRemote()
    remote.answer("mariadb", stdout=answer)
    with pytest.raises(VerificationError, match="instead of one"):
        sql.query_row(remote, BARE, "SELECT 1 AS n")


@pytest.mark.parametrize(
    ("sample", "running", "behind"),
    [("slave-status", "Yes", "0"), ("slave-status-stopped", "No", "NULL")],
)
def test_real_replica_status(sample: str, running: str, behind: str) -> None:
    """A wide row with many empty values keeps its columns apart."""
    (row,) = sql.parse_batch(samples.read(f"mariadb/{sample}"))
    assert row["Master_User"].startswith("xbvault_")
    assert row["Slave_IO_Running"] == row["Slave_SQL_Running"] == running
    assert row["Seconds_Behind_Master"] == behind
    assert (row["Last_IO_Error"], row["Master_SSL_Allowed"]) == ("", "Yes")
    assert row["Slave_Transactional_Groups"].isdecimal()


def test_replica_status_is_the_same_as_people_see_it() -> None:
    """The batch format has the columns that the vertical one shows, in their order."""
    (row,) = sql.parse_batch(samples.read("mariadb/slave-status"))
    shown = samples.read("mariadb/slave-status-vertical").splitlines()[1:]
    assert list(row) == [line.partition(":")[0].strip() for line in shown]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", []),
        ("a\tb\n", []),
        ("a\tb\n1\t2\n", [{"a": "1", "b": "2"}]),
        ("a\n\n", [{"a": ""}]),
        ("a\tb\n\t\n", [{"a": "", "b": ""}]),
        ("a\nx\u2028y\x85z\x0bw\rv\n", [{"a": "x\u2028y\x85z\x0bw\rv"}]),
    ],
)
def test_rows(text: str, rows: list[dict[str, str]]) -> None:
    """Rows end at newlines only, and an empty value is a value."""
    assert sql.parse_batch(text) == rows


@pytest.mark.parametrize(
    ("escaped", "value"),
    [
        ("", ""),
        ("plain", "plain"),
        (r"\n\t\0\\", "\n\t\0\\"),
        (r"\\n", r"\n"),
        (r"\\\n", "\\\n"),
        (r"C:\dir", r"C:\dir"),
        ("end\\", "end\\"),
    ],
)
def test_unescape(escaped: str, value: str) -> None:
    """The client's four escapes; anything else stands for itself."""
    assert sql.unescape(escaped) == value


def escape(value: str) -> str:
    """Escape a value as the client does in batch mode."""
    for raw, shown in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\0", "\\0")):
        value = value.replace(raw, shown)
    return value


@given(TEXT)
def test_value_comes_back(value: str) -> None:
    """Whatever is in a table arrives as it is."""
    assert sql.unescape(escape(value)) == value


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=4))
def test_rows_come_back(rows: list[list[str]]) -> None:
    """Whatever is in a result set arrives as it is."""
    text = "".join("\t".join(map(escape, row)) + "\n" for row in (["a", "b"], *rows))
    assert [list(row.values()) for row in sql.parse_batch(text)] == rows


def test_query_goes_by_stdin() -> None:
    """The statement is never an argument, a secret in it neither."""
    remote = FakeRemote()
    remote.answer("env", "SSL_CERT_FILE=/dev/null", "mariadb", stdout="n\n7\n")
    statement = Secret.join("SELECT PASSWORD('", Secret("hunter2-secret"), "') AS n")
    assert sql.query(remote, FULL, statement, timeout_seconds=5) == [{"n": "7"}]
    (call,) = remote.calls
    assert list(call.argv) == sql.client_command(FULL)
    assert call.stdin == b"SELECT PASSWORD('hunter2-secret') AS n;\n"
    assert call.timeout_seconds == 5


def test_execute_stops_at_the_first_error() -> None:
    """The client's status is the verdict; its words are kept."""
    remote = FakeRemote()
    remote.answer("mariadb", status=1, stderr="ERROR 1064 (42000) at line 1: You have an error")
    with pytest.raises(CommandError) as caught:
        sql.execute(remote, BARE, "SELEC 1; SELECT 2")
    assert caught.value.status == 1
    assert "ERROR 1064" in caught.value.stderr
    assert remote.calls[0].stdin == b"SELEC 1; SELECT 2;\n"
    assert "--force" not in remote.calls[0].argv


def answer_all(*answers: str, end: str = "") -> FakeRemote:
    """Return a host whose client answers questions that are asked at once."""

    def say(call: Call) -> Result:
        marks = re.findall(
            r"^SELECT '([0-9a-f]{32})' AS xbvault_end;$", call.stdin.decode(), re.MULTILINE
        )
        ended = zip(answers, marks, strict=False)
        text = "".join(f"{answer}xbvault_end\n{mark}\n" for answer, mark in ended)
        return Result(status=0, stdout=f"{text}{end}".encode())

    remote = FakeRemote()
    remote.answers[("mariadb",)] = say
    return remote


def test_several_questions_are_one_session() -> None:
    """Each answer by its name; one without rows has none; and what ends them cannot be guessed."""
    remote = answer_all("n\n7\n", "", "a\tb\nxbvault_end\t2\n")
    asked = {"one": "SELECT 7 AS n", "none": "SHOW NOTHING", "last": "SELECT * FROM t"}
    found = sql.query_all(remote, BARE, asked)
    assert found == {"one": [{"n": "7"}], "none": [], "last": [{"a": "xbvault_end", "b": "2"}]}
    (call,) = remote.calls
    assert call.stdin.startswith(b"SELECT 7 AS n;\nSELECT '")
    sql.query_all(remote, BARE, asked)
    assert remote.calls[0].stdin != remote.calls[1].stdin


@pytest.mark.parametrize(
    ("answers", "end"), [(("n\n7\n",), ""), (("n\n7\n", ""), "cut"), (("n\n7", ""), ""), ((), "")]
)
def test_answers_that_are_not_all_there(answers: tuple[str, ...], end: str) -> None:
    """A client that ended early, or wrote more than was asked."""
    with pytest.raises(VerificationError):
        sql.query_all(answer_all(*answers, end=end), BARE, {"a": "SELECT 7 AS n", "b": "SELECT 8"})
