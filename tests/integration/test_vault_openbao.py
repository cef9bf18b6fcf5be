from __future__ import annotations

import contextlib
import http.server
import itertools
import statistics
import subprocess
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from openbao import OpenBao, make_ca, running_openbao

from orchestrator.errors import SecretError, SecretStoreUnavailableError
from orchestrator.models import Secret
from orchestrator.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VALUE = "5e" * 32
_numbers = itertools.count()


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """A server that all tests of this file share."""
    with running_openbao() as server:
        yield server


@pytest.fixture
def own_bao() -> Iterator[OpenBao]:
    """A server that a test may seal or stop."""
    with running_openbao() as server:
        yield server


@pytest.fixture
def root(bao: OpenBao) -> Vault:
    """A connection that may do anything."""
    return bao.vault()


@pytest.fixture
def mount(root: Vault) -> str:
    """A new KV mount, with slashes in its path."""
    path = f"kv/{next(_numbers)}/x"
    root.create_kv_mount(path)
    return path


def _limited(root: Vault, policy: str, *, period: int = 600) -> tuple[Secret, str]:
    """Return a token with a policy of its own, and its accessor."""
    name = f"limited-{next(_numbers)}"
    root.write_policy(name, policy)
    root.write_token_role(
        name,
        {
            "allowed_policies": [name],
            "token_no_default_policy": True,
            "token_period": period,
            "orphan": True,
        },
    )
    return root.create_token(name)


def test_a_secret_is_written_and_read_back(root: Vault, mount: str) -> None:
    """Versions count up, each can be read, and values come back as `Secret`."""
    assert root.read_secret(mount, "keys/1") is None
    assert root.write_secret(mount, "keys/1", {"data": Secret(VALUE), "note": "x"}, cas=0) == 1
    assert root.write_secret(mount, "keys/1", {"data": "second"}, cas=1) == 2
    first = root.read_secret(mount, "keys/1", version=1)
    assert first == {"data": Secret(VALUE), "note": Secret("x")}
    assert VALUE not in repr(first)
    assert root.read_secret(mount, "keys/1") == {"data": Secret("second")}
    assert root.read_secret(mount, "keys/1", version=3) is None


def test_a_field_that_is_no_text_is_read_as_json(bao: OpenBao, root: Vault, mount: str) -> None:
    """Whatever somebody else wrote there, the value stays inside a `Secret`."""
    bao.request("POST", f"{mount}/data/odd", {"data": {"n": 1, "yes": True, "list": ["a"]}})
    found = root.read_secret(mount, "odd")
    assert found == {"n": Secret("1"), "yes": Secret("true"), "list": Secret('["a"]')}


def test_check_and_set_writes_nothing_over_another_version(root: Vault, mount: str) -> None:
    """With a version that is not the newest, the write is refused and nothing changes."""
    root.write_secret(mount, "a", {"data": "first"}, cas=0)
    for cas in (0, 2):
        with pytest.raises(SecretError, match="nothing was written"):
            root.write_secret(mount, "a", {"data": Secret(VALUE)}, cas=cas)
    assert root.read_secret(mount, "a") == {"data": Secret("first")}


@pytest.mark.parametrize("name", ["a b", "ü/ä", "50%", "q?x=1", "#", "a+b", "20261121T210500Z-db1"])
def test_names_are_quoted(root: Vault, mount: str, name: str) -> None:
    """A name with signs that mean something in a URL is that very name in Vault."""
    root.write_secret(mount, name, {"data": name}, cas=0)
    assert root.read_secret(mount, name) == {"data": Secret(name)}
    assert root.read_metadata(mount, name) is not None
    folder, _, last = name.rpartition("/")
    assert root.list_secrets(mount, folder) == (last,)


