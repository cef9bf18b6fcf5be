"""Facts about a host: programs, clock, space, datadir, receiver. Nothing here changes anything."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, host, numerals, wire
from orchestrator.errors import VerificationError
from orchestrator.flavors import option_files
from orchestrator.flavors.interface import (
    BACKUP_PROGRAMS,
    DONOR_PROGRAMS,
    GROUP_PROGRAMS,
    RESTORE_PROGRAMS,
    STORE_PROGRAMS,
)

if TYPE_CHECKING:
    from orchestrator.config import HostConfig, RepositoryConfig
    from orchestrator.flavors.interface import Flavor
    from orchestrator.remote import Remote

_SEVERAL = ("option", "server_pid", "sibling", "mount_inside", "trusted_ca", "principal")
"""Keys that can stand on several lines."""
_UNSAYABLE = "unsayable"
"""Stands for a value that has a line break in it, and so no line of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostFacts:
    """What a host says about itself.

    Attributes:
        name: The host's name in the configuration.
        hostname: As the kernel knows it.
        programs: Paths of the programs found.
        server_banner: What the server program says of itself.
        server_version: Of the installed server program, such as ``10.11.19``; empty if none.
        tool_version: The backup tool's, as its flavor compares it; empty if none.
        options: The server's options from its option files.
        clock_offset_seconds: Host's clock minus ours, half of the round trip allowed for.
        clock_error_seconds: How much that can be off.
        memory_available_bytes: Memory that can be used without swapping.
        cpus: Processors.
        datadir: The server's data directory, as it is named.
        real_datadir: The same with symbolic links resolved.
        has_data: Whether there is anything in it.
        is_mount_path: Whether a filesystem of its own is mounted there.
        is_symlink: Whether it is a symbolic link.
        datadir_inode: Its inode; 0 if it is not there.
        datadir_owner: ``user:group``; empty if it is not there.
        datadir_mode: Octal digits; empty if it is not there.
        server_pids: Servers that run in it.
        parent_free_bytes: Free space on the filesystem that a copy lies on: of its parent
            directory, or its own where it is a mount path.
        siblings: Left or kept directories of ours beside it, or in our folder inside it.
        receiver_sha256: Of the installed receiver; empty if there is none.
        receiver_owner: Its owner and mode, such as ``root 755``.
        datadir_bytes: Size of all that is in it, on disk.
        sshd: Settings of its SSH server that matter here.
        trusted_cas: Public keys that its SSH server trusts to sign logins.
        principals: Lines of the principals file of the login that takes the stream.
        mounts_inside: Mount paths below the data directory.
        filesystem: Number of the device of the filesystem that a copy lies on.
        receive_user: The login that takes the stream.
        receiver_refusal: Why that login cannot start the receiver through sudo; empty if it can, or
            is root.
        has_aes: Whether its processors have instructions for AES.
    """

    name: str
    hostname: str
    programs: dict[str, str]
    server_version: str
    tool_version: str
    options: dict[str, str]
    clock_offset_seconds: float
    clock_error_seconds: float
    memory_available_bytes: int
    cpus: int
    datadir: str
    real_datadir: str
    has_data: bool
    is_mount_path: bool
    is_symlink: bool
    datadir_inode: int
    datadir_owner: str
    datadir_mode: str
    server_pids: tuple[int, ...]
    parent_free_bytes: int
    siblings: tuple[str, ...]
    receiver_sha256: str
    receiver_owner: str
    datadir_bytes: int
    sshd: dict[str, str]
    trusted_cas: tuple[str, ...]
    principals: tuple[str, ...]
    mounts_inside: tuple[str, ...] = ()
    filesystem: int = 0
    server_banner: str = ""
    receive_user: str = "root"
    receiver_refusal: str = ""
    has_aes: bool = False

    @property
    def is_running(self) -> bool:
        """Whether a server runs in the datadir."""
        return bool(self.server_pids)


