"""What every store that can be written to holds to."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_providers_secrets.errors import InvalidSecret
from airflow_providers_secrets.lookup.answers import answers_of
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
