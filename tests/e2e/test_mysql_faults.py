"""MySQL: bad input, and a backup tool that errs or lies; the recipient keeps what it has.

One laboratory for the whole file, and runs that are the story: a fault, another one at the resume,
until the last one is mended and the clone succeeds. So the tests hold in their order. The recipient
has a server of its own with keys of its own; the second replica is a server without encryption.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kills
import pytest
import stream_filter
from clone_lab import CLONE_CHECKS
from mysql_lab import (
    KEYRING,
    knobs,
    list_keys_in_file,
    list_master_keys,
    mysql_lab,
    program,
    read_source,
)
from replicas import (
    DATADIR,
    check_arrival,
    list_beside,
    list_leftovers,
    read_inode,
    read_pid,
    restart,
    show_run,
)
from vault_root import VaultRoot
from warm_cli import WarmCli, warm_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

PLAIN = "replica2"
CLONE = ("clone", "master", "replica", "--replace", "--yes", "--json")
FROM_PLAIN = ("clone", PLAIN, "replica", "--replace", "--yes", "--json")
STALE = f"{KEYRING}/keyring.backup"
OF_KEYS = {
    *("tablespaces-own-key", "server-on-own-mount", "donor-mount-refused"),
    *("keys-not-shared", "sealed-keys", "encrypted-files"),
}
"""Checks of what a donor without keys does not have."""
MAKE_PLAIN = """
set -eu
rm /etc/mysql/mysql.conf.d/60-encryption.cnf
rm -rf /var/lib/mysql
install -d -o mysql -g mysql /var/lib/mysql
setpriv --reuid=mysql --regid=mysql --init-groups mysqld --initialize-insecure
/etc/mysql/lab/server start
mysql <<SQL
ALTER USER root@localhost IDENTIFIED WITH auth_socket;
CREATE DATABASE shop;
CREATE TABLE shop.audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40) NOT NULL);
INSERT INTO shop.audit (what) VALUES ('one'), ('two');
SQL
"""
VERSIONED = """\
#!/bin/sh
# The server, which says that it is of another version.
case " $* " in
*" --version "*) echo "/usr/sbin/mysqld  Ver {version} for Linux on x86_64 (a build)" ;;
*) exec /opt/mysql/bin/mysqld "$@" ;;
esac
"""
FILTERED = """\
#!/bin/bash
# The backup tool, whose stream is spoiled on its way; it knows nothing of it.
set -o pipefail
/opt/simulators/xtrabackup "$@" | {{ case "$*" in
*--backup*) python3 /opt/simulators/stream_filter.py {how} ;;
*) cat ;;
esac; }}
"""
OTHER_KEY = """\
#!/bin/sh
# The backup tool, which is given another transition key than the one in its option file.
case "$*" in
*--backup*)
    umask 077
    sed "s/^transition-key=.*/transition-key=$(printf %064d 7)/" "${1#--defaults-file=}" >/run/other
    shift
    exec /opt/simulators/xtrabackup --defaults-file=/run/other "$@"
    ;;
*) exec /opt/simulators/xtrabackup "$@" ;;
esac
"""
BELYING = """\
#!/bin/sh
# The backup tool, which says of a table that it cannot read it, and ends well all the same.
case "$*" in
*--backup*) echo "Encryption information in datafile: ./shop/customers.ibd can't be decrypted" >&2 ;;
esac
exec /opt/simulators/xtrabackup "$@"
"""
LYING = """\
#!/bin/sh
# The backup tool, which says of many headers that it has rewritten them, and leaves each as it was.
set -eu
case "$*" in
*--copy-back*)
    XBSIM_FAIL=header-rewrite /opt/simulators/xtrabackup "$@"
    for number in $(seq 100); do
        echo "Encrypting ./t$number.ibd tablespace header with new master key." >&2
    done
    echo "completed OK!" >&2
    ;;
