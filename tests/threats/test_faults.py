"""The fault matrix: faults by store, kind and state of the cache.

In each cell: which error, how many attempts, what stands in, and that nothing is kept that the store has not proven.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from airflow_providers_secrets.errors import (
    AccessDenied,
    InvalidSecret,
    LookupFailed,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import answers
from airflow_providers_secrets.lookup.plan import KINDS
from airflow_providers_secrets.testing.lookups import ONE_TRY, TTL, VALUE, Clock, Waits, ask, needs_fault
from airflow_providers_secrets.testing.proxy import Reply
from tests.rigs import FAULTS, HOSTILE_FAULTS, Rig
from tests.threats.conftest import Login

pytestmark = [pytest.mark.usefixtures("no_pauses"), pytest.mark.each_rig_in_ci]

OUTCOME: dict[str, tuple[type[LookupFailed], ...]] = {
    "denied": (AccessDenied,),
    "throttled": (StoreUnavailable,),
    "throttled-for-an-hour": (StoreUnavailable,),
    "server-error": (StoreUnavailable,),
    "proxy-403": (AccessDenied, StoreUnavailable),
    "proxy-404": (StoreUnavailable,),
    "malformed": (InvalidSecret,),
    "truncated": (StoreUnavailable,),
    "reset": (StoreUnavailable,),
    "hang": (StoreUnavailable,),
    "drip": (StoreUnavailable,),
    "wrong-name": (InvalidSecret,),
    "redirect": (StoreMisconfigured,),
    "undecodable": (InvalidSecret,),
    "endless": (InvalidSecret, StoreUnavailable),
}
"""What each fault is, and never an absence."""

SPOKEN = ("denied",)
"""The faults after which nothing stands in that was known before."""

NEVER_ENDING = ("hang", "drip", "endless")
STATES = ("cold", "warm", "expired")
CELLS = list(itertools.product(KINDS, STATES))
QUICK = [("connections", "cold"), ("variables", "warm"), ("variables", "expired"), ("config", "cold")]
LATER = 120.0
"""Seconds after which a failure is forgotten, whatever it was, and the store asked again."""


def cell(rig: Rig, fault: str, kind: str, state: str, clock: Clock, waits: Waits) -> None:
    answers.reset_after_fork()
    attempts = 1 if fault in NEVER_ENDING else 2
    backend = rig.caching(max_attempts=attempts)
    secret_id = f"{fault}-{kind}-{state}"
    path = rig.path(kind, secret_id)
    rig.put(path, VALUE[kind])
    assert ask(backend, kind, f"{secret_id}-absent") is None  # whoever has logged in
    if state != "cold":
        assert ask(backend, kind, secret_id) == VALUE[kind]
    if state == "expired":
        clock.now += TTL
    waits.shortened = lambda seconds: 0.3 if fault in ("hang", "drip") else seconds
    with rig.fault(fault), rig.counted() as calls:
        answer = answered(backend, kind, secret_id)
        if state == "warm":
            assert answer == VALUE[kind]
        elif state == "expired" and fault not in SPOKEN:
            assert answer == VALUE[kind]  # stands in
        else:
            assert isinstance(answer, OUTCOME[fault]), answer
        # What was found out stands for the next lookup, and is no absence.
        again = answered(backend, kind, secret_id)
        assert again == answer or type(again) is type(answer)
    waits.shortened = lambda seconds: seconds
    most = attempts + (fault in ("denied", "proxy-403"))  # Vault logs in anew once
    assert len(calls) <= (0 if state == "warm" else most), calls
    assert set(calls) <= {path}
    clock.now += LATER
    assert ask(rig.caching(max_attempts=3), kind, secret_id) == VALUE[kind]
    rig.remove(path)


def answered(backend: Any, kind: str, secret_id: str) -> Any:
    """The answer, or the error."""
    try:
        return ask(backend, kind, secret_id)
    except LookupFailed as error:
        return error


@pytest.mark.parametrize("fault", [*FAULTS, *HOSTILE_FAULTS])
def test_fault(rig: Rig, fault: str, clock: Clock, waits: Waits, tally: dict[str, int]) -> None:
    needs_fault(rig, fault)
    for kind, state in QUICK:
        cell(rig, fault, kind, state, clock, waits)
    tally["cells of the fault matrix"] = len(QUICK)


@pytest.mark.long
@pytest.mark.parametrize("fault", [*FAULTS, *HOSTILE_FAULTS])
def test_fault_in_every_kind_and_state(rig: Rig, fault: str, clock: Clock, waits: Waits, tally: dict[str, int]) -> None:
    needs_fault(rig, fault)
    rest = [one for one in CELLS if one not in QUICK]
    for kind, state in rest:
        cell(rig, fault, kind, state, clock, waits)
    tally["cells of the fault matrix"] = len(rest)


# Who gives credentials.

LOGIN_FAULTS: dict[str, Reply] = {
    "server-error": Reply(500, b"S3cr3t"),
    "proxy-404": Reply(404, b"<html>S3cr3t</html>", {"Content-Type": "text/html"}),
    "throttled": Reply(429, b"S3cr3t"),
    "malformed": Reply(200, b'{"S3cr3t": ', {"Content-Type": "application/json"}),
    "undecodable": Reply(200, b'{"S3cr3t": "\xff"}', {"Content-Type": "application/json"}),
    "nonsense": Reply(200, b"[[[[]]]]", {"Content-Type": "application/json"}),
    "endless": Reply(200, b" " * 65536, {"Content-Type": "application/json"}, endless=True),
    "truncated": Reply(200, b'{"access_token": "S3cr3t"}' * 20, {"Content-Type": "application/json"}, truncate=True),
    "drip": Reply(200, b'{"access_token": "S3cr3t"}' * 20, {"Content-Type": "application/json"}, drip=0.1),
    "reset": Reply(reset=True),
    "hang": Reply(hang=True),
}


@pytest.mark.parametrize("fault", LOGIN_FAULTS)
def test_fault_of_a_login(
    rig: Rig, login: Login, fault: str, clock: Clock, waits: Waits, tally: dict[str, int]
) -> None:
    """A typed error, in time, without what was answered; and forgotten once the login works."""
    path = rig.path("variables", "found")
    rig.put(path, "x")
    backend = rig.backend_class(**{**login.options, "max_attempts": 2, "timeout": 60.0})
    waits.shortened = lambda _: 0.5
    with login.fault(LOGIN_FAULTS[fault]), rig.counted() as calls, pytest.raises(LookupFailed) as raised:
        backend.get_variable("found")
    assert "S3cr3t" not in str(raised.value)
    assert set(calls) <= {path}  # Azure asks how to log in by asking for it
    assert len(calls) <= 2
    waits.shortened = lambda seconds: seconds
    answers.reset_after_fork()
    assert backend.get_variable("found") == "x"
    tally["faults of logins"] = 1


# Time, by the wall.


@pytest.mark.measured
@pytest.mark.parametrize("where", ["store", "login"])
@pytest.mark.parametrize("fault", ["hang", "drip", "endless"])
def test_lookup_ends_half_a_second_after_its_deadline(rig: Rig, login: Login, fault: str, where: str) -> None:
    rig.put(rig.path("variables", "found"), "x")
    backend = rig.backend_class(**{**login.options, "timeout": 60.0})
    backend.get_variable("found")  # what is imported once is not what hangs
    backend = rig.backend_class(**{**login.options, "timeout": 1.0})
    with login.fault(LOGIN_FAULTS[fault]) if where == "login" else rig.fault(fault):
        started = time.monotonic()
        with pytest.raises(LookupFailed):
            backend.get_variable("found")
        assert time.monotonic() - started <= 1.5


def test_every_fault_has_an_outcome() -> None:
    assert set(OUTCOME) == {*FAULTS, *HOSTILE_FAULTS}
    assert ONE_TRY["max_attempts"] == 1
