"""Azure Key Vault's part of published guides, followed to the letter with only the class path changed.

The vault and the authority are played at their real names, behind an HTTPS proxy that the environment names:
https://www.astronomer.io/docs/learn/secrets-management and https://docs.conveyordata.com (questions on secrets).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rigs.azure import CLIENT, CLIENT_SECRET, TENANT, AzureRig, is_login
from tests.support.airflow_process import Airflow

ASTRONOMER = (
    '{"connections_prefix": "airflow-connections", "variables_prefix": "airflow-variables", '
    '"vault_url": "https://airflow-tests.vault.azure.net"}'
)
WITHOUT_PREFIXES = '{"connections_prefix": "", "variables_prefix": "", "vault_url": "https://airflow-tests.vault.azure.net", "sep": ""}'


@pytest.fixture
def in_azure(airflow: Airflow, azure: AzureRig) -> Airflow:
    """An Airflow that is told of the backend by environment variables alone."""
    airflow.environment.update(azure.cloud.environment)
    airflow.environment.update(
        AIRFLOW__SECRETS__BACKEND=azure.class_path,
        AIRFLOW__SECRETS__BACKEND_KWARGS=ASTRONOMER,
        AZURE_CLIENT_ID=CLIENT,
        AZURE_TENANT_ID=TENANT,
        AZURE_CLIENT_SECRET=CLIENT_SECRET,
    )
    for server in (azure.proxy, azure.entra):
        server.requests.clear()
    azure.proxy.secrets.clear()
    return airflow


@pytest.mark.long
def test_s3_astronomer_in_a_dag(in_azure: Airflow, azure: AzureRig, database: Path) -> None:
    azure.put("airflow-variables-my-variable", "astronomer")
    azure.put("airflow-connections-my-connection", "postgres://u:p%40ss@h:5432/db?sslmode=require")
    in_azure.use_database(database)
    in_azure.dag(
        "s3",
        """
        print("VARIABLE", Variable.get("my_variable"))
        c = BaseHook.get_connection("my_connection")
        print("CONNECTION", (c.conn_type, c.login, len(c.password), c.host, c.port, c.schema, c.extra_dejson))
        """,
    )
    run = in_azure.run("dags", "test", "s3")
    assert run.printed("VARIABLE") == ["astronomer"], run.everything
    assert run.printed("CONNECTION") == [repr(("postgres", "u", 4, "h", 5432, "db", {"sslmode": "require"}))]
    assert {login["client_secret"] for login in azure.entra.logins} == {CLIENT_SECRET}
    # "In the environment" is the one of every process that Airflow forks.
    assert all(request.headers["Host"].endswith(".vault.azure.net") for request in azure.proxy.requests)


@pytest.mark.long
def test_s3_astronomer_without_prefixes(in_azure: Airflow, azure: AzureRig) -> None:
    azure.put("myvariable", "astronomer")
    in_azure.environment["AIRFLOW__SECRETS__BACKEND_KWARGS"] = WITHOUT_PREFIXES
    assert in_azure.run("variables", "get", "myvariable").last_line == "astronomer"
    assert azure.calls == ["myvariable"]


@pytest.mark.long
def test_s5_updated_secret_is_updated_and_is_not_in_the_list(
    in_azure: Airflow, azure: AzureRig, database: Path
) -> None:
    """ "If I update a secret, is it updated?" and "I do not see my variables and connections in the Airflow UI"."""
    in_azure.use_database(database)
    azure.put("airflow-variables-key", "one")
    script = (
        "from airflow.configuration import ensure_secrets_loaded\n"
        "backend = ensure_secrets_loaded()[0]\n"
        "print('GIVEN', backend.get_variable('key'))\n"
    )
    assert in_azure.python(script).printed("GIVEN") == ["one"]
    azure.put("airflow-variables-key", "two")
    assert in_azure.run("variables", "get", "key").last_line == "two"
    listed = in_azure.run("variables", "list", "--output", "json")
    assert listed.last_line == "[]"


def test_database_url_from_the_vault_takes_one_login(in_azure: Airflow, azure: AzureRig) -> None:
    """Airflow builds many backends while it starts: they share one client."""
    azure.put("airflow-config-boot", "sqlite:////tmp/from-the-vault.db")
    run = in_azure.python(
        "import airflow.settings; print(airflow.settings.SQL_ALCHEMY_CONN)",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET="boot",
    )
    assert run.last_line == "sqlite:////tmp/from-the-vault.db"
    assert len(azure.entra.logins) == 1
    assert len([request for request in azure.proxy.requests if is_login(request)]) == 1
    assert set(azure.calls) == {"airflow-config-boot"}


@pytest.mark.long
def test_failed_lookups_leave_no_credential_and_no_value(in_azure: Airflow, azure: AzureRig, database: Path) -> None:
    """At DEBUG, with a log-in that is refused and an answer that is none."""
    in_azure.use_database(database)
    in_azure.environment["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
    azure.put("airflow-connections-bad", "S3cr3t-only")
    azure.put("airflow-variables-good", "sixteen letters.")
    in_azure.dag(
        "canary",
        """
        import logging
        for look_up, secret_id in ((BaseHook.get_connection, "bad"), (Variable.get, "absent")):
            try:
                look_up(secret_id)
            except Exception:
                logging.getLogger("airflow.task").exception("lookup failed")
        print("LENGTH", len(Variable.get("good")))
        raise RuntimeError("so that the task fails too")
        """,
    )
    run = in_azure.run("dags", "test", "canary")
    assert run.printed("LENGTH") == ["16"], run.everything
    refused = in_azure.python(
        """
        import logging
        from airflow.configuration import ensure_secrets_loaded
        try:
            ensure_secrets_loaded()[0].get_variable("x")
        except Exception:
            logging.getLogger("airflow.task").exception("lookup failed")
        """,
        AZURE_CLIENT_SECRET="S3cr3t-wrong",
    )
    assert "AADSTS7000215" in refused.everything
    assert "default login refused" in refused.everything
    written = [path.read_text(errors="replace") for path in in_azure.home.glob("logs/**/*") if path.is_file()]
    for text in (run.everything, refused.everything, *written):
        assert "S3cr3t" not in text, [line for line in text.splitlines() if "S3cr3t" in line]
        assert CLIENT_SECRET not in text
        assert "T0k3n" not in text
