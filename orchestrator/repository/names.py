"""Names and moments of a repository, which others can write to: taken strictly. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from orchestrator.errors import VerificationError

MANIFEST: Final = "manifest.json"
NEW_MANIFEST: Final = "manifest.json.new"
"""What is renamed to `MANIFEST` as the last act of a backup."""
EXPIRED_MANIFEST: Final = "manifest.expired"
"""What `MANIFEST` is renamed to as the first act of an expiry.

It is found again by a run that goes on with one. It proves nothing: whoever can write to the
repository can make it, so that no key may be destroyed on its word.
"""
DEPLOYMENT_PATH: Final = "backups/deployment"
"""In Vault, below the mount of our own records: the id of this deployment, and its manifests' key."""
MOST_PARTS: Final = 999_999

_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"
"""As the configuration takes it."""
_BACKUP_ID: Final = re.compile(rf"([0-9]{{8}}T[0-9]{{6}}Z)-({_HOST})-([0-9a-f]{{8}})")
_FILE: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_PART: Final = re.compile(r"part-[0-9]{6}\.age")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3})?Z"
)
_SHOWN: Final = 40


def is_backup_id(text: str) -> bool:
    """Return whether a text is a name of a backup set, and so fit for a folder and for Vault."""
    return bool(_BACKUP_ID.fullmatch(text))


def find_host(backup_id: str) -> str:
    """Return the host that a ``backup_id`` names; empty if it is none."""
    found = _BACKUP_ID.fullmatch(backup_id)
    return found.group(2) if found else ""


def name_part(number: int) -> str:
    """Return the name of a part of the stream, such as ``part-000001.age`` for the first."""
    if not 1 <= number <= MOST_PARTS:
        raise ValueError(f"a stream has 1 to {MOST_PARTS} parts")
    return f"part-{number:06}.age"


def is_extra_file(text: str) -> bool:
    """Return whether a set may have a file of that name beside its parts and its manifest."""
    is_ours = bool(_PART.fullmatch(text)) or text.startswith("manifest.")
    return bool(_FILE.fullmatch(text)) and not is_ours


def format_moment(moment: datetime) -> str:
    """Return a moment in ISO 8601, in UTC, to the millisecond.

    Raises:
        ValueError: It does not say its time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a moment says its time zone")
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def parse_moment(text: str) -> datetime:
    """Return the moment that a manifest names, in UTC.

    Raises:
        VerificationError: It is none, or not in the one form.
    """
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError as error:
        raise VerificationError(f"no moment: {text[:_SHOWN]!r}") from error
    raise VerificationError(f"no moment: {text[:_SHOWN]!r}")
