"""Steps that copy a stored set from one repository to another, as it is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.models import COPY, Check
from orchestrator.repository import deployment, names, set_keys, store
from orchestrator.repository.manifest import open_manifest
from orchestrator.steps import (
    backup,
    records,
    stream,
    stream_ends,
    stream_jobs,
)
from orchestrator.steps.backup import PublishedSet, StoredSet
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import CopyPlan
    from orchestrator.repository.manifest import Manifest

_WITH_KEYS = "with-keys"
"""The run's record says by this that the set's keys were there when the copy began."""


@step(
    "copy-stored-set",
    role="both",
    repeat=Repeat.RESTART,
    deadline_seconds=7 * 86400,
    forms=(COPY,),
)
def copy_stored_set(tools: Tools, plan: CopyPlan) -> stream_ends.Stream:
    """Stream the parts of a set from one repository's host to another's, encrypted as they are.

    Args:
        tools: The doors to both hosts, and to Vault's SSH CA.
        plan: The copy.

    Returns:
        Bytes and seconds, and what limited them.

    Raises:
        PreconditionError: The other repository has the set already.
        CommandError: A process of the pipe failed, or the stream stalled.
        SecretError: Vault does not sign the credential.

    Repeat:
        Jobs that still run, or have ended well, are attached to. Anything else is thrown away, with
        the folder, and begun again.
    """

    def begin(send: str, receive: str) -> None:
        stream.remove_jobs(tools, send, receive)
        _need_absent(tools, plan)
        records.update_record(tools, plan, {"run": plan.run_id, backup.MADE: plan.set_dir})
        if set_keys.hold(tools.vault, tools.config, plan.backup_id, plan.recipient):
            records.update_record(tools, plan, {_WITH_KEYS: "yes"})
        store.remove_set(tools.recipient, plan.set_dir, backup.OTHER_FILES)
        stream_jobs.arm_store(tools, plan, receive)
        repository = plan.source_dir.rpartition("/")[0]
        stream.send_stored_sets(tools, plan, repository, [(plan.backup_id, plan.parts)])

    try:
        send, receive = stream.attach_or_begin(tools, plan, begin)
    finally:
        tools.donor.run(["rm", "-rf", "--", plan.secret_dir])
    return stream.wait_for_stream(tools, plan, send, receive)


@step(
    "verify-copied-set",
    role="recipient",
    repeat=Repeat.BACK,
    back_to="copy-stored-set",
    forms=(COPY,),
)
def verify_copied_set(tools: Tools, plan: CopyPlan) -> StoredSet:
    """Compare each part that arrived with the manifest: number, size and SHA-256.

    Args:
        tools: The doors to both hosts and to Vault.
        plan: The copy.

    Returns:
        What the set was judged by.

    Raises:
        VerificationError: A part is another one; all findings are listed.
        InterruptedWorkError: It was found so before; whoever resumes wants it copied again.

    Repeat:
        Looks again; a set that was found not whole sends the run back to the copying.
    """
    stream.refuse_judged(tools, plan, "the copied backup set was not whole; it is copied again")
    _data, document = _need_manifest(tools, plan)
    ends = stream_ends.read_ends(tools, plan)
    there = {part.name: part for part in store.read_ledger(tools.recipient, plan.ledger)}
    wrong = [part.name for part in document.parts if there.pop(part.name, None) != part]
    wrong += there
    checks = (
        stream.judge_statuses(ends),
        stream.judge_counts(ends),
        Check(
            name="stored-parts",
            host=plan.recipient,
            ok=not wrong and ends.received.bytes == plan.stored_bytes,
            evidence=f"not as the manifest names them: {', '.join(wrong[:3])}"
            if wrong
            else f"{plan.parts} parts with {plan.stored_bytes} bytes, as the manifest names them",
        ),
    )
    stream.need_whole(
        tools,
        plan,
        checks,
        what="the copied backup set",
        hint="`xbvault runs resume` copies it again; `xbvault backups verify` looks at the one "
        f"in {plan.donor}",
    )
    return StoredSet(
        backup_id=plan.backup_id,
        coordinates=document.coordinates,
        bytes=ends.received.bytes,
        parts=plan.parts,
        to_lsn=document.to_lsn,
        checks=checks,
    )


@step("publish-copied-set", role="recipient", repeat=Repeat.SAFE, forms=(COPY,))
def publish_copied_set(tools: Tools, plan: CopyPlan) -> PublishedSet:
    """Bring over what the set has beside its parts, and its manifest as the last of its files.

    Args:
        tools: The doors to both hosts and to Vault.
        plan: The copy.

    Returns:
        Where the set lies.

    Raises:
        VerificationError: A file is not the one that the manifest names.
        SecretError: The keys of the set were destroyed meanwhile.

    Repeat:
        The files are written again, and say the same.
    """
    data, document = _need_manifest(tools, plan)
    for file in document.files:
        content = tools.donor.read_file(f"{plan.source_dir}/{file.name}")
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise VerificationError(
                f"{file.name} of backup set {plan.backup_id} is not the one that was stored: its "
                "SHA-256 differs",
                host=plan.donor,
                hint=f"`xbvault runs cancel {plan.run_id}`; `xbvault backups verify` looks at all "
                "of the set",
            )
        tools.recipient.write_file(f"{plan.set_dir}/{file.name}", content)
    is_alive = set_keys.hold(tools.vault, tools.config, plan.backup_id, plan.recipient)
    if not is_alive and _WITH_KEYS in records.read_record(tools, plan):
        raise set_keys.explain_missing(tools.vault, tools.config, plan.backup_id)
    store.publish_manifest(tools.recipient, plan.set_dir, data)
    return PublishedSet(folder=plan.set_dir, stored_bytes=document.stored_bytes)


def _need_absent(tools: Tools, plan: CopyPlan) -> None:
    """Refuse to write where the set is already: it may have come there since the preflight.

    Raises:
        PreconditionError: It is there.
    """
    manifest = f"{plan.set_dir}/{names.MANIFEST}"
    if tools.recipient.run(["test", "-e", manifest], check=False).status == 0:
        raise PreconditionError(
            f"{plan.recipient} has backup set {plan.backup_id} already",
            host=plan.recipient,
            hint=f"`xbvault runs cancel {plan.run_id}`: there is nothing to copy",
        )


def _need_manifest(tools: Tools, plan: CopyPlan) -> tuple[bytes, Manifest]:
    """Return the manifest of the set as it is written, proved, and seen to be the planned one.

    Raises:
        VerificationError: It is not ours, or another one than the copy was planned with.
    """
    made = deployment.need_deployment(tools.vault, tools.config)
    data = tools.donor.read_file(f"{plan.source_dir}/{names.MANIFEST}")
    found = open_manifest(data, backup_id=plan.backup_id, deployment=made.id, key=made.manifest_key)
    planned = (plan.parts, plan.stored_bytes, plan.to_lsn)
    if (len(found.parts), sum(part.bytes for part in found.parts), found.to_lsn) != planned:
        raise VerificationError(
            f"the manifest of {plan.backup_id} is not the one that this copy was planned with",
            host=plan.donor,
            hint="begin a new copy",
        )
    return data, found
