"""Which SSH servers lead to a host, as the OpenSSH client of this machine resolves its name.

``ssh -G`` is asked, so that every setting of the person's ``ssh_config`` counts; paramiko's own
parser silently ignores ``Include``. Nothing is contacted here.
"""

from __future__ import annotations

import dataclasses
import os.path
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import numerals
from orchestrator.config import SSH_PORT
from orchestrator.errors import ConfigError, PreconditionError, VerificationError
from orchestrator.remote.known_hosts import make_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import DoorConfig, SshConfig

MOST_HOPS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hop:
    """One SSH server on the way, with the settings that ``ssh -G`` gave for it.

    Attributes:
        name: As it was asked for.
        address: Name or address to connect to.
        port: Port.
        user: Login.
        key_alias: Name that stands for the address in known_hosts files.
        identity_files: Private keys that exist.
        missing_files: Private keys that were named, but do not exist.
        certificate_files: Certificates for them.
        identities_only: Offer no other keys of the agent.
        has_agent: Whether an SSH agent may be asked.
        known_hosts_files: The files that say which host keys are right.
        proxy_jump: Servers to go through, separated by commas.
        proxy_command: Command whose input and output lead to the server.
        connect_seconds: Time to connect.
    """

    name: str
    address: str
    port: int
    user: str
    key_alias: str = ""
    identity_files: tuple[str, ...] = ()
    missing_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    has_agent: bool = True
    known_hosts_files: tuple[str, ...] = ()
    proxy_jump: str = ""
    proxy_command: str = ""
    connect_seconds: int = 10

    @property
    def login(self) -> str:
        """The server as messages name it."""
        return f"{self.user}@{self.address} port {self.port}"

    @property
    def known_names(self) -> tuple[str, ...]:
        """The names to look up in known_hosts files."""
        return make_names(self.address, self.port, self.key_alias)


def parse_settings(text: str) -> dict[str, list[str]]:
    """Return what ``ssh -G`` printed: each keyword with its values; ``none`` is no value."""
    settings: dict[str, list[str]] = {}
    for line in text.split("\n"):
        keyword, _, value = line.partition(" ")
        values = settings.setdefault(keyword.lower(), [])
        if value and value != "none":
            values.append(value)
    return settings


def split_paths(value: str) -> list[str]:
    """Return the files of a list; ``ssh -G`` does not quote names with spaces."""
    return [value] if os.path.exists(value) else value.split()  # noqa: PTH110 - never raises


def make_hop(name: str, text: str, *, connect_seconds: int) -> Hop:
    """Return a server's settings out of what ``ssh -G`` printed.

    Raises:
        ConfigError: A number in it is none.
    """
    settings = parse_settings(text)

    def last(keyword: str) -> str:
        return (settings.get(keyword) or [""])[-1]

    def number(keyword: str, default: int) -> int:
        try:
            return numerals.parse_whole(last(keyword) or str(default))
        except VerificationError as error:
            raise ConfigError(f"`ssh -G {name}`: {keyword}: {error.message}", host=name) from error

    address, port, user = last("hostname"), number("port", SSH_PORT), last("user")
    tokens = {"h": address, "p": str(port), "r": user, "n": name, "%": "%", "d": str(Path.home())}

    def expand(value: str) -> str:
        return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), value)

    def paths(keyword: str) -> list[str]:
        # not pathlib's, which raises for a user that is not there
        found = settings.get(keyword, [])
        return [os.path.expanduser(expand(v)) for v in found]  # noqa: PTH111 - never raises

    identities = paths("identityfile")
    there = {path for path in identities if os.path.isfile(path)}  # noqa: PTH113 - never raises
    return Hop(
        name=name,
        address=address,
        port=port,
        user=user,
        key_alias=last("hostkeyalias"),
        identity_files=tuple(path for path in identities if path in there),
        missing_files=tuple(path for path in identities if path not in there),
        certificate_files=tuple(paths("certificatefile")),
        identities_only=last("identitiesonly") == "yes",
        has_agent="identityagent" not in settings or bool(settings["identityagent"]),
        known_hosts_files=tuple(
            path
            for keyword in ("userknownhostsfile", "globalknownhostsfile")
            for value in settings.get(keyword, [])
            for path in split_paths(value)
        ),
        proxy_jump=last("proxyjump"),
        proxy_command=expand(last("proxycommand")),
        connect_seconds=number("connecttimeout", connect_seconds),
    )


