"""The only package that reaches a host: commands and files, over SSH.

`hops` says which SSH servers lead there; fabric and paramiko connect, and host keys are always
checked. Commands are argument lists and run on channels of one connection, from any number of
threads.
"""

from orchestrator.remote.commands import (
    as_bytes,
    is_disk_full,
    make_command_error,
    pick_line,
    show_command,
)
from orchestrator.remote.doors import Doors
from orchestrator.remote.files import find_secret
from orchestrator.remote.interface import LOOPBACK, Output, Relay, Remote, Result
from orchestrator.remote.ssh import SshRemote

__all__ = [
    "LOOPBACK",
    "Doors",
    "Output",
    "Relay",
    "Remote",
    "Result",
    "SshRemote",
    "as_bytes",
    "find_secret",
    "is_disk_full",
    "make_command_error",
    "pick_line",
    "show_command",
]
