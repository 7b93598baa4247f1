"""A lookup ends at its deadline while a client is being made, and holds nothing up meanwhile."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_providers_secrets.lookup import access, answers
from airflow_providers_secrets.testing.contract.deadline import *
from airflow_providers_secrets.testing.contract.deadline import Hang, _fails
from airflow_providers_secrets.testing.lookups import Waits
from tests.rigs import Rig


def test_a_login_that_hangs_holds_no_other_store_up(ssm: Rig, secrets_manager: Rig, monkeypatch: Any) -> None:
    secrets_manager.put(secrets_manager.path("variables", "healthy"), "x")
    hang = Hang()
    with monkeypatch.context() as patched:
        patched.setattr(type(access.store_of(ssm.backend().config)), "connect", hang)
        thread = threading.Thread(target=_fails, args=(ssm.backend(timeout=60),), daemon=True)
        thread.start()
        assert hang.came.wait(60)
        assert secrets_manager.backend().get_variable("healthy") == "x"
        hang.may_end.set()
        thread.join(60)
        assert not hang.sat_out


def test_all_of_a_lookups_names_have_one_deadline(ssm: Rig, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A team's own name comes first, and what asking for it took is not there for the next one."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    passed = 0.0

    def take_40_seconds() -> None:
        nonlocal passed
        passed += 40

    monkeypatch.setattr(answers, "time", SimpleNamespace(monotonic=lambda: 1000.0 + passed))
    waits.on_wait = take_40_seconds
    assert ssm.caching(timeout=60).get_variable("of-no-store", team_name="red") is None
    assert waits.granted == [60.0, 20.0]
