"""The script of a repository on real directories and a real full filesystem, cut off everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import stored_sets
from local_remote import LocalRemote

from orchestrator.errors import CommandError, PreconditionError, VerificationError
from orchestrator.host import script
from orchestrator.repository import names, store
from orchestrator.repository.deployment import Deployment
from orchestrator.repository.manifest import StoredFile, seal_manifest
from orchestrator.repository.sets import State, judge_repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.models import Secret
    from orchestrator.remote import Result

pytestmark = pytest.mark.timeout(120)

PART_BYTES = 1 << 20
STREAM = random.Random(5).randbytes(2 * PART_BYTES + 12345)
EXTRA = "key-bundle.json"
PATH_LINE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
COUNTED = ("mv", "rm", "rmdir", "sync", "perl", "openssl", "sha256sum", "stat", "mkdir")
BROKEN = "#!/bin/sh\ncat >/dev/null\necho broken >&2\nexit 1\n"
OPENSSL_LATER = """\
#!/bin/sh
# Sums up nothing, as it is tried with at the beginning, and breaks at anything else.
[ -n "$(head -c 1 | tr '\\0' x)" ] || exec /usr/bin/openssl "$@" </dev/null
cat >/dev/null
echo broken >&2
exit 1
"""
MOST_CALLS = 80
WRAPPER = """\
#!/bin/sh
# One more command; kills the group before number KILL_AT. Those of a pipe are counted in turn.
exec 9>>"$COUNT.lock"
flock 9
count=$(($(cat "$COUNT") + 1))
echo "$count" >"$COUNT"
exec 9>&-
[ "$count" != "$KILL_AT" ] || kill -KILL 0
exec /usr/bin/{name} "$@"
"""
NASTY = ("two words", 'it\'s "odd" $(touch pwned)', "-rf", ".hidden", "*", "line\nbreak", "\x1b[1m")


@dataclasses.dataclass
class Place:
    """A repository in a folder of the test, with a set in it that is being made."""

    folder: Path

    @property
    def repository(self) -> Path:
        """The directory of the repository."""
        return self.folder / "backups"

    @property
    def path(self) -> str:
        """The folder of the set."""
        return store.join_path(str(self.repository), stored_sets.BACKUP_ID)

    @property
    def inside(self) -> list[str]:
        """Names of what is in that folder."""
        return names_in(Path(self.path))

    @property
    def ledger(self) -> str:
        """What parts are written down in."""
        return str(self.folder / "ledger")

    def write(self, stream: bytes = STREAM, **keywords: str) -> subprocess.CompletedProcess[bytes]:
        """Feed a stream to the command that makes parts."""
        command = store.write_command(self.path, part_bytes=PART_BYTES, ledger=self.ledger)
        return run(command, stream, **keywords)

    def seal(self, remote: LocalRemote, **changes: object) -> bytes:
        """Return the sealed manifest of what the ledger names."""
        manifest = stored_sets.make_manifest(
            **{
                "stream_bytes": len(STREAM) - 200,
                "part_bytes": PART_BYTES,
                "parts": store.read_ledger(remote, self.ledger),
                "files": (),
                **changes,
            }
        )
        return seal_manifest(manifest, stored_sets.KEY)


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder, sorted."""
    return sorted(entry.name for entry in folder.iterdir())


