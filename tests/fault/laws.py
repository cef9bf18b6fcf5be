"""The laws: what holds after every run, whatever was killed or broken while it went on.

Each law is a function that raises `AssertionError` with every breach that it found. Nothing here
asks the product, but for the status of a run: hosts are looked at from outside and Vault with the
root token, so that a product that lies is found out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from typing import TYPE_CHECKING, Any

from lab import bao, hosts, model
from lab.errors import LabError
from ways import OURS

from orchestrator.host import script

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clone_lab import CloneLab
    from ways import Ways

DONOR = "master"
RECIPIENT = "replica"
TRANSITION = "xbvault-transition"
LOCK_DIR = "/var/lib/xbvault"
OWN_FOLDERS = {
    "var/lib/xbvault",
    "var/lib/xbvault/jobs",
    "var/lib/xbvault/jobs/.guard",
    "var/lib/xbvault/runs",
}
"""What the product keeps on a host for good: empty folders, and the mutex of its jobs."""
CATCH_UP_SECONDS = 60
_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[a-z0-9]+-[0-9a-f]{8}")
_ACCOUNT = re.compile(r"xbvault_[0-9a-f]{8}")
_TABLES = """
SELECT table_schema, table_name FROM information_schema.tables
WHERE table_type IN ('BASE TABLE', 'SEQUENCE')
  AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
"""
_DIGESTS = f"""
%(flavor)s -N --batch --raw -e "{_TABLES}" | while IFS='\t' read -r schema table; do
    sum=$(%(dump)s "$schema" "$table" </dev/null |
        sed 's/%(unsaved)s//' | sha256sum)
    printf '%%s\\t%%s\\t%%s\\n' "$schema" "$table" "$sum"
done
"""
_SERVERS = f"""
for pid in $(pgrep -x {OURS.server}); do
    case $(tr '\\0' ' ' <"/proc/$pid/cmdline") in
    '' | *' --version '* | *' --help '*) ;;
    *) cut -d ' ' -f 1,22 "/proc/$pid/stat" ;;
    esac 2>/dev/null
done
"""
"""The server may be asked for its version meanwhile, by a process of the same name."""
_REPLICATION = (
    *(f"{OURS.source_word}_{name}" for name in ("Host", "User", "Port", "SSL_Allowed")),
    f"{OURS.source_word}_SSL_Verify_Server_Cert",
    *(f"{OURS.replica_word}_{name}_Running" for name in ("IO", "SQL")),
    "Using_Gtid",
    "Auto_Position",
    "Last_IO_Error",
    "Last_SQL_Error",
    "Until_Condition",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Before:
    """What was noted before a run, to be held against what is there later.

    Attributes:
        recipient: Whose earlier data it is about.
        donor_server: Pid and start time of the donor's server.
        donor_variables: Its global variables.
        donor_files: Paths of the donor's own files, data and logs left out.
        donor_accounts: Its accounts, ``user@host``.
        datadir_inode: Of the recipient's datadir.
        datadir_files: Names of the tables' files in it.
        keyring: Digest of the recipient's file of keys; empty where there is none.
        own_versions: Versions that can be read in the recipient's own mount, by key id.
    """

    recipient: str
    donor_server: str
    donor_variables: dict[str, str]
    donor_files: frozenset[str]
    donor_accounts: frozenset[str]
    datadir_inode: int
    datadir_files: frozenset[str]
    keyring: str
    own_versions: dict[str, frozenset[int]]


def note(lab: CloneLab, recipient: str = RECIPIENT) -> Before:
    """Note what a run must not change."""
    datadir = find_root(lab, recipient) / "var/lib/mysql"
    mount = _own_mount(lab, recipient)
    return Before(
        recipient=recipient,
        donor_server=read_server(lab, DONOR),
        donor_variables=_read_variables(lab, DONOR),
        donor_files=frozenset(_list_files(lab, DONOR)),
        donor_accounts=frozenset(_read_accounts(lab, DONOR)),
        datadir_inode=datadir.stat().st_ino,
        datadir_files=frozenset(_list_tables(datadir)),
        keyring=digest_file(find_root(lab, recipient) / OURS.keyring) if OURS.keyring else "",
        own_versions={
            key_id: _live_versions(lab, mount, key_id) for key_id in _list_secrets(lab, mount)
        },
    )


def check_recipient_equals_donor(lab: CloneLab, *recipients: str) -> None:
    """(a) A clone that says succeeded: every table of every user schema has the donor's rows.

    The writer is stopped for it, and left so; the donor's events rest meanwhile.
    """
    names = recipients or (RECIPIENT,)
    lab.lab("writer", "stop")
    scheduler = lab.sql(DONOR, "SELECT @@GLOBAL.event_scheduler")[0][0]
    lab.sql(DONOR, "SET GLOBAL event_scheduler = OFF")
    try:
        for name in names:
            wait_until_caught_up(lab, name)
        donor, *copies = (read_digests(lab, name) for name in (DONOR, *names))
    finally:
        lab.sql(DONOR, f"SET GLOBAL event_scheduler = {scheduler}")
    assert len(donor) > 15, f"only {len(donor)} tables were compared"
    raise_all(
        f"{table} differs: {donor.get(table)} on the donor, {copy.get(table)} on {name}"
        for name, copy in zip(names, copies, strict=True)
        for table in sorted(donor.keys() | copy.keys())
        if donor.get(table) != copy.get(table)
    )


def check_donor_is_as_it_was(lab: CloneLab, before: Before, *, accounts: set[str]) -> None:
    """(b) The donor runs on, takes writes, and nothing was left on it but the named accounts.

    Args:
        lab: The lab; its writer may be stopped.
        before: What was noted before the run.
        accounts: Users that a succeeded clone may have added.
    """
    breaches = check_donor_runs(lab, before)
    variables = _read_variables(lab, DONOR)
    breaches += [
        f"the donor's {name} is {variables.get(name)!r}, was {value!r}"
        for name, value in before.donor_variables.items()
        if variables.get(name) != value and not name.startswith("gtid_")
    ]
    left = set(_list_files(lab, DONOR)) - before.donor_files - OWN_FOLDERS
    breaches += [f"the donor has a new file {path}" for path in sorted(left)]
    breaches += [f"the donor has {path}" for path in _list_secret_files(lab, DONOR)]
    breaches += [f"on the donor runs {line}" for line in _find_tools(lab, DONOR)]
    added = {a.partition("@")[0] for a in set(_read_accounts(lab, DONOR)) - before.donor_accounts}
    if added != accounts:
        breaches.append(f"new accounts on the donor: {sorted(added)}, not {sorted(accounts)}")
    lab.sql(DONOR, "INSERT INTO live.ledger (amount, payload) VALUES (0, 'a write passes')")
    raise_all(breaches)


def check_donor_runs(lab: CloneLab, before: Before) -> list[str]:
    """(b, at any moment) Return what is wrong with the donor's server: it must never restart."""
    now = read_server(lab, DONOR)
    return [] if now == before.donor_server else [f"the donor's server is {now!r} now"]


