"""``airflow-secrets check`` with an Airflow that is configured for a store."""

from __future__ import annotations

import sys

from tests.airflow.process import Airflow, Ended
from tests.airflow.test_shared import KEY
from tests.rigs.aws import AwsRig, SsmRig


def checked(airflow: Airflow, *arguments: str) -> Ended:
    return airflow._run([sys.executable, "-m", "airflow_providers_secrets.cli", "check", *arguments], {})


def test_a_store_that_answers_is_healthy(airflow: Airflow, aws: AwsRig) -> None:
    airflow.use(aws)
    with aws.counted() as calls:
        run = checked(airflow)
    assert run.code == 0, run.everything
    assert sorted(set(calls)) == [aws.path(kind, "airflow-secrets-check") for kind in ("connections", "variables")]
    assert run.output.count("absent") == 2
    assert f"{type(aws).backend_class.__module__.rpartition('.')[2]}: calls 2" in run.output


def test_each_lookup_is_told_and_no_value(airflow: Airflow, ssm: SsmRig) -> None:
    ssm.put(ssm.path("variables", "there"), "S3cr3t-value")
    ssm.put(ssm.path("connections", "faulty"), "S3cr3t-value")
    airflow.use(ssm, {"variables_exclude_pattern": "never"})
    run = checked(airflow, "--variable", "there")
    assert (run.code, "found" in run.output) == (0, True), run.everything
    run = checked(airflow, "--variable", "there", "--variable", "gone", "--variable", "never")
    assert run.code == 1, run.everything
    assert "variables_exclude_pattern" in run.output
    assert "S3cr3t" not in run.everything
    run = checked(airflow, "--connection", "faulty")
    assert run.code == 3, run.everything
    assert "neither a JSON object nor a URI" in run.output
    assert "S3cr3t" not in run.everything


def test_a_store_that_denies_is_told(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm)
    with ssm.fault("denied"):
        run = checked(airflow)
    assert run.code == 3
    assert "AccessDeniedException. Allow the backend's identity" in run.output


def test_a_configuration_that_must_be_mended_is_told(airflow: Airflow, ssm: SsmRig) -> None:
    run = checked(airflow)
    assert run.code == 2
    assert "names no backend of this package" in run.errors
    airflow.use(ssm, {"shared_cache": "file:///proc/no-such-place"}, AIRFLOW__CORE__FERNET_KEY=KEY)
    run = checked(airflow)
    assert run.code == 2
    assert "'shared_cache': /proc/no-such-place cannot be used" in run.errors
