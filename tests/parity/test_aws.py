"""Side by side with the official classes, on the same server: the same names asked, the same answers given.

Not part of the tests, which need no official provider: ``tox -e parity`` installs it.
"""

from __future__ import annotations

import importlib
import itertools
import json
from typing import Any

import pytest

from airflow_providers_secrets import answers
from tests.rigs.aws import AwsRig, SecretsManagerRig, SsmRig

OFFICIAL = {
    "ssm": ("systems_manager", "SystemsManagerParameterStoreBackend"),
    "secretsmanager": ("secrets_manager", "SecretsManagerBackend"),
}
PREFIXES = ["/airflow/connections", "airflow/connections", "airflow/connections/", "a", "", "/", None]
IDS = ["smtp_default", "Upper", "with-dash", "with.dot", "a/b", "under_score", "a--b"]
STORED = [
    "postgres://u:p@h:5432/db",
    "http://https%3A%2F%2Fexample.com",
    '{"conn_type": "http", "host": "https://example.com"}',
    '{"conn_type": "x", "extra": {"a": 1}}',
]
BY_OTHER_WORDS = [
    '{"user": "u", "pass": "p", "server": "h", "database": "d", "connection_type": "mysql", "port": 3306}',
    '{"username": "first", "login": "second", "engine": "postgres"}',
]


@pytest.fixture(params=[SsmRig, SecretsManagerRig], ids=lambda rig: rig.name)
def rig(request: pytest.FixtureRequest) -> AwsRig:
    rig: AwsRig = request.param()
    return rig


def official(rig: AwsRig, **options: Any) -> Any:
    module, name = OFFICIAL[rig.service]
    backend_class = getattr(importlib.import_module(f"airflow.providers.amazon.aws.secrets.{module}"), name)
    return backend_class(**{**rig.options(), **options})


def observed(rig: AwsRig, backend: Any, method: str, *args: Any, **kwargs: Any) -> tuple[str | None, list[str]]:
    with rig.counted() as calls:
        answer = getattr(backend, method)(*args, **kwargs)
    return answer, calls


@pytest.mark.parametrize(("prefix", "pattern"), itertools.product(PREFIXES, [None, "^a", "UPPER|under"]))
@pytest.mark.parametrize("method", ["get_conn_value", "get_variable", "get_config"])
def test_the_same_names_are_asked(rig: AwsRig, method: str, prefix: str | None, pattern: str | None) -> None:
    kind = {"get_conn_value": "connections", "get_variable": "variables", "get_config": "config"}[method]
    options = {f"{kind}_prefix": prefix, f"{kind}_lookup_pattern": pattern}
    theirs, ours = official(rig, **options), rig.backend(**options)
    for secret_id in IDS:
        assert observed(rig, ours, method, secret_id) == observed(rig, theirs, method, secret_id)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_teams_ask_the_same_names(rig: AwsRig, prefix: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    theirs, ours = official(rig, variables_prefix=prefix), rig.backend(variables_prefix=prefix)
    for secret_id, team in itertools.product(IDS, ["red", "team_a", "a-b", None]):
        asked = [observed(rig, one, "get_variable", secret_id, team_name=team) for one in (ours, theirs)]
        assert asked[0] == asked[1], (secret_id, team)


@pytest.mark.parametrize("stored", BY_OTHER_WORDS)
def test_the_same_words_are_known(stored: str) -> None:
    test_the_same_connections_are_given(SecretsManagerRig(), stored)


@pytest.mark.parametrize("stored", STORED)
def test_the_same_connections_are_given(rig: AwsRig, stored: str) -> None:
    answers.start_anew()
    rig.put(rig.path("connections", "parity"), stored)
    ours, theirs = (_fields(backend.get_conn_value("parity")) for backend in (rig.backend(), official(rig)))
    assert ours == theirs


def _fields(text: str) -> Any:
    """A JSON connection's fields; the official class writes absent ones as null."""
    if not text.startswith("{"):
        return text
    return {name: value for name, value in json.loads(text).items() if value is not None}
