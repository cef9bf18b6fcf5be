"""Reading known_hosts files and judging host keys by them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest

from orchestrator.remote.known_hosts import (
    Verdict,
    is_match,
    judge,
    list_key_types,
    make_fingerprint,
    make_names,
    parse_known_hosts,
    read_known_hosts,
)

if TYPE_CHECKING:
    from pathlib import Path

# made with ssh-keygen, which also said the fingerprint
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIPjNLI4Y+QCXr020kfTxF+KP1/JScAf2n2F03DGbn97V"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAICUEvp7lhGPWZjZPHA3otCCCA2Oclo7kccMwGTQgEaaJ"
BLOB = base64.b64decode(KEY)
NAMES = ("[db1]:2222", "db1")


def hash_name(name: str) -> str:
    """Return a name as ``HashKnownHosts`` writes it."""
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        ("db1", "db1", True),
        ("DB1", "db1", True),
        ("db1", "db10", False),
        ("db1,db2", "db2", True),
        ("db*", "db10", True),
        ("db?", "db10", False),
        ("*,!db2", "db1", True),
        ("*,!db2", "db2", False),
        ("!db2", "db1", False),
        ("[db1]:2222", "[db1]:2222", True),
        ("[db1]:2222", "d", False),
        ("db1", "[db1]:2222", False),
        ("[db1]:*", "[db1]:2222", True),
        ("10.0.0.1", "10x0x0x1", False),
        (hash_name("db1"), "db1", True),
        (hash_name("db1"), "db2", False),
        ("|1|not-base64|x", "db1", False),
        ("|1|", "db1", False),
    ],
)
def test_names(patterns: str, name: str, *, expected: bool) -> None:
    """Names match as sshd(8) says: whole, without case, by pattern, negated or hashed."""
    assert is_match(patterns, name) is expected


def test_names_to_look_up() -> None:
    """An alias stands alone; a port other than 22 belongs to the name, the bare host confirms."""
    assert make_names("DB1", 22) == ("db1",)
    assert make_names("db1", 2222) == NAMES
    assert make_names("db1", 2222, "Alias") == ("alias",)


def test_lines_that_cannot_be_read_are_left_out() -> None:
    """Comments, short lines, and lines that are not base64 do not disturb the others."""
    text = f"""
# comment ssh-ed25519 {KEY}
db1
db1 2048 65537
db1 ssh-ed25519 %%%%
db1\tssh-ed25519   {KEY} a comment
@revoked * ssh-ed25519 {OTHER}
@cert-authority *.example ssh-ed25519 {OTHER}
@revoked
"""
    found = parse_known_hosts(text, "file")
    assert [(key.marker, key.patterns, key.origin) for key in found] == [
        ("", "db1", "file:6"),
        ("@revoked", "*", "file:7"),
        ("@cert-authority", "*.example", "file:8"),
    ]
    assert found[0].blob == BLOB


def test_missing_files_hold_nothing(tmp_path: Path) -> None:
    """A file that does not exist is as good as an empty one."""
    (tmp_path / "there").write_text(f"db1 ssh-ed25519 {KEY}\n")
    found = read_known_hosts([str(tmp_path / "missing"), str(tmp_path / "there"), str(tmp_path)])
    assert [key.origin for key in found] == [f"{tmp_path}/there:1"]


def test_fingerprint_is_that_of_openssh() -> None:
    """The fingerprint is the one that ``ssh-keygen -l`` shows."""
    assert make_fingerprint(BLOB) == "SHA256:AlpXKh7yxVlrWFiqx9JkE1Bg5hwyUJ6bPO890rADSNs"


@pytest.mark.parametrize(
    ("text", "verdict", "lines"),
    [
        ("", Verdict.UNKNOWN, 0),
        (f"[db1]:2222 ssh-ed25519 {KEY}", Verdict.KNOWN, 0),
        (f"db1 ssh-ed25519 {KEY}", Verdict.KNOWN, 0),
        (f"db1 ssh-ed25519 {OTHER}", Verdict.UNKNOWN, 0),
        (f"[db1]:2222 ssh-ed25519 {OTHER}", Verdict.CHANGED, 1),
        (f"[db1]:2222 ssh-rsa {OTHER}", Verdict.CHANGED, 1),
        (f"[db1]:2222 ssh-ed25519 {OTHER}\ndb1 ssh-ed25519 {KEY}", Verdict.CHANGED, 1),
        (f"[db1]:2222 ssh-ed25519 {OTHER}\n[db1]:2222 ssh-ed25519 {KEY}", Verdict.KNOWN, 0),
        (f"@cert-authority * ssh-ed25519 {KEY}", Verdict.UNKNOWN, 1),
        (f"[db1]:2222 ssh-ed25519 {KEY}\n@revoked * ssh-ed25519 {KEY}", Verdict.REVOKED, 1),
        (f"[db1]:2222 ssh-ed25519 {KEY}\n@revoked * ssh-ed25519 {OTHER}", Verdict.KNOWN, 0),
        (f"[db1]:2222 ssh-ed25519 {KEY}\n@revoked db2 ssh-ed25519 {KEY}", Verdict.KNOWN, 0),
    ],
)
def test_verdicts(text: str, verdict: Verdict, lines: int) -> None:
    """The exact name decides, the bare host only confirms, and a revoked key is never right."""
    judged = judge(parse_known_hosts(text), NAMES, BLOB)
    assert (judged.verdict, len(judged.lines)) == (verdict, lines)


def test_key_types_to_ask_for() -> None:
    """The kinds under which a host is known, the exact name's first, without markers."""
    text = (
        f"db1 ssh-rsa {KEY}\n[db1]:2222 ssh-ed25519 {KEY}\ndb1 ssh-ed25519 {KEY}\n"
        f"@revoked * ecdsa-sha2-nistp256 {KEY}\ndb2 ecdsa-sha2-nistp384 {KEY}"
    )
    assert list_key_types(parse_known_hosts(text), NAMES) == ("ssh-ed25519", "ssh-rsa")