def check_earlier_data(lab: CloneLab, before: Before) -> list[str]:
    """(c, at any moment) Return what is wrong with the recipient's earlier data and its keys."""
    library = find_root(lab, before.recipient) / "var/lib"
    at = [path for path in library.glob("mysql*") if path.stat().st_ino == before.datadir_inode]
    if len(at) != 1 or not (at[0].name == "mysql" or ".xbvault-old-" in at[0].name):
        return [f"the recipient's earlier datadir stands at {[path.name for path in at]}"]
    lost = before.datadir_files - set(_list_tables(at[0]))
    breaches = [f"the earlier datadir has lost {name}" for name in sorted(lost)]
    if before.keyring:
        file = find_root(lab, before.recipient) / OURS.keyring
        copies = [file, *file.parent.glob(f".xbvault/old-*/{file.name}")]
        if before.keyring not in {digest_file(path) for path in copies if path.exists()}:
            breaches.append("the recipient's earlier file of keys is gone")
    for key_id, versions in before.own_versions.items():
        gone = versions - _live_versions(lab, _own_mount(lab, before.recipient), key_id)
        breaches += [f"version {number} of the recipient's key {key_id} is gone" for number in gone]
    return breaches


def check_nothing_outlives(lab: CloneLab, backup_id: str, recipient: str = RECIPIENT) -> None:
    """(d) No transition mount, token, key, credential, staging or job is left of an ended run."""
    breaches = find_leftovers(lab, DONOR, recipient)
    key = request(lab, "GET", f"xbvault/metadata/transition-keys/{backup_id}")["data"]
    raise_all([*breaches, *find_live_key(key)])


def check_nothing_outlives_group(lab: CloneLab, backup_id: str, runs: Mapping[str, str]) -> None:
    """(d) The same of runs that share a key, once all of them have ended.

    Args:
        lab: The lab.
        backup_id: Name of the group.
        runs: Its runs by their recipients.
    """
    breaches: list[str] = []
    kept = list_keys(lab, "xbvault/metadata/transition-keys")
    for recipient, run in runs.items():
        breaches += find_leftovers(lab, DONOR, recipient)
        if f"{backup_id}.{run}" not in kept:
            breaches.append(f"run {run} has no record of its end")
    for name in kept:
        if name.partition(".")[0] == backup_id:  # one that nobody came to make is not there
            record = request(lab, "GET", f"xbvault/metadata/transition-keys/{name}")["data"]
            breaches += [f"{name}: {breach}" for breach in find_live_key(record)]
    raise_all(breaches)


