"""What every `Remote` must do: one suite, passed by the double and by the real one.

A module subclasses `RemoteSuite` and gives two fixtures: ``remote``, a host on which ``printf``,
``cat``, ``stat -c %a`` and ``sh -c`` with the scripts below work, and ``folder``, an absolute path
on it to write files in.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import CommandError, PreconditionError
from orchestrator.models import Secret

if TYPE_CHECKING:
    from orchestrator.remote import Remote, Result

FAIL = "echo first >&2; echo disk is full >&2; exit 3"
LEAK = "read line; echo $line >&2; exit 1"
STRANGE = (
    "two words",
    'it\'s "quoted"',
    "line\nbreak\n",
    "-rf",
    "--",
    "",
    "$(id) `id` $HOME ; & | > < * ? [a] {b} ~ # !",
    "back\\slash",
    "grün 日本 🔑",
    "\ttab",
)


class RemoteSuite:
    """The truths about a door to a host."""

    def test_gives_what_the_command_wrote(self, remote: Remote) -> None:
        """Output, errors and status come back, and nothing is raised for status 0."""
        result = remote.run(["printf", "%s", "hello"])
        assert (result.status, result.stdout, result.stderr) == (0, b"hello", "")
        assert result.text == "hello"

    def test_bytes_that_are_not_text_stay_as_they_are(self, remote: Remote) -> None:
        """Output is bytes; as text, what is not UTF-8 is replaced."""
        result = remote.run(["cat"], stdin=b"a\xff\x00b")
        assert result.stdout == b"a\xff\x00b"
        assert result.text == "a\ufffd\x00b"

    @pytest.mark.parametrize(
        "stdin", ["clé", "clé".encode(), Secret("clé")], ids=["text", "bytes", "secret"]
    )
    def test_stdin_arrives(self, remote: Remote, stdin: str | bytes | Secret) -> None:
        """Text, bytes and secrets reach the command by stdin."""
        assert remote.run(["cat"], stdin=stdin).text == "clé"

    def test_arguments_are_data(self, remote: Remote) -> None:
        """Arguments arrive as they are, whatever a shell would make of them."""
        result = remote.run(["printf", r"%s\0", *STRANGE])
        assert result.stdout.decode().split("\0")[:-1] == list(STRANGE)

    @pytest.mark.parametrize("argv", [[], ["printf", "a\0b"]], ids=["empty", "zero byte"])
    def test_impossible_commands_are_refused(self, remote: Remote, argv: list[str]) -> None:
        """A command without a program, or with a zero byte, is a fault of the caller."""
        with pytest.raises(ValueError, match="zero byte"):
            remote.run(argv)

    def test_failure_raises(self, remote: Remote) -> None:
        """A status other than 0 raises, with program, status and the last line of stderr."""
        with pytest.raises(CommandError) as caught:
            remote.run(["sh", "-c", FAIL], stdin="not for messages")
        error = caught.value
        assert error.status == 3
        assert error.stderr == "first\ndisk is full"
        assert error.host == remote.name
        assert not error.transient
        assert error.message.startswith("sh -c ")
        assert error.message.endswith(f"on {remote.name} ended with status 3: disk is full")
        assert "not for messages" not in str(error.as_json())

    def test_failure_can_be_looked_at(self, remote: Remote) -> None:
        """Without check the status is the answer."""
        result = remote.run(["sh", "-c", FAIL], check=False)
        assert (result.status, result.stderr) == (3, "first\ndisk is full\n")

    def test_output_comes_in_blocks(self, remote: Remote) -> None:
        """Bytes of any kind, up to the size that is asked for, and nothing after the end."""
        with remote.open_output(["printf", "%s", "grün" * 2000], timeout_seconds=20) as output:
            blocks = []
            while block := output.read(1000):
                blocks.append(block)
            assert output.read(1000) == b""
        assert b"".join(blocks).decode() == "grün" * 2000
        assert max(map(len, blocks)) <= 1000

    def test_output_of_a_command_that_fails_is_no_end(self, remote: Remote) -> None:
        """Where the end would be, the failure is raised, with the last line of stderr."""
        with (
            remote.open_output(["sh", "-c", FAIL], timeout_seconds=20) as output,
            pytest.raises(CommandError, match="disk is full") as caught,
        ):
            output.read(1000)
        assert caught.value.status == 3

    def test_output_that_is_left_is_no_fault(self, remote: Remote) -> None:
        """Who has seen enough goes, and the host answers as before."""
        with remote.open_output(["printf", "%s", "x" * 5000], timeout_seconds=20) as output:
            assert output.read(10) == b"x" * 10
        assert remote.run(["printf", "%s", "again"]).text == "again"

    def test_secrets_in_stderr_are_masked(self, remote: Remote) -> None:
        """A secret that a tool writes to stderr is not in the error."""
        secret = Secret("hidden-value-4711")
        with pytest.raises(CommandError) as caught:
            remote.run(["sh", "-c", LEAK], stdin=Secret.join(secret, "\n"))
        assert "***" in caught.value.message
        assert "hidden-value" not in str(caught.value.as_json())

    def test_files_come_back_as_written(self, remote: Remote, folder: str) -> None:
        """Bytes, text and secrets are written whole, to names of any kind, with their mode."""
        contents: list[str | bytes | Secret] = [
            b"\x00\xff" * 5000,
            "clé\n",
            Secret("s3cret-s3cret"),
            "",
        ]
        for number, content in enumerate(contents):
            path = f"{folder}/-a 'b' grün\n{number}"
            remote.write_file(path, content, mode=0o640)
            expected = content.reveal() if isinstance(content, Secret) else content
            expected = expected.encode() if isinstance(expected, str) else expected
            assert remote.read_file(path) == expected
            assert remote.run(["stat", "-c", "%a", path]).text == "640\n"

    def test_files_are_private_by_default(self, remote: Remote, folder: str) -> None:
        """A file without a mode is for its owner alone, and replacing one gives it that mode."""
        path = f"{folder}/private"
        remote.write_file(path, "old", mode=0o644)
        remote.write_file(path, "new")
        assert remote.read_file(path) == b"new"
        assert remote.run(["stat", "-c", "%a", path]).text == "600\n"

    def test_missing_file(self, remote: Remote, folder: str) -> None:
        """A file that is not there is a precondition that does not hold."""
        with pytest.raises(PreconditionError, match=r"no file .*/nothing") as caught:
            remote.read_file(f"{folder}/nothing")
        assert caught.value.host == remote.name
        with pytest.raises(PreconditionError, match="no file"):
            remote.read_secret(f"{folder}/nothing")

    def test_secret_is_the_whole_file_stripped(self, remote: Remote, folder: str) -> None:
        """A secret file's line end is not part of the secret."""
        remote.write_file(f"{folder}/token", "s.token-of-a-host \n")
        found = remote.read_secret(f"{folder}/token")
        assert found == Secret("s.token-of-a-host")
        remote.write_file(f"{folder}/token", "\n")
        with pytest.raises(PreconditionError, match="token is empty"):
            remote.read_secret(f"{folder}/token")

    def test_secret_of_an_environment_file(self, remote: Remote, folder: str) -> None:
        """A name selects one value; its quotes go, and the last one counts."""
        path = f"{folder}/vault.env"
        remote.write_file(
            path, "# VAULT_TOKEN=no\nVAULT_ADDR=x\nVAULT_TOKEN=a\nVAULT_TOKEN='b=c d'\n"
        )
        assert remote.read_secret(path, "VAULT_TOKEN") == Secret("b=c d")
        with pytest.raises(PreconditionError, match=r"no OTHER in .*vault.env"):
            remote.read_secret(path, "OTHER")

    def test_host_key_lines(self, remote: Remote) -> None:
        """Each address gets a known_hosts line with the same key."""
        lines = remote.host_key_lines(["192.0.2.1", "[db1]:2222"])
        assert [line.split()[0] for line in lines] == ["192.0.2.1", "[db1]:2222"]
        assert len({line.partition(" ")[2] for line in lines}) == 1
        assert lines[0].split()[1].startswith(("ssh-", "ecdsa-"))
        assert len(lines[0].split()) == 3

    def test_close_is_not_the_end(self, remote: Remote) -> None:
        """Closing twice is no fault, and the next use opens the door again."""
        remote.close()
        remote.close()
        assert remote.run(["printf", "%s", "again"]).text == "again"

    def test_threads_share_a_host(self, remote: Remote) -> None:
        """Several threads run commands at once, and each gets its own answer."""
        answers: dict[int, Result] = {}

        def ask(number: int) -> None:
            for _ in range(5):
                answers[number] = remote.run(["cat"], stdin=f"{number}" * 1000)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert {n: answer.text for n, answer in answers.items()} == {
            n: f"{n}" * 1000 for n in range(6)
        }