def test_metadata_tells_versions_and_notes(root: Vault, mount: str) -> None:
    """Destroyed and deleted versions are told apart, and notes outlive the values."""
    assert root.read_metadata(mount, "k") is None
    for cas in range(3):
        root.write_secret(mount, "k", {"data": VALUE}, cas=cas)
    root.write_custom_metadata(mount, "k", {"run": "r1", "state": "live"})
    root.destroy_versions(mount, "k", [1, 2])
    root.destroy_versions(mount, "k", [])
    found = root.read_metadata(mount, "k")
    assert found is not None
    assert found.current_version == 3
    assert {n: v.destroyed for n, v in found.versions.items()} == {1: True, 2: True, 3: False}
    assert not found.versions[3].deleted
    assert abs(found.versions[3].created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert found.custom == {"run": "r1", "state": "live"}
    assert found.max_versions == 0
    root.write_custom_metadata(mount, "k", {"state": "destroyed"})
    again = root.read_metadata(mount, "k")
    assert again is not None
    assert again.custom == {"state": "destroyed"}
    assert root.read_secret(mount, "k", version=1) is None
    root.destroy_versions(mount, "k", [3])
    assert root.read_secret(mount, "k") is None
    assert root.read_metadata(mount, "k") is not None


def test_a_deleted_version_is_told(bao: OpenBao, root: Vault, mount: str) -> None:
    """A version that somebody deleted reads as none, and its metadata says so."""
    root.write_secret(mount, "k", {"data": VALUE}, cas=0)
    bao.request("DELETE", f"{mount}/data/k")
    assert root.read_secret(mount, "k") is None
    found = root.read_metadata(mount, "k")
    assert found is not None
    assert found.versions[1].deleted
    assert not found.versions[1].destroyed


def test_a_secret_is_listed_and_removed(root: Vault, mount: str) -> None:
    """Removing twice is as good as once."""
    assert root.list_secrets(mount) == ()
    root.write_secret(mount, "1", {"data": VALUE}, cas=0)
    root.write_secret(mount, "sub/2", {"data": VALUE}, cas=0)
    assert root.list_secrets(mount) == ("1", "sub/")
    assert root.list_secrets(mount, "sub") == root.list_secrets(mount, "sub/") == ("2",)
    root.remove_secret(mount, "1")
    root.remove_secret(mount, "1")
    assert root.list_secrets(mount) == ("sub/",)
    assert root.read_metadata(mount, "1") is None


def test_a_new_mount_can_be_used_at_once(root: Vault) -> None:
    """`create_kv_mount` returns when a write and a read succeed, each of ten times."""
    for _ in range(10):
        path = f"transition/r1/{next(_numbers)}"
        root.create_kv_mount(path, description="a test", max_versions=1000)
        assert root.write_secret(path, "1", {"data": VALUE}, cas=0) == 1
        assert root.read_mount_config(path) == 1000
        assert root.read_kv_version(path) == 2
        assert root.list_mounts()[path].description == "a test"
        root.remove_mount(path)


def test_a_mount_is_removed_with_all_it_holds(root: Vault, mount: str) -> None:
    """Removing twice is as good as once; a mount beside it is not touched."""
    beside = f"{mount}-beside"
    root.create_kv_mount(beside)
    assert root.has_mount(mount)
    root.remove_mount(mount)
    root.remove_mount(mount)
    assert not root.has_mount(mount)
    assert root.has_mount(beside)
    with pytest.raises(SecretError, match="no handler"):
        root.read_secret(mount, "1")


def test_a_mount_in_the_way_is_an_error(root: Vault, mount: str) -> None:
    """A path that is taken is told in Vault's words."""
    with pytest.raises(SecretError, match="already in use"):
        root.create_kv_mount(mount)


def test_versions_kept_by_a_mount_can_be_set(root: Vault, mount: str) -> None:
    """0 is what a mount has before anybody sets it."""
    assert root.read_mount_config(mount) == 0
    root.write_mount_config(mount, max_versions=1000)
    assert root.read_mount_config(mount) == 1000


def test_another_engine_is_no_kv(root: Vault) -> None:
    """A mount of another engine, and one that is not there, have no KV version."""
    root.create_ssh_mount("ssh-no-kv")
    with pytest.raises(SecretError, match="no KV engine but 'ssh'"):
        root.read_kv_version("ssh-no-kv")
    with pytest.raises(SecretError):
        root.read_kv_version("not-there")
    assert root.list_mounts()["ssh-no-kv"].version == 0


def test_kv_version_needs_no_more_than_a_right_on_the_mount(root: Vault, mount: str) -> None:
    """A host's token, which reads keys only, can tell the version."""
    token, _ = _limited(root, f'path "{mount}/data/*" {{ capabilities = ["read"] }}')
    assert root.with_token(token).read_kv_version(mount) == 2


def test_a_token_is_made_renewed_and_revoked(root: Vault) -> None:
    """A role's token lives for its period, and is handled by its accessor to its end."""
    token, accessor = _limited(
        root, 'path "auth/token/*" { capabilities = ["read", "update"] }', period=3600
    )
    limited = root.with_token(token)
    found = limited.lookup_token()
    assert (found.accessor, found.period_seconds, found.renewable) == (accessor, 3600, True)
    assert 3590 <= found.ttl_seconds <= 3600
    assert abs(found.expires - time.time() - 3600) < 10
    assert len(found.policies) == 1
    assert limited.renew_token() == 3600
    assert root.renew_accessor(accessor) == 3600
    assert root.lookup_accessor(accessor) is not None
    root.revoke_accessor(accessor)
    root.revoke_accessor(accessor)
    assert root.lookup_accessor(accessor) is None
    with pytest.raises(SecretError, match="invalid accessor"):
        root.renew_accessor(accessor)
    with pytest.raises(SecretError, match="does not know the token") as caught:
        limited.lookup_token()
    assert not caught.value.transient


def test_a_token_that_never_ends_says_so(root: Vault) -> None:
    """The root token has neither TTL nor end, and cannot be renewed."""
    found = root.lookup_token()
    assert (found.ttl_seconds, found.expires, found.renewable) == (0, 0, False)
    assert found.policies == ("root",)
    with pytest.raises(SecretError, match="lease is not renewable"):
        root.renew_token()


def test_notes_on_a_token_reach_vault(bao: OpenBao, root: Vault) -> None:
    """The run stands beside the token in Vault."""
    root.write_token_role("noted", {"allowed_policies": ["x"], "orphan": True})
    _token, accessor = root.create_token("noted", meta={"run": "r1"})
    found = bao.request("POST", "auth/token/lookup-accessor", {"accessor": accessor})
    assert found["data"]["meta"] == {"run": "r1"}


def test_an_unknown_role_is_named(root: Vault) -> None:
    """A role that nobody made is told in Vault's words."""
    with pytest.raises(SecretError, match="unknown role nobody"):
        root.create_token("nobody")
    assert root.read_token_role("nobody") is None
    assert root.read_policy("nobody") is None


def test_capabilities_are_told(root: Vault, mount: str) -> None:
    """Each path has its capabilities, and one without any says deny."""
    token, _ = _limited(
        root,
        f'path "{mount}/data/*" {{ capabilities = ["read", "update"] }}\n'
        'path "sys/capabilities-self" { capabilities = ["update"] }',
    )
    limited = root.with_token(token)
    assert limited.read_capabilities([f"{mount}/data/1", "sys/seal"]) == {
        f"{mount}/data/1": ("read", "update"),
        "sys/seal": ("deny",),
    }
    assert limited.read_capabilities([]) == {}
    assert root.read_capabilities(["sys/seal"]) == {"sys/seal": ("root",)}


def test_can_read_tells_a_denied_path_from_an_empty_one(root: Vault, mount: str) -> None:
    """Nothing at an allowed path is allowed; another mount is denied; a bad token is an error."""
    token, _ = _limited(
        root,
        f'path "{mount}/data/*" {{ capabilities = ["read"] }}\n'
        'path "auth/token/lookup-self" { capabilities = ["read"] }',
    )
    limited = root.with_token(token)
    assert limited.can_read(f"{mount}/data/nothing")
    assert not limited.can_read("elsewhere/data/1")
    with pytest.raises(SecretError, match="does not know the token"):
        root.with_token(Secret("s.nobody-has-this")).can_read(f"{mount}/data/1")


def test_the_ssh_ca_signs_for_its_principal_only(root: Vault, tmp_path: Path) -> None:
    """A certificate has the one principal, no extension, and a short life."""
    root.create_ssh_mount("ssh-ca")
    assert root.read_ssh_ca("ssh-ca") == ""
    root.configure_ssh_ca("ssh-ca")
    assert root.read_ssh_ca("ssh-ca").startswith("ssh-ed25519 ")
    assert root.read_ssh_role("ssh-ca", "r1") is None
    root.write_ssh_role(
        "ssh-ca",
        "r1",
        {"key_type": "ca", "allow_user_certificates": True, "allowed_users": "receive-r1"},
    )
    key = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True, timeout=30)
    public = key.with_suffix(".pub").read_text()
    signed = root.sign_ssh_key("ssh-ca", "r1", public, principal="receive-r1", ttl_seconds=120)
    certificate = tmp_path / "key-cert.pub"
    certificate.write_text(signed)
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(certificate)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[lines.index("Principals:") + 1] == "receive-r1"
    assert "Extensions: (none)" in lines
    assert "Critical Options: (none)" in lines
    with pytest.raises(SecretError, match="root is not a valid value"):
        root.sign_ssh_key("ssh-ca", "r1", public, principal="root", ttl_seconds=120)


