"""Secrets engines and the paths that they are enabled at."""

from __future__ import annotations

import dataclasses

from orchestrator.errors import SecretError
from orchestrator.vault.answers import Answer, take_part, take_table, take_text, take_whole
from orchestrator.vault.connection import Connection


@dataclasses.dataclass(frozen=True, kw_only=True)
class MountInfo:
    """A secrets engine at its mount.

    Attributes:
        type: Kind of engine, such as ``kv`` or ``ssh``.
        version: Of KV, 1 or 2; 0 for other engines.
        description: What was written when it was enabled.
    """

    type: str
    version: int
    description: str


class Mounts(Connection):
    """Requests about mounts."""

    def list_mounts(self) -> dict[str, MountInfo]:
        """Return every secrets engine by its mount, without the slash at the end."""
        data = take_part(self._call("get", "sys/mounts"), "data")
        return {path.rstrip("/"): _mount_info(take_part(data, path)) for path in data}

    def has_mount(self, path: str) -> bool:
        """Tell whether a secrets engine is enabled at exactly this path."""
        return path in self.list_mounts()

    def read_kv_version(self, mount: str) -> int:
        """Return the version of the KV engine at a mount; any right on the mount is enough.

        Raises:
            SecretError: There is no mount, we have no right on it, or it is no KV engine.
        """
        data = take_part(self._call("get", f"sys/internal/ui/mounts/{mount}"), "data")
        if take_text(data, "path").strip("/") != mount or data.get("type") != "kv":
            raise SecretError(f"{mount} in Vault is no KV engine but {data.get('type')!r}")
        return _kv_version(data)

    def create_kv_mount(
        self, path: str, *, version: int = 2, description: str = "", max_versions: int = 0
    ) -> None:
        """Enable the KV engine at a path, and wait until it can be used.

        Args:
            path: The new mount.
            version: Of the engine.
            description: Shown in lists of mounts.
            max_versions: Versions that it keeps of a secret; 0 for Vault's default. Version 1
                keeps none.
        """
        body = {"type": "kv", "description": description, "options": {"version": str(version)}}
        self._call("post", f"sys/mounts/{path}", body=body, repeatable=False)
        if version == 1:
            return
        # For a moment it says "Upgrading from non-versioned…", which `_call` waits out.
        self.read_mount_config(path)
        if max_versions:
            self.write_mount_config(path, max_versions=max_versions)

    def create_ssh_mount(self, path: str, *, description: str = "") -> None:
        """Enable the SSH engine at a path."""
        body = {"type": "ssh", "description": description}
        self._call("post", f"sys/mounts/{path}", body=body, repeatable=False)

    def remove_mount(self, path: str) -> None:
        """Disable a secrets engine with all that it holds; nothing there is as good."""
        self._call("delete", f"sys/mounts/{path}")

    def read_mount_config(self, mount: str) -> int:
        """Return how many versions of a secret a mount keeps; 0 is Vault's default of 10."""
        return take_whole(take_part(self._call("get", f"{mount}/config"), "data"), "max_versions")

    def write_mount_config(self, mount: str, *, max_versions: int) -> None:
        """Set how many versions of a secret a mount keeps."""
        self._call("post", f"{mount}/config", body={"max_versions": max_versions})


def _mount_info(found: Answer) -> MountInfo:
    return MountInfo(
        type=take_text(found, "type"),
        version=_kv_version(found),
        description=take_text(found, "description"),
    )


def _kv_version(found: Answer) -> int:
    if found.get("type") != "kv":
        return 0
    return take_whole(take_table(found, "options"), "version") or 1
