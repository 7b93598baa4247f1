"""A lookup does not trust what is between it and its store: redirects, proxies, netrc files, broken listings."""

from __future__ import annotations

import base64
import dataclasses
import functools
import itertools
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.errors import AccessDenied, InvalidSecret, LookupFailed, StoreUnavailable
from airflow_providers_secrets.lookup import access, answers
from airflow_providers_secrets.lookup.outcomes import ADVICE, ERRORS, advice
from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.base import COMMON_OUTCOMES, MALFORMED, Outcome, Store
from airflow_providers_secrets.testing.lookups import (
    KEY,
    ONE_TRY,
    Waits,
    credentials,
    failing,
    hanging,
    needs,
    needs_fault,
    stored,
    warned,
)
from airflow_providers_secrets.testing.proxy import Reply, Request
from airflow_providers_secrets.testing.rig import PAGE, Rig

# Other hosts.


def test_redirect_to_another_host_is_refused(rig: Rig) -> None:
    needs_fault(rig, "redirect")
    stored(rig, "found", "x")
    backend = rig.backend()
    with rig.fault("redirect"), pytest.raises(LookupFailed) as raised:
        backend.get_variable("found")
    assert rig.elsewhere.requests == []
    assert "S3cr3t" not in str(raised.value)


def test_redirect_of_a_listing_to_another_host_is_refused(rig: Rig) -> None:
    needs_fault(rig, "redirect")
    stored(rig, "found", "x")
    with rig.fault("redirect", listings=True):
        assert rig.caching(preload=["variables"]).get_variable("found") == "x"
    assert rig.elsewhere.requests == []


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's netrc with a login for every host of this machine; returns the part that would show in a header."""
    (tmp_path / ".netrc").write_text(
        "".join(f"machine {host} login netrc-user password netrc-password\n" for host in ("127.0.0.1", "localhost"))
        + "default login netrc-user password netrc-password\n"
    )
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    return base64.b64encode(b"netrc-user:netrc-password").decode()


def test_netrc_is_never_sent(rig: Rig, netrc: str) -> None:
    stored(rig, "found", "x")
    before = len(rig.requests)
    assert rig.caching(preload=["variables"]).get_variable("found") == "x"
    sent = rig.requests[before:]
    assert sent
    for request in sent:
        assert netrc not in str(request.headers)
        assert b"netrc-password" not in request.body


def test_netrc_would_be_seen(netrc: str) -> None:
    """The control of the test above: requests by itself sends it."""
    requests = pytest.importorskip("requests")
    prepared = requests.Session().prepare_request(requests.Request("GET", "http://127.0.0.1:1/"))
    assert netrc in str(prepared.headers)


# Bodies.


def test_undecodable_bytes_are_never_replaced(rig: Rig) -> None:
    backend = rig.backend()
    stored(rig, "found", "x")
    with rig.fault("undecodable"), pytest.raises(InvalidSecret) as raised:
        backend.get_variable("found")
    assert "S3cr3t" not in str(raised.value)


def test_endless_body_is_read_within_bounds(rig: Rig, waits: Waits) -> None:
    """It is read until the deadline, or until it is longer than any answer."""
    stored(rig, "found", "x")
    backend = rig.backend(**ONE_TRY)
    backend.get_variable("found")  # so that one-time imports and allocations are not counted
    waits.shortened = lambda _: 5.0
    tracemalloc.start()
    try:
        with rig.fault("endless"), pytest.raises(LookupFailed):
            backend.get_variable("found")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 160 * 1024 * 1024  # the rig's own copies included
    assert not hanging()


def test_endless_drip_ends_at_the_deadline(rig: Rig, waits: Waits) -> None:
    stored(rig, "found", "x")
    backend = rig.backend(**ONE_TRY)
    backend.get_variable("found")
    waits.shortened = lambda _: 0.3
    with rig.fault("drip"), pytest.raises(StoreUnavailable, match="no answer within"):
        backend.get_variable("found")


