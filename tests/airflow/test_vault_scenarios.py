"""HashiCorp Vault's backend inside real Airflow, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.vault import VaultRig


@pytest.fixture
def environment(vault: VaultRig, tmp_path: Path) -> dict[str, str]:
    """A throwaway Airflow that is told of the backend by environment variables alone."""
    return {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__SECRETS__BACKEND": vault.class_path,
    }


def told(rig: VaultRig, environment: dict[str, str], *command: str, **options: Any) -> str:
    """Run *command* under Python with the backend's *options*; give what it printed."""
    kwargs = json.dumps({"url": rig.proxy.url, **options})
    rig.proxy.requests.clear()
    run = subprocess.run(
        [sys.executable, *command],
        env={**environment, "AIRFLOW__SECRETS__BACKEND_KWARGS": kwargs},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.fixture
def astro_role(vault: VaultRig) -> dict[str, Any]:
    """As the guide makes it: ``token_ttl=24h``, KV v2 at ``secret/``."""
    api = vault.server.api
    api("POST", "auth/approle/role/astro_role", {"token_policies": "everything-in-secret", "token_ttl": "24h"})
    api("POST", "auth/approle/role/astro_role/role-id", {"role_id": "astro_role"})
    secret_id = api("POST", "auth/approle/role/astro_role/secret-id")["data"]["secret_id"]
    return {
        "connections_path": "connections",
        "variables_path": "variables",
        "config_path": None,
        "auth_type": "approle",
        "role_id": "astro_role",
        "secret_id": secret_id,
    }


@pytest.mark.long
def test_astronomers_guide(vault: VaultRig, environment: dict[str, str], astro_role: dict[str, Any]) -> None:
    vault.write("secret/variables/bar", {"value": "mystring"})
    vault.write("secret/connections/foo", {"conn_uri": "http://https%3A%2F%2Fexample.com"})
    given = told(vault, environment, "-m", "airflow", "variables", "get", "bar", **astro_role)
    assert given.splitlines()[-1] == "mystring"
    assert vault.calls == ["secret/variables/bar"]
    assert vault.logins == ["/v1/auth/approle/login"]
    given = told(vault, environment, "-m", "airflow", "connections", "get", "foo", "-o", "json", **astro_role)
    (connection,) = json.loads(given[given.index("[") :])
    assert (connection["conn_type"], connection["host"]) == ("http", "https://example.com")
    assert set(vault.calls) == {"secret/connections/foo"}
    assert vault.logins == ["/v1/auth/approle/login"]


@pytest.mark.long
def test_astronomers_guide_in_a_namespace(
    vault: VaultRig, environment: dict[str, str], astro_role: dict[str, Any]
) -> None:
    """HCP Vault adds ``"namespace": "admin"``."""
    api = vault.server.api
    api("POST", "sys/namespaces/admin", {})
    vault.server.engine("secret", 2, namespace="admin")
    api("POST", "sys/auth/approle", {"type": "approle"}, namespace="admin")
    rules = 'path "secret/data/*" { capabilities = ["read"] }'
    api("POST", "sys/policies/acl/astro", {"policy": rules}, namespace="admin")
    api("POST", "auth/approle/role/astro_role", {"token_policies": "astro"}, namespace="admin")
    api("POST", "auth/approle/role/astro_role/role-id", {"role_id": "astro_role"}, namespace="admin")
    secret_id = api("POST", "auth/approle/role/astro_role/secret-id", namespace="admin")["data"]["secret_id"]
    api("POST", "secret/data/variables/spaced", {"data": {"value": "of admin"}}, namespace="admin")
    options = {**astro_role, "secret_id": secret_id, "namespace": "admin"}
    given = told(vault, environment, "-m", "airflow", "variables", "get", "spaced", **options)
    assert given.splitlines()[-1] == "of admin"
    assert [request.headers["X-Vault-Namespace"] for request in vault.proxy.requests] == ["admin"] * 2


COUNT = "import airflow.settings; print(airflow.settings.SQL_ALCHEMY_CONN)"


def test_database_url_from_vault_takes_one_login_and_one_read(vault: VaultRig, environment: dict[str, str]) -> None:
    conn = f"sqlite:///{environment['AIRFLOW_HOME']}/of-vault.db"
    vault.write("secret/config/sql_alchemy_conn", {"value": conn})
    environment = {**environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET": "sql_alchemy_conn"}
    given = told(vault, environment, "-c", COUNT, **vault.options())
    assert given.splitlines()[-1] == conn
    assert vault.calls == ["secret/config/sql_alchemy_conn"]
    assert vault.logins == ["/v1/auth/approle/login"]
