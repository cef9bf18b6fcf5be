"""The documents: links resolve, and what they list is what the code has."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import compatibility
import golden
import pytest

from orchestrator import (
    config,
    errors,
    jobs,
    metrics,
    models,
    playbook,
    schedule,
    steps,
    summary,
    vault_setup,
)
from orchestrator.cli import view
from orchestrator.cli.main import app
from orchestrator.durable import StepRecord
from orchestrator.privileges import database, sudo
from orchestrator.steps import bottleneck, stream_ends
from orchestrator.steps.drill import RecoveryPoint
from orchestrator.steps.drill_replication import WatchedReplication
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pydantic

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
KINDS = {"tutorial", "how-to", "reference", "explanation", "decisions"}
ONE_SCREEN = 60
ONE_PAGE = 60
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SECOND_SENTENCE = re.compile(r"[^.…\d][.!?] [A-Z]")


def name(page: Path) -> str:
    """Return a page's path as a test id."""
    return str(page.relative_to(ROOT))


def read_page(path: str) -> str:
    """Return the text of a page below ``docs``."""
    return TEXTS[DOCS / path]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the anchors that a reader's program makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_between_pages_resolve(page: Path) -> None:
    """Every link that is not to another site names a file that is there, and a heading in it."""
    for target in _LINK.findall(prose(TEXTS[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", [p for p in PAGES if DOCS in p.parents], ids=name)
def test_a_page_is_of_one_kind_and_can_be_reached(page: Path) -> None:
    """It lies in the folder of its kind, has one title, and another page links to it."""
    assert page.relative_to(DOCS).parts[0] in KINDS
    assert len(re.findall(r"^# ", prose(TEXTS[page]), re.MULTILINE)) == 1
    linked = {
        (other.parent / target.partition("#")[0]).resolve()
        for other, text in TEXTS.items()
        for target in _LINK.findall(text)
        if other != page
    }
    assert page in linked


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_one_sentence_stands_on_one_line(page: Path) -> None:
    """So that a change shows as the sentence that it changes; tables and quoted blocks aside."""
    lines = prose(TEXTS[page]).splitlines()
    long = [line for line in lines if not line.startswith("|") and _SECOND_SENTENCE.search(line)]
    assert long == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_console_or_code_block_is_closed(page: Path) -> None:
    """An open fence would hide the rest of the page from every other test here."""
    assert len(re.findall(r"^```", TEXTS[page], re.MULTILINE)) % 2 == 0


def test_the_readme_fits_on_one_screen() -> None:
    """It says what it does, shows one example, and leads on."""
    text = TEXTS[ROOT / "README.md"]
    assert len(text.splitlines()) <= ONE_SCREEN
    for word in ("make demo", "make test", "xbvault clone master replica"):
        assert word in text
    for folder in KINDS:
        assert f"(docs/{folder}/" in text


def test_decisions_are_numbered_one_page_each_and_listed_in_the_first() -> None:
    """Numbers have no gap; each has the sections of a record."""
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for number, page in enumerate(pages, 1):
        text = TEXTS[page]
        assert text.startswith(f"# {number}. ")
        assert len(text.splitlines()) <= ONE_PAGE
        for section in ("Status: ", "## Context", "## Decision", "## What it costs"):
            assert section in text
        assert number == 1 or f"]({page.name})" in TEXTS[pages[0]]


def commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command under a group, with its words."""
    if isinstance(command, click.Group):
        for word, child in command.commands.items():
            yield from commands(child, f"{path} {word}".strip())
    else:
        yield path, command


def test_the_page_of_commands_lists_every_command_and_no_other() -> None:
    """One line a command."""
    listed = set(re.findall(r"^\| `xbvault ([a-z ]+?)[ `]*(?:[A-Z\[`])", COMMANDS, re.MULTILINE))
    assert listed == {path for path, _ in commands(app)}


COMMANDS = read_page("reference/commands.md")


@pytest.mark.parametrize(("path", "command"), list(commands(app)))
def test_every_option_stands_on_the_page_of_commands(path: str, command: click.Command) -> None:
    """A new option is a new line there."""
    options = [o for p in (*command.params, *app.params) for o in p.opts if o.startswith("--")]
    assert [option for option in options if f"`{option}" not in COMMANDS] == [], path


def test_pages_show_no_command_or_option_that_is_not_there() -> None:
    """What a page tells a reader to type, the command line takes."""
    known = dict(commands(app))
    shown = 0
    for page, text in TEXTS.items():
        blocks = "\n".join(_FENCE.findall(text)).replace("\\\n", " ")
        inline = "\n".join(re.findall(r"`(xbvault [^`\n]+)`", prose(text)))
        typed = re.compile(r"(?:^|[ |;/])xbvault ([a-z][^|;&\n]*)", re.MULTILINE)
        for line in typed.findall(f"{blocks}\n{inline}"):
            words = re.findall(r"[^\s`]+", line)
            path = words[0] if words[0] in known else " ".join(words[:2])
            if path not in known:  # a sentence, or a path that ends in the name
                assert words[0] not in {known_path.split()[0] for known_path in known}, (page, line)
                continue
            shown += 1
            options = {o for p in known[path].params for o in p.opts}
            used = [word for word in words if word.startswith("--")]
            assert [word for word in used if word not in options] == [], (page, line)
    assert shown > 50


def test_the_page_of_documents_has_every_key() -> None:
    """One line a key, in the order of the document, and no other."""
    page = read_page("reference/documents.md")
    sections = dict(section.split("\n", 1) for section in page.split("\n## ")[1:])
    empty = summary.build_empty_document()
    more = ["progress", "steps", "parts"]
    assert list_keys(sections["Of a run"]) == [*empty, *more]
    assert list_keys(sections["Of a backup"]) == [*summary.build_empty_backup_document()]
    assert list_keys(sections["Of a restore"]) == [*summary.build_empty_restore_document()]
    drill = sections["Of a drill"].partition("The phases are")
    assert list_keys(drill[0]) == [*summary.build_empty_drill_document()]
    assert re.findall(r"`([a-z -]+)`", drill[2].partition("\n")[0]) == [*summary.PHASES]
    of_point, _, of_replication = drill[2].partition("`replication` has:")
    for text, kind in ((of_point, RecoveryPoint), (of_replication, WatchedReplication)):
        told_of = {
            key
            for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
            for key in re.findall(r"`(\w+)`", row)
        }
        assert told_of == {field.name for field in dataclasses.fields(kind)} - {"checks"}
    transfer = stream_ends.Stream(bytes=1, seconds=1.0)
    step = StepRecord(
        index=0, name="stream-backup", status="succeeded", result=models.as_json(transfer)
    )
    told = summary.read_transfer([step])
    assert told is not None
    connection = [field.name for field in dataclasses.fields(jobs.Connection)]
    assert list_keys(sections["`transfer`"]) == [*told, *connection]
    said = view.describe_progress_event({"job": "j", "event": "job.progress"})
    assert list_keys(sections["`progress`"].partition("Beside")[0]) == list(said)


def test_the_page_of_documents_has_every_bottleneck_and_number() -> None:
    """What a verdict can be, and what an event of progress can tell."""
    page = read_page("reference/documents.md")
    row = next(line for line in page.splitlines() if line.startswith("| `bottleneck` |"))
    guide = read_page("how-to/see-what-limits-a-clone.md")
    for word in bottleneck.BOTTLENECKS:
        assert f"`{word}`" in row
        assert f"`{word}`" in guide
    numbers = re.findall(r"^\| (`.+?) \|", page.partition("Beside these")[2], re.MULTILINE)
    shown = set(re.findall(r"`(\w+)`", " ".join(numbers)))
    told = {f"{before}{what}" for what in view.COUNTED for before in ("", "expected_")}
    assert shown == told | {"bytes", "expected_bytes", "bytes_per_second", *view.LEFT}


def test_the_page_of_documents_has_those_of_schedules_metrics_and_notices() -> None:
    """One line a key, in the order of the documents."""
    page = read_page("reference/documents.md")
    section = page.partition("\n## Of schedules, metrics and notices\n")[2].partition("\n## ")[0]
    assert list_keys(section) == [
        *("name", "command", "user", "calendar", "units", "cron", "notes", "error"),
        *("status", "files", "samples", "error"),
        *("status", "sent", "failed", "error"),
    ]


def test_the_page_of_metrics_has_every_metric_and_no_other() -> None:
    """With its labels and its meaning, in the order of the files."""
    rows = re.findall(
        r"^\| `(xbvault_\w+)` \| (.*?) \| (.+) \|$", read_page("reference/metrics.md"), re.MULTILINE
    )
    shown = [(title, tuple(re.findall(r"`(\w+)`", labels)), told) for title, labels, told in rows]
    assert shown == [(metric.name, metric.labels, metric.meaning) for metric in metrics.METRICS]


def test_metrics_that_pages_name_are_there() -> None:
    """A rule that somebody copies from a page looks at a metric that there is."""
    known = {metric.name for metric in metrics.METRICS}
    for page, text in TEXTS.items():
        assert (
            set(re.findall(r"\bxbvault_(?:backup|restore|stored|repository)_\w+", text)) <= known
        ), page


def test_the_page_of_schedules_shows_what_is_taken() -> None:
    """Its shorthands are those of the code, and its examples schedules."""
    page = read_page("reference/schedules.md")
    for word, meaning in schedule.SHORTHANDS.items():
        assert f"| `{word}` | `{meaning}` |" in page
    examples = re.findall(r"^\| `(.+?)` \|", page.partition("| example |")[2], re.MULTILINE)
    assert len(examples) == 5
    for example in examples:
        assert schedule.parse_calendar(example).cron


def list_keys(section: str) -> list[str]:
    """Return the keys that the tables of a section explain."""
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def read_tables() -> Iterator[tuple[str, type[pydantic.BaseModel]]]:
    """Yield every table of the configuration with its model."""
    for word, field in config.Config.model_fields.items():
        if word not in ("hosts", "repositories"):
            yield word, typing.cast("Any", field.annotation)
    yield "hosts.NAME", config.HostConfig
    yield "hosts.NAME.server", config.ServerConfig
    yield "hosts.NAME.service", config.ServiceConfig
    yield "hosts.NAME.programs", config.ProgramsConfig
    yield "hosts.NAME.keyring", config.KeyringConfig
    yield "repositories.NAME", config.RepositoryConfig


@pytest.mark.parametrize(("table", "model"), list(read_tables()), ids=str)
def test_the_page_of_the_configuration_has_every_key_with_its_default(
    table: str, model: type[pydantic.BaseModel]
) -> None:
    """No key is missing, none is there that does not exist, and defaults are those of the code."""
    page = read_page("reference/configuration.md")
    section = page.partition(f"## `[{table}]`\n")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE))
    expected = {}
    for key, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            continue
        default = field.default
        empty = default in ("", None)
        written = "required" if field.is_required() else "" if empty else f"`{json.dumps(default)}`"
        expected[key] = written
    assert {key: value.strip() for key, value in shown.items()} == expected


@pytest.mark.parametrize("cls", errors.classes().values(), ids=lambda cls: cls.__name__)
def test_the_page_of_exit_statuses_has_every_class(cls: type[errors.OrchestratorError]) -> None:
    """With the status that the class has."""
    assert f"| {cls.exit_status} | `{cls.__name__}` |" in read_page("reference/exit-statuses.md")


def test_the_page_on_failures_has_every_exit_status() -> None:
    """One heading a status."""
    headings = re.findall(r"^## (\d+): ", read_page("how-to/when-a-run-fails.md"), re.MULTILINE)
    assert {int(h) for h in headings} == {cls.exit_status for cls in errors.classes().values()}


@pytest.fixture(name="example")
def fixture_example() -> config.Config:
    """Return the configuration of the installation guide."""
    page = read_page("how-to/set-up-your-hosts.md")
    found = re.search(r"^```toml\n(\[vault\].*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found
    return config.parse(tomllib.loads(found.group(1)))


def test_the_page_of_policies_is_what_vault_init_writes(example: config.Config) -> None:
    """For the configuration of the installation guide: every policy, role and setting."""
    page = read_page("reference/vault-policies.md")
    for policy, text in vault_setup.policies(example).items():
        assert f"### `{policy}`\n\n```hcl\n{text}```\n" in page, policy
    for role, settings in vault_setup.token_roles(example).items():
        line = re.search(rf"^vault write auth/token/roles/{role} (.*)$", page, re.MULTILINE)
        assert line, role
        assert_settings(line.group(1), settings)
    for role, settings in vault_setup.ssh_roles(example).items():
        line = re.search(rf"^vault write xbvault-ssh/roles/{role} (.*)$", page, re.MULTILINE)
        assert line, role
        assert_settings(line.group(1), settings)
    assert f"max_versions={vault_setup.MAX_VERSIONS}" in page


def test_the_page_of_policies_has_those_of_mysql() -> None:
    """The policy of a host by its keyring, and the orchestrator's rights on its mount."""
    page = read_page("reference/vault-policies.md").partition("\n## Hosts with MySQL\n")[2]
    hosts: dict[str, dict[str, Any]] = {
        "db3": {
            "vault_mount": "mysql/db3",
            "keyring": {"kind": "keyring_vault", "config_file": "/etc/mysql/keyring_vault.conf"},
        },
        "db4": {"vault_mount": "mysql/db4", "keyring": {"kind": "component_keyring_vault"}},
        "db5": {"keyring": {"kind": "keyring_file", "data_file": "/var/lib/mysql-keyring/keyring"}},
    }
    document = {name: {"flavor": "mysql", **host} for name, host in hosts.items()}
    found = config.parse({"hosts": document})
    policies = vault_setup.policies(found)
    for name, host in found.hosts.items():
        policy = vault_setup.host_role(name)
        assert f"### `{policy}`\n\n```hcl\n{policies[policy]}```\n" in page, name
        made = f"vault secrets enable -path={host.key_mount} -version={host.kv_version} kv\n"
        assert (made in page) is bool(host.key_mount)
    blocks = vault_setup.policy_text(vault_setup.orchestrator_rights(found), "").split("\npath ")
    of_hosts = [block.strip() for block in blocks if re.search(r"db[345]", block)]
    assert len(of_hosts) == 8
    for block in of_hosts:
        assert f"path {block}\n" in page


def test_the_page_of_privileges_and_the_guide_are_what_vault_init_prints() -> None:
    """Grants and sudo rules stand in both, word for word, and each privilege with its reason."""
    document = {"vault_mount": "m", "become": True, "ssh_user": "dba", "receive_user": "dba"}
    dba = config.parse({"hosts": {"db2": document}})
    page = read_page("reference/privileges.md")
    for text in (page, read_page("how-to/set-up-your-hosts.md")):
        assert f"```sql\n{database.grants_text()}```\n" in text
        assert f"```\n{sudo.sudoers_text(dba, 'db2')}```\n" in text
    assert f"```sql\n{database.grants_text('mysql')}```\n" in page
    shown = re.findall(r"^\| `([A-Z_ ]+)` \| (\w*) *\| (\w*) *\| (.+) \|$", page, re.MULTILINE)
    assert shown == [
        (
            name,
            "yes" if name in database.DONOR else "",
            "yes" if name in database.RECIPIENT else "",
            reason,
        )
        for name, reason in database.REASONS.items()
    ]
    assert set(database.REASONS) == {*database.DONOR, *database.RECIPIENT}


def test_the_page_of_compatibility_is_what_decides() -> None:
    """Each table stands under its heading, word for word, and there is no other."""
    page = read_page("reference/compatibility.md")
    sections = dict(section.split("\n", 1) for section in page.split("\n## ")[1:])
    tables = compatibility.make_tables()
    assert list(sections) == list(tables)
    for heading, table in tables.items():
        shown = [line for line in sections[heading].splitlines() if line.startswith("|")]
        assert shown == table.splitlines(), heading


def assert_settings(line: str, settings: dict[str, Any]) -> None:
    """Assert that a command's words are these settings; what is empty or 0 may be left out."""
    shown = dict(word.split("=", 1) for word in line.split())
    expected = {}
    for key, value in settings.items():
        one = value[0] if isinstance(value, list) and value else value
        if one or key in shown:
            expected[key] = str(one).lower() if isinstance(one, bool) else str(one)
    assert shown == expected


def test_the_installation_guide_names_what_preflight_looks_for(example: config.Config) -> None:
    """The receiver's line names the recipient's principal, and the option file its own mount."""
    page = read_page("how-to/set-up-your-hosts.md")
    recipient = example.hosts["db2"]
    assert page.count(' \\"$SSH_ORIGINAL_COMMAND\\"" xbvault-receive-db2') == 2
    assert f"{example.vault.address}/v1/{recipient.vault_mount}\n" in page
    assert f"{example.vault.address}/v1/{example.vault.ssh_mount}/public_key" in page
    for path in (recipient.vault_env_file, recipient.vault_ca_file, vault_setup.RENEW_SCRIPT):
        assert path in page
    assert f"{recipient.server.replication_ca_file}\n" in page


def read_toml(page: str) -> list[dict[str, Any]]:
    """Return the TOML blocks of a page, parsed."""
    blocks = re.findall(r"^```toml\n(.*?)^```$", read_page(page), re.MULTILINE | re.DOTALL)
    return [tomllib.loads(block) for block in blocks]


def lay_over(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return a table with another laid over it."""
    both = {key: (under[key], over[key]) for key in under.keys() & over.keys()}
    merged = {k: lay_over(*v) for k, v in both.items() if isinstance(v[0], dict)}
    return {**under, **over, **merged}


@pytest.mark.parametrize(
    "page", [str(p.relative_to(DOCS)) for p in PAGES if p.parent == DOCS / "how-to"]
)
def test_configurations_in_a_guide_are_taken(page: str) -> None:
    """The first of a page is whole; each further one is taken when it is laid over that."""
    blocks = read_toml(page)
    for block in blocks:
        assert config.parse(lay_over(blocks[0], block)).hosts


def test_the_guide_for_keyring_vault_shows_the_approved_plan_and_grants() -> None:
    """Its plan is one of those that a person has read, and its grants those of 5.7."""
    page = read_page("how-to/clone-percona-server-with-keyring-vault.md")
    block = next(text for text in _FENCE.findall(page) if "[ 8/22]" in text)
    shown = [line.strip().removeprefix("$ ") for line in block.splitlines()[2:-1]]
    plan = golden.read("plan-percona-8.0.40-keyring_vault", directory=golden.PLANS)
    run_id = re.search(r'^run_id = "(.+)"$', plan, re.MULTILINE)
    assert run_id
    section = plan.replace(run_id.group(1), "RUN").partition("[move-backup-set]\n")[2]
    approved = section.partition("\n\n")[0].splitlines()
    assert shown == [line.removeprefix("$ ") for line in approved]
    grants = database.grants_text("mysql").partition("(MySQL 5.7)")[2].splitlines()[1:5]
    assert len(grants) == 4
    assert "\n".join(grants) in page


def test_the_page_of_layers_is_what_the_linter_holds() -> None:
    """The rooms stand in the same order."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    wanted = [set(layer.split(" | ")) for layer in contract["layers"]]
    block = _FENCE.findall(read_page("explanation/layers.md"))[1].splitlines()[1:-1]
    shown = [set(re.split(r"\s{2,}", line)[0].split(" · ")) for line in block]
    assert shown == wanted


def read_steps() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield playbook, step, role, repeat and summary of every step of every playbook."""
    steps.load()
    for found in playbook.list_playbooks():
        names = [entry.use for entry in found.steps]
        for entry in (*found.steps, *found.cleanup):
            info = REGISTRY[entry.use]
            back_to = info.find_back_to(names)
            back = f" to `{back_to}`" if back_to else ""
            repeat = f"{info.repeat.value}{back}"
            yield found.name, entry.use, entry.on, repeat, info.summary


def test_the_page_of_steps_is_what_the_registry_has() -> None:
    """Every playbook's steps, in their order, with what repeating them does."""
    page = read_page("reference/steps.md")
    shown = []
    for section in page.split("\n## ")[1:]:
        rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.+?) \| (.+) \|$", section, re.MULTILINE)
        shown += [(section.partition("`")[2].partition("`")[0], *row) for row in rows]
    assert shown == list(read_steps())


def test_steps_that_pages_name_are_there() -> None:
    """A step's name in a page is one of a playbook, so that nobody looks for one in vain."""
    known = {step for _, step, *_ in read_steps()}
    verbs = {step.partition("-")[0] for step in known}
    for page, text in TEXTS.items():
        for word in re.findall(r"\b([a-z]+-[a-z]+(?:-[a-z]+)+) (?:\(|done)", text):
            if word.partition("-")[0] in verbs:
                assert word in known, (page, word)
    for step in ("swap-datadir", "compare-tables", "verify-encryption", "verify-key-separation"):
        assert step in known


def test_pages_that_the_sources_name_are_there() -> None:
    """A hint that sends its reader to a page sends to one that exists."""
    found = set()
    for file in sorted((ROOT / "orchestrator").rglob("*.py")):
        found |= set(re.findall(r"docs/[\w/.-]+\.md", file.read_text(encoding="utf-8")))
    assert "docs/how-to/set-up-your-hosts.md" in found
    assert [path for path in sorted(found) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_name_no_machine_of_ours(page: Path) -> None:
    """No path of a developer's machine, and no address that is not an example's or the lab's."""
    text = TEXTS[page]
    assert not re.findall(r"/(?:wor[k]|home/(?!dba)|Users)/\S*", text)
    sites = {found.lower() for found in re.findall(r"https?://([\w.-]+)", text)}
    allowed = {"vault.example.net", "keepachangelog.com", "semver.org"}
    assert sites <= allowed, sites
