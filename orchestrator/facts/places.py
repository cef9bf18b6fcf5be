"""Facts about the directories in which a server keeps its files. Nothing here changes anything."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import flavors, host, numerals
from orchestrator.errors import VerificationError
from orchestrator.flavors import file_sets

if TYPE_CHECKING:
    from orchestrator.config import HostConfig
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.instances import InstanceFacts
    from orchestrator.flavors.file_sets import FileSet
    from orchestrator.flavors.interface import Flavor
    from orchestrator.remote import Remote


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """Files of one kind, as they were found.

    Attributes:
        what: The kind.
        directory: Where they are, as the server names it.
        patterns: Of their names.
        real: The directory with links resolved; empty if it is not there.
        filesystem: Number of the filesystem's device.
        free_bytes: Free space there.
        bytes: Size of the files.
        foreign: Names of such files that another server of the host has open.
    """

    what: str
    directory: str
    patterns: tuple[str, ...]
    real: str
    filesystem: int
    free_bytes: int
    bytes: int
    foreign: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where a server keeps its files, and what else matters to a swap.

    Attributes:
        files: By kind.
        absolute_tablespaces: Files of the system tablespace that have a directory of their own.
        contradictions: Where option files and the running server disagree.
        profiles: AppArmor profiles loaded for the server, with their mode.
        profile_files: Files in which they are written.
        profile_rules: Rules about files in them.
        half_swapped: Runs that were cut off in their swap and have not been taken up again.
    """

    files: tuple[FoundFiles, ...]
    absolute_tablespaces: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    profile_files: tuple[str, ...] = ()
    profile_rules: tuple[str, ...] = ()
    half_swapped: tuple[str, ...] = ()


def read_places(
    remote: Remote, facts: HostFacts, instance: InstanceFacts | None, config: HostConfig
) -> Places:
    """Ask a host about the directories of its server, with one command.

    A running server's variables are believed, otherwise its option files.

    Raises:
        RemoteError: The host cannot be reached.
        VerificationError: Its answer is not to be understood.
    """
    flavor = flavors.of(config)
    values = instance.variables if instance else facts.options
    sets = (
        *flavor.list_file_sets(values, datadir=facts.real_datadir),
        *file_sets.list_keyring_files(config.keyring.data_file),
    )
    words = [word for one in sets for word in (one.directory, "\n".join(one.patterns))]
    if any("\0" in word for word in words):
        raise VerificationError(f"a path of the server on {facts.name} has a zero byte in it")
    result = remote.run(
        ["sh", "-s", "--", facts.real_datadir, *words],
        stdin=host.script("places.sh"),
        timeout_seconds=120,
    )
    found = parse_places(facts.name, result.stdout.decode("utf-8", "replace"), sets)
    return dataclasses.replace(
        found,
        absolute_tablespaces=file_sets.list_absolute_tablespaces(values),
        contradictions=_contradictions(sets, facts, flavor) if instance else (),
    )


def parse_places(name: str, text: str, sets: tuple[FileSet, ...]) -> Places:
    """Return what the fact script wrote about these kinds of files.

    Raises:
        VerificationError: A number in it is none, or a path has a line break.
    """
    found: dict[str, list[str]] = {}
    if text and not text.endswith("\n"):
        raise VerificationError(f"cannot read the places of {name}: they were cut off", host=name)
    for line in text.split("\n"):  # a path may hold what splitlines() takes for an end of line
        key, _, value = line.partition("\t")
        found.setdefault(key, []).append(value)
    if "unsayable" in found:
        raise VerificationError(
            f"cannot read the places of {name}: {found['unsayable'][0]} has a line break", host=name
        )
    try:
        files = tuple(
            FoundFiles(
                what=one.what,
                directory=one.directory,
                patterns=one.patterns,
                real=found.get(f"{index}.real", [""])[0],
                filesystem=numerals.parse_whole(found.get(f"{index}.filesystem", ["0"])[0]),
                free_bytes=numerals.parse_whole(found.get(f"{index}.free_bytes", ["0"])[0]),
                bytes=numerals.parse_whole(found.get(f"{index}.bytes", ["0"])[0]),
                foreign=tuple(found.get(f"{index}.foreign", ())),
            )
            for index, one in enumerate(sets)
        )
    except VerificationError as error:
        raise VerificationError(f"cannot read the places of {name}: {error}", host=name) from error
    return Places(
        files=files,
        profiles=tuple(found.get("apparmor_profile", ())),
        profile_files=tuple(found.get("apparmor_file", ())),
        profile_rules=tuple(found.get("apparmor_rule", ())),
        half_swapped=tuple(found.get("half_swapped", ())),
    )


def _contradictions(
    running: tuple[FileSet, ...], facts: HostFacts, flavor: Flavor
) -> tuple[str, ...]:
    """Return what the next start would take from elsewhere than the server that runs."""
    now = {one.what: _resolve(one.directory, facts) for one in running}
    then = flavor.list_file_sets(facts.options, datadir=facts.real_datadir)
    found = []
    for one in then:
        here, there = now.get(one.what, ""), _resolve(one.directory, facts)
        if here and there not in (here, facts.real_datadir):  # that is what no option means
            found.append(f"{one.what} are in {here}, and in {there} after a restart")
    return tuple(found)


def _resolve(path: str, facts: HostFacts) -> str:
    if path == facts.datadir or path.startswith(f"{facts.datadir}/"):
        return facts.real_datadir + path.removeprefix(facts.datadir)
    return path
