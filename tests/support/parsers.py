"""Every parser of what a host, a tool, Vault or a person wrote, with real inputs to spoil.

``tests/unit/test_parsers.py`` meets each with spoiled and with arbitrary input;
``tests/contract/test_parsers.py`` holds that none is left out.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli_lab
import engine_lab
import samples
import stored_sets
from hostile import JSON, NUMBERS, ODD_LINES, TEXT, mutated_json, mutations
from hypothesis import strategies as st
from surveys import CONFIG, REQUEST

from orchestrator import bundle, models
from orchestrator.durable import serial
from orchestrator.errors import CommandError
from orchestrator.facts.instances import Table
from orchestrator.flavors import mariadb_files, mysql_files, mysql_output
from orchestrator.flavors.mariadb import MariaDB
from orchestrator.models import Plan, Secret
from orchestrator.repository import manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[Any, Any], object]

TRANSITION_KEY = Secret("0123456789abcdef" * 4)
FILE_SETS = mariadb_files.list_file_sets({"log_bin": "bin"}, datadir="/var/lib/mysql")
TABLES = tuple(Table(schema="a", name=name, engine="InnoDB", bytes=1) for name in ("b", "c"))
MOMENT = "2026-11-21T22:34:53.123456789Z"
LOCK = "run=r1\nholder=ops:1234\nfence=4\nlive=1\nleft=55\nchanged_by=r0\nchanged_fence=3\n"
REPORT = "exists=1\nuptime=70.25\nbegun=12.5\nalive=1\nbytes=00000000000000000042\n"
REPORTS = (
    f"{REPORT}stderr\n",
    f"{REPORT}ended=60.10 0 0 \nstderr\nlast words\n",
    f"{REPORT}ended=60.10 124 124 expired\nstderr\n",
    f"{REPORT}cpu= read:0m1.5s:0m0.2s -:0m0.0s:0m0.0s\nlooks=20 18 69.5 900 40 5\nstderr\n",
    "exists=0\n",
)
WIRE = "interface\teth0\nmegabits\t1000\nsample\t65914625 0m0.15s 0m0.04s 40666788\n"
PLACES = (
    "0.real\t/var/lib/mysql\n0.filesystem\t2049\n0.free_bytes\t100\n0.bytes\t7\n0.foreign\tbin.000001\n"
    "apparmor_profile\t/usr/sbin/mariadbd (enforce)\napparmor_rule\t/var/lib/mysql/** rwk,\n"
    "half_swapped\tr1\n"
)
BINLOG_INFO = (
    samples.read("mariadb-backup/binlog_info"),
    "bin.000001\t329\t\n",
    "mysql-bin.000001\t329\n",
    "my logs, it's.000001\t329\t0-1-2,\n1-2-3,\n12-4-5\n",
)
SNAPSHOT = (
    "File\tPosition\tBinlog_Do_DB\tBinlog_Ignore_DB\tExecuted_Gtid_Set\n"
    "binlog.000002\t5105\t\t\tc14d6d67-e5fb-11f1-a307-1a083b08fc0d:1-5\nTable\tChecksum\na.b\t7\n"
)
SERVERS = ("5.7.44-48-log", "8.0.36-28", "9.7.4-2", "10.11.19-MariaDB")
TOOLS = ("2.4.29", "8.0.35-34", "8.4.0-5", "9.7.1-rc1")
SSH_G = (
    "user root\nhostname 192.0.2.1\nport 22\nidentityfile ~/.ssh/id_ed25519\nidentityfile ~no/key\n"
    "userknownhostsfile /root/.ssh/known_hosts /root/.ssh/known_hosts2\nconnecttimeout none\n"
    "proxycommand none\nproxyjump ops@[2001:db8::1]:2222,b\nidentitiesonly yes\n"
)
KNOWN_HOSTS = (
    "db1,192.0.2.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDFha2V0aGVmYWtlaG9zdGtleW9mdGhlZmFrZWhv\n"
    "@cert-authority *.example,!db3 ssh-rsa AAAAB3NzaC1yc2E=\n"
    "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa AAAAB3NzaC1yc2E=\n# x\n"
)
ENVIRONMENT = "# token\nVAULT_TOKEN='s.0123456789'\n; x\nOTHER=\"a b\"\nVAULT_TOKEN=s.9\n"
RULES = (
    "/var/lib/mysql/** rwk,",
    "owner /a/[a-c]*/{x,y?}/** w,",
    '"/var/lib/a b/\\*" rw,',
    "@{HOME}/** w,",
    "deny /x/** w,",
)
PLAN_JSON = models.as_json(cli_lab.make_plan())
SPEC: dict[str, Any] = {
    "kind": "run",
    "run_id": REQUEST.run_id,
    "plan": PLAN_JSON,
    "attempt": 1,
    "flow": "flow-1",
    "playbook": {"name": "clone", "text": "x"},
    "began_at": MOMENT,
    "steps": [{"use": "stream-backup", "on": "both", "with": {}}],
    "cleanup": [],
}
ERROR = CommandError("it failed", host="db1", problems=["a"], status=3, stderr="x").as_json()
CLEAR = {"$at": MOMENT, "$error": ERROR}
SEALED = bundle.seal_bundle({"1": {1: Secret("a1" * 32)}}, TRANSITION_KEY, "b1").decode()
MANIFEST = stored_sets.make_manifest()
LEDGER = "".join(f"{letter * 64} 4194304 part-00000{n}.age\n" for n, letter in ((1, "a"), (2, "b")))
LISTING = (
    f"d\0004096\0{stored_sets.BACKUP_ID}\0f\00012\0{stored_sets.BACKUP_ID}/manifest.json\0"
    "l\0003\0link\0u\0009\0lost+found\0"
)
PLAYBOOK = engine_lab.MAIN
YAML = st.sampled_from(
    [
        *(
            "2001-13-45",
            "12:99:99",
            "0x_",
            "0b_",
            "._",
            "1" * 5000,
            "[" * 3000,
            "!!int ''",
            "!!float ''",
        ),
        *(
            "!!timestamp ''",
            "!!bool x",
            "!!binary '='",
            "!!python/name:os.system",
            "!!omap x",
            "&a [*a]",
        ),
        *(
            "*nobody",
            "? [a]\n: b",
            "{a: b, a: c}",
            '"\\ud800"',
            "\x00",
            "\t",
            "- -\n -",
            "%YAML 9.9",
            "---",
        ),
    ]
)
TOML = (
    cli_lab.TOML,
    '[hosts.db1]\nvault_mount = "k"\n[hosts.db1.server]\nsocket = "/s"\n[clone]\nparallel = 2\n',
)
TOML_ODD = st.sampled_from(["a = " + "[" * 3000, "a = " + "1" * 5000, "a = nan", "a = 2001-13-45"])
EVENT = json.dumps(
    {"event": "job.progress", "step": "x", "bytes": 1, "seconds": 0.5, "timestamp": MOMENT}
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parser:
    """A parser, and what to meet it with.

    Attributes:
        inputs: What could be written.
        call: Calls it with one input.
    """

    inputs: st.SearchStrategy[Any]
    call: Call = lambda parse, value: parse(value)


def text(*seeds: str, call: Call = Parser.call) -> Parser:
    """Return a parser of text."""
    return Parser(inputs=mutations(seeds or ("",)) | ODD_LINES | NUMBERS | TEXT, call=call)


def raw(*seeds: str, call: Call = Parser.call) -> Parser:
    """Return a parser of bytes."""
    spoiled = mutations(seeds or ("",)).map(str.encode)
    return Parser(inputs=spoiled | st.binary(max_size=200), call=call)


def json_of(seed: Any, call: Call = Parser.call) -> Parser:
    """Return a parser of a JSON value."""
    return Parser(inputs=mutated_json(seed) | JSON, call=call)


def resolve(name: str) -> Any:
    """Return what a qualified name names."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[length:], module)
    raise AssertionError(f"nothing is called {name}")


