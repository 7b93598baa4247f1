"""What Airflow passes as options, and what it silently does not."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend as Backend
from airflow_providers_secrets.errors import ConfigurationError


@pytest.mark.parametrize("raw", ["{'single': 'quotes'}", '{"a": "S3cr3t",}', '["S3cr3t"]', "S3cr3t"])
@pytest.mark.parametrize("variable", ["SECRETS__BACKEND_KWARGS", "WORKERS__SECRETS_BACKEND_KWARGS"])
def test_lost_backend_kwargs_are_noticed(raw: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"AIRFLOW__{variable}", raw)
    with pytest.raises(ConfigurationError, match=r"backend_kwargs.* JSON") as raised:
        Backend()
    assert "S3cr3t" not in str(raised.value)
    # What a caller passes by itself is not lost.
    assert Backend(timeout=5)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({}, {"timeout": "10"}, True),
        ({}, {"timeout": 11}, False),
        ({}, {"variables_prefix": "/other", "variables_lookup_pattern": "x"}, True),
        ({"region_name": "eu-west-1"}, {"region_name": "eu-west-2"}, False),
        ({"preload": ["variables"]}, {"preload": '["variables"]'}, True),
    ],
)
def test_a_client_is_shared_by_who_agrees_on_what_makes_it(
    first: dict[str, Any], second: dict[str, Any], same: bool
) -> None:
    one, other = Backend(**first).config, Backend(**second).config
    assert (one.fingerprint == other.fingerprint) is same