def test_health_is_told_to_anybody(bao: OpenBao) -> None:
    """Health needs no valid token, and carries Vault's clock."""
    health = bao.vault(Secret("s.nobody-has-this")).read_health()
    assert (health.initialized, health.sealed, health.standby) == (True, False, False)
    assert health.version
    assert abs(health.server_time - datetime.now(UTC)) < timedelta(seconds=10)


def test_a_sealed_vault_is_an_error_that_may_pass(own_bao: OpenBao) -> None:
    """Health is still told; everything else says sealed, soon, and works after the unsealing."""
    root = own_bao.vault()
    root.create_kv_mount("m")
    own_bao.seal()
    assert root.read_health().sealed
    began = time.monotonic()
    with pytest.raises(SecretStoreUnavailableError) as caught:
        root.read_secret("m", "1")
    assert caught.value.message == f"Vault at {own_bao.address} is sealed"
    assert time.monotonic() - began < 8
    own_bao.unseal()
    assert root.read_secret("m", "1") is None


def test_a_short_seal_is_waited_out(own_bao: OpenBao) -> None:
    """What passes within a few seconds is not noticed, by reads and by writes."""
    root = own_bao.vault()
    root.create_kv_mount("m")
    for work in (
        lambda: root.write_secret("m", "1", {"data": VALUE}, cas=0),
        lambda: root.read_secret("m", "1"),
    ):
        own_bao.seal()
        timer = threading.Timer(0.7, own_bao.unseal)
        timer.start()
        try:
            assert work()
        finally:
            timer.join()