def _with_file(parse: Any, content: str, name: str = "file") -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(content, encoding="utf-8", newline="")
        return parse(path)


def _private_file(parse: Any, content: str) -> object:
    def read(path: Path) -> object:
        path.chmod(0o600)
        return parse(path)

    return _with_file(read, content)


def _host(parse: Any, value: str) -> object:
    return parse("db1", value, MariaDB(), before=1.0, after=2.0)


def _environment(parse: Any, value: bytes) -> object:
    return parse(value, "/etc/mysql/vault.env", "VAULT_TOKEN", "db1")


def _known(parse: Any, value: str) -> object:
    from orchestrator.remote import known_hosts  # noqa: PLC0415 - beside its one use

    return known_hosts.judge(parse(value), ["db1", "192.0.2.1"], b"key")


def _events(parse: Any, value: Any) -> object:
    from orchestrator.cli.view import RunView  # noqa: PLC0415 - beside its one use

    event = parse(value)
    if event is not None:
        for kind in ("step.began", "step.ended", "step.failed", "job.progress", "notice"):
            RunView([]).feed({**event, "step": "x", "event": kind})
    return event


HOST_FACTS = tuple(samples.read(f"host/facts-{name}") for name in ("master", "replica"))
FAILED_START = """\
2026-11-22  2:54:29 0 [Note] Starting MariaDB 10.11.19-MariaDB-0+deb12u1-log source revision 58
2026-11-22  2:54:29 0 [ERROR] mariadbd: hashicorp: Hashicorp server error: 503, response: sealed
2026-11-22  2:54:29 0 [ERROR] Aborting
"""
FAILED_MYSQL_STARTS = (
    """\
2026-11-22T06:10:11.123456Z 0 [System] [MY-010116] [Server] /usr/sbin/mysqld (mysqld 8.0.36-28) starting as process 411
2026-11-22T06:10:12.123456Z 1 [ERROR] [MY-011370] [Server] Plugin keyring_vault reported: 'CURL returned this error code: 7 with error message : Failed to connect'
2026-11-22T06:10:12.223456Z 1 [ERROR] [MY-012657] [InnoDB] Encryption can't find master key, please check the keyring is loaded.
""",
    "2026-11-22T06:10:11.123456Z 0 [ERROR] [MY-010119] [Server] Aborting\n",
)
CHECKPOINTS = tuple(
    samples.read(f"mariadb-backup/checkpoints-{s}") for s in ("received", "prepared")
)
BATCHES = tuple(samples.read(f"mariadb/{s}") for s in ("slave-status", "slave-status-stopped"))
VERSIONS = tuple(
    samples.read(s)
    for s in ("mariadb-backup/version", "mariadb/mariadbd-version", "mariadb/my_print_defaults")
)

