"""``xbvault schedule backup | binlogs | expire | drill``: prints what makes a command run by itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call
from orchestrator.cli.options import MOST_REPLICATE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.config import Config
    from orchestrator.schedule import Calendar, File, Job

F = TypeVar("F", bound="Callable[..., Any]")

DEFAULT_TIME = "02:00"
EVERY_FIVE_MINUTES = "*:0/5"
SHORT_DELAY = "10s"
"""For what runs every few minutes."""
_OPTIONS = (
    click.option(
        "--at",
        metavar="CALENDAR",
        help="When, as systemd's OnCalendar has it, such as '*-*-* 02:00:00' or 'Mon..Fri 02:30'.",
    ),
    click.option("--daily", metavar="TIME", help=f"Each day at this time; else at {DEFAULT_TIME}."),
    click.option("--weekly", metavar="'DAY TIME'", help="Once a week, such as 'Sun 02:00'."),
    click.option(
        "--user", metavar="ACCOUNT", default="", help="Account that it runs as; else yours."
    ),
    click.option(
        "--format",
        "kind",
        type=click.Choice(["systemd", "cron", "both"]),
        default="both",
        show_default=True,
        help="What to print.",
    ),
)


@click.group()
def schedule() -> None:
    """Print what makes a command run by itself; nothing is installed."""


def schedule_options(command: F) -> F:
    """Give a command the options that say when, as whom, and in which form."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@schedule.command()
@click.argument("host")
@click.option(
    "--to",
    "repository",
    metavar="REPOSITORY",
    default="",
    help="Where to store it; needed where several repositories are configured.",
)
@click.option("--incremental", is_flag=True, help="What has changed since the newest backup alone.")
@click.option(
    "--checksums",
    type=click.Choice(["all", "sample", "none"]),
    help="InnoDB tables summed up for a drill to compare; else clone.backup_checksums.",
)
@schedule_options
@json_option
@pass_call
def backup(
    call: Call,
    /,
    host: str,
    *,
    repository: str,
    incremental: bool,
    checksums: str | None,
    **options: Any,
) -> None:
    """Print a systemd service and timer, and a line for cron, that back HOST up."""
    config = call.load_config()
    config.host(host)
    repository = config.find_repository(repository)
    kind = "incremental" if incremental else "backup"
    word = " what has changed on" if incremental else ""
    more = (
        *(("--incremental",) if incremental else ()),
        *(("--checksums", checksums) if checksums else ()),
    )
    _show(
        call,
        config,
        name=f"xbvault-{kind}-{host}-to-{repository}",
        description=f"Back up{word} {host} to {repository}",
        arguments=("backup", host, "--to", repository, *more, "--yes", "--json"),
        **options,
    )


@schedule.command()
@click.argument("host")
@click.option(
    "--to",
    "repository",
    metavar="REPOSITORY",
    default="",
    help="Where to store them; needed where several repositories are configured.",
)
@schedule_options
@json_option
@pass_call
def binlogs(call: Call, /, host: str, *, repository: str, **options: Any) -> None:
    """Print the same for the archive of HOST's binary logs: every five minutes, if not told when."""
    config = call.load_config()
    config.host(host)
    repository = config.find_repository(repository)
    if all(options[name] is None for name in ("at", "daily", "weekly")):
        options["at"] = EVERY_FIVE_MINUTES
    _show(
        call,
        config,
        name=f"xbvault-binlogs-{host}-to-{repository}",
        description=f"Archive the binary logs of {host} in {repository}",
        arguments=("binlogs", "archive", host, "--to", repository, "--yes", "--json"),
        delay=SHORT_DELAY,
        **options,
    )


@schedule.command()
@click.argument("backup")
@click.argument("host")
@click.option(
    "--from",
    "repository",
    metavar="REPOSITORY",
    default="",
    help="Where the backup is; else wherever it is.",
)
@click.option(
    "--replicate",
    type=click.IntRange(1, MOST_REPLICATE_SECONDS),
    metavar="SECONDS",
    help="Follow the live host for so long, once all else is proved.",
)
@schedule_options
@json_option
@pass_call
def drill(
    call: Call,
    /,
    backup: str,
    host: str,
    *,
    repository: str,
    replicate: int | None,
    **options: Any,
) -> None:
    """Print the same for a drill of BACKUP (latest, or latest:DONOR) on the scratch host HOST."""
    config = call.load_config()
    config.host(host)
    word, _, donor = backup.partition(":")
    if word != "latest":
        raise click.UsageError(
            f"a schedule drills the newest backup each time: say latest or latest:DONOR, not {backup}"
        )
    if donor:
        config.host(donor)
    named = ("--from", config.find_repository(repository)) if repository else ()
    follows = ("--replicate", str(replicate)) if replicate else ()
    of = f" of {donor}" if donor else ""
    _show(
        call,
        config,
        name="-".join(filter(None, ("xbvault-drill", donor, "on", host))),
        description=f"Drill the newest backup{of} on {host}",
        arguments=("drill", backup, host, *named, *follows, "--yes", "--json"),
        **options,
    )


