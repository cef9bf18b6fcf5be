"""A laboratory in which everybody has exactly what the product prints, and nothing else."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import secrets
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from lab import hosts, model, servers
from vault_root import VaultRoot
from warm_cli import warm_cli

from orchestrator.privileges import database

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from clone_lab import CloneLab
    from warm_cli import WarmCli

DONOR, RECIPIENT = "master", "replica"
ACCOUNTS = {DONOR: "xbvault_donor", RECIPIENT: "xbvault_recipient"}
PLAN = ("clone", DONOR, RECIPIENT, "--replace", "--plan")
OPTION_FILE = "/etc/mysql/xbvault.cnf"
LINE = (
    'restrict,command="sudo -n /usr/local/sbin/xbvault-receive \\"$SSH_ORIGINAL_COMMAND\\"" '
    "xbvault-receive-{host}\n"
)
_STANZA = re.compile(r'path "(?P<path>[^"]+)" \{\s*capabilities = \[(?P<listed>[^]]*)\]\s*\}')
_GRANT = re.compile(r"^GRANT (?P<listed>.+) ON \*\.\* TO '(?P<user>\w+)'@'localhost'(?P<more>.*);")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Printed:
    """What ``vault init --print-policy --json`` prints, taken apart.

    Attributes:
        policies: Text of every policy by its name.
        grants: The statements; those for each series of servers that wants others.
        sudoers: The file of every host.
    """

    policies: dict[str, str]
    grants: str
    sudoers: dict[str, str]

    def rights(self, policy: str) -> list[tuple[str, str]]:
        """Return the pairs of path and capability in a policy."""
        return [
            (found["path"], capability)
            for found in _STANZA.finditer(self.policies[policy])
            for capability in re.findall(r'"(\w+)"', found["listed"])
        ]

    @property
    def statements(self) -> str:
        """The statements for the newest series."""
        return self.grants.split("\n-- xbvault")[0]

    def privileges(self, user: str) -> list[str]:
        """Return what an account is granted."""
        for line in self.statements.splitlines():
            found = _GRANT.match(line)
            if found and found["user"] == user:
                more = ["GRANT OPTION"] if "GRANT OPTION" in found["more"] else []
                return [*found["listed"].split(", "), *more]
        raise AssertionError(f"no grants for {user}")

    def rules(self, host: str) -> list[str]:
        """Return the rules of a host's sudoers."""
        return [line for line in self.sudoers[host].splitlines() if not line.startswith("#")]


class LeastLab:
    """The lab, as its administrators see it.

    Args:
        lab: The lab.
        cli: Runs ``xbvault``, with `config_file`.
    """

    def __init__(self, lab: CloneLab, cli: WarmCli) -> None:
        self.lab = lab
        self.vault = VaultRoot(lab.directory)
        self._cli = cli
        self._model = model.load(lab.directory)
        self.printed = Printed(**self.document("vault", "init", "--print-policy"))

    def root(self, host: str) -> Path:
        """Return a host's own files as this machine sees them."""
        return self._model.host(host).root

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``xbvault … --json``."""
        return self._cli.call(*arguments, "--json")

    def document(self, *arguments: str) -> dict[str, Any]:
        """Run ``xbvault … --json``, which must go well, and return what it answers."""
        done = self.call(*arguments)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def sql(self, host: str, statements: str) -> str:
        """Run SQL as root on a host."""
        return servers.execute(self._model, self._model.host(host), statements)

    def apply(self) -> None:
        """Give everybody what is printed, and take all else away: root logs in nowhere."""
        for name, text in self.printed.policies.items():
            self.vault.write_policy(name, text)
        password = secrets.token_hex(16)
        grants = self.printed.statements.replace("'PASSWORD'", f"'{password}'")
        for host, user in ACCOUNTS.items():
            self.sql(host, grants)
            self.write(host, OPTION_FILE, f"[client]\nuser = {user}\npassword = {password}\n")
            self.write(host, "/etc/ssh/principals/dba", LINE.format(host=host), mode=0o644)
            (self.root(host) / "etc/ssh/principals/root").unlink()
            (self.root(host) / "root/.ssh/authorized_keys").unlink()
            self.write_sudoers(host, self.printed.sudoers[host])

    def write(self, host: str, path: str, text: str, *, mode: int = 0o600) -> None:
        """Write a file of root's on a host."""
        target = self.root(host) / path.lstrip("/")
        target.write_text(text)
        target.chmod(mode)

    def write_sudoers(self, host: str, text: str) -> None:
        """Replace a host's rules."""
        self.write(host, f"/etc/sudoers.d/{hosts.LOGIN}", text, mode=0o440)

    @contextmanager
    def without_right(self, policy: str, path: str, *capabilities: str) -> Iterator[None]:
        """Take capabilities on one path out of a policy, and put them back."""
        text = self.printed.policies[policy]

        def change(found: re.Match[str]) -> str:
            if found["path"] != path:
                return found[0]
            listed = [c for c in re.findall(r'"(\w+)"', found["listed"]) if c not in capabilities]
            words = ", ".join(f'"{c}"' for c in listed)
            return f'path "{path}" {{ capabilities = [{words}] }}' if listed else ""

        changed = _STANZA.sub(change, text)
        assert changed != text
        self.vault.write_policy(policy, changed)
        try:
            yield
        finally:
            self.vault.write_policy(policy, text)

    @contextmanager
    def without_privilege(self, host: str, user: str, privilege: str) -> Iterator[None]:
        """Take one privilege from an account on a host's server, and give it back."""
        listed = self.printed.privileges(user)
        self._grant_anew(host, user, [name for name in listed if name != privilege])
        try:
            yield
        finally:
            self._grant_anew(host, user, listed)

    def _grant_anew(self, host: str, user: str, privileges: list[str]) -> None:
        """Grant these and no others. MySQL 9.7 keeps a dynamic one twice that lost its grant option."""
        revoke = f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{user}'@'localhost'"
        self.sql(host, f"{revoke}; {database.grant_sql(user, 'localhost', tuple(privileges))}")

    @contextmanager
    def without_rule(self, host: str, rule: str) -> Iterator[None]:
        """Take one rule from a host's sudoers, and put it back."""
        text = self.printed.sudoers[host]
        assert f"{rule}\n" in text
        self.write_sudoers(host, text.replace(f"{rule}\n", ""))
        try:
            yield
        finally:
            self.write_sudoers(host, text)

    def read_recipient(self) -> tuple[int, list[str], list[str]]:
        """Return what a run would change first: the datadir itself, its neighbours, its options."""
        root = self.root(RECIPIENT)
        datadir, options = root / "var/lib/mysql", root / f"etc/mysql/{self._model.flavor}.conf.d"
        return datadir.stat().st_ino, _list(datadir.parent), _list(options)


