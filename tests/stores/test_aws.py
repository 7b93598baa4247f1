"""What only the AWS backends do: sessions, roles, endpoints, and the forms of a secret."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import functools
import json
import ssl
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import botocore.exceptions
import botocore.session
import pytest
import trustme
from botocore.config import Config
from botocore.loaders import Loader
from cryptography.hazmat.primitives import serialization

from airflow_providers_secrets import __version__
from airflow_providers_secrets.backends._aws import AWS_OPTIONS
from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    LookupFailed,
    SecretRevoked,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import answers
from airflow_providers_secrets.lookup.access import StoreAccess, loaded_store
from airflow_providers_secrets.stores.aws.loader import LeanLoader
from airflow_providers_secrets.stores.base import NOT_ANSWERED, StoreError
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs import PAGE
from tests.rigs.aws import CREDENTIALS, REGION, AwsRig, SecretsManagerRig, SsmRig, aws_error
from tests.rigs.google import service_account_key

ROLE = "arn:aws:iam::123456789012:role/airflow"


def role_options(rig: AwsRig, sts: Proxy, **more: Any) -> dict[str, Any]:
    return {**rig.options(), "role_arn": ROLE, "service_config": {"sts": {"endpoint_url": sts.url}}, **more}


def connected(backend: Any) -> Any:
    """The boto3 client that a backend's lookups would use."""
    return loaded_store(backend.config).connect().service


def form(request: Request) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(request.body.decode()))


def access_key(request: Request) -> str:
    """The key that signed a request (AWS Signature Version 4: Credential=key/date/region/service/…)."""
    return request.headers["Authorization"].split("Credential=")[1].split("/")[0]


# Credentials, by botocore's own machinery.


def test_static_keys_sign_the_request(aws: AwsRig) -> None:
    aws.backend(aws_session_token="token").get_variable("x")
    request = aws.proxy.requests[-1]
    assert access_key(request) == CREDENTIALS["aws_access_key_id"]
    assert request.headers["X-Amz-Security-Token"] == "token"


def test_keys_in_session_kwargs_still_work_and_are_warned_about(aws: AwsRig) -> None:
    options = {"endpoint_url": aws.proxy.url, "region_name": REGION}
    with pytest.warns(DeprecationWarning, match="session_kwargs"):
        backend = aws.backend_class(**options, session_kwargs=dict(CREDENTIALS))
    backend.get_variable("x")
    assert access_key(aws.proxy.requests[-1]) == CREDENTIALS["aws_access_key_id"]


def session(aws: AwsRig, inside: Any, **options: Any) -> Any:
    """A backend of an old configuration."""
    with pytest.warns(DeprecationWarning, match="session_kwargs"):
        return aws.backend_class(endpoint_url=aws.proxy.url, session_kwargs=inside, **options)


