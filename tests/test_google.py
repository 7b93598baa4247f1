"""What is Google Secret Manager's own: credentials, versions and regions, forks with gRPC, and listings."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from airflow_providers_secrets.backends import _gcp
from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    SecretRevoked,
    StoreMisconfigured,
    StoreUnavailable,
)
from tests.proxy import Reply, Request
from tests.rigs import PAGE
from tests.rigs.google import (
    PROJECT,
    PROJECT_NUMBER,
    Accounts,
    GoogleGrpcRig,
    GoogleRestRig,
    Version,
    access_answer,
    google_answer,
    google_error,
    header,
    service_account_key,
)
from tests.rigs.identities import Internet

RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"

over_rest = pytest.mark.parametrize("google", [GoogleRestRig], ids=["google-rest"], indirect=True)
"""For what gRPC has none of."""
over_grpc = pytest.mark.parametrize("google", [GoogleGrpcRig], ids=["google-grpc"], indirect=True)


@pytest.fixture(autouse=True)
def as_new(google: GoogleRestRig) -> None:
    """No requests, tokens and secrets of another test."""
    server = google.server
    for memory in (server.requests, server.tokens, server.secrets, server.aliases):
        memory.clear()
    google.put("airflow-variables-found", "x")


@pytest.fixture
def accounts(google: GoogleRestRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Accounts]:
    accounts = Accounts(google.server, tmp_path)
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    yield accounts
    accounts.stop()


@pytest.fixture
def internet(accounts: Accounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    """Google's own addresses, for what has no option to be elsewhere."""
    authority = trustme.CA()
    issued = authority.issue_cert("*.googleapis.com", "secretmanager.europe-west4.rep.googleapis.com")
    bundle, certificate, key = tmp_path / "ca.pem", tmp_path / "certificate.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(bundle)
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    internet = Internet(accounts.port, (str(certificate), str(key)))
    monkeypatch.setenv("HTTPS_PROXY", internet.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    yield internet
    internet.stop()


def anonymous(rig: GoogleRestRig, **options: Any) -> Any:
    """A backend that is not told who asks."""
    return rig.backend(**{"gcp_keyfile_dict": None, **options})


def by_token(rig: GoogleRestRig, accounts: Accounts, **options: Any) -> Any:
    """A backend that gets its tokens from an endpoint."""
    options = {"gcp_credential_config_file": accounts.federation(), "project_id": PROJECT, **options}
    return anonymous(rig, **options)


def elsewhere(options: dict[str, Any], *names: str, **environment: str) -> Any:
    """Look variables up in a new process."""
    code = (
        "import json\n"
        "from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend as Backend\n"
        f"backend = Backend(**{ ({**options, 'cache_ttl': 0})!r})\n"
        f"print('found', json.dumps([backend.get_variable(name) for name in {names!r}]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.partition("found ")[2])


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = (record for record in caplog.records if record.name.startswith("airflow_providers_secrets"))
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


# Credentials, each for real against endpoints on loopback.


@pytest.mark.parametrize("form", ["path", "dict", "text", "escaped", "configuration"])
def test_service_account_key(google: GoogleRestRig, accounts: Accounts, form: str, tmp_path: Path) -> None:
    """It signs for itself: nobody is asked for a token."""
    key = service_account_key(f"{accounts.url}/token")
    path = tmp_path / "key.json"
    path.write_text(json.dumps(key))
    options: dict[str, Any] = {
        "path": {"gcp_key_path": str(path)},
        "dict": {"gcp_keyfile_dict": key},
        "text": {"gcp_keyfile_dict": json.dumps(key)},
        "escaped": {"gcp_keyfile_dict": {**key, "private_key": key["private_key"].replace("\n", "\\n")}},
        "configuration": {"gcp_credential_config_file": str(path)},
    }[form]
    assert anonymous(google, **options).get_variable("found") == "x"
    assert accounts.requests == []
    assert len(google.server.requests) == 1


@pytest.mark.parametrize("form", ["path", "dict", "text"])
@pytest.mark.usefixtures("internet")
def test_authorized_user(google: GoogleRestRig, accounts: Accounts, form: str, tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(json.dumps(accounts.authorized_user()))
    configuration = {"path": str(path), "dict": accounts.authorized_user(), "text": path.read_text()}[form]
    asked = by_token(google, accounts, gcp_credential_config_file=configuration)
    assert [asked.get_variable("found") for _ in range(3)] == ["x"] * 3
    assert accounts.asked == ["/token"]


@pytest.mark.parametrize("told", ["option", "environment", "nowhere"])
@pytest.mark.usefixtures("internet")
def test_workload_identity_federation(
    google: GoogleRestRig, accounts: Accounts, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project is asked for, once, only where nothing says it: the identity may not be allowed to see it."""
    configuration = accounts.federation()
    if told == "environment":
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    options = {"project_id": PROJECT} if told == "option" else {}
    asked = anonymous(google, gcp_credential_config_file=configuration, **options)
    assert [asked.get_variable("found") for _ in range(3)] == ["x"] * 3
    expected = ["/v1/token"] if told != "nowhere" else ["/v1/token", f"/v1/projects/{PROJECT_NUMBER}"]
    assert accounts.asked == expected


@pytest.mark.usefixtures("internet")
def test_federated_identity_that_is_not_told_its_project(
    google: GoogleRestRig, accounts: Accounts, tmp_path: Path
) -> None:
    accounts.project = None
    asked = anonymous(google, gcp_credential_config_file=accounts.federation())
    with pytest.raises(StoreMisconfigured, match="option 'project_id' is needed"):
        asked.get_variable("found")


def test_federated_identity_in_the_environment(
    google: GoogleRestRig, accounts: Accounts, internet: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "federation.json"
    file.write_text(json.dumps(accounts.federation()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    chain = f"reader@{PROJECT}.iam.gserviceaccount.com"
    asked = anonymous(google, project_id=PROJECT, impersonation_chain=chain)
    assert asked.get_variable("found") == "x"
    assert accounts.asked == ["/v1/token", f"/v1/projects/-/serviceAccounts/{chain}:generateAccessToken"]


@pytest.mark.parametrize("form", ["text", "list", "commas"])
@pytest.mark.usefixtures("internet")
def test_impersonation_chain(google: GoogleRestRig, accounts: Accounts, form: str) -> None:
    """The key's account asks for a token of the last one's, by way of the others; the project is the last one's."""
    first, last = "first@other.iam.gserviceaccount.com", f"last@{PROJECT}.iam.gserviceaccount.com"
    chain = {"text": last, "list": [first, last], "commas": f"{first}, {last}"}[form]
    key = {**service_account_key(f"{accounts.url}/token"), "project_id": "other"}
    asked = google.backend(gcp_keyfile_dict=key, impersonation_chain=chain)
    assert [asked.get_variable("found") for _ in range(3)] == ["x"] * 3
    assert accounts.asked == ["/token", f"/v1/projects/-/serviceAccounts/{last}:generateAccessToken"]
    (request,) = (one for one in accounts.requests if "generateAccessToken" in one.path)
    assert request.headers["Host"] == "iamcredentials.googleapis.com"
    sent = json.loads(request.body)
    delegates = [] if form == "text" else [f"projects/-/serviceAccounts/{first}"]
    assert (sent["delegates"] or []) == delegates
    assert sent["scope"] == ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.fixture
def cloud(google: GoogleRestRig, internet: Internet, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a new process, in which Google's addresses lead here for gRPC too."""
    if google.name == "google-rest":
        yield {}
        return
    files = (str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem"))
    for_grpc = Internet(google.wire.port, files)  # type: ignore[attr-defined]
    for_grpc.tls.set_alpn_protocols(["h2"])
    yield {"grpc_proxy": for_grpc.url, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(tmp_path / "ca.pem")}
    for_grpc.stop()


def test_metadata_server(google: GoogleRestRig, accounts: Accounts, cloud: dict[str, str]) -> None:
    """Token and project are asked for once."""
    host = f"127.0.0.1:{accounts.port}"
    options = {"transport": google.options()["transport"]}
    environment = {**cloud, "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}
    assert elsewhere(options, "found", "absent", "found", **environment) == ["x", None, "x"]
    asked = accounts.asked
    token = "/computeMetadata/v1/instance/service-accounts/default/token"
    assert [asked.count("/computeMetadata/v1/project/project-id"), asked.count(token)] == [1, 1]
    assert len(asked) <= 5
    assert len(google.calls) == 3


@pytest.mark.parametrize("where", ["GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"])
def test_credentials_of_the_environment(
    google: GoogleRestRig, accounts: Accounts, cloud: dict[str, str], where: str, tmp_path: Path
) -> None:
    file = tmp_path / "application_default_credentials.json"
    file.write_text(json.dumps(accounts.authorized_user()))
    options = {"transport": google.options()["transport"]}
    environment = {where: str(file) if where.startswith("GOOGLE") else str(tmp_path), "GOOGLE_CLOUD_PROJECT": PROJECT}
    assert elsewhere(options, "found", **cloud, **environment) == ["x"]
    assert accounts.asked == ["/token"]


def test_region_has_a_host_of_its_own(google: GoogleRestRig, accounts: Accounts, cloud: dict[str, str]) -> None:
    name = f"projects/{PROJECT}/locations/europe-west4/secrets/airflow-variables-found"
    google.server.put(name, Version(b"in europe"))
    options = {
        "transport": google.options()["transport"],
        "location": "europe-west4",
        "gcp_keyfile_dict": service_account_key(),
    }
    assert elsewhere(options, "found", **cloud) == ["in europe"]
    (request,) = google.server.requests
    if google.name == "google-rest":
        assert request.headers["Host"] == "secretmanager.europe-west4.rep.googleapis.com"


def test_no_credentials_anywhere(google: GoogleRestRig, accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    from google.auth.compute_engine import _metadata

    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", True)
    asked = anonymous(google, endpoint=None)
    with pytest.raises(StoreMisconfigured, match="no Google credentials in the options or the environment"):
        asked.get_variable("found")


def test_quota_project(google: GoogleRestRig, accounts: Accounts) -> None:
    for options in ({}, {"gcp_credential_config_file": accounts.federation(), "gcp_keyfile_dict": None}):
        google.backend(project_id=PROJECT, quota_project_id="who-pays", **options).get_variable("found")
        assert header(google.server.requests[-1], "x-goog-user-project") == "who-pays"
    google.backend().get_variable("found")
    assert header(google.server.requests[-1], "x-goog-user-project") == ""


def test_project_of_the_options_wins(google: GoogleRestRig, monkeypatch: pytest.MonkeyPatch) -> None:
    google.server.put("projects/by-option/secrets/airflow-variables-found", Version(b"by option"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "by-environment")
    assert google.backend(project_id="by-option").get_variable("found") == "by option"
    assert google.backend().get_variable("found") == "x"


@pytest.mark.parametrize("given", ["option", "environment"])
def test_emulator_is_asked_without_a_login(google: GoogleRestRig, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="'project_id' is needed with an 'endpoint'"):
        anonymous(google)
    options = {"project_id": PROJECT} if given == "option" else {}
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT if given == "environment" else "other")
    seen = google_answer(access_answer(f"{google.resource('airflow-variables-found')}/versions/1", Version(b"y")))
    with google.server.fault(seen):
        assert anonymous(google, **options).get_variable("found") == "y"
    (request,) = google.server.requests
    assert header(request, "authorization") == ""


@pytest.mark.parametrize(
    "given", ["a, https://www.googleapis.com/auth/cloud-platform", ["https://www.googleapis.com/auth/cloud-platform"]]
)
def test_scopes(google: GoogleRestRig, given: Any) -> None:
    assert google.backend(gcp_scopes=given).get_variable("found") == "x"
    with pytest.raises(StoreMisconfigured, match="UNAUTHENTICATED"):
        google.backend(gcp_scopes="https://www.googleapis.com/auth/other").get_variable("found")


# Options.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"project_id": "S3cr3t Project"}, "'project_id' must be a project's id"),
        ({"project_id": "S3cr3t/../x"}, "'project_id'"),
        ({"project_id": ["S3cr3t"]}, "'project_id' must be a string"),
        ({"quota_project_id": "S3cr3t\r\nX: y"}, "'quota_project_id'"),
        ({"location": "S3cr3t.evil.example/"}, "'location' must be a region"),
        ({"location": "europe-west4 "}, "'location'"),
        ({"version": "S3cr3t/x"}, "'version' must be 'latest'"),
        ({"version": 0}, "'version'"),
        ({"endpoint": "S3cr3t"}, "'endpoint' must be https://"),
        ({"endpoint": "https://u:S3cr3t@host"}, "'endpoint'"),
        ({"endpoint": "https://host/S3cr3t"}, "'endpoint'"),
        ({"endpoint": "https://host?S3cr3t"}, "'endpoint'"),
        ({"endpoint": 5}, "'endpoint' must be a string"),
        ({"transport": "S3cr3t"}, "'transport' must be one of 'grpc', 'rest'"),
        ({"gcp_scopes": {"S3cr3t": 1}}, "'gcp_scopes' must be a string, a list"),
        ({"gcp_scopes": '["S3cr3t"'}, "'gcp_scopes' is not valid JSON"),
        ({"gcp_scopes": [1]}, "'gcp_scopes'"),
        ({"impersonation_chain": "S3cr3t"}, "'impersonation_chain' must be a service account's e-mail"),
        ({"impersonation_chain": ["a@b.c", "S3cr3t/x@b.c"]}, "'impersonation_chain'"),
        ({"gcp_keyfile_dict": "S3cr3t"}, "'gcp_keyfile_dict' is not valid JSON"),
        ({"gcp_keyfile_dict": '["S3cr3t"]'}, "'gcp_keyfile_dict' must be a JSON object"),
        ({"gcp_keyfile_dict": {"type": "S3cr3t"}}, "'gcp_keyfile_dict' must be a service account key"),
        (
            {"gcp_keyfile_dict": {"type": "service_account", "client_email": "S3cr3t"}},
            "'gcp_keyfile_dict' must be a service account key, and lacks 'private_key'",
        ),
        ({"gcp_keyfile_dict": None, "gcp_key_path": "S3cr3t.p12"}, "'gcp_key_path' must be the path"),
        ({"gcp_keyfile_dict": None, "gcp_key_path": 5}, "'gcp_key_path'"),
        (
            {"gcp_keyfile_dict": None, "gcp_credential_config_file": {"S3cr3t": 1}},
            "'gcp_credential_config_file' must be a credential configuration, and lacks 'type'",
        ),
        (
            {"gcp_keyfile_dict": None, "gcp_credential_config_file": '{"S3cr3t'},
            "'gcp_credential_config_file' is not valid JSON",
        ),
        ({"gcp_key_path": "/S3cr3t.json"}, "'gcp_key_path' and 'gcp_keyfile_dict' contradict each other"),
        (
            {"gcp_credential_config_file": "/S3cr3t"},
            "'gcp_keyfile_dict' and 'gcp_credential_config_file' contradict each other",
        ),
        ({"variables_prefix": "S3cr3t.x/y"}, "'variables_prefix'"),
        ({"sep": "."}, "no name is one that Google Secret Manager takes"),
    ],
    ids=repr,
)
def test_options_that_cannot_be_used(google: GoogleRestRig, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        google.backend(**options)
    assert said in str(raised.value)
    if "variables_prefix" not in options:
        assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))
    assert google.server.requests == []


@pytest.mark.parametrize("option", ["gcp_key_path", "gcp_credential_config_file"])
@pytest.mark.parametrize(
    "content",
    [
        None,
        b"S3cr3t",
        b"\xff\xfeS3cr3t",
        b'["S3cr3t"]',
        b'{"type": "S3cr3t"}',
        b'{"type": "service_account", "client_email": "S3cr3t"}',
        b'{"type": "service_account", "client_email": "a@b.c", "token_uri": "x", "private_key": "S3cr3t"}',
        b'{"type": "authorized_user", "refresh_token": "S3cr3t"}',
        b'{"type": "external_account", "audience": "S3cr3t"}',
    ],
)
def test_credential_file_that_cannot_be_used_names_the_option(
    google: GoogleRestRig, option: str, content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "key.json"
    if content is not None:
        file.write_bytes(content)
    asked = anonymous(google, project_id=PROJECT, **{option: str(file)})
    with pytest.raises(StoreMisconfigured, match=f"option '{option}'") as raised:
        asked.get_variable("found")
    assert isinstance(raised.value, ConfigurationError)
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))


# Names.


@pytest.mark.parametrize("secret_id", ["a/b", "a.b", "a b", "a%2Fb", "ä", "a:access", "a" * 238, "a\nb"])
def test_id_that_makes_no_name_is_none_with_one_warning_and_no_request(
    google: GoogleRestRig, secret_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = google.backend()
    assert [asked.get_variable(secret_id), asked.get_variable(secret_id)] == [None, None]
    (warning,) = messages(caplog)
    assert "no" in warning
    assert google.server.requests == []


def test_longest_name(google: GoogleRestRig) -> None:
    google.put(f"airflow-variables-{'a' * 237}", "x")
    assert google.backend().get_variable("a" * 237) == "x"


@pytest.mark.parametrize(
    ("options", "secret_id", "name"),
    [
        ({}, "smtp_Default-1", "airflow-variables-smtp_Default-1"),
        ({"variables_prefix": "pre"}, "a", "pre-a"),
        ({"variables_prefix": "pre-"}, "a", "pre--a"),
        ({"sep": "_"}, "a", "airflow-variables_a"),
        ({"sep": "", "variables_prefix": ""}, "a", "a"),
    ],
    ids=repr,
)
def test_name(google: GoogleRestRig, options: dict[str, Any], secret_id: str, name: str) -> None:
    """By the official rule."""
    google.put(name, "y")
    assert google.backend(**options).get_variable(secret_id) == "y"
    assert google.calls == [name]


# Versions and regions.


def test_newest_version_is_read_unless_the_option_says_another(google: GoogleRestRig) -> None:
    google.put("airflow-variables-found", "second")
    google.server.aliases["stable"] = 1
    expected = {None: "second", "latest": "second", "1": "x", 2: "second", "stable": "x", "3": None}
    for version, text in expected.items():
        options = {} if version is None else {"version": version}
        assert google.backend(**options).get_variable("found") == text


@pytest.mark.parametrize("state", ["DISABLED", "DESTROYED"])
def test_newest_version_that_is_not_enabled_is_revoked(google: GoogleRestRig, state: str) -> None:
    """An older one is not read instead."""
    google.server.put(google.resource("airflow-variables-found"), Version(b"S3cr3t", state))
    with pytest.raises(SecretRevoked, match="'airflow-variables-found': FAILED_PRECONDITION") as raised:
        google.backend().get_variable("found")
    assert "S3cr3t" not in str(raised.value)
    assert google.backend(version=1).get_variable("found") == "x"
    assert len(google.calls) == 2


def test_secret_without_a_version_is_absent(google: GoogleRestRig) -> None:
    google.server.put(google.resource("airflow-variables-empty"))
    assert google.backend().get_variable("empty") is None


def test_region(google: GoogleRestRig) -> None:
    region = f"projects/{PROJECT}/locations/europe-west4/secrets/airflow-variables"
    google.server.put(f"{region}-found", Version(b"in europe"))
    google.server.put(f"{region}-there", Version(b"too"))
    asked = google.backend(location="europe-west4")
    assert [asked.get_variable("found"), asked.get_variable("there")] == ["in europe", "too"]
    assert listed(google, "airflow-variables", location="europe-west4") == [
        "airflow-variables-found",
        "airflow-variables-there",
    ]
    assert [google.backend().get_variable("found"), google.backend().get_variable("there")] == ["x", None]


@pytest.mark.parametrize(
    ("answered", "options", "right"),
    [
        ("projects/{number}/secrets/{name}/versions/7", {}, True),
        ("projects/{project}/secrets/{name}/versions/7", {}, True),
        ("projects/{number}/secrets/{name}/versions/7", {"version": "7"}, True),
        ("projects/{number}/secrets/{name}/versions/7", {"version": "8"}, False),
        ("projects/{number}/secrets/{name}/versions/7", {"version": "stable"}, True),
        ("projects/{number}/secrets/{name}", {}, False),
        ("projects/{number}/secrets/S3cr3t/versions/7", {}, False),
        ("projects/{number}/locations/europe-west4/secrets/{name}/versions/7", {}, False),
        ("projects/{number}/locations/europe-west4/secrets/{name}/versions/7", {"location": "europe-west4"}, True),
        ("projects/{number}/locations/europe-west3/secrets/{name}/versions/7", {"location": "europe-west4"}, False),
        ("projects/{number}/secrets/{name}/versions/7", {"location": "europe-west4"}, False),
        ("secrets/{name}/versions/7", {}, False),
        ("", {}, False),
    ],
)
def test_name_of_the_answer(google: GoogleRestRig, answered: str, options: dict[str, str], right: bool) -> None:
    name = answered.format(number=PROJECT_NUMBER, project=PROJECT, name="airflow-variables-found")
    with google.server.fault(google_answer(access_answer(name, Version(b"S3cr3t")))):
        if right:
            assert google.backend(**options).get_variable("found") == "S3cr3t"
            return
        with pytest.raises(InvalidSecret) as raised:
            google.backend(**options).get_variable("found")
    assert "S3cr3t" not in str(raised.value)


# Answers.


def test_value_that_is_damaged(google: GoogleRestRig) -> None:
    google.server.put(google.resource("airflow-variables-damaged"), Version(b"S3cr3t", crc32c=1))
    with pytest.raises(InvalidSecret, match="checksum") as raised:
        google.backend().get_variable("damaged")
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))


def test_value_without_a_checksum(google: GoogleRestRig) -> None:
    answer = access_answer(f"{google.resource('airflow-variables-found')}/versions/1", Version(b"y"))
    del answer["payload"]["dataCrc32c"]
    with google.server.fault(google_answer(answer)):
        assert google.backend().get_variable("found") == "y"


def test_value_that_is_no_text(google: GoogleRestRig) -> None:
    google.server.put(google.resource("airflow-variables-binary"), Version(b"\xff\xfeS3cr3t"))
    with pytest.raises(InvalidSecret, match="not UTF-8 text") as raised:
        google.backend().get_variable("binary")
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        (google_error(403, "PERMISSION_DENIED"), AccessDenied, "PERMISSION_DENIED"),
        (
            google_error(403, "PERMISSION_DENIED", details=[{"@type": ERROR_INFO, "reason": "SERVICE_DISABLED"}]),
            StoreMisconfigured,
            "SERVICE_DISABLED",
        ),
        (
            google_error(403, "PERMISSION_DENIED", details=[{"@type": ERROR_INFO, "reason": "IAM_PERMISSION_DENIED"}]),
            AccessDenied,
            "IAM_PERMISSION_DENIED",
        ),
        (google_error(400, "INVALID_ARGUMENT"), StoreMisconfigured, "INVALID_ARGUMENT"),
        (google_error(503, "UNAVAILABLE"), StoreUnavailable, "UNAVAILABLE"),
        (google_error(500, "INTERNAL"), StoreUnavailable, "INTERNAL"),
        (google_error(504, "DEADLINE_EXCEEDED"), StoreUnavailable, "DEADLINE_EXCEEDED"),
        (google_error(429, "RESOURCE_EXHAUSTED"), StoreUnavailable, "RESOURCE_EXHAUSTED"),
        (google_error(401, "UNAUTHENTICATED"), StoreMisconfigured, "UNAUTHENTICATED"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_error(google: GoogleRestRig, reply: Reply, error: type[Exception], code: str) -> None:
    asked = google.backend(max_attempts=1)
    with google.server.fault(reply), pytest.raises(error) as raised:
        asked.get_variable("found")
    assert code in str(raised.value)
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))


@over_rest
@pytest.mark.parametrize(
    "payload",
    [
        Reply(200, b'["S3cr3t"]'),
        google_answer({"name": "S3cr3t", "payload": "S3cr3t"}),
        google_answer({"name": "x", "payload": {"data": "S3cr3t!"}}),
        google_answer({"name": "x", "payload": {"data": "", "dataCrc32c": "S3cr3t"}}),
    ],
)
def test_json_that_is_no_answer(google: GoogleRestRig, payload: Reply) -> None:
    with google.server.fault(payload), pytest.raises(InvalidSecret, match="malformed") as raised:
        google.backend().get_variable("found")
    assert "S3cr3t" not in str(raised.value)


def times_of_attempts(rig: GoogleRestRig, failure: Reply, **options: Any) -> list[float]:
    replies: list[Reply | None] = [failure, None]
    times: list[float] = []

    def fault(_: Request) -> Reply | None:
        times.append(time.monotonic())
        return replies.pop(0)

    with rig.server.fault(fault):
        assert rig.backend(**options).get_variable("found") == "x"
    return times


def test_server_is_asked_again_when_it_says(google: GoogleRestRig) -> None:
    """By itself, the pause would be a tenth of a second at most."""
    failure = google_error(503, "UNAVAILABLE", details=[{"@type": RETRY_INFO, "retryDelay": "0.500s"}])
    first, second = times_of_attempts(google, failure)
    assert 0.5 <= second - first < 4


@over_rest
def test_retry_after(google: GoogleRestRig) -> None:
    failure = google_error(503, "UNAVAILABLE")
    failure.headers["Retry-After"] = "1"
    first, second = times_of_attempts(google, failure)
    assert 1 <= second - first < 4


def test_pause_that_would_outlast_the_deadline_is_not_begun(google: GoogleRestRig) -> None:
    failure = google_error(429, "RESOURCE_EXHAUSTED", details=[{"@type": RETRY_INFO, "retryDelay": "30s"}])
    started = time.monotonic()
    with google.server.fault(failure), pytest.raises(StoreUnavailable, match="RESOURCE_EXHAUSTED"):
        google.backend(timeout=5).get_variable("found")
    assert time.monotonic() - started < 2
    assert len(google.calls) == 1


# The life of a token.


def test_token_that_is_no_longer_taken_costs_one_login(google: GoogleRestRig, accounts: Accounts) -> None:
    asked = by_token(google, accounts)
    asked.get_variable("found")
    google.server.tokens.clear()
    assert [asked.get_variable("found"), asked.get_variable("found")] == ["x", "x"]
    assert accounts.asked == ["/v1/token"] * 2


def test_identity_that_is_never_taken_costs_one_login_more(google: GoogleRestRig, accounts: Accounts) -> None:
    asked = by_token(google, accounts)
    asked.get_variable("found")
    with google.server.fault(google_error(401, "UNAUTHENTICATED")), pytest.raises(StoreMisconfigured):
        asked.get_variable("found")
    assert accounts.asked == ["/v1/token"] * 2


def test_token_that_is_about_to_end_is_renewed_or_used_to_its_end(google: GoogleRestRig, accounts: Accounts) -> None:
    accounts.life = 100
    asked = by_token(google, accounts)
    assert [asked.get_variable("found") for _ in range(2)] == ["x", "x"]
    assert accounts.asked == ["/v1/token"] * 2
    with accounts.fault(Reply(reset=True)):
        assert asked.get_variable("found") == "x"
    accounts.life = 3600
    assert [asked.get_variable("found") for _ in range(3)] == ["x"] * 3
    assert accounts.asked == ["/v1/token"] * 4


def test_token_that_ended_is_not_used(google: GoogleRestRig, accounts: Accounts) -> None:
    accounts.life = 0
    asked = by_token(google, accounts, max_attempts=1)
    asked.get_variable("found")
    with accounts.fault(Reply(reset=True)), pytest.raises(StoreUnavailable, match="login unavailable"):
        asked.get_variable("found")
    assert len(google.calls) == 1


def test_refused_login(google: GoogleRestRig, accounts: Accounts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = by_token(google, accounts)
    accounts.federation("S3cr3t")
    with pytest.raises(StoreMisconfigured, match=r"login refused \(HTTP 400\)") as raised:
        asked.get_variable("found")
    assert accounts.asked == ["/v1/token"]
    assert google.server.requests == []
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value)) + caplog.text


def test_login_that_cannot_be_reached_is_tried_again(google: GoogleRestRig, accounts: Accounts) -> None:
    replies = [Reply(reset=True), None]
    with accounts.fault(lambda _: replies.pop(0)):
        assert by_token(google, accounts).get_variable("found") == "x"
    assert accounts.asked == ["/v1/token"] * 2


def test_login_that_hangs_ends_at_the_deadline(google: GoogleRestRig, accounts: Accounts) -> None:
    asked = by_token(google, accounts, timeout=0.5)
    started = time.monotonic()
    with accounts.fault(Reply(hang=True)), pytest.raises(StoreUnavailable, match="no answer within"):
        asked.get_variable("found")
    assert time.monotonic() - started < 1.5


# Requests.


def test_request(google: GoogleRestRig) -> None:
    google.backend().get_variable("found")
    (request,) = google.server.requests
    path = f"{google.resource('airflow-variables-found')}/versions/latest"
    assert request.path == f"/v1/{path}:access"
    assert re.match(r"airflow-providers-secrets/\d", header(request, "user-agent"))
    if google.name == "google-grpc":
        assert parse_qs(header(request, "x-goog-request-params")) == {"name": [path]}


def test_64_cold_threads_log_in_once(google: GoogleRestRig, accounts: Accounts) -> None:
    barrier = threading.Barrier(64)
    asked = by_token(google, accounts, timeout=30)

    def look_up(_: int) -> str | None:
        barrier.wait(30)
        return str(asked.get_variable("found"))

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(look_up, range(64))) == {"x"}
    assert accounts.asked == ["/v1/token"]
    assert len(google.calls) == 64