def check_forgotten(lab: CloneLab, before: Before, run_id: str) -> None:
    """(c, its end) What the run set aside is given up, and what the clone in place needs is there.

    Args:
        lab: The lab.
        before: What was noted before the forget.
        run_id: The run that was forgotten, whose datadir is in place.
    """
    library = find_root(lab, before.recipient) / "var/lib"
    breaches = [f"{path.name} is left" for path in library.glob(f"mysql.xbvault-*{run_id}*")]
    if (library / "mysql").stat().st_ino != before.datadir_inode:
        breaches.append("the datadir in place is another one")
    users = {name.partition("@")[0] for name in _read_accounts(lab, DONOR)}
    ours = {name for name in users if _ACCOUNT.fullmatch(name)}
    if ours != {f"xbvault_{run_id.rpartition('-')[2]}"}:
        breaches.append(f"the donor has the accounts {sorted(ours)}")
    for key_id, versions in before.own_versions.items():
        kept = _live_versions(lab, _own_mount(lab, before.recipient), key_id)
        if not kept < versions:
            breaches.append(f"of key {key_id}, {sorted(kept)} are left of {sorted(versions)}")
    raise_all(breaches)


def check_ended(
    lab: CloneLab, run_id: str, status: str, recipient: str = RECIPIENT, *, lock_dir: str = LOCK_DIR
) -> None:
    """(e) The run says how it ended, and holds neither the recipient nor itself any more."""
    breaches = []
    shown = json.loads(lab.xbvault("runs", "show", run_id, "--json").stdout)
    if shown["status"] != status:
        breaches.append(f"run {run_id} is {shown['status']}, not {status}")
    holder = read_lock_holder(lab, recipient, lock_dir=lock_dir)
    if holder:
        breaches.append(f"run {holder} holds {recipient}")
    locks = lab.directory / "state/locks"
    breaches += [f"{path} is left" for path in (locks.iterdir() if locks.is_dir() else ())]
    raise_all(breaches)


def check_repeat_changes_nothing(lab: CloneLab, run_id: str, recipient: str = RECIPIENT) -> None:
    """(f) Resuming a run that has ended says so again, and changes nothing anywhere."""
    state, fence = read_state(lab, run_id, recipient), read_lock(lab, recipient)["fence"]
    shown = lab.xbvault("runs", "show", run_id, "--json").stdout
    log_file = lab.directory / "state/logs" / f"{run_id}.jsonl"
    logged = log_file.read_bytes()
    resumed = lab.xbvault("runs", "resume", run_id, "--json", check=False)
    assert json.loads(resumed.stdout)["status"] == json.loads(shown)["status"]
    assert lab.xbvault("runs", "show", run_id, "--json").stdout == shown
    assert read_state(lab, run_id, recipient) == state
    assert read_lock(lab, recipient)["fence"] == fence, "the recipient lock was taken"
    assert log_file.read_bytes() == logged, "something was done"


def read_state(lab: CloneLab, run_id: str, recipient: str = RECIPIENT) -> dict[str, Any]:
    """Return what a run left on both hosts and in Vault, with its own names blotted out.

    Two runs that came to the same end give the same answer.
    """
    library = find_root(lab, recipient) / "var/lib"
    datadir = (library / "mysql").stat()
    drop_ins = find_root(lab, recipient) / OURS.config_dir
    account = f"xbvault_{run_id.rpartition('-')[2]}"
    replication = read_replication(lab, recipient)
    return {
        "library": sorted({_blot(path.name) for path in library.iterdir()}),
        "run files": sorted(path.name for path in (library / f"xbvault/runs/{run_id}").glob("*")),
        "options": {path.name: _blot(path.read_text()) for path in sorted(drop_ins.iterdir())},
        "datadir": [datadir.st_uid, datadir.st_gid, oct(datadir.st_mode)],
        "variables": {
            name: value
            for name, value in _read_variables(lab, recipient).items()
            if not name.startswith("gtid_")
        },
        "replication": {name: _blot(replication.get(name, "")) for name in _REPLICATION},
        "follows with the run's account": replication.get(f"{OURS.source_word}_User") == account,
        "events": lab.sql(
            recipient,
            "SELECT event_schema, event_name, status FROM information_schema.events ORDER BY 1, 2",
        ),
        "account on the donor": [a for a in _read_accounts(lab, DONOR) if a.startswith(account)]
        != [],
        "accounts": sorted({_blot(a) for a in _read_accounts(lab, recipient)}),
        "processes": sorted(set(_read_processes(lab, recipient).values())),
        "secret files": _list_secret_files(lab, recipient) + _list_secret_files(lab, DONOR),
        "transition mounts": _list_transition_mounts(lab),
        "transition tokens": _list_transition_tokens(lab),
    }


