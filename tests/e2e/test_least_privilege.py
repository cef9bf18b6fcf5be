"""With exactly what ``vault init --print-policy`` prints, a clone works; with less, the lack is named.

One laboratory for the whole file, in which root logs in nowhere. What is taken away is listed from
the printed texts themselves, so that nothing can be printed that no test takes away. The tests
hold in their order: first all that is refused before anything is touched, then a clone, its undo
and its forgetting, and at last what of the printed was used.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import TYPE_CHECKING

import pytest
from clone_lab import MARIADB_CHECKS, running_lab
from least import (
    ACCOUNTS,
    DONOR,
    PLAN,
    RECIPIENT,
    LeastLab,
    find_silent,
    find_unnamed_before,
    find_unnamed_privileges,
    find_used_rights,
    least_lab,
    read_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

CLONE = ("clone", DONOR, RECIPIENT, "--replace", "--yes")
ORCHESTRATOR = "xbvault-orchestrator"
TRANSITION = f"xbvault-transition-{RECIPIENT}"
READS = {
    ("auth/token/lookup-self", "read"),
    ("sys/capabilities-self", "update"),
    ("sys/mounts", "read"),
    ("xbvault-ssh/config/ca", "read"),
    (f"mariadb-{DONOR}/metadata/*", "list"),
    (f"mariadb-{RECIPIENT}/config", "read"),
}
"""Rights that the preflight itself needs, so that each shows in its own way."""
NOT_FOR_THIS_CLONE = re.compile(
    # the roles are looked at by `vault check`, and the donor is no recipient
    rf"auth/token/roles/.*|xbvault-ssh/roles/.*|.*/xbvault-(transition|receive)-{DONOR}"
    rf"|mariadb-{DONOR}/(destroy|config).*"
)


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeastLab]:
    """Bring the laboratory up, and give everybody what is printed."""
    directory = tmp_path_factory.mktemp("least") / "lab"
    with running_lab(directory, "--replica-server", size=0.02) as lab, least_lab(lab) as found:
        yield found


def name_right(path: str, capability: str) -> re.Pattern[str]:
    """Return the ways in which a right is named: by its policy's path, or by the one asked for."""
    begin = re.escape(re.split(r"[+*]", path)[0].rstrip("/"))
    whole = re.escape(path)
    return re.compile(
        rf'\b{capability} on {whole}|{whole}: [a-z, ]*\b{capability}\b|"{capability}" on {begin}'
    )