def run(
    command: tuple[str, ...], stdin: bytes = b"", **keywords: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a group of its own, so that it can be killed whole."""
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        check=False,
        start_new_session=True,
        env={**os.environ, **keywords},
        timeout=60,
    )


@pytest.fixture
def remote() -> LocalRemote:
    """Return this machine as the repository's host."""
    return LocalRemote()


@pytest.fixture
def place(tmp_path: Path, remote: LocalRemote) -> Place:
    """Return an empty repository with the folder of a set."""
    found = Place(folder=tmp_path)
    found.repository.mkdir()
    store.make_folder(remote, found.path)
    return found


@pytest.fixture
def whole(place: Place, remote: LocalRemote) -> Place:
    """Return a repository with a set that is complete."""
    assert place.write().returncode == 0
    (Path(place.path) / EXTRA).write_bytes(b"{}")
    extra = StoredFile(name=EXTRA, bytes=2, sha256=hashlib.sha256(b"{}").hexdigest())
    store.publish_manifest(remote, place.path, place.seal(remote, files=(extra,)))
    return place


DEPLOYMENT = Deployment(id=stored_sets.DEPLOYMENT, manifest_key=stored_sets.KEY)


def states(place: Place, remote: LocalRemote) -> dict[str, State]:
    """Return what each folder of a repository is worth."""
    folders = store.list_folders(remote, str(place.repository), DEPLOYMENT)
    return {report.name: report.state for report in judge_repository(folders)}


def test_a_stream_comes_back_as_it_was(place: Place, remote: LocalRemote) -> None:
    """Its parts have one size, their sums are those of what lies there, and joined they are it."""
    ended = place.write()
    assert (ended.returncode, ended.stderr) == (0, b"")
    parts = store.read_ledger(remote, place.ledger)
    assert [part.bytes for part in parts] == [PART_BYTES, PART_BYTES, 12345]
    for part in parts:
        content = (Path(place.path) / part.name).read_bytes()
        assert part.sha256 == hashlib.sha256(content).hexdigest()
    assert run(store.read_command(place.path, last=3)).stdout == STREAM
    assert (
        run(store.read_command(place.path, first=2, last=2)).stdout
        == (STREAM[PART_BYTES : 2 * PART_BYTES])
    )
    assert store.sum_files(remote, place.path, parts) == parts
    assert place.inside == [part.name for part in parts]
    assert {(Path(place.path) / part.name).stat().st_mode & 0o777 for part in parts} == {0o600}


@pytest.mark.parametrize("size", [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_streams_of_every_size_near_a_part(place: Place, remote: LocalRemote, size: int) -> None:
    """No part is empty, none is too large, and none is missing."""
    assert place.write(STREAM[:1] * size).returncode == 0
    sizes = [part.bytes for part in store.read_ledger(remote, place.ledger)]
    assert sum(sizes) == size
    assert set(sizes[:-1]) <= {PART_BYTES}
    assert 0 < sizes[-1] <= PART_BYTES


def test_a_stream_of_no_byte_is_no_success(place: Place) -> None:
    """A sender that died before its first byte looks like the end of a stream."""
    ended = place.write(b"")
    assert ended.returncode == 74
    assert b"no byte came" in ended.stderr


def test_writing_again_begins_anew(place: Place, remote: LocalRemote) -> None:
    """What an earlier, longer stream left is gone, part and ledger."""
    (Path(place.path) / "part-000009.age.new").write_bytes(b"cut")
    assert place.write().returncode == 0
    assert place.write(STREAM[:500]).returncode == 0
    assert [part.bytes for part in store.read_ledger(remote, place.ledger)] == [500]
    assert place.inside == ["part-000001.age"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting filesystems needs root")
@pytest.mark.parametrize(
    ("options", "words"),
    [("size=1536k", b"No space left on device"), ("size=8m,nr_inodes=4", b"No space left")],
)
def test_a_full_filesystem_ends_the_stream_with_its_words(
    place: Place, options: str, words: bytes
) -> None:
    """In the middle of a part, or at a new file: the kernel's words, and no line in the ledger."""
    mount = f'mount -t tmpfs -o {options} tmpfs "$1" && mkdir "$2" && shift 2 && exec "$@"'
    command = store.write_command(place.path, part_bytes=PART_BYTES, ledger=place.ledger)
    ended = run(
        ("unshare", "-m", "sh", "-c", mount, "sh", str(place.repository), place.path, *command),
        STREAM,
    )
    assert ended.returncode == 74
    assert words in ended.stderr
    assert len(Path(place.ledger).read_text().splitlines()) <= 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting filesystems needs root")
def test_a_filesystem_that_is_read_only_ends_the_stream_at_once(place: Place) -> None:
    """Before the first part."""
    mount = 'mount --bind -o ro "$1" "$1" && shift && exec "$@"'
    command = store.write_command(place.path, part_bytes=PART_BYTES, ledger=place.ledger)
    ended = run(("unshare", "-m", "sh", "-c", mount, "sh", str(place.repository), *command), STREAM)
    assert ended.returncode == 74
    assert b"Read-only file system" in ended.stderr


@pytest.mark.parametrize("program", ["perl", "openssl", "sha256sum", "sync", "mv", "stat"])
def test_any_program_that_fails_ends_the_stream(place: Place, program: str) -> None:
    """Wherever in the pipe of a part it stands, with its words."""
    tools = place.folder / "bin"
    tools.mkdir()
    broken = {program: OPENSSL_LATER if program == "openssl" else BROKEN}
    if program == "sha256sum":
        broken["openssl"] = BROKEN
    for name, text in broken.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    ended = run(
        with_tools(
            store.write_command(place.path, part_bytes=PART_BYTES, ledger=place.ledger), tools
        ),
        STREAM,
    )
    assert ended.returncode == 74
    assert b"broken" in ended.stderr


def test_two_do_not_write_one_set(place: Place) -> None:
    """An old receiver that still lives, and a new one."""
    command = store.write_command(place.path, part_bytes=PART_BYTES, ledger=place.ledger)
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as first:
        assert first.stdin
        first.stdin.write(STREAM)
        first.stdin.flush()
        while not Path(place.ledger).exists() or not Path(place.ledger).stat().st_size:
            assert first.poll() is None
        ended = place.write()
        assert ended.returncode == 74
        assert b"another one writes" in ended.stderr
        first.stdin.close()
        assert first.wait(30) == 0


def test_a_published_set_is_complete(whole: Place, remote: LocalRemote) -> None:
    """And stays as it is: it is neither written to nor made again."""
    assert states(whole, remote) == {stored_sets.BACKUP_ID: State.COMPLETE}
    before = whole.inside
    ended = whole.write()
    assert ended.returncode == 65
    assert b"not written to any more" in ended.stderr
    with pytest.raises(PreconditionError, match=r"has its manifest\.json already"):
        store.make_folder(remote, whole.path)
    assert whole.inside == before


def test_publishing_again_changes_nothing(whole: Place, remote: LocalRemote) -> None:
    """A step that was cut after its rename finds its work done."""
    before = (Path(whole.path) / names.MANIFEST).read_bytes()
    store.publish_manifest(remote, whole.path, before)
    assert (Path(whole.path) / names.MANIFEST).read_bytes() == before
    assert states(whole, remote) == {stored_sets.BACKUP_ID: State.COMPLETE}


def test_a_manifest_that_was_not_written_is_not_published(
    place: Place, remote: LocalRemote
) -> None:
    """Without the new file there is nothing to rename."""
    with pytest.raises(PreconditionError, match=r"there is no manifest.json.new"):
        store._call(remote, "publish", place.path)


def with_tools(command: tuple[str, ...], tools: Path) -> tuple[str, ...]:
    """Return a command of the script that finds its programs in a folder first."""
    shell, option, text, *rest = command
    assert PATH_LINE in text
    return (shell, option, text.replace(PATH_LINE, f"PATH={tools}:/usr/bin:/bin\n"), *rest)


def counting(place: Place) -> Path:
    """Make programs that count their calls, and kill the group before one of them."""
    tools = place.folder / "counted"
    tools.mkdir(exist_ok=True)
    for name in COUNTED:
        (tools / name).write_text(WRAPPER.format(name=name))
        (tools / name).chmod(0o755)
    return tools


def play(place: Place, command: tuple[str, ...], kill_at: int, stdin: bytes = b"") -> bool:
    """Run a command that is killed before its Nth program; returns whether it was."""
    tools = counting(place)
    count = place.folder / "count"
    count.write_text("0\n")
    ended = run(with_tools(command, tools), stdin, COUNT=str(count), KILL_AT=str(kill_at))
    assert ended.returncode in (0, -9), ended.stderr
    return ended.returncode != 0


def test_a_stream_that_is_killed_anywhere_leaves_no_part_that_lies(
    place: Place, remote: LocalRemote
) -> None:
    """What stands in the ledger is on disk as it says; and a second stream makes all of it."""
    command = store.write_command(place.path, part_bytes=PART_BYTES, ledger=place.ledger)
    for kill_at in itertools.count(1):
        assert kill_at < MOST_CALLS
        if not play(place, command, kill_at, STREAM):
            break
        for line in Path(place.ledger).read_text().splitlines():
            sha256, size, name = line.split()
            content = (Path(place.path) / name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (int(size), sha256)
        assert states(place, remote) == {stored_sets.BACKUP_ID: State.NO_MANIFEST}
    assert kill_at > 12
    assert len(store.read_ledger(remote, place.ledger)) == 3


def test_publishing_that_is_killed_anywhere_is_done_by_the_next(
    place: Place, remote: LocalRemote
) -> None:
    """The folder is no set, or a whole one, and nothing between."""
    assert place.write().returncode == 0
    sealed = place.seal(remote)
    command = ("sh", "-c", script("store.sh"), "store", "publish", place.path)
    remote.write_file(f"{place.path}/{names.NEW_MANIFEST}", sealed)
    for kill_at in itertools.count(1):
        assert kill_at < MOST_CALLS
        (Path(place.path) / "part-000004.age.new").write_bytes(b"cut")
        (Path(place.path) / ".xbvault.0123456789").write_bytes(b"cut")
        if not play(place, command, kill_at):
            break
        assert states(place, remote)[stored_sets.BACKUP_ID] in (
            State.NO_MANIFEST,
            State.UNEXPECTED_FILE,
            State.COMPLETE,
        )
        if (Path(place.path) / names.MANIFEST).exists():
            (Path(place.path) / names.MANIFEST).unlink()
            remote.write_file(f"{place.path}/{names.NEW_MANIFEST}", sealed)
    assert kill_at > 3
    assert states(place, remote) == {stored_sets.BACKUP_ID: State.COMPLETE}


def test_a_removal_that_is_killed_anywhere_is_finished_by_the_next(
    place: Place, remote: LocalRemote
) -> None:
    """A folder with its manifest is whole; one without is no set; in the end there is nothing."""
    for kill_at in itertools.count(1):
        assert kill_at < MOST_CALLS
        store.make_folder(remote, place.path)
        assert place.write().returncode == 0
        (Path(place.path) / EXTRA).write_bytes(b"{}")
        extra = StoredFile(name=EXTRA, bytes=2, sha256=hashlib.sha256(b"{}").hexdigest())
        store.publish_manifest(remote, place.path, place.seal(remote, files=(extra,)))
        command = ("sh", "-c", script("store.sh"), "store", "remove", place.path, EXTRA)
        was_killed = play(place, command, kill_at)
        found = states(place, remote)
        assert set(found.values()) <= {State.COMPLETE, State.EXPIRED, State.NO_MANIFEST}
        if found.get(stored_sets.BACKUP_ID) == State.NO_MANIFEST:
            assert place.inside == []
        store.remove_set(remote, place.path, (EXTRA,))
        assert names_in(place.repository) == []
        if not was_killed:
            break
    assert kill_at > 5


@pytest.mark.parametrize("name", [*NASTY, "notes.txt", "part-1.age", "part-000001.age.old"])
def test_a_set_with_a_foreign_file_is_not_removed(
    whole: Place, remote: LocalRemote, name: str
) -> None:
    """Not even in part, whatever the name."""
    (Path(whole.path) / name).write_bytes(b"mine")
    before = whole.inside
    with pytest.raises(PreconditionError, match=r"not of the set; nothing was removed"):
        store.remove_set(remote, whole.path, (EXTRA,))
    assert whole.inside == before


@pytest.mark.parametrize("name", ["part-000001.age", names.MANIFEST, EXTRA])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_set_with_something_else_in_place_of_a_file_is_not_removed(
    whole: Place, remote: LocalRemote, name: str, kind: str
) -> None:
    """A link could lead anywhere, and a folder could hold anything."""
    there = Path(whole.path) / name
    there.unlink()
    if kind == "folder":
        there.mkdir()
    else:
        there.symlink_to(whole.folder / "elsewhere")
    with pytest.raises(PreconditionError, match="is no file; nothing was removed"):
        store.remove_set(remote, whole.path, (EXTRA,))
    assert len(whole.inside) == 5


def test_hostile_names_break_no_listing(whole: Place, remote: LocalRemote) -> None:
    """Neither folders nor files; a set beside them is what it is, and they are left alone."""
    for name in (*NASTY, "d\xff"):
        folder = whole.repository / os.fsdecode(name.encode("latin-1"))
        folder.mkdir()
        for inner in NASTY:
            (folder / inner).write_bytes(b"x")
        Path(whole.path, name).write_bytes(b"x")
    (whole.repository / "README").write_bytes(b"x")
    found = states(whole, remote)
    assert found.pop(stored_sets.BACKUP_ID) == State.UNEXPECTED_FILE
    assert set(found.values()) == {State.FOREIGN}
    assert len(found) == len(NASTY) + 2
    assert not (whole.folder / "pwned").exists()
    folders = store.list_folders(remote, str(whole.repository), DEPLOYMENT)
    by_name = {folder.name: folder for folder in folders}
    assert {entry.name for entry in by_name["line\nbreak"].entries} == set(NASTY)


def test_a_link_in_the_place_of_a_set_is_no_set(whole: Place, remote: LocalRemote) -> None:
    """Nothing goes through it: no listing, no reading, no writing and no removal."""
    elsewhere = whole.folder / "elsewhere"
    Path(whole.path).rename(elsewhere)
    Path(whole.path).symlink_to(elsewhere)
    assert states(whole, remote) == {stored_sets.BACKUP_ID: State.FOREIGN}
    for act in (
        lambda: store.make_folder(remote, whole.path),
        lambda: store.remove_set(remote, whole.path, (EXTRA,)),
        lambda: store.sum_files(remote, whole.path, (StoredFile(name=EXTRA, bytes=2, sha256=""),)),
    ):
        with pytest.raises(PreconditionError, match="is a symbolic link"):
            act()
    assert run(store.read_command(whole.path, last=1)).returncode == 65
    assert whole.write().returncode == 65
    assert len(names_in(elsewhere)) == 5


def test_a_link_in_the_place_of_a_file_is_not_followed(whole: Place, remote: LocalRemote) -> None:
    """Neither to read a part, nor to sum it up, nor to write a new one."""
    part = Path(whole.path) / "part-000001.age"
    part.rename(whole.folder / "part")
    part.symlink_to(whole.folder / "part")
    ended = run(store.read_command(whole.path, last=1))
    assert (ended.returncode, ended.stdout) == (66, b"")
    with pytest.raises(PreconditionError, match=r"part-000001.age of .* is no file"):
        store.sum_files(remote, whole.path, (StoredFile(name=part.name, bytes=1, sha256=""),))
    assert states(whole, remote) == {stored_sets.BACKUP_ID: State.FILE_MISSING}


@pytest.mark.parametrize("kind", ["nothing", "file", "link"])
def test_a_repository_that_is_none(tmp_path: Path, remote: LocalRemote, kind: str) -> None:
    """The words name the directory, and the status is that of a wrong start."""
    path = tmp_path / "backups"
    if kind == "file":
        path.write_bytes(b"")
    elif kind == "link":
        (tmp_path / "real").mkdir()
        path.symlink_to(tmp_path / "real")
    for act in (
        lambda: store.list_folders(remote, str(path), None),
        lambda: store.read_space(remote, str(path)),
        lambda: store.make_folder(remote, store.join_path(str(path), stored_sets.BACKUP_ID)),
    ):
        with pytest.raises(PreconditionError, match=str(path)) as caught:
            act()
        assert caught.value.exit_status == 3
        assert caught.value.host == remote.name


def test_the_space_of_a_repository(place: Place, remote: LocalRemote) -> None:
    """Free bytes and device are those that the kernel tells."""
    found = store.read_space(remote, str(place.repository))
    told = os.statvfs(place.repository)
    assert found.is_writable
    assert abs(found.free_bytes - told.f_bavail * told.f_frsize) < 1 << 30
    assert found.filesystem == place.repository.stat().st_dev


class Nobody(LocalRemote):
    """This machine, for a login that may little."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Run a command as nobody."""
        become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        return super().run(
            [*become, *argv], stdin=stdin, check=check, timeout_seconds=timeout_seconds
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_what_another_user_may_not_read_is_said(whole: Place) -> None:
    """A folder that cannot be read is no backup under way; a repository is no empty one."""
    for folder in (whole.folder, *whole.folder.parents):
        if folder.stat().st_uid == 0 and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o005)
        if folder == Path("/tmp"):
            break
    whole.repository.chmod(0o755)
    nobody = Nobody()
    (listed,) = store.list_folders(nobody, str(whole.repository), DEPLOYMENT)
    assert listed.refusal == "the folder cannot be read"
    (report,) = judge_repository([listed])
    assert report.state == State.MANIFEST_REFUSED
    whole.repository.chmod(0o711)
    with pytest.raises(CommandError, match="cannot read"):
        store.list_folders(nobody, str(whole.repository), DEPLOYMENT)


def test_manifests_of_others_are_refused(whole: Place, remote: LocalRemote) -> None:
    """Each with its reason, and none hides the sets beside it."""
    good = (Path(whole.path) / names.MANIFEST).read_bytes()
    other = Deployment(id=stored_sets.OTHER_DEPLOYMENT, manifest_key=stored_sets.KEY)
    spoiled = Deployment(id=stored_sets.DEPLOYMENT, manifest_key=stored_sets.OTHER_KEY)
    renamed = whole.repository / stored_sets.OTHER_ID
    renamed.mkdir()
    (renamed / names.MANIFEST).write_bytes(good)

    def refusals(deployment: Deployment | None) -> dict[str, str]:
        folders = store.list_folders(remote, str(whole.repository), deployment)
        return {folder.name: folder.refusal for folder in folders}

    assert "that of 20261121T210500Z-db1-6f2c09ab" in refusals(DEPLOYMENT)[stored_sets.OTHER_ID]
    assert refusals(DEPLOYMENT)[stored_sets.BACKUP_ID] == ""
    assert "of another deployment" in refusals(other)[stored_sets.BACKUP_ID]
    assert "not authentic" in refusals(spoiled)[stored_sets.BACKUP_ID]
    assert refusals(None)[stored_sets.BACKUP_ID] == store.NO_DEPLOYMENT
    os.truncate(renamed / names.MANIFEST, (64 << 20) + 1)
    assert "can be read" in refusals(DEPLOYMENT)[stored_sets.OTHER_ID]


def test_one_manifest_by_itself(whole: Place, remote: LocalRemote) -> None:
    """The set that was asked for, or words that it is not there."""
    repository = str(whole.repository)
    found = store.read_manifest(remote, repository, stored_sets.BACKUP_ID, DEPLOYMENT)
    assert found.backup_id == stored_sets.BACKUP_ID
    with pytest.raises(PreconditionError, match="no backup set"):
        store.read_manifest(remote, repository, stored_sets.OTHER_ID, DEPLOYMENT)
    with pytest.raises(ValueError, match="name of a set"):
        store.read_manifest(remote, repository, "../..", DEPLOYMENT)


def test_a_ledger_that_was_cut_is_refused(place: Place, remote: LocalRemote) -> None:
    """Its last line must be whole."""
    assert place.write().returncode == 0
    text = Path(place.ledger).read_text()
    Path(place.ledger).write_text(text[:-1])
    with pytest.raises(VerificationError):
        store.read_ledger(remote, place.ledger)