# Listings.


@pytest.fixture
def listed(rig: Rig) -> Iterator[list[str]]:
    """The store's names of three variables under a base of their own."""
    names = [rig.path("variables", f"one-{number}", base="listed") for number in range(3)]
    for name in names:
        rig.put(name, f"text of {name}")
    yield names
    for name in names:
        rig.remove(name)


def preloading_those(rig: Rig, **options: Any) -> Any:
    base = {rig.prefix_option.format(kind="variables"): "listed"}
    return rig.caching(preload=["variables"], **base, **options)


def assert_each_is_read_by_itself(rig: Rig, backend: Any, names: list[str]) -> None:
    with rig.counted() as calls:
        assert [backend.get_variable(f"one-{number}") for number in range(3)] == [f"text of {name}" for name in names]
        assert backend.get_variable("absent") is None
    assert [call for call in calls if call != PAGE] == [*names, rig.path("variables", "absent", base="listed")]


def test_error_on_a_later_page_leaves_no_partial_listing(rig: Rig, listed: list[str], caplog: Any) -> None:
    needs(rig, "listing")
    pages = itertools.count()
    denial = Reply(500, b"<html>S3cr3t</html>", {"Content-Type": "text/html"})

    def answer(_: Request) -> Reply:
        return denial if next(pages) else rig.page(listed[:1], "more")

    with rig.answering(answer, listings=True):
        assert_each_is_read_by_itself(rig, preloading_those(rig, **ONE_TRY), listed)
    assert next(pages) >= 2
    assert any("Falling back to single reads" in message for message in warned(caplog))


@pytest.mark.parametrize("names", [0, 1], ids=["empty pages", "pages of one"])
def test_repeated_page_token_leaves_no_partial_listing(rig: Rig, listed: list[str], names: int, caplog: Any) -> None:
    with rig.answering(lambda _: rig.page(listed[:names], "again"), listings=True):
        assert_each_is_read_by_itself(rig, preloading_those(rig, **ONE_TRY), listed)
    assert any("Falling back to single reads" in message for message in warned(caplog))


@pytest.mark.parametrize("names", [0, 1], ids=["empty pages", "pages of one"])
def test_endless_page_tokens_end(rig: Rig, listed: list[str], names: int, waits: Waits, caplog: Any) -> None:
    """They end at the deadline at the latest, and no thread keeps paging."""
    waits.shortened = lambda seconds: seconds if len(waits.granted) > 1 else 1.0
    tokens = itertools.count()
    with rig.answering(lambda _: rig.page(listed[:names], f"token-{next(tokens)}"), listings=True):
        assert_each_is_read_by_itself(rig, preloading_those(rig, **ONE_TRY), listed)
        assert not hanging()
    assert any("Falling back to single reads" in message for message in warned(caplog))


def test_listing_holds_nothing_outside_its_prefix(rig: Rig, listed: list[str]) -> None:
    """A store, or whatever answers in its place, may list names that were not asked for."""
    needs(rig, "listing")
    foreign = rig.path("variables", "one-0", base="other")
    backend = preloading_those(rig)
    prefix = backend.name_start(next(iter(backend.rule("variables").prefixes or ())))
    asked = access.StoreAccess(backend.config)
    with rig.answering(lambda _: rig.page([*listed, foreign], None), listings=True):
        assert set(asked.ask_for_all(prefix, 10)) == set(listed)


# An empty prefix.


def test_empty_prefix_asks_for_the_bare_name(rig: Rig) -> None:
    option = rig.prefix_option.format(kind="variables")
    bare = rig.path("variables", "bare", base="")
    rig.put(bare, "x")
    try:
        with rig.counted() as calls:
            assert rig.backend(**{option: ""}).get_variable("bare") == "x"
        assert calls == [bare]
    finally:
        rig.remove(bare)


