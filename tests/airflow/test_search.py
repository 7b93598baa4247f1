"""Where Airflow looks, in which order, and by whose settings: on the server's side and in tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rigs.aws import AwsRig, SsmRig
from tests.support.airflow_process import COMMANDS, VERSION, Airflow

PLACES = ("store", "environment", "metastore")
PRINT_ALL = """
for place in ("store", "environment", "metastore"):
    print("VARIABLE", Variable.get("from_" + place))
    print("CONNECTION", BaseHook.get_connection("from_" + place).host)
"""


@pytest.fixture
def everywhere(airflow: Airflow, aws: AwsRig, database: Path) -> Airflow:
    """The metastore holds all ids, the environment all but the last, the store the first alone."""
    airflow.use_database(database)
    aws.put(aws.path("variables", "from_store"), "in-store")
    aws.put(aws.path("connections", "from_store"), "http://in-store")
    for place in PLACES[:2]:
        airflow.environment[f"AIRFLOW_VAR_FROM_{place.upper()}"] = "in-environment"
        airflow.environment[f"AIRFLOW_CONN_FROM_{place.upper()}"] = "http://in-environment"
    filled = airflow.python(
        COMMANDS.format(
            commands=[
                command
                for place in PLACES
                for command in (
                    ["variables", "set", f"from_{place}", "in-metastore"],
                    ["connections", "add", f"from_{place}", "--conn-uri", "http://in-metastore"],
                )
            ]
        )
    )
    assert filled.code == 0, filled.everything
    return airflow


def asked(aws: AwsRig, calls: list[str], place: str) -> int:
    """How often the store was asked for the variable."""
    return calls.count(aws.path("variables", f"from_{place}"))


@pytest.mark.each_airflow
def test_server_asks_the_store_then_the_environment_then_the_metastore(everywhere: Airflow, aws: AwsRig) -> None:
    everywhere.use(aws)
    commands = [
        command
        for place in PLACES
        for command in (["variables", "get", f"from_{place}"], ["connections", "get", f"from_{place}", "-o", "json"])
    ]
    with aws.counted() as calls:
        run = everywhere.python(COMMANDS.format(commands=commands))
    lines = run.output.splitlines()
    values = [line for line in lines if line in {f"in-{place}" for place in PLACES}]
    hosts = [json.loads(line)[0]["host"] for line in lines if line.startswith("[{")]
    assert values == hosts == ["in-store", "in-environment", "in-metastore"], run.everything
    assert [asked(aws, calls, place) for place in PLACES] == [1, 1, 1]


@pytest.mark.each_rig_in_ci
def test_task_asks_the_store_then_the_environment_then_the_execution_api(everywhere: Airflow, aws: AwsRig) -> None:
    """A miss costs a second lookup from Airflow 3.0 on: the API server asks its own backend again. (Both are one
    process in this command, so that a cache would hide it.)"""
    everywhere.use(aws, {"cache_ttl": 0})
    everywhere.dag("search", PRINT_ALL)
    with aws.counted() as calls:
        run = everywhere.run("dags", "test", "search")
    assert run.printed("VARIABLE") == ["in-store", "in-environment", "in-metastore"], run.everything
    assert run.printed("CONNECTION") == ["in-store", "in-environment", "in-metastore"]
    assert [asked(aws, calls, place) for place in PLACES] == [1, 1, 2 if VERSION >= (3, 0) else 1]


@pytest.mark.long
def test_without_a_backend_nothing_changes(everywhere: Airflow, aws: AwsRig) -> None:
    """Scenario S1."""
    with aws.counted() as calls:
        run = everywhere.python(COMMANDS.format(commands=[["variables", "get", f"from_{place}"] for place in PLACES]))
    assert run.output.split()[-3:] == ["in-environment", "in-environment", "in-metastore"], run.everything
    assert calls == []


def test_single_options_as_raw_strings(airflow: Airflow, ssm: SsmRig) -> None:
    """From Airflow 3.2 on each option can be set, or overridden, by a variable of its own; before, it is ignored."""
    ssm.put("/other/c/raw", "http://other")
    ssm.put("/airflow/connections/raw", "http://official")
    airflow.use(ssm, {"connections_prefix": "/airflow/connections", "max_attempts": 1})
    single = "AIRFLOW__SECRETS__BACKEND_KWARG__"
    with ssm.counted() as calls:
        run = airflow.python(
            COMMANDS.format(commands=[["connections", "get", "raw", "-o", "json"]])
            + "from airflow.configuration import ensure_secrets_loaded\n"
            + "(backend,) = [b for b in ensure_secrets_loaded() if type(b).__module__.startswith('airflow_providers')]\n"
            + "print('OPTIONS', [backend.options[n] for n in ('variables_prefix', 'max_attempts', 'use_ssl', 'timeout')])\n"
            + "print('VARIABLE', backend.get_variable('raw'))\n",
            **{
                f"{single}CONNECTIONS_PREFIX": "/other/c",
                f"{single}VARIABLES_PREFIX": "null",
                f"{single}MAX_ATTEMPTS": "2",
                f"{single}USE_SSL": "false",
                f"{single}TIMEOUT": "7.5",
                f"{single}CONFIG_KWARGS": '{"tcp_keepalive": true}',
            },
        )
    assert run.code == 0, run.everything
    if VERSION >= (3, 2):
        assert calls == ["/other/c/raw"]
        assert run.printed("OPTIONS") == ["[None, 2, False, 7.5]"]
    else:
        assert calls == ["/airflow/connections/raw", "/airflow/variables/raw"]
        assert run.printed("OPTIONS") == ["['/airflow/variables', 1, True, 10.0]"]


@pytest.mark.long
def test_unknown_single_option_stops_airflow_where_it_is_read(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm)
    run = airflow.run("version", AIRFLOW__SECRETS__BACKEND_KWARG__CONNECTION_PREFIX="S3cr3t")
    if VERSION >= (3, 2):
        assert "unknown option 'connection_prefix'; did you mean 'connections_prefix'?" in run.errors.splitlines()[-1]
        assert "S3cr3t" not in run.everything
    else:
        assert run.code == 0


@pytest.mark.long
def test_worker_settings_override_in_tasks_alone(airflow: Airflow, ssm: SsmRig, database: Path) -> None:
    """``[workers] secrets_backend*`` came with Airflow 3.0; before, ``[secrets]`` holds for tasks too."""
    for whose in ("worker", "server"):
        ssm.put(f"/{whose}/v/greeting", f"the-{whose}-s")
    airflow.use_database(database)
    airflow.use(ssm, {"variables_prefix": "/server/v"})
    airflow.environment["AIRFLOW__WORKERS__SECRETS_BACKEND"] = ssm.class_path
    airflow.environment["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"] = json.dumps({"variables_prefix": "/worker/v"})
    airflow.dag("workers", 'print("GREETING", Variable.get("greeting"))')
    assert airflow.run("variables", "get", "greeting").last_line == "the-server-s"
    run = airflow.run("dags", "test", "workers")
    assert run.printed("GREETING") == ["the-worker-s" if VERSION >= (3, 0) else "the-server-s"], run.everything
