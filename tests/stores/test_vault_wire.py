"""What hvac would do by itself, and must not: each of the hooks between it and the server."""

from __future__ import annotations

import json
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac
import pytest
import requests

from airflow_providers_secrets.errors import (
    InvalidSecret,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.vault import wire
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs.openbao import ROOT_TOKEN
from tests.rigs.vault import VaultRig, asking, by_token, is_login, opened, vault_answer, vault_error

FOUND = {"data": {"value": "S3cr3t"}}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def no_requests_yet(vault: VaultRig) -> None:
    vault.proxy.requests.clear()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


# What is sent.


def test_netrc_is_not_sent_and_a_token_file_of_the_home_is_not_read(vault: VaultRig, home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login S3cr3t password S3cr3t\n")
    (home / ".netrc").chmod(0o600)
    (home / ".vault-token").write_text("S3cr3t-of-the-home")
    with requests.Session() as plain:  # the file is one that requests takes
        plain.get(f"{vault.proxy.url}/v1/sys/health")
    assert vault.proxy.requests.pop().headers["Authorization"].startswith("Basic ")
    asking(**vault.options()).get_variable("absent")
    login, read = vault.proxy.requests
    assert is_login(login)
    assert "X-Vault-Token" not in login.headers
    assert "Authorization" not in {**login.headers, **read.headers}
    assert "S3cr3t" not in str([request.headers for request in vault.proxy.requests])


def test_netrc_is_not_sent_to_where_a_standby_redirects(vault: VaultRig, home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login S3cr3t password S3cr3t\n")
    (home / ".netrc").chmod(0o600)
    active = Proxy()
    with (
        active.fault(vault_answer(FOUND)),
        vault.proxy.fault(lambda request: Reply(307, b"", {"Location": active.url + request.path})),
    ):
        assert by_token(vault).get_variable("x") == "S3cr3t"
    assert "Authorization" not in active.requests[0].headers
    assert active.requests[0].headers["X-Vault-Token"] == ROOT_TOKEN
    active.stop()


def test_user_and_password_of_the_url_are_sent(vault: VaultRig) -> None:
    """To a proxy that stands before Vault; hvac sends them, too."""
    by_token(vault, url=vault.proxy.url.replace("//", "//user:pass@")).get_variable("absent")
    assert vault.proxy.requests[0].headers["Authorization"] == "Basic dXNlcjpwYXNz"


@pytest.mark.parametrize("status", [301, 302, 303])
def test_redirect_that_would_make_a_login_a_read_is_refused(vault: VaultRig, status: int) -> None:
    def redirected(request: Request) -> Reply:
        return Reply(status, b"", {"Location": f"http://127.0.0.1:{vault.server.port}{request.path}"})

    with vault.proxy.fault(redirected), pytest.raises(StoreMisconfigured, match=f"HTTP {status} to another"):
        asking(**vault.options()).get_variable("x")


def test_redirect_without_its_query_is_refused(vault: VaultRig) -> None:
    """Without it, a listing by GET would be a read."""

    def redirected(request: Request) -> Reply | None:
        path, _, query = request.path.partition("?")
        return Reply(307, b"", {"Location": path}) if query else None

    store, client = opened(by_token(vault, strict_http=True))
    with vault.proxy.fault(redirected), pytest.raises(base.StoreError, match="redirect"):
        list(store.listing(client, "secret/"))
    assert [request.path for request in vault.proxy.requests] == ["/v1/secret/metadata?list=true"]


def test_body_of_a_redirect_is_not_read(vault: VaultRig) -> None:
    def redirected(request: Request) -> Reply:
        location = f"http://127.0.0.1:{vault.server.port}{request.path}"
        return Reply(307, b" " * 65536, {"Location": location}, endless=True)

    vault.write("secret/variables/redirected", {"value": "x"})
    with vault.proxy.fault(redirected):
        assert by_token(vault).get_variable("redirected") == "x"


# What is received.


def test_endless_body_is_left_once_it_is_too_long(vault: VaultRig) -> None:
    with vault.fault("endless"), pytest.raises(InvalidSecret, match="longer than"):
        by_token(vault, timeout=60).get_variable("x")


def test_endless_body_of_single_bytes_is_left_at_the_deadline(vault: VaultRig) -> None:
    """The thread of the call ends, too: nothing waits on for what nobody waits for."""
    before = set(threading.enumerate())
    with vault.proxy.fault(vault_answer(FOUND, drip=0.05)), pytest.raises(StoreUnavailable):
        by_token(vault, timeout=0.3, max_attempts=1).get_variable("x")
    for thread in set(threading.enumerate()) - before:
        if thread.name == "secrets-lookup":
            thread.join(60)
            assert not thread.is_alive()


def test_compressed_answer_is_not_asked_for(vault: VaultRig) -> None:
    """A small one could grow without bound."""
    by_token(vault).get_variable("absent")
    assert vault.proxy.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": {"data": {"value": "S3cr3t\xff"}}}',
        b'{"data": {"data": {"value": NaN}}}',
        b'{"data": {"data": {"value": 1e999}}}',
        b'{"data": {"data": {"value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}}",
        b'{"data": {"data": {"value": "S3cr3t"',
        '{"data": {"data": {"value": "S3cr3t"}}}'.encode("utf-16"),
    ],
    ids=["undecodable", "nan", "infinity", "nested", "half", "utf-16"],
)
def test_answer_that_is_no_json_in_utf8_is_no_value(vault: VaultRig, body: bytes) -> None:
    with vault.proxy.fault(Reply(200, body, JSON)), pytest.raises(InvalidSecret) as raised:
        by_token(vault).get_variable("x")
    assert "S3cr3t" not in str(raised.value)


def test_truncated_answer_is_asked_for_again(vault: VaultRig) -> None:
    """Half of an answer can be JSON, and is a fault of the way, not of the secret."""
    whole = json.dumps({"data": FOUND}).encode()
    cut = Reply(200, whole + b" " * len(whole), JSON, truncate=True)
    replies = iter([cut, Reply(200, whole, JSON)])
    with vault.proxy.fault(lambda _: next(replies)):
        assert by_token(vault, max_attempts=2).get_variable("x") == "S3cr3t"


# What is told.


def frames_of(error: BaseException | None) -> Iterator[types.FrameType]:
    while error is not None:
        traceback = error.__traceback__
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "data",
    [{"valeu": "S3cr3t"}, {"conn_uri": ["S3cr3t"]}, {"conn_uri": "S3cr3t"}, {"password": {"a": "S3cr3t"}}],
    ids=repr,
)
def test_no_frame_of_ours_on_an_error_holds_a_value(vault: VaultRig, data: dict[str, Any]) -> None:
    """Error trackers send the local variables of a traceback's frames."""
    vault.write("secret/connections/leaky", data)
    vault.write("secret/variables/leaky", data)
    backend = by_token(vault)
    for look_up in (backend.get_conn_value, backend.get_variable):
        with pytest.raises(InvalidSecret) as raised:
            look_up("leaky")
        ours = [frame for frame in frames_of(raised.value) if "airflow_providers_secrets" in frame.f_code.co_filename]
        assert ours
        assert "S3cr3t" not in str([frame.f_locals for frame in ours])


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("ui", Reply(200, b"<html>", {"Content-Type": "text/html"})),
        ("ui/vault/secrets", Reply(404, b"<html>", {"Content-Type": "text/html"})),
        ("v1", vault_error(404, 'no handler for route "v1/secret/data/x"')),
        ("v1/", vault_error(403, "permission denied")),
        ("v1", Reply(307, b"", {"Location": "/ui/"})),
    ],
)
def test_path_in_the_url_is_named_as_the_cause(vault: VaultRig, path: str, reply: Reply) -> None:
    with vault.proxy.fault(reply), pytest.raises(StoreMisconfigured) as raised:
        by_token(vault, url=f"{vault.proxy.url}/{path}").get_variable("x")
    assert "Remove the path from 'url'" in str(raised.value)


