"""``xbvault metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call
from orchestrator.errors import ConfigError, OrchestratorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.metrics import Sample


@click.command()
@click.option(
    "--write", is_flag=True, help="Write the files of metrics.textfile, and print no metrics."
)
@click.option("--print", "only_print", is_flag=True, help="Print them, as without any option.")
@json_option
@pass_call
def metrics(call: Call, *, write: bool, only_print: bool) -> None:
    """Tell Prometheus of backups and restores, from the journal and the repositories.

    A repository that cannot be read is told of as such, and ends the command with its error after
    the rest was printed or written.
    """
    if write and only_print:
        raise click.UsageError("give one of --write and --print")
    config = call.load_config()
    if write and not config.metrics.textfile:
        raise ConfigError(
            "no file for metrics is configured",
            hint='write textfile = "/var/lib/node_exporter/textfile/xbvault.prom" below [metrics]',
        )
    call.document = {"files": [], "samples": []}
    of_runs, stored, errors = call.backend.collect_metrics(config)
    samples = [*of_runs, *stored]
    call.document["samples"] = [_describe(sample) for sample in samples]
    if write:
        files = (
            call.backend.write_metrics(config),
            call.backend.write_stored_metrics(config, stored),
        )
        call.document["files"] = [str(file) for file in files if file]
    if not call.as_json:
        said = call.document["files"] if write else [call.backend.format_metrics(samples).rstrip()]
        click.echo("\n".join(said))
    if errors:
        raise _choose_error(errors)
    if call.as_json:
        status = "written" if write else "printed"
        output.print_document({"status": status, **call.document, "error": None})


def _describe(sample: Sample) -> dict[str, Any]:
    from orchestrator.metrics import find_labels  # noqa: PLC0415 - late, for the start-up

    name, labels, value = sample
    named = dict(zip(find_labels(name), labels, strict=True))
    return {"name": name, "labels": named, "value": float(value)}


def _choose_error(errors: Sequence[Exception]) -> Exception:
    """Return what the command ends with: the first error that is a fault of ours, else the first."""
    foreign = [error for error in errors if not isinstance(error, OrchestratorError)]
    return (foreign or errors)[0]
