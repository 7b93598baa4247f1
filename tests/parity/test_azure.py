"""Side by side with the official class, on the same vault: the same names asked, the same answers given.

Not part of the tests, which need no official provider: ``tox -e parity`` installs it.
"""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.microsoft.azure.secrets.key_vault import AzureKeyVaultBackend as Official

from airflow_providers_secrets.backends.azure_key_vault import AzureKeyVaultBackend
from airflow_providers_secrets.errors import ConfigurationError, InvalidSecret, LookupFailed, SecretRevoked
from tests.parity.reading import LISTED, STORED, read
from tests.rigs import running
from tests.rigs.azure import CLIENT, CLIENT_SECRET, TENANT, AzureRig

PREFIXES = ["airflow-connections", "airflow-connections-", "airflow_connections", "a", "-", "", None]
IDS = ["smtp_default", "Upper", "with-dash", "with.dot", "a/b", "a b", "é", "a--b", "a__b", "x" * 120]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> AzureRig:
    rig = running("tests.rigs.azure:AzureRig")
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


@pytest.mark.parametrize("stored", STORED)
def test_the_same_connections_are_given(rig: AzureRig, stored: str) -> None:
    rig.put("airflow-connections-parity", stored)
    ours, theirs = AzureKeyVaultBackend(cache_ttl=0, **options(rig)), Official(**options(rig))
    assert read(ours.get_conn_value("parity") or "") == read(theirs.get_conn_value("parity") or "")


@pytest.mark.parametrize("stored", LISTED)
def test_listed_connections_are_named(rig: AzureRig, stored: str) -> None:
    rig.put("airflow-connections-refused", stored)
    assert Official(**options(rig)).get_conn_value("refused") == stored
    with pytest.raises(InvalidSecret):
        AzureKeyVaultBackend(cache_ttl=0, **options(rig)).get_conn_value("refused")


@pytest.mark.parametrize("team", ["team_a", "Red"])
def test_listed_teams_without_names_of_their_own(rig: AzureRig, team: str, caplog: pytest.LogCaptureFixture) -> None:
    """They keep what is everybody's, with a warning."""
    rig.put("airflow-variables-everybodys", "everybody's")
    ours, theirs = AzureKeyVaultBackend(cache_ttl=0, **options(rig)), Official(**options(rig))
    how = ("get_variable", "everybodys")
    own = f"airflow-variables-{team.replace('_', '-').lower()}--everybodys"
    assert observed(rig, ours, *how, team_name=team) == ("everybody's", ["airflow-variables-everybodys"])
    assert observed(rig, theirs, *how, team_name=team) == ("everybody's", [own, "airflow-variables-everybodys"])
    assert "only under everybody's name" in caplog.text


def test_a_team_whose_name_is_too_long(rig: AzureRig) -> None:
    key = "k" * (127 - len("airflow-variables-"))
    rig.put(f"airflow-variables-{key}", "found")
    ours, theirs = AzureKeyVaultBackend(cache_ttl=0, **options(rig)), Official(**options(rig))
    how = ("get_variable", key)
    assert observed(rig, ours, *how, team_name="red") == observed(rig, theirs, *how, team_name="red")


def test_ids_in_multi_team_mode(rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    rig.put("airflow-config-some--option", "x")
    ours, theirs = AzureKeyVaultBackend(cache_ttl=0, **options(rig)), Official(**options(rig))
    for secret_id in ("a--b", "a__b", "a_-b", "a_b"):
        for method in ("get_variable", "get_conn_value"):
            assert observed(rig, ours, method, secret_id) == observed(rig, theirs, method, secret_id)
    # Listed: configuration is of no team.
    assert ours.get_config("some--option") == "x"
    assert theirs.get_config("some--option") is None


@pytest.mark.parametrize("name", ["managed_identity_client_id", "workload_identity_tenant_id"])
def test_empty_options(rig: AzureRig, name: str) -> None:
    ours, theirs = (
        AzureKeyVaultBackend(cache_ttl=0, **options(rig, **{name: ""})),
        Official(**options(rig, **{name: ""})),
    )
    assert observed(rig, ours, "get_variable", "absent") == observed(rig, theirs, "get_variable", "absent")


def test_empty_identity(rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official defaults, by which the environment says who asks."""
    for name, value in (("TENANT_ID", TENANT), ("CLIENT_ID", CLIENT), ("CLIENT_SECRET", CLIENT_SECRET)):
        monkeypatch.setenv(f"AZURE_{name}", value)
    rig.put("airflow-variables-ambient", "found")
    given = options(rig, tenant_id="", client_id="", client_secret="")
    ours, theirs = AzureKeyVaultBackend(cache_ttl=0, **given), Official(**given)
    assert observed(rig, ours, "get_variable", "ambient") == observed(rig, theirs, "get_variable", "ambient")


def test_without_an_address(rig: AzureRig) -> None:
    """Both are made; the lookup fails, and here says why."""
    for given in ({}, {"vault_url": ""}):
        ours, theirs = AzureKeyVaultBackend(cache_ttl=0, **given), Official(**given)
        with pytest.raises(LookupFailed, match="vault_url"):
            ours.get_variable("absent")
        with pytest.raises(ValueError, match="vault_url"):
            theirs.get_variable("absent")
    del rig


def test_listed_disabled_secret(rig: AzureRig) -> None:
    rig.put("airflow-variables-disabled", "x", enabled=False)
    with pytest.raises(SecretRevoked):
        AzureKeyVaultBackend(cache_ttl=0, **options(rig)).get_variable("disabled")
    with pytest.raises(Exception, match="not allowed on a disabled secret"):
        Official(**options(rig)).get_variable("disabled")


@pytest.mark.parametrize("given", [{"client_secret": "x"}, {"client_secret": "x", "tenant_id": TENANT}])
def test_listed_half_an_identity(given: dict[str, str]) -> None:
    Official(vault_url="https://v.vault.azure.net", **given)
    with pytest.raises(ConfigurationError, match="is needed"):
        AzureKeyVaultBackend(vault_url="https://v.vault.azure.net", **given)


@pytest.mark.parametrize("name", ["full_url_mode", "are_secret_values_urlencoded"])
def test_options_of_other_releases(name: str) -> None:
    Official(vault_url="https://v.vault.azure.net", **{name: True})
    with pytest.warns(DeprecationWarning, match=name):
        AzureKeyVaultBackend(vault_url="https://v.vault.azure.net", **{name: True})
