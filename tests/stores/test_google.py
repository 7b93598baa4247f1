"""What is Google Secret Manager's own: credentials, versions and regions, forks with gRPC, and listings."""

from __future__ import annotations

import base64
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    SecretRevoked,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import answers
from airflow_providers_secrets.lookup.access import loaded_store, store_of
from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.base import EXISTS, StoreError
from airflow_providers_secrets.stores.google import grpc_forks
from airflow_providers_secrets.testing.lookups import DRIP, ONE_TRY, Waits, hanging, warned
from airflow_providers_secrets.testing.processes import TIMEOUT, in_a_process, run_python
from airflow_providers_secrets.testing.proxy import Reply, Request
from tests.rigs import PAGE, PATIENT
from tests.rigs.google import (
    PROJECT,
    PROJECT_NUMBER,
    Accounts,
    GoogleRestRig,
    Version,
    access_answer,
    google_answer,
    google_error,
    header,
    service_account_key,
)
from tests.rigs.identities import Internet
from tests.support.authority import Authority
from tests.support.ports import free_port
from tests.support.servers import BehindTls

RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"

over_rest = pytest.mark.parametrize("google", ["google-rest"], indirect=True)
"""For what gRPC has none of."""
over_grpc = pytest.mark.parametrize("google", ["google-grpc"], indirect=True)

# google-auth warns of configurations that strangers wrote; these are the operator's own.
pytestmark = pytest.mark.filterwarnings("ignore:The load_credentials_from_dict method is deprecated")


@pytest.fixture(autouse=True)
def as_new(google: GoogleRestRig) -> None:
    """No requests, tokens and secrets of another test."""
    server = google.server
    for memory in (server.requests, server.tokens, server.secrets, server.aliases, server.created):
        memory.clear()
    google.put("airflow-variables-found", "x")


@pytest.fixture
def accounts(google: GoogleRestRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Accounts]:
    accounts = Accounts(google.server, tmp_path)
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    yield accounts
    accounts.stop()