@over_rest
def test_redirect_is_not_followed(google: GoogleRestRig, accounts: Accounts) -> None:
    elsewhere = Reply(307, headers={"Location": f"{accounts.url}/v1/x"})
    with google.server.fault(elsewhere), pytest.raises(StoreMisconfigured, match="HTTP 307"):
        google.backend().get_variable("found")
    assert accounts.requests == []


@over_rest
def test_password_of_a_netrc_file_is_not_sent(
    google: GoogleRestRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password S3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert google.backend().get_variable("found") == "x"
    assert header(google.server.requests[0], "authorization").startswith("Bearer ")


def test_server_that_hangs_ends_at_the_deadline(google: GoogleRestRig) -> None:
    asked = google.backend(timeout=0.5)
    asked.get_variable("found")
    started = time.monotonic()
    with google.server.fault(Reply(hang=True)), pytest.raises(StoreUnavailable):
        asked.get_variable("found")
    assert 0.4 < time.monotonic() - started < 1.5


@pytest.mark.parametrize("silent", [True, False])
def test_server_that_does_not_speak_ends_at_the_deadline(google: GoogleRestRig, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if not silent:
            listener.close()
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            google.backend(endpoint=endpoint, timeout=0.5).get_variable("found")
    assert time.monotonic() - started < 1.5


# Forks.


def _look_up_in_child(rig: GoogleRestRig, number: int, results: Any) -> None:
    asked = rig.backend(timeout=30)
    name = f"forked-{number}"
    results.put((number, {asked.get_variable(name) for _ in range(200)}))


@contextlib.contextmanager
def looking_up(look_up: Callable[[], Any]) -> Iterator[list[Any]]:
    """Look up in two threads meanwhile; give what came of it, errors included."""
    seen: list[Any] = []
    ending = threading.Event()

    def go_on() -> None:
        while not ending.is_set():
            try:
                seen.append(look_up())
            except Exception as error:
                seen.append(error)

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ending.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_8_forked_children_get_their_own_answers_while_the_parent_gets_its_own(google: GoogleRestRig) -> None:
    for number in range(8):
        google.put(f"airflow-variables-forked-{number}", f"value-{number}")
    asked = google.backend(timeout=30)
    assert asked.get_variable("found") == "x"
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_look_up_in_child, args=(google, number, results)) for number in range(8)]
    with looking_up(lambda: asked.get_variable("found")) as seen:
        for child in children:
            child.start()
        answers = sorted(results.get(timeout=60) for _ in children)
    assert answers == [(number, {f"value-{number}"}) for number in range(8)]
    assert set(seen) == {"x"}
    for child in children:
        child.join(10)
        assert child.exitcode == 0