def read_host(remote: Remote, config: HostConfig) -> HostFacts:
    """Ask a host about itself, with one command.

    Raises:
        RemoteError: The host cannot be reached, or the login may not read what is needed.
        VerificationError: Its answer is not to be understood.
    """
    flavor = flavors.of(config)
    programs = flavor.programs(config)
    before = time.time()
    result = remote.run(
        [
            "sh",
            "-s",
            "--",
            config.server.datadir,
            config.receive_user,
            " ".join(flavor.option_groups),
            " ".join(flavor.series_groups),
            programs.server,
            programs.backup,
            programs.print_defaults,
            config.server.options_file,
            *programs.names,
            *DONOR_PROGRAMS,
            *wire.POLITE_PROGRAMS,
            wire.ZSTD,
            *GROUP_PROGRAMS,
            *BACKUP_PROGRAMS,
            *RESTORE_PROGRAMS,
            programs.binlog,
        ],
        stdin=facts_script(),
        timeout_seconds=120,
    )
    return parse_host(
        remote.name,
        result.stdout.decode("utf-8", "replace"),
        flavor,
        before=before,
        after=time.time(),
    )


def read_store(remote: Remote, config: RepositoryConfig) -> HostFacts:
    """Ask the host of a repository about itself; the repository stands in place of a datadir.

    Raises:
        RemoteError: The host cannot be reached, or the login may not read what is needed.
        VerificationError: Its answer is not to be understood.
    """
    no_server = ("", "", "", "", "", "")
    before = time.time()
    result = remote.run(
        [
            "sh",
            "-s",
            "--",
            config.path,
            config.receive_user,
            *no_server,
            *STORE_PROGRAMS,
            *DONOR_PROGRAMS,
        ],
        stdin=facts_script(),
        timeout_seconds=120,
    )
    text = result.stdout.decode("utf-8", "replace")
    # Of which kind makes no difference where no server is asked for its version.
    flavor = flavors.named("mariadb")
    return parse_host(remote.name, text, flavor, before=before, after=time.time())


@dataclasses.dataclass(frozen=True, kw_only=True)
class BriefFacts:
    """What a host says about itself at the moment; the names are those of `HostFacts`.

    Attributes:
        memory_available_bytes: Memory that can be used without swapping.
        cpus: Processors.
        has_data: Whether there is anything in the data directory.
        datadir_inode: Its inode; 0 if it is not there.
        datadir_owner: ``user:group``; empty if it is not there.
        datadir_mode: Octal digits; empty if it is not there.
        server_pids: Servers that run in it.
    """

    memory_available_bytes: int
    cpus: int
    has_data: bool
    datadir_inode: int
    datadir_owner: str
    datadir_mode: str
    server_pids: tuple[int, ...]

    @property
    def is_running(self) -> bool:
        """Whether a server runs in the data directory."""
        return bool(self.server_pids)


def read_brief(remote: Remote, datadir: str) -> BriefFacts:
    """Ask a host for what can have changed since `read_host`; it costs a tenth of that.

    Args:
        remote: The host.
        datadir: The data directory, all links resolved.

    Raises:
        RemoteError: The host cannot be reached.
        VerificationError: Its answer is not to be understood.
    """
    text = host.script("servers.sh") + host.script("brief.sh")
    answer = remote.run(["sh", "-s", "--", datadir], stdin=text).text
    return parse_brief(remote.name, answer)


def parse_brief(name: str, text: str) -> BriefFacts:
    """Return what the script of `read_brief` wrote.

    Args:
        name: The host's name.
        text: Lines of key, tab, value, and a last line that ends them.

    Raises:
        VerificationError: It is not of this form.
    """
    *lines, end, rest = ["", *text.split("\n")]
    if (end, rest) != ("end", ""):
        raise VerificationError(f"cannot read the state of {name}: it was cut off", host=name)
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("\t")
        found.setdefault(key, []).append(value)

    def only(key: str, default: str = "") -> str:
        return found.get(key, [default])[0]

    try:
        return BriefFacts(
            memory_available_bytes=numerals.parse_whole(only("memory_available_bytes")),
            cpus=numerals.parse_whole(only("cpus")),
            has_data="datadir_has_data" in found,
            datadir_inode=numerals.parse_whole(only("datadir_inode", "0")),
            datadir_owner=only("datadir_owner"),
            datadir_mode=only("datadir_mode"),
            server_pids=tuple(numerals.parse_whole(pid) for pid in found.get("server_pid", ())),
        )
    except VerificationError as error:
        raise VerificationError(f"cannot read the state of {name}: {error}", host=name) from error


def is_server_running(remote: Remote, datadir: str) -> bool:
    """Return whether a server runs in a data directory; far less to ask than `read_host`.

    Args:
        remote: The host.
        datadir: The directory, all links resolved.

    Raises:
        RemoteError: The host cannot be reached, or the login may not read what is needed.
        VerificationError: Its answer was cut off.
    """
    text = host.script("servers.sh") + 'list_servers "$1"\necho end\n'
    answer = remote.run(["sh", "-s", "--", datadir], stdin=text).text
    return bool(parse_pids(answer, remote.name))