HOSTS = ("*.googleapis.com", "secretmanager.europe-west4.rep.googleapis.com")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def internet(accounts: Accounts, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    """Google's own addresses, for what has no option to be elsewhere."""
    internet = Internet(accounts.port, authority.issue(*HOSTS))
    monkeypatch.setenv("HTTPS_PROXY", internet.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    yield internet
    internet.stop()


def anonymous(rig: GoogleRestRig, **options: Any) -> Any:
    """A backend that is not told who asks."""
    return rig.backend(**{"gcp_keyfile_dict": None, **options})


def by_token(rig: GoogleRestRig, accounts: Accounts, **options: Any) -> Any:
    """A backend that gets its tokens from an endpoint."""
    options = {"gcp_credential_config_file": accounts.federation(), "project_id": PROJECT, **options}
    return anonymous(rig, **options)


def connected(backend: Any) -> tuple[Any, Any]:
    """The store of a backend, and a client of it."""
    store = loaded_store(backend.config)
    return store, store.connect()


def elsewhere(options: dict[str, Any], *names: str, **environment: str) -> Any:
    """Look variables up in a new process."""
    code = (
        "import json\n"
        "from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend as Backend\n"
        f"backend = Backend(**{ ({**PATIENT, **options, 'cache_ttl': 0})!r})\n"
        f"print('found', json.dumps([backend.get_variable(name) for name in {names!r}]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.partition("found ")[2])


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


@pytest.mark.parametrize("form", ["text", "list", "commas", "of three"])
@pytest.mark.usefixtures("internet")
def test_impersonation_chain(google: GoogleRestRig, accounts: Accounts, form: str) -> None:
    """The key's account asks for a token of the last one's, by way of the others; the project is the last one's."""
    first, last = "first@other.iam.gserviceaccount.com", f"last@{PROJECT}.iam.gserviceaccount.com"
    between = "between@other.iam.gserviceaccount.com"
    chain = {"text": last, "list": [first, last], "commas": f"{first}, {last}", "of three": [first, between, last]}[
        form
    ]
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    if form == "of three":
        scopes.append("https://www.googleapis.com/auth/userinfo.email")
    key = {**service_account_key(f"{accounts.url}/token"), "project_id": "other"}
    asked = google.backend(gcp_keyfile_dict=key, impersonation_chain=chain, gcp_scopes=scopes)
    assert [asked.get_variable("found") for _ in range(3)] == ["x"] * 3
    assert accounts.asked == ["/token", f"/v1/projects/-/serviceAccounts/{last}:generateAccessToken"]
    (request,) = (one for one in accounts.requests if "generateAccessToken" in one.path)
    assert request.headers["Host"] == "iamcredentials.googleapis.com"
    sent = json.loads(request.body)
    delegates = {"text": [], "of three": [first, between]}.get(form, [first])
    assert (sent["delegates"] or []) == [f"projects/-/serviceAccounts/{account}" for account in delegates]
    assert sent["scope"] == scopes


@pytest.fixture
def cloud(google: GoogleRestRig, internet: Internet, authority: Authority) -> Iterator[dict[str, str]]:
    """The environment of a new process, in which Google's addresses lead here for gRPC too."""
    if google.name == "google-rest":
        yield {}
        return
    for_grpc = Internet(google.wire.port, authority.issue(*HOSTS))  # type: ignore[attr-defined]
    for_grpc.tls.set_alpn_protocols(["h2"])
    yield {"grpc_proxy": for_grpc.url, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(authority.bundle)}
    for_grpc.stop()


@pytest.mark.each_rig_in_ci
def test_metadata_server(google: GoogleRestRig, accounts: Accounts, cloud: dict[str, str]) -> None:
    """Token and project are asked for once."""
    host = f"127.0.0.1:{accounts.port}"
    options = {"transport": google.options()["transport"]}
    environment = {**cloud, "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}
    assert elsewhere(options, "found", "absent", "found", **environment) == ["x", None, "x"]
    asked = accounts.asked
    assert [sum(path.endswith(end) for path in asked) for end in ("/project/project-id", "/token")] == [1, 1]
    assert len(asked) <= 5
    assert len(google.calls) == 3


@pytest.mark.each_rig_in_ci
@pytest.mark.parametrize(
    "where", [pytest.param("GOOGLE_APPLICATION_CREDENTIALS", marks=pytest.mark.long), "CLOUDSDK_CONFIG"]
)
def test_credentials_of_the_environment(
    google: GoogleRestRig, accounts: Accounts, cloud: dict[str, str], where: str, tmp_path: Path
) -> None:
    file = tmp_path / "application_default_credentials.json"
    file.write_text(json.dumps(accounts.authorized_user()))
    options = {"transport": google.options()["transport"]}
    environment = {where: str(file) if where.startswith("GOOGLE") else str(tmp_path), "GOOGLE_CLOUD_PROJECT": PROJECT}
    assert elsewhere(options, "found", **cloud, **environment) == ["x"]
    assert accounts.asked == ["/token"]


@pytest.mark.each_rig_in_ci
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


@pytest.mark.parametrize("location", [None, "europe-west4"])
def test_another_universe_has_hosts_of_its_own(google: GoogleRestRig, location: str | None) -> None:
    """As a sovereign cloud's keys name it."""
    key = {**service_account_key(), "universe_domain": "cloud.test"}
    store, client = connected(google.backend(gcp_keyfile_dict=key, endpoint=None, location=location))
    region = f"{location}.rep." if location else ""
    assert store.address(client) == f"https://secretmanager.{region}cloud.test"


def test_no_credentials_anywhere(google: GoogleRestRig, accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    from google.auth.compute_engine import _metadata

    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", True, raising=False)  # older ones read the variable each time
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
        ({"sep": "."}, "'sep' holds '.', with which Google Secret Manager does not allow any name"),
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
    (warning,) = warned(caplog)
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


def pauses_before_a_second_attempt(rig: GoogleRestRig, failure: Reply, pauses: list[float]) -> list[float]:
    replies: list[Reply | None] = [failure, None]
    with rig.server.fault(lambda _: replies.pop(0)):
        assert rig.backend().get_variable("found") == "x"
    return pauses


def test_server_is_asked_again_when_it_says(google: GoogleRestRig, pauses: list[float]) -> None:
    """By itself, the pause would be a tenth of a second at most."""
    failure = google_error(503, "UNAVAILABLE", details=[{"@type": RETRY_INFO, "retryDelay": "0.500s"}])
    assert pauses_before_a_second_attempt(google, failure, pauses) == [0.5]


@over_rest
def test_retry_after(google: GoogleRestRig, pauses: list[float]) -> None:
    failure = google_error(503, "UNAVAILABLE")
    failure.headers["Retry-After"] = "1"
    assert pauses_before_a_second_attempt(google, failure, pauses) == [1.0]


def test_pause_that_would_outlast_the_deadline_is_not_begun(google: GoogleRestRig) -> None:
    failure = google_error(429, "RESOURCE_EXHAUSTED", details=[{"@type": RETRY_INFO, "retryDelay": "30s"}])
    with google.server.fault(failure), pytest.raises(StoreUnavailable, match="RESOURCE_EXHAUSTED"):
        google.backend(timeout=20).get_variable("found")
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


@pytest.mark.parametrize("fault", [Reply(reset=True), Reply(400)], ids=["outage", "refusal"])
def test_token_that_is_about_to_end_is_renewed_or_used_to_its_end(
    google: GoogleRestRig, accounts: Accounts, fault: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:

    now = [1000.0]
    monkeypatch.setattr(base, "clock", lambda: now[0])
    accounts.life = 100
    asked = by_token(google, accounts)
    assert [asked.get_variable("found") for _ in range(2)] == ["x", "x"]
    assert accounts.asked == ["/v1/token"] * 2
    with accounts.fault(fault):
        assert [asked.get_variable("found") for _ in range(5)] == ["x"] * 5
    assert accounts.asked == ["/v1/token"] * 3  # that it failed costs a try in 30 s, and not one for each request
    accounts.life = 3600
    now[0] += 31
    assert [asked.get_variable("found") for _ in range(3)] == ["x"] * 3
    assert accounts.asked == ["/v1/token"] * 4


def test_token_that_ended_is_not_used(google: GoogleRestRig, accounts: Accounts) -> None:
    accounts.life = 0
    asked = by_token(google, accounts, max_attempts=1)
    asked.get_variable("found")
    with accounts.fault(Reply(reset=True)), pytest.raises(StoreUnavailable, match="login unavailable"):
        asked.get_variable("found")
    assert len(google.calls) == 1


def test_token_endpoint_that_cannot_be_reached_is_told_with_the_cause(
    google: GoogleRestRig, accounts: Accounts
) -> None:
    port = free_port()
    configuration = {**accounts.federation(), "token_url": f"http://127.0.0.1:{port}/"}
    said = rf"login unavailable: connection refused \(127\.0\.0\.1 port {port}\)\. Check that host and port are right"
    with pytest.raises(StoreUnavailable, match=said):
        by_token(google, accounts, gcp_credential_config_file=configuration, max_attempts=1).get_variable("found")
    with (
        accounts.fault(Reply(reset=True)),
        pytest.raises(
            StoreUnavailable, match=r"login unavailable: connection closed .*\. Check that the server of the login"
        ),
    ):
        by_token(google, accounts, max_attempts=1).get_variable("found")
    assert google.calls == []


def test_refused_login(google: GoogleRestRig, accounts: Accounts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = by_token(google, accounts)
    accounts.federation("S3cr3t")
    with pytest.raises(StoreMisconfigured, match=r"login refused \(HTTP 400\)") as raised:
        asked.get_variable("found")
    assert accounts.asked == ["/v1/token"]
    assert google.server.requests == []
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value)) + caplog.text


def test_refused_login_is_not_repeated_for_30_seconds(
    google: GoogleRestRig, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:

    now = [1000.0]
    monkeypatch.setattr(base, "clock", lambda: now[0])
    asked = by_token(google, accounts)
    accounts.federation("S3cr3t")
    for passed, logins in ((0, 1), (29, 1), (31, 2)):
        now[0] = 1000.0 + passed
        with pytest.raises(StoreMisconfigured, match=r"login refused \(HTTP 400\)"):
            asked.get_variable("found")
        assert accounts.asked == ["/v1/token"] * logins
    accounts.federation()
    now[0] += 31
    assert asked.get_variable("found") == "x"


@pytest.mark.usefixtures("internet")
def test_file_of_credentials_that_was_replaced_is_read_once_the_old_ones_are_refused(
    google: GoogleRestRig, accounts: Accounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(base, "clock", lambda: now[0])
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({**accounts.authorized_user(), "refresh_token": "revoked"}))
    asked = by_token(google, accounts, gcp_credential_config_file=str(path))
    with accounts.fault(lambda request: Reply(400) if b"revoked" in request.body else None):
        with pytest.raises(StoreMisconfigured, match=r"login refused \(HTTP 400\)"):
            asked.get_variable("found")
        path.write_text(json.dumps(accounts.authorized_user()))
        now[0] += 31
        assert asked.get_variable("found") == "x"


def test_key_that_was_replaced_in_its_file_is_read_once_the_old_one_is_refused(
    google: GoogleRestRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(base, "clock", lambda: now[0])
    path = tmp_path / "key.json"
    path.write_text(json.dumps({**service_account_key(), "client_email": "deleted@example.iam.gserviceaccount.com"}))
    asked = anonymous(google, gcp_key_path=str(path), project_id=PROJECT)
    with pytest.raises(StoreMisconfigured, match="UNAUTHENTICATED"):
        asked.get_variable("found")
    path.write_text(json.dumps(service_account_key()))
    now[0] += 31
    assert asked.get_variable("found") == "x"


@pytest.mark.usefixtures("internet")
def test_token_that_is_still_valid_is_used_to_its_end_although_each_login_is_refused(
    google: GoogleRestRig, accounts: Accounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refusal, the credentials of the file are found anew, and those have no token yet."""
    now = [1000.0]
    monkeypatch.setattr(base, "clock", lambda: now[0])
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps(accounts.authorized_user()))
    accounts.life = 200  # google-auth renews in the last 225 seconds
    asked = by_token(google, accounts, gcp_credential_config_file=str(path))
    assert asked.get_variable("found") == "x"
    with accounts.fault(lambda request: Reply(400) if accounts.REFRESH_TOKEN.encode() in request.body else None):
        for _ in range(3):
            assert asked.get_variable("found") == "x"
            now[0] += 31
    assert asked.get_variable("found") == "x"


def test_login_that_cannot_be_reached_is_tried_again(google: GoogleRestRig, accounts: Accounts) -> None:
    replies = [Reply(reset=True), None]
    with accounts.fault(lambda _: replies.pop(0)):
        assert by_token(google, accounts).get_variable("found") == "x"
    assert accounts.asked == ["/v1/token"] * 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_login_that_is_throttled_or_fails_is_no_refusal(google: GoogleRestRig, accounts: Accounts, status: int) -> None:
    replies = [Reply(status, b'{"error": "S3cr3t"}', {"Content-Type": "application/json"}), None]
    with accounts.fault(lambda _: replies.pop(0)):
        assert by_token(google, accounts).get_variable("found") == "x"
    assert accounts.asked == ["/v1/token"] * 2


def test_login_that_hangs_ends_at_the_deadline(google: GoogleRestRig, accounts: Accounts) -> None:
    """The endpoint goes on after 30 s, or when the fault ends."""
    asked = by_token(google, accounts, timeout=0.5)
    with accounts.fault(Reply(hang=True)), pytest.raises(StoreUnavailable, match="no answer within"):
        asked.get_variable("found")


@pytest.fixture
def command(accounts: Accounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    command = Command(accounts, tmp_path)
    yield command
    command.stop()


class Command:
    """An executable that a credential configuration names: it prints a file, but for its first run, which hangs."""

    def __init__(self, accounts: Accounts, directory: Path) -> None:
        self.answer, script, pipe = (directory / name for name in ("answer", "script", "pipe"))
        os.mkfifo(pipe)
        self._held = os.open(pipe, os.O_RDWR)  # whoever reads it hangs
        self._ran = directory / "ran"
        script.write_text(f"mkdir {self._ran} 2>/dev/null && cat {pipe}\ncat {self.answer}\n")
        self.configuration = {
            **accounts.federation(),
            "credential_source": {"executable": {"command": f"sh {script}", "timeout_millis": 120_000}},
        }
        self.works()

    def works(self) -> None:
        kind = "urn:ietf:params:oauth:token-type:jwt"
        told = {"version": 1, "success": True, "token_type": kind, "id_token": Accounts.SUBJECT_TOKEN}
        self.answer.write_text(json.dumps(told))

    def hangs_no_more(self) -> None:
        self._ran.mkdir()

    def stop(self) -> None:
        self.answer.unlink(missing_ok=True)  # what hung fails
        os.close(self._held)


def test_command_that_hangs_keeps_nobody_beyond_its_deadline(
    google: GoogleRestRig, accounts: Accounts, command: Command, waits: Waits
) -> None:
    """It hangs for longer than anybody waits for it. Others run it for themselves."""
    asked = by_token(google, accounts, gcp_credential_config_file=command.configuration, timeout=20)
    waits.shortened = lambda _: 1.0
    with pytest.raises(StoreUnavailable, match="no answer within"):
        asked.get_variable("found")
    waits.shortened = lambda seconds: seconds
    assert asked.get_variable("found") == "x"


def test_command_that_fails_is_named(google: GoogleRestRig, accounts: Accounts, command: Command) -> None:
    command.hangs_no_more()
    asked = by_token(google, accounts, gcp_credential_config_file=command.configuration, max_attempts=1)
    command.answer.unlink()
    with pytest.raises(
        StoreUnavailable, match=r"the credentials' command failed \(\w+\)\. Run the credentials' command"
    ):
        asked.get_variable("found")
    assert accounts.asked == []
    command.works()
    assert asked.get_variable("found") == "x"


@pytest.mark.parametrize("logged_in", [False, True])
def test_file_of_credentials_that_is_missing_is_no_refusal(
    google: GoogleRestRig, accounts: Accounts, tmp_path: Path, logged_in: bool
) -> None:
    accounts.life = 0
    asked = by_token(google, accounts)
    if logged_in:
        asked.get_variable("found")
    before = len(accounts.asked)
    (tmp_path / "subject-token").unlink()
    with pytest.raises(StoreMisconfigured, match=r"unusable credential \(RefreshError\)\. Fix what the credentials'"):
        asked.get_variable("found")
    assert len(accounts.asked) == before
    accounts.federation()
    assert asked.get_variable("found") == "x"


def test_token_that_is_about_to_end_is_used_to_its_end_without_the_file(
    google: GoogleRestRig, accounts: Accounts, tmp_path: Path
) -> None:
    accounts.life = 100
    asked = by_token(google, accounts)
    asked.get_variable("found")
    (tmp_path / "subject-token").unlink()
    assert asked.get_variable("found") == "x"


@pytest.mark.parametrize(
    "reply",
    [Reply(200, body) for body in (b"<html>S3cr3t</html>", b"[]", b"null", b"{}", b"\xff")]
    + [Reply(307, headers={"Location": "http://127.0.0.1:1/"}), Reply(200, b" " * (17 << 20))],
    ids=["html", "list", "null", "object", "octets", "redirect", "long"],
)
def test_login_whose_answer_is_no_token_is_no_refusal(google: GoogleRestRig, accounts: Accounts, reply: Reply) -> None:
    """Some proxy's, for instance."""
    asked = by_token(google, accounts, max_attempts=1)
    with accounts.fault(reply):
        with pytest.raises(
            StoreUnavailable, match=r"login unavailable \([^)]+\)\. Check that the server of the login"
        ) as raised:
            asked.get_variable("found")
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))
    assert asked.get_variable("found") == "x"


# Requests.


def test_request(google: GoogleRestRig) -> None:
    google.backend().get_variable("found")
    (request,) = google.server.requests
    path = f"{google.resource('airflow-variables-found')}/versions/latest"
    assert urlsplit(request.path).path == f"/v1/{path}:access"
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


@pytest.mark.parametrize("silent", [True, False])
def test_server_that_does_not_speak_ends_at_the_deadline(google: GoogleRestRig, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if not silent:
            listener.close()
        with pytest.raises(StoreUnavailable):
            google.backend(endpoint=endpoint, timeout=0.5).get_variable("found")


# Forks.


BUSY = """
import json, traceback
os.dup2(1, 2)  # what gRPC says, too
ending, seen = threading.Event(), [backend.get_variable("found")]
def look_up():
    while not ending.is_set():
        try:
            seen.append(backend.get_variable("found"))
        except Exception as error:
            seen.append(repr(error))
def in_child(number):
    try:
        asked = Backend(**given)
        answers = {asked.get_variable(f"forked-{number}") for _ in range(lookups)}
        return int(bool(answers - {f"value-{number}"}))
    except BaseException:
        traceback.print_exc()
        return 2
busy = [threading.Thread(target=look_up) for _ in range(threads)]
for thread in busy:
    thread.start()
running = []
for number in range(children):
    if (child := os.fork()) == 0:
        os._exit(in_child(number))
    running.append(child)
ends = [os.waitpid(child, 0)[1] for child in running]
ending.set()
for thread in busy:
    thread.join()
print(json.dumps([ends, sorted(set(seen))]))
"""


def forked(rig: GoogleRestRig, threads: int, children: int, lookups: int) -> tuple[list[int], list[str], list[str]]:
    """Fork in a process that speaks as the rig alone: what gRPC left of other tests goes through every fork, too.

    :return: how the children ended, what the parent's threads were answered, and whatever else was printed.
    """
    said = in_a_process(rig, f"threads, children, lookups = {threads}, {children}, {lookups}\n{BUSY}", cache_ttl=0)
    (result,) = (line for line in said if line.startswith("[["))
    ends, seen = json.loads(result)
    return ends, seen, [line for line in said if line != result]


@pytest.mark.parametrize("threads", [pytest.param(2, marks=pytest.mark.long), 4])
def test_8_children_forked_under_busy_threads(google: GoogleRestRig, threads: int) -> None:
    for number in range(8):
        google.put(f"airflow-variables-forked-{number}", f"value-{number}")
    ends, seen, _ = forked(google, threads, children=8, lookups=200)
    assert ends == [0] * 8  # a child that crashed has the signal's number, one that got another's value 256
    assert seen == ["x"]


def _spoken(backend: Any, results: Any) -> None:
    asked = backend.get_variable("found")
    results.put((store_of(backend.config).transport, asked))


def _said_by_a_child(backend: Any) -> tuple[str, str]:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_spoken, args=(backend, results))
    child.start()
    said: tuple[str, str] = results.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    return said


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_of_a_process_that_spoke_grpc_speaks_rest(google: GoogleRestRig) -> None:
    """Its locks are as they were, and its threads are not there."""
    backend = google.backend(timeout=30)
    assert backend.get_variable("found") == "x"
    assert _said_by_a_child(backend) == ("rest", "x")
    assert store_of(backend.config).transport == google.options()["transport"]


IN_A_NEW_PROCESS = """
import os, sys, threading
from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend as Backend
from airflow_providers_secrets.lookup.access import store_of
{before}
def child():
    backend = Backend(**{options!r})
    answers = {{backend.get_variable("found") for _ in range(50)}}
    print("child", store_of(backend.config).transport, answers, flush=True)
sys.stdout.flush()
for _ in range({children}):
    if (pid := os.fork()) == 0:
        {in_child}
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


CHANNEL_OF_OTHERS = "import grpc; channel = grpc.insecure_channel('127.0.0.1:1'); grpc.channel_ready_future(channel)"


def in_children(google: GoogleRestRig, before: str, in_child: str = "child()", children: int = 4) -> list[str]:
    """What the children of a new process say, which has done *before*."""
    options = {**google.options(), "cache_ttl": 0, "timeout": 30}
    code = IN_A_NEW_PROCESS.format(before=before, options=options, children=children, in_child=in_child)
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        # Where another thread is inside gRPC at a fork, gRPC's own handlers, or their absence, may end the child.
        if not run.returncode or not re.search(r"Check failed:|skipping fork\(\) handlers", run.stderr):
            break
    assert run.returncode == 0, run.stderr
    return [line for line in run.stdout.splitlines() if line.startswith("child")]


@over_grpc
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are told by Linux alone")
@pytest.mark.parametrize(
    ("before", "spoken"),
    [
        # No backend was built before the fork, so nobody noted whether there was one.
        pytest.param("import grpc", "rest", marks=pytest.mark.long),
        ("backend = Backend(**{options!r})  # its fork loads grpc", "grpc"),
        pytest.param(
            "import grpc, google.cloud.secretmanager_v1; backend = Backend(**{options!r})",
            "grpc",
            marks=pytest.mark.long,
        ),
        # Somebody else's channel.
        pytest.param(
            f"backend = Backend(**{{options!r}})\n{CHANNEL_OF_OTHERS}",
            "rest",
            marks=pytest.mark.long,
        ),
        # The same without a backend.
        pytest.param(CHANNEL_OF_OTHERS, "rest", marks=pytest.mark.long),
        # Our own.
        ("assert Backend(**{options!r}).get_variable('found') == 'x'", "rest"),
    ],
)
def test_children_speak_grpc_only_where_no_thread_of_it_ran_in_the_parent(
    google: GoogleRestRig, before: str, spoken: str
) -> None:
    before = before.replace("{options!r}", repr({**google.options(), "cache_ttl": 0, "timeout": 30}))
    assert in_children(google, before) == [f"child {spoken} {{'x'}}"] * 4


@over_grpc
def test_a_child_of_a_child_that_must_not_speak_grpc_must_not_either(google: GoogleRestRig) -> None:
    before = f"assert Backend(**{ ({**google.options(), 'cache_ttl': 0})!r}).get_variable('found') == 'x'"
    in_child = "pid = os.fork(); child() if pid == 0 else os.waitpid(pid, 0)"
    assert in_children(google, before, in_child, children=2) == ["child rest {'x'}"] * 2


@over_grpc
def test_where_threads_cannot_be_told_children_speak_rest(
    google: GoogleRestRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: str) -> list[str]:
        raise PermissionError

    monkeypatch.setattr(os, "listdir", unreadable)
    assert grpc_forks.is_alive()


@over_grpc
def test_no_fork_falls_into_a_call(google: GoogleRestRig) -> None:
    """There gRPC leaves its own handlers out, and says so; its threads may then crash in the child."""
    ends, seen, more = forked(google, threads=4, children=20, lookups=0)
    assert (ends, seen) == ([0] * 20, ["x"])
    assert not [line for line in more if "skipping fork() handlers" in line]


@pytest.mark.parametrize("named", ["gcp_keyfile_dict", "gcp_key_path"])
def test_what_a_fork_inherits_of_a_key_is_parsed_once_and_holds_no_token(
    google: GoogleRestRig, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(service_account_key()))
    options = {"gcp_keyfile_dict": None, "gcp_key_path": str(file)} if named == "gcp_key_path" else {}
    store = loaded_store(google.backend(**options).config)
    parsed = store._keys._last[1]
    clients = [store.connect() for _ in range(2)]
    for client in clients:
        assert store.fetch(client, "airflow-variables-found").text == "x"
        assert client.login._credentials.signer is parsed.signer
    assert clients[0].login._credentials is not clients[1].login._credentials
    assert parsed.token is None
    if named == "gcp_key_path":  # another key in the file, of the same account or another one
        file.write_text(json.dumps({**service_account_key(), "private_key_id": "rotated"}))
        assert store.connect().login._credentials.signer.key_id == "rotated"
        file.write_text(
            json.dumps({**service_account_key(), "client_email": f"other@{PROJECT}.iam.gserviceaccount.com"})
        )
        assert store.connect().login.identity().who == f"other@{PROJECT}.iam.gserviceaccount.com"


# What the SDK must not do. Each test fails without the hook that it is named after.


@over_rest
def test_sdk_without_the_session_that_is_bounded_is_named(
    google: GoogleRestRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_providers_secrets.stores.google import api

    class Changed(api.SecretManagerServiceRestTransport):  # type: ignore[name-defined,misc]
        def __getattribute__(self, name: str) -> Any:
            if name == "_session" and not sys._getframe(1).f_globals["__name__"].startswith("google."):
                raise AttributeError(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(api, "SecretManagerServiceRestTransport", Changed)
    with pytest.raises(StoreMisconfigured, match=r"google-cloud-secret-manager \d[\d.]+ has no session that can be"):
        google.backend().get_variable("found")
    assert google.server.requests == []


def test_no_retries_by_the_sdk(google: GoogleRestRig) -> None:
    with google.server.fault(google_error(503, "UNAVAILABLE")), pytest.raises(StoreUnavailable):
        google.backend(max_attempts=1).get_variable("found")
    assert len(google.calls) == 1


@over_rest
def test_a_401_is_one_request_and_one_more_with_a_new_login(google: GoogleRestRig) -> None:
    """The SDK's session would have its anonymous credentials renewed, and ask again."""
    with google.server.fault(google_error(401, "UNAUTHENTICATED")), pytest.raises(StoreMisconfigured):
        google.backend().get_variable("found")
    assert len(google.calls) == 2


def test_answer_that_is_too_long_is_not_read_to_its_end(google: GoogleRestRig) -> None:
    with google.fault("endless"), pytest.raises(InvalidSecret, match="the answer is longer than 16777216 bytes"):
        google.backend(timeout=60).get_variable("found")
    assert google.backend().get_variable("found") == "x"


@over_rest
def test_endless_answer_ends_at_the_deadline(google: GoogleRestRig, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_providers_secrets.stores.google import http

    monkeypatch.setattr(http, "MAX_ANSWER", 1 << 21)  # which takes longer, byte by byte
    monkeypatch.setattr(http, "GRACE", 60.0)  # the answer begins, however late
    store, client = connected(google.backend())
    reply = Reply(200, b" ", {"Content-Type": "application/json"}, endless=True)
    with google.server.fault(reply):
        base.deadline.set(time.monotonic() + 0.05)
        try:
            with pytest.raises(TimeoutError):
                store.fetch(client, "airflow-variables-found")
        finally:
            base.deadline.set(float("inf"))


@over_rest
def test_login_whose_answer_goes_on_ends_with_its_lookup(google: GoogleRestRig, accounts: Accounts) -> None:
    backend = by_token(google, accounts, timeout=0.5, cache_ttl=0, **ONE_TRY)
    with accounts.fault(DRIP):
        with pytest.raises(StoreUnavailable, match="no answer within"):
            backend.get_variable("found")
        assert not hanging()
        assert len(accounts.requests) == 1


@over_rest
@pytest.mark.long
@pytest.mark.parametrize("path", ["/", "/computeMetadata/v1/project/project-id", "token"])
def test_metadata_server_whose_answer_goes_on_is_left_with_the_lookup(
    google: GoogleRestRig, accounts: Accounts, path: str
) -> None:
    """In a new process, since google-auth reads its address when it is imported."""
    code = (
        "from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend\n"
        "from airflow_providers_secrets.errors import StoreUnavailable\n"
        "from airflow_providers_secrets.testing.lookups import hanging\n"
        "try:\n"
        "    CloudSecretManagerBackend(transport='rest', timeout=2, max_attempts=1).get_variable('found')\n"
        "except StoreUnavailable as error:\n"
        "    print('told', 'no answer within' in str(error), hanging())\n"
    )
    host = f"127.0.0.1:{accounts.port}"
    with accounts.fault(lambda request: DRIP if urlsplit(request.path).path.endswith(path) else None):
        run = run_python(code, GCE_METADATA_HOST=host, GCE_METADATA_IP=host)
    assert "told True []" in run.stdout, run.stdout + run.stderr
    (asked,) = (one for one in accounts.asked if one.endswith(path))
    assert accounts.asked[-1] == asked


@over_rest
def test_login_follows_no_redirect_and_reads_no_netrc(
    google: GoogleRestRig, accounts: Accounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password S3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert by_token(google, accounts).get_variable("found") == "x"
    assert header(accounts.requests[0], "authorization") == ""
    before = len(google.elsewhere.requests)
    with accounts.fault(Reply(307, headers={"Location": f"{google.elsewhere.url}/token"})):
        with pytest.raises((StoreMisconfigured, StoreUnavailable)):
            by_token(google, accounts, max_attempts=1).get_variable("found")
    assert len(google.elsewhere.requests) == before


@over_rest
def test_compressed_answer_is_not_asked_for(google: GoogleRestRig, accounts: Accounts) -> None:
    """A small one could grow without bound."""
    asked = len(google.server.requests)
    assert by_token(google, accounts).get_variable("found") == "x"
    sent = [*accounts.requests, *google.server.requests[asked:]]
    assert {header(request, "accept-encoding") for request in sent} == {"identity"}
    assert len(sent) == 1 + len(accounts.requests)


def test_login_starts_no_thread(google: GoogleRestRig, accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer google-auth can ask by one where an account may be used from; a fork might fall into it."""
    variable = "GOOGLE_SDK_EXPERIMENTAL_PYTHON_REGIONAL_ACCESS_BOUNDARY_LOOKUP_ENABLED"
    monkeypatch.setenv(variable, "true")
    begun: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        begun.append(type(thread).__module__)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    assert google.backend().get_variable("found") == "x"
    assert by_token(google, accounts).get_variable("found") == "x"
    assert not [module for module in begun if module.startswith("google.")]


@over_rest
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundle_that_cannot_be_read_is_named(
    google: GoogleRestRig, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, "/nowhere/ca.pem")
    with pytest.raises(StoreMisconfigured, match=rf"{variable}: the CA bundle cannot be read \(FileNotFoundError\)"):
        google.backend().get_variable("found")


def test_certificate_of_an_authority_that_nobody_trusts(
    google: GoogleRestRig,
    internet: Internet,
    accounts: Accounts,
    cloud: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    if google.name == "google-grpc":
        monkeypatch.setenv("grpc_proxy", cloud["grpc_proxy"])
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        google.backend(endpoint=None).get_variable("found")
    assert accounts.requests == google.server.requests == []


def test_certificate_of_a_token_endpoint_that_nobody_trusts(
    google: GoogleRestRig, accounts: Accounts, behind_tls: BehindTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.put("airflow-variables-found", "x")
    url, bundle = behind_tls(accounts.port)
    told = {**accounts.federation(), "token_url": f"{url}/v1/token"}
    backend = by_token(google, accounts, gcp_credential_config_file=told, cache_ttl=0)
    with pytest.raises(StoreMisconfigured, match=r"CERTIFICATE_VERIFY_FAILED: .*REQUESTS_CA_BUNDLE") as raised:
        backend.get_variable("found")
    assert raised.value.on_the_way
    assert accounts.requests == google.server.requests == []
    answers.reset_after_fork()  # as a process that has just started
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    assert by_token(google, accounts, gcp_credential_config_file=told, cache_ttl=0).get_variable("found") == "x"


def test_what_the_sdk_logs_at_debug_holds_no_value(google: GoogleRestRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests and answers, where GOOGLE_SDK_PYTHON_LOGGING_SCOPE or a level of logging asks for them."""
    google.put("airflow-variables-found", "S3cr3t")
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", logged.append)
    logger = logging.getLogger("google")
    monkeypatch.setattr(logger, "handlers", [handler])
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        assert google.backend().get_variable("found") == "S3cr3t"
    finally:
        logger.setLevel(level)
    told = "".join(repr(vars(record)) for record in logged)
    assert "S3cr3t" not in told
    assert base64.b64encode(b"S3cr3t").decode() not in told


@pytest.mark.parametrize(
    "reason",
    ["FORGED\nWARNING: all is well", "\x1b[31mRED", "X" * 5000, "lower", "", 5, None, ["X"]],
    ids=lambda given: repr(given)[:20],
)
def test_reason_that_is_none_is_not_shown(google: GoogleRestRig, reason: Any) -> None:
    details = [{"@type": ERROR_INFO, "reason": reason}]
    if google.name == "google-grpc" and not isinstance(reason, str):
        details = []
    with google.server.fault(google_error(403, "PERMISSION_DENIED", details=details)):
        with pytest.raises((AccessDenied, StoreUnavailable)) as raised:
            google.backend(max_attempts=1).get_variable("found")
    shown = str(raised.value)
    assert shown.isprintable()
    assert len(shown) < 500
    if isinstance(reason, str):
        assert ": PERMISSION_DENIED. " in shown


@over_rest
@pytest.mark.parametrize(
    "status", ["NOT_FOUND\nx", "x" * 5000, 5, None, "not_found", {}], ids=lambda given: repr(given)[:20]
)
def test_status_that_is_none_of_google_proves_nothing(google: GoogleRestRig, status: Any) -> None:
    with google.server.fault(google_error(404, status)), pytest.raises(StoreUnavailable, match="HTTP 404"):
        google.backend(max_attempts=1).get_variable("found")


@pytest.mark.parametrize("text", ["Connection refused", "Connection reset by peer", "DNS resolution failed"])
def test_what_a_refusal_quotes_is_no_failure_of_the_connection(google: GoogleRestRig, text: str) -> None:
    """It may come from a server behind Google, such as an external key manager."""
    with google.server.fault(google_error(403, "PERMISSION_DENIED", f"external key manager: {text}")):
        with pytest.raises(AccessDenied) as raised:
            google.backend(max_attempts=1).get_variable("found")
    assert raised.value.code == "PERMISSION_DENIED"


@over_grpc
def test_details_that_nobody_can_read_leave_the_error(google: GoogleRestRig) -> None:
    with google.server.fault(google_error(403, "PERMISSION_DENIED", details="S3cr3t")):
        with pytest.raises(AccessDenied, match="PERMISSION_DENIED") as raised:
            google.backend(max_attempts=1).get_variable("found")
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("SERVICE_DISABLED", "Enable the Secret Manager API"),
        ("USER_PROJECT_DENIED", "serviceUsageConsumer"),
        ("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "into gcp_scopes"),
        ("BILLING_DISABLED", "Enable billing"),
        ("CONSUMER_INVALID", "Fix project_id"),
        ("IAM_PERMISSION_DENIED", "roles/secretmanager.secretAccessor"),
    ],
)
def test_one_cure_for_a_code(google: GoogleRestRig, reason: str, cure: str) -> None:
    reply = google_error(403, "PERMISSION_DENIED", details=[{"@type": ERROR_INFO, "reason": reason}])
    with google.server.fault(reply), pytest.raises((AccessDenied, StoreMisconfigured), match=cure):
        google.backend(max_attempts=1).get_variable("found")


# Writing.


def test_write_creates_then_adds_versions(google: GoogleRestRig) -> None:
    store, client = connected(google.backend())
    name, resource = "airflow-variables-new", google.resource("airflow-variables-new")
    first, second = (store.write(client, name, text) for text in ("ä", "second"))
    assert [first.created, first.version, second.created, second.version] == [True, "1", False, "2"]
    assert [version.data.decode() for version in google.server.secrets[resource]] == ["ä", "second"]
    assert list(google.server.created[resource]["replication"]) == ["automatic"]
    assert google.backend().get_variable("new") == "second"


@pytest.mark.parametrize("answered", ["secrets/another/versions/2", "secrets/airflow-variables-found", ""])
def test_write_that_is_answered_for_another_name_is_no_success(google: GoogleRestRig, answered: str) -> None:
    store, client = connected(google.backend())
    reply = google_answer({"name": f"projects/{PROJECT_NUMBER}/{answered}", "state": "ENABLED"})
    with google.server.fault(lambda request: reply if ":addVersion" in request.path else None):
        with pytest.raises(StoreError, match="the answer is for another secret"):
            store.write(client, "airflow-variables-found", "y")


def test_locations_of_a_new_secret(google: GoogleRestRig) -> None:
    store, client = connected(google.backend())
    store.write(client, "airflow-variables-new", "x", settings={"locations": "europe-west1, europe-west4"})
    replicas = google.server.created[google.resource("airflow-variables-new")]["replication"]["userManaged"]["replicas"]
    assert [replica["location"] for replica in replicas] == ["europe-west1", "europe-west4"]


def test_regional_secret_has_no_replication(google: GoogleRestRig) -> None:
    backend = google.backend(location="europe-west4")
    store, client = connected(backend)
    assert store.write(client, "airflow-variables-new", "x").created
    assert backend.get_variable("new") == "x"
    assert google.backend().get_variable("new") is None


def test_only_if_absent(google: GoogleRestRig) -> None:
    store, client = connected(google.backend())
    with pytest.raises(StoreError) as raised:
        store.write(client, "airflow-variables-found", "y", only_if_absent=True)
    assert raised.value.codes == (EXISTS,)
    assert google.backend().get_variable("found") == "x"
    assert store.write(client, "airflow-variables-new", "y", only_if_absent=True).created
    # Without a version, lookups call it absent.
    google.server.put(google.resource("airflow-variables-empty"))
    assert not store.write(client, "airflow-variables-empty", "y", only_if_absent=True).created
    assert google.backend().get_variable("empty") == "y"


def test_delete(google: GoogleRestRig) -> None:
    store, client = connected(google.backend())
    store.delete(client, "airflow-variables-found")
    assert google.backend().get_variable("found") is None
    with pytest.raises(Exception) as raised:
        store.delete(client, "airflow-variables-found")
    assert "NOT_FOUND" in store.codes(raised.value)


def test_identity(google: GoogleRestRig, accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(backend: Any) -> Any:
        store, client = connected(backend)
        return store.identify(client)

    by_key = identity(google.backend())
    assert by_key.who == f"airflow@{PROJECT}.iam.gserviceaccount.com"
    assert by_key.details["project from"] == "the credentials"
    assert by_key.details["credentials"] == "service account"
    federated = identity(by_token(google, accounts))
    assert federated.who.startswith("a federated identity of //iam.googleapis.com/projects/")
    assert federated.details["project from"] == "option project_id"
    assert federated.details["credentials"] == "identity pool"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    assert identity(anonymous(google)).who.startswith("nobody")


@pytest.mark.usefixtures("internet")
def test_identity_of_a_user_is_the_account_that_the_file_names(google: GoogleRestRig, accounts: Accounts) -> None:
    for user, who in ({"account": "ada@example.com"}, "ada@example.com"), ({}, "a user without a name"):
        configuration = {**accounts.authorized_user(), **user}
        store, client = connected(by_token(google, accounts, gcp_credential_config_file=configuration))
        assert store.identify(client).who == who


def test_a_machine_whose_account_is_not_known_is_not_called_default(google: GoogleRestRig, accounts: Accounts) -> None:
    from google.auth.credentials import TokenState

    class OfAMachine:
        """As google-auth has them until the metadata server has told the account."""

        service_account_email = "default"
        token_state = TokenState.FRESH

        def apply(self, _: object) -> None: ...

    login = store_of(by_token(google, accounts).config).connect().login
    login._credentials = OfAMachine()
    assert login.identity().who == "a user without a name"


# Listings.


def listed(rig: GoogleRestRig, base: str, **options: Any) -> list[str]:
    """The names that a backend finds under *base*."""
    asked = rig.backend(**options)
    store, client = connected(asked)
    return [found.name for found in store.listing(client, asked.name_start(base))]


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
    store, client = connected(google.backend())
    going = store.listing(client, "airflow-variables-")
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
    store, client = connected(google.backend())
    going = store.listing(client, "airflow-variables-")
    with (
        google.server.fault(lambda request: reply if "pageToken=3" in request.path else None),
        pytest.raises(Exception) as raised,
    ):
        list(going)
    assert {"INTERNAL", "NOT_FOUND", "malformed answer"} & set(store.codes(raised.value))


@pytest.mark.usefixtures("small_pages")
def test_tokens_that_take_turns_are_an_endless_listing(google: GoogleRestRig) -> None:
    store, client = connected(google.backend())

    def two_pages(request: Request) -> Reply:
        told = parse_qs(urlsplit(request.path).query).get("pageToken", ["a"])[0]
        return google_answer({"secrets": [], "nextPageToken": "b" if told == "a" else "a"})

    with google.server.fault(two_pages), pytest.raises(StoreError, match="does not end"):
        list(store.listing(client, "airflow-variables-"))


def test_listing_tells_when_a_secret_was_created(google: GoogleRestRig) -> None:
    store, client = connected(google.backend())
    (found,) = store.listing(client, "airflow-variables-found")
    assert found.changed.isoformat() == "2026-03-04T05:06:07.000008+00:00"
    assert found.version is None
