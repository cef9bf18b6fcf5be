"""Hosts and a Vault that answer with the facts in ``fixtures/facts``."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from fake_remote import HOST_KEY, FakeRemote
from requests.adapters import BaseAdapter

from orchestrator import config as config_module
from orchestrator import flavors, host, plan, sql
from orchestrator.cli.backend import Backend
from orchestrator.facts import hosts
from orchestrator.facts.preflight import Request
from orchestrator.models import Secret
from orchestrator.remote import Result
from orchestrator.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fake_remote import Call

    from orchestrator.config import Config
    from orchestrator.models import Check, Plan

FACTS = Path(__file__).resolve().parents[2] / "fixtures" / "facts"
COMMON = FACTS / "common"
CELLS = tuple(sorted(path.name for path in FACTS.iterdir() if (path / "xbvault.toml").is_file()))
DONOR, RECIPIENT = "db1", "db2"
TOKENS = {name: Secret(f"s.recordedTokenOf-{name}") for name in ("orchestrator", DONOR, RECIPIENT)}
MOMENT = 1_795_304_152
DAY = 86_400
RIGHTS = ["create", "read", "update", "delete", "list"]
STRANGER = "ERROR 1045 (28000): Access denied for user 'xbvault'@'db2' (using password: NO)"
"""What a server says to a client without an account there, when it has trusted its certificate."""


_END = re.compile(r";\nSELECT '([0-9a-f]{32})' AS xbvault_end;\n")
"""What ends each of several statements that are asked at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Versions:
    """What the programs of a host say of their versions, in place of what was recorded.

    Attributes:
        server: The server's words.
        tool: The backup tool's words.
    """

    server: str
    tool: str


class RecordedBackend(Backend):
    """The real rooms, over the doors to recorded hosts.

    Args:
        cell: Folder below ``fixtures/facts``.
        versions: Other words of the programs than those that were recorded.
    """

    def __init__(self, cell: str, versions: Versions | None = None) -> None:
        self._cell, self._versions = cell, versions
        self.path = FACTS / cell / "xbvault.toml"

    def make_plan(  # noqa: D102 - described where `Backend` has it
        self,
        config: Config,
        donor: str,
        recipient: str,
        **asked: Any,
    ) -> tuple[Plan, Sequence[Check]]:
        options = plan.CloneOptions(**asked)
        made = plan.plan_clone(
            config,
            open_vault(config, _read("vault.txt", self._cell)),
            make_remote(config, donor, self._cell, self._versions),
            make_remote(config, recipient, self._cell, self._versions),
            Request(
                donor=donor,
                recipient=recipient,
                run_id=f"20261121T210500Z-{recipient}-1d4e77c0",
                backup_id=f"20261121T210500Z-{donor}-6f2c09ab",
                replace=options.replace,
                require_encryption=options.require_encryption,
                source=options.source or "",
                **plan.read_manner(config, options),
            ),
            options=options,
        )
        return made.plan, made.checks


def read_config(cell: str) -> Config:
    """Return the configuration of a cell."""
    return config_module.load(FACTS / cell / "xbvault.toml")


def make_remote(
    config: Config, name: str, cell: str, versions: Versions | None = None
) -> FakeRemote:
    """Return a host that says what was recorded; ``db1`` has the server that runs."""
    role = "donor" if name == DONOR else "recipient"
    lines = [line for file in ("host.txt", f"{role}.txt") for line in _read_both(file, cell)]
    if versions:
        lines = [line for line in lines if not line.startswith("version.")]
        lines += [f"version.server\t{versions.server}", f"version.backup\t{versions.tool}"]
    facts = "\n".join(lines) + "\n"
    directories = dict(line.split("\t", 1) for line in _read("directories.txt", cell))

    def run_script(call: Call) -> Result:
        if call.stdin == hosts.facts_script().encode():
            now = f"epoch\t{time.time()}\nreceiver_sha256\t{hosts.receiver_sha256()}\n"
            return _say(f"{now}{facts}")
        if call.stdin == host.script("places.sh").encode():
            return _say(_describe_directories(call.argv[4::2], directories))
        if call.stdin == host.script("sample.sh").encode():
            return _say("\n".join(_read(f"wire-{role}.txt", cell)) + "\n")
        assert call.stdin == host.script("lock.sh").encode()
        return _say("run=\nholder=\nfence=0\nlive=0\nleft=0\nchanged_by=\nchanged_fence=0\n")

    made = FakeRemote(
        name,
        files={
            config.host(name).vault_env_file: f"VAULT_TOKEN={TOKENS[name].reveal()}\n",
        },
        answers={("sh", "-s", "--"): run_script},
    )
    peer = config.host(RECIPIENT if name == DONOR else DONOR)
    made.answer("timeout", "5", "getent", "ahosts", stdout=f"{peer.address} STREAM\n")
    made.answer("ssh-keyscan", stdout=f"{peer.address} {HOST_KEY}\n")
    made.answer("sh", "-c", stdout="root\n")
    answers = _read_sections("server.txt", cell)
    words = {_statements(config, name, cell)[key]: text for key, text in answers.items()}
    client = flavors.of(config.host(name)).programs(config.host(name)).client
    made.answer("timeout", "20", client, status=1, stderr=STRANGER)
    asked = sql.client_command(config.host(name))
    program = tuple(asked[: asked.index(client) + 1])
    made.answers[program] = lambda call: _say(_find(words, call.stdin.decode()))
    return made


def open_vault(config: Config, mounts: Sequence[str]) -> Vault:
    """Return the door to a Vault with these mounts; each line has a path and its KV version."""
    vault = Vault.from_config(config.vault, token=TOKENS["orchestrator"])
    recorded = RecordedVault(config, dict(line.split("\t") for line in mounts))
    vault._session.mount("https://", recorded)
    return vault


