"""Chains in real Airflow: a fault of one member never lets another one's value in, on servers and in tasks."""

from __future__ import annotations

import importlib.metadata
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.aws import SecretsManagerRig, SsmRig
from tests.support.airflow_process import COMMANDS, VERSION, Airflow

CHAIN = "airflow_providers_secrets.backends.chain.ChainBackend"
SSM: dict[str, Any] = {"backend": "aws_ssm", "kwargs": {"max_attempts": 1, "timeout": 20, "cache_ttl": 0}}
SECRETS_MANAGER = {"backend": "aws_secrets_manager", "kwargs": {"cache_ttl": 0}}
ASYNC = VERSION >= (3, 2)

LOOK_UP = """
def look_up(what, of):
    try:
        print("FOUND", what, of())
    except Exception as error:
        print("NOT FOUND", what, type(error).__name__)

look_up("variable", lambda: Variable.get("decoy"))
look_up("connection", lambda: BaseHook.get_connection("decoy").host)
"""
LOOK_UP_ASYNC = """
import asyncio

async def wait():
    return (await BaseHook.aget_connection("decoy")).host
look_up("awaited connection", lambda: asyncio.run(wait()))
"""


@pytest.fixture
def stores(airflow: Airflow, ssm: SsmRig, secrets_manager: SecretsManagerRig) -> tuple[SsmRig, SecretsManagerRig]:
    """Both hold what is asked for; the second one's is the decoy. The environment says where they are."""
    for rig, which in ((ssm, "first"), (secrets_manager, "decoy")):
        rig.put(rig.path("variables", "decoy"), f"the-{which}-s")
        rig.put(rig.path("connections", "decoy"), f"http://the-{which}-s")
        airflow.use(rig)
    return ssm, secrets_manager


def use(airflow: Airflow, *members: dict[str, Any]) -> None:
    airflow.environment["AIRFLOW__SECRETS__BACKEND"] = CHAIN
    airflow.environment["AIRFLOW__SECRETS__BACKEND_KWARGS"] = json.dumps({"backends": members})


SERVER = """
try:
    from airflow.sdk import BaseHook  # fails on 2.11
except ImportError:
    pass
from airflow.models import Variable
from airflow.models.connection import Connection

class BaseHook:
    get_connection = staticmethod(Connection.get_connection_from_secrets)
"""


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("denied", marks=pytest.mark.each_airflow),
        *(pytest.param(fault, marks=pytest.mark.long) for fault in ("server-error", "proxy-404", "malformed")),
    ],
)
def test_fault_never_yields_the_decoy_on_a_server(
    airflow: Airflow, stores: tuple[SsmRig, SecretsManagerRig], database: Path, fault: str
) -> None:
    ssm, secrets_manager = stores
    airflow.use_database(database)
    use(airflow, SSM, SECRETS_MANAGER)
    with ssm.fault(fault), secrets_manager.counted() as asked_second:
        run = airflow.python(SERVER + LOOK_UP)
    assert run.printed("NOT FOUND") == ["variable KeyError", "connection AirflowNotFoundException"], run.everything
    assert asked_second == []
    assert "decoy-s" not in run.everything
    assert "Chain member 1 (aws_ssm) failed, and no other member is asked: " in run.everything


@pytest.mark.each_airflow
@pytest.mark.parametrize("optional", [False, True], ids=["stops", "optional"])
def test_fault_never_yields_the_decoy_in_a_task(
    airflow: Airflow, stores: tuple[SsmRig, SecretsManagerRig], database: Path, optional: bool
) -> None:
    ssm, secrets_manager = stores
    airflow.use_database(database)
    use(airflow, {**SSM, "optional": optional}, SECRETS_MANAGER)
    airflow.dag("decoy", LOOK_UP + (LOOK_UP_ASYNC if ASYNC else ""))
    with ssm.fault("denied"), secrets_manager.counted() as asked_second:
        run = airflow.run("dags", "test", "decoy")
    asked_for = ["variable", "connection", *(["awaited connection"] if ASYNC else [])]
    if optional:
        assert run.printed("FOUND") == [f"{what} the-decoy-s" for what in asked_for], run.everything
    else:
        assert [line.rpartition(" ")[0] for line in run.printed("NOT FOUND")] == asked_for, run.everything
        assert asked_second == []
        assert "decoy-s" not in run.everything


