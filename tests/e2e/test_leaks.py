"""No secret of a clone is found anywhere but where the threat model says that it must be.

The planted secrets come first in mind: a scanner that finds nothing proves nothing, so the same
one must find a secret that was put into each kind of place.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import secrets
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from clone_lab import REPOSITORY, CloneLab, running_lab
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)
from lab import bao, hosts, model, product
from lab.errors import LabError
from leak_scanner import (
    ALLOWED,
    LEAST_BYTES,
    Content,
    Hit,
    Known,
    Recorder,
    forms,
    leaks,
    parse_execve,
    scan,
    trees_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.timeout(900)  # every process of a clone is traced, which costs time

MOUNT = product.MOUNT
CLONE = ("clone", "master", "replica", "--json", "--yes")
KINDS = {
    "host-token",
    "orchestrator-token",
    "page-key",
    "replication-password",
    "root-token",
    "stream-private-key",
    "transition-key",
    "transition-token",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a clone that was watched.

    Attributes:
        known: Every secret that was met.
        hits: Every place where one was found.
        contents: What was seen while it ran.
        status: Exit status of the command.
        stdout: What it answered.
        stderr: What it said.
    """

    known: tuple[Known, ...]
    hits: tuple[Hit, ...]
    contents: tuple[Content, ...]
    status: int
    stdout: str
    stderr: str


class Harvest:
    """Collects the secrets in Vault with the root token while a run goes on.

    Args:
        lab: The laboratory.
    """

    def __init__(self, lab: model.Lab) -> None:
        self._lab = lab
        self._token = bao.root_token(lab)
        self._read: set[tuple[str, str, int]] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="harvest", daemon=True)
        self._error: Exception | None = None
        self.known: set[Known] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=30)
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while not self._ended.wait(0.2):
                self.take()
        except Exception as error:  # noqa: BLE001 - it is raised where the block ends
            self._error = error

    def take(self) -> None:
        """Read every version of every secret that stands in Vault now and was not read before."""
        mounts = bao.request(self._lab, "GET", "sys/mounts", token=self._token)["data"]
        for path, mount in mounts.items():
            if mount["type"] != "kv":
                continue
            own = path.rstrip("/")
            if own == MOUNT:
                self._take_folder(own, "transition-keys", "transition-key")
                self._take_folder(own, "replication/master/replica", "replication-password")
            else:
                self._take_folder(own, "", "page-key")

    def _take_folder(self, mount: str, folder: str, kind: str) -> None:
        for name in self._ask("LIST", f"{mount}/metadata/{folder}").get("keys", ()):
            path = f"{folder}/{name}".lstrip("/")
            metadata = self._ask("GET", f"{mount}/metadata/{path}")
            for version in map(int, metadata.get("versions", {})):
                if (mount, path, version) in self._read:
                    continue
                found = self._ask("GET", f"{mount}/data/{path}?version={version}").get("data")
                if not found:
                    continue
                self._read.add((mount, path, version))
                field = {"transition-key": "key", "replication-password": "password"}.get(kind)
                value = found[field or "data"].encode()
                owner = "replica" if kind == "replication-password" else ""
                self.known.add(Known(kind=kind, value=value, host=owner))

    def _ask(self, verb: str, path: str) -> dict[str, Any]:
        """Ask; what is not there (any more) is empty."""
        try:
            answer = bao.request(self._lab, verb, path, token=self._token)
        except LabError as error:
            if " answers 404 " in error.message or "no handler for route" in error.message:
                return {}
            raise
        return dict(answer["data"])


