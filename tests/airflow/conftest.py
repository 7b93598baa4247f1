"""Fixtures: an Airflow home for each test, and one migrated database for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.airflow.process import Airflow
from tests.conftest import _running
from tests.rigs.aws import AwsRig, SecretsManagerRig, SsmRig


@pytest.fixture
def airflow(tmp_path: Path) -> Airflow:
    return Airflow(tmp_path)


@pytest.fixture(params=(SsmRig, SecretsManagerRig), ids=lambda rig: rig.name)
def aws(request: pytest.FixtureRequest) -> AwsRig:
    rig = _running(request.param)
    assert isinstance(rig, AwsRig)
    return rig


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty metastore; to be copied."""
    airflow = Airflow(tmp_path_factory.mktemp("database"))
    migrated = airflow.run("db", "migrate")
    assert migrated.code == 0, migrated.everything
    return airflow.home / "airflow.db"