def test_a_vault_that_is_gone_is_an_error_that_may_pass(bao: OpenBao) -> None:
    """A refused connection is tried for a few seconds, then told with the address."""
    with contextlib.closing(_free_server(_Silent)) as server:
        address = f"https://127.0.0.1:{server.server_port}"
    gone = Vault(address, bao.root_token, ca_file=str(bao.ca_file))
    began = time.monotonic()
    with pytest.raises(SecretStoreUnavailableError, match="connection refused") as caught:
        gone.lookup_token()
    assert address in caught.value.message
    assert 4 < time.monotonic() - began < 10
    with pytest.raises(SecretStoreUnavailableError, match="cannot be reached"):
        gone.read_health()


def test_a_vault_that_hangs_is_given_up(bao: OpenBao) -> None:
    """Without an answer the call ends by its timeout."""
    with _serving(_Silent) as address:
        began = time.monotonic()
        with pytest.raises(SecretStoreUnavailableError, match="did not answer in time"):
            Vault(address, bao.root_token, timeout_seconds=0.5).read_health()
        assert time.monotonic() - began < 5


def test_a_wrong_ca_is_told_at_once(bao: OpenBao, tmp_path: Path) -> None:
    """Another CA, and one that is no certificate, are not tried again."""
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate\n")
    for ca_file, words in ((make_ca(tmp_path), "is not trusted"), (broken, "TLS")):
        wrong = Vault(bao.address, bao.root_token, ca_file=str(ca_file))
        began = time.monotonic()
        with pytest.raises(SecretError, match=words) as caught:
            wrong.read_secret("m", "1")
        assert not caught.value.transient
        assert "vault.ca_file" in caught.value.hint
        assert time.monotonic() - began < 2