BRIEF = (
    "memory_available_bytes\t8589934592\ncpus\t4\nserver_pid\t4711\ndatadir_inode\t42\n"
    "datadir_owner\tmysql:mysql\ndatadir_mode\t755\ndatadir_has_data\t1\nend\n"
)
STANDING = "2097.1763848000\nswapped\nyes\n2097.1763848000\nyes\nno\nb1\nb1\nend\n"
TOOL_LOGS = (
    *(
        samples.read(f"xtrabackup-2.4/{s}")
        for s in ("prepare-wrong-key", "copy-back-vault-denied", "backup-access-denied")
    ),
    "261121 22:35:01 Generated new master key with ID 'c14d6d67-2'.\n"
    "[01] Encrypting /d/a.ibd tablespace header with new master key.\n"
    "2026-11-22T06:30:43.1Z 0 [ERROR] [MY-011825] [Xtrabackup] Unable to open #ib_redo7\n",
)
MYSQLD = "/usr/sbin/mysqld  Ver 8.0.36-28 for Linux on x86_64 (Percona Server (GPL), Release 28)"
GTIDS = (
    "c14d6d67-e5fb-11f1-a307-1a083b08fc0d:1-3:tag:1-2:4,\n3ba8f2ff-e63e-11f1-ae33-02fc00000001:7"
)
KEYS_FILE = "KEYSV01" + "\0" * 147 + ("\1\0\0\0" + "\0" * 68) * 2
SLAVE_INFO = (
    "CHANGE MASTER TO MASTER_LOG_FILE='a.000007', MASTER_LOG_POS=154 FOR CHANNEL 'one';\n",
    f"SET GLOBAL gtid_purged='{GTIDS}';\nCHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1;\n",
)
TABLESPACES = json.dumps(
    {
        "version": 3,
        "external_tablespaces": [
            {"file_name": "/a", "tablespace_name": "b", "tablespace_type": "TABLESPACE"}
        ],
    }
)


def _homes(value: str) -> dict[str, str]:
    return dict.fromkeys(mysql_files.VARIABLES[2:], value)


