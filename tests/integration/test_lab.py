"""The laboratory: what is in it, that labs do not meet, and that nothing of one remains."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import bao, hosts, mariadb, model, mysql, network, processes, servers, setup
from lab.errors import LabError
from mysql_tree import INSTALLER, UNAVAILABLE, require_mysql

from orchestrator import config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.model import Host, Lab

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root")

SIZE = 0.02


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for this module's labs."""
    return tmp_path_factory.mktemp("labs")


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    """Bring a small lab up for the module, with a writer."""
    directory = folder / "first"
    try:
        found = setup.bring_up(
            "auto",
            directory,
            replicas=2,
            size=SIZE,
            stores=1,
            writer=True,
            replica_server=False,
        )
        yield found
    finally:
        setup.take_down(directory)


@pytest.fixture(scope="module")
def mysql_lab(folder: Path) -> Iterator[Lab]:
    """Bring a small lab with MySQL up for the module, with a writer."""
    require_mysql()
    directory = folder / "mysql"
    try:
        yield setup.bring_up(
            "auto",
            directory,
            flavor="mysql",
            replicas=1,
            size=SIZE,
            writer=True,
            replica_server=False,
        )
    finally:
        setup.take_down(directory)


@pytest.fixture
def any_lab(request: pytest.FixtureRequest) -> Lab:
    """Return the lab that a test's parameter names."""
    found: Lab = request.getfixturevalue(request.param)
    return found


EVERY_LAB = pytest.mark.parametrize("any_lab", ["lab", "mysql_lab"], indirect=True)


@pytest.fixture(scope="module")
def master(lab: Lab) -> Host:
    """Return the master."""
    return lab.host("master")


@pytest.fixture(scope="module")
def replica(lab: Lab) -> Host:
    """Return the first replica."""
    return lab.host("replica")