def _spoken(rig: GoogleRestRig, results: Any) -> None:
    results.put((_gcp.transport(rig.backend().options), "grpc" in sys.modules))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_of_a_process_that_has_grpc_leaves_it_alone(google: GoogleRestRig) -> None:
    """Its locks are as they were, and its threads are not there."""
    assert google.backend().get_variable("found") == "x"
    loaded = "grpc" in sys.modules
    assert loaded or google.name == "google-rest"
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_spoken, args=(google, results))
    child.start()
    assert results.get(timeout=30) == ("rest" if loaded else google.options()["transport"], loaded)
    child.join(10)
    assert _gcp.transport(google.backend().options) == google.options()["transport"]


# Listings.


def listed(rig: GoogleRestRig, base: str, **options: Any) -> list[str]:
    """The names that a backend finds under *base*."""
    asked = rig.backend(**options)
    return [found.name for found in asked.listing(asked.connect(), asked.prefix(base))]


@pytest.fixture
def small_pages(google: GoogleRestRig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pages of three names, and seven names."""
    monkeypatch.setattr(google.server, "page_size", 3)
    google.server.secrets.clear()
    names = [f"airflow-variables-{number}" for number in range(7)]
    for name in names:
        google.put(name, "S3cr3t")
    return names


def test_listing_is_everything_under_a_base_page_by_page(google: GoogleRestRig, small_pages: list[str]) -> None:
    # The server's filter is for a substring.
    for name in ("other", "airflow-variables", "x-airflow-variables-1", "Airflow-variables-1"):
        google.put(name, "x")
    assert listed(google, "airflow-variables") == small_pages
    assert google.calls == [PAGE] * 3
    filters = {parse_qs(urlsplit(request.path).query)["filter"][0] for request in google.server.requests}
    assert filters == {"name:airflow-variables-"}
    assert len(listed(google, "", sep="")) == 11
    assert listed(google, "nothing") == []


def test_listing_is_lazy(google: GoogleRestRig, small_pages: list[str]) -> None:
    asked = google.backend()
    going = asked.listing(asked.connect(), "airflow-variables-")
    assert google.server.requests == []
    assert [next(going).name for _ in range(3)] == small_pages[:3]
    assert google.calls == [PAGE]
    next(going)
    assert google.calls == [PAGE] * 2


def test_listing_of_an_empty_project(google: GoogleRestRig) -> None:
    google.server.secrets.clear()
    assert listed(google, "airflow-variables") == []
    assert google.calls == [PAGE]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    "reply",
    [
        google_error(500, "INTERNAL"),
        google_error(404, "NOT_FOUND"),
        Reply(200, b"S3cr3t"),
        google_answer({"secrets": [], "nextPageToken": "3"}),
    ],
)
def test_listing_that_fails_on_a_later_page_does_not_end_quietly(google: GoogleRestRig, reply: Reply) -> None:
    asked = google.backend()
    going = asked.listing(asked.connect(), "airflow-variables-")
    with (
        google.server.fault(lambda request: reply if "pageToken=3" in request.path else None),
        pytest.raises(Exception, match=r"INTERNAL|NOT_FOUND|malformed|does not end") as raised,
    ):
        list(going)
    assert "S3cr3t" not in str(raised.value)