class RecordedVault(BaseAdapter):
    """Answers as a Vault that `vault init` has set up: each host reads its own mount alone.

    Args:
        config: The configuration.
        mounts: KV versions by mount.
    """

    def __init__(self, config: Config, mounts: Mapping[str, str]) -> None:
        super().__init__()
        self._config = config
        self._mounts = {
            path: {"type": "kv", "options": {"version": version}, "path": f"{path}/"}
            for path, version in mounts.items()
        }

    def send(
        self, request: requests.PreparedRequest, *_more: Any, **_options: Any
    ) -> requests.Response:
        """Answer."""
        path = request.path_url.removeprefix("/v1/").partition("?")[0]
        token = Secret(str(request.headers.get("X-Vault-Token", "")))
        who = next((name for name, known in TOKENS.items() if known == token), "")
        sent = request.body if isinstance(request.body, bytes | str) else "{}"
        found = self._find(path, who, json.loads(sent))
        response = requests.Response()
        response.status_code, body = found
        response._content = json.dumps(body).encode()
        response.request, response.url = request, str(request.url)
        return response

    def close(self) -> None:
        """Close nothing."""

    def _find(self, path: str, who: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        token = {"ttl": 31 * DAY, "period": 32 * DAY, "renewable": True, "accessor": "a"}
        fixed: dict[str, Any] = {
            "sys/health": {
                "initialized": True,
                "sealed": False,
                "standby": False,
                "version": "1.21.1",
                "server_time_utc": MOMENT,
            },
            "auth/token/lookup-self": {"data": {**token, "policies": ["p"], "expire_time": None}},
            "sys/capabilities-self": {"data": dict.fromkeys(body.get("paths", ()), RIGHTS)},
            "sys/mounts": {"data": {f"{path}/": info for path, info in self._mounts.items()}},
            "xbvault-ssh/config/ca": {"data": {"public_key": _read_ca()}},
            **{f"sys/internal/ui/mounts/{p}": {"data": info} for p, info in self._mounts.items()},
            **{f"{p}/config": {"data": {"max_versions": 1000}} for p in self._mounts},
            **{f"{p}/metadata": {"data": {"keys": ["1", "2"]}} for p in self._mounts},
        }
        if path in fixed:
            return 200, fixed[path]
        if who in (DONOR, RECIPIENT) and f"{path}/".startswith(f"keys/{who}/"):
            return 404, {"errors": []}
        return 403, {"errors": ["permission denied"]}


def _statements(config: Config, name: str, cell: str) -> dict[str, str]:
    """Return the beginning of each statement that a survey asks, by the name of its answer."""
    flavor = flavors.of(config.host(name))
    rows = _read_sections("server.txt", cell)["variables"].splitlines()
    version = dict(row.split("\t") for row in rows)["version"]
    dialect = flavor.dialect(version)
    return {
        "own account": "SELECT HEX(CURRENT_USER())",
        "account": "SELECT HEX(CONCAT(User,",
        "privileges": "SELECT PRIVILEGE_TYPE",
        "variables": flavor.variables_sql,
        "summary": dialect.summary_sql,
        "keyring": dialect.keyring_sql,
        "replicas": dialect.replicas_sql,
        "status": dialect.status_sql,
        "sources": dialect.sources_sql,
        "unquoted": dialect.unquoted_sql or "never asked",
        "datafiles": dialect.datafiles_sql or "never asked either",
    }


def _find(answers: Mapping[str, str], statement: str) -> str:
    *several, rest = _END.split(statement)
    if several:
        assert rest == ""
        asked = zip(several[::2], several[1::2], strict=True)
        return "".join(f"{_find(answers, text)}xbvault_end\n{mark}\n" for text, mark in asked)
    found = [text for begin, text in answers.items() if statement.startswith(begin)]
    assert found, f"no answer was recorded to {statement}"
    return found[0]


def _describe_directories(paths: Sequence[str], known: Mapping[str, str]) -> str:
    lines = []
    for index, path in enumerate(paths):
        if path in known:
            filesystem, free = known[path].split("\t")
            lines += [
                f"{index}.real\t{path}",
                f"{index}.filesystem\t{filesystem}",
                f"{index}.free_bytes\t{free}",
                f"{index}.bytes\t0",
            ]
    return "".join(f"{line}\n" for line in lines)


def _say(text: str) -> Result:
    return Result(status=0, stdout=text.encode(), stderr="")


def _read_ca() -> str:
    lines = (line.partition("\t") for line in _read("host.txt", "common"))
    return next(value for key, _, value in lines if key == "trusted_ca")


def _read(name: str, cell: str) -> list[str]:
    """Return the lines of a cell's file; of the common one where it has none."""
    own = FACTS / cell / name
    return (own if own.is_file() else COMMON / name).read_text("utf-8").splitlines()


def _read_both(name: str, cell: str) -> list[str]:
    """Return the lines of the common file and those of the cell's."""
    files = [path for path in (COMMON / name, FACTS / cell / name) if path.is_file()]
    return [line for path in files for line in path.read_text("utf-8").splitlines()]


def _read_sections(name: str, cell: str) -> dict[str, str]:
    """Return texts by the name above them; a cell's stand in place of the common ones."""
    sections: dict[str, str] = {}
    for path in (COMMON / name, FACTS / cell / name):
        for part in f"\n{path.read_text('utf-8')}".split("\n[")[1:]:
            title, _, text = part.partition("]\n")
            sections[title] = text.rstrip("\n") + "\n" if text.strip() else ""
    return sections
