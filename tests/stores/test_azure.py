"""What is Azure Key Vault's own: names, credentials, the vault's challenge, the life of a token, and listings."""

from __future__ import annotations

import base64
import contextlib
import contextvars
import itertools
import json
import logging
import multiprocessing
import os
import re
import ssl
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from airflow_providers_secrets.backends import azure_key_vault
from airflow_providers_secrets.backends._azure import OURS, PASSED_ON, REFUSED
from airflow_providers_secrets.backends.azure_key_vault import AzureKeyVaultBackend
from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    LookupFailed,
    SecretNotFound,
    SecretRevoked,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import answers, resolve
from airflow_providers_secrets.lookup.access import store_of
from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.azure import key_vault, session
from airflow_providers_secrets.stores.azure.client import KeyVaultClient
from airflow_providers_secrets.stores.azure.credentials import Login, LoginTransport
from airflow_providers_secrets.stores.azure.key_vault import KeyVault
from airflow_providers_secrets.stores.base import StoreError
from airflow_providers_secrets.testing.lookups import DRIP, ONE_TRY, Waits, hanging, warned
from airflow_providers_secrets.testing.proxy import Reply, Request
from airflow_providers_secrets.testing.tls import TlsFront
from tests.rigs import PAGE
from tests.rigs.azure import (
    CLIENT,
    CLIENT_SECRET,
    JSON,
    PRINCIPAL,
    RESOURCE,
    TENANT,
    WRITTEN,
    AzureRig,
    azure_error,
    is_login,
    json_reply,
)

IDENTITY = "8a5ea0f4-0000-4000-8000-0000000000ff"


