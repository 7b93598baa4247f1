"""Fixtures: an Airflow home for each test, and one migrated database for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.airflow_process import Airflow


@pytest.fixture
def airflow(tmp_path: Path) -> Airflow:
    return Airflow(tmp_path)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty metastore; to be copied."""
    airflow = Airflow(tmp_path_factory.mktemp("database"))
    migrated = airflow.run("db", "migrate")
    assert migrated.code == 0, migrated.everything
    return airflow.home / "airflow.db"