@pytest.mark.parametrize(
    "secret_id", ["../variables/found", "a//b", "/found", "a\nb", "found?x=1", "found#x", "%2e%2e"]
)
def test_empty_prefix_refuses_what_every_prefix_refuses(rig: Rig, secret_id: str) -> None:
    options = {rig.prefix_option.format(kind=kind): "" for kind in ("variables", "connections", "config")}
    backend = rig.backend(**options)
    with rig.counted() as calls:
        assert backend.get_variable(secret_id) is None
    assert all(call == rig.path("variables", secret_id, base="") for call in calls)


# Throttling.


def test_throttling_is_asked_again_after_a_longer_pause(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = recorded_pauses(monkeypatch)
    backend = rig.backend(max_attempts=3)
    with rig.fault("throttled"), rig.counted() as calls, pytest.raises(StoreUnavailable):
        backend.get_variable("found")
    assert len(calls) == 3
    assert len(pauses) == 3  # the last one is not waited for
    assert access.BACKOFF[Outcome.THROTTLED][0] > access.BACKOFF[Outcome.UNAVAILABLE][0]
    assert all(outcome is Outcome.THROTTLED for outcome, _ in pauses)


def test_retry_after_is_honoured_within_the_deadline(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = recorded_pauses(monkeypatch)
    backend = rig.backend(max_attempts=3, timeout=7200.0)
    with rig.fault("throttled-for-an-hour"), rig.counted() as calls, pytest.raises(StoreUnavailable):
        backend.get_variable("found")
    assert len(calls) == 2  # a third call would come after the deadline
    assert pauses[0][1] == 3600.0


@pytest.mark.parametrize(
    ("retry_after", "calls_made", "pause"),
    [("Sun, 06 Nov 1994 09:49:37 GMT", 2, 3600.0), ("3600000", 1, 1e6)],
    ids=["date", "beyond-any-deadline"],
)
def test_retry_after_of_another_form_is_honoured(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, retry_after: str, calls_made: int, pause: float
) -> None:
    answer = rig.faults()["throttled-for-an-hour"]
    if not isinstance(answer, Reply) or "Retry-After" not in answer.headers:
        pytest.skip("the protocol has no Retry-After")
    monkeypatch.setattr(base, "wall_clock", lambda: 784111777.0)  # an hour before
    pauses = recorded_pauses(monkeypatch)
    backend = rig.backend(max_attempts=3, timeout=7200.0)
    again = dataclasses.replace(answer, headers={**answer.headers, "Retry-After": retry_after})
    with rig.answering(again), rig.counted() as calls, pytest.raises(StoreUnavailable):
        backend.get_variable("found")
    assert len(calls) == calls_made
    assert pauses[0][1] == pause


def test_retry_after_beyond_the_deadline_is_not_waited_for(rig: Rig) -> None:
    backend = rig.backend(max_attempts=3)
    with rig.fault("throttled-for-an-hour"), rig.counted() as calls, pytest.raises(StoreUnavailable):
        backend.get_variable("found")
    assert len(calls) == 1


def recorded_pauses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Outcome | None, float]]:
    """Return the outcome and the seconds of each pause between attempts; none is waited for."""
    pauses: list[tuple[Outcome | None, float]] = []
    now = [0.0]
    pause = access.StoreAccess._pause

    def recorded(self: access.StoreAccess, store: Store, state: Any) -> float:
        seconds = pause(self, store, state)
        pauses.append((self._outcome(store, state.outcome.exception()), seconds))
        return seconds

    def slept(_: threading.Event) -> Any:
        def sleep(seconds: float) -> None:
            now[0] += seconds

        return sleep

    monkeypatch.setattr(access.StoreAccess, "_pause", recorded)
    monkeypatch.setattr(access, "sleep_using_event", slept)
    # tenacity measures by time.monotonic the time that has passed before an attempt.
    monotonic = time.monotonic
    monkeypatch.setattr("tenacity.time.monotonic", lambda: monotonic() + now[0])
    return pauses


