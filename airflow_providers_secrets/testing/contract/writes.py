"""Rules for every store that can be written to, deleted from, or asked who is asking."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from airflow_providers_secrets.errors import (
    ConfigurationError,
    InvalidSecret,
    LookupFailed,
    SecretNotFound,
    SecretRevoked,
    StoreUnavailable,
    Unusable,
)
from airflow_providers_secrets.lookup import operations
from airflow_providers_secrets.lookup.access import store_of
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.lookup.connection_text import fields_of
from airflow_providers_secrets.testing.contract.leaks import CANARY, assert_no_canary
from airflow_providers_secrets.testing.lookups import ONE_TRY, credentials, needs, needs_fault, stored
from airflow_providers_secrets.testing.proxy import Reply, Request
from airflow_providers_secrets.testing.rig import PATIENT, Rig, answer_to


@pytest.mark.parametrize(
    ("key", "value"),
    [("padded", " padded "), ("lines", "multi\nline"), ("unicode", "日本語 ✓ é")],
    ids=lambda one: one[:7],
)
def test_a_variable_that_is_written_is_read_as_typed(rig: Rig, key: str, value: str) -> None:
    needs(rig, "write")
    backend, key = rig.backend(), f"written-{key}"
    try:
        first = operations.write(backend, "variables", key, "first")
        again = operations.write(backend, "variables", key, value)
        assert (first.created, again.created) == (True, False)
        assert {type(written.version) for written in (first, again)} <= {str, type(None)}
        assert backend.get_variable(key) == value
    finally:
        removed(rig, rig.path("variables", key))


def removed(rig: Rig, path: str) -> None:
    """Remove whatever a change has left of *path*: nothing, or what a store keeps of it to be recovered."""
    with contextlib.suppress(Exception):  # as a rig's own client says that there is nothing
        rig.remove(path)


def test_what_is_deleted_is_gone_and_what_was_never_there_is_told(rig: Rig) -> None:
    needs(rig, "delete")
    backend, path = rig.backend(), stored(rig, "deleted", "x")
    try:
        assert operations.delete(backend, "variables", "deleted") == path
        with contextlib.suppress(SecretRevoked):  # it can be recovered
            assert backend.get_variable("deleted") is None
        with pytest.raises(SecretNotFound):
            operations.delete(backend, "variables", "never-there")
    finally:
        removed(rig, path)


def change(backend: Any, act: str) -> None:
    if act == "write":
        operations.write(backend, "variables", "changed", "S3cr3t")
    else:
        operations.delete(backend, "variables", "changed")


@pytest.mark.parametrize("act", ["write", "delete"])
def test_no_request_of_a_change_is_redirected_to_another_host(rig: Rig, act: str) -> None:
    """A write that follows a redirect takes the value there. A store may ask for something before it changes it."""
    needs(rig, act)
    needs_fault(rig, "redirect")
    backend, redirect = rig.backend(**ONE_TRY), rig.faults()["redirect"]
    path = stored(rig, "changed", "x")
    backend.get_variable("changed")  # logs in
    passed, numbers = 0, 0

    def answer(request: Request) -> Reply | None:
        nonlocal numbers
        numbers += 1
        return answer_to(request, redirect) if numbers == passed + 1 else None

    try:
        while passed < 10:
            numbers = 0
            with rig.answering(answer):
                try:
                    change(backend, act)
                except LookupFailed:
                    assert numbers > passed
                else:  # it needs no further request
                    assert numbers == passed > 0, "an answer from elsewhere was taken for the store's own"
                    break
                finally:
                    assert rig.elsewhere.requests == []
            passed += 1
    finally:
        removed(rig, path)


@pytest.mark.parametrize("act", ["write", "delete"])
@pytest.mark.parametrize("fault", ["denied", "proxy-404"])
def test_a_change_that_is_refused_is_no_success_and_no_absence(rig: Rig, act: str, fault: str) -> None:
    """A proxy's 404 does not prove that there is no such name."""
    needs(rig, act)
    backend, path = rig.backend(**ONE_TRY), stored(rig, "changed", "x")
    with rig.fault(fault), pytest.raises(LookupFailed) as raised:
        change(backend, act)
    assert not isinstance(raised.value, SecretNotFound)
    assert rig.backend().get_variable("changed") == "x"
    rig.remove(path)


