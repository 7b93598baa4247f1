"""Reading a kind in bulk, for every backend, on every server."""

from __future__ import annotations

import pytest

from airflow_providers_secrets.errors import AccessDenied, StoreUnavailable
from airflow_providers_secrets.lookup import answers
from airflow_providers_secrets.testing.contract.preload import *
from airflow_providers_secrets.testing.contract.preload import BASE, preloading
from airflow_providers_secrets.testing.lookups import ONE_TRY, TTL, Clock, failing, warned
from tests.rigs import PAGE
from tests.rigs.aws import SsmRig


def test_a_listing_of_wide_characters_is_left_when_it_is_too_large_in_memory(
    ssm: SsmRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        ssm.put(f"/wide/key-{number}", "\U0001f511" * 1000)
    monkeypatch.setattr(answers, "MAX_LISTING_BYTES", 30_000)
    assert preloading(ssm, base="/wide").get_variable("key-3") == "\U0001f511" * 1000
    assert any("takes more than 30000 bytes. Take the kind out" in message for message in warned(caplog))


def test_a_listing_is_measured_by_what_it_takes_in_memory(ssm: SsmRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by its text in ASCII, which of such letters takes six times as much."""
    for number in range(10):
        ssm.put(f"/accents/key-{number}", "\xe9" * 1000)
    monkeypatch.setattr(answers, "MAX_LISTING_BYTES", 30_000)
    backend = preloading(ssm, base="/accents")
    with ssm.counted() as calls:
        assert backend.get_variable("key-3") == "\xe9" * 1000
    assert set(calls) == {PAGE}


@pytest.mark.usefixtures("clock")
def test_the_names_that_a_listing_answers_do_not_push_it_out(ssm: SsmRig) -> None:
    ssm.put("/small/listed", "x")
    backend = preloading(ssm, base="/small", cache_size=2)
    with ssm.counted() as calls:
        assert [backend.get_variable(f"absent-{number}") for number in range(6)] == [None] * 6
        assert backend.get_variable("listed") == "x"
    assert calls == [PAGE]


# A listing that cannot be renewed, of a store that answers single reads.


def test_a_rotated_value_is_read_where_only_listing_fails(ssm: SsmRig, clock: Clock) -> None:
    path = ssm.path("variables", "rotated", base=BASE)
    ssm.put(path, "old")
    backend = preloading(ssm, **ONE_TRY)
    assert backend.get_variable("rotated") == "old"
    ssm.put(path, "new")
    clock.now += TTL
    with ssm.fault("throttled", listings=True), ssm.counted() as calls:
        assert backend.get_variable("rotated") == "new"
    assert calls == [PAGE, path]
    with ssm.fault("server-error"):
        clock.now += TTL
        assert backend.get_variable("rotated") == "new"


@pytest.mark.parametrize("since", ["denied", "absent"])
def test_what_was_listed_does_not_come_back_after(ssm: SsmRig, clock: Clock, since: str) -> None:
    key = f"listed-then-{since}"
    path = ssm.path("variables", key, base=BASE)
    ssm.put(path, "old")
    backend = preloading(ssm, **ONE_TRY)
    assert backend.get_variable(key) == "old"
    clock.now += TTL
    with ssm.fault("throttled", listings=True):
        assert backend.get_variable("any") is None
    # The listing's failure is remembered.
    if since == "absent":
        ssm.remove(path)
        assert backend.get_variable(key) is None
    else:
        with ssm.fault("denied"):
            (error,) = failing(lambda: backend.get_variable(key))
        assert isinstance(error, AccessDenied)
    clock.now += TTL
    with ssm.fault("server-error"):
        (error,) = failing(lambda: backend.get_variable(key))
    assert isinstance(error, StoreUnavailable)


def test_of_two_that_may_stand_in_the_last_one_does(ssm: SsmRig, clock: Clock) -> None:
    """A listing is made anew for any name, and holds what has become of the others."""
    rotated, gone = (ssm.path("variables", key, base=BASE) for key in ("rotated", "gone"))
    for path in (rotated, gone):
        ssm.put(path, "old")
    backend = preloading(ssm, **ONE_TRY)
    assert [backend.get_variable(key) for key in ("rotated", "gone")] == ["old", "old"]
    ssm.put(rotated, "new")
    ssm.remove(gone)
    clock.now += TTL
    assert backend.get_variable("any") is None
    clock.now += TTL
    with ssm.fault("server-error"):
        assert backend.get_variable("rotated") == "new"
        failing(lambda: backend.get_variable("gone"))


def test_a_listing_does_not_undo_a_denial_that_came_after_it(ssm: SsmRig, clock: Clock) -> None:
    """As where another process's is taken over."""
    path = ssm.path("variables", "withdrawn", base=BASE)
    ssm.put(path, "old")
    backend = preloading(ssm, **ONE_TRY)
    assert backend.get_variable("withdrawn") == "old"
    clock.now += 1
    denial = AccessDenied("a store", path, "HTTP 403", "Allow it.")
    answers.answers_of(backend.config)._cache.note_failure(path, denial)
    (error,) = failing(lambda: backend.get_variable("withdrawn"))
    assert isinstance(error, AccessDenied)
