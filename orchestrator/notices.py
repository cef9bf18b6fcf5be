"""Notices of how runs end, sent through Apprise.

The URLs hold secrets. So they stand in a file of their own, and only the process that sends has
read it: ``python -m orchestrator.notices``, which is killed when its time is up. Nothing of a URL
but its line and its scheme is ever told.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator import errors, report, summary
from orchestrator.config import expand_path
from orchestrator.errors import ConfigError, OrchestratorError, RemoteError
from orchestrator.log import redact_text
from orchestrator.models import ARCHIVE, BACKUP, DRILL_CLONE, RESTORES, STORING, AnyDrill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Config
    from orchestrator.durable import RunRecord

SECONDS: Final = 10.0
"""No run ends later than this for the sake of its notice."""
ALWAYS: Final = "always"
SUCCEEDED: Final = "succeeded"
_LIBRARY: Final = "apprise"
_OTHERS: Final = 0o077


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notice:
    """What is told.

    Attributes:
        title: One line.
        body: Some lines; no secret is in them.
        is_good: Whether it tells of a success.
    """

    title: str
    body: str
    is_good: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sent:
    """To how many a notice went.

    Attributes:
        count: How many have taken it.
        failed: The others, as ``line 2 (json)``, and why.
    """

    count: int
    failed: tuple[str, ...] = ()


def is_wanted(config: Config, *, is_good: bool) -> bool:
    """Return whether somebody is to be told of a run."""
    wanted = config.notices
    return bool(wanted.urls_file) and (not is_good or wanted.on == ALWAYS)


def describe_run(record: RunRecord, error: OrchestratorError | None = None) -> Notice:
    """Return the notice of a run that has ended, or has stopped.

    Args:
        record: The run.
        error: Why it stopped, where that is not in its record.
    """
    plan = record.plan
    document = summary.build_document(record)
    found = error or (errors.from_json(record.error) if record.error else None)
    is_bad = isinstance(plan, AnyDrill) and document["verdict"] == report.FAILED
    is_good = record.status == SUCCEEDED and error is None and not is_bad
    verdicts = {SUCCEEDED: "succeeded" if is_good else "failed", "cleaning": "not cleaned up"}
    if is_bad:  # cancelled by nobody: that gave the host back what it had
        verdicts["cancelled"] = "failed"
    what = {
        BACKUP: f"backup of {plan.donor} to {plan.recipient}",
        ARCHIVE: f"archive of the binary logs of {plan.donor} to {plan.recipient}",
        DRILL_CLONE: f"drill of a clone of {plan.donor} on {plan.recipient}",
    }.get(
        plan.form,
        f"{plan.form} {'from' if plan.form in RESTORES else 'of'} {plan.donor} to {plan.recipient}",
    )
    verdict = verdicts.get(record.status, record.status)
    lines = [
        ("run", record.run_id),
        ("status", verdict),
        ("donor" if plan.form not in RESTORES else "repository", plan.donor),
        ("repository" if plan.form in STORING else "recipient", plan.recipient),
        ("backup set", plan.backup_id),
        ("seconds in steps", str(document["seconds"]["total"])),
    ]
    if "stored_bytes" in document:
        lines.append(("stored bytes", str(document["stored_bytes"])))
    return _build_notice(f"{what}: {verdict}", lines, found, is_good=is_good)


def describe_failure(what: str, error: OrchestratorError) -> Notice:
    """Return the notice of what failed without a run of its own.

    Args:
        what: Such as ``backup of db1: did not begin``.
        error: Why.
    """
    return _build_notice(what, [], error, is_good=False)


def build_test() -> Notice:
    """Return a notice that tells nothing but that notices arrive."""
    return Notice(
        title="xbvault: a test",
        body="This is what a notice of xbvault looks like. Nothing has happened.",
        is_good=True,
    )


def send(config: Config, notice: Notice, *, seconds: float = SECONDS) -> Sent:
    """Send a notice to everybody, and wait so long at most.

    Args:
        config: The configuration, which names the file of URLs.
        notice: What to tell.
        seconds: How long; what has not gone out then is given up.

    Returns:
        To how many it went.

    Raises:
        ConfigError: No file of URLs is configured, it cannot be used, or Apprise is not installed.
        RemoteError: It went to nobody.
    """
    if not config.notices.urls_file:
        raise ConfigError(
            "no file of URLs for notices is configured",
            hint='write urls_file = "/etc/xbvault/notices" below [notices]',
        )
    if importlib.util.find_spec(_LIBRARY) is None:
        raise ConfigError(
            "notices need Apprise, which is not installed", hint="pip install 'xbvault[notices]'"
        )
    order = {
        "file": str(expand_path(config.notices.urls_file)),
        "title": redact_text(notice.title),
        "body": redact_text(notice.body),
        "is_good": notice.is_good,
        "seconds": seconds,
    }
    said = _ask_process(order, seconds)
    if "error" in said[0]:
        raise errors.from_json(said[0])
    whom = said[0]["urls"]
    taken = {found["url"] for found in said[1:] if found["ok"]}
    refused = {found["url"]: found["reason"] for found in said[1:] if not found["ok"]}
    failed = tuple(
        f"{url}: {refused.get(url, f'no answer within {seconds:g} s')}"
        for url in whom
        if url not in taken
    )
    if not taken:
        raise RemoteError(
            "the notice went to nobody",
            hint="see to the URLs in the file, one by one, with the `apprise` command",
            problems=failed,
        )
    return Sent(count=len(taken), failed=failed)


def _build_notice(
    title: str,
    lines: Sequence[tuple[str, str]],
    error: OrchestratorError | None,
    *,
    is_good: bool,
) -> Notice:
    shown = list(lines)
    if error is not None:
        where = f" [{error.host}]" if error.host and error.host not in error.message else ""
        shown.append(("error", f"{error.message}{where}"))
        shown += [("problem", problem) for problem in error.problems]
        if error.hint:
            shown.append(("hint", error.hint))
    return Notice(
        title=redact_text(f"xbvault: {title}"),
        body=redact_text("\n".join(f"{name}: {value}" for name, value in shown)),
        is_good=is_good,
    )


def _ask_process(order: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Return what the process that sends has said before its time was up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.notices"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(json.dumps(order).encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
    # the last line may be cut
    lines = out[: out.rfind(b"\n") + 1].decode("utf-8", "replace").split("\n")[:-1]
    if not lines:
        raise RemoteError(
            "the process that sends notices ended without a word",
            hint="`xbvault notices test` tries it again",
        )
    return [json.loads(line) for line in lines]


# --- in the process that sends ---


def main() -> int:
    """Send what stdin says; print a line of JSON on whom there is, and one on each of them."""
    order = json.load(sys.stdin)
    try:
        urls = read_urls(Path(order["file"]))
    except OrchestratorError as error:
        _say(error.as_json())
        return error.exit_status
    _say({"urls": list(urls)})
    with ThreadPoolExecutor(max_workers=len(urls)) as pool:
        tasks = {pool.submit(_send_to, url, order): name for name, url in urls.items()}
        for task in as_completed(tasks):
            reason = task.result()
            _say({"url": tasks[task], "ok": not reason, "reason": reason})
    return 0


def read_urls(path: Path) -> dict[str, str]:
    """Return the URLs of a file by what may be told of them; empty lines and comments aside.

    Raises:
        ConfigError: It cannot be read, others may read it, or there is none in it.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            lines = stream.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}",
            hint="write a URL of Apprise on each line, mode 0600, or change notices.urls_file",
        ) from error
    if mode & _OTHERS:
        raise ConfigError(
            f"{path} can be read by others: its mode is {mode:04o}", hint=f"chmod 0600 {path}"
        )
    found = {}
    for number, line in enumerate(lines, 1):
        url = line.strip()
        if url and not url.startswith("#"):
            scheme, separator, _ = url.partition("://")
            is_plain = bool(separator) and scheme.isascii() and scheme.isalnum()
            found[f"line {number}" + (f" ({scheme})" if is_plain else "")] = url
    if not found:
        raise ConfigError(
            f"{path} names nobody", hint="write a URL of Apprise on each line, such as mailto://…"
        )
    return found


def _send_to(url: str, order: dict[str, Any]) -> str:
    """Send to one; return why it was not taken, or nothing."""
    import apprise  # noqa: PLC0415 - in this process alone

    try:
        asset = apprise.AppriseAsset(app_id="xbvault", app_desc="xbvault", app_url="")
        sender = apprise.Apprise(asset=asset)
        if not sender.add(url):
            return "no URL that Apprise takes"
        kind = apprise.NotifyType.SUCCESS if order["is_good"] else apprise.NotifyType.FAILURE
        is_taken = sender.notify(
            body=order["body"],
            title=order["title"],
            notify_type=kind,
            body_format=apprise.NotifyFormat.TEXT,
        )
    except Exception as error:  # noqa: BLE001 - whatever a service's plugin raises, without its words
        return f"Apprise raised {type(error).__name__}"
    return "" if is_taken else "it was not taken"


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