PARSERS: dict[str, Parser] = {
    "orchestrator.bundle.open_bundle": raw(
        SEALED, call=lambda parse, value: parse(value, TRANSITION_KEY, "b1")
    ),
    "orchestrator.cli.backend.Backend.parse_playbook": text(
        PLAYBOOK, call=lambda parse, value: parse(None, value)
    ),
    "orchestrator.cli.run_file.parse_event": raw(EVENT, call=_events),
    "orchestrator.config.load": Parser(inputs=mutations(TOML) | TOML_ODD | TEXT, call=_with_file),
    "orchestrator.config.parse": json_of(CONFIG.model_dump(mode="json")),
    "orchestrator.durable.flows.StepName.parse": text("03.stream-backup.2"),
    "orchestrator.durable.flows.check_spec": json_of(
        SPEC, call=lambda parse, value: _wrap(ValueError, parse, value)
    ),
    "orchestrator.durable.serial.JournalSerializer.deserialize": text(
        json.dumps(CLEAR),
        json.dumps({"args": [SPEC]}),
        "[" * 5000,
        call=lambda parse, value: parse(serial.JournalSerializer(), value),
    ),
    "orchestrator.errors.from_json": json_of(
        ERROR, call=lambda parse, value: parse(value) if isinstance(value, dict) else None
    ),
    "orchestrator.notices.read_urls": text("# x\njson://a:b@c/\n", call=_private_file),
    "orchestrator.repository.binlogs.parse_target": text(
        "latest",
        "0-1-42",
        "2f5b0a6e-6c1c-11ee-8c99-0242ac120002:7",
        "2026-01-31T23:59:59Z",
        "2026-01-31T23:59+01:00",
        call=lambda parse, value: _wrap(ValueError, parse, value),
    ),
    "orchestrator.steps.replay.parse_found": text(
        "stop 855\nfound 1\ntransactions 2\nlast 0-1-42\n",
        call=lambda parse, value: parse(value, "bin.000001"),
    ),
    "orchestrator.schedule.parse_calendar": text("*-*-* 02:00:00", "Mon..Fri *-1/3-1,2 0/6:00"),
    "orchestrator.schedule.parse_daily": text("02:00"),
    "orchestrator.schedule.parse_weekly": text("Sun 02:00"),
    "orchestrator.facts.apparmor.find_enforced": Parser(
        inputs=st.lists(mutations(("/usr/sbin/mariadbd (enforce)",)))
    ),
    "orchestrator.facts.apparmor.list_denied": Parser(
        inputs=st.lists(mutations(RULES)),
        call=lambda parse, value: parse(["/var/lib/mysql"], value),
    ),
    "orchestrator.facts.hosts.parse_host": text(*HOST_FACTS, call=_host),
    "orchestrator.facts.hosts.parse_brief": text(
        BRIEF, call=lambda parse, value: parse("db1", value)
    ),
    "orchestrator.facts.hosts.parse_pids": text(
        "4711\n12\nend\n", "end\n", call=lambda parse, value: parse(value, "db1")
    ),
    "orchestrator.facts.sample.parse_wire": text(WIRE),
    "orchestrator.facts.places.parse_places": text(
        PLACES, call=lambda parse, value: parse("db1", value, FILE_SETS)
    ),
    "orchestrator.flavors.backup_sets.is_completed": text(
        samples.read("mariadb-backup/prepare-log")
    ),
    "orchestrator.flavors.mariadb.parse_binlog_info": text(*BINLOG_INFO),
    "orchestrator.flavors.backup_sets.parse_checkpoints": text(*CHECKPOINTS),
    "orchestrator.flavors.mariadb.parse_failed_start": text(FAILED_START),
    "orchestrator.flavors.mariadb.parse_slave_info": text(
        *(samples.read(f"mariadb-backup/slave_info{s}") for s in ("", "-position", "-two"))
    ),
    "orchestrator.flavors.backup_sets.parse_lsn": text(
        "12512819", call=lambda parse, value: parse({"to_lsn": value}, "to_lsn")
    ),
    "orchestrator.flavors.option_files.parse_print_defaults": text(
        samples.read("mariadb/my_print_defaults")
    ),
    "orchestrator.flavors.mariadb.parse_program_version": text(*VERSIONS),
    "orchestrator.flavors.mariadb.retarget_options": text(
        samples.read("mariadb-backup/backup-my.cnf"),
        call=lambda parse, value: parse(value, vault_url="https://v/v1/t", vault_ca="/it's #1.pem"),
    ),
    "orchestrator.flavors.versions.read_numbers": text(*VERSIONS),
    "orchestrator.flavors.mariadb_files.list_file_sets": text(
        "bin",
        "/a b/c.d",
        call=lambda parse, v: parse({"log_bin": v, "log_bin_index": v}, datadir="/d"),
    ),
    "orchestrator.flavors.mysql_files.list_file_sets": text(
        "bin", "/a b/c.d", call=lambda parse, v: parse({"log_bin": v, **_homes(v)}, datadir="/d")
    ),
    "orchestrator.flavors.mysql_output.count_rewritten_headers": text(*TOOL_LOGS),
    "orchestrator.flavors.mysql_output.explain_tool_failure": text(
        *TOOL_LOGS, call=lambda parse, value: parse(value, mysql_output.Phase.RESTORE)
    ),
    "orchestrator.flavors.mysql_output.find_contradictions": text(*TOOL_LOGS),
    "orchestrator.flavors.mysql_output.parse_lsn": text(
        "---\nLOG\n---\nLog sequence number          29393291\nLog buffer assigned up to    29393291\n"
    ),
    "orchestrator.flavors.mysql_output.parse_new_master_key": text(*TOOL_LOGS),
    "orchestrator.flavors.mysql_output.parse_server_version": text(*VERSIONS, MYSQLD),
    "orchestrator.flavors.mysql_output.parse_tool_version": text(*TOOL_LOGS),
    "orchestrator.flavors.mysql_sets.parse_binlog_info": text(
        samples.read("xtrabackup-2.4/binlog_info"), f"bin.000002\t157\t{GTIDS}\n"
    ),
    "orchestrator.flavors.mysql_sets.parse_gtid_set": text(GTIDS),
    "orchestrator.flavors.mysql_sets.parse_keys": raw(KEYS_FILE),
    "orchestrator.flavors.mysql_sets.parse_set_options": text(
        samples.read("xtrabackup-2.4/backup-my.cnf")
    ),
    "orchestrator.flavors.mysql_sets.parse_slave_info": text(*SLAVE_INFO),
    "orchestrator.flavors.mysql_sets.parse_tablespaces": text(TABLESPACES),
    "orchestrator.flavors.mysql_sql.list_outside": Parser(
        inputs=st.lists(mutations(("./a/b.ibd", "/srv/a.ibd", "../undo_001"))),
        call=lambda parse, value: parse(value, datadir="/var/lib/mysql"),
    ),
    "orchestrator.flavors.mysql_sql.read_snapshot": text(SNAPSHOT),
    "orchestrator.flavors.mysql_sql.split_position": text("my bin.000002:157 a:1-5", "b:4"),
    "orchestrator.flavors.mysql_versions.choose_words": text(*SERVERS),
    "orchestrator.flavors.mysql_versions.judge_restore": text(
        *SERVERS, call=lambda parse, value: parse(value, "8.0.36")
    ),
    "orchestrator.flavors.mysql_versions.judge_tool": text(
        *TOOLS, call=lambda parse, value: parse("8.4.0", value)
    ),
    "orchestrator.flavors.mysql_versions.judge_tools": text(
        *TOOLS, call=lambda parse, value: parse(value, "8.4.0-5")
    ),
    "orchestrator.flavors.quoting.quote_definer": text("root@localhost", "role", "a@b@%"),
    "orchestrator.flavors.quoting.unhex": text("61C3BC", "FF"),
    "orchestrator.jobs.parse_report": text(*REPORTS),
    "orchestrator.lock.parse_lock": text(LOCK),
    "orchestrator.models.from_json": json_of(
        PLAN_JSON, call=lambda parse, value: _wrap(ValueError, lambda v: parse(Plan, v), value)
    ),
    "orchestrator.numerals.parse_decimal": text("12.5", "7"),
    "orchestrator.numerals.parse_whole": text("12", "0"),
    "orchestrator.playbook.parse_playbook": Parser(
        inputs=mutations((PLAYBOOK,))
        | TEXT
        | YAML
        | YAML.map(lambda v: PLAYBOOK.replace("version: 1", f"version: {v}"))
        | YAML.map(lambda v: PLAYBOOK.replace("text: hello", f"text: {v}"))
    ),
    "orchestrator.remote.files.find_secret": raw(ENVIRONMENT, call=_environment),
    "orchestrator.remote.files.parse_environment_file": text(ENVIRONMENT),
    "orchestrator.repository.manifest.open_manifest": raw(
        manifest.seal_manifest(MANIFEST, stored_sets.KEY).decode(),
        call=lambda parse, value: parse(
            value,
            backup_id=stored_sets.BACKUP_ID,
            deployment=stored_sets.DEPLOYMENT,
            key=stored_sets.KEY,
        ),
    ),
    "orchestrator.repository.manifest.parse_manifest": json_of(models.as_json(MANIFEST)),
    "orchestrator.repository.store.parse_ledger": text(LEDGER),
    "orchestrator.repository.store.parse_listing": raw(LISTING),
    "orchestrator.repository.store.parse_shown": raw(
        f"{stored_sets.BACKUP_ID}\0e30K\0",
        call=lambda parse, value: parse(value, [stored_sets.BACKUP_ID]),
    ),
    "orchestrator.repository.store.parse_space": text("writable=1\nfree_bytes=9\nfilesystem=2\n"),
    "orchestrator.repository.store.parse_sums": text(
        LEDGER, call=lambda parse, value: parse(value, ["part-000001.age", "part-000002.age"])
    ),
    "orchestrator.repository.names.parse_moment": text(MANIFEST.began_at, MANIFEST.ended_at),
    "orchestrator.remote.hops._split_jump": text(
        "ops@[2001:db8::1]:2222", "b:22", "c", call=lambda parse, value: parse(value, CONFIG.ssh)
    ),
    "orchestrator.remote.hops.make_hop": text(
        SSH_G, call=lambda parse, value: parse("db1", value, connect_seconds=10)
    ),
    "orchestrator.remote.hops.parse_settings": text(SSH_G),
    "orchestrator.remote.known_hosts.parse_known_hosts": text(KNOWN_HOSTS, call=_known),
    "orchestrator.sql.parse_batch": text(*BATCHES),
    "orchestrator.sql.unescape": text("a\\tb\\\\n\\0"),
    "orchestrator.steps.restore.parse_identity": text("1234.1795304152\n"),
    "orchestrator.steps.restore.parse_standing": text(STANDING),
    "orchestrator.steps.key_names.parse_names": raw(
        '{"before": ["a2V5"], "new": ["bmV3"], "earlier": []}\n'
    ),
    "orchestrator.steps.restore.parse_ranges": raw(
        '{"1": {"low": 1, "high": 8, "first_new": 7}}\n'
    ),
    "orchestrator.steps.stream.judge_checkpoints": text(
        *CHECKPOINTS, call=lambda parse, value: parse(value, MariaDB.prepared_types)
    ),
    "orchestrator.flavors.mysql_start.parse_failed_start": text(*FAILED_MYSQL_STARTS),
    "orchestrator.steps.tool_keys.parse_files": raw(
        '{"shop/orders": "shop/orders.ibd", "mysql": "mysql.ibd"}\n'
    ),
    "orchestrator.steps.verification.list_unopened": text(
        "ERROR 1146 (42S02) at line 2: Table 'a.c' doesn't exist\n",
        call=lambda parse, value: parse(TABLES, 1, value),
    ),
    "orchestrator.steps.comparison.parse_checksums": text(samples.read("mariadb/checksums")),
    "orchestrator.vault.answers.parse_moment": text(
        MOMENT, "2026-11-21", "0001-01-01T00:00:00+23:59"
    ),
    "orchestrator.vault.token_files.read_token_file": text("s.0123456789\n", call=_with_file),
    "orchestrator.wire.parse_compression": text(
        "zstd:3", "auto", call=lambda parse, value: _wrap(ValueError, parse, value)
    ),
    "orchestrator.wire.parse_rate": text(
        "50M", "none", call=lambda parse, value: _wrap(ValueError, parse, value)
    ),
    "orchestrator.wire.parse_size": text(
        "256M", "1G", call=lambda parse, value: _wrap(ValueError, parse, value)
    ),
}
"""By qualified name; a private one where nobody else calls it with another's words."""


def _wrap(known: type[Exception], parse: Any, value: Any) -> object:
    """Call a parser whose one caller turns its documented exception into an error of ours."""
    try:
        return parse(value)
    except known as error:
        if type(error) is not known:
            raise
        return None
