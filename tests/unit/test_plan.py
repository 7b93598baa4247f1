"""Which ids may be looked up, and how a team's id is told from everybody's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_providers_secrets.lookup.plan import LookupPlan, id_refusal, team_name_refusal, team_refusal
from airflow_providers_secrets.testing.lookups import HOSTILE


@pytest.mark.parametrize("secret_id", HOSTILE, ids=repr)
def test_id_that_leaves_its_prefix_or_forges_a_log_line_is_refused(secret_id: Any) -> None:
    assert id_refusal(secret_id)


@pytest.mark.parametrize("secret_id", ["a", "a.b", "...", ".hidden", "a..b", "a/b", "-", "a--b", "ü", "a b", "%2e%2e"])
def test_other_ids_are_the_stores_business(secret_id: str) -> None:
    assert id_refusal(secret_id) is None


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20))
def test_no_allowed_id_has_a_segment_that_a_path_gives_meaning(secret_id: str) -> None:
    meaning = {"", ".", ".."} & set(secret_id.split("/"))
    assert bool(id_refusal(secret_id)) is bool(meaning) or not secret_id.isprintable()


@pytest.mark.parametrize("team", ["..", "a/b", "../red", "é", "-", "_", "a b", "a.b"])
def test_team_that_is_no_name_is_refused(team: str) -> None:
    assert team_name_refusal(team)
    assert team_refusal("x", team)


@pytest.mark.parametrize("team", ["a", "red-team", "red_2", "-a", "a--b"])
def test_team_that_is_a_name_is_not(team: str) -> None:
    assert team_name_refusal(team) is None
    assert team_refusal("x", team) is None


def test_without_teams_an_id_may_hold_their_separator() -> None:
    assert team_refusal("a--b", None) is None
    assert team_refusal("-a", None) is None


NAMES = st.text("ab-_/", min_size=1, max_size=6)


@given(NAMES, NAMES, NAMES, NAMES)
def test_no_two_teams_share_a_name(team: str, secret_id: str, other_team: str, other_id: str) -> None:
    owned = [(team, secret_id), (other_team, other_id)]
    spelled = {f"{one}--{id_}": one for one, id_ in owned if not team_refusal(id_, one)}
    if f"{team}--{secret_id}" == f"{other_team}--{other_id}" and len(spelled) == 1:
        assert team_refusal(secret_id, team) or team_refusal(other_id, other_team) or team == other_team


@given(NAMES, NAMES, NAMES)
def test_nobodys_own_secret_is_a_teams(monkey_id: str, team: str, secret_id: str) -> None:
    """In multi-team mode an id without a team never spells a team's name."""
    if not team_refusal(secret_id, team) and monkey_id == f"{team}--{secret_id}":
        assert team_refusal(monkey_id, team)


@pytest.mark.parametrize("secret_id", ["b--c", "--", "-b", "-"])
def test_with_a_team_an_id_holds_no_separator_and_starts_with_none(secret_id: str) -> None:
    assert team_refusal(secret_id, "a")
    assert team_refusal(secret_id, None) is None


def test_a_plan_says_why_nothing_is_asked() -> None:
    plan = LookupPlan(reason="it is too long", refused=True)
    assert (plan.names, plan.steps, plan.reason, plan.refused) == ((), (), "it is too long", True)


def test_a_plan_keeps_names_and_prefixes_together() -> None:
    plan = LookupPlan(("a/x", "b/x"), ("a/", None))
    assert plan.steps == (("a/x", "a/"), ("b/x", None))
    assert not plan.refused
    with pytest.raises(ValueError, match="shorter"):
        LookupPlan(("a/x", "b/x"), ("a/",))
