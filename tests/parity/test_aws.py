"""Side by side with the official classes, on the same server: the same names asked, the same answers given.

Not part of the tests, which need no official provider: ``tox -e parity`` installs it.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
from typing import Any

import pytest

from airflow_providers_secrets.errors import ConfigurationError, InvalidSecret, SecretRevoked
from airflow_providers_secrets.lookup import answers
from airflow_providers_secrets.testing.proxy import Reply
from tests.parity.reading import observed, read
from tests.rigs.aws import AwsRig, SecretsManagerRig, SsmRig

OFFICIAL = {
    "ssm": ("systems_manager", "SystemsManagerParameterStoreBackend"),
    "secretsmanager": ("secrets_manager", "SecretsManagerBackend"),
}
PREFIXES = ["/airflow/connections", "airflow/connections", "airflow/connections/", "a", "", "/", None]
IDS = ["smtp_default", "Upper", "with-dash", "with.dot", "a/b", "under_score", "a--b"]
STORED = [
    "postgres://u:p@h:5432/db",
    "http://https%3A%2F%2Fexample.com",
    '{"conn_type": "http", "host": "https://example.com"}',
    '{"conn_type": "x", "extra": {"a": 1}}',
    "aws:///?endpoint_url=http://minio:9000&region_name=us-east-1",
    "aws://?endpoint_url=https://s3.example.com&role_arn=arn:aws:iam::123456789012:role/x",
    '{"conn_type": "postgres", "host": "h", "port": 5432.0}',
    '{"conn_type": "http", "host": "h", "extra": false}',
    "{}",
]
BY_OTHER_WORDS = [
    '{"user": "u", "pass": "p", "server": "h", "database": "d", "connection_type": "mysql", "port": 3306}',
    '{"username": "first", "login": "second", "engine": "postgres"}',
]


@pytest.fixture(params=[SsmRig, SecretsManagerRig], ids=lambda rig: rig.name)
def rig(request: pytest.FixtureRequest) -> AwsRig:
    rig: AwsRig = request.param()
    return rig


def official(rig: AwsRig, **options: Any) -> Any:
    module, name = OFFICIAL[rig.service]
    backend_class = getattr(importlib.import_module(f"airflow.providers.amazon.aws.secrets.{module}"), name)
    return backend_class(**{**rig.options(), **options})


@pytest.mark.parametrize(("prefix", "pattern"), itertools.product(PREFIXES, [None, "^a", "UPPER|under"]))
@pytest.mark.parametrize("method", ["get_conn_value", "get_variable", "get_config"])
def test_the_same_names_are_asked(rig: AwsRig, method: str, prefix: str | None, pattern: str | None) -> None:
    kind = {"get_conn_value": "connections", "get_variable": "variables", "get_config": "config"}[method]
    options = {f"{kind}_prefix": prefix, f"{kind}_lookup_pattern": pattern}
    theirs, ours = official(rig, **options), rig.backend(**options)
    for secret_id in IDS:
        assert observed(rig, ours, method, secret_id) == observed(rig, theirs, method, secret_id)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_teams_ask_the_same_names(rig: AwsRig, prefix: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    theirs, ours = official(rig, variables_prefix=prefix), rig.backend(variables_prefix=prefix)
    for secret_id, team in itertools.product(IDS, ["red", "team_a", "a-b", None]):
        asked = [observed(rig, one, "get_variable", secret_id, team_name=team) for one in (ours, theirs)]
        assert asked[0] == asked[1], (secret_id, team)


@pytest.mark.parametrize("stored", BY_OTHER_WORDS)
def test_the_same_words_are_known(stored: str) -> None:
    test_the_same_connections_are_given(SecretsManagerRig(), stored)


@pytest.mark.parametrize("stored", STORED)
def test_the_same_connections_are_given(rig: AwsRig, stored: str) -> None:
    answers.reset_after_fork()
    rig.put(rig.path("connections", "parity"), stored)
    ours, theirs = (read(backend.get_conn_value("parity")) for backend in (rig.backend(), official(rig)))
    assert ours == theirs


@pytest.mark.parametrize("stored", ["spark://spark://spark-master:7077", "http://http://api.example.com"])
def test_listed_misread_connections_are_named(rig: AwsRig, stored: str) -> None:
    rig.put(rig.path("connections", "misread"), stored)
    assert official(rig).get_conn_value("misread") == stored
    with pytest.raises(InvalidSecret):
        rig.backend().get_conn_value("misread")


def test_uri_in_json() -> None:
    """Airflow reads it on SSM; on Secrets Manager the official class drops it, which is listed."""
    uri = "postgres://u:p@h:5432/db"
    for rig in (SsmRig(), SecretsManagerRig()):
        rig.put(rig.path("connections", "uri-field"), json.dumps({"uri": uri}))
        theirs = read(official(rig).get_conn_value("uri-field"))
        assert read(rig.backend().get_conn_value("uri-field")) == read(uri)
        assert theirs == (read(uri) if rig.service == "ssm" else read("{}"))


RDS = {"engine": "postgres", "username": "u", "password": "p", "host": "h", "port": 5432}


def test_fields_that_are_no_connections() -> None:
    rig = SecretsManagerRig()
    stored = {**RDS, "environment": "prod", "masterarn": "arn", "dbInstanceIdentifier": "i"}
    rig.put(rig.path("connections", "rds"), json.dumps(stored))
    theirs = read(official(rig).get_conn_value("rds"))
    assert read(rig.backend().get_conn_value("rds")) == theirs
    assert theirs["extra_dejson"] is None
    # Listed: kept here, dropped there.
    rig.put(rig.path("connections", "rds-more"), json.dumps({**stored, "dbname": "d", "description": "of it"}))
    assert read(rig.backend().get_conn_value("rds-more")) == {**theirs, "schema": "d", "description": "of it"}
    assert read(official(rig).get_conn_value("rds-more")) == theirs
    # Listed: a real conn_type is the type.
    rig.put(rig.path("connections", "typed"), '{"conn_id": "x", "conn_type": "postgres"}')
    assert read(rig.backend().get_conn_value("typed"))["conn_type"] == "postgres"
    assert read(official(rig).get_conn_value("typed"))["conn_type"] == "x"


def test_more_words() -> None:
    rig = SecretsManagerRig()
    rig.put(rig.path("connections", "words"), '{"conn_type": "x", "benutzer": "u", "kennwort": "p", "ort": "h"}')
    options = {"extra_conn_words": {"user": ["benutzer"], "password": ["kennwort"], "host": ["ort"]}}
    ours, theirs = (backend.get_conn_value("words") for backend in (rig.backend(**options), official(rig, **options)))
    assert read(ours) == read(theirs)


WHOLE_NAMES = ["rds!db-9f0c1d5e-1111", "rds!cluster-0a1b", "with+plus=and@at", "/prod/db"]


@pytest.mark.parametrize("name", WHOLE_NAMES)
def test_whole_names(name: str) -> None:
    rig = SecretsManagerRig()
    rig.put(name, json.dumps(RDS))
    ours, theirs = rig.backend(connections_prefix=""), official(rig, connections_prefix="")
    (our_text, our_names), (their_text, their_names) = (
        observed(rig, backend, "get_conn_value", name) for backend in (ours, theirs)
    )
    assert read(our_text or "") == read(their_text or "")
    assert our_names == their_names


@pytest.mark.parametrize("suffix", [True, False], ids=["whole", "partial"])
def test_secrets_by_arn(suffix: bool) -> None:
    rig = SecretsManagerRig()
    rig.put("prod/by-arn", "found")
    arn: str = rig.client.describe_secret(SecretId="prod/by-arn")["ARN"]
    arn = arn if suffix else arn[: -len("-AbCdEf")]
    prefix, _, last = arn.rpartition("/")
    for options, secret_id in (({"variables_prefix": ""}, arn), ({"variables_prefix": prefix}, last)):
        ours, theirs = rig.backend(**options), official(rig, **options)
        how = ("get_variable", secret_id)
        assert observed(rig, ours, *how) == observed(rig, theirs, *how) == ("found", [arn])


def test_parameter_without_a_root() -> None:
    """Stored as ``rootless``, asked for as ``/rootless``, and answered under its own name."""
    rig = SsmRig()
    ours, theirs = rig.backend(variables_prefix=""), official(rig, variables_prefix="")
    reply = Reply(
        200, json.dumps(rig.answer("rootless", "found")).encode(), {"Content-Type": "application/x-amz-json-1.1"}
    )
    with rig.proxy.fault(lambda _: reply):
        how = ("get_variable", "rootless")
        assert observed(rig, ours, *how) == observed(rig, theirs, *how) == ("found", ["/rootless"])


@pytest.mark.parametrize("secret_id", ["../connections/x", "a//b", "a/", "found:1"])
def test_listed_ids_are_refused(secret_id: str) -> None:
    rig = SsmRig()
    assert observed(rig, rig.backend(), "get_variable", secret_id) == (None, [])
    theirs = official(rig)
    with rig.counted() as calls, contextlib.suppress(Exception):
        theirs.get_variable(secret_id)
    assert calls == [f"/airflow/variables/{secret_id}"]


def test_listed_configuration_is_of_no_team(rig: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    rig.put(rig.path("config", "some--option"), "x")
    assert rig.backend().get_config("some--option") == "x"
    assert observed(rig, official(rig), "get_config", "some--option") == (None, [])


def test_listed_answers_are_no_absence() -> None:
    rig = SecretsManagerRig()
    rig.client.create_secret(Name="airflow/variables/binary", SecretBinary=b"x")
    rig.put(rig.path("variables", "deleted"), "x")
    rig.client.delete_secret(SecretId="airflow/variables/deleted")
    ours, theirs = rig.backend(), official(rig)
    for key, error in (("binary", InvalidSecret), ("deleted", SecretRevoked)):
        assert theirs.get_variable(key) is None
        with pytest.raises(error):
            ours.get_variable(key)


EMPTY = (
    *("aws_session_token", "profile_name", "role_arn", "assume_role_method", "assume_role_kwargs", "api_version"),
    *("assume_role_with_web_identity_federation", "assume_role_with_web_identity_token_file", "service_config"),
    *("assume_role_with_web_identity_federation_audience", "session_kwargs", "config_kwargs", "verify"),
    *("variables_lookup_pattern", "connections_lookup_pattern", "config_lookup_pattern"),
)


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_empty_options(rig: AwsRig, name: str) -> None:
    """An empty string is "not given"; for few options the official class fails on it, which is listed."""
    ours = observed(rig, rig.backend(**{name: ""}), "get_variable", "absent")
    assert ours == (None, [rig.path("variables", "absent")])
    try:
        theirs = observed(rig, official(rig, **{name: ""}), "get_variable", "absent")
    except Exception:  # whatever it fails with
        assert name in FAIL_OFFICIALLY
    else:
        assert ours == theirs
        assert name not in FAIL_OFFICIALLY


FAIL_OFFICIALLY = {"api_version", "profile_name", "verify"}


def test_empty_credentials(rig: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment says them."""
    given = rig.options()
    for name in ("aws_access_key_id", "aws_secret_access_key"):
        monkeypatch.setenv(name.upper(), given[name])
    empty = {"aws_access_key_id": "", "aws_secret_access_key": ""}
    rig.put(rig.path("variables", "ambient"), "found")
    ours, theirs = rig.backend(**empty), official(rig, **empty)
    how = ("get_variable", "ambient")
    expected = ("found", [rig.path("variables", "ambient")])
    assert observed(rig, ours, *how) == observed(rig, theirs, *how) == expected


