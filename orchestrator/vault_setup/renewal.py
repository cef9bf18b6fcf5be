"""Files for a host that renew its own Vault token each day: a script and a systemd timer."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.config import Config

RENEW_SCRIPT = "/usr/local/sbin/xbvault-renew-token"

_RENEW_SCRIPT = r"""#!/bin/sh
# Renews the Vault token of this host's database server; its key plugin never does.
# printf is a builtin: the token stands in no command line.
set -eu
file={file}
token=$(sed -n 's/^[[:space:]]*VAULT_TOKEN=//p' "$file" | tail -n 1 | tr -d "\"' \t\r")
if [ -z "$token" ]; then
    echo "{name}: no VAULT_TOKEN in $file" >&2
    exit 1
fi
printf 'header = "X-Vault-Token: %s"\n' "$token" |
    {curl}
"""

_RENEW_SERVICE = """\
[Unit]
Description=Renew the Vault token of the database server
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={name}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=yes
"""

_RENEW_TIMER = """\
[Unit]
Description=Renew the Vault token of the database server each day

[Timer]
OnBootSec=5min
OnCalendar=daily
RandomizedDelaySec=1h
Persistent=yes

[Install]
WantedBy=timers.target
"""


def render_renewal(config: Config, host: str, *, vault_address: str = "") -> dict[str, str]:
    """Return the files that renew a host's own token each day, by their paths on the host.

    The server's key plugin never renews its token. The script takes it from the file that the
    server has it from, and gives it to curl by stdin, so that it stands in no command line.

    Args:
        config: The whole configuration.
        host: Name of the host.
        vault_address: Vault as the host reaches it, where the configuration does not say.

    Raises:
        ConfigError: No such host, or nothing says where Vault is.
    """
    found = config.host(host)
    address = found.vault_address or config.vault.address or vault_address
    if not address:
        raise ConfigError("no Vault address", hint="set vault.address or VAULT_ADDR")
    curl = ["curl", "--config", "-", "--silent", "--show-error", "--fail", "--max-time", "30"]
    curl += ["--retry", "5", "--retry-connrefused", "--request", "POST", "--output", "/dev/null"]
    if found.vault_ca_file:
        curl += ["--cacert", found.vault_ca_file]
    if config.vault.namespace:
        curl += ["--header", f"X-Vault-Namespace: {config.vault.namespace}"]
    curl.append(f"{address.rstrip('/')}/v1/auth/token/renew-self")
    script = _RENEW_SCRIPT.format(
        file=shlex.quote(found.vault_env_file), curl=shlex.join(curl), name=RENEW_SCRIPT
    )
    return {
        RENEW_SCRIPT: script,
        "/etc/systemd/system/xbvault-renew-token.service": _RENEW_SERVICE.format(name=RENEW_SCRIPT),
        "/etc/systemd/system/xbvault-renew-token.timer": _RENEW_TIMER,
    }