def stream_keys(contents: Iterable[Content]) -> Iterator[Known]:
    """Yield the private key of the stream's credential, in the pieces by which it would show."""
    for seen in contents:
        if not seen.name.startswith("/run/xbvault/") or not seen.name.endswith("/id"):
            continue
        if not seen.content.rstrip().endswith(b"-----END OPENSSH PRIVATE KEY-----"):
            continue  # seen while it was being written
        key = load_ssh_private_key(seen.content, password=None)
        seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        # The first lines hold what is the same in every key, and the public one.
        lines = [line for line in seen.content.splitlines()[3:-1] if len(line) >= LEAST_BYTES]
        for value in (seed, seed.hex().encode(), *lines):
            yield Known(kind="stream-private-key", value=value, host=seen.host)


def transition_tokens(contents: Iterable[Content]) -> Iterator[Known]:
    """Yield the transition tokens, from the recipient's tmpfs."""
    for seen in contents:
        if seen.place != "tmpfs" or not seen.name.startswith("/run/xbvault/"):
            continue
        for line in seen.content.splitlines():
            name, _, value = line.partition(b"=")
            if name == b"VAULT_TOKEN" and value:
                yield Known(kind="transition-token", value=value, host=seen.host)


def standing_tokens(lab: model.Lab) -> Iterator[Known]:
    """Yield the tokens that the laboratory was set up with."""
    for kind, path in (
        ("root-token", bao.root_token_file(lab)),
        ("orchestrator-token", product.orchestrator_token_file(lab)),
    ):
        yield Known(kind=kind, value=path.read_bytes().strip())
    for host in lab.hosts:
        text = (host.root / "etc/mysql/vault.env").read_text(encoding="utf-8")
        value = text.partition("VAULT_TOKEN=")[2].splitlines()[0].strip("'\"")
        yield Known(kind="host-token", value=value.encode(), host=host.name)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """A laboratory for all tests here."""
    with running_lab(tmp_path_factory.mktemp("leaks") / "lab", size=0.02, is_warm=False) as lab:
        yield lab


@pytest.fixture(scope="module")
def lab(stand: CloneLab) -> model.Lab:
    """The same, as the laboratory knows itself."""
    return model.load(stand.directory)