def test_listed_empty_address(rig: AwsRig) -> None:
    assert rig.backend(endpoint_url="").options["endpoint_url"] is None
    with pytest.raises(ValueError, match="endpoint"):
        official(rig, endpoint_url="").get_variable("x")


def test_listed_empty_region(rig: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Officially requests are signed for no region; here the environment says it."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert official(rig, region_name="").client.meta.region_name == ""
    assert observed(rig, rig.backend(region_name=""), "get_variable", "absent")[0] is None


def test_listed_empty_use_ssl(rig: AwsRig) -> None:
    theirs = official(rig, use_ssl="", endpoint_url=None)
    assert theirs.client.meta.endpoint_url.startswith("http://")
    assert rig.backend(use_ssl="", endpoint_url=None).options["use_ssl"] is True


IGNORED = (
    *("full_url_mode", "are_secret_values_urlencoded", "host", "profile", "s3_config_file", "s3_config_format"),
    *("external_id", "aws_account_id"),
)


@pytest.mark.parametrize("name", IGNORED)
def test_options_of_other_releases(rig: AwsRig, name: str) -> None:
    """Without a role to assume, none changes anything, here with a warning."""
    with pytest.warns(DeprecationWarning, match=name):
        ours = rig.backend(**{name: "x"})
    theirs = official(rig, **{name: "x"})
    assert observed(rig, ours, "get_variable", "absent") == observed(rig, theirs, "get_variable", "absent")


def region_signed_for(rig: AwsRig, backend: Any) -> str:
    before = len(rig.requests)
    assert backend.get_variable("absent") is None
    (request,) = rig.requests[before:]
    return str(request.headers["Authorization"].split("/")[2])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_listed_region_in_session_kwargs(rig: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    given = {"region_name": None, "session_kwargs": {"region_name": "eu-south-1"}}
    assert region_signed_for(rig, official(rig, **given)) == "us-west-2"
    assert region_signed_for(rig, rig.backend(**given)) == "eu-south-1"


def test_listed_null_as_text(rig: AwsRig) -> None:
    theirs, ours = official(rig, variables_prefix="null"), rig.backend(variables_prefix="null")
    assert observed(rig, theirs, "get_variable", "x") == (None, [rig.path("variables", "x", "null")])
    assert observed(rig, ours, "get_variable", "x") == (None, [])


@pytest.mark.parametrize("given", [{"variables_lookup_pattern": "["}, {"variables_prefix": "a b"}], ids=str)
def test_listed_values_that_no_option_can_have(rig: AwsRig, given: dict[str, str]) -> None:
    official(rig, **given)
    with pytest.raises(ConfigurationError):
        rig.backend(**given)


def test_listed_unknown_option(rig: AwsRig) -> None:
    official(rig, regio_name="x")
    with pytest.raises(ConfigurationError, match="did you mean 'region_name'"):
        rig.backend(regio_name="x")
