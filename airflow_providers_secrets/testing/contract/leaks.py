"""No frame of an error's traceback holds what was stored: error trackers send the local variables of frames."""

from __future__ import annotations

import gc
import logging
import traceback
from types import FrameType
from typing import Any

import pytest

from airflow_providers_secrets.backends.mixin import airflow_knows_denials
from airflow_providers_secrets.errors import InvalidSecret, LookupFailed
from airflow_providers_secrets.testing.rig import Rig

CANARY = "S3cr3t-canary"

STORED = [
    f"{CANARY}-without-a-type",
    f"postgres://u:{CANARY}/p@h",
    f"http://http://{CANARY}",
    f'{{"conn_type": "x", "password": "{CANARY}"',
    f'{{"conn_type": "x", "password": ["{CANARY}"]}}',
    f'{{"conn_type": "x", "password": "{CANARY}", "port": "{CANARY}"}}',
    f'{{"conn_type": "x", "password": "{CANARY}", "extra": 5}}',
    '{"conn_type": "x", "password": 5, "extra": ' + '{"a":' * 100_000 + f'"{CANARY}"' + "}" * 100_001,
]


def frames_of(error: BaseException) -> list[FrameType]:
    found = []
    for one in (error, error.__cause__, error.__context__):
        if one is not None:
            found += [frame for frame, _ in traceback.walk_tb(one.__traceback__)]
    ours = [frame for frame in found if "airflow_providers_secrets" in frame.f_code.co_filename]
    return [frame for frame in ours if frame.f_code.co_filename != __file__]  # a test knows what it has stored


def assert_no_canary(error: BaseException) -> None:
    frames = frames_of(error)
    assert frames  # those of the lookup itself
    for frame in frames:
        for name, value in frame.f_locals.items():
            texts = [text for text in gc.get_referents(value) if isinstance(text, str)]
            assert CANARY not in repr(value) + "".join(texts), f"{name} of {frame.f_code.co_name}"
    assert CANARY not in "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.each_rig_in_ci
@pytest.mark.parametrize("cache_ttl", [0, 60])
@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored[:24])
def test_unusable_connection_is_on_no_frame(rig: Rig, stored: str, cache_ttl: int) -> None:
    rig.put(rig.path("connections", "canary"), stored)
    backend = rig.backend(cache_ttl=cache_ttl)
    for _ in range(2):
        with pytest.raises(InvalidSecret) as raised:
            backend.get_conn_value("canary")
        assert_no_canary(raised.value)


@pytest.mark.each_rig_in_ci
def test_what_no_table_foresaw_is_on_no_frame(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = rig.backend()

    def decode(kind: str, stored: str) -> str:
        copy = stored
        raise KeyError(copy)

    decoding = backend.members[0].backend if hasattr(backend, "members") else backend
    monkeypatch.setattr(decoding, "decode", decode)
    rig.put(rig.path("variables", "canary"), CANARY)
    with pytest.raises(LookupFailed, match="unexpected KeyError") as raised:
        backend.get_variable("canary")
    assert_no_canary(raised.value)


@pytest.mark.each_rig_in_ci
def test_the_sdk_logs_nothing_of_a_lookup(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of the first one nor of the next, which uses loggers that the SDK created in the first."""
    rig.put(rig.path("variables", "canary"), CANARY)
    backend = rig.backend()
    for _ in range(2):
        with caplog.at_level(logging.DEBUG):
            assert backend.get_variable("canary") == CANARY
    # A rig's server may run in this process and log, too.
    logged = [record.name for record in caplog.records if record.threadName == "secrets-lookup"]
    assert [name for name in logged if not name.startswith("airflow_providers_secrets")] == []


@pytest.mark.each_rig_in_ci
@pytest.mark.skipif(not airflow_knows_denials(), reason="needs Airflow 3.2.2")
def test_authoritative_denial_carries_no_frame_that_holds_it(rig: Rig) -> None:
    rig.put(rig.path("connections", "canary"), STORED[0])
    backend: Any = rig.backend(on_invalid="fail")
    with pytest.raises(PermissionError) as raised:
        backend.get_conn_value("canary")
    assert_no_canary(raised.value)