@pytest.mark.parametrize("as_text", [False, True])
def test_session_kwargs_give_profile_and_region(
    aws: AwsRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, as_text: bool
) -> None:
    (tmp_path / "credentials").write_text("[ours]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    inside = {"profile_name": "ours", "region_name": "eu-west-3", "aws_session_token": None}
    backend = session(aws, json.dumps(inside) if as_text else inside)
    backend.get_variable("x")
    assert access_key(aws.proxy.requests[-1]) == "AKIAPROFILE"
    assert f"/eu-west-3/{aws.service}/" in aws.proxy.requests[-1].headers["Authorization"]
    plain = aws.backend_class(endpoint_url=aws.proxy.url, profile_name="ours", region_name="eu-west-3")
    assert backend.config.fingerprint == plain.config.fingerprint


def test_options_come_before_session_kwargs(aws: AwsRig) -> None:
    inside = {
        "aws_access_key_id": "AKIAINSIDE",
        "aws_secret_access_key": "s",
        "aws_session_token": "token-inside",
        "region_name": "eu-west-3",
    }
    session(aws, inside, region_name=REGION).get_variable("x")
    assert access_key(aws.proxy.requests[-1]) == "AKIAINSIDE"
    assert f"/{REGION}/{aws.service}/" in aws.proxy.requests[-1].headers["Authorization"]
    assert aws.proxy.requests[-1].headers["X-Amz-Security-Token"] == "token-inside"
    session(aws, inside, **CREDENTIALS, aws_session_token="token").get_variable("x")
    assert access_key(aws.proxy.requests[-1]) == CREDENTIALS["aws_access_key_id"]
    assert f"/eu-west-3/{aws.service}/" in aws.proxy.requests[-1].headers["Authorization"]
    assert aws.proxy.requests[-1].headers["X-Amz-Security-Token"] == "token"


@pytest.mark.parametrize(
    ("inside", "options", "said"),
    [
        (
            {"profile": "S3cr3t", "endpoint_url": "S3cr3t", "region_name": REGION},
            {},
            r"'session_kwargs' holds 'endpoint_url', 'profile'; known: .*profile_name.* Give anything else as an option",
        ),
        ({"region_name": ["S3cr3t"]}, {}, "'session_kwargs' needs a string for 'region_name'"),
        # Half a pair is none, and two halves are no pair.
        ({"aws_access_key_id": "S3cr3t"}, {}, "'aws_access_key_id' and 'aws_secret_access_key' are needed both"),
        (
            {"aws_secret_access_key": "S3cr3t"},
            {"aws_access_key_id": "AKIAPLAIN"},
            "'aws_access_key_id' and 'aws_secret_access_key' are needed both",
        ),
    ],
)
def test_session_kwargs_that_cannot_be_used(aws: AwsRig, inside: Any, options: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        session(aws, inside, **options)
    assert "S3cr3t" not in str(raised.value)


def test_profile_gives_keys_and_region(aws: AwsRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[ours]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s\n")
    (tmp_path / "config").write_text("[profile ours]\nregion = us-west-2\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    aws.backend_class(profile_name="ours", endpoint_url=aws.proxy.url).get_variable("x")
    assert access_key(aws.proxy.requests[-1]) == "AKIAPROFILE"
    assert f"/us-west-2/{aws.service}/" in aws.proxy.requests[-1].headers["Authorization"]


def test_profile_with_a_role_of_its_own(
    aws: AwsRig, sts: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n"
        f"[profile ours]\nrole_arn = {ROLE}\nsource_profile = base\nregion = {REGION}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
    aws.backend_class(profile_name="ours", endpoint_url=aws.proxy.url).get_variable("x")
    assert form(sts.requests[-1])["RoleArn"] == ROLE
    assert access_key(aws.proxy.requests[-1]).startswith("ASIA")


@pytest.mark.parametrize("code", ["RequestTimeout", "RequestTimeoutException", "IDPCommunicationError"])
def test_what_passes_by_itself_is_asked_for_again(aws: AwsRig, code: str) -> None:
    """AWS gives these the status 400, which else means that the request is wrong."""
    aws.put(aws.path("variables", "x"), "1")
    replies: list[Reply | None] = [aws_error(code), None]
    with aws.proxy.fault(lambda _: replies.pop(0)):
        assert aws.backend(max_attempts=2).get_variable("x") == "1"
    assert replies == []


@pytest.fixture(params=["a pod's", "a profile's"])
def role_of(
    request: pytest.FixtureRequest, aws: AwsRig, sts: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Make a backend whose role botocore finds by itself and assumes by a client of its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    options: dict[str, Any] = {"endpoint_url": aws.proxy.url, "region_name": REGION}
    if request.param == "a pod's":  # as Amazon EKS tells its containers
        (tmp_path / "token").write_text("token")
        monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    else:
        base = "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n"
        (tmp_path / "config").write_text(f"{base}[profile ours]\nrole_arn = {ROLE}\nsource_profile = base\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        options["profile_name"] = "ours"
    return functools.partial(aws.backend_class, **options)


def test_attempts_at_a_role_that_botocore_finds_are_the_lookups(
    aws: AwsRig, sts: Proxy, role_of: Callable[..., Any]
) -> None:
    with sts.fault(Reply(500)), pytest.raises(StoreUnavailable):
        role_of(max_attempts=1).get_variable("x")
    assert len(sts.requests) == 1


def test_time_outs_hold_for_a_role_that_botocore_finds(aws: AwsRig, sts: Proxy, role_of: Callable[..., Any]) -> None:
    """One answer that never comes is given up: what waits for it holds the lock of all logins."""
    aws.put(aws.path("variables", "x"), "1")
    backend = role_of(max_attempts=1, read_timeout=0.5, timeout=60.0)
    with sts.fault(Reply(hang=True)), pytest.raises(StoreUnavailable) as raised:
        backend.get_variable("x")
    assert raised.value.code == f"{NOT_ANSWERED} (127.0.0.1 port {sts.port})"
    answers.reset_after_fork()
    assert backend.get_variable("x") == "1"


@pytest.fixture
def of_a_profile(aws: AwsRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a backend of the profile ``ours``, which has these settings and no others."""

    def make(*settings: str, **options: Any) -> Any:
        base = "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n"
        (tmp_path / "config").write_text("\n".join((base, "[profile ours]", f"region = {REGION}", *settings)))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        return aws.backend_class(profile_name="ours", **{"endpoint_url": aws.proxy.url, "cache_ttl": 0, **options})

    return make


def test_a_role_that_asks_for_a_code_prompts_nobody(of_a_profile: Callable[..., Any]) -> None:
    backend = of_a_profile(f"role_arn = {ROLE}", "source_profile = base", "mfa_serial = arn:aws:iam::1:mfa/x")
    with pytest.raises(ConfigurationError, match=r"the profile's 'mfa_serial' asks for an MFA code"):
        backend.get_variable("x")


@pytest.mark.parametrize("reads", ["web identity", "container", "command"])
def test_a_file_of_the_login_that_is_not_there_is_no_outage(
    of_a_profile: Callable[..., Any], reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: tuple[str, ...] = ()
    if reads == "web identity":
        settings = f"role_arn = {ROLE}", "web_identity_token_file = /none/token"
    elif reads == "command":
        settings = ("credential_process = /none/command",)
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/none/token")
    with pytest.raises(StoreMisconfigured, match=r"FileNotFoundError\. Make the file readable"):
        of_a_profile(*settings).get_variable("x")


def test_a_command_that_prints_no_json_is_told(of_a_profile: Callable[..., Any]) -> None:
    with pytest.raises(StoreMisconfigured, match=r"JSONDecodeError\. Run the profile's credential_process by hand"):
        of_a_profile("credential_process = /bin/echo S3cr3t").get_variable("x")


def test_the_profile_is_of_the_session_before_the_role(
    aws: AwsRig, sts: Proxy, of_a_profile: Callable[..., Any]
) -> None:
    """As officially: the role's own session has nothing of it but the region."""
    keys = "aws_access_key_id = AKIAOURS", "aws_secret_access_key = s"
    role = {"role_arn": ROLE, "service_config": {"sts": {"endpoint_url": sts.url}}}
    of_a_profile(*keys, "sdk_ua_app_id = of-the-profile", **role).get_variable("x")
    assert "of-the-profile" in sts.requests[-1].headers["User-Agent"]
    assert "of-the-profile" not in aws.proxy.requests[-1].headers["User-Agent"]
    assert f"/{REGION}/" in aws.proxy.requests[-1].headers["Authorization"]


PRINTED = {
    "a list": "[1]",
    "a date that is none": '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "S3cr3t", "Expiration": "soon"}',
    "a key that is no text": '{"Version": 1, "AccessKeyId": 5, "SecretAccessKey": "S3cr3t"}',
}
BAD_LOGIN = r"credentials that cannot be read(?: \(\w+\))?\. Fix what the profile's credential_process prints"


@pytest.mark.parametrize("printed", PRINTED.values(), ids=PRINTED)
def test_a_command_that_prints_other_json_is_no_answer_of_the_store(
    of_a_profile: Callable[..., Any], tmp_path: Path, printed: str
) -> None:
    """Nothing is sent, so it is no matter of on_invalid, and no news for other processes."""
    (tmp_path / "printed").write_text(printed)
    with pytest.raises(StoreMisconfigured, match=BAD_LOGIN) as raised:
        of_a_profile(f"credential_process = /bin/cat {tmp_path / 'printed'}").get_variable("x")
    assert raised.value.on_the_way
    assert "S3cr3t" not in str(raised.value)


def test_a_renewal_that_prints_other_json_is_no_answer_of_the_store(
    aws: AwsRig, of_a_profile: Callable[..., Any], tmp_path: Path
) -> None:
    """Credentials that end this soon are renewed for each request."""
    given = {"Version": 1, "AccessKeyId": "AKIAOLD", "SecretAccessKey": "s", "SessionToken": "t"}
    until = dt.datetime.now(dt.timezone.utc) + dt.timedelta(minutes=5)
    (tmp_path / "printed").write_text(json.dumps({**given, "Expiration": until.isoformat()}))
    backend = of_a_profile(f"credential_process = /bin/cat {tmp_path / 'printed'}")
    assert backend.get_variable("absent") is None
    assert access_key(aws.proxy.requests[-1]) == "AKIAOLD"
    (tmp_path / "printed").write_text("[1]")
    with aws.counted() as calls, pytest.raises(StoreMisconfigured, match=BAD_LOGIN):
        backend.get_variable("absent")
    assert calls == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_METADATA_SERVICE_TIMEOUT", "abc"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:x/S3cr3t"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "S3cr3t\nS3cr3t"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/x"),
    ],
)
def test_a_variable_of_the_login_is_not_told_as_an_endpoint(
    aws: AwsRig, variable: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for file in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(file, str(tmp_path / "none"))
    if "TOKEN" in variable:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/")
    monkeypatch.setenv(variable, value)
    with pytest.raises(StoreMisconfigured, match=rf"{BAD_LOGIN}.* AWS_CONTAINER_\*, .*AWS_METADATA_\*") as raised:
        aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION).get_variable("x")
    assert "S3cr3t" not in str(raised.value)


def test_a_role_of_a_profile_without_a_source_is_told(of_a_profile: Callable[..., Any]) -> None:
    with pytest.raises(StoreMisconfigured, match=r"PartialCredentialsError\. .*source_profile or credential_source"):
        of_a_profile(f"role_arn = {ROLE}").get_variable("x")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_white_space_around_a_key_of_the_environment_is_told(
    aws: AwsRig, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**CREDENTIALS, "aws_session_token": "token"}.items():
        monkeypatch.setenv(name.upper(), f"{value}\n" if name.upper() == variable else value)
    backend = aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION, cache_ttl=0)
    with aws.counted() as calls, pytest.raises(StoreMisconfigured) as raised:
        backend.get_variable("absent")
    assert f"white space around {variable}. Remove the line break or spaces" in str(raised.value)
    assert calls == []
    assert raised.value.on_the_way
    monkeypatch.setenv(variable, {**CREDENTIALS, "aws_session_token": "token"}[variable.lower()])
    assert backend.get_variable("absent") is None


def test_white_space_that_reaches_nobody_is_no_fault(aws: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header's value is trimmed, and of two variables for a token botocore reads one."""
    tokens = {"AWS_SECURITY_TOKEN": "token ", "AWS_SESSION_TOKEN": "unused\n"}
    for name, value in {**{name.upper(): value for name, value in CREDENTIALS.items()}, **tokens}.items():
        monkeypatch.setenv(name, value)
    assert aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION).get_variable("absent") is None


def test_a_line_break_in_credentials_of_a_command_is_told(
    aws: AwsRig, of_a_profile: Callable[..., Any], tmp_path: Path
) -> None:
    given = {"Version": 1, "AccessKeyId": "AKIAOURS", "SecretAccessKey": "S3cr3t", "SessionToken": "S3cr3t\n"}
    (tmp_path / "printed").write_text(json.dumps(given))
    backend = of_a_profile(f"credential_process = /bin/cat {tmp_path / 'printed'}")
    said = r"a request that cannot be sent \(ValueError\)\. Remove line breaks from the AWS credentials"
    with aws.counted() as calls, pytest.raises(StoreMisconfigured, match=said) as raised:
        backend.get_variable("x")
    assert calls == []
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize("by_option", [False, True])
def test_a_proxy_that_is_no_url_is_told(aws: AwsRig, monkeypatch: pytest.MonkeyPatch, *, by_option: bool) -> None:
    options: dict[str, Any] = {}
    proxy = "http://user:S3cr3t@127.0.0.1:abc"
    if by_option:
        options["config_kwargs"] = {"proxies": {"http": proxy}}
    else:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
    said = r"a proxy's address that is no URL\. Correct HTTP_PROXY, HTTPS_PROXY, or 'proxies' in 'config_kwargs'\."
    with pytest.raises(StoreMisconfigured, match=said) as raised:
        aws.backend(**options).get_variable("x")
    assert raised.value.on_the_way
    assert "S3cr3t" not in str(raised.value)


WRONG_VARIABLES = {
    "AWS_DEFAULTS_MODE": "InvalidDefaultsMode",
    "AWS_STS_REGIONAL_ENDPOINTS": "InvalidSTSRegionalEndpointsConfigError",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "InvalidIMDSEndpointError",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "InvalidIMDSEndpointModeError",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "InvalidChecksumConfigError",
}
if not hasattr(botocore.exceptions, "InvalidChecksumConfigError"):  # before botocore 1.36
    del WRONG_VARIABLES["AWS_REQUEST_CHECKSUM_CALCULATION"]


@pytest.mark.parametrize("variable", WRONG_VARIABLES)
def test_a_variable_that_botocore_refuses_is_no_outage(
    aws: AwsRig, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = {} if "METADATA" in variable else CREDENTIALS
    for file in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(file, str(tmp_path / "none"))
    monkeypatch.setenv(variable, "bogus")
    backend = aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION, **keys)
    with pytest.raises(StoreMisconfigured, match=rf"{WRONG_VARIABLES[variable]}\. Correct") as raised:
        backend.get_variable("x")
    assert raised.value.on_the_way


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"defaults_mode": "zzz"}, "InvalidDefaultsMode"),
        ({"signature_version": "zzz"}, "UnknownSignatureVersionError"),
        ({"max_pool_connections": "zzz"}, r"a request that cannot be sent \(TypeError\)"),
    ],
    ids=str,
)
def test_config_kwargs_that_botocore_refuses_are_no_outage(aws: AwsRig, config: dict[str, Any], code: str) -> None:
    with pytest.raises(StoreMisconfigured, match=code) as raised:
        aws.backend(config_kwargs=config).get_variable("x")
    assert raised.value.on_the_way


@pytest.mark.parametrize("url", ["no-url", "http://[", "http://127.0.0.1:99999"])
def test_an_endpoint_that_is_no_url_is_told(aws: AwsRig, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"AWS_ENDPOINT_URL_{aws.service_id}", url)
    with pytest.raises(StoreMisconfigured, match=r"an address that is no URL\. Correct 'endpoint_url'"):
        aws.backend(endpoint_url=None).get_variable("x")


def test_settings_that_botocore_fails_on_are_no_answer_of_the_store(aws: AwsRig) -> None:
    with aws.counted() as calls, pytest.raises(StoreMisconfigured, match=r"settings that botocore .*'config_kwargs'"):
        aws.backend(config_kwargs={"user_agent_extra": 5}).get_variable("x")
    assert calls == []


def test_no_credentials_is_told(aws: AwsRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    backend = aws.backend_class(endpoint_url=aws.proxy.url, region_name=REGION)
    with aws.counted() as calls, pytest.raises(StoreMisconfigured, match="NoCredentialsError"):
        backend.get_variable("x")
    assert calls == []


def test_no_region_is_told(aws: AwsRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    backend = aws.backend_class(endpoint_url=aws.proxy.url, **CREDENTIALS)
    with pytest.raises(StoreMisconfigured, match=r"NoRegionError.*region"):
        backend.get_variable("x")


def test_unknown_profile_is_told(aws: AwsRig) -> None:
    with pytest.raises(StoreMisconfigured, match=r"ProfileNotFound.*profile"):
        aws.backend(profile_name="nobody").get_variable("x")


def test_role_is_assumed_once_under_the_official_session_name(aws: AwsRig, sts: Proxy) -> None:
    options = role_options(aws, sts, assume_role_kwargs={"ExternalId": "e-1", "DurationSeconds": 3600})
    for _ in range(3):
        aws.backend_class(**options).get_variable("x")
    (assumed,) = map(form, sts.requests)
    assert assumed["Action"] == "AssumeRole"
    assert assumed["RoleArn"] == ROLE
    assert assumed["ExternalId"] == "e-1"
    assert assumed["DurationSeconds"] == "3600"
    assert assumed["RoleSessionName"] == f"airflow_{aws.backend_class.__name__.lower()}__connection"
    assert access_key(sts.requests[-1]) == CREDENTIALS["aws_access_key_id"]
    assert access_key(aws.proxy.requests[-1]).startswith("ASIA")


def test_role_is_assumed_in_the_region_of_the_options(aws: AwsRig, sts: Proxy) -> None:
    """Whatever botocore's own configuration says beside it, as for the store's own client."""
    options = role_options(aws, sts, config_kwargs={"region_name": "us-east-2"})
    aws.backend_class(**options).get_variable("x")
    for request, service in ((sts.requests[-1], "sts"), (aws.proxy.requests[-1], aws.service)):
        assert f"/{REGION}/{service}/aws4_request" in request.headers["Authorization"]


def test_role_credentials_are_refreshed_before_they_expire(aws: AwsRig, sts: Proxy) -> None:
    """botocore renews in the last quarter of an hour, which is all the life these have."""
    backend = aws.backend_class(**role_options(aws, sts, assume_role_kwargs={"DurationSeconds": 900}), cache_ttl=0)
    backend.get_variable("x")
    first = access_key(aws.proxy.requests[-1])
    backend.get_variable("x")
    assert len(sts.requests) > 1
    assert access_key(aws.proxy.requests[-1]) != first


def test_denied_role_is_a_denial(aws: AwsRig, sts: Proxy) -> None:
    denied = Reply(
        403,
        b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>S3cr3t</Message></Error></ErrorResponse>",
        {"Content-Type": "text/xml"},
    )
    with sts.fault(denied), aws.counted() as calls, pytest.raises(AccessDenied, match="AccessDenied"):
        aws.backend_class(**role_options(aws, sts)).get_variable("x")
    assert calls == []


@pytest.mark.parametrize("by_environment", [False, True])
def test_web_identity_by_file_is_read_again_at_each_login(
    aws: AwsRig, sts: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    token = tmp_path / "token"
    options = {
        "endpoint_url": aws.proxy.url,
        "region_name": REGION,
        "role_arn": ROLE,
        "assume_role_method": "assume_role_with_web_identity",
        "assume_role_with_web_identity_federation": "file",
        "service_config": {"sts": {"endpoint_url": sts.url}},
    }
    if by_environment:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    else:
        options["assume_role_with_web_identity_token_file"] = str(token)
    for content in ("token-one", "token-two"):
        token.write_text(content)
        answers.reset_after_fork()
        aws.backend_class(**options).get_variable("x")
        asked = form(sts.requests[-1])
        assert (asked["Action"], asked["WebIdentityToken"]) == ("AssumeRoleWithWebIdentity", content)
        assert "Authorization" not in sts.requests[-1].headers
        assert access_key(aws.proxy.requests[-1]).startswith("ASIA")


def test_web_identity_by_google(aws: AwsRig, sts: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service account's key is exchanged for an ID token, as in "Service account ID tokens" of google-auth."""
    google = Proxy()
    (tmp_path / "key.json").write_text(json.dumps(service_account_key(f"{google.url}/token")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    part = base64.urlsafe_b64encode(json.dumps({"exp": 4102444800}).encode()).rstrip(b"=").decode()
    token = f"{part}.{part}.{part}"
    backend = aws.backend_class(
        endpoint_url=aws.proxy.url,
        region_name=REGION,
        role_arn=ROLE,
        assume_role_method="assume_role_with_web_identity",
        assume_role_with_web_identity_federation="google",
        assume_role_with_web_identity_federation_audience="sts.example.com",
        service_config={"sts": {"endpoint_url": sts.url}},
    )
    body = json.dumps({"id_token": token}).encode()
    with google.fault(Reply(200, body, {"Content-Type": "application/json"})):
        backend.get_variable("x")
    asked = form(sts.requests[-1])
    assert (asked["Action"], asked["WebIdentityToken"]) == ("AssumeRoleWithWebIdentity", token)
    claims = form(google.requests[-1])["assertion"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["target_audience"] == "sts.example.com"
    assert access_key(aws.proxy.requests[-1]).startswith("ASIA")
    google.stop()


def test_web_identity_without_a_token_file_is_told(aws: AwsRig, sts: Proxy) -> None:
    backend = aws.backend_class(
        **role_options(
            aws,
            sts,
            assume_role_method="assume_role_with_web_identity",
            assume_role_with_web_identity_federation="file",
        )
    )
    with pytest.raises(ConfigurationError, match="assume_role_with_web_identity_token_file"):
        backend.get_variable("x")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"aws_access_key_id": "a", "aws_secret_access_key": None}, "aws_secret_access_key"),
        ({"role_arn": ROLE, "assume_role_method": "by_magic"}, "assume_role_method"),
        ({"role_arn": ROLE, "assume_role_method": "assume_role_with_web_identity"}, "federation"),
        (
            {
                "role_arn": ROLE,
                "assume_role_method": "assume_role_with_web_identity",
                "assume_role_with_web_identity_federation": "google",
            },
            "audience",
        ),
        ({"role_arn": ROLE, "assume_role_method": "assume_role_with_saml"}, "credential_process"),
        ({"aws_iam_role": "airflow"}, "aws_account_id"),
        ({"config_kwargs": "{"}, "config_kwargs"),
        ({"service_config": ["sts"]}, "service_config"),
        ({"use_ssl": "maybe"}, "use_ssl"),
        ({"verify": 5}, "verify"),
    ],
)
def test_contradictory_options_are_refused_at_construction(aws: AwsRig, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        aws.backend(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint_url": "127.0.0.1:4566"}, "'endpoint_url' must start with https:// or http:// and a host"),
        ({"endpoint_url": "http://127.0.0.1:99999"}, "'endpoint_url' has an invalid host or port"),
        ({"endpoint_url": "http://["}, "'endpoint_url' has an invalid host or port"),
        ({"service_config": {"ssm": 5}}, """'service_config' needs {"endpoint_url": "https://…"} for 'ssm'"""),
        ({"service_config": {"sts": "http://h"}}, """'service_config' needs {"endpoint_url": "https://…"} for 'sts'"""),
        (
            {"service_config": {"SSM": {"endpoint_url": "http://h"}}},
            "'service_config' holds 'SSM'; did you mean 'ssm'?",
        ),
        (
            {"service_config": '{"secrets-manager": {"endpoint_url": "http://h"}}'},
            "'service_config' holds 'secrets-manager'; did you mean 'secretsmanager'?",
        ),
        (
            {"service_config": {"ssm": {"endpoint_url": 5}}},
            "'service_config' cannot use the 'endpoint_url' of 'ssm': it must be a string",
        ),
        (
            {"service_config": {"secretsmanager": {"endpoint_url": "http://h:99999"}}},
            "'service_config' cannot use the 'endpoint_url' of 'secretsmanager': it has an invalid host or port",
        ),
        ({"assume_role_kwargs": {"Policy": "S3cr3t"}}, "'assume_role_kwargs' needs a JSON object for 'Policy'"),
        ({"assume_role_kwargs": {"Policy": ["S3cr3t"]}}, "'assume_role_kwargs' needs a JSON object for 'Policy'"),
        ({"config_kwargs": {"signature_version": 5}}, "'config_kwargs' needs a string for 'signature_version'"),
        (
            {"config_kwargs": {"client_cert": "-----BEGIN PRIVATE KEY-----S3cr3t"}},
            "'config_kwargs' cannot use 'client_cert': it must be a path",
        ),
        (
            {"config_kwargs": {"client_cert": 5}},
            "'config_kwargs' cannot use 'client_cert': it must be a path, or a list",
        ),
        (
            {"config_kwargs": {"proxies_config": {"proxy_client_cert": ["a", "b", "c"]}}},
            "'config_kwargs' cannot use 'proxy_client_cert': it must be a path, or a list of two",
        ),
        ({"config_kwargs": {"proxies": "S3cr3t"}}, "'config_kwargs' needs an object of strings for 'proxies'"),
        ({"config_kwargs": {"proxies": {"https": 5}}}, "'config_kwargs' needs an object of strings for 'proxies'"),
    ],
    ids=str,
)
def test_what_no_client_could_use_is_refused_at_construction(aws: AwsRig, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("?", r"\?")) as raised:
        aws.backend(**options)
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize("unset", [None, "", {}, {"endpoint_url": None}, {"endpoint_url": ""}], ids=str)
def test_a_service_without_an_endpoint_has_the_usual_one(aws: AwsRig, unset: Any) -> None:
    assert connected(aws.backend(service_config={aws.service: unset})).meta.endpoint_url == aws.proxy.url


def test_a_service_that_is_not_asked_is_warned_about(aws: AwsRig, caplog: pytest.LogCaptureFixture) -> None:
    """As officially, it changes nothing: what it says may be meant for a hook."""
    backend = aws.backend(service_config={"s3": {"bucket_name": "b"}})
    assert "'service_config' holds 's3', which is ignored; known: secretsmanager, ssm, sts" in caplog.text
    assert backend.config.fingerprint == aws.backend().config.fingerprint
    backend = aws.backend(service_config={"sts": {"region_name": "x"}})
    assert "'service_config' holds 'region_name' for sts, which is ignored; known: endpoint_url" in caplog.text
    assert backend.config.fingerprint == aws.backend().config.fingerprint


@pytest.mark.parametrize("inside", [False, True], ids=["options", "session_kwargs"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_white_space_around_keys_is_none_of_them(aws: AwsRig, *, inside: bool) -> None:
    """A file that a Kubernetes secret was made from often ends in a line break."""
    clean = {**CREDENTIALS, "aws_session_token": "token", "region_name": REGION}
    broken = {name: f" {value}\n" for name, value in clean.items()}
    address = {"endpoint_url": f"{aws.proxy.url}\n"}
    backend = aws.backend_class(**address, session_kwargs=broken) if inside else aws.backend_class(**address, **broken)
    backend.get_variable("x")
    request = aws.proxy.requests[-1]
    assert access_key(request) == CREDENTIALS["aws_access_key_id"]
    assert f"/{REGION}/{aws.service}/" in request.headers["Authorization"]
    assert request.headers["X-Amz-Security-Token"] == "token"
    assert backend.config.fingerprint == aws.backend_class(endpoint_url=aws.proxy.url, **clean).config.fingerprint


@pytest.mark.parametrize("as_text", [False, True])
def test_a_policy_of_a_role_is_an_object_or_its_text(aws: AwsRig, sts: Proxy, *, as_text: bool) -> None:
    policy = {"Version": "2012-10-17", "Statement": []}
    given = {"Policy": json.dumps(policy) if as_text else policy}
    aws.backend_class(**role_options(aws, sts, assume_role_kwargs=given)).get_variable("x")
    assert json.loads(form(sts.requests[-1])["Policy"]) == policy


def test_expired_token_makes_one_new_client(aws: AwsRig) -> None:
    backend = aws.backend()
    answers: list[Reply | None] = [aws_error("ExpiredTokenException"), None]
    with aws.proxy.fault(lambda _: answers.pop(0)), aws.counted() as calls:
        assert backend.get_variable("absent") is None
    assert len(calls) == 2
    with aws.proxy.fault(aws_error("ExpiredTokenException")), aws.counted() as calls:
        with pytest.raises(StoreMisconfigured, match="ExpiredTokenException"):
            backend.get_variable("absent")
    assert len(calls) == 2


UNKNOWN_KEY = [
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
]


@pytest.mark.parametrize("code", UNKNOWN_KEY)
def test_keys_of_a_file_are_read_again_where_aws_does_not_know_them(
    aws: AwsRig, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a rotation. Without new ones it is one more request, and then the outage is remembered."""
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    current = ["AKIAOLD"]

    def reply(request: Request) -> Reply | None:
        return None if access_key(request) in current else aws_error(code)

    def rotated(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n")

    where = {"endpoint_url": aws.proxy.url, "region_name": REGION}
    backend = aws.backend_class(**where, cache_ttl=0)
    rotated("AKIAOLD")
    with aws.proxy.fault(reply):
        assert backend.get_variable("absent") is None
        current[:] = ["AKIANEW"]
        rotated("AKIANEW")
        assert backend.get_variable("absent") is None
        assert access_key(aws.proxy.requests[-1]) == "AKIANEW"
        current.clear()
        caching = aws.backend_class(**where)
        with aws.counted() as calls:
            for _ in range(3):
                with pytest.raises(StoreMisconfigured, match=code):
                    caching.get_variable("absent")
        assert len(calls) == 2


def test_keys_of_the_options_are_not_tried_twice(aws: AwsRig) -> None:
    with aws.proxy.fault(aws_error("UnrecognizedClientException")), aws.counted() as calls:
        with pytest.raises(StoreMisconfigured, match="UnrecognizedClientException"):
            aws.backend().get_variable("absent")
    assert len(calls) == 1


def test_role_of_old_options(aws: AwsRig, sts: Proxy) -> None:
    """Official releases before 3.0 put the role's ARN together, and had the ExternalId beside it."""
    options = {**role_options(aws, sts), "role_arn": None}
    with pytest.warns(DeprecationWarning) as warned:
        backend = aws.backend_class(**options, aws_account_id=123456789012, aws_iam_role="airflow", external_id="e-1")
    assert {"'role_arn'", "'assume_role_kwargs'"} <= {str(one.message).split("use ")[1][:-1] for one in warned}
    backend.get_variable("x")
    (assumed,) = map(form, sts.requests)
    assert (assumed["RoleArn"], assumed["ExternalId"]) == (ROLE, "e-1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_role_of_old_options_gives_way_to_the_new_ones(aws: AwsRig, sts: Proxy) -> None:
    options = role_options(aws, sts, assume_role_kwargs={"ExternalId": "new"})
    aws.backend_class(**options, aws_account_id="1", aws_iam_role="old", external_id="old").get_variable("x")
    (assumed,) = map(form, sts.requests)
    assert (assumed["RoleArn"], assumed["ExternalId"]) == (ROLE, "new")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_empty_options_are_not_given(aws: AwsRig) -> None:
    empty = {option.name: "" for option in AWS_OPTIONS}
    aws.put(aws.path("variables", "found"), "x")
    assert aws.backend_class(**{**empty, **aws.options()}, cache_ttl=0).get_variable("found") == "x"


def test_no_credentials_of_google_is_told(
    aws: AwsRig, sts: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none"))
    options = role_options(
        aws,
        sts,
        assume_role_method="assume_role_with_web_identity",
        assume_role_with_web_identity_federation="google",
        assume_role_with_web_identity_federation_audience="a",
    )
    with pytest.raises(StoreMisconfigured, match=r"DefaultCredentialsError\. .*GOOGLE_APPLICATION_CREDENTIALS"):
        aws.backend_class(**options).get_variable("x")


# Client options.


def test_requests_name_the_package(aws: AwsRig) -> None:
    """AWS's audit trail shows it."""
    aws.backend().get_variable("x")
    assert f" airflow-providers-secrets/{__version__}" in aws.proxy.requests[-1].headers["User-Agent"]


def test_config_kwargs_reach_the_client(aws: AwsRig) -> None:
    backend = aws.backend(config_kwargs=json.dumps({"user_agent_extra": "team/x"}))
    backend.get_variable("x")
    assert "team/x" in aws.proxy.requests[-1].headers["User-Agent"]


def test_config_kwargs_cannot_multiply_attempts_and_waits(aws: AwsRig, caplog: pytest.LogCaptureFixture) -> None:
    config = {"retries": {"total_max_attempts": 7}, "connect_timeout": 90, "read_timeout": 80}
    backend = aws.backend(config_kwargs=config, max_attempts=1, connect_timeout=3, read_timeout=7)
    for name, ours in (("retries", "max_attempts"), ("connect_timeout", "connect_timeout")):
        assert f"'config_kwargs' holds '{name}', which is ignored: set the backend's option '{ours}'" in caplog.text
    with aws.proxy.fault(aws_error("InternalServerError", 500)), aws.counted() as calls:
        with pytest.raises(StoreUnavailable):
            backend.get_variable("x")
    assert len(calls) == 1
    config = connected(backend).meta.config
    assert (config.connect_timeout, config.read_timeout) == (3.0, 7.0)


def test_unusable_config_kwargs_are_told(aws: AwsRig) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'config_kwargs' holds 'no_such_thing', .* not accept; known: .*, s3, "
    ):
        aws.backend(config_kwargs={"no_such_thing": 1}).get_variable("x")
    with pytest.raises(ConfigurationError, match=r"'config_kwargs' holds 'retrys', .*; did you mean 'retries'\?"):
        aws.backend(config_kwargs={"retrys": 3}).get_variable("x")
    refused = r"'config_kwargs' holds a value for 's3' that botocore\.config\.Config does not take"
    with pytest.raises(ConfigurationError, match=rf"{refused}: S3 addressing style no is invalid\. Valid options"):
        aws.backend(config_kwargs={"user_agent": "x", "s3": {"addressing_style": "no"}}).get_variable("x")
    with pytest.raises(ConfigurationError, match=rf"{refused}\.$"):
        aws.backend(config_kwargs={"s3": 5}).get_variable("x")


def test_time_outs_and_endpoint_reach_the_client(aws: AwsRig) -> None:
    client = connected(aws.backend(connect_timeout="1.5", read_timeout=3))
    assert (client.meta.config.connect_timeout, client.meta.config.read_timeout) == (1.5, 3.0)
    assert client.meta.endpoint_url == aws.proxy.url
    assert client.meta.config.retries == {"mode": "standard", "total_max_attempts": 1}


def test_endpoint_by_service_config_and_environment(aws: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"region_name": REGION, **CREDENTIALS}
    by_service = {aws.service: {"endpoint_url": aws.proxy.url}}
    assert connected(aws.backend_class(**plain, service_config=by_service)).meta.endpoint_url == aws.proxy.url
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.proxy.url)
    assert connected(aws.backend_class(**plain)).meta.endpoint_url == aws.proxy.url


def test_use_ssl_and_api_version(aws: AwsRig) -> None:
    plain = {"region_name": REGION, **CREDENTIALS}
    version = Loader().determine_latest_version(aws.service, "service-2")
    client = connected(aws.backend_class(**plain, use_ssl="false", api_version=version))
    assert client.meta.endpoint_url == f"http://{aws.service}.{REGION}.amazonaws.com"
    with pytest.raises(StoreMisconfigured, match=r"DataNotFoundError|UnknownService"):
        aws.backend(api_version="1999-01-01").get_variable("x")


# Endpoints and models: what the lean loader leaves out is never missed.


def _regions() -> list[str]:
    partitions = Loader().load_data("partitions")["partitions"]
    return [region for partition in partitions for region in partition["regions"] if not region.endswith("-global")]


@pytest.mark.long
@pytest.mark.parametrize("service", ["ssm", "secretsmanager", "sts"])
def test_endpoints_of_every_region_are_those_of_plain_botocore(service: str) -> None:
    full, lean = botocore.session.Session(), botocore.session.Session()
    lean.register_component("data_loader", LeanLoader())
    assert len(_regions()) > 30
    for region in [*_regions(), "eu-future-1", "fips-us-east-1", "us-gov-west-1-fips"]:
        for settings in ({}, {"use_fips_endpoint": True}, {"use_dualstack_endpoint": True}):
            made = []
            for session in (full, lean):
                made.append(_destination(session, service, region, Config(**settings)))
            if made[0][0][0] == "EndpointVariantError":
                # endpoints.json knows no dual stack for the isolated partitions; the services' rules do.
                assert "iso" in region
                assert made[1][0][0].startswith("https://")
            else:
                assert made[0] == made[1], (region, settings)


def _destination(session: Any, service: str, region: str, config: Config) -> list[Any]:
    """Where a client sends a call and what it signs for, or how it fails; nothing is sent."""
    seen: list[Any] = []

    def stop(request: Any, **_: Any) -> None:
        scope = request.headers["Authorization"].decode().split("/aws4_request")[0].split("/")[-2:]
        seen.append((request.url, scope))
        raise LookupFailed("", "", "", "")

    operation, arguments = {
        "ssm": ("get_parameter", {"Name": "/x"}),
        "secretsmanager": ("get_secret_value", {"SecretId": "x"}),
        "sts": ("assume_role", {"RoleArn": ROLE, "RoleSessionName": "xx"}),
    }[service]
    try:
        client = session.create_client(service, region_name=region, config=config, **CREDENTIALS)
        client.meta.events.register("before-send", stop)
        getattr(client, operation)(**arguments)
    except Exception as error:  # a region without such an endpoint: the same error from both
        seen.append((type(error).__name__, str(error)))
    return seen


# SSM Parameter Store.


@pytest.mark.parametrize("prefix", ["airflow/connections", "/airflow/connections", "/airflow/connections/"])
def test_ssm_prefix_with_or_without_slashes(ssm: SsmRig, prefix: str) -> None:
    with ssm.counted() as calls:
        ssm.backend(connections_prefix=prefix).get_conn_value("smtp_default")
    assert calls == ["/airflow/connections/smtp_default"]


@pytest.mark.parametrize("prefix", ["", "/"])
def test_ssm_empty_prefix_reads_from_the_root(ssm: SsmRig, prefix: str) -> None:
    ssm.put("/at-the-root", "x")
    assert ssm.backend(variables_prefix=prefix).get_variable("at-the-root") == "x"


def test_ssm_parameter_without_its_first_slash(ssm: SsmRig) -> None:
    """AWS answers ``/rootless`` with the parameter that was created as ``rootless``, under that name."""
    answer = {"Name": "rootless", "Value": "x", "Type": "String"}

    def reply(request: Request) -> Reply:
        asked = json.loads(request.body)
        body: dict[str, Any] = {"Parameters": [answer]} if "Path" in asked else {"Parameter": answer}
        return Reply(200, json.dumps(body).encode(), {"Content-Type": "application/x-amz-json-1.1"})

    with ssm.proxy.fault(reply):
        assert ssm.backend(variables_prefix="").get_variable("rootless") == "x"
        preloading = ssm.backend(variables_prefix="", cache_ttl=60, preload=["variables"])
        with ssm.counted() as calls:
            assert preloading.get_variable("rootless") == "x"
        assert calls == [PAGE]


def test_ssm_string_list_reads_as_its_text(ssm: SsmRig) -> None:
    ssm.client.put_parameter(Name="/airflow/variables/list", Value="a,b", Type="StringList", Overwrite=True)
    assert ssm.backend().get_variable("list") == "a,b"


def test_ssm_values_are_decrypted(ssm: SsmRig) -> None:
    ssm.backend().get_variable("x")
    assert json.loads(ssm.proxy.requests[-1].body) == {"Name": "/airflow/variables/x", "WithDecryption": True}


@pytest.mark.parametrize("secret_id", ["found:1", "found:label", "fo und", "ä", "a?b", "a#b", "a%2e", "a/" * 15 + "a"])
def test_ssm_id_beyond_its_alphabet_is_refused(ssm: SsmRig, secret_id: str, caplog: pytest.LogCaptureFixture) -> None:
    ssm.put("/airflow/variables/found", "x")
    caplog.clear()
    with ssm.counted() as calls:
        assert ssm.backend().get_variable(secret_id) is None
    assert calls == []
    assert "not looked up" in caplog.text


def test_ssm_key_that_may_not_be_used_is_a_denial(ssm: SsmRig) -> None:
    with ssm.proxy.fault(aws_error("InvalidKeyId")), pytest.raises(AccessDenied, match="kms:Decrypt"):
        ssm.backend().get_variable("x")


# Secrets Manager.


def test_secrets_manager_separator(secrets_manager: SecretsManagerRig) -> None:
    secrets_manager.put("airflow-variables-x", "dashed")
    backend = secrets_manager.backend(variables_prefix="airflow-variables", sep="-")
    assert backend.get_variable("x") == "dashed"


def test_secrets_manager_empty_prefix_reads_a_name_or_an_arn(secrets_manager: SecretsManagerRig) -> None:
    secrets_manager.put("bare", "x")
    arn = secrets_manager.client.describe_secret(SecretId="bare")["ARN"]
    backend = secrets_manager.backend(variables_prefix="")
    assert backend.get_variable("bare") == "x"
    assert backend.get_variable(arn) == "x"
    assert secrets_manager.backend().get_variable(arn) is None


ARN = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:"


@pytest.mark.parametrize(
    ("prefix", "secret_id", "asked"),
    [
        ("", f"{ARN}airflow/variables/x-AbCdEf", f"{ARN}airflow/variables/x-AbCdEf"),
        ("", f"{ARN}airflow/variables/x", f"{ARN}airflow/variables/x"),
        (f"{ARN}airflow/variables", "x", f"{ARN}airflow/variables/x"),
    ],
)
def test_secrets_manager_by_arn_whole_or_without_its_suffix(
    secrets_manager: SecretsManagerRig, prefix: str, secret_id: str, asked: str
) -> None:
    """As a reader in another account has to."""
    answer = {"ARN": f"{ARN}airflow/variables/x-AbCdEf", "Name": "airflow/variables/x", "SecretString": "x"}
    reply = Reply(200, json.dumps(answer).encode(), {"Content-Type": "application/x-amz-json-1.1"})
    with secrets_manager.proxy.fault(reply), secrets_manager.counted() as calls:
        assert secrets_manager.backend(variables_prefix=prefix).get_variable(secret_id) == "x"
    assert calls == [asked]


@pytest.mark.parametrize("answered", ["x-AbCdEf-AbCdEf", "y-AbCdEf", "x-AbCdE", "x-Ab-dEf", "x"])
def test_secrets_manager_answer_by_another_arn_is_refused(secrets_manager: SecretsManagerRig, answered: str) -> None:
    answer = {"ARN": f"{ARN}{answered}", "Name": "x", "SecretString": "S3cr3t"}
    reply = Reply(200, json.dumps(answer).encode(), {"Content-Type": "application/x-amz-json-1.1"})
    asked = f"{ARN}x" if answered != "x" else f"{ARN}x-AbCdEf"
    with secrets_manager.proxy.fault(reply), pytest.raises(InvalidSecret, match="another name"):
        secrets_manager.backend(variables_prefix="").get_variable(asked)


@pytest.mark.parametrize("secret_id", ["rds!db-0d4e2f5a", "rds!cluster-0d4e2f5a"])
def test_secrets_manager_secret_that_rds_manages(secrets_manager: SecretsManagerRig, secret_id: str) -> None:
    secrets_manager.put(secret_id, "x")
    assert secrets_manager.backend(variables_prefix="").get_variable(secret_id) == "x"


def test_secrets_manager_empty_prefix_reads_a_name_that_starts_with_a_slash(
    secrets_manager: SecretsManagerRig,
) -> None:
    secrets_manager.put("/prod/db", "x")
    whole = secrets_manager.backend(variables_prefix="")
    assert whole.get_variable("/prod/db") == "x"
    with secrets_manager.counted() as calls:
        assert [whole.get_variable(secret_id) for secret_id in ("/", "//prod/db", "/prod/../db")] == [None] * 3
        assert secrets_manager.backend(variables_prefix="prod").get_variable("/db") is None
    assert calls == []


def test_secrets_manager_preload_by_arn_is_refused(secrets_manager: SecretsManagerRig) -> None:
    """It would prove absent what is another account's."""
    with pytest.raises(ConfigurationError, match="'variables_prefix' that is no ARN"):
        secrets_manager.backend(variables_prefix=f"{ARN}airflow/", cache_ttl=60, preload=["variables"])
    store = loaded_store(secrets_manager.backend().config)
    with pytest.raises(StoreError, match="by name, not by ARN"):
        list(store.listing(store.connect(), f"{ARN}airflow/"))


def test_secrets_manager_empty_prefix_has_no_team_names(
    secrets_manager: SecretsManagerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    with secrets_manager.counted() as calls:
        secrets_manager.backend(variables_prefix="").get_variable("x", team_name="red")
    assert calls == ["x"]


def test_secrets_manager_binary_is_invalid(secrets_manager: SecretsManagerRig) -> None:
    name = f"airflow/variables/{uuid.uuid4()}"
    secrets_manager.client.create_secret(Name=name, SecretBinary=b"S3cr3t")
    with pytest.raises(InvalidSecret, match="it is binary") as raised:
        secrets_manager.backend().get_variable(name.rpartition("/")[2])
    assert "S3cr3t" not in str(raised.value)


def test_secrets_manager_deleted_secret_is_revoked(secrets_manager: SecretsManagerRig) -> None:
    name = f"airflow/variables/{uuid.uuid4()}"
    secrets_manager.put(name, "x")
    secrets_manager.client.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    with pytest.raises(SecretRevoked, match="restore"):
        secrets_manager.backend().get_variable(name.rpartition("/")[2])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("DecryptionFailure", AccessDenied),
        ("InternalServiceError", StoreUnavailable),
        ("InvalidParameterException", StoreMisconfigured),
        ("UnrecognizedClientException", StoreMisconfigured),
        ("InvalidSignatureException", StoreMisconfigured),
        ("SomethingNew", StoreMisconfigured),
    ],
)
def test_secrets_manager_failure_is_never_not_found(
    secrets_manager: SecretsManagerRig, code: str, error: type[LookupFailed]
) -> None:
    with secrets_manager.proxy.fault(aws_error(code)), pytest.raises(error, match=code):
        secrets_manager.backend(max_attempts=1).get_variable("x")


def test_oversized_value_is_invalid(aws: AwsRig) -> None:
    body = json.dumps(aws.answer(aws.path("variables", "x"), "S3cr3t" * 200_000)).encode()
    reply = Reply(200, body, {"Content-Type": "application/x-amz-json-1.1"})
    with aws.proxy.fault(reply), pytest.raises(InvalidSecret, match="longer than"):
        aws.backend().get_variable("x")


RDS = {
    "engine": "postgres",
    "host": "db.example.com",
    "port": 5432,
    "username": "admin",
    "password": "p",
    "dbname": "sales",
    "dbInstanceIdentifier": "db-1",
    "masterarn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:master",
}
AIRFLOWS = {"conn_type": "postgres", "host": "db.example.com", "port": 5432, "login": "admin", "password": "p"}


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        (RDS, {**AIRFLOWS, "schema": "sales"}),
        ({"user": "u", "pass": "p", "server": "h", "database": "d", "connection_type": "mysql"},
         {"login": "u", "password": "p", "host": "h", "schema": "d", "conn_type": "mysql"}),
        ({"user_name": "u", "key": "k", "remote_host": "h"}, {"login": "u", "password": "k", "host": "h"}),
        ({"username": "first", "login": "second"}, {"login": "first"}),
        ({"login": "second", "username": "third"}, {"login": "second"}),
        ({"conn_id": "x", "conn_type": "postgres"}, {"conn_type": "postgres"}),
        ({"conn_type": "postgres", "conn_id": "x"}, {"conn_type": "postgres"}),
        ({"conn_id": "x"}, {"conn_type": "x"}),
        ({"conn_type": "x", "description": "why"}, {"conn_type": "x", "description": "why"}),
        ({"conn_type": "x", "region": "eu"}, {"conn_type": "x", "extra": {"region": "eu"}}),
        ({"conn_type": "x", "region": "eu", "extra": {"region": "us", "a": 1}},
         {"conn_type": "x", "extra": {"region": "us", "a": 1}}),
        ({"conn_type": "x", "region": "eu", "extra": '{"a": 1}'},
         {"conn_type": "x", "extra": {"region": "eu", "a": 1}}),
        ({"conn_type": "x", "port": "5432"}, {"conn_type": "x", "port": 5432}),
    ],
)  # fmt: skip
def test_secrets_manager_json_by_the_usual_words(
    secrets_manager: SecretsManagerRig, stored: dict[str, Any], given: dict[str, Any]
) -> None:
    secrets_manager.put("airflow/connections/words", json.dumps(stored))
    assert json.loads(secrets_manager.backend(unknown_fields="extra").get_conn_value("words") or "") == given


def test_secrets_manager_drops_unknown_fields_as_officially(secrets_manager: SecretsManagerRig) -> None:
    """In ``extra`` they would reach the database's driver."""
    secrets_manager.put("airflow/connections/words", json.dumps({**RDS, "environment": "prod"}))
    given = json.loads(secrets_manager.backend().get_conn_value("words") or "")
    assert given == {**AIRFLOWS, "schema": "sales"}


def test_secrets_manager_extra_conn_words(secrets_manager: SecretsManagerRig) -> None:
    secrets_manager.put("airflow/connections/more-words", '{"benutzer": "u", "kennwort": "p", "host": "h"}')
    words = '{"user": ["benutzer"], "password": ["kennwort"]}'
    backend = secrets_manager.backend(extra_conn_words=words)
    assert json.loads(backend.get_conn_value("more-words") or "") == {"login": "u", "password": "p", "host": "h"}


@pytest.mark.parametrize("words", ['["x"]', {"pasword": ["x"]}, {"password": "x"}, {"password": [1]}])
def test_secrets_manager_unusable_extra_conn_words(secrets_manager: SecretsManagerRig, words: Any) -> None:
    with pytest.raises(ConfigurationError, match="extra_conn_words"):
        secrets_manager.backend(extra_conn_words=words)


# Listings.


def listed(rig: AwsRig, base: str, **options: Any) -> dict[str, str | None]:
    """What a backend finds under *base*."""
    asked = rig.backend(**options)
    store = loaded_store(asked.config)
    return {found.name: found.text for found in store.listing(store.connect(), asked.name_start(base))}


def test_listing_goes_page_by_page_and_no_further_than_the_prefix(aws: AwsRig) -> None:
    base = aws.path("variables", "", base="paged").rstrip("/")
    names = {f"{base}/folder/key-{number}": f"value {number}" for number in range(45)}
    for name, text in {**names, f"{base}-other/x": "x", f"{base}": "x"}.items():
        aws.put(name, text)
    with aws.counted() as calls:
        assert listed(aws, base) == names
    assert calls == [PAGE] * (5 if aws.service == "ssm" else 3)


def test_secrets_manager_names_what_a_batch_has_no_text_of(secrets_manager: SecretsManagerRig) -> None:
    """AWS gives the rest of the batch, and of these an error, by the ARN."""
    page = {
        "SecretValues": [
            {"Name": "part/found", "SecretString": "x"},
            {"Name": "part/binary", "SecretBinary": base64.b64encode(b"x").decode()},
        ],
        "Errors": [
            {
                "SecretId": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:part/denied-one-AbCdEf",
                "ErrorCode": "AccessDeniedException",
                "Message": "S3cr3t",
            },
            {"SecretId": "part/by-name", "ErrorCode": "DecryptionFailure", "Message": "S3cr3t"},
        ],
    }
    reply = Reply(200, json.dumps(page).encode(), {"Content-Type": "application/x-amz-json-1.1"})
    with secrets_manager.proxy.fault(reply):
        found = listed(secrets_manager, "part")
    assert found == {"part/found": "x", "part/binary": None, "part/denied-one": None, "part/by-name": None}


MALFORMED_ANSWERS = [
    b"[1]",
    b'"S3cr3t"',
    b'{"Parameter": [1]}',
    b'{"Parameter": {"Value": "S3cr3t", "LastModifiedDate": "S3cr3t"}}',
    b'{"Parameter": {"Value": ["S3cr3t"]}}',
    b'{"SecretString": "S3cr3t", "CreatedDate": "S3cr3t"}',
    b'{"SecretString": ["S3cr3t"]}',
]
MALFORMED_PAGES = [
    b"[1]",
    *(
        b'{"%s": %s}' % (field, items)
        for field in (b"Parameters", b"SecretValues")
        for items in (
            b"[1]",
            b'["S3cr3t"]',
            b'[{"Value": "S3cr3t"}]',
            b'[{"Name": 5}]',
            b'[{"Name": "/S3cr3t", "a": 1}]',
        )
    ),
]


@pytest.mark.parametrize("body", MALFORMED_ANSWERS, ids=repr)
def test_an_answer_of_another_form_is_invalid_and_asked_for_once(aws: AwsRig, body: bytes) -> None:
    reply = Reply(200, body, {"Content-Type": "application/x-amz-json-1.1"})
    with aws.proxy.fault(reply), aws.counted() as calls, pytest.raises(InvalidSecret, match="lead to AWS") as raised:
        aws.backend().get_variable("x")
    assert len(calls) == 1
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize("body", MALFORMED_PAGES, ids=repr)
def test_a_page_of_another_form_is_invalid_and_asked_for_once(aws: AwsRig, body: bytes) -> None:
    reply = Reply(200, body, {"Content-Type": "application/x-amz-json-1.1"})
    calls = StoreAccess(aws.backend().config)
    with aws.proxy.fault(reply), aws.counted() as asked:
        try:
            found = calls.ask_for_all(aws.path("variables", ""), 30)
        except InvalidSecret as error:
            assert "lead to AWS" in str(error)
            assert "S3cr3t" not in str(error)
        else:
            assert found == {}  # none of them is under the prefix
    assert len(asked) == 1


def test_a_page_without_a_list_proves_nothing(aws: AwsRig) -> None:
    reply = Reply(200, b'{"NextToken": "S3cr3t"}', {"Content-Type": "application/x-amz-json-1.1"})
    with aws.proxy.fault(reply), pytest.raises(StoreError, match="holds no list") as raised:
        listed(aws, "airflow/variables")
    assert "S3cr3t" not in str(raised.value)


def test_secrets_manager_lists_by_a_prefix_alone(secrets_manager: SecretsManagerRig) -> None:
    with pytest.raises(ConfigurationError, match=r"'preload' needs a 'variables_prefix'"):
        secrets_manager.backend(cache_ttl=60, variables_prefix="", preload=["variables"])


# TLS.


@contextlib.contextmanager
def over_tls(
    certificate: Path, answer: Callable[[dict[str, str], bytes], bytes], client: Path | None = None
) -> Iterator[str]:
    """An HTTPS server with a certificate that nobody else signed, written to *certificate*; gives its URL.

    :param client: a directory for the certificate that clients need, ``client.pem`` and ``client.key``.
    """
    import threading
    from http.server import BaseHTTPRequestHandler

    authority = trustme.CA()
    authority.cert_pem.write_to_path(certificate)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = answer(dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if client:
        issued = authority.issue_cert("client@example.com")
        issued.cert_chain_pems[0].write_to_path(client / "client.pem")
        issued.private_key_pem.write_to_path(client / "client.key")
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # handshakes fail on purpose
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def parameter(_: dict[str, str], asked: bytes) -> bytes:
    return json.dumps({"Parameter": {"Name": json.loads(asked)["Name"], "Value": "over TLS"}}).encode()


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """SSM by HTTPS; gives its URL and what trusts its certificate."""
    certificate = tmp_path / "ca.pem"
    with over_tls(certificate, parameter) as url:
        yield url, certificate


@pytest.fixture
def sts_tls(sts: Proxy, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """STS by HTTPS, behind another certificate; gives its URL and what trusts that."""

    def forwarded(headers: dict[str, str], asked: bytes) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(sts.url, asked, headers)) as answer:
            body: bytes = answer.read()
        return body

    certificate = tmp_path / "sts.pem"
    with over_tls(certificate, forwarded) as url:
        yield url, certificate


def test_verify(tls: tuple[str, Path]) -> None:
    url, certificate = tls
    options = {"region_name": REGION, "endpoint_url": url, "max_attempts": 1, **CREDENTIALS}
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        SystemsManagerParameterStoreBackend(**options).get_variable("x")
    assert SystemsManagerParameterStoreBackend(**options, verify=str(certificate)).get_variable("x") == "over TLS"


def test_a_client_certificate_is_a_pair_of_files_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has lists alone, and botocore ignores a list."""
    monkeypatch.chdir(tmp_path)  # a long path is cut in the message
    certificate, key = "client.pem", "client.key"
    options: dict[str, Any] = {"region_name": REGION, "max_attempts": 1, **CREDENTIALS}
    with over_tls(tmp_path / "ca.pem", parameter, client=tmp_path) as url:
        options |= {"endpoint_url": url, "verify": str(tmp_path / "ca.pem")}

        def value(client_cert: Any) -> str | None:
            backend = SystemsManagerParameterStoreBackend(**options, config_kwargs={"client_cert": client_cert})
            return backend.get_variable("x")

        assert value([certificate, key]) == "over TLS"
        others, locked, nowhere = "others.key", "locked.key", "nowhere.key"
        trustme.CA().issue_cert("other@example.com").private_key_pem.write_to_path(others)
        password = serialization.BestAvailableEncryption(b"p")
        plain = serialization.load_pem_private_key(Path(key).read_bytes(), None)
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        Path(locked).write_bytes(plain.private_bytes(*form, password))
        for unusable in (certificate, nowhere, *([certificate, one] for one in (nowhere, others, locked))):
            with pytest.raises(StoreMisconfigured, match=r"client certificate .* cannot be read .*PEM") as raised:
                value(unusable)
            assert raised.value.on_the_way
            assert unusable[-1] in str(raised.value)
        options["endpoint_url"] = url.replace("https", "HTTPS")
        with pytest.raises(StoreMisconfigured, match="client certificate"):
            value([certificate, locked])
    config = {"proxies_config": {"proxy_client_cert": [certificate, locked]}}
    with pytest.raises(StoreMisconfigured, match="client certificate"):
        SystemsManagerParameterStoreBackend(**options, config_kwargs=config).get_variable("x")


@pytest.mark.parametrize("by", ["verify", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bundle_that_holds_no_certificate_is_told(
    tls: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, content: str | None
) -> None:
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    options: dict[str, Any] = {"region_name": REGION, "endpoint_url": tls[0], **CREDENTIALS}
    if by == "verify":
        options["verify"] = str(bundle)
    else:
        monkeypatch.setenv(by, str(bundle))
    with pytest.raises(StoreMisconfigured) as raised:
        SystemsManagerParameterStoreBackend(**options).get_variable("x")
    fault = "SSLError" if content else "FileNotFoundError"
    assert f"the CA bundle '{bundle}' cannot be read ({fault}). Correct 'verify', AWS_CA_BUNDLE" in str(raised.value)
    assert raised.value.on_the_way


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verify_false_as_a_raw_string(tls: tuple[str, Path]) -> None:
    options = {"region_name": REGION, "endpoint_url": tls[0], **CREDENTIALS}
    assert SystemsManagerParameterStoreBackend(**options, verify="false").get_variable("x") == "over TLS"


WAYS_TO_A_ROLE = ["assume_role", "assume_role_with_web_identity"]


def options_over_tls(way: str, ssm_url: str, sts_url: str, directory: Path) -> dict[str, Any]:
    token = directory / "token"
    token.write_text("a.jwt")
    return {
        "region_name": REGION,
        "endpoint_url": ssm_url,
        "service_config": {"sts": {"endpoint_url": sts_url}},
        "role_arn": ROLE,
        "assume_role_method": way,
        "assume_role_with_web_identity_federation": "file",
        "assume_role_with_web_identity_token_file": str(token),
        "max_attempts": 1,
        **CREDENTIALS,
    }


@pytest.mark.parametrize("way", WAYS_TO_A_ROLE)
def test_verify_is_of_the_store_and_not_of_sts(
    tls: tuple[str, Path], sts_tls: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A private bundle, of a VPC endpoint for example, knows nothing of STS's certificate."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(sts_tls[1]))
    options = options_over_tls(way, tls[0], sts_tls[0], tmp_path)
    backend = SystemsManagerParameterStoreBackend(**options, verify=str(tls[1]))
    assert backend.get_variable("x") == "over TLS"
    store = loaded_store(backend.config)
    assert "/airflow/" in store.identify(store.connect()).who


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("way", WAYS_TO_A_ROLE)
def test_verify_false_sends_no_login_to_an_sts_that_nobody_trusts(
    tls: tuple[str, Path],
    sts_tls: tuple[str, Path],
    sts: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls[1]))
    options = options_over_tls(way, tls[0], sts_tls[0], tmp_path)
    with pytest.raises(StoreMisconfigured, match=r"CERTIFICATE_VERIFY_FAILED.*AWS_CA_BUNDLE"):
        SystemsManagerParameterStoreBackend(**options, verify="false").get_variable("x")
    assert sts.requests == []