def test_who_is_asking_and_where_is_told_without_credentials(rig: Rig) -> None:
    """The command and the page show both."""
    needs(rig, "identify")
    backend = rig.backend()
    backend.get_variable("absent")
    told = [store_of(backend.config).address(client) for client in answers_of(backend.config).access.clients]
    assert told
    with contextlib.suppress(StoreUnavailable):  # whoever knows it may be another server, which the rig has not
        identity = operations.identify(backend)
        assert identity is not None
        told += [identity.who, *identity.details.values()]
    for secret in credentials(rig):
        assert secret not in str(told)


def test_a_name_that_is_taken_is_no_outage_and_stays_as_it_is(rig: Rig) -> None:
    needs(rig, "write")
    backend = rig.backend()
    name, text = stored(rig, "taken", "first"), backend.encode("variables", "second")
    tries: list[str] = []

    def write(store: Any, client: object) -> object:
        tries.append(name)
        return store.write(client, name, text, only_if_absent=True)

    with pytest.raises(InvalidSecret, match=r"exists already\. Choose another name, or overwrite it\.$"):
        answers_of(backend.config).access.call(name, PATIENT["timeout"], write, "write")
    assert tries == [name]
    assert backend.get_variable("taken") == "first"


def changed(rig: Rig, act: str) -> list[str]:
    """Change a variable until that fails, and return the name for each attempt that was made."""
    needs(rig, act)
    backend = rig.backend(max_attempts=3)
    name, text = rig.path("variables", "changed"), backend.encode("variables", "S3cr3t")
    tries: list[str] = []

    def change(store: Any, client: object) -> object:
        tries.append(name)
        return store.write(client, name, text) if act == "write" else store.delete(client, name) or True

    with pytest.raises(StoreUnavailable) as raised:
        answers_of(backend.config).access.call(name, PATIENT["timeout"], change, act)
    lost = (
        f"It may have been {'written' if act == 'write' else 'deleted'} all the same: check with airflow-secrets get."
    )
    assert str(raised.value).endswith(lost) is (len(tries) == 1)
    return tries


@pytest.mark.parametrize("act", ["write", "delete"])
@pytest.mark.parametrize("fault", ["reset", "server-error", "truncated"])
def test_a_change_is_not_repeated_where_it_may_have_been_made(rig: Rig, act: str, fault: str) -> None:
    """A second attempt would find the name taken or gone, or write a second version."""
    with rig.fault(fault):
        assert len(changed(rig, act)) == 1


@pytest.mark.parametrize("act", ["write", "delete"])
def test_a_change_that_is_throttled_is_tried_again(rig: Rig, act: str, pauses: list[float]) -> None:
    with rig.fault("throttled"):
        assert len(changed(rig, act)) == 3
    assert len(pauses) == 2


def test_a_failed_write_carries_no_frame_that_holds_the_text(rig: Rig) -> None:
    needs(rig, "write")
    backend = rig.backend(max_attempts=1)
    with rig.fault("reset"), pytest.raises(LookupFailed) as failed:
        operations.write(backend, "variables", "changed", CANARY)
    assert_no_canary(failed.value)
    with pytest.raises(Unusable) as unusable:
        operations.write(backend, "connections", "changed", f"{CANARY}-without-a-type")
    assert_no_canary(unusable.value)
    with pytest.raises(ConfigurationError) as refused:
        operations.write(backend, "variables", "changed", CANARY, settings={"none": "x"})
    assert_no_canary(refused.value)


@pytest.mark.parametrize("unknown", ["refuse", "drop", "extra"])
@pytest.mark.parametrize(
    "held",
    [
        "http://old.example.com",
        '{"uri": "http://old.example.com"}',
        '{"conn_uri": "http://old.example.com", "owner": "data"}',
        '{"conn_type": "http", "host": "old.example.com", "passphrase": "old", "schema": "old"}',
        '{"conn_type": "http", "host": "old.example.com", "owner": "data"}',
    ],
)
def test_a_connection_that_is_written_is_the_one_that_is_read(rig: Rig, held: str, unknown: str) -> None:
    """This holds whatever was there, even if some of it stays; otherwise nothing is written."""
    needs(rig, "write")
    backend = rig.backend(**PATIENT, unknown_fields=unknown, extra_conn_words={"password": ["passphrase"]})
    path = rig.path("connections", "written-over")
    for text in ('{"conn_type": "http", "host": "new.example.com", "password": "new"}', "http://new.example.com"):
        rig.put(path, held)
        try:
            operations.write(backend, "connections", "written-over", text)
        except Unusable:
            assert json.loads(held)["owner"]
            continue
        assert fields_of(backend.get_conn_value("written-over")) == fields_of(text)
