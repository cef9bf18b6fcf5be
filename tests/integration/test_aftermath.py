"""What is told of runs: the real engine, the real process that sends, a server that is told."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import shutil
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import engine_lab
import pytest
from click.testing import CliRunner
from engine_lab import EngineSession, parse, read_events, script
from prometheus_client.parser import text_string_to_metric_families
from stored_runs import make_backup_plan, make_restore_plan

from orchestrator import config as config_module
from orchestrator import durable, log, notices
from orchestrator.cli.backend import Backend
from orchestrator.cli.call import Call
from orchestrator.cli.main import app
from orchestrator.errors import ConfigError, HostUnreachableError, RemoteError
from orchestrator.models import BACKUP, RESTORE, Check, Secret
from orchestrator.notices import Notice
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from click.testing import Result

    from orchestrator.config import Config
    from orchestrator.durable import RunRecord
    from orchestrator.models import BackupPlan, RestorePlan, RunPlan
    from orchestrator.playbook import Playbook

PASSWORD = "pässword-in-a-url"
NOTICE = Notice(title="xbvault: a title", body="line 1\nline 2 <b>", is_good=False)


class Receiver(http.server.ThreadingHTTPServer):
    """A server on loopback that keeps what it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.told: list[dict[str, Any]] = []
        self.status = 200
        self.release = threading.Event()
        self.release.set()

    @property
    def url(self) -> str:
        """What a file of URLs has for it."""
        return f"json://user:{PASSWORD}@127.0.0.1:{self.server_port}/told"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """Take a notice, in good time."""
        size = int(self.headers["Content-Length"])
        self.server.told.append(json.loads(self.rfile.read(size)))
        self.server.release.wait(60)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a server that is running."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def urls(tmp_path: Path, receiver: Receiver) -> Path:
    """Return a file of URLs that names the server."""
    path = tmp_path / "urls"
    path.write_text(f"# who is told\n\n{receiver.url}\n")
    path.chmod(0o600)
    return path


def make_settings(tmp_path: Path, **notices_table: str) -> Config:
    """Return a configuration with metrics and notices in a folder of the test."""
    return config_module.parse(
        {
            "journal": {"directory": str(tmp_path / "state")},
            "metrics": {"textfile": str(tmp_path / "xbvault.prom")},
            "notices": {"urls_file": str(tmp_path / "urls"), **notices_table},
            "hosts": {"db1": {"vault_mount": "m"}, "db2": {"vault_mount": "n"}},
            "repositories": {"store": {"path": "/srv/xbvault"}},
        }
    )


# --- sending ---


def test_a_notice_arrives_as_it_was_written(tmp_path: Path, urls: Path, receiver: Receiver) -> None:
    """Title, text and kind, whatever markup it looks like."""
    assert notices.send(make_settings(tmp_path), NOTICE).count == 1
    (told,) = receiver.told
    assert (told["title"], told["message"], told["type"]) == (
        NOTICE.title,
        NOTICE.body,
        "failure",
    )


def test_a_secret_is_masked_in_a_notice(tmp_path: Path, urls: Path, receiver: Receiver) -> None:
    """By its value, and by its looks."""
    clear = "value-of-a-secret"
    Secret(clear)
    body = f"error: {clear} and hvs.ABCDEFGHIJKLMNOPQRSTUVWX"
    notices.send(make_settings(tmp_path), dataclasses.replace(NOTICE, title=clear, body=body))
    (told,) = receiver.told
    assert (told["title"], told["message"]) == ("***", "error: *** and ***")


def test_those_who_do_not_take_it_are_named_by_line_and_scheme(
    tmp_path: Path, urls: Path, receiver: Receiver
) -> None:
    """And nothing else of a URL, which holds a secret."""
    with urls.open("a") as stream:
        stream.write(f"json://u:{PASSWORD}@127.0.0.1:1/\nno-such://{PASSWORD}\n{PASSWORD}\n")
    sent = notices.send(make_settings(tmp_path), NOTICE)
    assert sent.count == 1
    assert sent.failed == (
        "line 4 (json): it was not taken",
        "line 5: no URL that Apprise takes",
        "line 6: no URL that Apprise takes",
    )


def test_a_notice_that_nobody_takes_is_an_error(
    tmp_path: Path, urls: Path, receiver: Receiver
) -> None:
    """Of the kind of a host that cannot be used."""
    receiver.status = 500
    with pytest.raises(RemoteError, match="went to nobody") as caught:
        notices.send(make_settings(tmp_path), NOTICE)
    assert caught.value.problems == ("line 3 (json): it was not taken",)


def test_who_does_not_answer_is_given_up_in_time(
    tmp_path: Path, urls: Path, receiver: Receiver
) -> None:
    """The process that sends is ended; the others have got theirs."""
    receiver.release.clear()
    began = time.monotonic()
    with pytest.raises(RemoteError) as caught:
        notices.send(make_settings(tmp_path), NOTICE, seconds=2.5)
    assert time.monotonic() - began < 5
    assert caught.value.problems == ("line 3 (json): no answer within 2.5 s",)


