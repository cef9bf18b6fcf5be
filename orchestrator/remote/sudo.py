"""What runs through sudo on a host, and the rules that let it.

Every command of a run is given to ``timeout``, which ends it on the host when its time is up. So
this one program is all that sudo has to allow. It starts whatever it is told to: the rule is as
good as root, and a list of what it may start would protect nothing, for shells are among it.
"""

from __future__ import annotations

RECEIVER = "/usr/local/sbin/xbvault-receive"
BECOME = ("sudo", "-n", "--")
"""Put before a command; with ``-n``, sudo fails where it would ask for a password."""
LIMIT = ("timeout", "--kill-after=3")
"""Put before every command, with its seconds after it; SIGKILL follows SIGTERM after three."""
_PROGRAM = "/usr/bin/timeout"


def control_rule(login: str) -> str:
    """Return the line of sudoers for the login that works on a host."""
    return f"{login} ALL=(root) NOPASSWD: {_PROGRAM}"


def receiver_rule(login: str) -> str:
    """Return the line of sudoers for the login that takes the stream, on a recipient."""
    return f"{login} ALL=(root) NOPASSWD: {RECEIVER}"
