"""What the AWS stores read, send and wait for: bounded answers, one host, no ~/.netrc, no lock that others need."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore
import pytest
import trustme
from botocore.loaders import JSONFileLoader
from google.auth import impersonated_credentials

from airflow_providers_secrets.errors import (
    ConfigurationError,
    InvalidSecret,
    LookupFailed,
    MissingDependencyError,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import answers, resolve
from airflow_providers_secrets.lookup.access import loaded_store
from airflow_providers_secrets.lookup.shared_answers import SharedAnswers
from airflow_providers_secrets.stores.aws import loader, transport
from airflow_providers_secrets.stores.base import deadline, seconds_left
from airflow_providers_secrets.testing.lookups import DRIP, ONE_TRY, Waits, hanging
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from airflow_providers_secrets.testing.tls import TlsFront
from tests.rigs.aws import CREDENTIALS, REGION, AwsRig, aws_error, moto_url
from tests.rigs.google import service_account_key
from tests.support.authority import Authority
from tests.support.ports import free_port
from tests.support.servers import BehindTls

ROLE = "arn:aws:iam::123456789012:role/airflow"
WEB_IDENTITY = {
    "role_arn": ROLE,
    "assume_role_method": "assume_role_with_web_identity",
    "assume_role_with_web_identity_federation": "google",
    "assume_role_with_web_identity_federation_audience": "sts.example.com",
}


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Google's token endpoint, and a service account whose key is in the environment."""
    proxy = Proxy()
    (tmp_path / "key.json").write_text(json.dumps(service_account_key(f"{proxy.url}/token")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    part = base64.urlsafe_b64encode(json.dumps({"exp": 4102444800}).encode()).rstrip(b"=").decode()
    body = json.dumps({"id_token": f"{part}.{part}.{part}"}).encode()
    with proxy.fault(Reply(200, body, {"Content-Type": "application/json"})):
        yield proxy
    proxy.stop()


def by_google(aws: AwsRig, sts: Proxy) -> dict[str, Any]:
    return {
        "endpoint_url": aws.proxy.url,
        "region_name": REGION,
        "service_config": {"sts": {"endpoint_url": sts.url}},
        **WEB_IDENTITY,
    }


# What is read.


def test_truncated_answer_is_a_fault_of_the_way_and_asked_again(aws: AwsRig) -> None:
    with aws.fault("truncated"), aws.counted() as calls, pytest.raises(StoreUnavailable):
        aws.backend(max_attempts=2).get_variable("x")
    assert len(calls) == 2


def test_undecodable_answer_is_invalid(aws: AwsRig) -> None:
    with aws.fault("undecodable"), aws.counted() as calls, pytest.raises(InvalidSecret, match="not UTF-8") as raised:
        aws.backend().get_variable("x")
    assert len(calls) == 1
    assert "S3cr3t" not in str(raised.value)


def test_undecodable_page_of_a_proxy_has_its_status_for_a_code(aws: AwsRig) -> None:
    page = Reply(503, b"<html>\xff</html>", {"Content-Type": "text/html"})
    with aws.proxy.fault(page), pytest.raises(StoreUnavailable, match="HTTP 503"):
        aws.backend(max_attempts=1).get_variable("x")


def test_endless_answer_is_left(aws: AwsRig) -> None:
    with aws.fault("endless"), pytest.raises(InvalidSecret, match=f"longer than {transport.MAX_ANSWER_BYTES} bytes"):
        aws.backend(timeout=60).get_variable("x")
    aws.put(aws.path("variables", "after"), "x")
    assert aws.backend(timeout=60).get_variable("after") == "x"


def test_an_answer_is_read_no_longer_than_somebody_waits(aws: AwsRig) -> None:
    store = loaded_store(aws.backend().config)
    client = store.connect()
    token = deadline.set(time.monotonic() + 0.3)
    try:
        with aws.fault("drip"), pytest.raises(TimeoutError):  # it would drip for seconds
            store.fetch(client, aws.path("variables", "x"))
    finally:
        deadline.reset(token)


def test_answers_of_sts_are_bounded_too(aws: AwsRig, sts: Proxy) -> None:
    endless = Reply(200, b" " * 65536, {"Content-Type": "text/xml"}, endless=True)
    backend = aws.backend(role_arn=ROLE, service_config={"sts": {"endpoint_url": sts.url}}, timeout=60)
    with sts.fault(endless), pytest.raises(InvalidSecret, match="longer than"):
        backend.get_variable("x")


def test_answers_to_a_role_of_a_profile_are_bounded_too(
    aws: AwsRig, sts: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client of STS is made by botocore's own chain of credentials."""
    (tmp_path / "config").write_text(
        "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n"
        f"[profile ours]\nrole_arn = {ROLE}\nsource_profile = base\nregion = {REGION}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
    endless = Reply(200, b" " * 65536, {"Content-Type": "text/xml"}, endless=True)
    backend = aws.backend_class(profile_name="ours", endpoint_url=aws.proxy.url, timeout=60)
    with sts.fault(endless), pytest.raises(InvalidSecret, match="longer than"):
        backend.get_variable("x")


def test_certificate_of_googles_token_endpoint_that_nobody_trusts(
    aws: AwsRig, sts: Proxy, google: Proxy, behind_tls: BehindTls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, bundle = behind_tls(google.port)
    (tmp_path / "key.json").write_text(json.dumps(service_account_key(f"{url}/token")))
    backend = aws.backend_class(**by_google(aws, sts), max_attempts=1, cache_ttl=0)
    with pytest.raises(
        StoreMisconfigured, match=r"CERTIFICATE_VERIFY_FAILED.*Google's in REQUESTS_CA_BUNDLE\."
    ) as raised:
        backend.get_variable("x")
    assert raised.value.on_the_way
    assert google.requests == []
    answers.reset_after_fork()  # as a process that has just started
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    aws.put(aws.path("variables", "by-google"), "x")
    assert backend.get_variable("by-google") == "x"
    assert len(google.requests) == 1


def test_answers_of_googles_token_endpoint_are_bounded_too(aws: AwsRig, sts: Proxy, google: Proxy) -> None:
    endless = Reply(200, b" " * 65536, {"Content-Type": "application/json"}, endless=True)
    backend = aws.backend_class(**by_google(aws, sts), timeout=60, max_attempts=1)
    with google.fault(endless), pytest.raises(StoreUnavailable, match=r"Google login unavailable .*longer than"):
        backend.get_variable("x")


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        *(
            (status, StoreMisconfigured, rf"Google login refused \(HTTP {status}\).*Google")
            for status in (400, 401, 403)
        ),
        (502, StoreUnavailable, r"Google login unavailable \(HTTP 502\)"),
    ],
)
def test_what_googles_token_endpoint_answers(
    aws: AwsRig, sts: Proxy, google: Proxy, status: int, error: type[LookupFailed], told: str
) -> None:
    backend = aws.backend_class(**by_google(aws, sts), max_attempts=1)
    body = json.dumps({"error": "invalid_grant", "error_description": "S3cr3t"}).encode()
    with (
        google.fault(Reply(status, body, {"Content-Type": "application/json"})),
        pytest.raises(error, match=told) as raised,
    ):
        backend.get_variable("x")
    assert "S3cr3t" not in str(raised.value)
    assert sts.requests == []


@pytest.mark.usefixtures("pauses")
@pytest.mark.skipif(
    not hasattr(impersonated_credentials.Credentials, "from_impersonated_service_account_info"),
    reason="this google-auth gives no ID token of an impersonated account",
)
def test_an_impersonated_account_whose_issuer_is_away(
    aws: AwsRig, sts: Proxy, google: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for again with a token of its source that still counts, and so without one more request for that."""
    account = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": "https://iam.example.com/serviceAccounts/a@b.example:generateAccessToken",
        "source_credentials": service_account_key(f"{google.url}/token"),
    }
    (tmp_path / "key.json").write_text(json.dumps(account))
    port = free_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    told = rf"Google login unavailable: connection refused \(127\.0\.0\.1 port {port}\)"
    backend = aws.backend_class(**by_google(aws, sts), max_attempts=2, cache_ttl=0)
    body = json.dumps({"access_token": "S3cr3t", "expires_in": 3600}).encode()
    with (
        google.fault(Reply(200, body, {"Content-Type": "application/json"})),
        pytest.raises(StoreUnavailable, match=told) as raised,
    ):
        backend.get_variable("x")
    assert "S3cr3t" not in str(raised.value)
    assert len(google.requests) == 1


def test_a_botocore_that_cannot_be_bounded_is_named_by_its_version() -> None:
    with pytest.raises(ConfigurationError, match=rf"botocore {botocore.__version__} has no 'http_session'"):
        transport.bound_answers(object())


@pytest.fixture
def encrypted(aws: AwsRig, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Options for the store behind TLS, and a bundle that its authority is in."""
    authority = Authority(tmp_path)
    front = TlsFront(authority.issue("127.0.0.1"), aws.proxy.port)
    yield {"endpoint_url": f"https://127.0.0.1:{front.ports[0]}", "verify": str(authority.bundle)}
    front.stop()


def test_certificates_are_read_once_for_all_children(
    aws: AwsRig, encrypted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore by itself reads those of all authorities for each connection."""
    read = []
    load = ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *args, **kwargs: read.append(kwargs) or load(*args, **kwargs)
    )
    aws.put(aws.path("variables", "encrypted"), "x")
    resolve.prepare(aws.backend(**encrypted).config)
    assert read == [{"cafile": encrypted["verify"]}]
    for _ in range(2):
        answers.reset_after_fork()
        assert aws.backend(**encrypted).get_variable("encrypted") == "x"
    assert len(read) == 1
    resolve.prepare(aws.backend().config)  # without TLS
    assert len(read) == 1


def test_certificates_that_are_replaced_count_for_the_next_connection(aws: AwsRig, encrypted: dict[str, Any]) -> None:
    aws.put(aws.path("variables", "encrypted"), "x")
    bundle = Path(encrypted["verify"])
    right = bundle.read_bytes()
    trustme.CA().cert_pem.write_to_path(str(bundle))
    backend = aws.backend(**encrypted, max_attempts=1)
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        backend.get_variable("encrypted")
    bundle.write_bytes(right)
    assert backend.get_variable("encrypted") == "x"
    bundle.write_text("no certificate")
    answers.reset_after_fork()
    with pytest.raises(StoreMisconfigured, match="cannot be read"):
        backend.get_variable("encrypted")


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_certificate_that_is_not_verified_may_be_anybodys(aws: AwsRig, encrypted: dict[str, Any]) -> None:
    aws.put(aws.path("variables", "encrypted"), "x")
    assert aws.backend(**{**encrypted, "verify": False}).get_variable("encrypted") == "x"
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        aws.backend(**{**encrypted, "verify": None}).get_variable("encrypted")


def test_nothing_of_an_error_is_chained_after_an_expired_token(aws: AwsRig) -> None:
    with aws.proxy.fault(aws_error("ExpiredTokenException")), pytest.raises(StoreMisconfigured) as raised:
        aws.backend().get_variable("x")
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    assert str(raised.value).endswith(
        "Replace the session token, or use credentials that are renewed by themselves (a role, a profile)."
    )


# Whom it is sent to.


def test_redirect_is_not_followed(aws: AwsRig) -> None:
    with aws.fault("redirect"), pytest.raises(StoreMisconfigured, match=r"HTTP 307.*endpoint_url"):
        aws.backend().get_variable("x")
    assert aws.elsewhere.requests == []


def test_redirect_of_sts_is_not_followed(aws: AwsRig, sts: Proxy) -> None:
    redirect = Reply(307, headers={"Location": f"{aws.elsewhere.url}/stolen"})
    backend = aws.backend(role_arn=ROLE, service_config={"sts": {"endpoint_url": sts.url}})
    with sts.fault(redirect), pytest.raises(LookupFailed):
        backend.get_variable("x")
    assert aws.elsewhere.requests == []


def test_redirect_of_googles_token_endpoint_is_not_followed(aws: AwsRig, sts: Proxy, google: Proxy) -> None:
    backend = aws.backend_class(**by_google(aws, sts), max_attempts=1)
    redirect = Reply(307, headers={"Location": f"{aws.elsewhere.url}/stolen"})
    with google.fault(redirect), pytest.raises(LookupFailed):
        backend.get_variable("x")
    assert aws.elsewhere.requests == []


def test_netrc_is_not_sent(
    aws: AwsRig, sts: Proxy, google: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login netrc-user password S3cr3t\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    aws.backend_class(**by_google(aws, sts)).get_variable("x")
    for proxy in (aws.proxy, sts, google):
        assert proxy.requests
        assert not proxy.requests[-1].headers.get("Authorization", "").startswith("Basic")
    assert aws.proxy.requests[-1].headers["Authorization"].startswith("AWS4-HMAC-SHA256")


# Whose login it is.


def test_web_identity_by_google_needs_the_google_extra(
    aws: AwsRig, sts: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.oauth2.id_token", None)
    with pytest.raises(MissingDependencyError, match=r"airflow-providers-secrets\[google\]"):
        aws.backend_class(**by_google(aws, sts)).get_variable("x")
    assert "google.oauth2.id_token" not in loaded_store(aws.backend().config).imports()


@pytest.mark.parametrize(
    ("variable", "counts"),
    [("AWS_PROFILE", (True, True)), ("GOOGLE_APPLICATION_CREDENTIALS", (False, True)), ("CLOUDSDK_CONFIG", (False, True)),
     ("GCE_METADATA_HOST", (False, True)), ("EDITOR", (False, False))],
)  # fmt: skip
def test_whose_environment_another_identity_is_told_by(
    aws: AwsRig, sts: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str, counts: tuple[bool, bool]
) -> None:
    for options, counted in zip((aws.options(), by_google(aws, sts)), counts, strict=True):
        answers = SharedAnswers(aws.backend_class(**options).config)
        identities = set()
        for value in ("one", "two"):
            monkeypatch.setenv(variable, value)
            identities.add(answers._identity())
        assert len(identities) == (2 if counted else 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("role", "counts"),
    [({"aws_account_id": "123456789012", "aws_iam_role": "airflow"}, True), ({}, False)],
    ids=["old options", "no role"],
)
def test_googles_environment_counts_where_a_role_is_assumed_by_its_token(
    aws: AwsRig, sts: Proxy, monkeypatch: pytest.MonkeyPatch, role: dict[str, str], counts: bool
) -> None:
    """Also one that options of old name."""
    config = aws.backend_class(**{**by_google(aws, sts), "role_arn": None, **role}).config
    identities = set()
    for value in ("one", "two"):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", value)
        identities.add(SharedAnswers(config)._identity())
    assert len(identities) == (2 if counts else 1)
    assert ("google.oauth2.id_token" in loaded_store(config).imports()) == counts


@pytest.mark.each_rig_in_ci
@pytest.mark.parametrize("way", ["role", pytest.param("google", marks=pytest.mark.long)])
def test_a_fork_waits_for_whatever_a_login_imports(aws: AwsRig, sts: Proxy, google: Proxy, way: str) -> None:
    options = by_google(aws, sts) if way == "google" else {**by_google(aws, sts), "assume_role_method": "assume_role"}
    if way == "role":
        options |= CREDENTIALS
    module, _, name = aws.class_path.rpartition(".")
    code = (
        "import sys, airflow.configuration\n"
        f"from {module} import {name} as Backend\n"
        "from airflow_providers_secrets.lookup import forks\n"
        "class Watch:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        None if forks.holds_forks() else free.append(name)\n"
        "free = []\n"
        f"backend = Backend(**{options!r})\n"
        "sys.meta_path.insert(0, Watch)\n"
        "print(backend.get_variable('absent'), free)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.stdout.splitlines()[-1:] == ["None []"], run.stdout + run.stderr
    assert sts.requests


# What others wait for.


def test_credentials_that_never_come_hold_up_nobody_else(
    aws: AwsRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: Waits
) -> None:
    """A container's credentials endpoint that hangs, as seen by another backend."""
    endpoint = Proxy()
    for file in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(file, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint.url}/credentials")
    aws.put(aws.path("variables", "found"), "x")
    healthy = aws.backend()
    assert healthy.get_variable("found") == "x"
    hanging = aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION, timeout=60, cache_ttl=0)
    answered: list[str | None] = []
    given = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "S3cr3t", "Token": "t"}
    credentials = Reply(200, json.dumps({**given, "Expiration": "2999-01-01T00:00:00Z"}).encode())

    with endpoint.fault(Reply(hang=True)):
        thread = threading.Thread(target=lambda: answered.append(hanging.get_variable("found")))
        thread.start()
        while not endpoint.requests:
            os.sched_yield()
        assert healthy.get_variable("found") == "x"
        waits.shortened = lambda _: 0.3
        with pytest.raises(StoreUnavailable, match="no answer within"):  # the next one has its own deadline
            hanging.get_variable("found")
        assert not answered  # it hangs still
        endpoint.reply = lambda _: credentials  # type: ignore[method-assign]
    thread.join(60)
    assert answered == ["x"]
    endpoint.stop()


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """What a container and a host ask for credentials."""
    service = Proxy()
    for file in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(file, str(tmp_path / "none"))
    yield service
    service.stop()


@pytest.mark.parametrize("of_host", [False, True], ids=["container", "host"])
def test_endless_credentials_are_left(
    aws: AwsRig, metadata: Proxy, monkeypatch: pytest.MonkeyPatch, of_host: bool
) -> None:
    if of_host:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/credentials")
    backend = aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION, timeout=60, cache_ttl=0)
    endless = Reply(200, b" " * 4096, {"Content-Type": "application/json"}, endless=True)
    with (
        metadata.fault(endless),
        pytest.raises(InvalidSecret, match=f"longer than {transport.MAX_METADATA_BYTES} bytes"),
    ):
        backend.get_variable("found")


@pytest.mark.parametrize("status", [400, 401, 403])
def test_container_that_is_refused_its_credentials(
    aws: AwsRig, metadata: Proxy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """As EKS Pod Identity and ECS refuse a token that they do not know; botocore would ask two more times."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/credentials")
    backend = aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION, cache_ttl=0)
    with (
        metadata.fault(Reply(status, b"S3cr3t")),
        pytest.raises(StoreMisconfigured, match=rf"refused with HTTP {status}.*AWS_CONTAINER_") as raised,
    ):
        backend.get_variable("x")
    assert "S3cr3t" not in str(raised.value)
    assert len(metadata.requests) == 1


def test_container_whose_credentials_are_not_to_be_had_now(
    aws: AwsRig, metadata: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/credentials")
    backend = aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION, cache_ttl=0, max_attempts=1)
    with metadata.fault(Reply(429)), pytest.raises(StoreUnavailable):
        backend.get_variable("x")


@pytest.mark.parametrize("asked", ["container", "host", "sts"])
def test_login_whose_answer_goes_on_ends_with_its_lookup(
    aws: AwsRig, metadata: Proxy, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    options: dict[str, Any] = {"endpoint_url": aws.proxy.url, "region_name": REGION}
    if asked == "container":
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/credentials")
    elif asked == "host":
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
    else:
        options |= {**CREDENTIALS, "role_arn": ROLE, "service_config": {"sts": {"endpoint_url": metadata.url}}}
    backend = aws.backend_class(**options, timeout=0.5, cache_ttl=0, **ONE_TRY)
    with metadata.fault(DRIP):
        with pytest.raises(StoreUnavailable, match="no answer within"):
            backend.get_variable("found")
        assert not hanging()
        assert len(metadata.requests) == 1  # botocore itself would ask a container's endpoint three times


def test_credentials_of_a_container_and_a_host(aws: AwsRig, metadata: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are read as ever."""
    aws.put(aws.path("variables", "found"), "x")
    given = {
        "AccessKeyId": "AKIDEXAMPLE",
        "SecretAccessKey": "S3cr3t",
        "Token": "t",
        "Expiration": "2999-01-01T00:00:00Z",
        "Code": "Success",
    }

    def answer(request: Request) -> Reply:
        body = b"airflow" if request.path.endswith("/security-credentials/") else json.dumps(given).encode()
        return Reply(200, b"token" if request.path.endswith("/api/token") else body)

    options = {"endpoint_url": aws.proxy.url, "region_name": REGION, "timeout": 60, "cache_ttl": 0}
    with metadata.fault(answer):
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        assert aws.backend_class(**options).get_variable("found") == "x"
        assert metadata.requests[-1].path.endswith("/security-credentials/airflow")
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/credentials")
        answers.reset_after_fork()
        assert aws.backend_class(**options, use_ssl=False).get_variable("found") == "x"
        assert metadata.requests[-1].path == "/credentials"


# Data files.


def test_clients_share_one_loader_that_none_of_them_changes(aws: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    store = loaded_store(aws.backend().config)
    paths = loader.loader_for(None).search_paths
    models = json.dumps(loader.loader_for(None).load_service_model(aws.service, "service-2"))
    for _ in range(2):
        store.connect()
    assert loader.loader_for(None).search_paths == paths
    assert json.dumps(loader.loader_for(None).load_service_model(aws.service, "service-2")) == models
    read: list[str] = []
    monkeypatch.setattr(JSONFileLoader, "load_file", lambda _, path: read.append(path))
    store.connect()
    assert read == []


def test_a_loader_does_not_keep_the_operations_that_nobody_calls() -> None:
    lean = loader.LeanLoader()
    model = lean.load_service_model("ssm", "service-2")
    assert "GetParameter" in model["operations"]
    assert "CreateDocument" not in repr(vars(lean))


def test_data_of_ones_own_is_searched_first(aws: AwsRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partitions = loader.loader_for(None).load_data("partitions")
    (tmp_path / "partitions.json").write_text(json.dumps({**partitions, "mark": "ours"}))
    monkeypatch.setenv("AWS_DATA_PATH", f"{tmp_path}{os.pathsep}/nowhere")
    loaded_store(aws.backend().config)
    assert loader.loader_for(os.environ["AWS_DATA_PATH"]).load_data("partitions")["mark"] == "ours"
    aws.put(aws.path("variables", "found"), "x")
    assert aws.backend().get_variable("found") == "x"


@pytest.fixture(params=[False, True], ids=["profile", "source-profile"])
def process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A profile whose credentials a Python program prints, or a role that such a profile assumes."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_url())
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    def printing(program: str) -> dict[str, Any]:
        (tmp_path / "program.py").write_text(program)
        role = f"role_arn = {ROLE}\nsource_profile = printing\nregion = {REGION}\n" if request.param else ""
        command = f"credential_process = {sys.executable} -I {tmp_path / 'program.py'}\n"
        (tmp_path / "config").write_text(f"[profile printing]\n{command}[profile assuming]\n{role}")
        return {"profile_name": "assuming" if request.param else "printing"}

    return printing


def test_endless_output_of_a_command_is_left(aws: AwsRig, process: Any, tmp_path: Path) -> None:
    program = f"""
import os, pathlib
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
while True:
    os.write(1, b" " * 4096)
"""
    backend = aws.backend_class(
        endpoint_url=aws.proxy.url, region_name=REGION, timeout=60, cache_ttl=0, **process(program)
    )
    with pytest.raises(InvalidSecret, match=f"prints more than {transport.MAX_METADATA_BYTES} bytes"):
        backend.get_variable("found")
    with pytest.raises(ProcessLookupError):  # killed, and waited for
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_command_that_hangs_ends_with_the_lookup(aws: AwsRig, process: Any, tmp_path: Path) -> None:
    """It holds the other end of a pipe, which is closed once it is gone."""
    os.mkfifo(tmp_path / "alive")
    program = (
        f"import signal\nheld = open({str(tmp_path / 'alive')!r}, 'w')\nheld.write('!')\nheld.flush()\nsignal.pause()\n"
    )
    options = process(program)
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    for timeout in (2.0, 20.0, 60.0):
        backend = aws.backend_class(
            endpoint_url=aws.proxy.url, region_name=REGION, timeout=timeout, cache_ttl=0, **options
        )
        with pytest.raises(StoreUnavailable, match=f"no answer within {timeout:g} s"):
            backend.get_variable("found")
        if started := os.read(alive, 2):  # on a slow machine, not before the deadline
            break
    os.set_blocking(alive, True)
    assert [started, os.read(alive, 2)] == [b"!", b""]
    os.close(alive)


def test_command_is_waited_for_where_nothing_has_a_deadline(aws: AwsRig, process: Any) -> None:
    """Outside of a lookup."""
    aws.put(aws.path("variables", "found"), "x")
    given = {"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "S3cr3t"}
    options = process(f"print({json.dumps(given)!r})\n")
    store = loaded_store(aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION, **options).config)
    assert seconds_left() == float("inf")
    assert store.fetch(store.connect(), aws.path("variables", "found")).text == "x"


def test_credentials_that_a_command_prints(aws: AwsRig, process: Any) -> None:
    aws.put(aws.path("variables", "found"), "x")
    given = {"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "S3cr3t", "SessionToken": "t"}
    options = process(f"import sys\nprint({json.dumps(given)!r})\nsys.stderr.write('w' * 1000)\n")
    where = {"endpoint_url": aws.proxy.url, "region_name": REGION, "cache_ttl": 0}
    assert aws.backend_class(**where, **options).get_variable("found") == "x"