def group(rights: list[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield every path with all its capabilities."""
    for path, pairs in itertools.groupby(rights, key=lambda right: right[0]):
        yield path, [capability for _, capability in pairs]


def is_for_clone(path: str, capability: str) -> bool:
    """Return whether a clone from donor to recipient needs a right of the orchestrator."""
    if path == f"mariadb-{DONOR}/data/*":
        return capability == "read"
    return not NOT_FOR_THIS_CLONE.fullmatch(path)


def test_what_is_printed_is_enough_for_every_check(least: LeastLab) -> None:
    """Nothing is wrong to begin with."""
    for command in (("vault", "check"), ("hosts", "check"), PLAN):
        least.document(*command)


def test_the_text_for_people_holds_all_of_it(least: LeastLab) -> None:
    """Each policy, the grants and each file of sudoers, word for word."""
    config = least.lab.directory / "least.toml"
    text = least.lab.xbvault("vault", "init", "--print-policy", config=config).stdout
    printed = least.printed
    assert sorted(printed.sudoers) == sorted(ACCOUNTS)
    for part in (*printed.policies.values(), printed.grants, *printed.sudoers.values()):
        assert part in text


def test_a_path_taken_from_the_orchestrator_is_named(least: LeastLab) -> None:
    """With all that it may there; by `vault check`, or by preflight where that comes first."""
    wrong = []
    for path, capabilities in group(least.printed.rights(ORCHESTRATOR)):
        command = PLAN if (path, capabilities[0]) in READS else ("vault", "check")
        wrong += find_silent(
            least,
            [least.without_right(ORCHESTRATOR, path, *capabilities)],
            command,
            status=5,
            says=[name_right(path, capability) for capability in capabilities],
        )
    assert wrong == []


def test_all_other_rights_of_the_orchestrator_are_named_at_once(least: LeastLab) -> None:
    """Without everything that the preflight does not need itself, it names each that a clone does."""
    needed = [r for r in least.printed.rights(ORCHESTRATOR) if is_for_clone(*r)]
    blocks = "".join(f'path "{p}" {{ capabilities = ["{c}"] }}\n' for p, c in sorted(READS))
    least.vault.write_policy(ORCHESTRATOR, blocks)
    try:
        done = least.call(*PLAN)
    finally:
        least.vault.write_policy(ORCHESTRATOR, least.printed.policies[ORCHESTRATOR])
    said = read_error(done)
    assert done.returncode == 5
    rest = [right for right in needed if right not in READS]
    assert len(rest) > 20
    assert [right for right in rest if not name_right(*right).search(said)] == []


def test_a_right_taken_from_a_host_is_named(least: LeastLab) -> None:
    """Of the tokens that the database servers have: both lose the same one, and both are named."""
    rights = [least.printed.rights(f"xbvault-host-{host}") for host in ACCOUNTS]
    wrong = []
    for pair in zip(*rights, strict=True):
        lost = list(zip((f"xbvault-host-{host}" for host in ACCOUNTS), pair, strict=True))
        wrong += find_silent(
            least,
            [least.without_right(policy, *right) for policy, right in lost],
            PLAN,
            status=5,
            says=[name_right(*right) for _, right in lost],
        )
    assert wrong == []


def test_a_privilege_taken_from_an_account_is_named(least: LeastLab) -> None:
    """Each account loses one of its own; the recipient's is looked at on the donor."""
    assert find_unnamed_privileges(least) == []


@pytest.mark.parametrize("privilege", ["PROCESS", "SELECT", "SLAVE MONITOR"])
def test_a_privilege_on_the_server_that_is_set_aside_is_named(
    least: LeastLab, privilege: str
) -> None:
    """Without it, that server would hide who replicates from it, or what it holds."""
    assert find_unnamed_before(least, privilege) == []


@pytest.mark.parametrize("host", [DONOR, RECIPIENT])
def test_a_rule_taken_from_sudo_is_named(least: LeastLab, host: str) -> None:
    """With the host, and the line that is missing."""
    wrong = []
    for rule in least.printed.rules(host):
        is_receiver = "receive" in rule
        # Of one host by itself, one that cannot be read is always 4; a donor receives nothing.
        commands: list[tuple[tuple[str, ...], int]] = [
            (("hosts", "check", host), 3 if is_receiver else 4)
        ]
        if host == RECIPIENT or not is_receiver:
            commands.append((PLAN, 3))
        says = [re.compile(rf"{re.escape(rule)}`"), re.compile(f'"host": "{host}"')]
        for command, status in commands:
            taken = least.without_rule(host, rule)
            wrong += find_silent(least, [taken], command, status=status, says=says)
    assert wrong == []


@pytest.mark.parametrize("path", ["etc/ssh/principals/dba", "etc/ssh/xbvault-ca.pub"])
def test_what_lets_a_stream_in_is_named(least: LeastLab, path: str) -> None:
    """The line for the recipient's principal, and the CA that signs for it."""
    file = least.root(RECIPIENT) / path
    text = file.read_text()
    file.write_text("")
    try:
        done = least.call(*PLAN)
    finally:
        file.write_text(text)
    assert done.returncode == 3
    wanted = "principal xbvault-receive-replica" if "principals" in path else "TrustedUserCAKeys"
    assert wanted in read_error(done)


def test_a_clone_names_what_its_transition_token_lacks_and_goes_on(least: LeastLab) -> None:
    """Nobody but that token can tell its policy; the recipient is untouched, and resume suffices."""
    before, run_id = least.read_recipient()[0], ""
    command: tuple[str, ...] = CLONE
    for path, capability in least.printed.rights(TRANSITION):
        with least.without_right(TRANSITION, path, capability):
            done = least.call(*command)
        document = json.loads(done.stdout)
        assert (done.returncode, document["status"]) == (5, "failed"), document
        error = document["error"]
        assert f'denies the transition token of {RECIPIENT} "read" on ' in error["message"]
        assert f'the policy {TRANSITION} needs: path "{path}"' in error["hint"]
        assert least.read_recipient()[0] == before
        run_id = document["run_id"]
        command = ("runs", "resume", run_id)
    document = least.document("runs", "resume", run_id)
    assert document["status"] == "succeeded"
    assert [check["name"] for check in document["checks"]] == MARIADB_CHECKS
    assert all(check["ok"] for check in document["checks"])
    undone = least.document("runs", "undo", run_id, "--yes")
    assert undone["status"] == "undone"
    assert least.read_recipient()[0] == before


def test_a_clone_can_be_forgotten(least: LeastLab) -> None:
    """Undisturbed this time; what was set aside goes, with keys and accounts that only it needed."""
    document = least.document(*CLONE)
    assert all(check["ok"] for check in document["checks"])
    least.document("runs", "forget", document["run_id"], "--yes")
    least.document("vault", "check")


def test_all_that_is_printed_was_used(least: LeastLab) -> None:
    """Vault's audit log has every right of this clone but those that are named here with a reason."""
    used = find_used_rights(least.lab, least.printed, ORCHESTRATOR)
    granted = least.printed.rights(ORCHESTRATOR)
    # Only a run that takes long renews its token, which on a busy machine may be this one.
    used.add(("auth/token/renew-self", "update"))
    unused = [r for r in granted if r not in used and is_for_clone(*r)]
    # Of a recipient without a key.
    assert unused == [(f"mariadb-{RECIPIENT}/data/*", "create")]
    address = least.lab.on(RECIPIENT, "hostname -I").split()[0]
    for policy, elsewhere in {
        f"xbvault-host-{RECIPIENT}": {
            ("auth/token/renew-self", "update"),  # the host's timer
            ("auth/token/lookup-self", "read"),  # preflight, with the host's token
            ("sys/capabilities-self", "update"),
        },
        TRANSITION: set(),
    }.items():
        used = find_used_rights(least.lab, least.printed, policy, address=address)
        assert set(least.printed.rights(policy)) - used == elsewhere
