"""Stored backups and restores under hostile conditions: each is named, and nothing else is harmed.

One laboratory, whose replica has a server and data of its own. What is broken is mended, and the
run resumed where that makes sense.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import laws
import pytest
import set_laws
from clone_lab import REPOSITORY, CloneLab, running_lab
from lab import product
from lab.commands import wait_until
from leak_scanner import Known, Tree, scan
from replicas import read_inode, read_pid, show_run
from vault_root import VaultRoot
from ways import MARIADB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

SLOWLY = ("--throttle", "6M", "--compress", "none")
"""So that a stream lasts some seconds."""
ROOM = "300m"
"""Of a small filesystem; more than a backup of this laboratory, and the margin, take."""
FILLER = "/srv/backups/fills-the-disk"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    folder = tmp_path_factory.mktemp("hostile") / "lab"
    with running_lab(folder, "--stores", "1", "--replica-server", size=0.02) as found:
        yield found


@pytest.fixture(scope="module")
def good(lab: CloneLab) -> dict[str, Any]:
    """A good set, that nothing here may harm for good."""
    return lab.backup("master", "--compress", "none")


@pytest.fixture(autouse=True)
def unharmed(lab: CloneLab, good: dict[str, Any]) -> Iterator[None]:
    """The good set, the donor's server and the recipient's data are there after every test."""
    before = laws.note(lab)
    yield
    set_laws.check_whole(lab, good["backup_id"])
    laws.raise_all(laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before))


@contextlib.contextmanager
def command(lab: CloneLab, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command line beside the test; end it with the block."""
    text = lab.config_file.read_text(encoding="utf-8")
    config = lab.directory / "impatient.toml"
    text = text.replace("[ssh]\n", "[ssh]\nconnect_timeout_seconds = 3\n")
    config.write_text(f"{text}\n[clone]\nstall_seconds = 15\n", encoding="utf-8")
    process = subprocess.Popen(
        [*product.command(), *arguments, "--yes", "--json"],
        env={**os.environ, "XBVAULT_CONFIG": str(config), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_end(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Return exit status and document of a command."""
    out, err = process.communicate(timeout=240)
    assert out, err
    return process.returncode, json.loads(out)


def is_halted(process: subprocess.Popen[str]) -> bool:
    """Tell whether a process was stopped by a signal."""
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as stream:  # noqa: PTH123 - not a file of ours
        return stream.read().rpartition(") ")[2].startswith("T")


def count_parts(lab: CloneLab, *known: str) -> int:
    """Return how many parts there are of sets that were not known before."""
    folder = set_laws.find_repository(lab)
    new = set(set_laws.list_folders(lab)) - set(known)
    return sum(len(list((folder / name).glob("part-*.age"))) for name in new)


def wait_for_stream(lab: CloneLab, process: subprocess.Popen[str], *known: str) -> None:
    """Wait until a stream has begun to arrive."""
    wait_until(
        lambda: count_parts(lab, *known) >= 1 or process.poll() is not None,
        "the stream",
        timeout_seconds=60,
    )
    assert process.poll() is None, process.communicate()


def resume(lab: CloneLab, run_id: str) -> dict[str, Any]:
    """Resume a run that can come to its end now."""
    return lab.run("runs", "resume", run_id, yes=False)


def check_backup(lab: CloneLab, document: dict[str, Any]) -> None:
    """See that a backup has ended as a whole set, and left nothing else; then take it back."""
    assert document["status"] == "succeeded", document
    set_laws.check_whole(lab, document["backup_id"])
    set_laws.check_nothing_outlives(lab, ("master", "store"))
    assert lab.run("runs", "undo", document["run_id"])["status"] == "undone"
    set_laws.check_removed(lab, document["backup_id"])


# Several at once.


def test_a_second_backup_of_a_host_is_told_who_is_at_it(lab: CloneLab) -> None:
    """It ends with exit status 3 and names the run that holds the lock, which goes on unharmed."""
    with command(lab, "backup", "master", XBVAULT_HALT_AT="store-backup:before") as first:
        wait_until(
            lambda: is_halted(first) or first.poll() is not None, "the halt", timeout_seconds=60
        )
        folders = set_laws.list_folders(lab)
        second = lab.backup("master", check=False)
        assert second["exit"] == 3, second
        assert second["error"]["error"] == "LockHeldError"
        holder = json.loads(lab.xbvault("runs", "list", "--json").stdout)
        running = [run["run_id"] for run in holder if run["status"] == "running"]
        assert any(run in json.dumps(second["error"]) for run in running), second["error"]
        assert second["error"]["hint"]
        assert set_laws.list_folders(lab) == folders
        first.send_signal(signal.SIGCONT)
        status, document = wait_for_end(first)
    assert status == 0, document
    check_backup(lab, document)


def test_backups_of_two_hosts_go_on_at_once(lab: CloneLab) -> None:
    """Two hosts store their backups in one repository at once, and each set is whole."""
    with command(lab, "backup", "master") as one, command(lab, "backup", "replica") as two:
        ended = [wait_for_end(process) for process in (one, two)]
    assert [status for status, _ in ended] == [0, 0], ended
    for _, document in ended:
        set_laws.check_whole(lab, document["backup_id"])
    hosts_of = [set_laws.read_manifest(lab, d["backup_id"])["host"] for _, d in ended]
    assert hosts_of == ["master", "replica"]
    # Of which host is to be said now.
    unsaid = lab.restore("latest", "replica", "--replace", "--plan", check=False)
    assert unsaid["exit"] == 2
    assert "latest:master" in unsaid["error"]["hint"]
    for _, document in ended:
        assert lab.run("runs", "undo", document["run_id"])["status"] == "undone"


# The repository.


@contextlib.contextmanager
def missing(lab: CloneLab) -> Iterator[None]:
    """The directory is not there."""
    lab.on("store", "mv /srv/backups /srv/away")
    try:
        yield
    finally:
        lab.on("store", "mv /srv/away /srv/backups")


@contextlib.contextmanager
def read_only(lab: CloneLab) -> Iterator[None]:
    """Its filesystem is read-only."""
    lab.on("store", "mount --bind /srv/backups /srv/backups")
    lab.on("store", "mount -o remount,bind,ro /srv/backups")
    try:
        yield
    finally:
        lab.on("store", "umount /srv/backups")


@contextlib.contextmanager
def linked(lab: CloneLab) -> Iterator[None]:
    """It is a symbolic link."""
    lab.on("store", "mv /srv/backups /srv/away && ln -s /srv/away /srv/backups")
    try:
        yield
    finally:
        lab.on("store", "rm /srv/backups && mv /srv/away /srv/backups")


@contextlib.contextmanager
def small(lab: CloneLab, size: str = "30m") -> Iterator[None]:
    """Its filesystem is too small."""
    lab.on("store", f"mount -t tmpfs -o mode=700,size={size} tmpfs /srv/backups")
    try:
        yield
    finally:
        lab.on("store", "umount /srv/backups")


@contextlib.contextmanager
def no_age(lab: CloneLab) -> Iterator[None]:
    """The donor has no ``age``."""
    lab.on("master", "mount --bind /dev/null $(command -v age)")
    try:
        yield
    finally:
        lab.on("master", "umount $(type -P age || echo /usr/bin/age)", check=False)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (missing, "is not there"),
        (read_only, "is its filesystem read-only?"),
        (linked, "symbolic link"),
        (small, "free for"),
        (no_age, "missing: age"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_backup_that_cannot_be_stored_is_refused(
    lab: CloneLab, spoil: Callable[[CloneLab], Any], says: str
) -> None:
    """It is refused before anything is made, with what to do; no key was made for it."""
    with spoil(lab):
        refused = lab.backup("master", check=False)
    assert refused["exit"] == 3, refused["error"]
    said = " ".join([refused["error"]["message"], *refused["error"]["problems"]])
    assert says in said
    assert refused["error"]["hint"]
    assert set_laws.read_keys_state(lab, refused["backup_id"]) == ""
    set_laws.check_nothing_outlives(lab, ("master", "store"))


def test_a_repository_that_fills_up_in_mid_stream_is_told(
    lab: CloneLab, good: dict[str, Any]
) -> None:
    """The backup fails for want of space, is no set, and succeeds when there is room again."""
    with small(lab, ROOM), command(lab, "backup", "master", *SLOWLY) as process:
        wait_until(
            lambda: lab.on("store", "ls /srv/backups/*/part-* 2>/dev/null | wc -l").strip() != "0",
            "the stream",
            timeout_seconds=60,
        )
        lab.on("store", f"cat /dev/zero > {FILLER}", check=False)
        status, document = wait_for_end(process)
        assert status == 4, document
        assert "space" in json.dumps(document["error"])
        assert document["error"]["host"] == "store"
        assert lab.on("store", "ls /srv/backups/*/manifest.json 2>/dev/null || true") == ""
        lab.on("store", f"rm {FILLER}")
        assert resume(lab, document["run_id"])["status"] == "succeeded"
        assert lab.on("store", "ls /srv/backups/*/manifest.json").count("\n") == 1
        assert lab.run("runs", "undo", document["run_id"])["status"] == "undone"
        assert lab.on("store", "ls /srv/backups") == ""


def test_a_store_that_is_cut_off_in_mid_stream_is_told(lab: CloneLab, good: dict[str, Any]) -> None:
    """The backup fails with exit status 4, is no set, and succeeds when the host is back."""
    known = set_laws.list_folders(lab)
    with command(lab, "backup", "master", *SLOWLY) as process:
        wait_for_stream(lab, process, *known)
        lab.lab("cut", "store")
        try:
            status, document = wait_for_end(process)
        finally:
            lab.lab("heal", "store")
    assert status == 4, document
    assert document["error"]["hint"]
    assert document["backup_id"] not in set_laws.list_sets(lab)
    refused = lab.restore(document["backup_id"], "replica", "--replace", check=False)
    assert refused["exit"] in (3, 6)
    resumed = resume(lab, document["run_id"])
    check_backup(lab, resumed)


def test_a_killed_orchestrator_in_mid_stream_is_resumed_to_the_same_stream(
    lab: CloneLab, good: dict[str, Any]
) -> None:
    """The stream goes on without us, and is attached to, not begun again."""
    known = set_laws.list_folders(lab)
    with command(lab, "backup", "master", *SLOWLY) as process:
        wait_for_stream(lab, process, *known)
    run_id = json.loads(lab.xbvault("runs", "list", "--json").stdout)[0]["run_id"]
    document = resume(lab, run_id)
    logged = (lab.directory / f"state/logs/{run_id}.jsonl").read_text(encoding="utf-8")
    assert logged.count('"event": "job.started"') == 1
    assert logged.count('"event": "job.attached"') == 1
    check_backup(lab, document)


# Spoiled sets.


def find_part(lab: CloneLab, name: str, number: int) -> Path:
    """Return a part of a set as this machine sees it."""
    return set_laws.find_repository(lab) / name / f"part-{number:06d}.age"


@contextlib.contextmanager
def flipped(lab: CloneLab, name: str) -> Iterator[str]:
    """One byte of a part is another one."""
    path = find_part(lab, name, 2)
    data = path.read_bytes()
    at = len(data) // 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    try:
        yield path.name
    finally:
        path.write_bytes(data)


@contextlib.contextmanager
def swapped(lab: CloneLab, name: str) -> Iterator[str]:
    """Two parts stand in each other's place."""
    one, two = find_part(lab, name, 3), find_part(lab, name, 4)
    aside = one.with_name("aside")

    def swap() -> None:
        one.rename(aside)
        two.rename(one)
        aside.rename(two)

    swap()
    try:
        yield one.name
    finally:
        swap()


@contextlib.contextmanager
def cut(lab: CloneLab, name: str) -> Iterator[str]:
    """A part has lost its end."""
    path = find_part(lab, name, 2)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    try:
        yield path.name
    finally:
        path.write_bytes(data)


@contextlib.contextmanager
def lost(lab: CloneLab, name: str) -> Iterator[str]:
    """A part is not there."""
    path = find_part(lab, name, 2)
    path.rename(path.parent.parent / "lost")
    try:
        yield path.name
    finally:
        (path.parent.parent / "lost").rename(path)


def test_a_part_that_is_another_one_is_named_and_the_restore_resumed(
    lab: CloneLab, good: dict[str, Any]
) -> None:
    """Exit status 6 names the part; the recipient is untouched; put right, the run goes on."""
    name, pid, inode = good["backup_id"], read_pid(lab), read_inode(lab)
    with flipped(lab, name) as part:
        failed = lab.restore(name, "replica", "--replace", "--read-only", check=False)
    run_id = failed["run_id"]
    answers = [(part, failed)]
    with swapped(lab, name) as part:
        ended = lab.xbvault("runs", "resume", run_id, "--json", check=False)
        answers.append((part, {**json.loads(ended.stdout), "exit": ended.returncode}))
    for part, answer in answers:
        assert answer["exit"] == 6, answer
        assert part in answer["error"]["message"]
        assert answer["error"]["hint"]
        assert answer["error"]["host"] == "store"
    assert (read_pid(lab), read_inode(lab)) == (pid, inode)
    assert resume(lab, run_id)["status"] == "succeeded"
    assert len(laws.read_digests(lab, "replica", MARIADB)) > 15
    assert lab.run("runs", "undo", run_id)["status"] == "undone"
    assert read_inode(lab) == inode
    set_laws.check_nothing_outlives(lab, ("store", "replica"), run_dirs=True)


@pytest.mark.parametrize("spoil", [cut, lost])
def test_a_set_that_is_not_whole_is_refused(
    lab: CloneLab, good: dict[str, Any], spoil: Callable[[CloneLab, str], Any]
) -> None:
    """Its listing says so: it is refused, and ``latest`` passes it over."""
    with spoil(lab, good["backup_id"]) as part:
        refused = lab.restore(good["backup_id"], "replica", "--replace", check=False)
        assert refused["exit"] in (3, 6), refused
        assert part in json.dumps(refused["error"])
        assert lab.restore("latest", "replica", "--replace", check=False)["exit"] == 3


def test_a_part_that_is_lost_while_a_restore_goes_on_is_named(
    lab: CloneLab, good: dict[str, Any]
) -> None:
    """It is named although the listing was whole at the beginning, and the restore can go on."""
    name = good["backup_id"]
    inode = read_inode(lab)
    arguments = ("restore", name, "replica", "--replace", "--read-only")
    with command(lab, *arguments, XBVAULT_HALT_AT="fetch-backup-set:before") as process:
        wait_until(
            lambda: is_halted(process) or process.poll() is not None, "the halt", timeout_seconds=60
        )
        with lost(lab, name) as part:
            process.send_signal(signal.SIGCONT)
            status, document = wait_for_end(process)
    assert status in (3, 4, 6), document
    assert part in json.dumps(document["error"])
    assert read_inode(lab) == inode
    assert resume(lab, document["run_id"])["status"] == "succeeded"
    assert lab.run("runs", "undo", document["run_id"])["status"] == "undone"


def test_a_set_of_another_deployment_is_refused(lab: CloneLab, good: dict[str, Any]) -> None:
    """Its manifest is not believed: exit status 6 for its name, and it is not the latest."""
    root = VaultRoot(lab.directory)
    secret = root.read_secret("xbvault", "backups/deployment")
    pid = read_pid(lab)
    root.write_secret("xbvault", "backups/deployment", {**secret, "id": "0123456789abcdef" * 2})
    try:
        named = lab.restore(good["backup_id"], "replica", "--replace", check=False)
        latest = lab.restore("latest", "replica", "--replace", check=False)
    finally:
        root.write_secret("xbvault", "backups/deployment", secret)
    assert named["exit"] == 6, named
    assert "deployment" in named["error"]["message"]
    assert latest["exit"] == 3
    assert read_pid(lab) == pid


def test_a_set_whose_keys_an_administrator_destroyed_is_refused(lab: CloneLab) -> None:
    """Exit status 5 names the path where they should be; nothing is touched."""
    made = lab.backup("master", "--compress", "zstd:1")
    root, path = VaultRoot(lab.directory), f"transition-keys/{made['backup_id']}"
    root.destroy_versions("xbvault", path, [1])
    pid = read_pid(lab)
    refused = lab.restore(made["backup_id"], "replica", "--replace", check=False)
    assert refused["exit"] == 5, refused
    assert path in json.dumps(refused["error"])
    assert read_pid(lab) == pid
    assert lab.run("runs", "undo", made["run_id"])["status"] == "undone"
    set_laws.check_removed(lab, made["backup_id"])


# What is written down.

MARK = b"a row that is worth the encryption of it 7d1f"


def test_no_planted_row_stands_in_the_clear_in_any_part(lab: CloneLab) -> None:
    """A row of a table that is not encrypted is found in the tool's stream, and in no part of a set."""
    lab.sql("master", "CREATE TABLE shop.clear (words TEXT) ENGINE=MyISAM")
    lab.sql("master", f"INSERT INTO shop.clear VALUES ('{MARK.decode()}')")
    lab.sql("master", "FLUSH TABLES shop.clear")
    secret = [Known(kind="row", value=MARK)]
    stream = laws.find_root(lab, "master") / "srv/stream"
    stream.parent.mkdir(exist_ok=True)
    lab.on(
        "master",
        "set -a && . /etc/mysql/vault.env && set +a && "
        "mariadb-backup --backup --stream=mbstream > /srv/stream 2>/dev/null",
    )
    try:
        tree = Tree(place="file", host="master", root=stream, shown="stream")
        assert {hit.form for hit in scan(secret, trees=[tree])} == {"raw"}
    finally:
        stream.unlink()
    made = lab.backup("master", "--compress", "none")
    shown = show_run(lab, made["run_id"])
    assert shown["status"] == "succeeded"
    for name in ("store", "master"):
        root = laws.find_root(lab, name)
        folders = [root / "srv", root / "var/lib/xbvault", root / "tmp"]
        trees = [Tree(place="file", host=name, root=f, shown=f.name) for f in folders if f.exists()]
        assert scan(secret, trees=trees) == []
    check_backup(lab, made)
