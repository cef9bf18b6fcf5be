"""Looks for secrets wherever a run could leave one: processes, files, journal, logs, output.

A `Recorder` watches a laboratory while something runs there: what every process was executed with
(strace), what processes show in ``/proc`` and what stands in small files (sampled). `scan` looks
through that, and through whole trees of files, for each secret in every form that it could have
been written in. `ALLOWED` names the places where a secret may be; the threat model has the same
table.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab import hosts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lab.model import Lab

STRACE = ("strace", "-f", "-q", "-v", "-s", "65536", "-e", "trace=execve", "-e", "signal=none")
SAMPLE_SECONDS = 0.05
MOST_BYTES = 1 << 18
"""Larger files are not copied while something runs; they are looked through afterwards."""
LEAST_BYTES = 12
"""Shorter pieces of a secret could stand anywhere by chance."""
WATCHED = ("run", "dev/shm", "tmp", "root", "etc/mysql", "var/lib/xbvault", "var/log/mysql")
TMPFS = ("/run/", "/dev/shm/")
_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"(\.\.\.)?')
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f"}
_GONE = re.compile(r"No such (?:file or directory|process)$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """A secret to look for.

    Attributes:
        kind: Such as ``host-token``; `ALLOWED` speaks of kinds.
        value: The clear value.
        host: The host that it belongs to, where it belongs to one.
    """

    kind: str
    value: bytes
    host: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """Something that was seen.

    Attributes:
        place: ``argv``, ``environ``, ``tmpfs``, ``file``, ``journal``, ``log``, ``audit`` or
            ``output``.
        host: The host; empty for the machine of the orchestrator.
        name: Program of a process, or path of a file.
        content: The bytes.
        seen_by: ``strace`` or ``sample``, while something ran; else ``scan``.
    """

    place: str
    host: str
    name: str
    content: bytes
    seen_by: str = "scan"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
    """Files to look through as they are now.

    Attributes:
        place: As in `Content`.
        host: As in `Content`.
        root: A file or folder on this machine.
        shown: Its path for the reader: on its host.
    """

    place: str
    host: str
    root: Path
    shown: str


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Hit:
    """A secret that was found.

    Attributes:
        kind: Which kind of secret.
        owner: The host that it belongs to, where it belongs to one.
        form: ``raw``, ``hex``, ``base64`` …
        place: As in `Content`.
        host: As in `Content`.
        name: As in `Content`.
        seen_by: As in `Content`.
    """

    kind: str
    owner: str
    form: str
    place: str
    host: str
    name: str
    seen_by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allowed:
    """A place where a kind of secret may be found, on the host that it belongs to.

    Attributes:
        kinds: The kinds of secret.
        place: As in `Content`.
        name: What the name must match in full.
        reason: Why it cannot be otherwise.
        page: Words by which the threat model names the place.
        seen_by: As in `Content`; empty for all.
        forms: In which forms; the file of a key is base64 by itself.
    """

    kinds: tuple[str, ...]
    place: str
    name: str
    reason: str
    page: tuple[str, ...]
    seen_by: str = ""
    forms: tuple[str, ...] = ("raw",)

    def covers(self, hit: Hit) -> bool:
        """Return whether a finding is at this place."""
        return (
            hit.kind in self.kinds
            and hit.form in self.forms
            and hit.place == self.place
            and hit.host == hit.owner != ""
            and re.fullmatch(self.name, hit.name) is not None
            and self.seen_by in ("", hit.seen_by)
        )


ALLOWED = (
    Allowed(
        kinds=("host-token",),
        place="file",
        name="/etc/mysql/vault.env",
        reason="the server's own environment file (0600 root), from which systemd or the service "
        "command gives it its token",
        page=("/etc/mysql/vault.env",),
    ),
    Allowed(
        kinds=("host-token", "transition-token"),
        place="environ",
        name="mariadbd|mariadb-backup",
        reason="the key plugin takes its token from VAULT_TOKEN alone; /proc/PID/environ is for "
        "root and the server's own user",
        page=("`VAULT_TOKEN` in `/proc/PID/environ`", "`mariadbd` and `mariadb-backup`"),
    ),
    Allowed(
        kinds=("transition-token",),
        place="tmpfs",
        name=r"/run/xbvault/(?:[^/]+/(?:\.xbvault\.\w+|transition\.env)|server\.env)",
        seen_by="sample",
        reason="0600 on the recipient's tmpfs from prepare to the restart on its own mount, for "
        "the tools above to read",
        page=("/run/xbvault/<run>/transition.env", "/run/xbvault/server.env"),
    ),
    Allowed(
        kinds=("stream-private-key",),
        place="tmpfs",
        name=r"/run/xbvault/[^/]+/id",
        seen_by="sample",
        forms=("raw", "base64"),
        reason="0600 on the donor's tmpfs until the stream's connection stands",
        page=("stream's private key", "until the connection stands"),
    ),
    Allowed(
        kinds=("replication-password",),
        place="file",
        name="/var/lib/mysql/master.info",
        reason="the replica's own record of its source; MariaDB has no other way to reconnect",
        page=("master.info",),
    ),
)
"""Where a secret may be. Everywhere else it is a leak."""


def forms(value: bytes) -> dict[str, tuple[bytes, ...]]:
    """Return the byte strings by which a value would show, by the form's name."""
    digits = value.hex()
    found: dict[str, tuple[bytes, ...]] = {
        "raw": (value,),
        "hex": (digits.encode(), digits.upper().encode()),
        "base64": tuple(dict.fromkeys(_base64_cores(value))),
        "url": tuple(
            dict.fromkeys(
                (
                    "".join(f"%{byte:02X}" for byte in value).encode(),
                    "".join(f"%{byte:02x}" for byte in value).encode(),
                    urllib.parse.quote_from_bytes(value, safe="").encode(),
                )
            )
        ),
    }
    if re.fullmatch(rb"(?:[0-9a-f]{2})+", value):
        found["upper"] = (value.upper(),)
        found["binary"] = (bytes.fromhex(value.decode()),)
    raw = found["raw"]
    return {
        form: wanted
        for form, every in found.items()
        if (wanted := tuple(w for w in every if form == "raw" or w not in raw))
    }


