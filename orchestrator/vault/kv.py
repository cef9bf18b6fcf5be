"""Secrets in KV version 2, their versions and metadata; and the names of those in version 1."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.errors import SecretError, VerificationError
from orchestrator.models import Secret
from orchestrator.numerals import parse_whole
from orchestrator.vault.answers import (
    take_moment,
    take_part,
    take_table,
    take_text,
    take_whole,
    take_words,
)
from orchestrator.vault.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionInfo:
    """One version of a secret in KV version 2.

    Attributes:
        created_at: When it was written.
        destroyed: Its value is gone for good.
        deleted: Its value is hidden.
    """

    created_at: datetime
    destroyed: bool
    deleted: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecretMetadata:
    """What KV version 2 keeps about a secret.

    Attributes:
        current_version: Newest version; 0 if nothing was ever written.
        versions: The versions that are still listed.
        custom: Our own notes on it.
        max_versions: Versions kept of this secret; 0 = as the mount says.
    """

    current_version: int
    versions: dict[int, VersionInfo]
    custom: dict[str, str]
    max_versions: int


class Secrets(Connection):
    """Requests about secrets."""

    def read_secret(
        self,
        mount: str,
        path: str,
        *,
        version: int | None = None,
        plain: Collection[str] = (),
    ) -> dict[str, Secret] | None:
        """Return a secret's fields; None if it is not there, deleted or destroyed.

        Args:
            mount: Of KV version 2.
            path: Below it.
            version: Which one; the newest by default.
            plain: Fields that stand beside what is secret, and are not blotted out elsewhere.
        """
        query = {"version": str(version)} if version else None
        answer = self._find("get", f"{mount}/data/{path}", query=query)
        part = take_part(answer, "data") if answer else {}
        if part.get("data") is None:
            return None
        if self._witness and answer:
            self._witness(take_text(answer, "request_id"), f"{mount}/data/{path}")
        texts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in take_table(part, "data").items()
        }
        return {
            name: Secret.join(text) if name in plain else Secret(text)
            for name, text in texts.items()
        }

    def write_secret(
        self, mount: str, path: str, data: Mapping[str, str | Secret], *, cas: int
    ) -> int:
        """Write a new version of a secret and return its number.

        Args:
            mount: A KV version 2 mount.
            path: Name of the secret.
            data: Its fields.
            cas: Newest version that is there now; 0: there is none yet.

        Raises:
            SecretError: Another version is the newest, so nothing was written.
        """
        clear = {k: v.reveal() if isinstance(v, Secret) else v for k, v in data.items()}
        answer = self._call(
            "post",
            f"{mount}/data/{path}",
            body={"options": {"cas": cas}, "data": clear},
            capability="create" if cas == 0 else "update",
            repeatable=False,
        )
        return take_whole(take_part(answer, "data"), "version")

    def read_metadata(self, mount: str, path: str) -> SecretMetadata | None:
        """Return what is kept about a secret; None if it is not there."""
        answer = self._find("get", f"{mount}/metadata/{path}")
        if answer is None:
            return None
        data = take_part(answer, "data")
        now = datetime.now(UTC)
        listed = take_table(data, "versions")
        versions = {}
        for number in listed:
            found = take_part(listed, number)
            deleted_at = take_moment(found, "deletion_time")
            versions[_take_version(number)] = VersionInfo(
                created_at=take_moment(found, "created_time") or datetime.fromtimestamp(0, UTC),
                destroyed=bool(found.get("destroyed")),
                deleted=deleted_at is not None and deleted_at <= now,
            )
        notes = take_table(data, "custom_metadata")
        return SecretMetadata(
            current_version=take_whole(data, "current_version"),
            versions=versions,
            custom={name: take_text(notes, name) for name in notes},
            max_versions=take_whole(data, "max_versions"),
        )

    def write_custom_metadata(self, mount: str, path: str, custom: Mapping[str, str]) -> None:
        """Replace our own notes on a secret."""
        self._call("post", f"{mount}/metadata/{path}", body={"custom_metadata": dict(custom)})

    def list_secrets(self, mount: str, path: str = "", *, kv_version: int = 2) -> tuple[str, ...]:
        """Return the names below a path; those that end in ``/`` have names below them.

        Args:
            mount: A KV mount.
            path: Below it; empty for the mount itself.
            kv_version: Of the mount.
        """
        base = mount if kv_version == 1 else f"{mount}/metadata"
        answer = self._find("list", f"{base}/{path}".rstrip("/"))
        return take_words(take_part(answer, "data"), "keys") if answer else ()

    def destroy_versions(self, mount: str, path: str, versions: Sequence[int]) -> None:
        """Destroy the values of versions for good; the metadata stays."""
        if versions:
            body = {"versions": [int(v) for v in versions]}
            self._call("post", f"{mount}/destroy/{path}", body=body)

    def remove_secret(self, mount: str, path: str, *, kv_version: int = 2) -> None:
        """Remove a secret, all its versions and its metadata; nothing there is as good."""
        base = mount if kv_version == 1 else f"{mount}/metadata"
        self._call("delete", f"{base}/{path}")


def _take_version(number: str) -> int:
    try:
        return parse_whole(number)
    except VerificationError as error:
        raise SecretError(f"Vault lists a version that is none: {error.message}") from error
