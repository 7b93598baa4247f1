"""What the tests of several stores share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_providers_secrets.testing.proxy import Proxy


@pytest.fixture
def sts() -> Iterator[Proxy]:
    """STS, that is moto's, behind a proxy of its own."""
    from tests.rigs.aws import moto  # the other stores' tests need no boto3

    proxy = Proxy(moto().get_host_and_port())
    yield proxy
    proxy.stop()
