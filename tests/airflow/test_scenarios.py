"""Published guides, followed to the letter with only the class path changed.

Where the store is and who asks come from AWS's own variables and files, so that each ``backend_kwargs`` stands
here as it was published: https://airflow.apache.org/docs/apache-airflow-providers-amazon/stable/secrets-backends/,
https://www.astronomer.io/docs/learn/secrets-management and
https://docs.aws.amazon.com/mwaa/latest/userguide/connections-secrets-manager.html.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from tests.rigs.aws import CREDENTIALS, REGION, AwsRig, SecretsManagerRig, SsmRig, aws_client, moto_url
from tests.support.airflow_process import Airflow, Ended

ROLE = "arn:aws:iam::123456789098:role/role-name"

SSM_WITH_PROFILE = """\
[secrets]
backend = {class_path}
backend_kwargs = {{"connections_prefix": "/airflow/connections", "variables_prefix": "/airflow/variables", "profile_name": "default"}}
"""
SSM_WITH_ROLE = """\
[secrets]
backend = {class_path}
backend_kwargs = {{"connections_prefix": "airflow/connections", "variables_prefix": "airflow/variables", "role_arn": "arn:aws:iam::123456789098:role/role-name"}}
"""
SSM_WITHOUT_VARIABLES = """\
[secrets]
backend = {class_path}
backend_kwargs = {{"connections_prefix": "/airflow/connections", "variables_prefix": null, "profile_name": "default"}}
"""
ASTRONOMER = (
    '{"connections_prefix": "airflow/connections", "variables_prefix": "airflow/variables", '
    f'"role_arn": "{ROLE}", "region_name": "{REGION}"}}'
)
MWAA = (
    '{"connections_prefix": "airflow/connections", "connections_lookup_pattern": "^test", '
    '"variables_prefix": "airflow/variables", "variables_lookup_pattern": "^test"}'
)

CONNECTIONS = {
    "smtp_default": ("http://https%3A%2F%2Fexample.com", "http", "https://example.com", None),
    "spark_uri": (
        "spark://spark%3A%2F%2Fspark-master-0.spark-master.spark:7077",
        "spark",
        "spark://spark-master-0.spark-master.spark",
        7077,
    ),
    "http_json": ('{"conn_type": "http", "host": "https://example.com"}', "http", "https://example.com", None),
    "spark_json": (
        '{"conn_type": "spark", "host": "spark://spark-master-0.spark-master.spark", "port": 7077}',
        "spark",
        "spark://spark-master-0.spark-master.spark",
        7077,
    ),
}
"""The published values, and the type, host and port that Airflow must make of them."""


@pytest.fixture
def in_the_roles_account(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a rig write into the account of :data:`ROLE`, which nobody without the role reads."""

    def write_there(rig: AwsRig) -> None:
        given = aws_client("sts").assume_role(RoleArn=ROLE, RoleSessionName="tests")["Credentials"]
        client = botocore.session.Session().create_client(
            rig.service,
            region_name=REGION,
            endpoint_url=moto_url(),
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
        )
        monkeypatch.setattr(rig, "client", client)

    return write_there


def configure(airflow: Airflow, cfg: str, rig: AwsRig) -> None:
    (airflow.home / "airflow.cfg").write_text(cfg.format(class_path=rig.class_path))


def use_profile(airflow: Airflow, rig: AwsRig) -> None:
    """Write the files of the profile ``default``; no variable of AWS's is set."""
    files = airflow.user_home / ".aws"
    files.mkdir()
    (files / "credentials").write_text(
        "[default]\naws_access_key_id = AKIAOFPROFILE\naws_secret_access_key = test-secret-key\n"
    )
    (files / "config").write_text(f"[default]\nregion = {REGION}\nendpoint_url = {rig.proxy.url}\n")


def keys_used(rig: AwsRig, since: int) -> set[str]:
    """The access keys that signed the requests from number *since* on."""
    signed = (request.headers["Authorization"] for request in rig.proxy.requests[since:])
    return {header.partition("Credential=")[2].partition("/")[0] for header in signed}


def connection(airflow: Airflow, conn_id: str) -> Ended:
    return airflow.run("connections", "get", conn_id, "--output", "json")


@pytest.mark.long
def test_s2_ssm_with_a_profile(airflow: Airflow, ssm: SsmRig, database: Path) -> None:
    for conn_id, (text, *_) in CONNECTIONS.items():
        ssm.put(f"/airflow/connections/{conn_id}", text)
    ssm.put("/airflow/variables/hello", "world")
    configure(airflow, SSM_WITH_PROFILE, ssm)
    use_profile(airflow, ssm)
    airflow.use_database(database)
    airflow.dag(
        "s2",
        f"""
        for conn_id in {list(CONNECTIONS)!r}:
            c = BaseHook.get_connection(conn_id)
            print("CONNECTION", (conn_id, c.conn_type, c.host, c.port))
        print("VARIABLE", Variable.get("hello"))
        """,
    )
    before = len(ssm.proxy.requests)
    with ssm.counted() as calls:
        fields = connection(airflow, "smtp_default").fields
        assert (fields["conn_type"], fields["host"]) == ("http", "https://example.com")
        assert airflow.run("variables", "get", "hello").last_line == "world"
    assert calls == ["/airflow/connections/smtp_default", "/airflow/variables/hello"]
    run = airflow.run("dags", "test", "s2")
    expected = [repr((conn_id, *read)) for conn_id, (_, *read) in CONNECTIONS.items()]
    assert run.printed("CONNECTION") == expected, run.everything
    assert run.printed("VARIABLE") == ["world"]
    assert keys_used(ssm, before) == {"AKIAOFPROFILE"}


