"""Archives of binary logs: what a new one stores, and what there is."""

from __future__ import annotations

import dataclasses
import datetime as dt
from contextlib import closing
from typing import TYPE_CHECKING

from orchestrator import catalogue, key_uses, keys, plan, recipe, replays, wire
from orchestrator.errors import PreconditionError
from orchestrator.facts import binlogs as server_logs
from orchestrator.facts import preflight, stores
from orchestrator.models import ARCHIVE, ArchivePlan, archive_lock_dir
from orchestrator.remote import Doors
from orchestrator.repository import binlogs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.catalogue import StoredSet
    from orchestrator.config import Config
    from orchestrator.errors import OrchestratorError
    from orchestrator.facts.binlogs import Binlogs
    from orchestrator.facts.survey import Survey
    from orchestrator.models import Check
    from orchestrator.plan import StreamOptions
    from orchestrator.remote import Remote
    from orchestrator.repository.binlogs import Gap
    from orchestrator.repository.manifest import Manifest

COMPRESSION = "zstd:3"
"""Of binary logs, where nobody says otherwise: they are sent decrypted, and shrink well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Archives:
    """The archives of a host in a repository.

    Attributes:
        repository: Its name in the configuration.
        host: The host.
        archives: The oldest first.
        gaps: Between them.
    """

    repository: str
    host: str
    archives: tuple[Manifest, ...]
    gaps: tuple[Gap, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Start:
    """Where a new archive begins.

    Attributes:
        first_log: The oldest binary log that it stores.
        follows: The archive that it goes on from; empty for a new chain.
        problem: Why it cannot go on from that; empty if it can.
    """

    first_log: str
    follows: str = ""
    problem: str = ""


def make_archive_plan(
    config: Config, donor: str, repository: str, *, options: StreamOptions, new_chain: bool = False
) -> tuple[ArchivePlan, tuple[Check, ...]]:
    """Plan an archive of binary logs, and judge whether it may begin.

    Args:
        config: The configuration.
        donor: Host whose binary logs are archived.
        repository: Where to; empty for the only one that is configured.
        options: What the command line said.
        new_chain: Whether it begins anew, and does not go on from the archive before it.

    Returns:
        The plan, and every finding of preflight; bad ones are not raised.

    Raises:
        ConfigError: Host or repository is not in the configuration, several are and none was named,
            or an option means nothing; nothing was contacted.
        PreconditionError: The donor writes no binary log.
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
    host = config.host(donor)
    repository = config.find_repository(repository)
    now = dt.datetime.now(dt.UTC)
    request = preflight.Request(
        form=ARCHIVE,
        donor=donor,
        recipient=repository,
        run_id=keys.new_run_id(repository, now),
        backup_id=keys.new_backup_id(donor, now),
        replace=False,
        require_encryption=options.require_encryption,
        **plan.read_manner(config, options),
    )
    listed = catalogue.list_sets(config, repository, donor)
    with closing(Doors(config)) as doors:
        survey = stores.read_store_survey(
            config,
            key_uses.open_vault(config),
            doors.open(donor),
            doors.open(repository),
            lock_dir=archive_lock_dir(donor),
            backup_id=request.backup_id,
        )
        request = dataclasses.replace(
            request, compress=_choose_compression(survey, request.compress)
        )
        logs = None
        start = _Start(first_log="", problem="the donor's binary logs could not be read")
        if survey.donor.instance:
            logs = server_logs.read_binlogs(doors.open(donor), host)
            start = _find_start(config, doors.open(donor), logs, listed, new_chain=new_chain)
    checks = preflight.judge_archive(
        survey, config, request, logs=logs, first_log=start.first_log, problem=start.problem
    )
    if survey.errors:
        preflight.raise_for(checks, survey.errors)
    target = survey.recipient.host
    if target is None:  # what was wrong has been raised
        raise PreconditionError("a host could not be read")
    made = ArchivePlan(
        **plan.describe_stream(config, survey, request, options),
        set_dir=f"{target.real_datadir}/{request.backup_id}",
        part_bytes=config.repository(repository).part_bytes,
        first_log=start.first_log,
        follows=start.follows,
    )
    size = sum(log.bytes for log in _take_from(logs, start.first_log))
    made = dataclasses.replace(
        made, has_keyring=False, donor_mount="", expected_bytes=size, expected_stream_bytes=0
    )
    return dataclasses.replace(made, commands=recipe.list_archive_commands(config, made)), checks


def _take_from(logs: Binlogs | None, first_log: str) -> Sequence[server_logs.Binlog]:
    if logs is None or first_log not in logs.names:
        return ()
    return logs.logs[logs.names.index(first_log) :]


def _choose_compression(survey: Survey, wanted: str) -> str:
    if wanted != wire.AUTO:
        return wanted
    donor = survey.donor.host
    return COMPRESSION if donor and wire.ZSTD in donor.programs else wire.NONE


def _find_start(
    config: Config,
    donor: Remote,
    logs: Binlogs,
    listed: Iterable[StoredSet],
    *,
    new_chain: bool,
) -> _Start:
    """Return where a new archive begins: behind the newest, else with what a full backup needs."""
    sound = list(replays.list_sound(listed))
    archives = binlogs.sort_archives(sound, donor.name)
    if not archives or new_chain:
        full = sorted((each for each in sound if each.is_full), key=lambda each: each.ended)
        places = [each.coordinates.file for each in full if each.coordinates]
        there = [name for name in places if name in logs.names]
        return _Start(first_log=there[0] if there else logs.names[-1])
    newest = archives[-1]
    at = newest.coordinates
    if at is None:
        raise PreconditionError(f"{newest.backup_id} does not say which binary log comes next")
    start = _Start(first_log=at.file, follows=newest.backup_id)
    after = f"{newest.backup_id} goes to {newest.ended_at}"
    if at.file not in logs.names:
        oldest = logs.names[0]
        problem = (
            f"binary log {at.file} is not on {donor.name} any more, which has {oldest} and later"
        )
        return dataclasses.replace(start, problem=f"{problem}; {after}")
    state = server_logs.read_state(donor, config.host(donor.name), at.file)
    if state != at.gtid:
        problem = (
            f"binary log {at.file} begins with {state or 'no GTID'}, not with {at.gtid or 'none'}"
        )
        return dataclasses.replace(start, problem=f"{problem}: were the logs reset? {after}")
    return start


def list_archives(
    config: Config, host: str = "", repository: str = "", *, failed: list[OrchestratorError]
) -> tuple[Archives, ...]:
    """Return the archives of binary logs, by repository and host.

    Args:
        config: The configuration.
        host: Only of this one; empty for all.
        repository: Only in this one; empty for all.
        failed: Takes the errors of repositories that cannot be read.

    Raises:
        ConfigError: There is no such repository.
        SecretError: Vault refuses.
    """
    listed = catalogue.list_sets(config, repository, host, failed=failed)
    found = []
    for name in sorted({each.repository for each in listed}):
        sound = list(replays.list_sound(each for each in listed if each.repository == name))
        for donor in sorted({each.host for each in sound}):
            archives = binlogs.sort_archives(sound, donor)
            if archives:
                gaps = binlogs.find_gaps(archives)
                found.append(Archives(repository=name, host=donor, archives=archives, gaps=gaps))
    return tuple(found)
