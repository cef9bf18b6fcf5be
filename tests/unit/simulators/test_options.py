"""The order, the groups and the traps of the option files and of the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from simulators import options as options_module
from simulators.errors import Failure
from simulators.options import Options, check_unknown, read_options
from simulators.versions import parse_version

if TYPE_CHECKING:
    from pathlib import Path

NEWEST, OLD = parse_version("9.7.1"), parse_version("2.4.29")


@pytest.fixture(autouse=True)
def _no_global_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the machine's own files out."""
    monkeypatch.setattr(options_module, "GLOBAL_FILES", (str(tmp_path / "global.cnf"),))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def write(path: Path, text: str) -> Path:
    """Write an option file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read_file(tmp_path: Path, text: str, *words: str, version: str = "9.7.1") -> Options:
    """Read an option file that --defaults-file names, and some words."""
    path = write(tmp_path / "own.cnf", text)
    return read_options([f"--defaults-file={path}", *words], parse_version(version))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("abc", "abc"),
        ("abc#def", "abc"),
        ('"abc#def"', "abc#def"),
        ("'abc'", "abc"),
        (r'"a\\b\"c"', 'a\\b"c'),
        (r"a\tb", "a\tb"),
        (r"a\qb", r"a\qb"),
        ("  abc  # why", "abc"),
        ("", ""),
    ],
)
def test_values_are_unquoted(written: str, value: str, tmp_path: Path) -> None:
    """Comments, quotes and escapes, as MySQL's programs read them."""
    found = read_file(tmp_path, f"[xtrabackup]\ntransition-key = {written}\n")
    assert found.values["transition-key"] == value


def test_groups_are_read_for_their_side(tmp_path: Path) -> None:
    """[client] gives no server option and [mysqld] no client option."""
    text = "[mysqld]\nuser=mysql\ndatadir=/m\n[client]\nuser=c\ndatadir=/c\n[other]\nhost=h\n"
    found = read_file(tmp_path, text)
    assert found.values == {"datadir": "/m", "user": "c"}


def test_a_further_group_is_read_for_the_server(tmp_path: Path) -> None:
    """--defaults-group adds one."""
    text = "[mysqld2]\ndatadir=/two\n"
    assert read_file(tmp_path, text).values == {}
    found = read_file(tmp_path, text, "--defaults-group=mysqld2")
    assert found.values["datadir"] == "/two"


def test_the_command_line_goes_last(tmp_path: Path) -> None:
    """A word goes before a line of a file."""
    found = read_file(tmp_path, "[xtrabackup]\ndatadir=/file\n", "--datadir=/word")
    assert found.text("datadir") == "/word"


def test_files_are_included(tmp_path: Path) -> None:
    """!include takes a file, !includedir the .cnf files of a directory, in order."""
    write(tmp_path / "one.cnf", "[mysqld]\nserver-id=1\n")
    write(tmp_path / "d" / "a.cnf", "[mysqld]\ndatadir=/a\n")
    write(tmp_path / "d" / "b.cnf", "[mysqld]\ndatadir=/b\n")
    write(tmp_path / "d" / "c.txt", "[mysqld]\ndatadir=/c\n")
    found = read_file(tmp_path, f"!include {tmp_path}/one.cnf\n!includedir {tmp_path}/d\n")
    assert found.values == {"server-id": "1", "datadir": "/b"}


@pytest.mark.parametrize("option", ["--defaults-file", "--defaults-extra-file"])
def test_an_option_file_stands_first(option: str, tmp_path: Path) -> None:
    """Anywhere else the option is refused."""
    path = write(tmp_path / "own.cnf", "")
    with pytest.raises(Failure, match=f"{option} must be specified first"):
        read_options(["--backup", f"{option}={path}"], NEWEST)


def test_global_files_are_read_with_an_extra_one_only(tmp_path: Path) -> None:
    """--defaults-extra-file adds a file, --defaults-file replaces all, --no-defaults takes none."""
    write(tmp_path / "global.cnf", "[mysqld]\ndatadir=/global\nserver-id=1\n")
    path = write(tmp_path / "own.cnf", "[mysqld]\ndatadir=/own\n")
    extra = read_options([f"--defaults-extra-file={path}"], NEWEST)
    assert extra.values == {"datadir": "/own", "server-id": "1"}
    assert read_options([f"--defaults-file={path}"], NEWEST).values == {"datadir": "/own"}
    assert read_options(["--backup"], NEWEST).text("datadir") == "/global"
    assert read_options(["--no-defaults", "--backup"], NEWEST).text("datadir") == ""


def test_prepare_reads_the_backup_and_nothing_else(tmp_path: Path) -> None:
    """With the target on the command line, --defaults-file is not even opened."""
    write(tmp_path / "set" / "backup-my.cnf", "[mysqld]\nserver-id=7\n")
    write(tmp_path / "global.cnf", "[mysqld]\ndatadir=/global\n")
    key = write(tmp_path / "key.cnf", '[xtrabackup]\ntransition-key="k"\n')
    for first in (f"--defaults-file={key}", f"--defaults-extra-file={key}", "--defaults-file=/no"):
        found = read_options([first, "--prepare", f"--target-dir={tmp_path}/set"], NEWEST)
        assert "transition-key" not in found.values
        assert (found.text("server-id"), found.text("datadir")) == ("7", "")


