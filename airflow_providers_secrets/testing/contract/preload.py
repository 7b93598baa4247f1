"""Reading a kind in bulk, for every backend, on every server."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_providers_secrets.errors import ConfigurationError, LookupFailed
from airflow_providers_secrets.lookup import access, answers, cache
from airflow_providers_secrets.testing.lookups import NEGATIVE_TTL, Clock, Waits, needs, warned
from airflow_providers_secrets.testing.rig import PAGE, Rig

BASE = "bulk"


def preloading(rig: Rig, base: str = BASE, **options: Any) -> Any:
    """Return a backend that reads variables in bulk, under the tests' own base."""
    chosen = {rig.prefix_option.format(kind="variables"): base, "preload": ["variables"]}
    return rig.caching(**{**chosen, **options})


@pytest.fixture
def thirty(rig: Rig) -> list[str]:
    """Thirty variables, more than any store returns in one page, and one more that is not under the base."""
    keys = [f"key-{number}" for number in range(30)]
    for key in keys:
        rig.put(rig.path("variables", key, base=BASE), f"value of {key}")
    rig.put(rig.path("variables", "key-0", base=f"{BASE}-other"), "of another base")
    return keys


def test_present_and_absent_names_are_answered_without_a_call_for_each(rig: Rig, thirty: list[str]) -> None:
    needs(rig, "listing")
    backend = preloading(rig)
    with rig.counted() as calls:
        assert [backend.get_variable(key) for key in thirty] == [f"value of {key}" for key in thirty]
        assert [backend.get_variable(f"absent-{number}") for number in range(70)] == [None] * 70
    pages = calls.count(PAGE)
    assert pages >= 1
    # A store that lists only names is asked once for each that exists.
    singly = [call for call in calls if call != PAGE]
    assert singly in ([], [rig.path("variables", key, base=BASE) for key in thirty])
    with rig.counted() as calls:
        assert [backend.get_variable(key) for key in thirty] == [f"value of {key}" for key in thirty]
    assert calls == []