def test_plain_http_to_a_tls_port_is_told(bao: OpenBao) -> None:
    """The hint is to write https."""
    plain = Vault(bao.address.replace("https", "http"), bao.root_token)
    with pytest.raises(SecretError, match="speaks TLS"):
        plain.lookup_token()


def test_tls_to_a_plain_port_is_told(bao: OpenBao) -> None:
    """The port answers, but not in TLS."""
    with _serving(_Page) as address:
        wrong = Vault(address.replace("http", "https"), bao.root_token, ca_file=str(bao.ca_file))
        with pytest.raises(SecretError, match="no TLS connection") as caught:
            wrong.lookup_token()
    assert not caught.value.transient


def test_what_is_no_vault_is_told(bao: OpenBao) -> None:
    """A web page is neither health nor a secret."""
    with _serving(_Page) as address:
        page = Vault(address, bao.root_token)
        with pytest.raises(SecretError, match="not JSON"):
            page.read_secret("m", "1")
        with pytest.raises(SecretError):
            page.read_health()


def test_the_token_is_not_sent_on_by_a_redirect(bao: OpenBao) -> None:
    """A node that points elsewhere counts as standby; the token stays here."""
    with _serving(_Page) as elsewhere:
        _Redirect.target = elsewhere
        _Page.tokens.clear()
        standby = pytest.raises(SecretStoreUnavailableError, match="is on standby")
        with _serving(_Redirect) as address, standby:
            Vault(address, bao.root_token).lookup_token()
    assert _Page.tokens == []


@pytest.mark.parametrize(
    ("right", "missing"),
    [
        ('path "sys/capabilities-self" { capabilities = ["update"] }', "auth/token/lookup-self"),
        ('path "auth/token/lookup-self" { capabilities = ["read"] }', "sys/capabilities-self"),
    ],
)
def test_a_token_without_a_right_on_itself_is_not_taken_for_unknown(
    root: Vault, right: str, missing: str
) -> None:
    """Another token would not help; the right that is missing is named."""
    token, _ = _limited(root, right)
    limited = root.with_token(token)
    asked: dict[str, Callable[[], object]] = {
        "auth/token/lookup-self": limited.lookup_token,
        "sys/capabilities-self": lambda: limited.read_capabilities(["sys/mounts"]),
    }
    with pytest.raises(SecretError, match=f"Vault denies the token .* on {missing}"):
        asked[missing]()


def test_a_denied_request_names_path_and_capability(root: Vault, mount: str) -> None:
    """Each verb of a token without rights names the capability that it lacks."""
    token, _ = _limited(root, 'path "auth/token/lookup-self" { capabilities = ["read"] }')
    limited = root.with_token(token)
    for work, words in (
        (lambda: limited.read_secret(mount, "1"), f'"read" on {mount}/data/1'),
        (lambda: limited.list_secrets(mount), f'"list" on {mount}/metadata'),
        (lambda: limited.write_secret(mount, "1", {}, cas=0), f'"create" on {mount}/data/1'),
        (lambda: limited.write_secret(mount, "1", {}, cas=1), f'"update" on {mount}/data/1'),
        (lambda: limited.remove_secret(mount, "1"), f'"delete" on {mount}/metadata/1'),
        (lambda: limited.destroy_versions(mount, "1", [1]), f'"update" on {mount}/destroy/1'),
        (lambda: limited.create_token("x"), '"update" on auth/token/create/x'),
        (lambda: limited.remove_mount(mount), f'"delete" on sys/mounts/{mount}'),
    ):
        with pytest.raises(SecretError, match="denies the token") as caught:
            work()
        assert words in caught.value.message
        assert caught.value.exit_status == 5
        assert not caught.value.transient