def revoke_lost_tokens(lab: CloneLab) -> int:
    """Revoke transition tokens that nobody knows of any more, and return how many there were.

    One that Vault had made when the process was killed, before it could note the accessor, cannot
    be found by the product. Its value died with the process, and it ends after its period.
    """
    lost = _find_transition_tokens(lab)
    for accessor in lost:
        request(lab, "POST", "auth/token/revoke-accessor", {"accessor": accessor})
    return len(lost)


def read_replication(lab: CloneLab, recipient: str = RECIPIENT) -> dict[str, str]:
    """Return the state of replication on the recipient; empty where there is none."""
    shown = on_host(lab, recipient, "sh", "-c", OURS.status)
    lines = (line.strip().partition(": ") for line in shown.splitlines())
    return {name.rstrip(":"): value for name, _, value in lines if name}


def read_server(lab: CloneLab, name: str) -> str:
    """Return pid and start time of a host's server; empty if none runs."""
    return " ".join(on_host(lab, name, "sh", "-c", _SERVERS).split())


def read_lock(
    lab: CloneLab, recipient: str = RECIPIENT, *, lock_dir: str = LOCK_DIR
) -> dict[str, str]:
    """Return the recipient lock as it stands."""
    text = on_host(lab, recipient, "sh", "-s", "--", "read", lock_dir, stdin=script("lock.sh"))
    return dict(line.split("=", 1) for line in text.splitlines())


def read_lock_holder(lab: CloneLab, recipient: str = RECIPIENT, *, lock_dir: str = LOCK_DIR) -> str:
    """Return the run that holds the recipient; empty if none does."""
    return read_lock(lab, recipient, lock_dir=lock_dir)["run"]


def wait_until_caught_up(lab: CloneLab, recipient: str = RECIPIENT) -> None:
    """Wait until the recipient has applied all that the donor has now."""
    wanted = lab.sql(DONOR, OURS.position)[0][0]
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while lab.sql(recipient, OURS.wait.format(wanted)) != [["0"]]:
        assert time.monotonic() < deadline, f"the recipient does not reach {wanted}"


def find_live_key(key: dict[str, Any]) -> list[str]:
    """Return what is not destroyed of a key and its record, as Vault's metadata has them."""
    state = (key["custom_metadata"] or {}).get("state")
    breaches = [] if state == "destroyed" else [f"the transition key's record says {state}"]
    return breaches + [
        f"version {number} of the transition key can be read"
        for number, version in key["versions"].items()
        if not version["destroyed"]
    ]


def find_leftovers(lab: CloneLab, *names: str) -> list[str]:
    """Return what is left of ended runs in Vault and on these hosts."""
    breaches = [f"the mount {mount} is there" for mount in _list_transition_mounts(lab)]
    breaches += [f"a token with {policies} lives" for policies in _list_transition_tokens(lab)]
    for name in names:
        breaches += [f"{name} has {path}" for path in _list_secret_files(lab, name)]
        breaches += [f"on {name} runs {line}" for line in _find_tools(lab, name)]
        library = find_root(lab, name) / "var/lib"
        jobs = (library / "xbvault/jobs").glob("*")
        breaches += [f"{name} has the job {path.name}" for path in jobs if path.name != ".guard"]
        for kind in ("staging", "new"):
            found = library.glob(f"mysql.xbvault-{kind}-*")
            breaches += [f"{name} has {path.name}" for path in found]
        keyrings = (library / "mysql-keyring").glob(".xbvault/new-*")
        breaches += [f"{name} has a keyring {path.name}" for path in keyrings]
    return breaches


def raise_all(breaches: Any) -> None:
    """Raise with every breach that was found, if there is one.

    Raises:
        AssertionError: There is.
    """
    found = list(breaches)
    assert not found, "\n".join(found)


def _blot(text: str) -> str:
    return _ACCOUNT.sub("xbvault_RUN", _RUN_ID.sub("RUN", text))


def find_root(lab: CloneLab, name: str) -> Path:
    """Return a host's own files as this machine sees them; its tmpfs is not among them."""
    return model.load(lab.directory).host(name).root