def test_prepare_reads_a_file_that_names_the_target(tmp_path: Path) -> None:
    """The way round: target and key in the file, which includes the backup's configuration."""
    path = write(tmp_path / "set" / "backup-my.cnf", "[mysqld]\nserver-id=7\n")
    text = f'!include {path}\n[xtrabackup]\ntarget-dir={tmp_path}/set\ntransition-key="k"\n'
    found = read_file(tmp_path, text, "--prepare")
    assert found.text("transition-key") == "k"
    assert found.text("server-id") == "7"
    assert found.text("target-dir") == f"{tmp_path}/set"


def test_an_optional_value_needs_an_equals_sign() -> None:
    """A bare option asks, and a value behind a space is an unknown argument."""
    assert read_options(["--transition-key"], NEWEST).values == {"transition-key": None}
    assert read_options(["--transition-key="], NEWEST).values == {"transition-key": ""}
    with pytest.raises(Failure, match="unknown argument: 'K'") as caught:
        read_options(["--backup", "--transition-key", "K"], NEWEST)
    assert caught.value.status == 1


def test_values_may_stand_behind_a_space() -> None:
    """Other values may; without one the option is refused with getopt's own status."""
    assert read_options(["--target_dir", "/x"], NEWEST).values == {"target-dir": "/x"}
    with pytest.raises(Failure, match="requires an argument") as caught:
        read_options(["--target-dir"], NEWEST)
    assert caught.value.status == 5


def test_flags_take_a_switch() -> None:
    """--strict=0 is as good as none."""
    assert not read_options(["--strict=0"], NEWEST).has("strict")
    assert read_options(["--strict"], NEWEST).has("strict")


def test_secrets_are_shown_as_stars(tmp_path: Path) -> None:
    """The lists of recognised arguments name a secret and hide its value."""
    found = read_file(
        tmp_path, "[xtrabackup]\ntransition-key=k1k1\n[client]\npassword=p1p1\n", "--backup"
    )
    assert found.server_shown == ("--transition-key=*",)
    assert found.client_shown == ("--password=*", "--backup=1")


def test_unknown_options_warn_or_stop(tmp_path: Path) -> None:
    """On the command line and in [xtrabackup] only; with --strict they are an error."""
    text = "[xtrabackup]\nnot-mine=1\n[mysqld]\nsome-server-option=1\n"
    assert check_unknown(read_file(tmp_path, text, "--nor-this")) == (
        "unknown option '--not-mine', '--nor-this'"
    )
    with pytest.raises(Failure, match="'--not-mine'"):
        check_unknown(read_file(tmp_path, text, "--strict"))
    assert check_unknown(read_file(tmp_path, "[mysqld]\nsome-server-option=1\n", "--strict")) == ""


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("2.4.7", "transition-key"),
        ("2.4.29", "component-keyring-config"),
        ("8.0.26-18", "component-keyring-config"),
        ("2.4.29", "strict"),
    ],
)
def test_options_come_with_a_version(version: str, name: str) -> None:
    """A version does not know what came later."""
    assert read_options([f"--{name}=1"], parse_version(version)).unknown == (name,)
    assert read_options([f"--{name}=1"], NEWEST).unknown == ()


def test_the_first_plugin_option_is_lost_in_2_4(tmp_path: Path) -> None:
    """It is taken for the program's name, so early-plugin-load must stand first."""
    config = "keyring_vault_config=/v.conf\n"
    load = "early-plugin-load=keyring_vault.so\n"
    good = read_file(tmp_path, f"[mysqld]\n{load}{config}", version=OLD.text)
    bad = read_file(tmp_path, f"[mysqld]\ndatadir=/d\n{config}{load}", version=OLD.text)
    assert good.plugin_libraries == bad.plugin_libraries == ("keyring_vault.so",)
    assert good.plugin_values == {"keyring-vault-config": "/v.conf"}
    assert bad.plugin_values == {}
    late = read_file(tmp_path, f"[mysqld]\n{config}{load}", version="8.0.35-34")
    assert late.plugin_values == {"keyring-vault-config": "/v.conf"}


def test_newer_versions_load_no_plugins(tmp_path: Path) -> None:
    """8.4 has components only."""
    text = "[mysqld]\nearly-plugin-load=keyring_vault.so\n"
    assert read_file(tmp_path, text, version="8.4.0-5").plugin_libraries == ()


def test_a_pipe_gives_its_options_once(tmp_path: Path) -> None:
    """Files are read twice, and the second time, for the client, a pipe is empty."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"[xtrabackup]\ntransition-key=k\nuser=u\n")
    os.close(write_end)
    try:
        found = read_options([f"--defaults-file=/dev/fd/{read_end}"], NEWEST)
    finally:
        os.close(read_end)
    assert found.values == {"transition-key": "k"}


def test_a_file_that_everyone_may_write_is_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a warning."""
    path = write(tmp_path / "own.cnf", "[mysqld]\ndatadir=/d\n")
    path.chmod(0o666)
    assert read_options([f"--defaults-file={path}"], NEWEST).values == {}
    assert "World-writable" in capsys.readouterr().err


def test_a_required_file_must_be_there() -> None:
    """What --defaults-file names is required."""
    with pytest.raises(Failure, match="Could not open required defaults file: /no/such"):
        read_options(["--defaults-file=/no/such"], NEWEST)


def test_defaults_are_printed_without_secrets(tmp_path: Path) -> None:
    """--print-defaults gives what the files say, with the secrets masked."""
    write(tmp_path / "global.cnf", "[xtrabackup]\ndatadir=/d\ntransition-key=k1k1\n")
    found = read_options(["--print-defaults"], NEWEST)
    assert found.defaults == ("--datadir=/d", "--transition-key=*****")