def login(lab: Lab, target: str, *argv: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run a command over SSH as the operator; return exit status and output."""
    command = ["ssh", "-F", str(lab.ssh / "config"), "-o", "ConnectTimeout=3", *options, target]
    done = subprocess.run([*command, *argv], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def shell(lab: Lab, host: Host, script: str) -> str:
    """Run a shell script as root on the host; return what it wrote."""
    return hosts.run_on(lab, host, "sh", "-c", script).stdout


def traces(directory: Path) -> list[str]:
    """Return what of a lab is on the machine: processes, bridges, mounts, files."""
    found = [
        f"process {pid}" for pid in processes.find_processes(lambda argv: _names(argv, directory))
    ]
    found += [f"id {n}" for n, path in network.find_labs().items() if path == str(directory)]
    mounts = Path("/proc/self/mountinfo").read_text()
    found += ["mount"] if str(directory) in mounts else []
    return found + (["folder"] if directory.exists() else [])


def _names(argv: list[str], directory: Path) -> bool:
    return "pytest" not in " ".join(argv[:4]) and any(str(directory) in word for word in argv)


def test_hosts_share_no_namespace(lab: Lab) -> None:
    """Every host has its own namespaces, apart from each other's and the machine's."""
    for kind in ("mnt", "net", "pid", "ipc", "uts"):
        seen = {Path(f"/proc/self/ns/{kind}").readlink()}
        for host in lab.machines:
            seen.add(Path(f"/proc/{hosts.find_first_process(lab, host)}/ns/{kind}").readlink())
        assert len(seen) == 1 + len(lab.machines), kind


def test_a_host_sees_itself_only(lab: Lab, master: Host, replica: Host) -> None:
    """A host has its own name and files, knows the others by name, and sees no file of theirs."""
    marker = "/var/lib/only-here"
    shell(lab, master, f"echo master > {marker}")
    assert shell(lab, master, f"cat {marker}; hostname").split() == ["master", "master"]
    assert shell(lab, replica, f"test ! -e {marker}; getent hosts master").split()[0] == (
        master.address
    )
    for hidden in (lab.directory, model.REPOSITORY):
        assert shell(lab, replica, f"ls -A {hidden} 2>/dev/null || true") == ""
    assert shell(lab, replica, "findmnt -n -o FSTYPE /run").strip() == "tmpfs"
    assert shell(lab, replica, "cut -d: -f2 /etc/shadow | sort -u").strip() == "*"


def test_logins(lab: Lab, replica: Host) -> None:
    """Root and a login with sudo get in with the operator's key, and by a known host key only."""
    assert login(lab, "replica", "id -u; hostname") == (0, "0\nreplica\n")
    assert login(lab, "dba@replica", "id -un; sudo -n id -un; sudo -n mariadb --version >&-")[
        1
    ] == ("dba\nroot\n")
    unknown = ("-o", "UserKnownHostsFile=/dev/null")
    assert login(lab, "replica", "true", options=unknown)[0] == 255


def test_files_outlive_a_power_cut(lab: Lab) -> None:
    """A host that lost its power comes back with its disk as it was, and with an empty /run."""
    host = lab.host("replica2")
    shell(
        lab, host, "echo kept > /var/lib/kept; echo lost > /run/lost; sleep 1000 >/dev/null 2>&1 &"
    )
    hosts.power_off(lab, host)
    assert hosts.find_first_process(lab, host) is None
    with pytest.raises(LabError, match="is off"):
        shell(lab, host, "true")
    hosts.power_on(lab, host)
    assert shell(lab, host, "cat /var/lib/kept; ls /run/lost 2>&- || echo gone") == "kept\ngone\n"
    assert login(lab, "replica2", "hostname") == (0, "replica2\n")


def test_a_cut_cable(lab: Lab) -> None:
    """A host without network cannot be reached, and can again afterwards."""
    host = lab.host("replica2")
    network.cut(host)
    try:
        assert login(lab, "replica2", "true", options=("-o", "ConnectTimeout=1"))[0] == 255
    finally:
        network.heal(host)
    assert login(lab, "replica2", "true")[0] == 0


def test_a_token_reads_its_own_mount_only(lab: Lab, master: Host, replica: Host) -> None:
    """A host's token reads the keys of its own mount, and nothing else."""
    tokens = {
        host: (host.root / "etc/mysql/vault.env").read_text().strip().partition("=")[2]
        for host in (master, replica)
    }
    path = f"{master.vault_mount}/data/{mariadb.DATA_KEY}"
    found = bao.request(lab, "GET", path, token=tokens[master])["data"]
    assert len(found["data"]["data"]) == 64
    assert found["metadata"]["version"] == 3
    with pytest.raises(LabError, match="403"):
        bao.request(lab, "GET", path, token=tokens[replica])
    with pytest.raises(LabError, match="403"):
        bao.request(lab, "POST", path, {"data": {"data": "0"}}, token=tokens[master])
    assert (lab.vault / "audit.log").stat().st_size > 0
    secret_files = ("root.token", "unseal.key", "orchestrator.token", "audit.log")
    assert {(lab.vault / name).stat().st_mode & 0o777 for name in secret_files} == {0o600}


def test_vault_can_be_sealed_and_restarted(lab: Lab) -> None:
    """OpenBao is active, and is again after a seal and after a restart."""
    bao.seal(lab)
    status = bao.read_status(lab)
    assert status is not None
    assert status["sealed"]
    bao.unseal(lab)
    bao.restart(lab)
    status = bao.read_status(lab)
    assert status is not None
    assert not status["sealed"]
    assert len(bao.find_server(lab)) == 1


def test_a_certificate_reaches_the_receiver_only(lab: Lab, folder: Path) -> None:
    """A certificate of Vault's SSH CA gets the forced command on its own host, and no other way in.

    The receiver refuses, with 77, because no run holds the host.
    """
    key = folder / "stream"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    token = (lab.vault / "orchestrator.token").read_text().strip()
    answer = bao.request(
        lab,
        "POST",
        "xbvault-ssh/sign/xbvault-receive-replica",
        {
            "public_key": key.with_suffix(".pub").read_text(),
            "valid_principals": "xbvault-receive-replica",
        },
        token=token,
    )
    (folder / "stream-cert.pub").write_text(answer["data"]["signed_key"])
    # -F none: the operator's own key must not help.
    known = ("-o", f"UserKnownHostsFile={lab.ssh / 'known_hosts'}")
    options = ("-F", "none", "-i", str(key), "-o", "BatchMode=yes", *known)
    status, said = login(lab, f"root@{lab.host('replica').address}", "id", options=options)
    assert status == 77
    assert "uid=" not in said
    status, said = login(lab, f"root@{lab.host('replica2').address}", "id", options=options)
    assert status == 255
    assert "Permission denied" in said


@EVERY_LAB
def test_data_of_every_kind(any_lab: Lab) -> None:
    """The master has several engines, code in the database, accounts, and names that are odd."""
    lab, master = any_lab, any_lab.host("master")
    engines = servers.execute(
        lab,
        master,
        "SELECT DISTINCT engine FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        " AND table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')",
    )
    others = {"mariadb": {"Aria", "MyISAM"}, "mysql": set[str]()}
    assert set(engines.split()) == {"InnoDB"} | others[lab.flavor]
    for table, least in {
        "views": 2,
        "routines": 3,
        "triggers": 2,
        "events": 2,
        "partitions": 6,
    }.items():
        where = "partition_name IS NOT NULL" if table == "partitions" else "1"
        column = {"routines": "routine", "triggers": "trigger", "events": "event"}.get(
            table, "table"
        )
        counted = servers.execute(
            lab,
            master,
            f"SELECT COUNT(*) FROM information_schema.{table} WHERE {where} AND {column}_schema"
            " NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')",
        )
        assert int(counted) >= least, table
    assert servers.execute(
        lab, master, "SELECT MAX(`a``b`) FROM `Läden & Söhne 100%`.`back``tick`"
    ) == ("2\n")
    found = servers.execute(
        lab,
        master,
        "SELECT COUNT(*) > 0 FROM documents.articles WHERE MATCH (title, body) AGAINST ('north')",
    )
    assert found == "1\n"


def test_encrypted_under_several_key_versions(lab: Lab, master: Host) -> None:
    """All tablespaces are encrypted, under several versions; no file has the clear text of a row."""
    versions = servers.execute(
        lab,
        master,
        "SELECT DISTINCT min_key_version FROM information_schema.innodb_tablespaces_encryption",
    ).split()
    assert len(versions) > 1
    assert "0" not in versions
    canary = "CANARY-IN-CLEAR"
    rows = f"SELECT seq, '{canary}' FROM shop.seq_1_to_100"
    servers.execute(
        lab,
        master,
        f"CREATE TABLE shop.canary (id INT, content TEXT) ENGINE=InnoDB; INSERT INTO shop.canary {rows};"
        f"CREATE TABLE shop.canary_aria (id INT, content TEXT) ENGINE=Aria; INSERT INTO shop.canary_aria {rows};"
        f"CREATE TABLE shop.canary_myisam (id INT, content TEXT) ENGINE=MyISAM;"
        f"INSERT INTO shop.canary_myisam {rows};"
        "FLUSH TABLES shop.canary, shop.canary_aria FOR EXPORT; UNLOCK TABLES; FLUSH TABLES;",
    )
    listed = shell(lab, master, f"grep -rl {canary} /var/lib/mysql || true").split()
    # MyISAM knows no encryption: that it is found shows that the search finds.
    assert listed == ["/var/lib/mysql/shop/canary_myisam.MYD"]


@EVERY_LAB
def test_the_writer_writes(any_lab: Lab) -> None:
    """The writer adds rows until it is stopped."""
    lab, master = any_lab, any_lab.host("master")
    count = "SELECT MAX(id) FROM live.ledger"
    before = int(servers.execute(lab, master, count))
    time.sleep(1.5)
    assert int(servers.execute(lab, master, count)) > before + 20
    servers.stop_writer(lab, master)
    time.sleep(0.3)
    stopped = int(servers.execute(lab, master, count))
    time.sleep(0.5)
    assert int(servers.execute(lab, master, count)) == stopped
    servers.start_writer(lab, master, 600)


def test_a_server_of_its_own_on_a_replica(lab: Lab, replica: Host) -> None:
    """A replica's server starts only with a datadir, says why if not, and takes the later token."""
    with pytest.raises(LabError, match="the server ended with status"):
        servers.start(lab, replica)
    mariadb.write_key_version(lab, replica)
    servers.initialize(lab, replica)
    servers.start(lab, replica)
    servers.start(lab, replica)
    assert servers.execute(lab, replica, "SELECT @@server_id") == f"{replica.server_id}\n"
    servers.stop(lab, replica)
    servers.stop(lab, replica)
    shell(lab, replica, "mkdir /run/xbvault; echo VAULT_TOKEN=wrong > /run/xbvault/server.env")
    with pytest.raises(LabError, match="permission denied"):
        servers.start(lab, replica)
    shell(lab, replica, "rm -r /run/xbvault /var/lib/mysql/*")


def test_the_configuration_is_the_products(lab: Lab) -> None:
    """Both configuration files are what the product reads, one of them with sudo logins."""
    found = config.load(lab.config_file)
    assert set(found.hosts) == {"master", "replica", "replica2"}
    assert found.vault.address == lab.vault_address
    assert Path(found.vault.token_file).is_file()
    assert config.load(lab.directory / "xbvault-dba.toml").host("master").become


def test_a_store_is_a_host_without_a_server(lab: Lab) -> None:
    """It has a repository, the receiver and the trust in Vault's CA; servers are the others'."""
    store = lab.host("store")
    assert store not in lab.hosts
    assert lab.machines[-1] == store
    found = config.load(lab.config_file).repository("store")
    assert (found.address, found.path, found.part_bytes) == (store.address, "/srv/backups", 4 << 20)
    assert config.load(lab.directory / "xbvault-dba.toml").repository("store").become
    assert shell(lab, store, f"stat -c %a:%F {found.path}; ls -A {found.path}") == "700:directory\n"
    assert shell(lab, lab.host("master"), "ls -A /srv") == ""
    assert "xbvault-receive-store" in shell(lab, store, "cat /etc/ssh/principals/root")
    authority = shell(lab, store, "cat /etc/ssh/xbvault-ca.pub")
    assert authority == shell(lab, lab.host("master"), "cat /etc/ssh/xbvault-ca.pub") != ""
    assert shell(lab, store, "ls -A /etc/mysql /var/lib") == "/etc/mysql:\n\n/var/lib:\n"
    assert login(lab, "store", "hostname") == (0, "store\n")
    assert login(lab, "master", "getent", "hosts", "store")[0] == 0


def test_mysql_on_every_way_to_a_host(mysql_lab: Lab) -> None:
    """MySQL and the double of XtraBackup are what a login gets, with sudo and without."""
    for target, sudo in (("master", ""), ("dba@master", "sudo -n ")):
        script = f"mysql --version; {sudo}mysql -Ne 'SELECT @@version'; xtrabackup --version 2>&1 | tail -n 1"
        status, said = login(mysql_lab, target, script)
        assert status == 0
        assert re.fullmatch(r".* Ver 9\.7\..*\n9\.7\..*\nxtrabackup version 9\.7\..*\n", said)
    status, said = login(mysql_lab, "dba@master", "mysql -e 'SELECT 1'")
    assert status != 0
    assert "Access denied" in said


def test_mysql_is_encrypted(mysql_lab: Lab) -> None:
    """Everything is encrypted, under several master keys; no file has the clear text of a row."""
    master = mysql_lab.host("master")

    def ask(sql: str) -> list[str]:
        return servers.execute(mysql_lab, master, sql).split("\n")[:-1]

    plain = ask("SELECT name FROM information_schema.innodb_tablespaces WHERE encryption = 'N'")
    odd = "Läden & Söhne 100%"
    # The first two are never encrypted by the server itself; the last is plain on purpose.
    assert set(plain) == {"innodb_temporary", "sys/sys_config", f"{odd}/plain table"}
    keys = ask("SELECT key_id FROM performance_schema.keyring_keys")
    assert len([key for key in keys if key.startswith("INNODBKey-")]) > 1
    assert ask("SELECT @@innodb_redo_log_encrypt + @@innodb_undo_log_encrypt") == ["2"]
    assert {line.split("\t")[2] for line in ask("SHOW BINARY LOGS")} == {"Yes"}
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
    ask(
        "CREATE TABLE shop.canary (id INT, content TEXT);"
        f"INSERT INTO shop.canary {numbers} SELECT i, 'CANARY-IN-CLEAR' FROM n;"
        f"INSERT INTO `{odd}`.`plain table` {numbers} SELECT -i, 'CANARY-IN-CAGE' FROM n;"
        f"FLUSH TABLES shop.canary, `{odd}`.`plain table` FOR EXPORT; UNLOCK TABLES;"
    )
    assert shell(mysql_lab, master, "grep -rl CANARY-IN-CLEAR /var/lib || true") == ""
    # That the other is found shows that the search finds.
    listed = shell(mysql_lab, master, "grep -rl CANARY-IN-CAGE /var/lib || true")
    assert "plain@0020table.ibd" in listed


def test_mysql_after_a_power_cut(mysql_lab: Lab) -> None:
    """A MySQL that lost its power comes back with its keyring and every row; it is not root's."""
    master = mysql_lab.host("master")
    count = "SELECT COUNT(*) FROM documents.archive_1"
    before = servers.execute(mysql_lab, master, count)
    hosts.power_off(mysql_lab, master)
    hosts.power_on(mysql_lab, master)
    servers.start(mysql_lab, master)
    assert servers.execute(mysql_lab, master, count) == before
    assert shell(mysql_lab, master, "ps -C mysqld -o user=").split() == ["mysql"]
    assert shell(mysql_lab, master, "find /var/lib/mysql-keyring ! -user mysql") == ""


def test_mysql_of_its_own_on_a_replica(mysql_lab: Lab) -> None:
    """A replica has MySQL and no data; its server says why it does not start, and then does."""
    replica = mysql_lab.host("replica")
    with pytest.raises(LabError, match="the server ended with status"):
        servers.start(mysql_lab, replica)
    shell(mysql_lab, replica, "rm -rf /var/lib/mysql/*")
    servers.initialize(mysql_lab, replica)
    servers.start(mysql_lab, replica)
    servers.start(mysql_lab, replica)
    asked = "SELECT @@server_id, @@global.gtid_executed = ''"
    assert servers.execute(mysql_lab, replica, asked) == f"{replica.server_id}\t1\n"
    servers.stop(mysql_lab, replica)
    servers.stop(mysql_lab, replica)


def test_the_configuration_for_mysql(mysql_lab: Lab) -> None:
    """The product reads from its configuration that the hosts have MySQL, and which keyring."""
    host = config.load(mysql_lab.config_file).host("replica").model_dump()
    assert (host["flavor"], host["vault_mount"]) == ("mysql", "mysql-replica")
    assert host["keyring"]["data_file"] == mysql.KEYRING


def test_mysql_goes_down(mysql_lab: Lab) -> None:
    """Nothing of a lab with MySQL remains, and the tree that its hosts saw is as it was."""
    assert setup.take_down(mysql_lab.directory)
    assert traces(mysql_lab.directory) == []
    assert subprocess.run([INSTALLER], check=False).returncode == 0


def test_mysql_that_cannot_be_had(tmp_path: Path) -> None:
    """Where apt fails, installing MySQL ends with a status of its own, and makes no tree."""
    programs = tmp_path / "bin"
    programs.mkdir()
    real = shutil.which("apt-get")
    (programs / "apt-get").write_text(
        f'#!/bin/sh\n[ "$1" != indextargets ] || exec {real} "$@"\necho "no route" >&2; exit 100\n'
    )
    (programs / "apt-get").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        [INSTALLER, tmp_path / "tree"],
        env={**environment, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == UNAVAILABLE
    assert "no route" in done.stderr
    assert "the MySQL packages cannot be had" in done.stderr
    assert not (tmp_path / "tree").exists()


def test_labs_stand_beside_each_other(lab: Lab, folder: Path) -> None:
    """A second lab gets an id of its own; its end leaves nothing of it, and the first as it is."""
    directory = folder / "second"
    try:
        second = setup.bring_up(
            "auto", directory, replicas=1, size=0.01, writer=False, replica_server=True
        )
        assert second.network != lab.network
        assert login(second, "replica", "mariadb -Ne 'SELECT @@server_id'") == (0, "12\n")
        assert login(lab, "replica", "true")[0] == 0
        with pytest.raises(LabError, match="stands"):
            setup.bring_up(
                "auto", directory, replicas=1, size=0.01, writer=False, replica_server=False
            )
        with pytest.raises(LabError, match=f"id {lab.id} is taken"):
            network.claim_id(str(lab.id), directory)
    finally:
        assert setup.take_down(directory)
    assert traces(directory) == []
    assert not setup.take_down(directory)
    assert login(lab, "replica", "hostname") == (0, "replica\n")


@pytest.mark.parametrize("moment", ["bridge", "vault", "hosts"])
def test_down_after_a_killed_up(folder: Path, moment: str) -> None:
    """Whenever the process that brings a lab up is killed, down removes all that stands."""
    directory = folder / f"killed-{moment}"
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "--dir", str(directory), "up", "--size", "0.01"],
        env={**os.environ, "PYTHONPATH": str(model.REPOSITORY / "fixtures")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    marks = {"bridge": directory, "vault": directory / "vault/data/vault.db"}
    mark = marks.get(moment, directory / "hosts/master/fs/var/lib/mysql/ibdata1")
    try:
        deadline = time.monotonic() + 30
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mark.exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        setup.take_down(directory)
    assert traces(directory) == []


def test_down_waits_for_the_bridge_of_a_killed_up(folder: Path) -> None:
    """The process that makes the bridge outlives its killed parent; down waits, and removes it."""
    directory, slow = folder / "killed-claim", folder / "slow"
    slow.mkdir()
    (slow / "ip").write_text(f'#!/bin/sh\nsleep 0.3\nexec {shutil.which("ip")} "$@"\n')
    (slow / "ip").chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "--dir", str(directory), "up", "--size", "0.01"],
        env={
            **os.environ,
            "PYTHONPATH": str(model.REPOSITORY / "fixtures"),
            "PATH": f"{slow}:{os.environ['PATH']}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not (making := processes.find_processes(lambda argv: _claims(argv, directory))):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait(timeout=10)
        assert setup.take_down(directory)
    assert making
    assert traces(directory) == []


def _claims(argv: list[str], directory: Path) -> bool:
    return argv[:2] == ["sh", "-euc"] and str(directory) in argv


def test_down_spares_other_folders(tmp_path: Path) -> None:
    """A folder that is no lab's is not removed."""
    (tmp_path / "precious").write_text("data")
    with pytest.raises(LabError, match="no lab's folder"):
        setup.take_down(tmp_path)
    assert (tmp_path / "precious").read_text() == "data"