def on_host(lab: CloneLab, name: str, *argv: str, stdin: str = "") -> str:
    """Run a command on a host without the detour over the lab's command line."""
    loaded = model.load(lab.directory)
    return hosts.run_on(loaded, loaded.host(name), *argv, stdin=stdin, timeout_seconds=60).stdout


def request(
    lab: CloneLab, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Ask Vault with the root token."""
    loaded = model.load(lab.directory)
    return bao.request(loaded, method, path, body, token=bao.root_token(loaded))


def list_keys(lab: CloneLab, path: str) -> list[str]:
    """Return what Vault lists there; nothing there is no error."""
    try:
        return list(request(lab, "LIST", path)["data"]["keys"])
    except LabError as error:
        if " 404 " in error.message:
            return []
        raise


def _list_secrets(lab: CloneLab, mount: str) -> list[str]:
    return list_keys(lab, f"{mount}/metadata")


def _live_versions(lab: CloneLab, mount: str, key_id: str) -> frozenset[int]:
    versions = request(lab, "GET", f"{mount}/metadata/{key_id}")["data"]["versions"]
    return frozenset(
        int(number)
        for number, version in versions.items()
        if not version["destroyed"] and not version["deletion_time"]
    )


def _list_transition_mounts(lab: CloneLab) -> list[str]:
    mounts = request(lab, "GET", "sys/mounts")["data"]
    return sorted(mount for mount in mounts if mount.startswith(f"{TRANSITION}/"))


def _list_transition_tokens(lab: CloneLab) -> list[str]:
    return sorted(_find_transition_tokens(lab).values())


def _find_transition_tokens(lab: CloneLab) -> dict[str, str]:
    """Return the policy of each transition token by its accessor."""
    found: dict[str, str] = {}
    for accessor in list_keys(lab, "auth/token/accessors"):
        token = request(lab, "POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        for name in token["policies"]:
            if name.startswith(TRANSITION):
                found[accessor] = name
    return found


def read_digests(lab: CloneLab, name: str, ways: Ways = OURS) -> dict[str, str]:
    """Return the digest of every table of a host's server, as it is dumped."""
    asked = {"flavor": ways.flavor, "dump": ways.dump, "unsaved": ways.unsaved}
    rows = (
        line.split("\t") for line in on_host(lab, name, "sh", "-c", _DIGESTS % asked).splitlines()
    )
    return {f"{schema}.{table}": digest for schema, table, digest in rows}


def _read_variables(lab: CloneLab, name: str) -> dict[str, str]:
    rows = lab.sql(name, "SHOW GLOBAL VARIABLES")
    found = {row[0].lower(): "\t".join(row[1:]) for row in rows}
    found.pop("server_uuid", "")  # every new datadir gets one of its own
    return found


def _read_accounts(lab: CloneLab, name: str) -> list[str]:
    return [
        "@".join(row) for row in lab.sql(name, "SELECT user, host FROM mysql.user ORDER BY 1, 2")
    ]


def _read_processes(lab: CloneLab, name: str) -> dict[str, str]:
    """Return the names of a host's processes by pid, our own look at them left out."""
    lines = on_host(lab, name, "ps", "-e", "-o", "pid=,comm=").splitlines()
    found = dict(line.split(None, 1) for line in lines)
    return {pid: comm for pid, comm in found.items() if comm != "ps"}


def _find_tools(lab: CloneLab, name: str) -> list[str]:
    """Return what still runs of a run's jobs."""
    lines = on_host(lab, name, "ps", "-e", "-o", "comm=,args=").splitlines()
    return [
        line
        for line in lines
        if line.split()[0] in OURS.tools or (_RUN_ID.search(line) and "ps -e" not in line)
    ]


def _list_secret_files(lab: CloneLab, name: str) -> list[str]:
    """Return what lies on a host's tmpfs under our name."""
    return on_host(
        lab, name, "sh", "-c", "[ ! -e /run/xbvault ] || find /run/xbvault -mindepth 1"
    ).split()


def _list_files(lab: CloneLab, name: str) -> list[str]:
    """Return the paths of a host's own files, but for the server's data and all logs."""
    root = find_root(lab, name)
    paths = (str(path.relative_to(root)) for path in root.rglob("*"))
    return [path for path in paths if not path.startswith(("var/lib/mysql/", "var/log/"))]


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _own_mount(lab: CloneLab, recipient: str) -> str:
    return model.load(lab.directory).host(recipient).vault_mount


def _list_tables(datadir: Path) -> list[str]:
    return [str(path.relative_to(datadir)) for path in datadir.rglob(OURS.table_files)]