def test_path_in_the_url_is_named_by_the_real_server(vault: VaultRig) -> None:
    for path in ("ui", "v1"):
        with pytest.raises(StoreMisconfigured, match="Remove the path from 'url'"):
            by_token(vault, url=f"{vault.proxy.url}/{path}").get_variable("x")


def test_user_of_the_url_may_be_one_that_only_requests_takes(vault: VaultRig) -> None:
    """Python's own parser refuses an unpaired bracket, and would be asked for the path of any answer that is an error."""
    with (
        vault.proxy.fault(vault_error(400, "missing client token")),
        pytest.raises(StoreMisconfigured, match="HTTP 400"),
    ):
        by_token(vault, url=vault.proxy.url.replace("//", "//us]er:pass@")).get_variable("x")


def test_path_of_a_proxy_before_vault_is_kept(vault: VaultRig) -> None:
    with vault.proxy.fault(vault_answer(FOUND)):
        assert by_token(vault, url=f"{vault.proxy.url}/vault").get_variable("x") == "S3cr3t"
    assert vault.proxy.requests[0].path == "/vault/v1/secret/data/variables/x"


# What hvac must be for this to hold.


def test_every_client_has_our_session_and_adapter(vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    _, client = opened(by_token(vault))
    api = client._api
    assert isinstance(api, hvac.Client)
    assert type(api.adapter) is wire.VaultAdapter
    assert type(api.session) is wire.VaultSession
    assert api.session.verify is True
    assert not api.session.trust_env


def test_ca_bundle_is_not_beaten_by_the_sessions_default(vault: VaultRig) -> None:
    """A session's own ``verify=True`` silently beats the client's argument."""
    bundle = str(vault.server.authority.bundle)
    _, client = opened(by_token(vault, verify=bundle))
    assert client._api.adapter._kwargs["verify"] == bundle
