"""What a clone will run and write on its hosts, for the reader of a plan. Pure.

The texts are made by the functions that the steps use. What only the run will know stands in angle
brackets, and each secret is masked.
"""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

from orchestrator import flavors, sql, wire
from orchestrator.facts import layout
from orchestrator.flavors import mysql_commands, mysql_files, mysql_keyrings
from orchestrator.flavors.interface import DROP_IN, account_name
from orchestrator.flavors.mysql_commands import CARRIED_OPTIONS
from orchestrator.flavors.mysql_keyrings import KeyringKind
from orchestrator.models import BackupPlan, Coordinates, Secret
from orchestrator.remote import LOOPBACK
from orchestrator.steps import fan_out, keyrings, prepare, replication, stream_jobs, tool_keys
from orchestrator.steps.stream_jobs import INFORMATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.config import Config
    from orchestrator.facts.survey import Survey
    from orchestrator.models import (
        ArchivePlan,
        CopyPlan,
        Place,
        Plan,
        Replay,
        RestorePlan,
        RunPlan,
        StoringPlan,
    )

CHECK_PARTS = "<SHA-256 of each part, as in the manifest>"
PUBLIC_KEY = "<public key of the set>"
FROM_SET = "<from the set>"
FROM_RELAY = "<port of the relay>"
FROM_LOG = "<from the binary log>"
FIFO = "<FIFO>"
HERE = "this machine"
FROM_MEMORY = "<from free memory>"
_UNKNOWN_NUMBER = 2**63 - 1
"""Stands for a number that only the run will know, until the text around it is made."""
_UNKNOWN_SECRET = Secret("")
"""Stands for a secret; what is made with it is shown masked."""


def list_commands(
    config: Config, plan: Plan, survey: Survey, *, vault_url: str
) -> dict[str, tuple[str, ...]]:
    """Return the commands that will run, by step; each begins with its host.

    Args:
        config: The configuration.
        plan: The clone.
        survey: What was read of both hosts.
        vault_url: Vault as the orchestrator reaches it.
    """
    vault_url = (config.host(plan.recipient).vault_address or vault_url).rstrip("/")
    return {
        "stream-backup": _stream(config, plan, survey),
        **_list_copy_commands(config, plan, survey, vault_url),
        "create-replication-account": (_account(config, plan, survey),),
        "start-replication": (_replicate(config, plan, survey),),
    }


def list_restore_commands(
    config: Config, plan: RestorePlan, survey: Survey
) -> dict[str, tuple[str, ...]]:
    """Return the commands of a restore, by step; each begins with its host.

    Args:
        config: The configuration.
        plan: The restore.
        survey: What was read of the repository's host and the recipient.
    """
    folders = [f"{plan.repository_dir}/{each.backup_id}" for each in plan.chain]
    sent = _send_parts(config, plan, *folders)
    vault_url = (config.host(plan.recipient).vault_address or config.vault.address).rstrip("/")
    checked = ["pv", CHECK_PARTS]
    if plan.replay:
        checked.append(f"{{ head -c {plan.chain_bytes}; cat >{shlex.quote(plan.logs_file)}; }}")
    if plan.bases:
        checked.append(f"{{ {'; '.join(_list_extractions(config, plan))}; }}")
    else:
        opened = stream_jobs.unseal_command(f"{plan.secret_dir}/identity")
        extract = _extract(config, plan, plan.staging_dir)
        checked += map(shlex.join, (opened, *stream_jobs.receive_commands(plan, extract)))
    return {
        "fetch-backup-set": (sent, f"{plan.recipient}: {_pipe(*checked)}"),
        **_list_copy_commands(config, plan, survey, vault_url),
        **(_list_replay_commands(config, plan, plan.replay) if plan.replay else {}),
    }


def _list_extractions(config: Config, plan: RestorePlan) -> Iterator[str]:
    """Yield how each set of a chain is extracted from the stream that has all of them."""
    folders = (plan.staging_dir, *plan.increment_dirs)
    for number, (each, folder) in enumerate(zip(plan.chain, folders, strict=True)):
        opened = stream_jobs.unseal_command(f"{plan.secret_dir}/identity.{number}")
        unpacked = wire.decompress_command(each.compress)
        extract = _extract(config, plan, folder)
        commands = (opened, *([unpacked] if unpacked else []), extract)
        yield _pipe(f"head -c {each.stored_bytes}", *map(shlex.join, commands))


def _extract(config: Config, plan: Plan, folder: str) -> tuple[str, ...]:
    flavor = flavors.of(plan)
    return flavor.extract_command(
        flavor.programs(config.host(plan.recipient)), parallel=plan.parallel, staging_dir=folder
    )