def facts_script() -> str:
    """Return the script that `read_host` sends."""
    return host.script("servers.sh") + host.script("facts.sh")


def parse_pids(text: str, name: str) -> tuple[int, ...]:
    """Return the process ids that a host wrote.

    Args:
        text: One a line, and a last line that ends them.
        name: The host's name.

    Raises:
        VerificationError: It is not of this form.
    """
    *lines, end, rest = ["", *text.split("\n")]
    if (end, rest) != ("end", ""):
        raise VerificationError(f"cannot read what runs on {name}: it was cut off", host=name)
    return tuple(numerals.parse_whole(line) for line in lines if line)


def parse_host(name: str, text: str, flavor: Flavor, *, before: float, after: float) -> HostFacts:
    """Return what the fact script wrote.

    Args:
        name: The host's name.
        text: Lines of key, tab, value.
        flavor: What kind of server it has.
        before: Our clock before it ran, in seconds.
        after: Our clock after it ran, in seconds.

    Raises:
        VerificationError: A line that must be there is not, stands twice, or has no number.
    """
    single: dict[str, str] = {}
    several: dict[str, list[str]] = {key: [] for key in _SEVERAL}
    if text and not text.endswith("\n"):
        raise VerificationError(f"cannot read the facts of {name}: they were cut off", host=name)
    for line in text.split("\n"):  # a path may hold what splitlines() takes for an end of line
        key, tab, value = line.partition("\t")
        if key == _UNSAYABLE:
            raise VerificationError(
                f"cannot read the facts of {name}: {value} has a line break", host=name
            )
        if key in several:
            several[key].append(value)
        elif tab and single.setdefault(key, value) != value:
            raise VerificationError(
                f"cannot read the facts of {name}: two values of {key[:80]!r}", host=name
            )
    try:
        epoch = numerals.parse_decimal(single["epoch"])
        return HostFacts(
            name=name,
            hostname=single["hostname"],
            programs=_below("program.", single),
            server_version=flavor.read_server_version(single.get("version.server", "")),
            tool_version=flavor.read_tool_version(single.get("version.backup", "")),
            options=option_files.parse_print_defaults("\n".join(several["option"])),
            clock_offset_seconds=epoch - (before + after) / 2,
            clock_error_seconds=(after - before) / 2,
            memory_available_bytes=numerals.parse_whole(single["memory_available_bytes"]),
            cpus=numerals.parse_whole(single["cpus"]),
            datadir=single["datadir"],
            real_datadir=single.get("real_datadir", single["datadir"]),
            has_data="datadir_has_data" in single,
            is_mount_path="datadir_is_mount_path" in single,
            is_symlink="datadir_is_symlink" in single,
            datadir_inode=numerals.parse_whole(single.get("datadir_inode", "0")),
            datadir_owner=single.get("datadir_owner", ""),
            datadir_mode=single.get("datadir_mode", ""),
            server_pids=tuple(numerals.parse_whole(pid) for pid in several["server_pid"]),
            mounts_inside=tuple(several["mount_inside"]),
            parent_free_bytes=numerals.parse_whole(single.get("parent_free_bytes", "0")),
            filesystem=numerals.parse_whole(single.get("filesystem", "0")),
            siblings=tuple(several["sibling"]),
            receiver_sha256=single.get("receiver_sha256", ""),
            receiver_owner=single.get("receiver_owner", ""),
            datadir_bytes=numerals.parse_whole(single.get("datadir_bytes") or "0"),
            sshd=_below("sshd.", single),
            trusted_cas=tuple(several["trusted_ca"]),
            principals=tuple(several["principal"]),
            server_banner=single.get("version.server", ""),
            receive_user=single.get("receive_user", "root"),
            receiver_refusal=single.get("receiver_refusal", ""),
            has_aes="aes" in single,
        )
    except (KeyError, VerificationError) as error:
        raise VerificationError(f"cannot read the facts of {name}: {error}", host=name) from error


def receiver_sha256() -> str:
    """Return the digest of the receiver that belongs to this version."""
    return hashlib.sha256(host.script("receive.sh").encode()).hexdigest()


def _below(prefix: str, single: dict[str, str]) -> dict[str, str]:
    return {k.removeprefix(prefix): v for k, v in single.items() if k.startswith(prefix)}