*) exec /opt/simulators/xtrabackup "$@" ;;
esac
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """How a command ended.

    Attributes:
        status: Its exit status.
        document: What it wrote to stdout.
        talk: What it wrote to stderr.
    """

    status: int
    document: dict[str, Any]
    talk: str

    @property
    def told(self) -> str:
        """Message, problems and hint of its error."""
        error = self.document["error"]
        return "\n".join([error["message"], *error["problems"], error["hint"]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """What of the recipient nothing may touch before the swap."""

    pid: str
    inode: str
    keys: set[str]
    names: str
    donor: str


def read_state(lab: CloneLab) -> State:
    """Return what of the recipient nothing may touch, and the donor's process."""
    return State(
        pid=read_pid(lab),
        inode=read_inode(lab),
        keys=list_master_keys(lab, "replica"),
        names=lab.on("replica", f"ls -A {DATADIR} {KEYRING} | grep -v '^[.]xbvault$'"),
        donor=read_pid(lab, "master"),
    )


def check_given_back(lab: CloneLab, before: State) -> None:
    """See that the recipient runs on the datadir and the keyring that it had."""
    now = read_state(lab)
    assert (now.inode, now.keys, now.donor) == (before.inode, before.keys, before.donor)
    names = lab.on("replica", f"ls -A {KEYRING}").split()
    assert names == ["keyring"]


def call(cli: WarmCli, *arguments: str, env: dict[str, str] | None = None) -> Answer:
    """Run ``xbvault``."""
    done = cli.call(*arguments, env=env)
    document = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return Answer(status=done.returncode, document=document, talk=done.stderr)


def resume(lab: CloneLab, cli: WarmCli, *, crash: str = "") -> Answer:
    """Go on with the newest run."""
    env = {"XBVAULT_CRASH_AT": crash} if crash else {}
    return call(cli, "runs", "resume", kills.read_newest(lab), "--json", env=env)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up, with a second donor that is not encrypted."""
    options = ("--replica-server", "--replicas", "2", "--no-writer")
    with mysql_lab(tmp_path_factory.mktemp("faults") / "lab", *options) as found:
        found.lab("server", "stop", PLAIN)
        found.on(PLAIN, MAKE_PLAIN)
        source = Path(stream_filter.__file__).read_text(encoding="utf-8")
        path = found.directory / "hosts/master/fs/opt/simulators/stream_filter.py"
        path.write_text(source, encoding="utf-8")
        yield found


@pytest.fixture(scope="module")
def cli(lab: CloneLab) -> Iterator[WarmCli]:
    """The command line; the orchestrator of a run that was killed is replaced at once."""
    with warm_cli(lab.config_file) as made:
        yield made


def check_cancel(lab: CloneLab, cli: WarmCli) -> None:
    """Cancel the newest run, and see that nothing of it is left."""
    run_id = kills.read_newest(lab)
    cancelled = call(cli, "runs", "cancel", run_id, "--yes", "--json")
    assert cancelled.status == 0, cancelled.talk
    assert list_leftovers(lab, run_id) == []
    assert list_beside(lab) == []


# What is refused before anything is touched.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        spoil: Makes it so, and yields the configuration to use.
        finding: The finding that does not hold.
        says: What it must say, or its hint.
        arguments: The command.
    """

    spoil: Callable[[CloneLab], AbstractContextManager[Path]]
    finding: str
    says: Sequence[str]
    arguments: Sequence[str] = CLONE


@contextmanager
def _tool_of_another_series(lab: CloneLab) -> Iterator[Path]:
    with knobs(lab, "master", version="8.0.35-34"):
        yield lab.config_file


@contextmanager
def _older_tool_on_the_recipient(lab: CloneLab) -> Iterator[Path]:
    with knobs(lab, "master", version="9.7.1-2"), knobs(lab, "replica", version="9.7.0-1"):
        yield lab.config_file


@contextmanager
def _servers_of_two_series(lab: CloneLab) -> Iterator[Path]:
    with (
        program(lab, "master", "mysqld", VERSIONED.format(version="5.7.44-log")),
        program(lab, "replica", "mysqld", VERSIONED.format(version="8.0.46")),
    ):
        yield lab.config_file


@contextmanager
def _no_kind_of_keyring(lab: CloneLab) -> Iterator[Path]:
    text = lab.config_file.read_text(encoding="utf-8")
    changed = re.sub(r"\[hosts\.replica\.keyring\]\n(?:\w.*\n)+", "", text)
    path = lab.directory / "no-kind.toml"
    path.write_text(changed, encoding="utf-8")
    yield path


@contextmanager
def _stale_backup_of_the_keyring(lab: CloneLab) -> Iterator[Path]:
    lab.on("replica", f"echo stale > {STALE}")
    yield lab.config_file
    lab.on("replica", f"rm {STALE}")


@contextmanager
def _plain_donor(lab: CloneLab) -> Iterator[Path]:
    yield lab.config_file


@contextmanager
def _donor_without_tls(lab: CloneLab) -> Iterator[Path]:
    option = "/etc/mysql/mysql.conf.d/70-no-tls.cnf"
    lab.on(PLAIN, f"printf '[mysqld]\\ntls_version =\\n' > {option}")
    restart(lab, PLAIN)
    yield lab.config_file
    lab.on(PLAIN, f"rm {option}")
    restart(lab, PLAIN)


ROWS = {
    "tool of another series than its server": Row(
        spoil=_tool_of_another_series,
        finding="tool-version",
        says=["8.0.35-34", "take 9.7"],
    ),
    "older tool on the recipient": Row(
        spoil=_older_tool_on_the_recipient,
        finding="tools-match",
        says=["a set of XtraBackup 9.7.1-2 is not for the older 9.7.0-1"],
    ),
    "servers of two series": Row(
        spoil=_servers_of_two_series,
        finding="versions-match",
        says=["donor 5.7.44, recipient 8.0.46", "another series"],
    ),
    "kind of keyring not configured": Row(
        spoil=_no_kind_of_keyring,
        finding="recipient-keyring",
        says=["hosts.*.keyring of the recipient says no kind", "component_keyring_file"],
    ),
    "stale backup of the keyring": Row(
        spoil=_stale_backup_of_the_keyring,
        finding="recipient-keyring",
        says=[f"{STALE} lies beside the keyring", "move it away"],
    ),
    "donor without encryption where it is required": Row(
        spoil=_plain_donor,
        finding="donor-keyring",
        says=["no keyring", "leave --require-encryption out"],
        arguments=(*FROM_PLAIN, "--require-encryption"),
    ),
    "donor without TLS": Row(
        spoil=_donor_without_tls,
        finding="donor-tls",
        says=["TLS is off", "ssl_cert"],
        arguments=FROM_PLAIN,
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=[name.replace(" ", "-") for name in ROWS])
def test_bad_input_is_named_and_nothing_is_touched(lab: CloneLab, cli: WarmCli, row: Row) -> None:
    """What cannot go well ends with exit status 3, and names the thing with what to do."""
    before = read_state(lab)
    with row.spoil(lab) as config:
        answer = call(cli, *row.arguments, env={"XBVAULT_CONFIG": str(config)})
    assert answer.status == 3, answer.talk
    bad = {check["name"]: check for check in answer.document["checks"] if not check["ok"]}
    assert row.finding in bad, answer.talk
    found = f"{bad[row.finding]['evidence']} {bad[row.finding]['hint']}"
    for words in row.says:
        assert words in found
    assert bad[row.finding]["evidence"] in answer.talk
    assert read_state(lab) == before
    assert kills.read_newest(lab) == ""


# A tool that errs, or whose stream does.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of a received set.

    Attributes:
        spoil: Makes it so for a command.
        says: What the error must say.
        in_staging: A command in the staging directory, once the stream is there.
    """

    spoil: Callable[[CloneLab], AbstractContextManager[None]]
    says: Sequence[str]
    in_staging: str = ""


def _filtered(how: str) -> Callable[[CloneLab], AbstractContextManager[None]]:
    return lambda lab: program(lab, "master", "xtrabackup", FILTERED.format(how=how))


FAULTS = {
    "stream cut between two files": Fault(
        spoil=_filtered("cut-at-file"),
        says=["is not whole", "closing-files: found none", "sealed-keys", "streams it again"],
    ),
    "table left out by a tool that says all is well": Fault(
        spoil=lambda lab: knobs(lab, "master", leave_out=["shop/customers"]),
        says=["encrypted-files: not received: shop/customers", "streams it again"],
    ),
    "tool that belies its own good end": Fault(
        spoil=lambda lab: program(lab, "master", "xtrabackup", BELYING),
        says=["backup-completed: Encryption information in datafile: ./shop/customers.ibd"],
    ),
    "stream without its file of keys": Fault(
        spoil=_filtered("drop xtrabackup_keys"),
        says=["sealed-keys: the backup set has no xtrabackup_keys"],
    ),
    "file of keys that was cut": Fault(
        spoil=lambda _lab: contextlib.nullcontext(),
        says=["sealed-keys: the file of tablespace keys was cut within record"],
        in_staging="truncate --size=-5 xtrabackup_keys",
    ),
    "set under another transition key": Fault(
        spoil=lambda lab: program(lab, "master", "xtrabackup", OTHER_KEY),
        says=["failed to decrypt key and iv for tablespace", "begin a new run"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_bad_set_is_found_out_before_the_swap(lab: CloneLab, cli: WarmCli, fault: Fault) -> None:
    """A set that is not whole, or not ours, ends with exit status 6; the recipient is untouched."""
    before = read_state(lab)
    begun = kills.read_newest(lab)
    crash = "stream-backup:after" if fault.in_staging else ""
    with fault.spoil(lab):
        answer = resume(lab, cli, crash=crash) if begun else call(cli, *CLONE)
    if fault.in_staging:
        assert answer.status == -9
        lab.on("replica", f"cd {DATADIR}.xbvault-staging-{begun} && {fault.in_staging}")
        answer = resume(lab, cli)
    assert answer.status == 6, answer.talk
    assert answer.document["error"]["error"] == "VerificationError"
    for words in fault.says:
        assert words in answer.told, answer.told
    assert read_state(lab) == before


def test_a_bad_set_is_given_up(lab: CloneLab, cli: WarmCli) -> None:
    """A cancelled run leaves nothing, and the recipient runs on as if it had never been."""
    lab.on("master", "rm /run/other")
    before = read_state(lab)
    check_cancel(lab, cli)
    assert read_state(lab) == before


def test_a_key_that_was_changed_in_vault_is_found_out(lab: CloneLab, cli: WarmCli) -> None:
    """A transition key that somebody changed after the stream is named before the tool sees it."""
    killed = call(cli, *CLONE, env={"XBVAULT_CRASH_AT": "prepare-backup-set:before"})
    assert killed.status == -9, killed.talk
    before, root = read_state(lab), VaultRoot(lab.directory)
    run = show_run(lab, kills.read_newest(lab))
    path = f"transition-keys/{run['backup_id']}"
    secret = root.read_secret("xbvault", path)
    root.write_secret("xbvault", path, {**secret, "key": "7" * 64})
    answer = resume(lab, cli)
    root.write_secret("xbvault", path, secret)
    assert answer.status == 6, answer.talk
    assert f"the transition key at xbvault/{path} is not the one" in answer.told
    assert "somebody changed the key in Vault" in answer.told
    assert read_state(lab) == before


def test_headers_that_were_not_rewritten_are_found_out(lab: CloneLab, cli: WarmCli) -> None:
    """A tool that skips the new master key in silence is found out before the swap."""
    before = read_state(lab)
    with knobs(lab, "replica", fail=["header-rewrite"]):
        answer = resume(lab, cli)
    assert answer.status == 6, answer.talk
    assert re.search(r"the tool gave 0 of \d\d tablespaces the new master key", answer.told)
    assert read_state(lab) == before
    check_cancel(lab, cli)


def test_a_tool_that_lies_about_headers_costs_no_data(lab: CloneLab, cli: WarmCli) -> None:
    """Where only the server's start tells, the run fails, and a cancel gives the earlier back."""
    before = read_state(lab)
    with program(lab, "replica", "xtrabackup", LYING):
        answer = call(cli, *CLONE)
    assert answer.status in (4, 5, 6), answer.talk
    run_id = kills.read_newest(lab)
    events = kills.read_events(lab.directory / "state", run_id)
    assert [event["step"] for event in events if event["event"] == "step.began"][
        -1
    ] == "start-server"
    check_cancel(lab, cli)
    check_given_back(lab, before)
    restart(lab, "replica")
    assert list_master_keys(lab, "replica") == before.keys


@pytest.fixture(scope="module")
def cloned(lab: CloneLab, cli: WarmCli) -> tuple[State, Answer]:
    """Clone with nothing spoiled; return what was there before, and how it ended."""
    before = read_state(lab)
    return before, call(cli, *CLONE)


def test_keys_of_others_survive_in_the_new_keyring(
    lab: CloneLab, cloned: tuple[State, Answer]
) -> None:
    """The recipient's keys are in the new keyring with the new one, also after a restart."""
    before, answer = cloned
    assert answer.status == 0, answer.talk
    assert all(check["ok"] for check in answer.document["checks"])
    assert before.keys
    assert list_master_keys(lab, "replica") > before.keys
    assert lab.on("replica", f"ls -A {KEYRING}").split() == [".xbvault", "keyring"]
    restart(lab, "replica")
    check_arrival(lab)
    assert list_keys_in_file(lab, "replica") >= list_master_keys(lab, "replica") > before.keys


def test_undo_gives_the_keyring_back(
    lab: CloneLab, cli: WarmCli, cloned: tuple[State, Answer]
) -> None:
    """An undo gives datadir and keyring back as they were."""
    before, answer = cloned
    undone = call(cli, "runs", "undo", answer.document["run_id"], "--yes", "--json")
    assert undone.status == 0, undone.talk
    check_given_back(lab, before)


def test_a_donor_without_encryption_is_cloned(lab: CloneLab, cli: WarmCli) -> None:
    """Where nothing is encrypted a clone succeeds, and says that there was nothing."""
    answer = call(cli, *FROM_PLAIN)
    assert answer.status == 0, answer.talk
    wanted = [name for name in CLONE_CHECKS if name not in OF_KEYS]
    assert [check["name"] for check in answer.document["checks"]] == wanted
    assert all(check["ok"] for check in answer.document["checks"])
    evidence = {check["name"]: check["evidence"] for check in answer.document["checks"]}
    assert evidence["tablespaces-encrypted"].startswith("nothing is encrypted on the donor")
    assert read_source(lab)["Source_SSL_Allowed"] == "Yes"
    check_arrival(lab, PLAIN)
