"""HashiCorp Vault or OpenBao: the only package that imports hvac.

Only what both servers have is used. The token stands in a request header and nowhere else; an
error carries the path, the capability and Vault's own error texts, never the body of an answer.
Every exception of hvac and requests becomes a `SecretError`, and what may pass by itself (sealed,
standby, unreachable) is tried again here for a few seconds.
"""

from orchestrator.vault.client import Vault
from orchestrator.vault.kv import SecretMetadata, VersionInfo
from orchestrator.vault.mounts import MountInfo
from orchestrator.vault.server import Health
from orchestrator.vault.token_files import environment_token, write_token_file
from orchestrator.vault.tokens import TokenInfo

__all__ = [
    "Health",
    "MountInfo",
    "SecretMetadata",
    "TokenInfo",
    "Vault",
    "VersionInfo",
    "environment_token",
    "write_token_file",
]
