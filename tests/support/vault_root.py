"""What an administrator of a lab's Vault does past the product, with the root token.

The lab keeps the root token in its own folder, outside of every host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab import bao
from lab.errors import LabError
from lab.model import load

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class VaultRoot:
    """The Vault of a lab, in the hands of its administrator.

    Args:
        directory: The lab's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._lab = load(directory)

    def read_policy(self, name: str) -> str:
        """Return a policy's text."""
        return str(self._request("GET", f"sys/policies/acl/{name}")["data"]["policy"])

    def write_policy(self, name: str, text: str) -> None:
        """Replace a policy."""
        self._request("PUT", f"sys/policies/acl/{name}", {"policy": text})

    def read_capabilities(self, token: str, path: str) -> list[str]:
        """Return what a token may do at a path, ``deny`` for nothing."""
        answer = self._request("POST", "sys/capabilities", {"token": token, "paths": [path]})
        return [str(capability) for capability in answer["data"][path]]

    def list_mounts(self, prefix: str = "") -> list[str]:
        """Return the paths of the mounts that begin so, without the last slash."""
        names = (name.rstrip("/") for name in self._request("GET", "sys/mounts")["data"])
        return sorted(name for name in names if name.startswith(prefix))

    def remove_mount(self, mount: str) -> None:
        """Disable a mount, with all that is in it."""
        self._request("DELETE", f"sys/mounts/{mount}")

    def list_secrets(self, mount: str, path: str = "") -> list[str]:
        """Return the names below a path of a KV version 2 mount; none if there is nothing."""
        try:
            answer = self._request("GET", f"{mount}/metadata/{path}?list=true")
        except LabError as error:
            if " 404 " in error.message:
                return []
            raise
        return sorted(answer["data"]["keys"])

    def read_metadata(self, mount: str, path: str) -> dict[str, Any]:
        """Return a secret's metadata."""
        found: dict[str, Any] = self._request("GET", f"{mount}/metadata/{path}")["data"]
        return found

    def live_versions(self, mount: str, path: str) -> list[int]:
        """Return the versions of a secret that can still be read."""
        versions = self.read_metadata(mount, path)["versions"]
        return sorted(
            int(number)
            for number, version in versions.items()
            if not version["destroyed"] and not version["deletion_time"]
        )

    def read_secret(self, mount: str, path: str, version: int = 0) -> dict[str, str]:
        """Return a version of a secret, the newest by default."""
        answer = self._request("GET", f"{mount}/data/{path}?version={version}")
        found: dict[str, str] = answer["data"]["data"]
        return found

    def write_secret(self, mount: str, path: str, data: dict[str, str]) -> None:
        """Write one more version of a secret."""
        self._request("POST", f"{mount}/data/{path}", {"data": data})

    def destroy_versions(self, mount: str, path: str, versions: Iterable[int]) -> None:
        """Destroy versions of a secret for good."""
        self._request("PUT", f"{mount}/destroy/{path}", {"versions": list(versions)})

    def _request(
        self, method: str, path: str, document: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return bao.request(self._lab, method, path, document, token=bao.root_token(self._lab))