def _list_replay_commands(
    config: Config, plan: RestorePlan, replay: Replay
) -> dict[str, tuple[str, ...]]:
    """Return how the archived binary logs are looked into and replayed, by step."""
    host = config.host(plan.recipient)
    opened = shlex.join(stream_jobs.unseal_command(f"{plan.secret_dir}/identity.0"))
    opened = _pipe(f"{opened} {shlex.quote(plan.logs_file)}", "zstd -dc")
    reader = shlex.join(sql.binlog_command(host, connects=False))
    looked = f"{reader} --base64-output=decode-rows -"
    played = f"head -c {FROM_LOG} | {reader} --start-position={replay.position} -"
    return {
        "find-replay-end": (f"{plan.recipient}: {_pipe(opened, looked, 'awk …')}",),
        "replay-binlogs": (
            f"{plan.recipient}: {_pipe(opened, played, shlex.join(sql.client_command(host)))}",
        ),
    }


def list_archive_commands(config: Config, plan: ArchivePlan) -> dict[str, tuple[str, ...]]:
    """Return the commands of an archive of binary logs, by step; each begins with its host.

    Args:
        config: The configuration.
        plan: The archive.
    """
    host = config.host(plan.donor)
    reader = shlex.join(sql.binlog_command(host, connects=True))
    shown = f"{reader} --read-from-remote-server --raw --result-file={FIFO} {plan.first_log} …"
    seal = stream_jobs.seal_command(PUBLIC_KEY)
    _, *others = stream_jobs.read_commands(plan, (reader,), seal)
    return {
        "close-binlog": (_ask(config, plan.donor, Secret.join("FLUSH LOCAL BINARY LOGS")),),
        "store-binlogs": (
            f"{plan.donor}: {_pipe(shown, *map(shlex.join, others), _count(plan), _login(config, plan))}",
            f"{plan.recipient}: {_pipe('pv', _split(plan))}",
        ),
    }


def list_copy_commands(config: Config, plan: CopyPlan) -> dict[str, tuple[str, ...]]:
    """Return the commands of a copy of a stored set, by step; each begins with its host.

    Args:
        config: The configuration.
        plan: The copy.
    """
    sent = _send_parts(config, plan, plan.source_dir)
    return {"copy-stored-set": (sent, f"{plan.recipient}: {_pipe('pv', _split(plan))}")}


def _send_parts(config: Config, plan: RunPlan, *folders: str) -> str:
    """Return how the parts of stored sets go to the recipient of a run."""
    read = f"<parts of {' '.join(map(shlex.quote, folders))}>"
    return f"{plan.donor}: {_pipe(read, _count(plan), _login(config, plan))}"


def _count(plan: RunPlan) -> str:
    return f"pv -L {plan.throttle}" if plan.throttle else "pv"


def _login(config: Config, plan: RunPlan) -> str:
    """Return how a stream goes to the recipient of a run."""
    door = config.door(plan.recipient)
    login = f"{door.receive_user}@{door.find_stream_address(plan.recipient)[0]}"
    return f"ssh {shlex.join(['-o', f'Ciphers={plan.ciphers}', login, plan.run_id])}"


def _split(plan: StoringPlan) -> str:
    return (
        f"<parts of {plan.part_bytes} bytes, and the SHA-256 of each> {shlex.quote(plan.set_dir)}"
    )


def _list_copy_commands(
    config: Config, plan: Plan, survey: Survey, vault_url: str
) -> dict[str, tuple[str, ...]]:
    """Return what makes a datadir of a set on the recipient, by step."""
    return {
        "prepare-backup-set": _prepare(config, plan),
        "move-backup-set": _restore(config, plan, survey, vault_url),
        "swap-datadir": tuple(
            f"{plan.recipient}: {_move(place, source, target)}"
            for source, target in (("path", "old"), ("new", "path"))
            for place in plan.swap_places
        ),
        "start-server": _start(config, plan, vault_url),
    }


def list_backup_commands(
    config: Config, plan: BackupPlan, survey: Survey
) -> dict[str, tuple[str, ...]]:
    """Return the commands of a stored backup, by step; each begins with its host.

    Args:
        config: The configuration.
        plan: The backup.
        survey: What was read of the donor and the repository's host.
    """
    seal = stream_jobs.seal_command(PUBLIC_KEY)
    sent = _send_all(config, plan, survey, seal=seal, extra_dir=f"{plan.run_dir}/{INFORMATION}")
    return {"store-backup": (*sent, f"{plan.recipient}: {_pipe('pv', _split(plan))}")}


def _stream(config: Config, plan: Plan, survey: Survey) -> tuple[str, ...]:
    extract = _extract(config, plan, plan.staging_dir)
    receive = map(shlex.join, stream_jobs.receive_commands(plan, extract))
    return (*_send_all(config, plan, survey), f"{plan.recipient}: {_pipe('pv', *receive)}")


