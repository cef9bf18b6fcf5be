"""The two remote jobs of a stream: what they are made of, and what they need to begin."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from orchestrator import flavors, jobs, wire
from orchestrator.host import script
from orchestrator.models import ArchivePlan, BackupPlan, CopyPlan, RestorePlan
from orchestrator.remote import LOOPBACK
from orchestrator.repository import store
from orchestrator.steps import bottleneck, places, records, restarts, tool_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.models import Plan, RunPlan, StoringPlan
    from orchestrator.steps.registry import Tools

CREDENTIAL_SECONDS = 120
"""Checked at login only, so a short life suits a long stream."""


INFORMATION = "information"
"""Folder of a backup's run on the donor, with the backup tool's own words on the set."""
SEALER, SPLITTER = "age", "store.sh"
"""What encrypts a stored backup on the donor, and what cuts it into parts."""
READER, CHECKER = "store.sh", "sha256sum"
"""What reads a stored backup, and by what its recipient looks at each part."""
KEEPER = "head"
"""Program by which its recipient keeps the archives of binary logs that come behind it."""
_MAKE_PAIR = """
set -eu
rm -rf -- "$1"
install -d -m 0700 /run/xbvault "$1"
ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$1/id" >&2
cat -- "$1/id.pub"
"""
"""Makes a new key pair in a directory of its own, and prints the public key."""


def arm_receiver(
    tools: Tools, plan: Plan, receive: str, before: tuple[jobs.Stage, ...] = ()
) -> None:
    """Make the job that takes the stream, for the receiver to start.

    Args:
        tools: The door to the recipient.
        plan: The clone or restore.
        receive: Its name.
        before: What the stream goes through before it is what the backup tool wrote.
    """
    places.make_vaults(tools, plan)
    restarts.make_folders(tools, plan, plan.staging_dir)
    extract = extract_command(tools, plan, plan.staging_dir)
    stages = tuple(
        jobs.Stage(argv=argv, role=role)
        for argv, role in zip(receive_commands(plan, extract), _receive_roles(plan), strict=True)
    )
    _arm(tools, plan, receive, (*before, *stages))


def arm_unpacker(
    tools: Tools, plan: RestorePlan, receive: str, before: tuple[jobs.Stage, ...], listed: str
) -> None:
    """Make the job that takes the streams of a chain of sets, one after the other.

    Args:
        tools: The door to the recipient.
        plan: The restore.
        receive: Its name.
        before: What the streams go through before they are decrypted.
        listed: File that says how each of them is opened, and where it goes.
    """
    places.make_vaults(tools, plan)
    restarts.make_folders(tools, plan, plan.staging_dir, *plan.increment_dirs)
    extract = extract_command(tools, plan, ".")
    argv = ("sh", "-c", script("unpack.sh"), "unpack", listed, *extract)
    _arm(tools, plan, receive, (*before, jobs.Stage(argv=argv, role=bottleneck.WRITE)))


def extract_command(tools: Tools, plan: Plan, folder: str) -> tuple[str, ...]:
    """Return the command that extracts a stream into a folder of the recipient."""
    flavor = flavors.of(plan)
    return flavor.extract_command(
        flavor.programs(tools.config.host(plan.recipient)),
        parallel=plan.parallel,
        staging_dir=folder,
    )


def arm_store(tools: Tools, plan: StoringPlan, receive: str) -> None:
    """Make the folder of a backup set, and the job that stores the stream in it.

    Raises:
        PreconditionError: The repository is not there.
        CommandError: The folder cannot be made.
    """
    tools.recipient.run(["install", "-d", "-m", "0700", records.RUNS, plan.run_dir])
    store.make_folder(tools.recipient, plan.set_dir)
    argv = store.write_command(plan.set_dir, part_bytes=plan.part_bytes, ledger=plan.ledger)
    _arm(tools, plan, receive, (jobs.Stage(argv=argv, role=bottleneck.WRITE),))


def _arm(tools: Tools, plan: RunPlan, receive: str, stages: tuple[jobs.Stage, ...]) -> None:
    jobs.arm_job(
        tools.recipient,
        jobs.JobSpec(
            name=receive,
            stages=stages,
            count_after=jobs.COUNT_INPUT,
            fence=tools.fence,
            lease_seconds=tools.config.clone.job_lease_seconds,
            lock_dir=plan.lock_dir,
        ),
    )
    tools.recipient.write_file(f"{plan.run_dir}/receive", f"{receive}\n")


def make_credential(tools: Tools, plan: RunPlan) -> None:
    """Make a key pair on the donor's tmpfs, and have Vault sign it for this recipient alone."""
    key = f"{plan.secret_dir}/id"
    made = tools.donor.run(["sh", "-c", _MAKE_PAIR, "make-pair", plan.secret_dir, plan.run_id])
    public = made.text.strip()
    certificate = tools.vault.sign_ssh_key(
        tools.config.vault.ssh_mount,
        f"xbvault-receive-{plan.recipient}",
        public,
        principal=f"xbvault-receive-{plan.recipient}",
        ttl_seconds=CREDENTIAL_SECONDS,
    )
    known = tools.recipient.host_key_lines([plan.recipient.lower()])
    tools.donor.write_file(f"{key}-cert.pub", certificate.strip() + "\n")
    tools.donor.write_file(f"{plan.secret_dir}/known_hosts", "\n".join(known) + "\n")


