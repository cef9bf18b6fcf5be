"""``xbvault backups list | show | verify | copy | expire``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator import models, summary
from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call, verbose_option, yes_option
from orchestrator.cli.options import plan_option, throttle_option
from orchestrator.cli.planned import carry_out
from orchestrator.errors import ConfigError, OrchestratorError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator.catalogue import Progress, StoredSet, Verdict
    from orchestrator.disposal import Fate, Removal
    from orchestrator.repository.manifest import Manifest

SAY_SECONDS = 2.0
_WORDS = {"sums": "read back", "decrypts": "decrypted"}

repository_option = click.option(
    "--repo", "repository", metavar="REPOSITORY", default="", help="Only in this repository."
)


@click.group()
def backups() -> None:
    """List, show, verify, copy and expire stored backups."""


@backups.command("list")
@repository_option
@click.option("--host", metavar="HOST", default="", help="Only backups of this host.")
@json_option
@pass_call
def list_(call: Call, repository: str, host: str) -> None:
    """List stored backups, the newest first.

    A set that is `complete` has all files that its manifest names, in their sizes; what is in them
    is seen by `verify` alone.
    """
    failed: list[OrchestratorError] = []
    found = call.backend.list_backups(call.load_config(), repository, host, failed)
    call.document = {"sets": [build_item(stored) for stored in found]}
    if call.as_json and not failed:
        output.print_document(call.document["sets"])
        return
    if not call.as_json:
        rows = [_format_row(stored) for stored in found]
        header = ("backup_id", "repository", "state", "keys", "kind", "ended", "size")
        click.echo(output.format_table(header, rows) if rows else "no backups")
    if failed:
        raise join_errors(failed, f"{len(failed)} repositories could not be read")


@backups.command()
@click.argument("backup")
@repository_option
@json_option
@pass_call
def show(call: Call, backup: str, repository: str) -> None:
    """Show what is known of BACKUP: a backup_id, latest, or latest:HOST."""
    found = call.backend.find_backups(call.load_config(), backup, repository)
    if len(found) > 1:
        where = ", ".join(stored.repository for stored in found)
        raise ConfigError(
            f"{found[0].report.name} is in several repositories: {where}",
            hint="name one of them with --repo",
        )
    if call.as_json:
        manifest = found[0].report.manifest
        document = build_item(found[0]) | {"manifest": manifest and models.as_json(manifest)}
        output.print_document(document)
        return
    click.echo("\n".join(_format_set(found[0])))


@backups.command()
@click.argument("backup", required=False, default="")
@click.option("--all", "every", is_flag=True, help="Verify every backup set there is.")
@repository_option
@json_option
@pass_call
def verify(call: Call, backup: str, *, every: bool, repository: str) -> None:
    """Prove that BACKUP (a backup_id, latest, or latest:HOST) can be read back as it was stored.

    Its manifest is authenticated, each file is read back on the repository's host and summed up,
    and the stream is decrypted on this machine, to nowhere. Of an incremental one, all backups that
    it builds on are verified as well.
    """
    if bool(backup) == every:
        raise click.UsageError("name a backup, or give --all")
    call.document = {"sets": []}
    config = call.load_config()
    wanted = (
        call.backend.list_verifiable_backups(config, repository)
        if every
        else call.backend.find_chains(config, backup, repository)
    )
    say = _make_talker(call)
    verdicts = []
    for verdict in call.backend.verify_backups(config, wanted, say):
        verdicts.append(verdict)
        call.document["sets"].append(build_verdict(verdict))
        if not call.as_json:
            click.echo("\n".join(_format_verdict(verdict)))
    error = _choose_error(verdicts)
    if error is not None:
        raise error
    if call.as_json:
        output.print_document({"status": "verified", **call.document, "error": None})
    elif not verdicts:
        click.echo("no backups")


@backups.command()
@click.argument("backup")
@click.option("--to", "target", metavar="REPOSITORY", required=True, help="Where to.")
@click.option("--from", "source", metavar="REPOSITORY", default="", help="Else wherever it is.")
@plan_option
@throttle_option
@json_option
@verbose_option
@yes_option
@pass_call
def copy(
    call: Call,
    backup: str,
    *,
    target: str,
    source: str,
    throttle: str | None,
    only_plan: bool,
    yes: bool,
) -> None:
    """Copy BACKUP (a backup_id, latest, or latest:HOST) to another repository, as it is.

    The stream goes from the one host to the other, still encrypted; no key is needed for it.
    """
    config = call.load_config()
    call.document = summary.build_empty_backup_document()
    config.repository(target)
    if not only_plan:
        output.require_consent(call, yes=yes)
        call.attempt = f"copy of {backup} to {target}: did not begin" if yes else ""
        call.backend.prepare_engine()
    playbook = call.backend.load_playbook("copy")
    plan, checks = call.backend.make_copy_plan(config, backup, target, source, throttle)
    carry_out(
        call,
        config,
        playbook,
        (plan, checks),
        only_plan=only_plan,
        yes=yes,
        question=f"Copy {plan.backup_id} from {plan.donor} to {target}?",
    )


@backups.command()
@repository_option
@click.option("--host", metavar="HOST", default="", help="Only backups of this host.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would go and why, and end.")
@json_option
@yes_option
@pass_call
def expire(call: Call, repository: str, host: str, *, only_plan: bool, yes: bool) -> None:
    """Remove the backups that no rule of their repository's retention keeps, with their keys.

    The last good backup of a host always stays.
    """
    call.document = {"status": "failed", "sets": []}
    config = call.load_config()
    if not only_plan:
        output.require_consent(call, yes=yes)
        call.attempt = "expiry of backups: failed" if yes else ""
    fates = call.backend.plan_expiry(config, repository, host)
    call.document["sets"] = [build_fate(fate) for fate in fates]
    going = [fate for fate in fates if not fate.decision.keep]
    _show_fates(call, fates)
    if only_plan:
        _finish(call, "planned")
        return
    if going and not yes:
        output.confirm(f"Remove {len(going)} backups and destroy their keys, for good?")
    removals = (_tell(call, each) for each in call.backend.expire_backups(config, fates))
    failed = [removal.error for removal in removals if removal.error is not None]
    if failed:
        raise join_errors(failed, f"{len(failed)} of {len(going)} backups were not removed")
    _finish(call, "expired")


def _show_fates(call: Call, fates: Sequence[Fate]) -> None:
    if call.as_json:
        return
    rows = [_format_fate(fate) for fate in fates]
    header = ("backup_id", "repository", "ended", "", "why")
    click.echo(output.format_table(header, rows) if rows else "no backups")


def _tell(call: Call, removal: Removal) -> Removal:
    """Tell what came of a removal, and note it for the document."""
    stored = removal.fate.stored
    for entry in call.document["sets"]:
        if (entry["backup_id"], entry["repository"]) == (stored.report.name, stored.repository):
            entry["removed"] = removal.error is None
            entry["error"] = removal.error and removal.error.as_json()
    if not call.as_json:
        gone = "removed" if removal.kept_keys else "removed, its keys destroyed"
        said = f"stays: {removal.error.message}" if removal.error else gone
        click.echo(f"{stored.report.name}: {said}")
    return removal


def _finish(call: Call, status: str) -> None:
    if call.as_json:
        output.print_document({**call.document, "status": status, "error": None})


def build_fate(fate: Fate) -> dict[str, Any]:
    """Return what becomes of a set."""
    manifest = fate.stored.report.manifest
    return {
        "backup_id": fate.stored.report.name,
        "repository": fate.stored.repository,
        "host": fate.decision.host,
        "ended_at": manifest and manifest.ended_at,
        "keep": fate.decision.keep,
        "reasons": list(fate.decision.reasons),
        "removed": False,
        "error": None,
    }


def _format_fate(fate: Fate) -> tuple[str, ...]:
    manifest = fate.stored.report.manifest
    return (
        _show_name(fate.stored.report.name),
        fate.stored.repository,
        manifest.ended_at if manifest else "",
        "stays" if fate.decision.keep else "goes",
        "; ".join(fate.decision.reasons),
    )


def build_item(stored: StoredSet) -> dict[str, Any]:
    """Return what the list says of a folder; what only a manifest knows is null without one."""
    report, manifest = stored.report, stored.report.manifest
    return {
        "backup_id": report.name,
        "repository": stored.repository,
        "host": stored.host or None,
        "state": report.state.value,
        "keys": {
            "state": stored.keys.state,
            "destroyed_at": stored.keys.destroyed_at or None,
            "destroyed_by": stored.keys.destroyed_by or None,
        },
        "kind": manifest and manifest.kind,
        "base_backup_id": (manifest.base_backup_id or None) if manifest else None,
        "flavor": manifest and manifest.flavor,
        "server_version": manifest and manifest.server_version,
        "began_at": manifest and manifest.began_at,
        "ended_at": manifest and manifest.ended_at,
        "stored_bytes": manifest and manifest.stored_bytes,
        "stream_bytes": manifest and manifest.stream_bytes,
        "parts": len(manifest.parts) if manifest else None,
        "problems": list(report.problems),
    }


def build_verdict(verdict: Verdict) -> dict[str, Any]:
    """Return what came of verifying a set."""
    return {
        "backup_id": verdict.stored.report.name,
        "repository": verdict.stored.repository,
        "ok": verdict.error is None,
        "checks": [models.as_json(check) for check in verdict.checks],
        "seconds": verdict.seconds,
        "error": verdict.error and verdict.error.as_json(),
    }


def _choose_error(verdicts: Sequence[Verdict]) -> OrchestratorError | None:
    """Return what the command ends with: a set that is not whole, then one without its keys."""
    errors = [verdict.error for verdict in verdicts if verdict.error is not None]
    errors.sort(key=lambda error: not isinstance(error, VerificationError))
    if not errors:
        return None
    return join_errors(errors, f"{len(errors)} of {len(verdicts)} backup sets are not verified")


def join_errors(errors: Sequence[OrchestratorError], message: str) -> OrchestratorError:
    """Return several errors as one, of the kind of the first; one tells itself."""
    if len(errors) == 1:
        return errors[0]
    return type(errors[0])(
        message,
        hint="each has its own hint above, or in the document",
        problems=[error.message for error in errors],
    )


def _make_talker(call: Call) -> Callable[[Progress], None]:
    """Return what says on stderr how far a verification is, every now and then."""
    last = time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal last
        if call.as_json or time.monotonic() - last < SAY_SECONDS:
            return
        last = time.monotonic()
        done, total = (
            output.format_bytes(size) for size in (progress.bytes, progress.expected_bytes)
        )
        output.talk(f"{progress.backup_id}: {done} of {total} {_WORDS[progress.doing]}")

    return say


def _format_row(stored: StoredSet) -> tuple[str, ...]:
    manifest = stored.report.manifest
    return (
        _show_name(stored.report.name),
        stored.repository,
        stored.report.state.value,
        stored.keys.state,
        manifest.kind if manifest else "",
        manifest.ended_at if manifest else "",
        output.format_bytes(manifest.stored_bytes) if manifest else "",
    )


def _show_name(name: str) -> str:
    """Return the name of a folder; whoever can write there has chosen it."""
    return name if name.isprintable() and name.strip() == name else repr(name)


def _format_set(stored: StoredSet) -> Iterator[str]:
    report = stored.report
    yield f"backup_id: {_show_name(report.name)}"
    yield f"repository: {stored.repository}"
    yield f"state: {report.state.value}"
    yield from (f"  {problem}" for problem in report.problems)
    yield f"keys: {stored.keys.shown}"
    if report.manifest:
        yield from _format_manifest(report.manifest)


def _format_manifest(manifest: Manifest) -> Iterator[str]:
    place = manifest.coordinates
    based = f", builds on {manifest.base_backup_id}" if manifest.base_backup_id else ""
    yield f"host: {manifest.host}, {manifest.flavor} {manifest.server_version}"
    yield f"kind: {manifest.kind}{based}, LSN {manifest.from_lsn} to {manifest.to_lsn}"
    yield f"began: {manifest.began_at}"
    yield f"ended: {manifest.ended_at}"
    if place:
        gtid = f", GTID {place.gtid}" if place.gtid else ""
        yield f"coordinates: {place.file}:{place.position}{gtid}"
    yield f"tool: {manifest.tool_version}, compression {manifest.compress}"
    yield (
        f"stored: {output.format_bytes(manifest.stored_bytes)} in {len(manifest.parts)} parts of "
        f"{output.format_bytes(manifest.part_bytes)}, of a stream of "
        f"{output.format_bytes(manifest.stream_bytes)}"
    )
    yield f"data on the host: {output.format_bytes(manifest.data_bytes)}"
    yield f"encrypted server: {'yes' if manifest.has_keyring else 'no'}"
    yield f"age recipient: {manifest.age_recipient}"
    yield f"keys in Vault: {manifest.key_path}"
    if manifest.checksums:
        yield f"tables summed up: {len(manifest.checksums)}"
    if manifest.checks:
        yield ""
        yield output.format_checks(manifest.checks)


def _format_verdict(verdict: Verdict) -> Iterator[str]:
    stored = verdict.stored
    name = f"{_show_name(stored.report.name)} in {stored.repository}"
    word = "not verified" if verdict.error else "verified"
    yield f"{name}: {word}, in {output.format_seconds(verdict.seconds)}"
    if verdict.checks:
        yield output.format_checks(verdict.checks)
    if verdict.error:
        yield f"✗ {verdict.error.message}"