@pytest.fixture(autouse=True)
def as_new(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No requests, tokens and secrets of another test."""
    for server in (azure.proxy, azure.entra, azure.metadata, azure.cloud):
        server.requests.clear()
    azure.entra.tokens.clear()
    azure.proxy.secrets.clear()
    azure.proxy.deleted.clear()
    azure.put("airflow-variables-found", "x")
    monkeypatch.setattr(azure_key_vault, "_spellings", {})


def backend(rig: AzureRig, **options: Any) -> AzureKeyVaultBackend:
    return AzureKeyVaultBackend(**{**rig.options(), "cache_ttl": 0, **options})


def unknown(rig: AzureRig, **options: Any) -> AzureKeyVaultBackend:
    """A backend that is not told who asks."""
    return AzureKeyVaultBackend(**{**rig.vault_options(), **options})


# Names.


@pytest.mark.parametrize(
    ("options", "secret_id", "name"),
    [
        ({}, "smtp_default", "airflow-variables-smtp-default"),
        ({}, "Mixed_Case", "airflow-variables-mixed-case"),
        ({"variables_prefix": "airflow-variables-"}, "a", "airflow-variables-a"),
        ({"variables_prefix": "my_team"}, "a", "my-team-a"),
        ({"variables_prefix": ""}, "a_b", "a-b"),
        ({"variables_prefix": "-"}, "a", "a"),
        ({"sep": "--"}, "a_b", "airflow-variables--a--b"),
        ({"sep": "", "variables_prefix": ""}, "a_b", "ab"),
        ({"sep": "X", "variables_prefix": "pX"}, "a_b", "pxaxb"),
    ],
    ids=repr,
)
def test_name(azure: AzureRig, options: dict[str, Any], secret_id: str, name: str) -> None:
    """By the official rule, but for case, which the vault ignores."""
    azure.put(name, "x")
    assert backend(azure, **options).get_variable(secret_id) == "x"
    assert azure.calls == [name]


def test_secret_written_in_capitals_is_found(azure: AzureRig) -> None:
    azure.put("Airflow-Variables-CAPITALS", "x")
    assert backend(azure).get_variable("Capitals") == "x"


@pytest.mark.parametrize("secret_id", ["a.b", "a b", "a/b", "a%2Fb", "ä", "a" * 110, "a?x=1", "a#b"])
def test_id_that_makes_no_name_is_none_with_one_warning_and_no_request(
    azure: AzureRig, secret_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = backend(azure)
    assert [asked.get_variable(secret_id), asked.get_variable(secret_id)] == [None, None]
    (warning,) = warned(caplog)
    assert "Azure Key Vault does not allow this name" in warning
    assert azure.proxy.requests == []


@pytest.mark.parametrize("other", ["my-db", "MY_DB"])
def test_ids_that_are_one_secret_are_warned_about_once(
    azure: AzureRig, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = backend(azure)
    for secret_id in ("my_db", "my_db", other, "my_db", other):
        asked.get_variable(secret_id)
    (warning,) = warned(caplog)
    assert f"the ids 'my_db' and {other!r} are one secret, 'airflow-variables-my-db'" in warning


def test_plans_alone_warn_of_nothing(azure: AzureRig, caplog: pytest.LogCaptureFixture) -> None:
    """A listing plans each id that it shows."""
    asked = backend(azure)
    for secret_id in ("my_db", "my-db", "My_DB"):
        asked.plan("variables", secret_id, "Team_1")
    assert warned(caplog) == []
    asked.get_variable("my-db")
    assert warned(caplog) == []


def test_other_kinds_and_vaults_are_no_collapse(azure: AzureRig, caplog: pytest.LogCaptureFixture) -> None:
    asked = backend(azure)
    asked.get_variable("my_db")
    asked.get_conn_value("my-db")
    elsewhere = backend(azure, vault_url=azure.cloud.VAULT_URL)
    elsewhere.warn_about(elsewhere.plan("variables", "my-db"), "variables", "my-db", None)
    assert warned(caplog) == []


@pytest.mark.usefixtures("multi_team")
@pytest.mark.parametrize("team", ["team_a", "Team-a", "TEAM", "a.b", "t" * 120])
def test_team_without_a_name_of_its_own_is_answered_with_everybodys_secret(
    azure: AzureRig, team: str, caplog: pytest.LogCaptureFixture
) -> None:
    azure.put("airflow-variables-team-a--found", "of team-a")
    asked = backend(azure)
    assert asked.get_variable("found", team_name="team-a") == "of team-a"
    with azure.counted() as calls:
        assert [asked.get_variable(one, team_name=team) for one in ("found", "absent", "found")] == ["x", None, "x"]
    assert calls == ["airflow-variables-found", "airflow-variables-absent", "airflow-variables-found"]
    warnings = warned(caplog)
    assert warnings[0].startswith(
        f"Azure Key Vault: 'found' is looked up for team '{team}' only under everybody's name: "
    )
    assert len(warnings) == 1


@pytest.mark.usefixtures("multi_team")
@pytest.mark.parametrize("secret_id", ["red__x", "red_-x", "red--x", "_x"])
def test_id_that_spells_a_team_is_refused(azure: AzureRig, secret_id: str) -> None:
    azure.put("airflow-variables-red--x", "red's")
    assert backend(azure).get_variable(secret_id, team_name="blue") is None
    assert azure.calls == []


# Credentials, each for real against endpoints on loopback.


def test_client_secret(azure: AzureRig) -> None:
    assert backend(azure).get_variable("found") == "x"
    (login,) = azure.entra.logins
    assert (login["client_id"], login["client_secret"]) == (CLIENT, CLIENT_SECRET)
    assert login["scope"] == f"{RESOURCE}/.default"


@pytest.fixture
def application(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The application's certificate and key, as the authority knows it: in PEM, and in PKCS 12 with a password."""
    # azure-identity takes RSA keys alone.
    import trustme
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import pkcs12
    from cryptography.x509 import load_pem_x509_certificate

    issued = azure.authority.issue_cert("application", key_type=trustme.KeyType.RSA)
    certificate, key = issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()
    monkeypatch.setattr(azure.entra, "certificate", certificate)
    pem, pfx = azure.directory / "application.pem", azure.directory / "application.pfx"
    pem.write_bytes(key + certificate)
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    locked = serialization.BestAvailableEncryption(b"S3cr3t-password")
    pfx.write_bytes(
        pkcs12.serialize_key_and_certificates(None, private, load_pem_x509_certificate(certificate), None, locked)
    )
    return pem, pfx


@pytest.mark.parametrize("kind", ["pem", "pfx"])
def test_client_certificate(azure: AzureRig, application: tuple[Path, Path], kind: str) -> None:
    pem, pfx = application
    file = (
        {"client_certificate_path": str(pem)}
        if kind == "pem"
        else {"client_certificate_path": str(pfx), "client_certificate_password": "S3cr3t-password"}
    )
    who = {"authority": azure.entra.url, "tenant_id": TENANT, "client_id": CLIENT}
    assert unknown(azure, **who, **file).get_variable("found") == "x"
    (login,) = azure.entra.logins
    assert "client_assertion" in login
    assert "client_secret" not in login


@pytest.mark.parametrize(
    ("content", "password"), [(None, None), (b"S3cr3t-no-certificate", None), ("pfx", "S3cr3t-wrong"), ("pfx", None)]
)
def test_certificate_that_cannot_be_read_names_the_option(
    azure: AzureRig, application: tuple[Path, Path], content: Any, password: str | None, tmp_path: Path
) -> None:
    path = application[1] if content == "pfx" else tmp_path / "certificate"
    if isinstance(content, bytes):
        path.write_bytes(content)
    who = {"authority": azure.entra.url, "tenant_id": TENANT, "client_id": CLIENT}
    asked = unknown(azure, **who, client_certificate_path=str(path), client_certificate_password=password)
    with pytest.raises(StoreMisconfigured, match="'client_certificate_path'") as raised:
        asked.get_variable("found")
    assert isinstance(raised.value, ConfigurationError)
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("options", [{"credential": "managed_identity"}, {"managed_identity_client_id": IDENTITY}])
@pytest.mark.parametrize("host", ["machine", "app-service"])
def test_managed_identity(azure: AzureRig, host: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, or chosen by its client id alone."""
    if host == "machine":
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata.url)
    else:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.metadata.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", azure.metadata.HEADER)
    client_id = options.get("managed_identity_client_id")
    monkeypatch.setattr(azure.metadata, "assigned", {client_id})
    assert unknown(azure, **options).get_variable("found") == "x"
    assert all(("client_id" in request.path) == bool(client_id) for request in azure.metadata.requests)
    assert azure.entra.requests == []


def test_managed_identity_that_is_not_assigned(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata.url)
    asked = unknown(azure, credential="managed_identity", managed_identity_client_id=IDENTITY)
    with pytest.raises(StoreMisconfigured, match="managed_identity login refused"):
        asked.get_variable("found")


@pytest.mark.parametrize("status", [404, 408, 410, 429, 500])
def test_managed_identity_endpoint_that_is_busy_is_asked_again(
    azure: AzureRig, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata.url)
    replies = [Reply(status, b"{}"), None]
    with azure.metadata.fault(lambda _: replies.pop(0)):
        assert unknown(azure, credential="managed_identity").get_variable("found") == "x"
    assert len(azure.metadata.requests) == 2


@pytest.mark.parametrize("by", ["options", "environment", "official"])
def test_workload_identity(azure: AzureRig, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod, Azure's webhook sets the variables."""
    file = tmp_path / "token"
    file.write_text("token-of-the-cluster")
    monkeypatch.setattr(azure.entra, "federated", "token-of-the-cluster")
    options = {
        "options": {
            "credential": "workload_identity",
            "workload_identity_tenant_id": TENANT,
            "client_id": CLIENT,
            "workload_identity_token_file": str(file),
        },
        "environment": {"credential": "workload_identity"},
        "official": {"managed_identity_client_id": CLIENT, "workload_identity_tenant_id": TENANT},
    }[by]
    if by != "options":
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT if by == "environment" else IDENTITY)
    # The webhook sets this one too; the default chain passes no other on to a workload's identity.
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", azure.entra.url)
    assert unknown(azure, **options).get_variable("found") == "x"
    (login,) = azure.entra.logins
    assert (login["client_id"], login["client_assertion"]) == (CLIENT, "token-of-the-cluster")


def test_tenant_of_a_workload_identity_counts_before_that_of_an_application(
    azure: AzureRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("token-of-the-cluster")
    monkeypatch.setattr(azure.entra, "federated", "token-of-the-cluster")
    options = {"credential": "workload_identity", "client_id": CLIENT, "authority": azure.entra.url}
    tenants = {"tenant_id": IDENTITY, "workload_identity_tenant_id": TENANT}
    asked = unknown(azure, **options, **tenants, workload_identity_token_file=str(tmp_path / "token"))
    assert asked.get_variable("found") == "x"
    posted = [request.path for request in azure.entra.requests if request.method == "POST"]
    assert [urlsplit(path).path.split("/")[1] for path in posted] == [TENANT]


@pytest.mark.parametrize("options", [{}, {"credential": "default"}, {"credential": "environment"}], ids=repr)
def test_environment(azure: AzureRig, options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CLIENT_ID": CLIENT,
        "TENANT_ID": TENANT,
        "CLIENT_SECRET": CLIENT_SECRET,
        "AUTHORITY_HOST": azure.entra.url,
    }.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    assert unknown(azure, **options).get_variable("found") == "x"
    (login,) = azure.entra.logins
    assert login["client_secret"] == CLIENT_SECRET


def test_tenant_of_a_workload_identity_may_be_asked_by_the_chain_s_other_credentials(
    azure: AzureRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the official class."""
    for name, value in {
        "CLIENT_ID": CLIENT,
        "TENANT_ID": IDENTITY,
        "CLIENT_SECRET": CLIENT_SECRET,
        "AUTHORITY_HOST": azure.entra.url,
    }.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    asked = unknown(azure, managed_identity_client_id=CLIENT, workload_identity_tenant_id=TENANT)
    assert asked.get_variable("found") == "x"
    assert {urlsplit(request.path).path.split("/")[1] for request in azure.entra.requests} >= {TENANT}


def test_cli(azure: AzureRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a command that answers as ``az account get-access-token`` does."""
    given = azure.entra.issued(RESOURCE)
    answer = {"accessToken": given["access_token"], "expires_on": int(time.time()) + 3600, "tokenType": "Bearer"}
    command = tmp_path / "az"
    command.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert unknown(azure, credential="cli").get_variable("found") == "x"


def test_command_that_gives_the_same_token_again_is_run_twice_a_minute(
    azure: AzureRig, clock: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``az`` keeps a token for longer than azure-identity takes it for new."""
    given = azure.entra.issued(RESOURCE)
    answer = {"accessToken": given["access_token"], "expires_on": int(time.time()) + 240, "tokenType": "Bearer"}
    command, runs = tmp_path / "az", tmp_path / "runs"
    command.write_text(f"#!/bin/sh\necho run >> {runs}\necho '{json.dumps(answer)}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    asked = unknown(azure, credential="cli", cache_ttl=0)
    for passed, times in ((0, 1), (1, 2), (30, 2), (32, 3), (40, 3)):
        clock["monotonic"] = clock["wall"] = float(passed)
        assert asked.get_variable("found") == "x"
        assert runs.read_text().count("run") == times, passed


def test_command_is_run_for_the_options_tenant(
    azure: AzureRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A challenge of federation services names none."""
    monkeypatch.setattr(azure.proxy, "tenant", "adfs")
    given = azure.entra.issued(RESOURCE)
    answer = {"accessToken": given["access_token"], "expires_on": int(time.time()) + 3600, "tokenType": "Bearer"}
    command, runs = tmp_path / "az", tmp_path / "runs"
    command.write_text(f"#!/bin/sh\necho \"$@\" > {runs}\necho '{json.dumps(answer)}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert unknown(azure, credential="cli", tenant_id=TENANT).get_variable("found") == "x"
    assert f"--tenant {TENANT}" in runs.read_text()


def test_command_that_hangs_is_an_outage_after_its_own_seconds(
    azure: AzureRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal would be remembered, and no last known value would stand in for it."""
    never, command = tmp_path / "never", tmp_path / "az"
    os.mkfifo(never)
    command.write_text(f"#!/bin/sh\nread answer < {never}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    asked = unknown(azure, credential="cli", read_timeout=1, max_attempts=1, timeout=60)
    with pytest.raises(StoreUnavailable, match=r"cli login: no answer \(TimeoutExpired\)"):
        asked.get_variable("found")


@pytest.mark.parametrize("options", [{"credential": "environment"}, {"credential": "cli"}], ids=repr)
def test_credential_that_is_not_there(
    azure: AzureRig, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StoreMisconfigured, match=f"{options['credential']} login refused"):
        unknown(azure, **options).get_variable("found")


def test_where_no_option_names_a_credential_the_advice_is_to_name_one(
    azure: AzureRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata.url)
    monkeypatch.setattr(azure.metadata, "assigned", set())
    with pytest.raises(StoreMisconfigured, match=r"default login refused .* if they name none, set 'credential'\."):
        unknown(azure).get_variable("found")


# Options.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vault_url": "https://v.vault.azure.net/secrets/"}, "'vault_url' ends in the path '/secrets'"),
        ({"vault_url": "https://v.vault.azure.net/secrets/x"}, "'vault_url' ends in the path '/secrets/x'"),
        ({"vault_url": "http://S3cr3t.vault.azure.net"}, "'vault_url' must be https://"),
        ({"vault_url": "https://u:S3cr3t@v.vault.azure.net"}, "'vault_url'"),
        ({"vault_url": "https://v.vault.azure.net?S3cr3t"}, "'vault_url'"),
        ({"vault_url": "https://v.vault.azure.net:S3cr3t"}, "'vault_url'"),
        ({"vault_url": "https://v.vault.azure.net:70000"}, "'vault_url' has an invalid host or port"),
        ({"vault_url": "https://evil.example\\@v.vault.azure.net"}, "'vault_url'"),
        ({"vault_url": "v.vault.azure.net"}, "'vault_url'"),
        ({"authority": "http://login.example.com"}, "'authority'"),
        ({"api_version": "latest"}, "'api_version'"),
        ({"credential": "S3cr3t"}, "'credential' must be one of"),
        ({"connection_verify": 5}, "'connection_verify'"),
        ({"verify_challenge_resource": "maybe"}, "'verify_challenge_resource' must be true or false"),
        ({"sep": "/"}, "'sep'"),
        ({"sep": "_"}, "'sep'"),
        ({"variables_prefix": "a.b"}, "'variables_prefix'"),
        ({"tenant_id": "S3cr3t/../x"}, "'tenant_id' must be the id or the domain"),
        ({"tenant_id": None}, "'tenant_id' is needed for the credential 'client_secret'"),
        ({"client_id": None}, "'client_id' is needed for the credential 'client_secret'"),
        ({"credential": "client_secret", "client_secret": None}, "'client_secret' is needed"),
        ({"client_certificate_path": "/c.pem"}, "'client_secret' and 'client_certificate_path' contradict"),
        ({"credential": "managed_identity"}, "'client_secret' and 'credential' contradict"),
        ({"client_certificate_password": "S3cr3t"}, "'client_certificate_path' is needed"),
        (
            {"credential": "managed_identity", "client_secret": None},
            "'client_id' and 'credential' contradict each other: 'managed_identity' takes 'managed_identity_client_id'",
        ),
    ],
    ids=repr,
)
def test_options_that_cannot_be_used(azure: AzureRig, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        backend(azure, **options)
    assert said in str(raised.value)
    assert "S3cr3t" not in str(raised.value)


def test_workload_identity_needs_what_the_webhook_sets(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {
        "TENANT_ID": "'workload_identity_tenant_id' or 'tenant_id'",
        "CLIENT_ID": "'client_id'",
        "FEDERATED_TOKEN_FILE": "'workload_identity_token_file'",
    }
    for name, option in needed.items():
        with pytest.raises(
            ConfigurationError,
            match=f"option {option} or AZURE_{name} is needed for the credential 'workload_identity'",
        ):
            unknown(azure, credential="workload_identity")
        monkeypatch.setenv(f"AZURE_{name}", "/x")
    assert unknown(azure, credential="workload_identity")


@pytest.mark.parametrize(
    "vault_url", ["https://v.vault.azure.net/", "HTTPS://V", "https://[::1]:8443", "https://my_vault:8443/path"]
)
def test_address_of_a_vault(azure: AzureRig, vault_url: str) -> None:
    assert backend(azure, vault_url=vault_url)


@pytest.mark.parametrize("option", ["connection_timeout", "retry_total", "retry_backoff_max", "permit_redirects"])
def test_option_of_the_sdk_that_has_another_name_here(azure: AzureRig, option: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"option '{option}' is ignored: use "):
        backend(azure, **{option: 1})


@pytest.mark.parametrize("empty", ["", None])
def test_official_defaults_are_empty_strings_and_mean_not_given(azure: AzureRig, empty: str | None) -> None:
    official = dict.fromkeys(
        ("tenant_id", "client_id", "client_secret", "managed_identity_client_id", "workload_identity_tenant_id"), empty
    )
    asked = unknown(azure, **official)
    assert asked.config.fingerprint == unknown(azure).config.fingerprint
    assert backend(azure, credential=empty, api_version=empty, user_agent=empty).get_variable("found") == "x"


@pytest.mark.parametrize("options", [{}, {"vault_url": ""}, {"vault_url": None}], ids=repr)
def test_backend_without_a_vault_says_so_at_its_first_lookup(options: dict[str, Any]) -> None:
    asked = AzureKeyVaultBackend(cache_ttl=0, **options)
    with pytest.raises(StoreMisconfigured) as raised:
        asked.get_variable("found")
    assert str(raised.value) == (
        "Azure Key Vault could not give 'airflow-variables-found': option 'vault_url' is not set. "
        "Set it to https://NAME.vault.azure.net."
    )


def test_parameters_of_the_sdk_that_are_passed_on(azure: AzureRig, application: tuple[Path, Path]) -> None:
    asked = backend(
        azure,
        user_agent="S3-of-the-tests",
        additionally_allowed_tenants=[IDENTITY],
        connection_cert=str(application[0]),
        connection_verify=str(azure.bundle),
    )
    azure.proxy.tenant = IDENTITY
    try:
        assert asked.get_variable("found") == "x"
    finally:
        azure.proxy.tenant = TENANT
    assert azure.proxy.requests[-1].headers["User-Agent"].startswith("S3-of-the-tests airflow-providers-secrets/")
    assert {urlsplit(request.path).path.split("/")[1] for request in azure.entra.requests} == {IDENTITY}


def test_certificate_for_a_gateway_that_cannot_be_read_names_the_option(azure: AzureRig) -> None:
    with pytest.raises(StoreMisconfigured, match="'connection_cert' names a file that cannot be read"):
        backend(azure, connection_cert=["/nowhere.pem", "/nowhere.key"]).get_variable("found")


def test_parameter_of_the_sdk_that_would_log_values_is_refused(azure: AzureRig) -> None:
    with pytest.raises(ConfigurationError, match="'logging_enable' would write secret values to the log"):
        backend(azure, logging_enable=True)
    assert backend(azure, logging_enable="false").get_variable("found") == "x"


def test_every_official_parameter_of_the_sdk_is_in_one_row_of_the_table() -> None:
    rows = [{option.name for option in row} for row in (PASSED_ON, OURS, REFUSED)]
    assert sum(map(len, rows)) == len(set().union(*rows))
    assert {"connection_cert", "user_agent", "proxies", "api_version", "retry_total", "logging_enable"} < set().union(
        *rows
    )


def test_bundle_that_cannot_be_read_names_the_option(azure: AzureRig) -> None:
    with pytest.raises(StoreMisconfigured, match="'connection_verify' names a file that cannot be read"):
        backend(azure, connection_verify="/nowhere.pem").get_variable("found")


def test_certificate_of_the_vault_is_verified(azure: AzureRig) -> None:
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        backend(azure, connection_verify=True).get_variable("found")


def test_certificates_are_read_once_for_vault_and_login_and_all_children(
    azure: AzureRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read what certifi has takes half as long as the rest of a child's first lookup."""
    read = []
    load = ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *args, **kwargs: read.append(kwargs) or load(*args, **kwargs)
    )
    bundle = tmp_path / "authorities.pem"
    bundle.write_bytes(azure.bundle.read_bytes())
    asked = backend(azure, connection_verify=str(bundle))
    resolve.prepare(asked.config)
    assert read == [{"cafile": str(bundle)}]
    for _ in range(2):
        answers.reset_after_fork()
        assert asked.get_variable("found") == "x"
    assert len(read) == 1


def test_certificates_that_were_replaced_are_read_anew(azure: AzureRig, tmp_path: Path) -> None:
    path = tmp_path / "authorities.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    asked = backend(azure, connection_verify=str(path), cache_ttl=0, max_attempts=1)
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        asked.get_variable("found")
    path.write_bytes(azure.bundle.read_bytes())
    assert asked.get_variable("found") == "x"


def test_certificates_that_are_just_being_written_leave_the_former_ones(azure: AzureRig, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(azure.bundle.read_bytes())
    asked = backend(azure, connection_verify=str(bundle))
    assert asked.get_variable("found") == "x"
    bundle.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    assert asked.get_variable("found") == "x"


def test_certificate_of_the_vault_may_be_taken_as_it_is(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the authority is verified all the same: it is given the application's secret."""
    untrusted = (
        r"client_secret login: CERTIFICATE_VERIFY_FAILED: .* port \d+\).*'connection_verify', or in REQUESTS_CA_"
    )
    with pytest.warns(Warning, match="Unverified"), pytest.raises(StoreMisconfigured, match=untrusted) as raised:
        backend(azure, connection_verify=False).get_variable("found")
    assert raised.value.on_the_way
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata.url)
    with pytest.warns(Warning, match="Unverified"):
        assert unknown(azure, connection_verify=False, credential="managed_identity").get_variable("found") == "x"


def test_proxy(azure: AzureRig) -> None:
    """By an option that holds for the vault and for the login, at the real names of both."""
    options = {
        "vault_url": f"{azure.cloud.VAULT_URL}/",
        "proxies": {"https": azure.cloud.environment["HTTPS_PROXY"]},
        "authority": "login.microsoftonline.com",
        "verify_challenge_resource": True,
    }
    assert backend(azure, **options).get_variable("found") == "x"
    hosts = {request.headers["Host"] for request in azure.cloud.requests}
    assert hosts == {"airflow-tests.vault.azure.net", "login.microsoftonline.com"}


def test_proxy_that_is_asked_over_tls(azure: AzureRig, tmp_path: Path) -> None:
    """It is verified by the certificates that the vault is, and by no others."""
    known = azure.authority.issue("localhost")
    stranger = trustme.CA()
    issued = stranger.issue_cert("localhost")
    unknown = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(unknown[0])
    issued.private_key_pem.write_to_path(unknown[1])
    plain = urlsplit(azure.cloud.environment["HTTPS_PROXY"]).port
    assert plain
    fronts = [TlsFront(certificate, plain) for certificate in (known, unknown)]
    options = [
        {
            "vault_url": azure.cloud.VAULT_URL,
            "proxies": {"https": f"https://localhost:{front.ports[0]}"},
            "authority": "login.microsoftonline.com",
            "verify_challenge_resource": True,
            "max_attempts": 1,
        }
        for front in fronts
    ]
    assert backend(azure, **options[0]).get_variable("found") == "x"
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        backend(azure, **options[1]).get_variable("found")
    for front in fronts:
        front.stop()


def test_replaced_certificates_count_for_a_proxy_that_is_asked_over_tls(azure: AzureRig, tmp_path: Path) -> None:
    plain = urlsplit(azure.cloud.environment["HTTPS_PROXY"]).port
    assert plain
    front = TlsFront(azure.authority.issue("localhost"), plain)
    path = tmp_path / "authorities.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    asked = backend(
        azure,
        vault_url=azure.cloud.VAULT_URL,
        proxies={"https": f"https://localhost:{front.ports[0]}"},
        authority="login.microsoftonline.com",
        verify_challenge_resource=True,
        connection_verify=str(path),
        max_attempts=1,
    )
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        asked.get_variable("found")
    path.write_bytes(azure.bundle.read_bytes())
    assert asked.get_variable("found") == "x"
    front.stop()


@pytest.mark.parametrize(
    ("link", "leads"),
    [
        ("https://v.vault.azure.net/secrets?api-version=7.4&$skiptoken=x", None),
        ("https://V.vault.azure.net:443/secrets?api-version=7.4&$skiptoken=x", None),
        ("https://v.vault.azure.net:8443/secrets?$skiptoken=x", "another host"),
        ("http://v.vault.azure.net/secrets?$skiptoken=x", "another host"),
        ("https://v.vault.azure.net.example.com/secrets?$skiptoken=x", "another host"),
    ],
)
def test_link_of_a_page_may_name_the_default_port(azure: AzureRig, link: str, leads: str | None) -> None:
    """Key Vault's own links do, where ``vault_url`` names none."""
    client = KeyVaultClient(backend(azure, vault_url="https://v.vault.azure.net").options)
    with pytest.raises(StoreError, match=leads) if leads else contextlib.nullcontext():
        client.check_host(link)


def test_api_version(azure: AzureRig) -> None:
    assert backend(azure, api_version="7.6").get_variable("found") == "x"
    assert "api-version=7.6" in azure.proxy.requests[-1].path
    with pytest.raises(StoreMisconfigured, match="BadParameter"):
        backend(azure, api_version="9.9").get_variable("found")


# Requests.


def test_one_request_for_each_lookup_and_no_token_call(azure: AzureRig) -> None:
    asked = backend(azure)
    assert asked.get_variable("found") == "x"
    logins = len(azure.entra.requests)
    azure.proxy.requests.clear()
    assert [asked.get_variable("found"), asked.get_variable("absent"), backend(azure).get_variable("found")] == [
        "x",
        None,
        "x",
    ]
    assert len(azure.proxy.requests) == 3
    assert len(azure.entra.requests) == logins


def test_64_cold_threads_log_in_once(azure: AzureRig) -> None:
    barrier = threading.Barrier(64)

    def look_up(_: int) -> str | None:
        asked = backend(azure, timeout=30)
        barrier.wait(30)
        return asked.get_variable("found")

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(look_up, range(64))) == {"x"}
    assert len(azure.entra.logins) == 1
    assert len([request for request in azure.proxy.requests if is_login(request)]) == 1
    assert len(azure.calls) == 64


def test_redirect_is_not_followed(azure: AzureRig) -> None:
    asked = backend(azure)
    assert asked.get_variable("found") == "x"
    elsewhere = {"Location": f"{azure.entra.url}/secrets/airflow-variables-found"}
    before = len(azure.entra.requests)
    with azure.proxy.fault(Reply(307, headers=elsewhere)), pytest.raises(StoreMisconfigured, match="HTTP 307"):
        asked.get_variable("found")
    assert len(azure.entra.requests) == before


def test_password_of_a_netrc_file_is_not_sent_to_the_authority(
    azure: AzureRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login u password S3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert backend(azure).get_variable("found") == "x"
    assert [request for request in azure.entra.requests if "Authorization" in request.headers] == []


def test_compressed_answer_is_not_asked_for(azure: AzureRig) -> None:
    """A small one could grow without bound."""
    azure.entra.requests.clear()
    azure.proxy.requests.clear()
    assert backend(azure).get_variable("found") == "x"
    assert azure.entra.requests and azure.proxy.requests
    sent = [*azure.entra.requests, *azure.proxy.requests]
    assert {request.headers["Accept-Encoding"] for request in sent} == {"identity"}


def test_child_of_a_fork_renews_what_the_sdk_shares_in_a_process(azure: AzureRig) -> None:
    """The SDK's cache of challenges is behind a lock, which a thread may hold at the fork."""
    from azure.keyvault.secrets._shared import http_challenge_cache

    assert backend(azure).get_variable("found") == "x"
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with http_challenge_cache._lock:
        child = context.Process(target=lambda: results.put(backend(azure).get_variable("found")))
        child.start()
    assert results.get(timeout=60) == "x"
    child.join(60)


@pytest.mark.parametrize("name", ["_cache", "_lock"])
def test_sdk_that_has_no_such_cache_any_more_is_named(
    azure: AzureRig, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.keyvault.secrets import __version__
    from azure.keyvault.secrets._shared import http_challenge_cache

    monkeypatch.delattr(http_challenge_cache, name)
    with pytest.raises(StoreMisconfigured, match=re.escape(f"azure-keyvault-secrets {__version__} has no")):
        backend(azure).get_variable("found")


@pytest.mark.parametrize("ending", [b"", b"\xe2\x82"])
def test_bytes_that_are_no_text_are_never_replaced(azure: AzureRig, ending: bytes) -> None:
    body = b'{"value": "S3cr3t\xff", "id": "https://v/secrets/airflow-variables-found/1"}' + ending
    asked = backend(azure)
    asked.get_variable("found")
    with azure.proxy.fault(Reply(200, body, JSON)), pytest.raises(InvalidSecret, match="the answer is not UTF-8"):
        asked.get_variable("found")


def test_text_in_another_encoding_than_jsons_is_refused(azure: AzureRig) -> None:
    asked = backend(azure)
    asked.get_variable("found")
    body = b'{"value": "\xc3\xa4", "id": "https://v/secrets/airflow-variables-found/1"}'
    with azure.proxy.fault(Reply(200, body, {"Content-Type": "application/json; charset=latin-1"})):
        with pytest.raises(InvalidSecret, match="the answer is not UTF-8"):
            asked.get_variable("found")
    with azure.proxy.fault(Reply(200, body, {"Content-Type": "application/json; charset=utf-8"})):
        assert asked.get_variable("found") == "ä"


def test_error_page_in_another_encoding_keeps_its_status(azure: AzureRig) -> None:
    asked = backend(azure, max_attempts=1)
    asked.get_variable("found")
    page = Reply(502, b"<h1>Z\xfcrich</h1>", {"Content-Type": "text/html; charset=latin-1"})
    with azure.proxy.fault(page), pytest.raises(StoreUnavailable, match="HTTP 502"):
        asked.get_variable("found")


@pytest.mark.parametrize("server", ["vault", "authority"])
def test_endless_answer_is_not_read_on(azure: AzureRig, server: str) -> None:
    asked = backend(azure, timeout=30, max_attempts=1)
    endless = Reply(200, b" " * 65536, JSON, endless=True)
    if server == "vault":
        asked.get_variable("found")
    asked_server = azure.proxy if server == "vault" else azure.entra
    with asked_server.fault(endless), pytest.raises(LookupFailed, match="longer than 8388608 bytes"):
        asked.get_variable("found")


# Outcomes.


def test_disabled_secret_is_revoked(azure: AzureRig) -> None:
    azure.put("airflow-variables-off", "S3cr3t", enabled=False)
    with pytest.raises(SecretRevoked, match="'airflow-variables-off': SecretDisabled"):
        backend(azure).get_variable("off")


def test_disabled_secret_is_known_by_its_words_too(azure: AzureRig) -> None:
    asked = backend(azure)
    asked.get_variable("found")
    for words in ("Operation get is not allowed on a disabled secret.", "The secret is not enabled."):
        with azure.proxy.fault(azure_error(403, "Forbidden", words)), pytest.raises(SecretRevoked):
            asked.get_variable("found")


def test_deleted_secret_is_absent_while_it_can_be_recovered(azure: AzureRig) -> None:
    """So the vault says to anybody who asks for it: ``SecretNotFound``."""
    azure.proxy.do("DELETE", "/secrets/airflow-variables-found")
    assert backend(azure).get_variable("found") is None
    assert azure.proxy.do("PUT", "/secrets/airflow-variables-found", b'{"value": "y"}').status == 409


@pytest.mark.parametrize(
    ("reply", "cure"),
    [
        (azure_error(403, "Forbidden", "", "ForbiddenByRbac"), "the role 'Key Vault Secrets User'"),
        (azure_error(403, "Forbidden", "", "ForbiddenByFirewall"), "the vault's firewall"),
        (azure_error(403, "Forbidden", "", "ForbiddenByPolicy"), "access policies"),
        (azure_error(403, "Forbidden", "", "SecretDisabled"), "Enable it"),
        (azure_error(409, "Conflict", "", "ObjectIsDeletedButRecoverable"), "Recover it"),
        (azure_error(404, "NotFound", ""), "vault_url"),
        (Reply(307, headers={"Location": "https://elsewhere"}), "the address that it leads to"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_advice_is_the_one_cure_for_the_code(azure: AzureRig, reply: Reply, cure: str) -> None:
    asked = backend(azure, max_attempts=1)
    asked.get_variable("found")
    with azure.proxy.fault(reply), pytest.raises(LookupFailed) as raised:
        asked.get_variable("found")
    assert cure in raised.value.advice
    assert raised.value.advice.count(". ") == 0


def test_no_frame_of_an_error_holds_the_value(azure: AzureRig) -> None:
    """Error trackers send the local variables of every frame."""
    asked = backend(azure)
    asked.get_variable("found")
    for reply in (
        json_reply(200, {"value": "S3cr3t-value", "id": "https://v/secrets/other/1"}),
        json_reply(200, {"value": "S3cr3t-value"}),
        json_reply(200, {"value": "S3cr3t-value", "id": "S3cr3t-value"}),
        azure_error(403, "Forbidden", "S3cr3t-value"),
        Reply(200, b'{"value": "S3cr3t-value"', JSON),
    ):
        with azure.proxy.fault(reply), pytest.raises(LookupFailed) as raised:
            asked.get_variable("found")
        error: BaseException | None = raised.value
        assert error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__
        # The test's own frame holds the answer.
        trace = raised.value.__traceback__.tb_next
        while trace is not None:
            assert "S3cr3t-value" not in repr(trace.tb_frame.f_locals), trace.tb_frame
            trace = trace.tb_next


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        (azure_error(404, "NotFound", "S3cr3t"), StoreUnavailable, "HTTP 404, which is not Key Vault's own"),
        (json_reply(404, ["S3cr3t"]), StoreUnavailable, "HTTP 404"),
        (azure_error(403, "Forbidden", "S3cr3t", "ForbiddenByFirewall"), AccessDenied, "ForbiddenByFirewall"),
        (azure_error(403, "S3cr3t value", "S3cr3t"), AccessDenied, "HTTP 403"),
        (azure_error(409, "Conflict", "S3cr3t", "ObjectIsBeingDeleted"), SecretRevoked, "ObjectIsBeingDeleted"),
        (azure_error(400, "BadParameter", "S3cr3t"), StoreMisconfigured, "BadParameter"),
        (azure_error(503, "ServiceUnavailable", "S3cr3t"), StoreUnavailable, "ServiceUnavailable"),
        (json_reply(200, ["S3cr3t"]), InvalidSecret, "malformed answer"),
        (json_reply(200, {"value": None, "id": "https://v/secrets/x/1"}), InvalidSecret, "no value"),
        (json_reply(200, {"value": "S3cr3t"}), InvalidSecret, "no id"),
        (json_reply(200, {"value": "S3cr3t", "id": "S3cr3t"}), InvalidSecret, "malformed answer"),
        (json_reply(200, {"value": "S3cr3t", "id": "https://v/secrets/x/1"}), InvalidSecret, "for another name"),
        (Reply(200, b"[" * 100_000, JSON), InvalidSecret, "malformed answer"),
        (json_reply(200, {"value": "S3cr3t", "id": "https://v/x/1", "attributes": {"exp": 1e300}}), InvalidSecret, ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_answer(azure: AzureRig, reply: Reply, error: type[Exception], code: str) -> None:
    asked = backend(azure, max_attempts=1)
    asked.get_variable("found")
    with azure.proxy.fault(reply), pytest.raises(error) as raised:
        asked.get_variable("found")
    assert code in str(raised.value)
    assert "S3cr3t" not in str(raised.value)


def test_answer_for_the_same_name_in_capitals_is_right(azure: AzureRig) -> None:
    asked = backend(azure)
    asked.get_variable("found")
    with azure.proxy.fault(json_reply(200, {"value": "y", "id": "https://v/secrets/AIRFLOW-Variables-Found/1"})):
        assert asked.get_variable("found") == "y"


def test_throttled_vault_is_asked_again_when_it_says(azure: AzureRig, pauses: list[float]) -> None:
    replies = [azure_error(429, "Throttled", "S3cr3t", **{"Retry-After": "7"}), None]
    asked = backend(azure, timeout=60)
    asked.get_variable("found")
    with azure.proxy.fault(lambda _: replies.pop(0)):
        assert asked.get_variable("found") == "x"
    assert pauses == [7.0]


# The challenge.


def test_token_is_given_to_the_host_that_it_is_for(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in azure.cloud.environment.items():
        monkeypatch.setenv(name, value)
    options = {"vault_url": azure.cloud.VAULT_URL, "verify_challenge_resource": None, "authority": None}
    assert backend(azure, **options).get_variable("found") == "x"
    answers.reset_after_fork()
    monkeypatch.setattr(azure.proxy, "resource", "https://azure.net")
    # The vault here still takes tokens for vault.azure.net alone; what counts is that one was given.
    with pytest.raises(StoreMisconfigured, match="HTTP 401"):
        backend(azure, **options).get_variable("found")
    logins = len(azure.entra.logins)
    for foreign in ("https://vault.azure.net.evil.example", "https://evil.example", "https://t.vault.azure.net"):
        answers.reset_after_fork()
        monkeypatch.setattr(azure.proxy, "resource", foreign)
        with pytest.raises(StoreMisconfigured, match="verify_challenge_resource"):
            backend(azure, **options).get_variable("found")
    assert len(azure.entra.logins) == logins


def test_vault_at_a_host_of_its_own_is_given_no_token_unless_that_is_allowed(azure: AzureRig) -> None:
    with pytest.raises(StoreMisconfigured, match="verify_challenge_resource"):
        backend(azure, verify_challenge_resource=True).get_variable("found")
    assert azure.entra.logins == []
    assert backend(azure, verify_challenge_resource="false").get_variable("found") == "x"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Basic realm=S3cr3t",
        "Bearer",
        'Bearer authorization="https://login.windows.net/t"',
        'Bearer resource="S3cr3t"',
    ],
)
def test_challenge_that_says_nothing(azure: AzureRig, header: str | None) -> None:
    headers = {"WWW-Authenticate": header} if header else {}
    with (
        azure.proxy.fault(Reply(401, b"S3cr3t", headers)),
        pytest.raises(StoreMisconfigured, match="HTTP 401") as raised,
    ):
        backend(azure).get_variable("found")
    assert "S3cr3t" not in str(raised.value)
    assert azure.entra.logins == []


def test_vault_of_another_tenant(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's tenant gives no token that it takes, and azure-identity asks no other."""
    monkeypatch.setattr(azure.proxy, "tenant", IDENTITY)
    with pytest.raises(StoreMisconfigured, match="client_secret login refused"):
        backend(azure).get_variable("found")


def test_challenge_of_federation_services_has_no_tenant(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure.proxy, "tenant", "adfs")
    assert backend(azure).get_variable("found") == "x"


def test_further_claims_are_asked_for_once(azure: AzureRig) -> None:
    """Continuous Access Evaluation: the token must be new, and hold what the vault says."""
    asked = backend(azure)
    asked.get_variable("found")
    azure.proxy.claims = '{"access_token":{"nbf":{"essential":true,"value":"1600000000"}}}'
    assert asked.get_variable("found") == "x"
    first, second = azure.entra.logins
    assert "nbf" not in first.get("claims", "")
    assert json.loads(second["claims"])["access_token"]["nbf"]["value"] == "1600000000"
    assert asked.get_variable("found") == "x"
    assert len(azure.entra.logins) == 2


def test_further_claims_that_are_not_to_be_had_for_now_are_an_outage(azure: AzureRig) -> None:
    """The token in use lacks them, and is sent no more."""
    asked = backend(azure, max_attempts=1)
    asked.get_variable("found")
    sent = len(azure.proxy.requests)
    azure.proxy.claims = '{"access_token":{"nbf":{"essential":true,"value":"1600000000"}}}'
    with (
        azure.entra.fault(Reply(503, b"{}")),
        pytest.raises(StoreUnavailable, match="client_secret login: HTTP 503"),
    ):
        asked.get_variable("found")
    assert len(azure.proxy.requests) == sent + 1


# The life of a token.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds that the two clocks are ahead."""
    ahead = {"monotonic": 0.0, "wall": 0.0}
    monotonic, wall = time.monotonic, time.time
    monkeypatch.setattr(base, "clock", lambda: monotonic() + ahead["monotonic"])
    monkeypatch.setattr(time, "time", lambda: wall() + ahead["wall"])
    return ahead


def test_token_is_renewed_before_its_end(azure: AzureRig, clock: dict[str, float]) -> None:
    asked = backend(azure)
    for passed, logins in ((0, 1), (3200, 1), (3400, 2), (3500, 2), (6800, 3)):
        clock["monotonic"] = clock["wall"] = float(passed)
        assert asked.get_variable("found") == "x"
        assert len(azure.entra.logins) == logins


def test_token_is_renewed_when_the_authority_says(
    azure: AzureRig, clock: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = azure.entra.issued
    monkeypatch.setattr(azure.entra, "issued", lambda resource: {**issued(resource), "refresh_in": 1800})
    asked = backend(azure)
    for passed, logins in ((0, 1), (1700, 1), (1900, 2), (3500, 2)):
        clock["monotonic"] = clock["wall"] = float(passed)
        assert asked.get_variable("found") == "x"
        assert len(azure.entra.logins) == logins, passed


def test_the_same_claims_are_asked_for_anew_after_a_while(azure: AzureRig, clock: dict[str, float]) -> None:
    login = Login(backend(azure).options)
    claims = '{"access_token":{"nbf":{"essential":true,"value":"1600000000"}}}'
    for passed, logins in ((0, 1), (29, 1), (31, 2)):
        clock["monotonic"] = clock["wall"] = float(passed)
        login.get_token_info(f"{RESOURCE}/.default", options={"claims": claims})
        assert len(azure.entra.logins) == logins, passed


def test_token_of_another_tenant_is_another_token(azure: AzureRig) -> None:
    """A vault may move to another tenant: its challenge then names that one."""
    login = Login(backend(azure, additionally_allowed_tenants=["*"]).options)
    for tenant, logins in ((TENANT, 1), (IDENTITY, 2), (IDENTITY, 2)):
        login.get_token_info(f"{RESOURCE}/.default", options={"tenant_id": tenant})
        assert len(azure.entra.logins) == logins


@pytest.mark.parametrize("leap", [86400.0, -86400.0])
def test_wall_clock_that_leaps_ends_no_token(azure: AzureRig, clock: dict[str, float], leap: float) -> None:
    asked = backend(azure)
    asked.get_variable("found")
    clock["wall"] = leap
    assert asked.get_variable("found") == "x"
    assert len(azure.entra.logins) == 1


def test_token_that_cannot_be_renewed_is_used_to_its_end(azure: AzureRig, clock: dict[str, float]) -> None:
    asked = backend(azure)
    asked.get_variable("found")
    clock["monotonic"] = clock["wall"] = 3400.0
    with azure.entra.fault(Reply(500, b"{}")):
        assert [asked.get_variable("found"), asked.get_variable("found")] == ["x", "x"]
        assert len(azure.entra.logins) == 2
        clock["monotonic"] = clock["wall"] = 3601.0
        sent = len(azure.proxy.requests)
        with pytest.raises(StoreUnavailable, match="client_secret login: HTTP 500"):
            asked.get_variable("found")
        assert len(azure.proxy.requests) == sent


def test_token_that_is_no_longer_taken_costs_one_login(azure: AzureRig) -> None:
    asked = backend(azure)
    asked.get_variable("found")
    azure.entra.tokens.clear()
    assert asked.get_variable("found") == "x"
    assert len(azure.entra.logins) == 2


def test_identity_that_the_vault_does_not_know_costs_one_login_in_30_seconds(
    azure: AzureRig, clock: dict[str, float]
) -> None:
    asked = backend(azure)
    challenge = azure_error(
        401,
        "Unauthorized",
        "S3cr3t",
        **{"WWW-Authenticate": f'Bearer authorization="https://l/{TENANT}", resource="{RESOURCE}"'},
    )
    with azure.proxy.fault(challenge):
        for passed, logins in ((0, 1), (29, 1), (31, 2), (40, 2)):
            clock["monotonic"] = float(passed)
            with pytest.raises(StoreMisconfigured, match="HTTP 401 to a new token"):
                asked.get_variable("found")
            assert len(azure.entra.logins) == logins


def test_refused_login_is_not_repeated_for_30_seconds(
    azure: AzureRig, clock: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = backend(azure, client_secret="S3cr3t-wrong")
    for passed, logins in ((0, 1), (29, 1), (31, 2)):
        clock["monotonic"] = float(passed)
        with pytest.raises(StoreMisconfigured, match=r"client_secret login refused \(AADSTS7000215\)"):
            asked.get_variable("found")
        assert len(azure.entra.logins) == logins
    assert "S3cr3t" not in caplog.text


def test_certificate_that_was_replaced_is_read_once_the_old_one_is_refused(
    azure: AzureRig, application: tuple[Path, Path], clock: dict[str, float], tmp_path: Path
) -> None:
    import trustme

    replaced, path = azure.authority.issue_cert("application", key_type=trustme.KeyType.RSA), tmp_path / "login.pem"
    path.write_bytes(replaced.private_key_pem.bytes() + replaced.cert_chain_pems[0].bytes())
    who = {"authority": azure.entra.url, "tenant_id": TENANT, "client_id": CLIENT}
    asked = unknown(azure, **who, client_certificate_path=str(path), cache_ttl=0)
    with pytest.raises(StoreMisconfigured, match="client_certificate login refused"):
        asked.get_variable("found")
    path.write_bytes(application[0].read_bytes())
    clock["monotonic"] += 31
    assert asked.get_variable("found") == "x"


def test_login_that_fails_for_now_is_tried_again(azure: AzureRig) -> None:
    asked = backend(azure, max_attempts=3)
    with azure.entra.fault(Reply(503, b"{}")), pytest.raises(StoreUnavailable, match="client_secret login: HTTP 503"):
        asked.get_variable("found")
    assert len(azure.entra.requests) == 3
    assert asked.get_variable("found") == "x"


def test_login_that_is_refused_after_an_outage_is_told_as_refused(
    azure: AzureRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")  # the option counts
    asked = backend(azure, max_attempts=1, client_secret="S3cr3t-wrong")
    with azure.entra.fault(Reply(503, b"{}")), pytest.raises(StoreUnavailable, match="client_secret login: HTTP 503"):
        asked.get_variable("found")
    with pytest.raises(StoreMisconfigured, match=r"client_secret login refused \(AADSTS7000215\)"):
        asked.get_variable("found")


@pytest.mark.parametrize(
    ("chain", "host", "noted"),
    [(True, "169.254.169.254", 0), (True, "login.example", 1), (False, "169.254.169.254", 1)],
)
def test_the_default_chain_takes_silence_for_no_machine_of_azures(
    azure: AzureRig, monkeypatch: pytest.MonkeyPatch, chain: bool, host: str, noted: int
) -> None:
    from azure.core.exceptions import ServiceRequestError
    from azure.core.pipeline.transport import HttpRequest, RequestsTransport

    def silent(*_: object, **__: object) -> None:
        raise ServiceRequestError("S3cr3t")

    monkeypatch.setattr(RequestsTransport, "send", silent)
    transport = LoginTransport(backend(azure).options, verify=True, chain=chain)
    with pytest.raises(ServiceRequestError):
        transport.send(HttpRequest("GET", f"http://{host}/metadata/identity/oauth2/token"))
    assert len(transport.troubles) == noted


@pytest.mark.parametrize("body", [b"{}", b'{"error": "temporarily_unavailable"}', b"<html>"], ids=repr)
def test_token_endpoint_that_fails_for_now_is_asked_again(azure: AzureRig, body: bytes) -> None:
    failures = [Reply(503, body)] * 2
    asked = backend(azure)
    with azure.entra.fault(lambda r: failures.pop() if failures and r.method == "POST" else None):
        assert asked.get_variable("found") == "x"
    assert len(azure.entra.logins) == 3


@pytest.mark.parametrize("credential", ["default", "managed_identity"])
def test_token_that_is_cut_short_is_an_outage_and_in_no_log(
    azure: AzureRig, credential: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """azure-identity quotes an answer that it cannot read, in a warning."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.metadata.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", azure.metadata.HEADER)
    cut = Reply(200, b'{"access_token": "S3cr3t-token", "expires_on": "1', {"Content-Type": "application/json"})
    asked = unknown(azure, credential=credential, max_attempts=1, cache_ttl=0)
    with azure.metadata.fault(cut):
        with pytest.raises(StoreUnavailable, match=rf"{credential} login: a token answer that is no JSON object\."):
            asked.get_variable("found")
    assert "S3cr3t" not in caplog.text
    assert asked.get_variable("found") == "x"


def test_login_that_hangs_ends_at_the_deadline(azure: AzureRig) -> None:
    with azure.entra.fault(Reply(hang=True)), pytest.raises(StoreUnavailable, match="no answer within"):
        backend(azure, timeout=0.5).get_variable("found")


def test_login_that_hangs_ends_at_its_own_timeout(azure: AzureRig) -> None:
    with (
        azure.entra.fault(Reply(hang=True)),
        pytest.raises(StoreUnavailable, match=r"client_secret login: nothing received in time"),
    ):
        backend(azure, read_timeout=1.0, max_attempts=1).get_variable("found")


def test_login_that_hangs_keeps_nobody_beyond_its_deadline(azure: AzureRig, waits: Waits) -> None:
    """It hangs for longer than anybody waits for it: a byte now and then. Others log in for themselves."""
    slow = [Reply(200, b"{" + b" " * 1000 + b"}", JSON, drip=0.1)]
    with azure.entra.fault(lambda request: slow.pop() if slow and request.method == "POST" else None):
        waits.shortened = lambda _: 1.0
        with pytest.raises(StoreUnavailable, match="no answer within"):
            backend(azure, timeout=60).get_variable("found")
        # Another id on the same client.
        assert backend(azure, timeout=60).config.fingerprint in answers._answers
        with contextlib.suppress(StoreUnavailable):
            backend(azure, timeout=60).get_variable("found")
        waits.shortened = lambda seconds: seconds
        assert backend(azure, timeout=60).get_variable("found") == "x"


@pytest.mark.parametrize("of_machine", [False, True], ids=["entra", "identity-endpoint"])
def test_login_whose_answer_goes_on_ends_with_its_lookup(
    azure: AzureRig, monkeypatch: pytest.MonkeyPatch, of_machine: bool
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.metadata.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", azure.metadata.HEADER)
    options: dict[str, Any] = {"timeout": 0.5, "cache_ttl": 0, **ONE_TRY}
    asked = unknown(azure, credential="managed_identity", **options) if of_machine else backend(azure, **options)
    endpoint = azure.metadata if of_machine else azure.entra
    before = len(endpoint.requests)
    with endpoint.fault(DRIP):
        with pytest.raises(StoreUnavailable, match="no answer within"):
            asked.get_variable("found")
        assert not hanging()
        assert len(endpoint.requests) == before + 1


# Writing.


def done(rig: AzureRig, what: Callable[[KeyVault, Any], Any], act: str = "write") -> Any:
    """Do *what* by the store, as the operator's command does, and return what it returns."""
    return answers.answers_of(backend(rig).config).access.call("a-name", 10, what, act)


def test_write_creates_and_adds_versions(azure: AzureRig) -> None:
    first = done(azure, lambda store, client: store.write(client, "a-name", "one"))
    second = done(azure, lambda store, client: store.write(client, "a-name", "two"))
    assert (first.created, second.created) == (True, False)
    assert second.version == azure.proxy.secrets["a-name"]["version"] != first.version
    assert azure.proxy.secrets["a-name"]["value"] == "two"
    assert "one" not in repr(first)


def test_write_keeps_what_a_new_version_would_start_without(azure: AzureRig) -> None:
    body = {
        "value": "one",
        "contentType": "text/plain",
        "tags": {"owner": "data"},
        "attributes": {"exp": 1_900_000_000, "nbf": 1_700_000_000},
    }
    assert azure.proxy.do("PUT", "/secrets/a-name", json.dumps(body).encode()).status == 200
    done(azure, lambda store, client: store.write(client, "a-name", "two"))
    secret = azure.proxy.secrets["a-name"]
    assert secret["value"] == "two"
    assert secret["described"] == {"contentType": "text/plain", "tags": {"owner": "data"}}
    assert (secret["attributes"]["exp"], secret["attributes"]["nbf"]) == (1_900_000_000, 1_700_000_000)
    done(azure, lambda store, client: store.write(client, "a-name", "3", settings={"content_type": "text/x"}))
    assert azure.proxy.secrets["a-name"]["described"] == {"contentType": "text/x", "tags": {"owner": "data"}}


def test_write_only_if_absent(azure: AzureRig) -> None:
    def write(store: KeyVault, client: Any) -> Any:
        return store.write(client, "a-name", "one", only_if_absent=True)

    assert done(azure, write).created
    with pytest.raises(LookupFailed, match="could not write 'a-name': exists already"):
        done(azure, write)


def test_write_that_the_vault_does_not_take_says_how_much_it_takes(azure: AzureRig) -> None:
    """The request before it was taken, so neither api_version nor vault_url is to blame."""
    refusal = azure_error(400, "BadParameter", "S3cr3t")
    with azure.proxy.fault(lambda request: refusal if request.method == "PUT" else None):
        with pytest.raises(InvalidSecret, match=r"BadParameter of a write\. Write at most 25 KB") as raised:
            done(azure, lambda store, client: store.write(client, "a-name", "x" * 26_000))
    assert "S3cr3t" not in str(raised.value)


def test_write_of_a_deleted_name_says_recover_or_purge(azure: AzureRig) -> None:
    azure.put("a-name", "one")
    done(azure, lambda store, client: store.delete(client, "a-name") or True, "delete")
    assert set(azure.proxy.deleted) == {"a-name"}
    with pytest.raises(SecretRevoked, match=r"ObjectIsDeletedButRecoverable\. Recover it .* or purge it"):
        done(azure, lambda store, client: store.write(client, "a-name", "two"))


def test_write_that_cannot_see_what_was_there_writes_nothing(azure: AzureRig) -> None:
    azure.put("a-name", "one", enabled=False)
    with pytest.raises(SecretRevoked, match="SecretDisabled"):
        done(azure, lambda store, client: store.write(client, "a-name", "two"))
    assert azure.proxy.secrets["a-name"]["value"] == "one"


def test_delete_of_an_absent_name(azure: AzureRig) -> None:
    with pytest.raises(LookupFailed, match="could not delete 'a-name': SecretNotFound") as raised:
        done(azure, lambda store, client: store.delete(client, "a-name") or True, "delete")
    assert isinstance(raised.value, SecretNotFound)


def test_who_asks_is_read_off_the_token(azure: AzureRig) -> None:
    identity = done(azure, lambda store, client: store.identify(client), "identify")
    assert identity.who == CLIENT
    assert identity.details == {
        "vault": azure.proxy.url,
        "tenant": TENANT,
        "application": CLIENT,
        "object": PRINCIPAL,
        "credential": "client_secret",
    }
    assert "T0k3n" not in repr(identity.details)


def test_who_asks_is_known_where_nothing_else_is_allowed(azure: AzureRig) -> None:
    with azure.fault("denied"):
        assert done(azure, lambda store, client: store.identify(client), "identify").who == CLIENT


def test_who_asks_with_a_token_that_says_nothing(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def opaque(resource: str) -> dict[str, Any]:
        token = "opaque"
        azure.entra.tokens[token] = (resource, time.monotonic() + 3600)
        return {"token_type": "Bearer", "access_token": token, "expires_in": 3600}

    monkeypatch.setattr(azure.entra, "issued", opaque)
    assert done(azure, lambda store, client: store.identify(client), "identify").who == CLIENT


def test_who_asks_is_read_off_a_token_of_version_2_too(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = azure.entra.issued

    def of_version_2(resource: str) -> dict[str, Any]:
        given = issued(resource)
        claims = base64.urlsafe_b64encode(json.dumps({"azp": "another-application"}).encode()).decode().rstrip("=")
        token = f"e30.{claims}.T0k3n"
        azure.entra.tokens[token] = azure.entra.tokens.pop(given["access_token"])
        return {**given, "access_token": token}

    monkeypatch.setattr(azure.entra, "issued", of_version_2)
    who = done(azure, lambda store, client: store.identify(client), "identify").who
    assert who == "another-application"


# Listings.


def listed(rig: AzureRig, base: str) -> list[str]:
    """The names that a backend finds under *base*."""
    asked = backend(rig)
    store = KeyVault(asked.config.options)
    return [found.name for found in store.listing(store.connect(), asked.name_start(base))]


def test_listing_is_everything_under_a_base_page_by_page(azure: AzureRig) -> None:
    names = [f"airflow-variables-{number:03}" for number in range(60)]
    for name in [*names, "airflow-variables", "airflow-variables-", "airflow-variablesx", "other"]:
        azure.put(name, "S3cr3t")
    azure.put("Airflow-Variables-CAPITAL", "x")
    azure.put("airflow-variables-off", "x", enabled=False)
    expected = sorted([*names, "airflow-variables-found", "airflow-variables-capital", "airflow-variables-off"])
    assert listed(azure, "airflow-variables") == expected
    assert listed(azure, "Airflow_Variables") == expected
    assert azure.calls == [PAGE] * 2 * 3
    assert len(listed(azure, "")) == 67


def test_listing_spells_names_as_lookups_do(azure: AzureRig) -> None:
    azure.put("Airflow-Variables-My-DB", "x")
    names = listed(azure, "airflow-variables")
    for secret_id in ("my_db", "My-DB", "found"):
        assert set(backend(azure).plan("variables", secret_id).names) <= set(names)


def test_listing_says_when_a_secret_was_written(azure: AzureRig) -> None:
    store = store_of(backend(azure).config)
    (found,) = store.listing(store.connect(), "airflow-variables-")
    assert found.changed is not None
    assert found.changed.timestamp() == WRITTEN
    assert (found.text, found.version) == (None, None)


def test_listing_that_comes_back_to_a_page_is_no_listing(azure: AzureRig) -> None:
    asked = store_of(backend(azure).config)
    client = asked.connect()
    again = json_reply(200, {"value": [], "nextLink": f"{azure.proxy.url}/secrets?api-version=7.4&$skiptoken=1"})
    with azure.proxy.fault(lambda request: None if is_login(request) else again), azure.counted() as calls:
        with pytest.raises(StoreError, match="the listing does not end"):
            list(asked.listing(client, "airflow-variables-"))
    assert calls == [PAGE] * 2


def test_listing_of_ever_new_pages_is_no_listing(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_vault, "MAX_PAGES", 5)
    asked = store_of(backend(azure).config)
    client = asked.connect()
    numbers = itertools.count()

    def page(request: Request) -> Reply | None:
        link = f"{azure.proxy.url}/secrets?api-version=7.4&$skiptoken={next(numbers)}"
        return None if is_login(request) else json_reply(200, {"value": [], "nextLink": link})

    with azure.proxy.fault(page), pytest.raises(StoreError, match="the listing does not end"):
        list(asked.listing(client, "airflow-variables-"))


def test_listing_ends_at_the_deadline(azure: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "GRACE", 60.0)  # the page itself comes, however late
    asked = store_of(backend(azure).config)
    client = asked.connect()
    going = asked.listing(client, "airflow-variables-")
    context = contextvars.copy_context()
    context.run(base.deadline.set, time.monotonic())
    with pytest.raises(TimeoutError):
        context.run(next, going)


def test_listing_is_lazy(azure: AzureRig) -> None:
    for number in range(60):
        azure.put(f"airflow-variables-{number:03}", "x")
    asked = store_of(backend(azure).config)
    client = asked.connect()
    going = asked.listing(client, "airflow-variables-")
    assert azure.proxy.requests == []
    assert next(going).name == "airflow-variables-000"
    assert azure.calls == [PAGE]


def test_listing_that_fails_on_a_later_page_does_not_end_quietly(azure: AzureRig) -> None:
    for number in range(60):
        azure.put(f"airflow-variables-{number:03}", "x")
    asked = store_of(backend(azure).config)
    client = asked.connect()
    for reply, code in (
        (azure_error(500, "InternalServerError", "S3cr3t"), "InternalServerError"),
        (json_reply(200, {"value": "S3cr3t"}), "the answer holds no page"),
        (json_reply(200, {"nextLink": None}), "the answer holds no page"),
        (json_reply(200, {"value": ["S3cr3t"]}), "the answer holds no page"),
        (json_reply(200, {"value": [{}]}), "the answer holds no id"),
    ):
        with (
            azure.proxy.fault(lambda request, reply=reply: reply if "skiptoken" in request.path else None),
            pytest.raises(Exception) as raised,
        ):
            list(asked.listing(client, "airflow-variables-"))
        assert next(asked.codes(raised.value)) == code


def test_listing_that_goes_on_at_another_host_is_given_no_token_there(azure: AzureRig) -> None:
    asked = store_of(backend(azure).config)
    client = asked.connect()
    elsewhere = json_reply(200, {"value": [], "nextLink": f"{azure.entra.url}/secrets?$skiptoken=1"})
    with (
        azure.proxy.fault(lambda request: None if is_login(request) else elsewhere),
        pytest.raises(Exception, match="another host"),
    ):
        list(asked.listing(client, "airflow-variables-"))
    assert not [request for request in azure.entra.requests if "secrets" in request.path]