def _base64_cores(value: bytes) -> Iterator[bytes]:
    """Yield what base64 makes of a value wherever in a longer text it begins."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * before + value)
            first = -(-before * 8 // 6)
            core = encoded[first : (before + len(value)) * 8 // 6]
            if len(core) >= LEAST_BYTES:
                yield core


def scan(
    secrets: Sequence[Known], *, contents: Iterable[Content] = (), trees: Iterable[Tree] = ()
) -> list[Hit]:
    """Return every place where one of the secrets stands, in whatever form.

    Args:
        secrets: What to look for.
        contents: What was seen while something ran.
        trees: Files to look through now.
    """
    wanted = [
        (known, form, w) for known in secrets for form, ws in forms(known.value).items() for w in ws
    ]
    hits = set()
    for seen in (*contents, *_suspicious_files(trees, [w for _, _, w in wanted])):
        for known, form, needle in wanted:
            if needle in seen.content:
                hits.add(
                    Hit(
                        kind=known.kind,
                        owner=known.host,
                        form=form,
                        place=seen.place,
                        host=seen.host,
                        name=seen.name,
                        seen_by=seen.seen_by,
                    )
                )
    return sorted(hits)


def leaks(hits: Iterable[Hit]) -> list[Hit]:
    """Return the findings that are at no allowed place."""
    return [hit for hit in hits if not any(allowed.covers(hit) for allowed in ALLOWED)]


def _suspicious_files(trees: Iterable[Tree], needles: Sequence[bytes]) -> Iterator[Content]:
    """Yield the files in which grep, many times faster than Python, found a piece of a secret."""
    # A line of grep's pattern file holds no newline, so of a binary form the longest piece is used.
    pieces = {max(needle.split(b"\n"), key=len) for needle in needles}
    with tempfile.NamedTemporaryFile() as patterns:
        patterns.write(b"\n".join(sorted(piece for piece in pieces if len(piece) >= LEAST_BYTES)))
        patterns.flush()
        for tree in trees:
            ended = subprocess.run(
                ["grep", "-rlaFZ", "--devices=skip", "-f", patterns.name, "--", str(tree.root)],
                capture_output=True,
                check=False,
                timeout=300,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            )
            complaints = ended.stderr.decode().splitlines()
            strange = [line for line in complaints if not _GONE.search(line)]
            if strange or (ended.returncode > 1 and not complaints):
                raise AssertionError(f"{tree.root} could not be looked through: {strange}")
            for found in ended.stdout.split(b"\0")[:-1]:
                path = Path(found.decode("utf-8", "surrogateescape"))
                with contextlib.suppress(FileNotFoundError):  # a file of a server that works
                    below = path.relative_to(tree.root)
                    shown = tree.shown if path == tree.root else f"{tree.shown.rstrip('/')}/{below}"
                    yield Content(
                        place=tree.place, host=tree.host, name=shown, content=path.read_bytes()
                    )


def trees_of(lab: Lab) -> list[Tree]:
    """Return everything in a laboratory that outlives a run and could hold a secret."""
    trees = []
    for host in lab.machines:
        trees.append(Tree(place="file", host=host.name, root=host.root, shown="/"))
        trees.append(
            Tree(
                place="log",
                host=host.name,
                root=host.directory / "console.log",
                shown="console.log",
            )
        )
        first = hosts.find_first_process(lab, host)
        trees += [
            Tree(
                place="tmpfs",
                host=host.name,
                root=Path(f"/proc/{first}/root{path}"),
                shown=path,
            )
            for path in ("/run", "/dev/shm")
        ]
    state = lab.directory / "state"
    trees += [
        Tree(
            place="log" if path.name == "logs" else "journal",
            host="",
            root=path,
            shown=path.name,
        )
        for path in sorted(state.iterdir())
    ]
    trees += [
        Tree(place="audit", host="", root=lab.vault / name, shown=name)
        for name in ("audit.log", "server.log")
    ]
    return trees


def parse_execve(line: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return program, arguments and environment (parts ended by NUL) of a line of strace.

    Raises:
        AssertionError: The line is cut short, so that something could be hidden.
    """
    _, call, rest = line.partition(b"execve(")
    if not call:
        return None
    parts: list[bytes] = []
    lists: list[bytes] = []
    at = 0
    while at < len(rest):
        found = _STRING.match(rest, at)
        if found:
            if found.group(2):
                raise AssertionError("strace cut a string short")
            parts.append(_ESCAPE.sub(_unescape, found.group(1)))
            at = found.end()
            continue
        mark = rest[at : at + 1]
        if mark in (b"[", b"]"):
            lists.append(b"\0".join([*parts, b""]))
            parts = []
        if mark in (b")", b"<") or rest[at:].startswith(b"..."):
            break
        at += 1
    if len(lists) != 4:
        raise AssertionError(f"strace wrote something else: {rest[:200]!r}")
    return lists[0].split(b"\0")[0], lists[1], lists[3]