@schedule.command()
@click.option(
    "--repo", "repository", metavar="REPOSITORY", default="", help="Only in this repository."
)
@schedule_options
@json_option
@pass_call
def expire(call: Call, /, *, repository: str, **options: Any) -> None:
    """Print the same for the removal of backups that no retention keeps."""
    config = call.load_config()
    named = ("--repo", config.find_repository(repository)) if repository else ()
    where = f" in {repository}" if repository else ""
    _show(
        call,
        config,
        name="-".join(["xbvault-expire", *named[1:]]),
        description=f"Expire backups{where}",
        arguments=("backups", "expire", *named, "--yes", "--json"),
        **options,
    )


def _show(
    call: Call,
    config: Config,
    *,
    name: str,
    description: str,
    arguments: Sequence[str],
    delay: str = "",
    kind: str,
    user: str,
    **when: str | None,
) -> None:
    from orchestrator import schedule as schedules  # noqa: PLC0415 - dates cost start-up time

    moment = _choose_moment(**when)
    file = Path(call.backend.find_config(call.config_option)).absolute()
    job = schedules.Job(
        name=name,
        description=description,
        command=(*find_program(), "--config", str(file), *arguments),
        user=user or _find_user(),
        environment=_find_environment(config),
        delay=delay or schedules.RANDOM_DELAY,
    )
    units = schedules.render_units(job, moment) if kind != schedules.CRON else ()
    cron = schedules.render_cron(job, moment) if kind != schedules.SYSTEMD else None
    notes = list_notes(config)
    if call.as_json:
        output.print_document(_build_document(job, moment, units, cron, notes))
        return
    if units:
        _print_files(units)
        timer = Path(units[-1].path).name
        click.echo(f"\n# Then: systemctl daemon-reload; systemctl enable --now {timer}")
    if cron:
        click.echo("\n# Or, for cron:" if units else "# For cron:")
        _print_files((cron,))
    for note in notes:
        output.talk(f"note: {note}")


def find_program() -> tuple[str, ...]:
    """Return how this program is called from anywhere."""
    # links are not resolved: they are the more lasting names
    for candidate in (Path(sys.argv[0]).absolute(), Path(sys.executable).with_name("xbvault")):
        if candidate.name == "xbvault" and os.access(candidate, os.X_OK):
            return (str(candidate),)
    return (sys.executable, "-m", "orchestrator")


def list_notes(config: Config) -> list[str]:
    """Return what a run by itself would miss of what the person at the prompt has."""
    notes = []
    if not config.vault.address and os.environ.get("VAULT_ADDR"):
        notes.append("VAULT_ADDR is set here alone: write vault.address into the configuration")
    if not config.vault.ca_file and os.environ.get("VAULT_CACERT"):
        notes.append("VAULT_CACERT is set here alone: write vault.ca_file into the configuration")
    if not config.vault.namespace and os.environ.get("VAULT_NAMESPACE"):
        notes.append("VAULT_NAMESPACE is set here alone: write vault.namespace there as well")
    if not config.vault.token_file:
        notes.append("vault.token_file is not set: the account's own ~/.vault-token will be used")
    return notes


def _choose_moment(
    *, at: str | None = None, daily: str | None = None, weekly: str | None = None
) -> Calendar:
    from orchestrator import schedule as schedules  # noqa: PLC0415 - dates cost start-up time

    if sum(value is not None for value in (at, daily, weekly)) > 1:
        raise click.UsageError("give one of --at, --daily and --weekly")
    if at is not None:
        return schedules.parse_calendar(at)
    if weekly is not None:
        return schedules.parse_weekly(weekly)
    return schedules.parse_daily(DEFAULT_TIME if daily is None else daily)


def _find_user() -> str:
    import pwd  # noqa: PLC0415 - only for this command

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _find_environment(config: Config) -> tuple[tuple[str, str], ...]:
    """Return what makes the run find the same journal as the person who asks."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (("XDG_STATE_HOME", state),) if state and not config.journal.directory else ()


def _build_document(
    job: Job, moment: Calendar, units: Sequence[File], cron: File | None, notes: Sequence[str]
) -> dict[str, Any]:
    from orchestrator import models  # noqa: PLC0415 - only for a document

    return {
        "name": job.name,
        "command": list(job.command),
        "user": job.user,
        "calendar": moment.systemd,
        "units": models.as_json(units),
        "cron": models.as_json(cron),
        "notes": list(notes),
        "error": None,
    }


def _print_files(files: Sequence[File]) -> None:
    for index, file in enumerate(files):
        if index:
            click.echo("")
        click.echo(f"# {file.path}")
        click.echo(file.content.rstrip())
