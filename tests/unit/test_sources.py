"""What Airflow asks after the secrets backend, as it would answer."""

from __future__ import annotations

import pytest

from airflow_providers_secrets.lookup.plan import Kind
from airflow_providers_secrets.lookup.sources import Environment

BOTH: tuple[Kind, ...] = ("connections", "variables")


@pytest.fixture(autouse=True)
def multi_team(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow.configuration")
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")


@pytest.mark.parametrize(("own", "expected"), [("", "http://everybody-s"), ("http://red-s", "http://red-s")])
def test_an_empty_variable_of_a_team_is_none(monkeypatch: pytest.MonkeyPatch, own: str, expected: str) -> None:
    for kind in ("CONN", "VAR"):
        monkeypatch.setenv(f"AIRFLOW_{kind}__RED___ID", own)
        monkeypatch.setenv(f"AIRFLOW_{kind}_ID", "http://everybody-s")
    assert [Environment().text(kind, "id", "red") for kind in BOTH] == [expected] * 2


@pytest.mark.parametrize(
    ("name", "secret_id", "team"),
    [
        ("A___B", "a___b", None),
        ("_RED___X", "_red___x", None),
        ("A____B", "a____b", None),
        ("_RED___A___B", "a___b", "red"),
        ("_RED___A___", "a___", "red"),
    ],
)
def test_in_multi_team_mode_an_id_that_spells_a_team_is_none(
    monkeypatch: pytest.MonkeyPatch, name: str, secret_id: str, team: str | None
) -> None:
    """Airflow's environment gives nothing for it, so that no task reads what belongs to another team."""
    for kind in ("CONN", "VAR"):
        monkeypatch.setenv(f"AIRFLOW_{kind}_{name}", "http://S3cr3t")
    environment = Environment()
    for kind in BOTH:
        assert environment.text(kind, secret_id, team) is None
        assert (team, secret_id) not in list(environment.ids(kind))
        for listed_team, listed in environment.ids(kind):
            assert environment.text(kind, listed, listed_team), (listed_team, listed)
    monkeypatch.delenv("AIRFLOW__CORE__MULTI_TEAM")
    for kind in BOTH:
        if team is None:
            assert environment.text(kind, secret_id) == "http://S3cr3t"
        assert (None, name.lower()) in list(environment.ids(kind))
