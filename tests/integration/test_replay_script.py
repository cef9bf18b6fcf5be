"""The script that reads archived binary logs: real ``age``, and a reader that says what a test wants."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.host import script
from orchestrator.steps.replay import parse_found

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

BYTES = 900
"""Size of the log that the texts below are of."""
HEAD = """\
# at 4
#261123  2:11:12 server id 11  end_log_pos 256 CRC32 0x86e00dee \tStart: binlog v 4, created 261123
# at 256
#261123  2:11:12 server id 11  end_log_pos 413 CRC32 0x345d5fc8 \tGtid list [0-11-69]
"""
FIRST = """\
# at 413
#261123  2:11:12 server id 11  end_log_pos 455 CRC32 0xa59f4980 \tGTID 0-11-70 trans
# at 455
# at 517
#261123  2:11:12 server id 11  end_log_pos 517 CRC32 0xf61f0fe7 \tAnnotate_rows:
#Q> insert into pt.t values (2)
#261123  2:11:12 server id 11  end_log_pos 562 CRC32 0x962661a1 \tTable_map: `pt`.`t`
# at 562
#261123  2:11:12 server id 11  end_log_pos 642 CRC32 0xa6a25180 \tXid = 69
"""
SECOND = """\
# at 642
#261123 12:00:01 server id 11  end_log_pos 684 CRC32 0x38869031 \tGTID 0-11-71 trans
# at 684
#261123 12:00:01 server id 11  end_log_pos 900 CRC32 0xd560c5f4 \tXid = 70
"""
WHOLE = HEAD + FIRST + SECOND
UUID = "2f5b0a6e-6c1c-11ee-8c99-0242ac120002"
MYSQL = f"""\
# at 4
#261123  2:11:12 server id 1  end_log_pos 127 CRC32 0x1 \tStart: binlog v 4
# at 127
#261123  2:11:12 server id 1  end_log_pos 206 CRC32 0x2 \tGTID\tlast_committed=0\tsequence_number=1
# original_commit_timestamp=1795399872000000 (2026-11-23 02:11:12.000000 UTC)
SET @@SESSION.GTID_NEXT= '{UUID}:7'/*!*/;
# at 206
#261123  2:11:12 server id 1  end_log_pos 500 CRC32 0x3 \tXid = 9
# at 500
#261123  2:11:13 server id 1  end_log_pos 579 CRC32 0x4 \tGTID\tlast_committed=1\tsequence_number=2
SET @@SESSION.GTID_NEXT= '{UUID}:8'/*!*/;
# at 579
#261123  2:11:13 server id 1  end_log_pos 900 CRC32 0x5 \tXid = 10
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A folder with an encrypted archive of one log, which another one comes before."""

    folder: Path
    log: bytes

    def run(
        self, verb: str, *words: str, lines: str = "", command: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the script; the reader prints the file ``said``, unless another is named."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        size = (self.folder / "logs.age").stat().st_size - 7
        listed = lines or f"skip 100\nlog bin.000002 {BYTES} - -\n"
        (self.folder / "list").write_text(
            f"set 7 {size} {self.folder}/identity none\n{listed}end\n", encoding="utf-8"
        )
        reader = command or f"cat >/dev/null; cat {self.folder}/said"
        return subprocess.run(
            [
                "sh",
                "-c",
                script("replay.sh"),
                "replay",
                verb,
                f"{self.folder}/list",
                f"{self.folder}/logs.age",
                str(scratch),
                *words,
                "sh",
                "-c",
                reader,
                "reader",
            ],
            capture_output=True,
            check=False,
            text=True,
            timeout=30,
            env={**os.environ, "TZ": "Asia/Tokyo"},
        )

    def find(self, said: str, kind: str, target: str, start: int = 4) -> tuple[int, int, str, bool]:
        """Return the stop, how many transactions are wanted, the last one, and whether it was met."""
        (self.folder / "said").write_text(said, encoding="utf-8")
        ended = self.run("find", str(start), kind, target)
        assert ended.returncode == 0, ended.stderr
        found, is_there = parse_found(ended.stdout, "bin.000002")
        return found.stop, found.transactions, found.gtid, is_there


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return the folder, with an archive behind seven bytes of another one."""
    identity = tmp_path / "identity"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    recipient = subprocess.run(
        ["age-keygen", "-y", str(identity)], check=True, capture_output=True, text=True
    ).stdout.strip()
    log = os.urandom(BYTES)
    sealed = subprocess.run(
        ["age", "-r", recipient],
        input=b"x" * 100 + log + b"y" * 50,
        check=True,
        capture_output=True,
    ).stdout
    (tmp_path / "logs.age").write_bytes(b"before!" + sealed)
    return Bench(folder=tmp_path, log=log)