@pytest.mark.each_airflow
def test_without_a_fault_the_first_one_answers_in_a_task(
    airflow: Airflow, stores: tuple[SsmRig, SecretsManagerRig], database: Path
) -> None:
    _, secrets_manager = stores
    airflow.use_database(database)
    use(airflow, SSM, SECRETS_MANAGER)
    airflow.dag("first", LOOK_UP + (LOOK_UP_ASYNC if ASYNC else ""))
    with secrets_manager.counted() as asked_second:
        run = airflow.run("dags", "test", "first")
    assert len(run.printed("FOUND")) == (3 if ASYNC else 2), run.everything
    assert all(line.endswith(" the-first-s") for line in run.printed("FOUND"))
    assert asked_second == []


@pytest.mark.each_airflow
def test_fail_ends_the_whole_search(airflow: Airflow, stores: tuple[SsmRig, SecretsManagerRig], database: Path) -> None:
    ssm, secrets_manager = stores
    airflow.use_database(database)
    use(airflow, {**SSM, "optional": True, "kwargs": {**SSM["kwargs"], "on_denied": "fail"}}, SECRETS_MANAGER)
    airflow.dag("final", LOOK_UP + (LOOK_UP_ASYNC if ASYNC else ""))
    decoys = {"AIRFLOW_VAR_DECOY": "the-decoy-s", "AIRFLOW_CONN_DECOY": "http://the-decoy-s"}
    with ssm.fault("denied"), secrets_manager.counted() as asked_second:
        run = airflow.run("dags", "test", "final", **decoys)
    if VERSION < (3, 2):
        assert "ChainBackend member 1 (aws_ssm): " in run.errors
        assert "'on_denied' is 'fail', which needs Airflow 3.2.2 or later" in run.errors
        return
    assert [line.rpartition(" ")[2] for line in run.printed("NOT FOUND")] == [
        "AirflowSecretsBackendAccessDenied"
    ] * 3, run.everything
    assert asked_second == []
    assert "decoy-s" not in run.everything


def test_every_option_from_environment_variables_alone(
    airflow: Airflow, stores: tuple[SsmRig, SecretsManagerRig]
) -> None:
    if VERSION < (3, 2):
        pytest.skip("Airflow before 3.2 reads no variable for a single option")
    _, secrets_manager = stores
    secrets_manager.put("elsewhere/decoy", "the-second-s")
    entry = {"backend": "aws_secrets_manager", "kwargs": {"variables_prefix": "elsewhere"}}
    airflow.environment["AIRFLOW__SECRETS__BACKEND"] = CHAIN
    run = airflow.python(
        COMMANDS.format(commands=[["variables", "get", "decoy"]]),
        AIRFLOW__SECRETS__BACKEND_KWARG__BACKENDS=json.dumps([{**SSM, "variables": None}, entry]),
    )
    assert run.last_line == "the-second-s", run.everything


LOCAL = {
    "backend": "file",
    "kwargs": {"connections_file_path": "local.yaml", "variables_file_path": "local.json"},
    "connections": "local_",
}


@pytest.fixture
def local(airflow: Airflow) -> None:
    """A file whose connections a chain's pattern lets in or keeps out, and a variable in the environment."""
    (airflow.home / "local.yaml").write_text(
        "local_db: {conn_type: my-type, login: u, extra_dejson: {a: [1]}}\ndecoy: http://from-the-file\n"
    )
    (airflow.home / "local.json").write_text('{"file_only": "from the file", "decoy": "from the file"}')
    airflow.environment["AIRFLOW_VAR_DECOY"] = "from the environment"


@pytest.mark.each_airflow
@pytest.mark.usefixtures("local")
def test_environment_and_file_go_before_a_store_in_a_task(
    airflow: Airflow, stores: tuple[SsmRig, SecretsManagerRig], database: Path
) -> None:
    ssm, _ = stores
    airflow.use_database(database)
    file = {**LOCAL, "kwargs": {name: str(airflow.home / path) for name, path in LOCAL["kwargs"].items()}}
    use(airflow, {"backend": "env"}, file, SSM)
    airflow.dag(
        "local",
        """
        print("VARIABLES", Variable.get("decoy"), "|", Variable.get("file_only"))
        connection = BaseHook.get_connection("local_db")
        print("CONNECTION", connection.conn_type, connection.login, connection.extra_dejson, type(connection).__module__)
        print("STORE", BaseHook.get_connection("decoy").host)
        """,
    )
    with ssm.counted() as calls:
        run = airflow.run("dags", "test", "local")
    assert run.printed("VARIABLES") == ["from the environment | from the file"], run.everything
    module = "airflow.sdk.definitions.connection" if VERSION >= (3, 0) else "airflow.models.connection"
    assert run.printed("CONNECTION") == [f"my_type u {{'a': [1]}} {module}"], run.everything
    assert run.printed("STORE") == ["the-first-s"]
    assert [call for call in calls if "local_db" in call or "file_only" in call] == []
    assert calls == [ssm.path("connections", "decoy")]


