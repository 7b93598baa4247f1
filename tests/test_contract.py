"""What holds for every backend, on every server of its store."""

from __future__ import annotations

import pytest

from tests.rigs import Rig

LOOKUP = {"connections": "get_conn_value", "variables": "get_variable", "config": "get_config"}
VALUE = {"connections": "postgres://u:p@h:5432/db", "variables": "as typed", "config": "sqlite://"}


@pytest.mark.parametrize("kind", LOOKUP)
def test_found_by_one_request(rig: Rig, kind: str) -> None:
    rig.put(rig.path(kind, "found"), VALUE[kind])
    with rig.counted() as calls:
        assert getattr(rig.backend(), LOOKUP[kind])("found") == VALUE[kind]
    assert calls == [rig.path(kind, "found")]
