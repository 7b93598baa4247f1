"""The shared cache between real processes of Airflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rigs.aws import SsmRig
from tests.support.airflow_process import AIRFLOWS_KEY as KEY
from tests.support.airflow_process import COMMANDS, Airflow

GET = COMMANDS.format(commands=[["variables", "get", "shared"]])


@pytest.fixture
def sharing(airflow: Airflow, ssm: SsmRig, tmp_path: Path) -> Airflow:
    ssm.put(ssm.path("variables", "shared"), "x")
    airflow.use(ssm, {"shared_cache": f"file://{tmp_path}/shared"})
    return airflow


@pytest.mark.each_airflow
def test_commands_share_by_airflows_own_key(sharing: Airflow, ssm: SsmRig) -> None:
    with ssm.counted() as calls:
        for _ in range(2):
            assert sharing.python(GET, AIRFLOW__CORE__FERNET_KEY=KEY).last_line == "x"
    assert calls == [ssm.path("variables", "shared")]


@pytest.mark.long
def test_the_key_that_is_in_the_store_itself_is_read_past_the_cache(sharing: Airflow, ssm: SsmRig) -> None:
    ssm.put(ssm.path("config", "key"), KEY)
    with ssm.counted() as calls:
        for _ in range(2):
            assert sharing.python(GET, AIRFLOW__CORE__FERNET_KEY_SECRET="key").last_line == "x"
    assert calls.count(ssm.path("variables", "shared")) == 1
    assert calls.count(ssm.path("config", "key")) == 2


@pytest.mark.long
def test_a_missing_key_is_told_and_no_weaker_source_asked(sharing: Airflow) -> None:
    run = sharing.python(
        "from airflow.models import Variable; print(Variable.get('shared'))",  # a command would suppress the log
        AIRFLOW__CORE__FERNET_KEY="",
        AIRFLOW_VAR_SHARED="of the environment",
    )
    assert run.last_line == "x"
    assert "[core] fernet_key holds no Fernet key" in run.everything