@pytest.mark.long
def test_s2_ssm_with_a_role(airflow: Airflow, ssm: SsmRig, in_the_roles_account: Any) -> None:
    in_the_roles_account(ssm)
    ssm.put("/airflow/connections/of_the_role", CONNECTIONS["spark_uri"][0])
    ssm.put("/airflow/variables/of_the_role", "in the role's account")
    airflow.use(ssm)
    del airflow.environment["AIRFLOW__SECRETS__BACKEND"]
    configure(airflow, SSM_WITH_ROLE, ssm)
    before = len(ssm.proxy.requests)
    with ssm.counted() as calls:
        assert connection(airflow, "of_the_role").fields["host"] == "spark://spark-master-0.spark-master.spark"
        assert airflow.run("variables", "get", "of_the_role").last_line == "in the role's account"
    assert calls == ["/airflow/connections/of_the_role", "/airflow/variables/of_the_role"]
    assert CREDENTIALS["aws_access_key_id"] not in keys_used(ssm, before)


@pytest.mark.long
def test_s2_null_prefix_sends_no_request(airflow: Airflow, ssm: SsmRig) -> None:
    ssm.put("/airflow/connections/smtp_default", CONNECTIONS["smtp_default"][0])
    ssm.put("/airflow/variables/switched_off", "never read")
    configure(airflow, SSM_WITHOUT_VARIABLES, ssm)
    use_profile(airflow, ssm)
    with ssm.counted() as calls:
        run = airflow.run("variables", "get", "switched_off", AIRFLOW_VAR_SWITCHED_OFF="from the environment")
        assert run.last_line == "from the environment"
    assert calls == []
    with ssm.counted() as calls:
        assert connection(airflow, "smtp_default").fields["host"] == "https://example.com"
    assert calls == ["/airflow/connections/smtp_default"]


@pytest.mark.each_airflow
def test_s3_both_aws_stores_by_environment_variables_alone(
    airflow: Airflow, aws: AwsRig, database: Path, in_the_roles_account: Any
) -> None:
    in_the_roles_account(aws)
    aws.put(aws.path("variables", "my_variable"), "astronomer")
    aws.put(aws.path("connections", "my_connection"), "postgres://u:p%40ss@h:5432/db?sslmode=require")
    airflow.use(aws, ASTRONOMER)
    del airflow.environment["AWS_DEFAULT_REGION"]
    airflow.use_database(database)
    airflow.dag(
        "s3",
        """
        print("VARIABLE", Variable.get("my_variable"))
        c = BaseHook.get_connection("my_connection")
        print("CONNECTION", (c.conn_type, c.login, len(c.password), c.host, c.port, c.schema, c.extra_dejson))
        """,
    )
    assert airflow.run("variables", "get", "my_variable").last_line == "astronomer"
    quoted = connection(airflow, "my_connection").fields
    assert quoted["password"] == "p@ss"
    run = airflow.run("dags", "test", "s3")
    assert run.printed("VARIABLE") == ["astronomer"], run.everything
    assert run.printed("CONNECTION") == [repr(("postgres", "u", 4, "h", 5432, "db", {"sslmode": "require"}))]


@pytest.mark.long
def test_s4_mwaa_with_secrets_manager(airflow: Airflow, secrets_manager: SecretsManagerRig) -> None:
    """The URI is made in a shell, from its fields; ids beyond the patterns cost no request."""
    extra = {"role_arn": "arn:aws:iam::123456789098:role/x", "region_name": "us-east-1"}
    command = "from airflow_providers_secrets.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    made = airflow._run(
        [
            sys.executable,
            "-c",
            command,
            "uri",
            "--conn-type",
            "aws",
            "--host",
            "h.example.com",
            "--login",
            "l",
            "--port",
            "443",
            "--schema",
            "s",
            "--extra",
            json.dumps(extra),
        ],
        {},
    ).last_line
    secrets_manager.put("airflow/connections/test_connection", made)
    typed = {"test_number": "14", "test_text": '"mystring"', "test_json": '{"a": [1, "b"]}'}
    for key, value in typed.items():
        secrets_manager.put(f"airflow/variables/{key}", value)
    secrets_manager.put("airflow/variables/other", "never read")
    airflow.use(secrets_manager, MWAA)
    with secrets_manager.counted() as calls:
        run = connection(airflow, "test_connection")
        assert run.fields == {
            "conn_type": "aws",
            "host": "h.example.com",
            "login": "l",
            "port": "443",
            "schema": "s",
        }
        assert json.loads(run.last_line)[0]["extra_dejson"] == extra
        for key, value in typed.items():
            assert airflow.run("variables", "get", key).last_line == value
        assert airflow.run("variables", "get", "other").code == 1
        assert connection(airflow, "aws_default").code == 1
    assert calls == ["airflow/connections/test_connection", *(f"airflow/variables/{key}" for key in typed)]


@pytest.mark.long
def test_s4_variables_in_a_dag(airflow: Airflow, secrets_manager: SecretsManagerRig, database: Path) -> None:
    secrets_manager.put("airflow/variables/test_number", "14")
    secrets_manager.put("airflow/variables/test_json", '{"a": [1, "b"]}')
    airflow.use(secrets_manager, MWAA)
    airflow.use_database(database)
    get_json = 'Variable.get("test_json", deserialize_json=True)'
    airflow.dag("s4", f'print("VARIABLES", (Variable.get("test_number"), {get_json}))')
    run = airflow.run("dags", "test", "s4")
    assert run.printed("VARIABLES") == ["('14', {'a': [1, 'b']})"], run.everything
