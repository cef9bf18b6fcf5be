"""MySQL set up as no package does it: every setting of a host that there is, and all of them odd.

Programs under other names in a directory off the path, data, keyring and sockets elsewhere, ports of
their own, one option file for everything, started by a shell that stays, and an account with a
password instead of root. The servers' usual places hold nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from mysql_lab import list_master_keys, mysql_lab
from replicas import check_arrival

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

TOOLS = "/opt/odd tools"
DATADIR = "/var/lib/odd/it's data"
KEYRINGS = {"master": "/var/lib/odd/keys of it/ring", "replica": f"{DATADIR}/ring"}
SOCKET = "/run/odd/db.sock"
ADMIN = "/etc/mysql/odd/admin.cnf"
OPTIONS = "/etc/mysql/odd/my server.cnf"
PASSWORD = 'p"a s;s %w#\\rd'
CLIENT = f"'{TOOLS}/cli' --defaults-extra-file={ADMIN} --socket={SOCKET}"
PORTS = {"master": 4407, "replica": 4408}
PROGRAMS = {
    "client": "cli",
    "server": "db-server",
    "backup": "xb tool",
    "stream": "xb-unpack",
    "print_defaults": "options",
}
TARGETS = {
    "cli": "/opt/mysql/bin/mysql",
    "db-server": "/opt/mysql/bin/mysqld",
    "xb tool": "/opt/simulators/xtrabackup",
    "xb-unpack": "/opt/simulators/xbstream",
    "options": "/opt/mysql/bin/my_print_defaults",
}
SERVICE = f"""\
#!/bin/sh
# Keeps the server as mysqld_safe does: a shell stays its parent, and starts it again after a crash.
set -eu
alive() {{ /opt/mysql/bin/mysqladmin --no-defaults --socket={SOCKET} ping >/dev/null 2>&1; }}
case $1 in
start)
    install -d -o mysql -g mysql /run/odd
    setsid "$0" serve </dev/null >>/var/log/mysql/safe.log 2>&1 &
    tries=0
    until alive; do
        tries=$((tries + 1))
        [ "$tries" -lt 900 ] || exit 1
        sleep 0.1
    done
    ;;
serve)
    status=1
    until [ "$status" = 0 ]; do
        status=0
        setpriv --reuid=mysql --regid=mysql --init-groups \\
            '{TOOLS}/db-server' '--defaults-file={OPTIONS}' || status=$?
        [ "$status" = 0 ] || sleep 1
    done
    ;;