def name_config(ssh: SshConfig) -> list[str]:
    """Return the option of the OpenSSH client that names its configuration, if it has one of ours."""
    # not pathlib's, which raises for a user that is not there
    return ["-F", os.path.expanduser(ssh.config_file)] if ssh.config_file else []  # noqa: PTH111 - see above


def list_options(host: DoorConfig) -> list[str]:
    """Return what our configuration says of a host, as options of the OpenSSH client.

    So it wins over the ssh configuration, and that one's Match blocks see it.
    """
    options = [f"-oHostName={host.address}"] if host.address else []
    if host.ssh_port is not None:
        options += ["-p", str(host.ssh_port)]
    if host.ssh_user:
        options += ["-l", host.ssh_user]
    return options


def resolve_hop(name: str, ssh: SshConfig, options: Sequence[str] = ()) -> Hop:
    """Ask the OpenSSH client of this machine what a host's name stands for.

    Raises:
        ConfigError: It does not accept its configuration, or the name.
        PreconditionError: There is no OpenSSH client.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - an argument list, no shell
            ["ssh", "-G", *name_config(ssh), *options, "--", name],  # noqa: S607 - the person's own client
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=30,
        )
    except FileNotFoundError as error:
        raise PreconditionError(
            "the OpenSSH client is not installed on this machine", hint="install openssh-client"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"`ssh -G {name}` did not end within 30 s",
            host=name,
            hint="look for a slow `Match exec` in the ssh configuration",
        ) from error
    if answer.returncode:
        said = answer.stderr.decode(errors="replace").strip()
        raise ConfigError(
            f"`ssh -G {name}` failed: {said.rpartition(chr(10))[2]}",
            host=name,
            hint="correct the ssh configuration, or ssh.config_file in xbvault.toml",
        )
    return make_hop(
        name,
        answer.stdout.decode(errors="surrogateescape"),
        connect_seconds=ssh.connect_timeout_seconds,
    )


def resolve_way(name: str, host: DoorConfig, ssh: SshConfig) -> list[Hop]:
    """Return the SSH servers from here to a host, the host itself last.

    Raises:
        ConfigError: The ssh configuration is wrong, or jumps in a circle.
    """
    way = [resolve_hop(name, ssh, list_options(host))]
    while way[0].proxy_jump:
        jumps = way[0].proxy_jump.split(",")
        before = [resolve_hop(*_split_jump(jump, ssh)) for jump in jumps]
        # only the first one of a list still has a way of its own
        before[1:] = [
            dataclasses.replace(hop, proxy_jump="", proxy_command="") for hop in before[1:]
        ]
        way[0] = dataclasses.replace(way[0], proxy_jump="", proxy_command="")
        way = before + way
        if len(way) > MOST_HOPS:
            raise ConfigError(
                f"the way to {name} leads through more than {MOST_HOPS} servers",
                host=name,
                hint="look for a circle of ProxyJump lines in the ssh configuration",
            )
    return way


def _split_jump(jump: str, ssh: SshConfig) -> tuple[str, SshConfig, list[str]]:
    user, at, rest = jump.strip().removeprefix("ssh://").rpartition("@")
    found = re.fullmatch(
        r"\[(?P<inner>[^]]+)\](?::(?P<p1>[0-9]+))?|(?P<name>[^:]+):(?P<p2>[0-9]+)", rest
    )
    name, port = rest, None
    if found:
        name, port = found["inner"] or found["name"], found["p1"] or found["p2"]
    return name, ssh, [*(["-l", user] if at else []), *(["-p", port] if port else [])]
