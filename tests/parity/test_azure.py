"""Side by side with the official class, on the same vault: the same names asked, the same answers given.

Not part of the tests, which need no official provider: ``tox -e parity`` installs it.
"""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.microsoft.azure.secrets.key_vault import AzureKeyVaultBackend as Official

from airflow_providers_secrets.backends.azure_key_vault import AzureKeyVaultBackend
from tests.conftest import _running
from tests.rigs.azure import CLIENT, CLIENT_SECRET, TENANT, AzureRig

PREFIXES = ["airflow-connections", "airflow-connections-", "airflow_connections", "a", "-", "", None]
IDS = ["smtp_default", "Upper", "with-dash", "with.dot", "a/b", "a b", "é", "a--b", "a__b", "x" * 120]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> AzureRig:
    rig = _running(AzureRig)
    assert isinstance(rig, AzureRig)
    for name, value in rig.cloud.environment.items():
        monkeypatch.setenv(name, value)
    return rig


def options(rig: AzureRig, **others: Any) -> dict[str, Any]:
    who = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": CLIENT_SECRET}
    return {"vault_url": rig.cloud.VAULT_URL, **who, **others}


def observed(rig: AzureRig, backend: Any, method: str, *args: Any, **kwargs: Any) -> tuple[str | None, list[str]]:
    with rig.counted() as calls:
        answer = getattr(backend, method)(*args, **kwargs)
    # The SDK writes a slash for the version that it does not ask for; the vault ignores case.
    return answer, [name.rstrip("/").lower() for name in calls]


@pytest.mark.parametrize("sep", ["-", "", "--"])
@pytest.mark.parametrize("prefix", PREFIXES, ids=repr)
def test_names_and_answers(rig: AzureRig, prefix: str | None, sep: str) -> None:
    rig.put("airflow-connections-smtp-default", "postgres://u:p@h:5432/db")
    theirs = Official(**options(rig, connections_prefix=prefix, sep=sep))
    ours = AzureKeyVaultBackend(cache_ttl=0, **options(rig, connections_prefix=prefix, sep=sep))
    for conn_id in IDS:
        assert observed(rig, ours, "get_conn_value", conn_id) == observed(rig, theirs, "get_conn_value", conn_id)


@pytest.mark.parametrize("kind", ["get_conn_value", "get_variable", "get_config"])
def test_default_prefixes(rig: AzureRig, kind: str) -> None:
    ours, theirs = AzureKeyVaultBackend(cache_ttl=0, **options(rig)), Official(**options(rig))
    assert observed(rig, ours, kind, "absent") == observed(rig, theirs, kind, "absent")


def test_teams(rig: AzureRig) -> None:
    rig.put("airflow-variables-red--own", "red's")
    rig.put("airflow-variables-shared", "everybody's")
    ours, theirs = AzureKeyVaultBackend(cache_ttl=0, **options(rig)), Official(**options(rig))
    for key in ("own", "shared", "absent", "with_underscore"):
        how = ("get_variable", key)
        assert observed(rig, ours, *how, team_name="red") == observed(rig, theirs, *how, team_name="red")