def _send_all(
    config: Config,
    plan: RunPlan,
    survey: Survey,
    *,
    seal: tuple[str, ...] = (),
    extra_dir: str = "",
) -> tuple[str, ...]:
    """Return what a donor runs and gets written for a stream."""
    flavor, donor = flavors.of(plan), config.host(plan.donor)
    options_file = f"{plan.secret_dir}/{tool_keys.BACKUP_OPTIONS}"
    backup = flavor.backup_command(
        flavor.programs(donor),
        parallel=plan.parallel,
        tmp_dir=f"{plan.group_dir if plan.group else plan.run_dir}/scratch",
        socket=donor.server.socket,
        defaults_file=donor.server.defaults_file,
        options_file=options_file,
        slave_info=plan.is_sibling,
        extra_dir=extra_dir,
        from_lsn=plan.from_lsn if isinstance(plan, BackupPlan) else 0,
        is_shared=bool(plan.group),
    )
    recipient = config.door(plan.recipient)
    address, port = recipient.find_stream_address(plan.recipient)
    login = f"{recipient.receive_user}@{LOOPBACK if plan.relay else address}"
    counter = f"pv -L {plan.throttle}" if plan.throttle else "pv"
    options = shlex.join(["-o", f"Ciphers={plan.ciphers}"])
    if plan.relay:
        options += f" -p {FROM_RELAY}"
    ssh = f"ssh {options} {shlex.join([login, plan.run_id])}"
    read = [*map(shlex.join, stream_jobs.read_commands(plan, backup, seal)), counter]
    commands = _send(plan, read, ssh)
    if plan.relay:
        commands.insert(
            0, f"{HERE}: ssh -R {LOOPBACK}:0:{address}:{port} {shlex.quote(plan.donor)} cat"
        )
    if flavor.carries_keys and survey.donor.host:
        text = tool_keys.make_backup_options(
            config, plan, datadir=survey.donor.host.real_datadir, transition_key=_key(plan)
        )
        commands.insert(0, _write(plan.donor, options_file, text.masked))
    return tuple(commands)


def _send(plan: RunPlan, read: list[str], ssh: str) -> list[str]:
    """Return the pipes on the donor; with several recipients, one of them reads for all."""
    if not plan.group:
        return [f"{plan.donor}: {_pipe(*read, ssh)}"]
    fifos = [fan_out.fifo_path(dataclasses.replace(plan, run_id=run)) for run in plan.group_runs]
    buffer = fan_out.branch_stage(plan).argv
    return [
        f"{plan.donor}: {_pipe(*read, shlex.join(['tee', '-p', '--', *fifos]))} >/dev/null",
        f"{plan.donor}: {_pipe(shlex.join(buffer), 'pv', ssh)}",
    ]


def _prepare(config: Config, plan: Plan) -> tuple[str, ...]:
    flavor = flavors.of(plan)
    options_file = f"{plan.secret_dir}/{tool_keys.PREPARE_OPTIONS}"
    command = prepare.make_command(
        plan,
        flavor.programs(config.host(plan.recipient)),
        memory_bytes=_UNKNOWN_NUMBER,
        options_file=options_file,
    )
    shown = shlex.join(command).replace(str(_UNKNOWN_NUMBER), FROM_MEMORY)
    if not flavor.carries_keys:
        return (f"{plan.recipient}: {shown}",)
    text = mysql_commands.prepare_options(staging_dir=plan.staging_dir, transition_key=_key(plan))
    return _write(plan.recipient, options_file, text.masked), f"{plan.recipient}: {shown}"


def _restore(config: Config, plan: Plan, survey: Survey, vault_url: str) -> tuple[str, ...]:
    flavor, host = flavors.of(plan), config.host(plan.recipient)
    options_file = f"{plan.secret_dir}/{tool_keys.RESTORE_OPTIONS}"
    command = flavor.restore_command(
        flavor.programs(host),
        staging_dir=plan.staging_dir,
        new_datadir=plan.new_datadir,
        parallel=plan.parallel,
        rekey=flavors.tool_carries_keys(plan),
        options_file=options_file,
    )
    shown = f"{plan.recipient}: {shlex.join(command)}"
    if not flavor.carries_keys:
        return (shown,)
    text = tool_keys.make_restore_options(
        config,
        plan,
        tool_version=survey.recipient.host.tool_version if survey.recipient.host else "",
        set_options=dict.fromkeys(CARRIED_OPTIONS, FROM_SET),
        transition_key=_key(plan),
    )
    before, after = _keyring_files(config, plan, vault_url)
    return (
        *(_write(plan.recipient, path, content) for path, content in before.items()),
        _write(plan.recipient, options_file, text.masked),
        shown,
        *(_write(plan.recipient, path, content) for path, content in after.items()),
    )