def test_a_listing_is_asked_for_and_parsed_once(rig: Rig, thirty: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have many pages and 8 MB: no page is asked for twice, and no name has it parsed again, or itself found."""
    needs(rig, "listing")
    parsed: list[str] = []

    def loads(text: str) -> Any:
        parsed.append(text)
        return json.loads(text)

    monkeypatch.setattr(answers, "json", SimpleNamespace(dumps=json.dumps, loads=loads))
    backend = preloading(rig)
    backend.get_conn_value("absent")  # a first request may be repeated, with a token
    before = set(map(id, rig.requests))
    for _ in range(2):
        assert [backend.get_variable(key) for key in (*thirty, "absent")] == [f"value of {key}" for key in thirty] + [
            None
        ]
    asked = [(one.method, one.path, one.body) for one in rig.requests if id(one) not in before]
    assert len(asked) == len(set(asked))
    assert len(parsed) == 1
    counts = answers.answers_of(backend.config).counts
    assert (counts.hits, counts.negative_hits) == (30, 1)


def test_kinds_that_are_not_preloaded_are_asked_for_singly(rig: Rig, thirty: list[str]) -> None:
    backend = preloading(rig)
    backend.get_variable(thirty[0])
    with rig.counted() as calls:
        assert backend.get_conn_value("absent") is None
    assert calls == [rig.path("connections", "absent")]


def test_ids_with_slashes_are_listed_too(rig: Rig) -> None:
    path = rig.path("variables", "folder/inner/key", base=BASE)
    backend = preloading(rig)
    if not backend.name_pattern.fullmatch(path):
        assert backend.get_variable("folder/inner/key") is None
        return
    rig.put(path, "deep")
    with rig.counted() as calls:
        assert backend.get_variable("folder/inner/key") == "deep"
        assert backend.get_variable("folder/inner/other") is None
    assert set(calls) <= {PAGE, path}


def test_a_listed_value_is_given_as_typed(rig: Rig) -> None:
    needs(rig, "listing")
    values = {"padded": " padded ", "lines": "multi\nline\n", "unicode": "日本語 ✓ é"}
    for key, value in values.items():
        rig.put(rig.path("variables", key, base=f"{BASE}-typed"), value)
    backend = preloading(rig, base=f"{BASE}-typed")
    assert {key: backend.get_variable(key) for key in values} == values


def test_a_base_without_anything_proves_every_absence(rig: Rig) -> None:
    needs(rig, "listing")
    backend = preloading(rig, base="nothing-here")
    with rig.counted() as calls:
        assert backend.get_variable("absent") is None
    assert set(calls) == {PAGE}
    with rig.counted() as calls:
        assert [backend.get_variable(f"absent-{number}") for number in range(20)] == [None] * 20
    assert calls == []


def test_patterns_come_first(rig: Rig, thirty: list[str]) -> None:
    backend = preloading(rig, variables_lookup_pattern="key-1", variables_exclude_pattern="key-11")
    with rig.counted() as calls:
        assert backend.get_variable("key-2") is None
        assert backend.get_variable("key-11") is None
    assert calls == []
    assert backend.get_variable("key-1") == "value of key-1"


@pytest.mark.usefixtures("thirty")
def test_changes_are_seen_when_the_listing_has_expired(rig: Rig, clock: Clock) -> None:
    backend, path = preloading(rig), rig.path("variables", "new", base=BASE)
    rig.remove(rig.path("variables", "key-9", base=BASE))
    assert backend.get_variable("new") is None
    rig.put(path, "come")
    clock.now += NEGATIVE_TTL * cache.JITTER[0] - 0.1
    with rig.counted() as calls:
        assert backend.get_variable("new") is None
    assert calls == []
    clock.now += NEGATIVE_TTL
    assert backend.get_variable("new") == "come"
    assert backend.get_variable("key-9") is None
    rig.remove(path)
    clock.now += 2 * NEGATIVE_TTL
    assert backend.get_variable("new") is None


def test_threads_share_one_listing(rig: Rig, thirty: list[str]) -> None:
    one, barrier = preloading(rig), threading.Barrier(32)
    with rig.counted() as calls:
        one.get_variable("absent")
    pages = calls.count(PAGE)

    def look_up(number: int) -> str | None:
        backend = preloading(rig, timeout=61)  # a cache of its own
        barrier.wait(60)
        value: str | None = backend.get_variable(thirty[number % 30])
        return value

    with rig.counted() as calls, ThreadPoolExecutor(32) as pool:
        assert list(pool.map(look_up, range(32))) == [f"value of {thirty[number % 30]}" for number in range(32)]
    assert calls.count(PAGE) == pages


@pytest.mark.usefixtures("clock")  # or on a busy machine the listing is tried once more
@pytest.mark.parametrize("fault", ["denied", "server-error", "malformed", "proxy-404"])
def test_names_are_asked_for_singly_where_listing_fails(
    rig: Rig, fault: str, thirty: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    backend = preloading(rig, max_attempts=1)
    with rig.fault(fault, listings=True), rig.counted() as calls:
        assert [backend.get_variable(key) for key in thirty] == [f"value of {key}" for key in thirty]
        assert backend.get_variable("absent") is None
    assert [call for call in calls if call != PAGE] == [
        rig.path("variables", key, base=BASE) for key in (*thirty, "absent")
    ]
    assert calls.count(PAGE) <= 2
    (warning,) = [message for message in warned(caplog) if "single reads" in message]
    assert "S3cr3t" not in warning


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_listing_that_takes_too_long_leaves_time_for_the_read(
    rig: Rig, fault: str, thirty: list[str], waits: Waits
) -> None:
    backend = preloading(rig, max_attempts=1)
    waits.shortened = lambda seconds: seconds if len(waits.granted) > 1 else 0.3
    with rig.fault(fault, listings=True):
        assert backend.get_variable(thirty[0]) == f"value of {thirty[0]}"
    for_the_listing, for_the_read = waits.granted
    assert 20 < for_the_listing <= 30
    assert 30 < for_the_read <= 60


def test_a_listing_that_is_too_large_is_left(
    rig: Rig, thirty: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needs(rig, "listing")
    monkeypatch.setattr(access, "MAX_LISTING_LENGTH", 100)
    backend = preloading(rig)
    assert backend.get_variable(thirty[0]) == f"value of {thirty[0]}"
    assert any("longer than 100 characters" in message for message in warned(caplog))


def test_listed_values_stand_in_and_listed_absences_do_not(
    rig: Rig,
    thirty: list[str],
    clock: Clock,
) -> None:
    backend = preloading(rig, max_attempts=1)
    assert backend.get_variable(thirty[0]) == f"value of {thirty[0]}"
    assert backend.get_variable("absent") is None
    clock.now += 100
    with rig.fault("server-error"):
        assert backend.get_variable(thirty[0]) == f"value of {thirty[0]}"
        with pytest.raises(LookupFailed):
            backend.get_variable("absent")


@pytest.mark.parametrize("value", ["variable", ["Variables"], '["x"]', {"variables": 1}, 5])
def test_kinds_that_do_not_exist_are_refused(rig: Rig, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="preload"):
        rig.backend(preload=value)


@pytest.mark.parametrize("option", ["cache_ttl", "cache_negative_ttl"])
def test_nothing_is_preloaded_where_nothing_is_kept(rig: Rig, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'preload'.*'{option}'"):
        preloading(rig, BASE, **{option: 0})
