"""The server's environment, as it is given to systemd."""

from __future__ import annotations

from fake_remote import FakeRemote

from orchestrator import service
from orchestrator.config import HostConfig, ServiceConfig


def test_a_percent_sign_is_no_specifier() -> None:
    """In a unit, systemd would put its own words for ``%h`` and the like."""
    remote = FakeRemote()
    for command in ("install", "systemctl"):
        remote.answer(command)
    path = "/run/it's %h #1/server.env"
    host = HostConfig(vault_mount="k", service=ServiceConfig(environment_file=path))
    service.give_environment(remote, host, "/run/token.env")
    drop_in = remote.files["/run/systemd/system/mariadb.service.d/xbvault.conf"].decode()
    assert drop_in == "[Service]\nEnvironmentFile=-/run/it's %%h #1/server.env\n"
    assert remote.ran("install", "-D")[0].argv[-1] == path
