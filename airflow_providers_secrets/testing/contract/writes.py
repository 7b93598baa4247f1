"""Rules for every store that can be written to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_providers_secrets.errors import ConfigurationError, InvalidSecret, LookupFailed, StoreUnavailable, Unusable
from airflow_providers_secrets.lookup import operations
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.lookup.connection_text import fields_of
from airflow_providers_secrets.testing.contract.leaks import CANARY, assert_no_canary
from airflow_providers_secrets.testing.lookups import needs, stored
from airflow_providers_secrets.testing.rig import PATIENT, Rig


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