def test_a_file_of_urls_that_others_may_read_is_refused(
    tmp_path: Path, urls: Path, receiver: Receiver
) -> None:
    """So is one that is not there, or names nobody; each with its hint."""
    settings = make_settings(tmp_path)
    urls.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others: its mode is 0640") as caught:
        notices.send(settings, NOTICE)
    assert caught.value.hint == f"chmod 0600 {urls}"
    urls.write_text("# nobody\n")
    urls.chmod(0o600)
    with pytest.raises(ConfigError, match="names nobody"):
        notices.send(settings, NOTICE)
    urls.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        notices.send(settings, NOTICE)
    assert receiver.told == []
    with pytest.raises(ConfigError, match="no file of URLs"):
        notices.send(make_settings(tmp_path, urls_file=""), NOTICE)


# --- at the end of runs ---


class Lab(Backend):
    """The real engine with steps that do nothing; plans are made of plain values."""

    def __init__(self, settings: Config) -> None:
        self.settings = settings
        self.refusal: Exception | None = None

    def load_config(self, path: Path) -> Config:
        """Return the configuration of the test."""
        return self.settings

    def load_playbook(self, name_or_path: str) -> Playbook:
        """Return one of dummy steps."""
        return parse(engine_lab.UNDO if "undo" in name_or_path else engine_lab.MAIN)

    def make_backup_plan(
        self, config: Config, donor: str, repository: str, **options: Any
    ) -> tuple[BackupPlan, Sequence[Check]]:
        """Ask nobody."""
        if self.refusal is not None:
            raise self.refusal
        run_id = f"b{len(durable.list_runs(config))}"
        return make_backup_plan(run_id, host=donor, repository="store"), ()

    def make_restore_plan(
        self, config: Config, backup: str, recipient: str, repository: str, **options: Any
    ) -> tuple[RestorePlan, Sequence[Check]]:
        """Ask nobody."""
        return make_restore_plan("r0", host=recipient), ()

    def begin_run(self, config: Config, plan: RunPlan, playbook: Playbook) -> RunRecord:
        """Begin it with doors that are shut."""
        return durable.begin_run(config, plan, playbook, EngineSession)

    def resume_run(self, config: Config, run_id: str) -> RunRecord:
        """Resume it likewise."""
        return durable.resume_run(config, run_id, EngineSession)

    def undo_run(self, config: Config, run_id: str, playbook: Playbook) -> RunRecord:
        """Undo it likewise."""
        return durable.undo_run(config, run_id, EngineSession, playbook)


@dataclasses.dataclass
class Stand:
    """A command line over the real engine."""

    lab: Lab
    folder: Path

    def call(self, *arguments: str) -> Result:
        """Call it."""
        call = Call(backend=self.lab, is_interactive=lambda: False)
        path = self.folder / "xbvault.toml"
        path.touch()
        return CliRunner().invoke(app, ["--config", str(path), *arguments], obj=call)

    def configure(self, **notices_table: str) -> None:
        """Change the table of notices."""
        self.lab.settings = make_settings(self.folder, **notices_table)

    def read_metrics(self) -> dict[str, float]:
        """Return the samples of the file without labels that tell steps apart."""
        text = (self.folder / "xbvault.prom").read_text()
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if "step" not in sample.labels
        }

    def read_warnings(self, run_id: str) -> list[str]:
        """Return what a run's log warns of."""
        events = read_events(self.folder / "state", run_id)
        return [event["message"] for event in events if event["event"] == "notice"]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, urls: Path) -> Stand:
    """Return a command line over an empty journal, whose steps take backups and restores."""
    (tmp_path / "world").mkdir()
    monkeypatch.setenv("ENGINE_WORLD", str(tmp_path / "world"))
    for name, info in engine_lab.DUMMIES.items():
        taken = dataclasses.replace(info, forms=frozenset({BACKUP, RESTORE}))
        monkeypatch.setitem(REGISTRY, name, taken)
    log.configure()
    return Stand(Lab(make_settings(tmp_path)), tmp_path)


def test_a_backup_writes_metrics_and_keeps_quiet(stand: Stand, receiver: Receiver) -> None:
    """Nobody is told of a success unless that was asked for."""
    began = time.time()
    result = stand.call("backup", "db1", "--yes", "--json")
    assert result.exit_code == 0, result.output
    found = stand.read_metrics()
    assert found["xbvault_backup_last_succeeded"] == 1
    moment = found["xbvault_backup_last_success_timestamp_seconds"]
    assert began - 1 <= moment <= time.time() + 1
    assert stat.S_IMODE((stand.folder / "xbvault.prom").stat().st_mode) == 0o644
    assert receiver.told == []
    assert stand.read_warnings("b0") == []