@pytest.mark.usefixtures("stores")
def test_secret_option_at_boot_through_a_chain(airflow: Airflow, ssm: SsmRig) -> None:
    ssm.put(ssm.path("config", "boot"), "sqlite:////tmp/from-the-store.db")
    (airflow.home / "configs.json").write_text("{}")
    file = {"backend": "file", "kwargs": {"configs_file_path": str(airflow.home / "configs.json")}}
    use(airflow, {"backend": "env"}, file, SSM)
    run = airflow.python(
        """
        import airflow.settings
        from airflow.configuration import conf
        print(conf.get("database", "sql_alchemy_conn"))
        """,
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET="boot",
    )
    assert run.last_line == "sqlite:////tmp/from-the-store.db"
    assert "Traceback" not in run.everything


OTHERS = '''
from airflow.secrets.base_secrets import BaseSecretsBackend

class OtherBackend(BaseSecretsBackend):
    """Written for Airflow 2: knows no teams, and returns connection objects."""

    def __init__(self, fail="no"):
        super().__init__()
        self.fail = fail

    def get_connection(self, conn_id):
        from airflow.models.connection import Connection

        if self.fail == "yes":
            raise RuntimeError("S3cr3t")
        return Connection(conn_id=conn_id, conn_type="http", host="of-the-other") if conn_id == "other" else None

    def get_variable(self, key):
        if self.fail == "yes":
            raise RuntimeError("S3cr3t")
        return "of-the-other" if key == "other" else None
'''


@pytest.mark.each_airflow
@pytest.mark.parametrize("fail", ["no", "yes"])
def test_backend_of_another_package_in_a_task(
    airflow: Airflow, stores: tuple[SsmRig, SecretsManagerRig], database: Path, fail: str
) -> None:
    ssm, _ = stores
    airflow.use_database(database)
    (airflow.home / "others.py").write_text(OTHERS)
    airflow.environment["PYTHONPATH"] += f":{airflow.home}"
    use(airflow, {"backend": "others.OtherBackend", "kwargs": {"fail": fail}}, SSM)
    other = 'look_up("other", lambda: (Variable.get("other"), BaseHook.get_connection("other").host))\n'
    airflow.dag("others", LOOK_UP + textwrap.dedent(other))
    with ssm.counted() as calls:
        run = airflow.run("dags", "test", "others")
    if fail == "yes":
        assert len(run.printed("NOT FOUND")) == 3, run.everything
        assert calls == []
        assert "S3cr3t" not in run.everything
        assert "Chain member 1 (others.OtherBackend) could not give 'decoy': RuntimeError. " in run.everything
    else:
        assert run.printed("FOUND") == [
            "variable the-first-s",
            "connection the-first-s",
            "other ('of-the-other', 'of-the-other')",
        ], run.everything


def test_wrong_entry_stops_airflow_in_words(airflow: Airflow) -> None:
    use(airflow, {"backend": "env"}, {"backend": "aws_ssm", "kwargs": {"connection_prefix": "S3cr3t"}})
    run = airflow.run("version")
    assert run.code != 0
    last = run.errors.rstrip().splitlines()[-1]
    assert last.endswith(
        "ConfigurationError: ChainBackend member 2 (aws_ssm): SystemsManagerParameterStoreBackend: unknown option "
        "'connection_prefix'; did you mean 'connections_prefix'?"
    )
    assert "S3cr3t" not in run.everything
    assert run.errors.count("Traceback (most recent call last)") == 1


def test_version(airflow: Airflow) -> None:
    use(airflow, {"backend": "env"}, SSM, {"backend": "aws_secrets_manager"})
    run = airflow.run("version")
    assert run.last_line == importlib.metadata.version("apache-airflow")
    assert "Traceback" not in run.everything