def test_a_wrong_or_expired_token_is_told_from_a_missing_right(root: Vault, mount: str) -> None:
    """A token that Vault does not know is named as such, with path and capability."""
    token, _ = _limited(root, f'path "{mount}/*" {{ capabilities = ["read"] }}', period=1)
    expired = root.with_token(token)
    assert expired.read_secret(mount, "1") is None
    time.sleep(1.5)
    for vault in (expired, root.with_token(Secret("s.nobody-has-this"))):
        with pytest.raises(SecretError, match="does not know the token") as caught:
            vault.read_secret(mount, "1")
        assert f'"read" on {mount}/data/1' in caught.value.message
        assert "wrong, expired or revoked" in caught.value.hint


def test_no_error_carries_a_secret(bao: OpenBao, mount: str) -> None:
    """Neither message nor traceback of a failed write shows the token or the value."""
    token = Secret("s.nobody-has-this-either")
    with pytest.raises(SecretError) as caught:
        bao.vault(token).write_secret(mount, "1", {"data": Secret(VALUE)}, cas=0)
    text = "".join(traceback.format_exception(caught.value)) + str(caught.value.as_json())
    assert token.reveal() not in text
    assert VALUE not in text


def test_several_threads_share_a_connection(root: Vault, mount: str) -> None:
    """The thread that renews tokens works beside that of a step."""
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for cas in range(20):
                root.write_secret(mount, name, {"data": f"{name}{cas}"}, cas=cas)
                assert root.read_secret(mount, name) == {"data": Secret(f"{name}{cas}")}
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_a_read_takes_milliseconds(root: Vault, mount: str) -> None:
    """Connections are kept: the median of a read stays far below a new TLS handshake and more."""
    root.write_secret(mount, "1", {"data": VALUE}, cas=0)
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        root.read_secret(mount, "1")
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 0.03


def test_the_environment_names_proxy_and_authorities(
    bao: OpenBao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy, what goes past it, and the CA bundle where the configuration names none."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bao.ca_file))
    assert not Vault(bao.address, bao.root_token).read_health().sealed
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(make_ca(tmp_path)))
    assert not bao.vault().read_health().sealed
    with _serving(_Page) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(SecretError, match=r"is no Vault|not JSON"):
            Vault("http://vault.invalid:8200", bao.root_token).read_health()
        monkeypatch.setenv("no_proxy", "vault.invalid")
        with pytest.raises(SecretStoreUnavailableError):
            Vault("http://vault.invalid:8200", bao.root_token).read_health()


class _Page(http.server.BaseHTTPRequestHandler):
    """A web server that is no Vault; it remembers the tokens that it was sent."""

    tokens: list[str] = []  # noqa: RUF012 - shared by all requests on purpose

    def do_GET(self) -> None:
        if token := self.headers.get("X-Vault-Token"):
            self.tokens.append(token)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


class _Redirect(_Page):
    target = ""

    def do_GET(self) -> None:
        self.send_response(307)
        self.send_header("Location", f"{self.target}{self.path}")
        self.end_headers()


class _Silent(_Page):
    def do_GET(self) -> None:
        time.sleep(3)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def close(self) -> None:
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet when a client goes away, which is what is tested."""


def _free_server(handler: type[_Page]) -> _Server:
    return _Server(("127.0.0.1", 0), handler)


@contextlib.contextmanager
def _serving(handler: type[_Page]) -> Iterator[str]:
    with contextlib.closing(_free_server(handler)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)
