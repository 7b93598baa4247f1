"""Airflow starts with our backend configured, whoever is imported first, and stops for what must be mended."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest

from tests.rigs.aws import AwsRig, SsmRig
from tests.support.airflow_process import Airflow

DATABASE = "sqlite:////tmp/from-the-store.db"


@pytest.fixture
def booted(airflow: Airflow, aws: AwsRig) -> Airflow:
    """An Airflow whose database's address is in the store alone."""
    aws.put(aws.path("config", "boot"), DATABASE)
    airflow.use(aws, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET="boot")
    return airflow


@pytest.mark.long
def test_version(airflow: Airflow, aws: AwsRig) -> None:
    airflow.use(aws)
    with aws.counted() as calls:
        run = airflow.run("version")
    assert run.last_line == importlib.metadata.version("apache-airflow")
    assert "Traceback" not in run.everything
    assert calls == []


@pytest.mark.long
def test_import_of_airflow(booted: Airflow) -> None:
    run = booted.python("import airflow; print('imported')")
    assert run.last_line == "imported"
    assert "Traceback" not in run.everything


@pytest.mark.long
def test_our_module_imported_first(booted: Airflow, aws: AwsRig) -> None:
    module, _, name = aws.class_path.rpartition(".")
    run = booted.python(
        f"from {module} import {name} as Backend; import airflow.settings, airflow.models; print(Backend().store)"
    )
    assert run.last_line == aws.backend_class.store  # type: ignore[attr-defined]
    assert "Traceback" not in run.everything


@pytest.mark.each_rig_in_ci
def test_secret_option_at_boot_by_one_client(booted: Airflow, aws: AwsRig) -> None:
    """Airflow builds many backends while it starts: they share one client and so one connection."""
    connections = aws.proxy.connections
    with aws.counted() as calls:
        run = booted.python(
            """
            import airflow.settings
            from airflow.configuration import conf
            print(conf.get("database", "sql_alchemy_conn"))
            """
        )
    assert run.last_line == DATABASE
    assert calls == [aws.path("config", "boot")]
    assert aws.proxy.connections - connections == 1


@pytest.mark.each_rig_in_ci
def test_secret_option_that_is_absent_is_warned_about(booted: Airflow, aws: AwsRig) -> None:
    aws.remove(aws.path("config", "boot"))
    run = booted.run("config", "get-value", "database", "sql_alchemy_conn")
    assert run.last_line == f"sqlite:///{booted.home}/airflow.db"
    assert "has no configuration value 'boot': Airflow falls back to the option's default." in run.everything


def in_ci(*values: str) -> Any:
    """One case of several, each of which takes a start of Airflow."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("backend_kwargs", "said"),
    [
        in_ci('{"profile_name": "S3cr3t"', "[secrets] backend_kwargs is not valid JSON (line 1, column 26)"),
        in_ci("{'profile_name': 'S3cr3t'}", "[secrets] backend_kwargs is not valid JSON (line 1, column 2)"),
        in_ci('["S3cr3t"]', "[secrets] backend_kwargs is JSON but not an object"),
        ('{"connection_prefix": "S3cr3t"}', "unknown option 'connection_prefix'; did you mean 'connections_prefix'?"),
        in_ci(
            '{"connections_lookup_pattern": "S3cr3t("}',
            "option 'connections_lookup_pattern' is not a regular expression",
        ),
        in_ci('{"variables_prefix": ["S3cr3t"]}', "option 'variables_prefix' must be a string or null"),
        in_ci(
            '{"aws_access_key_id": "S3cr3t"}',
            "'aws_access_key_id' and 'aws_secret_access_key' are needed both or neither",
        ),
    ],
    ids=["unclosed", "single-quotes", "list", "unknown", "pattern", "prefix", "half-a-key"],
)
def test_wrong_backend_kwargs_stop_airflow_in_words(
    airflow: Airflow, ssm: SsmRig, backend_kwargs: str, said: str
) -> None:
    airflow.use(ssm, backend_kwargs)
    run = airflow.run("version")
    assert run.code != 0
    last = run.errors.rstrip().splitlines()[-1]
    assert last.startswith("airflow_providers_secrets.errors.ConfigurationError: ")
    assert said in last
    assert "S3cr3t" not in run.everything
    # Airflow's own traceback, once, and none of ours chained to it.
    assert run.errors.count("Traceback (most recent call last)") == 1