@pytest.mark.parametrize(
    ("said", "kind", "target", "start", "wanted"),
    [
        (WHOLE, "gtid", "0-11-70", 4, (642, 1, "0-11-70", True)),
        (WHOLE, "gtid", "0-11-71", 4, (900, 2, "0-11-71", True)),
        (WHOLE, "gtid", "0-11-72", 4, (900, 2, "0-11-71", False)),
        (WHOLE, "gtid", "0-11-70", 642, (900, 1, "0-11-71", False)),
        (WHOLE, "time", "261123120000", 4, (642, 1, "0-11-70", False)),
        (WHOLE, "time", "261123120001", 4, (900, 2, "0-11-71", False)),
        (WHOLE, "time", "261123021111", 4, (413, 0, "", False)),
        (WHOLE, "time", "251231235959", 642, (642, 0, "", False)),
        (MYSQL, "gtid", f"{UUID}:7", 4, (500, 1, f"{UUID}:7", True)),
        (MYSQL, "time", "261123021112", 4, (500, 1, f"{UUID}:7", False)),
        (MYSQL.upper().replace("# AT", "# at").replace("SERVER ID", "server id")
         .replace("END_LOG_POS", "end_log_pos"), "gtid", f"{UUID}:8", 4, (900, 2, f"{UUID}:8".upper(), True)),
    ],
)  # fmt: skip
def test_the_end_is_found(
    bench: Bench, said: str, kind: str, *, target: str, start: int, wanted: tuple[object, ...]
) -> None:
    """Of either flavor, by a transaction and by a time in UTC, from a position on."""
    assert bench.find(said, kind, target, start) == wanted


FAKE = "#261123  2:11:12 server id 11  end_log_pos {} CRC32 0xa \tGTID 0-11-99 trans\n"


@pytest.mark.parametrize(
    "said",
    [
        HEAD + FIRST + "# at 642\n" + FAKE.format(643) + SECOND,
        HEAD + FIRST + "# at 642\n" + FAKE.format(650) + SECOND,
        HEAD + FIRST + FAKE.format(643) + SECOND,
        HEAD + "# at 413\n" + FAKE.format(414) + FIRST + SECOND,
        HEAD + FIRST + SECOND + "# at 900\n" + FAKE.format(901),
        HEAD + SECOND,
        HEAD + FIRST,
        "",
    ],
)
def test_a_text_that_looks_like_an_event_is_not_believed(bench: Bench, said: str) -> None:
    """Statements of users stand in what the reader prints: a position that does not fit ends it."""
    (bench.folder / "said").write_text(said, encoding="utf-8")
    ended = bench.run("find", "4", "gtid", "0-11-99")
    assert ended.returncode == 65, ended.stdout
    assert "not to be understood" in ended.stderr


def test_logs_are_played_as_they_are(bench: Bench) -> None:
    """From the first byte that is wanted, to the last; each that is through is written down."""
    copy = f'printf "%s " "$@" >>{bench.folder}/seen; cat'
    lines = f"skip 100\nlog bin.000002 {BYTES} - -\n"
    ended = bench.run("play", lines=lines, command=f"{copy} | base64 -w0")
    assert ended.returncode == 0, ended.stderr
    assert (
        subprocess.run(
            ["base64", "-d"], input=ended.stdout.encode(), capture_output=True, check=True
        ).stdout
        == bench.log
    )
    lines = f"skip 100\nlog bin.000002 {BYTES} 413 642\nlog bin.000003 50 - -\n"
    ended = bench.run("play", lines=lines, command=f"{copy} | wc -c")
    assert (ended.returncode, ended.stdout.split()) == (0, ["642", "50"])
    assert (bench.folder / "seen").read_text().split() == ["-", "--start-position=413", "-", "-"]
    played = (bench.folder / "scratch" / "played").read_text().split()
    assert played == ["bin.000002", "bin.000002", "bin.000003"]


def test_what_fails_is_told(bench: Bench) -> None:
    """An archive that was altered, a reader that fails, and one that does not read to the end."""
    (bench.folder / "said").write_text(WHOLE, encoding="utf-8")
    failed = bench.run("play", command="cat >/dev/null; exit 3")
    assert (failed.returncode, "binlog 3" in failed.stderr) == (74, True)
    assert bench.run("play", command="head -c 10 >/dev/null").returncode == 0
    archive = bench.folder / "logs.age"
    data = archive.read_bytes()
    archive.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    for verb, words in (("play", ()), ("find", ("4", "gtid", "0-11-70"))):
        spoiled = bench.run(verb, *words)
        assert spoiled.returncode in (65, 74)
        assert "age: error" in spoiled.stderr
    assert bench.run("burn", "1", "2", "3").returncode == 64
