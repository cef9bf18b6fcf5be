"""``xbvault keys list | revoke | audit``."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from orchestrator import models
from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call, yes_option
from orchestrator.errors import ConfigError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.catalogue import StoredSet
    from orchestrator.disposal import Revocation
    from orchestrator.errors import OrchestratorError
    from orchestrator.key_uses import KeyUse, LastUse


NAMED = 3
"""Backups that an error names, of many."""


@click.group()
def keys() -> None:
    """List the keys of stored backups, destroy them, and find out who has read them."""


@keys.command("list")
@click.option("--host", metavar="HOST", default="", help="Only keys of backups of this host.")
@json_option
@pass_call
def list_(call: Call, host: str) -> None:
    """List the keys of stored backups: whether they can be read, who used them last, who destroyed them.

    Who used them last is told by Vault's audit log where `vault.audit_file` names it, else by what
    xbvault has noted of its own reads on this machine. Keys older than `vault.key_days` are warned
    about.
    """
    failed: list[OrchestratorError] = []
    config = call.load_config()
    found = call.backend.list_backups(config, "", host, failed)
    listed = [stored for stored in found if stored.report.manifest]
    if failed:
        raise failed[0]
    uses, now = call.backend.read_last_uses(config), dt.datetime.now(dt.UTC)
    items = [
        build_listed_keys(stored, uses.get(stored.report.name), config.vault.key_days, now)
        for stored in listed
    ]
    old = [item["backup_id"] for item in items if item["is_old"]]
    if call.as_json:
        output.print_document(items)
    else:
        rows = [_format_row(item) for item in items]
        header = ("backup_id", "keys", "made", "days", "last use", "by", "destroyed", "by", "why")
        click.echo(output.format_table(header, rows) if rows else "no backups")
    if old:
        output.talk(
            f"warning: the keys of {len(old)} backups are older than {config.vault.key_days} days: "
            f"{', '.join(old[:NAMED])}{' and others' if len(old) > NAMED else ''}; expire or revoke "
            "what is not needed any more"
        )


def _format_row(item: dict[str, Any]) -> tuple[str, ...]:
    names = ("backup_id", "state", "created_at", "age_days", "last_used_at", "last_used_by")
    ends = ("destroyed_at", "destroyed_by", "reason")
    return tuple("" if item[name] is None else str(item[name]) for name in (*names, *ends))


def build_listed_keys(
    stored: StoredSet, use: LastUse | None, key_days: int, now: dt.datetime
) -> dict[str, Any]:
    """Return what is known of the keys of a set, with their age in days and their last use.

    Args:
        stored: The set.
        use: When they were given out last; None if nobody knows of any use.
        key_days: From how many days on they are old; 0 for never.
        now: The moment that it is.
    """
    keys = build_keys(stored)
    age = None
    if stored.keys.created_at:
        age = (now - dt.datetime.fromisoformat(stored.keys.created_at)).days
    alive = stored.keys.state == "active"
    return {
        **keys,
        "age_days": age,
        "is_old": bool(alive and key_days and age is not None and age >= key_days),
        "last_used_at": use.at if use else None,
        "last_used_by": use.by if use else None,
    }


@keys.command()
@click.argument("backup", required=False, default="")
@click.option("--host", metavar="HOST", default="", help="All backups of this host instead.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for the record in Vault.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be destroyed, and end.")
@json_option
@yes_option
@pass_call
def revoke(call: Call, backup: str, *, host: str, reason: str, only_plan: bool, yes: bool) -> None:
    """Destroy the keys of BACKUP for good, and prove that nobody can read it any more.

    Transition key and identity go in every version; who did it, when and why stays on record. The
    set itself stays where it is, unreadable.
    """
    if bool(backup) == bool(host):
        raise click.UsageError("name a backup, or give --host")
    call.document = {"status": "failed", "sets": [], "dependents": []}
    config = call.load_config()
    if not only_plan:
        output.require_consent(call, yes=yes)
    failed: list[OrchestratorError] = []
    found = call.backend.choose_revoked(config, backup, host, failed)
    chosen = found.sets
    if not chosen and failed:
        raise failed[0]
    if not chosen:
        raise ConfigError(f"no backups of {host}", hint="`xbvault backups list` shows them")
    call.document["dependents"] = list(found.dependents)
    told = [*map(_describe, chosen), *_describe_dependents(found.dependents)]
    if only_plan:
        call.document["sets"] = [build_keys(stored) for stored in chosen]
        _finish(call, "planned", told)
        return
    if not yes:
        output.talk("\n".join(told))
        output.confirm(f"Make {len(chosen)} backups unreadable for everybody, for good?")
    revoked = [_tell(call, each) for each in call.backend.revoke_keys(config, chosen, reason)]
    doubtful = [check for each in revoked for check in each.checks if not check.ok]
    if doubtful:
        raise VerificationError(
            f"not proved that nobody can read it, {doubtful[0].name}: {doubtful[0].evidence}",
            host=doubtful[0].host,
            hint="its keys are destroyed; revoke it again when its repository can be read, or "
            "remove it there by hand",
        )
    if failed and (host or not all(each.repository for each in chosen)):
        raise failed[0]  # there may be more of them, which nobody has seen
    _finish(call, "revoked", ())


@keys.command()
@click.argument("backup", required=False, default="")
@click.option("--host", metavar="HOST", default="", help="Only keys of backups and clones of HOST.")
@click.option(
    "--file",
    "files",
    metavar="FILE",
    multiple=True,
    help="Vault's audit log, plain or gzipped; may be given several times. Else vault.audit_file.",
)
@click.option(
    "--since",
    metavar="DATE",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")),
    help="Only from this moment on, in UTC, such as 2026-11-22 or 2026-11-22T20:00:00.",
)
@json_option
@pass_call
def audit(
    call: Call, backup: str, *, host: str, files: tuple[str, ...], since: dt.datetime | None
) -> None:
    """Find out from Vault's audit log who has read the keys of BACKUP, or of all.

    A read that is not one of xbvault's on this machine is pointed out, and ends the command with
    exit status 6.
    """
    call.document = {"status": "failed", "files": [], "uses": []}
    config = call.load_config()
    named = files or tuple(filter(None, (config.vault.audit_file,)))
    if not named:
        raise ConfigError(
            "no audit log of Vault is named",
            hint="give --file, or set audit_file below [vault] in xbvault.toml",
        )
    call.document["files"] = list(named)
    moment = since.replace(tzinfo=dt.UTC) if since else None
    found = call.backend.read_key_uses(config, named, moment, backup, host)
    call.document["uses"] = [build_use(use) for use in found]
    if not call.as_json:
        _show_uses(found)
    foreign = [use for use in found if use.is_foreign]
    if foreign:
        shown = sorted({use.backup_id for use in foreign})
        count = f"{len(foreign)} reads of keys were" if len(foreign) > 1 else "a read of keys was"
        raise VerificationError(
            f"{count} none of ours: {', '.join(shown[:NAMED])}"
            + (" and others" if len(shown) > NAMED else ""),
            hint="who was it? `xbvault keys revoke` ends the use of a backup's keys",
        )
    if call.as_json:
        output.print_document({**call.document, "status": "clean", "error": None})


def _show_uses(found: Sequence[KeyUse]) -> None:
    header = ("at", "backup_id", "user", "address", "read", "by")
    rows = [
        (
            use.at.isoformat(timespec="seconds"),
            use.backup_id,
            use.user,
            use.address,
            "yes" if use.was_read else "refused",
            use.run_id or ("xbvault" if use.is_ours else "SOMEBODY ELSE"),
        )
        for use in found
    ]
    click.echo(output.format_table(header, rows) if rows else "no reads")


def build_use(use: KeyUse) -> dict[str, Any]:
    """Return one attempt to read keys."""
    return {
        "at": use.at.isoformat(),
        "backup_id": use.backup_id,
        "user": use.user,
        "policies": list(use.policies),
        "address": use.address,
        "request": use.request,
        "was_read": use.was_read,
        "is_ours": use.is_ours,
        "run_id": use.run_id or None,
    }


def _describe(stored: StoredSet) -> str:
    where = f" in {stored.repository}" if stored.repository else ""
    return f"{stored.report.name}{where}: keys {stored.keys.shown}"


def _tell(call: Call, revocation: Revocation) -> Revocation:
    """Tell what came of a revocation, and note it for the document."""
    call.document["sets"].append(build_revocation(revocation))
    if not call.as_json:
        said = "keys destroyed" if revocation.is_new else "keys were destroyed before"
        click.echo(f"{revocation.stored.report.name}: {said}")
        click.echo(output.format_checks(revocation.checks))
    return revocation


def _describe_dependents(names: Sequence[str]) -> Iterator[str]:
    """Yield a line about what builds on keys that go, if anything does."""
    if names:
        yield f"cannot be restored without that any more: {', '.join(names)}"


def _finish(call: Call, status: str, lines: Sequence[str]) -> None:
    if call.as_json:
        output.print_document({**call.document, "status": status, "error": None})
        return
    for line in lines:
        click.echo(line)


def build_keys(stored: StoredSet) -> dict[str, Any]:
    """Return what is known of the keys of a set."""
    found = stored.keys
    return {
        "backup_id": stored.report.name,
        "repository": stored.repository or None,
        "host": stored.host,
        "state": found.state,
        "created_at": found.created_at or None,
        "destroyed_at": found.destroyed_at or None,
        "destroyed_by": found.destroyed_by or None,
        "reason": found.reason or None,
        "proved_at": found.proved_at or None,
    }


def build_revocation(revocation: Revocation) -> dict[str, Any]:
    """Return what came of destroying the keys of a set."""
    return {
        **build_keys(revocation.stored),
        "is_new": revocation.is_new,
        "checks": [models.as_json(check) for check in revocation.checks],
    }
