"""What can go wrong, divided by what the reader must do about it.

::

    OrchestratorError              exit 1   base; a fault of ours when raised bare by nobody else
      ConfigError                  exit 2   the person must change the configuration
      PreconditionError            exit 3   a host is not in the state the step requires
        LockHeldError              exit 3   another run holds this recipient, or this run
      RemoteError                  exit 4   a host or a command on it
        HostUnreachableError       exit 4   transient: the command did not start
        HostKeyError               exit 4   the host's key is unknown, or not the known one
        CommandError               exit 4   it ran and failed
          ConnectionLostError      exit 4   transient: the connection broke while it ran
      SecretError                  exit 5   Vault refused, or holds something else
        SecretStoreUnavailableError exit 5  transient: sealed, standby, unreachable
      VerificationError            exit 6   the work ended, but the result is wrong
      InterruptedWorkError         exit 7   partial work was found that cannot be trusted
      JournalError                 exit 8   the journal cannot be read or written
      PartialError                 exit 9   some recipients failed, others succeeded
      CancelledError               exit 130 the run was cancelled; that is final

A message is a fact in lower case that names the thing; ``hint`` says what to do next.
Every class takes one positional message and keyword-only context with defaults, so that it
crosses the journal as JSON and comes back the same.
"""

from __future__ import annotations

from typing import Any, ClassVar


class OrchestratorError(Exception):
    """Base of everything that we raise.

    Args:
        message: What happened, one line, lower case, no full stop.
        host: The host it happened on, where there is one.
        hint: What the reader can do next.
        problems: Single findings, where several were found at once.
    """

    exit_status: ClassVar[int] = 1
    transient: bool = False

    def __init__(
        self,
        message: str,
        *,
        host: str = "",
        hint: str = "",
        problems: tuple[str, ...] | list[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.host = host
        self.hint = hint
        self.problems = tuple(problems)

    def context(self) -> dict[str, Any]:
        """Return the keyword arguments that make this error again, as JSON values."""
        return {"host": self.host, "hint": self.hint, "problems": list(self.problems)}

    def as_json(self) -> dict[str, Any]:
        """Return the error as the journal and ``--json`` carry it."""
        return {"error": type(self).__name__, "message": self.message, **self.context()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Make copies and pickles keep the context."""
        return (_remake, (self.as_json(),))


class ConfigError(OrchestratorError):
    """The configuration, a playbook or an argument is wrong; nothing was contacted."""

    exit_status = 2


class PreconditionError(OrchestratorError):
    """A host, Vault or a run is not in the state that the step requires; nothing was touched."""

    exit_status = 3


class LockHeldError(PreconditionError):
    """Another run holds the recipient, or another process holds the run."""


class RemoteError(OrchestratorError):
    """A host could not be used."""

    exit_status = 4


class HostUnreachableError(RemoteError):
    """The command did not start: the connection failed. Trying again may help."""

    transient = True


class HostKeyError(RemoteError):
    """The host's key is unknown or is not the known one; nothing was sent."""


class CommandError(RemoteError):
    """A command ran on a host and failed.

    Args:
        message: What was run and how it ended.
        host: Where.
        hint: What to do next.
        problems: Unused; there for the common shape.
        status: Exit status; None when it was killed or the connection broke while it ran.
        stderr: The last lines that it wrote to stderr.
    """

    def __init__(
        self,
        message: str,
        *,
        host: str = "",
        hint: str = "",
        problems: tuple[str, ...] | list[str] = (),
        status: int | None = None,
        stderr: str = "",
    ) -> None:
        super().__init__(message, host=host, hint=hint, problems=problems)
        self.status = status
        self.stderr = stderr

    def context(self) -> dict[str, Any]:
        """Return the keyword arguments that make this error again, as JSON values."""
        return {**super().context(), "status": self.status, "stderr": self.stderr}


class ConnectionLostError(CommandError):
    """The connection broke while a command ran; nobody knows whether it did its work.

    A step asks before it acts, so it may try again.
    """

    transient = True


class SecretError(OrchestratorError):
    """Vault refused, or what it holds is not what was expected."""

    exit_status = 5


class SecretStoreUnavailableError(SecretError):
    """Vault is sealed, on standby or cannot be reached. Trying again may help."""

    transient = True


class VerificationError(OrchestratorError):
    """The work ended, but its result is not right."""

    exit_status = 6


class InterruptedWorkError(OrchestratorError):
    """Partial work was found that cannot be trusted."""

    exit_status = 7


class JournalError(OrchestratorError):
    """The journal cannot be read or written."""

    exit_status = 8


class PartialError(OrchestratorError):
    """Some recipients failed, others succeeded."""

    exit_status = 9


class CancelledError(OrchestratorError):
    """The run was cancelled. That is final."""

    exit_status = 130


def _tree(cls: type[OrchestratorError]) -> dict[str, type[OrchestratorError]]:
    found = {cls.__name__: cls}
    for child in cls.__subclasses__():
        found |= _tree(child)
    return found


def classes() -> dict[str, type[OrchestratorError]]:
    """Return every error class by its name, the base included."""
    return _tree(OrchestratorError)


def from_json(document: dict[str, Any]) -> OrchestratorError:
    """Return the error that `as_json` described; an unknown class comes back as the base.

    Context of another kind than ours is left out.
    """
    cls = classes().get(str(document.get("error", "")), OrchestratorError)
    message = str(document.get("message", ""))
    context = {
        name: document[name]
        for name, default in cls(message).context().items()
        if name in document
        and isinstance(document[name], int | None if default is None else type(default))
    }
    context["problems"] = [str(problem) for problem in context.get("problems", ())]
    return cls(message, **context)


def _remake(document: dict[str, Any]) -> OrchestratorError:
    return from_json(document)
