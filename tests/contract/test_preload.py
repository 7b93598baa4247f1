"""Reading a kind in bulk, for every backend, on every server."""

from __future__ import annotations

import pytest

from airflow_providers_secrets.lookup import answers
from airflow_providers_secrets.testing.contract.preload import *
from airflow_providers_secrets.testing.contract.preload import preloading
from tests.rigs import PAGE
from tests.rigs.aws import SsmRig
from tests.support.lookups import warned


def test_a_listing_of_wide_characters_is_left_when_it_is_too_large_in_memory(
    ssm: SsmRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        ssm.put(f"/wide/key-{number}", "\U0001f511" * 1000)
    monkeypatch.setattr(answers, "MAX_LISTING_BYTES", 30_000)
    assert preloading(ssm, base="/wide").get_variable("key-3") == "\U0001f511" * 1000
    assert any("takes more than 30000 bytes" in message for message in warned(caplog))


def test_a_listing_is_measured_by_what_it_takes_in_memory(ssm: SsmRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by its text in ASCII, which of such letters takes six times as much."""
    for number in range(10):
        ssm.put(f"/accents/key-{number}", "\xe9" * 1000)
    monkeypatch.setattr(answers, "MAX_LISTING_BYTES", 30_000)
    backend = preloading(ssm, base="/accents")
    with ssm.counted() as calls:
        assert backend.get_variable("key-3") == "\xe9" * 1000
    assert set(calls) == {PAGE}