stop)
    [ -s /run/odd/db.pid ] || exit 0
    read -r pid </run/odd/db.pid
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    ;;
esac
"""
MAKE_ODD = f"""
set -eu
mkdir -p '{TOOLS}' /etc/mysql/odd/conf.d
install -d -o mysql -g mysql /var/lib/odd
rm /usr/local/sbin/my* /usr/local/sbin/xtrabackup /usr/local/sbin/xbstream
mv /etc/mysql/mysql.conf.d/*.cnf /etc/mysql/odd/conf.d
rm -r /etc/mysql/my.cnf /etc/mysql/mysql.conf.d /etc/mysql/conf.d
sed -i -e "s|^datadir = .*|datadir = {DATADIR}|" -e 's|/run/mysqld/mysqld|/run/odd/db|' \\
    -e "s|^port = .*|port = $1|" /etc/mysql/odd/conf.d/50-server.cnf
echo '!includedir /etc/mysql/odd/conf.d' >'{OPTIONS}'
cat >{ADMIN} <<'FILE'
[client]
user = "clone admin"
password = '{PASSWORD.replace(chr(92), chr(92) * 2)}'
FILE
chmod 0600 {ADMIN}
"""
MOVE_DATA = f"""
set -eu
mv /var/lib/mysql "{DATADIR}"
install -d -o mysql -g mysql "{KEYRINGS["master"].rpartition("/")[0]}"
mv /var/lib/mysql-keyring/keyring "{KEYRINGS["master"]}"
rmdir /var/lib/mysql-keyring
printf '{{"path": "{KEYRINGS["master"]}", "read_only": false}}' >"{DATADIR}/component_keyring_file.cnf"
"""
LEAVE_NOTHING = "rm -r /var/lib/mysql /var/lib/mysql-keyring"
ACCOUNT = f"""
CREATE USER 'clone admin'@localhost IDENTIFIED BY {json.dumps(PASSWORD)};
GRANT ALL PRIVILEGES ON *.* TO 'clone admin'@localhost WITH GRANT OPTION;
ALTER USER root@localhost ACCOUNT LOCK;
"""


def write_config(lab: CloneLab) -> None:
    """Say in the configuration how it is."""
    text = lab.config_file.read_text(encoding="utf-8")
    for host, port in PORTS.items():
        programs = "".join(f'{key} = "{TOOLS}/{name}"\n' for key, name in PROGRAMS.items())
        server = (
            f'socket = "{SOCKET}"\nport = {port}\noptions_file = "{OPTIONS}"\n'
            f'defaults_file = "{ADMIN}"\nconfig_dir = "/etc/mysql/odd/conf.d"\n'
        )
        service = f'start = ["{TOOLS}/db", "start"]\nstop = ["{TOOLS}/db", "stop"]\n'
        before, head, after = text.partition(f"[hosts.{host}.server]\n")
        after = re.sub(r"^socket = .*\nconfig_dir = .*\n", server, after)
        after = re.sub(r"(?m)^start = .*\nstop = .*\n", service, after, count=1)
        after = re.sub(
            r"(?m)^data_file = .*\n", f'data_file = "{KEYRINGS[host]}"\n', after, count=1
        )
        text = f"{before}[hosts.{host}.programs]\n{programs}\n{head}{after}"
    lab.config_file.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up, and set both hosts up anew."""
    with mysql_lab(tmp_path_factory.mktemp("odd") / "lab", "--no-writer") as found:
        found.sql("master", ACCOUNT)
        found.lab("server", "stop", "master")
        links = "".join(
            f"ln -s {target} {shlex.quote(f'{TOOLS}/{name}')}\n" for name, target in TARGETS.items()
        )
        for host, port in PORTS.items():
            script = f"set -- {port}; {MAKE_ODD}{links}"
            found.on(host, script)
            found.on(host, f"cat >'{TOOLS}/db' <<'FILE'\n{SERVICE}FILE\nchmod 0755 '{TOOLS}/db'")
        found.on("master", MOVE_DATA)
        found.on("replica", LEAVE_NOTHING)
        found.on("master", f"'{TOOLS}/db' start")
        write_config(found)
        yield dataclasses.replace(found, client=CLIENT)


@pytest.fixture(scope="module")
def cloned(lab: CloneLab) -> dict[str, Any]:
    """Clone."""
    return lab.clone("--compress", "zstd", "--nice")


def test_every_setting_is_obeyed(lab: CloneLab, cloned: dict[str, Any]) -> None:
    """With everything in odd places, a clone succeeds, and the replica follows."""
    assert cloned["status"] == "succeeded"
    assert all(check["ok"] for check in cloned["checks"])
    assert cloned["replication"]["source"].endswith(":4407")
    check_arrival(lab)
    assert lab.sql("replica", "SELECT @@port, @@datadir") == [["4408", f"{DATADIR}/"]]
    assert list_master_keys(lab, "replica").isdisjoint(list_master_keys(lab, "master"))


def test_nothing_is_where_a_package_has_it(lab: CloneLab, cloned: dict[str, Any]) -> None:
    """The clone has put nothing into the places that it would take by itself."""
    usual = "/var/lib/mysql /var/lib/mysql.* /var/lib/mysql-keyring /etc/mysql/mysql.conf.d /etc/mysql/conf.d /etc/mysql/my.cnf"
    assert lab.on("replica", f"ls -d {usual} 2>/dev/null || true") == ""
    assert "zz-xbvault.cnf" in lab.on("replica", "ls /etc/mysql/odd/conf.d")


def test_it_restarts_by_its_own_command(lab: CloneLab, cloned: dict[str, Any]) -> None:
    """The replica outlives a restart by its service's command, and undo leaves nothing of it."""
    for action in ("stop", "start"):
        lab.on("replica", f"'{TOOLS}/db' {action}")
    check_arrival(lab)
    lab.xbvault("runs", "undo", cloned["run_id"], "--yes")
    assert lab.on("replica", "ls -A /var/lib/odd") == ""