@pytest.fixture(scope="module")
def evidence(stand: CloneLab, lab: model.Lab, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A clone that was watched, and all that was found."""
    recorder = Recorder(lab, tmp_path_factory.mktemp("clone") / "seen")
    with Harvest(lab) as harvest, recorder:
        ended = subprocess.run(
            recorder.command([*product.command(), *CLONE]),
            env={
                **os.environ,
                "XBVAULT_CONFIG": str(stand.config_file),
                "TMPDIR": str(recorder.temporary),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
            cwd=REPOSITORY,
        )
    harvest.take()
    contents = [
        *recorder.contents(),
        Content(place="output", host="", name="stdout", content=ended.stdout.encode()),
        Content(place="output", host="", name="stderr", content=ended.stderr.encode()),
    ]
    known = {
        *harvest.known,
        *standing_tokens(lab),
        *stream_keys(contents),
        *transition_tokens(contents),
    }
    return Evidence(
        known=tuple(known),
        hits=tuple(scan(list(known), contents=contents, trees=trees_of(lab))),
        contents=tuple(contents),
        status=ended.returncode,
        stdout=ended.stdout,
        stderr=ended.stderr,
    )


def test_clone_under_watch_succeeds(evidence: Evidence) -> None:
    """A clone whose every process is traced ends well: what follows is about a whole run."""
    assert evidence.status == 0, evidence.stderr
    assert json.loads(evidence.stdout)["status"] == "succeeded"


def test_every_kind_of_secret_was_caught(evidence: Evidence) -> None:
    """The scan knew what to look for: every kind of secret was met with its value."""
    assert {known.kind for known in evidence.known} == KINDS
    tokens = {known.host for known in evidence.known if known.kind == "host-token"}
    assert tokens == {"master", "replica"}
    assert len({known.value for known in evidence.known}) > 15


def test_clone_leaks_nothing(evidence: Evidence) -> None:
    """No secret stands anywhere but in the places that the threat model names."""
    found = leaks(evidence.hits)
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("allowed", ALLOWED, ids=lambda a: f"{a.kinds[0]} in {a.place}")
def test_every_allowed_place_is_in_use(evidence: Evidence, allowed: object) -> None:
    """The table of allowed places is no longer than it must be, and the scanner sees into each."""
    assert any(row.covers(hit) for row in ALLOWED if row is allowed for hit in evidence.hits)


def test_transition_token_lies_on_the_recipient_alone(evidence: Evidence) -> None:
    """The transition token never comes to the donor."""
    assert {k.host for k in evidence.known if k.kind == "transition-token"} == {"replica"}


def test_processes_of_both_hosts_and_ours_were_seen(evidence: Evidence) -> None:
    """The watch was awake: it saw what a clone must execute, on both hosts and here."""
    seen = {(c.host, c.name) for c in evidence.contents if c.seen_by == "strace"}
    assert {
        ("master", "mariadb-backup"),
        ("master", "ssh-keygen"),
        ("master", "ssh"),
        ("replica", "xbvault-receive"),
        ("replica", "mbstream"),
        ("replica", "mariadb-backup"),
        ("replica", "mariadbd"),
        ("", "ssh"),
    } <= seen
    sampled = {(c.host, c.name) for c in evidence.contents if c.seen_by == "sample"}
    assert {("master", "mariadbd"), ("replica", "mariadbd"), ("replica", "sshd")} <= sampled


# What is planted, and where it must be found.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plant:
    """A secret that was put where none may be.

    Attributes:
        place: Where it must be found.
        host: On which host.
        name: By which name (its beginning).
        form: In which form.
        seen_by: By which part of the scanner; empty: any.
    """

    place: str
    host: str
    name: str
    form: str = "raw"
    seen_by: str = ""


def _written(form: str, value: str) -> bytes:
    made = {
        "raw": value.encode(),
        "hex": value.encode().hex().encode(),
        "upper": value.upper().encode(),
        "binary": bytes.fromhex(value),
        "base64": base64.b64encode(f"VAULT_TOKEN={value}\n".encode()),
        "url": "".join(f"%{byte:02x}" for byte in value.encode()).encode(),
    }
    return b"before " + made[form] + b" after\n"


FILES = [
    Plant(place="file", host="master", name="/var/lib/mysql/planted"),
    Plant(place="file", host="master", name="/etc/mysql/planted.cnf", form="hex"),
    Plant(place="file", host="master", name="/var/log/mysql/planted.log", form="base64"),
    Plant(place="file", host="master", name="/var/lib/xbvault/jobs/planted/stderr.0"),
    Plant(place="file", host="replica", name="/tmp/planted", form="url"),
    Plant(place="file", host="replica", name="/root/planted", form="upper"),
    Plant(place="file", host="replica", name="/home/dba/planted", form="binary"),
    Plant(place="file", host="replica", name="/var/lib/mysql.xbvault-staging-x/backup-my.cnf"),
    Plant(place="tmpfs", host="replica", name="/run/xbvault/planted"),
    Plant(place="tmpfs", host="master", name="/dev/shm/planted", form="base64"),
]
OTHERS = {
    "argv-short": Plant(place="argv", host="master", name="true", seen_by="strace"),
    "argv-lasting": Plant(place="argv", host="replica", name="sleep", seen_by="sample"),
    "argv-of-ours": Plant(place="argv", host="", name="true", seen_by="strace"),
    "environ-short": Plant(place="environ", host="replica", name="true", seen_by="strace"),
    "environ-lasting": Plant(place="environ", host="master", name="sleep", seen_by="sample"),
    "environ-of-ours": Plant(place="environ", host="", name="true", seen_by="strace"),
    "passing-file": Plant(place="file", host="replica", name="/tmp/passing", seen_by="sample"),
    "passing-tmpfs": Plant(place="tmpfs", host="master", name="/run/passing", seen_by="sample"),
    "journal": Plant(place="journal", host="", name="journal.sqlite-wal"),
    "log": Plant(place="log", host="", name="logs/planted.jsonl"),
    "console": Plant(place="log", host="master", name="console.log"),
    "audit": Plant(place="audit", host="", name="audit.log"),
    "stdout": Plant(place="output", host="", name="stdout"),
    "stderr": Plant(place="output", host="", name="stderr"),
}
PLANTS = {f"{plant.name} {plant.form}": plant for plant in FILES} | OTHERS


@pytest.fixture(scope="module")
def planted(
    stand: CloneLab,
    lab: model.Lab,
    evidence: Evidence,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[Hit]]:
    """A secret of its own in every kind of place, and what the scanner found of each."""
    values = {name: secrets.token_hex(32) for name in PLANTS}
    recorder = Recorder(lab, tmp_path_factory.mktemp("plants") / "seen")
    paths = []
    for plant in FILES:
        root = _root_of(lab, plant)
        path = root / plant.name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_written(plant.form, values[f"{plant.name} {plant.form}"]))
        paths.append(path)
    state = stand.directory / "state"
    for name, path in (
        ("log", state / "logs" / "planted.jsonl"),
        ("console", lab.host("master").directory / "console.log"),
        ("audit", lab.vault / "audit.log"),
    ):
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"event": "notice", "text": values[name]}) + "\n")
    with (
        contextlib.closing(sqlite3.connect(state / "journal.sqlite")) as journal,
        recorder,
    ):
        # The connection stays open until the scan is done: so it stands in the log alone.
        journal.execute("CREATE TABLE planted (text TEXT)")
        journal.execute("INSERT INTO planted VALUES (?)", (values["journal"],))
        journal.commit()
        _plant_processes(stand, lab, recorder, values)
        for name in ("passing-file", "passing-tmpfs"):
            path = _root_of(lab, PLANTS[name]) / PLANTS[name].name.lstrip("/")
            path.write_text(values[name], encoding="utf-8")
            time.sleep(1)
            path.unlink()
        known = [Known(kind=name, value=value.encode()) for name, value in values.items()]
        hits = scan(known, trees=trees_of(lab))
        journal.execute("DROP TABLE planted")
        journal.commit()
    contents = recorder.contents() + [
        Content(place="output", host="", name=name, content=f"error: {values[name]}\n".encode())
        for name in ("stdout", "stderr")
    ]
    hits += scan(known, contents=contents)
    for path in paths:
        path.unlink()
    assert evidence.status == 0, "the laboratory was not in the state after a clone"
    return {name: [hit for hit in hits if hit.kind == name] for name in PLANTS}


def _root_of(lab: model.Lab, plant: Plant) -> Path:
    """Return where the host's own root directory is on this machine."""
    return Path(f"/proc/{hosts.find_first_process(lab, lab.host(plant.host))}/root")


def _plant_processes(
    stand: CloneLab, lab: model.Lab, recorder: Recorder, values: dict[str, str]
) -> None:
    ssh = ["ssh", "-F", str(stand.directory / "ssh" / "config")]
    lasting = "environ-lasting"
    commands = [
        [*ssh, "master", f"/bin/true {values['argv-short']}"],
        # By stdin, so that the shell's own arguments do not hold it.
        [*ssh, "replica", "bash -s"],
        hosts.command_in(
            lab,
            lab.host("replica"),
            ["bash", "-c", f"exec -a {values['argv-lasting']} sleep 1"],
        ),
        hosts.command_in(
            lab, lab.host("master"), ["env", f"VAULT_TOKEN={values[lasting]}", "sleep", "1"]
        ),
        recorder.command(["/bin/true", values["argv-of-ours"]]),
        recorder.command(["env", f"VAULT_TOKEN={values['environ-of-ours']}", "/bin/true"]),
    ]
    for index, command in enumerate(commands):
        if "--seccomp-bpf" in command:  # each command's strace begins its file anew
            command[command.index("-o") + 1] += f".{index}.strace"
        subprocess.run(
            command,
            input=f"VAULT_TOKEN={values['environ-short']} /bin/true\n".encode(),
            check=True,
            timeout=60,
        )


@pytest.mark.parametrize(("name", "plant"), PLANTS.items())
def test_planted_secret_is_found(planted: dict[str, list[Hit]], name: str, plant: Plant) -> None:
    """A secret in this kind of place is found there, in the form that it was written in."""
    there = [
        hit
        for hit in planted[name]
        if (hit.place, hit.host, hit.form) == (plant.place, plant.host, plant.form)
        and hit.name.startswith(plant.name)
        and plant.seen_by in ("", hit.seen_by)
    ]
    assert there, planted[name]
    assert leaks(there) == there


# What the scanner is made of.


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_found_wherever_it_begins(before: int, encode: Callable[[bytes], bytes]) -> None:
    """A secret inside a longer text is found in the base64 of that text."""
    value = b"s.hXq9/+Zk3TnV0aB7uLw?Ej5R>"
    text = encode(b"x" * before + value + b" and more")
    assert any(core in text for core in forms(value)["base64"])


@pytest.mark.parametrize(
    "hit",
    [
        ("host-token", "raw", "file", "replica", "/etc/mysql/vault.env", "scan"),  # of the other
        ("host-token", "raw", "file", "master", "/etc/mysql/vault.env.bak", "scan"),
        ("host-token", "raw", "argv", "master", "mariadbd", "strace"),
        ("host-token", "raw", "environ", "master", "sleep", "strace"),
        ("host-token", "raw", "environ", "", "mariadbd", "sample"),
        ("host-token", "base64", "file", "master", "/etc/mysql/vault.env", "scan"),
        ("transition-token", "raw", "tmpfs", "master", "/run/xbvault/server.env", "scan"),
        ("transition-token", "raw", "file", "master", "/etc/mysql/vault.env", "scan"),
        ("replication-password", "raw", "file", "master", "/var/lib/mysql/bin.000001", "scan"),
        ("replication-password", "raw", "file", "replica", "/var/lib/mysql/master.info", "scan"),
        ("stream-private-key", "raw", "tmpfs", "master", "/run/xbvault/r1/id", "scan"),
        ("transition-key", "raw", "environ", "master", "mariadb-backup", "strace"),
        ("page-key", "raw", "file", "master", "/etc/mysql/vault.env", "scan"),
        ("orchestrator-token", "raw", "environ", "master", "mariadbd", "strace"),
    ],
)
def test_what_is_allowed_to_one_is_not_allowed_to_another(hit: tuple[str, ...]) -> None:
    """A place is allowed to its kind of secret, of its own host, in clear and in time only."""
    kind, form, place, host, name, seen_by = hit
    found = Hit(
        kind=kind, owner="master", form=form, place=place, host=host, name=name, seen_by=seen_by
    )
    assert leaks([found]) == [found]


def test_execve_of_strace_is_taken_apart() -> None:
    """Quotes, brackets, octal escapes and failed calls do not hide anything."""
    line = rb"""12 execve("/bin/sh", ["sh", "-c", "a \"], [\\ b\n", "\303\274"], ["A=[1]", "B="]) = -1"""
    assert parse_execve(line) == (
        b"/bin/sh",
        b'sh\0-c\0a "], [\\ b\n\0\xc3\xbc\0',
        b"A=[1]\0B=\0",
    )
    assert parse_execve(b"12 execve(" + b'"/bin/true", ["true"], [] <unfinished ...>') == (
        b"/bin/true",
        b"true\0",
        b"",
    )
    assert parse_execve(b"12 +++ exited with 0 +++") is None
    with pytest.raises(AssertionError, match="cut"):
        parse_execve(b'12 execve("/bin/true", ["tr"...], []) = 0')