@contextlib.contextmanager
def open_way(tools: Tools, plan: RunPlan) -> Iterator[tuple[str, int]]:
    """Yield the address and port that the donor connects to for the recipient.

    A way through this machine begins on the donor's loopback. It may be left once the stream goes
    through it, and ends with it.

    Raises:
        HostUnreachableError: That way could not be opened.
        PreconditionError: The donor does not allow it, or this machine reaches the recipient only
            through another.
    """
    if not plan.relay:
        yield tools.config.door(plan.recipient).find_stream_address(plan.recipient)
        return
    with tools.donor.open_relay(tools.recipient.find_address()) as relay:
        yield LOOPBACK, relay.port


def start_sender(
    tools: Tools,
    plan: RunPlan,
    send: str,
    before: tuple[jobs.Stage, ...],
    *,
    address: tuple[str, int],
    joins: bool = False,
) -> None:
    """Start the job that sends to the recipient.

    Args:
        tools: The door to the donor.
        plan: The run.
        send: Its name.
        before: What gives it the stream, a pipe's stage each.
        address: Where the donor connects to, and the port.
        joins: Whether it gets the stream from the job that reads the donor for several.
    """
    jobs.start_job(
        tools.donor,
        jobs.JobSpec(
            name=send,
            stages=(
                *before,
                jobs.Stage(
                    argv=_send_command(tools, plan, address),
                    role=bottleneck.ENCRYPT,
                    port=address[1],
                ),
            ),
            count_after=len(before) - 1,
            throttle=0 if joins else plan.throttle,
            niceness=wire.NICENESS if plan.nice else 0,
            lease_seconds=tools.config.clone.job_lease_seconds,
            owner=tools.fence,
        ),
    )


