"""What works with the official class works here, on every store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_providers_secrets.errors import ConfigurationError, InvalidSecret, LookupFailed
from airflow_providers_secrets.testing.lookups import LOOKUP, ask, warned
from airflow_providers_secrets.testing.rig import Rig

POSTGRES = {"conn_type": "postgres", "login": "u", "password": "p", "host": "h", "port": 5432, "schema": "d"}


@pytest.mark.each_rig_in_ci
@pytest.mark.parametrize(
    "uri",
    [
        "aws:///?endpoint_url=http://minio:9000&region_name=us-east-1",
        "aws://?endpoint_url=https://s3.example.com&role_arn=arn:aws:iam::123456789012:role/x",
    ],
)
def test_uri_with_a_url_in_its_query_is_given_as_typed(rig: Rig, uri: str) -> None:
    rig.put(rig.path("connections", "query"), uri)
    assert rig.backend().get_conn_value("query") == uri


@pytest.mark.each_rig_in_ci
@pytest.mark.parametrize("uri", ["spark://spark://spark-master:7077", "http://http://api.example.com"])
def test_uri_that_airflow_misreads_is_named(rig: Rig, uri: str) -> None:
    rig.put(rig.path("connections", "misread"), uri)
    with pytest.raises(InvalidSecret, match=r"second '://'.*'%3A%2F%2F'"):
        rig.backend().get_conn_value("misread")


@pytest.mark.each_rig_in_ci
@pytest.mark.parametrize("more", [{"port": 5432.0}, {"extra": False}])
def test_json_that_airflow_reads_is_given(rig: Rig, more: dict[str, Any]) -> None:
    rig.put(rig.path("connections", "loose"), json.dumps({**POSTGRES, **more}))
    assert json.loads(rig.backend().get_conn_value("loose")) == {**POSTGRES, **more}


@pytest.mark.each_rig_in_ci
def test_uri_in_json_is_given(rig: Rig) -> None:
    rig.put(rig.path("connections", "uri-field"), '{"uri": "postgres://u:p@h:5432/db"}')
    assert rig.backend().get_conn_value("uri-field") == "postgres://u:p@h:5432/db"


@pytest.mark.each_rig_in_ci
def test_unknown_fields_go_where_the_option_says(rig: Rig) -> None:
    rig.put(rig.path("connections", "unknown"), json.dumps({**POSTGRES, "environment": "prod"}))
    dropped = rig.backend(unknown_fields="drop").get_conn_value("unknown")
    assert json.loads(dropped) == POSTGRES
    moved = rig.backend(unknown_fields="extra").get_conn_value("unknown")
    assert json.loads(moved) == {**POSTGRES, "extra": {"environment": "prod"}}
    with pytest.raises(InvalidSecret, match="unknown connection field 'environment'"):
        rig.backend(unknown_fields="refuse").get_conn_value("unknown")


@pytest.mark.each_rig_in_ci
def test_extra_conn_words(rig: Rig) -> None:
    rig.put(rig.path("connections", "more-words"), '{"conn_type": "x", "benutzer": "u", "kennwort": "p"}')
    backend = rig.backend(extra_conn_words={"user": ["benutzer"], "password": ["kennwort"]})
    assert json.loads(backend.get_conn_value("more-words")) == {"conn_type": "x", "login": "u", "password": "p"}
    with pytest.raises(ConfigurationError, match="extra_conn_words"):
        rig.backend(extra_conn_words={"pasword": ["kennwort"]})


MISPLACED = ["postgresql+psycopg2://airflow:S3cr3t@db:5432/airflow", "airflow:S3cr3t@db", "S3cr3t@db:5432/airflow"]


@pytest.mark.each_rig_in_ci
@pytest.mark.parametrize("secret_id", MISPLACED)
@pytest.mark.parametrize("kind", LOOKUP)
def test_connection_string_in_place_of_an_id_is_not_shown(
    rig: Rig, kind: str, secret_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = ""
    caplog.set_level("DEBUG", "airflow_providers_secrets")
    try:
        assert ask(rig.backend(), kind, secret_id) is None
    except LookupFailed as error:  # what AWS Secrets Manager and Vault allow in a name
        told = f"{error!r} {error.name}"
    told += "".join(record.getMessage() for record in caplog.records if record.name.startswith("airflow_prov"))
    assert "S3cr3t" not in told
    if "://" in secret_id:
        refusals = [message for message in warned(caplog) if "not looked up" in message]
        assert len(refusals) == 1
        assert "'postgresql+psycopg2://…'" in refusals[0]
        assert "*_secret option hold that id" in refusals[0]


@pytest.mark.each_rig_in_ci
def test_a_backend_whose_constructor_failed_has_a_repr(rig: Rig) -> None:
    backend_class: Any = rig.backend_class
    backend = backend_class.__new__(backend_class)
    with pytest.raises(ConfigurationError):
        backend.__init__(no_such_option=1)
    assert type(backend).__name__ in repr(backend)


@pytest.mark.each_rig_in_ci
@pytest.mark.usefixtures("multi_team")
def test_configuration_is_of_no_team(rig: Rig) -> None:
    rig.put(rig.path("config", "some--option"), "x")
    assert rig.backend().get_config("some--option") == "x"
    assert rig.backend().get_variable("some--option") is None