def _list(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "xbvault")


def find_used_rights(
    lab: CloneLab, printed: Printed, policy: str, *, address: str = ""
) -> set[tuple[str, str]]:
    """Return the rights of a policy that were used, as Vault's audit log has them.

    Args:
        lab: The lab.
        printed: What was granted.
        policy: Name of the policy.
        address: Count only requests from there; empty: from everywhere.
    """
    forms = {
        path: re.compile(re.escape(path).replace(r"\+", "[^/]+").replace(r"\*", ".*") + "/?")
        for path, _ in printed.rights(policy)
    }
    used = set()
    for line in (lab.directory / "vault/audit.log").read_text().splitlines():
        entry = json.loads(line)
        request = entry["request"]
        if entry["type"] != "response" or policy not in entry.get("auth", {}).get("policies", []):
            continue
        if entry.get("error") or (address and request["remote_address"] != address):
            continue
        for path, form in forms.items():
            if form.fullmatch(request["path"]):
                used.add((path, request["operation"]))
    return used


def _write_config(lab: CloneLab) -> Path:
    """Write a configuration with logins that are not root, on hosts and servers."""
    text = (lab.directory / "xbvault-dba.toml").read_text()
    for host in ACCOUNTS:
        text = text.replace(f"[hosts.{host}]\n", f'[hosts.{host}]\nreceive_user = "dba"\n')
        header = f"[hosts.{host}.server]\n"
        text = text.replace(header, f'{header}defaults_file = "{OPTION_FILE}"\n')
    path = lab.directory / "least.toml"
    path.write_text(text)
    return path


def read_error(done: subprocess.CompletedProcess[str]) -> str:
    """Return all that a refused command said, findings that do not hold included."""
    document = json.loads(done.stdout)
    bad = [check for check in document.get("checks") or () if not check["ok"]]
    return json.dumps([document["error"], bad], ensure_ascii=False).replace('\\"', '"')


def lacks(user: str, privilege: str) -> re.Pattern[str]:
    """Return how a privilege is named that an account has not got."""
    return re.compile(rf"{user}@localhost lacks {privilege} on \*\.\*")


def find_silent(
    least: LeastLab,
    taken: Iterable[AbstractContextManager[None]],
    command: tuple[str, ...],
    *,
    status: int,
    says: Iterable[re.Pattern[str]],
) -> list[str]:
    """Take things away, run a command, and return what is wrong with its refusal."""
    before = least.read_recipient()
    with ExitStack() as stack:
        for one in taken:
            stack.enter_context(one)
        done = least.call(*command)
    said = read_error(done)
    wrong = [f"does not say {form.pattern}: {said}" for form in says if not form.search(said)]
    if done.returncode != status:
        wrong.append(f"status {done.returncode}, not {status}: {said}")
    if not re.search(r'"hint": "[^"]', said):
        wrong.append(f"no hint: {said}")
    if least.read_recipient() != before:
        wrong.append(f"the recipient was touched: {said}")
    return wrong


def find_unnamed_privileges(least: LeastLab) -> list[str]:
    """Take each privilege from its account, one of each at a time, and return what goes unsaid.

    The recipient's account is looked at on the donor. Where the donor's loses what it needs to look,
    it is the only one that is named.
    """
    wrong = []
    listed = [least.printed.privileges(user) for user in ACCOUNTS.values()]
    for privileges in itertools.zip_longest(*map(reversed, listed)):
        lost = [pair for pair in zip(ACCOUNTS.values(), privileges, strict=True) if pair[1]]
        named = lost[:1] if "SELECT" in privileges[:1] else lost
        wrong += find_silent(
            least,
            [least.without_privilege(DONOR, *pair) for pair in lost],
            PLAN,
            status=3,
            says=[lacks(*pair) for pair in named],
        )
    return wrong


def find_unnamed_before(least: LeastLab, privilege: str) -> list[str]:
    """Take a privilege on the server that is to be set aside, and return what goes unsaid."""
    user = ACCOUNTS[RECIPIENT]
    taken = least.without_privilege(RECIPIENT, user, privilege)
    says = re.compile(rf"the server that {RECIPIENT} has now, {lacks(user, privilege).pattern}")
    return find_silent(least, [taken], PLAN, status=3, says=[says])


@contextmanager
def least_lab(lab: CloneLab) -> Iterator[LeastLab]:
    """Give everybody in a laboratory exactly what is printed."""
    with warm_cli(_write_config(lab)) as cli:
        found = LeastLab(lab, cli)
        found.apply()
        yield found