def make_reader(tools: Tools, plan: RunPlan, folder: str) -> tuple[jobs.Stage, ...]:
    """Return what reads the donor, a pipe's stage each, once what it needs is there.

    Args:
        tools: The door to the donor.
        plan: The clone or backup.
        folder: Of the donor, in which the backup tool may work; it lives as long as the reading.
    """
    donor = tools.config.host(plan.donor)
    tmp_dir, extra_dir = f"{folder}/scratch", ""
    seal: tuple[str, ...] = ()
    if isinstance(plan, BackupPlan):
        extra_dir = f"{folder}/{INFORMATION}"
        seal = seal_command(records.need_age_recipient(tools, plan))
    wanted = filter(None, (folder, tmp_dir, extra_dir))
    tools.donor.run(["install", "-d", "-m", "0700", records.RUNS, *wanted])
    flavor = flavors.of(plan)
    backup = flavor.backup_command(
        flavor.programs(donor),
        parallel=plan.parallel,
        tmp_dir=tmp_dir,
        socket=donor.server.socket,
        defaults_file=donor.server.defaults_file,
        options_file=tool_keys.write_backup_options(tools, plan),
        slave_info=plan.is_sibling,
        extra_dir=extra_dir,
        from_lsn=plan.from_lsn if isinstance(plan, BackupPlan) else 0,
        is_shared=bool(plan.group),
    )
    made, *others = read_commands(plan, backup, seal)
    roles = [bottleneck.COMPRESS] * bool(wire.compress_command(plan.compress))
    roles += [bottleneck.SEAL] * bool(seal)
    return (
        jobs.Stage(argv=made, environment_file=donor.vault_env_file, role=bottleneck.READ),
        *(jobs.Stage(argv=argv, role=role) for argv, role in zip(others, roles, strict=True)),
    )


def _send_command(tools: Tools, plan: RunPlan, address: tuple[str, int]) -> tuple[str, ...]:
    where, port = address
    options = {
        "HostKeyAlias": plan.recipient.lower(),
        "CertificateFile": f"{plan.secret_dir}/id-cert.pub",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f"{plan.secret_dir}/known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "Ciphers": plan.ciphers or wire.AES_FIRST,
        "Compression": "no",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
        "ConnectTimeout": "20",
        "ControlPath": "none",
    }
    return (
        "ssh",
        "-F",
        "none",
        "-T",
        "-i",
        f"{plan.secret_dir}/id",
        *(part for name, value in options.items() for part in ("-o", f"{name}={value}")),
        "-p",
        str(port),
        "-l",
        tools.config.door(plan.recipient).receive_user,
        "--",
        where,
        plan.run_id,
    )


def read_commands(
    plan: RunPlan, backup: tuple[str, ...], seal: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], ...]:
    """Return what runs on the donor before the bytes are counted, a pipe's stage each."""
    stages = (backup, wire.compress_command(plan.compress), seal)
    return tuple((*(wire.POLITE if plan.nice else ()), *argv) for argv in stages if argv)


def seal_command(recipient: str) -> tuple[str, ...]:
    """Return the command that encrypts a stream to a public key, so that Vault alone can open it."""
    return (SEALER, "--encrypt", "--recipient", recipient)


def unseal_command(identity_file: str) -> tuple[str, ...]:
    """Return the command that undoes `seal_command`.

    Args:
        identity_file: File on tmpfs with the identity from Vault.
    """
    return (SEALER, "--decrypt", "--identity", identity_file)


def list_tools(plan: RunPlan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the programs at both ends of a stream: before the count, and after it."""
    own = flavors.of(plan).own
    zstd = (wire.ZSTD,) if wire.compress_command(plan.compress) else ()
    if isinstance(plan, BackupPlan):
        return (own.backup, *zstd, SEALER), (SPLITTER,)
    if isinstance(plan, ArchivePlan):
        return (own.binlog, *zstd, SEALER), (SPLITTER,)
    if isinstance(plan, CopyPlan):
        return (READER,), (SPLITTER,)
    if isinstance(plan, RestorePlan):
        keeper = (KEEPER,) if plan.replay else ()
        opened = () if plan.bases else (SEALER, *zstd)
        return (READER,), (CHECKER, *keeper, *opened, own.stream)
    return (own.backup, *zstd), (*zstd, own.stream)


def receive_commands(plan: Plan, extract: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return what runs on the recipient after the bytes are counted, a pipe's stage each."""
    return tuple(argv for argv in (wire.decompress_command(plan.compress), extract) if argv)


def _receive_roles(plan: Plan) -> tuple[str, ...]:
    """Return what each of the commands on the recipient is for."""
    before = (bottleneck.DECOMPRESS,) if wire.decompress_command(plan.compress) else ()
    return (*before, bottleneck.WRITE)