def test_a_backup_that_fails_is_told_of_with_its_error_and_hint(
    stand: Stand, receiver: Receiver
) -> None:
    """Host, repository, verdict, run, error and hint; then the resume that succeeds, if asked."""
    script("engine-two", "fail")
    result = stand.call("backup", "db1", "--yes", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["status"] == "failed"
    (told,) = receiver.told
    assert told["title"] == "xbvault: backup of db1 to store: failed"
    for line in (
        "run: b0",
        "status: failed",
        "donor: db1",
        "repository: store",
        "backup set: set-of-b0",
        "error: it failed [replica]",
        "hint: look",
    ):
        assert line in told["message"].splitlines()
    assert stand.read_metrics()["xbvault_backup_last_succeeded"] == 0
    stand.configure(on="always")
    assert stand.call("runs", "resume", "b0", "--json").exit_code == 0
    assert receiver.told[1]["title"] == "xbvault: backup of db1 to store: succeeded"
    assert receiver.told[1]["type"] == "success"
    assert stand.read_metrics()["xbvault_backup_last_succeeded"] == 1


def test_a_backup_that_was_undone_is_no_good_one_any_more(stand: Stand, receiver: Receiver) -> None:
    """The metrics follow; nobody is told of what a person at the prompt has done."""
    stand.configure(on="always")
    assert stand.call("backup", "db1", "--yes").exit_code == 0
    assert stand.call("runs", "undo", "b0", "--yes").exit_code == 0
    assert stand.read_metrics() == {}
    assert len(receiver.told) == 1


def test_a_restore_is_told_of_by_its_recipient(stand: Stand, receiver: Receiver) -> None:
    """With the repository that it came from."""
    stand.configure(on="always")
    assert stand.call("restore", "latest", "db2", "--yes").exit_code == 0
    assert receiver.told[0]["title"] == "xbvault: restore from store to db2: succeeded"
    assert stand.read_metrics()["xbvault_restore_last_succeeded"] == 1


def test_a_backup_that_did_not_begin_is_told_of_where_nobody_sees_it(
    stand: Stand, receiver: Receiver
) -> None:
    """With --yes; a person who can be asked has seen it, and --plan begins nothing."""
    stand.lab.refusal = HostUnreachableError("no answer", host="db1", hint="look at it")
    assert stand.call("backup", "db1", "--yes", "--json").exit_code == 4
    (told,) = receiver.told
    assert told["title"] == "xbvault: backup of db1: did not begin"
    assert told["message"] == "error: no answer [db1]\nhint: look at it"
    assert stand.call("backup", "db1", "--plan").exit_code == 4
    assert len(receiver.told) == 1


def test_an_expiry_that_fails_is_told_of_where_nobody_sees_it(
    stand: Stand, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no run, and scheduled all the same."""
    for name in ("VAULT_ADDR", "VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(stand.folder))
    assert stand.call("backups", "expire", "--yes", "--json").exit_code == 2
    assert [told["title"] for told in receiver.told] == ["xbvault: expiry of backups: failed"]
    assert stand.call("backups", "expire", "--plan").exit_code == 2
    assert len(receiver.told) == 1


def test_neither_metrics_nor_notices_fail_a_run(stand: Stand, receiver: Receiver) -> None:
    """What goes wrong is a warning in the run's log."""
    receiver.status = 500
    stand.configure(on="always")
    (stand.folder / "xbvault.prom").mkdir()
    result = stand.call("backup", "db1", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"] == "succeeded"
    metrics_warning, notice_warning = stand.read_warnings("b0")
    assert metrics_warning.startswith("cannot write ")
    assert notice_warning == "the notice went to nobody"
    shutil.rmtree(stand.folder / "xbvault.prom")
    os.chmod(stand.folder / "urls", 0o644)  # noqa: PTH101 - as a person does
    assert stand.call("backup", "db1", "--yes", "--json").exit_code == 0
    assert stand.read_warnings("b1") == [
        f"{stand.folder / 'urls'} can be read by others: its mode is 0644"
    ]
    logs = (stand.folder / "state" / "logs").glob("*.jsonl")
    assert all(PASSWORD not in path.read_text() for path in logs)


def test_metrics_of_a_repository_out_of_reach_are_written_all_the_same(
    stand: Stand, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's in the one file, that it could not be read in the other; then the error."""
    for name in ("VAULT_ADDR", "VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(stand.folder))
    assert stand.call("backup", "db1", "--yes").exit_code == 0
    (stand.folder / "xbvault.prom").unlink()
    result = stand.call("metrics", "--write")
    assert result.exit_code == 2
    assert "no Vault" in result.stderr
    assert stand.read_metrics()["xbvault_backup_last_succeeded"] == 1
    beside = (stand.folder / "xbvault-repositories.prom").read_text().splitlines()
    assert beside[-1] == 'xbvault_repository_read_succeeded{repository="store"} 0.0'


def test_notices_test_sends_one(stand: Stand, receiver: Receiver) -> None:
    """And says to how many, or to whom not."""
    assert stand.call("notices", "test").stdout == "sent to 1\n"
    assert receiver.told[0]["title"] == "xbvault: a test"
    with (stand.folder / "urls").open("a") as stream:
        stream.write("no-such://thing\n")
    result = stand.call("notices", "test", "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert (document["sent"], document["status"]) == (1, "failed")
    assert document["failed"] == ["line 4: no URL that Apprise takes"]
    receiver.status = 500
    assert stand.call("notices", "test").exit_code == 4
    stand.configure(urls_file="")
    assert stand.call("notices", "test").exit_code == 2