def _unescape(found: re.Match[bytes]) -> bytes:
    if found.group(1):
        return bytes([int(found.group(1), 8)])
    return _ESCAPES.get(found.group(2), found.group(2))


class Recorder:
    """Watches a laboratory inside a ``with`` block.

    Args:
        lab: The laboratory.
        directory: A folder for strace's output and for temporary files of what is recorded.
        trace: Whether to trace every process, too, which costs time.
    """

    def __init__(self, lab: Lab, directory: Path, *, trace: bool = True) -> None:
        self._lab = lab
        self._traces = trace
        self._directory = directory
        self._firsts = {
            host.name: first
            for host in lab.machines
            if (first := hosts.find_first_process(lab, host)) is not None
        }
        self._namespaces = {
            str(Path(f"/proc/{first}/ns/mnt").readlink()): name
            for name, first in self._firsts.items()
        }
        self._seen: set[Content] = set()
        self._files: set[tuple[str, int, int, int]] = set()
        self._error: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="sampler", daemon=True)
        self._straces: list[subprocess.Popen[bytes]] = []

    @property
    def temporary(self) -> Path:
        """The folder for temporary files of what is recorded (TMPDIR)."""
        return self._directory / "temporary"

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return a command that runs another one under strace."""
        return [*STRACE, "--seccomp-bpf", "-o", str(self._directory / "here.strace"), *argv]

    def __enter__(self) -> Self:
        self.temporary.mkdir(parents=True)
        for name, first in self._firsts.items() if self._traces else ():
            output = str(self._directory / f"{name}.strace")
            self._straces.append(
                subprocess.Popen([*STRACE, "-o", output, "-p", str(first)], stderr=subprocess.PIPE)
            )
        end = time.monotonic() + 20
        while self._traces and not all(map(self._is_traced, self._firsts.values())):
            if time.monotonic() > end:
                self._stop_straces()
                raise AssertionError("strace did not attach to every sshd")
            time.sleep(0.05)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=30)
        self._stop_straces()
        if self._error is not None:
            raise self._error

    def contents(self) -> list[Content]:
        """Return everything that was seen."""
        found = list(self._seen)
        for path in sorted(self._directory.glob("*.strace")):
            host = path.stem if path.stem in self._firsts else ""
            for line in path.read_bytes().splitlines():
                call = parse_execve(line)
                if call is None:
                    continue
                name = Path(call[0].decode("utf-8", "replace")).name
                found += [
                    Content(place=place, host=host, name=name, content=content, seen_by="strace")
                    for place, content in (("argv", call[1]), ("environ", call[2]))
                ]
        return found

    @staticmethod
    def _is_traced(pid: int) -> bool:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        return "TracerPid:\t0\n" not in status

    def _stop_straces(self) -> None:
        for process in self._straces:
            process.send_signal(signal.SIGINT)  # it lets go of what it traces, which runs on
        for process in self._straces:
            process.communicate(timeout=30)

    def _sample(self) -> None:
        try:
            while not self._ended.wait(SAMPLE_SECONDS):
                self._sample_processes()
                self._sample_files("", self.temporary, str(self.temporary))
                for name, first in self._firsts.items():
                    root = Path(f"/proc/{first}/root")
                    for folder in WATCHED:
                        self._sample_files(name, root / folder, f"/{folder}")
                    for aside in (root / "var/lib").glob("*.xbvault-*"):
                        self._sample_files(name, aside, f"/var/lib/{aside.name}", deep=False)
        except Exception as error:  # noqa: BLE001 - it is raised where the block ends
            self._error = error

    def _sample_processes(self) -> None:
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it ended while we looked
                argv = _read(f"{entry.path}/cmdline")
                if not argv:
                    continue
                environ = _read(f"{entry.path}/environ")
                mounts = str(Path(f"{entry.path}/ns/mnt").readlink())
                host = self._namespaces.get(mounts, "")
                name = Path(f"{entry.path}/exe").readlink().name
                for place, content in (("argv", argv), ("environ", environ)):
                    self._seen.add(
                        Content(
                            place=place, host=host, name=name, content=content, seen_by="sample"
                        )
                    )

    def _sample_files(self, host: str, folder: Path, shown: str, *, deep: bool = True) -> None:
        with contextlib.suppress(OSError):  # it went while we looked
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    if deep:
                        self._sample_files(host, Path(entry.path), f"{shown}/{entry.name}")
                    continue
                if not entry.is_file(follow_symlinks=False):
                    continue
                with contextlib.suppress(OSError):
                    stat = entry.stat(follow_symlinks=False)
                    name = f"{shown}/{entry.name}"
                    mark = (f"{host}:{name}", stat.st_ino, stat.st_mtime_ns, stat.st_size)
                    if mark in self._files or stat.st_size > MOST_BYTES:
                        continue
                    self._files.add(mark)
                    self._seen.add(
                        Content(
                            place="tmpfs" if name.startswith(TMPFS) else "file",
                            host=host,
                            name=name,
                            content=_read(entry.path),
                            seen_by="sample",
                        )
                    )


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:  # noqa: PTH123 - pathlib costs as much as the reading
        return stream.read()
