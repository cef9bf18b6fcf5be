"""The swap's script on real directories and filesystems, cut off at every single rename.

Filesystems are mounted in a mount namespace of their own; its files are reached from here through
``/proc/PID/root``. A wrapper around ``mv`` counts renames, and kills the whole process group before
the one that a test names.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator import host
from orchestrator.errors import VerificationError
from orchestrator.facts.layout import LEFT_ALONE, VAULT
from orchestrator.models import Place
from orchestrator.steps.places import DISTRIBUTE, swap_list

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting filesystems needs root"),
    pytest.mark.timeout(180),
]

RUN = "20260101T000000Z-replica-0a1b2c3d"
MOST_RENAMES = 80
MV = """\
#!/bin/sh
# Renames one entry at a time, each of them counted; kills the group before number KILL_AT.
rename() {
    count=$(($(cat "$COUNT") + 1))
    echo "$count" >"$COUNT"
    [ "$count" != "$KILL_AT" ] || kill -KILL 0
    /bin/mv "$@" || exit 1
}
if [ "$1" = -t ]; then
    to=$2
    shift 3
    for entry; do rename -t "$to" -- "$entry"; done
else
    rename "$@"
fi
"""
NASTY = (
    "mysql/db.opt",
    "ibdata1",
    'it\'s "odd" $(touch pwned) #/t.ibd',
    "-rf",
    ".hidden",
    "..more",
    "*",
    "two\nlines",
    "ümlaut schema/t.ibd",
    "[a]",
    "back\\slash",
)
"""Names of entries that a careless script would trip over."""
EARLIER_LOGS = ("bin log.000001", "bin log.000002", "bin log.index", "bin log.state")
LOG_PATTERNS = ("bin log.[0-9]*", "bin log.index", "bin log.state")
STRANGERS = ("error.log", "bin log.err", "other.000001", "-x")

Files = dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Directories in a mount namespace.

    Attributes:
        pid: A process in that namespace.
        directory: The directory, as it is called there.
        is_mounted: The datadir and the logs are filesystems of their own.
    """

    pid: int
    directory: Path
    is_mounted: bool

    @property
    def seen(self) -> Path:
        """The directory, as it is called here."""
        return Path(f"/proc/{self.pid}/root{self.directory}")

    @property
    def run_dir(self) -> Path:
        """Folder of the run, as it is called there."""
        return self.directory / "runs" / RUN

    @property
    def places(self) -> tuple[Place, ...]:
        """What is swapped."""
        datadir, logs = self.directory / "data dir", self.directory / "log's"
        base = f"{datadir}/{VAULT}/" if self.is_mounted else f"{datadir}.xbvault-"
        return (
            Place(
                what="datadir",
                path=str(datadir),
                old=f"{base}old-{RUN}",
                new=f"{base}new-{RUN}",
                is_whole=not self.is_mounted,
                left_alone=LEFT_ALONE if self.is_mounted else (),
            ),
            Place(
                what="binary logs",
                path=str(logs),
                old=f"{logs}/{VAULT}/old-{RUN}",
                new=f"{logs}/{VAULT}/new-{RUN}",
                is_whole=False,
                patterns=LOG_PATTERNS,
                left_alone=(VAULT,),
            ),
        )

    def fill(self, *, earlier: bool = True) -> None:
        """Make everything anew: earlier files in place, and new ones that wait."""
        for path in self.seen.iterdir():
            if not path.is_mount():
                shutil.rmtree(path)
                continue
            for entry in path.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        datadir, logs = self.places
        if earlier:
            self.write(datadir.path, NASTY, "earlier")
            self.write(logs.path, EARLIER_LOGS, "earlier")
        if self.is_mounted:
            self.write(datadir.path, ("lost+found/inode",), "nobody's")
        self.write(logs.path, STRANGERS, "nobody's")
        self.write(datadir.new, (*NASTY, "new schema/t.ibd"), "new")
        self.write(logs.new, ("bin log.index",), "new")
        run_dir = self.seen / "runs" / RUN
        run_dir.mkdir(parents=True)
        (run_dir / "swap.list").write_text(swap_list(self.places), encoding="utf-8")

    def write(self, directory: str, names: tuple[str, ...], text: str) -> None:
        """Write files below a directory that is named as it is called there."""
        for name in names:
            path = Path(f"/proc/{self.pid}/root{directory}") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text} {name}", encoding="utf-8")

    def files(self) -> Files:
        """Return what every file holds, those of the run left out."""
        return {
            str(path.relative_to(self.seen)): path.read_text(encoding="utf-8")
            for path in self.seen.rglob("*")
            if path.is_file() and "runs" not in path.relative_to(self.seen).parts
        }

    def below(self, directory: str, *, left_out: tuple[str, ...] = ()) -> Files:
        """Return what the files below a directory hold, by their names there."""
        prefix = f"{Path(directory).relative_to(self.directory)}/"
        found = {n.removeprefix(prefix): t for n, t in self.files().items() if n.startswith(prefix)}
        return {n: t for n, t in found.items() if n.partition("/")[0] not in left_out}

    def phase(self) -> str:
        """Return what the script wrote down last."""
        path = self.seen / "runs" / RUN / "swap.phase"
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    def swap(self, way: str, *, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the script one way, and kill it before a rename; 0 lets it be."""
        count = self.seen / "runs" / "count"
        count.write_text("0\n", encoding="utf-8")
        tools = f"{self.directory.parent}/tools"
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", "--mount", "sh", "-s", "--", way, self.run_dir],
            input=host.script("swap.sh"),
            env={
                "PATH": f"{tools}:{os.environ['PATH']}",
                "COUNT": str(self.directory / "runs/count"),
                "KILL_AT": str(kill_at),
            },
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture(scope="module", params=["plain", "mount path"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Give a datadir with its logs elsewhere: a plain directory, or filesystems of their own."""
    base = tmp_path_factory.mktemp("swap")
    (base / "tools").mkdir()
    (base / "tools/mv").write_text(MV, encoding="utf-8")
    (base / "tools/mv").chmod(0o755)
    (base / "world").mkdir()
    # A memory filesystem throughout: thousands of syncs to a disk take minutes.
    script = (
        'set -eu; mount -t tmpfs tmpfs "$1"; cd "$1"; shift; '
        'for d do mkdir "$d"; mount -t tmpfs tmpfs "$d"; done; echo ready; exec sleep 1000'
    )
    mounted = ["data dir", "log's"] if request.param == "mount path" else []
    process = subprocess.Popen(
        [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", script, "sh", str(base / "world"), *mounted),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield World(pid=process.pid, directory=base / "world", is_mounted=bool(mounted))
    finally:
        process.kill()
        process.communicate()


def check_swapped(world: World) -> None:
    """The new files are in place, the earlier ones set aside, and nobody else's were touched."""
    datadir, logs = world.places
    assert world.phase() == "swapped"
    new = {name: f"new {name}" for name in (*NASTY, "new schema/t.ibd")}
    assert world.below(datadir.path, left_out=(VAULT, "lost+found")) == new
    assert world.below(datadir.old) == {name: f"earlier {name}" for name in NASTY}
    strangers = {name: f"nobody's {name}" for name in STRANGERS}
    assert world.below(logs.path, left_out=(VAULT,)) == {
        **strangers,
        "bin log.index": "new bin log.index",
    }
    assert world.below(logs.old) == {name: f"earlier {name}" for name in EARLIER_LOGS}
    assert world.below(datadir.new) == world.below(logs.new) == {}


def cut_points(world: World, way: str, *, swapped: bool) -> Iterator[int]:
    """Kill the script before its first rename, its second, and so on until it comes through."""
    for point in itertools.count(1):
        assert point < MOST_RENAMES
        world.fill()
        if swapped:
            assert world.swap("forward").returncode == 0
        if world.swap(way, kill_at=point).returncode == 0:
            assert point - 1 == (31 if world.is_mounted else 10)
            return
        yield point


def test_the_swap_and_the_way_back(world: World) -> None:
    """Forward puts the new in place, back gives exactly what was there, and both can be repeated."""
    world.fill()
    before = world.files()
    for way in ("forward", "back", "forward"):
        for _ in range(2):
            ended = world.swap(way)
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
            check_swapped(world) if way == "forward" else None
        assert way == "forward" or (world.phase(), world.files()) == ("restored", before)


def test_forward_cut_anywhere_goes_forward(world: World) -> None:
    """Killed before any of its renames and run again, the swap ends as if nothing had happened."""
    for point in cut_points(world, "forward", swapped=False):
        ended = world.swap("forward")
        assert (ended.returncode, ended.stdout) == (0, ""), f"point {point}: {ended.stderr}"
        check_swapped(world)


def test_forward_cut_anywhere_goes_back(world: World) -> None:
    """Killed before any of its renames, the swap can be taken back to exactly what was there."""
    world.fill()
    before = world.files()
    for point in cut_points(world, "forward", swapped=False):
        ended = world.swap("back")
        assert (ended.returncode, ended.stdout) == (0, ""), f"point {point}: {ended.stderr}"
        assert world.files() == before, f"point {point}"
        assert world.phase() in ("restored", "")


def test_back_cut_anywhere_goes_back(world: World) -> None:
    """Killed before any of its renames and run again, the way back ends where it should."""
    world.fill()
    before = world.files()
    for point in cut_points(world, "back", swapped=True):
        if point == 3:  # begun, and so no way forward any more
            assert "is being taken back" in world.swap("forward").stderr
        ended = world.swap("back")
        assert (ended.returncode, ended.stdout) == (0, ""), f"point {point}: {ended.stderr}"
        assert (world.phase(), world.files()) == ("restored", before), f"point {point}"


def test_what_the_new_server_made_goes_along(world: World) -> None:
    """Schemas and logs that the new server made leave with it, and the earlier ones come back."""
    world.fill()
    before = world.files()
    assert world.swap("forward").returncode == 0
    datadir, logs = world.places
    for place in world.places:
        if not place.is_whole:  # the clean-up after success removes it
            Path(f"/proc/{world.pid}/root{place.new}").rmdir()
    world.write(datadir.path, ("made later/t.ibd", "aria_log_control"), "later")
    world.write(logs.path, ("bin log.000001", "error.log"), "later")
    assert world.swap("back").returncode == 0
    assert world.below(datadir.new)["made later/t.ibd"] == "later made later/t.ibd"
    assert world.below(logs.new)["bin log.000001"] == "later bin log.000001"
    assert world.below(datadir.path, left_out=(VAULT, "lost+found")) == {
        name: f"earlier {name}" for name in NASTY
    }
    now = world.files()
    assert now.pop("log's/error.log") == "later error.log"
    assert {name: now[name] for name in before if name in now} == {
        name: text for name, text in before.items() if name != "log's/error.log"
    }


def test_a_recipient_without_data(world: World) -> None:
    """Where nothing was before, the new comes in, and back leaves nothing in place."""
    world.fill(earlier=False)
    before = world.files()
    assert world.swap("forward").returncode == 0
    assert world.below(world.places[0].path)["ibdata1"] == "new ibdata1"
    assert world.swap("back").returncode == 0
    assert world.files() == before


@pytest.mark.parametrize("way", ["forward", "back"])
def test_what_appears_meanwhile_is_set_aside(world: World, way: str) -> None:
    """A server that was started on half a datadir leaves files; none of them gets in the way."""
    tried = 0
    for point in range(2, 32 if world.is_mounted else 11, 3):
        world.fill()
        before = world.files()
        assert world.swap("forward", kill_at=point).returncode != 0
        datadir, _ = world.places
        at = datadir.path
        mine = f"{Path(at).relative_to(world.directory)}/ibdata1"
        was_there = mine in world.files()
        if was_there:  # a server would open it; a stray is what was made where nothing was
            continue
        tried += 1
        world.write(at, ("ibdata1",), "stray")
        ended = world.swap(way)
        assert ended.returncode == 0, ended.stderr
        stray = f"{datadir.old}.stray/1/" + ("data dir/ibdata1" if datadir.is_whole else "ibdata1")
        told = stray.removesuffix("/ibdata1") if datadir.is_whole else stray
        assert ended.stdout == f"stray {told}\n"
        now = world.files()
        assert now.pop(str(Path(stray).relative_to(world.directory))) == "stray ibdata1"
        if way == "back":
            assert now == before
        else:
            assert now[mine] == "new ibdata1"
            assert sorted(now.values()) == sorted(before.values())
    assert tried > 1


def test_a_run_that_is_half_done_comes_first(world: World) -> None:
    """While another run has left its swap half done, no other begins."""
    world.fill()
    other = world.seen / "runs/20250101T000000Z-replica-ffffffff"
    other.mkdir()
    (other / "swap.phase").write_text("in\n", encoding="utf-8")
    before = world.files()
    refused = world.swap("forward")
    assert refused.returncode == 3
    assert f"run {other.name} has left its swap half done" in refused.stderr
    assert (world.phase(), world.files()) == ("", before)
    (other / "swap.phase").write_text("swapped\n", encoding="utf-8")
    assert world.swap("forward").returncode == 0


def test_a_list_that_is_cut_moves_nothing(world: World) -> None:
    """A list without its last line is refused before the first rename."""
    world.fill()
    before = world.files()
    path = world.seen / "runs" / RUN / "swap.list"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for length in range(len(lines)):
        path.write_text("".join(lines[:length]), encoding="utf-8")
        refused = world.swap("forward")
        assert refused.returncode == 3
        assert "is not whole" in refused.stderr
    assert (world.phase(), world.files()) == ("", before)


def test_new_files_that_are_not_there_move_nothing(world: World) -> None:
    """Where the new files are not in sight, as on an unmounted filesystem, nothing is moved."""
    world.fill()
    datadir, _ = world.places
    new = Path(f"/proc/{world.pid}/root{datadir.new}")
    new.rename(new.with_name("away"))
    before = world.files()
    refused = world.swap("forward")
    assert refused.returncode == 3
    assert "is not there" in refused.stderr
    assert (world.phase(), world.files()) == ("", before)


def test_a_path_with_a_line_break_is_refused() -> None:
    """What cannot stand on a line of the list is refused before anything is written."""
    place = Place(what="datadir", path="/a\nb", old="/o", new="/n", is_whole=True)
    with pytest.raises(VerificationError, match="line break"):
        swap_list([place])


def test_files_are_taken_to_another_filesystem(world: World) -> None:
    """Files of a kind leave the new datadir for the place where they wait, wherever that lies."""
    world.fill()
    _, logs = world.places
    source = str(world.directory / "fresh")
    world.write(source, ("bin log.000001", "bin log.err", "$(x).index"), "fresh")
    words = [source, logs.path, logs.new, "root:root", *LOG_PATTERNS]
    for _ in range(2):
        subprocess.run(
            [
                *("nsenter", f"--target={world.pid}", "--mount"),
                *("sh", "-c", DISTRIBUTE, "distribute", *words),
            ],
            check=True,
        )
    assert set(world.below(source)) == {"bin log.err", "$(x).index"}
    assert world.below(logs.new)["bin log.000001"] == "fresh bin log.000001"