def _keyring_files(
    config: Config, plan: Plan, vault_url: str
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the keyring's files by path: those that the tool reads, and those of the datadir."""
    if not flavors.of(plan).carries_keys or not plan.keyring:
        return {}, {}
    host, kind = config.host(plan.recipient), KeyringKind(plan.keyring)
    target = keyrings.target_keyring(config, plan)
    waiting = keyrings.waiting_keyring_path(config, plan) if host.keyring.is_file else ""
    before, after = {}, {}
    if plan.has_keyring and target.config != waiting:
        before[target.config] = _keyring_config(config, plan, waiting, vault_url)
    if kind.is_component and not host.keyring.config_file:
        own = _keyring_config(config, plan, host.keyring.data_file, vault_url)
        after[f"{plan.new_datadir}/{kind.config_name}"] = own
        after[f"{plan.new_datadir}/{mysql_files.MANIFEST}"] = mysql_keyrings.manifest_text(kind)
    return before, after


def _keyring_config(config: Config, plan: Plan, data_file: str, vault_url: str) -> str:
    return keyrings.make_keyring_config(
        config, plan, data_file=data_file, vault_url=vault_url, token=_UNKNOWN_SECRET
    ).masked


def _start(config: Config, plan: Plan, vault_url: str) -> tuple[str, ...]:
    host = config.host(plan.recipient)
    commands = []
    if flavors.tool_carries_keys(plan) and plan.keyring and host.keyring.config_file:
        own = _keyring_config(config, plan, host.keyring.data_file, vault_url)
        commands.append(_write(plan.recipient, host.keyring.config_file, own))
    mount = f"{config.vault.transition_mount}/{plan.recipient}/{plan.run_id}"
    drop_in = flavors.of(plan).quiet_drop_in(
        run_id=plan.run_id,
        version=plan.server_version,
        vault_url=f"{vault_url}/v1/{mount}" if flavors.needs_transition_mount(plan) else "",
        ignored_directories=() if plan.swap_places[0].is_whole else (layout.VAULT,),
    )
    commands.append(_write(plan.recipient, f"{flavors.config_dir(host)}/{DROP_IN}", drop_in))
    return tuple(commands)


def _account(config: Config, plan: Plan, survey: Survey) -> str:
    followed = survey.source or survey.donor
    seen = config.host(plan.recipient).server.account_host or followed.peer_address
    before, after = flavors.source_dialect_of(plan).account_sql(account_name(plan.run_id), seen)
    return _ask(
        config,
        plan.source_host,
        Secret.join(replication.quiet_sql(plan), before, _UNKNOWN_SECRET, after),
    )


def _replicate(config: Config, plan: Plan, survey: Survey) -> str:
    instance, dialect = survey.donor.instance, flavors.dialect_of(plan)
    has_gtid = bool(instance and flavors.of(plan).has_gtid(instance.variables))
    if plan.is_sibling and instance and instance.sources:
        has_gtid = instance.sources[0].uses_gtid
    before, after = dialect.change_source_sql(
        plan,
        Coordinates(file=FROM_SET, position=_UNKNOWN_NUMBER, gtid=FROM_SET if has_gtid else ""),
        use_gtid=has_gtid and plan.coordinates != "position",
        user=account_name(plan.run_id),
        ca_file=config.host(plan.recipient).server.replication_ca_file,
    )
    text = _ask(
        config,
        plan.recipient,
        Secret.join(before, _UNKNOWN_SECRET, after, ";\n", dialect.start_sql),
    )
    return text.replace(str(_UNKNOWN_NUMBER), FROM_SET)


def _pipe(*commands: str) -> str:
    return " | ".join(commands)


def _key(plan: RunPlan) -> Secret | None:
    return _UNKNOWN_SECRET if plan.has_keyring else None


def _write(host: str, path: str, text: str) -> str:
    """Return how a file is written, for the reader."""
    return f"{host}: cat >{shlex.quote(path)} <<'END'\n{text.rstrip()}\nEND"


def _ask(config: Config, host: str, statements: Secret) -> str:
    """Return how the client of a host is given statements, for the reader."""
    client = shlex.join(sql.client_command(config.host(host)))
    return f"{host}: {client} <<'END'\n{statements.masked};\nEND"


def _move(place: Place, source: str, target: str) -> str:
    source, target = getattr(place, source), getattr(place, target)
    if place.is_whole:
        return shlex.join(["mv", source, target])
    names = "*" if place.patterns == ("*",) else " ".join(place.patterns)
    return f"mv {shlex.quote(source)}/{{{names}}} {shlex.quote(target)}"