# Who asks.


def test_another_identity_is_never_answered_from_the_shared_cache(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(rig, "whose", "x")
    sharing = functools.partial(rig.backend, cache_ttl=60, shared_cache=f"file://{tmp_path}/c", shared_cache_key=KEY)

    def asked() -> list[str]:
        with rig.counted() as calls:
            answers.reset_after_fork()  # as a process that has just started
            assert sharing().get_variable("whose") == "x"
        return calls

    assert asked() == [path]
    assert asked() == []
    for variable in rig.ambient:
        for value in ("one", "another"):
            monkeypatch.setenv(variable, value)
            assert asked() == [path], (variable, value)
        monkeypatch.delenv(variable)
    assert asked() == []


# Advice.


def store_class(rig: Rig) -> type[Store]:
    return type(access.store_of(rig.backend().config))


def test_every_code_has_an_advice_of_one_sentence(rig: Rig) -> None:
    store = store_class(rig)
    known: dict[Any, Outcome] = {**COMMON_OUTCOMES, **store.outcomes}
    for code, outcome in known.items():
        cure = advice((code,), outcome, store.advice)
        assert cure.endswith("."), code
        assert cure.count(". ") == 0, (code, cure)
        assert cure[0].isupper(), (code, cure)
        assert len(cure) <= 130, (code, cure)


def test_advice_of_each_outcome_is_its_own(rig: Rig) -> None:
    store = store_class(rig)
    of_outcomes = {outcome: advice((), outcome, store.advice) for outcome in ERRORS}
    assert len(set(of_outcomes.values())) == len(of_outcomes)
    # The advice for a code is never that of an outcome that the code does not have.
    for code, outcome in {**COMMON_OUTCOMES, **store.outcomes}.items():
        cure = advice((code,), outcome, store.advice)
        assert cure not in [text for other, text in of_outcomes.items() if other is not outcome], code


# Words of which the advice for such a fault must have one, and words that it must not have.
FITTING = {
    "denied": ("Allow Give Grant", "Rewrite"),
    "throttled": ("quota", "Rewrite"),
    "server-error": ("healthy", "Rewrite"),
    "redirect": ("address endpoint url", "Rewrite Remove"),
    "malformed": ("address endpoint url", "Rewrite Allow"),
    "undecodable": ("address endpoint url", "Rewrite Allow"),
    "endless": ("address endpoint url", "Rewrite Allow"),
    "wrong-name": ("address endpoint url", "Rewrite Allow"),
}


@pytest.mark.parametrize("name", FITTING)
def test_advice_fits_the_code(rig: Rig, name: str) -> None:
    needs_fault(rig, name)
    stored(rig, "found", "x")
    backend = rig.backend(**ONE_TRY)
    backend.get_variable("found")
    with rig.fault(name), pytest.raises(LookupFailed) as raised:
        backend.get_variable("found")
    fitting, unfit = (words.split() for words in FITTING[name])
    assert any(word in raised.value.advice for word in fitting), raised.value
    assert not any(word in raised.value.advice for word in unfit), raised.value


def test_advice_of_a_login_is_about_the_login(rig: Rig) -> None:
    """A code that no table knows still gets the advice of its outcome."""
    assert advice(("never heard of",), Outcome.DENIED, store_class(rig).advice) != ADVICE[Outcome.INVALID]
    assert advice((MALFORMED,), Outcome.INVALID, store_class(rig).advice) != ADVICE[Outcome.INVALID]


def test_denial_is_remembered_without_credentials(rig: Rig) -> None:
    with rig.fault("denied"):
        (error,) = failing(lambda: rig.backend().get_variable("found"))
    assert isinstance(error, AccessDenied)
    for secret in credentials(rig):
        assert secret not in str(error.__dict__)
