"""The sums of a donor's tables, as they stand on it until the manifest is written. No step."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Final

from orchestrator import models
from orchestrator.errors import VerificationError
from orchestrator.models import Coordinates  # noqa: TC001 - read at run time by from_json
from orchestrator.repository.manifest import TableChecksum  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from orchestrator.models import BackupPlan
    from orchestrator.steps.registry import Tools

NONE: Final = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sums:
    """What was summed up.

    Attributes:
        coordinates: Of the set.
        tables: The sums.
    """

    coordinates: Coordinates | None
    tables: tuple[TableChecksum, ...]


def keep_sums(
    tools: Tools,
    plan: BackupPlan,
    coordinates: Coordinates | None,
    tables: tuple[TableChecksum, ...],
) -> None:
    """Write the sums down on the donor, in the place of earlier ones."""
    tools.donor.run(["install", "-d", "-m", "0700", plan.run_dir])
    sums = Sums(coordinates=coordinates, tables=tables)
    tools.donor.write_file(_path(tools, plan), json.dumps(models.as_json(sums)))


def read_sums(
    tools: Tools, plan: BackupPlan, coordinates: Coordinates | None
) -> tuple[TableChecksum, ...]:
    """Return the sums for the manifest; none where none were asked for.

    Raises:
        VerificationError: They are not there, or are those of other coordinates.
    """
    if plan.checksums == NONE:
        return ()
    text = tools.donor.run(["cat", "--", _path(tools, plan)], check=False).text
    hint = f"`xbvault runs cancel {plan.run_id}`, and take another backup"
    try:
        sums = models.from_json(Sums, json.loads(text))
    except ValueError as error:
        raise VerificationError(
            "the sums of the tables are not there any more, or cannot be read",
            host=plan.donor,
            hint=hint,
        ) from error
    if sums.coordinates != coordinates:
        raise VerificationError(
            "the tables were summed up for other coordinates than those of the set",
            host=plan.donor,
            hint=hint,
        )
    return sums.tables


def _path(tools: Tools, plan: BackupPlan) -> str:
    """Return the file on the donor; a return to the stream takes another one."""
    return f"{plan.run_dir}/checksums.{tools.attempt}.json"
