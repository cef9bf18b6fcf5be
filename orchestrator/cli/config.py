"""``xbvault config check | example``."""

from __future__ import annotations

import inspect
import json
import typing
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

EXAMPLE_HOSTS = ("master", "replica")
EXAMPLE_REPOSITORY = "store"
_EXAMPLES: dict[str, Any] = {"ssh_port": 22}
"""Values shown for keys that have no default of their own."""


@click.group()
def config() -> None:
    """Check the configuration, or print an example of it."""


@config.command()
@json_option
@pass_call
def check(call: Call) -> None:
    """Check the configuration file; every problem is listed with its path."""
    path = call.backend.find_config(call.config_option)
    loaded = call.backend.load_config(path)
    hosts, repositories = sorted(loaded.hosts), sorted(loaded.repositories)
    if call.as_json:
        document = {"ok": True, "file": str(path), "hosts": hosts, "repositories": repositories}
        output.print_document(document)
    else:
        counts = [f"{len(hosts)} host{'s' if len(hosts) > 1 else ''}"]
        if repositories:
            counts.append(f"{len(repositories)} repositor{'ies' if len(repositories) > 1 else 'y'}")
        click.echo(f"ok: {path}, {', '.join(counts)}")


@config.command()
def example() -> None:
    """Print a configuration with every key, its default and what it means, as TOML."""
    click.echo("\n".join(build_example()))


def build_example() -> Iterator[str]:
    """Return the lines of the example; keys at their default are commented out."""
    from orchestrator.config import Config, HostConfig, RepositoryConfig  # noqa: PLC0415 - pydantic costs start-up

    yield "# xbvault.toml: no secret stands here, only paths of token files and mounts in Vault."
    for name, field in Config.model_fields.items():
        model: Any = field.annotation
        if name not in ("hosts", "repositories"):
            yield from _describe_model(name, model)
    for host in EXAMPLE_HOSTS:
        yield from _describe_model(f"hosts.{host}", HostConfig, {"vault_mount": f"keys/{host}"})
    path = {"path": "/srv/xbvault"}
    yield from _describe_model(f"repositories.{EXAMPLE_REPOSITORY}", RepositoryConfig, path)


def _describe_model(
    path: str, model: type[BaseModel], values: dict[str, Any] | None = None
) -> Iterator[str]:
    """Return a table of TOML; tables inside it come after its own keys, as TOML wants it."""
    yield ""
    yield from (f"# {line}" for line in inspect.cleandoc(model.__doc__ or "").splitlines() if line)
    yield f"[{path}]"
    tables: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if hasattr(kind, "model_fields"):
            tables.append((f"{path}.{name}", kind))
            continue
        given = (values or {}).get(name)
        value = _EXAMPLES.get(name, field.default) if given is None else given
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        yield f"# {field.description}" + (f" ({' | '.join(choices)})" if len(choices) > 1 else "")
        yield f"{'#' if given is None else ''}{name} = {json.dumps(value)}"
    for inner, kind in tables:
        yield from _describe_model(inner, kind)
